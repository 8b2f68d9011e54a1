//! Pure. A data block: sorted entries, prefix-compressed, with restart points for binary search.
//!
//! ```text
//! payload = base_hlc u64, base_origin u32,
//!           entry*,
//!           restart u32 *          offset in the payload of every 16th entry, from entry 0
//!           restarts u32           how many, at least one
//! entry   = shared varint          bytes of the key taken from the key before; 0 at a restart point
//!           unshared varint, value_len varint,
//!           meta u8                1 VALUE (else a tombstone), 2 TEXT, 4 LATE, 8 ORIGIN
//!           hlc varint             zigzag(hlc - base_hlc), wrapping
//!           [origin varint]        when it differs from base_origin
//!           unshared bytes of the key, value
//!
//! key "b", value "1", text, hlc 258 = base, origin 7 = base:
//!   0201000000000000 07000000   00 01 01 03 00 62 31   0c000000 01000000
//! ```
//!
//! Invariants: keys strictly ascend; between restart points `shared` is as long as it can be ([`Block::get`]
//! relies on it to skip entries without building their keys). A checksum has already vouched for the bytes
//! (format/table.rs), yet every length is checked again: a wrong writer must not become a wild read.

use std::ops::Range;
use std::rc::Rc;

use crate::base::codec::{Cursor, Short, put_varint};
use crate::base::limits::STORED_KEY_BYTES_MAX;
use crate::base::record::{Entry, State};
use crate::base::version::Version;

/// Bytes that are not what they should be. The caller says which file and where, and never "not found".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt(pub &'static str);

impl From<Short> for Corrupt {
    fn from(_: Short) -> Corrupt {
        Corrupt("bytes end too early")
    }
}

/// A block in memory.
#[derive(Debug)]
pub struct Block {
    payload: Box<[u8]>,
    base: Version,
    restarts: usize,
}

/// What a block says about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    pub entry: Entry<'a>,
    /// An older source may hold a newer version: the record was written after a newer one had been sealed.
    pub late: bool,
}

/// Entries per restart point.
const RESTART_INTERVAL: usize = 16;
const PROLOGUE_BYTES: usize = 12;
/// Most bytes of an entry besides key and value, its share of a restart point included.
const ENTRY_OVERHEAD_MAX: usize = 40;

const VALUE: u8 = 1;
const TEXT: u8 = 2;
const LATE: u8 = 4;
const ORIGIN: u8 = 8;

impl Block {
    /// Copies `payload` after checking its frame.
    pub fn parse(payload: &[u8]) -> Result<Block, Corrupt> {
        let mut cursor = Cursor::new(payload);
        let base = Version {
            hlc: cursor.u64()?,
            origin: cursor.u32()?,
        };
        let (_, count) = payload.split_last_chunk::<4>().ok_or(Short)?;
        let restarts = u32::from_le_bytes(*count) as usize;
        let block = Block {
            payload: payload.into(),
            base,
            restarts,
        };
        let table = restarts.checked_mul(4).and_then(|n| n.checked_add(4));
        let room = payload.len() - PROLOGUE_BYTES;
        if restarts == 0 || table.is_none_or(|table| table >= room) {
            return Err(Corrupt("restart points do not fit the block"));
        }
        if block.restart(0) != PROLOGUE_BYTES {
            return Err(Corrupt("the first restart point is not the first entry"));
        }
        let ascend = (1..restarts).all(|i| block.restart(i - 1) < block.restart(i));
        if !ascend || block.restart(restarts - 1) >= block.entries_end() {
            return Err(Corrupt("restart points do not ascend"));
        }
        Ok(block)
    }

