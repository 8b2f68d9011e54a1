//! Drives one client's write over the replicas of its key.
//!
//! ```text
//!  start_write ─▶ machine ─ Send ─┬─ this node ──▶ apply ─▶ on_own_reply ─┐
//!                                 └─ a peer ─────▶ on_heard ───────────────┴─▶ on_write ─▶ Answer, Hint, Finished
//! ```
//!
//! The rows are kept until the machine is finished: a hint may still need them when the client has long been
//! answered.

use std::collections::VecDeque;

use super::arrivals::Asker;
use super::coordinate::{Client, NOBODY};
use super::failure::Failure;
use super::links::{Heard, What};
use super::msg::{Kind, Msg, Reply};
use super::peers::NotSent;
use super::route::{Router, Waiting, written_or_not};
use crate::base::hash::KeyHash;
use crate::base::member::NodeId;
use crate::base::record::OwnedRow;
use crate::base::slices::Slice;
use crate::base::time::Instant;
use crate::base::version::Version;
use crate::cluster::REPLICAS_MAX;
use crate::cluster::write::{self, Write};
use crate::store::Op;
use crate::wire::message::{Message, Row, Why};

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

impl Router {
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
        let own = Some(member.facts.me);
        let machine = Write::start(&targets[..count], needed, own, &mut actions);
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
    pub(super) fn on_write(&mut self, ticket: u64, event: write::Event) {
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
            Client::Part { batch, share } => self.settle_part(batch, share, outcome.map(drop)),
        }
    }
}

pub(super) fn write_event(node: NodeId, heard: &Heard) -> write::Event {
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

pub(super) fn as_op(row: &OwnedRow) -> Op<'_> {
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
