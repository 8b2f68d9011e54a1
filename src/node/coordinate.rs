//! Drives the quorum machines: one client's write or read over the replicas of its key.
//!
//! ```text
//!  client ─▶ Writing / Reading in `waiting` under a ticket
//!              machine ─ Send ─┬─ this node ──▶ apply / get ─▶ on_reply(ticket) ─┐
//!                              └─ peers.send(ticket) ─▶ on_heard(ticket) ────────┴─▶ machine ─▶ Answer, Hint, ..
//! ```
//!
//! Runs on the core that owns the key here, whether or not this node is a replica of it; versions are stamped here,
//! once. A client that goes away changes nothing: the write goes on to all replicas.
//!
//! Invariants: what a machine asks for is done before its next event; an event for a ticket that is gone does
//! nothing; deadlines are one queue, because all requests have the same patience.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use super::answer::{Answer, Written};
use super::arrivals::Asker;
use super::cluster::{Cluster, Level};
use super::failure::{Failure, Refusal};
use super::handoff::ShardHints;
use super::msg::{Kind, Msg, Reply};
use super::peers::{Arrived, Heard, Identity, NotSent, Peers, What};
use super::route::{Place, Router, Waiting, written_or_not};
use crate::base::hash::KeyHash;
use crate::base::member::NodeId;
use crate::base::record::{OwnedEntry, OwnedRow};
use crate::base::slices::Slice;
use crate::base::time::Instant;
use crate::base::version::Version;
use crate::cluster::read::{self, Read};
use crate::cluster::ring::Ring;
use crate::cluster::write::{self, Write};
use crate::cluster::{PeerState, REPLICAS_MAX, Target};
use crate::rt::Rt;
use crate::store::{Got, Op};
use crate::wire::message::{Message, Row, Why};

/// A read that is not answered by then asks one more replica.
const HEDGE_AFTER: Duration = Duration::from_millis(20);
/// One of so many reads with R=1 compares all replicas, so that stale ones are found though nobody else looks.
const CHECK_ONE_IN: u32 = 16;

/// This core's part in the cluster.
pub(crate) struct Member {
    pub facts: Rc<Cluster>,
    pub ring: Rc<Ring>,
    pub peers: Peers,
    pub identity: Rc<Identity>,
    /// For each shard of this core, in order.
    pub hints: Vec<ShardHints>,
    deadlines: VecDeque<(Instant, u64)>,
    hedges: VecDeque<(Instant, u64)>,
    chance: fastrand::Rng,
}

/// Who waits for the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Client {
    Place {
        place: Place,
        written: Written,
    },
    Core {
        core: usize,
        ticket: u64,
    },
    /// A part of a batch, with so many items.
    Part {
        batch: u64,
        items: u32,
    },
}

/// A write on its way to its replicas.
pub(super) struct Writing {
    machine: Write,
    client: Client,
    rows: Vec<OwnedRow>,
    shard: u16,
    version: Version,
    needed: u16,
    deadline: Instant,
}

/// A read on its way.
pub(super) struct Reading {
    machine: Read,
    client: Client,
    key: Box<[u8]>,
    hash: KeyHash,
    deadline: Instant,
}

impl Member {
    pub(crate) fn new(
        rt: &Rt,
        facts: &Rc<Cluster>,
        identity: &Rc<Identity>,
        log: Rc<dyn Fn(&str)>,
    ) -> Member {
        Member {
            ring: Rc::new(Ring::new(&facts.topology)),
            peers: Peers::new(rt, facts, identity, log),
            facts: Rc::clone(facts),
            identity: Rc::clone(identity),
            hints: Vec::new(),
            deadlines: VecDeque::new(),
            hedges: VecDeque::new(),
            chance: fastrand::Rng::with_seed(rt.entropy()),
        }
    }

    /// Ring name of this node.
    pub(super) fn own_name(facts: &Cluster) -> &str {
        &facts.topology.members()[facts.me.index()].name
    }

