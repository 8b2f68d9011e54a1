//! The simulated outside: one thread, one seed, a virtual clock, disks that tear and networks that misbehave.
//!
//! ```text
//! World ── exec   who runs next, what time it is, all chance
//!   │
//!   ├── disk    one drive per node: what a crash may take back (the fault model is the header of `disk`)
//!   └── net     sockets between all nodes
//!
//! World::boot(node, cores) -> one Rt per core: an incarnation of that node; ends with crash, kill or World
//! ```
//!
//! A crashed incarnation never runs again: its tasks are dropped, and whoever still holds its `Rt` waits for ever
//! on every operation. What it left on the drive is what the next incarnation finds.
//!
//! The same seed and the same calls give the same history ([`World::trace`]).

pub mod disk;
mod exec;
mod file;
mod inode;
pub mod net;
mod pages;
mod socket;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, pending, poll_fn};
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use self::disk::{Disk, Drive};
use self::exec::{Exec, Sleep, Step, TaskWaker};
use self::net::Network;
use super::stop::Stop;
use super::{Inner, Rt};
use crate::base::time::Instant;

pub(in crate::rt) use self::file::File;
pub(in crate::rt) use self::socket::{Detached, Net};

/// Virtual wall clock at the start of the world: 2023-11-14, a time with thirteen digits like every other.
const EPOCH_MS: u64 = 1_700_000_000_000;
/// One `run` that takes more steps than this is a livelock.
const STEPS_MAX: u64 = 5_000_000;

/// One simulated universe. Dropping it ends every process in it.
pub struct World {
    shared: Rc<Shared>,
}

/// The node whose future was being run stopped dead: `World::crash` or `Disk::crash_at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crashed;

struct Shared {
    seed: u64,
    exec: Rc<Exec>,
    drives: RefCell<BTreeMap<u16, Drive>>,
    net: RefCell<Network>,
    lives: RefCell<BTreeMap<u16, Rc<Life>>>,
    skews_ms: RefCell<BTreeMap<u16, i64>>,
    /// A process ended and its tasks may still be there.
    unburied: Cell<bool>,
}

/// One incarnation of a node.
struct Life {
    alive: Cell<bool>,
    stop: Stop,
    paused: Cell<bool>,
    /// Tasks whose turn came during a pause.
    held: RefCell<Vec<Arc<TaskWaker>>>,
}

impl Life {
    fn new() -> Life {
        Life {
            alive: Cell::new(true),
            stop: Stop::default(),
            paused: Cell::new(false),
            held: RefCell::default(),
        }
    }

    fn is_alive(&self) -> bool {
        self.alive.get()
    }

    /// Whether the task has to wait for the end of a pause, after which it is woken.
    fn holds(&self, task: &Arc<TaskWaker>) -> bool {
        if self.paused.get() {
            self.held.borrow_mut().push(Arc::clone(task));
        }
        self.paused.get()
    }

    fn resume(&self) {
        self.paused.set(false);
        for task in self.held.take() {
            task.wake_by_ref();
        }
    }
}

impl World {
    #[must_use]
    pub fn new(seed: u64) -> World {
        World {
            shared: Rc::new(Shared {
                seed,
                exec: Rc::new(Exec::new(seed)),
                drives: RefCell::default(),
                net: RefCell::default(),
                lives: RefCell::default(),
                skews_ms: RefCell::default(),
                unburied: Cell::new(false),
            }),
        }
    }

    #[must_use]
    pub fn seed(&self) -> u64 {
        self.shared.seed
    }

    #[must_use]
    pub fn now(&self) -> Instant {
        self.shared.exec.now()
    }

