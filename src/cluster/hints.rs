//! Pure. Pace and bounds of hinted handoff to one target: when to replay, how much, and what no longer fits.
//!
//! ```text
//!  a write missed the target ─ offer ─┬─ Keep ────▶ log ──── Replay, window bytes ─▶ Acked | Failed | Empty
//!                                     └─ Overflow ▶ dirty ── Page, window bytes ───▶ PageDone | Failed
//! ```
//!
//! A hint that is kept counts as pending until the target has acknowledged it; nothing else takes it off. What
//! does not fit leaves its slice dirty, and a dirty slice stays so until a pass that began after the last mark has
//! ended. So a target that is gone for ever costs `bytes_max` and 512 bytes.
//!
//! A pass brings all slices that were dirty when it began up to date at once: keys lie in their own order and not
//! in that of slices, so that one slice costs as long a walk over the shard as all of them. What is marked while it
//! is under way waits for the next. A pass outlives failures, and the target's absence: it goes on behind the last
//! row that was acknowledged, because what was acknowledged is on the target's disk, and what was written behind its
//! back since was sent, hinted or marked. Begun anew each time, a long pass to a target that comes and goes would
//! never end. It does not outlive this process: only whole slices are noted on disk.
//!
//! Pace: at most one batch or one page is on its way. Both grow by a tenth per acknowledged one and halve when one
//! fails, and failures are followed by a pause: a fixed rate either takes hours or keeps a weak target down. Hints
//! made while the target was Up are a sign of overload; replaying them into that very overload makes more of them,
//! so they wait for a quiet second, but not for ever.
//!
//! What it does not do: it neither holds nor orders hints (the log does), nor decides what becomes of a hint
//! whose target is no replica any more.

use std::time::Duration;

use crate::base::planted::{self, Bug};
use crate::base::slices::{Slice, Slices};
use crate::base::time::Instant;

/// First batch or page after the target's return: a fraction of a millisecond of its disk, so that a cold node is not
/// greeted with a flood.
pub const WINDOW_BYTES_START: u32 = 64 << 10;
/// Largest batch or page: a sixteenth of the longest frame, so that no other traffic waits long behind one.
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

/// Handoff of one shard to one target. Only its core calls it, and answers each [`Step::Replay`] and
/// [`Step::Page`] with exactly one event.
#[derive(Debug)]
pub struct Handoff {
    bytes_max: u64,
    /// Bytes in the log that no one has acknowledged.
    pending: u64,
    /// The log said that it has nothing more. Not the same as `pending == 0`: what the log says of itself is
    /// believed over a sum of what it was given.
    drained: bool,
    dirty: Slices,
    /// Of the dirty slices those that are clean once the pass under way has ended; `None`: no pass has begun.
    pass: Option<Box<Slices>>,
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
}

