//! An open table: finds the one block that may hold a key, and reads it.
//!
//! ```text
//! probe(key) ─ outside smallest..largest? ─ filter says no? ─▶ No
//!                └─ index: block n ─ in the cache? ─▶ Block      else ─▶ Load(n), the only step that waits
//! ```
//!
//! Index and filter are pinned in memory from `open` on, so a lookup reads at most one block. The file is the
//! one the manifest tells of, or it does not open: length, id, key range, counts and versions must agree.
//!
//! What it does not do: decide whether a version found here is the newest (levels), or retry a damaged block.

use std::io;
use std::path::Path;
use std::rc::Rc;

use super::cache::{BlockId, Cache};
use super::format::block::{Block, Corrupt};
use super::format::bloom::Filter;
use super::format::edit::TableMeta;
use super::format::index::SparseIndex;
use super::format::table::{self, BlockHandle, BlockType, FOOTER_BYTES, Footer};
use super::format::{shard_dir, table_name};
use super::table_cursor::TableCursor;
use crate::base::hash::KeyHash;
use crate::rt::Rt;
use crate::rt::file::{File, Mode};

/// Why a table could not be read.
#[derive(Debug)]
pub(crate) enum TableError {
    /// The disk refused; the bytes may be fine. Fail the request, keep the table.
    Io { file: String, error: io::Error },
    /// The bytes are damaged: fail the request, never answer "not found"; at open, refuse to start.
    Corrupt {
        file: String,
        offset: u64,
        why: &'static str,
    },
}

/// What people know a table by: its path below the data directory.
fn file_of(shard: u16, table: u64) -> String {
    format!("{}/sst/{}", shard_dir(shard), table_name(table))
}

impl std::fmt::Display for TableError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TableError::Io { file, error } => write!(f, "{file}: {error}"),
            TableError::Corrupt { file, offset, why } => {
                write!(f, "{file}: damaged at byte {offset}: {why}")
            }
        }
    }
}

/// Where to look for a key.
#[derive(Debug)]
pub(crate) enum Probe {
    /// Not in this table.
    No,
    /// If at all, in this block.
    Block(Rc<Block>),
    /// If at all, in this block, which `Table::load` reads.
    Load(BlockHandle),
}

/// An open table file.
pub(crate) struct Table {
    file: File,
    shard: u16,
    meta: TableMeta,
    index: SparseIndex,
    filter: Filter,
}

/// The first read at open: the footer, and of most tables the index too.
const TAIL_BYTES: u64 = 64 << 10;

impl Table {
    /// Opens `path`, which must be the file `meta` tells of. `shard` keeps the shards of a core apart in the cache.
    pub(crate) async fn open(
        rt: &Rt,
        path: &Path,
        shard: u16,
        meta: TableMeta,
    ) -> Result<Rc<Table>, TableError> {
        let failed = |error| TableError::Io {
            file: file_of(shard, meta.id),
            error,
        };
        let damaged = |offset, Corrupt(why)| TableError::Corrupt {
            file: file_of(shard, meta.id),
            offset,
            why,
        };
        let file = rt.open(path, Mode::Read).await.map_err(failed)?;
        let bytes = file.len();
        if bytes != meta.bytes || bytes < FOOTER_BYTES as u64 {
            return Err(damaged(bytes, Corrupt("the file has another length")));
        }
        let footer_at = bytes - FOOTER_BYTES as u64;
        let tail_at = bytes.saturating_sub(TAIL_BYTES);
        let tail = file.read_at(tail_at, (bytes - tail_at) as usize).await;
        let mut tail = tail.map_err(failed)?;
        let page = tail.split_off((footer_at - tail_at) as usize);
        let footer =
            Footer::decode(&page, meta.id, bytes).map_err(|why| damaged(footer_at, why))?;
        let start = footer.index.offset.min(tail_at);
        if start < tail_at {
            let head = file.read_at(start, (tail_at - start) as usize).await;
            let mut head = head.map_err(failed)?;
            head.append(&mut tail);
            tail = head;
        }
        let payload = |handle: BlockHandle, kind| {
            let from = (handle.offset - start) as usize;
            let block = tail.get(from..from + handle.bytes as usize);
            table::unseal(block.unwrap_or_default(), kind, meta.id, handle.offset)
                .map_err(|why| damaged(handle.offset, why))
        };
        let index = SparseIndex::parse(
            payload(footer.index, BlockType::Index)?,
            footer.index.offset,
        )
        .map_err(|why| damaged(footer.index.offset, why))?;
        let filter = Filter::parse(payload(footer.filter, BlockType::Filter)?)
            .map_err(|why| damaged(footer.filter.offset, why))?;
        let props = table::decode_props(payload(footer.props, BlockType::Props)?, &footer)
            .map_err(|why| damaged(footer.props.offset, why))?;
        if props != meta || index.counts() != (meta.entries, meta.tombstones) {
            let why = Corrupt("not the table the manifest tells of");
            return Err(damaged(footer.props.offset, why));
        }
        Ok(Rc::new(Table {
            file,
            shard,
            meta,
            index,
            filter,
        }))
    }

