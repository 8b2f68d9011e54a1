//! Pure. Who answers: Up, Suspect or Down for every peer, from what was heard of it and when.
//!
//! ```text
//! Up           silent 1.5 s                                                        -> Suspect
//! Suspect      anything heard                                                      -> Up
//! Up, Suspect  silent 3 s, or refused twice in a row, or lost and then refused     -> Down
//! Down         2 pongs in a row; 4 if this is the third time down within 30 s      -> Up
//! ```
//!
//! Up and Suspect are both sent to; a Suspect is not waited for when another replica can answer. A Down peer
//! gets hints instead of writes, while the driver goes on dialling and pinging it: that is how it returns.
//!
//! At the start every peer is Up without proof, for 3 s in which only refusals count: members start one after
//! another, and a node that began with everybody Down could serve nothing. Not heard of by then is Down.
//!
//! Fixed thresholds and no accrual detector (phi): pings leave every 500 ms by our own timer, on loopback or
//! a LAN, so what phi would learn of their distances is one narrow spike. A narrow spike makes it nervous, a
//! stall makes it blind for as long as it remembers, and neither can be told to an operator. Two numbers can.
//!
//! A paused process must not blame others: when `tick` comes more than 500 ms late, the silence of all peers
//! is forgiven and counts from now. A refusal reported before that tick does not count either: the dial's
//! timer may have run out only because nobody was there to see the answer. Refusals after it count as ever.
//! The price: a core whose every tick is that late sees a death by refusals alone.
//!
//! Invariants: I am always Up to myself; silence is judged in `tick` alone, so the driver hands over what lies
//! in its sockets before it ticks; Down is left by pongs and nothing else.
//!
//! What it does not do: send pings, own connections, or move ownership. A state is the advice of one core; two
//! cores of a node may differ for a moment.

use std::time::Duration;

use super::PeerState;
use crate::base::limits::MEMBERS_MAX;
use crate::base::member::NodeId;
use crate::base::time::Instant;

/// Pause between two pings of a peer, and the longest pause between two ticks.
pub const PING_INTERVAL: Duration = Duration::from_millis(500);
/// Silence after which a peer is Suspect: two pings went unanswered and the third is due.
pub const SUSPECT_AFTER: Duration = Duration::from_millis(1500);
/// Silence after which a peer is Down; also how long a peer may stay unproven after the start.
pub const DOWN_AFTER: Duration = Duration::from_secs(3);
/// A tick later than `PING_INTERVAL` and this after the one before it means that this process stood still.
pub const TICK_LATE_MAX: Duration = Duration::from_millis(500);
/// Dials refused in a row that make a peer Down without waiting for silence. One may be a restart's.
const REFUSED_MAX: u8 = 2;
/// Pongs in a row that bring a Down peer back; one may be the last word of a dying connection.
const PONGS_TO_RETURN: u8 = 2;
/// The same for a flapping peer: each return costs replays of hints, each fall timeouts of clients.
const PONGS_TO_RETURN_FLAPPING: u8 = 2 * PONGS_TO_RETURN;
/// So many downs within `FLAP_WINDOW`, the last included, are flapping.
const FLAP_DOWNS: usize = 3;
const FLAP_WINDOW: Duration = Duration::from_secs(30);

// A stall that is not forgiven yet, on top of a pong that was just about due, never makes a peer Down.
const _: () = assert!(
    2 * PING_INTERVAL.as_millis() + TICK_LATE_MAX.as_millis() < DOWN_AFTER.as_millis()
        && SUSPECT_AFTER.as_millis() < DOWN_AFTER.as_millis()
);

/// What happened between this core and a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A good handshake, or a whole good frame other than a pong. Ends silence, but brings nobody back from
    /// Down: a frame may have lain in a buffer for long.
    Heard,
    /// A pong to one of our pings.
    Pong,
    /// A dial or its handshake failed while no connection to the peer was open.
    Refused,
    /// The last open connection to the peer ended.
    Lost,
}

/// Why a state changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nothing was heard for `SUSPECT_AFTER` or `DOWN_AFTER`.
    Silent,
    /// Nothing was heard since the start.
    NeverHeard,
    /// Dials were refused in a row.
    Refused,
    /// The connection was lost and the next dial refused.
    Lost,
    /// A Suspect spoke.
    Heard,
    /// A Down peer answered pings in a row.
    Pongs,
}

