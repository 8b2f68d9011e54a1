//! The real outside: one glommio executor per core, pinned, with a nested epoll set for its sockets.
//!
//! ```text
//! preflight ──> locks ──> cores::run ──> one thread per CPU ──> body(Rt, seed)
//!  limits,       port,     membarrier,    G1 probe, heartbeat     the node
//!  io_uring      folder    probe file
//!                                └──> watchdog thread: pings, revives, aborts
//! signals thread: SIGTERM, SIGINT ──> Stop
//! ```
//!
//! Invariants (the reasons are in docs/decisions/0001-nested-epoll.md and 0002-yields.md): one task queue per
//! executor, no `Latency::Matters`, no glommio TCP, preemption timer of an hour, every yield goes through the
//! reactor. Each of them closes one way in which glommio 0.9.0 sleeps although there is work.

mod bus;
mod cores;
mod doze;
mod durable;
mod error;
mod file;
mod locks;
mod net;
mod preflight;
mod signals;
mod tcp;
mod turn;
mod waiting;
mod watchdog;

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

pub use cores::{RunError, run, run_unwatched};
pub use error::{Holder, StartError, remedy};
pub(in crate::rt) use file::{Buf, File, Mapped};
pub use locks::{DirLock, PortClaim, claim_port, lock_dir};
pub(in crate::rt) use net::{Detached, Net};
pub use preflight::{available_cpus, check_descriptors, file_system, free_bytes, preflight};
pub use signals::raise_on_signals;

use super::file::Mode;
use super::stop::Stop;
use crate::base::time::Instant;
use durable::Ring;
use watchdog::Pulse;

/// One core of the running process; a cheap handle that never leaves its thread.
#[derive(Clone)]
pub(in crate::rt) struct Core(Rc<Inner>);

struct Inner {
    index: usize,
    started: std::time::Instant,
    stop: Stop,
    pulse: Arc<Pulse>,
    /// For durable writes. `None`: the kernel gives no second ring, glommio's does.
    ring: Option<Rc<Ring>>,
    /// When the reactor last turned, as far as this core's loop has seen.
    turned: Cell<Instant>,
    /// When the kernel was last told of durable writes.
    told: Cell<Instant>,
    /// Set when the body has returned: no blocking call may start any more (see [`Core::finish`]).
    closing: Cell<bool>,
}

impl Core {
    fn new(index: usize, started: std::time::Instant, stop: Stop, pulse: Arc<Pulse>) -> Core {
        Core(Rc::new(Inner {
            index,
            started,
            stop,
            pulse,
            ring: Ring::new().map(Rc::new).ok(),
            turned: Cell::new(Instant(0)),
            told: Cell::new(Instant(0)),
            closing: Cell::new(false),
        }))
    }

