//! Pure. How long work that failed is left alone, and what of it the operator hears.
//!
//! Each failure in a row doubles the rest, so that a damaged table neither spins the core nor floods the log, and
//! is told once per reason. Kept per shard and kind of work: what is wrong with one shard is no business of another.

use std::time::Duration;

use crate::base::time::Instant;

const FIRST: Duration = Duration::from_secs(1);

/// One kind of work of one shard.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    until: Instant,
    pause: Duration,
    /// The last failure; `None`: the last attempt went well, or there was none.
    failure: Option<String>,
}

impl Rest {
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.until <= now
    }

    /// Whether the last attempt failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.failure.is_some()
    }

    /// An attempt went well. True: the operator has heard of a failure and should hear that it is over.
    pub(crate) fn end(&mut self) -> bool {
        std::mem::take(self).failure.is_some()
    }

    /// An attempt failed. How long to leave it alone, and whether this is news to the operator.
    pub(crate) fn fail(
        &mut self,
        now: Instant,
        why: &str,
        pause_max: Duration,
    ) -> (Duration, bool) {
        self.pause = (self.pause * 2).clamp(FIRST, pause_max);
        self.until = now + self.pause;
        let before = self.failure.replace(why.to_owned());
        (self.pause, before.as_deref() != Some(why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_double_up_to_their_limit_and_each_reason_is_told_once() {
        let mut rest = Rest::default();
        let mut now = Instant::default();
        assert!(rest.is_over(now) && !rest.is_failing() && !rest.end());
        let limit = Duration::from_secs(5);
        let mut told = Vec::new();
        for (why, secs) in [("a", 1), ("a", 2), ("b", 4), ("b", 5), ("a", 5)] {
            let (pause, news) = rest.fail(now, why, limit);
            assert_eq!(pause, Duration::from_secs(secs));
            assert!(!rest.is_over(now) && rest.is_failing());
            told.extend(news.then_some(why));
            now = now + pause;
            assert!(rest.is_over(now));
        }
        assert_eq!(told, ["a", "b", "a"]);
        assert!(rest.end() && !rest.end() && !rest.is_failing());
        assert_eq!(rest.fail(now, "a", limit), (FIRST, true));
    }
}
