//! Pure. The messages: what one node asks of another, and the answers.
//!
//! ```text
//! requests, dialler to answerer               answers, bit 7 set
//! 01 Ping   wall_ms u64                       81 Pong     wall_ms u64
//! 02 Write  flags u8, rows                    82 Written
//! 03 Read   flags u8, key                     83 Refused  why u8
//! 04 Scan   flags u8, shard u16, rows_max u32 84 Got      one entry, or the state ABSENT alone
//!           [from] [after] [to] [slices 512]  85 Digest   version, sum u32
//! 05 Proof  mac 32                            86 Page     flags u8, [resume], rows
//! 06 Compare                                  87 Same, 88 Heads: see `compare`
//!
//! rows    = count varint, (entry, key)*       key, from, after, to, resume = varint length, bytes
//! entry   = state u8, version, [value]        value = varint length, bytes: only with a live state
//! version = hlc u64, origin u32               state = 0 DELETED, 1 LIVE, 2 LIVE and UTF-8, 3 ABSENT (Got only)
//!           (UTF-8 by the word of the node that took the write: checked at its door, not here)
//! flags   = Write: 1 HEALING    Read: 1 DIGEST    Scan: 1 FROM, 2 AFTER, 4 TO, 8 SLICES    Page: 1 RESUME
//!
//! Write, not healing, of "a" = "xy" (text), version 5.7:
//!   00  01  02  05 00 00 00 00 00 00 00  07 00 00 00  02 78 79  01 61
//! ```
//!
//! Integers are little-endian. Everything is judged while it is read: keys and values keep the limits of the
//! store, unknown flags and bytes left over are errors, so that a message that was read can be carried out. A new
//! meaning therefore needs a new kind; nodes that do not know it say `Refused` (bit 7 tells them that a kind is an
//! answer, which must not be answered).

use crate::base::codec::{Cursor, Short, put_prefixed, put_varint, varint_len};
use crate::base::limits::{
    FRAME_BODY_BYTES_MAX, KEY_BYTES_MAX, MESSAGE_ROWS_MAX, SCAN_BOUND_BYTES_MAX, VALUE_BYTES_MAX,
};
pub use crate::base::record::Row;
use crate::base::record::{Entry, State};
use crate::base::slices::{SLICES_BYTES, Slices};
use crate::base::version::Version;
use crate::wire::compare::{self, Compare, Head};
use crate::wire::proof::Mac;