    pub(super) fn copies(&self) -> u16 {
        self.facts.topology.copies() as u16
    }

    /// The replicas of a slice as they stand now, this node first.
    fn targets(&self, slice: Slice, out: &mut [Target; REPLICAS_MAX]) -> usize {
        let me = self.facts.me;
        let replicas = self.ring.replicas(slice).iter().copied();
        let local = replicas.clone().filter(|node| *node == me);
        let all = local.chain(replicas.filter(|node| *node != me));
        let mut count = 0;
        for (place, node) in out.iter_mut().zip(all) {
            *place = Target {
                node,
                state: self.peers.state(node),
            };
            count += 1;
        }
        count
    }
}

const NOBODY: Target = Target {
    node: NodeId(0),
    state: PeerState::Down,
};

impl Router {
    pub(super) fn copies(&self) -> u16 {
        self.member.as_ref().map_or(1, |member| member.copies())
    }

    /// W of a request that wants `level`.
    pub(crate) fn write_needed(&self, level: Level) -> Result<u16, Refusal> {
        let default = self
            .member
            .as_ref()
            .map_or(1, |member| member.facts.write_quorum);
        self.needed(level, default)
    }

    /// R of a request that wants `level`.
    pub(crate) fn read_needed(&self, level: Level) -> Result<u16, Refusal> {
        let default = self
            .member
            .as_ref()
            .map_or(1, |member| member.facts.read_quorum);
        self.needed(level, default)
    }

    fn needed(&self, level: Level, default: u16) -> Result<u16, Refusal> {
        let copies = self.copies();
        level
            .needed(default, copies)
            .ok_or(Refusal::BadLevel { copies })
    }

    /// Whether the store of this node alone answers such a read.
    pub(super) fn reads_alone(&mut self, hash: KeyHash, needed: u16, after: Version) -> bool {
        let Some(member) = &mut self.member else {
            return true;
        };
        needed == 1
            && after == Version::ZERO
            && member
                .ring
                .is_replica(Slice::of(hash.token()), member.facts.me)
            && member.chance.u32(..CHECK_ONE_IN) > 0
    }

    /// Starts a write of rows with one preference list and one shard here; the outcome comes to the client.
    pub(super) fn start_write(
        &mut self,
        client: Client,
        shard: u16,
        rows: Vec<OwnedRow>,
        needed: u16,
    ) {
        let version = rows.first().map_or(Version::ZERO, |row| row.entry.version);
        let Some((member, first)) = self.member.as_ref().zip(rows.first()) else {
            return self.settle_write(client, Ok(version));
        };
        let mut targets = [NOBODY; REPLICAS_MAX];
        let slice = Slice::of(KeyHash::of(&first.key).token());
        let count = member.targets(slice, &mut targets);
        let deadline = self.now() + member.facts.timeout;
        let mut actions = Vec::with_capacity(REPLICAS_MAX);
        let machine = Write::start(&targets[..count], needed, &mut actions);
        let ticket = self.waiting.reserve();
        let writing = Box::new(Writing {
            machine,
            client,
            rows,
            shard,
            version,
            needed,
            deadline,
        });
        if let Some(member) = &mut self.member {
            member.deadlines.push_back((deadline, ticket));
        }
        self.drive_write(ticket, writing, actions);
    }

    /// Something has happened to a write.
    fn on_write(&mut self, ticket: u64, event: write::Event) {
        let is_write = matches!(self.waiting.get_mut(ticket), Some(Waiting::Writing(_)));
        let Some(Waiting::Writing(mut writing)) =
            is_write.then(|| self.waiting.lend(ticket)).flatten()
        else {
            return;
        };
        let mut actions = Vec::new();
        writing.machine.on(event, &mut actions);
        self.drive_write(ticket, writing, actions);
    }

