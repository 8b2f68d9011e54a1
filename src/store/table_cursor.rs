//! Reads a table in key order, ahead of its reader.
//!
//! The first block is read alone (many scans are short), then whole blocks ahead: 32 KiB, doubled with every
//! read up to 256 KiB. `advance_in_block` never waits, so a merge steps through most entries without
//! suspending:
//!
//! ```text
//! while let Some(head) = cursor.head() { ...; if !cursor.advance_in_block()? { cursor.advance().await?; } }
//! ```
//!
//! What it does not do: filter tombstones or versions; yield (a merge paces itself).

use std::rc::Rc;

use super::cache::Cache;
use super::format::block::{Block, BlockCursor, Corrupt};
use super::format::table::BlockHandle;
use super::table::{Table, TableError};
use crate::base::record::Entry;

/// Reads one table in key order. At the end, and before the first `seek`, there is no head.
pub(crate) struct TableCursor {
    table: Rc<Table>,
    cache: Option<Rc<Cache>>,
    at: Option<BlockCursor>,
    /// Number of the block `at` is in.
    number: usize,
    ahead: Ahead,
}

/// Bytes read ahead of their use: whole blocks of the file from `start`.
struct Ahead {
    start: u64,
    bytes: Vec<u8>,
    /// Size of the next read.
    next_bytes: u64,
}

const AHEAD_BYTES_MIN: u64 = 32 << 10;
const AHEAD_BYTES_MAX: u64 = 256 << 10;

impl TableCursor {
    pub(super) fn new(table: Rc<Table>, cache: Option<Rc<Cache>>) -> TableCursor {
        TableCursor {
            table,
            cache,
            at: None,
            number: 0,
            ahead: Ahead {
                start: 0,
                bytes: Vec::new(),
                next_bytes: 0,
            },
        }
    }

    /// Goes to the first key >= `key`. After an error, or dropped half way, the cursor has no head.
    pub(crate) async fn seek(&mut self, key: &[u8]) -> Result<(), TableError> {
        self.at = None;
        self.ahead.next_bytes = 0;
        self.number = self.table.index().find(key);
        let Some(block) = self.block().await? else {
            return Ok(());
        };
        let mut at = BlockCursor::new(block);
        let found = at.seek(key).map_err(|why| self.damaged(why))?;
        self.at = Some(at);
        match found {
            true => Ok(()),
            false => self.advance().await, // every key of the block is smaller: the next one starts above
        }
    }

    /// Goes to the next entry, reading where necessary. After an error the cursor must not be used further.
    pub(crate) async fn advance(&mut self) -> Result<(), TableError> {
        if self.at.is_none() || self.advance_in_block()? {
            return Ok(());
        }
        let Some(mut at) = self.at.take() else {
            return Ok(());
        };
        self.number += 1;
        if let Some(block) = self.block().await? {
            at.enter(block);
            if !at.step().map_err(|why| self.damaged(why))? {
                return Err(self.damaged(Corrupt("an empty block")));
            }
            self.at = Some(at);
        }
        Ok(())
    }

    /// Goes to the next entry if it is in the block at hand. False: nothing moved, `advance` is needed.
    pub(crate) fn advance_in_block(&mut self) -> Result<bool, TableError> {
        let Some(at) = &mut self.at else {
            return Ok(false);
        };
        at.step().map_err(|why| self.damaged(why))
    }

    /// Key, entry, late. `None` at the end.
    pub(crate) fn head(&self) -> Option<(&[u8], Entry<'_>, bool)> {
        let (key, found) = self.at.as_ref()?.head()?;
        Some((key, found.entry, found.late))
    }

    /// Block `self.number`, from the cache, from what was read ahead, or from the file. `None` behind the last.
    async fn block(&mut self) -> Result<Option<Rc<Block>>, TableError> {
        let Some(handle) = self.table.index().handle(self.number) else {
            return Ok(None);
        };
        let id = self.table.block_id(handle.offset);
        if let Some(block) = self.cache.as_ref().and_then(|cache| cache.get(id)) {
            return Ok(Some(block));
        }
        if self.ahead.get(handle).is_none() {
            self.read_ahead(handle).await?;
        }
        let bytes = self.ahead.get(handle).unwrap_or_default();
        let block = self.table.parse(bytes, handle)?;
        if let Some(cache) = &self.cache {
            cache.insert(id, block.clone());
        }
        Ok(Some(block))
    }