    pub(crate) fn meta(&self) -> &TableMeta {
        &self.meta
    }

    /// Where to look for `key`. No I/O, no allocation.
    pub(crate) fn probe(&self, cache: &Cache, key: &[u8], hash: KeyHash) -> Probe {
        let meta = &self.meta;
        if key < meta.smallest.as_slice() || key > meta.largest.as_slice() {
            return Probe::No;
        }
        if !self.filter.may_hold(hash) {
            return Probe::No;
        }
        let handle = self.index.handle(self.index.find(key));
        let handle = handle.expect("every key has a block");
        match cache.get(self.block_id(handle.offset)) {
            Some(block) => Probe::Block(block),
            None => Probe::Load(handle),
        }
    }

    /// Reads a block and puts it into the cache.
    pub(crate) async fn load(
        &self,
        cache: &Cache,
        block: BlockHandle,
    ) -> Result<Rc<Block>, TableError> {
        let bytes = self.read(block.offset, block.bytes as usize).await?;
        let parsed = self.parse(&bytes, block)?;
        cache.insert(self.block_id(block.offset), parsed.clone());
        Ok(parsed)
    }

    /// Forgets the cached blocks of this table: it was compacted away.
    pub(crate) fn erase_from(&self, cache: &Cache) {
        for offset in self.index.offsets() {
            cache.erase(self.block_id(offset));
        }
    }

    /// A reader in key order. `cache`: look there first and leave there what was read (scans); `None`: leave the
    /// cache alone (compaction).
    pub(crate) fn cursor(self: &Rc<Self>, cache: Option<Rc<Cache>>) -> TableCursor {
        TableCursor::new(self.clone(), cache)
    }

