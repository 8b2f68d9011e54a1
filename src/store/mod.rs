//! One LSM tree: the data of one shard, owned by one core.
//!
//! ```text
//!  write ──▶ WAL group (O_DSYNC) ──▶ memtable ──flush──▶ L0 ──compaction──▶ L1 … L4
//!               │ ack after sync        │                 │                   │
//!  read  ───────┴──────────────▶ memtable, frozen ones, L0 newest first, then one table per level
//! ```
//!
//! Invariants
//! * A write is answered, and becomes visible, only once its WAL group is on stable storage; no reader sees
//!   what a crash may take back.
//! * The largest version of a key wins wherever it lies: memtable order and level order are only shortcuts,
//!   and the `late` bit of a record says when the shortcut may not be taken.
//! * A table file in the manifest is complete and synced; a WAL segment goes only after the tables that
//!   replace it are in the manifest.
//! * A failed WAL or manifest sync is never retried: the shard refuses writes and the node ends.
//!
//! Reading order: this file, `memtable`, `wal` with `replay`, `levels`, `merge`, `flush`, `pick` with `compact`,
//! `scan`, `recover`; the bytes are in `format`.
//!
//! What is absent: HTTP, other nodes, other shards. Calls never overlap across threads: an `Rc<Store>` lives
//! and dies on its core.

mod background;
mod bell;
mod cache;
mod compact;
pub mod completions;
mod errors;
mod flush;
pub mod format;
mod levels;
mod lookup;
mod manifest;
pub mod memtable;
mod merge;
pub mod options;
mod pace;
mod pick;
mod recover;
pub mod replay;
mod rest;
mod scan;
mod segments;
pub mod shared;
mod table;
mod table_cursor;
mod table_write;
mod tape;
#[cfg(test)]
mod tests;
pub mod unreadable;
pub mod wal;
mod wal_queue;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use self::bell::Bell;
use self::completions::{Done, Failed};
use self::format::record::Ops;
use self::format::table::BlockHandle;
use self::levels::Levels;
use self::manifest::Manifest;
use self::memtable::Memtable;
use self::options::Options;
use self::rest::Rest;
use self::shared::Shared;
use self::table::Table;
use self::wal::{Group, Wal};
use crate::base::record::Entry;
use crate::base::rows::Rows;
use crate::base::slices::Slices;
use crate::base::version::Version;
use crate::rt::Rt;

/// One shard. Owned by one core; calls may overlap only as futures of that core.
pub struct Store {
    rt: Rt,
    options: Options,
    /// Folder of the shard.
    dir: PathBuf,
    shared: Rc<Shared>,
    wal: Rc<Wal>,
    /// Appended to by background jobs only.
    manifest: Manifest,
    state: RefCell<State>,
    next_table_id: Cell<u64>,
    counters: Counters,
    /// Background jobs that run.
    jobs: Cell<u32>,
    flush_rest: RefCell<Rest>,
    compact_rest: RefCell<Rest>,
    /// The last flush failed for want of room, or the disk failed it.
    flush_finds_no_room: Cell<bool>,
    /// A task looks after replaced tables that are still being read.
    unlinks_later: Cell<bool>,
    /// The commit loop has ended.
    wal_ended: Cell<bool>,
    closing: Cell<bool>,
    /// Rung when a job or the commit loop ends.
    ended: Bell,
}

/// What a reader sees. Changed only in steps that cannot suspend.
pub(crate) struct State {
    active: Rc<RefCell<Memtable>>,
    /// Oldest first; each waits for its flush.
    frozen: VecDeque<Rc<RefCell<Memtable>>>,
    levels: Rc<Levels>,
    /// Largest version in any frozen memtable or table: a write not above it is `late`.
    sealed_max: Version,
    /// WAL bytes written when the active memtable began.
    wal_bytes_before: u64,
    /// Replaced tables that a reader may still hold.
    obsolete: Vec<Rc<Table>>,
}

#[derive(Default)]
struct Counters {
    flushes: Cell<u64>,
    compactions: Cell<u64>,
    unlink_failures: Cell<u64>,
}

