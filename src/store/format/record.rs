//! Pure. The body of a WAL group: records, each a list of ops that take effect together.
//!
//! ```text
//! body = op*
//! op   = flags u8     bit 0 LIVE (else a tombstone), bit 1 TEXT (only with LIVE),
//!                     bit 2 MORE (the next op belongs to the same record), others zero
//!        hlc u64, origin u32                     version
//!        key_len varint, key                     1..=STORED_KEY_BYTES_MAX bytes
//!        [value_len varint, value]               only with LIVE, at most VALUE_BYTES_MAX
//!
//! put "a" = "xy" (text), version 5.7, and delete "b", version 6.7, as one record:
//!   07  05 00 00 00 00 00 00 00  07 00 00 00  01 61  02 78 79
//!   00  06 00 00 00 00 00 00 00  07 00 00 00  01 62
//! ```
//!
//! A record never spans groups and a group is replayed whole or not at all: that is what makes a record
//! atomic. MORE only draws the border, and lets a record be written in one pass over an iterator; a count
//! in front would need two. Checksums are the group's (frame.rs), so a decoding error here is a bug or a
//! forged file, not rot.

use crate::base::codec::{Cursor, Short, put_prefixed};
use crate::base::limits::{STORED_KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::base::record::{Entry, State};
use crate::base::version::Version;
use crate::store::Op;

/// A body that is not a list of records. The caller reports the file as corrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

const LIVE: u8 = 1;
const TEXT: u8 = 2;
const MORE: u8 = 4;

/// Appends one record of all `ops`; returns how many there were. No ops: nothing is appended.
pub fn encode<'a>(ops: impl Iterator<Item = Op<'a>>, out: &mut Vec<u8>) -> usize {
    let mut count = 0;
    let mut last = out.len();
    for op in ops {
        if count > 0 {
            out[last] |= MORE;
        }
        last = out.len();
        encode_op(&op, out);
        count += 1;
    }
    count
}

fn encode_op(op: &Op<'_>, out: &mut Vec<u8>) {
    let flags = match op.entry.state {
        State::Deleted => 0,
        State::Live { text: false, .. } => LIVE,
        State::Live { text: true, .. } => LIVE | TEXT,
    };
    out.push(flags);
    out.extend_from_slice(&op.entry.version.hlc.to_le_bytes());
    out.extend_from_slice(&op.entry.version.origin.to_le_bytes());
    put_prefixed(out, op.key);
    if let Some(value) = op.entry.value() {
        put_prefixed(out, value);
    }
}

/// The ops of a group body, in the order they were written. After an error it ends.
#[derive(Clone, Debug)]
pub struct Ops<'a> {
    cursor: Cursor<'a>,
    /// The last op said that another one follows.
    more: bool,
}

impl<'a> Ops<'a> {
    #[must_use]
    pub fn new(body: &'a [u8]) -> Ops<'a> {
        Ops {
            cursor: Cursor::new(body),
            more: false,
        }
    }

    fn read(&mut self) -> Result<Op<'a>, Malformed> {
        let flags = self.cursor.u8()?;
        self.more = flags & MORE != 0;
        let version = Version {
            hlc: self.cursor.u64()?,
            origin: self.cursor.u32()?,
        };
        let key = self.cursor.prefixed()?;
        if key.is_empty() || key.len() > STORED_KEY_BYTES_MAX {
            return Err(Malformed);
        }
        let state = match flags & !MORE {
            0 => State::Deleted,
            LIVE => self.live(false)?,
            kind if kind == LIVE | TEXT => self.live(true)?,
            _ => return Err(Malformed),
        };
        Ok(Op {
            key,
            entry: Entry { version, state },
        })
    }

    fn live(&mut self, text: bool) -> Result<State<'a>, Malformed> {
        let value = self.cursor.prefixed()?;
        if value.len() > VALUE_BYTES_MAX {
            return Err(Malformed);
        }
        Ok(State::Live { value, text })
    }
}

impl<'a> Iterator for Ops<'a> {
    type Item = Result<Op<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.more && self.cursor.is_empty() {
            return None;
        }
        let op = self.read();
        if op.is_err() {
            *self = Ops::new(&[]);
        }
        Some(op)
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

    fn op<'a>(key: &'a [u8], hlc: u64, state: State<'a>) -> Op<'a> {
        let version = Version { hlc, origin: 7 };
        Op {
            key,
            entry: Entry { version, state },
        }
    }

    fn text(value: &[u8]) -> State<'_> {
        State::Live { value, text: true }
    }

    fn example() -> Vec<u8> {
        let ops = [op(b"a", 5, text(b"xy")), op(b"b", 6, State::Deleted)];
        let mut body = Vec::new();
        assert_eq!(encode(ops.into_iter(), &mut body), 2);
        body
    }

    /// The worked example of the module header: these bytes are on disks.
    #[test]
    fn golden_bytes() {
        let golden = include_str!("../../../tests/golden/format/record.txt");
        assert_eq!(example(), golden::bytes(golden));
    }

    #[test]
    fn records_round_trip_in_order() {
        let mut rng = fastrand::Rng::with_seed(11);
        let values: Vec<Vec<u8>> = (0..100u8).map(|n| vec![n; rng.usize(0..300)]).collect();
        let ops: Vec<Op<'_>> = (0..100usize)
            .map(|n| match n % 3 {
                0 => op(b"gone", n as u64, State::Deleted),
                kind => {
                    let value = &values[n];
                    let text = kind == 1;
                    op(b"key", n as u64, State::Live { value, text })
                }
            })
            .collect();
        let mut body = Vec::new();
        for record in ops.chunks(7) {
            encode(record.iter().copied(), &mut body);
        }
        let read: Vec<_> = Ops::new(&body)
            .map(Result::unwrap)
            .map(|op| (op.key, op.entry))
            .collect();
        let wrote: Vec<_> = ops.iter().map(|op| (op.key, op.entry)).collect();
        assert_eq!(read, wrote);
    }

    #[test]
    fn every_truncation_is_noticed_and_no_bit_flip_panics() {
        let body = example();
        for cut in 1..body.len() {
            let noticed = Ops::new(&body[..cut]).any(|op| op.is_err());
            assert!(noticed, "cut at {cut}");
        }
        for bit in 0..body.len() * 8 {
            let mut flipped = body.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Ops::new(&flipped).count() <= body.len());
        }
    }

    #[test]
    fn the_longest_key_is_read_and_a_longer_one_refused() {
        let key = [b'k'; STORED_KEY_BYTES_MAX + 1];
        for (len, readable) in [(STORED_KEY_BYTES_MAX, true), (key.len(), false)] {
            let mut body = Vec::new();
            encode([op(&key[..len], 1, State::Deleted)].into_iter(), &mut body);
            assert_eq!(Ops::new(&body).all(|op| op.is_ok()), readable, "{len}");
        }
    }

    #[test]
    fn nonsense_is_refused_once_and_then_the_list_ends() {
        let mut unknown_flag = example();
        unknown_flag[0] |= 8;
        let mut text_tombstone = example();
        text_tombstone[0] = TEXT;
        let mut empty_key = Vec::new();
        encode([op(b"", 1, State::Deleted)].into_iter(), &mut empty_key);
        for body in [unknown_flag, text_tombstone, empty_key] {
            let mut ops = Ops::new(&body);
            assert!(matches!(ops.next(), Some(Err(Malformed))), "{body:?}");
            assert!(ops.next().is_none(), "{body:?}");
        }
        assert_eq!(encode(std::iter::empty(), &mut Vec::new()), 0);
    }
}
