//! Pure. What is written: values of a wanted length that say to which key they belong.
//!
//! ```text
//! 000000000000002a-0001000000000007-x3Kd…      the key's number, the number of the write, filler
//! ```
//!
//! The filler is a piece of one long text, from a place that key and write choose: cheap to make (one copy) and to
//! check. Printable ASCII without quotes and backslashes, so that JSON is as long as the value.

use std::fmt;

/// How long values are, in bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sizes {
    Fixed(usize),
    /// All lengths from the first to the last are as likely.
    Between(usize, usize),
    /// Logarithms of the lengths are normal: the median, and their standard deviation.
    LogNormal {
        median: usize,
        sigma: f64,
    },
}

/// Longest value the generator makes, in bytes: the longest the server takes.
pub use crate::base::limits::VALUE_BYTES_MAX;

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sizes::Fixed(bytes) => write!(f, "{bytes}"),
            Sizes::Between(least, most) => write!(f, "{least}-{most}"),
            Sizes::LogNormal { median, sigma } => write!(f, "lognormal:{median}/{sigma}"),
        }
    }
}

/// `100`, `64-4096`, `lognormal:100/1.5`.
impl std::str::FromStr for Sizes {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Sizes, &'static str> {
        const NEEDS: &str =
            "bytes as 100, 64-4096 or lognormal:100/1.0 (median/sigma), at most 8388608";
        let bytes = |text: &str| text.parse().ok().filter(|bytes| *bytes <= VALUE_BYTES_MAX);
        if let Some(shape) = text.strip_prefix("lognormal:") {
            let (median, sigma) = shape.split_once('/').ok_or(NEEDS)?;
            let median = bytes(median).filter(|median| *median > 0).ok_or(NEEDS)?;
            let sigma = sigma
                .parse()
                .ok()
                .filter(|sigma| (0.0..=10.0).contains(sigma));
            let sigma = sigma.ok_or(NEEDS)?;
            return Ok(Sizes::LogNormal { median, sigma });
        }
        match text.split_once('-') {
            None => bytes(text).map(Sizes::Fixed).ok_or(NEEDS),
            Some((least, most)) => {
                let (least, most) = (bytes(least).ok_or(NEEDS)?, bytes(most).ok_or(NEEDS)?);
                let range = Sizes::Between(least, most);
                (least <= most).then_some(range).ok_or(NEEDS)
            }
        }
    }
}

impl Sizes {
    fn draw(self, rng: &mut fastrand::Rng) -> usize {
        match self {
            Sizes::Fixed(bytes) => bytes,
            Sizes::Between(least, most) => rng.usize(least..=most),
            Sizes::LogNormal { median, sigma } => {
                // Box and Muller, of which one of the two is enough.
                let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
                let normal = radius * (std::f64::consts::TAU * rng.f64()).cos();
                let bytes = median as f64 * (sigma * normal).exp();
                (bytes as usize).min(VALUE_BYTES_MAX)
            }
        }
    }

    fn longest(self) -> usize {
        match self {
            Sizes::Fixed(bytes) | Sizes::Between(_, bytes) => bytes,
            Sizes::LogNormal { .. } => VALUE_BYTES_MAX,
        }
    }
}

/// Two numbers in hexadecimal, and what divides them.
const HEAD_BYTES: usize = 34;
/// Places a filler may begin at.
const PLACES: usize = 4096;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";

/// Makes values, and knows its own again.
#[derive(Clone, Debug)]
pub struct Values {
    sizes: Sizes,
    text: Vec<u8>,
}

impl Values {
    #[must_use]
    pub fn new(sizes: Sizes) -> Values {
        // The same in every run, whatever its seed: one run may check what another has written. Long enough for the
        // check of values that were longer than ours.
        let mut rng = fastrand::Rng::with_seed(0x6b76);
        let bytes = PLACES + sizes.longest();
        let text = (0..bytes).map(|_| ALPHABET[rng.usize(..64)]).collect();
        Values { sizes, text }
    }

