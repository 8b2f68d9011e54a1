//! Pure. One read of one key: from the replicas that answer first to the newest version among them.
//!
//! ```text
//!  gather    needed replicas answer: one with the entry, the others with a digest; who fails is replaced
//!    │
//!  fetch     a digest names a newer version than the entry in hand: that entry is asked for
//!    │
//!  after     the client has seen a newer version elsewhere: everybody else alive is asked too
//!    │
//!  hold      needed is a majority: enough replicas must hold the newest version before the client hears of it
//!    │
//!  Answer ─▶ heal: every other replica that answered with less is sent the newest version
//! ```
//!
//! Each event runs through these steps from the top: a step that waits ends the run, one that finds its condition
//! broken (a holder failed, a newer version turned up) asks for what is missing now.
//!
//! Invariants:
//! - The answer is the newest version among all replicas that answered, and at least `needed` did. Whose answer
//!   counts does not matter: the first are as good as the chosen.
//! - With `needed` above half of N, the answer is held by N - needed + 1 replicas, so that every later read of
//!   `needed` replicas meets it: a read never goes back behind an earlier one, even if the write behind it failed.
//! - A deletion and absence are versions like any other. A tombstone is put on enough replicas before the client
//!   hears "not found": answered first, it would stay where it is and the deleted value would come back.
//! - What could not be read is a failure, never an absence.
//!
//! What it does not do: it keeps no timer (the driver says when to hedge and when time is over), and repairs no
//! replica that has not answered, except to make up for one whose repair failed. So one that answered that it cannot
//! read the key is sent nothing: what it cannot read may be newer than all the others have, and an older entry on top
//! would turn an error into a stale answer; and an entry of a version it has met does not end the search of its store
//! before the damaged block (`store::lookup`), so the next read would fail all the same, and send it again.

use std::fmt;

use super::{PeerState, REPLICAS_MAX, Target};
use crate::base::member::NodeId;
use crate::base::planted::{self, Bug};
use crate::base::record::{Entry, OwnedEntry};
use crate::base::version::Version;
use crate::wire::message;

/// One read on its way. One per request, owned by the core that coordinates it.
#[derive(Debug)]
pub struct Read {
    replicas: [Option<Replica>; REPLICAS_MAX],
    needed: u16,
    copies: u16,
    after: Version,
    /// The greatest entry that has come in whole.
    newest: Option<OwnedEntry>,
    /// Of `newest`.
    digest: Digest,
    hedged: bool,
    answered: bool,
    finished: bool,
}

#[derive(Clone, Copy, Debug)]
struct Replica {
    node: NodeId,
    state: PeerState,
    reply: Reply,
    /// What it holds at least: by its own word, or by a repair it has confirmed.
    holds: Option<Digest>,
    repair: Repair,
}

/// How far reading one replica has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    Unasked,
    Asked(Form),
    /// It has answered with a digest.
    Told,
    /// So it has, and its entry is on its way.
    Fetching,
    /// It has answered with the entry.
    Shown,
    Failed,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Full,
    Digest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repair {
    Idle,
    /// An entry of this digest is on its way.
    Sent(Digest),
    Failed,
}

/// What a replica holds for a key, without the value. Two replicas agree if their digests are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    pub version: Version,
    /// crc32 of the kind and the value: tells entries of one version apart, which honest clocks never make.
    pub sum: u32,
}

impl Digest {
    /// Of a key that a replica has never heard of.
    pub const ABSENT: Digest = Digest {
        version: Version::ZERO,
        sum: 0,
    };

    /// As a peer would put it into its answer.
    #[must_use]
    pub fn of(entry: Option<&Entry<'_>>) -> Digest {
        let Some(entry) = entry else {
            return Digest::ABSENT;
        };
        Digest {
            version: entry.version,
            sum: message::sum(entry),
        }
    }
}

/// What a replica, or the clock, has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// All it holds; `None`: it has never heard of the key.
    Full(NodeId, Option<OwnedEntry>),
    Digest(NodeId, Digest),
    /// It could not be read (refused, broken off, unreadable block, an answer that makes no sense).
    Failed(NodeId),
    /// It holds what was sent, or something newer.
    Repaired(NodeId),
    RepairFailed(NodeId),
    /// The answer is late enough to ask one replica more. Once per read.
    Hedge,
    /// The time of the request is over.
    Deadline,
}

