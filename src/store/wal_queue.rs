//! Pure. Records waiting for the committer, already divided into the groups they will be written in.
//!
//! ```text
//! push -> | body: record record ..   tickets: t t .. | body ..   |     -> take (front, however full)
//!                                                      ^ the back one is being filled
//! ```
//!
//! A group is complete at so many records or at 1 MiB; a larger record is a group of its own. Bytes count
//! from `push` to `done`, so the records in flight count too. The buffers go round: in steady state nothing is
//! allocated.

use std::collections::VecDeque;

use super::format::record;
use super::{Op, Refused};
use crate::base::limits::WAL_QUEUE_BYTES_MAX;
use crate::base::time::Instant;

/// A group holds at most this many bytes of records, unless one record alone is larger.
const GROUP_BYTES_MAX: usize = 1 << 20;
/// Emptied groups kept for use again.
const IDLE_GROUPS_MAX: usize = 2;

/// A group in the making, or being written.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(crate) body: Vec<u8>,
    pub(crate) tickets: Vec<u64>,
    /// When its first record came.
    pub(crate) since: Instant,
}

/// What waits to be written.
#[derive(Debug)]
pub(crate) struct Queue {
    groups: VecDeque<Pending>,
    idle: Vec<Pending>,
    records_per_group_max: usize,
    bytes: usize,
    closed: bool,
}

impl Queue {
    pub(crate) fn new(records_per_group_max: usize) -> Queue {
        Queue {
            groups: VecDeque::new(),
            idle: Vec::new(),
            records_per_group_max: records_per_group_max.max(1),
            bytes: 0,
            closed: false,
        }
    }

    /// Adds one record. Refused: nothing was added.
    pub(crate) fn push<'a>(
        &mut self,
        ops: impl Iterator<Item = Op<'a>>,
        ticket: u64,
        now: impl FnOnce() -> Instant,
    ) -> Result<(), Refused> {
        if self.closed {
            return Err(Refused::Closed);
        }
        if self.bytes >= WAL_QUEUE_BYTES_MAX {
            return Err(Refused::Busy);
        }
        let mut group = match self.groups.pop_back() {
            Some(group) if self.has_room(&group) => group,
            full => {
                self.groups.extend(full);
                self.fresh(now())
            }
        };
        let before = group.body.len();
        record::encode(ops, &mut group.body);
        let added = group.body.len() - before;
        if self.bytes + added > WAL_QUEUE_BYTES_MAX {
            group.body.truncate(before);
            if group.tickets.is_empty() {
                self.recycle(group);
            } else {
                self.groups.push_back(group);
            }
            return Err(Refused::Busy);
        }
        self.bytes += added;
        if before > 0 && group.body.len() > GROUP_BYTES_MAX {
            let mut next = self.fresh(group.since);
            next.body.extend_from_slice(&group.body[before..]);
            group.body.truncate(before);
            self.groups.push_back(group);
            group = next;
        }
        group.tickets.push(ticket);
        self.groups.push_back(group);
        Ok(())
    }

    /// The oldest group, however full it is.
    pub(crate) fn take(&mut self) -> Option<Pending> {
        self.groups.pop_front()
    }

    /// A taken group has been answered.
    pub(crate) fn done(&mut self, group: Pending) {
        self.bytes -= group.body.len();
        self.recycle(group);
    }

    /// Refuses everything from now on.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Closes and gives back what waits.
    pub(crate) fn abandon(&mut self) -> VecDeque<Pending> {
        self.closed = true;
        self.bytes = 0;
        std::mem::take(&mut self.groups)
    }

    /// Bytes of records pushed and not yet done.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn has_room(&self, group: &Pending) -> bool {
        group.tickets.len() < self.records_per_group_max && group.body.len() < GROUP_BYTES_MAX
    }

    fn fresh(&mut self, since: Instant) -> Pending {
        let mut group = self.idle.pop().unwrap_or_default();
        group.since = since;
        group
    }

    fn recycle(&mut self, mut group: Pending) {
        if self.idle.len() < IDLE_GROUPS_MAX && group.body.capacity() <= 2 * GROUP_BYTES_MAX {
            group.body.clear();
            group.tickets.clear();
            self.idle.push(group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::record::{Entry, State};
    use crate::base::version::Version;

    fn put(queue: &mut Queue, value: &[u8], ticket: u64) -> Result<(), Refused> {
        let op = Op {
            key: b"k",
            entry: Entry {
                version: Version::ZERO,
                state: State::Live { value, text: false },
            },
        };
        queue.push([op].into_iter(), ticket, Instant::default)
    }

    fn tickets(queue: &mut Queue) -> Vec<Vec<u64>> {
        let groups = std::iter::from_fn(|| queue.take());
        groups.map(|group| group.tickets).collect()
    }

    #[test]
    fn groups_are_cut_by_records_and_by_bytes() {
        let mut queue = Queue::new(3);
        for ticket in 0..7 {
            put(&mut queue, b"v", ticket).unwrap();
        }
        assert_eq!(tickets(&mut queue), [vec![0, 1, 2], vec![3, 4, 5], vec![6]]);
        let half = vec![0; GROUP_BYTES_MAX / 2];
        let huge = vec![0; 3 * GROUP_BYTES_MAX];
        for (ticket, value) in [(0, &half), (1, &half), (2, &huge), (3, &half)] {
            put(&mut queue, value, ticket).unwrap();
        }
        assert_eq!(tickets(&mut queue), [[0], [1], [2], [3]]);
    }

    #[test]
    fn a_full_queue_refuses_and_keeps_what_it_has() {
        let mut queue = Queue::new(1 << 20);
        let large = vec![0; 8 << 20];
        let taken = (0..100).take_while(|ticket| put(&mut queue, &large, *ticket).is_ok());
        let taken = taken.count();
        assert!(taken >= 10 && queue.bytes() <= WAL_QUEUE_BYTES_MAX);
        assert_eq!(put(&mut queue, &large, 1000), Err(Refused::Busy));
        put(&mut queue, b"small", 1001).unwrap();
        let mut read = Vec::new();
        while let Some(group) = queue.take() {
            assert!(record::Ops::new(&group.body).all(|op| op.is_ok()));
            read.extend_from_slice(&group.tickets);
            queue.done(group);
        }
        let mut expected: Vec<u64> = (0..taken as u64).collect();
        expected.push(1001);
        assert_eq!((read, queue.bytes()), (expected, 0));
    }

    #[test]
    fn a_closed_queue_refuses_and_still_gives() {
        let mut queue = Queue::new(8);
        put(&mut queue, b"v", 1).unwrap();
        queue.close();
        assert_eq!(put(&mut queue, b"v", 2), Err(Refused::Closed));
        assert_eq!(tickets(&mut queue), [[1]]);
    }
}
