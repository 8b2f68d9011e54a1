//! Pure. One client write: from the replicas of its keys to the one answer the client gets.
//!
//! ```text
//!              start                      needed have Applied ─────────▶ Stored
//!  targets ─▶ Send to all not Down ─────┬ all have Refused ────────────▶ NotApplied: nobody has it, or ever will
//!     │                                 ├ too few may still apply ─────▶ Unknown: somebody has it, or may
//!     │ fewer than needed not Down      └ Deadline ────────────────────▶ Unknown
//!     └─▶ NotApplied: nothing sent, nothing hinted
//! ```
//!
//! Invariants:
//! - Only distinct replicas that have applied the write count. A hint is no copy.
//! - `NotApplied` is said only when no replica can have applied the write, and then no hint is ever written: a
//!   client that was told "no" must not see its write appear.
//! - A hint is written only once some replica holds the write. Otherwise a hint replayed later would create a write
//!   that every reader has been told, again and again, not to exist.
//! - While the coordinator's own copy is on its way, nothing is `Stored`: a client that writes and then reads at one
//!   node finds what it wrote at every level, also where each asks for one copy only. Its own disk is as near as any.
//! - Every replica that is not known to hold the write when it ends is owed a hint, its own core's disk included,
//!   if anybody holds it. Hints carry the version of the write, so one too many is harmless.
//!
//! What it does not do: it stamps no version, resends nothing (the outcome of a resend could not be told from the
//! outcome of the first), and cancels nothing: all replicas shall get the write, needed or not.

use std::fmt;

use super::{PeerState, REPLICAS_MAX, Target};
use crate::base::member::NodeId;
use crate::base::planted::{self, Bug};

/// One write on its way: one row, or several with the same preference list. One per request, owned by the core
/// that coordinates it.
#[derive(Debug)]
pub struct Write {
    replicas: [Option<Replica>; REPLICAS_MAX],
    needed: u16,
    /// The coordinator's own replica.
    own: Option<NodeId>,
    answered: bool,
    finished: bool,
}

#[derive(Clone, Copy, Debug)]
struct Replica {
    node: NodeId,
    standing: Standing,
    hinted: bool,
}

/// What is known about the write at one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Not sent there.
    Down,
    /// On its way.
    Sent,
    Applied,
    /// Certainly not applied.
    Refused(Refusal),
    /// Nobody will tell: it may be applied.
    Lost,
}

/// What a replica, or the clock, has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is durable there.
    Applied(NodeId),
    /// It is certainly not applied there.
    Refused(NodeId, Refusal),
    /// The connection broke, or the replica itself does not know: it may be applied there.
    Lost(NodeId),
    /// The time of the request is over.
    Deadline,
}

/// Why a replica did not apply a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It has too much to do; the client may try again.
    Busy,
    /// Its disk is full.
    Full,
    /// It is shutting down.
    Closed,
}

/// What the driver shall do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send the write; an event about this replica follows.
    Send(NodeId),
    /// Write a hint for this replica.
    Hint(NodeId),
    /// Tell the client.
    Answer(Outcome),
    /// Free the write.
    Finished,
}

/// What the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// So many replicas hold it durably, at least as many as were needed.
    Stored { acks: u16 },
    /// It is not applied anywhere and never will be.
    NotApplied { why: NotApplied },
    /// Too few replicas hold it, or none that is known; it may appear yet. The client may send it again.
    Unknown { acks: u16 },
}

/// Why a write is certainly not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotApplied {
    /// Too few replicas are alive: it was not even sent.
    Unavailable { alive: u16, needed: u16 },
    /// Every replica it was sent to refused it; this is why the first one in the list did.
    Refused(Refusal),
}

