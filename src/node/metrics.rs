//! Pure. Counters of one core, their sum over all cores, and the JSON of `GET /metrics`.
//!
//! A core counts into its own plain array; `/metrics` asks every core for a copy and adds them up. The nine
//! names of the original come first, in its order; more follow, all integers.

use std::time::Duration;

use crate::store::Stats;

/// One counter or gauge. The order is the order of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metric {
    Writes,
    Reads,
    Batches,
    Scans,
    Deletes,
    /// Answers with a 5xx status.
    Errors,
    Compactions,
    Flushes,
    WalSyncs,
    L0Files,
    Sstables,
    SstableBytes,
    /// Indexes and filters of tables, held in memory.
    IndexBytes,
    MemtableBytes,
    FrozenMemtables,
    WalBytes,
    CacheHits,
    CacheMisses,
    /// Open now.
    Connections,
    ConnectionsAccepted,
    /// Turned away because the core had `CONNECTIONS_PER_CORE_MAX`.
    ConnectionsRefused,
    /// Bodies in the making and answers not sent, of all connections.
    HeldBytes,
    /// Answers with a 4xx status, a plain "Not Found" of a key excepted.
    BadRequests,
    /// Answers 503 because a queue was full.
    RejectedOverload,
    /// Requests handed to another core.
    Forwarded,
    /// Rows a replica has missed and this node keeps for it; sent to it since; not kept, so that their slices must
    /// be repaired.
    HintsKept,
    HintsReplayed,
    HintsDropped,
    /// Waiting now.
    HintBytes,
    DirtySlices,
    /// Rows that were sent to replicas which turned out to lack them, and comparisons of a core with all of them.
    RowsRepaired,
    RepairPasses,
}

const NAMES: [&str; 32] = [
    "writes",
    "reads",
    "batches",
    "scans",
    "deletes",
    "errors",
    "compactions",
    "flushes",
    "wal_syncs",
    "l0_files",
    "sstables",
    "sstable_bytes",
    "index_bytes",
    "memtable_bytes",
    "frozen_memtables",
    "wal_bytes",
    "cache_hits",
    "cache_misses",
    "connections",
    "connections_accepted",
    "connections_refused",
    "held_bytes",
    "bad_requests",
    "rejected_overload",
    "forwarded",
    "hints_kept",
    "hints_replayed",
    "hints_dropped",
    "hint_bytes",
    "dirty_slices",
    "rows_repaired",
    "repair_passes",
];

/// Values of every [`Metric`]: of one core, or summed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot([u64; NAMES.len()]);

impl Snapshot {
    pub(crate) fn count(&mut self, metric: Metric) {
        self.add(metric, 1);
    }

    pub(crate) fn add(&mut self, metric: Metric, by: u64) {
        self.0[metric as usize] += by;
    }

    /// For gauges.
    pub(crate) fn set(&mut self, metric: Metric, value: u64) {
        self.0[metric as usize] = value;
    }

    pub(crate) fn merge(&mut self, other: &Snapshot) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// Adds what one shard reports about itself.
    pub(crate) fn add_shard(&mut self, stats: &Stats) {
        self.add(Metric::Compactions, stats.compactions);
        self.add(Metric::Flushes, stats.flushes);
        self.add(Metric::WalSyncs, stats.wal_syncs);
        self.add(Metric::WalBytes, stats.wal_bytes);
        self.add(Metric::L0Files, stats.l0_files);
        self.add(Metric::Sstables, stats.tables);
        self.add(Metric::SstableBytes, stats.table_bytes);
        self.add(Metric::IndexBytes, stats.index_bytes);
        self.add(Metric::MemtableBytes, stats.memtable_bytes);
        self.add(Metric::FrozenMemtables, stats.frozen_memtables);
    }

    /// Appends the JSON object, compact, with a final newline.
    pub(crate) fn write_json(
        &self,
        out: &mut Vec<u8>,
        cores: usize,
        shards: u16,
        uptime: Duration,
    ) {
        out.push(b'{');
        for (name, value) in NAMES.iter().zip(self.0) {
            out.extend_from_slice(format!("\"{name}\":{value},").as_bytes());
        }
        let uptime = uptime.as_secs();
        out.extend_from_slice(
            format!("\"cores\":{cores},\"shards\":{shards},\"uptime_seconds\":{uptime}}}\n")
                .as_bytes(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_enum_and_the_nine_of_the_original_lead() {
        let mut snapshot = Snapshot::default();
        snapshot.add(Metric::Writes, 1523);
        snapshot.count(Metric::WalSyncs);
        snapshot.add(Metric::Forwarded, 7);
        let mut sum = snapshot.clone();
        sum.merge(&snapshot);
        let mut out = Vec::new();
        sum.write_json(&mut out, 2, 4, Duration::from_millis(61_999));
        let text = String::from_utf8(out).expect("JSON is UTF-8");
        assert!(
            text.starts_with(
                "{\"writes\":3046,\"reads\":0,\"batches\":0,\"scans\":0,\"deletes\":0,\
                 \"errors\":0,\"compactions\":0,\"flushes\":0,\"wal_syncs\":2,\"l0_files\":0,"
            ),
            "{text}"
        );
        assert!(
            text.ends_with("\"forwarded\":14,\"hints_kept\":0,\"hints_replayed\":0,\"hints_dropped\":0,\"hint_bytes\":0,\"dirty_slices\":0,\"rows_repaired\":0,\"repair_passes\":0,\"cores\":2,\"shards\":4,\"uptime_seconds\":61}\n"),
            "{text}"
        );
    }
}