/// What the driver shall do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask for the entry.
    Full(NodeId),
    /// Ask for its digest.
    Digest(NodeId),
    /// Send [`Read::newest`] as a healing write, as it is now: a later event may replace it.
    Repair(NodeId),
    /// Tell the client.
    Answer(Outcome),
    /// Free the read.
    Finished,
}

/// What the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// [`Read::newest`] as it is now; it may be a tombstone, or nothing.
    Found,
    /// Certain, before time was over: so many have answered or still may. With `alive` not below `needed`, the newest
    /// version could not be put on enough replicas.
    Unavailable { alive: u16, needed: u16 },
    /// Time was over first.
    TimedOut { answered: u16, needed: u16 },
    /// Everybody alive has answered, and nobody with a version as new as the client has seen.
    Stale,
}

/// How to read a key.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// All replicas in order of preference; the local one, if any, first.
    pub targets: &'a [Target],
    /// R.
    pub needed: u16,
    /// N.
    pub copies: u16,
    /// Answer only with this version or a newer one; [`Version::ZERO`]: whatever there is.
    pub after: Version,
    /// Ask everybody alive for a digest, to repair who is behind; the answer does not wait for it.
    pub check_all: bool,
}

impl Read {
    /// Asks the first replicas, or answers at once that too few are alive.
    ///
    /// # Panics
    /// If there are more targets than [`REPLICAS_MAX`], or `needed` is 0: both are refused at the door.
    pub fn start(plan: &Plan<'_>, out: &mut Vec<Action>) -> Read {
        assert!(
            plan.targets.len() <= REPLICAS_MAX,
            "N is capped at start-up"
        );
        assert!(plan.needed >= 1, "R is at least 1");
        let mut read = Read {
            replicas: [None; REPLICAS_MAX],
            needed: plan.needed,
            copies: plan.copies,
            after: plan.after,
            newest: None,
            digest: Digest::ABSENT,
            hedged: false,
            answered: false,
            finished: false,
        };
        for (place, target) in read.replicas.iter_mut().zip(plan.targets) {
            *place = Some(Replica {
                node: target.node,
                state: target.state,
                reply: Reply::Unasked,
                holds: None,
                repair: Repair::Idle,
            });
        }
        read.proceed(out);
        while plan.check_all && !read.finished && read.ask(Form::Digest, out) {}
        read
    }

    /// The greatest entry that has come in whole: the answer, once it is [`Outcome::Found`], and what a repair
    /// carries.
    #[must_use]
    pub fn newest(&self) -> Option<&OwnedEntry> {
        self.newest.as_ref()
    }

    /// Takes in one event. Events that are late, repeated or from strangers change nothing.
    pub fn on(&mut self, event: Event, out: &mut Vec<Action>) {
        if self.finished {
            return;
        }
        match event {
            Event::Full(node, entry) => self.shown(node, entry),
            Event::Digest(node, digest) => self.told(node, digest),
            Event::Failed(node) => self.failed(node),
            Event::Repaired(node) => self.repaired(node, true),
            Event::RepairFailed(node) => self.repaired(node, false),
            Event::Hedge => self.hedge(out),
            Event::Deadline => {
                if !self.answered {
                    let (answered, needed) = (self.answers(), self.needed);
                    out.push(Action::Answer(Outcome::TimedOut { answered, needed }));
                }
                self.finished = true;
                out.push(Action::Finished);
                return;
            }
        }
        self.proceed(out);
    }

    fn shown(&mut self, node: NodeId, entry: Option<OwnedEntry>) {
        let Some(replica) = self.find(node).filter(|replica| replica.is_reading()) else {
            return;
        };
        let digest = Digest::of(entry.as_ref().map(OwnedEntry::as_entry).as_ref());
        replica.reply = Reply::Shown;
        replica.holds = Some(digest);
        let greater = match (&entry, &self.newest) {
            (Some(entry), Some(newest)) => entry.as_entry().order(&newest.as_entry()).is_gt(),
            (entry, newest) => entry.is_some() && newest.is_none(),
        };
        if greater {
            self.newest = entry;
            self.digest = digest;
        }
    }

    fn told(&mut self, node: NodeId, digest: Digest) {
        if let Some(replica) = self.find(node)
            && matches!(replica.reply, Reply::Asked(_))
        {
            replica.reply = Reply::Told;
            replica.holds = Some(digest);
        }
    }

