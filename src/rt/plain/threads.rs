//! Plain threads, and what they tell the one that started them.

#![expect(
    unsafe_code,
    reason = "the processor time of a thread is a system call"
)]

use std::sync::mpsc;
use std::time::Duration;

/// Runs `body` on so many threads and hands `hear` what they tell, until all have ended. `body` gets the index of its
/// thread and the way to tell. A panic of a thread is passed on.
pub fn run<M: Send>(
    count: usize,
    body: impl Fn(usize, &dyn Fn(M)) + Sync,
    mut hear: impl FnMut(M),
) {
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        for index in 0..count {
            let (tell, body) = (tell.clone(), &body);
            scope.spawn(move || {
                // Whoever listens does so until the last of us has ended.
                body(index, &|message| tell.send(message).unwrap_or_default());
            });
        }
        drop(tell);
        for message in told {
            hear(message);
        }
    });
}

/// Processor time the calling thread has used.
#[must_use]
pub fn processor_time() -> Duration {
    let mut used = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one timespec during the call.
    let outcome = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut used) };
    assert_eq!(outcome, 0, "every Linux has a clock per thread");
    let nanos = u32::try_from(used.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(used.tv_sec).unwrap_or(0), nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_heard_before_run_returns() {
        let mut heard = Vec::new();
        let body = |index: usize, tell: &dyn Fn(usize)| {
            tell(index);
            tell(index + 10);
        };
        run(3, body, |message| heard.push(message));
        heard.sort_unstable();
        assert_eq!(heard, [0, 1, 2, 10, 11, 12]);
    }

    #[test]
    fn work_takes_processor_time() {
        let before = processor_time();
        for turn in 0..1_000_000_u64 {
            std::hint::black_box(turn);
        }
        assert!(processor_time() > before);
    }
}
