//! Pure. How far this node's clock is from the other members', from what their pongs say.
//!
//! ```text
//!  ping leaves ────────── their wall clock is read ────────── pong is here
//!  sent        ◀───────────── trip ──────────────────────▶   now
//!                     taken for the middle, wrong by half the trip at most: by so much less an offset is believed
//! ```
//!
//! Of two writes the one with the higher version wins, and a version begins with the wall clock of the node that took
//! the write. A node whose clock is far from the others' takes writes that lose against older ones, or that win for as
//! long as it is ahead. So it takes none ([`Clocks::fenced`]); it still reads, and keeps what others write.
//!
//! Far from the others is: the median of all clocks that are known, our own included, lies more than
//! `CLOCK_SKEW_MAX` from ours, and more than half of the members are known. With an even number of clocks the middle one
//! nearer to ours counts: of two members nobody can tell whose clock is wrong.
//!
//! What is kept of a peer is how its wall clock stands to our run time, which no operator sets: a leap of our own wall
//! clock shows at the next look, without a pong. It is forgotten after `KEPT`, before drift could make it false.
//!
//! What it does not do: set a clock, or doubt the versions of others; `base::version` bounds what is followed.

use std::time::Duration;

use crate::base::limits::{CLOCK_SKEW_MAX, CLOCK_SKEW_TOLD};
use crate::base::member::NodeId;
use crate::base::time::Instant;

/// What a peer's clock was is believed for so long: a drift of 500 ppm makes 30 ms of it.
const KEPT: Duration = Duration::from_secs(60);
/// For so long a sample is preferred to a later one whose trip took longer.
const SHARP: Duration = Duration::from_secs(5);
/// Of an offset that was told of, before it counts as mended: so that one near the limit is told once.
const MENDED_BELOW: u64 = CLOCK_SKEW_TOLD.as_millis() as u64 / 2;
/// The same for writes.
const FREED_BELOW: u64 = CLOCK_SKEW_MAX.as_millis() as u64 - 100;

/// One line for the log. Milliseconds are what the others are ahead of us; negative: behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    Apart(NodeId, i64),
    Together(NodeId),
    /// Clients' writes are refused from now on.
    Fenced(i64),
    Freed,
}

/// The clocks of all members as one core sees them. One per core, owned by it.
#[derive(Debug)]
pub struct Clocks {
    /// By [`NodeId`]; my own is never filled.
    seen: Vec<Option<Seen>>,
    /// Who was told of.
    apart: Vec<bool>,
    offset_ms: i64,
    fenced: bool,
    news: Vec<News>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Its wall clock less our run time.
    lead_ms: i64,
    doubt: Duration,
    at: Instant,
}

impl Clocks {
    /// `members` counts me in.
    #[must_use]
    pub fn new(members: usize) -> Clocks {
        Clocks {
            seen: vec![None; members],
            apart: vec![false; members],
            offset_ms: 0,
            fenced: false,
            news: Vec::new(),
        }
    }

    /// A peer has answered a ping that left at `sent`: its wall clock stood there in between.
    pub fn heard(&mut self, node: NodeId, sent: Instant, now: Instant, wall_ms: u64) {
        let doubt = now.since(sent) / 2;
        let place = &mut self.seen[node.index()];
        let sharper = |old: &Seen| old.doubt < doubt && now.since(old.at) < SHARP;
        if place.as_ref().is_some_and(sharper) {
            return;
        }
        *place = Some(Seen {
            lead_ms: signed(wall_ms).saturating_sub(run_ms(sent + doubt)),
            doubt,
            at: now,
        });
    }

    /// Compares all clocks with ours, and returns what changed.
    pub fn judge(&mut self, now: Instant, wall_ms: u64) -> &[News] {
        self.news.clear();
        let ours = signed(wall_ms).saturating_sub(run_ms(now));
        let mut offsets = vec![0];
        for (index, place) in self.seen.iter_mut().enumerate() {
            let Some(seen) = place.filter(|seen| now.since(seen.at) < KEPT) else {
                *place = None;
                continue;
            };
            let offset = shrunk(seen.lead_ms.saturating_sub(ours), seen.doubt);
            offsets.push(offset);
            let node = NodeId(index as u16);
            let apart = &mut self.apart[index];
            if !*apart && offset.unsigned_abs() > CLOCK_SKEW_TOLD.as_millis() as u64 {
                *apart = true;
                self.news.push(News::Apart(node, offset));
            } else if *apart && offset.unsigned_abs() < MENDED_BELOW {
                *apart = false;
                self.news.push(News::Together(node));
            }
        }
        self.offset_ms = match 2 * offsets.len() > self.seen.len() {
            true => median(&mut offsets),
            false => 0,
        };
        let far = self.offset_ms.unsigned_abs();
        if !self.fenced && far > CLOCK_SKEW_MAX.as_millis() as u64 {
            self.fenced = true;
            self.news.push(News::Fenced(self.offset_ms));
        } else if self.fenced && far < FREED_BELOW {
            self.fenced = false;
            self.news.push(News::Freed);
        }
        &self.news
    }

    /// How far most clocks are ahead of ours, when that is so far that clients' writes are refused.
    #[must_use]
    pub fn fenced(&self) -> Option<i64> {
        self.fenced.then_some(self.offset_ms)
    }

    /// How far most clocks are ahead of ours; 0 when nobody can tell.
    #[must_use]
    pub fn offset_ms(&self) -> i64 {
        self.offset_ms
    }
}

/// What a peer calls its time may be anything.
fn signed(wall_ms: u64) -> i64 {
    i64::try_from(wall_ms).unwrap_or(i64::MAX)
}

fn run_ms(at: Instant) -> i64 {
    (at.0 / 1_000_000) as i64
}

