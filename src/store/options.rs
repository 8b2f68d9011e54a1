//! Pure. What a shard is told when it opens.

use std::path::PathBuf;
use std::time::Duration;

use super::wal::WalPolicy;

/// `Options::wal_segment_bytes` of a node.
pub const WAL_SEGMENT_BYTES: u64 = 64 << 20;

/// Settings of one shard. Sizes in bytes.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory of the node; the shard lives in `shards/NNNN` below it.
    pub dir: PathBuf,
    /// Which shard of the directory this is.
    pub shard: u16,
    /// Identity of the data directory: files of another node are refused.
    pub node_uuid: u128,
    /// MEMTABLE_SIZE: a memtable this large is frozen and flushed.
    pub memtable_bytes: u64,
    /// MAX_L0_FILES: so many level-0 tables start a compaction.
    pub l0_files_max: usize,
    /// SPARSE_INDEX_INTERVAL: keys per index entry.
    pub keys_per_block_max: usize,
    /// BLOOM_SIZE_L0 and BLOOM_SIZE_L1: bits per key up to 64, above that bits per table at least.
    pub bloom_l0: u64,
    pub bloom_l1: u64,
    /// Size a segment of the log grows to, unless one group needs more. Not a setting of the user; tests use
    /// small ones.
    pub wal_segment_bytes: u64,
    /// WAL_COMMIT_INTERVAL: longest a write may wait before its group is written.
    pub wal_commit_interval: Duration,
    /// WAL_MAX_BATCH_SIZE: most records of one group.
    pub wal_records_per_group_max: usize,
    /// GC_GRACE: a tombstone older than this may be dropped once nothing below it holds its key.
    pub gc_grace: Duration,
}

impl Options {
    pub(crate) fn wal_policy(&self) -> WalPolicy {
        WalPolicy {
            commit_interval: self.wal_commit_interval,
            records_per_group_max: self.wal_records_per_group_max,
            segment_bytes: self.wal_segment_bytes,
        }
    }

    /// Bytes of log at which a memtable is flushed however little it holds: padding makes the log of small writes
    /// many times larger than the memtable, and an idle shard must not pin segments for ever.
    pub(crate) fn wal_bytes_kept(&self) -> u64 {
        4 * self.memtable_bytes.max(self.wal_segment_bytes)
    }
}