    fn failed(&mut self, node: NodeId) {
        let Some(replica) = self.find(node).filter(|replica| replica.is_reading()) else {
            return;
        };
        if replica.reply == Reply::Fetching {
            // It named a version it cannot show: that word counts for nothing.
            replica.holds = None;
        }
        replica.reply = Reply::Failed;
    }

    fn repaired(&mut self, node: NodeId, done: bool) {
        let Some(replica) = self.find(node) else {
            return;
        };
        let Repair::Sent(sent) = replica.repair else {
            return;
        };
        if !done {
            replica.repair = Repair::Failed;
            return;
        }
        replica.repair = Repair::Idle;
        if replica
            .holds
            .is_none_or(|holds| holds.version <= sent.version)
        {
            replica.holds = Some(sent);
        }
    }

    fn hedge(&mut self, out: &mut Vec<Action>) {
        if self.answered || self.hedged {
            return;
        }
        self.hedged = true;
        // Perhaps it is the entry that is slow, so one that was only asked for does not count as a copy in hand.
        let missing = !self.any(|replica| replica.reply == Reply::Shown) || self.rival().is_some();
        self.ask(if missing { Form::Full } else { Form::Digest }, out);
    }

    /// Answers if it is time, heals afterwards, and ends when nothing is on its way.
    fn proceed(&mut self, out: &mut Vec<Action>) {
        if !self.answered
            && let Some(outcome) = self.outcome(out)
        {
            self.answered = true;
            out.push(Action::Answer(outcome));
        }
        if self.answered {
            if !self.fetch(out) {
                self.repair_stale(out);
            }
            if !self.any(Replica::is_open) {
                self.finished = true;
                out.push(Action::Finished);
            }
        }
    }

    /// The outcome, as soon as it is certain; until then asks for what is missing.
    fn outcome(&mut self, out: &mut Vec<Action>) -> Option<Outcome> {
        if !self.gather(out) {
            return Some(self.unavailable());
        }
        if self.answers() < self.needed || self.fetch(out) {
            return None;
        }
        if self.digest.version < self.after {
            while self.ask(Form::Full, out) {}
            let waiting = self.any(Replica::is_reading);
            return (!waiting).then_some(Outcome::Stale);
        }
        if 2 * u32::from(self.needed) <= u32::from(self.copies) || self.forsakes() {
            return Some(Outcome::Found);
        }
        self.hold(out)
    }

    /// Sees to it that as many replicas as needed have answered or may; `false`: there are not so many.
    fn gather(&mut self, out: &mut Vec<Action>) -> bool {
        let coming = |r: &Replica| r.has_answered() || matches!(r.reply, Reply::Asked(_));
        let expected = self.count(coming);
        if expected + self.count(Replica::is_fresh) < self.needed {
            return false;
        }
        for _ in expected..self.needed {
            let full = |r: &Replica| {
                matches!(
                    r.reply,
                    Reply::Shown | Reply::Fetching | Reply::Asked(Form::Full)
                )
            };
            let form = match self.any(full) {
                true => Form::Digest,
                false => Form::Full,
            };
            self.ask(form, out);
        }
        true
    }

    /// Version of the entry that must be seen before the newest is known: greater than the one in hand, or of the
    /// same version and not compared yet.
    fn rival(&self) -> Option<Version> {
        let rivals = self.replicas().filter_map(|replica| {
            let unseen = matches!(replica.reply, Reply::Told | Reply::Fetching);
            let holds = replica.holds.filter(|_| unseen)?;
            let newer = holds.version > self.digest.version;
            let differs = holds.version == self.digest.version && holds.sum != self.digest.sum;
            (newer || differs).then_some(holds.version)
        });
        rivals.max()
    }

    /// Whether a greater entry than the one in hand is known of; if so, it is on its way from one that holds it.
    /// The first entry asked for is waited for before another is, since it is most likely the same one; a hedge
    /// allows one more in either case.
    fn fetch(&mut self, out: &mut Vec<Action>) -> bool {
        let Some(version) = self.rival() else {
            return false;
        };
        let nothing_shown = !self.any(|r| r.reply == Reply::Shown);
        let on_their_way = self.count(|r| {
            r.reply == Reply::Fetching || (nothing_shown && r.reply == Reply::Asked(Form::Full))
        });
        if on_their_way < 1 + u16::from(self.hedged) {
            let digest = self.digest;
            let holder = self.replicas.iter_mut().flatten().find(|replica| {
                let is_rival = |holds: Digest| holds.version == version && holds != digest;
                replica.reply == Reply::Told && replica.holds.is_some_and(is_rival)
            });
            if let Some(holder) = holder {
                holder.reply = Reply::Fetching;
                out.push(Action::Full(holder.node));
            }
        }
        true
    }

