//! Pure. The frame: the envelope of one message between two nodes.
//!
//! ```text
//!  0  magic        u16  0x4B56 ("VK")
//!  2  version      u8   1
//!  3  kind         u8   of the message
//!  4  len          u32  bytes of the body, at most FRAME_BODY_BYTES_MAX
//!  8  id           u64  chosen by the dialler; the answer repeats it
//! 16  deadline_ms  u32  the sender loses interest so long after it sent this; 0: never
//! 20  crc          u32  crc32 of bytes 0..20 and the body
//! 24  body
//!
//! Ping at wall clock 258 ms, id 7, within 2000 ms:
//!   56 4b 01 01  08 00 00 00  07 00 00 00 00 00 00 00  d0 07 00 00  (crc)  02 01 00 00 00 00 00 00
//! ```
//!
//! Integers are little-endian. A frame carries one message; the driver lays many frames into one write to the
//! socket. Rejected: a list of messages in a frame, which would save 24 bytes each and cost a second level of
//! lengths, and one late message would hold the others' answers.
//!
//! The deadline is relative because clocks of two nodes are not comparable. It shrinks by the time a frame waits
//! before it is sent; the time on the wire is not counted.
//!
//! The trap: the length has no checksum of its own. A damaged one that is within bounds is noticed when the bytes
//! it claims have come, or, when they do not come, by the silence of the connection. A second checksum was
//! rejected: TCP has one, and ours is for what slips past it.

use super::message::{Malformed, Message};
use crate::base::codec::{Cursor, Short};
use crate::base::limits::FRAME_BODY_BYTES_MAX;

/// Bytes of a frame before its body.
pub const FRAME_HEAD_BYTES: usize = 24;
/// Bytes of the head that the checksum covers.
const COVERED_BYTES: usize = 20;
const MAGIC: u16 = 0x4B56;
const VERSION: u8 = 1;

// The length field can spell every length allowed.
const _: () = assert!(FRAME_BODY_BYTES_MAX <= u32::MAX as usize);

/// One whole frame; its message borrows from the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub id: u64,
    pub deadline_ms: u32,
    pub message: Message<'a>,
}

/// The bytes are no frames: close the connection; the outcome of everything in flight on it is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Something else is spoken here.
    Magic(u16),
    /// Frames of a version that the handshake did not agree on.
    Version(u8),
    /// A body longer than allowed.
    Length(u32),
    /// Damaged on the way.
    Checksum,
    /// Undamaged, and the body is none of this kind: the sender is at fault.
    Body { kind: u8 },
}

