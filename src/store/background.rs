//! What a shard does when nobody asks: flush, compact, unlink. In slices, each kind in a lane of its own.
//!
//! A core runs at most one flush and one compaction at a time, of whichever of its shards needs it most. They are
//! two lanes because a compaction is long, and writers wait for a flush. Side by side they are safe: the manifest
//! takes edits one after the other, and each change of the picture is one step that starts from the newest.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::format::bloom::BloomSize;
use super::format::edit::{Edit, TableMeta};
use super::format::{TMP_SUFFIX, table_name};
use super::levels::Levels;
use super::manifest::AppendError;
use super::pace::Pace;
use super::pick::{self, Job, Policy};
use super::rest::Rest;
use super::table::{Table, TableError};
use super::table_write::{TablePolicy, TableWriter};
use super::wal::Gate;
use super::{FROZEN_MAX, Store};
use crate::base::limits::L0_FILES_WAIT_MIN;

/// A data block is cut here at the latest: one read of four pages and a bit.
const BLOCK_BYTES_MAX: usize = 16 << 10;

/// Why a job did not finish. Except after `Manifest` nothing changed and the job may be tried again.
#[derive(Debug)]
pub(crate) enum JobError {
    /// The disk is full or fails: try again later.
    Disk(io::Error),
    /// An input is damaged: try again later, other work goes on.
    Damaged(String),
    /// The manifest could not be written: the shard must not go on.
    Manifest(String),
    /// The store is closing.
    Closing,
}

impl From<TableError> for JobError {
    fn from(error: TableError) -> JobError {
        let text = error.to_string();
        match error {
            TableError::Io { error, .. } => JobError::Disk(io::Error::new(error.kind(), text)),
            TableError::Corrupt { .. } => JobError::Damaged(text),
        }
    }
}

/// Kinds of work that do not wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Flush,
    Compact,
}

impl Lane {
    pub(crate) const ALL: [Lane; 2] = [Lane::Flush, Lane::Compact];

    /// What the operator knows it by.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Lane::Flush => "flushing memtables",
            Lane::Compact => "compaction",
        }
    }

    /// Longest rest after failures. Writers may be waiting for a flush: it is tried again soon.
    pub(crate) fn rest_max(self) -> Duration {
        match self {
            Lane::Flush => Duration::from_secs(2),
            Lane::Compact => Duration::from_secs(60),
        }
    }
}

/// The next thing to do.
pub(crate) enum Work {
    Flush,
    Compact(Job),
}

/// Ids of the tables a job has begun: what goes when it fails.
#[derive(Debug, Default)]
pub(crate) struct Made(RefCell<Vec<u64>>);

/// Pause between two looks at replaced tables that are still being read.
const UNLINK_PAUSE: Duration = Duration::from_secs(1);

impl Store {
    /// What to do in this lane, and how urgent it is among the shards of the core. `None`: nothing, or not now.
    pub(crate) fn next_work(&self, lane: Lane) -> Option<(f64, Work)> {
        let state = self.state.borrow();
        if self.is_closing() || !self.rest(lane).borrow().is_over(self.rt.now()) {
            return None;
        }
        if lane == Lane::Flush {
            let waiting = state.frozen.len();
            return (waiting > 0).then_some((waiting as f64, Work::Flush));
        }
        let policy = Policy {
            l0_files_max: self.options.l0_files_max,
            base_bytes: self
                .options
                .memtable_bytes
                .saturating_mul(self.options.l0_files_max.max(1) as u64),
        };
        let (score, job) = pick::pick(&state.levels.metas(), &policy)?;
        Some((score, Work::Compact(job)))
    }

