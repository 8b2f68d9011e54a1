//! The nodes of a simulated cluster: they start, end in every way there is, and start again.
//!
//! ```text
//!          boot ──▶ running ──▶ killed | power lost | stopped | given up (its disk fails) ──▶ down ──▶ boot ..
//!                      ▲                                        │
//!                      └── tend looks at each ──────────────────┘  a node that ends without a reason, or does not
//!                                                                  end when it should, has broken a promise
//! ```

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::super::ledger::Violation;
use super::book::Book;
use super::plan::Plan;
use crate::base::limits::SHUTDOWN_GRACE;
use crate::base::time::Instant;
use crate::cluster::ring::{Member, Topology};
use crate::node::cluster::Cluster;
use crate::node::hosts::Door;
use crate::node::{self, Config, Started};
use crate::rt::mesh::mesh;
use crate::rt::sim::World;
use crate::rt::sim::disk::{Disk, Fault};
use crate::store::format::newborn;
use crate::store::options::Options;
use crate::wire::proof::Secret;

const PORT: u16 = 8081;
/// Rows of the simulation settle soon: it lasts seconds.
const REPAIR_AGE: Duration = Duration::from_secs(1);
/// A node that should have ended by then hangs.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// All nodes, numbered from 1 as in the world.
pub(super) struct Town {
    pub(super) world: World,
    plan: Rc<Plan>,
    book: Rc<Book>,
    rng: fastrand::Rng,
    nodes: Vec<Node>,
}

struct Node {
    cores: usize,
    /// When it starts again; `None` while it runs.
    down_until: Option<Instant>,
    /// It was asked to stop, or a core of it gave up.
    ending_since: Option<Instant>,
    announced: Rc<Cell<bool>>,
    /// How its cores ended.
    ends: Ends,
    /// When it goes on; `None` while it is not paused.
    paused_until: Option<Instant>,
    /// During this life its disk was too small, or to fail: it may give up.
    excused: bool,
}

/// One entry for each core that has returned.
type Ends = Rc<RefCell<Vec<Result<(), String>>>>;

/// Where clients find the node.
pub(super) fn address(node: u16) -> SocketAddr {
    SocketAddr::new(World::ip(node), PORT)
}

impl Town {
    pub(super) fn new(plan: &Rc<Plan>, book: &Rc<Book>) -> Town {
        let fresh = || Node {
            cores: 1,
            down_until: None,
            ending_since: None,
            paused_until: None,
            announced: Rc::default(),
            ends: Rc::default(),
            excused: false,
        };
        let mut town = Town {
            world: World::new(plan.seed),
            plan: Rc::clone(plan),
            book: Rc::clone(book),
            rng: fastrand::Rng::with_seed(plan.seed ^ 0x746f_776e),
            nodes: (0..plan.nodes).map(|_| fresh()).collect(),
        };
        for node in town.names() {
            for (path, bytes) in (0..plan.shards).map(newborn) {
                town.world
                    .disk(node)
                    .write(&plan.options.dir.join(path), &bytes);
            }
            town.boot(node);
        }
        town
    }

    pub(super) fn names(&self) -> std::ops::RangeInclusive<u16> {
        1..=self.plan.nodes
    }

    pub(super) fn is_running(&self, node: u16) -> bool {
        self.node(node).down_until.is_none() && self.node(node).ending_since.is_none()
    }

    /// Every node runs and accepts connections.
    pub(super) fn is_whole(&self) -> bool {
        self.names()
            .all(|node| self.is_running(node) && self.node(node).announced.get())
    }

    fn node(&self, node: u16) -> &Node {
        &self.nodes[usize::from(node) - 1]
    }

    fn node_mut(&mut self, node: u16) -> &mut Node {
        &mut self.nodes[usize::from(node) - 1]
    }

    pub(super) fn step(&self, text: &str) {
        self.book.step(self.world.now(), text);
    }