    /// Appends the value of this write of a key; each write has its own number.
    pub fn put(&self, out: &mut Vec<u8>, rng: &mut fastrand::Rng, key: u64, write: u64) {
        let bytes = self.sizes.draw(rng);
        if let Some(filler) = bytes.checked_sub(HEAD_BYTES) {
            put_hex(out, key);
            out.push(b'-');
            put_hex(out, write);
            out.push(b'-');
            out.extend_from_slice(&self.text[place(key, write)..][..filler]);
        } else {
            out.extend_from_slice(&self.text[place(key, 0)..][..bytes]);
        }
    }

    /// Whether this may be a value of the key. One too short to name its write is any write's.
    #[must_use]
    pub fn is_of(&self, value: &[u8], key: u64) -> bool {
        let (filler, place) = match value.split_at_checked(HEAD_BYTES) {
            None => (value, place(key, 0)),
            Some((head, filler)) => {
                let number = |digits: &[u8]| {
                    let digits = std::str::from_utf8(digits).ok()?;
                    u64::from_str_radix(digits, 16).ok()
                };
                let Some(write) = number(&head[17..33]) else {
                    return false;
                };
                if number(&head[..16]) != Some(key) || head[16] != b'-' || head[33] != b'-' {
                    return false;
                }
                (filler, place(key, write))
            }
        };
        // A longer value than ours was written by a run with other sizes: as far as the text goes it is checked.
        let text = &self.text[place..];
        let known = filler.len().min(text.len());
        filler[..known] == text[..known]
    }
}

fn place(key: u64, write: u64) -> usize {
    let mixed = (key ^ write.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 52) as usize % PLACES
}

fn put_hex(out: &mut Vec<u8>, number: u64) {
    let digits = (0..16).map(|at| b"0123456789abcdef"[(number >> (60 - 4 * at) & 15) as usize]);
    out.extend(digits);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_known_again_and_others_are_not() {
        let mut rng = fastrand::Rng::with_seed(1);
        for bytes in [0, 1, 33, 34, 35, 100, 5000] {
            let values = Values::new(Sizes::Fixed(bytes));
            let mut out = Vec::new();
            values.put(&mut out, &mut rng, 42, 7);
            assert_eq!(out.len(), bytes);
            assert!(values.is_of(&out, 42));
            let small = Values::new(Sizes::Fixed(10));
            assert!(small.is_of(&out, 42), "of a run with longer values");
            if bytes > 0 {
                assert!(!values.is_of(&out, 43), "{bytes}");
                let last = out.last_mut().unwrap();
                *last ^= 1;
                assert!(!values.is_of(&out, 42), "{bytes}");
            }
        }
    }

    #[test]
    fn lengths_are_as_asked() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut draw = |sizes: &str| {
            let sizes: Sizes = sizes.parse().unwrap();
            let mut lengths: Vec<_> = (0..1001).map(|_| sizes.draw(&mut rng)).collect();
            lengths.sort_unstable();
            (lengths[0], lengths[500], lengths[1000])
        };
        assert_eq!(draw("100"), (100, 100, 100));
        let (least, middle, most) = draw("64-164");
        assert!(least >= 64 && most <= 164 && (104..124).contains(&middle));
        let (least, middle, most) = draw("lognormal:100/1");
        assert!(least < 20 && (85..115).contains(&middle) && most > 500);
        for sizes in ["100", "64-4096", "lognormal:100/1.5"] {
            assert_eq!(sizes.parse::<Sizes>().unwrap().to_string(), sizes);
        }
        for wrong in [
            "",
            "x",
            "9-1",
            "8388609",
            "lognormal:0/1",
            "lognormal:1",
            "1-",
        ] {
            assert!(wrong.parse::<Sizes>().is_err(), "{wrong}");
        }
    }
}