    /// Bytes pinned in memory while the table is open.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.index.memory_bytes() + self.filter.memory_bytes()
    }

    pub(super) fn index(&self) -> &SparseIndex {
        &self.index
    }

    pub(super) fn block_id(&self, offset: u64) -> BlockId {
        BlockId {
            shard: self.shard,
            table: self.meta.id,
            offset,
        }
    }

    /// Bytes of the file. The range comes from the index, which open checked against the length of the file.
    pub(super) async fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, TableError> {
        let read = self.file.read_at(offset, len).await;
        read.map_err(|error| TableError::Io {
            file: file_of(self.shard, self.meta.id),
            error,
        })
    }

    /// The block that `bytes`, read from `handle`, must be.
    pub(super) fn parse(&self, bytes: &[u8], handle: BlockHandle) -> Result<Rc<Block>, TableError> {
        table::unseal(bytes, BlockType::Data, self.meta.id, handle.offset)
            .and_then(Block::parse)
            .map(Rc::new)
            .map_err(|why| self.damaged(handle, why))
    }

    pub(super) fn damaged(&self, block: BlockHandle, Corrupt(why): Corrupt) -> TableError {
        TableError::Corrupt {
            file: file_of(self.shard, self.meta.id),
            offset: block.offset,
            why,
        }
    }

    /// Says where: for what `Block::get` found wrong in the block of `key`.
    pub(crate) fn damaged_at(&self, key: &[u8], why: Corrupt) -> TableError {
        let handle = self.index.handle(self.index.find(key));
        self.damaged(handle.expect("every key has a block"), why)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use fastrand::Rng;

    use super::*;
    use crate::base::record::OwnedEntry;
    use crate::rt::sim::World;
    use crate::store::table_write::TablePolicy;
    use crate::store::table_write::fixture::{Rows, SMALL_BLOCKS, random_rows, write};

    /// What the table says about a key, the way a store asks.
    async fn get(
        table: &Table,
        cache: &Cache,
        key: &[u8],
    ) -> Result<Option<(OwnedEntry, bool)>, TableError> {
        let block = match table.probe(cache, key, KeyHash::of(key)) {
            Probe::No => return Ok(None),
            Probe::Block(block) => block,
            Probe::Load(handle) => table.load(cache, handle).await?,
        };
        let found = block.get(key).map_err(|why| table.damaged_at(key, why))?;
        Ok(found.map(|found| (found.entry.to_owned(), found.late)))
    }

    /// Every row of the table, from the first key >= `from`.
    async fn rows_from(
        table: &Rc<Table>,
        cache: Option<Rc<Cache>>,
        from: &[u8],
    ) -> Result<Vec<(Vec<u8>, (OwnedEntry, bool))>, TableError> {
        let mut cursor = table.cursor(cache);
        cursor.seek(from).await?;
        let mut rows = Vec::new();
        while let Some((key, entry, late)) = cursor.head() {
            rows.push((key.to_vec(), (entry.to_owned(), late)));
            if !cursor.advance_in_block()? {
                cursor.advance().await?;
            }
        }
        Ok(rows)
    }

    fn neighbours(key: &[u8]) -> Vec<Vec<u8>> {
        let mut longer = key.to_vec();
        longer.push(0);
        let mut all = vec![longer];
        if let Some((last, head)) = key.split_last() {
            all.push(head.to_vec());
            for byte in [last.wrapping_sub(1), last.wrapping_add(1)] {
                all.push([head, &[byte]].concat());
            }
        }
        all
    }

    fn some_policy(rng: &mut Rng) -> TablePolicy {
        let mut policy = SMALL_BLOCKS;
        policy.keys_per_block_max = *rng.choice([1, 2, 16, 17, 128].iter()).unwrap();
        policy.block_bytes_max = *rng.choice([1, 200, 4096].iter()).unwrap();
        policy.bloom = super::super::format::bloom::BloomSize::new(rng.u64(..100));
        policy
    }

    #[test]
    fn a_table_answers_like_the_map_it_was_made_from() {
        for seed in 0..60 {
            let mut rng = Rng::with_seed(seed);
            let world = World::new(seed);
            let rt = world.boot(0, 1).remove(0);
            let count = *rng.choice([1, 2, 30, 1000].iter()).unwrap();
            let rows = random_rows(&mut rng, count);
            let policy = some_policy(&mut rng);
            let cache = Rc::new(Cache::new(rng.u64(..64 << 10)));
            world.run(&rt, async {
                let path = PathBuf::from("/t.sst");
                let meta = write(&rt, &path, seed, policy, &rows).await.unwrap();
                check_meta(&meta, &rows, seed);
                let table = Table::open(&rt, &path, 1, meta).await.unwrap();
                let mut keys: Vec<Vec<u8>> = rows.keys().cloned().collect();
                keys.extend(rows.keys().flat_map(|key| neighbours(key)));
                rng.shuffle(&mut keys);
                for key in &keys {
                    let got = get(&table, &cache, key).await.unwrap();
                    assert_eq!(got.as_ref(), rows.get(key), "SEED={seed} {key:?}");
                }
                for key in keys.iter().take(100) {
                    let want = rows
                        .range(key.clone()..)
                        .map(|(k, v)| (k.clone(), v.clone()));
                    let cache = rng.bool().then(|| cache.clone());
                    let got = rows_from(&table, cache, key).await.unwrap();
                    assert!(got.into_iter().eq(want), "SEED={seed} from {key:?}");
                }
            });
        }
    }

    fn check_meta(meta: &TableMeta, rows: &Rows, seed: u64) {
        let versions = || rows.values().map(|(entry, _)| entry.version);
        let dead = rows
            .values()
            .filter(|(e, _)| e.as_entry().value().is_none());
        let want = TableMeta {
            id: seed,
            bytes: meta.bytes,
            smallest: rows.keys().next().unwrap().clone(),
            largest: rows.keys().last().unwrap().clone(),
            entries: rows.len() as u64,
            tombstones: dead.count() as u64,
            min_version: versions().min().unwrap(),
            max_version: versions().max().unwrap(),
        };
        assert_eq!(*meta, want, "SEED={seed}");
    }

    /// Opens `bytes` as the table and checks that whatever it answers is right.
    fn right_or_refused(bytes: &[u8], meta: &TableMeta, rows: &Rows) -> bool {
        let world = World::new(1);
        let rt = world.boot(0, 1).remove(0);
        let path = Path::new("/t.sst");
        world.disk(0).write(path, bytes);
        let cache = Rc::new(Cache::new(1 << 20));
        world.run(&rt, async {
            let Ok(table) = Table::open(&rt, path, 0, meta.clone()).await else {
                return false;
            };
            let mut whole = true;
            for (key, value) in rows {
                match get(&table, &cache, key).await {
                    Ok(got) => assert_eq!(got.as_ref(), Some(value), "{key:?}"),
                    Err(TableError::Corrupt { .. }) => whole = false,
                    Err(error) => panic!("{error}"),
                }
            }
            match rows_from(&table, None, b"").await {
                Ok(got) => assert!(got.into_iter().eq(rows.clone())),
                Err(TableError::Corrupt { .. }) => whole = false,
                Err(error) => panic!("{error}"),
            }
            whole
        })
    }

    fn small_table() -> (Vec<u8>, TableMeta, Rows) {
        let rows = random_rows(&mut Rng::with_seed(8), 12);
        let world = World::new(1);
        let rt = world.boot(0, 1).remove(0);
        let path = Path::new("/t.sst");
        let mut policy = SMALL_BLOCKS;
        policy.keys_per_block_max = 7;
        let meta = world.run(&rt, write(&rt, path, 77, policy, &rows)).unwrap();
        (world.disk(0).read(path).unwrap(), meta, rows)
    }

    #[test]
    fn every_flipped_bit_is_refused_or_harmless() {
        let (bytes, meta, rows) = small_table();
        assert!(right_or_refused(&bytes, &meta, &rows));
        let footer_at = bytes.len() - FOOTER_BYTES;
        let footer = Footer::decode(&bytes[footer_at..], 77, meta.bytes).unwrap();
        let body = footer.props.end().unwrap() as usize;
        for pos in (0..body).chain(footer_at..bytes.len()) {
            // The footer is one checksum: a flip in its zeros is like a flip in its neighbour.
            if pos > footer_at + 100 && !pos.is_multiple_of(97) {
                continue;
            }
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[pos] ^= 1 << bit;
                assert!(!right_or_refused(&bad, &meta, &rows), "byte {pos}");
            }
        }
        let mut padding = bytes.clone();
        padding[body] ^= 1;
        assert!(right_or_refused(&padding, &meta, &rows), "nobody reads it");
    }

    #[test]
    fn every_truncation_and_foreign_file_is_refused() {
        let (bytes, meta, rows) = small_table();
        for len in 0..bytes.len() {
            assert!(!right_or_refused(&bytes[..len], &meta, &rows), "{len}");
            let shorter = TableMeta {
                bytes: len as u64,
                ..meta.clone()
            };
            assert!(!right_or_refused(&bytes[..len], &shorter, &rows), "{len}");
        }
        let other_id = TableMeta {
            id: 78,
            ..meta.clone()
        };
        let other_count = TableMeta {
            entries: meta.entries + 1,
            ..meta.clone()
        };
        let other_key = TableMeta {
            largest: b"zz".to_vec(),
            ..meta.clone()
        };
        for other in [other_id, other_count, other_key] {
            assert!(!right_or_refused(&bytes, &other, &rows), "{other:?}");
        }
    }

    #[test]
    fn a_block_in_the_wrong_place_is_refused() {
        let (bytes, meta, _) = small_table();
        let footer = Footer::decode(&bytes[bytes.len() - FOOTER_BYTES..], 77, meta.bytes).unwrap();
        let (_, index) = bytes.split_at(footer.index.offset as usize);
        let index = &index[..footer.index.bytes as usize];
        let payload = table::unseal(index, BlockType::Index, 77, footer.index.offset).unwrap();
        let index = SparseIndex::parse(payload, footer.index.offset).unwrap();
        let first = index.handle(0).unwrap();
        let end = first.bytes as usize;
        assert!(table::unseal(&bytes[..end], BlockType::Data, 77, 0).is_ok());
        for (kind, id, offset) in [
            (BlockType::Data, 78, 0),
            (BlockType::Data, 77, 4096),
            (BlockType::Index, 77, 0),
        ] {
            assert!(table::unseal(&bytes[..end], kind, id, offset).is_err());
        }
    }

    #[test]
    fn blocks_are_read_once_and_forgotten_when_told() {
        let (bytes, meta, rows) = small_table();
        let world = World::new(1);
        let rt = world.boot(0, 1).remove(0);
        let path = Path::new("/t.sst");
        world.disk(0).write(path, &bytes);
        let cache = Cache::new(1 << 20);
        world.run(&rt, async {
            let table = Table::open(&rt, path, 0, meta).await.unwrap();
            let key = rows.keys().next().unwrap();
            get(&table, &cache, key).await.unwrap();
            let reads = world.disk(0).ops();
            get(&table, &cache, key).await.unwrap();
            assert_eq!(world.disk(0).ops(), reads);
            assert_eq!(cache.stats(), (1, 1));
            table.erase_from(&cache);
            let probe = table.probe(&cache, key, KeyHash::of(key));
            assert!(matches!(probe, Probe::Load(_)));
        });
    }
}
