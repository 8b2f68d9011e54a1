//! Pure. Reads of a small world of replicas under thousands of seeds: the machine of `read` with everything round it.
//!
//! The world keeps one key. Writes and deletions reach some replicas; some are down; requests arrive in any order,
//! early or late, fail, or fail although they were carried out. Every action is judged when it is taken, against what
//! the replicas truly hold, and after every event the test asks whether something was due and not done.

use std::collections::{BTreeMap, BTreeSet};

use super::read::tests::{digest, entry, held, spell};
use super::read::{Action, Digest, Event, Outcome, Plan, Read};
use super::{PeerState, REPLICAS_MAX, Target};
use crate::base::member::NodeId;
use crate::base::record::OwnedEntry;
use crate::base::version::Version;

/// Replicas that keep what they are sent, and lose nothing.
struct World {
    rng: fastrand::Rng,
    held: Vec<Option<OwnedEntry>>,
    clock: u64,
    needed: u16,
    /// Reads of `needed` may not answer below this: a write that reached every quorum, or an earlier answer.
    floor: Version,
}

fn version(entry: Option<&OwnedEntry>) -> Version {
    entry.map_or(Version::ZERO, |entry| entry.version)
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = fastrand::Rng::with_seed(seed);
        let copies = rng.usize(
            1..=if seed.is_multiple_of(4) {
                REPLICAS_MAX
            } else {
                5
            },
        );
        World {
            needed: rng.u16(1..=copies as u16),
            held: vec![None; copies],
            rng,
            clock: 0,
            floor: Version::ZERO,
        }
    }

    fn copies(&self) -> u16 {
        self.held.len() as u16
    }

    /// Holders without which no `needed` replicas can answer.
    fn wanted(&self) -> usize {
        usize::from(self.copies() - self.needed + 1)
    }

    fn is_majority(&self) -> bool {
        self.needed > self.copies() / 2
    }

    fn holders(&self, least: Version) -> usize {
        let holds = |held: &&Option<OwnedEntry>| version(held.as_ref()) >= least;
        self.held.iter().filter(holds).count()
    }

    fn keep(&mut self, who: NodeId, entry: &OwnedEntry) {
        let held = &mut self.held[who.index()];
        if version(held.as_ref()) < entry.version {
            *held = Some(entry.clone());
        }
    }

    /// A write, or a deletion, that reaches some of the replicas.
    fn write(&mut self) {
        self.clock += 1;
        let value = self.clock.to_string();
        let new = entry(self.clock, self.rng.bool().then_some(value.as_str()));
        for who in 0..self.copies() {
            if self.rng.u8(0..3) > 0 {
                self.keep(NodeId(who), &new);
            }
        }
    }
}

/// A request on its way to a replica.
struct Request {
    to: NodeId,
    what: Action,
    /// Of a repair.
    entry: Option<OwnedEntry>,
    /// Of a read that the replica has carried out long before its answer arrives.
    early: Option<Option<OwnedEntry>>,
}

/// One read of the world, with everything that was said so far.
struct Session {
    read: Read,
    list: Vec<Target>,
    after: Version,
    floor: Version,
    out: Vec<Action>,
    on_their_way: Vec<Request>,
    asked: BTreeMap<NodeId, Vec<Action>>,
    answers: BTreeMap<NodeId, Digest>,
    repaired: BTreeMap<NodeId, Version>,
    failed: BTreeSet<NodeId>,
    unrepaired: BTreeSet<NodeId>,
    /// The greatest entry that came in whole.
    shown: Option<OwnedEntry>,
    answer: Option<Outcome>,
    timed_out: bool,
    finished: bool,
    story: String,
}

impl Session {
    fn start(world: &mut World) -> Session {
        let sick = world.rng.u8(0..4);
        let state = |rng: &mut fastrand::Rng| match rng.u8(0..8) {
            0 => PeerState::Suspect,
            draw if draw <= sick => PeerState::Down,
            _ => PeerState::Up,
        };
        let list: Vec<Target> = (0..world.copies())
            .map(|at| Target {
                node: NodeId(at),
                state: state(&mut world.rng),
            })
            .collect();
        let seen = world.rng.u64(0..=world.clock) * u64::from(world.rng.u8(0..4) == 0);
        let plan = Plan {
            targets: &list,
            needed: world.needed,
            copies: world.copies(),
            after: entry(seen, None).version,
            check_all: world.rng.u8(0..4) == 0,
        };
        let held: Vec<String> = world.held.iter().map(|h| spell(h.as_ref())).collect();
        let mut out = Vec::new();
        Session {
            story: format!("held={held:?} {plan:?}"),
            read: Read::start(&plan, &mut out),
            after: plan.after,
            floor: world.floor,
            list,
            out,
            on_their_way: Vec::new(),
            asked: BTreeMap::new(),
            answers: BTreeMap::new(),
            repaired: BTreeMap::new(),
            failed: BTreeSet::new(),
            unrepaired: BTreeSet::new(),
            shown: None,
            answer: None,
            timed_out: false,
            finished: false,
        }
    }

