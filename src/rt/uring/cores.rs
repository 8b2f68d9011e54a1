//! Starts one executor per CPU, waits for all of them, and makes sure that no failure goes unheard.
//!
//! No body runs before every executor stands and has proven direct I/O: a node that cannot start has served
//! nobody. Whatever ends one core asks the others to stop.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};

use super::error::StartError;
use super::file::File;
use super::watchdog::{Pulse, watch};
use super::{Core, locks, preflight};
use crate::base::limits::DISK_PAGE_BYTES;
use crate::rt::file::Mode;
use crate::rt::stop::Stop;
use crate::rt::{Inner, Rt};

/// Nothing may interrupt a task queue: preemption is the trigger of glommio's sleep with work at hand.
const PREEMPT: Duration = Duration::from_secs(3600);
const RING_ENTRIES: usize = 256;

/// Why [`run`] ended without all bodies returning Ok.
#[derive(Debug)]
pub enum RunError<E> {
    /// No body ran.
    Start(StartError),
    /// The first body, by core, that failed; the others were asked to stop and have ended.
    Body { core: usize, error: E },
}

impl<E: fmt::Display> fmt::Display for RunError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(error) => error.fmt(f),
            Self::Body { core, error } => write!(f, "core {core}: {error}"),
        }
    }
}

impl<E> From<StartError> for RunError<E> {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}

/// Runs `body` once per CPU of `cpus`, each pinned to it, and returns when all have returned. Core `i` gets
/// `seeds[i]` (its end of the mesh, say). Call [`preflight`](super::preflight()) first; blocks the caller.
///
/// `data_dir` is created if need be, and `data_dir/tmp/probe` written in it. A body's Err raises `stop` for the
/// others. A panic in any task aborts the process: the WAL is the remedy, not unwinding.
pub fn run<S, E, B, F>(
    cpus: &[usize],
    data_dir: &Path,
    stop: &Stop,
    seeds: Vec<S>,
    body: B,
) -> Result<(), RunError<E>>
where
    S: Send + 'static,
    E: Send + 'static,
    B: Fn(Rt, S) -> F + Clone + Send + 'static,
    F: Future<Output = Result<(), E>> + 'static,
{
    let cores = start(cpus, data_dir, stop, seeds, &body)?;
    let pulses = cores.iter().map(|core| Arc::clone(&core.pulse)).collect();
    let (end, ended) = mpsc::sync_channel::<()>(0);
    let watchdog = std::thread::Builder::new()
        .name("watchdog".into())
        .spawn(move || watch(pulses, &ended))
        .map_err(|error| StartError::Executor {
            core: 0,
            why: error.to_string(),
        })?;
    let outcome = join(cores);
    drop(end);
    // It ends within one pause; its panic would be a bug that must not hide.
    watchdog.join().expect("the watchdog does not panic");
    outcome
}

/// [`run`] without the watchdog: for the test that must see the hang it would cure.
pub fn run_unwatched<S, E, B, F>(
    cpus: &[usize],
    data_dir: &Path,
    stop: &Stop,
    seeds: Vec<S>,
    body: B,
) -> Result<(), RunError<E>>
where
    S: Send + 'static,
    E: Send + 'static,
    B: Fn(Rt, S) -> F + Clone + Send + 'static,
    F: Future<Output = Result<(), E>> + 'static,
{
    join(start(cpus, data_dir, stop, seeds, &body)?)
}

/// Starts every executor and waits until each has proven direct I/O. They stand at their gates when it returns.
fn start<S, E, B, F>(
    cpus: &[usize],
    data_dir: &Path,
    stop: &Stop,
    seeds: Vec<S>,
    body: &B,
) -> Result<Vec<Started<E>>, StartError>
where
    S: Send + 'static,
    E: Send + 'static,
    B: Fn(Rt, S) -> F + Clone + Send + 'static,
    F: Future<Output = Result<(), E>> + 'static,
{
    assert_eq!(cpus.len(), seeds.len(), "one seed per core");
    let probe = locks::write_probe(data_dir)?;
    preflight::register_membarrier();
    let started = clock();
    let io_memory = preflight::io_memory_bytes(cpus.len());
    let mut cores = Vec::new();
    for (index, (&cpu, seed)) in cpus.iter().zip(seeds).enumerate() {
        let pulse = Arc::<Pulse>::default();
        let (proven, proof) = mpsc::sync_channel(1);
        let (go, gate) = mpsc::sync_channel(1);
        let plan = Plan {
            index,
            started,
            stop: stop.clone(),
            pulse: Arc::clone(&pulse),
            probe: probe.clone(),
            proven,
            gate,
        };
        let body = body.clone();
        let handle = LocalExecutorBuilder::new(Placement::Fixed(cpu))
            .name("kvstore")
            .preempt_timer(PREEMPT)
            .ring_depth(RING_ENTRIES)
            .io_memory(io_memory)
            .spawn(move || abort_on_panic(live(plan, seed, body)))
            .map_err(|error| cannot_spawn(index, cpu, error))?;
        cores.push(Started {
            pulse,
            proof,
            go,
            handle,
        });
    }
    // On an error the gates fall with `cores`, and the cores behind them end by themselves.
    cores
        .into_iter()
        .enumerate()
        .map(|(core, started)| await_proof(core, started, data_dir))
        .collect()
}

