//! The write-ahead log of one shard: many writers, one committer, one synced write per group.
//!
//! ```text
//!  append ─┐                  queue: groups being filled
//!  append ─┼─> | group | group |..          run(): take the front group
//!  append ─┘                                  -> one O_DSYNC write (tape.rs)
//!      (goes on while the write is in flight) -> durable(group)      or, on error, failed(tickets)
//! ```
//!
//! Group commit is natural: whatever gathered while the last write ran is the next group. A lone writer waits
//! for one device write and for no timer; a thousand writers share one.
//!
//! Invariants
//! - `durable` is called once per group, in order, only after the group is on stable storage.
//! - A write error poisons the log: nothing is written after it, nothing is retried, and every waiting record
//!   is reported as failed with an unknown outcome. What is on disk is judged at the next open (walk.rs).
//! - A segment is released only when every group in it is in durable tables.
//!
//! What it does not do: apply records (the store does, in `durable`), read (replay.rs), make segments
//! (segments.rs).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{pending, poll_fn};
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::bell::Bell;
use super::format::Owner;
use super::format::frame::Kind;
use super::replay::Resume;
use super::segments::{Pool, Spare};
use super::tape::Tape;
use super::wal_queue::{Pending, Queue};
use super::{Op, Refused};
use crate::base::planted::{self, Bug};
use crate::rt::Rt;

/// An idle log is sealed after this long: from then on rot of the last group cannot pass for a torn tail.
const SEAL_AFTER: Duration = Duration::from_millis(10);

/// How a log is written.
#[derive(Clone, Copy, Debug)]
pub struct WalPolicy {
    /// WAL_COMMIT_INTERVAL: longest a record should wait before its group is written. Natural group commit has
    /// no timer; a longer wait means that the disk is slower than that, and is counted.
    pub commit_interval: Duration,
    /// WAL_MAX_BATCH_SIZE: most records of one group.
    pub records_per_group_max: usize,
    /// Length of a segment, whole pages.
    pub segment_bytes: u64,
}

/// A group that is on stable storage.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    pub seq: u64,
    /// Its records, for `format::record::Ops`.
    pub body: &'a [u8],
    /// One per record, in order.
    pub tickets: &'a [u64],
}

impl<'a> Group<'a> {
    fn of(group: &'a Pending, seq: u64) -> Group<'a> {
        Group {
            seq,
            body: &group.body,
            tickets: &group.tickets,
        }
    }
}

/// Counters since the log was opened, and gauges.
#[derive(Clone, Copy, Debug, Default)]
pub struct WalStats {
    /// Writes waited for: groups, marks and headers.
    pub syncs: u64,
    pub groups: u64,
    pub records: u64,
    /// Bytes written in groups, padding included.
    pub bytes: u64,
    /// Groups whose first record waited longer than the commit interval.
    pub late_groups: u64,
    /// Bytes of records accepted and not yet answered.
    pub queued_bytes: u64,
    /// Segments that hold groups not yet released, and their length together.
    pub segments: u64,
    pub segment_bytes: u64,
}

/// The log of one shard.
pub struct Wal {
    rt: Rt,
    owner: Owner,
    dir: PathBuf,
    policy: WalPolicy,
    pool: Rc<Pool>,
    queue: RefCell<Queue>,
    gate: Cell<Gate>,
    /// Rung when `queue` or `gate` changes.
    work: Bell,
    /// Where `run` starts; it owns the tape from then on.
    tape: Cell<Option<Tape>>,
    /// Segments no longer written to, oldest first.
    held: RefCell<VecDeque<Held>>,
    stats: Cell<WalStats>,
}

/// A segment that must stay until `last_seq` is released.
struct Held {
    path: PathBuf,
    bytes: u64,
    last_seq: u64,
    /// Written by this boot, so it may be used again.
    ours: bool,
}

/// Whether the committer may go on: how a store that cannot flush slows its writers down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    Open,
    /// Memory is full and being flushed: records wait in the queue.
    Wait,
    /// Memory is full and cannot be flushed: records, waiting ones too, are refused as certainly not written.
    Full,
}

/// What the committer does next.
enum Work {
    Group(Pending),
    Refuse(Pending),
    Idle,
    Closed,
}

