//! Pure. The sparse index of a table: for every data block the smallest separator, and how long the block is.
//!
//! ```text
//! payload = blocks u32, prefix_len varint, prefix, row *
//! row     = separator_len varint, separator, bytes varint, entries varint, tombstones varint
//! ```
//!
//! Blocks lie back to back from offset 0, so lengths tell the offsets. `prefix + separator` is greater than the
//! last key of the block before and at most the first key of its own block: the shortest such string. Block 0
//! takes everything below block 1, its separator is empty. `prefix` is what all the other separators have in
//! common; it is stored, and kept in memory, once. Entry by entry compression was rejected: a few bytes less on
//! disk, but a decoder whose memory is not bounded by the size of its input.

use super::block::{BuiltBlock, Corrupt, common_prefix};
use super::table::{BLOCK_TRAILER_BYTES, BlockHandle};
use crate::base::codec::{Cursor, put_prefixed, put_varint};
use crate::base::limits::STORED_KEY_BYTES_MAX;

/// A row is at least four varints of one byte.
const ROW_BYTES_MIN: usize = 4;

/// The pinned index of an open table. Compact arrays, no allocation per block.
pub struct SparseIndex {
    prefix: Box<[u8]>,
    /// Offset of each block and of the end of the last.
    offsets: Vec<u64>,
    /// Of the separators of blocks 1..: the first eight bytes, so that most of a search stays in this array.
    heads: Vec<u64>,
    /// Where each of those separators ends in `slab`.
    ends: Vec<u32>,
    slab: Vec<u8>,
    entries: u64,
    tombstones: u64,
}

impl SparseIndex {
    /// The index a payload spells; the blocks must fill the file exactly up to `data_end`.
    pub fn parse(payload: &[u8], data_end: u64) -> Result<SparseIndex, Corrupt> {
        let mut cursor = Cursor::new(payload);
        let blocks = cursor.u32()? as usize;
        let prefix = cursor.prefixed()?;
        if blocks == 0 || blocks > cursor.rest().len() / ROW_BYTES_MIN {
            return Err(Corrupt("the index cannot hold so many blocks"));
        }
        let mut index = SparseIndex {
            prefix: prefix.into(),
            offsets: Vec::with_capacity(blocks + 1),
            heads: Vec::with_capacity(blocks - 1),
            ends: Vec::with_capacity(blocks - 1),
            slab: Vec::new(),
            entries: 0,
            tombstones: 0,
        };
        index.offsets.push(0);
        let mut last = None;
        for block in 0..blocks {
            let separator = cursor.prefixed()?;
            index.push_block(&mut cursor, data_end)?;
            if block == 0 {
                continue;
            }
            if prefix.len() + separator.len() > STORED_KEY_BYTES_MAX
                || last.is_some_and(|l| l >= separator)
            {
                return Err(Corrupt("separators of the index do not ascend"));
            }
            last = Some(separator);
            index.heads.push(head(separator));
            index.slab.extend_from_slice(separator);
            let end = u32::try_from(index.slab.len()).map_err(|_| Corrupt("an index of 4 GiB"))?;
            index.ends.push(end);
        }
        if !cursor.is_empty() || index.offsets.last() != Some(&data_end) {
            return Err(Corrupt("the index does not cover the blocks"));
        }
        index.slab.shrink_to_fit();
        Ok(index)
    }

    fn push_block(&mut self, cursor: &mut Cursor<'_>, data_end: u64) -> Result<(), Corrupt> {
        let (bytes, entries, tombstones) = (cursor.varint()?, cursor.varint()?, cursor.varint()?);
        let start = self.offsets.last().copied().unwrap_or(0);
        let fits = bytes > BLOCK_TRAILER_BYTES as u64
            && bytes <= u64::from(u32::MAX)
            && bytes <= data_end.saturating_sub(start);
        if !fits || tombstones > entries || entries > bytes {
            return Err(Corrupt("a block of the index cannot be"));
        }
        self.offsets.push(start + bytes);
        self.entries += entries;
        self.tombstones += tombstones;
        Ok(())
    }

