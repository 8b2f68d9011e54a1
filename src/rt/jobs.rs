//! Independent pieces of work side by side on several threads, each told about on the thread that asked.
//!
//! For the simulator's seeds, before and without any core: the pieces share nothing, and their order means nothing.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

/// Threads that run at once on this machine.
#[must_use]
pub fn jobs_at_once() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Does `work` for each number of the range, on so many threads, and hands what comes of it to `told`, until that says
/// `false`: then no further piece is begun.
pub fn share_out<T: Send>(
    numbers: Range<u64>,
    jobs: usize,
    work: impl Fn(u64) -> T + Sync,
    mut told: impl FnMut(T) -> bool,
) {
    let (next, enough) = (AtomicU64::new(numbers.start), AtomicBool::new(false));
    let (sender, receiver) = mpsc::sync_channel(jobs);
    let worker = |sender: mpsc::SyncSender<T>| {
        while !enough.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            // Nobody listens any more once it was enough.
            if number >= numbers.end || sender.send(work(number)).is_err() {
                return;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let sender = sender.clone();
            scope.spawn(|| worker(sender));
        }
        drop(sender);
        while let Ok(outcome) = receiver.recv() {
            if !told(outcome) {
                enough.store(true, Ordering::Relaxed);
                break;
            }
        }
        drop(receiver);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_comes_once_and_an_end_is_an_end() {
        for jobs in [0, 1, 2, 7] {
            let mut squares = Vec::new();
            share_out(
                3..100,
                jobs,
                |n| n * n,
                |square| {
                    squares.push(square);
                    true
                },
            );
            squares.sort_unstable();
            assert!(squares.iter().copied().eq((3..100).map(|n| n * n)));
        }
        let mut count = 0;
        share_out(
            0..u64::MAX,
            2,
            |n| n,
            |_| {
                count += 1;
                count < 10
            },
        );
        assert_eq!(count, 10);
        share_out(5..5, 2, |n| n, |_| unreachable!("there is nothing to do"));
    }
}
