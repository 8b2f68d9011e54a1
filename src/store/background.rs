//! What a shard does when nobody asks: flush, compact, unlink. One job at a time per core, in slices.

use std::io;
use std::rc::Rc;

use super::format::bloom::BloomSize;
use super::format::edit::{Edit, TableMeta};
use super::format::{TMP_SUFFIX, table_name};
use super::levels::Levels;
use super::pace::Pace;
use super::pick::{self, Job, Policy};
use super::table::{Table, TableError};
use super::table_write::{TablePolicy, TableWriter};
use super::wal::Gate;
use super::{FROZEN_MAX, Store};

/// A data block is cut here at the latest: one read of four pages and a bit.
const BLOCK_BYTES_MAX: usize = 16 << 10;

/// Why a job did not finish. Except after `Manifest` nothing changed and the job may be tried again.
#[derive(Debug)]
pub(crate) enum JobError {
    /// Writing a table failed (full or failing disk): try again later.
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
        JobError::Damaged(error.to_string())
    }
}

/// The next thing to do.
pub(crate) enum Work {
    Flush,
    Compact(Job),
}

impl Store {
    /// Flushing comes first: it frees memory and WAL. `None`: nothing to do.
    pub(crate) fn next_work(&self) -> Option<Work> {
        let state = self.state.borrow();
        if self.is_closing() {
            return None;
        }
        if !state.frozen.is_empty() {
            return Some(Work::Flush);
        }
        let policy = Policy {
            l0_files_max: self.options.l0_files_max,
            base_bytes: self
                .options
                .memtable_bytes
                .saturating_mul(self.options.l0_files_max.max(1) as u64),
        };
        pick::pick(&state.levels.metas(), &policy).map(Work::Compact)
    }

    /// Does one piece of work; afterwards unlinks what nobody reads any more.
    pub(crate) async fn perform(&self, work: &Work) -> Result<(), JobError> {
        self.busy.set(true);
        let result = match work {
            Work::Flush => self.flush_oldest().await,
            Work::Compact(job) => self.compact(job).await,
        };
        match &result {
            Ok(()) => self.unlink_obsolete().await,
            Err(JobError::Manifest(_)) => {}
            Err(_) => {
                self.sweep_orphans().await;
                if self.state.borrow().frozen.len() >= FROZEN_MAX {
                    self.wal.set_gate(Gate::Full);
                }
            }
        }
        self.busy.set(false);
        self.ended.ring();
        if let Err(JobError::Manifest(why)) = &result {
            self.fail(why);
        }
        result
    }

    /// Target size of one table: a memtable's worth, at most 64 MiB, so that one compaction stays short.
    pub(crate) fn table_bytes_target(&self) -> u64 {
        self.options.memtable_bytes.min(64 << 20)
    }

    pub(crate) fn levels(&self) -> Rc<Levels> {
        Rc::clone(&self.state.borrow().levels)
    }

    /// Pauses when the slice is used up; ends the job when the store closes.
    pub(crate) async fn breathe(&self, pace: &mut Pace) -> Result<(), JobError> {
        pace.breathe().await;
        if self.is_closing() {
            Err(JobError::Closing)
        } else {
            Ok(())
        }
    }

    /// Starts a table file under its temporary name.
    pub(crate) async fn new_table(&self, level: usize) -> Result<TableWriter, JobError> {
        let id = self.next_table_id.get();
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

    /// Appends to the manifest; only the background runner does, one job at a time.
    pub(crate) async fn commit_edit(&self, edit: Edit) -> Result<(), JobError> {
        self.manifest
            .append(&edit)
            .await
            .map_err(|error| JobError::Manifest(error.to_string()))
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
