//! Pure. Pace and bounds of hinted handoff to one target: when to replay, how much, and what no longer fits.
//!
//! ```text
//!  a write missed the target ─ offer ─┬─ Keep ────▶ log ──── Replay, window bytes ─▶ Acked | Failed | Empty
//!                                     └─ Overflow ▶ dirty ── Repair, one slice ────▶ SliceRepaired | Failed
//! ```
//!
//! A hint that is kept counts as pending until the target has acknowledged it; nothing else takes it off. What
//! does not fit leaves its slice dirty, and a dirty slice stays so until a repair of it, begun after the last
//! mark, has succeeded. So a target that is gone for ever costs `bytes_max` and 512 bytes.
//!
//! Pace: at most one batch or one slice is on its way. A batch grows by a tenth per acknowledged one and halves
//! when one fails, and failures are followed by a pause: a fixed rate either takes hours or keeps a weak target
//! down. Hints made while the target was Up are a sign of overload; replaying them into that very overload
//! makes more of them, so they wait for a quiet second, but not for ever.
//!
//! What it does not do: it neither holds nor orders hints (the log does), nor decides what becomes of a hint
//! whose target is no replica any more.

use std::time::Duration;

use crate::base::slices::{Slice, Slices};
use crate::base::time::Instant;

/// First batch after the target's return: a fraction of a millisecond of its disk, so that a cold node is not
/// greeted with a flood.
pub const WINDOW_BYTES_START: u32 = 64 << 10;
/// Largest batch: a sixteenth of the longest frame, so that no other traffic waits long behind one.
pub const WINDOW_BYTES_MAX: u32 = 1 << 20;
/// Smallest batch: one page. Still smaller ones cost a target more in round trips than they spare it.
pub const WINDOW_BYTES_MIN: u32 = 4 << 10;
/// Pause after a failure. Doubles with each one in a row up to the greatest, which stays below [`REPLAY_DELAY_MAX`].
pub const PAUSE_MIN: Duration = Duration::from_secs(1);
pub const PAUSE_MAX: Duration = Duration::from_secs(8);
/// Without a new hint for this long, an overload counts as over.
pub const QUIET: Duration = Duration::from_secs(1);
/// Replay of what is pending for a target that is Up is not put off longer; also how often `Tick` is due.
pub const REPLAY_DELAY_MAX: Duration = Duration::from_secs(10);
/// A target that is gone longer gets no more hints: repairing slices is then cheaper than replaying a history
/// in which hot keys come again and again.
pub const OUTAGE_MAX: Duration = Duration::from_secs(3 * 3600);

const _: () = assert!(PAUSE_MAX.as_secs() < REPLAY_DELAY_MAX.as_secs());

/// Handoff of one core to one target. Only that core calls it, and answers each [`Step::Replay`] and
/// [`Step::Repair`] with exactly one event.
#[derive(Debug)]
pub struct Handoff {
    bytes_max: u64,
    /// Bytes in the log that no one has acknowledged.
    pending: u64,
    /// The log said that it has nothing more. Not the same as `pending == 0`: what the log says of itself is
    /// believed over a sum of what it was given.
    drained: bool,
    dirty: Slices,
    up: bool,
    /// Since when the target has been Down.
    gone_since: Option<Instant>,
    flight: Option<Flight>,
    window: u32,
    /// The next pause.
    pause: Duration,
    paused_until: Instant,
    /// The hints added since the target came up, while any of them is in the log.
    fresh: Option<Fresh>,
    /// The dirty slice tried last; the next one in order comes next, so that none can keep the others waiting.
    last_tried: Option<Slice>,
}

/// What is on its way to the target.
#[derive(Debug)]
enum Flight {
    /// Hints that were added behind the batch's back: what an empty log cannot speak for.
    Batch {
        added: Option<Fresh>,
        added_bytes: u64,
    },
    /// `marked_again`: something was lost that the repair may already have passed.
    Repair { slice: Slice, marked_again: bool },
}

#[derive(Clone, Copy, Debug)]
struct Fresh {
    first: Instant,
    last: Instant,
}