    pub(in crate::rt) fn core(&self) -> usize {
        self.0.index
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is where the clock comes from"
    )]
    pub(in crate::rt) fn now(&self) -> Instant {
        Instant(0) + std::time::Instant::now().duration_since(self.0.started)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is where the wall clock comes from"
    )]
    pub(in crate::rt) fn wall_ms(&self) -> u64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |past| {
                u64::try_from(past.as_millis()).unwrap_or(u64::MAX)
            })
    }

    pub(in crate::rt) fn entropy(&self) -> u64 {
        preflight::random_u64()
    }

    pub(in crate::rt) async fn sleep(&self, pause: Duration) {
        let _impatient = turn::Impatient::sleeper(pause);
        let mut timer = glommio::timer::Timer::new(pause);
        let mut pended = false;
        std::future::poll_fn(|cx| {
            let polled = std::pin::Pin::new(&mut timer).poll(cx).map(|_| ());
            pended |= polled.is_pending();
            polled
        })
        .await;
        // A short pause may be over before it was first looked at (zero, or the thread lost its CPU): then the
        // reactor has not been visited.
        if !pended {
            self.yield_now().await;
        }
    }

    pub(in crate::rt) async fn yield_now(&self) {
        if let Some(ring) = self.ring() {
            ring.submit();
        }
        turn::Turn::default().await;
    }

    pub(in crate::rt) async fn give_way(&self, crowd: bool) {
        turn::Pass::default().await;
        let now = self.now();
        // A crowd's writes go together; but none waits for long.
        if (!crowd || now.since(self.0.told.get()) >= turn::INTERVAL_MAX)
            && let Some(ring) = self.ring()
        {
            ring.submit();
            self.0.told.set(now);
        }
        if self.is_overdue_at(now) || !crowd && turn::is_awaited() {
            self.turn_reactor().await;
        }
    }

    /// [`Core::yield_now`] for the loop that owns the sockets: it keeps the account of `turn.rs`.
    async fn turn_reactor(&self) {
        turn::begin();
        turn::Turn::default().await;
        self.note_turn();
    }

    /// The reactor has been left alone for long enough.
    fn is_overdue(&self) -> bool {
        self.is_overdue_at(self.now())
    }

    fn is_overdue_at(&self, now: Instant) -> bool {
        now.since(self.0.turned.get()) >= turn::interval_max()
    }

    /// The reactor has just turned.
    fn note_turn(&self) {
        self.0.turned.set(self.now());
    }

    pub(in crate::rt) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let task = turn::counted(cores::abort_on_panic(task));
        glommio::spawn_local(task).detach();
    }

    pub(in crate::rt) fn stop(&self) -> &Stop {
        &self.0.stop
    }

    pub(in crate::rt) async fn open(&self, path: &Path, mode: Mode) -> io::Result<File> {
        File::open(path, mode, self.ring()).await
    }

    pub(in crate::rt) async fn map(&self, path: &Path) -> io::Result<Mapped> {
        let path = path.to_path_buf();
        self.blocking(move || Mapped::open(&path)).await
    }

    pub(in crate::rt) async fn read_whole(&self, path: &Path) -> io::Result<Vec<u8>> {
        let path = path.to_owned();
        self.blocking(move || file::read_whole(&path)).await
    }

    pub(in crate::rt) async fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let (path, bytes) = (path.to_owned(), bytes.to_owned());
        self.blocking(move || file::replace(&path, &bytes)).await
    }

    pub(in crate::rt) async fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let dir = dir.to_owned();
        self.blocking(move || file::list(&dir)).await
    }

    pub(in crate::rt) async fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = dir.to_owned();
        self.blocking(move || file::create_dir(&dir)).await
    }

    pub(in crate::rt) async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.blocking(move || file::rename(&from, &to)).await
    }

    pub(in crate::rt) async fn remove(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        self.blocking(move || file::remove(&path)).await
    }

    pub(in crate::rt) async fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = dir.to_owned();
        self.blocking(move || file::sync_dir(&dir)).await
    }

    pub(in crate::rt) fn net(&self, listen: &[SocketAddr]) -> io::Result<Net> {
        Net::new(self.clone(), listen)
    }

    /// Runs `call` on this core's one blocking thread, in the order of the calls.
    async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        if self.0.closing.get() {
            std::future::pending::<()>().await;
        }
        let _impatient = turn::Impatient::new();
        // A panic would end glommio's blocking thread and leave every later caller waiting for ever.
        glommio::executor()
            .spawn_blocking(cores::abort_on_panic_in(call))
            .await
    }

    /// Called once the body has returned. glommio's blocking thread panics when it finds its executor gone, so
    /// wait for it: it works in order, and an empty call behind everything else has been answered last.
    async fn finish(&self) {
        self.0.closing.set(true);
        glommio::executor().spawn_blocking(|| ()).await;
    }

    fn ring(&self) -> Option<&Rc<Ring>> {
        self.0.ring.as_ref()
    }

    fn pulse(&self) -> &Pulse {
        &self.0.pulse
    }
}

/// Remaining time until `then`, zero when it has passed.
fn until(core: &Core, then: Instant) -> Duration {
    then.since(core.now())
}

fn ready_if(done: bool) -> Poll<()> {
    if done { Poll::Ready(()) } else { Poll::Pending }
}
