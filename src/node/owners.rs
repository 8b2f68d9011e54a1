//! Pure. Which core owns which shard: contiguous blocks, a pure function of two numbers.
//!
//! ```text
//! 5 shards, 2 cores:   shard  0 1 2 3 4
//!                      core   0 0 0 1 1        core = shard * cores / shards
//! ```
//!
//! Nothing on disk depends on the number of cores, so a restart with another count is only another map.
//! With more cores than shards some cores own nothing and serve the network only.

use std::ops::Range;

/// The owner map of one start. Every core holds an equal copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owners {
    shards: u16,
    cores: usize,
}

impl Owners {
    /// Both must be at least 1.
    pub(crate) fn new(shards: u16, cores: usize) -> Owners {
        assert!(shards > 0 && cores > 0, "{shards} shards on {cores} cores");
        Owners { shards, cores }
    }

    pub(crate) fn shards(self) -> u16 {
        self.shards
    }

    pub(crate) fn cores(self) -> usize {
        self.cores
    }

    /// The core that owns `shard`.
    pub(crate) fn core_of(self, shard: u16) -> usize {
        usize::from(shard) * self.cores / usize::from(self.shards)
    }

    /// The block of shards `core` owns; may be empty.
    pub(crate) fn shards_of(self, core: usize) -> Range<u16> {
        // Smallest shard with shard * cores / shards >= core.
        let first = |core: usize| (core * usize::from(self.shards)).div_ceil(self.cores) as u16;
        first(core)..first(core + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_has_one_owner_and_blocks_are_contiguous_and_even() {
        for shards in [1, 2, 3, 5, 48, 1024] {
            for cores in 1..70 {
                let owners = Owners::new(shards, cores);
                let mut next = 0;
                for core in 0..cores {
                    let block = owners.shards_of(core);
                    assert_eq!(block.start, next, "{shards} shards, core {core} of {cores}");
                    assert!(
                        block.len().abs_diff(usize::from(shards) / cores) <= 1,
                        "{shards} shards, core {core} of {cores}: {block:?}"
                    );
                    next = block.end;
                    assert!(block.into_iter().all(|shard| owners.core_of(shard) == core));
                }
                assert_eq!(next, shards);
            }
        }
    }
}
