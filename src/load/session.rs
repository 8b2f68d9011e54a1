//! Pure. One connection: requests on their way out, answers on their way in, in the same order.

use std::collections::VecDeque;

use super::source::Asked;
use super::tally::Failure;
use crate::base::time::Instant;
use crate::http::client::{Answer, Answers, Got};
use crate::http::request::Method;

/// Longest body of an answer that is taken, in bytes: more than any page of a scan, less than what would fill memory.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// One connection.
pub struct Session {
    pub state: State,
    /// Index of the target it belongs to.
    pub target: usize,
    /// See [`Source::next`](super::source::Source::next).
    pub follow: Option<u64>,
    /// The server has said that it closes after the answers under way: nothing more is to be sent.
    pub closing: bool,
    /// Whether anything was asked on this connection.
    pub used: bool,
    /// Whether the worker has it on its list of those with room for a request.
    pub listed: bool,
    waiting: VecDeque<Waiting>,
    out: Vec<u8>,
    sent: usize,
    /// The part of an answer that is not whole.
    rest: Vec<u8>,
    answers: Answers,
    /// `HEAD` has answers without bodies.
    method: Method,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not to be opened before this.
    Closed(Instant),
    /// Since then.
    Opening(Instant),
    Open,
}

/// A request without its answer.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    pub asked: Asked,
    /// `None` in a closed loop.
    pub intended: Option<Instant>,
    pub sent: Instant,
    pub measured: bool,
}

impl Session {
    #[must_use]
    pub fn new(target: usize, method: Method) -> Session {
        Session {
            state: State::Closed(Instant(0)),
            target,
            follow: None,
            closing: false,
            used: false,
            listed: false,
            waiting: VecDeque::new(),
            out: Vec::new(),
            sent: 0,
            rest: Vec::new(),
            answers: Answers::new(ANSWER_BYTES_MAX),
            method,
        }
    }

    /// Where a request is written, to be followed by [`Session::asked`].
    pub fn request(&mut self) -> (&mut Vec<u8>, &mut Option<u64>) {
        (&mut self.out, &mut self.follow)
    }

    pub fn asked(&mut self, waiting: Waiting) {
        self.used = true;
        self.waiting.push_back(waiting);
    }

    /// Requests under way.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.waiting.len()
    }

    /// The request that has waited longest.
    #[must_use]
    pub fn oldest(&self) -> Option<Waiting> {
        self.waiting.front().copied()
    }

    /// Bytes to be written.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        &self.out[self.sent..]
    }

    pub fn wrote(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        }
    }

    /// Hands over each answer that is whole. Err: it is no HTTP, or an answer without a request.
    pub fn received(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(Waiting, &Answer<'_>),
    ) -> Result<(), Failure> {
        // Almost always a read holds whole answers: they are parsed where they are.
        let joined;
        let input = if self.rest.is_empty() {
            bytes
        } else {
            self.rest.extend_from_slice(bytes);
            joined = std::mem::take(&mut self.rest);
            &joined
        };
        let mut at = 0;
        while at < input.len() {
            let Some(waiting) = self.waiting.front() else {
                return Err(Failure::Malformed);
            };
            match self.answers.next(&input[at..], self.method) {
                Got::NeedMore { consumed } => {
                    at += consumed;
                    break;
                }
                Got::Interim { consumed } => at += consumed,
                Got::Answer { answer, consumed } => {
                    at += consumed;
                    take(*waiting, &answer);
                    self.waiting.pop_front();
                }
                Got::Bad { .. } => return Err(Failure::Malformed),
            }
        }
        self.rest.extend_from_slice(&input[at..]);
        Ok(())
    }

    /// The server has closed: an answer without a length ends now.
    pub fn ended(&mut self, take: impl FnOnce(Waiting, &Answer<'_>)) {
        if let (Some(waiting), Some(answer)) = (self.waiting.front(), self.answers.closed()) {
            take(*waiting, &answer);
            self.waiting.pop_front();
        }
    }

    /// The connection is gone; returns the requests that will have no answer.
    pub fn reset(&mut self, not_before: Instant) -> impl Iterator<Item = Waiting> + use<> {
        let lost = std::mem::take(&mut self.waiting);
        let method = self.method;
        *self = Session {
            state: State::Closed(not_before),
            listed: self.listed,
            ..Session::new(self.target, method)
        };
        lost.into_iter()
    }
}
