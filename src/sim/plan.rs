//! Pure. The shape of one simulated life, drawn from its seed.
//!
//! Each seed turns some features off altogether (no batches, no deletes, no late versions, one key ...): bugs
//! hide behind the average mix. Sizes are tiny so that flushes, compactions and segment switches happen all
//! the time.

use std::path::PathBuf;
use std::time::Duration;

use crate::rt::sim::disk::Op;
use crate::store::options::Options;

/// Sizes and odds of one life.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// Distinct keys.
    pub keys: usize,
    pub value_bytes_max: usize,
    /// Most ops of one write.
    pub batch_max: usize,
    /// Writes in flight before the writer waits.
    pub in_flight_max: usize,
    pub delete_percent: u8,
    /// Writes stamped with an older version.
    pub late_percent: u8,
    pub read_percent: u8,
    pub scan_percent: u8,
    pub pause_percent: u8,
    /// Explicit flushes.
    pub flush_percent: u8,
    /// A second task that reads all the time.
    pub reader: bool,
    pub cache_bytes: u64,
    /// A sync that the disk only pretends to make, by kind and part of the path: a planted bug.
    pub lie: Option<(Op, &'static str)>,
    pub options: Options,
}

impl Plan {
    /// Drawn from `seed` alone.
    #[must_use]
    pub fn draw(seed: u64) -> Plan {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x706c_616e);
        let some = |rng: &mut fastrand::Rng, percent: u8| if rng.bool() { percent } else { 0 };
        let late_percent = if rng.u8(..4) == 0 { 15 } else { 0 };
        // A late write may meet a tombstone only while that is protected.
        let gc_grace = match (late_percent, rng.u8(..3)) {
            (0, 0) => Duration::from_millis(1),
            (0, 1) => Duration::from_millis(50),
            _ => Duration::from_secs(3600),
        };
        Plan {
            seed,
            keys: [1, 4, 12, 40, 120][rng.usize(..5)],
            value_bytes_max: [0, 20, 300, 3000][rng.usize(..4)],
            batch_max: [1, 1, 4, 12][rng.usize(..4)],
            in_flight_max: [1, 3, 20][rng.usize(..3)],
            delete_percent: [0, 10, 40][rng.usize(..3)],
            late_percent,
            read_percent: 25,
            scan_percent: some(&mut rng, 6),
            pause_percent: some(&mut rng, 8),
            flush_percent: some(&mut rng, 2),
            reader: rng.bool(),
            cache_bytes: [0, 8 << 10, 1 << 20][rng.usize(..3)],
            lie: None,
            options: Options {
                dir: PathBuf::from("/data"),
                shard: 3,
                node_uuid: u128::from(seed) + 1,
                memtable_bytes: [1 << 10, 4 << 10, 16 << 10][rng.usize(..3)],
                wal_segment_bytes: [16 << 10, 64 << 10][rng.usize(..2)],
                l0_files_max: [1, 2, 4][rng.usize(..3)],
                keys_per_block_max: [1, 3, 16][rng.usize(..3)],
                bloom_l0: [1, 10][rng.usize(..2)],
                bloom_l1: [1, 10, 200][rng.usize(..3)],
                wal_commit_interval: Duration::from_millis([1, 5][rng.usize(..2)]),
                wal_records_per_group_max: [1, 8, 1000][rng.usize(..3)],
                gc_grace,
            },
        }
    }

    /// A small life that nevertheless flushes, compacts and switches segments: for the tests that repeat it once
    /// per disk operation.
    #[must_use]
    pub fn compact(seed: u64) -> Plan {
        let mut plan = Plan::draw(seed);
        plan.keys = plan.keys.clamp(4, 12);
        plan.value_bytes_max = 300;
        plan.batch_max = plan.batch_max.max(3);
        plan.in_flight_max = 3;
        plan.read_percent = 10;
        plan.reader = false;
        plan.options.memtable_bytes = 1 << 10;
        plan.options.wal_segment_bytes = 16 << 10;
        plan.options.l0_files_max = plan.options.l0_files_max.min(2);
        plan
    }
}