    /// Reads `first`, which is block `self.number`, and as many whole blocks behind it as the window takes.
    async fn read_ahead(&mut self, first: BlockHandle) -> Result<(), TableError> {
        let mut len = u64::from(first.bytes);
        for number in self.number + 1.. {
            match self.table.index().handle(number) {
                Some(block) if len + u64::from(block.bytes) <= self.ahead.next_bytes => {
                    len += u64::from(block.bytes);
                }
                _ => break,
            }
        }
        let bytes = self.table.read(first.offset, len as usize).await?;
        let next_bytes = (self.ahead.next_bytes * 2).clamp(AHEAD_BYTES_MIN, AHEAD_BYTES_MAX);
        self.ahead = Ahead {
            start: first.offset,
            bytes,
            next_bytes,
        };
        Ok(())
    }

    fn damaged(&self, why: Corrupt) -> TableError {
        let block = self.table.index().handle(self.number);
        self.table
            .damaged(block.expect("`at` is in a block of the table"), why)
    }
}

impl Ahead {
    fn get(&self, block: BlockHandle) -> Option<&[u8]> {
        let from = usize::try_from(block.offset.checked_sub(self.start)?).ok()?;
        self.bytes
            .get(from..from.checked_add(block.bytes as usize)?)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::base::record::State;
    use crate::base::version::Version;
    use crate::rt::sim::World;
    use crate::store::format::bloom::BloomSize;
    use crate::store::table_write::TablePolicy;
    use crate::store::table_write::fixture::{Rows, write};

    /// Reads a table from end to end; (rows, file operations).
    fn sweep(world: &World, cache: Option<&Rc<Cache>>) -> (usize, u64) {
        let rt = world.boot(0, 1).remove(0);
        let entry = Entry {
            version: Version { hlc: 9, origin: 1 },
            state: State::Live {
                value: &[7; 100],
                text: false,
            },
        };
        let rows: Rows = (0..20_000)
            .map(|i| {
                (
                    format!("user:{i:08}").into_bytes(),
                    (entry.to_owned(), false),
                )
            })
            .collect();
        let policy = TablePolicy {
            keys_per_block_max: 64,
            block_bytes_max: 16 << 10,
            bloom: BloomSize::new(10),
        };
        let path = Path::new("/t.sst");
        world.run(&rt, async {
            let meta = write(&rt, path, 1, policy, &rows).await.unwrap();
            let table = Table::open(&rt, path, 0, meta).await.unwrap();
            let before = world.disk(0).ops();
            let mut cursor = table.cursor(cache.cloned());
            assert!(cursor.head().is_none(), "not before the first seek");
            cursor.advance().await.unwrap();
            assert!(cursor.head().is_none());
            cursor.seek(b"").await.unwrap();
            let mut count = 0;
            let mut keys = rows.keys();
            while let Some((key, ..)) = cursor.head() {
                assert_eq!(Some(key), keys.next().map(Vec::as_slice));
                count += 1;
                cursor.advance().await.unwrap();
            }
            assert_eq!(count, rows.len());
            cursor.advance().await.unwrap();
            assert!(!cursor.advance_in_block().unwrap() && cursor.head().is_none());
            (count, world.disk(0).ops() - before)
        })
    }

    #[test]
    fn reads_grow_and_the_cache_replaces_them() {
        let world = World::new(5);
        let (rows, reads) = sweep(&world, None);
        let bytes = world.disk(0).files()[0].1;
        let fewest = bytes.div_ceil(AHEAD_BYTES_MAX);
        assert!(rows == 20_000 && fewest >= 8);
        assert!(
            (fewest..fewest + 6).contains(&reads),
            "{reads} reads of {bytes}"
        );
        let cache = Rc::new(Cache::new(64 << 20));
        assert_eq!(sweep(&world, Some(&cache)), (rows, reads));
        assert_eq!(sweep(&world, Some(&cache)), (rows, 0));
    }
}
