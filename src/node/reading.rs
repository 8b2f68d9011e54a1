//! Drives one client's read over the replicas of its key.
//!
//! ```text
//!  start_read ─▶ machine ─ Full, Digest, Repair ─┬─ this node ──▶ get, apply ─┐
//!                                                └─ a peer ──▶ on_heard ───────┴─▶ on_read ─▶ Answer, Finished
//! ```
//!
//! With R=1 the store of this node answers alone where it may (`reads_alone`), and no machine is made. Not hedged either:
//! another replica may be behind, and what was written through this node is read through it. But a damaged block is no
//! answer: then all other replicas are asked (`read_elsewhere`).

use std::collections::VecDeque;
use std::rc::Rc;
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
use crate::store::{Got, Op, Store};
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
    needed: u16,
    own_lost: bool,
}

/// What a read has to bring.
pub(super) struct Demand {
    /// Replicas that must have answered.
    needed: u16,
    /// An older version is no answer.
    after: Version,
    /// This node's own copy cannot be read, and may be the only one that has the key: absence elsewhere is no answer.
    own_lost: bool,
}

/// A client whom this node's own copy answers.
pub(super) struct Lone {
    client: Client,
    key: Box<[u8]>,
    hash: KeyHash,
}

impl Demand {
    pub(super) fn of_client(needed: u16, after: Version) -> Demand {
        Demand {
            needed,
            after,
            own_lost: false,
        }
    }
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

    /// Answers a client from this node's own copy.
    pub(super) fn read_alone(&mut self, client: Client, key: Box<[u8]>, hash: KeyHash) {
        let shard = hash.shard(self.owners.shards());
        let Some(store) = self.local(shard).map(Rc::clone) else {
            return self.settle_read(client, Err(Failure::Closed));
        };
        let got = store.get(&key, hash, |entry| entry.map(|entry| entry.to_owned()));
        match got {
            Ok(Got::Answer(entry)) => self.settle_read(client, Ok(entry)),
            Ok(Got::Disk(_)) => self.read_own(client, store, key, hash),
            Err(error) => {
                let failure = self.read_faults.tell(&error);
                self.read_elsewhere(client, &key, hash, failure);
            }
        }
    }

    /// The same, when the disk must be asked.
    pub(super) fn read_own(
        &mut self,
        client: Client,
        store: Rc<Store>,
        key: Box<[u8]>,
        hash: KeyHash,
    ) {
        let lone = Lone {
            client,
            key: key.clone(),
            hash,
        };
        let ticket = self.waiting.insert(Waiting::Lone(Box::new(lone)));
        self.read_from_disk(store, key, hash, Asker::Here(ticket));
    }

    /// The disk has answered.
    pub(super) fn on_own_read(&mut self, ticket: u64, reply: Reply) {
        let Some(Waiting::Lone(lone)) = self.waiting.remove(ticket) else {
            return;
        };
        let Lone { client, key, hash } = *lone;
        match reply {
            Reply::Got(Err(failure)) => self.read_elsewhere(client, &key, hash, failure),
            Reply::Got(Ok(entry)) => self.settle_read(client, Ok(entry)),
            // The disk gives nothing else.
            _ => self.settle_read(client, Err(Failure::Unreadable)),
        }
    }

    /// This node's own copy cannot be read: what all others have is the answer.
    pub(super) fn read_elsewhere(
        &mut self,
        client: Client,
        key: &[u8],
        hash: KeyHash,
        failure: Failure,
    ) {
        let others = self.copies() - 1;
        if others == 0 {
            return self.settle_read(client, Err(failure));
        }
        let demand = Demand {
            needed: others,
            after: Version::ZERO,
            own_lost: true,
        };
        self.start_read(client, key, hash, demand);
    }

    /// Starts a read over the replicas; the entry comes to the client.
    pub(super) fn start_read(&mut self, client: Client, key: &[u8], hash: KeyHash, demand: Demand) {
        let Demand { needed, after, .. } = demand;
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
            needed,
            own_lost: demand.own_lost,
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
        self.tell_machine(&mut reading, event, &mut actions);
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
                    let mut found = found(outcome, reading.machine.newest());
                    if reading.own_lost && !matches!(found, Ok(Some(_))) {
                        found = Err(Failure::Unreadable);
                    }
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
                    self.tell_machine(&mut reading, event, &mut next);
                }
                actions.extend(next);
            }
        }
        self.waiting.give_back(ticket, Waiting::Reading(reading));
    }

    fn tell_machine(
        &self,
        reading: &mut Reading,
        event: read::Event,
        actions: &mut Vec<read::Action>,
    ) {
        if let read::Event::Failed(node) = event {
            reading.own_lost |= reading.needed == 1 && self.is_me(node);
        }
        reading.machine.on(event, actions);
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
