//! Running a compaction that `pick` chose: merge the inputs in slices, write disjoint outputs, swap.
//!
//! Of equal keys only the winner by version is written (never "the first hit"). A tombstone is dropped only
//! when both hold: it is older than GC_GRACE, so that no replica still has to learn of it, and nothing
//! outside the inputs (other tables, memtables) may hold an older version of its key.

use std::rc::Rc;

use super::Store;
use super::background::{JobError, Made};
use super::format::edit::{Edit, TableMeta};
use super::merge::{LevelCursor, Merge, Source};
use super::pace::Pace;
use super::pick::Job;
use super::table::Table;
use super::table_write::TableWriter;
use crate::base::hash::KeyHash;
use crate::base::record::Entry;
use crate::base::version::Version;

impl Store {
    /// Runs one compaction to the end, or leaves everything as it was.
    pub(crate) async fn compact(
        &self,
        job: &Job,
        pace: &Pace,
        made: &Made,
    ) -> Result<(), JobError> {
        let removed: Vec<u64> = job.upper.iter().chain(&job.lower).copied().collect();
        let tables = if job.moves {
            self.tables_of(&job.upper)
        } else {
            self.merged(job, pace, made).await?
        };
        let to = u8::try_from(job.to).expect("a tree has five levels");
        let from = u8::try_from(job.from).expect("a tree has five levels");
        let edit = Edit {
            added: tables
                .iter()
                .map(|table| (to, table.meta().clone()))
                .collect(),
            removed: job
                .upper
                .iter()
                .map(|id| (from, *id))
                .chain(job.lower.iter().map(|id| (to, *id)))
                .collect(),
            ..self.empty_edit()
        };
        self.commit_edit(edit).await?;
        let added = tables.into_iter().map(|table| (to, table)).collect();
        self.install(&removed, added, |_| {});
        self.counters
            .compactions
            .set(self.counters.compactions.get() + 1);
        Ok(())
    }

    fn tables_of(&self, ids: &[u64]) -> Vec<Rc<Table>> {
        let levels = self.levels();
        let chosen = levels.with_levels().map(|(_, table)| table);
        chosen
            .filter(|table| ids.contains(&table.meta().id))
            .cloned()
            .collect()
    }

    async fn merged(
        &self,
        job: &Job,
        pace: &Pace,
        made: &Made,
    ) -> Result<Vec<Rc<Table>>, JobError> {
        let mut tables = Vec::new();
        for meta in self.merge_inputs(job, pace, made).await? {
            tables.push(self.open_table(meta).await?);
        }
        Ok(tables)
    }

    async fn merge_inputs(
        &self,
        job: &Job,
        pace: &Pace,
        made: &Made,
    ) -> Result<Vec<TableMeta>, JobError> {
        let mut outputs = Outputs {
            store: self,
            made,
            level: job.to,
            writer: None,
            done: Vec::new(),
        };
        let purge_before = Version::at_ms(
            self.rt
                .wall_ms()
                .saturating_sub(self.options.gc_grace.as_millis() as u64),
        );
        let mut merge = Merge::seek(self.inputs(job), b"").await?;
        let mut steps = 0u32;
        while let Some((key, held)) = merge.head() {
            if !self.may_purge(key, &held.entry, purge_before, job) {
                outputs.add(key, held.entry, held.late).await?;
            }
            if !merge.step()? {
                merge.advance().await?;
            }
            steps += 1;
            if steps.is_multiple_of(16) {
                self.breathe(pace).await?;
            }
        }
        outputs.finish().await
    }

    fn inputs(&self, job: &Job) -> Vec<Source> {
        let levels = self.levels();
        let upper = levels
            .level(job.from)
            .iter()
            .filter(|table| job.upper.contains(&table.meta().id));
        let mut sources: Vec<Source> = upper
            .map(|table| Source::Table(table.cursor(None)))
            .collect();
        let lower = levels
            .level(job.to)
            .iter()
            .filter(|table| job.lower.contains(&table.meta().id));
        sources.push(Source::Level(LevelCursor::new(
            lower.cloned().collect(),
            None,
        )));
        sources
    }

    /// Whether a tombstone may die: see the module header.
    fn may_purge(&self, key: &[u8], entry: &Entry<'_>, purge_before: Version, job: &Job) -> bool {
        if entry.value().is_some() || entry.version >= purge_before {
            return false;
        }
        let state = self.state.borrow();
        let in_memory = state
            .memtables()
            .any(|memtable| memtable.borrow().get(key).is_some());
        let is_input = |id: u64| job.upper.contains(&id) || job.lower.contains(&id);
        let in_tables = state.levels.holding(key).any(|table| {
            let meta = table.meta();
            !is_input(meta.id) && meta.min_version < entry.version
        });
        !in_memory && !in_tables
    }
}

/// The tables a compaction writes, one after the other.
struct Outputs<'a> {
    store: &'a Store,
    made: &'a Made,
    level: usize,
    writer: Option<TableWriter>,
    done: Vec<TableMeta>,
}

impl Outputs<'_> {
    async fn add(&mut self, key: &[u8], entry: Entry<'_>, late: bool) -> Result<(), JobError> {
        if self
            .writer
            .as_ref()
            .is_some_and(|writer| writer.bytes() >= self.store.table_bytes_target())
        {
            self.cut().await?;
        }
        if self.writer.is_none() {
            self.writer = Some(self.store.new_table(self.level, self.made).await?);
        }
        let writer = self
            .writer
            .as_mut()
            .expect("a writer was just made sure of");
        writer.add(key, KeyHash::of(key), entry, late);
        if writer.is_full() {
            writer.drain().await.map_err(JobError::Disk)?;
        }
        Ok(())
    }

    async fn cut(&mut self) -> Result<(), JobError> {
        if let Some(writer) = self.writer.take() {
            self.done.push(self.store.finish_table(writer).await?);
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<Vec<TableMeta>, JobError> {
        self.cut().await?;
        Ok(self.done)
    }
}