/// With so many frozen memtables the commit loop waits for a flush: writers slow down before anything breaks.
const FROZEN_MAX: usize = 3;

/// One operation of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op<'a> {
    pub key: &'a [u8],
    pub entry: Entry<'a>,
}

/// What opening found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Opened {
    pub tables: u64,
    pub tables_time: Duration,
    pub wal_entries: u64,
    pub wal_time: Duration,
    /// Bytes of an unfinished write at the end of the log were dropped (nothing acknowledged was in them).
    pub torn_tail: bool,
    /// Largest version on disk: the core's clock must start above it.
    pub max_version: Version,
}

/// Why a shard does not open. The text names file and offset; the node refuses to start. With a kind: what the
/// system answered, and the bytes may be fine. Without: they are damaged.
#[derive(Debug)]
pub struct OpenError(pub String, pub Option<io::ErrorKind>);

/// A block that is not in memory is needed: ask `get_from_disk` in a task.
pub struct Miss {
    table: Rc<Table>,
    block: BlockHandle,
}

/// A write that was not accepted; nothing was written anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Queues are full or flushing is behind: answer 503, the client may retry soon.
    Busy,
    /// The disk is full: answer 507.
    Full,
    /// The log failed earlier or the store is closing: answer 503; the node is about to end.
    Closed,
}

/// A read that could not be answered: the data is damaged or the disk refuses. Never "not found".
#[derive(Debug)]
pub struct ReadError {
    /// Path below the data directory.
    pub file: String,
    pub why: String,
}

/// What a lookup in memory comes to.
pub enum Got<R> {
    Answer(R),
    /// A block must be read first.
    Disk(Miss),
}

/// One page of a scan.
#[derive(Debug, Default)]
pub struct Page {
    /// In key order; tombstones only when asked for.
    pub rows: Rows,
    /// Scan on strictly after this key; `None`: the range is done.
    pub resume: Option<Box<[u8]>>,
}

/// The part of a range a page must cover. `None`: open end.
#[derive(Clone, Debug, Default)]
pub struct ScanRange {
    /// First key, inclusive.
    pub from: Option<Box<[u8]>>,
    /// When set, only keys strictly greater (a `resume` of an earlier page).
    pub after: Option<Box<[u8]>>,
    /// Last key, inclusive.
    pub to: Option<Box<[u8]>>,
    /// Tombstones are rows too.
    pub dead: bool,
    /// Only keys of these slices of the ring; `None`: all.
    pub slices: Option<Box<Slices>>,
    /// Blocks come from the disk, and do not go into the cache: a walk over everything, which must not drive out what
    /// clients read.
    pub apart: bool,
}

/// Counters and gauges of one shard.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    pub flushes: u64,
    pub compactions: u64,
    pub wal_syncs: u64,
    pub wal_bytes: u64,
    pub l0_files: u64,
    pub tables: u64,
    pub table_bytes: u64,
    /// Indexes and filters held in memory.
    pub index_bytes: u64,
    pub memtable_bytes: u64,
    pub frozen_memtables: u64,
    /// Replaced files that could not be unlinked; the next start removes them.
    pub unlink_failures: u64,
}