    /// Carries out the actions, each judged, then looks for what should have been among them.
    fn carry(&mut self, world: &mut World) {
        for action in std::mem::take(&mut self.out) {
            self.story += &format!(", {action}");
            assert!(!self.finished, "{action} after the end");
            match action {
                Action::Full(to) | Action::Digest(to) => self.carry_read(to, action, world),
                Action::Repair(to) => self.carry_repair(to, world),
                Action::Answer(outcome) => {
                    assert!(self.answer.replace(outcome).is_none(), "a second answer");
                    self.judge(outcome, world);
                }
                Action::Finished => self.finished = true,
            }
        }
        if self.answer.is_none() {
            self.check_due(world);
        }
        assert!(self.finished || !self.on_their_way.is_empty(), "stuck");
    }

    fn carry_read(&mut self, to: NodeId, what: Action, world: &mut World) {
        assert!(self.list[to.index()].state != PeerState::Down);
        let before = self.asked.entry(to).or_default();
        assert!(!before.contains(&what), "{what} twice");
        assert!(
            what == Action::Full(to) || before.is_empty(),
            "{what} for nothing"
        );
        assert!(
            self.answer.is_none() || !before.is_empty(),
            "{what} after the answer"
        );
        before.push(what);
        let early = world.rng.bool().then(|| world.held[to.index()].clone());
        self.on_their_way.push(Request {
            to,
            what,
            entry: None,
            early,
        });
    }

    fn carry_repair(&mut self, to: NodeId, world: &World) {
        assert!(self.list[to.index()].state != PeerState::Down);
        assert!(
            self.answer.is_some() || world.is_majority(),
            "repair before the answer"
        );
        let is_repair = |r: &Request| r.to == to && matches!(r.what, Action::Repair(_));
        assert!(
            !self.on_their_way.iter().any(is_repair),
            "two repairs at once"
        );
        assert!(!self.unrepaired.contains(&to), "repair after a failed one");
        self.on_their_way.push(Request {
            to,
            what: Action::Repair(to),
            entry: Some(self.read.newest().expect("absence needs no repair").clone()),
            early: None,
        });
    }

    /// A request is carried out, or fails, or both.
    fn deliver(&mut self, world: &mut World) -> Event {
        let at = world.rng.usize(0..self.on_their_way.len());
        let Request {
            to,
            what,
            entry,
            early,
        } = self.on_their_way.swap_remove(at);
        let fails = world.rng.u8(0..6) == 0;
        if let Some(entry) = entry {
            if !fails || world.rng.bool() {
                world.keep(to, &entry);
            }
            if fails {
                self.unrepaired.insert(to);
                return Event::RepairFailed(to);
            }
            self.repaired.insert(to, entry.version);
            return Event::Repaired(to);
        }
        if fails {
            self.answers.remove(&to);
            self.failed.insert(to);
            return Event::Failed(to);
        }
        let held = early.unwrap_or_else(|| world.held[to.index()].clone());
        let told = digest(held.as_ref());
        self.answers.insert(to, told);
        if what == Action::Digest(to) {
            return Event::Digest(to, told);
        }
        if version(held.as_ref()) > version(self.shown.as_ref()) {
            self.shown = held.clone();
        }
        Event::Full(to, held)
    }

    fn newest_told(&self) -> Version {
        let versions = self.answers.values().map(|digest| digest.version);
        versions.max().unwrap_or(Version::ZERO)
    }

    /// Replicas that said, or confirmed, that they hold at least this.
    fn known_holders(&self, least: Version) -> usize {
        let holds = |target: &&Target| {
            let told = self.answers.get(&target.node).map(|digest| digest.version);
            let sent = self.repaired.get(&target.node).copied();
            told.max(sent).is_some_and(|version| version >= least)
        };
        self.list.iter().filter(holds).count()
    }