    /// What the block says about `key`; `None`: nothing.
    pub fn get(&self, key: &[u8]) -> Result<Option<Found<'_>>, Corrupt> {
        let Some(restart) = self.restart_before(key)? else {
            return Ok(None);
        };
        let mut cursor = Cursor::new(self.entries_from(self.restart(restart)));
        // The entry before is smaller than `key` and has this many leading bytes in common with it.
        let mut matched = 0;
        let mut key_before_len = 0;
        while !cursor.is_empty() {
            let raw = Raw::read(&mut cursor)?;
            if raw.shared > key_before_len {
                return Err(Corrupt("an entry shares more than the key before it has"));
            }
            key_before_len = raw.shared + raw.suffix.len();
            if raw.shared > matched {
                continue; // it differs from `key` where the entry before did: still smaller
            }
            if raw.shared < matched {
                return Ok(None); // it grew at a byte the entry before had in common with `key`
            }
            let wanted = key.get(matched..).unwrap_or_default();
            let common = common_prefix(raw.suffix, wanted);
            match (raw.suffix.get(common), wanted.get(common)) {
                (None, None) => return raw.found(self.base).map(Some),
                (Some(have), Some(want)) if have > want => return Ok(None),
                (Some(_), None) => return Ok(None),
                _ => matched += common,
            }
        }
        Ok(None)
    }

    /// Bytes this block keeps in memory.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        (self.payload.len() + size_of::<Block>() + 2 * size_of::<usize>()) as u64
    }

    /// Offset of the last restart point whose key is not above `key`.
    fn restart_before(&self, key: &[u8]) -> Result<Option<usize>, Corrupt> {
        let (mut low, mut high) = (0, self.restarts);
        while low < high {
            let middle = low + (high - low) / 2;
            let raw = Raw::read(&mut Cursor::new(self.entries_from(self.restart(middle))))?;
            if raw.shared != 0 {
                return Err(Corrupt("a restart point shares bytes"));
            }
            if raw.suffix <= key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low.checked_sub(1))
    }

    /// Offset of restart point `i`, which must be below `restarts`.
    fn restart(&self, i: usize) -> usize {
        let at = self.entries_end() + 4 * i;
        let bytes = self.payload.get(at..).and_then(<[u8]>::first_chunk::<4>);
        u32::from_le_bytes(*bytes.expect("parse saw the table of restart points")) as usize
    }

    fn entries_end(&self) -> usize {
        self.payload.len() - 4 - 4 * self.restarts
    }

    fn entries_from(&self, offset: usize) -> &[u8] {
        self.payload
            .get(offset..self.entries_end())
            .unwrap_or_default()
    }
}

/// Bytes `a` and `b` have in common from the front.
pub fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// An entry as it lies in the block.
struct Raw<'a> {
    shared: usize,
    suffix: &'a [u8],
    value: &'a [u8],
    meta: u8,
    /// Decoded only for the one entry a lookup wants.
    version: Cursor<'a>,
}

impl<'a> Raw<'a> {
    #[inline]
    fn read(cursor: &mut Cursor<'a>) -> Result<Raw<'a>, Corrupt> {
        let shared = small(cursor)?;
        let unshared = small(cursor)?;
        let value_len = small(cursor)?;
        if shared > STORED_KEY_BYTES_MAX || unshared > STORED_KEY_BYTES_MAX - shared {
            return Err(Corrupt("a key is longer than keys may be"));
        }
        let meta = cursor.u8()?;
        let version = cursor.clone();
        cursor.skip_varint()?;
        if meta & ORIGIN != 0 {
            cursor.skip_varint()?;
        }
        Ok(Raw {
            shared,
            suffix: cursor.bytes(unshared)?,
            value: cursor.bytes(value_len)?,
            meta,
            version,
        })
    }

    #[inline]
    fn found(&self, base: Version) -> Result<Found<'a>, Corrupt> {
        let state = match self.meta & (VALUE | TEXT) {
            0 if self.value.is_empty() => State::Deleted,
            kind if kind & VALUE != 0 => State::Live {
                value: self.value,
                text: kind & TEXT != 0,
            },
            _ => return Err(Corrupt("a tombstone with a value")),
        };
        if self.meta & !(VALUE | TEXT | LATE | ORIGIN) != 0 {
            return Err(Corrupt("unknown bits in an entry"));
        }
        let mut version = self.version.clone();
        let zigzag = version.varint()?;
        let delta = (zigzag >> 1) ^ (zigzag & 1).wrapping_neg();
        let origin = match self.meta & ORIGIN {
            0 => base.origin,
            _ => u32::try_from(version.varint()?).map_err(|_| Corrupt("an origin too large"))?,
        };
        let version = Version {
            hlc: base.hlc.wrapping_add(delta),
            origin,
        };
        Ok(Found {
            entry: Entry { version, state },
            late: self.meta & LATE != 0,
        })
    }
}

#[inline]
fn small(cursor: &mut Cursor<'_>) -> Result<usize, Corrupt> {
    usize::try_from(cursor.varint()?).map_err(|_| Corrupt("a length beyond memory"))
}

