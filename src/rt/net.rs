//! Sockets as readiness: one [`Net`] per core owns that core's listener and connections.
//!
//! The loop above it is: `poll` for events, read and write without ever blocking, then either `Rt::yield_now`
//! (there was work) or [`Net::park`] (there was none). No task and no allocation per connection or request.
//! In production this is a level-triggered epoll set nested in the core's io_uring reactor
//! (docs/decisions/0001-nested-epoll.md).

use std::io;
use std::net::SocketAddr;
use std::task::Context;

use super::{Inner, Rt, sim, uring};
use crate::base::time::Instant;

/// Names one connection of one [`Net`]. Never reused: a stale token finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What may be done now without blocking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The listener has connections to accept.
    Accept,
    /// The connection is readable (data, end of stream or error: `read` tells) and/or writable.
    Ready {
        token: Token,
        readable: bool,
        writable: bool,
    },
}

/// A connection on its way from one core to another; dropping it closes the connection.
pub struct Detached(DetachedInner);

enum DetachedInner {
    Uring(uring::Detached),
    Sim(sim::Detached),
}

/// One core's sockets.
pub struct Net(NetInner);

#[expect(
    clippy::large_enum_variant,
    reason = "one per core; a box would cost a hop on every socket call"
)]
enum NetInner {
    Uring(uring::Net),
    Sim(sim::Net),
}

macro_rules! net {
    ($self:expr, $it:ident => $call:expr) => {
        match &mut $self.0 {
            NetInner::Uring($it) => $call,
            NetInner::Sim($it) => $call,
        }
    };
}

impl Rt {
    /// This core's sockets, accepting on every address given (none: a client only). Every core of a node
    /// listens on the same addresses and the kernel spreads connections over them; that no *other* process
    /// does is the business of `uring::claim_port` before the cores start.
    pub fn net(&self, listen: &[SocketAddr]) -> io::Result<Net> {
        Ok(Net(match &self.0 {
            Inner::Uring(core) => NetInner::Uring(core.net(listen)?),
            Inner::Sim(process) => NetInner::Sim(process.net(listen)?),
        }))
    }
}

impl Net {
    /// Appends what is ready now; never waits. At most 256 events a call.
    pub fn poll(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        net!(self, it => it.poll(events))
    }

    /// Takes one waiting connection (non-blocking, close-on-exec, no Nagle delay), readable interest on.
    /// `Ok(None)`: none waits. `Err`: out of descriptors or memory; stop accepting for a while.
    pub fn accept(&mut self) -> io::Result<Option<(Token, SocketAddr)>> {
        net!(self, it => it.accept())
    }

    /// Turns accepting on or off (off: when full, out of descriptors, or shutting down). Waiting clients stay
    /// in the kernel's queue.
    pub fn set_accepting(&mut self, on: bool) -> io::Result<()> {
        net!(self, it => it.set_accepting(on))
    }

    /// Closes the listeners: later connects are refused.
    pub fn stop_listening(&mut self) {
        net!(self, it => it.stop_listening())
    }

    /// Starts to connect; writable means connected, an error shows at the first read or write.
    pub fn connect(&mut self, to: SocketAddr) -> io::Result<Token> {
        net!(self, it => it.connect(to))
    }

    /// Bytes read into `buf`; 0 at end of stream; `WouldBlock` when nothing is there.
    pub fn read(&mut self, token: Token, buf: &mut [u8]) -> io::Result<usize> {
        net!(self, it => it.read(token, buf))
    }

    /// Bytes taken by the socket; `WouldBlock` when it is full.
    pub fn write(&mut self, token: Token, bytes: &[u8]) -> io::Result<usize> {
        net!(self, it => it.write(token, bytes))
    }

    /// Which readiness of this connection `poll` reports.
    pub fn set_interest(&mut self, token: Token, readable: bool, writable: bool) -> io::Result<()> {
        net!(self, it => it.set_interest(token, readable, writable))
    }

    /// Sends FIN; reading goes on (lingering close, RFC 9112 9.6).
    pub fn shutdown_write(&mut self, token: Token) {
        net!(self, it => it.shutdown_write(token))
    }

    /// Gives the connection away: its token is stale from now on, unread bytes stay in the socket.
    pub fn detach(&mut self, token: Token) -> io::Result<Detached> {
        Ok(Detached(match &mut self.0 {
            NetInner::Uring(net) => DetachedInner::Uring(net.detach(token)?),
            NetInner::Sim(net) => DetachedInner::Sim(net.detach(token)?),
        }))
    }

    /// Takes a connection another core of this process gave away, readable interest on.
    pub fn adopt(&mut self, connection: Detached) -> io::Result<Token> {
        match (&mut self.0, connection.0) {
            (NetInner::Uring(net), DetachedInner::Uring(socket)) => net.adopt(socket),
            (NetInner::Sim(net), DetachedInner::Sim(end)) => net.adopt(end),
            _ => unreachable!("all cores of a process are of one kind"),
        }
    }

    /// Closes and forgets the connection. Unknown tokens are ignored.
    pub fn close(&mut self, token: Token) {
        net!(self, it => it.close(token))
    }

    /// Waits until a socket is ready, `until` has come, or `ready` says so. `ready` is asked before sleeping
    /// and after every wake-up; it must register the context's waker with whatever it looks at.
    pub async fn park(
        &mut self,
        until: Option<Instant>,
        ready: &mut dyn FnMut(&mut Context<'_>) -> bool,
    ) -> io::Result<()> {
        net!(self, it => it.park(until, ready).await)
    }
}
