//! The one durable hash, and the in-memory maps.
//!
//! `xxh3_128(key)` is computed once per request. Its halves are independent: the high half places the key on
//! the ring, the low half picks the shard. Both outlive the process (the shard decides the folder a key lies
//! in), so the function is frozen and pinned by golden vectors below.

use xxhash_rust::xxh3::xxh3_128;

/// Hash of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHash(u128);

impl KeyHash {
    #[must_use]
    pub fn of(key: &[u8]) -> KeyHash {
        KeyHash(xxh3_128(key))
    }

    /// Place on the ring.
    #[must_use]
    pub fn token(self) -> u64 {
        (self.0 >> 64) as u64
    }

    /// Shard of this key among `shards`: a multiplicative range reduction (Lemire), never a modulo, so that
    /// neighbouring hashes stay in one shard and every bit of the low half counts.
    #[must_use]
    pub fn shard(self, shards: u16) -> u16 {
        let low = u128::from(self.0 as u64);
        ((low * u128::from(shards)) >> 64) as u16
    }

    /// Bits for a bloom filter. Inside one shard the top bits of the low half are constant, so they are
    /// mixed again; the ring half must not be reused either (a node owns only some tokens).
    #[must_use]
    pub fn bloom(self) -> u64 {
        (self.0 as u64)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(32)
    }
}

/// ahash with fixed keys: fast, and the same order in every run so that a simulated seed replays.
#[derive(Clone, Default)]
pub struct FixedState;

impl std::hash::BuildHasher for FixedState {
    type Hasher = ahash::AHasher;
    fn build_hasher(&self) -> ahash::AHasher {
        ahash::RandomState::with_seeds(0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344)
            .build_hasher()
    }
}

/// A map for small trusted keys (tokens, file ids, offsets).
#[expect(
    clippy::disallowed_types,
    reason = "the fixed hasher makes the order repeatable"
)]
pub type Map<K, V> = std::collections::HashMap<K, V, FixedState>;

#[cfg(test)]
mod tests {
    use super::*;

    /// These values are on disks: they may never change.
    #[test]
    fn golden_vectors() {
        let rows: [(&[u8], u64, u16, u16); 4] = GOLDEN;
        for (key, token, of_two, of_48) in rows {
            let hash = KeyHash::of(key);
            assert_eq!(
                (hash.token(), hash.shard(2), hash.shard(48)),
                (token, of_two, of_48),
                "{key:?}"
            );
        }
    }

    /// Made with the reference implementation (python-xxhash), not with this code.
    const GOLDEN: [(&[u8], u64, u16, u16); 4] = [
        (b"", 0x99aa06d3014798d8, 0, 18),
        (b"user:1001", 0x2e1dbc61fb74f98a, 0, 0),
        (b"prod:1", 0x87391d5b3409a086, 0, 5),
        (b"\xff\x00", 0xf769e44b0f8d5306, 0, 2),
    ];

    #[test]
    fn shards_are_used_evenly() {
        let mut counts = [0u32; 7];
        for i in 0..70_000u32 {
            counts[usize::from(KeyHash::of(&i.to_le_bytes()).shard(7))] += 1;
        }
        assert!(
            counts.iter().all(|&n| (9_500..10_500).contains(&n)),
            "{counts:?}"
        );
    }
}
