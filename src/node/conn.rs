//! One HTTP connection as a plain state machine: bytes in, requests to the router, answers out in order.
//!
//! ```text
//!  socket ─read─▶ core's buffer ─▶ Parser ─▶ api ─▶ Router ─┬─ at once ──▶ core's out buffer ─write─▶ socket
//!                     │ rest                                └─ later ──▶ Pipeline slot ─▶ (its turn) ─┘  │
//!                     ▼                                                                             rest ▼
//!                  leftover                                                                          output
//! ```
//!
//! Promises to the client
//! * Answers leave in the order of the requests.
//! * A read sees every write that came before it on this connection and none that came after it: reads and
//!   writes wait for each other. Consecutive reads, and consecutive writes, are in flight together.
//! * A request is carried out only when it has come whole; a client that stops sending still gets its answers.
//!
//! Bounds: parsing stops at `PIPELINE_REQUESTS_MAX` requests at work or `OUTPUT_BYTES_HIGH` unsent bytes, and
//! the socket is not read meanwhile. An idle connection holds no buffer at all: it reads into the core's buffer
//! and answers from the core's, and only what the socket did not take is kept.
//!
//! No task, no timer and no allocation per request on the hot path; deadlines are looked at by the core's sweep.

use super::answer::{Answer, Form};
use super::api::{self, Op};
use super::failure::Refusal;
use super::hosts;
use super::link::{Link, Stage};
use super::served::Guest;
use super::turn::{Fate, Turn};
use crate::base::limits::{
    BODY_PROGRESS_BYTES_MIN, BODY_TIMEOUT, HEAD_TIMEOUT, IDLE_TIMEOUT, LINGER_TIMEOUT,
    WRITE_TIMEOUT,
};
use crate::base::time::Instant;
use crate::http::parser::{Next, Parser, Phase};
use crate::http::request::Request;
use crate::http::status::{Reject, Status};
use crate::rt::net::Token;
use std::net::IpAddr;

/// One per accepted socket, owned by its core.
pub(crate) struct Conn {
    parser: Parser,
    /// Bytes read and not taken by the parser yet: an unfinished head, or what waits while parsing is stopped.
    leftover: Vec<u8>,
    /// Parsing stopped although the leftover may hold a whole request.
    stalled: bool,
    /// `Host` must be one of ours: the client is on this machine (see `hosts.rs`).
    guarded: bool,
    link: Link,
    stage: Stage,
    /// When the stage began or last made the progress it must make.
    since: Instant,
    /// Body bytes at `since`.
    mark: usize,
    /// What the core has counted this connection to hold.
    pub(crate) counted: usize,
    /// A member has dialled: the connection goes to this core, and is no more ours.
    guest: Option<Box<(usize, Guest)>>,
}

impl Conn {
    pub(crate) fn new(token: Token, client: IpAddr, now: Instant) -> Conn {
        Conn {
            parser: Parser::default(),
            leftover: Vec::new(),
            stalled: false,
            guarded: hosts::is_loopback(client),
            link: Link::new(token),
            stage: Stage::Idle,
            since: now,
            mark: 0,
            counted: 0,
            guest: None,
        }
    }

    /// The socket is ready. `input`: the core's read buffer.
    pub(crate) fn on_ready(
        &mut self,
        turn: &mut Turn<'_>,
        input: &mut [u8],
        readable: bool,
        writable: bool,
    ) -> Fate {
        if writable && self.link.send_rest(turn) == Fate::Close {
            return Fate::Close;
        }
        // Neither: an error or a hang-up with nothing asked for; reading tells which.
        if (readable || !writable) && self.read(turn, input) == Fate::Close {
            return Fate::Close;
        }
        if self.guest.is_some() {
            return Fate::HandOver;
        }
        self.settle(turn)
    }

    /// An answer has come for request `seq`; [`Conn::settle`] sends it when its turn comes.
    pub(crate) fn fill(&mut self, seq: u32, answer: Answer) {
        self.link.fill(seq, answer);
    }