    /// Found, once enough replicas hold the newest version; until then brings it to more of them.
    fn hold(&mut self, out: &mut Vec<Action>) -> Option<Outcome> {
        let wanted = (self.copies + 1).saturating_sub(self.needed);
        let newest = Some(self.digest);
        if self.count(|r| r.holds == newest) >= wanted {
            return Some(Outcome::Found);
        }
        self.repair_stale(out);
        let likely = |r: &Replica| r.holds == newest || matches!(r.repair, Repair::Sent(_));
        while self.count(likely) < wanted {
            // A replica that has not been asked yet makes up for a failed repair: a sick disk among those that
            // were must not fail the read.
            if !self.repair(|r| r.is_fresh() && r.repair == Repair::Idle, out) {
                break;
            }
        }
        // Who could not take the repair may hold the newest version all the same (a full disk still reads).
        let possible = |r: &Replica| likely(r) || r.is_reading();
        while self.count(possible) < wanted {
            if !self.ask(Form::Digest, out) {
                return Some(self.unavailable());
            }
        }
        None
    }

    /// Sends the newest version to all that answered with less. Absence needs no repair.
    fn repair_stale(&mut self, out: &mut Vec<Action>) {
        let newest = Some(self.digest);
        let stale = |replica: &Replica| {
            replica.has_answered() && replica.holds != newest && replica.repair == Repair::Idle
        };
        while self.newest.is_some() && !self.forsakes() && self.repair(stale, out) {}
    }

    /// Never, but where a test has planted this bug: a deletion is to stay where it is.
    fn forsakes(&self) -> bool {
        let newest = self.newest.as_ref().map(OwnedEntry::as_entry);
        planted::is(Bug::GraveUnrepaired) && newest.is_some_and(|entry| entry.value().is_none())
    }

    /// Repairs the best replica of this kind; `false`: there is none.
    fn repair(&mut self, which: impl Fn(&Replica) -> bool, out: &mut Vec<Action>) -> bool {
        let sent = Repair::Sent(self.digest);
        let found = self.replicas.iter_mut().flatten().filter(|r| which(r));
        let Some(replica) = found.min_by_key(|replica| replica.state == PeerState::Suspect) else {
            return false;
        };
        replica.repair = sent;
        out.push(Action::Repair(replica.node));
        true
    }

    /// Asks the best replica that has not been asked; `false`: there is none.
    fn ask(&mut self, form: Form, out: &mut Vec<Action>) -> bool {
        let fresh = self.replicas.iter_mut().flatten().filter(|r| r.is_fresh());
        // The first of equals: `min_by_key` keeps the order of preference.
        let Some(replica) = fresh.min_by_key(|replica| replica.state == PeerState::Suspect) else {
            return false;
        };
        replica.reply = Reply::Asked(form);
        out.push(match form {
            Form::Full => Action::Full(replica.node),
            Form::Digest => Action::Digest(replica.node),
        });
        true
    }

    fn unavailable(&self) -> Outcome {
        let alive = |r: &Replica| r.has_answered() || r.is_reading() || r.is_fresh();
        Outcome::Unavailable {
            alive: self.count(alive),
            needed: self.needed,
        }
    }

    fn answers(&self) -> u16 {
        self.count(Replica::has_answered)
    }

    fn replicas(&self) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().flatten()
    }

    fn find(&mut self, node: NodeId) -> Option<&mut Replica> {
        self.replicas.iter_mut().flatten().find(|r| r.node == node)
    }

    fn any(&self, which: impl Fn(&Replica) -> bool) -> bool {
        self.replicas().any(which)
    }

    fn count(&self, which: impl Fn(&Replica) -> bool) -> u16 {
        self.replicas()
            .map(|replica| u16::from(which(replica)))
            .sum()
    }
}

impl Replica {
    /// It can be asked, and has not been.
    fn is_fresh(&self) -> bool {
        self.reply == Reply::Unasked && self.state != PeerState::Down
    }

    fn is_reading(&self) -> bool {
        matches!(self.reply, Reply::Asked(_) | Reply::Fetching)
    }

    fn has_answered(&self) -> bool {
        matches!(self.reply, Reply::Told | Reply::Fetching | Reply::Shown)
    }