/// A place in a block. Before the first entry until `step` or `seek` said true.
#[derive(Debug)]
pub struct BlockCursor {
    block: Rc<Block>,
    key: Vec<u8>,
    here: Option<Here>,
    /// Offset of the entry after the one at hand.
    next: usize,
}

/// The entry at hand, decoded once: a merge looks at it many times.
#[derive(Debug)]
struct Here {
    version: Version,
    /// `None`: a tombstone.
    value: Option<Range<usize>>,
    text: bool,
    late: bool,
}

impl BlockCursor {
    #[must_use]
    pub fn new(block: Rc<Block>) -> BlockCursor {
        BlockCursor {
            block,
            key: Vec::new(),
            here: None,
            next: PROLOGUE_BYTES,
        }
    }

    /// Starts over before the first entry of another block.
    pub fn enter(&mut self, block: Rc<Block>) {
        self.block = block;
        self.rewind(PROLOGUE_BYTES);
    }

    /// Goes to the first entry whose key is at least `key`. False: there is none, the cursor is at the end.
    pub fn seek(&mut self, key: &[u8]) -> Result<bool, Corrupt> {
        let restart = self.block.restart_before(key)?.unwrap_or(0);
        self.rewind(self.block.restart(restart));
        while self.step()? {
            if self.key.as_slice() >= key {
                return Ok(true);
            }
        }
        self.here = None;
        Ok(false)
    }

    /// Goes to the next entry. False: there is none and nothing moved.
    pub fn step(&mut self) -> Result<bool, Corrupt> {
        let rest = self.block.entries_from(self.next);
        if rest.is_empty() {
            return Ok(false);
        }
        let mut cursor = Cursor::new(rest);
        let raw = Raw::read(&mut cursor)?;
        if !self.ascends(&raw) {
            return Err(Corrupt("keys of a block do not ascend"));
        }
        let found = raw.found(self.block.base)?;
        self.next = self.block.entries_end() - cursor.rest().len();
        let (value, text) = match found.entry.state {
            State::Deleted => (None, false),
            State::Live { value, text } => (Some(self.next - value.len()..self.next), text),
        };
        self.here = Some(Here {
            version: found.entry.version,
            value,
            text,
            late: found.late,
        });
        self.key.truncate(raw.shared);
        self.key.extend_from_slice(raw.suffix);
        Ok(true)
    }

    /// Key and entry at hand.
    #[must_use]
    pub fn head(&self) -> Option<(&[u8], Found<'_>)> {
        let here = self.here.as_ref()?;
        let state = match here.value.clone() {
            None => State::Deleted,
            Some(range) => State::Live {
                value: self.block.payload.get(range).unwrap_or_default(),
                text: here.text,
            },
        };
        let entry = Entry {
            version: here.version,
            state,
        };
        let late = here.late;
        Some((&self.key, Found { entry, late }))
    }

    /// One byte tells both that the key is greater and, off restart points, that `shared` is as long as can be.
    fn ascends(&self, raw: &Raw<'_>) -> bool {
        match (self.key.get(raw.shared), raw.suffix.first()) {
            (_, None) => self.here.is_none() && raw.shared == 0,
            (None, Some(_)) => raw.shared == self.key.len(),
            (Some(_), Some(_)) if raw.shared == 0 => raw.suffix > self.key.as_slice(),
            (Some(before), Some(after)) => before < after,
        }
    }

    fn rewind(&mut self, offset: usize) {
        self.key.clear();
        self.here = None;
        self.next = offset;
    }
}

/// Builds one block after another; keys ascend strictly across all of them.
#[derive(Debug, Default)]
pub struct BlockBuilder {
    payload: Vec<u8>,
    base: Version,
    restarts: Vec<u32>,
    entries: usize,
    tombstones: usize,
    last_key: Option<Vec<u8>>,
}

