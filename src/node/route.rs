//! From a key to the core that owns it: the local shard at once, another core through the mesh.
//!
//! ```text
//!              ┌─ ours ──▶ Store::get / write ───────────────▶ answered now, or by ticket through
//!  key ─▶ shard┤                                               Completions (log) or Arrivals (disk)
//!              └─ theirs ─▶ Msg::Ask{ticket} ─▶ their Router ─▶ Msg::Reply{ticket}
//! ```
//!
//! One per core. Everything that waits has a slot in `waiting`; whatever comes back under a ticket that is
//! gone (its connection has closed) is dropped. A write keeps its slot even then: the log answers every ticket.
//!
//! Bound: at most `MESH_IN_FLIGHT_MAX` asks to one core are unanswered; above that requests get 503. The pages
//! of a running scan are exempt (one per shard and scan, and scans are capped themselves).

use std::rc::Rc;

use super::answer::{Answer, Page as MetricsPage, Pen, Written};
use super::arrivals::{Arrivals, Asker};
use super::batch::{Batch, Share};
use super::coordinate::{Client, Member};
use super::failure::Failure;
use super::grumble::Grumble;
use super::metrics::{Metric, Snapshot};
use super::msg::{Ask, Change, Kind, Msg, Reply};
use super::owners::Owners;
use super::read_faults::ReadFaults;
use super::reading::Reading;
use super::replica::{Gather, Job};
use super::scan_run::ScanRun;
use super::slots::Slots;
use super::writing::Writing;
use crate::base::hash::KeyHash;
use crate::base::limits::{MESH_IN_FLIGHT_MAX, READS_WAITING_MAX};
use crate::base::record::{Entry, OwnedEntry, OwnedRow, OwnedState, State};
use crate::base::time::Instant;
use crate::base::version::{Clock, ORIGIN_CORE_BITS, Version};
use crate::rt::Rt;
use crate::rt::mesh::Port;
use crate::rt::net::Token;
use crate::store::completions::Done;
use crate::store::shared::Shared;
use crate::store::{Got, Op, Store};

/// Which request of which connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub token: Token,
    pub seq: u32,
}

/// One core's way to every shard of the node.
pub(crate) struct Router {
    pub(super) rt: Rt,
    pub(super) owners: Owners,
    pub(super) shared: Rc<Shared>,
    /// The block of shards this core owns, in order.
    pub(super) stores: Vec<Rc<Store>>,
    pub(super) port: Port<Msg>,
    pub(super) arrivals: Rc<Arrivals>,
    pub(super) waiting: Slots<Waiting>,
    /// Unanswered requests to each core, pages of scans excepted.
    in_flight: Vec<usize>,
    /// Reads that wait for the disk or another core.
    pub(super) reads_waiting: usize,
    pub(super) clock: Clock,
    /// Wall clock of this turn, milliseconds.
    pub(super) wall_ms: u64,
    started: Instant,
    pub(super) scans: usize,
    /// Rows the scans of this core hold.
    pub(super) scan_bytes: usize,
    /// Answers for connections of this core; the loop hands them out.
    pub(super) answered: Vec<(Place, Answer)>,
    /// Connections whose scan has something to send.
    pub(super) stirred: Vec<Token>,
    /// This core's part in the cluster; `None`: the node is alone.
    pub(crate) member: Option<Box<Member>>,
    /// Answers to peers that have dialled this core.
    pub(super) peer_answers: Vec<(Job, bool, Reply)>,
    /// The node is about to end: why. The first reason stays.
    pub(super) fault: Option<String>,
    /// For lines that others can cause.
    pub(super) grumble: Grumble,
    /// Where the operator looks.
    pub(super) log: Rc<dyn Fn(&str)>,
    pub(super) read_faults: ReadFaults,
    pub(super) pen: Pen,
}

/// What a ticket stands for.
pub(super) enum Waiting {
    /// One answer of a read, or of a write that another core carries out.
    One {
        place: Place,
        written: Written,
    },
    /// A write to a shard of ours.
    Write {
        place: Place,
        written: Written,
        version: Version,
    },
    /// A write to a shard of ours that another core asked for.
    Foreign {
        core: usize,
        ticket: u64,
        version: Version,
    },
    /// Rows with their versions on their way into this node's own copy.
    Applying {
        asker: Asker,
    },
    /// Another core reads for a peer.
    Fetching {
        asker: Asker,
    },
    Gather(Gather),
    Writing(Box<Writing>),
    Reading(Box<Reading>),
    /// The part of a batch that goes to one shard.
    Part {
        batch: u64,
        share: Share,
    },
    Batch(Batch),
    Metrics {
        place: Place,
        left: usize,
        sum: Box<Snapshot>,
    },
    Scan(Box<ScanRun>),
}