    /// Carries out what the machine asks for, and hands it what comes of that at once.
    fn drive_write(&mut self, ticket: u64, mut writing: Box<Writing>, first: Vec<write::Action>) {
        let mut actions = VecDeque::from(first);
        let mut more = Vec::new();
        while let Some(action) = actions.pop_front() {
            match action {
                write::Action::Send(node) => {
                    if let Err(refusal) = self.send_write(node, ticket, &writing) {
                        let event = write::Event::Refused(node, refusal);
                        // Only after all that was asked for has been done.
                        more.push(event);
                    }
                }
                write::Action::Hint(node) => self.owe(node, writing.shard, &writing.rows),
                write::Action::Answer(outcome) => {
                    let outcome = written(outcome, writing.version, writing.needed);
                    self.settle_write(writing.client, outcome);
                }
                write::Action::Finished => return self.waiting.free(ticket),
            }
            if actions.is_empty() {
                let mut next = Vec::new();
                for event in more.drain(..) {
                    writing.machine.on(event, &mut next);
                }
                actions.extend(next);
            }
        }
        self.waiting.give_back(ticket, Waiting::Writing(writing));
    }

    fn send_write(
        &mut self,
        node: NodeId,
        ticket: u64,
        writing: &Writing,
    ) -> Result<(), write::Refusal> {
        if self.is_me(node) {
            let ops: Vec<Op<'_>> = writing.rows.iter().map(as_op).collect();
            let sent = self.apply(writing.shard, &ops, Asker::Here(ticket));
            return sent.map_err(|failure| match failure {
                Failure::Full => write::Refusal::Full,
                Failure::Closed => write::Refusal::Closed,
                _ => write::Refusal::Busy,
            });
        }
        let rows = writing.rows.iter().map(as_row).collect();
        let message = Message::Write {
            healing: false,
            rows,
        };
        let hash = writing.rows.first().map(|row| KeyHash::of(&row.key));
        let request = (ticket, What::Write);
        self.send(node, hash, request, writing.deadline, &message)
            .map_err(|not_sent| match not_sent {
                NotSent::Down => write::Refusal::Closed,
                NotSent::Busy => write::Refusal::Busy,
            })
    }

    fn settle_write(&mut self, client: Client, outcome: Result<Version, Failure>) {
        match client {
            Client::Place { place, written } => {
                self.answered
                    .push((place, written_or_not(written, outcome)));
            }
            Client::Core { core, ticket } => {
                let reply = Reply::Written(outcome);
                self.port.send(core, Msg(Kind::Reply { ticket, reply }));
            }
            Client::Part { batch, items } => self.settle_part(batch, items, outcome.map(drop)),
        }
    }

    /// Starts a read over the replicas; the entry comes to the client.
    pub(super) fn start_read(
        &mut self,
        client: Client,
        key: &[u8],
        hash: KeyHash,
        needed: u16,
        after: Version,
    ) {
        self.clock.observe_within(after, self.wall_ms);
        let now = self.now();
        let Some(member) = &mut self.member else {
            return self.settle_read(client, Err(Failure::Closed));
        };
        let mut targets = [NOBODY; REPLICAS_MAX];
        let count = member.targets(Slice::of(hash.token()), &mut targets);
        let mut actions = Vec::with_capacity(REPLICAS_MAX);
        let plan = read::Plan {
            targets: &targets[..count],
            needed,
            copies: member.copies(),
            after,
            check_all: needed == 1,
        };
        let machine = Read::start(&plan, &mut actions);
        let deadline = now + member.facts.timeout;
        let ticket = self.waiting.reserve();
        member.deadlines.push_back((deadline, ticket));
        member.hedges.push_back((now + HEDGE_AFTER, ticket));
        let reading = Box::new(Reading {
            machine,
            client,
            key: key.into(),
            hash,
            deadline,
        });
        self.drive_read(ticket, reading, actions);
    }

    /// Something has happened to a read.
    fn on_read(&mut self, ticket: u64, event: read::Event) {
        let is_read = matches!(self.waiting.get_mut(ticket), Some(Waiting::Reading(_)));
        let Some(Waiting::Reading(mut reading)) =
            is_read.then(|| self.waiting.lend(ticket)).flatten()
        else {
            return;
        };
        let mut actions = Vec::new();
        reading.machine.on(event, &mut actions);
        self.drive_read(ticket, reading, actions);
    }