    /// A number that depends on everything that has happened.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.shared.exec.trace()
    }

    /// The address of a node. Several nodes may listen on `0.0.0.0` or on loopback; other addresses are global.
    #[must_use]
    pub fn ip(node: u16) -> IpAddr {
        let [high, low] = node.to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(10, 0, high, low))
    }

    /// Starts a process on the node: one runtime per core. A process still running there is killed first.
    pub fn boot(&self, node: u16, cores: usize) -> Vec<Rt> {
        self.kill(node);
        let life = Rc::new(Life::new());
        self.shared
            .lives
            .borrow_mut()
            .insert(node, Rc::clone(&life));
        self.shared.drives.borrow_mut().entry(node).or_default();
        (0..cores)
            .map(|core| {
                Rt(Inner::Sim(Process {
                    shared: Rc::clone(&self.shared),
                    life: Rc::clone(&life),
                    node,
                    core,
                }))
            })
            .collect()
    }

    /// Drives everything until `future`, which belongs to the process of `rt`, is done.
    /// Panics with the seed on deadlock, on livelock, and when that process crashes.
    pub fn run<T>(&self, rt: &Rt, future: impl Future<Output = T>) -> T {
        match self.try_run(rt, future) {
            Ok(out) => out,
            Err(Crashed) => panic!("SEED={}: the node crashed during run()", self.shared.seed),
        }
    }

    /// Like [`World::run`], for futures that a crash of their node may end.
    pub fn try_run<T>(&self, rt: &Rt, future: impl Future<Output = T>) -> Result<T, Crashed> {
        let Inner::Sim(process) = &rt.0 else {
            unreachable!("a world runs simulated runtimes only")
        };
        let life = Rc::clone(&process.life);
        let task = self.shared.exec.waker();
        let waker = Waker::from(Arc::clone(&task));
        let mut cx = Context::from_waker(&waker);
        let mut future = pin!(future);
        task.wake_by_ref();
        for _ in 0..STEPS_MAX {
            if !life.is_alive() {
                return Err(Crashed);
            }
            match self.shared.exec.step(Instant(u64::MAX)) {
                Step::Task(picked) if picked == task.id => {
                    if !life.holds(&task)
                        && let Poll::Ready(out) = future.as_mut().poll(&mut cx)
                        && life.is_alive()
                    {
                        return Ok(out);
                    }
                    self.shared.bury();
                }
                Step::Stuck => panic!(
                    "SEED={}: deadlock at {:?}: nothing is runnable and no timer is set",
                    self.shared.seed,
                    self.now()
                ),
                other => self.shared.act(other),
            }
        }
        panic!(
            "SEED={}: livelock: {STEPS_MAX} steps without an end",
            self.shared.seed
        );
    }

    /// Drives everything for this much virtual time.
    pub fn run_for(&self, span: Duration) {
        let until = self.now() + span;
        let alarm = Sleep::until(&self.shared.exec, until);
        let waker = Waker::from(self.shared.exec.waker());
        let mut alarm = pin!(alarm);
        let mut cx = Context::from_waker(&waker);
        while alarm.as_mut().poll(&mut cx).is_pending() {
            let step = self.shared.exec.step(until);
            self.shared.act(step);
        }
    }

    /// Power loss: tasks gone, connections reset, unsynced disk state torn.
    pub fn crash(&self, node: u16) {
        self.shared.end(node, true);
        self.shared.bury();
    }

    /// SIGKILL: tasks gone, connections reset; everything the kernel had taken stays.
    pub fn kill(&self, node: u16) {
        self.shared.end(node, false);
        self.shared.bury();
    }

    /// SIGTERM: raises the node's `Stop`.
    pub fn stop(&self, node: u16) {
        if let Some(life) = self.shared.lives.borrow().get(&node) {
            life.stop.raise();
        }
    }

    /// SIGSTOP: none of its tasks runs until [`World::resume`]. Its kernel goes on: connections are accepted and bytes
    /// taken, up to its socket buffers. An operation of the disk that is under way ends after the pause.
    pub fn pause(&self, node: u16) {
        if let Some(life) = self.shared.lives.borrow().get(&node) {
            life.paused.set(true);
        }
    }

    /// SIGCONT.
    pub fn resume(&self, node: u16) {
        if let Some(life) = self.shared.lives.borrow().get(&node) {
            life.resume();
        }
    }

    /// Whether the node's process runs.
    #[must_use]
    pub fn is_up(&self, node: u16) -> bool {
        self.shared.lives.borrow().contains_key(&node)
    }

    /// Sets a node's wall clock this far from the true time, for this and later incarnations.
    pub fn set_skew_ms(&self, node: u16, skew_ms: i64) {
        self.shared.skews_ms.borrow_mut().insert(node, skew_ms);
    }

    /// The node's drive: faults, counters, direct access to stored bytes.
    #[must_use]
    pub fn disk(&self, node: u16) -> Disk {
        self.shared.drives.borrow_mut().entry(node).or_default();
        Disk::new(Rc::clone(&self.shared), node)
    }

    /// Cuts the direction `from` -> `to`: bytes and connects wait until [`World::heal`].
    pub fn partition(&self, from: u16, to: u16) {
        self.shared.net.borrow_mut().partition(from, to);
    }

    /// Ends every partition.
    pub fn heal(&self) {
        self.shared.net.borrow_mut().heal(&self.shared.exec);
    }

    /// Resets some connections between two nodes, as a machine on the way does; what was on its way on them is lost.
    pub fn sever(&self, one: u16, other: u16) {
        let exec = &self.shared.exec;
        self.shared.net.borrow_mut().sever(one, other, exec);
    }

    /// What the network has done so far.
    #[must_use]
    pub fn net_counters(&self) -> net::Counters {
        self.shared.net.borrow().counters()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let nodes: Vec<u16> = self.shared.lives.borrow().keys().copied().collect();
        for node in nodes {
            self.shared.end(node, false);
        }
        self.shared.exec.drop_all_tasks();
    }
}