    /// Number of the only block that may hold `key`.
    #[must_use]
    pub fn find(&self, key: &[u8]) -> usize {
        let Some(rest) = key.strip_prefix(&*self.prefix) else {
            return if key < &*self.prefix {
                0
            } else {
                self.heads.len()
            };
        };
        let want = head(rest);
        let mut low = self.heads.partition_point(|&head| head < want);
        let ties = &self.heads[low..];
        let mut high = match ties.first() {
            Some(&head) if head == want => low + ties.partition_point(|&head| head == want),
            _ => return low, // the eight bytes decided: mostly so, and no separator was touched
        };
        while low < high {
            let middle = low + (high - low) / 2;
            if self.separator(middle) <= rest {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low // so many separators are at most `key`
    }

    /// Where block `number` lies; `None` behind the last.
    #[must_use]
    pub fn handle(&self, number: usize) -> Option<BlockHandle> {
        let (start, end) = (self.offsets.get(number)?, self.offsets.get(number + 1)?);
        Some(BlockHandle {
            offset: *start,
            bytes: (end - start) as u32,
        })
    }

    /// Offsets of all blocks.
    pub fn offsets(&self) -> impl Iterator<Item = u64> {
        let blocks = self.offsets.len() - 1;
        self.offsets.iter().copied().take(blocks)
    }

    /// (entries, tombstones) of all blocks.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.entries, self.tombstones)
    }

    /// Bytes the index keeps in memory.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        let arrays = 8 * (self.offsets.capacity() + self.heads.capacity());
        (arrays + 4 * self.ends.capacity() + self.slab.capacity() + self.prefix.len()) as u64
    }

    fn separator(&self, i: usize) -> &[u8] {
        let start = match i {
            0 => 0,
            _ => self.ends[i - 1] as usize,
        };
        self.slab
            .get(start..self.ends[i] as usize)
            .unwrap_or_default()
    }
}

/// The first eight bytes, padded with zeros: ordered like the strings, except that ties say nothing.
fn head(bytes: &[u8]) -> u64 {
    let mut head = [0; 8];
    let len = bytes.len().min(8);
    head[..len].copy_from_slice(&bytes[..len]);
    u64::from_be_bytes(head)
}

/// Gathers the rows of a table being written.
#[derive(Default)]
pub struct IndexBuilder {
    /// Ends of the separators in `separators`, and what is known of their blocks.
    rows: Vec<Row>,
    separators: Vec<u8>,
}

struct Row {
    separator_end: usize,
    bytes: u64,
    entries: u64,
    tombstones: u64,
}

impl IndexBuilder {
    /// The next block starts with `first_key`; the block before ended with `key_before`.
    pub fn open_block(&mut self, key_before: Option<&[u8]>, first_key: &[u8]) {
        if let Some(before) = key_before {
            let separator = &first_key[..=common_prefix(before, first_key)];
            self.separators.extend_from_slice(separator);
        }
        self.rows.push(Row {
            separator_end: self.separators.len(),
            bytes: 0,
            entries: 0,
            tombstones: 0,
        });
    }

