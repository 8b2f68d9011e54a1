//! What a connection may use while the loop serves it: the core's sockets, router and shared buffers.

use std::collections::VecDeque;
use std::io;

use super::hosts::Door;
use super::pipeline::Slot;
use super::route::Router;
use crate::base::time::Instant;
use crate::rt::net::Net;

/// One turn of the loop, lent to one connection at a time.
pub(crate) struct Turn<'a> {
    pub net: &'a mut Net,
    pub router: &'a mut Router,
    /// Answers of the connection being served; empty again when its turn is over.
    pub out: &'a mut Vec<u8>,
    /// Queues without a connection.
    pub spares: &'a mut Vec<VecDeque<Slot>>,
    pub door: &'a Door,
    pub now: Instant,
    /// The core holds too much for its clients: large values are refused.
    pub full: bool,
    /// The node is shutting down: every answer is the last of its connection.
    pub stopping: bool,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Keep,
    Close,
    /// It is a link of another member from now on.
    HandOver,
}

impl Fate {
    /// `WouldBlock` is not a failure; anything else ends the connection.
    pub(crate) fn of(error: &io::Error) -> Fate {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Fate::Keep,
            _ => Fate::Close,
        }
    }
}
