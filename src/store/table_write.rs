//! Writes a table: sorted entries in, a complete synced file out.
//!
//! ```text
//! add ─▶ block being built ─cut─▶ extent being filled ─full─▶ waiting extents ─drain─▶ file
//!             │ one row per block         256 KiB, page-aligned                  one sync, in `finish`
//!             ▼
//!        index rows, hashes of all keys (the filter is sized when their number is known)
//! ```
//!
//! `add` only copies bytes, so a merge can call it in a loop without suspending; whoever calls it awaits
//! `drain` when `is_full` says so. A block is cut before the entry that would make it too large, so a value
//! larger than a block lies alone in its own.
//!
//! What it does not do: rename the file, sync its directory or tell the manifest; remove the file after an error
//! or when dropped unfinished. All of that is the caller's, who knows what the table is for.

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use super::format::block::BlockBuilder;
use super::format::bloom::{BloomSize, Filter};
use super::format::edit::TableMeta;
use super::format::index::IndexBuilder;
use super::format::table::{self, BlockHandle, BlockType, FOOTER_BYTES, Footer};
use crate::base::hash::KeyHash;
use crate::base::limits::DISK_PAGE_BYTES;
use crate::base::record::Entry;
use crate::base::version::Version;
use crate::rt::Rt;
use crate::rt::file::{Buf, File, Mode};

/// How a table is laid out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TablePolicy {
    /// SPARSE_INDEX_INTERVAL: most entries of a block, at least one.
    pub keys_per_block_max: usize,
    /// Most bytes of a block with more than one entry.
    pub block_bytes_max: usize,
    pub bloom: BloomSize,
}

/// A table being written.
pub(crate) struct TableWriter {
    rt: Rt,
    policy: TablePolicy,
    block: BlockBuilder,
    index: IndexBuilder,
    hashes: Vec<KeyHash>,
    out: Extents,
    meta: TableMeta,
}

/// Keys put into the filter between two yields: some 100 µs.
const FILTER_SLICE_KEYS: usize = 8192;

impl TableWriter {
    /// Creates the file; an existing one is truncated.
    pub(crate) async fn create(
        rt: &Rt,
        path: &Path,
        id: u64,
        policy: TablePolicy,
    ) -> io::Result<TableWriter> {
        let file = rt.open(path, Mode::Create).await?;
        Ok(TableWriter {
            rt: rt.clone(),
            policy,
            block: BlockBuilder::default(),
            index: IndexBuilder::default(),
            hashes: Vec::new(),
            out: Extents::new(file),
            meta: TableMeta {
                id,
                bytes: 0,
                smallest: Vec::new(),
                largest: Vec::new(),
                entries: 0,
                tombstones: 0,
                min_version: Version::ZERO,
                max_version: Version::ZERO,
            },
        })
    }

    /// Adds an entry. Keys strictly ascend (panics otherwise). `late`: storage.md section 3.
    pub(crate) fn add(&mut self, key: &[u8], hash: KeyHash, entry: Entry<'_>, late: bool) {
        if self.block.entries() >= self.policy.keys_per_block_max
            || self.block.bytes_with(key, &entry) > self.policy.block_bytes_max
        {
            self.cut_block();
        }
        if self.block.entries() == 0 {
            self.index.open_block(self.block.last_key(), key);
        }
        self.block.add(key, entry, late);
        self.hashes.push(hash);
        let meta = &mut self.meta;
        if meta.entries == 0 {
            meta.smallest = key.to_vec();
            meta.min_version = entry.version;
        }
        meta.entries += 1;
        meta.tombstones += u64::from(entry.value().is_none());
        meta.min_version = meta.min_version.min(entry.version);
        meta.max_version = meta.max_version.max(entry.version);
    }

    /// Whole extents wait: `drain` should be awaited before adding more.
    pub(crate) fn is_full(&self) -> bool {
        !self.out.waiting.is_empty()
    }

