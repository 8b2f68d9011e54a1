//! The server: on each core one loop that joins connections and shards.
//!
//! ```text
//!            core 0                                   core 1
//!  sockets ─ conn ─ router ─ stores of its shards     sockets ─ conn ─ router ─ stores of its shards
//!                     └────────────── mesh (messages) ────────────────────┘
//! ```
//!
//! Life of a GET: `core` reads the socket for `conn`, which feeds `http::parser`; `api` says what is asked and
//! `link` asks `route`. A key of ours is looked up in memory and the value is written straight into the out
//! buffer by `answer`; one write sends all answers of that read. If a block must come from disk, or the shard is
//! another core's, the request takes a slot in `pipeline` and the answer comes back by ticket (`slots`) through
//! `arrivals` or the mesh (`msg`).
//!
//! Life of a PUT: the same way to `route`, with the JSON body judged by `body`. The owning core stamps the version
//! and gives the record to its shard's log; when the log's group is on stable storage its outcome comes back
//! through `Completions`, and only then is `OK` written. A batch is split by shard, one atomic record each.
//!
//! Life of a scan: `scan_run` asks every shard for pages and `scan` merges them, as fast as the client reads.
//!
//! Start: open the shards of this core (`owners`) → wait until every core has (`barrier`) → bind → serve → the
//! last core to listen lets core 0 announce the node. Nothing is accepted before everything is open.
//!
//! Stop: stop listening → answer what has begun, `Connection: close` → wait until every core has done so, because
//! they need each other's shards → close the stores, which seals their logs → return. At most `SHUTDOWN_GRACE`.
//!
//! Invariants: no memory is shared between cores but the mesh; a request is judged whole before anything is done;
//! no answer of success before the log is on stable storage; every queue is bounded and says 503 when full.
//!
//! Absent: other nodes, authentication, TLS.

mod answer;
mod api;
mod arrivals;
mod barrier;
mod batch;
pub mod body;
mod ceiling;
pub mod cluster;
mod compare;
mod conn;
mod coordinate;
mod core;
mod core_peers;
mod dialling;
mod failure;
mod greet;
mod grumble;
mod handoff;
pub mod hint_log;
pub mod hint_row;
pub mod hosts;
mod json;
mod known;
mod link;
mod links;
mod metrics;
pub mod msg;
mod owner;
mod owners;
mod peer_news;
mod peers;
mod pipeline;
mod read_faults;
mod reading;
mod repair;
mod replica;
mod route;
mod scan;
mod scan_run;
mod served;
mod slots;
mod small_file;
mod standing;
mod turn;
mod view;
mod writing;

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use self::barrier::{all_open, tell_others};
use self::cluster::Cluster;
use self::coordinate::Member;
use self::core::Core;
use self::greet::Identity;
use self::handoff::ShardHints;
use self::hint_log::HintLog;
use self::hosts::Door;
use self::known::Known;
use self::msg::{Kind, Msg};
use self::owners::Owners;
use self::route::Router;
use crate::base::member::NodeId;
use crate::base::version::Version;
use crate::rt::Rt;
use crate::rt::mesh::Port;
use crate::store::Store;
use crate::store::options::Options;
use crate::store::shared::Shared;

/// What a node is told. Every core gets an equal copy.
#[derive(Clone, Debug)]
pub struct Config {
    /// Settings of every shard; `shard` is filled in for each.
    pub store: Options,
    /// Shards of the data directory, fixed when it was created.
    pub shards: u16,
    /// Block cache of each core, bytes.
    pub cache_bytes: u64,
    /// Where every core listens.
    pub listen: Vec<SocketAddr>,
    pub door: Door,
    /// The cluster this node is a member of; `None`: it is alone.
    pub cluster: Option<Cluster>,
}

/// What start-up found on disk, summed over all cores; times are those of the slowest core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Started {
    pub tables: u64,
    pub tables_time: Duration,
    pub wal_entries: u64,
    pub wal_time: Duration,
    /// No clock of the node begins above this version.
    pub newest: Version,
}

