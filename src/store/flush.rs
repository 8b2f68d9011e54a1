//! Memtable to level 0: frozen memtables become tables, oldest first.
//!
//! Order of the steps, and what a crash after each leaves: write and sync `sst/ID.tmp` (an orphan), rename
//! and sync the directory (an orphan; the WAL still has the data), append the manifest edit (installed; the
//! edit carries `flushed_seq`, so the WAL groups are not replayed again), release the WAL.

use std::cell::RefCell;
use std::ops::Bound;
use std::rc::Rc;

use super::Store;
use super::background::{JobError, Made};
use super::format::edit::{Edit, TableMeta};
use super::memtable::Memtable;
use super::pace::Pace;
use crate::base::hash::KeyHash;

/// Entries copied from the memtable to the writer between two looks at the clock.
const STEP_ENTRIES: usize = 32;

impl Store {
    /// Flushes the oldest frozen memtable, if there is one.
    pub(crate) async fn flush_oldest(&self, pace: &Pace, made: &Made) -> Result<(), JobError> {
        let Some(memtable) = self.state.borrow().frozen.front().cloned() else {
            return Ok(());
        };
        let flushed_seq = memtable.borrow().last_seq();
        let meta = self.write_level_0(&memtable, pace, made).await?;
        let table = self.open_table(meta.clone()).await?;
        let edit = Edit {
            added: vec![(0, meta)],
            flushed_seq: Some(flushed_seq),
            ..self.empty_edit()
        };
        self.commit_edit(edit).await?;
        self.install(&[], vec![(0, table)], |state| {
            state.frozen.pop_front();
        });
        self.regulate();
        self.counters.flushes.set(self.counters.flushes.get() + 1);
        self.wal.release(flushed_seq).await.map_err(JobError::Disk)
    }

    async fn write_level_0(
        &self,
        memtable: &Rc<RefCell<Memtable>>,
        pace: &Pace,
        made: &Made,
    ) -> Result<TableMeta, JobError> {
        let mut writer = self.new_table(0, made).await?;
        let mut last: Option<Vec<u8>> = None;
        loop {
            let before = last.take();
            {
                let memtable = memtable.borrow();
                let from = before.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
                for (key, held) in memtable.range(from, Bound::Unbounded).take(STEP_ENTRIES) {
                    writer.add(key, KeyHash::of(key), held.entry, held.late);
                    last = Some(key.to_vec());
                    if writer.is_full() {
                        break;
                    }
                }
            }
            if last.is_none() {
                break;
            }
            if writer.is_full() {
                writer.drain().await.map_err(JobError::Disk)?;
            }
            self.breathe(pace).await?;
        }
        self.finish_table(writer).await
    }
}
