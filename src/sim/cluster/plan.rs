//! Pure. The shape of one simulated cluster and of what happens to it, drawn from its seed.
//!
//! As in `sim/plan.rs` each seed turns some features and faults off altogether, and sizes are tiny. About one seed
//! in eight is calm: nothing goes wrong, so nothing may be refused.

use std::path::PathBuf;
use std::time::Duration;

use crate::load::history::Rules;
use crate::store::options::Options;

/// Most nodes of a cluster, wherever a seed is told or replayed: the same seed must draw the same plan.
pub const NODES_MAX: u16 = 5;

/// Sizes, odds and faults of one cluster's life.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub nodes: u16,
    /// Each start of a node draws its number of cores up to here.
    pub cores_max: usize,
    pub shards: u16,
    /// Copies of each key (N), and how many of them a write and a read wait for (W and R).
    pub copies: u16,
    pub write_quorum: u16,
    pub read_quorum: u16,
    pub virtual_nodes: u32,
    /// Members lie in two zones.
    pub zones: bool,
    pub secret: bool,
    /// NETWORK_TIMEOUT.
    pub timeout: Duration,
    /// REPAIR_INTERVAL.
    pub repair_every: Option<Duration>,
    pub clients: u16,
    pub keys: u16,
    /// Bursts of requests of one client.
    pub bursts: usize,
    pub burst_max: usize,
    /// Longest pause of a client between bursts.
    pub think_ms_max: u64,
    pub value_bytes_max: usize,
    pub odds: Odds,
    pub faults: Faults,
    /// No other node ends or has a sick disk, and this one is asked nothing until all is healed: so whatever was kept
    /// for it has reached it in the end, without a read that repairs.
    pub victim: Option<u16>,
    /// Mean pause between two faults.
    pub fault_ms: u64,
    /// Block cache of each core.
    pub cache_bytes: u64,
    pub options: Options,
}

/// What clients ask for, in percent; the rest are puts.
#[derive(Clone, Copy, Debug)]
pub struct Odds {
    pub get: u8,
    pub delete: u8,
    pub batch: u8,
    pub scan: u8,
    /// Of all requests: those that say how many replicas they want.
    pub explicit: u8,
    /// Of all gets: those that demand what the client has seen before.
    pub after: u8,
}

/// Which faults there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    pub cuts: bool,
    pub kills: bool,
    pub crashes: bool,
    /// Orderly stops, and starts with another number of cores.
    pub stops: bool,
    pub skews: bool,
    pub full_disks: bool,
    pub failing_disks: bool,
    /// Tables are read with wrong bits.
    pub rot: bool,
    /// A process stands still for a while (SIGSTOP) and goes on.
    pub pauses: bool,
    /// Connections are reset by what lies between their ends.
    pub resets: bool,
}

impl Faults {
    /// Nothing at all goes wrong.
    #[must_use]
    pub fn are_none(self) -> bool {
        self == Faults::default()
    }

    /// Processes end, so that what they kept for others may be lost with them.
    #[must_use]
    pub fn end_nodes(self) -> bool {
        // A table that cannot be opened ends its node.
        let sick = self.full_disks || self.failing_disks || self.rot;
        self.kills || self.crashes || self.stops || sick
    }
}

impl Plan {
    /// Drawn from `seed` alone, with at most so many nodes.
    #[must_use]
    pub fn draw(seed: u64, nodes_max: u16) -> Plan {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x636c_7573);
        let nodes = [1, 2, 3, 3, 3, 4, 5][rng.usize(..7)].min(nodes_max);
        let copies = nodes.min([1, 2, 3, 3, 3, 4][rng.usize(..6)]);
        // Mostly quorums that overlap.
        let (write_quorum, read_quorum) = match rng.u8(..4) {
            0 => (rng.u16(1..=copies), rng.u16(1..=copies)),
            1 => (copies, 1),
            _ => (copies / 2 + 1, copies / 2 + 1),
        };
        let think_ms_max = [1, 20, 200, 600][rng.usize(..4)];
        let plan = Plan {
            seed,
            nodes,
            cores_max: rng.usize(1..=2),
            shards: rng.u16(1..=3),
            copies,
            write_quorum,
            read_quorum,
            virtual_nodes: [1, 4, 16][rng.usize(..3)],
            zones: rng.u8(..4) == 0,
            secret: rng.bool(),
            timeout: Duration::from_millis([300, 2_000][rng.usize(..2)]),
            repair_every: None,
            clients: rng.u16(2..=6),
            keys: rng.u16(1..=8),
            bursts: rng.usize(10..30),
            burst_max: [1, 1, 3][rng.usize(..3)],
            think_ms_max,
            value_bytes_max: [0, 100, 2_000][rng.usize(..3)],
            odds: Odds::draw(&mut rng),
            faults: Faults::draw(&mut rng, nodes),
            victim: None,
            fault_ms: [50, 400, 2_000][rng.usize(..3)],
            cache_bytes: 1 << 20,
            options: options(&mut rng, nodes),
        };
        plan.with_damage(&mut rng).with_disturbance(&mut rng)
    }

    /// A third each of those in which anything goes wrong; in half of all plans replicas are compared.
    fn with_disturbance(mut self, rng: &mut fastrand::Rng) -> Plan {
        if !self.faults.are_none() {
            self.faults.pauses = rng.u8(..3) == 0;
            self.faults.resets = rng.u8(..3) == 0;
        }
        if rng.bool() {
            self.repair_every = Some(Duration::from_millis([300, 2_000][rng.usize(..2)]));
        }
        self
    }

    /// Some of those in which anything goes wrong get wrong bits, and some a single victim.
    fn with_damage(mut self, rng: &mut fastrand::Rng) -> Plan {
        if self.faults.are_none() {
            return self;
        }
        if rng.u8(..3) == 0 {
            self.faults.rot = true;
            // Or blocks come from memory, where nothing is wrong with them, and tables are never made.
            self.cache_bytes = 0;
            self.options.memtable_bytes = 2 << 10;
            self.value_bytes_max = 2_000;
        } else if self.copies > 1 && rng.u8(..3) == 0 {
            self.victim = Some(rng.u16(1..=self.nodes));
            self.faults.full_disks = true;
            // Writes that it misses are acknowledged all the same.
            self.write_quorum = self.write_quorum.min(self.copies - 1);
            // Reads bring replicas up to date: with many of them nobody sees that a hint is missing.
            self.odds.get = 5;
        }
        self
    }

    /// Hints are lost with the node that keeps them, and with the one they are of.
    #[must_use]
    pub fn keeps_all_hints(&self) -> bool {
        self.victim.is_some() || !self.faults.end_nodes()
    }

    /// The node that is asked in place of `node`.
    #[must_use]
    pub fn asked(&self, node: u16) -> u16 {
        match self.victim == Some(node) {
            true => node % self.nodes + 1,
            false => node,
        }
    }

    /// What the clients may hold the cluster to.
    #[must_use]
    pub fn rules(&self) -> Rules {
        Rules {
            copies: self.copies,
            ordered: self.nodes == 1,
            deletions_told: self.nodes > 1,
        }
    }
}