impl Write {
    /// Plans the write to `targets`, of which `needed` must hold it before the client hears so; `own`: the one among
    /// them that is this node.
    ///
    /// # Panics
    /// If there are more targets than [`REPLICAS_MAX`], or `needed` is 0: both are refused at the door.
    pub fn start(
        targets: &[Target],
        needed: u16,
        own: Option<NodeId>,
        out: &mut Vec<Action>,
    ) -> Write {
        assert!(targets.len() <= REPLICAS_MAX, "N is capped at start-up");
        assert!(needed >= 1, "W is at least 1");
        let mut write = Write {
            replicas: [None; REPLICAS_MAX],
            needed,
            own,
            answered: false,
            finished: false,
        };
        for (place, target) in write.replicas.iter_mut().zip(targets) {
            *place = Some(Replica {
                node: target.node,
                standing: match target.state {
                    PeerState::Up | PeerState::Suspect => Standing::Sent,
                    PeerState::Down => Standing::Down,
                },
                hinted: false,
            });
        }
        let alive = write.count(Standing::Sent);
        if alive < needed {
            let why = NotApplied::Unavailable { alive, needed };
            write.answered = true;
            write.finished = true;
            out.push(Action::Answer(Outcome::NotApplied { why }));
            out.push(Action::Finished);
        } else {
            let sent = write.replicas.iter().flatten();
            let sent = sent.filter(|replica| replica.standing == Standing::Sent);
            out.extend(sent.map(|replica| Action::Send(replica.node)));
        }
        write
    }

    /// Takes in one event. Events that are late, repeated or from strangers change nothing.
    pub fn on(&mut self, event: Event, out: &mut Vec<Action>) {
        if self.finished {
            return;
        }
        match event {
            Event::Applied(node) => self.learn(node, Standing::Applied),
            Event::Refused(node, why) => self.learn(node, Standing::Refused(why)),
            Event::Lost(node) => self.learn(node, Standing::Lost),
            // From now on the silent ones are like those whose connection broke.
            Event::Deadline => {
                for replica in self.replicas.iter_mut().flatten() {
                    if replica.standing == Standing::Sent {
                        replica.standing = Standing::Lost;
                    }
                }
            }
        }
        self.answer(out);
        self.hint(out);
        if self.count(Standing::Sent) == 0 {
            self.finished = true;
            out.push(Action::Finished);
        }
    }

    /// The first word of a replica stands, but for one: "may be applied" can turn into "is applied".
    fn learn(&mut self, node: NodeId, heard: Standing) {
        let mut replicas = self.replicas.iter_mut().flatten();
        let Some(replica) = replicas.find(|replica| replica.node == node) else {
            return;
        };
        match (replica.standing, heard) {
            (Standing::Sent, _) | (Standing::Lost, Standing::Applied) => replica.standing = heard,
            _ => {}
        }
    }

    fn answer(&mut self, out: &mut Vec<Action>) {
        if self.answered {
            return;
        }
        if let Some(outcome) = self.outcome() {
            self.answered = true;
            out.push(Action::Answer(outcome));
        }
    }

    /// The outcome, as soon as it is certain.
    fn outcome(&self) -> Option<Outcome> {
        let mut acks = self.count(Standing::Applied);
        if planted::is(Bug::HintAcknowledges) {
            acks += self.count(Standing::Down) + self.count(Standing::Lost);
        }
        let open = self.count(Standing::Sent);
        if acks >= self.needed && !self.waits_for_own() {
            return Some(Outcome::Stored { acks });
        }
        if acks + open >= self.needed {
            return None;
        }
        // It will not be stored. Whether it is applied somewhere is a question of its own: while nobody has applied
        // it for certain or perhaps, the replicas that are still silent decide.
        if acks + self.count(Standing::Lost) > 0 {
            return Some(Outcome::Unknown { acks });
        }
        if open > 0 {
            return None;
        }
        let mut replicas = self.replicas.iter().flatten();
        let why = replicas.find_map(|replica| match replica.standing {
            Standing::Refused(refusal) => Some(NotApplied::Refused(refusal)),
            _ => None,
        })?;
        Some(Outcome::NotApplied { why })
    }

    fn waits_for_own(&self) -> bool {
        let mut replicas = self.replicas.iter().flatten();
        replicas.any(|replica| Some(replica.node) == self.own && replica.standing == Standing::Sent)
    }

    /// Hints every replica that is known to have missed the write, or may have, once somebody holds it.
    fn hint(&mut self, out: &mut Vec<Action>) {
        if self.count(Standing::Applied) == 0 {
            return;
        }
        for replica in self.replicas.iter_mut().flatten() {
            let owed = match replica.standing {
                Standing::Down | Standing::Refused(_) | Standing::Lost => true,
                Standing::Sent | Standing::Applied => false,
            };
            if owed && !replica.hinted {
                replica.hinted = true;
                out.push(Action::Hint(replica.node));
            }
        }
    }