    /// Replicas that are alive and have not failed to be read.
    fn readable(&self) -> usize {
        let alive = |target: &&Target| target.state != PeerState::Down;
        let alive = self.list.iter().filter(alive);
        alive.filter(|t| !self.failed.contains(&t.node)).count()
    }

    fn judge(&self, outcome: Outcome, world: &mut World) {
        let newest = version(self.read.newest());
        let needed = usize::from(world.needed);
        match outcome {
            Outcome::Found => {
                assert!(self.answers.len() >= needed);
                assert!(newest >= self.newest_told() && newest >= self.after);
                assert_eq!(
                    self.read.newest(),
                    self.shown.as_ref(),
                    "nobody has shown this"
                );
                if world.is_majority() {
                    assert!(world.holders(newest) >= world.wanted(), "not held");
                    assert!(newest >= self.floor, "went back");
                    world.floor = world.floor.max(newest);
                }
            }
            Outcome::Unavailable { alive, .. } if usize::from(alive) < needed => {
                assert_eq!(self.readable(), usize::from(alive), "it could be read");
            }
            Outcome::Unavailable { .. } => {
                let able = |t: &&Target| {
                    let told = self.answers.get(&t.node).map(|digest| digest.version);
                    let readable = !self.failed.contains(&t.node) && told.is_none();
                    let writable = !self.unrepaired.contains(&t.node) && told.is_some();
                    let holds = told.max(self.repaired.get(&t.node).copied()) == Some(newest);
                    t.state != PeerState::Down && (holds || readable || writable)
                };
                let able = self.list.iter().filter(able).count();
                assert!(
                    world.is_majority() && able < world.wanted(),
                    "it could be held"
                );
            }
            Outcome::Stale => {
                assert!(newest < self.after);
                assert_eq!(self.readable(), self.answers.len(), "one may know better");
            }
            Outcome::TimedOut { .. } => assert!(self.timed_out, "time is not over"),
        }
    }

    /// No answer yet: then none is certain yet.
    fn check_due(&self, world: &World) {
        let needed = usize::from(world.needed);
        assert!(self.readable() >= needed, "hopeless, and not said");
        let newest = version(self.shown.as_ref());
        let known = self.answers.len() >= needed && newest >= self.newest_told();
        if known && newest >= self.after {
            let held = self.known_holders(newest) >= world.wanted();
            assert!(world.is_majority() && !held, "known, and not said");
        }
    }

    /// Nothing is on its way: whoever answered holds the newest version, unless it could not be written to.
    fn check_healed(&self, world: &World) {
        let newest = version(self.shown.as_ref()).max(self.newest_told());
        for who in self
            .answers
            .keys()
            .filter(|who| !self.unrepaired.contains(who))
        {
            let held = version(world.held[who.index()].as_ref());
            assert!(held >= newest, "{who} was left behind");
        }
    }

    /// Steps to the end, while writes go on.
    fn run(&mut self, world: &mut World) {
        self.carry(world);
        while !self.finished {
            let stranger = NodeId(world.rng.u16(0..world.copies()) + 100);
            let event = match world.rng.u8(0..40) {
                0..=1 => Event::Hedge,
                2 => Event::Deadline,
                3 => Event::Digest(stranger, digest(held("99:x").as_ref())),
                4 => Event::Full(stranger, held("99:x")),
                5 => Event::Repaired(stranger),
                6..=7 => {
                    world.write();
                    continue;
                }
                _ => self.deliver(world),
            };
            self.story += &format!("\n{event:?}");
            self.timed_out |= event == Event::Deadline;
            self.read.on(event, &mut self.out);
            self.carry(world);
        }
        if !self.timed_out {
            assert!(
                self.on_their_way.is_empty(),
                "the end before the last event"
            );
            self.check_healed(world);
        }
    }
}

/// Reads one after another, while writes and deletions reach some replicas and others are down, fail or are
/// slow: every answer is allowed, comes as soon as it is certain, and what it found stays found.
#[test]
fn reads_keep_the_promises_in_every_order_of_events() {
    for seed in 0..20_000 {
        let mut world = World::new(seed);
        for _ in 0..4 {
            world.write();
            let acked = version(Some(&entry(world.clock, None)));
            if world.holders(acked) >= world.wanted() {
                world.floor = world.floor.max(acked);
            }
            let mut session = Session::start(&mut world);
            let run = std::panic::AssertUnwindSafe(|| session.run(&mut world));
            let run = std::panic::catch_unwind(run);
            assert!(run.is_ok(), "seed {seed}: {}", session.story);
        }
    }
}
