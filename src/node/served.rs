//! A link another member has dialled: its requests in, the answers of this node out.
//!
//! ```text
//!  HTTP connection ─ GET /internal/peer ─▶ greet ─▶ 101 ─ handed over ─▶ Served on the core it asked for
//!                                             └─▶ 4xx and the reason, when the two do not belong together
//!  frames ─▶ Router::serve_peer ─▶ answered at once into `out`, or by `Asker::Peer` when the store has answered
//! ```
//!
//! With a cluster secret nothing is served before the dialler has proven that it knows it. A frame that makes no
//! sense ends the link: what was asked on it has an unknown outcome, as after any broken connection.

use std::io;

use super::replica::Job;
use super::route::Router;
use crate::base::limits::PEER_UNSENT_BYTES_MAX;
use crate::base::time::Instant;
use crate::rt::net::{Detached, Net, Token};
use crate::wire::frame;
use crate::wire::message::{Message, Why};
use crate::wire::proof::{Ends, Role, Secret};

/// What the accepting core gives to the serving one.
pub(crate) struct HandOver {
    pub connection: Detached,
    pub guest: Guest,
}

/// Who has dialled, and what the two have said so far.
pub(crate) struct Guest {
    pub name: String,
    pub ends: Ends,
    /// Bytes of the 101 that have not left yet.
    pub unsent: Vec<u8>,
    /// Bytes that came behind the request.
    pub input: Vec<u8>,
}

/// One link, owned by the core it was handed to.
pub(crate) struct Served {
    token: Token,
    guest: Guest,
    /// The dialler knows the secret, or there is none.
    proven: bool,
    /// Bytes of `guest.unsent` (and all answers behind it) that have left.
    sent: usize,
    interest: (bool, bool),
    /// When the last whole frame came.
    pub heard: Instant,
}

/// The link has ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// As links end when a member stops or is lost; those we dial tell of it.
    Gone,
    /// The other end did what no member does: what, for the log.
    Fault(String),
}

impl Served {
    pub(crate) fn new(token: Token, guest: Guest, secret: Option<&Secret>, now: Instant) -> Served {
        Served {
            token,
            proven: secret.is_none(),
            guest,
            sent: 0,
            interest: (true, false),
            heard: now,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.guest.name
    }

    /// Handles what came with the request, and asks for the rest.
    pub(crate) fn begin(&mut self, net: &mut Net, router: &mut Router) -> Result<(), Ended> {
        self.take_in(router, &[])?;
        self.push_out(net)
    }

    /// The socket is ready. `buffer`: the core's read buffer.
    pub(crate) fn on_ready(
        &mut self,
        net: &mut Net,
        router: &mut Router,
        buffer: &mut [u8],
        readable: bool,
    ) -> Result<(), Ended> {
        if readable && self.interest.0 {
            match net.read(self.token, buffer) {
                Ok(0) => return Err(Ended::Gone),
                Ok(count) => self.take_in(router, &buffer[..count])?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(Ended::Gone),
            }
        }
        self.push_out(net)
    }

    /// Adds an answer that was not there at once; `push_out` sends it.
    pub(crate) fn answer(&mut self, id: u64, message: &Message<'_>) {
        frame::put(&mut self.guest.unsent, id, 0, message);
    }

    /// Sends what there is, and reads on only while the peer takes its answers.
    pub(crate) fn push_out(&mut self, net: &mut Net) -> Result<(), Ended> {
        let out = &mut self.guest.unsent;
        while self.sent < out.len() {
            match net.write(self.token, &out[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return Err(Ended::Gone),
            }
        }
        if self.sent == out.len() {
            out.clear();
            self.sent = 0;
        } else if self.sent > out.len() / 2 {
            out.drain(..self.sent);
            self.sent = 0;
        }
        let unsent = out.len() - self.sent;
        let interest = (unsent < PEER_UNSENT_BYTES_MAX, unsent > 0);
        if interest != self.interest {
            self.interest = interest;
            net.set_interest(self.token, interest.0, interest.1)
                .map_err(|_| Ended::Gone)?;
        }
        Ok(())
    }

    fn take_in(&mut self, router: &mut Router, bytes: &[u8]) -> Result<(), Ended> {
        let mut input = std::mem::take(&mut self.guest.input);
        let bytes = if input.is_empty() {
            bytes
        } else {
            input.extend_from_slice(bytes);
            &input[..]
        };
        let mut used = 0;
        loop {
            let next = frame::next(&bytes[used..]);
            let next =
                next.map_err(|broken| Ended::Fault(format!("it sends no frames: {broken:?}")))?;
            let Some((frame, count)) = next else {
                break;
            };
            used += count;
            self.heard = router.now();
            self.serve(router, frame.id, frame.message)?;
        }
        self.guest.input = bytes[used..].to_vec();
        Ok(())
    }

    fn serve(&mut self, router: &mut Router, id: u64, message: Message<'_>) -> Result<(), Ended> {
        if let Message::Proof { mac } = &message {
            let secret = router.secret();
            let known =
                secret.is_some_and(|secret| secret.verify(Role::Dialler, &self.guest.ends, mac));
            self.proven = known;
        }
        if !self.proven {
            let why = "it does not know the cluster secret".to_owned();
            return Err(Ended::Fault(why));
        }
        let job = Job {
            token: self.token,
            id,
        };
        let out = &mut self.guest.unsent;
        match message {
            Message::Proof { .. } => {}
            Message::Ping { .. } => {
                let wall_ms = router.wall_ms;
                frame::put(out, id, 0, &Message::Pong { wall_ms });
            }
            Message::Write { rows, .. } => {
                if let Err(why) = router.serve_write(job, &rows) {
                    frame::put(out, id, 0, &Message::Refused { why });
                }
            }
            Message::Read { key, digest_only } => router.serve_read(job, key, digest_only, out),
            Message::Scan(scan) => {
                if let Err(why) = router.serve_scan(job, scan) {
                    frame::put(out, id, 0, &Message::Refused { why });
                }
            }
            Message::Compare(compare) => {
                if let Err(why) = router.serve_compare(job, compare) {
                    frame::put(out, id, 0, &Message::Refused { why });
                }
            }
            other if other.is_answer() => {
                return Err(Ended::Fault("it answers what nobody asked".to_owned()));
            }
            _ => {
                let why = Why::Unsupported;
                frame::put(out, id, 0, &Message::Refused { why });
            }
        }
        Ok(())
    }
}