impl Wal {
    /// Starts a fresh segment in `dir`; what replay found there is never appended to. `resume` is replay's,
    /// `log` gets what an operator should know.
    pub async fn open(
        rt: Rt,
        dir: PathBuf,
        owner: Owner,
        policy: WalPolicy,
        mut resume: Resume,
        log: Rc<dyn Fn(&str)>,
    ) -> io::Result<Rc<Wal>> {
        rt.create_dir(&dir).await?;
        resume.clear(&rt, &dir).await?;
        let next_id = resume.next_segment_id;
        let pool = Pool::start(&rt, &dir, policy.segment_bytes, next_id, log).await?;
        let ready = pool.take(0).await?;
        let tape = Tape::start(&rt, owner, ready, resume.next_seq, 0).await?;
        for path in &resume.hollow {
            // The header just written promises what they did. One that stays only costs space.
            rt.remove(path).await.ok();
        }
        let held = resume.old_segments.into_iter().map(|old| Held {
            path: old.path,
            bytes: old.bytes,
            last_seq: old.last_seq,
            ours: false,
        });
        Ok(Rc::new(Wal {
            queue: RefCell::new(Queue::new(policy.records_per_group_max)),
            gate: Cell::new(Gate::Open),
            work: Bell::default(),
            held: RefCell::new(held.collect()),
            stats: Cell::new(WalStats {
                syncs: 1,
                segments: 1,
                segment_bytes: tape.bytes,
                ..WalStats::default()
            }),
            tape: Cell::new(Some(tape)),
            rt,
            owner,
            dir,
            policy,
            pool,
        }))
    }

