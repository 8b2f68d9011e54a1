//! One client's connection to one server at a time, kept open while it may be: a request out, its answer back.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::version::Version;
use crate::http::client::{Answers, Got};
use crate::http::request::Method;
use crate::rt::plain::Clock;
use crate::rt::plain::net::Sockets;

/// Longest body taken.
const BODY_BYTES_MAX: usize = 1 << 20;
const BUFFER_BYTES: usize = 64 << 10;

/// There is one socket in the set.
const SOCKET: usize = 0;

/// Owned by one thread.
pub(super) struct Line {
    clock: Clock,
    sockets: Sockets,
    /// Where the connection leads; `None`: there is none.
    to: Option<SocketAddr>,
    answers: Answers,
    input: Vec<u8>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: u16,
    pub(super) version: Option<Version>,
    pub(super) body: Vec<u8>,
}

/// There is no answer.
#[derive(Debug)]
pub(super) struct Trouble {
    /// Some of the request was handed to the socket: it may have been done.
    pub(super) sent: bool,
    /// `InvalidData`: what came is no HTTP.
    pub(super) error: io::Error,
}

impl Line {
    pub(super) fn new(clock: Clock) -> io::Result<Line> {
        Ok(Line {
            clock,
            sockets: Sockets::new()?,
            to: None,
            answers: Answers::new(BODY_BYTES_MAX),
            input: Vec::new(),
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    pub(super) fn hang_up(&mut self) {
        self.sockets.close(SOCKET);
        self.to = None;
        self.input.clear();
        self.answers = Answers::new(BODY_BYTES_MAX);
    }

    /// Waits so long, or less when the server hangs up meanwhile.
    pub(super) fn rest(&mut self, pause: Duration) -> io::Result<()> {
        self.sockets.wait(pause, &mut Vec::new())
    }

    /// Sends one request and waits for its answer, not longer than `patience`.
    pub(super) fn ask(
        &mut self,
        to: SocketAddr,
        method: Method,
        request: &[u8],
        patience: Duration,
    ) -> Result<Answered, Trouble> {
        let mut written = 0;
        let outcome = self
            .connect(to)
            .and_then(|()| self.exchange(method, request, &mut written, patience));
        match outcome {
            Ok((answered, keep_alive)) => {
                if !keep_alive {
                    self.hang_up();
                }
                Ok(answered)
            }
            Err(error) => {
                self.hang_up();
                let sent = written > 0;
                Err(Trouble { sent, error })
            }
        }
    }

    /// A connection that the server has closed since it was used last is another one's: nothing was asked on it.
    fn connect(&mut self, to: SocketAddr) -> io::Result<()> {
        if self.to == Some(to) {
            match self.sockets.read(SOCKET, &mut self.buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                _ => self.hang_up(),
            }
        }
        self.hang_up();
        self.sockets.open(SOCKET, to)?;
        self.to = Some(to);
        Ok(())
    }

    fn exchange(
        &mut self,
        method: Method,
        request: &[u8],
        written: &mut usize,
        patience: Duration,
    ) -> io::Result<(Answered, bool)> {
        let deadline = self.clock.now() + patience;
        loop {
            while *written < request.len() {
                match self.sockets.write(SOCKET, &request[*written..]) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    wrote => *written += wrote?,
                }
            }
            if let Some(answered) = self.receive(method)? {
                return Ok(answered);
            }
            let left = deadline - self.clock.now();
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.sockets.wait(left, &mut Vec::new())?;
            if let Some(error) = self.sockets.error(SOCKET) {
                return Err(error);
            }
        }
    }

    /// Reads until nothing is left, or the answer is whole.
    fn receive(&mut self, method: Method) -> io::Result<Option<(Answered, bool)>> {
        loop {
            let read = match self.sockets.read(SOCKET, &mut self.buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                read => read?,
            };
            self.input.extend_from_slice(&self.buffer[..read]);
            loop {
                let (answered, more, consumed) = match self.answers.next(&self.input, method) {
                    Got::Answer { answer, consumed } => {
                        (Some((own(&answer), answer.keep_alive)), false, consumed)
                    }
                    Got::Interim { consumed } => (None, true, consumed),
                    Got::NeedMore { consumed } => (None, false, consumed),
                    Got::Bad { text } => return Err(io::Error::new(ErrorKind::InvalidData, text)),
                };
                drop(self.input.drain(..consumed));
                if answered.is_some() {
                    return Ok(answered);
                }
                if !more {
                    break;
                }
            }
            if read == 0 {
                let last = self.answers.closed();
                let last = last.ok_or(ErrorKind::UnexpectedEof)?;
                return Ok(Some((own(&last), false)));
            }
        }
    }
}

fn own(answer: &crate::http::client::Answer<'_>) -> Answered {
    Answered {
        status: answer.status,
        version: answer.field("x-kv-version").and_then(Version::parse),
        body: answer.body.to_vec(),
    }
}