/// Why a core stopped serving. The process ends; the others were asked to stop through `Rt::stop`.
#[derive(Debug)]
pub enum NodeError {
    /// A shard does not open; the text names file and offset, the kind what the system answered, if it was not
    /// the bytes. Exit 1: an operator must look.
    Open {
        shard: u16,
        why: String,
        kind: Option<io::ErrorKind>,
    },
    /// A small file of the data directory cannot be read, or says nothing that makes sense; as above. Exit 1.
    File {
        why: String,
        kind: Option<io::ErrorKind>,
    },
    /// The addresses cannot be listened on. Exit 1.
    Listen(io::Error),
    /// The sockets of a core cannot be waited for any more. Exit 74.
    Net(io::Error),
    /// A shard could not go on, mostly because its log failed: writes in flight have an unknown outcome. Exit 74;
    /// a restart recovers.
    Log(String),
}

/// Where the operator looks.
#[derive(Clone)]
pub struct Journal {
    /// Something is wrong, or may be.
    pub warn: Rc<dyn Fn(&str)>,
    /// Something has happened.
    pub info: Rc<dyn Fn(&str)>,
}

/// One ear for both.
impl<F: Fn(&str) + 'static> From<Rc<F>> for Journal {
    fn from(ear: Rc<F>) -> Journal {
        Journal {
            warn: Rc::<F>::clone(&ear),
            info: ear,
        }
    }
}

/// Called on core 0, once, when all shards of all cores are open and every core accepts connections.
pub type Announce = Box<dyn FnOnce(&Started)>;

/// Serves on this core until `Rt::stop` is raised, or a part of the node fails (which raises it).
///
/// Called once on each core, with that core's end of the mesh. `announce` is used on core 0 alone. `journal`
/// gets one line for the operator now and then: damaged data, a failed log, peers that go and come.
pub async fn run(
    rt: Rt,
    port: Port<Msg>,
    config: Config,
    announce: Announce,
    journal: impl Into<Journal>,
) -> Result<(), NodeError> {
    let journal = journal.into();
    let log = Rc::clone(&journal.warn);
    let owners = Owners::new(config.shards, port.cores());
    let shared = Shared::new(&rt, config.cache_bytes, Rc::clone(&log));
    let member = config.cluster.as_ref().map(|cluster| {
        let identity = Identity {
            node_uuid: config.store.node_uuid,
            cores: port.cores() as u16,
            shards: config.shards,
            digest: cluster.topology.digest(),
            fields: cluster.topology.fields(),
        };
        let (facts, identity) = (Rc::new(cluster.clone()), Rc::new(identity));
        let dir = &config.store.dir;
        Box::new(Member::new(&rt, &facts, &identity, dir, journal))
    });
    let mut router = Router::new(&rt, owners, &shared, port, member, log);
    let served = serve(&rt, &mut router, config, announce).await;
    if served.is_err() {
        rt.stop().raise();
        // Whatever this core has left undone, the others need not wait for it.
        tell_others(&rt, &mut router.port, || Kind::Drained);
    } else {
        router.lower_ceiling().await;
    }
    if let Some(member) = &router.member {
        for hints in &member.hints {
            hints.log().close().await;
        }
    }
    for store in router.stores.drain(..) {
        store.close().await;
    }
    served
}

async fn serve(
    rt: &Rt,
    router: &mut Router,
    config: Config,
    announce: Announce,
) -> Result<(), NodeError> {
    let floor = recall(rt, router).await?;
    let mut own = open_shards(rt, router, &config.store).await?;
    own.newest = own.newest.max(floor);
    let Some(gathered) = all_open(rt, &mut router.port, own).await else {
        tell_others(rt, &mut router.port, || Kind::Drained);
        return Ok(());
    };
    if rt.core() == 0 {
        ceiling::wait_for_wall(rt, floor).await;
        router.set_ceiling(gathered.started.newest).await;
        tell_others(rt, &mut router.port, || Kind::Listen);
    }
    let net = rt.net(&config.listen).map_err(NodeError::Listen)?;
    let announce = (announce, gathered.started);
    let mut core = Core::new(rt, net, router, config.door, gathered.early, announce);
    core.serve().await.map_err(NodeError::Net)?;
    match router.fault.take() {
        Some(why) => Err(NodeError::Log(why)),
        None => Ok(()),
    }
}