/// What becomes of a hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Append it to the log.
    Keep,
    /// Do not: its slice is marked dirty instead. The marks must reach the disk.
    Overflow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The target takes requests (again).
    Up,
    Down,
    /// The target has acknowledged the batch, so many bytes of log.
    Acked {
        bytes: u64,
    },
    /// Batch or slice was not acknowledged, perhaps in part done.
    Failed,
    /// The log had nothing for the batch.
    Empty,
    /// The target has everything of this slice that this core had when the repair began.
    SliceRepaired(Slice),
    /// Time has passed.
    Tick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing to do before the next event; `until`: come back with `Tick`.
    Idle { until: Option<Instant> },
    /// Send hints from the front of the log: as many as fit, one at least.
    Replay { bytes_max: u32 },
    /// Bring the target up to date in this slice.
    Repair(Slice),
}

impl Handoff {
    /// Nothing pending, target not Up. `bytes_max`: this core's share of the space for this target.
    #[must_use]
    pub fn new(bytes_max: u64) -> Handoff {
        Handoff {
            bytes_max,
            pending: 0,
            drained: true,
            dirty: Slices::NONE,
            up: false,
            gone_since: None,
            flight: None,
            window: WINDOW_BYTES_START,
            pause: PAUSE_MIN,
            paused_until: Instant(0),
            fresh: None,
            last_tried: None,
        }
    }

    /// Takes over what an earlier process left on disk.
    pub fn restore(&mut self, bytes_pending: u64, dirty: &Slices) {
        self.pending = bytes_pending;
        self.drained = bytes_pending == 0;
        self.dirty.union(dirty);
    }

    /// A write of `bytes` in the log has missed the target. After `Keep` while the target is Up, `Tick` tells
    /// when it will be replayed.
    pub fn offer(&mut self, now: Instant, slice: Slice, bytes: u64) -> Verdict {
        let gone = !self.up && now - *self.gone_since.get_or_insert(now) > OUTAGE_MAX;
        if gone || self.pending.saturating_add(bytes) > self.bytes_max {
            self.mark(slice);
            return Verdict::Overflow;
        }
        self.pending += bytes;
        self.drained = false;
        if self.up {
            touch(&mut self.fresh, now);
        }
        if let Some(Flight::Batch { added, added_bytes }) = &mut self.flight {
            touch(added, now);
            *added_bytes += bytes;
        }
        Verdict::Keep
    }

    /// Something of this slice is lost to the log: it overflowed, was torn, or the disk refused it.
    pub fn mark(&mut self, slice: Slice) {
        self.dirty.insert(slice);
        if let Some(Flight::Repair {
            slice: on_its_way,
            marked_again,
        }) = &mut self.flight
        {
            *marked_again |= *on_its_way == slice;
        }
    }

    /// Slices in which the target lacks something that the log does not hold.
    #[must_use]
    pub fn marked(&self) -> &Slices {
        &self.dirty
    }

