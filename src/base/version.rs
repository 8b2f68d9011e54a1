//! Versions: the total order that decides which of two writes to a key wins.
//!
//! A version is stamped once, by the core that coordinates the write, and travels with the record for ever:
//! to the WAL, to SSTables, to replicas. The larger version wins everywhere; nothing is ever re-stamped.
//!
//! ```text
//!  hlc: u64                                   origin: u32
//! | wall clock, ms since 1970: 48 | counter 16 | node 20 | core 12 |
//! ```
//!
//! Hybrid logical clock after Kulkarni et al., "Logical Physical Clocks" (2014): it never goes back even when
//! the wall clock does, and it stays within the skew of the wall clocks involved.

use std::fmt;

/// Stamp of one write. Ordered by `hlc`, then by `origin`; two writes never share one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Wall milliseconds in the upper 48 bits, a counter in the lower 16.
    pub hlc: u64,
    /// Node index (upper 20 bits) and core (lower 12) which stamped it.
    pub origin: u32,
}

/// Bits of the counter below the milliseconds.
const COUNTER_BITS: u32 = 16;

impl Version {
    /// Smaller than any stamp a clock gives out.
    pub const ZERO: Version = Version { hlc: 0, origin: 0 };

    /// Wall clock part, milliseconds since 1970.
    #[must_use]
    pub fn wall_ms(self) -> u64 {
        self.hlc >> COUNTER_BITS
    }

    /// The smallest version of the given millisecond.
    #[must_use]
    pub fn at_ms(wall_ms: u64) -> Version {
        Version {
            hlc: wall_ms << COUNTER_BITS,
            origin: 0,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{:08x}", self.hlc, self.origin)
    }
}

/// Gives out versions, strictly increasing. One per core; no other core ever touches it.
#[derive(Debug)]
pub struct Clock {
    last: u64,
    origin: u32,
}

impl Clock {
    /// `origin` must be unique among all clocks of the cluster.
    #[must_use]
    pub fn new(origin: u32) -> Clock {
        Clock { last: 0, origin }
    }

    /// The next version: the wall clock where it has advanced, else one more than the last stamp.
    pub fn stamp(&mut self, wall_ms: u64) -> Version {
        self.last = (wall_ms << COUNTER_BITS).max(self.last + 1);
        Version {
            hlc: self.last,
            origin: self.origin,
        }
    }

    /// Makes every later stamp larger than `seen`: called for versions recovered from disk.
    pub fn observe(&mut self, seen: Version) {
        self.last = self.last.max(seen.hlc);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_increase_while_the_wall_clock_stands_still_or_steps_back() {
        let mut clock = Clock::new(7);
        let a = clock.stamp(1_000);
        let b = clock.stamp(1_000);
        let c = clock.stamp(400);
        assert!(a < b && b < c);
        assert_eq!(c.wall_ms(), 1_000);
        assert!(clock.stamp(2_000).wall_ms() == 2_000);
    }

    #[test]
    fn observed_versions_are_never_reissued() {
        let mut clock = Clock::new(1);
        let recovered = Version {
            hlc: 5_000 << COUNTER_BITS | 3,
            origin: 9,
        };
        clock.observe(recovered);
        assert!(clock.stamp(10) > recovered);
    }

    #[test]
    fn text_form_is_fixed_width_hex() {
        assert_eq!(
            Version {
                hlc: 0x1a,
                origin: 2
            }
            .to_string(),
            "000000000000001a.00000002"
        );
    }
}
