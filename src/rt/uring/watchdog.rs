//! A thread that asks every core for a sign of life, revives a sleeping one and ends the process for a dead one.
//!
//! ```text
//! every 20 ms:  core answered the last ping?  yes: ping again (busy: now, parked: once a second)
//!                                             no:  ping again; unanswered for WATCHDOG_PATIENCE: abort
//! ping = wake the core's heartbeat task from outside; answer = that task ran
//! ```
//!
//! The ping is also the cure: a foreign wake revived every executor that glommio 0.9.0 had put to sleep with
//! work at hand (59 of 59). The design leaves no known way into that sleep; this is the second line.
//!
//! A core is pinged from its start, but the process is ended only for a core that has opened its sockets:
//! recovery may read a file map for long, and nobody waits for answers yet.
//!
//! Time counts only while this thread runs: after a stopped process or a suspended machine the cores get their
//! chance to answer first. For a core that is ready to run only the CPU time it got counts: on a crowded machine
//! it may be slow without being stuck, and an abort would make that worse.

#![expect(
    clippy::disallowed_types,
    reason = "the heartbeat's waker crosses threads"
)]

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::base::limits::WATCHDOG_PATIENCE;

/// How often a busy core is pinged. The wake-up costs it no system call.
const BUSY: Duration = Duration::from_millis(20);
/// How often this thread looks when every core is parked.
const IDLE: Duration = Duration::from_millis(50);
/// How often a parked core is pinged.
const PARKED: Duration = Duration::from_secs(1);
/// A core that has been silent for so long is looked at more closely.
const SUSPICION: Duration = Duration::from_millis(200);
/// The message of an abort gets this long to leave.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What a core and the watchdog share.
#[derive(Default)]
pub(super) struct Pulse {
    beats: AtomicU64,
    parked: AtomicBool,
    /// Sockets are open: from now on silence is fatal.
    serving: AtomicBool,
    /// The body has returned: no more heartbeat is owed.
    done: AtomicBool,
    thread: AtomicI32,
    heart: Mutex<Option<Waker>>,
}

/// While held, the core counts as parked.
pub(super) struct Parked<'a>(&'a Pulse);

impl Pulse {
    /// The heartbeat task: beats once for every wake-up, never ends.
    pub(super) async fn beat(self: Arc<Self>) {
        poll_fn(|cx| {
            self.beats.fetch_add(1, Ordering::Release);
            let mut heart = self.heart.lock().unwrap_or_else(PoisonError::into_inner);
            if !heart
                .as_ref()
                .is_some_and(|waker| waker.will_wake(cx.waker()))
            {
                *heart = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    pub(super) fn runs_on(&self, thread: i32) {
        self.thread.store(thread, Ordering::Relaxed);
    }

    pub(super) fn serve(&self) {
        self.serving.store(true, Ordering::Relaxed);
    }

    pub(super) fn finish(&self) {
        self.done.store(true, Ordering::Relaxed);
        self.heart
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    pub(super) fn park(&self) -> Parked<'_> {
        self.parked.store(true, Ordering::Relaxed);
        Parked(self)
    }

    fn ping(&self) {
        let heart = self.heart.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waker) = &*heart {
            waker.wake_by_ref();
        }
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.0.parked.store(false, Ordering::Relaxed);
    }
}

/// One core as the watchdog sees it.
struct Patient {
    pulse: Arc<Pulse>,
    /// Beats counted when the last ping was sent.
    beats: u64,
    since_ping: Duration,
    /// How long the oldest unanswered ping has waited, as far as that counts.
    silent: Duration,
    /// CPU time the core's thread had used when last looked at.
    ran: Duration,
}

impl Patient {
    /// True when the core must be given up.
    fn look(&mut self, passed: Duration) -> bool {
        if self.pulse.done.load(Ordering::Relaxed) {
            return false;
        }
        let beats = self.pulse.beats.load(Ordering::Acquire);
        let serving = self.pulse.serving.load(Ordering::Relaxed);
        let answered = beats != self.beats;
        self.since_ping += passed;
        // A ping queued at a stuck core holds a reference to its waker, and glommio counts those in 16 bits: be
        // quick only when the patience below ends it.
        let quick = if answered {
            !self.pulse.parked.load(Ordering::Relaxed)
        } else {
            serving
        };
        self.silent = if serving && !answered {
            self.silent + self.counting(passed)
        } else {
            Duration::ZERO
        };
        if self.since_ping < if quick { BUSY } else { PARKED } {
            return false;
        }
        self.beats = beats;
        self.since_ping = Duration::ZERO;
        self.pulse.ping();
        self.silent >= WATCHDOG_PATIENCE
    }

    /// How much of the time that has passed the core could have used to answer.
    fn counting(&mut self, passed: Duration) -> Duration {
        if self.silent < SUSPICION {
            return passed;
        }
        let thread = self.pulse.thread.load(Ordering::Relaxed);
        let before = self.ran;
        let Some(ran) = running_time(thread) else {
            return passed;
        };
        self.ran = ran;
        // The first look only takes the clock's stand.
        ran.saturating_sub(before).min(passed)
    }
}

/// CPU time of a thread that is ready to run; `None` for one that sleeps, or where the kernel does not say.
fn running_time(thread: i32) -> Option<Duration> {
    let state = task_file(thread, "stat");
    let (_, state) = state.rsplit_once(") ")?;
    let used = task_file(thread, "schedstat");
    let nanoseconds = used.split_whitespace().next()?.parse().ok()?;
    state
        .starts_with('R')
        .then(|| Duration::from_nanos(nanoseconds))
}

/// Watches until `end` is dropped.
#[expect(clippy::disallowed_methods, reason = "rt owns the clock")]
pub(super) fn watch(pulses: Vec<Arc<Pulse>>, end: &Receiver<()>) {
    // `beats: MAX` is no count a core can have: the first look pings.
    let mut patients: Vec<Patient> = pulses
        .into_iter()
        .map(|pulse| Patient {
            pulse,
            beats: u64::MAX,
            since_ping: PARKED,
            silent: Duration::ZERO,
            ran: Duration::ZERO,
        })
        .collect();
    let mut looked = Instant::now();
    loop {
        let idle = patients.iter().all(|patient| {
            patient.pulse.parked.load(Ordering::Relaxed) && patient.silent.is_zero()
        });
        let pause = if idle { IDLE } else { BUSY };
        if end.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        let now = Instant::now();
        let passed = now.duration_since(looked).min(2 * pause);
        looked = now;
        for (core, patient) in patients.iter_mut().enumerate() {
            if patient.look(passed) {
                give_up(core, patient.pulse.thread.load(Ordering::Relaxed));
            }
        }
    }
}

/// Ends the process: what was acknowledged is in the WAL, and a core that answers nobody helps nobody.
#[expect(
    clippy::print_stderr,
    reason = "the last words; there is nobody left to log them"
)]
#[expect(
    clippy::disallowed_methods,
    reason = "the one thread that must not wait"
)]
fn give_up(core: usize, thread: i32) -> ! {
    // The words may never leave: whoever reads our standard error may have stopped, and then the write blocks.
    let spawned = std::thread::Builder::new().spawn(|| {
        std::thread::sleep(LAST_WORDS);
        std::process::abort()
    });
    if spawned.is_err() {
        std::process::abort();
    }
    eprintln!(
        "error: core {core} has not answered for {} ms{}; the node stops\n\
         hint: start it again, everything answered OK is on disk; please report the line above",
        WATCHDOG_PATIENCE.as_millis(),
        whereabouts(thread)
    );
    std::process::abort()
}