impl Router {
    pub(crate) fn new(
        rt: &Rt,
        owners: Owners,
        shared: &Rc<Shared>,
        port: Port<Msg>,
        member: Option<Box<Member>>,
        log: Rc<dyn Fn(&str)>,
    ) -> Router {
        let wall_ms = rt.wall_ms();
        let node = member
            .as_ref()
            .map_or(0, |member| u32::from(member.facts.me.0));
        Router {
            rt: rt.clone(),
            owners,
            shared: Rc::clone(shared),
            stores: Vec::new(),
            in_flight: vec![0; port.cores()],
            reads_waiting: 0,
            port,
            arrivals: Rc::default(),
            waiting: Slots::new(),
            clock: Clock::new(node << ORIGIN_CORE_BITS | rt.core() as u32),
            wall_ms,
            started: rt.now(),
            scans: 0,
            scan_bytes: 0,
            answered: Vec::new(),
            stirred: Vec::new(),
            member,
            grumble: Grumble::default(),
            peer_answers: Vec::new(),
            fault: None,
            read_faults: ReadFaults::new(rt, &log),
            log,
            pen: Pen {
                date: crate::http::date::Date::new(wall_ms),
                counters: Snapshot::default(),
            },
        }
    }

    /// Adds the next shard of this core's block.
    pub(crate) fn add_store(&mut self, store: Rc<Store>, newest: Version) {
        self.stores.push(store);
        self.clock.observe(newest);
    }

    /// Once per turn.
    pub(crate) fn tick(&mut self) {
        self.wall_ms = self.rt.wall_ms();
        self.pen.date.refresh(self.wall_ms);
    }

    /// Something is still to be answered to one of our connections or to another core.
    pub(crate) fn is_busy(&self) -> bool {
        self.waiting.len() > 0
    }

    /// The store of a shard, if it is ours.
    pub(super) fn local(&self, shard: u16) -> Option<&Rc<Store>> {
        let block = self.owners.shards_of(self.rt.core());
        let index = block
            .contains(&shard)
            .then(|| usize::from(shard - block.start))?;
        self.stores.get(index)
    }

    pub(super) fn may_ask(&self, core: usize) -> Result<(), Failure> {
        if self.in_flight[core] < MESH_IN_FLIGHT_MAX {
            Ok(())
        } else {
            Err(Failure::Busy)
        }
    }

    /// Whether one more read may wait: each may come to a value of the greatest length.
    fn may_wait(&self) -> Result<(), Failure> {
        if self.reads_waiting < READS_WAITING_MAX {
            Ok(())
        } else {
            Err(Failure::Busy)
        }
    }

    pub(super) fn ask(&mut self, core: usize, ticket: u64, ask: Ask) {
        self.in_flight[core] += usize::from(!matches!(ask, Ask::Scan { .. }));
        self.pen.counters.count(Metric::Forwarded);
        self.port.send(core, Msg(Kind::Ask { ticket, ask }));
    }