    /// Copies `ops` as one atomic record into the queue; `run` reports `ticket` once. Refused: nothing was
    /// queued.
    pub fn append<'a>(
        &self,
        ops: impl Iterator<Item = Op<'a>>,
        ticket: u64,
    ) -> Result<(), Refused> {
        if self.pool.is_refusing() || self.gate.get() == Gate::Full {
            return Err(Refused::Full);
        }
        self.queue
            .borrow_mut()
            .push(ops, ticket, || self.rt.now())?;
        self.work.ring();
        Ok(())
    }

    pub(crate) fn gate(&self) -> Gate {
        self.gate.get()
    }

    pub(crate) fn set_gate(&self, gate: Gate) {
        if self.gate.replace(gate) != gate {
            self.work.ring();
        }
    }

    /// The committer: call it once, in a task of its own.
    ///
    /// `durable` gets every group in order. `failed` gets the tickets of records whose outcome is unknown,
    /// or, with `ErrorKind::StorageFull`, of records that were certainly not written (no segment could be
    /// made ready; the log goes on). After a write error everything waiting has failed and the error is
    /// returned. Returns `Ok` after [`Wal::close`], once the queue is empty and the log is sealed.
    pub async fn run(
        self: Rc<Self>,
        mut durable: impl FnMut(Group<'_>),
        mut failed: impl FnMut(&[u64], &io::Error),
    ) -> io::Result<()> {
        let tape = self.tape.take().expect("run is called once");
        let outcome = self.commit_all(tape, &mut durable, &mut failed).await;
        if let Err(error) = &outcome {
            for group in self.queue.borrow_mut().abandon() {
                failed(&group.tickets, error);
            }
        }
        self.pool.close();
        outcome
    }

    async fn commit_all(
        &self,
        mut tape: Tape,
        durable: &mut impl FnMut(Group<'_>),
        failed: &mut impl FnMut(&[u64], &io::Error),
    ) -> io::Result<()> {
        loop {
            match self.next(tape.is_sealed()).await {
                Work::Group(group) => {
                    let written = self.commit(tape, &group, durable, failed).await;
                    self.queue.borrow_mut().done(group);
                    tape = written?;
                }
                Work::Refuse(group) => {
                    let error =
                        io::Error::new(io::ErrorKind::StorageFull, "memtables cannot be flushed");
                    failed(&group.tickets, &error);
                    self.queue.borrow_mut().done(group);
                }
                Work::Idle => self.mark(&mut tape, Kind::Seal).await?,
                Work::Closed if tape.is_sealed() => return Ok(()),
                Work::Closed => return self.mark(&mut tape, Kind::Seal).await,
            }
        }
    }

    /// The front group, however small it is; or what to do when there is none.
    async fn next(&self, sealed: bool) -> Work {
        let idle = async {
            match sealed {
                true => pending().await,
                false => self.rt.sleep(SEAL_AFTER).await,
            }
        };
        let mut idle = pin!(idle);
        poll_fn(|cx| {
            let mut queue = self.queue.borrow_mut();
            // A closing log writes what it has accepted: replay takes what memory cannot.
            let gate = if queue.is_closed() {
                Gate::Open
            } else {
                self.gate.get()
            };
            if gate != Gate::Wait
                && let Some(group) = queue.take()
            {
                return Poll::Ready(if gate == Gate::Open {
                    Work::Group(group)
                } else {
                    Work::Refuse(group)
                });
            }
            if queue.is_closed() {
                return Poll::Ready(Work::Closed);
            }
            self.work.register(cx);
            idle.as_mut().poll(cx).map(|()| Work::Idle)
        })
        .await
    }

    /// Makes one group durable and reports it. `Err`: the log is poisoned and the group was reported as failed.
    async fn commit(
        &self,
        mut tape: Tape,
        group: &Pending,
        durable: &mut impl FnMut(Group<'_>),
        failed: &mut impl FnMut(&[u64], &io::Error),
    ) -> io::Result<Tape> {
        let waited = self.rt.now().since(group.since);
        let late = u64::from(waited > self.policy.commit_interval);
        if !tape.fits(group.body.len()) {
            let ready = match self.pool.take(Tape::bytes_for(group.body.len())).await {
                Ok(ready) => ready,
                Err(error) => {
                    let why = format!("no WAL segment could be made ready: {error}");
                    failed(
                        &group.tickets,
                        &io::Error::new(io::ErrorKind::StorageFull, why),
                    );
                    return Ok(tape);
                }
            };
            tape = match self.roll(tape, ready).await {
                Ok(tape) => tape,
                Err(error) => {
                    failed(&group.tickets, &error);
                    return Err(error);
                }
            };
        }
        let records = u32::try_from(group.tickets.len()).expect("a policy's records fit a u32");
        let early = planted::is(Bug::AckBeforeSync);
        if early {
            durable(Group::of(group, tape.seq() + 1));
        }
        match tape.write(records, &group.body).await {
            Ok(bytes) => {
                self.count(|stats| {
                    stats.syncs += 1;
                    stats.groups += 1;
                    stats.records += u64::from(records);
                    stats.bytes += bytes;
                    stats.late_groups += late;
                });
                if !early {
                    durable(Group::of(group, tape.seq()));
                }
                Ok(tape)
            }
            Err(error) => {
                let error = poison(&tape, &error);
                failed(&group.tickets, &error);
                Err(error)
            }
        }
    }

    /// Goes on in `ready`. Its header becomes durable before the old segment gets its ROLL: a segment that
    /// ends with a ROLL therefore has a successor, and one that lost it is noticed.
    async fn roll(&self, mut old: Tape, ready: super::segments::Ready) -> io::Result<Tape> {
        let tape = Tape::start(&self.rt, self.owner, ready, old.seq() + 1, old.id)
            .await
            .map_err(|error| poison(&old, &error))?;
        self.mark(&mut old, Kind::Roll).await?;
        self.count(|stats| {
            stats.syncs += 1;
            stats.segments += 1;
            stats.segment_bytes += tape.bytes;
        });
        self.held.borrow_mut().push_back(Held {
            last_seq: old.seq(),
            path: old.path,
            bytes: old.bytes,
            ours: true,
        });
        Ok(tape)
    }

    async fn mark(&self, tape: &mut Tape, kind: Kind) -> io::Result<()> {
        tape.mark(kind)
            .await
            .map_err(|error| poison(tape, &error))?;
        self.count(|stats| stats.syncs += 1);
        Ok(())
    }

    /// Everything up to and including group `seq` is in durable tables: segments that hold nothing later are
    /// used again or removed, oldest first. An error leaves the rest for the next call.
    pub async fn release(&self, seq: u64) -> io::Result<()> {
        let mut removed = false;
        while let Some(held) = self.next_released(seq) {
            if held.ours && self.pool.wants(held.bytes) {
                self.forget(&held);
                self.pool.give(Spare {
                    path: held.path,
                    bytes: held.bytes,
                });
                continue;
            }
            match self.rt.remove(&held.path).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    self.held.borrow_mut().push_front(held);
                    return Err(error);
                }
                _ => {
                    self.forget(&held);
                    removed = true;
                }
            }
        }
        if removed {
            self.rt.sync_dir(&self.dir).await?;
        }
        Ok(())
    }

    /// Length of all segments that wait for a release.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.held.borrow().iter().map(|held| held.bytes).sum()
    }

    fn next_released(&self, seq: u64) -> Option<Held> {
        let mut held = self.held.borrow_mut();
        match held.front() {
            Some(front) if front.last_seq <= seq => held.pop_front(),
            _ => None,
        }
    }

    fn forget(&self, held: &Held) {
        if held.ours {
            self.count(|stats| {
                stats.segments -= 1;
                stats.segment_bytes -= held.bytes;
            });
        }
    }

    /// Refuses new records; `run` commits what is queued, seals the log and returns.
    pub fn close(&self) {
        self.queue.borrow_mut().close();
        self.work.ring();
    }

    #[must_use]
    pub fn stats(&self) -> WalStats {
        let mut stats = self.stats.get();
        stats.queued_bytes = self.queue.borrow().bytes() as u64;
        stats
    }

    fn count(&self, change: impl FnOnce(&mut WalStats)) {
        let mut stats = self.stats.get();
        change(&mut stats);
        self.stats.set(stats);
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.pool.close();
    }
}