impl Odds {
    fn draw(rng: &mut fastrand::Rng) -> Odds {
        let mut some = |percent: u8| if rng.bool() { percent } else { 0 };
        Odds {
            get: 40,
            delete: some(15),
            batch: some(10),
            scan: some(10),
            explicit: some(30),
            after: some(30),
        }
    }
}

impl Faults {
    fn draw(rng: &mut fastrand::Rng, nodes: u16) -> Faults {
        if rng.u8(..8) == 0 {
            return Faults::default();
        }
        Faults {
            cuts: rng.bool() && nodes > 1,
            kills: rng.bool(),
            crashes: rng.bool(),
            stops: rng.u8(..3) == 0,
            skews: rng.u8(..3) == 0,
            full_disks: rng.u8(..4) == 0,
            failing_disks: rng.u8(..4) == 0,
            rot: false,
            pauses: false,
            resets: false,
        }
    }
}

/// Settings of the shards; `node_uuid` is filled in for each node.
fn options(rng: &mut fastrand::Rng, nodes: u16) -> Options {
    // The other replicas may need a tombstone for as long as they are away; a lone node has none.
    let gc_grace = match nodes {
        1 => Duration::from_millis([1, 500, 3_600_000][rng.usize(..3)]),
        _ => Duration::from_secs(30 * 24 * 3600),
    };
    Options {
        dir: PathBuf::from("/data"),
        shard: 0,
        node_uuid: 0,
        memtable_bytes: [2 << 10, 16 << 10, 1 << 20][rng.usize(..3)],
        wal_segment_bytes: [64 << 10, 256 << 10][rng.usize(..2)],
        l0_files_max: [1, 2, 4][rng.usize(..3)],
        keys_per_block_max: [1, 16][rng.usize(..2)],
        bloom_l0: 10,
        bloom_l1: 10,
        wal_commit_interval: Duration::from_millis([1, 5][rng.usize(..2)]),
        wal_records_per_group_max: [1, 512][rng.usize(..2)],
        gc_grace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_possible_and_of_every_kind() {
        let plans: Vec<Plan> = (0..500).map(|seed| Plan::draw(seed, 5)).collect();
        for plan in &plans {
            assert!((1..=plan.nodes).contains(&plan.copies), "{plan:?}");
            assert!((1..=plan.copies).contains(&plan.write_quorum), "{plan:?}");
            assert!((1..=plan.copies).contains(&plan.read_quorum), "{plan:?}");
            assert!(!plan.faults.cuts || plan.nodes > 1, "{plan:?}");
        }
        for nodes in 1..=5 {
            assert!(plans.iter().any(|plan| plan.nodes == nodes), "{nodes}");
        }
        let calm = plans.iter().filter(|plan| plan.faults.are_none()).count();
        assert!((20..200).contains(&calm), "{calm}");
        let rotten = plans.iter().filter(|plan| plan.faults.rot).count();
        assert!((50..250).contains(&rotten), "{rotten}");
        let pauses = plans.iter().filter(|plan| plan.faults.pauses).count();
        assert!((50..250).contains(&pauses), "{pauses}");
        let resets = plans.iter().filter(|plan| plan.faults.resets).count();
        assert!((50..250).contains(&resets), "{resets}");
        let victims: Vec<&Plan> = plans.iter().filter(|plan| plan.victim.is_some()).collect();
        assert!((50..250).contains(&victims.len()), "{}", victims.len());
        for plan in victims {
            assert!((1..=plan.nodes).all(|node| plan.asked(node) <= plan.nodes));
            assert!((1..=plan.nodes).all(|node| Some(plan.asked(node)) != plan.victim));
        }
        assert!((0..50).all(|seed| Plan::draw(seed, 1).nodes == 1));
    }
}
