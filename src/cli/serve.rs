//! From settings to a running node, and back to an exit code.
//!
//! ```text
//! judge settings ─▶ preflight ─▶ port ─▶ directory ─▶ log ─▶ identity ─▶ banner ─▶ cores ─▶ node
//!                                  └─ held until the process ends ─┘
//! ```
//!
//! What can fail is tried before anything is written: a node that cannot start leaves the directory as it was.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;

use super::cluster::{self, Judged};
use super::log::Log;
use super::settings::Settings;
use super::{StartError, VERSION, banner, identity};
use crate::node::cluster::Cluster;
use crate::node::hosts::{Door, Origin};
use crate::node::{self, Config, NodeError};
use crate::rt::stop::Stop;
use crate::rt::uring::{self, RunError};
use crate::rt::{log, mesh, resolve};
use crate::store::options::{Options, WAL_SEGMENT_BYTES};

/// Exit code of a machine without io_uring (EX_CONFIG).
const EXIT_NO_IO_URING: u8 = 78;
/// Exit code of a node whose disk or sockets failed while serving (EX_IOERR).
const EXIT_IO: u8 = 74;

/// What a second signal is answered with.
const FAREWELL: &str = "error: a further signal ends the node at once, requests in flight are cut off\n\
    hint: everything answered OK is on disk; the next start reads the log again\n";

/// Fewer open files than this are soon used up by clients and tables.
const DESCRIPTORS_FEW: u64 = 1024;
/// What the log of one shard takes once it is written to: segments of 4, 16 and 64 MiB, allocated in advance.
const SHARD_BYTES_SOON: u64 = 84 << 20;
/// File systems that are memory.
const IN_MEMORY: [&str; 2] = ["tmpfs", "ramfs"];

/// Serves until asked to stop.
pub fn serve(settings: &Settings, warnings: &[String]) -> Result<ExitCode, StartError> {
    let judged = cluster::judge(settings)?;
    uring::preflight()?;
    let cpus = choose_cpus(settings, uring::available_cpus()?)?;
    let wanted: Vec<SocketAddr> = settings
        .listen
        .iter()
        .map(|&address| SocketAddr::new(address, settings.port))
        .collect();
    let descriptors = uring::check_descriptors(cpus.len())?;
    // Both holds end with the process.
    let port = uring::claim_port(&wanted)?;
    let dir = Path::new(&settings.dir);
    let _lock = uring::lock_dir(dir)?;

    let (sink, writer) = log::start(&dir.join("node.log")).map_err(|error| {
        StartError::new(
            format!("cannot keep {}/node.log: {error}", settings.dir),
            uring::remedy(error.kind()),
        )
    })?;
    let log = Log::new(sink);
    for warning in warnings.iter().chain(&odd_places(dir, descriptors)) {
        log.warn(warning);
    }
    let served = run(settings, judged, &cpus, port.addrs(), &log);
    match &served {
        Ok(()) => log.info("stopped as asked"),
        Err(failure) => log.failure(failure),
    }
    writer.finish();
    served.map(|()| ExitCode::SUCCESS)
}

/// What an operator had better know of the machine before it serves.
fn odd_places(dir: &Path, descriptors: u64) -> Vec<String> {
    let mut warnings = Vec::new();
    let file_system = uring::file_system(dir);
    if IN_MEMORY.contains(&file_system.as_str()) {
        warnings.push(format!(
            "{} is in memory ({file_system}): nothing in it survives a reboot",
            dir.display()
        ));
    }
    if descriptors < DESCRIPTORS_FEW {
        warnings.push(format!(
            "only {descriptors} files may be open, clients' connections included: raise the hard limit (ulimit -Hn, \
             LimitNOFILE=)"
        ));
    }
    warnings
}