    fn count(&self, standing: Standing) -> u16 {
        let replicas = self.replicas.iter().flatten();
        replicas.map(|r| u16::from(r.standing == standing)).sum()
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Send(node) => write!(f, "send {node}"),
            Action::Hint(node) => write!(f, "hint {node}"),
            Action::Answer(outcome) => write!(f, "answer {outcome}"),
            Action::Finished => f.write_str("finished"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Stored { acks } => write!(f, "stored acks={acks}"),
            Outcome::NotApplied { why } => match why {
                NotApplied::Unavailable { alive, needed } => {
                    write!(f, "not applied: alive={alive} needed={needed}")
                }
                NotApplied::Refused(refusal) => write!(f, "not applied: {refusal}"),
            },
            Outcome::Unknown { acks } => write!(f, "unknown acks={acks}"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Busy => "busy",
            Refusal::Full => "full",
            Refusal::Closed => "closed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{field, golden_stories, line, node, targets};
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    const REFUSALS: [Refusal; 3] = [Refusal::Busy, Refusal::Full, Refusal::Closed];

    fn event(text: &str) -> Event {
        let words: Vec<&str> = text.split(' ').collect();
        match words[..] {
            ["applied", who] => Event::Applied(node(who)),
            ["refused", who, why] => {
                let mut refusals = REFUSALS.into_iter();
                let why = refusals.find(|refusal| refusal.to_string() == why);
                Event::Refused(node(who), why.expect("busy, full or closed"))
            }
            ["lost", who] => Event::Lost(node(who)),
            ["deadline"] => Event::Deadline,
            _ => panic!("no such event: {text}"),
        }
    }

    #[test]
    fn golden() {
        golden_stories("write", |lines| {
            let words: Vec<&str> = lines[0].split(' ').collect();
            let list = targets(field(&words, "targets").expect("targets="));
            let needed = field(&words, "w").expect("w=").parse().expect("a number");
            let own = field(&words, "own").map(node);
            let mut out = Vec::new();
            let mut write = Write::start(&list, needed, own, &mut out);
            let mut answer = line("put", out.drain(..));
            for text in &lines[1..] {
                write.on(event(text), &mut out);
                answer += &line(text, out.drain(..));
            }
            answer
        });
    }

    /// What the events add up to, kept apart from the machine.
    #[derive(Default)]
    struct Ledger {
        needed: usize,
        own: Option<NodeId>,
        targets: BTreeSet<NodeId>,
        sent: BTreeSet<NodeId>,
        /// The word of each replica that stands.
        heard: BTreeMap<NodeId, Event>,
        deadline: bool,
        hinted: BTreeSet<NodeId>,
        answer: Option<Outcome>,
        finished: bool,
    }

    impl Ledger {
        fn hear(&mut self, event: Event) {
            let who = match event {
                Event::Deadline => {
                    self.deadline = true;
                    return;
                }
                Event::Applied(who) | Event::Refused(who, _) | Event::Lost(who) => who,
            };
            let stands = match self.heard.get(&who) {
                None => true,
                Some(Event::Lost(_)) => event == Event::Applied(who),
                Some(_) => false,
            };
            if self.sent.contains(&who) && stands {
                self.heard.insert(who, event);
            }
        }

        /// The coordinator's own copy is on its way.
        fn own_is_open(&self) -> bool {
            let open = |own| self.sent.contains(own) && !self.heard.contains_key(own);
            !self.deadline && self.own.as_ref().is_some_and(open)
        }

        fn count(&self, which: impl Fn(&Event) -> bool) -> usize {
            self.heard.values().filter(|event| which(event)).count()
        }

        fn applied(&self) -> usize {
            self.count(|event| matches!(event, Event::Applied(_)))
        }

        fn refused(&self) -> usize {
            self.count(|event| matches!(event, Event::Refused(..)))
        }

        fn open(&self) -> usize {
            match self.deadline {
                true => 0,
                false => self.sent.len() - self.heard.len(),
            }
        }

        /// Whether each action was allowed after what was heard.
        fn judge(&mut self, action: Action) {
            assert!(!self.finished, "{action} after the end");
            match action {
                Action::Send(who) => {
                    assert!(self.answer.is_none() && self.targets.contains(&who));
                    assert!(self.sent.insert(who), "{action} twice");
                }
                Action::Hint(who) => {
                    assert!(self.targets.contains(&who) && self.hinted.insert(who));
                    assert!(self.applied() > 0, "{action}: nobody holds it");
                    let word = self.heard.get(&who);
                    assert!(!matches!(word, Some(Event::Applied(_))), "{action}: has it");
                    let missed = word.is_some() || self.deadline || !self.sent.contains(&who);
                    assert!(missed, "{action}: it may still answer");
                }
                Action::Answer(outcome) => {
                    assert!(self.answer.replace(outcome).is_none(), "{action} again");
                    self.judge_answer(outcome);
                }
                Action::Finished => {
                    assert!(self.answer.is_some() && self.open() == 0);
                    self.finished = true;
                }
            }
        }

        fn judge_answer(&self, outcome: Outcome) {
            match outcome {
                Outcome::Stored { acks } => {
                    assert_eq!(usize::from(acks), self.applied());
                    assert!(self.applied() >= self.needed && !self.own_is_open());
                }
                Outcome::NotApplied { why } => {
                    assert_eq!(self.refused(), self.sent.len(), "somebody may have it");
                    if let NotApplied::Refused(why) = why {
                        let said =
                            |event: &Event| matches!(event, Event::Refused(_, w) if *w == why);
                        assert!(self.count(said) > 0);
                    }
                }
                Outcome::Unknown { acks } => {
                    assert_eq!(usize::from(acks), self.applied());
                    assert!(self.applied() + self.open() < self.needed, "not certain");
                    assert!(
                        self.refused() < self.sent.len(),
                        "it is known: nobody has it"
                    );
                }
            }
        }

        /// Whether everything due has been done.
        fn settle(&self) {
            let (applied, open) = (self.applied(), self.open());
            let sent = self.sent.len();
            assert!(sent == 0 || sent >= self.needed, "sent in vain");
            if self.answer.is_none() {
                let stored = applied >= self.needed && !self.own_is_open();
                assert!(!stored, "stored, and not said");
                assert!(
                    applied + open >= self.needed
                        || (open > 0 && self.refused() == self.heard.len()),
                    "lost, and not said"
                );
            }
            assert_eq!(self.finished, open == 0);
            for who in &self.targets {
                let missed = match self.heard.get(who) {
                    None => self.deadline || !self.sent.contains(who),
                    Some(event) => !matches!(event, Event::Applied(_)),
                };
                assert!(
                    applied == 0 || !missed || self.hinted.contains(who),
                    "{who} is owed a hint"
                );
            }
            let refused = matches!(self.answer, Some(Outcome::NotApplied { .. }));
            assert!(!refused || (self.hinted.is_empty() && applied == 0));
        }
    }

    fn random_event(rng: &mut fastrand::Rng, replicas: u16) -> Event {
        // One number more than there are replicas: a stranger.
        let who = NodeId(rng.u16(0..=replicas));
        match rng.u8(0..20) {
            0..=9 => Event::Applied(who),
            10..=13 => Event::Refused(who, REFUSALS[rng.usize(0..3)]),
            14..=18 => Event::Lost(who),
            _ => Event::Deadline,
        }
    }

    /// Any events in any order, also repeated, contradicting and from strangers: every action is allowed, and
    /// everything due is done at once.
    #[test]
    fn every_order_of_events_keeps_the_promises() {
        for seed in 0..50_000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let replicas = rng.u16(1..=REPLICAS_MAX as u16);
            let list: Vec<Target> = (0..replicas)
                .map(|at| Target {
                    node: NodeId(at),
                    state: [
                        PeerState::Up,
                        PeerState::Suspect,
                        PeerState::Up,
                        PeerState::Down,
                    ][rng.usize(0..4)],
                })
                .collect();
            let needed = rng.u16(1..=replicas);
            // The last one is none of them: a coordinator without a copy.
            let own = Some(NodeId(rng.u16(0..=replicas)));
            let mut ledger = Ledger {
                needed: usize::from(needed),
                own,
                targets: list.iter().map(|target| target.node).collect(),
                ..Ledger::default()
            };
            let mut out = Vec::new();
            let mut write = Write::start(&list, needed, own, &mut out);
            let mut story = format!("seed {seed} w={needed} own={own:?} {list:?}\n");
            loop {
                story += &line("", out.iter());
                let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    out.drain(..).for_each(|action| ledger.judge(action));
                    ledger.settle();
                }));
                assert!(judged.is_ok(), "{story}");
                if ledger.finished {
                    break;
                }
                let event = random_event(&mut rng, replicas);
                story += &format!("{event:?} ");
                ledger.hear(event);
                write.on(event, &mut out);
            }
            write.on(random_event(&mut rng, replicas), &mut out);
            assert!(out.is_empty(), "a word after the end: {story}");
        }
    }
}