    /// Does everything that has become possible, sends what there is, and decides how to go on.
    pub(crate) fn settle(&mut self, turn: &mut Turn<'_>) -> Fate {
        if self.link.eof && !self.stalled {
            // No request will follow, so the answer to the last one may say that it is the last.
            self.link.pipeline.mark_last();
        }
        loop {
            if self.link.drain(turn) == Fate::Close {
                return Fate::Close;
            }
            if let Some((form, op)) = self.link.pipeline.take_startable() {
                self.link.perform(turn, form, op);
                continue;
            }
            if self.stalled && !self.link.is_blocked(turn) {
                let input = std::mem::take(&mut self.leftover);
                let used = self.consume(turn, &input);
                self.keep(&input[used..]);
                continue;
            }
            break;
        }
        if self.link.owes_continue && self.link.pipeline.is_empty() {
            self.link.owes_continue = false;
            turn.out.extend_from_slice(crate::http::response::CONTINUE);
        }
        if turn.stopping && self.is_idle() {
            self.link.close_after_answers();
        }
        let fate = self.link.flush(turn, self.stalled);
        self.link.pipeline.return_to(turn.spares);
        self.note_stage(turn.now);
        fate
    }

    /// The node stops: finish what has begun, then close.
    pub(crate) fn on_stop(&mut self, turn: &mut Turn<'_>, input: &mut [u8]) -> Fate {
        if self.is_idle() {
            // A request may lie in the socket: it gets its answer, with `Connection: close`.
            if self.read(turn, input) == Fate::Close {
                return Fate::Close;
            }
        } else if self.parser.phase() == Phase::Idle {
            self.link.close_after_answers();
        }
        self.settle(turn)
    }

    /// The connection goes; frees what waits for it elsewhere.
    pub(crate) fn abandon(&mut self, turn: &mut Turn<'_>) {
        let scans: Vec<u64> = self.link.pipeline.scans().collect();
        for ticket in scans {
            turn.router.end_scan(ticket);
        }
        turn.net.close(self.link.token);
    }

    /// Reads once and handles every whole request.
    fn read(&mut self, turn: &mut Turn<'_>, input: &mut [u8]) -> Fate {
        if !self.link.is_open() {
            return self.link.discard(turn, input);
        }
        let kept = self.leftover.len();
        let Some(room) = input.get_mut(kept..).filter(|room| !room.is_empty()) else {
            return Fate::Keep;
        };
        let read = match turn.net.read(self.link.token, room) {
            Ok(0) => {
                self.link.eof = true;
                return Fate::Keep;
            }
            Ok(read) => read,
            Err(error) => return Fate::of(&error),
        };
        input[..kept].copy_from_slice(&self.leftover);
        self.leftover.clear();
        let filled = &input[..kept + read];
        let used = self.consume(turn, filled);
        self.keep(&filled[used..]);
        Fate::Keep
    }

    /// Keeps bytes for later; without any, gives the memory back.
    fn keep(&mut self, rest: &[u8]) {
        if rest.is_empty() || !self.link.is_open() {
            self.leftover = Vec::new();
        } else {
            self.leftover.extend_from_slice(rest);
        }
    }

    /// Carries out the requests at the start of `input`; returns how many bytes are done with.
    fn consume(&mut self, turn: &mut Turn<'_>, input: &[u8]) -> usize {
        let mut used = 0;
        let (door, guarded) = (turn.door, self.guarded);
        self.link.pipeline.borrow_from(turn.spares);
        loop {
            self.stalled = self.link.is_blocked(turn);
            if self.stalled {
                return used;
            }
            let judge = |head: &Request<'_>| api::judge(head, door, guarded);
            match self.parser.next(&input[used..], &judge) {
                Next::NeedMore { consumed } => return used + consumed,
                Next::Continue { consumed } => {
                    used += consumed;
                    self.link.owes_continue = true;
                }
                Next::Request { request, consumed } => {
                    used += consumed;
                    self.since = turn.now;
                    self.mark = 0;
                    self.link.owes_continue = false;
                    let mut form = Form::of(&request);
                    form.frame.keep_alive &= !turn.stopping;
                    form.frame.cors = door.cors_of(request.origin);
                    match api::decode(&request, door, guarded) {
                        Ok(Op::Peer) => {
                            let fields = request.fields.to_vec();
                            if self.welcome(turn, form, &fields, &input[used..]) {
                                return input.len();
                            }
                        }
                        Ok(op) => self.link.start(turn, form, op),
                        Err(refusal) => self.link.refuse(turn, form, &refusal),
                    }
                }
                Next::Reject { reject } => {
                    self.link.reject(turn, reject);
                    return input.len();
                }
            }
        }
    }

