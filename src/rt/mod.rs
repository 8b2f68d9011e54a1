//! The only doorway outside: cores, clock, files, sockets.
//!
//! ```text
//!             Rt (cheap clone, first argument of every constructor)
//!            /  \
//!     uring::Core  sim::Process          two variants of an enum, not a trait: the set is closed,
//!   glommio, epoll   seeded scheduler,   both are ours, and no type above grows a parameter
//!   O_DIRECT files   virtual clock,
//!                    torn disk, bad net
//! ```
//!
//! The code above this layer is the same in production and in simulation. One predictable branch per I/O call
//! (microseconds), none per key.
//!
//! Invariants: nothing above names glommio, `std::fs`, `std::net`, `std::thread` or a clock. A future of this
//! layer may be dropped at any await; buffers belong to the operation in flight. The only memory two cores
//! share is [`mesh`], [`stop`] and [`resolve`].

pub mod early;
pub mod file;
pub mod jobs;
pub mod log;
pub mod mesh;
pub mod net;
pub mod plain;
pub mod resolve;
pub mod sim;
pub mod stop;
pub mod uring;

use std::future::Future;
use std::time::Duration;

use crate::base::time::Instant;

/// One core's view of the outside. Lives and dies on that core; clones share it.
#[derive(Clone)]
pub struct Rt(pub(in crate::rt) Inner);

#[derive(Clone)]
pub(in crate::rt) enum Inner {
    Uring(uring::Core),
    Sim(sim::Process),
}

/// Calls the same method on whichever variant is inside.
macro_rules! either {
    ($inner:expr, $it:ident => $call:expr) => {
        match $inner {
            $crate::rt::Inner::Uring($it) => $call,
            $crate::rt::Inner::Sim($it) => $call,
        }
    };
}
pub(in crate::rt) use either;

impl Rt {
    /// Index of this core among the serving cores of this node, from 0.
    #[must_use]
    pub fn core(&self) -> usize {
        either!(&self.0, it => it.core())
    }

    /// Monotonic time.
    #[must_use]
    pub fn now(&self) -> Instant {
        either!(&self.0, it => it.now())
    }

    /// Wall clock, milliseconds since 1970. May jump either way.
    #[must_use]
    pub fn wall_ms(&self) -> u64 {
        either!(&self.0, it => it.wall_ms())
    }

    /// 64 unpredictable bits (in simulation: from the seed), for salts and identities.
    #[must_use]
    pub fn entropy(&self) -> u64 {
        either!(&self.0, it => it.entropy())
    }

    /// Ends after `pause`, which must not be zero: a zero sleep is not a yield.
    pub async fn sleep(&self, pause: Duration) {
        debug_assert!(
            !pause.is_zero(),
            "a zero sleep starves the reactor; use yield_now"
        );
        either!(&self.0, it => it.sleep(pause).await);
    }

    /// Lets the reactor turn once: disk and timer completions are seen, other tasks run.
    /// This is the one yield (docs/decisions/0002-yields.md).
    pub async fn yield_now(&self) {
        either!(&self.0, it => it.yield_now().await);
    }

    /// For the loop that owns the sockets, between two turns of it: lets the other tasks run, and the reactor turn
    /// when it has not for a while, or has something for the disk and no `crowd` of requests waits.
    pub async fn give_way(&self, crowd: bool) {
        either!(&self.0, it => it.give_way(crowd).await);
    }

    /// Runs `task` on this core, detached. A panic in it ends the process.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        either!(&self.0, it => it.spawn(task));
    }

    /// Process-wide request to stop (SIGTERM, SIGINT, or the simulator).
    #[must_use]
    pub fn stop(&self) -> &stop::Stop {
        either!(&self.0, it => it.stop())
    }
}