    /// Bytes in the log that the target has not acknowledged.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.pending
    }

    /// What to do after an event. An answer to nothing on its way changes nothing.
    pub fn on(&mut self, now: Instant, event: Event) -> Step {
        match (event, &self.flight) {
            (Event::Up, _) if !self.up => self.returned(now),
            (Event::Down, _) => {
                self.up = false;
                self.gone_since.get_or_insert(now);
            }
            (Event::Acked { bytes }, Some(Flight::Batch { .. })) => {
                self.flight = None;
                self.pending = self.pending.saturating_sub(bytes);
                self.window = (self.window + self.window / 10).min(WINDOW_BYTES_MAX);
                self.pause = PAUSE_MIN;
            }
            (Event::Empty, Some(Flight::Batch { added, added_bytes })) => {
                self.drained = added.is_none();
                self.pending = *added_bytes;
                // If the target was Down then, they wait one second for nothing; not worth a flag.
                self.fresh = *added;
                self.flight = None;
            }
            (
                Event::SliceRepaired(done),
                Some(Flight::Repair {
                    slice,
                    marked_again,
                }),
            ) if done == *slice => {
                if !marked_again {
                    self.dirty.remove(done);
                }
                self.flight = None;
                self.pause = PAUSE_MIN;
            }
            (Event::Failed, Some(_)) => {
                self.flight = None;
                self.window = (self.window / 2).max(WINDOW_BYTES_MIN);
                self.paused_until = now + self.pause;
                self.pause = (2 * self.pause).min(PAUSE_MAX);
            }
            _ => {}
        }
        self.step(now)
    }

    /// A target that comes back is no longer what failed or was overloaded before.
    fn returned(&mut self, now: Instant) {
        self.up = true;
        self.gone_since = None;
        self.window = WINDOW_BYTES_START;
        self.pause = PAUSE_MIN;
        self.paused_until = now;
        self.fresh = None;
    }

    /// The log first: it holds the newest of what is missing, and repairs are dear.
    fn step(&mut self, now: Instant) -> Step {
        let next_slice = self.next_dirty();
        if !self.up || self.flight.is_some() || (self.drained && next_slice.is_none()) {
            return Step::Idle { until: None };
        }
        let due = self.paused_until.max(self.quiet_from());
        if due > now {
            return Step::Idle { until: Some(due) };
        }
        match next_slice {
            Some(slice) if self.drained => {
                self.last_tried = Some(slice);
                let marked_again = false;
                self.flight = Some(Flight::Repair {
                    slice,
                    marked_again,
                });
                Step::Repair(slice)
            }
            _ => {
                let (added, added_bytes) = (None, 0);
                self.flight = Some(Flight::Batch { added, added_bytes });
                let bytes_max = self.window;
                Step::Replay { bytes_max }
            }
        }
    }

    /// From when on hints of an overload may be replayed.
    fn quiet_from(&self) -> Instant {
        self.fresh.map_or(Instant(0), |fresh| {
            (fresh.last + QUIET).min(fresh.first + REPLAY_DELAY_MAX)
        })
    }

    fn next_dirty(&self) -> Option<Slice> {
        let behind = self.dirty.iter().find(|s| Some(*s) > self.last_tried);
        behind.or_else(|| self.dirty.iter().next())
    }
}

