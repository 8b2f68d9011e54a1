//! The one yield: pending until the reactor itself has turned.
//!
//! glommio looks at its rings only when every task of the queue is pending, so a future that wakes itself is
//! not a yield: it keeps the queue busy and starves disk, timers and foreign wakes (measured: until the
//! preemption timer, which we set to an hour). What works is to wait for a timer that is due by the time the
//! reactor looks: the executor then neither runs us again at once nor goes to sleep.
//!
//! Trap: the timer must not carry the task's own waker, or the yield ends at *any* wake-up. Two tasks that
//! wake each other around their yields would then alternate for ever inside one pass and the reactor would
//! never be visited. So the timer wakes a [`Bell`], which only the reactor rings.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use glommio::timer::Timer;

/// Longer than the time from creating a timer to polling it, or it is over before it is registered.
const AHEAD: Duration = Duration::from_nanos(400);

#[derive(Default)]
pub(super) struct Turn(Option<(Timer, Arc<Bell>)>);

struct Bell {
    rung: AtomicBool,
    task: Waker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Relaxed);
        self.task.wake_by_ref();
    }
}

impl Future for Turn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some((_, bell)) = &self.0 {
            return super::ready_if(bell.rung.load(Ordering::Relaxed));
        }
        let bell = Arc::new(Bell {
            rung: AtomicBool::new(false),
            task: cx.waker().clone(),
        });
        let waker = Waker::from(Arc::clone(&bell));
        let mut ring = Context::from_waker(&waker);
        // Ready here means that the thread lost its CPU between the two lines: nothing is registered, again.
        let timer = loop {
            let mut timer = Timer::new(AHEAD);
            if Pin::new(&mut timer).poll(&mut ring).is_pending() {
                break timer;
            }
        };
        self.0 = Some((timer, bell));
        wait_for_timer();
        Poll::Pending
    }
}

/// Burns the last nanoseconds: a timer still ahead when the reactor looks would cost a sleep and a wake-up.
#[expect(clippy::disallowed_methods, reason = "rt owns the clock")]
fn wait_for_timer() {
    let began = std::time::Instant::now();
    while began.elapsed() <= AHEAD {
        std::hint::spin_loop();
    }
}