impl Shared {
    fn act(&self, step: Step) {
        match step {
            Step::Signal(signal) => self.net.borrow_mut().signal(signal, &self.exec),
            Step::Task(id) => self.exec.poll_task(id),
            Step::Moved | Step::Stuck => {}
        }
        self.bury();
    }

    /// Ends the node's incarnation now; its tasks are dropped by the caller or after the current poll.
    fn end(&self, node: u16, power_lost: bool) {
        let Some(life) = self.lives.borrow_mut().remove(&node) else {
            return;
        };
        life.alive.set(false);
        self.exec.note(u64::from(node) | 1 << 40);
        self.net.borrow_mut().end_node(node, &self.exec);
        if let Some(drive) = self.drives.borrow_mut().get_mut(&node) {
            self.exec.chance(|rng| drive.end(power_lost, rng));
        }
        self.unburied.set(true);
    }

    /// Drops the tasks of a process that crashed in the middle of a poll.
    fn bury(&self) {
        if self.unburied.replace(false) {
            self.exec.drop_dead_tasks();
        }
    }
}

/// One core of one incarnation: what [`Rt`] holds.
#[derive(Clone)]
pub(in crate::rt) struct Process {
    shared: Rc<Shared>,
    life: Rc<Life>,
    node: u16,
    core: usize,
}

impl Process {
    pub(in crate::rt) fn core(&self) -> usize {
        self.core
    }

    pub(in crate::rt) fn now(&self) -> Instant {
        self.shared.exec.now()
    }

    pub(in crate::rt) fn wall_ms(&self) -> u64 {
        let skew = self.shared.skews_ms.borrow().get(&self.node).copied();
        (EPOCH_MS + self.now().0 / 1_000_000).saturating_add_signed(skew.unwrap_or(0))
    }

    pub(in crate::rt) fn entropy(&self) -> u64 {
        self.shared.exec.chance(|rng| rng.u64(..))
    }

    pub(in crate::rt) async fn sleep(&self, pause: Duration) {
        Sleep::lasting(&self.shared.exec, pause).await;
        self.live().await;
    }

    /// Here every yield is a whole one.
    pub(in crate::rt) async fn give_way(&self, _crowd: bool) {
        self.yield_now().await;
    }

    pub(in crate::rt) async fn yield_now(&self) {
        let mut yielded = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        self.live().await;
    }