    fn drive_read(&mut self, ticket: u64, mut reading: Box<Reading>, first: Vec<read::Action>) {
        let mut actions = VecDeque::from(first);
        let mut more = Vec::new();
        while let Some(action) = actions.pop_front() {
            match action {
                read::Action::Full(node) => more.extend(self.ask_entry(node, ticket, &reading)),
                read::Action::Digest(node) if self.is_me(node) => {
                    more.extend(self.ask_entry(node, ticket, &reading));
                }
                read::Action::Digest(node) => more.extend(self.ask_digest(node, ticket, &reading)),
                read::Action::Repair(node) => more.extend(self.repair(node, ticket, &reading)),
                read::Action::Answer(outcome) => {
                    let found = found(outcome, reading.machine.newest());
                    if let Ok(Some(entry)) = &found {
                        self.clock.observe_within(entry.version, self.wall_ms);
                    }
                    self.settle_read(reading.client, found);
                }
                read::Action::Finished => return self.waiting.free(ticket),
            }
            if actions.is_empty() {
                let mut next = Vec::new();
                for event in more.drain(..) {
                    reading.machine.on(event, &mut next);
                }
                actions.extend(next);
            }
        }
        self.waiting.give_back(ticket, Waiting::Reading(reading));
    }

    fn settle_read(&mut self, client: Client, found: Result<Option<OwnedEntry>, Failure>) {
        match client {
            Client::Place { place, .. } => {
                self.reads_waiting -= 1;
                let answer = match found {
                    Ok(entry) => Answer::Found(entry),
                    Err(failure) => Answer::Refused(failure.into()),
                };
                self.answered.push((place, answer));
            }
            Client::Core { core, ticket } => {
                let reply = Reply::Got(found);
                self.port.send(core, Msg(Kind::Reply { ticket, reply }));
            }
            // Batches only write.
            Client::Part { .. } => {}
        }
    }

    /// Asks one replica for what it holds; an event when that is known at once.
    fn ask_entry(&mut self, node: NodeId, ticket: u64, reading: &Reading) -> Option<read::Event> {
        if !self.is_me(node) {
            return self.ask_peer(node, (ticket, What::Full), reading, false);
        }
        let shard = reading.hash.shard(self.owners.shards());
        let Some(store) = self.local(shard).cloned() else {
            return Some(read::Event::Failed(node));
        };
        let own =
            |entry: Option<crate::base::record::Entry<'_>>| entry.map(|entry| entry.to_owned());
        match store.get(&reading.key, reading.hash, own) {
            Ok(Got::Answer(entry)) => Some(read::Event::Full(node, entry)),
            Ok(Got::Disk(_)) => {
                let asker = Asker::Here(ticket);
                self.read_from_disk(store, reading.key.clone(), reading.hash, asker);
                None
            }
            Err(error) => {
                self.read_faults.tell(&error);
                Some(read::Event::Failed(node))
            }
        }
    }

    fn ask_digest(&mut self, node: NodeId, ticket: u64, reading: &Reading) -> Option<read::Event> {
        self.ask_peer(node, (ticket, What::Digest), reading, true)
    }

    fn ask_peer(
        &mut self,
        node: NodeId,
        request: (u64, What),
        reading: &Reading,
        digest_only: bool,
    ) -> Option<read::Event> {
        let message = Message::Read {
            key: &reading.key,
            digest_only,
        };
        let sent = self.send(
            node,
            Some(reading.hash),
            request,
            reading.deadline,
            &message,
        );
        sent.is_err().then_some(read::Event::Failed(node))
    }