/// What one core needs to come to life.
struct Plan {
    index: usize,
    started: std::time::Instant,
    stop: Stop,
    pulse: Arc<Pulse>,
    probe: PathBuf,
    proven: mpsc::SyncSender<io::Result<()>>,
    gate: mpsc::Receiver<()>,
}

/// The life of one core. None: it was not let through the gate.
async fn live<S, E, B, F>(plan: Plan, seed: S, body: B) -> Option<Result<(), E>>
where
    B: Fn(Rt, S) -> F,
    F: Future<Output = Result<(), E>> + 'static,
{
    let proof = prove_direct_io(&plan.probe).await;
    // The main thread waits for this; were it gone, so would the process be.
    plan.proven.send(proof).ok()?;
    // Blocks the executor, which has nothing else to do yet.
    plan.gate.recv().ok()?;
    plan.pulse.runs_on(preflight::thread_id());
    glommio::spawn_local(Arc::clone(&plan.pulse).beat()).detach();
    let core = Core::new(
        plan.index,
        plan.started,
        plan.stop.clone(),
        Arc::clone(&plan.pulse),
    );
    let ended = body(Rt(Inner::Uring(core.clone())), seed).await;
    if ended.is_err() {
        plan.stop.raise();
    }
    core.finish().await;
    plan.pulse.finish();
    Some(ended)
}

/// One core at its gate, seen from the main thread.
struct Started<E: Send + 'static> {
    pulse: Arc<Pulse>,
    proof: mpsc::Receiver<io::Result<()>>,
    go: mpsc::SyncSender<()>,
    handle: ExecutorJoinHandle<Option<Result<(), E>>>,
}

/// Opens the gates and waits for the ends. The first failure counts.
fn join<E: Send + 'static>(cores: Vec<Started<E>>) -> Result<(), RunError<E>> {
    for core in &cores {
        // One that died since will say so when joined.
        core.go.send(()).unwrap_or_default();
    }
    let mut outcome = Ok(());
    for (core, started) in cores.into_iter().enumerate() {
        let ended = match started.handle.join() {
            Ok(Some(Ok(())) | None) => Ok(()),
            Ok(Some(Err(error))) => Err(RunError::Body { core, error }),
            Err(error) => Err(StartError::Executor {
                core,
                why: error.to_string(),
            }
            .into()),
        };
        outcome = outcome.and(ended);
    }
    outcome
}

/// A thread that is not granted has nothing to do with its CPU.
fn cannot_spawn(core: usize, cpu: usize, error: glommio::GlommioError<()>) -> StartError {
    let why = error.to_string();
    match io::Error::from(error).kind() {
        io::ErrorKind::WouldBlock => StartError::Executor { core, why },
        _ => StartError::Cpu { cpu, why },
    }
}

fn await_proof<E: Send + 'static>(
    core: usize,
    started: Started<E>,
    data_dir: &Path,
) -> Result<Started<E>, StartError> {
    match started.proof.recv() {
        Ok(Ok(())) => Ok(started),
        Ok(Err(error)) => Err(match error.kind() {
            io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => StartError::NoDirectIo {
                dir: data_dir.to_owned(),
                file_system: preflight::file_system(data_dir),
                why: error.to_string(),
            },
            // The disk was not what failed: too few files or threads, say.
            _ => StartError::Executor {
                core,
                why: error.to_string(),
            },
        }),
        // The executor ended before it ran anything: joining tells why.
        Err(mpsc::RecvError) => Err(StartError::Executor {
            core,
            why: match started.handle.join() {
                Ok(_) => "it ended at once".to_owned(),
                Err(error) => error.to_string(),
            },
        }),
    }
}

/// The first file an executor opens decides how glommio reads that disk: it probes with a read, takes an empty
/// file for a device that supports polling, and fails every later read with EOPNOTSUPP. So the first one has
/// content. Read twice: the probe's verdict shows at the second.
async fn prove_direct_io(probe: &Path) -> io::Result<()> {
    let file = File::open(probe, Mode::WriteDurable, None).await?;
    for _ in 0..2 {
        let bytes = file.read_at(0, DISK_PAGE_BYTES).await?;
        if bytes != locks::PROBE {
            return Err(io::Error::other("the probe file reads back wrong"));
        }
    }
    Ok(())
}

/// A task that panics takes the process with it, also where panics unwind (tests): the executor would
/// otherwise die alone and leave its shard silent.
pub(super) async fn abort_on_panic<T>(task: impl Future<Output = T>) -> T {
    let mut task = pin!(task);
    std::future::poll_fn(|cx| {
        let _bomb = Bomb;
        task.as_mut().poll(cx)
    })
    .await
}

/// The same for a call on another thread.
pub(super) fn abort_on_panic_in<T>(call: impl FnOnce() -> T) -> impl FnOnce() -> T {
    move || {
        let _bomb = Bomb;
        call()
    }
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "rt owns the clock")]
fn clock() -> std::time::Instant {
    std::time::Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_not_granted_is_not_laid_on_the_cpu() {
        let refused = |errno| {
            let error = io::Error::from_raw_os_error(errno);
            cannot_spawn(1, 7, glommio::GlommioError::IoError(error))
        };
        let threads = refused(libc::EAGAIN);
        assert!(threads.to_string().starts_with("cannot start core 1: "));
        assert!(threads.hint().contains("ulimit -u"), "{}", threads.hint());
        let cpu = refused(libc::EINVAL);
        assert!(cpu.to_string().starts_with("cannot use CPU 7: "), "{cpu}");
    }
}
