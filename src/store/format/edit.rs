//! Pure. One edit of the manifest: which tables came and went, and up to where the WAL is no longer needed.
//!
//! ```text
//! edit  = field*
//! field = tag u8, len varint, len bytes          in the order of this table
//!   tag            bytes                         repeats
//!   1 ADDED        level u8, table               yes
//!   2 REMOVED      level u8, id varint           yes
//!   3 FLUSHED_SEQ  seq varint
//!   4 NEXT_FILE_ID id varint
//!   5 SEALED_MAX   hlc u64, origin u32
//!   6 CURSOR       level u8, key                 yes
//!   7 STATE_SUM    u64
//! table = id varint, bytes varint, entries varint, tombstones varint,
//!         min hlc u64, min origin u32, max hlc u64, max origin u32,
//!         smallest_len varint, smallest, largest_len varint, largest
//!
//! nothing but "everything up to WAL group 300 is in tables" (state_sum of an empty set is 0):
//!   03 02 ac 02   04 01 01   05 0c 00.. (12 zero bytes)   07 08 00.. (8 zero bytes)
//! ```
//!
//! An unknown tag is refused: whoever adds a field that may be skipped has to say so here first. `STATE_SUM`
//! is computed over the set of tables *after* the edit ([`state_term`]); replay must arrive at the same
//! number, so a lost or doubled edit cannot go unnoticed.

use crate::base::codec::{Cursor, Short, put_prefixed, put_varint};
use crate::base::hash::KeyHash;
use crate::base::version::Version;

/// What the manifest remembers of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableMeta {
    pub id: u64,
    /// Length of the file.
    pub bytes: u64,
    pub smallest: Vec<u8>,
    pub largest: Vec<u8>,
    /// Values and tombstones together.
    pub entries: u64,
    pub tombstones: u64,
    pub min_version: Version,
    pub max_version: Version,
}

/// One step from a set of tables to the next, installed whole or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    /// (level, table)
    pub added: Vec<(u8, TableMeta)>,
    /// (level, table id)
    pub removed: Vec<(u8, u64)>,
    /// Every WAL group up to and including this one is in tables. `None`: unchanged.
    pub flushed_seq: Option<u64>,
    /// Every file id below is taken. Never goes back.
    pub next_file_id: u64,
    /// Largest version in any table or frozen memtable. Never goes back.
    pub sealed_max: Version,
    /// (level, key): where the next compaction of the level starts. Levels not named keep theirs.
    pub cursors: Vec<(u8, Vec<u8>)>,
}

/// Bytes that are not an edit. The caller reports the manifest as corrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Levels are numbered below this.
pub const LEVELS_MAX: u8 = 16;

const ADDED: u8 = 1;
const REMOVED: u8 = 2;
const FLUSHED_SEQ: u8 = 3;
const NEXT_FILE_ID: u8 = 4;
const SEALED_MAX: u8 = 5;
const CURSOR: u8 = 6;
const STATE_SUM: u8 = 7;

/// What one table adds (wrapping) to the state sum.
#[must_use]
pub fn state_term(level: u8, id: u64) -> u64 {
    let mut bytes = [0; 9];
    bytes[0] = level;
    bytes[1..].copy_from_slice(&id.to_le_bytes());
    KeyHash::of(&bytes).token()
}

impl Edit {
    /// Appends the edit. `state_sum`: the sum of [`state_term`] over the tables after it.
    pub fn encode(&self, state_sum: u64, out: &mut Vec<u8>) {
        let mut field = Vec::new();
        for (level, table) in &self.added {
            field.push(*level);
            table.encode(&mut field);
            put_field(out, ADDED, &mut field);
        }
        for (level, id) in &self.removed {
            field.push(*level);
            put_varint(&mut field, *id);
            put_field(out, REMOVED, &mut field);
        }
        if let Some(seq) = self.flushed_seq {
            put_varint(&mut field, seq);
            put_field(out, FLUSHED_SEQ, &mut field);
        }
        put_varint(&mut field, self.next_file_id);
        put_field(out, NEXT_FILE_ID, &mut field);
        put_version(&mut field, self.sealed_max);
        put_field(out, SEALED_MAX, &mut field);
        for (level, key) in &self.cursors {
            field.push(*level);
            field.extend_from_slice(key);
            put_field(out, CURSOR, &mut field);
        }
        field.extend_from_slice(&state_sum.to_le_bytes());
        put_field(out, STATE_SUM, &mut field);
    }

