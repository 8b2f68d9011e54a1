//! The answering half of a connection: its pipeline, what the socket did not take yet, and its way to the end.
//!
//! ```text
//!  Open ──(Connection: close, bad framing, node stops)──▶ Closing ──(all answers sent)──▶ Lingering ──▶ closed
//! ```
//!
//! Lingering (RFC 9112 9.6): FIN is sent and input is read and dropped for a while. Closing at once with unread
//! input would send a reset, and that may destroy the last answer before the client has read it.

use super::answer::{Answer, Form, Written};
use super::api::Op;
use super::failure::{Failure, Refusal};
use super::metrics::Metric;
use super::pipeline::{Pipeline, Slot, State};
use super::route::{Place, Router, text};
use super::scan_run::Taken;
use super::turn::{Fate, Turn};
use crate::base::limits::{
    HELD_BYTES_FREE, LINGER_BYTES_MAX, OUTPUT_BYTES_HIGH, PIPELINE_REQUESTS_MAX, READ_BYTES_GUESS,
};
use crate::base::record;
use crate::base::version::Version;
use crate::http::status::Reject;
use crate::rt::net::Token;

/// A waiting read is never counted as less, or a burst of small values would be let through for large ones.
const READ_BYTES_MIN: usize = 8 << 10;

/// What a connection waits for; each has its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The next request.
    Idle,
    /// The rest of a head.
    Head,
    /// The rest of a body.
    Body,
    /// The store.
    Working,
    /// The client to read its answers.
    Output,
    /// The client to close.
    Linger,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Open,
    /// No further request is read; answers asked for still leave.
    Closing,
    /// FIN sent; so many bytes of input are still put up with.
    Lingering {
        left: usize,
    },
}

pub(crate) struct Link {
    pub token: Token,
    pub pipeline: Pipeline,
    /// Answer bytes the socket did not take; `sent` of them have left since.
    output: Vec<u8>,
    sent: usize,
    /// Bytes have left since the stage was last noted.
    pub sent_some: bool,
    life: Life,
    /// The client sends no more.
    pub eof: bool,
    /// A client waits for `100 Continue`, but answers in front of it come first.
    pub owes_continue: bool,
    /// An answer has more to give than there was room for. The socket may have taken all of it at once, so that
    /// nothing unsent reminds us: writability is asked for all the same.
    has_more: bool,
    /// What a waiting read is taken to come to: the length of the last value that had to be waited for.
    read_guess: usize,
    /// (readable, writable) as last told to the socket.
    interest: (bool, bool),
}

