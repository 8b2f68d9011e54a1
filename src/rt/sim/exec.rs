//! The scheduler of the simulated world: tasks, virtual clock, one stream of chance.
//!
//! ```text
//! step: alarms that are due fire -> one runnable task, picked by chance, is polled -> the clock moves a little
//!       nothing runnable        -> the clock jumps to the next alarm
//!       no alarm either         -> deadlock: the caller panics with the seed
//! ```
//!
//! Everything random in the world comes from the one generator here, in the order the steps ask for it, and
//! nothing depends on an address or a hash: the same seed is the same history. [`Exec::trace`] folds that
//! history into one number so that tests can compare two runs.
//!
//! Each poll costs some virtual nanoseconds. Without that a task that only yields would stop the clock for
//! everybody.

#![expect(
    clippy::disallowed_types,
    reason = "a std Waker must be Send, so its queue is locked although one thread runs everything"
)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::Life;
use super::net::Signal;
use crate::base::time::Instant;

/// Tasks, clock and chance of one world.
pub(super) struct Exec {
    rng: RefCell<fastrand::Rng>,
    now_ns: Cell<u64>,
    trace: Cell<u64>,
    tasks: RefCell<BTreeMap<u64, Task>>,
    serial: Cell<u64>,
    ready: Arc<Ready>,
    alarms: RefCell<BTreeMap<AlarmKey, Alarm>>,
}

pub(super) type AlarmKey = (Instant, u64);

/// What happens when an alarm is due.
pub(super) enum Alarm {
    Wake(Waker),
    Net(Signal),
}

/// What a step found to do.
pub(super) enum Step {
    /// An alarm for the network: the caller owns the network and acts.
    Signal(Signal),
    /// The task with this id is to be polled.
    Task(u64),
    /// The clock moved.
    Moved,
    /// Neither a runnable task nor an alarm.
    Stuck,
}

struct Task {
    life: Rc<Life>,
    /// Absent while it is being polled.
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    waker: Arc<TaskWaker>,
}

#[derive(Default)]
struct Ready(Mutex<Vec<Arc<TaskWaker>>>);

impl Ready {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<TaskWaker>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts one task on the ready list, once.
pub(super) struct TaskWaker {
    pub(super) id: u64,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.lock().push(Arc::clone(self));
        }
    }
}

impl Exec {
    pub(super) fn new(seed: u64) -> Exec {
        Exec {
            rng: RefCell::new(fastrand::Rng::with_seed(seed)),
            now_ns: Cell::new(0),
            trace: Cell::new(seed),
            tasks: RefCell::default(),
            serial: Cell::new(0),
            ready: Arc::default(),
            alarms: RefCell::default(),
        }
    }

    pub(super) fn now(&self) -> Instant {
        Instant(self.now_ns.get())
    }