/// One message. Keys and values are borrowed from the frame, or from wherever the sender has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Are you there, and what time is it? The sender's wall clock, milliseconds since 1970.
    Ping { wall_ms: u64 },
    /// Make these rows durable; older ones lose to what is there. `healing`: hints and repairs, which wait
    /// behind the writes of clients.
    Write { healing: bool, rows: Vec<Row<'a>> },
    /// What do you have for this key? `digest_only`: answer `Digest`, else `Got`.
    Read { key: &'a [u8], digest_only: bool },
    /// One page of a shard.
    Scan(Scan<'a>),
    /// The dialler knows the secret too; first after the handshake, and never answered.
    Proof { mac: Mac },
    /// Do we hold the same?
    Compare(Compare<'a>),

    /// The answerer's wall clock.
    Pong { wall_ms: u64 },
    /// All rows are on stable storage.
    Written,
    /// Not done, or not known to be done.
    Refused { why: Why },
    /// `None`: the key was never there, or its tombstone is gone.
    Got { entry: Option<Entry<'a>> },
    /// The version and [`sum`] of what `Got` would hold.
    Digest { version: Version, sum: u32 },
    /// Rows in key order; scan on strictly after `resume`, `None`: the shard has no more in this range.
    Page {
        rows: Vec<Row<'a>>,
        resume: Option<&'a [u8]>,
    },

    /// The answerer holds the same.
    Same,
    /// It does not: all that the answerer has up to `resume`, `None`: in all of the range.
    Heads {
        heads: Vec<Head>,
        resume: Option<&'a [u8]>,
    },

    /// A kind this version does not know, whatever its body. A request: answer `Refused { Unsupported }`.
    /// An answer: the request failed.
    Unknown(u8),
}

/// Which page. Ends as in the store: `from` and `to` inclusive, `after` exclusive, `None` open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan<'a> {
    /// Of the answerer.
    pub shard: u16,
    /// The answerer may give fewer.
    pub rows_max: u32,
    pub from: Option<&'a [u8]>,
    pub after: Option<&'a [u8]>,
    pub to: Option<&'a [u8]>,
    /// Only keys of these slices; `None`: all that the answerer has.
    pub slices: Option<Box<Slices>>,
}

/// Why a request was not carried out. The codes are on the wire: never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Why {
    /// Queues are full; nothing was done, try again soon.
    Busy = 1,
    /// The disk is full; nothing was done.
    Full = 2,
    /// The node is ending; nothing was done.
    Closed = 3,
    /// A write that may or may not be durable.
    Unknown = 4,
    /// What is on the disk is damaged: another copy is needed.
    Unreadable = 5,
    /// No such kind of message here.
    Unsupported = 6,
    /// The deadline had passed before the work began; nothing was done.
    Late = 7,
}

impl Why {
    /// A code of a later version reads as the one meaning that promises nothing.
    fn of(code: u8) -> Why {
        match code {
            1 => Why::Busy,
            2 => Why::Full,
            3 => Why::Closed,
            5 => Why::Unreadable,
            6 => Why::Unsupported,
            7 => Why::Late,
            _ => Why::Unknown,
        }
    }
}

/// A body that is none of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Set in the kinds of answers.
const ANSWER: u8 = 0x80;
const PING: u8 = 0x01;
const WRITE: u8 = 0x02;
const READ: u8 = 0x03;
const SCAN: u8 = 0x04;
const PROOF: u8 = 0x05;
const COMPARE: u8 = 0x06;
const PONG: u8 = ANSWER | 0x01;
const WRITTEN: u8 = ANSWER | 0x02;
const REFUSED: u8 = ANSWER | 0x03;
const GOT: u8 = ANSWER | 0x04;
const DIGEST: u8 = ANSWER | 0x05;
const PAGE: u8 = ANSWER | 0x06;
const SAME: u8 = ANSWER | 0x07;
const HEADS: u8 = ANSWER | 0x08;

/// The only flag of Write, of Read and of Page.
const SET: u8 = 1;
const FROM: u8 = 1;
const AFTER: u8 = 2;
const TO: u8 = 4;
const SLICES: u8 = 8;

const DELETED: u8 = 0;
const LIVE: u8 = 1;
const TEXT: u8 = 2;
const ABSENT: u8 = 3;

/// State, version, and a key of one byte with its length.
const ROW_BYTES_MIN: usize = 1 + 12 + 1 + 1;
/// What stands beside the rows of a message at most: flags, a bound with its length, a count.
const ROWS_OVERHEAD_BYTES: usize = 1 + (3 + SCAN_BOUND_BYTES_MAX) + 3;
const _: () = assert!(size_of::<Row<'_>>() <= 4 * ROW_BYTES_MIN);
// One row always fits: its two lengths take four bytes each at most.
const _: () = assert!(
    ROWS_OVERHEAD_BYTES + ROW_BYTES_MIN + 8 + KEY_BYTES_MAX + VALUE_BYTES_MAX
        <= FRAME_BODY_BYTES_MAX
);
const _: () = assert!(MESSAGE_ROWS_MAX < 1 << 21 && SCAN_BOUND_BYTES_MAX < 1 << 21);

impl<'a> Message<'a> {
    /// Whether it answers a request. Kinds not known yet are told apart as well.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        self.kind() & ANSWER != 0
    }

    /// The answer to a `Read` of the digest.
    #[must_use]
    pub fn digest_of(entry: Option<&Entry<'_>>) -> Message<'static> {
        Message::Digest {
            version: entry.map_or(Version::ZERO, |entry| entry.version),
            sum: entry.map_or(0, sum),
        }
    }

    pub(crate) fn kind(&self) -> u8 {
        match self {
            Message::Ping { .. } => PING,
            Message::Write { .. } => WRITE,
            Message::Read { .. } => READ,
            Message::Scan(_) => SCAN,
            Message::Proof { .. } => PROOF,
            Message::Pong { .. } => PONG,
            Message::Written => WRITTEN,
            Message::Refused { .. } => REFUSED,
            Message::Got { .. } => GOT,
            Message::Digest { .. } => DIGEST,
            Message::Page { .. } => PAGE,
            Message::Compare(_) => COMPARE,
            Message::Same => SAME,
            Message::Heads { .. } => HEADS,
            Message::Unknown(kind) => *kind,
        }
    }

    pub(crate) fn put_body(&self, out: &mut Vec<u8>) {
        match self {
            Message::Ping { wall_ms } | Message::Pong { wall_ms } => {
                out.extend_from_slice(&wall_ms.to_le_bytes());
            }
            Message::Write { healing, rows } => {
                out.push(u8::from(*healing));
                put_rows(out, rows);
            }
            Message::Read { key, digest_only } => {
                out.push(u8::from(*digest_only));
                put_prefixed(out, key);
            }
            Message::Scan(scan) => scan.put(out),
            Message::Proof { mac } => out.extend_from_slice(mac),
            Message::Written | Message::Same | Message::Unknown(_) => {}
            Message::Compare(compare) => compare.put(out),
            Message::Heads { heads, resume } => compare::put_heads(out, heads, *resume),
            Message::Refused { why } => out.push(*why as u8),
            Message::Got { entry: None } => out.push(ABSENT),
            Message::Got { entry: Some(entry) } => put_entry(out, entry),
            Message::Digest { version, sum } => {
                put_version(out, *version);
                out.extend_from_slice(&sum.to_le_bytes());
            }
            Message::Page { rows, resume } => {
                out.push(u8::from(resume.is_some()));
                if let Some(resume) = resume {
                    put_prefixed(out, resume);
                }
                put_rows(out, rows);
            }
        }
    }

    pub(crate) fn read(kind: u8, body: &'a [u8]) -> Result<Message<'a>, Malformed> {
        let mut cursor = Cursor::new(body);
        let cursor = &mut cursor;
        let message = match kind {
            PING => Message::Ping {
                wall_ms: cursor.u64()?,
            },
            WRITE => Message::Write {
                healing: read_flags(cursor, SET)? & SET != 0,
                rows: read_rows(cursor)?,
            },
            READ => Message::Read {
                digest_only: read_flags(cursor, SET)? & SET != 0,
                key: read_key(cursor)?,
            },
            SCAN => Message::Scan(Scan::read(cursor)?),
            PROOF => Message::Proof {
                mac: read_array(cursor)?,
            },
            PONG => Message::Pong {
                wall_ms: cursor.u64()?,
            },
            WRITTEN => Message::Written,
            COMPARE => Message::Compare(Compare::read(cursor)?),
            SAME => Message::Same,
            HEADS => {
                let (heads, resume) = compare::read_heads(cursor)?;
                Message::Heads { heads, resume }
            }
            REFUSED => Message::Refused {
                why: Why::of(cursor.u8()?),
            },
            GOT => Message::Got {
                entry: read_entry(cursor)?,
            },
            DIGEST => Message::Digest {
                version: read_version(cursor)?,
                sum: cursor.u32()?,
            },
            PAGE => {
                let resume = read_flags(cursor, SET)? & SET != 0;
                Message::Page {
                    resume: read_bound(cursor, resume)?,
                    rows: read_rows(cursor)?,
                }
            }
            _ => return Ok(Message::Unknown(kind)),
        };
        cursor.is_empty().then_some(message).ok_or(Malformed)
    }
}

/// Checksum of what an entry says beside its version: two copies with the same version and sum are the same.
/// Whether the value is UTF-8 follows from the value.
#[must_use]
pub fn sum(entry: &Entry<'_>) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[u8::from(entry.value().is_some())]);
    hasher.update(entry.value().unwrap_or_default());
    hasher.finalize()
}

/// How many of the first rows go into one message of about `bytes_max`; at least one of any.
#[must_use]
pub fn rows_that_fit(rows: &[Row<'_>], bytes_max: usize) -> usize {
    let room = bytes_max.min(FRAME_BODY_BYTES_MAX - ROWS_OVERHEAD_BYTES);
    let mut bytes = 0;
    let fitting = rows.iter().take(MESSAGE_ROWS_MAX).take_while(|row| {
        bytes += row.bytes();
        bytes <= room
    });
    fitting.count().max(1).min(rows.len())
}

impl Row<'_> {
    /// Bytes it takes in a message.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let prefixed = |bytes: &[u8]| varint_len(bytes.len() as u64) + bytes.len();
        1 + 12 + prefixed(self.key) + self.entry.value().map_or(0, prefixed)
    }
}

impl<'a> Scan<'a> {
    fn put(&self, out: &mut Vec<u8>) {
        let flag = |bit: u8, set: bool| if set { bit } else { 0 };
        out.push(
            flag(FROM, self.from.is_some())
                | flag(AFTER, self.after.is_some())
                | flag(TO, self.to.is_some())
                | flag(SLICES, self.slices.is_some()),
        );
        out.extend_from_slice(&self.shard.to_le_bytes());
        out.extend_from_slice(&self.rows_max.to_le_bytes());
        for bound in [self.from, self.after, self.to].into_iter().flatten() {
            put_prefixed(out, bound);
        }
        if let Some(slices) = &self.slices {
            out.extend_from_slice(&slices.to_bytes());
        }
    }

    fn read(cursor: &mut Cursor<'a>) -> Result<Scan<'a>, Malformed> {
        let flags = read_flags(cursor, FROM | AFTER | TO | SLICES)?;
        Ok(Scan {
            shard: cursor.u16()?,
            rows_max: cursor.u32()?,
            from: read_bound(cursor, flags & FROM != 0)?,
            after: read_bound(cursor, flags & AFTER != 0)?,
            to: read_bound(cursor, flags & TO != 0)?,
            slices: match flags & SLICES {
                0 => None,
                _ => Some(Box::new(Slices::from_bytes(&read_array::<SLICES_BYTES>(
                    cursor,
                )?))),
            },
        })
    }
}

fn put_rows(out: &mut Vec<u8>, rows: &[Row<'_>]) {
    assert!(
        rows.len() <= MESSAGE_ROWS_MAX,
        "{} rows in one message",
        rows.len()
    );
    put_varint(out, rows.len() as u64);
    for row in rows {
        put_entry(out, &row.entry);
        put_prefixed(out, row.key);
    }
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry<'_>) {
    out.push(match entry.state {
        State::Deleted => DELETED,
        State::Live { text: false, .. } => LIVE,
        State::Live { text: true, .. } => TEXT,
    });
    put_version(out, entry.version);
    if let Some(value) = entry.value() {
        put_prefixed(out, value);
    }
}

fn put_version(out: &mut Vec<u8>, version: Version) {
    out.extend_from_slice(&version.hlc.to_le_bytes());
    out.extend_from_slice(&version.origin.to_le_bytes());
}

fn read_rows<'a>(cursor: &mut Cursor<'a>) -> Result<Vec<Row<'a>>, Malformed> {
    let count = read_count(cursor)?;
    let mut rows = Vec::with_capacity(count);
    for _ in 0..count {
        let entry = read_entry(cursor)?.ok_or(Malformed)?;
        let key = read_key(cursor)?;
        rows.push(Row { key, entry });
    }
    Ok(rows)
}

/// Rows that may be reserved for: never more than the bytes that have come can hold, and in memory a row takes
/// at most four times its shortest spelling.
fn read_count(cursor: &mut Cursor<'_>) -> Result<usize, Malformed> {
    let count = usize::try_from(cursor.varint()?).map_err(|_| Malformed)?;
    if count > MESSAGE_ROWS_MAX || count > cursor.rest().len() / ROW_BYTES_MIN {
        return Err(Malformed);
    }
    Ok(count)
}

/// `None`: absent.
fn read_entry<'a>(cursor: &mut Cursor<'a>) -> Result<Option<Entry<'a>>, Malformed> {
    let state = cursor.u8()?;
    if state == ABSENT {
        return Ok(None);
    }
    let version = read_version(cursor)?;
    let state = match state {
        DELETED => State::Deleted,
        LIVE | TEXT => State::Live {
            value: read_bytes(cursor, VALUE_BYTES_MAX)?,
            text: state == TEXT,
        },
        _ => return Err(Malformed),
    };
    Ok(Some(Entry { version, state }))
}

pub(super) fn read_version(cursor: &mut Cursor<'_>) -> Result<Version, Malformed> {
    let version = Version {
        hlc: cursor.u64()?,
        origin: cursor.u32()?,
    };
    version.is_possible().then_some(version).ok_or(Malformed)
}

pub(super) fn read_key<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], Malformed> {
    let key = read_bytes(cursor, KEY_BYTES_MAX)?;
    if key.is_empty() {
        return Err(Malformed);
    }
    Ok(key)
}

