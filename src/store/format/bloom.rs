//! Pure. The filter of a table: a bloom filter in which all bits of a key lie in one cache line.
//!
//! ```text
//! payload = lines u32, line *
//! line    = 64 bytes: bit b is bit b%8 of byte b/8
//!
//! hash    = KeyHash::bloom(key)
//! line    = (hash * lines) >> 64                         128 bit product: the top bits of the hash choose
//! bit i   = (mixed >> (55 - 9*i)) & 511, i = 0..6        mixed = hash * 0xd6e8_feb8_6659_fd93: its top 54 bits
//! ```
//!
//! A false positive costs a block read, a false negative would lose a key: the bits are frozen by golden files.
//! One cache miss per lookup instead of six; at 10 bits per key about 1 in 100 absent keys passes.

use super::block::Corrupt;
use crate::base::codec::Cursor;
use crate::base::hash::KeyHash;

/// How large the filter of a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BloomSize(u64);

/// Up to here a setting means bits per key, above it means bits per table.
const BITS_PER_KEY_MAX: u64 = 64;
/// Bits per key under an absolute setting, which would saturate when tables grow.
const BITS_PER_KEY: u64 = 10;
const LINE_BITS: u64 = 512;
const LINE_BYTES: usize = 64;
const PROBES: u32 = 6;

impl BloomSize {
    /// `setting`: up to 64, bits per key; above, bits per table at least (the old meaning of BLOOM_SIZE_*, a
    /// floor under 10 bits per key). 0: no filter.
    #[must_use]
    pub const fn new(setting: u64) -> BloomSize {
        BloomSize(setting)
    }

    fn lines(self, keys: usize) -> usize {
        let keys = keys as u64;
        let bits = if self.0 <= BITS_PER_KEY_MAX {
            keys.saturating_mul(self.0)
        } else {
            // More than 64 bits per key buy nothing but memory: a small table does not get them.
            let floor = self.0.min(keys.saturating_mul(BITS_PER_KEY_MAX));
            keys.saturating_mul(BITS_PER_KEY).max(floor)
        };
        usize::try_from(bits.div_ceil(LINE_BITS)).expect("hashes of all keys fit in memory")
    }
}

/// The filter of one table in memory.
pub struct Filter {
    lines: Vec<Line>,
}

/// One cache line, so that a lookup misses once.
#[derive(Clone)]
#[repr(align(64))]
struct Line([u64; 8]);

impl Filter {
    /// An empty filter for so many keys.
    #[must_use]
    pub fn new(size: BloomSize, keys: usize) -> Filter {
        Filter {
            lines: vec![Line([0; 8]); size.lines(keys)],
        }
    }

    /// False: the key is certainly not in the table.
    #[must_use]
    pub fn may_hold(&self, hash: KeyHash) -> bool {
        let hash = hash.bloom();
        let Some(Line(words)) = self.lines.get(line_of(hash, self.lines.len())) else {
            return true; // no filter
        };
        let mut missing = 0;
        for (word, mask) in places(hash) {
            missing |= !words[word] & mask;
        }
        missing == 0
    }

    /// Adds a key.
    pub fn insert(&mut self, hash: KeyHash) {
        let hash = hash.bloom();
        let line = line_of(hash, self.lines.len());
        if let Some(Line(words)) = self.lines.get_mut(line) {
            for (word, mask) in places(hash) {
                words[word] |= mask;
            }
        }
    }

    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let lines = u32::try_from(self.lines.len()).expect("256 GiB of filter fit no table");
        out.reserve(4 + self.lines.len() * LINE_BYTES);
        out.extend_from_slice(&lines.to_le_bytes());
        for word in self.lines.iter().flat_map(|line| line.0) {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }

    /// The filter a payload spells.
    pub fn parse(payload: &[u8]) -> Result<Filter, Corrupt> {
        let mut cursor = Cursor::new(payload);
        let count = cursor.u32()? as usize;
        let (lines, rest) = cursor.rest().as_chunks::<LINE_BYTES>();
        if lines.len() != count || !rest.is_empty() {
            return Err(Corrupt("the filter is not as long as it says"));
        }
        let lines = lines.iter().map(|bytes| {
            let (words, _) = bytes.as_chunks::<8>();
            Line(std::array::from_fn(|i| u64::from_le_bytes(words[i])))
        });
        Ok(Filter {
            lines: lines.collect(),
        })
    }