    pub(in crate::rt) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        if self.life.is_alive() {
            self.shared.exec.spawn(&self.life, task);
        }
    }

    pub(in crate::rt) fn stop(&self) -> &Stop {
        &self.life.stop
    }

    /// Passes while the process lives, for ever otherwise.
    async fn live(&self) {
        if !self.life.is_alive() {
            pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::rt::file::Mode;

    const SEEDS: u64 = 300;

    #[test]
    fn time_is_virtual_and_tasks_interleave() {
        let world = World::new(1);
        let rt = world.boot(1, 2).remove(1);
        assert_eq!(rt.core(), 1);
        let clock = rt.clone();
        let slept = world.run(&rt, async move {
            let start = clock.now();
            clock.sleep(Duration::from_secs(3600)).await;
            clock.now().since(start)
        });
        assert!(slept >= Duration::from_secs(3600));
        world.set_skew_ms(1, -5_000);
        assert_eq!(rt.wall_ms(), EPOCH_MS - 5_000 + world.now().0 / 1_000_000);
    }

    /// Two cores, files, timers and a crash; returns the trace.
    fn busy_history(seed: u64) -> u64 {
        let world = World::new(seed);
        for _ in 0..2 {
            let rts = world.boot(1, 2);
            for rt in rts.clone() {
                rts[0].spawn(async move {
                    let path = format!("/d/{}", rt.entropy() % 3);
                    rt.create_dir(Path::new("/d")).await.unwrap();
                    let file = rt.open(Path::new(&path), Mode::Create).await.unwrap();
                    for page in 0..8 {
                        let mut buf = file.alloc(4096);
                        buf.fill(page);
                        file.write_at(buf, u64::from(page) * 4096).await.unwrap();
                        rt.sleep(Duration::from_micros(20)).await;
                    }
                    file.sync().await.unwrap();
                });
            }
            world.run_for(Duration::from_millis(1));
            world.crash(1);
        }
        world.trace()
    }

    #[test]
    fn the_same_seed_is_the_same_history() {
        let traces: Vec<u64> = (0..SEEDS).map(busy_history).collect();
        for seed in 0..SEEDS {
            assert_eq!(traces[seed as usize], busy_history(seed), "seed {seed}");
        }
        let distinct: std::collections::BTreeSet<u64> = traces.into_iter().collect();
        assert_eq!(distinct.len() as u64, SEEDS, "seeds make a difference");
    }

    #[test]
    fn a_crash_ends_the_run_and_its_tasks() {
        let world = World::new(7);
        let rt = world.boot(3, 1).remove(0);
        world.disk(3).crash_at(1);
        let inner = rt.clone();
        let out = world.try_run(&rt, async move {
            inner.create_dir(Path::new("/a")).await.unwrap();
            inner.create_dir(Path::new("/b")).await.unwrap();
        });
        assert_eq!(out, Err(Crashed));
        assert!(!world.is_up(3));
        assert_eq!(world.disk(3).ops(), 2);
        let rt = world.boot(3, 1).remove(0);
        let names = world.run(&rt, async { rt.list(Path::new("/")).await.unwrap() });
        assert!(names.contains(&"a".to_owned()), "{names:?}");
    }

    #[test]
    #[should_panic(expected = "SEED=11: deadlock")]
    fn a_deadlock_is_told_with_its_seed() {
        let world = World::new(11);
        let rt = world.boot(1, 1).remove(0);
        world.run(&rt, pending::<()>());
    }

    #[test]
    fn a_paused_process_does_nothing_and_then_goes_on_where_it_was() {
        let world = World::new(5);
        let (rt, other) = (world.boot(1, 1).remove(0), world.boot(2, 1).remove(0));
        let ticks = [0, 1].map(|_| Rc::new(Cell::new(0)));
        for (rt, ticks) in [&rt, &other].into_iter().zip(&ticks) {
            let (rt, ticks) = (rt.clone(), Rc::clone(ticks));
            rt.clone().spawn(async move {
                loop {
                    rt.sleep(Duration::from_millis(1)).await;
                    ticks.set(ticks.get() + 1);
                }
            });
        }
        world.run_for(Duration::from_millis(20));
        let before = ticks[0].get();
        assert!(before > 10);
        world.pause(1);
        world.run_for(Duration::from_millis(500));
        assert_eq!(ticks[0].get(), before);
        assert!(ticks[1].get() > 400, "the others go on");
        world.resume(1);
        world.run_for(Duration::from_millis(20));
        assert!((before + 10..before + 30).contains(&ticks[0].get()));
        world.pause(1);
        world.kill(1);
        world.run_for(Duration::from_millis(20));
        assert!(!world.is_up(1));
    }

    #[test]
    fn stop_wakes_those_who_wait_for_it() {
        let world = World::new(2);
        let rt = world.boot(1, 1).remove(0);
        let waiting = rt.clone();
        let seen = Rc::new(Cell::new(false));
        let flag = Rc::clone(&seen);
        rt.spawn(async move {
            poll_fn(|cx| waiting.stop().poll_raised(cx)).await;
            flag.set(true);
        });
        world.run_for(Duration::from_secs(1));
        assert!(!seen.get());
        world.stop(1);
        world.run_for(Duration::from_millis(1));
        assert!(seen.get());
        let next = world.boot(1, 1).remove(0);
        assert!(!next.stop().is_raised());
    }
}