pub(super) fn read_bound<'a>(
    cursor: &mut Cursor<'a>,
    present: bool,
) -> Result<Option<&'a [u8]>, Malformed> {
    present
        .then(|| read_bytes(cursor, SCAN_BOUND_BYTES_MAX))
        .transpose()
}

fn read_bytes<'a>(cursor: &mut Cursor<'a>, bytes_max: usize) -> Result<&'a [u8], Malformed> {
    let bytes = cursor.prefixed()?;
    if bytes.len() > bytes_max {
        return Err(Malformed);
    }
    Ok(bytes)
}

pub(super) fn read_array<const N: usize>(cursor: &mut Cursor<'_>) -> Result<[u8; N], Malformed> {
    cursor.bytes(N)?.first_chunk().copied().ok_or(Malformed)
}

pub(super) fn read_flags(cursor: &mut Cursor<'_>, known: u8) -> Result<u8, Malformed> {
    let flags = cursor.u8()?;
    if flags & !known != 0 {
        return Err(Malformed);
    }
    Ok(flags)
}

impl From<Short> for Malformed {
    fn from(_: Short) -> Malformed {
        Malformed
    }
}

/// One message of each shape, as spelled by tests/golden/wire/frame.py.
#[cfg(test)]
pub(super) mod samples {
    use super::*;
    use crate::base::slices::Slice;
    use crate::wire::compare::{Sum, Window};

