//! Chunked bodies, decoded as they arrive.
//!
//! ```text
//! 5;ext=1\r\n hello\r\n 0\r\n Name: value\r\n \r\n
//! Size Ext    Data  ..  Size  Trailer name/value
//! ```
//!
//! Stricter than the grammar where senders never go: at most 16 digits, no space around the size, no quoted
//! CRLF. Extensions and trailers are checked, counted against `CHUNK_OVERHEAD_BYTES_MAX` and dropped: a
//! trailer never becomes a field (RFC 9110 6.5.1).

use super::head::is_token;
use super::status::{Reject, Status};
use crate::base::limits::CHUNK_OVERHEAD_BYTES_MAX;

const SIZE_DIGITS_MAX: u8 = 16;

/// Where in a chunked body the next byte falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Size,
    Extension,
    /// Inside a quoted extension value.
    Quoted,
    /// After a backslash inside quotes.
    Escaped,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// First byte of a trailer line, or of the blank line that ends everything.
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
}

/// Decoder of one body.
#[derive(Debug)]
pub(crate) struct Chunked {
    at: At,
    digits: u8,
    overhead_bytes: u16,
    /// Of the chunk being read.
    left: u64,
}

/// What one call used up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) consumed: usize,
    pub(crate) done: bool,
}

impl Chunked {
    pub(crate) fn new() -> Chunked {
        Chunked {
            at: At::Size,
            digits: 0,
            overhead_bytes: 0,
            left: 0,
        }
    }

    /// Decodes from `input` onto `body`, which may not grow past `limit` bytes.
    pub(crate) fn decode(
        &mut self,
        input: &[u8],
        body: &mut Vec<u8>,
        limit: usize,
    ) -> Result<Taken, Reject> {
        let mut consumed = 0;
        while let Some(&byte) = input.get(consumed) {
            if self.at == At::Data {
                let rest = &input[consumed..];
                let len = rest
                    .len()
                    .min(usize::try_from(self.left).unwrap_or(usize::MAX));
                body.extend_from_slice(&rest[..len]);
                consumed += len;
                self.left -= len as u64;
                if self.left == 0 {
                    self.at = At::DataCr;
                }
                continue;
            }
            consumed += 1;
            let done = self.at == At::EndLf && byte == b'\n';
            if done {
                return Ok(Taken { consumed, done });
            }
            self.at = self.step(byte, body.len(), limit)?;
        }
        Ok(Taken {
            consumed,
            done: false,
        })
    }

    /// Judges one byte outside chunk data.
    fn step(&mut self, byte: u8, body_bytes: usize, limit: usize) -> Result<At, Reject> {
        const SIZE: Reject = Reject::bad("bad chunk size");
        const LINE: Reject = Reject::bad("bad line end in a chunked body");
        match (self.at, byte) {
            (At::Size, b'\r' | b';') => {
                if self.digits == 0 || self.left > i64::MAX as u64 {
                    return Err(SIZE);
                }
                if self.left > limit.saturating_sub(body_bytes) as u64 {
                    return Err(Reject::new(Status::ContentTooLarge, "body too large"));
                }
                Ok(if byte == b'\r' {
                    At::SizeLf
                } else {
                    At::Extension
                })
            }
            (At::Size, byte) => {
                let digit = char::from(byte).to_digit(16).ok_or(SIZE)?;
                if self.digits == SIZE_DIGITS_MAX {
                    return Err(SIZE);
                }
                self.digits += 1;
                self.left = self.left << 4 | u64::from(digit);
                Ok(At::Size)
            }
            (At::SizeLf, b'\n') => {
                self.digits = 0;
                Ok(if self.left == 0 {
                    At::TrailerStart
                } else {
                    At::Data
                })
            }
            (At::DataCr, b'\r') => Ok(At::DataLf),
            (At::DataLf, b'\n') => Ok(At::Size),
            (At::TrailerLf, b'\n') => Ok(At::TrailerStart),
            (At::Extension | At::Quoted | At::Escaped, byte) => self.extension(byte),
            (At::TrailerStart | At::TrailerName | At::TrailerValue, byte) => self.trailer(byte),
            _ => Err(LINE),
        }
    }

    fn extension(&mut self, byte: u8) -> Result<At, Reject> {
        const BAD: Reject = Reject::bad("bad chunk extension");
        self.count(Status::BadRequest)?;
        match (self.at, byte) {
            (At::Extension, b'\r') => Ok(At::SizeLf),
            (At::Escaped, byte) if is_text(byte) => Ok(At::Quoted),
            (At::Quoted, b'\\') => Ok(At::Escaped),
            (At::Quoted, b'"') => Ok(At::Extension),
            (At::Extension, b'"') => Ok(At::Quoted),
            (at, byte) if is_text(byte) => Ok(at),
            _ => Err(BAD),
        }
    }