/// Appends one frame.
///
/// # Panics
/// When the body is longer than `FRAME_BODY_BYTES_MAX`: rows are cut to fit first, by `message::rows_that_fit`.
pub fn put(out: &mut Vec<u8>, id: u64, deadline_ms: u32, message: &Message<'_>) {
    let start = out.len();
    out.extend_from_slice(&MAGIC.to_le_bytes());
    out.extend_from_slice(&[VERSION, message.kind()]);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(&deadline_ms.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    message.put_body(out);
    let (head, body) = out[start..].split_at_mut(FRAME_HEAD_BYTES);
    assert!(
        body.len() <= FRAME_BODY_BYTES_MAX,
        "{} bytes in one frame",
        body.len()
    );
    head[4..8].copy_from_slice(&(body.len() as u32).to_le_bytes());
    let crc = crc(&head[..COVERED_BYTES], body);
    head[COVERED_BYTES..].copy_from_slice(&crc.to_le_bytes());
}

/// The frame at the front of `bytes` and its length; `None` while it has not come whole.
pub fn next(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, Broken> {
    let mut cursor = Cursor::new(bytes);
    let Ok(head) = Head::read(&mut cursor) else {
        return Ok(None);
    };
    // Judged before the body comes: a stranger is turned away at once, and no length is waited for in vain.
    if head.magic != MAGIC {
        return Err(Broken::Magic(head.magic));
    }
    if head.version != VERSION {
        return Err(Broken::Version(head.version));
    }
    let body_bytes = head.len as usize;
    if body_bytes > FRAME_BODY_BYTES_MAX {
        return Err(Broken::Length(head.len));
    }
    let (Some(covered), Ok(body)) = (bytes.get(..COVERED_BYTES), cursor.bytes(body_bytes)) else {
        return Ok(None);
    };
    if crc(covered, body) != head.crc {
        return Err(Broken::Checksum);
    }
    let message =
        Message::read(head.kind, body).map_err(|Malformed| Broken::Body { kind: head.kind })?;
    let frame = Frame {
        id: head.id,
        deadline_ms: head.deadline_ms,
        message,
    };
    Ok(Some((frame, FRAME_HEAD_BYTES + body_bytes)))
}

/// The fields as they lie, not judged yet.
struct Head {
    magic: u16,
    version: u8,
    kind: u8,
    len: u32,
    id: u64,
    deadline_ms: u32,
    crc: u32,
}

impl Head {
    fn read(cursor: &mut Cursor<'_>) -> Result<Head, Short> {
        Ok(Head {
            magic: cursor.u16()?,
            version: cursor.u8()?,
            kind: cursor.u8()?,
            len: cursor.u32()?,
            id: cursor.u64()?,
            deadline_ms: cursor.u32()?,
            crc: cursor.u32()?,
        })
    }
}

fn crc(covered: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(covered);
    hasher.update(body);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::golden;
    use crate::wire::message::samples;

    const GOLDEN: &str = include_str!("../../tests/golden/wire/frame.txt");

    /// The id and the deadline that frame.py gives to the frame at this place.
    fn envelope(at: usize) -> (u64, u32) {
        (0x0102_0304_0506_0700 + at as u64, 2000 + at as u32)
    }

    fn framed(at: usize, message: &Message<'_>) -> Vec<u8> {
        let (id, deadline_ms) = envelope(at);
        let mut out = Vec::new();
        put(&mut out, id, deadline_ms, message);
        out
    }

    /// Two versions of this program meet in these bytes. The golden file was made by
    /// tests/golden/wire/frame.py, not by this code.
    #[test]
    fn golden_bytes_both_ways() {
        let golden = golden::blocks(GOLDEN);
        assert_eq!(golden.len(), samples::all().len());
        for (at, ((title, bytes), message)) in golden.iter().zip(samples::all()).enumerate() {
            assert_eq!(&framed(at, &message), bytes, "{title}");
            let (id, deadline_ms) = envelope(at);
            let frame = Frame {
                id,
                deadline_ms,
                message,
            };
            assert_eq!(next(bytes), Ok(Some((frame, bytes.len()))), "{title}");
        }
    }

    #[test]
    fn frames_laid_end_to_end_come_apart_wherever_the_stream_is_cut() {
        let mut stream = Vec::new();
        for (at, message) in samples::all().iter().enumerate() {
            let (id, deadline_ms) = envelope(at);
            put(&mut stream, id, deadline_ms, message);
        }
        for cut in 0..=stream.len() {
            let mut rest = &stream[..cut];
            let mut whole = 0;
            while let Some((frame, len)) = next(rest).unwrap() {
                assert_eq!(frame.message, samples::all()[whole]);
                whole += 1;
                rest = &rest[len..];
            }
            let bytes: usize = (0..whole)
                .map(|at| framed(at, &samples::all()[at]).len())
                .sum();
            assert_eq!(bytes + rest.len(), cut, "bytes are lost at cut {cut}");
            let following = samples::all().get(whole).map(|m| framed(whole, m).len());
            assert!(
                following.is_none_or(|len| rest.len() < len),
                "a whole frame waits at cut {cut}"
            );
        }
    }

    /// Only a longer length is not seen at once: then bytes are missing.
    #[test]
    fn every_bit_of_a_frame_counts() {
        for (title, bytes) in golden::blocks(GOLDEN) {
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                match next(&flipped) {
                    Err(_) => {}
                    Ok(None) => assert!((4..8).contains(&(bit / 8)), "{title}, bit {bit}"),
                    Ok(Some(frame)) => panic!("{title}, bit {bit}: {frame:?}"),
                }
            }
        }
    }

    #[test]
    fn strangers_are_turned_away_by_their_head() {
        let good = framed(0, &Message::Written);
        let with = |at: usize, bytes: &[u8]| {
            let mut head = good[..FRAME_HEAD_BYTES].to_vec();
            head[at..at + bytes.len()].copy_from_slice(bytes);
            next(&head).map(|frame| frame.is_some())
        };
        assert_eq!(with(0, b"VK"), Ok(true));
        assert_eq!(with(0, b"HTTP/1.1"), Err(Broken::Magic(0x5448)));
        assert_eq!(with(2, &[2]), Err(Broken::Version(2)));
        let max = FRAME_BODY_BYTES_MAX as u32;
        assert_eq!(with(4, &max.to_le_bytes()), Ok(false));
        assert_eq!(
            with(4, &(max + 1).to_le_bytes()),
            Err(Broken::Length(max + 1))
        );
        assert_eq!(with(20, &[0; 4]), Err(Broken::Checksum));
    }

    /// A sound checksum does not make a sound body.
    #[test]
    fn a_body_of_another_kind_is_the_senders_fault() {
        let mut bytes = framed(0, &Message::Ping { wall_ms: 1 });
        bytes[3] = Message::Written.kind();
        let crc = crc(&bytes[..COVERED_BYTES], &bytes[FRAME_HEAD_BYTES..]);
        bytes[COVERED_BYTES..FRAME_HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(next(&bytes), Err(Broken::Body { kind: bytes[3] }));
    }

    #[test]
    fn noise_is_never_a_frame_and_never_a_panic() {
        let seed = 11;
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut broken = 0;
        for round in 0..20_000 {
            let mut noise: Vec<u8> = (0..rng.usize(0..80)).map(|_| rng.u8(..)).collect();
            // Half of them pass for a head, so that what lies behind it is reached too.
            if round % 2 == 0 {
                let front = [0x56, 0x4b, 1, rng.u8(..), rng.u8(0..60), 0, 0, 0];
                for (place, byte) in noise.iter_mut().zip(front) {
                    *place = byte;
                }
            }
            match next(&noise) {
                Err(_) => broken += 1,
                Ok(None) => {}
                Ok(Some(frame)) => panic!("seed {seed} round {round}: {frame:?}"),
            }
        }
        assert!(broken > 10_000, "the noise was too short: {broken}");
    }
}