impl BlockBuilder {
    /// Appends an entry. Panics when `key` is not greater than the one before: a table out of order would
    /// answer wrongly for ever.
    pub fn add(&mut self, key: &[u8], entry: Entry<'_>, late: bool) {
        assert!(
            key.len() <= STORED_KEY_BYTES_MAX,
            "nobody writes such a key"
        );
        let common = match &self.last_key {
            None => 0,
            Some(last) => {
                let common = common_prefix(last, key);
                let ascends = last.get(common) < key.get(common) && common < key.len();
                assert!(ascends, "keys of a table must ascend");
                common
            }
        };
        if self.entries == 0 {
            self.base = entry.version;
            self.payload.extend_from_slice(&self.base.hlc.to_le_bytes());
            self.payload
                .extend_from_slice(&self.base.origin.to_le_bytes());
        }
        let shared = if self.entries.is_multiple_of(RESTART_INTERVAL) {
            let offset = u32::try_from(self.payload.len());
            self.restarts
                .push(offset.expect("blocks are cut long before"));
            0
        } else {
            common
        };
        self.put(key, shared, entry, late);
        let last = self.last_key.get_or_insert_default();
        last.truncate(common);
        last.extend_from_slice(&key[common..]);
    }

    fn put(&mut self, key: &[u8], shared: usize, entry: Entry<'_>, late: bool) {
        let suffix = &key[shared..];
        let (mut meta, value) = match entry.state {
            State::Deleted => (0, &[][..]),
            State::Live { value, text: false } => (VALUE, value),
            State::Live { value, text: true } => (VALUE | TEXT, value),
        };
        if late {
            meta |= LATE;
        }
        if entry.version.origin != self.base.origin {
            meta |= ORIGIN;
        }
        let delta = entry.version.hlc.wrapping_sub(self.base.hlc);
        put_varint(&mut self.payload, shared as u64);
        put_varint(&mut self.payload, suffix.len() as u64);
        put_varint(&mut self.payload, value.len() as u64);
        self.payload.push(meta);
        put_varint(
            &mut self.payload,
            (delta << 1) ^ (delta >> 63).wrapping_neg(),
        );
        if meta & ORIGIN != 0 {
            put_varint(&mut self.payload, u64::from(entry.version.origin));
        }
        self.payload.extend_from_slice(suffix);
        self.payload.extend_from_slice(value);
        self.entries += 1;
        self.tombstones += usize::from(meta & VALUE == 0);
    }

    /// Ends the block and gives out its payload; the next `add` starts another. Must not be empty.
    pub fn finish(&mut self) -> BuiltBlock {
        assert!(self.entries > 0, "an empty block has no first key");
        for restart in self.restarts.drain(..) {
            self.payload.extend_from_slice(&restart.to_le_bytes());
        }
        let restarts = self.entries.div_ceil(RESTART_INTERVAL) as u32;
        self.payload.extend_from_slice(&restarts.to_le_bytes());
        BuiltBlock {
            payload: std::mem::take(&mut self.payload),
            entries: std::mem::take(&mut self.entries),
            tombstones: std::mem::take(&mut self.tombstones),
        }
    }

    /// Hands the memory of a finished block back.
    pub fn recycle(&mut self, mut payload: Vec<u8>) {
        if self.payload.capacity() < payload.capacity() && self.entries == 0 {
            payload.clear();
            self.payload = payload;
        }
    }

    /// Entries of the block so far.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Bytes the payload would not exceed with this entry added.
    #[must_use]
    pub fn bytes_with(&self, key: &[u8], entry: &Entry<'_>) -> usize {
        let value_len = entry.value().map_or(0, <[u8]>::len);
        self.bytes() + ENTRY_OVERHEAD_MAX + key.len() + value_len
    }

    /// Bytes of the payload, its end included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.payload.len() + 4 * self.restarts.len() + 4
    }

    /// The key added last, if any, be it to an earlier block.
    #[must_use]
    pub fn last_key(&self) -> Option<&[u8]> {
        self.last_key.as_deref()
    }
}

/// A finished block.
#[derive(Debug)]
pub struct BuiltBlock {
    pub payload: Vec<u8>,
    pub entries: usize,
    pub tombstones: usize,
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;
    use crate::store::format::golden;
    use crate::store::table_write::fixture::{Rows, random_rows};