/// What this node knows from before: the other members, and the version all its clocks begin at.
async fn recall(rt: &Rt, router: &mut Router) -> Result<Version, NodeError> {
    let Some(member) = &mut router.member else {
        return Ok(Version::ZERO);
    };
    let floor = Version::at_ms(ceiling::read(rt, &member.dir).await?);
    router.clock.observe(floor);
    let mut known = Known::open(rt, &member.dir).await?;
    let members = member.facts.topology.members();
    let accepted = member.facts.accept.iter();
    known.forget(accepted.map(|node| members[node.index()].name.as_str()));
    member.peers.known = known;
    Ok(floor)
}

/// Opens the shards of this core, one after the other: recovery is bound by the disk.
async fn open_shards(
    rt: &Rt,
    router: &mut Router,
    options: &Options,
) -> Result<Started, NodeError> {
    let mut started = Started::default();
    for shard in router.owners.shards_of(rt.core()) {
        let own = Options {
            shard,
            ..options.clone()
        };
        let shared = Rc::clone(&router.shared);
        let (store, opened) =
            Store::open(rt, own, &shared)
                .await
                .map_err(|error| NodeError::Open {
                    shard,
                    why: error.0,
                    kind: error.1,
                })?;
        if opened.torn_tail {
            (router.log)(&format!(
                "shard {shard}: dropped an unfinished write at the end of the log (it was never acknowledged)"
            ));
        }
        started.tables += opened.tables;
        started.tables_time += opened.tables_time;
        started.wal_entries += opened.wal_entries;
        started.wal_time += opened.wal_time;
        started.newest = started.newest.max(opened.max_version);
        router.add_store(store, opened.max_version);
        open_hints(rt, router, options, shard).await?;
    }
    Ok(started)
}

/// Opens what this shard owes to other members.
async fn open_hints(
    rt: &Rt,
    router: &mut Router,
    options: &Options,
    shard: u16,
) -> Result<(), NodeError> {
    let (shards, log) = (router.owners.shards(), Rc::clone(&router.log));
    let Some(member) = &mut router.member else {
        return Ok(());
    };
    let members = member.facts.topology.members().iter();
    let names: Vec<String> = members.map(|member| member.name.clone()).collect();
    let (dir, node) = (&options.dir, options.node_uuid);
    let opened = HintLog::open(rt, dir, shard, node, &names, log).await;
    let (hints, mut pending) = opened.map_err(|error| NodeError::Open {
        shard,
        why: error.0,
        kind: error.1,
    })?;
    for (at, pending) in pending.iter_mut().enumerate() {
        let node = NodeId(at as u16);
        let Some(slices) = member.owed_whole(node) else {
            continue;
        };
        // Before anybody is dialled: once the new one is known, nothing else tells that it came with nothing.
        pending.dirty.union(&slices);
        let saved = hints.save_dirty(node, &pending.dirty).await;
        saved.map_err(|_| NodeError::Open {
            shard,
            why: "what the accepted member lacks cannot be noted on disk".to_owned(),
            kind: None,
        })?;
    }
    member.hints.push(ShardHints::new(hints, &pending, shards));
    Ok(())
}

impl Started {
    /// Cores work side by side: counts add up, the slowest time counts.
    fn merge(&mut self, other: &Started) {
        self.tables += other.tables;
        self.tables_time = self.tables_time.max(other.tables_time);
        self.wal_entries += other.wal_entries;
        self.wal_time = self.wal_time.max(other.wal_time);
        self.newest = self.newest.max(other.newest);
    }
}