    /// Does one piece of work; afterwards unlinks what nobody reads any more, or what a failed job has made.
    pub(crate) async fn perform(self: &Rc<Self>, work: &Work, pace: &Pace) -> Result<(), JobError> {
        self.jobs.set(self.jobs.get() + 1);
        let made = Made::default();
        let result = match work {
            Work::Flush => self.flush_oldest(pace, &made).await,
            Work::Compact(job) => self.compact(job, pace, &made).await,
        };
        match &result {
            Ok(()) => self.unlink_obsolete().await,
            Err(JobError::Manifest(_)) => {}
            Err(_) => self.discard(&made).await,
        }
        if matches!(work, Work::Flush) {
            let full = matches!(result, Err(JobError::Disk(_)));
            self.flush_finds_no_room.set(full);
        }
        self.unlink_later();
        self.jobs.set(self.jobs.get() - 1);
        self.ended.ring();
        if let Err(JobError::Manifest(why)) = &result {
            self.fail(why);
        }
        result
    }

    /// Lets writers on, holds them or refuses them, by what memory and level 0 hold now. They wait only for what
    /// can be expected to come: not for a compaction that fails.
    pub(crate) fn regulate(&self) {
        let state = self.state.borrow();
        let crammed = state.frozen.len() >= FROZEN_MAX;
        let l0_files_wait = L0_FILES_WAIT_MIN.max(5 * self.options.l0_files_max);
        let steep = state.levels.level(0).len() >= l0_files_wait
            && !self.rest(Lane::Compact).borrow().is_failing();
        self.wal
            .set_gate(match (crammed, self.flush_finds_no_room.get()) {
                (true, true) => Gate::Full,
                (true, false) => Gate::Wait,
                (false, _) if steep => Gate::Wait,
                (false, _) => Gate::Open,
            });
    }

    pub(crate) fn shard(&self) -> u16 {
        self.options.shard
    }

    pub(crate) fn rest(&self, lane: Lane) -> &RefCell<Rest> {
        match lane {
            Lane::Flush => &self.flush_rest,
            Lane::Compact => &self.compact_rest,
        }
    }

    /// Removes what a failed job has made, whole tables and half ones, unless it got as far as being read.
    async fn discard(&self, made: &Made) {
        let sst = self.dir.join("sst");
        let ids = made.0.take();
        for id in ids
            .into_iter()
            .filter(|id| !self.state.borrow().names_table(*id))
        {
            let name = table_name(id);
            for name in [name.clone() + TMP_SUFFIX, name] {
                // Mostly there is one of the two. What stays goes at the next open.
                self.rt.remove(&sst.join(name)).await.ok();
            }
        }
    }

    /// Target size of one table: a memtable's worth, at most 64 MiB, so that one compaction stays short.
    pub(crate) fn table_bytes_target(&self) -> u64 {
        self.options.memtable_bytes.min(64 << 20)
    }

    pub(crate) fn levels(&self) -> Rc<Levels> {
        Rc::clone(&self.state.borrow().levels)
    }

    /// Pauses when the slice is used up; ends the job when the store closes.
    pub(crate) async fn breathe(&self, pace: &Pace) -> Result<(), JobError> {
        pace.breathe(self.wal.gate() == Gate::Wait).await;
        if self.is_closing() {
            Err(JobError::Closing)
        } else {
            Ok(())
        }
    }

    /// Starts a table file under its temporary name.
    pub(crate) async fn new_table(
        &self,
        level: usize,
        made: &Made,
    ) -> Result<TableWriter, JobError> {
        let id = self.next_table_id.get();
        made.0.borrow_mut().push(id);
        self.next_table_id.set(id + 1);
        let bloom = if level == 0 {
            self.options.bloom_l0
        } else {
            self.options.bloom_l1
        };
        let policy = TablePolicy {
            keys_per_block_max: self.options.keys_per_block_max,
            block_bytes_max: BLOCK_BYTES_MAX,
            bloom: BloomSize::new(bloom),
        };
        let path = self.dir.join("sst").join(table_name(id) + TMP_SUFFIX);
        TableWriter::create(&self.rt, &path, id, policy)
            .await
            .map_err(JobError::Disk)
    }