    fn boot(&mut self, node: u16) {
        if self.rng.u8(..4) > 0 {
            self.disk(node).heal();
            self.node_mut(node).excused = false;
        }
        let cores = self.rng.usize(1..=self.plan.cores_max);
        self.step(&format!("node {node} starts on {cores} cores"));
        let (announced, ends) = (Rc::new(Cell::new(false)), Ends::default());
        let rts = self.world.boot(node, cores);
        for (rt, port) in rts.into_iter().zip(mesh(cores)) {
            let (announced, ends) = (Rc::clone(&announced), Rc::clone(&ends));
            let announce = move |_: &Started| announced.set(true);
            let (book, clock) = (Rc::clone(&self.book), rt.clone());
            let log = move |text: &str| book.step(clock.now(), &format!("node {node}: {text}"));
            let config = self.config(node);
            let served = node::run(rt.clone(), port, config, Box::new(announce), Rc::new(log));
            rt.spawn(async move {
                let end = served.await.map_err(|error| format!("{error:?}"));
                ends.borrow_mut().push(end);
            });
        }
        let fresh = self.node_mut(node);
        fresh.cores = cores;
        fresh.down_until = None;
        fresh.ending_since = None;
        fresh.paused_until = None;
        fresh.announced = announced;
        fresh.ends = ends;
    }

    fn config(&self, node: u16) -> Config {
        let plan = &self.plan;
        Config {
            store: Options {
                node_uuid: u128::from(plan.seed) << 16 | u128::from(node),
                ..plan.options.clone()
            },
            shards: plan.shards,
            cache_bytes: plan.cache_bytes,
            listen: vec![address(node)],
            door: Door::default(),
            cluster: (plan.nodes > 1).then(|| self.cluster(node)),
        }
    }

    fn cluster(&self, node: u16) -> Cluster {
        let plan = &self.plan;
        let name = |node: u16| format!("node{node}:{PORT}");
        let member = |node: u16| Member {
            name: name(node),
            zone: match plan.zones {
                true => ["east", "west"][usize::from(node % 2)].to_owned(),
                false => String::new(),
            },
        };
        let members = self.names().map(member).collect();
        let topology = Topology::new(members, usize::from(plan.copies), plan.virtual_nodes)
            .expect("plans are possible");
        // One digit each, so that names sort like numbers.
        let addresses = self.names().map(|other| match other == node {
            true => Vec::new(),
            false => vec![address(other)],
        });
        Cluster {
            me: topology.find(&name(node)).expect("it is a member"),
            topology,
            addresses: addresses.collect(),
            write_quorum: plan.write_quorum,
            read_quorum: plan.read_quorum,
            timeout: plan.timeout,
            repair_every: plan.repair_every,
            repair_age: REPAIR_AGE,
            gc_grace: plan.options.gc_grace,
            secret: plan
                .secret
                .then(|| Secret::new(b"known to all members").expect("long enough")),
            accept: Vec::new(),
        }
    }

    /// Sees to nodes that have ended, and starts those whose time has come.
    pub(super) fn tend(&mut self) -> Result<(), Violation> {
        let now = self.world.now();
        for node in self.names() {
            if self
                .node(node)
                .paused_until
                .is_some_and(|until| until <= now)
            {
                self.resume(node);
            }
            match self.node(node).down_until {
                Some(until) if until <= now => self.boot(node),
                Some(_) => {}
                None if !self.world.is_up(node) => {
                    self.step(&format!("node {node} has lost its power"));
                    self.book.count(|sums| sums.crashes += 1);
                    self.rest(node);
                }
                None => self.look_at(node, now)?,
            }
        }
        Ok(())
    }