impl Store {
    /// Queues one atomic record of at least one op. Its outcome arrives in `Shared::completions` under
    /// `ticket`, once; the write is visible from then on. The ops' versions must be above every version this
    /// store gave out for their keys, or they lose to those.
    pub fn write(&self, ops: &[Op<'_>], ticket: u64) -> Result<(), Refused> {
        if self.closing.get() {
            return Err(Refused::Closed);
        }
        self.wal.append(ops.iter().copied(), ticket)
    }

    /// Called for each durable group, in order: makes its writes visible, then answers them.
    fn apply(&self, group: &Group<'_>) {
        let mut state = self.state.borrow_mut();
        for op in Ops::new(group.body) {
            let op = op.expect("the body was encoded by this process");
            state.insert(op, group.seq);
        }
        let full = state.active.borrow().bytes() >= self.options.memtable_bytes;
        let wal_bytes = self.wal.stats().bytes;
        let long = wal_bytes - state.wal_bytes_before >= self.options.wal_bytes_kept();
        let freezes = full || long;
        if freezes {
            state.wal_bytes_before = wal_bytes;
            state.freeze();
        }
        drop(state);
        if freezes {
            self.shared.wake();
            self.regulate();
        }
        for ticket in group.tickets {
            self.shared.completions().push(Done {
                ticket: *ticket,
                result: Ok(()),
            });
        }
    }

    /// The commit loop of this shard, until `close` or a failure.
    async fn commit(self: Rc<Self>) {
        let apply = |group: Group<'_>| self.apply(&group);
        let failed = |tickets: &[u64], error: &io::Error| {
            let why = match error.kind() {
                io::ErrorKind::StorageFull => Failed::Full,
                _ => Failed::Unknown,
            };
            for ticket in tickets {
                self.shared.completions().push(Done {
                    ticket: *ticket,
                    result: Err(why),
                });
            }
        };
        let ended = Rc::clone(&self.wal).run(apply, failed).await;
        self.wal_ended.set(true);
        self.ended.ring();
        if let Err(error) = ended {
            self.fail(&format!("write-ahead log: {error}"));
        }
    }

    /// The shard cannot go on: refuses writes and tells the core, which ends the process.
    fn fail(&self, why: &str) {
        self.closing.set(true);
        self.wal.close();
        self.shared
            .fail(format!("shard {}: {why}", self.options.shard));
    }

    #[must_use]
    pub fn stats(&self) -> Stats {
        let state = self.state.borrow();
        let wal = self.wal.stats();
        let mut stats = Stats {
            flushes: self.counters.flushes.get(),
            compactions: self.counters.compactions.get(),
            unlink_failures: self.counters.unlink_failures.get(),
            wal_syncs: wal.syncs,
            wal_bytes: wal.bytes,
            memtable_bytes: state
                .memtables()
                .map(|memtable| memtable.borrow().bytes())
                .sum(),
            frozen_memtables: state.frozen.len() as u64,
            l0_files: state.levels.level(0).len() as u64,
            ..Stats::default()
        };
        for (_, table) in state.levels.with_levels() {
            stats.tables += 1;
            stats.table_bytes += table.meta().bytes;
            stats.index_bytes += table.memory_bytes();
        }
        stats
    }

    /// Freezes the active memtable and waits until everything frozen is in tables. For tests and tools.
    pub async fn flush(&self) {
        self.state.borrow_mut().freeze();
        self.shared.wake();
        self.until(|| self.closing.get() || self.state.borrow().frozen.is_empty())
            .await;
    }

    /// Finishes queued writes, seals the WAL and ends background work. Idempotent.
    pub async fn close(&self) {
        self.closing.set(true);
        self.wal.close();
        self.until(|| self.wal_ended.get() && self.jobs.get() == 0)
            .await;
    }

    /// Waits until `done`, asked again whenever a job or the commit loop ends.
    async fn until(&self, done: impl Fn() -> bool) {
        poll_fn(|cx| {
            if done() {
                return Poll::Ready(());
            }
            self.ended.register(cx);
            Poll::Pending
        })
        .await;
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.get()
    }
}

impl State {
    /// Newest first.
    fn memtables(&self) -> impl Iterator<Item = &Rc<RefCell<Memtable>>> {
        std::iter::once(&self.active).chain(self.frozen.iter().rev())
    }

    fn insert(&mut self, op: Op<'_>, seq: u64) {
        let late = op.entry.version <= self.sealed_max;
        self.active.borrow_mut().insert(op.key, op.entry, late, seq);
    }

    /// Puts the active memtable in line for its flush. Called only between WAL groups, so that a group is
    /// never split over two memtables and `flushed_seq` is exact.
    fn freeze(&mut self) {
        if self.active.borrow().is_empty() {
            return;
        }
        let full = std::mem::replace(&mut self.active, Rc::new(RefCell::new(Memtable::default())));
        self.sealed_max = self.sealed_max.max(full.borrow().max_version());
        self.frozen.push_back(full);
    }
}
