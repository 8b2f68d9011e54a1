//! Monotonic time as a plain value, so that pure code can speak of time without owning a clock.

use std::ops::{Add, Sub};
use std::time::Duration;

/// Nanoseconds since the process (or the simulated world) started. Never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// The later-minus-earlier distance; zero when `earlier` is in fact later.
    #[must_use]
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    /// Saturates: 584 years of nanoseconds stand for "never".
    fn add(self, rest: Duration) -> Instant {
        Instant(
            self.0
                .saturating_add(u64::try_from(rest.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub for Instant {
    type Output = Duration;
    fn sub(self, earlier: Instant) -> Duration {
        self.since(earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_saturates_instead_of_panicking() {
        let early = Instant(5);
        let late = early + Duration::from_nanos(7);
        assert_eq!(late - early, Duration::from_nanos(7));
        assert_eq!(early - late, Duration::ZERO);
        assert_eq!(Instant(1) + Duration::MAX, Instant(u64::MAX));
    }
}