/// One line for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub node: NodeId,
    pub from: PeerState,
    pub to: PeerState,
    pub cause: Cause,
    /// Of a return, how long it was Down; else for how long nothing was heard.
    pub lasted: Duration,
}

/// All peers as one core sees them. One per core, owned by it; calls do not overlap.
#[derive(Debug)]
pub struct Detector {
    me: NodeId,
    /// One per member, my own unused.
    peers: Vec<Peer>,
    ticked: Instant,
    changes: Vec<Change>,
}

#[derive(Clone, Debug)]
struct Peer {
    state: PeerState,
    cause: Cause,
    /// The state the last tick told.
    told: PeerState,
    /// Silence counts from here: last heard, or forgiven, or started.
    heard: Instant,
    /// Ever heard.
    proven: bool,
    /// The two below since last heard.
    lost: bool,
    refused: u8,
    /// In a row, while Down.
    pongs: u8,
    pongs_to_return: u8,
    /// The latest times it went Down, newest first.
    downs: [Option<Instant>; FLAP_DOWNS],
}

impl Detector {
    /// `members` counts me in.
    #[must_use]
    pub fn new(members: usize, me: NodeId, now: Instant) -> Detector {
        assert!(
            me.index() < members && members <= MEMBERS_MAX,
            "I am a member"
        );
        let peer = Peer {
            state: PeerState::Up,
            cause: Cause::Heard,
            told: PeerState::Up,
            heard: now,
            proven: false,
            lost: false,
            refused: 0,
            pongs: 0,
            pongs_to_return: PONGS_TO_RETURN,
            downs: [None; FLAP_DOWNS],
        };
        Detector {
            me,
            peers: vec![peer; members],
            ticked: now,
            changes: Vec::new(),
        }
    }

    #[must_use]
    pub fn state(&self, node: NodeId) -> PeerState {
        self.peers[node.index()].state
    }

    /// Takes effect at once; the next tick tells it. What I hear of myself means nothing.
    pub fn on(&mut self, now: Instant, node: NodeId, event: Event) {
        if node == self.me {
            return;
        }
        let stood_still = self.stood_still(now);
        let peer = &mut self.peers[node.index()];
        match event {
            Event::Heard => peer.hear(now),
            Event::Pong => peer.pong(now),
            Event::Refused if stood_still => {}
            Event::Refused => peer.refuse(now),
            Event::Lost => {
                peer.lost = true;
                peer.pongs = 0;
            }
        }
    }

    /// Judges silence, and returns what changed since the last tick, one line for a peer at most. To be called
    /// at [`Detector::wake_at`] or earlier.
    pub fn tick(&mut self, now: Instant) -> &[Change] {
        let stood_still = self.stood_still(now);
        self.ticked = self.ticked.max(now);
        self.changes.clear();
        for (index, peer) in self.peers.iter_mut().enumerate() {
            if index == self.me.index() {
                continue;
            }
            if stood_still {
                // A Suspect stays one until it speaks; it only gets its time again.
                peer.heard = peer.heard.max(now);
            }
            peer.judge_silence(now);
            if peer.state != peer.told {
                self.changes.push(Change {
                    node: NodeId(index as u16),
                    from: peer.told,
                    to: peer.state,
                    cause: peer.cause,
                    lasted: now.since(match (peer.told, peer.downs[0]) {
                        (PeerState::Down, Some(fallen)) => fallen,
                        _ => peer.heard,
                    }),
                });
                peer.told = peer.state;
            }
        }
        &self.changes
    }

    /// When `tick` is due: the next moment silence could change a state, or the end of the longest pause.
    #[must_use]
    pub fn wake_at(&self) -> Instant {
        let peers = self.peers.iter().enumerate();
        peers
            .filter(|(index, _)| *index != self.me.index())
            .filter_map(|(_, peer)| peer.falls_at())
            .fold(self.ticked + PING_INTERVAL, Instant::min)
    }

    fn stood_still(&self, now: Instant) -> bool {
        now.since(self.ticked) > PING_INTERVAL + TICK_LATE_MAX
    }
}

impl Peer {
    fn hear(&mut self, now: Instant) {
        self.heard = self.heard.max(now);
        self.proven = true;
        self.lost = false;
        self.refused = 0;
        if self.state == PeerState::Suspect {
            self.turn(PeerState::Up, Cause::Heard);
        }
    }

