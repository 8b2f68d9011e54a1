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
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::Journal;
use super::answer::Written;
use super::batch::Share;
use super::ceiling::{self, Ceiling};
use super::cluster::{Cluster, Level};
use super::failure::{Failure, Refusal};
use super::greet::Identity;
use super::handoff::ShardHints;
use super::known;
use super::links::{Heard, What};
use super::msg::Reply;
use super::peers::{Arrived, NotSent, Peers};
use super::repair::Repairing;
use super::route::{Place, Router};
use super::small_file::SmallFile;
use super::view::View;
use super::writing::write_event;
use crate::base::hash::KeyHash;
use crate::base::member::NodeId;
use crate::base::slices::{Slice, Slices};
use crate::base::time::Instant;
use crate::cluster::read::{self};
use crate::cluster::ring::Ring;
use crate::cluster::write::{self};
use crate::cluster::{PeerState, REPLICAS_MAX, Target};
use crate::rt::Rt;
use crate::wire::message::Message;

/// This core's part in the cluster.
pub(crate) struct Member {
    pub facts: Rc<Cluster>,
    pub ring: Rc<Ring>,
    pub peers: Peers,
    pub identity: Rc<Identity>,
    /// How each core sees the cluster, by core, as it last said.
    pub views: Vec<View>,
    /// For each shard of this core, in order.
    pub hints: Vec<ShardHints>,
    /// Comparison of this core's shards with other replicas; `None`: it is switched off.
    pub repairing: Option<Repairing>,
    /// The data directory.
    pub dir: PathBuf,
    /// Who was met before: `MEMBERS` in it.
    pub members_file: SmallFile,
    /// What the clocks of the next start begin at: `CLOCK` in it.
    pub clock_file: SmallFile,
    /// On core 0, once it serves.
    pub ceiling: Option<Ceiling>,
    pub(super) deadlines: VecDeque<(Instant, u64)>,
    pub(super) hedges: VecDeque<(Instant, u64)>,
    pub(super) chance: fastrand::Rng,
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
    /// A part of a batch.
    Part {
        batch: u64,
        share: Share,
    },
}

impl Member {
    pub(crate) fn new(
        rt: &Rt,
        facts: &Rc<Cluster>,
        identity: &Rc<Identity>,
        dir: &Path,
        journal: Journal,
    ) -> Member {
        Member {
            ring: Rc::new(Ring::new(&facts.topology)),
            peers: Peers::new(rt, facts, identity, journal),
            facts: Rc::clone(facts),
            identity: Rc::clone(identity),
            views: vec![View::default(); usize::from(identity.cores)],
            hints: Vec::new(),
            repairing: facts
                .repair_every
                .map(|every| Repairing::new(rt.now(), every)),
            dir: dir.to_owned(),
            members_file: SmallFile::new(dir.join(known::FILE)),
            clock_file: SmallFile::new(dir.join(ceiling::FILE)),
            ceiling: None,
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

    /// What a member that has nothing lacks of what this node may have, if it is to be taken in so.
    pub(super) fn owed_whole(&self, node: NodeId) -> Option<Slices> {
        let accepted = self.facts.accept.contains(&node);
        accepted.then(|| self.shared_slices(node))
    }

    /// Those that both have copies of.
    pub(super) fn shared_slices(&self, node: NodeId) -> Slices {
        let both = |slice: &Slice| {
            self.ring.is_replica(*slice, node) && self.ring.is_replica(*slice, self.facts.me)
        };
        let mut slices = Slices::NONE;
        for slice in Slice::all().filter(both) {
            slices.insert(slice);
        }
        slices
    }

    /// The replicas of a slice as they stand now, this node first.
    pub(super) fn targets(&self, slice: Slice, out: &mut [Target; REPLICAS_MAX]) -> usize {
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

pub(super) const NOBODY: Target = Target {
    node: NodeId(0),
    state: PeerState::Down,
};

impl Router {
    pub(super) fn copies(&self) -> u16 {
        self.member.as_ref().map_or(1, |member| member.copies())
    }

    /// W of a request that wants `level`.
    pub(crate) fn write_needed(&self, level: Level) -> Result<u16, Refusal> {
        let Some(member) = &self.member else {
            return self.needed(level, 1);
        };
        self.may_serve(member, true)?;
        self.needed(level, member.facts.write_quorum)
    }

    /// R of a request that wants `level`.
    pub(crate) fn read_needed(&self, level: Level) -> Result<u16, Refusal> {
        let Some(member) = &self.member else {
            return self.needed(level, 1);
        };
        self.may_serve(member, false)?;
        self.needed(level, member.facts.read_quorum)
    }

    fn needed(&self, level: Level, default: u16) -> Result<u16, Refusal> {
        let copies = self.copies();
        level
            .needed(default, copies)
            .ok_or(Refusal::BadLevel { copies })
    }

    pub(super) fn send(
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
            Reply::Written(_)
            | Reply::Page { .. }
            | Reply::Snapshot(_)
            | Reply::Handoff(_)
            | Reply::Compared(_) => {}
        }
    }

    /// Hands over what peers have said. True when there was something.
    pub(crate) fn take_heard(&mut self) -> bool {
        let mut worked = false;
        self.introduce();
        self.keep_ceiling();
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
            What::Handoff(at) => self.on_handoff(at, node, ticket, &heard),
            What::Comparison => self.on_compared(ticket, heard),
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
        let due = due.unwrap_or(Instant(u64::MAX));
        let repair = member.repairing.as_ref().map(Repairing::due);
        let repair = repair.unwrap_or(Instant(u64::MAX));
        Some(due.min(repair).min(member.peers.wake_at()))
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
