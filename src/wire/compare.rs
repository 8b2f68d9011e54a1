//! Pure. How two replicas find out in what they differ: sums over a range of keys, and versions where sums differ.
//!
//! ```text
//! 06 Compare  shard u16, of u16, part u16, young_from u64, young_to u64,
//!             graves_from u64, rows u32, sum u64, flags u8, [after], to, slices 512
//! 87 Same
//! 88 Heads    flags u8, [resume], count varint, (key u64, version)*
//!
//! flags = Compare: 1 AFTER    Heads: 1 RESUME
//! ```
//!
//! Rows are immutable under their versions, so two replicas hold the same when they hold the same set of (key,
//! version): values need not travel to tell. A sum does not depend on the order of what it adds up. Rejected: Merkle
//! trees, which must be kept up to date by every write or built anew for every comparison (both halves of a tree that
//! differs would be walked again anyway), while here a range that is equal costs one walk on each side and one frame.
//!
//! Keys are compared by 64 bits of their hash: among the few thousand of one range two that agree are a matter of
//! 10^-13, and would hide a difference, not make one.

use crate::base::codec::{Cursor, put_prefixed, put_varint};
use crate::base::hash::KeyHash;
use crate::base::limits::MESSAGE_ROWS_MAX;
use crate::base::record::Entry;
use crate::base::slices::{SLICES_BYTES, Slices};
use crate::base::version::Version;
use crate::wire::message::{Malformed, read_array, read_bound, read_flags, read_key, read_version};

/// The only flag of either message.
const SET: u8 = 1;
/// Key and version.
const HEAD_BYTES: usize = 8 + 12;
const _: () = assert!(size_of::<Head>() <= 2 * HEAD_BYTES);

/// Do we hold the same in this range? `after` exclusive (`None`: from the first key), `to` inclusive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare<'a> {
    /// Of the answerer.
    pub shard: u16,
    /// Only keys that lie in shard `part` of `of`: the asker has so many, and asks about one of its own.
    pub of: u16,
    pub part: u16,
    pub window: Window,
    /// Of what the asker holds.
    pub sum: Sum,
    pub after: Option<&'a [u8]>,
    pub to: &'a [u8],
    /// Those that both are replicas of.
    pub slices: Box<Slices>,
}

/// Which rows count. Those outside may be on their way, or forgotten by one side already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Clocks of versions ([`Version::hlc`]) of rows that are too young, `young_to` exclusive. What is beyond is the
    /// work of a clock that was far ahead, and says nothing of its age.
    pub young_from: u64,
    pub young_to: u64,
    /// Tombstones with smaller ones are too old.
    pub graves_from: u64,
}

/// How many rows, and the wrapping sum of their hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub rows: u32,
    pub sum: u64,
}

/// That a key is there, and in which version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Head {
    /// Half of the key's hash.
    pub key: u64,
    pub version: Version,
}

impl Window {
    #[must_use]
    pub fn holds(&self, entry: &Entry<'_>) -> bool {
        let young = (self.young_from..self.young_to).contains(&entry.version.hlc);
        let kept = entry.value().is_some() || entry.version.hlc >= self.graves_from;
        !young && kept
    }
}

impl Head {
    #[must_use]
    pub fn of(hash: KeyHash, version: Version) -> Head {
        let key = hash.token();
        Head { key, version }
    }
}

impl Sum {
    pub fn add(&mut self, head: Head) {
        self.rows = self.rows.wrapping_add(1);
        self.sum = self.sum.wrapping_add(KeyHash::of(&head.to_bytes()).token());
    }
}

impl<'a> Compare<'a> {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        for number in [self.shard, self.of, self.part] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let window = &self.window;
        for clock in [window.young_from, window.young_to, window.graves_from] {
            out.extend_from_slice(&clock.to_le_bytes());
        }
        out.extend_from_slice(&self.sum.rows.to_le_bytes());
        out.extend_from_slice(&self.sum.sum.to_le_bytes());
        put_optional(out, self.after);
        put_prefixed(out, self.to);
        out.extend_from_slice(&self.slices.to_bytes());
    }

    pub(super) fn read(cursor: &mut Cursor<'a>) -> Result<Compare<'a>, Malformed> {
        let compare = Compare {
            shard: cursor.u16()?,
            of: cursor.u16()?,
            part: cursor.u16()?,
            window: Window {
                young_from: cursor.u64()?,
                young_to: cursor.u64()?,
                graves_from: cursor.u64()?,
            },
            sum: Sum {
                rows: cursor.u32()?,
                sum: cursor.u64()?,
            },
            after: read_optional(cursor)?,
            to: read_key(cursor)?,
            slices: Box::new(Slices::from_bytes(&read_array::<SLICES_BYTES>(cursor)?)),
        };
        (compare.part < compare.of)
            .then_some(compare)
            .ok_or(Malformed)
    }
}