    /// Completes a table and gives it its name, durably. It counts once the manifest says so.
    pub(crate) async fn finish_table(&self, writer: TableWriter) -> Result<TableMeta, JobError> {
        let meta = writer.finish().await.map_err(JobError::Disk)?;
        let sst = self.dir.join("sst");
        let name = table_name(meta.id);
        let tmp = sst.join(name.clone() + TMP_SUFFIX);
        self.rt
            .rename(&tmp, &sst.join(name))
            .await
            .map_err(JobError::Disk)?;
        self.rt.sync_dir(&sst).await.map_err(JobError::Disk)?;
        Ok(meta)
    }

    pub(crate) async fn open_table(&self, meta: TableMeta) -> Result<Rc<Table>, JobError> {
        let path = self.dir.join("sst").join(table_name(meta.id));
        Ok(Table::open(&self.rt, &path, self.options.shard, meta).await?)
    }

    /// An edit that changes no table but records how far ids and versions have been given out.
    pub(crate) fn empty_edit(&self) -> Edit {
        Edit {
            next_file_id: self.next_table_id.get(),
            sealed_max: self.state.borrow().sealed_max,
            ..Edit::default()
        }
    }

    /// Appends to the manifest; only background jobs do.
    pub(crate) async fn commit_edit(&self, edit: Edit) -> Result<(), JobError> {
        self.manifest
            .append(&edit)
            .await
            .map_err(|error| match error {
                AppendError::Unwritten(error) => JobError::Disk(error),
                AppendError::Unknown(error) => JobError::Manifest(format!("manifest: {error}")),
            })
    }

    /// Swaps the picture of the tree; `also` runs in the same step, so no reader sees a half.
    pub(crate) fn install(
        &self,
        removed: &[u64],
        added: Vec<(u8, Rc<Table>)>,
        also: impl FnOnce(&mut super::State),
    ) {
        let mut state = self.state.borrow_mut();
        let moved: Vec<u64> = added.iter().map(|(_, table)| table.meta().id).collect();
        let gone = state.levels.with_levels().map(|(_, table)| table);
        let gone: Vec<Rc<Table>> = gone
            .filter(|table| removed.contains(&table.meta().id) && !moved.contains(&table.meta().id))
            .cloned()
            .collect();
        state.levels = Rc::new(state.levels.edited(removed, added));
        state.obsolete.extend(gone);
        also(&mut state);
    }

    /// Looks at replaced tables that are still being read, until the last one has gone.
    fn unlink_later(self: &Rc<Self>) {
        if self.state.borrow().obsolete.is_empty() || self.unlinks_later.replace(true) {
            return;
        }
        let (rt, store) = (self.rt.clone(), Rc::downgrade(self));
        self.rt.spawn(async move {
            loop {
                rt.sleep(UNLINK_PAUSE).await;
                let Some(store) = store.upgrade().filter(|store| !store.is_closing()) else {
                    return;
                };
                store.unlink_obsolete().await;
                if store.state.borrow().obsolete.is_empty() {
                    store.unlinks_later.set(false);
                    return;
                }
            }
        });
    }

    /// Unlinks replaced tables that no reader holds any more. A failure leaves an orphan for the next open.
    async fn unlink_obsolete(&self) {
        let free: Vec<Rc<Table>> = {
            let mut state = self.state.borrow_mut();
            let (free, held) = state
                .obsolete
                .drain(..)
                .partition(|table| Rc::strong_count(table) == 1);
            state.obsolete = held;
            free
        };
        for table in free {
            let id = table.meta().id;
            table.erase_from(self.shared.cache());
            drop(table);
            let path = self.dir.join("sst").join(table_name(id));
            if self.rt.remove(&path).await.is_err() {
                self.counters
                    .unlink_failures
                    .set(self.counters.unlink_failures.get() + 1);
            }
        }
    }
}
