//! Pure. The block cache of one core, shared by its shards.
//!
//! Scan resistant (S3-FIFO): a block must be asked for twice before it can push out blocks that were. The
//! hasher is seeded with constants, so that a simulated run evicts the same blocks every time.
//!
//! What it does not do: read (see `Table::load`), or keep blocks of obsolete tables on purpose: whoever deletes
//! a table erases its blocks. A block in use stays alive through its `Rc` wherever the cache stands.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use quick_cache::Weighter;
use quick_cache::unsync::{self, DefaultLifecycle};

use super::format::block::Block;
use crate::base::hash::FixedState;

/// Which block: tables are numbered per shard, blocks by their place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BlockId {
    pub shard: u16,
    pub table: u64,
    pub offset: u64,
}

/// Blocks in memory, up to a number of bytes.
pub(crate) struct Cache {
    blocks: RefCell<unsync::Cache<BlockId, Rc<Block>, Bytes, FixedState>>,
    hits: Cell<u64>,
    misses: Cell<u64>,
}

/// Blocks are cut at this size, most are a little smaller.
const BLOCK_BYTES_TYPICAL: u64 = 16 << 10;

#[derive(Clone)]
struct Bytes;

impl Weighter<BlockId, Rc<Block>> for Bytes {
    fn weight(&self, id: &BlockId, block: &Rc<Block>) -> u64 {
        block.memory_bytes() + size_of_val(id) as u64
    }
}

impl Cache {
    /// `capacity`: bytes of blocks kept. A block larger than that is not kept at all.
    pub(crate) fn new(capacity: u64) -> Cache {
        let items = capacity.div_ceil(BLOCK_BYTES_TYPICAL);
        Cache {
            blocks: RefCell::new(unsync::Cache::with(
                usize::try_from(items).unwrap_or(usize::MAX),
                capacity,
                Bytes,
                FixedState,
                DefaultLifecycle::default(),
            )),
            hits: Cell::new(0),
            misses: Cell::new(0),
        }
    }

    /// The block, if it is here. Counts a hit or a miss.
    pub(crate) fn get(&self, id: BlockId) -> Option<Rc<Block>> {
        let block = self.blocks.borrow().get(&id).cloned();
        let counter = match block {
            Some(_) => &self.hits,
            None => &self.misses,
        };
        counter.set(counter.get() + 1);
        block
    }

    pub(crate) fn insert(&self, id: BlockId, block: Rc<Block>) {
        self.blocks.borrow_mut().insert(id, block);
    }

    pub(crate) fn erase(&self, id: BlockId) {
        self.blocks.borrow_mut().remove(&id);
    }

    /// (hits, misses) so far.
    pub(crate) fn stats(&self) -> (u64, u64) {
        (self.hits.get(), self.misses.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::record::{Entry, State};
    use crate::base::version::Version;
    use crate::store::format::block::BlockBuilder;

    fn block(value_len: usize) -> Rc<Block> {
        let mut builder = BlockBuilder::default();
        let value = vec![0; value_len];
        let entry = Entry {
            version: Version::ZERO,
            state: State::Live {
                value: &value,
                text: false,
            },
        };
        builder.add(b"key", entry, false);
        Rc::new(Block::parse(&builder.finish().payload).unwrap())
    }

    fn id(shard: u16, table: u64, offset: u64) -> BlockId {
        BlockId {
            shard,
            table,
            offset,
        }
    }

    #[test]
    fn bytes_are_bounded_and_the_same_run_evicts_the_same_blocks() {
        let run = || {
            let cache = Cache::new(1 << 20);
            let mut rng = fastrand::Rng::with_seed(2);
            let mut hits = Vec::new();
            for _ in 0..5000 {
                let id = id(0, 1, rng.u64(..500));
                hits.push(cache.get(id).is_some());
                cache.insert(id, block(10_000));
            }
            assert!(cache.blocks.borrow().weight() <= 1 << 20);
            assert!(hits.iter().any(|&hit| hit) && hits.iter().any(|&hit| !hit));
            (hits, cache.stats())
        };
        assert_eq!(run(), run());
    }

    #[test]
    fn blocks_of_other_shards_tables_and_places_are_other_blocks() {
        let cache = Cache::new(1 << 20);
        cache.insert(id(1, 2, 3), block(10));
        for other in [id(0, 2, 3), id(1, 1, 3), id(1, 2, 4)] {
            assert!(cache.get(other).is_none());
        }
        assert!(cache.get(id(1, 2, 3)).is_some());
        cache.erase(id(1, 2, 3));
        assert!(cache.get(id(1, 2, 3)).is_none());
        assert_eq!(cache.stats(), (1, 4));
    }

    #[test]
    fn a_block_larger_than_the_cache_is_not_kept() {
        let cache = Cache::new(10_000);
        cache.insert(id(0, 1, 0), block(20_000));
        assert!(cache.get(id(0, 1, 0)).is_none());
    }
}