    /// Bytes the filter keeps in memory.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        (self.lines.len() * LINE_BYTES) as u64
    }
}

fn line_of(hash: u64, lines: usize) -> usize {
    ((u128::from(hash) * lines as u128) >> 64) as usize
}

/// (word of the line, bit in the word) of each probe.
fn places(hash: u64) -> impl Iterator<Item = (usize, u64)> {
    let mixed = hash.wrapping_mul(0xd6e8_feb8_6659_fd93);
    (0..PROBES).map(move |i| {
        let bit = (mixed >> (55 - 9 * i)) & (LINE_BITS - 1);
        ((bit >> 6) as usize, 1 << (bit & 63))
    })
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;
    use crate::store::format::golden;

    fn filter_of(size: BloomSize, keys: impl ExactSizeIterator<Item = KeyHash>) -> Filter {
        let mut filter = Filter::new(size, keys.len());
        keys.for_each(|hash| filter.insert(hash));
        filter
    }

    #[test]
    fn golden_bytes() {
        let keys = [
            &b""[..],
            b"a",
            b"user:1001",
            b"\xff\x00",
            b"key-4",
            b"key-5",
        ];
        let mut out = Vec::new();
        let mut filter = Filter::new(BloomSize::new(64), 24);
        for key in keys {
            filter.insert(KeyHash::of(key));
        }
        filter.encode(&mut out);
        let want = golden::bytes(include_str!("../../../tests/golden/format/bloom.txt"));
        assert_eq!(out, want);
        let filter = Filter::parse(&want).unwrap();
        assert!(keys.iter().all(|key| filter.may_hold(KeyHash::of(key))));
        let present = (0..1000u32).filter(|i| filter.may_hold(KeyHash::of(&i.to_le_bytes())));
        assert!(present.count() < 10);
    }

    /// Keys of one shard of many, whose hashes share their top bits.
    fn keys_of_shard(from: u64, count: usize) -> Vec<KeyHash> {
        (from..)
            .map(|i| KeyHash::of(format!("user:{i}").as_bytes()))
            .filter(|hash| hash.shard(16) == 3)
            .take(count)
            .collect()
    }

    #[test]
    fn absent_keys_pass_about_as_rarely_as_theory_says() {
        let present = keys_of_shard(0, 20_000);
        let absent = keys_of_shard(1 << 40, 20_000);
        for (bits, passes_max) in [(8, 600), (10, 280), (12, 150)] {
            let filter = filter_of(BloomSize::new(bits), present.iter().copied());
            assert!(present.iter().all(|&hash| filter.may_hold(hash)));
            let passes = absent.iter().filter(|&&hash| filter.may_hold(hash)).count();
            assert!(passes <= passes_max, "{passes} of 20000 at {bits} bits");
            assert!(passes > 20, "{passes}: the test measures nothing");
        }
    }

    #[test]
    fn settings_mean_bits_per_key_or_a_floor() {
        let bits = |setting, keys| BloomSize::new(setting).lines(keys) * 512;
        assert_eq!(bits(0, 1000), 0);
        assert_eq!(bits(10, 512), 5120);
        assert_eq!(
            bits(650_000, 100_000),
            1_000_448,
            "10 bits per key at least"
        );
        assert_eq!(bits(650_000, 20_000), 650_240);
        assert_eq!(bits(650_000, 10), 1024, "a few keys need no 80 KB");
        let none = filter_of(BloomSize::new(0), [KeyHash::of(b"a")].into_iter());
        assert!(none.may_hold(KeyHash::of(b"b")));
    }

    #[test]
    fn lengths_that_do_not_add_up_are_refused() {
        let mut rng = Rng::with_seed(1);
        let mut good = 2u32.to_le_bytes().to_vec();
        good.extend((0..128).map(|_| rng.u8(..)));
        assert_eq!(Filter::parse(&good).unwrap().memory_bytes(), 128);
        for len in 0..good.len() {
            assert!(Filter::parse(&good[..len]).is_err(), "{len}");
        }
        good[3] = 0xff;
        assert!(Filter::parse(&good).is_err());
    }
}
