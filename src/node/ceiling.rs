//! A time that no version stamped by this node has reached, kept in `CLOCK`.
//!
//! ```text
//! {"format":1,"ceiling_ms":1764000005500}\n
//! crc32:1a2b3c4d\n                            see base/sealed.rs
//!
//!  wall ─────────▶     stamps stay below ▶│ceiling         raised before the wall clock comes near
//!                                         └─ every clock of the next start begins here
//! ```
//!
//! A node that coordinates a write of which it keeps no copy has nothing on disk that tells what it has stamped. After
//! a restart with the wall clock set back it would stamp lower versions than before, and acknowledged writes would
//! lose against older ones; it could even give one version to two writes.
//!
//! Invariants: the first ceiling is on disk before any core coordinates a write. A clock is ahead of the wall by no
//! more than it follows others (`CLOCK_SKEW_MAX`), or it began ahead of it and gains one millisecond per 65536 stamps;
//! each renewal allows for both. Only a wall clock that leaps ahead and a crash within the same turn escape it.
//!
//! A stop in order lowers the ceiling to what was really reached. After a crash the next start waits until the wall clock
//! is there: clocks that begin ahead of it would stamp versions against which the writes of other members lose. Only
//! where the wall clock was set back, and the wait would be long, they begin ahead.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::NodeError;
use super::route::Router;
use crate::base::limits::CLOCK_SKEW_MAX;
use crate::base::sealed::{self, Bad};
use crate::base::time::Instant;
use crate::base::version::Version;
use crate::rt::Rt;

/// Name of the file in the data directory.
pub(super) const FILE: &str = "CLOCK";
/// Newest form of it.
const FORMAT: u32 = 1;
/// How far ahead of the wall clock a ceiling is set: what a start after a crash waits at most, but for `CLOCK_SKEW_MAX`.
const AHEAD: Duration = Duration::from_secs(2);
/// It is raised so often, and when the wall clock is nearer to it than this leaves.
const RENEWAL: Duration = Duration::from_secs(1);
/// What a clock that is ahead of the wall may gain between two renewals: six million stamps a second.
const GAIN: Duration = Duration::from_millis(100);

/// Farther than this the wall clock was set back, and is not waited for.
const WAIT_MAX: Duration = Duration::from_secs(3);

const _: () = assert!(
    AHEAD.as_millis() + CLOCK_SKEW_MAX.as_millis() + GAIN.as_millis() < WAIT_MAX.as_millis()
);

/// The ceiling as core 0 keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ceiling {
    ms: u64,
    /// Clocks that follow the wall, and others, are below this.
    wall_ms: u64,
    /// Clocks that began ahead of the wall are below this until the next renewal.
    begun_ms: u64,
    renew_at: Instant,
}

#[derive(Serialize, Deserialize)]
struct Line {
    format: u32,
    ceiling_ms: u64,
}

impl Ceiling {
    /// Of a start whose clocks begin no later than `newest_ms`.
    fn new(newest_ms: u64) -> Ceiling {
        Ceiling {
            begun_ms: newest_ms,
            ..Ceiling::default()
        }
    }

    /// The wall clock stands there; true when a new ceiling is needed.
    fn look(&mut self, now: Instant, wall_ms: u64) -> bool {
        self.wall_ms = self.wall_ms.max(wall_ms + millis(CLOCK_SKEW_MAX) + 1);
        now >= self.renew_at || self.ms < self.wall_ms + millis(AHEAD - RENEWAL)
    }

    /// What no clock has reached.
    fn least_ms(&self) -> u64 {
        self.wall_ms.max(self.begun_ms)
    }

    /// The bytes of a higher one.
    fn raise(&mut self, now: Instant) -> Vec<u8> {
        self.begun_ms += millis(GAIN);
        self.ms = self.least_ms() + millis(AHEAD);
        self.renew_at = now + RENEWAL;
        encode(self.ms)
    }
}

