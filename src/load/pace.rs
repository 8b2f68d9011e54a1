//! Pure. When requests are due at a given rate.
//!
//! The schedule is fixed before the first request is sent and never waits for an answer: that is what makes a stall of
//! the server visible in the response times of all requests that were due in it.

use crate::base::time::Instant;

/// Evenly spaced requests of one thread.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    start: Instant,
    nanos_between: f64,
    taken: u64,
}

impl Pace {
    /// `per_second` is above 0. The first is due at `start`.
    #[must_use]
    pub fn new(start: Instant, per_second: f64) -> Pace {
        Pace {
            start,
            nanos_between: 1e9 / per_second,
            taken: 0,
        }
    }

    /// When the next one is due.
    #[must_use]
    pub fn due(&self) -> Instant {
        // Multiplied, not added up: errors must not grow with the run.
        Instant(
            self.start
                .0
                .saturating_add((self.taken as f64 * self.nanos_between) as u64),
        )
    }

    /// How many more are due before then.
    #[must_use]
    pub fn due_before(&self, until: Instant) -> u64 {
        let nanos = until.0.saturating_sub(self.start.0) as f64;
        ((nanos / self.nanos_between).ceil() as u64).saturating_sub(self.taken)
    }

    /// The next one, if it is due by now.
    pub fn take(&mut self, now: Instant) -> Option<Instant> {
        let due = self.due();
        (due <= now).then(|| {
            self.taken += 1;
            due
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_taken_in_time_is_due_all_the_same() {
        let mut pace = Pace::new(Instant(1_000), 3.0);
        assert_eq!(pace.take(Instant(999)), None);
        assert_eq!(pace.take(Instant(1_000)), Some(Instant(1_000)));
        assert_eq!(pace.take(Instant(1_000)), None);
        assert_eq!(pace.due_before(Instant(0)), 0);
        assert_eq!(pace.due_before(Instant(333_335_000)), 1);
        assert_eq!(pace.due_before(Instant(2_000_000_000)), 5);
        let late = Instant(2_000_000_000);
        let due: Vec<_> = std::iter::from_fn(|| pace.take(late))
            .map(|due| due.0)
            .collect();
        assert_eq!(
            due,
            [
                333_334_333,
                666_667_666,
                1_000_001_000,
                1_333_334_333,
                1_666_667_666
            ]
        );
    }
}