    /// Brings a replica up to the newest version.
    fn repair(&mut self, node: NodeId, ticket: u64, reading: &Reading) -> Option<read::Event> {
        let Some(newest) = reading.machine.newest() else {
            return Some(read::Event::RepairFailed(node));
        };
        let entry = newest.as_entry();
        let key = &reading.key[..];
        let sent = if self.is_me(node) {
            let shard = reading.hash.shard(self.owners.shards());
            self.apply(shard, &[Op { key, entry }], Asker::Repair(ticket))
                .is_ok()
        } else {
            let message = Message::Write {
                healing: true,
                rows: vec![Row { key, entry }],
            };
            let request = (ticket, What::Repair);
            self.send(
                node,
                Some(reading.hash),
                request,
                reading.deadline,
                &message,
            )
            .is_ok()
        };
        (!sent).then_some(read::Event::RepairFailed(node))
    }

    fn send(
        &mut self,
        node: NodeId,
        hash: Option<KeyHash>,
        request: (u64, What),
        deadline: Instant,
        message: &Message<'_>,
    ) -> Result<(), NotSent> {
        let left = deadline.since(self.now());
        let member = self.member.as_mut().ok_or(NotSent::Down)?;
        member.peers.send(node, hash, request, left, message)
    }

    pub(super) fn is_me(&self, node: NodeId) -> bool {
        self.member
            .as_ref()
            .is_some_and(|member| member.facts.me == node)
    }

    /// This node's own copy has answered a machine of ours.
    pub(super) fn on_own_reply(&mut self, ticket: u64, reply: Reply) {
        let Some(me) = self.member.as_ref().map(|member| member.facts.me) else {
            return;
        };
        match reply {
            Reply::Applied(outcome) => {
                let event = match outcome {
                    Ok(()) => write::Event::Applied(me),
                    Err(Failure::Full) => write::Event::Refused(me, write::Refusal::Full),
                    Err(Failure::Busy) => write::Event::Refused(me, write::Refusal::Busy),
                    Err(Failure::Closed) => write::Event::Refused(me, write::Refusal::Closed),
                    Err(_) => write::Event::Lost(me),
                };
                self.on_write(ticket, event);
            }
            Reply::Got(got) => {
                let event = match got {
                    Ok(entry) => read::Event::Full(me, entry),
                    Err(_) => read::Event::Failed(me),
                };
                self.on_read(ticket, event);
            }
            Reply::Written(_) | Reply::Page { .. } | Reply::Snapshot(_) | Reply::Handoff(_) => {}
        }
    }

    /// This node's own copy has been repaired, or could not be.
    pub(super) fn on_own_repair(&mut self, ticket: u64, done: bool) {
        let Some(me) = self.member.as_ref().map(|member| member.facts.me) else {
            return;
        };
        self.on_read(
            ticket,
            match done {
                true => read::Event::Repaired(me),
                false => read::Event::RepairFailed(me),
            },
        );
    }

    /// Hands over what peers have said. True when there was something.
    pub(crate) fn take_heard(&mut self) -> bool {
        let mut worked = false;
        while let Some(arrived) = self
            .member
            .as_mut()
            .and_then(|member| member.peers.next_arrived())
        {
            worked = true;
            self.on_heard(arrived);
        }
        worked
    }

    fn on_heard(&mut self, arrived: Arrived) {
        let Arrived {
            ticket,
            node,
            what,
            heard,
        } = arrived;
        match what {
            What::Ping => {}
            What::Write => self.on_write(ticket, write_event(node, &heard)),
            What::Full => self.on_read(
                ticket,
                match heard {
                    Heard::Got(entry) => read::Event::Full(node, entry),
                    _ => read::Event::Failed(node),
                },
            ),
            What::Digest => self.on_read(
                ticket,
                match heard {
                    Heard::Digest(digest) => read::Event::Digest(node, digest),
                    _ => read::Event::Failed(node),
                },
            ),
            What::Repair => self.on_read(
                ticket,
                match heard {
                    Heard::Written => read::Event::Repaired(node),
                    _ => read::Event::RepairFailed(node),
                },
            ),
            What::Page(stream) => self.on_peer_page(ticket, stream, heard),
            What::Handoff(at) => self.on_handoff(at, node, &heard),
        }
    }