    /// Draws from the world's chance. `draw` must not come back here.
    pub(super) fn chance<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.rng.borrow_mut())
    }

    /// Folds a fact into the history.
    pub(super) fn note(&self, fact: u64) {
        let mixed = (self.trace.get() ^ fact).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.trace.set(mixed.rotate_left(23));
    }

    pub(super) fn trace(&self) -> u64 {
        self.trace.get()
    }

    /// A number never given before in this world.
    pub(super) fn serial(&self) -> u64 {
        let next = self.serial.get() + 1;
        self.serial.set(next);
        next
    }

    pub(super) fn spawn(&self, life: &Rc<Life>, future: impl Future<Output = ()> + 'static) {
        let waker = self.waker();
        let id = waker.id;
        waker.wake_by_ref();
        let task = Task {
            life: Rc::clone(life),
            future: Some(Box::pin(future)),
            waker,
        };
        self.tasks.borrow_mut().insert(id, task);
    }

    /// A waker for a task that the caller keeps and polls itself.
    pub(super) fn waker(&self) -> Arc<TaskWaker> {
        Arc::new(TaskWaker {
            id: self.serial(),
            queued: AtomicBool::new(false),
            ready: Arc::clone(&self.ready),
        })
    }

    /// Finds the next thing to do, without jumping past `until`.
    pub(super) fn step(&self, until: Instant) -> Step {
        if let Some(signal) = self.fire_due() {
            return Step::Signal(signal);
        }
        let picked = {
            let mut ready = self.ready.lock();
            if ready.is_empty() {
                None
            } else {
                let at = self.chance(|rng| rng.usize(..ready.len()));
                Some(ready.swap_remove(at))
            }
        };
        if let Some(waker) = picked {
            waker.queued.store(false, Ordering::Relaxed);
            self.note(waker.id ^ self.now_ns.get() << 20);
            let cost_ns = self.chance(|rng| rng.u64(100..2_000));
            self.now_ns.set(self.now_ns.get() + cost_ns);
            return Step::Task(waker.id);
        }
        let next = self.alarms.borrow().first_key_value().map(|(key, _)| key.0);
        match next {
            None => Step::Stuck,
            Some(at) => {
                self.now_ns.set(at.min(until).0.max(self.now_ns.get()));
                Step::Moved
            }
        }
    }

    /// Wakes sleepers that are due; stops at the first alarm that is the network's.
    fn fire_due(&self) -> Option<Signal> {
        let now = self.now();
        let mut alarms = self.alarms.borrow_mut();
        while let Some(first) = alarms.first_entry() {
            if first.key().0 > now {
                break;
            }
            match first.remove() {
                Alarm::Wake(waker) => waker.wake(),
                Alarm::Net(signal) => return Some(signal),
            }
        }
        None
    }

    /// Polls one spawned task, if it still exists and its process lives. Of a paused process it is polled later.
    pub(super) fn poll_task(&self, id: u64) {
        let taken = self.tasks.borrow_mut().get_mut(&id).and_then(|task| {
            let held = task.life.holds(&task.waker);
            let future = task.future.take_if(|_| !held)?;
            Some((future, Arc::clone(&task.waker)))
        });
        let Some((mut future, waker)) = taken else {
            return;
        };
        let waker = Waker::from(waker);
        let done = future.as_mut().poll(&mut Context::from_waker(&waker));
        let finished = {
            let mut tasks = self.tasks.borrow_mut();
            match tasks.get_mut(&id) {
                Some(task) if done.is_pending() && task.life.is_alive() => {
                    task.future = Some(future);
                    None
                }
                _ => Some((tasks.remove(&id), future)),
            }
        };
        // Destructors may come back here, so nothing is borrowed when they run.
        drop(finished);
    }

    /// Drops the tasks of processes that have ended.
    pub(super) fn drop_dead_tasks(&self) {
        self.drop_tasks_where(|task| !task.life.is_alive());
    }

    /// Drops every task: breaks the cycles world -> task -> runtime -> world.
    pub(super) fn drop_all_tasks(&self) {
        self.drop_tasks_where(|_| true);
        self.alarms.borrow_mut().clear();
        self.ready.lock().clear();
    }

    fn drop_tasks_where(&self, gone: impl Fn(&Task) -> bool) {
        let dropped: Vec<Task> = {
            let mut tasks = self.tasks.borrow_mut();
            let ids: Vec<u64> = tasks
                .iter()
                .filter(|(_, task)| gone(task))
                .map(|(id, _)| *id)
                .collect();
            ids.iter().filter_map(|id| tasks.remove(id)).collect()
        };
        drop(dropped);
    }

    pub(super) fn set_alarm(&self, at: Instant, alarm: Alarm) -> AlarmKey {
        let key = (at, self.serial());
        self.alarms.borrow_mut().insert(key, alarm);
        key
    }

    pub(super) fn clear_alarm(&self, key: AlarmKey) {
        let gone = self.alarms.borrow_mut().remove(&key);
        drop(gone);
    }

    /// Replaces the waker of a pending alarm; false when it has fired.
    fn refresh_alarm(&self, key: AlarmKey, waker: &Waker) -> bool {
        match self.alarms.borrow_mut().get_mut(&key) {
            Some(Alarm::Wake(held)) => {
                held.clone_from(waker);
                true
            }
            _ => false,
        }
    }
}

/// A sleep until an instant; forgets its alarm when dropped, so that an abandoned deadline neither hides a
/// deadlock nor drags the clock along.
pub(super) struct Sleep {
    exec: Rc<Exec>,
    at: Instant,
    key: Option<AlarmKey>,
}

impl Sleep {
    pub(super) fn until(exec: &Rc<Exec>, at: Instant) -> Sleep {
        Sleep {
            exec: Rc::clone(exec),
            at,
            key: None,
        }
    }

    pub(super) fn lasting(exec: &Rc<Exec>, pause: Duration) -> Sleep {
        Sleep::until(exec, exec.now() + pause)
    }
}

impl Future for Sleep {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.exec.now() >= self.at {
            return Poll::Ready(());
        }
        let pending = self
            .key
            .is_some_and(|key| self.exec.refresh_alarm(key, cx.waker()));
        if !pending {
            let key = self
                .exec
                .set_alarm(self.at, Alarm::Wake(cx.waker().clone()));
            self.key = Some(key);
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.exec.clear_alarm(key);
        }
    }
}
