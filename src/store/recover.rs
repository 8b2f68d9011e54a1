//! Opening a shard: manifest, tables, then the WAL, in this order.
//!
//! The manifest says which tables exist and up to which WAL group they hold everything (`flushed_seq`); the
//! WAL groups after it are replayed into memtables. The filter is a correctness rule, not a saving: a
//! replayed old value whose tombstone was already compacted away would come back to life. Nothing on disk is
//! changed before everything has been read, so a second crash meets the same files.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::Path;
use std::rc::Rc;

use super::bell::Bell;
use super::format::edit::TableMeta;
use super::format::{Owner, TMP_SUFFIX, shard_dir, table_id, table_name};
use super::levels::Levels;
use super::manifest::{Manifest, Recovered};
use super::memtable::Memtable;
use super::options::Options;
use super::pick::LEVELS;
use super::replay::Replayed;
use super::shared::Shared;
use super::table::Table;
use super::unreadable::Unreadable;
use super::wal::{Wal, WalPolicy};
use super::{Counters, Op, OpenError, Opened, State, Store, replay};
use crate::base::version::Version;
use crate::rt::Rt;

impl Store {
    /// Recovers the shard and starts its commit loop. `shared.completions()` gets the outcomes of its writes.
    pub async fn open(
        rt: &Rt,
        options: Options,
        shared: &Rc<Shared>,
    ) -> Result<(Rc<Store>, Opened), OpenError> {
        let dir = options.dir.join(shard_dir(options.shard));
        let owner = Owner {
            node: options.node_uuid,
            shard: options.shard,
        };
        let began = rt.now();
        let (manifest, recovered) = Manifest::open(rt, &dir, owner).await?;
        for sub in ["wal", "sst"] {
            rt.create_dir(&dir.join(sub))
                .await
                .map_err(|error| OpenError(format!("{}: {error}", dir.display())))?;
        }
        let largest_on_disk = largest_table_id(rt, &dir).await?;
        let tables = open_tables(rt, &dir, &options, &recovered).await?;
        let tables_done = rt.now();

        let mut state = State::recovered(Levels::new(tables), recovered.sealed_max);
        let wal_dir = dir.join("wal");
        let (from, limit) = (recovered.flushed_seq, options.memtable_bytes);
        let replayed = state.replay(rt, &wal_dir, owner, from, limit).await?;
        let opened = Opened {
            tables: state.levels.with_levels().count() as u64,
            tables_time: tables_done - began,
            wal_entries: replayed.entries,
            wal_time: rt.now() - tables_done,
            torn_tail: replayed.torn_tail.is_some(),
            max_version: state.max_version(),
        };
        let policy = WalPolicy {
            commit_interval: options.wal_commit_interval,
            records_per_group_max: options.wal_records_per_group_max,
            segment_bytes: options.wal_segment_bytes,
        };
        let (resume, log) = (replayed.resume, shared.log());
        let wal = Wal::open(rt.clone(), wal_dir.clone(), owner, policy, resume, log)
            .await
            .map_err(|error| OpenError(format!("{}: {error}", wal_dir.display())))?;
        let store = Rc::new(Store {
            rt: rt.clone(),
            dir,
            shared: Rc::clone(shared),
            wal,
            manifest,
            state: RefCell::new(state),
            next_table_id: Cell::new(recovered.next_file_id.max(largest_on_disk + 1)),
            counters: Counters::default(),
            busy: Cell::new(false),
            wal_ended: Cell::new(false),
            ended: Bell::default(),
            closing: Cell::new(false),
            options,
        });
        store.sweep_orphans().await;
        rt.spawn(Rc::clone(&store).commit());
        shared.add(&store);
        Ok((store, opened))
    }