/// What the kernel says the thread is doing: the first question of whoever reads the message.
fn whereabouts(thread: i32) -> String {
    let status = task_file(thread, "status");
    let state = status
        .lines()
        .find_map(|line| line.strip_prefix("State:"))
        .map_or("unknown", str::trim);
    format!(
        " (thread {thread}: {state}, in kernel function {:?})",
        task_file(thread, "wchan")
    )
}

/// What the kernel tells of a thread; empty when it does not.
#[expect(clippy::disallowed_methods, reason = "files are rt's business")]
fn task_file(thread: i32, name: &str) -> String {
    std::fs::read(format!("/proc/self/task/{thread}/{name}"))
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use glommio::{Latency, LocalExecutorBuilder, Placement, Shares};

    use super::*;

    /// Waits until `count` stands still (true) or moves (false), at most `patience`; tells whether it did.
    #[expect(clippy::disallowed_methods, reason = "the observer is a plain thread")]
    fn comes_to(count: &AtomicU64, standstill: bool, patience: Duration) -> bool {
        const STILL: Duration = Duration::from_millis(300);
        let began = Instant::now();
        while began.elapsed() < patience {
            let before = count.load(Ordering::Relaxed);
            std::thread::sleep(STILL);
            if (count.load(Ordering::Relaxed) == before) == standstill {
                return true;
            }
        }
        false
    }

    /// The hang this design avoids, provoked: a short preemption timer and a latency queue. What put the executor
    /// to sleep with a task at hand leaves no timer and no event behind; only the ping wakes it.
    #[test]
    fn a_ping_revives_an_executor_that_sleeps_with_work_at_hand() {
        if let Err(why) = super::super::preflight() {
            eprintln!("skipped: {why}");
            return;
        }
        let count = Arc::new(AtomicU64::new(0));
        let over = Arc::new(AtomicBool::new(false));
        let pulse = Arc::<Pulse>::default();
        let cpu = super::super::available_cpus().expect("a mask")[0];
        let executor = {
            let (count, over, pulse) = (Arc::clone(&count), Arc::clone(&over), Arc::clone(&pulse));
            LocalExecutorBuilder::new(Placement::Fixed(cpu))
                .preempt_timer(Duration::from_micros(100))
                .spawn(move || async move {
                    glommio::spawn_local(Arc::clone(&pulse).beat()).detach();
                    let hasty = glommio::executor().create_task_queue(
                        Shares::default(),
                        Latency::Matters(Duration::from_micros(200)),
                        "hasty",
                    );
                    let busy = async move {
                        while !over.load(Ordering::Relaxed) {
                            count.fetch_add(1, Ordering::Relaxed);
                            #[expect(clippy::disallowed_methods, reason = "the provocation")]
                            glommio::yield_if_needed().await;
                        }
                    };
                    glommio::spawn_local_into(busy, hasty)
                        .expect("the queue exists")
                        .await;
                    pulse.finish();
                })
                .expect("preflight has passed")
        };
        let watched = || {
            let pulse = Arc::clone(&pulse);
            let (end, ended) = mpsc::sync_channel::<()>(0);
            let thread = std::thread::Builder::new().spawn(move || watch(vec![pulse], &ended));
            (end, thread.expect("a thread"))
        };
        for round in 0..3 {
            if !comes_to(&count, true, Duration::from_secs(10)) {
                eprintln!("skipped: round {round}: no hang could be provoked on this machine");
                break;
            }
            let (end, thread) = watched();
            let revived = comes_to(&count, false, Duration::from_secs(20));
            assert!(revived, "round {round}: the ping did not revive it");
            drop(end);
            thread.join().expect("no panic");
        }
        // It may hang while it ends, too.
        let (end, thread) = watched();
        over.store(true, Ordering::Relaxed);
        executor.join().expect("it ends");
        drop(end);
        thread.join().expect("no panic");
    }
}
