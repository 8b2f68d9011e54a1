//! Pure. The requests of one connection that are being worked on, in the order they came.
//!
//! ```text
//!  first                                  next
//!    │ Waiting │ Answered │ Waiting │ Held │       answers leave from the left only
//!    └ seq 41    42         43        44   45
//! ```
//!
//! A number (`seq`) names a request for the life of its connection, so that an answer finds it whatever has
//! left in between. Numbers wrap; at most `PIPELINE_REQUESTS_MAX` of them are alive at once.

use std::collections::VecDeque;

use super::answer::{Answer, Form};
use super::api::{Access, Op};

/// The queue of one connection. Empty and without memory between requests.
#[derive(Default)]
pub(crate) struct Pipeline {
    slots: VecDeque<Slot>,
    /// Number of the first slot.
    first: u32,
    /// Writes and reads (scans among them) that are not answered yet: each kind must wait for the other, or a
    /// read could miss an earlier write or see a later one.
    writes: u32,
    reads: u32,
    /// Bytes of answers that wait for slots in front of them.
    parked_bytes: usize,
}

/// One request.
pub(crate) struct Slot {
    pub form: Form,
    pub state: State,
}

/// What a request is waiting for.
pub(crate) enum State {
    /// A durable write.
    Write,
    /// The answer to a read.
    Read,
    /// A read that may not start before the writes in front of it are done, or a write behind reads. Always the
    /// last slot.
    Held(Op<'static>),
    /// A scan under this ticket; it sends its answer in pieces once it is first.
    Scan(u64),
    /// The slots in front of it.
    Answered(Answer),
    /// The same, as bytes already.
    Encoded(Vec<u8>),
}

impl State {
    /// Size of an answer that is here; small ones do not count.
    fn bytes(&self) -> usize {
        match self {
            State::Encoded(bytes) => bytes.len(),
            State::Answered(Answer::Found(Some(entry))) => {
                entry.as_entry().value().map_or(0, <[u8]>::len)
            }
            State::Answered(_) | State::Write | State::Read | State::Held(_) | State::Scan(_) => 0,
        }
    }
}

impl Pipeline {
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Reads and scans that are not answered yet.
    pub(crate) fn reads(&self) -> usize {
        self.reads as usize
    }

    pub(crate) fn parked_bytes(&self) -> usize {
        self.parked_bytes
    }

    /// The number the next request will get.
    pub(crate) fn next_seq(&self) -> u32 {
        self.first.wrapping_add(self.slots.len() as u32)
    }

    /// Whether this may not start yet.
    pub(crate) fn must_wait(&self, op: &Op<'_>) -> bool {
        match op.access() {
            Access::Read => self.writes > 0,
            // Each scan holds a page of every shard: one at a time.
            Access::Scan => self.writes > 0 || self.reads > 0,
            Access::Write => self.reads > 0,
            Access::None => false,
        }
    }

    pub(crate) fn push(&mut self, slot: Slot) {
        self.writes += u32::from(matches!(slot.state, State::Write));
        self.reads += u32::from(matches!(slot.state, State::Read | State::Scan(_)));
        self.parked_bytes += slot.state.bytes();
        self.slots.push_back(slot);
    }

    /// Puts an answer where it belongs; false when there is no such request (any more).
    pub(crate) fn fill(&mut self, seq: u32, answer: Answer) -> bool {
        let place = seq.wrapping_sub(self.first) as usize;
        let Some(slot) = self.slots.get_mut(place) else {
            return false;
        };
        match slot.state {
            State::Write => self.writes -= 1,
            State::Read => self.reads -= 1,
            State::Held(_) | State::Scan(_) | State::Answered(_) | State::Encoded(_) => {
                return false;
            }
        }
        slot.state = State::Answered(answer);
        self.parked_bytes += slot.state.bytes();
        true
    }

    pub(crate) fn front(&mut self) -> Option<&mut Slot> {
        self.slots.front_mut()
    }

    pub(crate) fn pop(&mut self) -> Option<Slot> {
        let slot = self.slots.pop_front()?;
        self.reads -= u32::from(matches!(slot.state, State::Scan(_)));
        self.parked_bytes -= slot.state.bytes();
        self.first = self.first.wrapping_add(1);
        Some(slot)
    }

    /// Whether the last request is a held one.
    pub(crate) fn is_held(&self) -> bool {
        matches!(self.slots.back(), Some(slot) if matches!(slot.state, State::Held(_)))
    }