    fn pong(&mut self, now: Instant) {
        if self.state == PeerState::Down {
            let in_a_row = now.since(self.heard) < SUSPECT_AFTER;
            self.pongs = if in_a_row { self.pongs + 1 } else { 1 };
            if self.pongs >= self.pongs_to_return {
                self.turn(PeerState::Up, Cause::Pongs);
            }
        }
        self.hear(now);
    }

    fn refuse(&mut self, now: Instant) {
        self.pongs = 0;
        self.refused = self.refused.saturating_add(1);
        if self.lost {
            self.fall(now, Cause::Lost);
        } else if self.refused >= REFUSED_MAX {
            self.fall(now, Cause::Refused);
        }
    }

    fn judge_silence(&mut self, now: Instant) {
        if self.falls_at().is_none_or(|at| now < at) {
            return;
        }
        match (self.proven, now.since(self.heard) >= DOWN_AFTER) {
            (false, _) => self.fall(now, Cause::NeverHeard),
            (true, true) => self.fall(now, Cause::Silent),
            (true, false) => self.turn(PeerState::Suspect, Cause::Silent),
        }
    }

    /// When silence makes the state worse, if it can.
    fn falls_at(&self) -> Option<Instant> {
        match self.state {
            PeerState::Up if self.proven => Some(self.heard + SUSPECT_AFTER),
            PeerState::Up | PeerState::Suspect => Some(self.heard + DOWN_AFTER),
            PeerState::Down => None,
        }
    }

    fn fall(&mut self, now: Instant, cause: Cause) {
        if self.state == PeerState::Down {
            return;
        }
        self.downs.rotate_right(1);
        self.downs[0] = Some(now);
        let flapping = self.downs[FLAP_DOWNS - 1].is_some_and(|at| now.since(at) <= FLAP_WINDOW);
        self.pongs_to_return = if flapping {
            PONGS_TO_RETURN_FLAPPING
        } else {
            PONGS_TO_RETURN
        };
        self.pongs = 0;
        self.turn(PeerState::Down, cause);
    }