    /// Unlinks files in `sst/` that no manifest names: leftovers of a job that did not finish. Only while no
    /// job runs. A failure is harmless; the next open tries again.
    pub(crate) async fn sweep_orphans(&self) {
        let sst = self.dir.join("sst");
        let Ok(names) = self.rt.list(&sst).await else {
            return;
        };
        for name in names {
            let orphan = match table_id(&name) {
                Some(id) => !self.state.borrow().names_table(id),
                None => name.ends_with(TMP_SUFFIX),
            };
            if orphan && self.rt.remove(&sst.join(name)).await.is_err() {
                self.counters
                    .unlink_failures
                    .set(self.counters.unlink_failures.get() + 1);
            }
        }
    }
}

impl State {
    fn recovered(levels: Levels, sealed_max: Version) -> State {
        let in_tables = levels
            .with_levels()
            .map(|(_, table)| table.meta().max_version)
            .max();
        State {
            active: Rc::new(RefCell::new(Memtable::default())),
            frozen: VecDeque::new(),
            sealed_max: sealed_max.max(in_tables.unwrap_or(Version::ZERO)),
            levels: Rc::new(levels),
            wal_bytes_before: 0,
            obsolete: Vec::new(),
        }
    }

    /// Applies every WAL group above `flushed_seq`.
    async fn replay(
        &mut self,
        rt: &Rt,
        wal_dir: &Path,
        owner: Owner,
        flushed_seq: u64,
        memtable_bytes: u64,
    ) -> Result<Replayed, Unreadable> {
        let mut group = flushed_seq;
        let mut apply = |seq, op: Op<'_>| {
            // Freeze only between groups, as `Store::apply` does.
            if seq != group && self.active.borrow().bytes() >= memtable_bytes {
                self.freeze();
            }
            group = seq;
            self.insert(op, seq);
        };
        replay::replay(rt, wal_dir, owner, flushed_seq, &mut apply).await
    }

    fn max_version(&self) -> Version {
        self.sealed_max.max(self.active.borrow().max_version())
    }

    fn names_table(&self, id: u64) -> bool {
        let in_levels = self
            .levels
            .with_levels()
            .any(|(_, table)| table.meta().id == id);
        in_levels || self.obsolete.iter().any(|table| table.meta().id == id)
    }
}

async fn open_tables(
    rt: &Rt,
    dir: &Path,
    options: &Options,
    recovered: &Recovered,
) -> Result<Vec<(u8, Rc<Table>)>, OpenError> {
    check_shape(dir, &recovered.levels)?;
    let mut tables = Vec::new();
    for (level, metas) in (0u8..).zip(&recovered.levels) {
        for meta in metas {
            let path = dir.join("sst").join(table_name(meta.id));
            tables.push((
                level,
                Table::open(rt, &path, options.shard, meta.clone()).await?,
            ));
        }
    }
    Ok(tables)
}

/// A manifest that passed its checksums and still describes no tree was written by a bug or a forger.
fn check_shape(dir: &Path, levels: &[Vec<TableMeta>]) -> Result<(), OpenError> {
    let refuse = |why: String| Err(OpenError(format!("{}: manifest: {why}", dir.display())));
    for (level, metas) in levels.iter().enumerate() {
        if level >= LEVELS && !metas.is_empty() {
            return refuse(format!("level {level} is beyond the last"));
        }
        let mut metas: Vec<&TableMeta> = metas.iter().collect();
        metas.sort_by(|a, b| a.smallest.cmp(&b.smallest));
        let disjoint = metas.is_sorted_by(|a, b| a.largest < b.smallest);
        if level > 0 && !disjoint {
            return refuse(format!("tables of level {level} overlap"));
        }
    }
    Ok(())
}

async fn largest_table_id(rt: &Rt, dir: &Path) -> Result<u64, OpenError> {
    let sst = dir.join("sst");
    let names = rt
        .list(&sst)
        .await
        .map_err(|error| OpenError(format!("{}: {error}", sst.display())))?;
    let id = |name: &String| table_id(name.strip_suffix(TMP_SUFFIX).unwrap_or(name));
    Ok(names.iter().filter_map(id).max().unwrap_or(0))
}