/// What is on its way to the target.
#[derive(Debug)]
enum Flight {
    /// Hints that were added behind the batch's back: what an empty log cannot speak for.
    Batch {
        added: Option<Fresh>,
        added_bytes: u64,
    },
    /// Rows of the pass.
    Page,
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
    /// Batch or page was not acknowledged, perhaps in part done.
    Failed,
    /// The log had nothing for the batch.
    Empty,
    /// The target has acknowledged the page, or it was `empty`. `last`: so ends the pass; of its slices the target
    /// has everything that this shard had when it began.
    PageDone {
        empty: bool,
        last: bool,
    },
    /// Time has passed.
    Tick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing to do before the next event; `until`: come back with `Tick`.
    Idle { until: Option<Instant> },
    /// Send hints from the front of the log: as many as fit, one at least.
    Replay { bytes_max: u32 },
    /// Send rows of the slices in [`Handoff::pass`], as many as fit, one at least: those behind the last ones of this
    /// pass that were acknowledged.
    Page { bytes_max: u32 },
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
            pass: None,
            up: false,
            gone_since: None,
            flight: None,
            window: WINDOW_BYTES_START,
            pause: PAUSE_MIN,
            paused_until: Instant(0),
            fresh: None,
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
        if let Some(pass) = &mut self.pass
            && !planted::is(Bug::MarkOverlooked)
        {
            // It may be behind the pass already.
            pass.remove(slice);
        }
    }

    /// What the pass under way is about. Slices that were marked again since it began are not in it any more.
    #[must_use]
    pub fn pass(&self) -> Option<&Slices> {
        self.pass.as_deref()
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
                self.grow();
            }
            (Event::Empty, Some(Flight::Batch { added, added_bytes })) => {
                self.drained = added.is_none();
                self.pending = *added_bytes;
                // If the target was Down then, they wait one second for nothing; not worth a flag.
                self.fresh = *added;
                self.flight = None;
            }
            (Event::PageDone { empty, last }, Some(Flight::Page)) => {
                self.flight = None;
                if !empty {
                    self.grow();
                }
                if last && let Some(pass) = self.pass.take() {
                    self.dirty.subtract(&pass);
                }
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

    /// The target copes.
    fn grow(&mut self) {
        self.window = (self.window + self.window / 10).min(WINDOW_BYTES_MAX);
        self.pause = PAUSE_MIN;
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

    /// The log first, between any two pages too: it holds the newest of what is missing, and a pass may take hours.
    fn step(&mut self, now: Instant) -> Step {
        let nothing = self.drained && self.dirty.is_empty();
        if !self.up || self.flight.is_some() || nothing {
            return Step::Idle { until: None };
        }
        let due = self.paused_until.max(self.quiet_from());
        if due > now {
            return Step::Idle { until: Some(due) };
        }
        let bytes_max = self.window;
        if self.drained {
            let begin = || Box::new(self.dirty.clone());
            let pass = self.pass.get_or_insert_with(begin);
            if planted::is(Bug::MarkClearedEarly) {
                self.dirty.subtract(pass);
            }
            self.flight = Some(Flight::Page);
            Step::Page { bytes_max }
        } else {
            let (added, added_bytes) = (None, 0);
            self.flight = Some(Flight::Batch { added, added_bytes });
            Step::Replay { bytes_max }
        }
    }

    /// From when on hints of an overload may be replayed.
    fn quiet_from(&self) -> Instant {
        self.fresh.map_or(Instant(0), |fresh| {
            (fresh.last + QUIET).min(fresh.first + REPLAY_DELAY_MAX)
        })
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
    use crate::base::planted::HANDOFF_BUGS;
    use std::collections::{BTreeMap, VecDeque};
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
            Step::Page { bytes_max } => format!("page {bytes_max}"),
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
            "page" | "end" => Event::PageDone {
                empty: words.get(2) == Some(&"empty"),
                last: words[1] == "end",
            },
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
            let numbers = |slices: &Slices| slices.iter().map(Slice::index).collect::<Vec<_>>();
            let (pending, dirty) = (handoff.pending(), numbers(handoff.marked()));
            write!(
                out,
                "{line:<20} {answer:<20} pending {pending} dirty {dirty:?}"
            )
            .expect("a string takes all");
            if let Some(pass) = handoff.pass() {
                write!(out, " pass {:?}", numbers(pass)).expect("a string takes all");
            }
            out.push('\n');
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

    const KEYS: u16 = 40;

    /// A shard with its log, a driver, and a target that fails at random.
    struct World {
        rng: fastrand::Rng,
        handoff: Handoff,
        now: Instant,
        up: bool,
        gone_since: Option<Instant>,
        /// Newest version of each key, here and there.
        rows: BTreeMap<u16, u32>,
        target: BTreeMap<u16, u32>,
        log: VecDeque<Hint>,
        /// The slices the driver walks over, and the key it goes on behind.
        walk: Option<(Slices, Option<u16>)>,
        /// What the last step asked for.
        flight: Option<Flight>,
        passes: usize,
        examined: usize,
    }

    #[derive(Clone, Copy)]
    struct Hint {
        key: u16,
        version: u32,
        bytes: u64,
    }

    enum Flight {
        Batch(Vec<Hint>),
        Page {
            rows: Vec<(u16, u32)>,
            resume: Option<u16>,
        },
    }

    fn slice_of(key: u16) -> Slice {
        slice(usize::from(key) % 7 * 500)
    }

    impl World {
        fn new(seed: u64) -> World {
            World {
                rng: fastrand::Rng::with_seed(seed),
                handoff: Handoff::new(BYTES_MAX),
                now: Instant(0),
                up: false,
                gone_since: None,
                rows: BTreeMap::new(),
                target: BTreeMap::new(),
                log: VecDeque::new(),
                walk: None,
                flight: None,
                passes: 0,
                examined: 0,
            }
        }

        fn pending(&self) -> u64 {
            self.log.iter().map(|hint| hint.bytes).sum()
        }

        /// A write that everybody gets but the target.
        fn miss(&mut self) {
            let key = self.rng.u16(..KEYS);
            let newest = self.rows.entry(key).or_default();
            *newest += 1;
            let version = *newest;
            let bytes = self.rng.u64(1..9000);
            let gone = !self.up && self.now - *self.gone_since.get_or_insert(self.now) > OUTAGE_MAX;
            let fits = self.pending() + bytes <= BYTES_MAX;
            match self.handoff.offer(self.now, slice_of(key), bytes) {
                Verdict::Keep => {
                    assert!(fits && !gone);
                    self.log.push_back(Hint {
                        key,
                        version,
                        bytes,
                    });
                }
                Verdict::Overflow => assert!(gone || !fits),
            }
        }

        /// A write whose hint the disk refuses.
        fn lose(&mut self) {
            let key = self.rng.u16(..KEYS);
            *self.rows.entry(key).or_default() += 1;
            self.handoff.mark(slice_of(key));
        }

        fn store(&mut self, key: u16, version: u32) {
            let held = self.target.entry(key).or_default();
            *held = version.max(*held);
        }

        /// Reads one page of the pass, as the driver does.
        fn read_page(&mut self, rows_max: usize) {
            let begin = || (self.handoff.pass().expect("a pass").clone(), None);
            let (slices, after) = self.walk.clone().unwrap_or_else(|| {
                self.passes += 1;
                begin()
            });
            let mut rows = Vec::new();
            let mut resume = None;
            let from = after.map_or(0, |after| after + 1);
            for (&key, &version) in self.rows.range(from..) {
                self.examined += 1;
                if slices.contains(slice_of(key)) {
                    rows.push((key, version));
                }
                if rows.len() >= rows_max {
                    resume = Some(key);
                    break;
                }
            }
            self.walk = Some((slices, after));
            self.flight = Some(Flight::Page { rows, resume });
        }

        /// The target's answer to what is on its way.
        fn answer(&mut self, fails: bool) -> Event {
            // Of what fails some may have been done.
            let kept = |rng: &mut fastrand::Rng| !fails || rng.bool();
            match self.flight.take() {
                None => Event::Tick,
                Some(Flight::Batch(hints)) => {
                    for hint in &hints {
                        if kept(&mut self.rng) {
                            self.store(hint.key, hint.version);
                        }
                    }
                    if fails {
                        return Event::Failed;
                    }
                    match hints.is_empty() {
                        true => Event::Empty,
                        false => Event::Acked {
                            bytes: self.log.drain(..hints.len()).map(|h| h.bytes).sum(),
                        },
                    }
                }
                Some(Flight::Page { rows, resume }) => {
                    for &(key, version) in &rows {
                        if kept(&mut self.rng) {
                            self.store(key, version);
                        }
                    }
                    if fails {
                        return Event::Failed;
                    }
                    self.walk = match (self.walk.take(), resume) {
                        (Some((slices, _)), Some(_)) => Some((slices, resume)),
                        _ => None,
                    };
                    Event::PageDone {
                        empty: rows.is_empty(),
                        last: resume.is_none(),
                    }
                }
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
                    let work = !self.log.is_empty() || !self.handoff.marked().is_empty();
                    if self.up && self.flight.is_none() && work {
                        let until = until.expect("work waits for a time");
                        let latest = self.now + REPLAY_DELAY_MAX;
                        assert!(until > self.now && until <= latest, "{until:?}");
                    }
                }
                Step::Replay { bytes_max } => {
                    assert!((WINDOW_BYTES_MIN..=WINDOW_BYTES_MAX).contains(&bytes_max));
                    let mut room = u64::from(bytes_max);
                    let fitting = self.log.iter().take_while(|hint| {
                        let fits = hint.bytes <= room;
                        room = room.saturating_sub(hint.bytes);
                        fits
                    });
                    let count = fitting.count().max(1).min(self.log.len());
                    let hints = self.log.iter().take(count).copied().collect();
                    self.flight = Some(Flight::Batch(hints));
                }
                Step::Page { bytes_max } => {
                    assert!((WINDOW_BYTES_MIN..=WINDOW_BYTES_MAX).contains(&bytes_max));
                    assert!(self.log.is_empty(), "the log goes first");
                    let rows_max = self.rng.usize(1..6);
                    self.read_page(rows_max);
                }
            }
        }

        /// What the target lacks is in the log, or its slice is marked.
        fn check(&self, seed: u64) {
            assert_eq!(self.handoff.pending(), self.pending(), "seed {seed}");
            for (&key, &version) in &self.rows {
                let held = self.target.get(&key).copied().unwrap_or(0);
                let hinted = |hint: &Hint| hint.key == key && hint.version == version;
                let known = held == version
                    || self.log.iter().any(hinted)
                    || self.handoff.marked().contains(slice_of(key));
                assert!(
                    known,
                    "seed {seed}: key {key} version {version} is forgotten"
                );
            }
        }

        /// Nothing fails any more.
        fn finish(&mut self, seed: u64) {
            self.on(Event::Up);
            for _ in 0..400 {
                self.now = self.now + Duration::from_secs(1);
                let event = self.answer(false);
                self.on(event);
                self.check(seed);
            }
            assert!(self.log.is_empty(), "seed {seed}");
            assert!(self.handoff.marked().is_empty(), "seed {seed}");
        }
    }

    /// Hints, losses, returns, failures and time in any order: one thing on its way at most, nothing taken off the
    /// books that the target has not got, and in the end nothing left.
    #[test]
    fn nothing_is_forgotten_and_everything_ends() {
        let counts = anything_goes(0..2000);
        let (overflows, passes, resumed) = counts;
        assert!(
            overflows > 1000 && passes > 1000 && resumed > 100,
            "{counts:?}"
        );
    }

    #[test]
    fn planted_bugs_are_caught() {
        for bug in HANDOFF_BUGS {
            planted::plant(Some(bug));
            let seen = (0..2000)
                .find(|seed| std::panic::catch_unwind(|| anything_goes(*seed..seed + 1)).is_err());
            planted::plant(None);
            assert!(seen.is_some(), "nobody sees {bug:?}");
        }
    }

    /// How much was marked at the end of the disorder, how many passes there were, and how often one was interrupted.
    fn anything_goes(seeds: std::ops::Range<u64>) -> (usize, usize, usize) {
        let (mut overflows, mut passes, mut resumed) = (0, 0, 0);
        for seed in seeds {
            let mut world = World::new(seed);
            for _ in 0..world.rng.usize(1..300) {
                let far = if world.rng.u8(0..40) == 0 { 20_000 } else { 3 };
                let step = Duration::from_millis(world.rng.u64(0..far * 1000));
                world.now = world.now + step;
                match world.rng.u8(0..10) {
                    0..3 => world.miss(),
                    3 if world.rng.bool() => world.lose(),
                    4 => world.on(Event::Up),
                    5 if world.rng.bool() => {
                        world.on(Event::Down);
                        let midway = matches!(&world.walk, Some((_, Some(_))));
                        resumed += usize::from(midway);
                    }
                    6 => world.on(Event::Tick),
                    _ => {
                        let fails = !world.up || world.rng.u8(0..4) == 0;
                        let event = world.answer(fails);
                        world.on(event);
                    }
                }
                world.check(seed);
            }
            overflows += world.handoff.marked().len();
            world.finish(seed);
            passes += world.passes;
        }
        (overflows, passes, resumed)
    }

    /// All slices of a shard cost one walk over it.
    #[test]
    fn a_pass_examines_each_row_once_however_many_slices_are_dirty() {
        let mut world = World::new(1);
        world.rows = (0..10_000).map(|key| (key, 1)).collect();
        world.handoff.restore(0, &Slices::ALL);
        world.on(Event::Up);
        while world.flight.is_some() {
            assert_eq!(world.handoff.marked(), &Slices::ALL, "none before the end");
            let event = world.answer(false);
            world.on(event);
        }
        assert!(world.handoff.marked().is_empty());
        assert_eq!((world.passes, world.examined), (1, 10_000));
        assert_eq!(world.target, world.rows);
    }

    /// A pass goes on where it was interrupted, and what is marked meanwhile is another's.
    #[test]
    fn a_pass_outlives_the_targets_absence() {
        let mut world = World::new(2);
        world.rows = (0..1000).map(|key| (key, 1)).collect();
        world.handoff.restore(0, &Slices::ALL);
        world.on(Event::Up);
        for _ in 0..50 {
            let event = world.answer(false);
            world.on(event);
        }
        let done = world.target.len();
        world.on(Event::Down);
        let event = world.answer(true);
        world.on(event);
        // Behind the place that was reached.
        world.rows.insert(0, 2);
        world.handoff.mark(slice_of(0));
        world.check(2);
        world.finish(2);
        assert_eq!((done > 40, world.passes), (true, 2));
        let again = world
            .rows
            .keys()
            .filter(|key| slice_of(**key) == slice_of(0));
        // The second pass walks over all, and each interruption costs a page.
        let expected = 1000 + 1000;
        assert!(
            (expected..expected + 10).contains(&world.examined),
            "{}",
            world.examined
        );
        assert!(again.count() > 100);
        assert_eq!(world.target, world.rows);
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
