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

use super::limits::CLOCK_SKEW_MAX;

/// Stamp of one write. Ordered by `hlc`, then by `origin`; two writes never share one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Wall milliseconds in the upper 48 bits, a counter in the lower 16.
    pub hlc: u64,
    /// Node index (upper 20 bits) and core (lower 12) which stamped it.
    pub origin: u32,
}

/// The last millisecond a wall clock can show: Linux counts nanoseconds in 63 bits, up to the year 2262.
pub const WALL_MS_MAX: u64 = i64::MAX as u64 / 1_000_000;

// Thousands of years of stamps are left above the greatest version that is believed.
const _: () = assert!(WALL_MS_MAX < (u64::MAX >> COUNTER_BITS) / 4);

/// Bits of the core in an origin.
pub const ORIGIN_CORE_BITS: u32 = 12;
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

    /// Whether a clock can have stamped it. One that cannot be outdone by any later stamp would keep its key for ever.
    #[must_use]
    pub fn is_possible(self) -> bool {
        self.wall_ms() <= WALL_MS_MAX
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

impl Version {
    /// Reads what `Display` writes.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Version> {
        let text = std::str::from_utf8(text).ok()?;
        let (hlc, origin) = text.split_once('.')?;
        let is_hex = |text: &str, digits: usize| {
            text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        if !is_hex(hlc, 16) || !is_hex(origin, 8) {
            return None;
        }
        Some(Version {
            hlc: u64::from_str_radix(hlc, 16).ok()?,
            origin: u32::from_str_radix(origin, 16).ok()?,
        })
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

    /// As [`Clock::observe`], for versions of others: one too far ahead of the wall clock is not followed, or a
    /// single clock gone wild would take all of them along.
    pub fn observe_within(&mut self, seen: Version, wall_ms: u64) {
        if seen.wall_ms() <= wall_ms + CLOCK_SKEW_MAX.as_millis() as u64 {
            self.observe(seen);
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
    fn a_clock_gone_wild_is_not_followed() {
        let mut clock = Clock::new(1);
        clock.observe_within(Version::at_ms(10_400), 10_000);
        assert!(clock.stamp(10_000) > Version::at_ms(10_400));
        clock.observe_within(Version::at_ms(99_000), 10_000);
        assert!(clock.stamp(10_000) < Version::at_ms(10_401));
    }

    #[test]
    fn text_is_read_back_and_nothing_else_is() {
        let version = Version {
            hlc: 0xfedc_ba98_7654_3210,
            origin: 0x89ab_cdef,
        };
        assert_eq!(
            Version::parse(version.to_string().as_bytes()),
            Some(version)
        );
        for bad in [
            "",
            ".",
            "1.2",
            "+edcba9876543210.89abcdef",
            "fedcba9876543210.89abcdeg",
        ] {
            assert_eq!(Version::parse(bad.as_bytes()), None, "{bad}");
        }
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