    /// The block opened last is `bytes` long on disk.
    pub fn close_block(&mut self, block: &BuiltBlock, bytes: u64) {
        let row = self.rows.last_mut().expect("a block was opened");
        row.bytes = bytes;
        row.entries = block.entries as u64;
        row.tombstones = block.tombstones as u64;
    }

    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let blocks = u32::try_from(self.rows.len()).expect("a table has fewer than 2^32 blocks");
        out.extend_from_slice(&blocks.to_le_bytes());
        let prefix = match self.rows.len() {
            0 | 1 => 0,
            // Separators ascend: what the first and the last share, all share.
            rows => common_prefix(self.separator(1), self.separator(rows - 1)),
        };
        put_prefixed(out, &self.separator(1)[..prefix]);
        for (i, row) in self.rows.iter().enumerate() {
            put_prefixed(out, self.separator(i).get(prefix..).unwrap_or_default());
            put_varint(out, row.bytes);
            put_varint(out, row.entries);
            put_varint(out, row.tombstones);
        }
    }

    /// Separator of block `i`; empty for block 0 and behind the last.
    fn separator(&self, i: usize) -> &[u8] {
        match (self.rows.get(i.wrapping_sub(1)), self.rows.get(i)) {
            (Some(before), Some(row)) => &self.separators[before.separator_end..row.separator_end],
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;
    use crate::store::table_write::fixture::random_rows;

    const BLOCK_BYTES: u64 = 100;

    /// An index of blocks that hold these keys.
    fn build(blocks: &[Vec<Vec<u8>>]) -> Vec<u8> {
        let mut builder = IndexBuilder::default();
        let mut before: Option<&[u8]> = None;
        for keys in blocks {
            builder.open_block(before, &keys[0]);
            let block = BuiltBlock {
                payload: Vec::new(),
                entries: keys.len(),
                tombstones: 1,
            };
            builder.close_block(&block, BLOCK_BYTES);
            before = keys.last().map(Vec::as_slice);
        }
        let mut out = Vec::new();
        builder.encode(&mut out);
        out
    }

    #[test]
    fn every_key_is_sent_to_its_block() {
        for seed in 0..300 {
            let mut rng = Rng::with_seed(seed);
            let count = rng.usize(1..200);
            let keys: Vec<Vec<u8>> = random_rows(&mut rng, count).into_keys().collect();
            let size = rng.usize(1..9);
            let blocks: Vec<Vec<Vec<u8>>> = keys.chunks(size).map(<[_]>::to_vec).collect();
            let data_end = BLOCK_BYTES * blocks.len() as u64;
            let index = SparseIndex::parse(&build(&blocks), data_end).unwrap();
            assert_eq!(index.counts(), (keys.len() as u64, blocks.len() as u64));
            for (number, keys) in blocks.iter().enumerate() {
                let handle = index.handle(number).unwrap();
                assert_eq!(handle.offset, number as u64 * BLOCK_BYTES);
                for key in keys {
                    assert_eq!(index.find(key), number, "SEED={seed} {key:?}");
                }
            }
            // An absent key must be sent where its successor is, or to the block before that.
            for key in random_rows(&mut rng, 50).into_keys() {
                let number = index.find(&key);
                let above = blocks.iter().position(|keys| keys.last() >= Some(&key));
                let above = above.unwrap_or(blocks.len());
                assert!(
                    number == above || number + 1 == above,
                    "SEED={seed} {key:?}"
                );
            }
            assert!(index.handle(blocks.len()).is_none());
            assert_eq!(index.offsets().count(), blocks.len());
        }
    }

    #[test]
    fn separators_are_short_and_their_common_prefix_is_kept_once() {
        let blocks = [
            ["user:0001x", "user:0002x"],
            ["user:0100y", "user:0101y"],
            ["user:0200", "user:0201"],
        ]
        .map(|keys| keys.map(|key| key.as_bytes().to_vec()).to_vec());
        let out = build(&blocks);
        let mut want = vec![3, 0, 0, 0, 6];
        want.extend_from_slice(b"user:0");
        want.extend_from_slice(&[0, 100, 2, 1, 1, b'1', 100, 2, 1, 1, b'2', 100, 2, 1]);
        assert_eq!(out, want);
        assert!(SparseIndex::parse(&out, 300).unwrap().memory_bytes() < 200);
    }

    #[test]
    fn damage_is_refused_or_survived() {
        for seed in 0..20_000 {
            let mut rng = Rng::with_seed(seed);
            let keys = random_rows(&mut rng, 10).into_keys();
            let blocks: Vec<Vec<Vec<u8>>> = keys.map(|key| vec![key]).collect();
            let data_end = BLOCK_BYTES * blocks.len() as u64;
            let good = build(&blocks);
            let mut bad = good.clone();
            let at = rng.usize(..bad.len());
            bad[at] = rng.u8(..);
            if let Ok(index) = SparseIndex::parse(&bad, data_end) {
                let number = index.find(b"user:a");
                let handle = index.handle(number).expect("every key has a block");
                assert!(handle.end().unwrap() <= data_end, "SEED={seed}");
            }
            let cut = rng.usize(..good.len());
            assert!(
                SparseIndex::parse(&good[..cut], data_end).is_err(),
                "SEED={seed}"
            );
            assert!(SparseIndex::parse(&good, data_end + 1).is_err());
        }
    }
}