    fn entry(hlc: u64, origin: u32, value: Option<&[u8]>, text: bool) -> Entry<'_> {
        Entry {
            version: Version { hlc, origin },
            state: match value {
                None => State::Deleted,
                Some(value) => State::Live { value, text },
            },
        }
    }

    fn build(rows: &Rows) -> BuiltBlock {
        let mut builder = BlockBuilder::default();
        for (key, (entry, late)) in rows {
            let bound = builder.bytes_with(key, &entry.as_entry());
            builder.add(key, entry.as_entry(), *late);
            assert!(builder.bytes() <= bound);
        }
        let bytes = builder.bytes();
        let block = builder.finish();
        assert_eq!(block.payload.len(), bytes);
        block
    }

    #[test]
    fn golden_bytes() {
        let mut builder = BlockBuilder::default();
        builder.add(b"a", entry(258, 7, Some(b"1"), true), false);
        builder.add(b"ab", entry(300, 7, None, false), true);
        builder.add(b"ac", entry(200, 9, Some(b"\xff\x00"), false), false);
        for i in 0..14 {
            let key = format!("b{i:02}");
            builder.add(key.as_bytes(), entry(258 + i, 7, Some(b"v"), true), false);
        }
        let built = builder.finish();
        let want = golden::bytes(include_str!("../../../tests/golden/format/block.txt"));
        assert_eq!(built.payload, want);
        assert_eq!((built.entries, built.tombstones), (17, 1));
        let block = Block::parse(&want).unwrap();
        let found = block.get(b"ac").unwrap().unwrap();
        assert_eq!(found.entry, entry(200, 9, Some(b"\xff\x00"), false));
        assert!(block.get(b"ab").unwrap().unwrap().late);
        assert_eq!(block.get(b"aa").unwrap(), None);
    }

    #[test]
    fn lookups_seeks_and_steps_agree_with_a_map() {
        for seed in 0..200 {
            let mut rng = Rng::with_seed(seed);
            let count = rng.usize(1..80);
            let rows = random_rows(&mut rng, count);
            let block = Rc::new(Block::parse(&build(&rows).payload).unwrap());
            let mut probes: Vec<Vec<u8>> = random_rows(&mut rng, 50).into_keys().collect();
            probes.extend(rows.keys().cloned());
            let mut cursor = BlockCursor::new(block.clone());
            for key in &probes {
                let got = block.get(key).unwrap();
                let got = got.map(|found| (found.entry.to_owned(), found.late));
                assert_eq!(got.as_ref(), rows.get(key), "SEED={seed} {key:?}");
                let mut more = cursor.seek(key).unwrap();
                for (key, (entry, late)) in rows.range(key.clone()..) {
                    let entry = entry.as_entry();
                    let want = (key.as_slice(), Found { entry, late: *late });
                    assert!(more, "SEED={seed}");
                    assert_eq!(cursor.head(), Some(want), "SEED={seed}");
                    more = cursor.step().unwrap();
                }
                assert!(!more, "SEED={seed}");
            }
        }
    }

    /// Does everything a reader does, and must neither panic nor go on for ever.
    fn read_all(payload: &[u8], key: &[u8]) -> bool {
        let Ok(block) = Block::parse(payload) else {
            return false;
        };
        let fine = block.get(key).is_ok();
        let mut cursor = BlockCursor::new(Rc::new(block));
        let mut more = cursor.seek(key);
        while let Ok(true) = more {
            assert!(cursor.head().is_some());
            more = cursor.step();
        }
        fine && more.is_ok()
    }

    #[test]
    fn random_and_damaged_payloads_are_survived() {
        let mut survived = 0;
        for seed in 0..20_000 {
            let mut rng = Rng::with_seed(seed);
            let mut payload = match rng.u8(..3) {
                0 => (0..rng.usize(..200)).map(|_| rng.u8(..)).collect(),
                _ => build(&random_rows(&mut rng, 20)).payload,
            };
            for _ in 0..rng.usize(1..4) {
                match rng.u8(..4) {
                    0 => payload.truncate(rng.usize(..=payload.len())),
                    _ if payload.is_empty() => {}
                    _ => {
                        let at = rng.usize(..payload.len());
                        payload[at] = rng.u8(..);
                    }
                }
            }
            survived += u32::from(read_all(&payload, b"user:a"));
        }
        assert!(survived > 100, "damage never reached the entries");
    }

    #[test]
    fn entries_out_of_order_are_noticed() {
        let mut payload =
            build(&Rows::from_iter([b"ka", b"kb"].map(|key| {
                (key.to_vec(), (entry(1, 1, None, false).to_owned(), false))
            })))
            .payload;
        assert!(read_all(&payload, b"ka"));
        let at = payload.iter().position(|&byte| byte == b'b').unwrap();
        payload[at] = b'a';
        assert!(!read_all(&payload, b"ka"));
    }
}
