//! Pure. A hint as a row of the store that `hint_log` keeps.
//!
//! ```text
//!  key (big endian, so that its order is that of targets and versions)      value
//!  tag u64 | 0                                                  slices the target lacks something in, 512 bytes
//!  tag u64 | 1 | hlc u64 | origin u32 | kind u8 | client's key  the client's value; kind 0: none, a deletion
//!
//!  tag = xxh3_64(ring name): indexes of members change with the member list
//! ```
//!
//! A deletion is a row with an empty value: a tombstone in that store says that there is no hint. The kind lies in
//! the key because a value may be as long as a store takes; the mark for text lies in the row itself. These bytes are
//! on disks.

use xxhash_rust::xxh3::xxh3_64;

use crate::base::limits::{KEY_BYTES_MAX, STORED_KEY_BYTES_MAX};
use crate::base::record::Row;
use crate::base::record::{Entry, OwnedEntry, OwnedState, State};
use crate::base::version::Version;

/// Bytes before the client's key.
const HEAD_BYTES: usize = 8 + 1 + 8 + 4 + 1;
const _: () = assert!(HEAD_BYTES + KEY_BYTES_MAX <= STORED_KEY_BYTES_MAX);
/// Sections of a target's rows: its dirty slices, its hints, and where they end.
pub(crate) const DIRTY: u8 = 0;
pub(crate) const HINTS: u8 = 1;
pub(crate) const END: u8 = 2;
/// Kinds of a hint.
const DELETED: u8 = 0;
const LIVE: u8 = 1;

/// A write that a target missed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    pub key: Box<[u8]>,
    pub entry: OwnedEntry,
}

/// Bytes a hint takes in the log, for `cluster::hints`.
#[must_use]
pub fn hint_bytes(key: &[u8], entry: &Entry<'_>) -> u64 {
    (HEAD_BYTES + key.len() + entry.value().map_or(0, <[u8]>::len)) as u64
}

impl Hint {
    /// Bytes it takes in the log.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        hint_bytes(&self.key, &self.entry.as_entry())
    }

    /// `None`: nothing that was written here.
    pub(crate) fn of(row: Row<'_>) -> Option<Hint> {
        let (_tag_and_section, rest) = row.key.split_at_checked(9)?;
        let (hlc, rest) = rest.split_first_chunk()?;
        let (origin, rest) = rest.split_first_chunk()?;
        let (kind, key) = rest.split_first()?;
        let version = Version {
            hlc: u64::from_be_bytes(*hlc),
            origin: u32::from_be_bytes(*origin),
        };
        let state = match *kind {
            DELETED => OwnedState::Deleted,
            LIVE => row.entry.to_owned().state,
            _ => return None,
        };
        let entry = OwnedEntry { version, state };
        (1..=KEY_BYTES_MAX).contains(&key.len()).then(|| Hint {
            key: key.into(),
            entry,
        })
    }

    /// The key of its row.
    pub(crate) fn row(&self, tag: u64) -> Vec<u8> {
        hint_row(tag, &self.key, &self.entry.as_entry())
    }
}

/// What stands for a target in its rows.
pub(crate) fn tag_of(ring_name: &str) -> u64 {
    xxh3_64(ring_name.as_bytes())
}

/// Where a section of a target's rows begins.
pub(crate) fn section(tag: u64, section: u8) -> Vec<u8> {
    let mut row = tag.to_be_bytes().to_vec();
    row.push(section);
    row
}

/// The key of the row of a hint.
pub(crate) fn hint_row(tag: u64, key: &[u8], entry: &Entry<'_>) -> Vec<u8> {
    let mut row = Vec::with_capacity(HEAD_BYTES + key.len());
    row.extend_from_slice(&tag.to_be_bytes());
    row.push(HINTS);
    row.extend_from_slice(&entry.version.hlc.to_be_bytes());
    row.extend_from_slice(&entry.version.origin.to_be_bytes());
    row.push(match entry.state {
        State::Deleted => DELETED,
        State::Live { .. } => LIVE,
    });
    row.extend_from_slice(key);
    row
}

/// The client's key in the row of a hint.
pub(crate) fn client_key(row: &[u8]) -> &[u8] {
    row.get(HEAD_BYTES..).unwrap_or_default()
}

/// The state of the row of a hint.
pub(crate) fn row_state<'a>(state: &State<'a>) -> State<'a> {
    match *state {
        State::Deleted => State::Live {
            value: &[],
            text: false,
        },
        live @ State::Live { .. } => live,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::record::OwnedRow;

    /// The row a store would give back.
    fn stored(tag: u64, key: &[u8], entry: &Entry<'_>) -> OwnedRow {
        let state = row_state(&entry.state);
        let version = Version { hlc: 99, origin: 0 };
        OwnedRow {
            key: hint_row(tag, key, entry).into(),
            entry: Entry { version, state }.to_owned(),
        }
    }

    #[test]
    fn rows_have_these_bytes_and_are_read_back() {
        let version = Version {
            hlc: 0x0102_0304_0506_0708,
            origin: 0x0a0b_0c0d,
        };
        let head =
            b"\x11\x22\x33\x44\x55\x66\x77\x88\x01\x01\x02\x03\x04\x05\x06\x07\x08\x0a\x0b\x0c\x0d";
        let live = |text| State::Live { value: b"v", text };
        for (state, kind) in [(State::Deleted, 0), (live(false), 1), (live(true), 1)] {
            let entry = Entry { version, state };
            let row = stored(0x1122_3344_5566_7788, b"key", &entry);
            assert_eq!(*row.key, *[&head[..], &[kind], b"key"].concat());
            assert_eq!(client_key(&row.key), b"key");
            let hint = Hint::of(row.as_row()).expect("it was written here");
            assert_eq!((&*hint.key, hint.entry.as_entry()), (&b"key"[..], entry));
            let value_bytes = row.entry.as_entry().value().map_or(0, <[u8]>::len);
            assert_eq!(hint.bytes(), (row.key.len() + value_bytes) as u64);
        }
        assert_eq!(tag_of("10.0.0.1:8081"), 10_643_446_259_147_272_941);
    }

    #[test]
    fn rows_of_others_are_no_hints() {
        let entry = Entry {
            version: Version::ZERO,
            state: State::Deleted,
        };
        let good = stored(1, b"k", &entry);
        assert!(Hint::of(good.as_row()).is_some());
        for len in 0..good.key.len() {
            let mut cut = stored(1, b"k", &entry);
            cut.key = good.key[..len].into();
            assert!(Hint::of(cut.as_row()).is_none(), "{len}");
        }
        let mut odd = stored(1, b"k", &entry);
        odd.key[21] = 2;
        assert!(Hint::of(odd.as_row()).is_none());
        assert!(Hint::of(stored(1, &[b'k'; KEY_BYTES_MAX + 1], &entry).as_row()).is_none());
    }
}