    /// The edit and the state sum it claims. All of `bytes` must be used.
    pub fn decode(bytes: &[u8]) -> Result<(Edit, u64), Malformed> {
        let mut edit = Edit::default();
        let mut state_sum = None;
        let mut cursor = Cursor::new(bytes);
        let mut last_tag = 0;
        while !cursor.is_empty() {
            let tag = cursor.u8()?;
            let repeats = matches!(tag, ADDED | REMOVED | CURSOR);
            if tag < last_tag || (tag == last_tag && !repeats) {
                return Err(Malformed);
            }
            last_tag = tag;
            let mut field = Cursor::new(cursor.prefixed()?);
            match tag {
                ADDED => edit
                    .added
                    .push((level(&mut field)?, TableMeta::decode(&mut field)?)),
                REMOVED => edit.removed.push((level(&mut field)?, field.varint()?)),
                FLUSHED_SEQ => edit.flushed_seq = Some(field.varint()?),
                NEXT_FILE_ID => edit.next_file_id = field.varint()?,
                SEALED_MAX => edit.sealed_max = version(&mut field)?,
                CURSOR => {
                    let level = level(&mut field)?;
                    let key = field.bytes(field.rest().len())?;
                    edit.cursors.push((level, key.to_vec()));
                }
                STATE_SUM => state_sum = Some(field.u64()?),
                _ => return Err(Malformed),
            }
            if !field.is_empty() {
                return Err(Malformed);
            }
        }
        Ok((edit, state_sum.ok_or(Malformed)?))
    }
}

impl TableMeta {
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.id);
        put_varint(out, self.bytes);
        put_varint(out, self.entries);
        put_varint(out, self.tombstones);
        put_version(out, self.min_version);
        put_version(out, self.max_version);
        put_prefixed(out, &self.smallest);
        put_prefixed(out, &self.largest);
    }

    fn decode(field: &mut Cursor<'_>) -> Result<TableMeta, Malformed> {
        let table = TableMeta {
            id: field.varint()?,
            bytes: field.varint()?,
            entries: field.varint()?,
            tombstones: field.varint()?,
            min_version: version(field)?,
            max_version: version(field)?,
            smallest: field.prefixed()?.to_vec(),
            largest: field.prefixed()?.to_vec(),
        };
        if table.smallest > table.largest || table.tombstones > table.entries {
            return Err(Malformed);
        }
        Ok(table)
    }
}

fn put_field(out: &mut Vec<u8>, tag: u8, field: &mut Vec<u8>) {
    out.push(tag);
    put_prefixed(out, field);
    field.clear();
}

fn put_version(out: &mut Vec<u8>, version: Version) {
    out.extend_from_slice(&version.hlc.to_le_bytes());
    out.extend_from_slice(&version.origin.to_le_bytes());
}

fn version(field: &mut Cursor<'_>) -> Result<Version, Malformed> {
    Ok(Version {
        hlc: field.u64()?,
        origin: field.u32()?,
    })
}

fn level(field: &mut Cursor<'_>) -> Result<u8, Malformed> {
    let level = field.u8()?;
    if level < LEVELS_MAX {
        Ok(level)
    } else {
        Err(Malformed)
    }
}

impl From<Short> for Malformed {
    fn from(_: Short) -> Malformed {
        Malformed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::format::golden;

    fn example() -> Edit {
        let version = |hlc| Version { hlc, origin: 7 };
        let table = TableMeta {
            id: 300,
            bytes: 8192,
            smallest: b"a".to_vec(),
            largest: b"bc".to_vec(),
            entries: 5,
            tombstones: 2,
            min_version: version(1),
            max_version: version(9),
        };
        Edit {
            added: vec![(1, table)],
            removed: vec![(0, 4), (0, 5)],
            flushed_seq: Some(300),
            next_file_id: 301,
            sealed_max: version(9),
            cursors: vec![(1, b"k".to_vec())],
        }
    }

    /// These bytes are on disks.
    #[test]
    fn golden_bytes() {
        let golden = golden::bytes(include_str!("../../../tests/golden/format/edit.txt"));
        let mut out = Vec::new();
        example().encode(0x0102_0304_0506_0708, &mut out);
        assert_eq!(out, golden);
        assert_eq!(
            Edit::decode(&golden),
            Ok((example(), 0x0102_0304_0506_0708))
        );
        // From python-xxhash, not from this code.
        assert_eq!(state_term(0, 1), 0x0221_bd99_cddf_feb5);
    }

    #[test]
    fn an_edit_without_tables_round_trips() {
        let edit = Edit::default();
        let mut out = Vec::new();
        edit.encode(0, &mut out);
        assert_eq!(Edit::decode(&out), Ok((edit, 0)));
    }

    #[test]
    fn every_truncation_is_noticed_and_no_bit_flip_panics() {
        let mut out = Vec::new();
        example().encode(3, &mut out);
        for cut in 0..out.len() {
            assert_eq!(Edit::decode(&out[..cut]), Err(Malformed), "cut at {cut}");
        }
        for bit in 0..out.len() * 8 {
            let mut flipped = out.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(Edit::decode(&flipped), Ok((example(), 3)), "bit {bit}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let mut out = Vec::new();
        Edit::default().encode(0, &mut out);
        let twice = [out.clone(), out.clone()].concat();
        let mut unknown_tag = out.clone();
        unknown_tag.extend_from_slice(&[8, 0]);
        let mut level = vec![REMOVED, 2, LEVELS_MAX, 1];
        level.extend_from_slice(&out);
        let mut trailing = vec![REMOVED, 3, 0, 1, 0];
        trailing.extend_from_slice(&out);
        for bytes in [twice, unknown_tag, level, trailing] {
            assert_eq!(Edit::decode(&bytes), Err(Malformed), "{bytes:?}");
        }
    }
}