impl Link {
    pub(crate) fn new(token: Token) -> Link {
        Link {
            token,
            pipeline: Pipeline::default(),
            output: Vec::new(),
            sent: 0,
            sent_some: false,
            life: Life::Open,
            eof: false,
            owes_continue: false,
            has_more: false,
            read_guess: READ_BYTES_GUESS,
            interest: (true, false),
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.life == Life::Open
    }

    /// Nothing is owed to the client.
    pub(crate) fn is_quiet(&self) -> bool {
        self.pipeline.is_empty() && self.output.is_empty()
    }

    fn unsent(&self) -> usize {
        self.output.len() - self.sent
    }

    /// No further request may be started now.
    pub(crate) fn is_blocked(&self, turn: &Turn<'_>) -> bool {
        !self.is_open()
            || self.pipeline.is_held()
            || self.pipeline.len() >= PIPELINE_REQUESTS_MAX
            || self.held_bytes() + turn.out.len() >= OUTPUT_BYTES_HIGH
            || self.pipeline.reads() * self.read_guess >= OUTPUT_BYTES_HIGH
    }

    /// Bytes of answers that have not left.
    pub(crate) fn held_bytes(&self) -> usize {
        self.unsent() + self.pipeline.parked_bytes()
    }

    /// An answer has come for request `seq`.
    pub(crate) fn fill(&mut self, seq: u32, answer: Answer) {
        if let Answer::Found(found) = &answer {
            let value = found.as_ref().and_then(|entry| entry.as_entry().value());
            self.read_guess = value.map_or(0, <[u8]>::len).max(READ_BYTES_MIN);
        }
        self.pipeline.fill(seq, answer);
    }

    pub(crate) fn stage(&self) -> Option<Stage> {
        match self.life {
            Life::Lingering { .. } => Some(Stage::Linger),
            Life::Open | Life::Closing if !self.output.is_empty() => Some(Stage::Output),
            Life::Open | Life::Closing if !self.pipeline.is_empty() => Some(Stage::Working),
            Life::Open | Life::Closing => None,
        }
    }

    /// Takes a request that has just come.
    pub(crate) fn start(&mut self, turn: &mut Turn<'_>, mut form: Form, op: Op<'_>) {
        if form.frame.http10 && matches!(op, Op::Scan { .. }) {
            // A long scan has no end but that of the connection.
            form.frame.keep_alive = false;
        }
        if !form.frame.keep_alive {
            self.life = Life::Closing;
        }
        if self.pipeline.must_wait(&op) {
            let state = State::Held(op.into_owned());
            self.pipeline.push(Slot { form, state });
            return;
        }
        self.perform(turn, form, op);
    }

    /// Carries a request out, or sends it on its way.
    pub(crate) fn perform(&mut self, turn: &mut Turn<'_>, form: Form, op: Op<'_>) {
        let place = Place {
            token: self.token,
            seq: self.pipeline.next_seq(),
        };
        let waiting = match op {
            Op::Get { key, level, after } => match turn.router.read_needed(level) {
                Ok(needed) => return self.get(turn, form, place, &key, (needed, after)),
                Err(refusal) => Err(refusal),
            },
            Op::Health => {
                let (stopping, router) = (turn.stopping, &mut *turn.router);
                let (status, peers) = router.health(stopping);
                return self.put(turn, form, |turn, out| {
                    turn.router.pen.health(out, form, status, &peers);
                });
            }
            Op::Options { allow } => {
                return self.put(turn, form, |turn, out| {
                    turn.router.pen.options(out, form, allow);
                });
            }
            other => start(turn.router, form, place, other, turn.full),
        };
        match waiting {
            Ok(state) => self.pipeline.push(Slot { form, state }),
            Err(refusal) => self.refuse(turn, form, &refusal),
        }
    }

    fn get(
        &mut self,
        turn: &mut Turn<'_>,
        form: Form,
        place: Place,
        key: &[u8],
        wanted: (u16, Version),
    ) {
        let first = self.pipeline.is_empty();
        let mut later = Vec::new();
        let out = if first { &mut *turn.out } else { &mut later };
        let full = turn.full;
        let found = turn.router.get(key, wanted, place, |pen, entry| {
            let value = entry.and_then(|entry| entry.value()).unwrap_or_default();
            if full && value.len() > HELD_BYTES_FREE {
                pen.refused(out, form, &Failure::Busy.into());
            } else {
                pen.found(out, form, entry);
            }
        });
        match found {
            Some(Ok(())) if first => {}
            Some(Ok(())) => {
                let state = State::Encoded(later);
                self.pipeline.push(Slot { form, state });
            }
            Some(Err(failure)) => self.refuse(turn, form, &failure.into()),
            None => self.pipeline.push(Slot {
                form,
                state: State::Read,
            }),
        }
    }

    pub(crate) fn refuse(&mut self, turn: &mut Turn<'_>, form: Form, refusal: &Refusal) {
        if !form.frame.keep_alive {
            self.life = Life::Closing;
        }
        self.put(turn, form, |turn, out| {
            turn.router.pen.refused(out, form, refusal);
        });
    }

    /// The last answer: what follows on the connection cannot be trusted.
    pub(crate) fn reject(&mut self, turn: &mut Turn<'_>, reject: Reject) {
        let form = Form {
            frame: crate::http::response::Frame::CLOSE,
            json: false,
        };
        self.put(turn, form, |turn, out| {
            turn.router.pen.count(reject.status);
            reject.answer(out, &turn.router.pen.date);
        });
        self.life = Life::Closing;
        self.owes_continue = false;
    }

    /// Writes an answer that is known at once: out, or behind the slots in front of it.
    fn put(
        &mut self,
        turn: &mut Turn<'_>,
        form: Form,
        write: impl FnOnce(&mut Turn<'_>, &mut Vec<u8>),
    ) {
        if self.pipeline.is_empty() {
            let mut out = std::mem::take(turn.out);
            write(turn, &mut out);
            *turn.out = out;
        } else {
            let mut later = Vec::new();
            write(turn, &mut later);
            let state = State::Encoded(later);
            self.pipeline.push(Slot { form, state });
        }
    }

    /// Reads no further request; the last answer says so.
    pub(crate) fn close_after_answers(&mut self) {
        if self.is_open() {
            self.life = Life::Closing;
            self.owes_continue = false;
            self.pipeline.mark_last();
        }
    }

    /// Moves the answers whose turn has come to the out buffer.
    pub(crate) fn drain(&mut self, turn: &mut Turn<'_>) -> Fate {
        self.has_more = false;
        while let Some(slot) = self.pipeline.front() {
            let form = slot.form;
            let room = OUTPUT_BYTES_HIGH.saturating_sub(self.output.len() - self.sent);
            let ready = matches!(
                slot.state,
                State::Answered(_) | State::Encoded(_) | State::Scan(_)
            );
            if ready && turn.out.len() >= room {
                self.has_more = true;
                return Fate::Keep;
            }
            match &slot.state {
                State::Answered(answer) => turn.router.pen.answer(turn.out, form, answer),
                State::Encoded(bytes) => turn.out.extend_from_slice(bytes),
                &State::Scan(ticket) => match turn.router.take_scan(ticket, turn.out, room) {
                    Taken::Waiting => return Fate::Keep,
                    Taken::NoRoom => {
                        self.has_more = true;
                        return Fate::Keep;
                    }
                    Taken::Cut => return Fate::Close,
                    Taken::Done => {}
                },
                State::Write | State::Read | State::Held(_) => return Fate::Keep,
            }
            self.pipeline.pop();
        }
        Fate::Keep
    }

    /// Sends what there is, tells the socket what to wait for, and closes when all is done.
    pub(crate) fn flush(&mut self, turn: &mut Turn<'_>, stalled: bool) -> Fate {
        if self.output.is_empty() {
            let written = match turn.out.is_empty() {
                true => Ok(0),
                false => turn.net.write(self.token, turn.out),
            };
            match written {
                Ok(written) => self.output.extend_from_slice(&turn.out[written..]),
                Err(error) if Fate::of(&error) == Fate::Close => return Fate::Close,
                Err(_) => self.output.extend_from_slice(turn.out),
            }
        } else {
            self.output.extend_from_slice(turn.out);
        }
        turn.out.clear();
        if self.is_quiet() {
            match self.life {
                Life::Open if self.eof && !stalled => return Fate::Close,
                Life::Closing if self.eof => return Fate::Close,
                Life::Closing => {
                    turn.net.shutdown_write(self.token);
                    let left = LINGER_BYTES_MAX;
                    self.life = Life::Lingering { left };
                }
                Life::Open | Life::Lingering { .. } => {}
            }
        }
        let readable = match self.life {
            Life::Open => !self.eof && !self.is_blocked(turn),
            Life::Closing => false,
            Life::Lingering { .. } => true,
        };
        // The same for requests that waited for room: there is some now, and nothing unsent that would wake us.
        let has_more = self.has_more || (stalled && !self.is_blocked(turn));
        let interest = (readable, has_more || !self.output.is_empty());
        if interest != self.interest {
            self.interest = interest;
            let set = turn.net.set_interest(self.token, interest.0, interest.1);
            if set.is_err() {
                return Fate::Close;
            }
        }
        Fate::Keep
    }

    /// The socket takes bytes again.
    pub(crate) fn send_rest(&mut self, turn: &mut Turn<'_>) -> Fate {
        if self.output.is_empty() {
            return Fate::Keep;
        }
        match turn.net.write(self.token, &self.output[self.sent..]) {
            Ok(written) => {
                self.sent += written;
                self.sent_some |= written > 0;
            }
            Err(error) => return Fate::of(&error),
        }
        if self.sent == self.output.len() {
            self.output = Vec::new();
            self.sent = 0;
        } else if self.sent > self.output.len() / 2 {
            // Copies each byte at most once more, and keeps the buffer near what is unsent.
            self.output.drain(..self.sent);
            self.sent = 0;
        }
        Fate::Keep
    }

    /// Reads and drops: nothing that still comes is looked at.
    pub(crate) fn discard(&mut self, turn: &mut Turn<'_>, input: &mut [u8]) -> Fate {
        let read = match turn.net.read(self.token, input) {
            Ok(read) => read,
            Err(error) => return Fate::of(&error),
        };
        self.eof |= read == 0;
        match &mut self.life {
            Life::Lingering { left } if read > 0 && read <= *left => {
                *left -= read;
                Fate::Keep
            }
            Life::Lingering { .. } => Fate::Close,
            Life::Open | Life::Closing => Fate::Keep,
        }
    }
}

/// Sends a request on its way whose answer comes later.
fn start(
    router: &mut Router,
    form: Form,
    place: Place,
    op: Op<'_>,
    full: bool,
) -> Result<State, Refusal> {
    let count = |router: &mut Router, metric| router.pen.counters.count(metric);
    match op {
        Op::Put(item, level) => {
            let needed = router.write_needed(level)?;
            count(router, Metric::Writes);
            let (key, state) = (item.key.as_bytes(), text(&item.value));
            router.write(key, state, needed, Written::Put, place)?;
            Ok(State::Write)
        }
        Op::Delete { key, level } => {
            let needed = router.write_needed(level)?;
            count(router, Metric::Deletes);
            let state = record::State::Deleted;
            router.write(&key, state, needed, Written::Delete, place)?;
            Ok(State::Write)
        }
        Op::Batch(items, level) => {
            let needed = router.write_needed(level)?;
            count(router, Metric::Batches);
            router.batch(&items, needed, place);
            Ok(State::Write)
        }
        Op::Scan { .. } if full => Err(Failure::Busy.into()),
        Op::Scan {
            from,
            to,
            rows_max,
            level,
        } => {
            let needed = router.read_needed(level)?;
            count(router, Metric::Scans);
            let ticket = router.start_scan(place, form, [from, to], rows_max, needed)?;
            Ok(State::Scan(ticket))
        }
        Op::Metrics => {
            router.metrics(place)?;
            Ok(State::Read)
        }
        // Both are answered where they are taken in.
        Op::Get { .. } | Op::Health | Op::Peer | Op::Options { .. } => Err(Refusal::UnknownPath),
    }
}

/// Keeps the compiler's word that an answer stays small enough to wait in a slot.
const _: () = assert!(size_of::<Answer>() <= 64);