fn touch(fresh: &mut Option<Fresh>, now: Instant) {
    fresh
        .get_or_insert(Fresh {
            first: now,
            last: now,
        })
        .last = now;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::fmt::Write;

    const BYTES_MAX: u64 = 100_000;

    fn slice(number: usize) -> Slice {
        Slice::all().nth(number).expect("a slice below 4096")
    }

    fn at(seconds: f64) -> Instant {
        Instant((seconds * 1e9).round() as u64)
    }

    fn spell(step: Step) -> String {
        match step {
            Step::Idle { until: None } => "idle".into(),
            Step::Idle { until: Some(until) } => format!("idle until {}", until.0 as f64 / 1e9),
            Step::Replay { bytes_max } => format!("replay {bytes_max}"),
            Step::Repair(slice) => format!("repair {}", slice.index()),
        }
    }

    /// `SECONDS WORD [NUMBER..]` on a handoff for 100000 bytes, and what comes of it.
    fn tell(handoff: &mut Handoff, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words[at].parse::<u64>().expect("a number");
        let now = at(words[0].parse().expect("seconds"));
        let event = match words[1] {
            "offer" => {
                let verdict = handoff.offer(now, slice(number(2) as usize), number(3));
                return format!("{verdict:?}").to_lowercase();
            }
            "restore" => {
                let mut dirty = Slices::NONE;
                (3..words.len()).for_each(|at| dirty.insert(slice(number(at) as usize)));
                handoff.restore(number(2), &dirty);
                return "restored".into();
            }
            "up" => Event::Up,
            "down" => Event::Down,
            "acked" => Event::Acked { bytes: number(2) },
            "failed" => Event::Failed,
            "empty" => Event::Empty,
            "repaired" => Event::SliceRepaired(slice(number(2) as usize)),
            "tick" => Event::Tick,
            other => panic!("no such event: {other}"),
        };
        spell(handoff.on(now, event))
    }

    fn answer(story: &str) -> String {
        let mut handoff = Handoff::new(BYTES_MAX);
        let mut out = String::new();
        for line in story.lines() {
            let answer = tell(&mut handoff, line);
            let dirty: Vec<usize> = handoff.marked().iter().map(Slice::index).collect();
            let pending = handoff.pending();
            writeln!(
                out,
                "{line:<20} {answer:<20} pending {pending} dirty {dirty:?}"
            )
            .expect("a string takes all");
        }
        out
    }

    /// Stories separated by blank lines: title, events, `----`, each event with its answer. UPDATE=1 rewrites
    /// the file.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "golden files are read by tests")]
    fn golden_stories() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/golden/hints/stories.txt"
        );
        let text = std::fs::read_to_string(path).expect("golden file");
        let mut rewritten = String::new();
        for story in text.trim_end().split("\n\n") {
            let (title_and_input, _) = story.split_once("----\n").expect("a ---- line");
            let (title, input) = title_and_input.split_once('\n').expect("a title line");
            write!(rewritten, "{title}\n{input}----\n{}\n", answer(input))
                .expect("a string takes all");
        }
        let rewritten = format!("{}\n", rewritten.trim_end());
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, rewritten).expect("golden file is writable");
        } else {
            assert_eq!(text, rewritten, "run with UPDATE=1 and read the diff");
        }
    }

    /// A driver with a log, a target that fails at random, and a record of all that was lost.
    struct World {
        rng: fastrand::Rng,
        handoff: Handoff,
        now: Instant,
        up: bool,
        gone_since: Option<Instant>,
        log: VecDeque<u64>,
        dirty: Slices,
        /// What the last step asked for, and what it will cover.
        flight: Option<Flight>,
        repairs: usize,
    }

    enum Flight {
        Batch { hints: usize },
        Repair { slice: Slice, marked_again: bool },
    }

    impl World {
        fn new(seed: u64) -> World {
            World {
                rng: fastrand::Rng::with_seed(seed),
                handoff: Handoff::new(BYTES_MAX),
                now: Instant(0),
                up: false,
                gone_since: None,
                log: VecDeque::new(),
                dirty: Slices::NONE,
                flight: None,
                repairs: 0,
            }
        }

        fn pending(&self) -> u64 {
            self.log.iter().sum()
        }

        fn any_slice(&mut self) -> Slice {
            slice(self.rng.usize(0..6) * 700)
        }

        fn offer(&mut self) {
            let slice = self.any_slice();
            let bytes = self.rng.u64(1..9000);
            let gone = !self.up && self.now - *self.gone_since.get_or_insert(self.now) > OUTAGE_MAX;
            let fits = self.pending() + bytes <= BYTES_MAX;
            match self.handoff.offer(self.now, slice, bytes) {
                Verdict::Keep => {
                    assert!(fits && !gone);
                    self.log.push_back(bytes);
                }
                Verdict::Overflow => {
                    assert!(gone || !fits);
                    self.lose(slice);
                }
            }
        }

        /// The log loses something of a slice.
        fn lose(&mut self, slice: Slice) {
            self.dirty.insert(slice);
            if let Some(Flight::Repair {
                slice: other,
                marked_again,
            }) = &mut self.flight
            {
                *marked_again |= slice == *other;
            }
        }

        fn mark(&mut self) {
            let slice = self.any_slice();
            self.handoff.mark(slice);
            self.lose(slice);
        }

        /// The target's answer to what is on its way.
        fn answer(&mut self, fails: bool) -> Event {
            match self.flight.take() {
                Some(_) if fails => Event::Failed,
                Some(Flight::Batch { hints: 0 }) => Event::Empty,
                Some(Flight::Batch { hints }) => Event::Acked {
                    bytes: self.log.drain(..hints).sum(),
                },
                Some(Flight::Repair {
                    slice,
                    marked_again,
                }) => {
                    if !marked_again {
                        self.dirty.remove(slice);
                    }
                    Event::SliceRepaired(slice)
                }
                None => Event::Tick,
            }
        }

        fn on(&mut self, event: Event) {
            match event {
                Event::Up => (self.up, self.gone_since) = (true, None),
                Event::Down => {
                    self.up = false;
                    self.gone_since.get_or_insert(self.now);
                }
                _ => {}
            }
            let step = self.handoff.on(self.now, event);
            if !matches!(step, Step::Idle { .. }) {
                assert!(self.up, "{step:?} to a target that is Down");
                assert!(self.flight.is_none(), "{step:?} beside another");
            }
            match step {
                Step::Idle { until } => {
                    let work = !self.log.is_empty() || !self.dirty.is_empty();
                    if self.up && self.flight.is_none() && work {
                        let until = until.expect("work waits for a time");
                        let latest = self.now + REPLAY_DELAY_MAX;
                        assert!(until > self.now && until <= latest, "{until:?}");
                    }
                }
                Step::Replay { bytes_max } => {
                    assert!((WINDOW_BYTES_MIN..=WINDOW_BYTES_MAX).contains(&bytes_max));
                    let mut room = u64::from(bytes_max);
                    let fitting = self.log.iter().take_while(|bytes| {
                        let fits = **bytes <= room;
                        room = room.saturating_sub(**bytes);
                        fits
                    });
                    let hints = fitting.count().max(1).min(self.log.len());
                    self.flight = Some(Flight::Batch { hints });
                }
                Step::Repair(slice) => {
                    assert!(self.log.is_empty(), "the log goes first");
                    assert!(self.dirty.contains(slice));
                    self.repairs += 1;
                    let marked_again = false;
                    self.flight = Some(Flight::Repair {
                        slice,
                        marked_again,
                    });
                }
            }
        }

        fn check(&self, seed: u64) {
            assert_eq!(self.handoff.pending(), self.pending(), "seed {seed}");
            assert_eq!(*self.handoff.marked(), self.dirty, "seed {seed}");
        }
    }

    /// Hints, returns, failures and time in any order: one thing on its way at most, nothing taken off the
    /// books but by an acknowledgement, nothing lost without a mark, and in the end nothing left.
    #[test]
    fn nothing_is_forgotten_and_everything_ends() {
        let (mut overflows, mut repairs) = (0, 0);
        for seed in 0..1000 {
            let mut world = World::new(seed);
            for _ in 0..world.rng.usize(1..300) {
                let far = if world.rng.u8(0..40) == 0 { 20_000 } else { 3 };
                let step = Duration::from_millis(world.rng.u64(0..far * 1000));
                world.now = world.now + step;
                match world.rng.u8(0..10) {
                    0..4 => world.offer(),
                    4 if world.rng.bool() => world.mark(),
                    5 => world.on(Event::Up),
                    6 if world.rng.bool() => world.on(Event::Down),
                    7 => world.on(Event::Tick),
                    _ => {
                        let fails = !world.up || world.rng.u8(0..4) == 0;
                        let event = world.answer(fails);
                        world.on(event);
                    }
                }
                world.check(seed);
            }
            overflows += world.dirty.len();
            world.on(Event::Up);
            for _ in 0..200 {
                world.now = world.now + Duration::from_secs(1);
                let event = world.answer(false);
                world.on(event);
                world.check(seed);
            }
            assert!(
                world.log.is_empty() && world.dirty.is_empty(),
                "seed {seed}"
            );
            repairs += world.repairs;
        }
        assert!(overflows > 500 && repairs > 500, "{overflows} {repairs}");
    }

    /// One slice that never succeeds does not keep the others from their turn.
    #[test]
    fn a_slice_that_fails_lets_the_others_pass() {
        let mut handoff = Handoff::new(BYTES_MAX);
        let broken = slice(5);
        for number in [5, 6, 4000] {
            handoff.mark(slice(number));
        }
        let mut step = handoff.on(at(0.0), Event::Up);
        for second in 1..100 {
            let event = match step {
                Step::Repair(slice) if slice == broken => Event::Failed,
                Step::Repair(slice) => Event::SliceRepaired(slice),
                _ => Event::Tick,
            };
            step = handoff.on(at(f64::from(second)), event);
        }
        assert_eq!(handoff.marked().iter().collect::<Vec<_>>(), [broken]);
    }

    #[test]
    fn the_window_stays_within_its_bounds() {
        let mut handoff = Handoff::new(u64::MAX);
        handoff.restore(u64::MAX / 2, &Slices::NONE);
        let mut step = handoff.on(at(0.0), Event::Up);
        for _ in 0..40 {
            assert!(matches!(step, Step::Replay { .. }));
            step = handoff.on(at(0.0), Event::Acked { bytes: 1 });
        }
        let bytes_max = WINDOW_BYTES_MAX;
        assert_eq!(step, Step::Replay { bytes_max });
        for failure in 1..20 {
            let now = at(f64::from(failure) * 10.0);
            handoff.on(now, Event::Failed);
            step = handoff.on(now + PAUSE_MAX, Event::Tick);
        }
        let bytes_max = WINDOW_BYTES_MIN;
        assert_eq!(step, Step::Replay { bytes_max });
    }
}