    fn version(hlc: u64) -> Version {
        Version { hlc, origin: 7 }
    }

    fn row(key: &'static [u8], hlc: u64, state: State<'static>) -> Row<'static> {
        let version = version(hlc);
        Row {
            key,
            entry: Entry { version, state },
        }
    }

    fn live(value: &'static [u8], text: bool) -> State<'static> {
        State::Live { value, text }
    }

    pub(crate) fn rows() -> Vec<Row<'static>> {
        vec![
            row(b"a", 5, live(b"xy", true)),
            row(b"b\xff", 0x0102_0304_0506_0708, live(b"\x00\xff", false)),
            row(b"c", 6, State::Deleted),
            row(&[b'k'; 200], 7, live(b"", true)),
        ]
    }

    fn slices() -> Slices {
        let mut slices = Slices::NONE;
        for slice in Slice::all().filter(|slice| [0, 9, 4095].contains(&slice.index())) {
            slices.insert(slice);
        }
        slices
    }

    fn compare(after: Option<&'static [u8]>) -> Compare<'static> {
        Compare {
            shard: 258,
            of: 3,
            part: 2,
            window: Window {
                young_from: 0x0102_0304_0506_0708,
                young_to: 1 << 63,
                graves_from: 9,
            },
            sum: Sum {
                rows: 4,
                sum: u64::MAX,
            },
            after,
            to: b"z\xff",
            slices: Box::new(slices()),
        }
    }

    fn requests() -> Vec<Message<'static>> {
        let scan = Scan {
            shard: 258,
            rows_max: 256,
            from: None,
            after: None,
            to: None,
            slices: None,
        };
        vec![
            Message::Ping { wall_ms: 258 },
            Message::Write {
                healing: false,
                rows: rows()[..1].to_vec(),
            },
            Message::Write {
                healing: true,
                rows: rows(),
            },
            Message::Read {
                key: b"user:1001",
                digest_only: false,
            },
            Message::Read {
                key: b"\x00",
                digest_only: true,
            },
            Message::Scan(scan.clone()),
            Message::Scan(Scan {
                from: Some(b""),
                ..scan.clone()
            }),
            Message::Scan(Scan {
                after: Some(b"m"),
                ..scan.clone()
            }),
            Message::Scan(Scan {
                to: Some(b"z"),
                ..scan.clone()
            }),
            Message::Scan(Scan {
                from: Some(b"a"),
                after: Some(b"m\xff"),
                to: Some(b"z"),
                slices: Some(Box::new(slices())),
                ..scan
            }),
            Message::Proof {
                mac: std::array::from_fn(|at| at as u8),
            },
            Message::Compare(compare(None)),
            Message::Compare(compare(Some(b"m"))),
        ]
    }

    fn answers() -> Vec<Message<'static>> {
        let got = |state| Message::Got {
            entry: Some(row(b"", 5, state).entry),
        };
        let mut answers = vec![
            Message::Pong { wall_ms: u64::MAX },
            Message::Written,
            Message::Got { entry: None },
            got(State::Deleted),
            got(live(b"xy", true)),
            got(live(b"\xff", false)),
            Message::Digest {
                version: version(5),
                sum: 0x0102_0304,
            },
            Message::digest_of(None),
            Message::Page {
                rows: rows(),
                resume: Some(b"kkk"),
            },
            Message::Page {
                rows: Vec::new(),
                resume: None,
            },
            Message::Same,
            Message::Heads {
                heads: [5, 6]
                    .map(|hlc| Head {
                        key: hlc << 40,
                        version: version(hlc),
                    })
                    .to_vec(),
                resume: Some(b"kkk"),
            },
            Message::Heads {
                heads: Vec::new(),
                resume: None,
            },
        ];
        let whys = [
            Why::Busy,
            Why::Full,
            Why::Closed,
            Why::Unknown,
            Why::Unreadable,
            Why::Unsupported,
            Why::Late,
        ];
        answers.extend(whys.map(|why| Message::Refused { why }));
        answers
    }

    pub(crate) fn all() -> Vec<Message<'static>> {
        let unknown = [0x7f, 0xff].map(Message::Unknown);
        [requests(), answers(), unknown.to_vec()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::version::WALL_MS_MAX;

    fn body(message: &Message<'_>) -> Vec<u8> {
        let mut body = Vec::new();
        message.put_body(&mut body);
        body
    }

    /// A message that was read can be written, reads back the same, and holds no more memory than its bytes allow.
    fn check(kind: u8, bytes: &[u8], context: &str) -> bool {
        let Ok(message) = Message::read(kind, bytes) else {
            return false;
        };
        assert_eq!(message.kind(), kind, "{context}");
        let again = body(&message);
        assert_eq!(
            Message::read(kind, &again),
            Ok(message.clone()),
            "{context}"
        );
        if let Message::Write { rows, .. } | Message::Page { rows, .. } = &message {
            let memory = rows.capacity() * size_of::<Row<'_>>();
            assert!(memory <= 4 * bytes.len(), "{context}: {memory}");
            for row in rows {
                assert!((1..=KEY_BYTES_MAX).contains(&row.key.len()), "{context}");
            }
        }
        true
    }

    #[test]
    fn every_kind_round_trips_and_every_kind_has_a_sample() {
        let mut sampled = [false; 256];
        for message in samples::all() {
            let kind = message.kind();
            assert_eq!(Message::read(kind, &body(&message)), Ok(message.clone()));
            let is_request = samples::all()[..13].contains(&message) || kind == 0x7f;
            assert_eq!(message.is_answer(), !is_request, "{message:?}");
            sampled[usize::from(kind)] |= message != Message::Unknown(kind);
        }
        for kind in 0..=255 {
            let known = Message::read(kind, &[]) != Ok(Message::Unknown(kind));
            assert_eq!(known, sampled[usize::from(kind)], "kind {kind:#x}");
        }
        assert_eq!(Message::read(0x7f, b"anything"), Ok(Message::Unknown(0x7f)));
    }

    #[test]
    fn a_body_with_bytes_missing_or_left_over_is_none() {
        for message in samples::all() {
            let kind = message.kind();
            let whole = body(&message);
            if message == Message::Unknown(kind) {
                continue;
            }
            for cut in 0..whole.len() {
                let read = Message::read(kind, &whole[..cut]);
                assert_eq!(read, Err(Malformed), "{message:?} cut at {cut}");
            }
            let longer = [&whole[..], &[0]].concat();
            assert_eq!(Message::read(kind, &longer), Err(Malformed), "{message:?}");
        }
    }

    /// The checksum would stop these; a forged or faulty sender has a good one.
    #[test]
    fn flipped_bits_and_noise_never_panic() {
        let (mut sound, mut unsound) = (0, 0);
        let mut tally = |is_sound: bool| if is_sound { sound += 1 } else { unsound += 1 };
        for message in samples::all() {
            let whole = body(&message);
            for bit in 0..whole.len() * 8 {
                let mut flipped = whole.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                tally(check(
                    message.kind(),
                    &flipped,
                    &format!("{message:?} {bit}"),
                ));
            }
        }
        let seed = 3;
        let mut rng = fastrand::Rng::with_seed(seed);
        let kinds: Vec<u8> = samples::all().iter().map(Message::kind).collect();
        for round in 0..50_000 {
            let kind = kinds[rng.usize(0..kinds.len())];
            // Small numbers pass for states, flags and lengths.
            let small = rng.bool();
            let noise: Vec<u8> = (0..rng.usize(0..70))
                .map(|_| if small { rng.u8(0..4) } else { rng.u8(..) })
                .collect();
            tally(check(kind, &noise, &format!("seed {seed} round {round}")));
        }
        assert!(sound > 3000 && unsound > 3000, "{sound} {unsound}");
    }

    #[test]
    fn counts_and_lengths_are_believed_only_as_far_as_bytes_have_come() {
        let row = [DELETED, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, b'k'];
        assert_eq!(row.len(), ROW_BYTES_MIN);
        // What is reserved for, whether or not rows follow in the end.
        let reserved = |count: u64, rows: usize| {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, count);
            bytes.extend_from_slice(&row.repeat(rows));
            let count = read_count(&mut Cursor::new(&bytes)).ok();
            let body = [&[0], &bytes[..]].concat();
            let whole = Message::read(WRITE, &body);
            assert_eq!(whole.is_ok(), count == Some(rows));
            count
        };
        assert_eq!(reserved(3, 3), Some(3));
        assert_eq!(reserved(2, 3), Some(2));
        assert_eq!(reserved(4, 3), None);
        assert_eq!(reserved(MESSAGE_ROWS_MAX as u64, 3), None);
        assert_eq!(reserved(u64::MAX, 3), None);
        assert_eq!(
            reserved(MESSAGE_ROWS_MAX as u64, MESSAGE_ROWS_MAX),
            Some(MESSAGE_ROWS_MAX)
        );
        assert_eq!(
            reserved(MESSAGE_ROWS_MAX as u64 + 1, MESSAGE_ROWS_MAX + 1),
            None
        );
    }

    #[test]
    fn keys_values_and_bounds_keep_their_limits() {
        let read = |key_bytes: usize| {
            let mut bytes = vec![0];
            put_prefixed(&mut bytes, &vec![b'k'; key_bytes]);
            Message::read(READ, &bytes).is_ok()
        };
        assert!(read(1) && read(KEY_BYTES_MAX));
        assert!(!read(0) && !read(KEY_BYTES_MAX + 1));
        let got = |value_bytes: usize| {
            let mut bytes = vec![LIVE; 13];
            put_prefixed(&mut bytes, &vec![b'v'; value_bytes]);
            Message::read(GOT, &bytes).is_ok()
        };
        assert!(got(VALUE_BYTES_MAX) && !got(VALUE_BYTES_MAX + 1));
        let page = |resume_bytes: usize| {
            let mut bytes = vec![SET];
            put_prefixed(&mut bytes, &vec![b'r'; resume_bytes]);
            bytes.push(0);
            Message::read(PAGE, &bytes).is_ok()
        };
        assert!(page(0) && page(SCAN_BOUND_BYTES_MAX) && !page(SCAN_BOUND_BYTES_MAX + 1));
    }

    #[test]
    fn unknown_flags_and_states_are_not_guessed_at() {
        for (kind, known) in [(WRITE, 1), (READ, 1), (SCAN, 15), (PAGE, 1)] {
            let sample = samples::all().into_iter().find(|m| m.kind() == kind);
            let mut bytes = body(&sample.unwrap());
            bytes[0] |= known + 1;
            assert_eq!(Message::read(kind, &bytes), Err(Malformed), "{kind}");
        }
        // A row is never absent.
        assert_eq!(Message::read(WRITE, &[0, 1, ABSENT]), Err(Malformed));
        let absent = [&[0, 1, ABSENT][..], &[0; 20]].concat();
        assert_eq!(Message::read(WRITE, &absent), Err(Malformed));
        let later = Message::read(REFUSED, &[200]);
        assert_eq!(later, Ok(Message::Refused { why: Why::Unknown }));
    }

    /// It could never be outdone, by no put and no deletion.
    #[test]
    fn a_version_no_clock_can_have_stamped_is_none() {
        for (wall_ms, good) in [
            (0, true),
            (WALL_MS_MAX, true),
            (WALL_MS_MAX + 1, false),
            ((1 << 48) - 1, false),
        ] {
            let version = Version {
                hlc: wall_ms << 16 | 0xffff,
                origin: u32::MAX,
            };
            for state in [
                State::Deleted,
                State::Live {
                    value: b"v",
                    text: true,
                },
            ] {
                let entry = Entry { version, state };
                let row = Row { key: b"k", entry };
                let rows = vec![row];
                for message in [
                    Message::Write {
                        healing: false,
                        rows: rows.clone(),
                    },
                    Message::Write {
                        healing: true,
                        rows: rows.clone(),
                    },
                    Message::Got { entry: Some(entry) },
                    Message::digest_of(Some(&entry)),
                    Message::Page { rows, resume: None },
                ] {
                    let read = check(message.kind(), &body(&message), "as it was written");
                    assert_eq!(read, good, "{message:?}");
                }
            }
        }
    }

    #[test]
    fn sums_tell_copies_apart_and_absence_from_emptiness() {
        let entry = |state| Entry {
            version: Version::ZERO,
            state,
        };
        let live = |value, text| entry(State::Live { value, text });
        let sums = [
            sum(&entry(State::Deleted)),
            sum(&live(b"", false)),
            sum(&live(b"\x00", false)),
            sum(&live(b"a", false)),
        ];
        for (at, sum) in sums.iter().enumerate() {
            assert!(!sums[..at].contains(sum), "{sums:?}");
        }
        assert_eq!(sum(&live(b"a", true)), sums[3]);
        let zero = Message::Digest {
            version: Version::ZERO,
            sum: 0,
        };
        assert_eq!(Message::digest_of(None), zero);
        for state in [State::Deleted, live(b"", true).state] {
            assert_ne!(Message::digest_of(Some(&entry(state))), zero);
        }
    }

    #[test]
    fn rows_are_cut_to_what_fits() {
        let rows = samples::rows();
        for row in &rows {
            let mut bytes = Vec::new();
            put_rows(&mut bytes, &[*row]);
            assert_eq!(bytes.len(), 1 + row.bytes());
        }
        let two = rows[0].bytes() + rows[1].bytes();
        assert_eq!(rows_that_fit(&rows, two), 2);
        assert_eq!(rows_that_fit(&rows, two - 1), 1);
        assert_eq!(rows_that_fit(&rows, 0), 1);
        assert_eq!(rows_that_fit(&[], 100), 0);
        assert_eq!(rows_that_fit(&rows, usize::MAX), 4);
        assert_eq!(
            rows_that_fit(&vec![rows[2]; MESSAGE_ROWS_MAX + 1], usize::MAX),
            MESSAGE_ROWS_MAX
        );
        let value = vec![0; VALUE_BYTES_MAX];
        let longest = Row {
            key: &[b'k'; KEY_BYTES_MAX],
            entry: Entry {
                version: Version::ZERO,
                state: State::Live {
                    value: &value,
                    text: false,
                },
            },
        };
        let page = Message::Page {
            rows: vec![longest],
            resume: Some(&[b'r'; SCAN_BOUND_BYTES_MAX]),
        };
        assert!(body(&page).len() <= FRAME_BODY_BYTES_MAX);
        let quarter = vec![0; 4 << 20];
        let wide = Row {
            key: b"k",
            entry: Entry {
                version: Version::ZERO,
                state: State::Live {
                    value: &quarter,
                    text: false,
                },
            },
        };
        assert_eq!(rows_that_fit(&[wide; 5], usize::MAX), 3);
    }
}