    /// Writes the whole extents. After an error the file is worthless: drop the writer, remove the file.
    pub(crate) async fn drain(&mut self) -> io::Result<()> {
        self.out.drain().await
    }

    /// Bytes of all blocks so far; index and filter come on top at the end.
    pub(crate) fn bytes(&self) -> u64 {
        self.out.end + self.block.bytes() as u64
    }

    /// Writes the rest and syncs the file. At least one entry must have been added (panics otherwise).
    pub(crate) async fn finish(mut self) -> io::Result<TableMeta> {
        self.cut_block();
        let last = self.block.last_key();
        self.meta.largest = last.expect("a table has an entry").to_vec();
        let mut payload = Vec::new();
        self.index.encode(&mut payload);
        let index = self.append(payload, BlockType::Index);
        let payload = self.filter().await;
        let filter = self.append(payload, BlockType::Filter);
        let mut payload = Vec::new();
        table::encode_props(&self.meta, &mut payload);
        let props = self.append(payload, BlockType::Props);
        self.out.pad_to_page();
        self.meta.bytes = self.out.end + FOOTER_BYTES as u64;
        let footer = Footer {
            table: self.meta.id,
            file_bytes: self.meta.bytes,
            index,
            filter,
            props,
        };
        self.out.append(&footer.encode());
        self.out.close_extent();
        self.out.drain().await?;
        self.out.file.sync().await?;
        Ok(self.meta)
    }

    async fn filter(&self) -> Vec<u8> {
        let mut filter = Filter::new(self.policy.bloom, self.hashes.len());
        for slice in self.hashes.chunks(FILTER_SLICE_KEYS) {
            for &hash in slice {
                filter.insert(hash);
            }
            self.rt.yield_now().await;
        }
        let mut payload = Vec::new();
        filter.encode(&mut payload);
        payload
    }

    fn cut_block(&mut self) {
        if self.block.entries() == 0 {
            return;
        }
        let mut block = self.block.finish();
        let offset = self.out.end;
        table::seal(&mut block.payload, BlockType::Data, self.meta.id, offset);
        self.index.close_block(&block, block.payload.len() as u64);
        self.out.append(&block.payload);
        self.block.recycle(block.payload);
    }

    fn append(&mut self, mut payload: Vec<u8>, kind: BlockType) -> BlockHandle {
        let offset = self.out.end;
        table::seal(&mut payload, kind, self.meta.id, offset);
        self.out.append(&payload);
        BlockHandle {
            offset,
            bytes: u32::try_from(payload.len()).expect("seal saw its length"),
        }
    }
}

/// A stream of bytes on its way to a file in writes of whole extents.
struct Extents {
    file: File,
    waiting: VecDeque<Buf>,
    filling: Option<Buf>,
    filled: usize,
    /// Bytes appended.
    end: u64,
    /// Bytes handed to the file.
    written: u64,
}

const EXTENT_BYTES: usize = 256 << 10;

impl Extents {
    fn new(file: File) -> Extents {
        Extents {
            file,
            waiting: VecDeque::new(),
            filling: None,
            filled: 0,
            end: 0,
            written: 0,
        }
    }

