//! Background work in slices: a short stretch of CPU, then a pause at least as long.
//!
//! ```text
//! poll ─ work ─ wait for the disk      poll ─ work ... SLICE ─ pause      poll ─ work ...
//!      └─ counted ─┘ (a pause too)          └─ counted ──────┘
//! ```
//!
//! The pause is not politeness: the reactor of the core turns only when every task waits, and a core that
//! never goes idle serves disk completions late (docs/decisions/0002-yields.md). What counts is CPU since the job
//! last got the core: while it waits for the disk it is idle anyway.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;

use crate::base::limits::SLICE;
use crate::base::time::Instant;
use crate::rt::Rt;

/// Kept by one lane of background jobs.
pub(crate) struct Pace {
    rt: Rt,
    /// When the job got the core.
    resumed: Cell<Instant>,
}

impl Pace {
    pub(crate) fn new(rt: &Rt) -> Pace {
        Pace {
            rt: rt.clone(),
            resumed: Cell::new(rt.now()),
        }
    }

    /// Runs a job that breathes with this pace.
    pub(crate) async fn drive<T>(&self, job: impl Future<Output = T>) -> T {
        let mut job = pin!(job);
        poll_fn(|cx| {
            self.resumed.set(self.rt.now());
            job.as_mut().poll(cx)
        })
        .await
    }

    /// To be called every few microseconds of work; pauses when the slice is used up. `hurry`: somebody waits for
    /// the job, so the others of the core get one turn and no more.
    pub(crate) async fn breathe(&self, hurry: bool) {
        let worked = self.rt.now() - self.resumed.get();
        match worked >= SLICE {
            true if hurry => self.rt.yield_now().await,
            true => self.rt.sleep(worked.min(5 * SLICE)).await,
            false => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rt::sim::World;

    #[test]
    fn work_is_paused_for_and_waiting_is_not() {
        let world = World::new(1);
        let rt = world.boot(1, 1).remove(0);
        world.run(&rt, async {
            let pace = Pace::new(&rt);
            let job = async {
                rt.sleep(Duration::from_millis(10)).await;
                let idle = rt.now();
                pace.breathe(false).await;
                assert_eq!(
                    rt.now(),
                    idle,
                    "the disk was waited for, nothing was worked"
                );
                // Simulated work takes no time: as if the job had got the core two slices ago.
                pace.resumed
                    .set(Instant(idle.0 - 2 * SLICE.as_nanos() as u64));
                pace.breathe(true).await;
                assert!(rt.now() - idle < SLICE, "somebody waits");
                let before = rt.now();
                pace.resumed
                    .set(Instant(before.0 - 2 * SLICE.as_nanos() as u64));
                pace.breathe(false).await;
                assert!(rt.now() - before >= 2 * SLICE);
            };
            pace.drive(job).await;
        });
    }
}
