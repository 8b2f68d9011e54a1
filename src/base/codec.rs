//! The one vocabulary for bytes on disk and on the wire: little-endian integers, varints, a checked cursor.
//!
//! Decoding never panics and never indexes unchecked: every read returns `Err(Short)` when the bytes end.

/// The bytes ended before the value did, or a varint ran past 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short;

/// Reads values off the front of a byte slice.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { rest: bytes }
    }

    /// What has not been read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], Short> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(Short)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Short)?;
        self.rest = rest;
        Ok(*head)
    }

    pub fn u8(&mut self) -> Result<u8, Short> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u16(&mut self) -> Result<u16, Short> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32, Short> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, Short> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// LEB128, at most ten bytes.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, Short> {
        match self.rest {
            [byte @ ..0x80, rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => match self.varint_in_a_word() {
                Some((word, len)) => {
                    self.rest = self.rest.get(len..).ok_or(Short)?;
                    Ok(seven_of_eight(word))
                }
                None => self.long_varint(),
            },
        }
    }

    fn long_varint(&mut self) -> Result<u64, Short> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Short);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Short)
    }

    /// Passes over a varint without decoding it; it may be malformed all the same.
    #[inline]
    pub fn skip_varint(&mut self) -> Result<(), Short> {
        if let Some((_, len)) = self.varint_in_a_word() {
            self.rest = self.rest.get(len..).ok_or(Short)?;
            return Ok(());
        }
        self.long_varint().map(|_| ())
    }

    /// The bytes of the varint, the first lowest, and how many they are; `None`: the rest does not have eight
    /// bytes, or the varint has more.
    #[inline]
    fn varint_in_a_word(&self) -> Option<(u64, usize)> {
        let word = u64::from_le_bytes(*self.rest.first_chunk::<8>()?);
        let ends = !word & 0x8080_8080_8080_8080;
        let bits = (ends != 0).then(|| ends.trailing_zeros() + 1)?;
        Some((word & (u64::MAX >> (64 - bits)), bits as usize / 8))
    }

    /// A varint length followed by that many bytes.
    pub fn prefixed(&mut self) -> Result<&'a [u8], Short> {
        let len = usize::try_from(self.varint()?).map_err(|_| Short)?;
        self.bytes(len)
    }
}

/// The lower seven bits of each byte, closed up.
fn seven_of_eight(word: u64) -> u64 {
    let pairs = (word & 0x007f_007f_007f_007f) | ((word & 0x7f00_7f00_7f00_7f00) >> 1);
    let fours = (pairs & 0x0000_3fff_0000_3fff) | ((pairs & 0x3fff_0000_3fff_0000) >> 2);
    (fours & 0x0fff_ffff) | ((fours & 0x0fff_ffff_0000_0000) >> 4)
}

/// Appends a LEB128 varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a varint length and the bytes.
pub fn put_prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Bytes [`put_varint`] would append for `value`.
#[must_use]
pub fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_at_every_width() {
        for shift in 0..64 {
            for value in [(1u64 << shift) - 1, 1 << shift, (1 << shift) | 1] {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                assert_eq!(out.len(), varint_len(value), "{value}");
                let mut cursor = Cursor::new(&out);
                assert_eq!(cursor.varint(), Ok(value));
                assert!(cursor.is_empty());
                for tail in [&[][..], &[0xff; 9]] {
                    let bytes = [&out, tail].concat();
                    let mut cursor = Cursor::new(&bytes);
                    assert_eq!((cursor.skip_varint(), cursor.rest()), (Ok(()), tail));
                    let mut cursor = Cursor::new(&bytes);
                    assert_eq!((cursor.varint(), cursor.rest()), (Ok(value), tail));
                }
                assert_eq!(Cursor::new(&out[..out.len() - 1]).varint(), Err(Short));
            }
        }
    }

    #[test]
    fn oversized_varints_and_lengths_are_refused() {
        assert_eq!(Cursor::new(&[0xff; 11]).varint(), Err(Short));
        assert_eq!(
            Cursor::new(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02]).varint(),
            Err(Short)
        );
        assert_eq!(Cursor::new(&[5, 1, 2]).prefixed(), Err(Short));
        assert_eq!(Cursor::new(&[1, 2, 3]).u32(), Err(Short));
    }
}