    /// Looks a key up. `Some`: `read` has run or the lookup has failed; `None`: the answer comes to `place`.
    pub(crate) fn get<R>(
        &mut self,
        key: &[u8],
        (needed, after): (u16, Version),
        place: Place,
        read: impl FnOnce(&mut Pen, Option<Entry<'_>>) -> R,
    ) -> Option<Result<R, Failure>> {
        self.pen.counters.count(Metric::Reads);
        let hash = KeyHash::of(key);
        let shard = hash.shard(self.owners.shards());
        let written = Written::Put;
        let one = Waiting::One { place, written };
        let Some(store) = self.local(shard).map(Rc::clone) else {
            let core = self.owners.core_of(shard);
            if let Err(failure) = self.may_ask(core).and_then(|()| self.may_wait()) {
                return Some(Err(failure));
            }
            self.reads_waiting += 1;
            let ticket = self.waiting.insert(one);
            let ask = Ask::Get {
                key: key.into(),
                hash,
                needed,
                after,
            };
            self.ask(core, ticket, ask);
            return None;
        };
        if !self.reads_alone(hash, needed, after) {
            if let Err(failure) = self.may_wait() {
                return Some(Err(failure));
            }
            self.reads_waiting += 1;
            let client = Client::Place { place, written };
            self.start_read(client, key, hash, (needed, after), needed == 1);
            return None;
        }
        let others = self.copies() > 1;
        let pen = &mut self.pen;
        match store.get(key, hash, |entry| read(pen, entry)) {
            Ok(Got::Answer(answer)) => Some(Ok(answer)),
            Ok(Got::Disk(_)) | Err(_) if others => {
                if let Err(failure) = self.may_wait() {
                    return Some(Err(failure));
                }
                self.reads_waiting += 1;
                let client = Client::Place { place, written };
                self.start_read(client, key, hash, (needed, after), false);
                None
            }
            Ok(Got::Disk(_)) => {
                if let Err(failure) = self.may_wait() {
                    return Some(Err(failure));
                }
                self.reads_waiting += 1;
                let ticket = self.waiting.insert(one);
                self.read_from_disk(store, key.into(), hash, Asker::Here(ticket));
                None
            }
            Err(error) => Some(Err(self.read_faults.tell(&error))),
        }
    }

    /// Writes one key. `Ok`: the answer comes to `place`.
    pub(crate) fn write(
        &mut self,
        key: &[u8],
        state: State<'_>,
        needed: u16,
        written: Written,
        place: Place,
    ) -> Result<(), Failure> {
        let shard = KeyHash::of(key).shard(self.owners.shards());
        if self.local(shard).is_some() {
            let version = self.clock.stamp(self.wall_ms);
            if self.member.is_some() {
                let state = own(state);
                let rows = vec![OwnedRow {
                    key: key.into(),
                    entry: OwnedEntry { version, state },
                }];
                self.start_write(Client::Place { place, written }, shard, rows, needed);
                return Ok(());
            }
            let waiting = Waiting::Write {
                place,
                written,
                version,
            };
            let entry = Entry { version, state };
            return self.write_local(shard, &[Op { key, entry }], waiting);
        }
        let core = self.owners.core_of(shard);
        self.may_ask(core)?;
        let ticket = self.waiting.insert(Waiting::One { place, written });
        let changes = vec![Change {
            key: key.into(),
            state: own(state),
        }];
        let ask = Ask::Write {
            shard,
            changes,
            needed,
        };
        self.ask(core, ticket, ask);
        Ok(())
    }

    pub(super) fn write_local(
        &mut self,
        shard: u16,
        ops: &[Op<'_>],
        waiting: Waiting,
    ) -> Result<(), Failure> {
        let store = self.local(shard).map(Rc::clone).ok_or(Failure::Closed)?;
        let ticket = self.waiting.insert(waiting);
        store.write(ops, ticket).map_err(|refused| {
            self.waiting.remove(ticket);
            Failure::from(refused)
        })
    }

    /// Gathers the counters of all cores. The answer comes to `place`.
    pub(crate) fn metrics(&mut self, place: Place) -> Result<(), Failure> {
        let own = self.rt.core();
        let others = move |core: &usize| *core != own;
        for core in (0..self.owners.cores()).filter(others) {
            self.may_ask(core)?;
        }
        let sum = Box::new(self.snapshot());
        let left = self.owners.cores() - 1;
        if left == 0 {
            self.answer_metrics(place, *sum);
            return Ok(());
        }
        let ticket = self.waiting.insert(Waiting::Metrics { place, left, sum });
        for core in (0..self.owners.cores()).filter(others) {
            self.ask(core, ticket, Ask::Snapshot);
        }
        Ok(())
    }

    fn answer_metrics(&mut self, place: Place, sum: Snapshot) {
        let page = MetricsPage {
            sum,
            cores: self.owners.cores(),
            shards: self.owners.shards(),
            uptime: self.rt.now().since(self.started),
        };
        self.answered.push((place, Answer::Metrics(Box::new(page))));
    }

    /// This core's counters with those of its shards and its cache.
    pub(super) fn snapshot(&self) -> Snapshot {
        let mut snapshot = self.pen.counters.clone();
        for store in &self.stores {
            snapshot.add_shard(&store.stats());
        }
        let (hits, misses) = self.shared.cache_stats();
        snapshot.add(Metric::CacheHits, hits);
        snapshot.add(Metric::CacheMisses, misses);
        for hints in self.member.iter().flat_map(|member| &member.hints) {
            snapshot.add(Metric::HintBytes, hints.pending());
            snapshot.add(Metric::DirtySlices, hints.dirty());
        }
        snapshot
    }

    /// Brings a reply to whoever asked.
    pub(crate) fn reply(&mut self, asker: Asker, reply: Reply) {
        match asker {
            Asker::Here(ticket) => self.on_reply(ticket, reply),
            Asker::There { core, ticket } => {
                self.port.send(core, Msg(Kind::Reply { ticket, reply }));
            }
            Asker::Repair(ticket) => {
                let done = matches!(reply, Reply::Applied(Ok(())));
                self.on_own_repair(ticket, done);
            }
            Asker::Handoff { at, node } => {
                if let Reply::Handoff(news) = reply {
                    self.on_news(at, node, news);
                }
            }
            Asker::OwnHints { at, sent } => {
                let done = matches!(reply, Reply::Applied(Ok(())));
                self.on_own_hints(at, sent, done);
            }
            Asker::Comparing => {
                if let Reply::Page { page, .. } = reply {
                    self.on_own_page(page);
                }
            }
            Asker::Peer(job) => self.peer_answers.push((job, false, reply)),
            Asker::PeerDigest(job) => self.peer_answers.push((job, true, reply)),
        }
    }

    /// A reply of another core.
    pub(crate) fn on_foreign_reply(&mut self, from: usize, ticket: u64, reply: Reply) {
        let request = !matches!(reply, Reply::Page { .. });
        self.in_flight[from] = self.in_flight[from].saturating_sub(usize::from(request));
        self.on_reply(ticket, reply);
    }

    fn on_reply(&mut self, ticket: u64, reply: Reply) {
        match self.waiting.get_mut(ticket) {
            Some(Waiting::Applying { asker } | Waiting::Fetching { asker }) => {
                let asker = *asker;
                self.waiting.remove(ticket);
                return self.reply(asker, reply);
            }
            Some(Waiting::Writing(_) | Waiting::Reading(_)) => {
                return self.on_own_reply(ticket, reply);
            }
            _ => {}
        }
        match reply {
            Reply::Applied(outcome) => self.gathered(ticket, outcome),
            // Come to `Asker::Handoff` and to peers only.
            Reply::Handoff(_) | Reply::Compared(_) => {}
            Reply::Got(got) => {
                let answer = match got {
                    Ok(entry) => Answer::Found(entry),
                    Err(failure) => Answer::Refused(failure.into()),
                };
                if let Some(Waiting::One { place, .. }) = self.waiting.remove(ticket) {
                    self.reads_waiting -= 1;
                    self.answered.push((place, answer));
                }
            }
            Reply::Written(outcome) => match self.waiting.remove(ticket) {
                Some(Waiting::One { place, written }) => {
                    self.answered
                        .push((place, written_or_not(written, outcome)));
                }
                Some(Waiting::Part { batch, share }) => {
                    self.settle_part(batch, share, outcome.map(drop));
                }
                _ => {}
            },
            Reply::Page { shard, page } => self.on_page(ticket, shard, page),
            Reply::Snapshot(snapshot) => {
                let Some(Waiting::Metrics { left, sum, .. }) = self.waiting.get_mut(ticket) else {
                    return;
                };
                sum.merge(&snapshot);
                *left -= 1;
                if *left == 0
                    && let Some(Waiting::Metrics { place, sum, .. }) = self.waiting.remove(ticket)
                {
                    self.answer_metrics(place, *sum);
                }
            }
        }
    }

    /// The log has answered a write.
    pub(crate) fn on_done(&mut self, done: Done) {
        let outcome = done.result.map_err(Failure::from);
        match self.waiting.remove(done.ticket) {
            Some(Waiting::Write {
                place,
                written,
                version,
            }) => {
                let answer = written_or_not(written, outcome.map(|()| version));
                self.answered.push((place, answer));
            }
            Some(Waiting::Foreign {
                core,
                ticket,
                version,
            }) => {
                let reply = Reply::Written(outcome.map(|()| version));
                self.port.send(core, Msg(Kind::Reply { ticket, reply }));
            }
            Some(Waiting::Part { batch, share }) => self.settle_part(batch, share, outcome),
            Some(Waiting::Applying { asker }) => self.reply(asker, Reply::Applied(outcome)),
            _ => {}
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.rt.now()
    }
}

pub(super) fn written_or_not(written: Written, outcome: Result<Version, Failure>) -> Answer {
    match outcome {
        Ok(version) => Answer::Written(written, Some(version)),
        Err(failure) => Answer::Refused(failure.into()),
    }
}

/// A value that came as JSON text.
pub(crate) fn text(value: &str) -> State<'_> {
    State::Live {
        value: value.as_bytes(),
        text: true,
    }
}

pub(super) fn own(state: State<'_>) -> OwnedState {
    match state {
        State::Deleted => OwnedState::Deleted,
        State::Live { value, text } => OwnedState::Live {
            value: value.into(),
            text,
        },
    }
}
