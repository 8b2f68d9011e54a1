//! Pure. Joins what the threads of a run report, second by second.
//!
//! ```text
//! thread 0:  0 ── 1 ── 2 ──────────────▶      second 0 is complete when both have told of it,
//! thread 1:  0 ────────────── 1 ───────▶      second 1 too; second 2 waits for thread 1
//! ```
//!
//! One [`Sample`] is kept per second (72 bytes: an hour is a quarter of a megabyte) and one total; tallies of seconds
//! live only until all threads have told of them. So memory is bounded by how far threads are apart.

use std::collections::BTreeMap;

use super::super::outcome::Sample;
use super::super::tally::Tally;

/// One for a run. Whoever starts the threads owns it.
#[derive(Debug)]
pub struct Recorder {
    threads: usize,
    open: BTreeMap<u32, Open>,
    total: Tally,
    seconds: Vec<Sample>,
}

/// A second that not all threads have told of.
#[derive(Debug)]
struct Open {
    tally: Tally,
    told: Vec<bool>,
}

/// What is left when no thread tells any more.
#[derive(Debug)]
pub struct Recorded {
    /// Seconds that not all threads have told of, in order: the last ones of a run.
    pub rest: Vec<(u32, Tally)>,
    pub total: Tally,
    /// In order. A second that nobody told of has none.
    pub seconds: Vec<Sample>,
}

impl Recorder {
    #[must_use]
    pub fn new(threads: usize) -> Recorder {
        assert!(threads > 0, "a run has a thread");
        Recorder {
            threads,
            open: BTreeMap::new(),
            total: Tally::default(),
            seconds: Vec::new(),
        }
    }

    /// A thread tells of one of its seconds, once; an empty tally when nothing happened. Returns the seconds that
    /// are complete by that, in order.
    pub fn take(&mut self, thread: usize, second: u32, tally: &Tally) -> Vec<(u32, Tally)> {
        let open = self.open.entry(second).or_insert_with(|| Open {
            tally: Tally::default(),
            told: vec![false; self.threads],
        });
        assert!(
            !open.told[thread],
            "thread {thread} told of second {second} twice"
        );
        open.told[thread] = true;
        open.tally.merge(tally);
        let mut complete = Vec::new();
        while let Some(first) = self.open.first_entry()
            && first.get().told.iter().all(|told| *told)
        {
            let (second, open) = first.remove_entry();
            self.close(second, &open.tally);
            complete.push((second, open.tally));
        }
        complete
    }

    fn close(&mut self, second: u32, tally: &Tally) {
        self.seconds.push(Sample::of(second, tally));
        self.total.merge(tally);
    }

    #[must_use]
    pub fn finish(mut self) -> Recorded {
        let mut rest = Vec::new();
        while let Some((second, open)) = self.open.pop_first() {
            self.close(second, &open.tally);
            rest.push((second, open.tally));
        }
        Recorded {
            rest,
            total: self.total,
            seconds: self.seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tally::{Failure, Op};
    use super::*;

    fn lost(count: usize) -> Tally {
        let mut tally = Tally::default();
        for _ in 0..count {
            tally.lost(Op::Get, Failure::Closed);
        }
        tally
    }

    fn told(complete: &[(u32, Tally)]) -> Vec<(u32, u64)> {
        complete
            .iter()
            .map(|(second, tally)| (*second, tally.ended()))
            .collect()
    }

    #[test]
    fn seconds_are_complete_in_order_whoever_is_early() {
        let mut recorder = Recorder::new(2);
        assert!(recorder.take(0, 0, &lost(1)).is_empty());
        assert!(recorder.take(0, 1, &lost(2)).is_empty());
        assert!(
            recorder.take(1, 1, &lost(4)).is_empty(),
            "second 0 comes first"
        );
        assert!(recorder.take(0, 2, &lost(8)).is_empty());
        let complete = recorder.take(1, 0, &Tally::default());
        assert_eq!(told(&complete), [(0, 1), (1, 6)]);
        let recorded = recorder.finish();
        assert_eq!(told(&recorded.rest), [(2, 8)]);
        assert_eq!(recorded.total.ended(), 15);
        let seconds = recorded.seconds.iter().map(|of| (of.second, of.requests));
        assert_eq!(seconds.collect::<Vec<_>>(), [(0, 1), (1, 6), (2, 8)]);
    }

    #[test]
    #[should_panic(expected = "told of second 0 twice")]
    fn a_thread_that_counts_a_second_twice_is_a_bug() {
        let mut recorder = Recorder::new(2);
        recorder.take(0, 0, &lost(1));
        recorder.take(0, 0, &lost(1));
    }
}