    fn trailer(&mut self, byte: u8) -> Result<At, Reject> {
        const BAD: Reject = Reject::bad("bad trailer field");
        if (self.at, byte) == (At::TrailerStart, b'\r') {
            return Ok(At::EndLf);
        }
        self.count(Status::FieldsTooLarge)?;
        match (self.at, byte) {
            (At::TrailerStart | At::TrailerName, byte) if is_token(byte) => Ok(At::TrailerName),
            (At::TrailerName, b':') => Ok(At::TrailerValue),
            (At::TrailerValue, b'\r') => Ok(At::TrailerLf),
            (At::TrailerValue, byte) if is_text(byte) => Ok(At::TrailerValue),
            _ => Err(BAD),
        }
    }

    fn count(&mut self, status: Status) -> Result<(), Reject> {
        self.overhead_bytes += 1;
        if usize::from(self.overhead_bytes) > CHUNK_OVERHEAD_BYTES_MAX {
            return Err(Reject::new(
                status,
                "too much beside the data in a chunked body",
            ));
        }
        Ok(())
    }
}

/// What may stand in a field value.
fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | 0x20..=0x7e | 0x80..)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes with the input cut into pieces of `step` bytes.
    fn decode(input: &[u8], step: usize, limit: usize) -> Result<Option<(Vec<u8>, usize)>, u16> {
        let mut decoder = Chunked::new();
        let (mut body, mut total) = (Vec::new(), 0);
        for piece in input.chunks(step) {
            let taken = decoder
                .decode(piece, &mut body, limit)
                .map_err(|reject| reject.status.code())?;
            total += taken.consumed;
            if taken.done {
                return Ok(Some((body, total)));
            }
            assert_eq!(
                taken.consumed,
                piece.len(),
                "an unfinished body takes all there is"
            );
        }
        Ok(None)
    }

    fn check(input: &str, want: Result<Option<&str>, u16>) {
        for step in [1, 2, 3, 7, input.len().max(1)] {
            let got = decode(input.as_bytes(), step, 100);
            let got = got.map(|done| done.map(|(body, _)| String::from_utf8(body).expect("ascii")));
            assert_eq!(
                got,
                want.map(|done| done.map(str::to_owned)),
                "{:.80?} by {step}",
                input
            );
        }
    }

    #[test]
    fn bodies_decode_and_stop_at_their_end() {
        check("5\r\nhello\r\n0\r\n\r\n", Ok(Some("hello")));
        check(
            "a\r\n0123456789\r\nA;x=y\r\n0123456789\r\n00000;z\r\n\r\n",
            Ok(Some("01234567890123456789")),
        );
        check("0\r\n\r\n", Ok(Some("")));
        check(
            "1;q=\"a\\\"é;\"\r\nx\r\n0\r\nHost: evil\r\nA:\r\n\r\n",
            Ok(Some("x")),
        );
        check("5\r\nhel", Ok(None));
        let (_, used) = decode(b"1\r\nx\r\n0\r\n\r\nGET /", 3, 9)
            .expect("valid")
            .expect("whole");
        assert_eq!(used, 11);
    }

    #[test]
    fn doubt_is_refused() {
        for bad in [
            "\r\n",
            "g\r\n",
            "-1\r\n",
            "0x5\r\n",
            " 5\r\n",
            "5 \r\n",
            "+5\r\n",
            ";a\r\n",
            "5\n",
            "5;a\n",
            "5\r5",
            "5\r\nhelloX",
            "5\r\nhello\n",
            "5\r\nhell\r\n0",
            "00000000000000000\r\n",
            "FFFFFFFFFFFFFFFF\r\n",
            "1;\"a\r\n",
            "1;\"\\\r\n",
            "1;\0\r\n",
            "0\r\n a: b\r\n",
            "0\r\nnocolon\r\n",
            "0\r\n: v\r\n",
            "0\r\na : v\r\n",
            "0\r\na:\0\r\n",
            "0\r\na: b\n",
            "0\r\n\rx",
            "0\r\n\n",
        ] {
            check(bad, Err(400));
        }
    }

    #[test]
    fn limits_hold() {
        check("65\r\n", Err(413));
        check(
            &format!("{}0\r\n\r\n", "a\r\n0123456789\r\n".repeat(11)),
            Err(413),
        );
        check(&format!("1;{}\r\n", "a".repeat(5000)), Err(400));
        check(
            &format!(
                "{}0\r\n\r\n",
                format!("1;{}\r\nx\r\n", "a".repeat(90)).repeat(50)
            ),
            Err(400),
        );
        check(&format!("0\r\nA: {}\r\n\r\n", "a".repeat(5000)), Err(431));
        let many = format!("{}0\r\n\r\n", "1\r\nx\r\n".repeat(100_000));
        let (body, _) = decode(many.as_bytes(), 4096, 100_000)
            .expect("valid")
            .expect("whole");
        assert_eq!(body.len(), 100_000);
    }
}
