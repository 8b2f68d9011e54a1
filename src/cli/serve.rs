//! From settings to a running node, and back to an exit code.
//!
//! ```text
//! judge settings ─▶ preflight ─▶ port ─▶ directory ─▶ log ─▶ identity ─▶ banner ─▶ cores ─▶ node
//!                                  └─ held until the process ends ─┘
//! ```
//!
//! What can fail is tried before anything is written: a node that cannot start leaves the directory as it was.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;

use super::cluster::{self, Replication};
use super::log::Log;
use super::settings::Settings;
use super::{StartError, banner, identity};
use crate::node::{self, Config, NodeError};
use crate::rt::stop::Stop;
use crate::rt::uring::{self, RunError};
use crate::rt::{log, mesh};
use crate::store::options::{Options, WAL_SEGMENT_BYTES};

/// Exit code of a machine without io_uring (EX_CONFIG).
const EXIT_NO_IO_URING: u8 = 78;
/// Exit code of a node whose disk or sockets failed while serving (EX_IOERR).
const EXIT_IO: u8 = 74;

/// Serves until asked to stop.
pub fn serve(settings: &Settings, warnings: &[String]) -> Result<ExitCode, StartError> {
    let replication = cluster::judge(settings)?;
    uring::preflight()?;
    let cpus = choose_cpus(settings, uring::available_cpus()?)?;
    let wanted: Vec<SocketAddr> = settings
        .listen
        .iter()
        .map(|&address| SocketAddr::new(address, settings.port))
        .collect();
    // Both holds end with the process.
    let port = uring::claim_port(&wanted)?;
    let dir = Path::new(&settings.dir);
    let _lock = uring::lock_dir(dir)?;

    let (sink, writer) = log::start(&dir.join("node.log")).map_err(|error| {
        StartError::new(
            format!("cannot write {}/node.log: {error}", settings.dir),
            "check owner, mode, mount and free space, or choose another -dir",
        )
    })?;
    let log = Log::new(sink);
    for warning in warnings {
        log.warn(warning);
    }
    let served = run(settings, replication, &cpus, port.addrs(), &log);
    match &served {
        Ok(()) => log.info("stopped as asked"),
        Err(failure) => log.failure(failure),
    }
    writer.finish();
    served.map(|()| ExitCode::SUCCESS)
}

/// The CPUs that serve, out of those this process may run on.
fn choose_cpus(settings: &Settings, available: Vec<usize>) -> Result<Vec<usize>, StartError> {
    match settings.cores {
        Some(cores) if cores > available.len() => Err(StartError::new(
            format!(
                "KVSTORE_CORES ({}): {cores} cores are asked for, this process may run on {}",
                settings.source("KVSTORE_CORES"),
                available.len()
            ),
            "ask for fewer cores, or check taskset and the container's cpuset",
        )),
        Some(cores) => Ok(available.into_iter().take(cores).collect()),
        None => Ok(available),
    }
}

fn run(
    settings: &Settings,
    replication: Replication,
    cpus: &[usize],
    listen: &[SocketAddr],
    log: &Log,
) -> Result<(), StartError> {
    let dir = Path::new(&settings.dir);
    let identity = identity::open(dir, settings.shards, cpus.len(), log.wall_ms())?;
    let listen_text: Vec<String> = listen.iter().map(SocketAddr::to_string).collect();
    log.plain(banner::starting(
        settings,
        &banner::Facts {
            replication,
            shards: identity.shards,
            cores: cpus.len(),
            listen: &listen_text.join(","),
        },
    ));
    let stop = Stop::default();
    uring::raise_on_signals(&stop).map_err(|error| {
        StartError::new(
            format!("cannot watch for signals: {error}"),
            "check the limits of threads and open files (ulimit -a)",
        )
    })?;
    let config = config(settings, identity, listen);
    let announcer = log.clone();
    let port = settings.port;
    let outcome = uring::run(cpus, dir, &stop, mesh::mesh(cpus.len()), move |rt, end| {
        let (log, warner) = (announcer.clone(), announcer.clone());
        let announce = move |started: &node::Started| log.plain(banner::running(port, started));
        let warn = Rc::new(move |text: &str| warner.warn(text));
        node::run(rt, end, config.clone(), Box::new(announce), warn)
    });
    outcome.map_err(|failure| match failure {
        RunError::Start(error) => error.into(),
        RunError::Body { core, error } => explain(core, &error),
    })
}