    fn append(&mut self, mut bytes: &[u8]) {
        self.end += bytes.len() as u64;
        while !bytes.is_empty() {
            let buf = self
                .filling
                .get_or_insert_with(|| self.file.alloc(EXTENT_BYTES));
            let (now, later) = bytes.split_at(bytes.len().min(EXTENT_BYTES - self.filled));
            buf[self.filled..self.filled + now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = later;
            if self.filled == EXTENT_BYTES {
                self.waiting.extend(self.filling.take());
                self.filled = 0;
            }
        }
    }

    fn pad_to_page(&mut self) {
        let pad = self.end.next_multiple_of(DISK_PAGE_BYTES as u64) - self.end;
        self.append(&[0; DISK_PAGE_BYTES][..pad as usize]);
    }

    /// Lets the last extent wait too, cut to what is in it, which must be whole pages.
    fn close_extent(&mut self) {
        if let Some(buf) = self.filling.take() {
            let mut last = self.file.alloc(self.filled);
            last.copy_from_slice(&buf[..self.filled]);
            self.waiting.push_back(last);
            self.filled = 0;
        }
    }

    async fn drain(&mut self) -> io::Result<()> {
        while let Some(buf) = self.waiting.pop_front() {
            let pos = self.written;
            self.written += buf.len() as u64;
            self.file.write_at(buf, pos).await?;
        }
        Ok(())
    }
}

/// Tables for the tests of those who read them.
#[cfg(test)]
pub(super) mod fixture {
    use std::collections::BTreeMap;

    use fastrand::Rng;

    use super::*;
    use crate::base::record::{OwnedEntry, OwnedState};
    use crate::base::version::Version;

    /// What a table should say: key -> entry, late.
    pub(crate) type Rows = BTreeMap<Vec<u8>, (OwnedEntry, bool)>;

    pub(crate) const SMALL_BLOCKS: TablePolicy = TablePolicy {
        keys_per_block_max: 20,
        block_bytes_max: 512,
        bloom: BloomSize::new(10),
    };

    /// Writes `rows` the way a flush does.
    pub(crate) async fn write(
        rt: &Rt,
        path: &Path,
        id: u64,
        policy: TablePolicy,
        rows: &Rows,
    ) -> io::Result<TableMeta> {
        let mut writer = TableWriter::create(rt, path, id, policy).await?;
        for (key, (entry, late)) in rows {
            writer.add(key, KeyHash::of(key), entry.as_entry(), *late);
            if writer.is_full() {
                writer.drain().await?;
            }
        }
        writer.finish().await
    }

    /// Keys with long common prefixes, keys that are prefixes of each other, tombstones, values of all sizes.
    pub(crate) fn random_rows(rng: &mut Rng, count: usize) -> Rows {
        let prefix = [&b""[..], b"user:", b"a/rather/long/prefix/of/every/key/"][rng.usize(..3)];
        (0..count)
            .map(|_| {
                let mut key = prefix.to_vec();
                for _ in 0..rng.usize(0..6) {
                    key.push(*rng.choice(b"\x00ab\xff").expect("not empty"));
                }
                (key, (random_entry(rng), rng.bool()))
            })
            .collect()
    }