    /// An event about it is still to come.
    fn is_open(&self) -> bool {
        self.is_reading() || matches!(self.repair, Repair::Sent(_))
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Full(node) => write!(f, "full {node}"),
            Action::Digest(node) => write!(f, "digest {node}"),
            Action::Repair(node) => write!(f, "repair {node}"),
            Action::Answer(outcome) => write!(f, "answer {outcome}"),
            Action::Finished => f.write_str("finished"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Found => f.write_str("found"),
            Outcome::Unavailable { alive, needed } => {
                write!(f, "unavailable alive={alive} needed={needed}")
            }
            Outcome::TimedOut { answered, needed } => {
                write!(f, "timed out answered={answered} needed={needed}")
            }
            Outcome::Stale => f.write_str("stale"),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::tests::{field, golden_stories, line, node, targets};
    use super::*;
    use crate::base::record::OwnedState;

    pub(crate) fn entry(hlc: u64, value: Option<&str>) -> OwnedEntry {
        OwnedEntry {
            version: Version { hlc, origin: 0 },
            state: match value {
                None => OwnedState::Deleted,
                Some(value) => OwnedState::Live {
                    value: value.as_bytes().into(),
                    text: true,
                },
            },
        }
    }

    pub(crate) fn digest(entry: Option<&OwnedEntry>) -> Digest {
        Digest::of(entry.map(OwnedEntry::as_entry).as_ref())
    }

    /// `5:a` is the value a of version 5, `5!` its tombstone, `-` absence.
    pub(crate) fn held(text: &str) -> Option<OwnedEntry> {
        let version = |digits: &str| digits.parse().expect("a version");
        match (text.split_once(':'), text.strip_suffix('!')) {
            (Some((digits, value)), _) => Some(entry(version(digits), Some(value))),
            (None, Some(digits)) => Some(entry(version(digits), None)),
            (None, None) => None,
        }
    }

    pub(crate) fn spell(entry: Option<&OwnedEntry>) -> String {
        let value = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        match entry.map(OwnedEntry::as_entry) {
            None => "-".into(),
            Some(entry) => match entry.value() {
                Some(bytes) => format!("{}:{}", entry.version.hlc, value(bytes)),
                None => format!("{}!", entry.version.hlc),
            },
        }
    }

    fn event(text: &str) -> Event {
        let words: Vec<&str> = text.split(' ').collect();
        match words[..] {
            ["full", who, what] => Event::Full(node(who), held(what)),
            ["digest", who, what] => Event::Digest(node(who), digest(held(what).as_ref())),
            ["failed", who] => Event::Failed(node(who)),
            ["repaired", who] => Event::Repaired(node(who)),
            ["unrepaired", who] => Event::RepairFailed(node(who)),
            ["hedge"] => Event::Hedge,
            ["deadline"] => Event::Deadline,
            _ => panic!("no such event: {text}"),
        }
    }

    #[test]
    fn golden() {
        golden_stories("read", |lines| {
            let words: Vec<&str> = lines[0].split(' ').collect();
            let list = targets(field(&words, "targets").expect("targets="));
            let number = |name| field(&words, name).map(|digits| digits.parse().expect("a number"));
            let plan = Plan {
                targets: &list,
                needed: number("r").expect("r=") as u16,
                copies: list.len() as u16,
                after: entry(number("after").unwrap_or(0), None).version,
                check_all: words.contains(&"check_all"),
            };
            let mut out = Vec::new();
            let mut read = Read::start(&plan, &mut out);
            let mut answer = line("get", out.drain(..));
            for text in &lines[1..] {
                read.on(event(text), &mut out);
                let newest = spell(read.newest());
                let words = out.drain(..).map(|action| match action {
                    Action::Answer(Outcome::Found) => format!("{action} {newest}"),
                    Action::Repair(_) => format!("{action} {newest}"),
                    _ => action.to_string(),
                });
                answer += &line(text, words);
            }
            answer
        });
    }

    /// Nodes of different builds compare these. Made with zlib, not with this code.
    #[test]
    fn digests_are_fixed() {
        let sums = ["-", "7!", "7:", "7:a"].map(|text| digest(held(text).as_ref()).sum);
        assert_eq!(sums, [0, 0xd202_ef8d, 0xa505_df1b, 0x6277_7270]);
        assert_eq!(digest(held("7:a").as_ref()).version.hlc, 7);
        assert_eq!(digest(None), Digest::ABSENT);
    }
}
