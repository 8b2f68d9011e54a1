//! The outside without io_uring: clock, threads and client sockets for the tools that ask servers instead of being one.
//!
//! The load generator must run where io_uring is refused (a laptop, a container), must cost less than what it
//! measures, and needs no files and no tasks: plain threads with an epoll set each. Nothing here is shared between
//! threads but what [`threads`] carries.

#![expect(clippy::disallowed_methods, reason = "rt owns the clock")]

pub mod net;
pub mod threads;

use std::time::{SystemTime, UNIX_EPOCH};

use crate::base::time::Instant;

/// Monotonic time from its making on. Copies agree.
#[derive(Clone, Copy, Debug)]
pub struct Clock(std::time::Instant);

impl Clock {
    #[must_use]
    pub fn start() -> Clock {
        Clock(std::time::Instant::now())
    }

    #[must_use]
    pub fn now(self) -> Instant {
        Instant(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// Wall clock, milliseconds since 1970.
#[must_use]
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