    fn turn(&mut self, to: PeerState, cause: Cause) {
        self.state = to;
        self.cause = cause;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    const ME: NodeId = NodeId(0);

    fn ms(time: u64) -> Instant {
        Instant(time * 1_000_000)
    }

    fn in_ms(time: Instant) -> u64 {
        time.0 / 1_000_000
    }

    /// A detector, its time, and what it said.
    struct Story {
        detector: Detector,
        members: u16,
        now: u64,
        said: String,
    }

    impl Story {
        fn new(members: u16) -> Story {
            Story {
                detector: Detector::new(usize::from(members), ME, ms(0)),
                members,
                now: 0,
                said: String::new(),
            }
        }

        fn tick(&mut self) {
            for change in self.detector.tick(ms(self.now)) {
                let Change {
                    node,
                    from,
                    to,
                    cause,
                    lasted,
                } = change;
                writeln!(
                    self.said,
                    "{} {node} {from:?} -> {to:?}, {cause:?} {}",
                    self.now,
                    lasted.as_millis()
                )
                .expect("a string takes all");
            }
        }

        /// Ticks when due; whoever answers pongs at every half second, this moment excluded.
        fn run(&mut self, until: u64, answering: &[NodeId]) {
            while self.now < until {
                let ping = (self.now / 500 + 1) * 500;
                let due = in_ms(self.detector.wake_at()).max(self.now);
                self.now = until.min(ping).min(due);
                if self.now == ping {
                    for node in answering {
                        self.detector.on(ms(ping), *node, Event::Pong);
                    }
                }
                if self.now == due {
                    self.tick();
                    assert!(self.detector.wake_at() > ms(self.now), "it would spin");
                }
            }
        }

        fn line(&mut self, line: &str) {
            let mut words = line.split(' ');
            let verb = words.next().expect("a verb");
            let mut time = || words.next().expect("a time").parse().expect("ms");
            let event = match verb {
                "until" => {
                    let until = time();
                    let answering: Vec<NodeId> = words.map(node).collect();
                    return self.run(until, &answering);
                }
                "pause" => {
                    self.now = time();
                    return;
                }
                "heard" => Event::Heard,
                "pong" => Event::Pong,
                "refused" => Event::Refused,
                "lost" => Event::Lost,
                _ => panic!("{line}"),
            };
            for word in words {
                self.detector.on(ms(self.now), node(word), event);
            }
        }

        fn end(mut self) -> String {
            write!(self.said, "{}:", self.now).expect("a string takes all");
            for node in (1..self.members).map(NodeId) {
                write!(self.said, " {node} {:?},", self.detector.state(node))
                    .expect("a string takes all");
            }
            let due = in_ms(self.detector.wake_at());
            writeln!(self.said, " tick due at {due}").expect("a string takes all");
            self.said
        }
    }

    fn node(word: &str) -> NodeId {
        NodeId(word[1..].parse().expect("n and a number"))
    }

    /// Stories separated by blank lines: what happens to n0, `----`, what it says. UPDATE=1 rewrites the file.
    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "golden files are written by tests"
    )]
    fn golden_stories() {
        let text = include_str!("../../tests/golden/health/stories.txt");
        let mut rewritten = String::new();
        for told in text.trim_end().split("\n\n") {
            let (title_and_input, _) = told.split_once("----\n").expect("a ---- line");
            let (title, input) = title_and_input.split_once('\n').expect("a title line");
            let mut lines = input.trim_end().lines();
            let members = lines.next().and_then(|line| line.strip_prefix("members "));
            let mut story = Story::new(members.expect("members").parse().expect("a number"));
            lines.for_each(|line| story.line(line));
            write!(rewritten, "{title}\n{input}----\n{}\n", story.end())
                .expect("a string takes all");
        }
        let rewritten = format!("{}\n", rewritten.trim_end());
        if std::env::var_os("UPDATE").is_some() {
            let path = concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/golden/health/stories.txt"
            );
            std::fs::write(path, rewritten).expect("golden file is writable");
        } else {
            assert_eq!(text, rewritten, "run with UPDATE=1 and read the diff");
        }
    }

    /// What the rules say of one peer, kept beside the detector without its fields.
    #[derive(Clone, Default)]
    struct Seen {
        /// Since last heard: refused and lost, in order.
        failures: Vec<Event>,
        heard: Option<u64>,
        /// Since it went Down.
        pongs: usize,
        downs: Vec<u64>,
    }

    impl Seen {
        fn take(&mut self, now: u64, event: Event, stood_still: bool) {
            match event {
                Event::Heard | Event::Pong => {
                    self.failures.clear();
                    self.heard = Some(now);
                    self.pongs += usize::from(event == Event::Pong);
                }
                Event::Refused if stood_still => {}
                _ => self.failures.push(event),
            }
        }

        fn is_dead_by_failures(&self) -> bool {
            let refused = self.failures.iter().filter(|e| **e == Event::Refused);
            let lost_at = self.failures.iter().position(|e| *e == Event::Lost);
            refused.count() >= 2
                || lost_at.is_some_and(|at| self.failures[at..].contains(&Event::Refused))
        }

        /// `silent_from` is when silence began to count at the latest: heard, forgiven or started.
        fn check(&mut self, now: u64, from: PeerState, to: PeerState, silent_from: u64) {
            let silent = now - silent_from;
            let flapping = self.downs.len() >= 3 && {
                let last = &self.downs[self.downs.len() - 3..];
                last[2] - last[0] <= 30_000
            };
            match (from, to) {
                (PeerState::Up, PeerState::Up) => {
                    assert!(!self.is_dead_by_failures());
                    assert!(silent < if self.heard.is_some() { 1500 } else { 3000 });
                }
                (PeerState::Suspect, PeerState::Suspect) => {
                    assert!(!self.is_dead_by_failures() && silent < 3000);
                }
                (PeerState::Up, PeerState::Suspect) => {
                    assert!(self.heard.is_some() && (1500..3000).contains(&silent));
                }
                (PeerState::Suspect, PeerState::Up) => assert_eq!(self.heard, Some(silent_from)),
                (PeerState::Up | PeerState::Suspect, PeerState::Down) => {
                    assert!(self.is_dead_by_failures() || silent >= 3000);
                }
                (PeerState::Down, PeerState::Up) => {
                    assert!(self.pongs >= if flapping { 4 } else { 2 });
                    assert_eq!(self.heard, Some(silent_from));
                }
                (PeerState::Down, PeerState::Down) => {}
                (PeerState::Down, PeerState::Suspect) => panic!("Down is left by pongs alone"),
            }
            if to == PeerState::Down && from != to {
                self.downs.push(now);
                self.pongs = 0;
            }
        }
    }

    /// Any events at any times, late ticks included: every transition is one the rules allow, none is missed.
    #[test]
    fn random_lives_obey_the_rules() {
        let mut transitions = [[0u32; 3]; 3];
        for seed in 0..300 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let members = rng.usize(2..6);
            let me = NodeId(rng.u16(..members as u16));
            let mut detector = Detector::new(members, me, ms(0));
            let mut seen = vec![Seen::default(); members];
            let (mut now, mut ticked, mut forgiven) = (0, 0, 0);
            let mut talkative = rng.u32(1..100);
            for _ in 0..2000 {
                if rng.u32(..50) == 0 {
                    talkative = rng.u32(1..100);
                }
                now += rng.u64(..100);
                let node = NodeId(rng.u16(..members as u16));
                let event = match rng.u32(..100) {
                    n if n < talkative => [Event::Heard, Event::Pong][rng.usize(..2)],
                    n if n % 8 == 0 => [Event::Refused, Event::Lost][rng.usize(..2)],
                    _ => {
                        now = (now + rng.u64(..400)).min(in_ms(detector.wake_at()).max(now));
                        if rng.u32(..100) == 0 {
                            now += rng.u64(..5000);
                        }
                        if now - ticked > 1000 {
                            forgiven = now;
                        }
                        ticked = now;
                        let before: Vec<PeerState> = states(&detector, members);
                        detector.tick(ms(now));
                        assert!(detector.wake_at() > ms(now));
                        assert!(detector.wake_at() <= ms(now + 500));
                        for node in (0..members).filter(|node| *node != me.index()) {
                            let (from, to) = (before[node], detector.state(NodeId(node as u16)));
                            let silent_from = seen[node].heard.unwrap_or(0).max(forgiven);
                            seen[node].check(now, from, to, silent_from);
                            transitions[from as usize][to as usize] += 1;
                        }
                        continue;
                    }
                };
                let before = states(&detector, members);
                detector.on(ms(now), node, event);
                let after = states(&detector, members);
                for other in (0..members).filter(|other| *other != node.index()) {
                    assert_eq!(before[other], after[other], "seed {seed}: not its event");
                }
                assert_eq!(after[me.index()], PeerState::Up, "seed {seed}");
                if node != me {
                    let (from, to) = (before[node.index()], after[node.index()]);
                    let seen = &mut seen[node.index()];
                    seen.take(now, event, now - ticked > 1000);
                    transitions[from as usize][to as usize] += 1;
                    // Silence is judged by ticks alone: an event is checked as if there were none.
                    seen.check(now, from, to, now);
                }
            }
        }
        for (from, row) in transitions.iter().enumerate() {
            for (to, count) in row.iter().enumerate() {
                let forbidden = (from, to) == (2, 1);
                assert!(
                    forbidden || *count > 100,
                    "{from} -> {to} happened {count} times"
                );
            }
        }
    }

    fn states(detector: &Detector, members: usize) -> Vec<PeerState> {
        (0..members as u16)
            .map(|node| detector.state(NodeId(node)))
            .collect()
    }

    /// Whatever happened before, silence brings everybody down and two to four pongs bring everybody back.
    #[test]
    fn every_life_can_end_and_resume() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut story = Story::new(4);
            for _ in 0..rng.u32(..60) {
                let event =
                    [Event::Heard, Event::Pong, Event::Refused, Event::Lost][rng.usize(..4)];
                story
                    .detector
                    .on(ms(story.now), NodeId(rng.u16(..4)), event);
                let until = story.now + rng.u64(..900);
                story.run(until, &[]);
            }
            let silence = story.now + 3000;
            story.run(silence, &[]);
            let peers = [1, 2, 3].map(NodeId);
            for node in peers {
                assert_eq!(story.detector.state(node), PeerState::Down, "seed {seed}");
            }
            story.run(silence + 2000, &peers);
            for node in peers {
                assert_eq!(story.detector.state(node), PeerState::Up, "seed {seed}");
            }
        }
    }
}