    /// Memory this connection makes the core hold: a body in the making, bytes not parsed yet, answers not sent.
    pub(crate) fn held_bytes(&self) -> usize {
        self.parser.memory_bytes() + self.leftover.len() + self.link.held_bytes()
    }

    /// The core holds too much for its clients, and this one has just asked for more.
    pub(crate) fn on_overload(&mut self, turn: &mut Turn<'_>) -> Fate {
        if self.stage != Stage::Body {
            return Fate::Close;
        }
        let text = "too many large requests at once; nothing was done, try again";
        self.link
            .reject(turn, Reject::new(Status::ServiceUnavailable, text));
        self.leftover = Vec::new();
        self.parser = Parser::default();
        self.settle(turn)
    }

    /// A member dials. True: the connection is no more ours.
    fn welcome(&mut self, turn: &mut Turn<'_>, form: Form, fields: &[u8], rest: &[u8]) -> bool {
        if !self.link.is_quiet() || !turn.out.is_empty() {
            let why = "requests came before the upgrade".to_owned();
            self.link.refuse(turn, form, &Refusal::Peer(why));
            return false;
        }
        match turn.router.greet(fields) {
            Ok((core, mut guest)) => {
                guest.input = rest.to_vec();
                self.guest = Some(Box::new((core, guest)));
                true
            }
            Err(refusal) => {
                self.link.refuse(turn, form, &refusal);
                false
            }
        }
    }

    /// Who is to have this connection, after [`Fate::HandOver`].
    pub(crate) fn take_guest(&mut self) -> Option<(usize, Guest)> {
        self.guest.take().map(|guest| *guest)
    }

    /// Between requests, with nothing owed to the client.
    fn is_idle(&self) -> bool {
        self.link.is_quiet() && !self.stalled && self.parser.phase() == Phase::Idle
    }

    fn note_stage(&mut self, now: Instant) {
        let stage = self.link.stage().unwrap_or(match self.parser.phase() {
            Phase::Idle => Stage::Idle,
            Phase::Head => Stage::Head,
            Phase::Body => Stage::Body,
        });
        let progress = match stage {
            Stage::Idle => true,
            Stage::Output => std::mem::take(&mut self.link.sent_some),
            Stage::Head | Stage::Body | Stage::Linger | Stage::Working => false,
        };
        if stage != self.stage || progress {
            self.since = now;
            self.mark = self.parser.body_bytes();
        }
        self.stage = stage;
    }

    /// When to look at this connection again, if the client does nothing.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let patience = match self.stage {
            Stage::Idle => IDLE_TIMEOUT,
            Stage::Head => HEAD_TIMEOUT,
            Stage::Body => BODY_TIMEOUT,
            Stage::Output => WRITE_TIMEOUT,
            Stage::Linger => LINGER_TIMEOUT,
            // It is the server's move.
            Stage::Working => return None,
        };
        Some(self.since + patience)
    }

    /// The deadline has passed.
    pub(crate) fn on_overdue(&mut self, turn: &mut Turn<'_>) -> Fate {
        match self.stage {
            Stage::Working => Fate::Keep,
            // Between requests an error answer could be taken for the answer to the next one.
            Stage::Idle | Stage::Output | Stage::Linger => Fate::Close,
            Stage::Body if self.parser.body_bytes() >= self.mark + BODY_PROGRESS_BYTES_MIN => {
                self.since = turn.now;
                self.mark = self.parser.body_bytes();
                Fate::Keep
            }
            Stage::Head | Stage::Body => {
                let text = "the request did not come in time";
                let reject = Reject::new(Status::RequestTimeout, text);
                self.link.reject(turn, reject);
                self.leftover = Vec::new();
                self.settle(turn)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_small() {
        let bytes = size_of::<Conn>();
        assert!(bytes <= 320, "{bytes} bytes");
    }
}
