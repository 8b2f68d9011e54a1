//! Drives one client's read over the replicas of its key.
//!
//! ```text
//!  start_read ─▶ machine ─ Full, Digest, Repair ─┬─ this node ──▶ get, apply ─┐
//!                                                └─ a peer ──▶ on_heard ───────┴─▶ on_read ─▶ Answer, Finished
//! ```
//!
//! With R=1 the store of this node answers alone where it can (`reads_alone`), and no machine is made; one is when
//! that store has to ask its disk: a damaged block is then no answer, and a slow disk is hedged around.

use std::collections::VecDeque;
use std::time::Duration;

use super::answer::Answer;
use super::arrivals::Asker;
use super::coordinate::{Client, NOBODY};
use super::failure::Failure;
use super::links::What;
use super::msg::{Kind, Msg, Reply};
use super::route::{Router, Waiting};
use crate::base::hash::KeyHash;
use crate::base::member::NodeId;
use crate::base::record::{Entry, OwnedEntry};
use crate::base::slices::Slice;
use crate::base::time::Instant;
use crate::base::version::Version;
use crate::cluster::REPLICAS_MAX;
use crate::cluster::read::{self, Read};
use crate::store::{Got, Op};
use crate::wire::message::{Message, Row};

/// A read that is not answered by then asks one more replica.
const HEDGE_AFTER: Duration = Duration::from_millis(20);
/// One of so many reads with R=1 compares all replicas, so that stale ones are found though nobody else looks.
const CHECK_ONE_IN: u32 = 16;

/// A read on its way.
pub(super) struct Reading {
    machine: Read,
    client: Client,
    key: Box<[u8]>,
    hash: KeyHash,
    deadline: Instant,
}

impl Router {
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

    /// Starts a read over the replicas; the entry comes to the client.
    pub(super) fn start_read(
        &mut self,
        client: Client,
        key: &[u8],
        hash: KeyHash,
        (needed, after): (u16, Version),
        check_all: bool,
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
            check_all,
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
    pub(super) fn on_read(&mut self, ticket: u64, event: read::Event) {
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
        let own = |entry: Option<Entry<'_>>| entry.map(|entry| entry.to_owned());
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
}

/// What a client is told of a read.
fn found(
    outcome: read::Outcome,
    newest: Option<&OwnedEntry>,
) -> Result<Option<OwnedEntry>, Failure> {
    match outcome {
        read::Outcome::Found => Ok(newest.cloned()),
        read::Outcome::Unavailable { alive, needed } => Err(Failure::Unavailable { alive, needed }),
        read::Outcome::TimedOut { answered, needed } => Err(Failure::TimedOut { answered, needed }),
        read::Outcome::Stale => Err(Failure::Stale),
    }
}