/// A warning when a new directory will not have the room its shards soon take.
fn too_little_room(dir: &Path, shards: u16, free: u64) -> Option<String> {
    let soon = u64::from(shards) * SHARD_BYTES_SOON;
    (free < soon).then(|| {
        format!(
            "{} has {} MiB free, and the logs of {shards} shards soon take {} MiB, before any table; fewer -shards \
             of a new directory take less",
            dir.display(),
            free >> 20,
            soon >> 20
        )
    })
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
    judged: Judged,
    cpus: &[usize],
    listen: &[SocketAddr],
    log: &Log,
) -> Result<(), StartError> {
    let dir = Path::new(&settings.dir);
    let wanted = settings
        .shards
        .map(|shards| (shards, settings.source("KVSTORE_SHARDS")));
    let found = identity::open(dir, wanted, cpus.len(), log.wall_ms())?;
    let identity = found.identity;
    // A disk that does not tell is no reason to worry anybody.
    let free = uring::free_bytes(dir).unwrap_or(u64::MAX);
    let room = too_little_room(dir, identity.shards, free).filter(|_| found.created);
    for warning in found.warning.iter().chain(&room) {
        log.warn(warning);
    }
    log.info(&format!(
        "kvstore {VERSION} starts: pid {}, directory {}, shards {}, cores {}",
        std::process::id(),
        settings.dir,
        identity.shards,
        cpus.len()
    ));
    let listen_text: Vec<String> = listen.iter().map(SocketAddr::to_string).collect();
    log.plain(banner::starting(
        settings,
        &banner::Facts {
            replication: judged.replication,
            shards: identity.shards,
            cores: cpus.len(),
            listen: &listen_text.join(","),
        },
    ));
    let stop = Stop::default();
    uring::raise_on_signals(&stop, FAREWELL).map_err(|error| {
        StartError::new(
            format!("cannot watch for signals: {error}"),
            "check the limits of threads and open files (ulimit -a)",
        )
    })?;
    for note in &judged.notes {
        log.info(note);
    }
    if let Some(cluster) = &judged.cluster {
        find_peers(cluster, log)?;
    }
    let config = config(settings, identity, listen, judged.cluster);
    let announcer = log.clone();
    let port = settings.port;
    let outcome = uring::run(cpus, dir, &stop, mesh::mesh(cpus.len()), move |rt, end| {
        let (log, warner, teller) = (announcer.clone(), announcer.clone(), announcer.clone());
        let announce = move |started: &node::Started| log.plain(banner::running(port, started));
        let journal = node::Journal {
            warn: Rc::new(move |text: &str| warner.warn(text)),
            info: Rc::new(move |text: &str| teller.info(text)),
        };
        node::run(rt, end, config.clone(), Box::new(announce), journal)
    });
    outcome.map_err(|failure| match failure {
        RunError::Start(error) => error.into(),
        RunError::Body { core, error } => explain(core, &error),
    })
}

/// Finds out where the other members are, now and whenever one cannot be reached. Until then it counts as down.
fn find_peers(cluster: &Cluster, log: &Log) -> Result<(), StartError> {
    let members = cluster.topology.members().iter().enumerate();
    let names = members.map(|(at, member)| (at != cluster.me.index()).then(|| member.name.clone()));
    let log = log.clone();
    let started = resolve::start(&cluster.addresses, names.collect(), move |line| {
        log.warn(line)
    });
    started.map_err(|error| {
        StartError::new(
            format!("cannot start to look names up: {error}"),
            "check the limit of threads (ulimit -u)",
        )
    })
}

fn config(
    settings: &Settings,
    identity: identity::Identity,
    listen: &[SocketAddr],
    cluster: Option<Cluster>,
) -> Config {
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
        door: Door {
            host_names: settings.host_names.clone(),
            origins: settings.origins.iter().map(|it| Origin::new(it)).collect(),
        },
        cluster,
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
        NodeError::Open { shard, why, kind } => (
            1,
            format!("shard {shard} cannot be opened: {why}"),
            open_hint(*kind),
        ),
        NodeError::File { why, kind } => (1, why.clone(), file_hint(*kind)),
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

fn file_hint(kind: Option<io::ErrorKind>) -> &'static str {
    match kind {
        None => {
            "restore it, or remove it: MEMBERS is made anew by the next handshakes, CLOCK by a wall clock that is right"
        }
        Some(kind) => uring::remedy(kind),
    }
}

/// A backup helps damaged bytes alone; whoever restores one over a disk that was merely full loses what came since.
fn open_hint(kind: Option<io::ErrorKind>) -> &'static str {
    use io::ErrorKind as Kind;
    match kind {
        // A file that is missing or cut short is damage, whoever notices.
        None | Some(Kind::NotFound | Kind::UnexpectedEof | Kind::InvalidData) => {
            "the files are left as they are; restore this directory from a backup, or name another -dir"
        }
        Some(kind) => uring::remedy(kind),
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
    fn a_backup_is_spoken_of_only_when_bytes_are_damaged() {
        use io::ErrorKind as Kind;
        for kind in [None, Some(Kind::NotFound), Some(Kind::UnexpectedEof)] {
            assert!(open_hint(kind).contains("backup"), "{kind:?}");
        }
        for (errno, wanted) in [
            (28, "make room"),
            (122, "make room"),
            (13, "chown"),
            (30, "mount it writable"),
            (27, "ulimit -f"),
            (12, "memory"),
            (11, "ulimit -u"),
            (24, "ulimit -n"),
            (5, "kernel log"),
        ] {
            let kind = io::Error::from_raw_os_error(errno).kind();
            let hint = open_hint(Some(kind));
            assert!(hint.contains(wanted), "{errno}: {hint}");
            assert!(!hint.contains("backup"), "{errno}: {hint}");
        }
    }

    #[test]
    fn room_is_doubted_only_when_it_is_short() {
        let dir = Path::new("d");
        assert_eq!(too_little_room(dir, 2, 168 << 20), None);
        let warning = too_little_room(dir, 2, (168 << 20) - 1).expect("it is short");
        assert!(warning.contains("167 MiB free") && warning.contains("168 MiB"));
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