/// A write error with the place it happened, and never of kind `StorageFull`, which promises "not written".
fn poison(tape: &Tape, error: &io::Error) -> io::Error {
    io::Error::other(format!("WAL write to {}: {error}", tape.path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::{DISK_PAGE_BYTES, VALUE_BYTES_MAX};
    use crate::base::record::{Entry, State};
    use crate::base::version::Version;
    use crate::rt::sim::World;
    use crate::rt::sim::disk::Fault;
    use crate::store::format::record::Ops;
    use crate::store::replay::{Replayed, replay};
    use crate::store::unreadable::Unreadable;

    const OWNER: Owner = Owner { node: 7, shard: 1 };
    const DIR: &str = "/data/wal";
    const NODE: u16 = 1;

    fn policy(segment_pages: usize) -> WalPolicy {
        WalPolicy {
            commit_interval: Duration::from_millis(5),
            records_per_group_max: 4,
            segment_bytes: (segment_pages * DISK_PAGE_BYTES) as u64,
        }
    }

    /// What the committer reported, and what the tables of a store would hold by now.
    #[derive(Default)]
    struct Seen {
        /// (seq, ticket) of durable records.
        durable: RefCell<Vec<(u64, u64)>>,
        failed: RefCell<Vec<(u64, io::ErrorKind)>>,
        ended: RefCell<Option<Result<(), String>>>,
        flushed_seq: Cell<u64>,
        bell: Bell,
    }

    impl Seen {
        async fn until(&self, done: impl Fn(&Seen) -> bool) {
            poll_fn(|cx| {
                self.bell.register(cx);
                match done(self) {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            })
            .await;
        }

        async fn answers(&self, count: usize) {
            self.until(|seen| seen.durable.borrow().len() + seen.failed.borrow().len() >= count)
                .await;
        }

        async fn end(&self) -> Result<(), String> {
            self.until(|seen| seen.ended.borrow().is_some()).await;
            self.ended.borrow().clone().unwrap()
        }

        fn tickets(&self) -> Vec<u64> {
            self.durable
                .borrow()
                .iter()
                .map(|(_, ticket)| *ticket)
                .collect()
        }
    }

    fn start(rt: &Rt, wal: &Rc<Wal>, seen: &Rc<Seen>) {
        let (wal, seen) = (Rc::clone(wal), Rc::clone(seen));
        rt.spawn(async move {
            let outcome = Rc::clone(&wal).run(
                |group| {
                    assert_eq!(Ops::new(group.body).count(), group.tickets.len());
                    let answers = group.tickets.iter().map(|ticket| (group.seq, *ticket));
                    seen.durable.borrow_mut().extend(answers);
                    seen.bell.ring();
                },
                |tickets, error| {
                    let answers = tickets.iter().map(|ticket| (*ticket, error.kind()));
                    seen.failed.borrow_mut().extend(answers);
                    seen.bell.ring();
                },
            );
            let outcome = outcome.await.map_err(|error| error.to_string());
            seen.ended.replace(Some(outcome));
            seen.bell.ring();
        });
    }

    /// One put whose key is its ticket.
    fn append(wal: &Wal, ticket: u64, value: &[u8]) -> Result<(), Refused> {
        let op = Op {
            key: &ticket.to_be_bytes(),
            entry: Entry {
                version: Version {
                    hlc: ticket,
                    origin: 0,
                },
                state: State::Live { value, text: false },
            },
        };
        wal.append([op].into_iter(), ticket)
    }

    async fn read(rt: &Rt, flushed_seq: u64) -> Result<(Replayed, Vec<u64>), Unreadable> {
        let mut tickets = Vec::new();
        let mut apply = |_: u64, op: Op<'_>| {
            let ticket = u64::from_be_bytes(op.key.try_into().unwrap());
            assert_eq!(op.entry.version.hlc, ticket);
            let value = op.entry.value().unwrap();
            assert!(value.iter().all(|byte| *byte == ticket as u8), "wrong data");
            tickets.push(ticket);
        };
        let dir = PathBuf::from(DIR);
        let replayed = replay(rt, &dir, OWNER, flushed_seq, &mut apply).await?;
        Ok((replayed, tickets))
    }

    async fn open(
        rt: &Rt,
        policy: WalPolicy,
        resume: Resume,
        log: Rc<dyn Fn(&str)>,
    ) -> io::Result<Rc<Wal>> {
        Wal::open(rt.clone(), DIR.into(), OWNER, policy, resume, log).await
    }

    async fn reopen(rt: &Rt, policy: WalPolicy, flushed_seq: u64) -> (Rc<Wal>, Vec<u64>) {
        let (replayed, tickets) = read(rt, flushed_seq).await.unwrap();
        let wal = open(rt, policy, replayed.resume, Rc::new(|_: &str| ()));
        (wal.await.unwrap(), tickets)
    }

    /// A log with `count` one-page records, one per group, closed.
    async fn write_and_close(rt: &Rt, policy: WalPolicy, count: u64) {
        let (wal, _) = reopen(rt, policy, 0).await;
        let seen = Rc::new(Seen::default());
        start(rt, &wal, &seen);
        for ticket in 0..count {
            append(&wal, ticket, &[ticket as u8; 100]).unwrap();
            seen.answers(ticket as usize + 1).await;
        }
        wal.close();
        assert_eq!(seen.end().await, Ok(()));
    }

    #[test]
    fn records_come_back_in_order_after_a_restart() {
        let world = World::new(1);
        let rt = world.boot(NODE, 1).remove(0);
        world.run(&rt, write_and_close(&rt, policy(8), 20));
        let rt = world.boot(NODE, 1).remove(0);
        world.run(&rt, async {
            let (replayed, tickets) = read(&rt, 0).await.unwrap();
            assert_eq!(tickets, (0..20).collect::<Vec<u64>>());
            assert_eq!((replayed.entries, replayed.groups), (20, 20));
            assert!(replayed.torn_tail.is_none());
            assert_eq!(replayed.resume.next_seq, 21);
            let (_, tickets) = read(&rt, 15).await.unwrap();
            assert_eq!(tickets, (15..20).collect::<Vec<u64>>());
        });
    }

    #[test]
    fn many_waiters_share_one_sync() {
        let world = World::new(2);
        let rt = world.boot(NODE, 1).remove(0);
        world.run(&rt, async {
            let policy = WalPolicy {
                records_per_group_max: 512,
                ..policy(1024)
            };
            let (wal, _) = reopen(&rt, policy, 0).await;
            let seen = Rc::new(Seen::default());
            start(&rt, &wal, &seen);
            for ticket in 0..500 {
                append(&wal, ticket, b"").unwrap();
            }
            let before = wal.stats().syncs;
            seen.answers(500).await;
            let stats = wal.stats();
            assert_eq!(
                (stats.syncs - before, stats.groups, stats.records),
                (1, 1, 500)
            );
            assert_eq!(stats.queued_bytes, 0);
        });
    }

    #[test]
    fn a_batch_larger_than_a_segment_gets_a_segment_of_its_own() {
        let world = World::new(3);
        let rt = world.boot(NODE, 1).remove(0);
        let released = world.run(&rt, async {
            let (wal, _) = reopen(&rt, policy(8), 0).await;
            let seen = Rc::new(Seen::default());
            start(&rt, &wal, &seen);
            append(&wal, 0, &[0; 10]).unwrap();
            let value = vec![1; VALUE_BYTES_MAX];
            append(&wal, 1, &value).unwrap();
            for ticket in 2..20 {
                append(&wal, ticket, &[ticket as u8; 5000]).unwrap();
            }
            seen.answers(20).await;
            let (_, all) = read(&rt, 0).await.unwrap();
            assert_eq!(all, (0..20).collect::<Vec<u64>>());
            let (seq, _) = seen.durable.borrow()[10];
            wal.release(seq).await.unwrap();
            append(&wal, 20, &[20; 5000]).unwrap();
            wal.close();
            seen.end().await.unwrap();
            seq
        });
        let rt = world.boot(NODE, 1).remove(0);
        let (_, tickets) = world.run(&rt, read(&rt, released)).unwrap();
        assert_eq!(tickets.last(), Some(&20));
        let files = world.disk(NODE).files();
        assert!(files.iter().all(|(_, bytes)| *bytes < 1 << 20), "{files:?}");
    }

    #[test]
    fn an_idle_log_is_sealed_once() {
        let world = World::new(4);
        let rt = world.boot(NODE, 1).remove(0);
        world.run(&rt, async {
            let (wal, _) = reopen(&rt, policy(64), 0).await;
            let seen = Rc::new(Seen::default());
            start(&rt, &wal, &seen);
            rt.sleep(Duration::from_secs(1)).await;
            let before = wal.stats().syncs;
            append(&wal, 0, b"").unwrap();
            rt.sleep(Duration::from_secs(1)).await;
            assert_eq!(wal.stats().syncs - before, 2);
        });
    }

    #[test]
    fn a_write_error_fails_everything_that_waits_and_is_never_retried() {
        for seed in 0..20 {
            let world = World::new(seed);
            let rt = world.boot(NODE, 1).remove(0);
            let disk = world.disk(NODE);
            let acked = world.run(&rt, async {
                let (wal, _) = reopen(&rt, policy(64), 0).await;
                let seen = Rc::new(Seen::default());
                start(&rt, &wal, &seen);
                for ticket in 0..3 {
                    append(&wal, ticket, &[ticket as u8; 9000]).unwrap();
                    seen.answers(ticket as usize + 1).await;
                }
                rt.sleep(Duration::from_secs(1)).await;
                let fault = if seed % 2 == 0 {
                    Fault::Io
                } else {
                    Fault::Full
                };
                disk.fail_at(disk.ops(), fault);
                for ticket in 3..20 {
                    append(&wal, ticket, &[ticket as u8; 9000]).unwrap();
                }
                let ended = seen.end().await;
                assert!(ended.is_err_and(|why| why.contains(".wal")), "seed {seed}");
                let failed = seen.failed.borrow();
                assert!(
                    failed.iter().map(|(ticket, _)| *ticket).eq(3..20),
                    "seed {seed}"
                );
                assert!(failed.iter().all(|(_, kind)| *kind == io::ErrorKind::Other));
                assert_eq!(append(&wal, 99, b""), Err(Refused::Closed));
                seen.tickets()
            });
            assert_eq!(acked, [0, 1, 2], "seed {seed}");
            world.crash(NODE);
            let rt = world.boot(NODE, 1).remove(0);
            let (_, tickets) = world.run(&rt, read(&rt, 0)).unwrap();
            let first = |count| (0..count).collect::<Vec<u64>>();
            assert!(
                (3..=7).any(|count| tickets == first(count)),
                "seed {seed}: {tickets:?}"
            );
        }
    }

    #[test]
    fn a_full_disk_refuses_writes_until_space_comes_back() {
        let world = World::new(6);
        let rt = world.boot(NODE, 1).remove(0);
        let disk = world.disk(NODE);
        let told = Rc::new(RefCell::new(Vec::new()));
        let log = Rc::clone(&told);
        let log = Rc::new(move |text: &str| log.borrow_mut().push(text.to_owned()));
        world.run(&rt, async {
            let (replayed, _) = read(&rt, 0).await.unwrap();
            let wal = open(&rt, policy(8), replayed.resume, log).await.unwrap();
            let seen = Rc::new(Seen::default());
            start(&rt, &wal, &seen);
            rt.sleep(Duration::from_secs(1)).await;
            disk.set_capacity(0);
            let mut refused = None;
            for ticket in 0..100 {
                match append(&wal, ticket, &[ticket as u8; 100]) {
                    Ok(()) => seen.answers(ticket as usize + 1).await,
                    Err(why) => refused = refused.or(Some(why)),
                }
                rt.sleep(Duration::from_millis(50)).await;
            }
            assert_eq!(refused, Some(Refused::Full));
            let acked = seen.durable.borrow().len() as u64;
            assert!(acked > 3 && seen.failed.borrow().is_empty());
            disk.heal();
            rt.sleep(Duration::from_secs(10)).await;
            for ticket in acked..acked + 10 {
                append(&wal, ticket, &[ticket as u8; 100]).unwrap();
            }
            seen.answers(acked as usize + 10).await;
            wal.close();
            assert_eq!(seen.end().await, Ok(()));
            let (_, tickets) = read(&rt, 0).await.unwrap();
            assert_eq!(tickets, (0..acked + 10).collect::<Vec<u64>>());
        });
        let told = told.borrow();
        assert_eq!(told.len(), 2, "once per change, not per attempt: {told:?}");
        assert!(told[0].contains("writes are refused") && told[1].contains("writes go on"));
    }

    #[test]
    fn records_that_find_no_segment_fail_as_not_written_and_the_log_goes_on() {
        let world = World::new(7);
        let rt = world.boot(NODE, 1).remove(0);
        let disk = world.disk(NODE);
        world.run(&rt, async {
            let (wal, _) = reopen(&rt, policy(8), 0).await;
            let seen = Rc::new(Seen::default());
            start(&rt, &wal, &seen);
            rt.sleep(Duration::from_secs(1)).await;
            disk.set_capacity(0);
            for ticket in 0..100 {
                append(&wal, ticket, &[ticket as u8; 3000]).unwrap();
            }
            seen.answers(100).await;
            let failed = seen.failed.borrow().clone();
            assert!(!failed.is_empty() && !seen.durable.borrow().is_empty());
            assert!(
                failed
                    .iter()
                    .all(|(_, kind)| *kind == io::ErrorKind::StorageFull)
            );
            disk.heal();
            rt.sleep(Duration::from_secs(10)).await;
            append(&wal, 100, &[100; 9]).unwrap();
            wal.close();
            assert_eq!(seen.end().await, Ok(()));
            let (_, tickets) = read(&rt, 0).await.unwrap();
            assert_eq!(tickets, seen.tickets());
            assert_eq!(tickets.last(), Some(&100));
        });
    }

    #[test]
    fn released_segments_are_used_again_and_old_boots_are_removed() {
        let world = World::new(8);
        let rt = world.boot(NODE, 1).remove(0);
        world.run(&rt, write_and_close(&rt, policy(8), 20));
        let before = world.disk(NODE).files().len();
        let rt = world.boot(NODE, 1).remove(0);
        world.run(&rt, async {
            let (wal, tickets) = reopen(&rt, policy(8), 0).await;
            assert_eq!(tickets.len(), 20);
            wal.release(21).await.unwrap();
            let seen = Rc::new(Seen::default());
            start(&rt, &wal, &seen);
            for ticket in 20..120u64 {
                append(&wal, ticket, &[ticket as u8; 3000]).unwrap();
                seen.answers(ticket as usize - 19).await;
                let (seq, _) = *seen.durable.borrow().last().unwrap();
                wal.release(seq - 1).await.unwrap();
                assert!(wal.stats().segments <= 2);
            }
            let files = world.disk(NODE).files().len();
            assert!(before > 4 && files <= 5, "{before} then {files} files");
            let (seq, _) = *seen.durable.borrow().last().unwrap();
            let (_, tickets) = read(&rt, seq - 1).await.unwrap();
            assert_eq!(tickets, [119]);
        });
    }

    /// One boot of the crash matrix: replay, check, write, release, close.
    async fn life(rt: &Rt, seen: &Rc<Seen>, seed: u64, first: u64) -> Vec<u64> {
        let flushed_seq = seen.flushed_seq.get();
        let (wal, replayed) = reopen(rt, policy(8), flushed_seq).await;
        start(rt, &wal, seen);
        let mut rng = fastrand::Rng::with_seed(seed ^ first);
        for ticket in first..first + 24 {
            let value = vec![ticket as u8; rng.usize(0..6000)];
            append(&wal, ticket, &value).unwrap();
            if rng.u8(..4) == 0 {
                let answered = seen.durable.borrow().len();
                let waiting = (ticket - first + 1) as usize;
                seen.answers(answered.max(waiting)).await;
            }
            let some = pick(&mut rng, &seen.durable.borrow());
            if let Some(seq) = some.filter(|seq| *seq > seen.flushed_seq.get()) {
                seen.flushed_seq.set(seq);
                wal.release(seq).await.unwrap();
            }
            if rng.u8(..8) == 0 {
                rt.sleep(Duration::from_millis(30)).await;
            }
        }
        wal.close();
        seen.end().await.unwrap();
        replayed
    }

    /// The group of some record, not each time.
    fn pick(rng: &mut fastrand::Rng, durable: &[(u64, u64)]) -> Option<u64> {
        let (seq, _) = durable.get(rng.usize(0..40))?;
        Some(*seq)
    }

    /// Acknowledged records are there, in order, once; beyond them at most records that were appended.
    fn check(tickets: &[u64], seen: &Seen, flushed_seq: u64, what: &str) {
        let acked = seen.durable.borrow();
        let kept = acked.iter().filter(|(seq, _)| *seq > flushed_seq);
        let kept: Vec<u64> = kept.map(|(_, ticket)| *ticket).collect();
        assert!(
            tickets.starts_with(&kept),
            "{what}: {kept:?} in {tickets:?}"
        );
        let follow = tickets.windows(2).all(|pair| pair[0] + 1 == pair[1]);
        assert!(follow, "{what}: {tickets:?}");
    }

    #[test]
    fn a_crash_at_any_operation_loses_nothing_that_was_acknowledged() {
        for seed in 0..6 {
            let world = World::new(seed);
            let rt = world.boot(NODE, 1).remove(0);
            world.run(&rt, life(&rt, &Rc::default(), seed, 0));
            let ops = world.disk(NODE).ops();
            assert!(ops > 50, "seed {seed}: {ops} operations");
            for at in 0..ops {
                crash_twice(seed, at);
            }
        }
    }

    /// The first boot crashes at operation `at`, the next one somewhere too; the third must find everything.
    fn crash_twice(seed: u64, at: u64) {
        let what = format!("seed {seed}, crash at {at}");
        let world = World::new(seed);
        let disk = world.disk(NODE);
        let rt = world.boot(NODE, 1).remove(0);
        let one = Rc::new(Seen::default());
        disk.crash_at(at);
        let lived = world.try_run(&rt, life(&rt, &one, seed, 0));
        assert!(lived.is_err(), "{what}");
        let two = Rc::new(Seen::default());
        two.flushed_seq.set(one.flushed_seq.get());
        disk.heal();
        disk.crash_at(disk.ops() + at % 40);
        let rt = world.boot(NODE, 1).remove(0);
        if let Ok(tickets) = world.try_run(&rt, life(&rt, &two, seed, 1000)) {
            check(&tickets, &one, one.flushed_seq.get(), &what);
        }
        disk.heal();
        let rt = world.boot(NODE, 1).remove(0);
        let flushed_seq = two.flushed_seq.get();
        let read = world.run(&rt, read(&rt, flushed_seq));
        let (_, tickets) = read.unwrap_or_else(|why| panic!("{what}: {why}"));
        let of_two = tickets.partition_point(|ticket| *ticket < 1000);
        check(&tickets[..of_two], &one, flushed_seq, &what);
        check(&tickets[of_two..], &two, flushed_seq, &what);
    }

    #[test]
    fn damage_to_a_sealed_log_is_noticed_or_harmless() {
        let world = World::new(9);
        let rt = world.boot(NODE, 1).remove(0);
        world.run(&rt, write_and_close(&rt, policy(8), 8));
        let disk = world.disk(NODE);
        let rt = world.boot(NODE, 1).remove(0);
        let expected: Vec<u64> = (0..8).collect();
        let check = |what: &str| match world.run(&rt, read(&rt, 0)) {
            Ok((_, tickets)) => assert_eq!(tickets, expected, "{what}"),
            Err(Unreadable::Corrupt { .. }) => {}
            Err(error) => panic!("{what}: {error}"),
        };
        let files = disk.files();
        assert!(files.len() >= 3, "{files:?}");
        for (path, len) in &files {
            let whole = disk.read(path).unwrap();
            for page in 0..len / DISK_PAGE_BYTES as u64 {
                for byte in 0..180 {
                    let pos = page * DISK_PAGE_BYTES as u64 + byte;
                    let mask = 1 << (pos % 8);
                    assert!(disk.flip(path, pos, mask));
                    check(&format!("{} bit {mask} of {pos}", path.display()));
                    disk.write(path, &whole);
                }
            }
            for cut in (0..*len).step_by(512).chain(0..100) {
                disk.write(path, &whole[..cut as usize]);
                check(&format!("{} cut at {cut}", path.display()));
            }
            disk.remove(path);
            check(&format!("{} removed", path.display()));
            disk.write(path, &whole);
        }
    }

    #[test]
    fn the_log_of_another_shard_or_node_is_refused() {
        let world = World::new(10);
        let rt = world.boot(NODE, 1).remove(0);
        world.run(&rt, write_and_close(&rt, policy(8), 3));
        for owner in [Owner { node: 8, ..OWNER }, Owner { shard: 2, ..OWNER }] {
            let dir = PathBuf::from(DIR);
            let mut apply = |_: u64, _: Op<'_>| panic!("data of another shard was applied");
            let read = world.run(&rt, replay(&rt, &dir, owner, 0, &mut apply));
            assert!(read.is_err_and(|why| why.to_string().contains("belongs to shard 1")));
        }
    }
}
