//! Opening a shard: manifest, tables, then the WAL, in this order.
//!
//! The manifest says which tables exist and up to which WAL group they hold everything (`flushed_seq`); the
//! WAL groups after it are replayed into memtables. The filter is a correctness rule, not a saving: a
//! replayed old value whose tombstone was already compacted away would come back to life. Nothing on disk is
//! changed before everything has been read, so a second crash meets the same files.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::rc::Rc;

use super::bell::Bell;
use super::format::edit::TableMeta;
use super::format::{CURRENT, Owner, TMP_SUFFIX, shard_dir, table_id, table_name};
use super::levels::Levels;
use super::manifest::{Found, Recovered};
use super::memtable::Memtable;
use super::options::Options;
use super::pick::LEVELS;
use super::replay::Replayed;
use super::shared::Shared;
use super::table::{Table, TableError};
use super::unreadable::Unreadable;
use super::wal::Wal;
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
        let data_dir = options.dir.clone();
        let opened = Store::recover(rt, options, shared).await;
        opened.map_err(|why| match why {
            Unopened::Unreadable(why) => {
                let kind = match &why {
                    Unreadable::Io { error, .. } => Some(error.kind()),
                    Unreadable::Corrupt { .. } => None,
                };
                OpenError(why.below(&data_dir).to_string(), kind)
            }
            Unopened::Table(why) => {
                let kind = match &why {
                    TableError::Io { error, .. } => Some(error.kind()),
                    TableError::Corrupt { .. } => None,
                };
                OpenError(why.to_string(), kind)
            }
        })
    }

    async fn recover(
        rt: &Rt,
        options: Options,
        shared: &Rc<Shared>,
    ) -> Result<(Rc<Store>, Opened), Unopened> {
        let dir = options.dir.join(shard_dir(options.shard));
        let owner = Owner {
            node: options.node_uuid,
            shard: options.shard,
        };
        let began = rt.now();
        let found = Found::read(rt, &dir, owner).await?;
        let recovered = found.recovered();
        let largest_on_disk = largest_table_id(rt, &dir).await?;
        let tables = open_tables(rt, &dir, &options, &recovered).await?;
        let tables_done = rt.now();

        let mut state = State::recovered(Levels::new(tables), recovered.sealed_max);
        let wal_dir = dir.join("wal");
        let (from, limit) = (recovered.flushed_seq, options.memtable_bytes);
        let mut replayed = state.replay(rt, &wal_dir, owner, from, limit).await?;
        let opened = Opened {
            tables: state.levels.with_levels().count() as u64,
            tables_time: tables_done - began,
            wal_entries: replayed.entries,
            wal_time: rt.now() - tables_done,
            torn_tail: replayed.torn_tail.is_some(),
            max_version: state.max_version(),
        };
        // First what gives space back: on a full disk the new files must fit where the unused ones were.
        let cleared = replayed.resume.clear(rt, &wal_dir).await;
        cleared.map_err(Unreadable::io(&wal_dir))?;
        let manifest = found.begin(rt).await?;
        let sst = dir.join("sst");
        rt.create_dir(&sst).await.map_err(Unreadable::io(&sst))?;
        let policy = options.wal_policy();
        let (resume, log) = (replayed.resume, shared.log());
        let wal = Wal::open(rt.clone(), wal_dir.clone(), owner, policy, resume, log)
            .await
            .map_err(Unreadable::io(&wal_dir))?;
        // What cannot be removed now is released with the next flush.
        wal.release(from).await.ok();
        if wal.held_bytes() > options.wal_bytes_kept() {
            state.freeze();
        }
        let store = Rc::new(Store {
            rt: rt.clone(),
            dir,
            shared: Rc::clone(shared),
            wal,
            manifest,
            state: RefCell::new(state),
            next_table_id: Cell::new(recovered.next_file_id.max(largest_on_disk + 1)),
            counters: Counters::default(),
            jobs: Cell::new(0),
            flush_rest: RefCell::default(),
            compact_rest: RefCell::default(),
            flush_finds_no_room: Cell::new(false),
            unlinks_later: Cell::new(false),
            wal_ended: Cell::new(false),
            ended: Bell::default(),
            closing: Cell::new(false),
            options,
        });
        store.sweep_orphans().await;
        store.regulate();
        rt.spawn(Rc::clone(&store).commit());
        shared.add(&store);
        Ok((store, opened))
    }

    /// Unlinks files in `sst/` that no manifest names: leftovers of a job that did not finish. Only before the
    /// first job. A failure is harmless; the next open tries again.
    async fn sweep_orphans(&self) {
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

/// What a shard does not open for.
enum Unopened {
    Unreadable(Unreadable),
    Table(TableError),
}

impl From<Unreadable> for Unopened {
    fn from(why: Unreadable) -> Unopened {
        Unopened::Unreadable(why)
    }
}

impl From<TableError> for Unopened {
    fn from(why: TableError) -> Unopened {
        Unopened::Table(why)
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

    pub(crate) fn names_table(&self, id: u64) -> bool {
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
) -> Result<Vec<(u8, Rc<Table>)>, Unopened> {
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
fn check_shape(dir: &Path, levels: &[Vec<TableMeta>]) -> Result<(), Unreadable> {
    let refuse = |why: String| Err(Unreadable::corrupt(&dir.join(CURRENT), 0, why));
    for (level, metas) in levels.iter().enumerate() {
        if level >= LEVELS && !metas.is_empty() {
            return refuse(format!("in its manifest level {level} is beyond the last"));
        }
        let mut metas: Vec<&TableMeta> = metas.iter().collect();
        metas.sort_by(|a, b| a.smallest.cmp(&b.smallest));
        let disjoint = metas.is_sorted_by(|a, b| a.largest < b.smallest);
        if level > 0 && !disjoint {
            return refuse(format!("in its manifest tables of level {level} overlap"));
        }
    }
    Ok(())
}

async fn largest_table_id(rt: &Rt, dir: &Path) -> Result<u64, Unreadable> {
    let sst = dir.join("sst");
    let names = match rt.list(&sst).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        names => names.map_err(Unreadable::io(&sst))?,
    };
    let id = |name: &String| table_id(name.strip_suffix(TMP_SUFFIX).unwrap_or(name));
    Ok(names.iter().filter_map(id).max().unwrap_or(0))
}