    /// A node whose process exists.
    fn look_at(&mut self, node: u16, now: Instant) -> Result<(), Violation> {
        let of = self.node(node);
        let ends = of.ends.borrow().clone();
        let fault = ends.iter().find_map(|end| end.clone().err());
        if let Some(why) = &fault
            && !of.excused
        {
            return Err(Violation(format!("node {node} gave up: {why}")));
        }
        if of.ending_since.is_none() {
            if ends.is_empty() {
                return Ok(());
            }
            if fault.is_none() {
                // The core with the fault asks the others to stop, and may be the last to end.
                if ends.len() < of.cores {
                    return Ok(());
                }
                return Err(Violation(format!("node {node} ended without being asked")));
            }
            self.node_mut(node).ending_since = Some(now);
            return Ok(());
        }
        if ends.len() == of.cores {
            self.step(&format!("node {node} has ended: {ends:?}"));
            self.book
                .count(|sums| sums.failures += u64::from(fault.is_some()));
            self.end(node, false);
        } else if let Some(since) = of.ending_since
            && now.since(since) > SHUTDOWN_GRACE + ENDS_WITHIN
        {
            return Err(Violation(format!("node {node} does not end: {ends:?}")));
        }
        Ok(())
    }

    /// Its process is gone, with the power or without.
    pub(super) fn end(&mut self, node: u16, power_lost: bool) {
        match power_lost {
            true => self.world.crash(node),
            false => self.world.kill(node),
        }
        self.rest(node);
    }

    fn rest(&mut self, node: u16) {
        let rest_ms = match self.rng.u8(..4) {
            0 => self.rng.u64(1..4_000),
            1 => 1,
            _ => self.rng.u64(1..200),
        };
        let until = self.world.now() + Duration::from_millis(rest_ms);
        self.node_mut(node).down_until = Some(until);
        self.node_mut(node).paused_until = None;
    }

    pub(super) fn stop(&mut self, node: u16) {
        self.world.stop(node);
        self.node_mut(node).ending_since = Some(self.world.now());
    }

    pub(super) fn pause(&mut self, node: u16, span: Duration) {
        self.world.pause(node);
        self.node_mut(node).paused_until = Some(self.world.now() + span);
    }

    fn resume(&mut self, node: u16) {
        self.step(&format!("node {node} goes on"));
        self.world.resume(node);
        self.node_mut(node).paused_until = None;
    }

    pub(super) fn disk(&self, node: u16) -> Disk {
        self.world.disk(node)
    }

    /// Room for a few bytes more than there are.
    pub(super) fn cramp_disk(&mut self, node: u16, free_bytes: u64) {
        let used: u64 = self.disk(node).files().iter().map(|file| file.1).sum();
        self.disk(node).set_capacity(used + free_bytes);
        self.node_mut(node).excused = true;
    }

    /// An error of the disk some operations from now, once or from then on.
    pub(super) fn fail_disk(&mut self, node: u16, operations: u64, lasting: bool) {
        let disk = self.disk(node);
        let at = disk.ops() + operations;
        match lasting {
            true => disk.fail_from(at, Fault::Io),
            false => disk.fail_at(at, Fault::Io),
        }
        self.node_mut(node).excused = true;
    }

    /// One in so many reads of tables has a wrong bit. The node may give up: one it cannot open is one it is without.
    pub(super) fn rot_disk(&mut self, node: u16, one_in: u32) {
        self.disk(node).rot_reads("/sst/", one_in);
        self.node_mut(node).excused = true;
    }

    pub(super) fn end_rot(&self) {
        for node in self.names() {
            self.disk(node).end_rot();
        }
    }

    pub(super) fn rotten_reads(&self) -> u64 {
        self.names()
            .map(|node| self.disk(node).rotten_reads())
            .sum()
    }

    /// Every disk has room again.
    pub(super) fn make_room(&self) {
        for node in self.names() {
            self.disk(node).set_capacity(u64::MAX);
        }
    }

    /// Nothing goes wrong from here on.
    pub(super) fn heal(&mut self) {
        self.step("all is healed");
        self.world.heal();
        for node in self.names() {
            self.resume(node);
            self.world.set_skew_ms(node, 0);
            self.disk(node).heal();
        }
    }
}