impl Head {
    fn to_bytes(self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..8].copy_from_slice(&self.key.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.version.hlc.to_le_bytes());
        bytes[16..].copy_from_slice(&self.version.origin.to_le_bytes());
        bytes
    }

    fn read(cursor: &mut Cursor<'_>) -> Result<Head, Malformed> {
        Ok(Head {
            key: cursor.u64()?,
            version: read_version(cursor)?,
        })
    }
}

/// `resume`: the last key that was looked at, when that is not all.
pub(super) fn put_heads(out: &mut Vec<u8>, heads: &[Head], resume: Option<&[u8]>) {
    put_optional(out, resume);
    put_varint(out, heads.len() as u64);
    for head in heads {
        out.extend_from_slice(&head.to_bytes());
    }
}

pub(super) fn read_heads<'a>(
    cursor: &mut Cursor<'a>,
) -> Result<(Vec<Head>, Option<&'a [u8]>), Malformed> {
    let resume = read_optional(cursor)?;
    let count = usize::try_from(cursor.varint()?).map_err(|_| Malformed)?;
    if count > MESSAGE_ROWS_MAX || count > cursor.rest().len() / HEAD_BYTES {
        return Err(Malformed);
    }
    let mut heads = Vec::with_capacity(count);
    for _ in 0..count {
        heads.push(Head::read(cursor)?);
    }
    Ok((heads, resume))
}

fn put_optional(out: &mut Vec<u8>, bound: Option<&[u8]>) {
    out.push(if bound.is_some() { SET } else { 0 });
    if let Some(bound) = bound {
        put_prefixed(out, bound);
    }
}

fn read_optional<'a>(cursor: &mut Cursor<'a>) -> Result<Option<&'a [u8]>, Malformed> {
    let present = read_flags(cursor, SET)? & SET != 0;
    read_bound(cursor, present)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::record::State;

    fn head(key: u64, hlc: u64) -> Head {
        let version = Version { hlc, origin: 1 };
        Head { key, version }
    }

    fn sum(heads: &[Head]) -> Sum {
        let mut sum = Sum::default();
        heads.iter().for_each(|head| sum.add(*head));
        sum
    }

    #[test]
    fn sums_tell_sets_apart_and_do_not_care_about_order() {
        let heads = [head(1, 5), head(2, 5), head(3, 9)];
        let mut turned = heads;
        turned.reverse();
        assert_eq!(sum(&heads), sum(&turned));
        assert_ne!(sum(&heads), sum(&heads[1..]));
        assert_ne!(sum(&heads), sum(&[head(1, 5), head(2, 6), head(3, 9)]));
        // Swapped versions: each number is there, in another pair.
        assert_ne!(
            sum(&[head(1, 5), head(2, 6)]),
            sum(&[head(1, 6), head(2, 5)])
        );
        assert_ne!(sum(&[]), sum(&[head(0, 0)]));
    }

    #[test]
    fn what_is_young_and_what_may_be_forgotten_does_not_count() {
        let window = Window {
            young_from: 100,
            young_to: 200,
            graves_from: 50,
        };
        let live = State::Live {
            value: b"",
            text: true,
        };
        for (hlc, state, holds) in [
            (99, live, true),
            (100, live, false),
            (199, live, false),
            (200, live, true),
            (1, live, true),
            (49, State::Deleted, false),
            (50, State::Deleted, true),
            (100, State::Deleted, false),
        ] {
            let version = Version { hlc, origin: 9 };
            let entry = Entry { version, state };
            assert_eq!(window.holds(&entry), holds, "{entry:?}");
        }
    }
}