fn config(settings: &Settings, identity: identity::Identity, listen: &[SocketAddr]) -> Config {
    Config {
        store: Options {
            dir: settings.dir.clone().into(),
            shard: 0,
            node_uuid: identity.node_uuid,
            memtable_bytes: settings.memtable_bytes,
            l0_files_max: settings.l0_files_max,
            keys_per_block_max: settings.keys_per_block_max,
            bloom_l0: settings.bloom_l0,
            bloom_l1: settings.bloom_l1,
            wal_segment_bytes: WAL_SEGMENT_BYTES,
            wal_commit_interval: settings.wal_commit_interval,
            wal_records_per_group_max: settings.wal_records_per_group_max,
            gc_grace: settings.gc_grace,
        },
        shards: identity.shards,
        cache_bytes: settings.cache_bytes,
        listen: listen.to_vec(),
        host_names: settings.host_names.clone(),
        cluster: None,
    }
}

impl From<uring::StartError> for StartError {
    fn from(error: uring::StartError) -> StartError {
        use uring::StartError as E;
        let exit = match error {
            E::IoUringMissing { .. }
            | E::IoUringDisabled { .. }
            | E::IoUringForbidden { .. }
            | E::IoUringFailed(_) => EXIT_NO_IO_URING,
            _ => 1,
        };
        StartError {
            exit,
            ..StartError::new(error.to_string(), error.hint())
        }
    }
}

/// Why a node that had its cores came down.
fn explain(core: usize, error: &NodeError) -> StartError {
    let (exit, error, hint) = match error {
        NodeError::Open { shard, why } => (
            1,
            format!("shard {shard} cannot be opened: {why}"),
            "the files are left as they are; restore this directory from a backup, or name another -dir",
        ),
        NodeError::Listen(why) => (
            1,
            format!("core {core} cannot listen: {why}"),
            "use addresses of this machine for -listen, and check the limit of open files (ulimit -n)",
        ),
        NodeError::Net(why) => (
            EXIT_IO,
            format!("core {core} cannot wait for its sockets: {why}"),
            "check the kernel log, then start again; everything answered OK is on disk",
        ),
        NodeError::Log(why) => (
            EXIT_IO,
            format!(
                "a shard cannot go on ({why}); writes without an answer may or may not be stored"
            ),
            "check free space and the kernel log, then start again; everything answered OK is on disk",
        ),
    };
    StartError {
        exit,
        ..StartError::new(error, hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_the_first_available_and_never_more() {
        let mut settings = Settings::defaults();
        assert_eq!(choose_cpus(&settings, vec![1, 3]).unwrap(), [1, 3]);
        settings.cores = Some(1);
        assert_eq!(choose_cpus(&settings, vec![1, 3]).unwrap(), [1]);
        settings.cores = Some(3);
        let error = choose_cpus(&settings, vec![1, 3]).unwrap_err();
        assert!(error.error.contains("KVSTORE_CORES"), "{error:?}");
    }

    #[test]
    fn a_machine_without_io_uring_is_told_apart_by_the_exit_code() {
        let missing: StartError = uring::StartError::IoUringForbidden { seccomp: 2 }.into();
        assert_eq!(missing.exit, 78);
        let taken: StartError = uring::StartError::PortTaken {
            port: 1,
            holder: None,
        }
        .into();
        assert_eq!(taken.exit, 1);
    }
}
