//! One key: newest source first, ended by the first entry that cannot be beaten.
//!
//! The synchronous search is the only one: a lookup that needs the disk loads the block it stumbled over and
//! searches again, so there is no second copy of the rules.

use std::rc::Rc;

use super::format::block::{Block, Found};
use super::format::table::BlockHandle;
use super::memtable::Held;
use super::table::Probe;
use super::{Got, Miss, ReadError, Store};
use crate::base::hash::KeyHash;
use crate::base::record::{Entry, OwnedEntry};

impl Store {
    /// The newest entry of `key`, a tombstone included, given to `read` without a copy; `Disk` when a block
    /// that memory does not hold is needed.
    pub fn get<R>(
        &self,
        key: &[u8],
        hash: KeyHash,
        read: impl FnOnce(Option<Entry<'_>>) -> R,
    ) -> Result<Got<R>, ReadError> {
        self.search(key, hash, &[], read)
    }

    /// The same, reading blocks from disk where needed.
    pub async fn get_from_disk(
        &self,
        key: &[u8],
        hash: KeyHash,
    ) -> Result<Option<OwnedEntry>, ReadError> {
        // Loaded blocks are kept here too: the cache may be smaller than one block.
        let mut loaded: Vec<Loaded> = Vec::new();
        loop {
            match self.search(key, hash, &loaded, |entry| {
                entry.map(|entry| entry.to_owned())
            })? {
                Got::Answer(answer) => return Ok(answer),
                Got::Disk(miss) => {
                    let block = miss.table.load(self.shared.cache(), miss.block).await?;
                    loaded.push(Loaded {
                        table: miss.table.meta().id,
                        at: miss.block,
                        block,
                    });
                }
            }
        }
    }

    /// Newest source first. An entry that is not late ends the search: nothing older can be greater.
    fn search<R>(
        &self,
        key: &[u8],
        hash: KeyHash,
        loaded: &[Loaded],
        read: impl FnOnce(Option<Entry<'_>>) -> R,
    ) -> Result<Got<R>, ReadError> {
        let state = self.state.borrow();
        let mut best: Option<OwnedEntry> = None;
        for memtable in state.memtables() {
            let memtable = memtable.borrow();
            match memtable.get(key) {
                Some(held) if settles(&held, &mut best) => {
                    return Ok(Got::Answer(read(Some(greater(held.entry, best.as_ref())))));
                }
                _ => {}
            }
        }
        for table in state.levels.holding(key) {
            if best
                .as_ref()
                .is_some_and(|best| table.meta().max_version < best.version)
            {
                continue;
            }
            let block = match table.probe(self.shared.cache(), key, hash) {
                Probe::No => continue,
                Probe::Block(block) => block,
                Probe::Load(handle) => {
                    let id = table.meta().id;
                    match loaded
                        .iter()
                        .find(|have| have.table == id && have.at == handle)
                    {
                        Some(have) => Rc::clone(&have.block),
                        None => {
                            return Ok(Got::Disk(Miss {
                                table: Rc::clone(table),
                                block: handle,
                            }));
                        }
                    }
                }
            };
            let found = block.get(key).map_err(|why| table.damaged_at(key, why))?;
            let held = found.map(|Found { entry, late }| Held { entry, late });
            if let Some(held) = held
                && settles(&held, &mut best)
            {
                return Ok(Got::Answer(read(Some(greater(held.entry, best.as_ref())))));
            }
        }
        Ok(Got::Answer(read(best.as_ref().map(OwnedEntry::as_entry))))
    }
}

/// A block read for one lookup.
struct Loaded {
    table: u64,
    at: BlockHandle,
    block: Rc<Block>,
}

/// Folds one finding in. True when no older source can matter.
fn settles(held: &Held<'_>, best: &mut Option<OwnedEntry>) -> bool {
    if !held.late {
        return true;
    }
    if best
        .as_ref()
        .is_none_or(|best| held.entry.order(&best.as_entry()).is_gt())
    {
        *best = Some(held.entry.to_owned());
    }
    false
}

fn greater<'a>(entry: Entry<'a>, best: Option<&'a OwnedEntry>) -> Entry<'a> {
    match best.map(OwnedEntry::as_entry) {
        Some(best) if best.order(&entry).is_gt() => best,
        _ => entry,
    }
}
