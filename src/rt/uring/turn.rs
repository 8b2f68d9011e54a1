//! The one yield: pending until the reactor itself has turned. And the step aside that is none.
//!
//! glommio looks at its rings only when every task of the queue is pending, so a future that wakes itself is
//! not a yield: it keeps the queue busy and starves disk, timers and foreign wakes (measured: until the
//! preemption timer, which we set to an hour). What works is to wait for a timer that is due by the time the
//! reactor looks: the executor then neither runs us again at once nor goes to sleep.
//!
//! Trap: the timer must not carry the task's own waker, or the yield ends at *any* wake-up. Two tasks that
//! wake each other around their yields would then alternate for ever inside one pass and the reactor would
//! never be visited. So the timer wakes a [`Bell`], which only the reactor rings.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use glommio::timer::Timer;

/// Longer than the time from creating a timer to polling it, or it is over before it is registered.
const AHEAD: Duration = Duration::from_nanos(400);

/// A turn of the reactor costs some five microseconds (three `io_uring_enter`, two timers): a loop with a crowd
/// waiting takes it once per so long, not once per handful of requests. The bound is what a background slice takes
/// too (`store/pace.rs`), so timers and disk completions wait no longer than they do behind one of those.
pub(super) const INTERVAL_MAX: Duration = Duration::from_micros(200);

/// The same while nobody waits for something that comes soon: the reactor then brings nothing but the ends of long
/// sleeps, and what other threads say to background tasks. So long, because it is how long a doze may last: a timer
/// that is due before all others of the CPU (a clock tick comes every 4 ms) is set and taken back in the hardware, which a
/// virtual machine must ask its host for: 4 µs of each wait when it was 1 ms, nothing at 10 ms.
const INTERVAL_QUIET_MAX: Duration = Duration::from_millis(10);

/// A sleep from this on may end late by twice [`INTERVAL_QUIET_MAX`].
const LONG_SLEEP: Duration = Duration::from_millis(10);

thread_local! {
    /// An operation has been queued that the kernel has not been told of: that takes a turn of the reactor.
    static AWAITED: Cell<bool> = const { Cell::new(false) };
    /// Operations on the disk that have not come back.
    static UNDER_WAY: Cell<usize> = const { Cell::new(0) };
    /// Who waits for the reactor, and not for long: disk, blocking calls, yields, short sleeps.
    static IMPATIENT: Cell<usize> = const { Cell::new(0) };
    /// How often tasks beside the loop have been polled.
    static POLLS: Cell<u64> = const { Cell::new(0) };
}

/// So many generations of tasks that wake each other run before the loop dozes all the same.
const GENERATIONS_MAX: usize = 16;

/// How long the reactor may be left alone now.
pub(super) fn interval_max() -> Duration {
    match IMPATIENT.get() {
        0 => INTERVAL_QUIET_MAX,
        _ => INTERVAL_MAX,
    }
}

/// Somebody who waits for the reactor, and not for long.
pub(super) struct Impatient(());

impl Impatient {
    pub(super) fn new() -> Impatient {
        IMPATIENT.set(IMPATIENT.get() + 1);
        Impatient(())
    }

    /// Nobody, if the sleep is long.
    pub(super) fn sleeper(pause: Duration) -> Option<Impatient> {
        (pause < LONG_SLEEP).then(Impatient::new)
    }
}

impl Drop for Impatient {
    fn drop(&mut self) {
        IMPATIENT.set(IMPATIENT.get() - 1);
    }
}

/// An operation on the disk, until it has come back or nobody waits for it any more.
pub(super) struct UnderWay {
    _impatient: Impatient,
}

/// Something was queued for the disk.
pub(super) fn queued() -> UnderWay {
    AWAITED.set(true);
    UNDER_WAY.set(UNDER_WAY.get() + 1);
    UnderWay {
        _impatient: Impatient::new(),
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        UNDER_WAY.set(UNDER_WAY.get() - 1);
    }
}

/// Whether the disk owes glommio an answer; durable writes are not among these (`durable.rs`).
pub(super) fn is_under_way() -> bool {
    UNDER_WAY.get() > 0
}

/// Whether something is queued for the disk that may not have left yet.
pub(super) fn is_awaited() -> bool {
    AWAITED.get()
}

/// The core's loop goes into a turn, or to sleep, which begins with one: what is queued leaves with it. Said
/// before and not after, because other tasks run at its end, before the loop does. Nobody else may say it: while
/// the loop does not wait, the reactor does not turn.
pub(super) fn begin() {
    AWAITED.set(false);
}

/// The other ready tasks run, the reactor does not turn: this wakes itself, so only a caller that counts the time
/// may use it ([`INTERVAL_MAX`]).
#[derive(Default)]
pub(super) struct Pass(bool);

impl Future for Pass {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// A task beside the loop.
pub(super) async fn counted(task: impl Future<Output = ()>) {
    let mut task = std::pin::pin!(task);
    std::future::poll_fn(|cx| {
        POLLS.set(POLLS.get() + 1);
        task.as_mut().poll(cx)
    })
    .await;
}

/// All ready tasks run, and those they make ready: whoever is ready now would wait for the whole doze.
pub(super) async fn settle() {
    for _ in 0..GENERATIONS_MAX {
        let before = POLLS.get();
        Pass::default().await;
        if POLLS.get() == before {
            return;
        }
    }
}

#[derive(Default)]
pub(super) struct Turn(Option<(Timer, Arc<Bell>, Impatient)>);

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
        if let Some((_, bell, _)) = &self.0 {
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
        self.0 = Some((timer, bell, Impatient::new()));
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