    fn random_entry(rng: &mut Rng) -> OwnedEntry {
        let state = match rng.u8(..8) {
            0 => OwnedState::Deleted,
            size => {
                let len = match size {
                    1 => 0,
                    2 => rng.usize(..2000),
                    _ => rng.usize(..40),
                };
                OwnedState::Live {
                    value: (0..len).map(|_| rng.u8(..)).collect(),
                    text: rng.bool(),
                }
            }
        };
        let hlc = match rng.u8(..4) {
            0 => rng.u64(..),
            _ => (1 << 58) + rng.u64(..1 << 24),
        };
        let origin = if rng.u8(..3) == 0 { rng.u32(..) } else { 7 };
        OwnedEntry {
            version: Version { hlc, origin },
            state,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::fixture::{Rows, SMALL_BLOCKS, write};
    use super::*;
    use crate::base::record::State;
    use crate::rt::sim::World;
    use crate::rt::sim::disk::Fault;
    use crate::store::format::golden;

    fn put(writer: &mut TableWriter, key: &[u8], value: &[u8]) {
        let version = Version { hlc: 9, origin: 1 };
        let state = State::Live { value, text: false };
        let entry = Entry { version, state };
        writer.add(key, KeyHash::of(key), entry, false);
    }

    #[test]
    fn golden_bytes() {
        let world = World::new(3);
        let rt = world.boot(0, 1).remove(0);
        let path = Path::new("/t.sst");
        let row = |key: &[u8], hlc, origin, value: Option<&[u8]>, text, late| {
            let state = value.map_or(State::Deleted, |value| State::Live { value, text });
            let version = Version { hlc, origin };
            (key.to_vec(), (Entry { version, state }.to_owned(), late))
        };
        let rows = Rows::from_iter([
            row(b"apple", 258, 7, Some(b"red"), true, false),
            row(b"apricot", 300, 7, None, false, true),
            row(b"banana", 200, 9, Some(b"\xff\x00"), false, false),
        ]);
        let mut policy = SMALL_BLOCKS;
        policy.keys_per_block_max = 2;
        let meta = world.run(&rt, write(&rt, path, 77, policy, &rows)).unwrap();
        let bytes = world.disk(0).read(path).unwrap();
        assert_eq!((bytes.len(), meta.bytes), (8192, 8192));
        let golden = golden::bytes(include_str!("../../tests/golden/format/table.txt"));
        let (golden, crc) = golden.split_last_chunk::<4>().unwrap();
        let (body, footer) = golden.split_at(golden.len() - 68);
        let mut want = body.to_vec();
        want.resize(4096, 0);
        want.extend_from_slice(footer);
        want.resize(8188, 0);
        want.extend_from_slice(crc);
        assert!(bytes == want, "the format of tables changed");
    }

    #[test]
    fn whole_extents_wait_and_a_finished_file_is_durable() {
        let world = World::new(3);
        let rt = world.boot(0, 1).remove(0);
        let path = PathBuf::from("/t.sst");
        let meta = world.run(&rt, async {
            let mut writer = TableWriter::create(&rt, &path, 5, SMALL_BLOCKS)
                .await
                .unwrap();
            put(&mut writer, b"a", &[1; EXTENT_BYTES - 100]);
            assert!(!writer.is_full(), "the block is not cut yet");
            put(&mut writer, b"b", &[2; 3 * EXTENT_BYTES]);
            put(&mut writer, b"c", b"small");
            assert!(writer.is_full());
            assert!(writer.bytes() > 4 * EXTENT_BYTES as u64 - 100);
            writer.drain().await.unwrap();
            assert!(!writer.is_full());
            let meta = writer.finish().await.unwrap();
            rt.sync_dir(Path::new("/")).await.unwrap();
            meta
        });
        let durable = world.disk(0).read_durable(&path).unwrap();
        assert_eq!(durable.len() as u64, meta.bytes);
        assert_eq!(
            (meta.id, meta.entries, meta.smallest, meta.largest),
            (5, 3, b"a".to_vec(), b"c".to_vec())
        );
    }

    #[test]
    #[should_panic(expected = "keys of a table must ascend")]
    fn keys_out_of_order_are_a_bug_not_a_table() {
        let world = World::new(3);
        let rt = world.boot(0, 1).remove(0);
        world.run(&rt, async {
            let path = Path::new("/t.sst");
            let writer = TableWriter::create(&rt, path, 5, SMALL_BLOCKS).await;
            let mut writer = writer.unwrap();
            put(&mut writer, b"b", b"");
            put(&mut writer, b"a", b"");
        });
    }

    #[test]
    fn every_failing_operation_is_reported() {
        let rows: Rows = fixture::random_rows(&mut fastrand::Rng::with_seed(4), 3000);
        let mut failed = 0;
        for op in 0.. {
            let world = World::new(9);
            let rt = world.boot(0, 1).remove(0);
            world.disk(0).fail_at(op, Fault::Io);
            let path = Path::new("/t.sst");
            let result = world.run(&rt, write(&rt, path, 1, SMALL_BLOCKS, &rows));
            if world.disk(0).ops() <= op {
                assert!(result.is_ok());
                break;
            }
            assert!(result.is_err(), "operation {op} failed in silence");
            failed += 1;
        }
        assert!(failed >= 3, "open, write and sync were never hit: {failed}");
    }
}