/// The ceiling an earlier process left, 0 when there was none.
pub(super) async fn read(rt: &Rt, dir: &Path) -> Result<u64, NodeError> {
    let path = dir.join(FILE);
    let (why, kind) = match rt.read_whole(&path).await {
        Ok(bytes) => match decode(&bytes) {
            Ok(ms) => return Ok(ms),
            Err(bad) => (bad.to_string(), None),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => (error.to_string(), Some(error.kind())),
    };
    let why = format!("{}: {why}", path.display());
    Err(NodeError::File { why, kind })
}

/// After a crash: waits until the wall clock has passed all that was stamped, if that is near.
pub(super) async fn wait_for_wall(rt: &Rt, ceiling: Version) {
    let ahead = Duration::from_millis(ceiling.wall_ms().saturating_sub(rt.wall_ms()));
    if !ahead.is_zero() && ahead <= WAIT_MAX {
        rt.sleep(ahead).await;
    }
}

fn encode(ceiling_ms: u64) -> Vec<u8> {
    let line = Line {
        format: FORMAT,
        ceiling_ms,
    };
    sealed::encode(&line)
}

fn decode(bytes: &[u8]) -> Result<u64, Bad> {
    sealed::decode(bytes, FORMAT).map(|line: Line| line.ceiling_ms)
}

fn millis(span: Duration) -> u64 {
    span.as_millis() as u64
}

impl Router {
    /// Core 0, before anybody may write: no clock of this node is ahead of `newest`.
    pub(super) async fn set_ceiling(&mut self, newest: Version) {
        let (rt, wall_ms) = (self.rt.clone(), self.rt.wall_ms());
        let Some(member) = &mut self.member else {
            return;
        };
        let mut ceiling = Ceiling::new(newest.wall_ms() + 1);
        ceiling.look(rt.now(), wall_ms);
        let bytes = ceiling.raise(rt.now());
        member.ceiling = Some(ceiling);
        // A full disk must not keep a node from serving reads; a crash and a clock set back would have to come too.
        if let Err(why) = member.clock_file.write_now(&rt, &bytes).await {
            (self.log)(&why);
        }
    }

    /// Keeps the ceiling above the clocks.
    pub(super) fn keep_ceiling(&mut self) {
        let (now, wall_ms) = (self.rt.now(), self.wall_ms);
        let Some(member) = &mut self.member else {
            return;
        };
        let Some(ceiling) = &mut member.ceiling else {
            return;
        };
        if ceiling.look(now, wall_ms) {
            member.clock_file.want(now);
        }
        if let Err(why) = member.clock_file.turn(&self.rt, || ceiling.raise(now)) {
            self.grumble.tell(&*self.log, now, FILE, &why);
        }
    }

    /// No core stamps any more: the next start need not begin above what was reached.
    pub(super) async fn lower_ceiling(&mut self) {
        let (rt, wall_ms) = (self.rt.clone(), self.rt.wall_ms());
        if let Some(member) = &mut self.member
            && let Some(ceiling) = &mut member.ceiling
        {
            ceiling.look(rt.now(), wall_ms);
            let bytes = encode(ceiling.least_ms());
            if let Err(why) = member.clock_file.write_now(&rt, &bytes).await {
                (self.log)(&why);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000_000)
    }

    fn half(halves: u64) -> Instant {
        Instant(halves * 500_000_000)
    }

    #[test]
    fn it_stays_ahead_of_the_wall_and_of_clocks_that_began_ahead_of_it() {
        let mut ceiling = Ceiling::new(0);
        assert!(ceiling.look(at(0), 10_000));
        ceiling.raise(at(0));
        assert!(ceiling.ms >= 12_500 && ceiling.ms < 14_000, "{ceiling:?}");
        assert!(!ceiling.look(half(1), 10_500), "{ceiling:?}");
        assert!(ceiling.look(at(1), 11_000));
        let before = ceiling;
        ceiling.raise(at(1));
        assert!(ceiling.ms > before.ms);
        assert!(!ceiling.look(half(3), 11_500));
        assert!(ceiling.look(half(3), 900_000), "the wall clock has leapt");
        ceiling.raise(half(3));
        assert!(ceiling.ms >= 902_500);
        // Set back again: nothing that was reached is forgotten, and stamps go on above it.
        for second in [3, 5, 7] {
            let before = ceiling;
            assert!(ceiling.look(at(second), 20_000));
            ceiling.raise(at(second));
            assert!(
                ceiling.ms >= before.ms && ceiling.least_ms() > 900_500,
                "{ceiling:?}"
            );
        }
        let mut ahead = Ceiling::new(1_000_000);
        ahead.look(at(0), 10_000);
        ahead.raise(at(0));
        assert!(ahead.ms >= 1_002_000);
        let before = ahead;
        ahead.raise(at(4));
        assert!(ahead.ms > before.ms, "they gain on it with every stamp");
    }

    #[test]
    fn the_bytes_are_golden_and_read_back() {
        let bytes = encode(1_764_000_005_500);
        assert_eq!(
            String::from_utf8_lossy(&bytes),
            "{\"format\":1,\"ceiling_ms\":1764000005500}\ncrc32:9015f5aa\n"
        );
        assert_eq!(decode(&bytes), Ok(1_764_000_005_500));
        assert!(decode(&bytes[..20]).is_err());
    }
}