    /// When something is due although nobody says a word.
    pub(crate) fn wake_at(&mut self) -> Option<Instant> {
        let member = self.member.as_mut()?;
        // Most requests are long done when their time is over.
        for queue in [&mut member.deadlines, &mut member.hedges] {
            while queue
                .front()
                .is_some_and(|(_, ticket)| !self.waiting.holds(*ticket))
            {
                queue.pop_front();
            }
        }
        let dues = [&member.deadlines, &member.hedges].into_iter();
        let due = dues.filter_map(|queue| Some(queue.front()?.0)).min();
        Some(due.unwrap_or(Instant(u64::MAX)).min(member.peers.wake_at()))
    }

    /// Deadlines and hedges that are due.
    pub(crate) fn look_at_dues(&mut self) {
        let now = self.now();
        while let Some(ticket) = self
            .member
            .as_mut()
            .and_then(|member| due(&mut member.hedges, now))
        {
            self.on_read(ticket, read::Event::Hedge);
        }
        while let Some(ticket) = self
            .member
            .as_mut()
            .and_then(|member| due(&mut member.deadlines, now))
        {
            self.on_write(ticket, write::Event::Deadline);
            self.on_read(ticket, read::Event::Deadline);
            self.on_scan_overdue(ticket);
        }
    }

    /// A request under this ticket has until then.
    pub(super) fn set_deadline(&mut self, at: Instant, ticket: u64) {
        if let Some(member) = &mut self.member {
            member.deadlines.push_back((at, ticket));
        }
    }
}

fn due(queue: &mut VecDeque<(Instant, u64)>, now: Instant) -> Option<u64> {
    let &(at, ticket) = queue.front()?;
    (at <= now).then(|| {
        queue.pop_front();
        ticket
    })
}

fn write_event(node: NodeId, heard: &Heard) -> write::Event {
    match heard {
        Heard::Written => write::Event::Applied(node),
        Heard::Refused(Why::Busy | Why::Late) => write::Event::Refused(node, write::Refusal::Busy),
        Heard::Refused(Why::Full) => write::Event::Refused(node, write::Refusal::Full),
        Heard::Refused(Why::Closed | Why::Unsupported) => {
            write::Event::Refused(node, write::Refusal::Closed)
        }
        _ => write::Event::Lost(node),
    }
}

/// What a client is told of a write.
fn written(outcome: write::Outcome, version: Version, needed: u16) -> Result<Version, Failure> {
    match outcome {
        write::Outcome::Stored { .. } => Ok(version),
        write::Outcome::Unknown { acks } => Err(Failure::Uncertain { acks, needed }),
        write::Outcome::NotApplied { why } => Err(match why {
            write::NotApplied::Unavailable { alive, needed } => {
                Failure::NotApplied { alive, needed }
            }
            write::NotApplied::Refused(write::Refusal::Busy) => Failure::Busy,
            write::NotApplied::Refused(write::Refusal::Full) => Failure::Full,
            write::NotApplied::Refused(write::Refusal::Closed) => Failure::Closed,
        }),
    }
}

/// What a client is told of a read.
fn found(
    outcome: read::Outcome,
    newest: Option<&OwnedEntry>,
) -> Result<Option<OwnedEntry>, Failure> {
    match outcome {
        read::Outcome::Found => Ok(newest.cloned()),
        read::Outcome::Unavailable { answered, needed } => {
            Err(Failure::Unavailable { answered, needed })
        }
        read::Outcome::TimedOut { answered, needed } => Err(Failure::TimedOut { answered, needed }),
        read::Outcome::Stale => Err(Failure::Stale),
    }
}

fn as_op(row: &OwnedRow) -> Op<'_> {
    Op {
        key: &row.key,
        entry: row.entry.as_entry(),
    }
}

fn as_row(row: &OwnedRow) -> Row<'_> {
    Row {
        key: &row.key,
        entry: row.entry.as_entry(),
    }
}