/// What of an offset is certain.
fn shrunk(offset_ms: i64, doubt: Duration) -> i64 {
    let certain = offset_ms
        .unsigned_abs()
        .saturating_sub(doubt.as_millis() as u64);
    offset_ms.signum() * certain as i64
}

/// The middle one, or of two the one nearer to 0.
fn median(offsets: &mut [i64]) -> i64 {
    offsets.sort_unstable();
    let middle = [offsets[(offsets.len() - 1) / 2], offsets[offsets.len() / 2]];
    let nearer = middle
        .into_iter()
        .min_by_key(|offset| offset.unsigned_abs());
    nearer.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the wall clock stands when the run begins.
    const EPOCH_MS: u64 = 1_764_000_000_000;

    fn at(ms: u64) -> Instant {
        Instant(ms * 1_000_000)
    }

    /// A pong of a clock that is so far ahead of a right one; the trip takes `trip_ms`.
    fn pong(clocks: &mut Clocks, node: u16, now_ms: u64, ahead_ms: i64, trip_ms: u64) {
        let read = EPOCH_MS + now_ms - trip_ms / 2;
        let wall_ms = read.saturating_add_signed(ahead_ms);
        clocks.heard(NodeId(node), at(now_ms - trip_ms), at(now_ms), wall_ms);
    }

    /// Our own clock is `ours_ms` ahead of a right one.
    fn judge(clocks: &mut Clocks, now_ms: u64, ours_ms: i64) -> Vec<News> {
        let wall_ms = (EPOCH_MS + now_ms).saturating_add_signed(ours_ms);
        clocks.judge(at(now_ms), wall_ms).to_vec()
    }

    #[test]
    fn the_majority_tells_whose_clock_is_wrong() {
        // Members, our own clock, those heard of, and what comes of it.
        for (members, ours, others, offset, fenced) in [
            (3, 0, &[0, 0][..], 0, false),
            (3, 3_600_000, &[0, 0], -3_600_000, true),
            (3, -3_600_000, &[0, 20], 3_600_000, true),
            // One of the others is wrong.
            (3, 0, &[0, 3_600_000], 0, false),
            // They disagree with us and with each other: we are in the middle.
            (3, 0, &[-900, 900], 0, false),
            // Exactly the limit is within it.
            (3, -500, &[0, 0], 500, false),
            (3, -501, &[0, 0], 501, true),
            // Of two clocks nobody knows which is wrong.
            (2, 3_600_000, &[0], 0, false),
            (3, 3_600_000, &[0], 0, false),
            // Two of five agree on nothing.
            (5, 3_600_000, &[0], 0, false),
            (5, 3_600_000, &[0, 0], -3_600_000, true),
            (4, 3_600_000, &[0, 0, 0], -3_600_000, true),
            (4, 3_600_000, &[0, 0, 3_600_000], 0, false),
        ] {
            let mut clocks = Clocks::new(members);
            for (node, ahead) in others.iter().enumerate() {
                pong(&mut clocks, node as u16 + 1, 1000, *ahead, 0);
            }
            judge(&mut clocks, 1000, ours);
            let got = (clocks.offset_ms(), clocks.fenced().is_some());
            assert_eq!(got, (offset, fenced), "{members} {ours} {others:?}");
        }
    }

    #[test]
    fn each_trouble_is_told_once_and_its_end_too() {
        let mut clocks = Clocks::new(3);
        let both = |clocks: &mut Clocks, now_ms| {
            pong(clocks, 1, now_ms, 0, 2);
            pong(clocks, 2, now_ms, 0, 2);
        };
        both(&mut clocks, 500);
        assert_eq!(judge(&mut clocks, 500, 0), []);
        assert_eq!(judge(&mut clocks, 1000, 101), []);
        let apart = [1, 2].map(|node| News::Apart(NodeId(node), -200));
        assert_eq!(judge(&mut clocks, 1500, 201), apart);
        assert_eq!(judge(&mut clocks, 2000, 201), []);
        // No pong has come since: our own leap shows all the same.
        assert_eq!(judge(&mut clocks, 2500, 1001), [News::Fenced(-1000)]);
        assert_eq!(
            judge(&mut clocks, 3000, 450),
            [],
            "not far enough from the limit"
        );
        assert_eq!(judge(&mut clocks, 3500, 301), [News::Freed]);
        let together = [1, 2].map(|node| News::Together(NodeId(node)));
        assert_eq!(judge(&mut clocks, 4000, 0), together);
    }

    #[test]
    fn a_time_beyond_all_calendars_is_only_far_away() {
        let mut clocks = Clocks::new(3);
        for (node, wall_ms) in [(1, u64::MAX), (2, 1 << 63)] {
            clocks.heard(NodeId(node), at(0), at(1000), wall_ms);
        }
        judge(&mut clocks, 1000, 0);
        assert!(clocks.fenced().is_some());
        clocks.heard(NodeId(1), at(0), at(1000), 0);
        judge(&mut clocks, 1000, 0);
        assert!(clocks.fenced().is_none(), "in the middle");
    }

    #[test]
    fn a_slow_trip_proves_little_and_an_old_one_nothing() {
        let mut clocks = Clocks::new(3);
        for node in [1, 2] {
            pong(&mut clocks, node, 5_000, 2_000, 4_000);
        }
        assert_eq!(judge(&mut clocks, 5_000, 0), []);
        for node in [1, 2] {
            pong(&mut clocks, node, 6_000, 2_000, 0);
            // Later and less sharp: it changes nothing.
            pong(&mut clocks, node, 8_000, 2_000, 4_000);
        }
        judge(&mut clocks, 8_000, 0);
        assert_eq!(clocks.fenced(), Some(2_000));
        assert_eq!(judge(&mut clocks, 66_001, 0), [News::Freed]);
    }
}