    /// Takes the held request back once nothing keeps it; it gets the same number again when pushed.
    pub(crate) fn take_startable(&mut self) -> Option<(Form, Op<'static>)> {
        let held = self.slots.pop_back()?;
        match held.state {
            State::Held(op) if !self.must_wait(&op) => Some((held.form, op)),
            state => {
                self.slots.push_back(Slot { state, ..held });
                None
            }
        }
    }

    /// Makes the last answer say `Connection: close`, if it is not spelt yet.
    pub(crate) fn mark_last(&mut self) {
        if let Some(slot) = self.slots.back_mut() {
            slot.form.frame.keep_alive = false;
        }
    }

    /// Tickets of scans nobody will take any more when the connection goes.
    pub(crate) fn scans(&self) -> impl Iterator<Item = u64> {
        self.slots.iter().filter_map(|slot| match slot.state {
            State::Scan(ticket) => Some(ticket),
            _ => None,
        })
    }

    /// Memory for the next burst: a connection borrows a queue while it works and gives it back when idle.
    pub(crate) fn borrow_from(&mut self, spares: &mut Vec<VecDeque<Slot>>) {
        if self.slots.capacity() == 0
            && let Some(spare) = spares.pop()
        {
            self.slots = spare;
        }
    }

    /// Gives the memory of an empty queue back.
    pub(crate) fn return_to(&mut self, spares: &mut Vec<VecDeque<Slot>>) {
        const SPARES_MAX: usize = 64;
        if self.slots.is_empty() && self.slots.capacity() > 0 {
            let spare = std::mem::take(&mut self.slots);
            if spares.len() < SPARES_MAX {
                spares.push(spare);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::version::Version;
    use crate::http::response::Frame;
    use crate::node::cluster::Level;
    use std::borrow::Cow;

    const FORM: Form = Form {
        frame: Frame::CLOSE,
        json: false,
    };

    fn slot(state: State) -> Slot {
        Slot { form: FORM, state }
    }

    #[test]
    fn numbers_stay_true_while_slots_leave_and_wrap() {
        let mut pipeline = Pipeline {
            first: u32::MAX,
            ..Pipeline::default()
        };
        let (a, b) = (pipeline.next_seq(), pipeline.next_seq().wrapping_add(1));
        pipeline.push(slot(State::Read));
        pipeline.push(slot(State::Read));
        assert_eq!((a, b), (u32::MAX, 0));
        assert!(pipeline.fill(b, Answer::Found(None)));
        assert!(!pipeline.fill(b, Answer::Found(None)), "answered once");
        assert!(matches!(pipeline.front(), Some(slot) if matches!(slot.state, State::Read)));
        assert!(pipeline.fill(a, Answer::Found(None)));
        assert!(pipeline.pop().is_some());
        assert!(!pipeline.fill(a, Answer::Found(None)), "it has left");
        assert!(matches!(pipeline.front(), Some(slot) if matches!(slot.state, State::Answered(_))));
    }

    #[test]
    fn a_held_write_starts_after_the_last_read() {
        let mut pipeline = Pipeline::default();
        let read = pipeline.next_seq();
        pipeline.push(slot(State::Read));
        pipeline.push(slot(State::Scan(9)));
        let key = Cow::Owned(b"k".to_vec());
        let level = Level::Default;
        let delete = Op::Delete { key, level };
        assert!(pipeline.must_wait(&delete) && !pipeline.must_wait(&Op::Metrics));
        pipeline.push(slot(State::Held(delete)));
        assert!(pipeline.fill(read, Answer::Found(None)) && pipeline.take_startable().is_none());
        assert!(pipeline.pop().is_some() && pipeline.take_startable().is_none());
        assert!(pipeline.pop().is_some() && pipeline.take_startable().is_some());
    }

    #[test]
    fn a_held_read_starts_after_the_last_write() {
        let mut pipeline = Pipeline::default();
        let write = pipeline.next_seq();
        pipeline.push(slot(State::Write));
        let held = pipeline.next_seq();
        let key = Cow::Owned(b"k".to_vec());
        let (level, after) = (Level::Default, Version::ZERO);
        pipeline.push(slot(State::Held(Op::Get { key, level, after })));
        assert!(pipeline.is_held() && pipeline.take_startable().is_none());
        assert!(pipeline.fill(write, Answer::Found(None)));
        assert!(pipeline.take_startable().is_some());
        assert!(!pipeline.is_held());
        assert_eq!(pipeline.next_seq(), held, "it keeps its number");
    }
}
