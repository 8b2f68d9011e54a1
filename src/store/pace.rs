//! Background work in slices: a short stretch of CPU, then a pause at least as long.
//!
//! The pause is not politeness: the reactor of the core turns only when every task waits, and a core that
//! never goes idle serves disk completions late (docs/decisions/0002-yields.md).

use crate::base::limits::SLICE;
use crate::base::time::Instant;
use crate::rt::Rt;

/// Kept by one background job.
pub(crate) struct Pace {
    rt: Rt,
    slice_began: Instant,
}

impl Pace {
    pub(crate) fn new(rt: &Rt) -> Pace {
        Pace {
            rt: rt.clone(),
            slice_began: rt.now(),
        }
    }

    /// To be called every few microseconds of work; pauses when the slice is used up.
    pub(crate) async fn breathe(&mut self) {
        let worked = self.rt.now() - self.slice_began;
        if worked >= SLICE {
            self.rt.sleep(worked.min(5 * SLICE)).await;
            self.slice_began = self.rt.now();
        }
    }
}
