//! Drives hinted handoff: what a replica has missed is kept in a log on disk, and sent when it is back.
//!
//! ```text
//!  Action::Hint ─▶ owe ─▶ machine: Keep ─▶ log.add            log ─ batch ─▶ Write(healing) ─▶ peer
//!                            └─ Overflow ─▶ slice marked       ▲                                 │ Written
//!                                                              └────────── forget ◀──────────────┘
//!  marked slices: one walk over the shard in key order, whose rows in those slices are sent page by page
//! ```
//!
//! One log per shard of this core, one machine (`cluster::hints`) per shard and member; at most one batch or page of
//! each is on its way, which bounds what all of this holds in memory. A hint is forgotten, and the marks of a pass are
//! taken back, only after the member has said that all of it is on stable storage. Rows keep the versions of their
//! writes: sent twice, or late, they change nothing.
//!
//! This node's own copy is a member like any other: what its log refused comes from there to its own store. Only a
//! pass cannot mend it, which would walk over the very shard that lacks the rows; so its slices are not marked, and
//! what no log holds either is found by reads and by comparison (`repair`).
//!
//! What it does not do: count hints as copies, or decide who is up (`peers`).

use std::rc::Rc;
use std::time::Duration;

use super::arrivals::{Arrivals, Asker};
use super::hint_log::{HintLog, Lost, Pending};
use super::hint_row::{Hint, hint_bytes};
use super::links::{Heard, What};
use super::metrics::Metric;
use super::msg::Reply;
use super::replica::newest_of_each;
use super::route::Router;
use crate::base::hash::KeyHash;
use crate::base::limits::{
    FRAME_BODY_BYTES_MAX, HINT_BYTES_PER_MEMBER_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX,
};
use crate::base::member::NodeId;
use crate::base::planted::{self, Bug};
use crate::base::record::OwnedRow;
use crate::base::slices::Slice;
use crate::base::time::Instant;
use crate::cluster::PeerState;
use crate::cluster::hints::{Event, Handoff, Step, Verdict, WINDOW_BYTES_MAX};
use crate::rt::Rt;
use crate::store::{Op, Page, ScanRange};
use crate::wire::message::{Message, Row};

/// A batch or page that is not answered by then counts as failed.
const HANDOFF_PATIENCE: Duration = Duration::from_secs(10);
/// Rows of one page: what a member applies and logs in one go, about a millisecond of its core.
const PAGE_ROWS_MAX: usize = 1024;

// A page fits a frame whatever its rows are: it is ended by the row that fills it.
const _: () = assert!(
    WINDOW_BYTES_MAX as usize + VALUE_BYTES_MAX + KEY_BYTES_MAX + 64 * PAGE_ROWS_MAX
        <= FRAME_BODY_BYTES_MAX
);

/// What one shard owes to all members.
pub(crate) struct ShardHints {
    log: Rc<HintLog>,
    /// By [`NodeId`].
    owed: Vec<Owed>,
}

struct Owed {
    machine: Handoff,
    is_up: bool,
    /// When the machine wants to be asked again.
    due: Option<Instant>,
    flight: Flight,
    /// Number of the last batch or page that was sent.
    sent: u64,
    /// What the pass under way has still to send; `None`: none has begun, or its page is on the way.
    rest: Option<Box<ScanRange>>,
    /// The marks have changed since they were last written.
    unsaved: bool,
    /// They are being written. One at a time, so that the last to be written are the newest.
    saving: bool,
}

/// What is on its way to one member.
enum Flight {
    Nothing,
    /// The log or the store is being read.
    Reading,
    Batch {
        hints: Vec<Hint>,
        since: Instant,
    },
    Page {
        /// What was to be sent before this page, and where to go on behind it.
        rest: Box<ScanRange>,
        resume: Option<Box<[u8]>>,
        since: Instant,
    },
    /// Acknowledged, and being taken out of the log.
    Forgetting,
}

/// What a task of ours has to tell.
#[derive(Debug)]
pub(crate) enum News {
    Batch(Option<Vec<Hint>>),
    /// The next rows of the rest of a pass.
    Page(Box<ScanRange>, Option<Page>),
    /// So many bytes are forgotten; `None`: the log refused.
    Forgotten(Option<u64>),
    /// The marks are on disk, or not.
    Saved(bool),
}

impl ShardHints {
    /// `shards`: of the whole node, which share the space for hints.
    pub(crate) fn new(log: Rc<HintLog>, pending: &[Pending], shards: u16) -> ShardHints {
        let owed = pending.iter().map(|pending| {
            let mut machine = Handoff::new(HINT_BYTES_PER_MEMBER_MAX / u64::from(shards));
            machine.restore(pending.bytes, &pending.dirty);
            Owed {
                machine,
                is_up: false,
                due: None,
                flight: Flight::Nothing,
                sent: 0,
                rest: None,
                unsaved: false,
                saving: false,
            }
        });
        ShardHints {
            owed: owed.collect(),
            log,
        }
    }

    pub(crate) fn log(&self) -> &Rc<HintLog> {
        &self.log
    }

    /// Bytes that wait for members.
    pub(crate) fn pending(&self) -> u64 {
        self.owed.iter().map(|owed| owed.machine.pending()).sum()
    }

    /// Slices some member lacks something of that no log holds.
    pub(crate) fn dirty(&self) -> u64 {
        let marked = self.owed.iter().map(|owed| owed.machine.marked().len());
        marked.sum::<usize>() as u64
    }
}

impl Router {
    /// A replica has missed these rows of one shard, and somebody holds them.
    pub(super) fn owe(&mut self, node: NodeId, shard: u16, rows: &[OwnedRow]) {
        let (now, first) = (self.now(), self.first_shard());
        let Some(member) = &mut self.member else {
            return;
        };
        let at = usize::from(shard - first);
        let (me, ring) = (member.facts.me, &member.ring);
        let mismatched = member.peers.is_mismatched(node);
        let Some(hints) = member.hints.get_mut(at) else {
            return;
        };
        let owed = &mut hints.owed[node.index()];
        for row in rows {
            let entry = row.entry.as_entry();
            let slice = Slice::of(KeyHash::of(&row.key).token());
            let bytes = hint_bytes(&row.key, &entry);
            // Nobody knows whether one that is refused is still the one it was, and when it will be again: what it
            // lacks is not kept row by row. Where this node holds no copy, though, a pass would find nothing.
            let refused = mismatched && ring.is_replica(slice, me);
            let kept = !refused && owed.machine.offer(now, slice, bytes) == Verdict::Keep;
            if kept && hints.log.add(node, &row.key, &entry).is_ok() {
                self.pen.counters.count(Metric::HintsKept);
                continue;
            }
            owed.mark(slice, node == me);
            self.pen.counters.count(Metric::HintsDropped);
        }
        if owed.is_up {
            self.hand_off(at, node, Event::Tick);
        }
    }

    fn first_shard(&self) -> u16 {
        self.owners.shards_of(self.rt.core()).start
    }

    /// Looks at all members: who is back, who is gone, what is due.
    pub(crate) fn look_at_handoffs(&mut self) {
        let now = self.now();
        let Some(member) = &self.member else {
            return;
        };
        let shards = member.hints.len();
        let nodes = member.facts.topology.members().len() as u16;
        for at in 0..shards {
            self.take_lost(at);
            for node in (0..nodes).map(NodeId) {
                self.save_marks(at, node);
                let Some(member) = &mut self.member else {
                    return;
                };
                let up = member.peers.state(node) != PeerState::Down;
                let owed = &mut member.hints[at].owed[node.index()];
                let event = if up != owed.is_up {
                    owed.is_up = up;
                    if up { Event::Up } else { Event::Down }
                } else if owed.flight.is_overdue(now) {
                    owed.fail();
                    Event::Failed
                } else if owed.due.is_some_and(|due| due <= now) {
                    Event::Tick
                } else {
                    continue;
                };
                self.hand_off(at, node, event);
            }
        }
    }

    /// Hints the log could not keep after all: their slices are marked instead.
    fn take_lost(&mut self, at: usize) {
        let mut lost: Vec<Lost> = Vec::new();
        if let Some(member) = &mut self.member {
            let (me, hints) = (member.facts.me, &mut member.hints[at]);
            hints.log.take_lost(&mut lost);
            for Lost { target, slice } in &lost {
                hints.owed[target.index()].mark(*slice, *target == me);
            }
            if let Some(why) = hints.log.failure() {
                self.shared.completions().fail(format!("hints: {why}"));
            }
        }
        self.pen
            .counters
            .add(Metric::HintsDropped, lost.len() as u64);
    }

    fn save_marks(&mut self, at: usize, node: NodeId) {
        let Some(member) = &mut self.member else {
            return;
        };
        let hints = &mut member.hints[at];
        let owed = &mut hints.owed[node.index()];
        if owed.saving || !std::mem::take(&mut owed.unsaved) {
            return;
        }
        owed.saving = true;
        let (log, marks) = (Rc::clone(&hints.log), owed.machine.marked().clone());
        spawn(&self.rt, &self.arrivals, (at, node), async move {
            News::Saved(log.save_dirty(node, &marks).await.is_ok())
        });
    }

    /// Tells the machine, and does what it wants.
    fn hand_off(&mut self, at: usize, node: NodeId, event: Event) {
        let now = self.now();
        let Some(member) = &mut self.member else {
            return;
        };
        let hints = &mut member.hints[at];
        let owed = &mut hints.owed[node.index()];
        owed.due = None;
        match owed.machine.on(now, event) {
            Step::Idle { until } => owed.due = until,
            Step::Replay { bytes_max } => {
                owed.flight = Flight::Reading;
                let log = Rc::clone(&hints.log);
                spawn(&self.rt, &self.arrivals, (at, node), async move {
                    News::Batch(log.batch(node, bytes_max).await.ok())
                });
            }
            Step::Page { bytes_max } => {
                let Some(store) = self.stores.get(at).map(Rc::clone) else {
                    return;
                };
                let rest = owed.rest.take();
                let rest = rest.unwrap_or_else(|| {
                    Box::new(ScanRange {
                        dead: true,
                        apart: true,
                        slices: owed.machine.pass().cloned().map(Box::new),
                        ..ScanRange::default()
                    })
                });
                owed.flight = Flight::Reading;
                spawn(&self.rt, &self.arrivals, (at, node), async move {
                    let page = store.scan(&rest, PAGE_ROWS_MAX, bytes_max as usize).await;
                    News::Page(rest, page.ok())
                });
            }
        }
    }

    /// A task of ours is done.
    pub(super) fn on_news(&mut self, at: usize, node: NodeId, news: News) {
        let now = self.now();
        match news {
            News::Saved(saved) => {
                if let Some(owed) = self.owed(at, node) {
                    owed.saving = false;
                    owed.unsaved |= !saved;
                }
            }
            News::Batch(None) => self.end_flight(at, node, Event::Failed),
            News::Batch(Some(hints)) if hints.is_empty() => {
                self.end_flight(at, node, Event::Empty);
            }
            News::Batch(Some(mut hints)) => {
                if planted::is(Bug::HintStamped) {
                    let version = self.clock.stamp(self.wall_ms);
                    hints.iter_mut().for_each(|h| h.entry.version = version);
                }
                let rows = hints.iter().map(|hint| Row {
                    key: &hint.key,
                    entry: hint.entry.as_entry(),
                });
                let rows = rows.collect();
                let sent = self.send_rows(at, node, rows);
                self.fly(at, node, sent, Flight::Batch { hints, since: now });
            }
            News::Page(rest, None) => {
                self.keep_rest(at, node, rest);
                self.end_flight(at, node, Event::Failed);
            }
            News::Page(mut rest, Some(page)) if page.rows.is_empty() => {
                let last = page.resume.is_none();
                if !last {
                    rest.after = page.resume;
                    self.keep_rest(at, node, rest);
                }
                self.end_flight(at, node, Event::PageDone { empty: true, last });
            }
            News::Page(rest, Some(page)) => {
                let sent = self.send_rows(at, node, page.rows.iter().collect());
                let (resume, since) = (page.resume, now);
                let flight = Flight::Page {
                    rest,
                    resume,
                    since,
                };
                self.fly(at, node, sent, flight);
            }
            News::Forgotten(None) => self.end_flight(at, node, Event::Failed),
            News::Forgotten(Some(bytes)) => self.end_flight(at, node, Event::Acked { bytes }),
        }
    }

    fn send_rows(&mut self, at: usize, node: NodeId, rows: Vec<Row<'_>>) -> bool {
        if self.is_me(node) {
            return self.apply_own(at, &rows);
        }
        let hash = rows.first().map(|row| KeyHash::of(row.key));
        let message = Message::Write {
            healing: true,
            rows,
        };
        self.member.as_mut().is_some_and(|member| {
            let owed = &mut member.hints[at].owed[node.index()];
            owed.sent += 1;
            let request = (owed.sent, What::Handoff(at));
            let sent = member
                .peers
                .send(node, hash, request, HANDOFF_PATIENCE, &message);
            sent.is_ok()
        })
    }

    /// Hands a batch to this node's own store.
    fn apply_own(&mut self, at: usize, rows: &[Row<'_>]) -> bool {
        let shard = self.first_shard() + at as u16;
        let Some(member) = &mut self.member else {
            return false;
        };
        let owed = &mut member.hints[at].owed[member.facts.me.index()];
        owed.sent += 1;
        let sent = owed.sent;
        let ops = rows.iter().map(|row| Op {
            key: row.key,
            entry: row.entry,
        });
        let mut ops = ops.map(|op| (shard, op)).collect();
        newest_of_each(&mut ops);
        self.apply_all(&ops, Asker::OwnHints { at, sent }).is_ok()
    }

    /// This node's own store has taken batch number `sent`, or not.
    pub(super) fn on_own_hints(&mut self, at: usize, sent: u64, done: bool) {
        let Some(me) = self.member.as_ref().map(|member| member.facts.me) else {
            return;
        };
        let heard = if done { Heard::Written } else { Heard::Lost };
        self.on_handoff(at, me, sent, &heard);
    }

    fn owed(&mut self, at: usize, node: NodeId) -> Option<&mut Owed> {
        let member = self.member.as_mut()?;
        Some(&mut member.hints[at].owed[node.index()])
    }

    fn keep_rest(&mut self, at: usize, node: NodeId, rest: Box<ScanRange>) {
        if let Some(owed) = self.owed(at, node) {
            owed.rest = Some(rest);
        }
    }

    fn fly(&mut self, at: usize, node: NodeId, sent: bool, flight: Flight) {
        let Some(owed) = self.owed(at, node) else {
            return;
        };
        owed.flight = flight;
        if !sent {
            owed.fail();
            self.hand_off(at, node, Event::Failed);
        }
    }

    fn end_flight(&mut self, at: usize, node: NodeId, event: Event) {
        if let Some(owed) = self.owed(at, node) {
            owed.flight = Flight::Nothing;
            owed.unsaved |= matches!(event, Event::PageDone { last: true, .. });
        }
        self.hand_off(at, node, event);
    }

    /// A member has answered batch or page number `sent`.
    pub(super) fn on_handoff(&mut self, at: usize, node: NodeId, sent: u64, heard: &Heard) {
        let Some(member) = &mut self.member else {
            return;
        };
        let hints = &mut member.hints[at];
        let owed = &mut hints.owed[node.index()];
        if sent != owed.sent || !owed.flight.is_away() {
            // Its time was over before it came, and says nothing about what is on its way now.
            return;
        }
        let is_batch = matches!(owed.flight, Flight::Batch { .. });
        let forgets = is_batch && planted::is(Bug::HintForgotten);
        if !matches!(heard, Heard::Written) && !forgets {
            owed.fail();
            return self.hand_off(at, node, Event::Failed);
        }
        match std::mem::replace(&mut owed.flight, Flight::Nothing) {
            Flight::Batch { hints: batch, .. } => {
                owed.flight = Flight::Forgetting;
                self.pen
                    .counters
                    .add(Metric::HintsReplayed, batch.len() as u64);
                let log = Rc::clone(&hints.log);
                spawn(&self.rt, &self.arrivals, (at, node), async move {
                    let bytes = batch.iter().map(Hint::bytes).sum();
                    let forgotten = log.forget(node, &batch).await;
                    News::Forgotten(forgotten.is_ok().then_some(bytes))
                });
            }
            Flight::Page {
                mut rest, resume, ..
            } => {
                let last = resume.is_none();
                if !last {
                    rest.after = resume;
                    owed.rest = Some(rest);
                }
                self.end_flight(at, node, Event::PageDone { empty: false, last });
            }
            Flight::Nothing | Flight::Reading | Flight::Forgetting => {}
        }
    }
}

impl Owed {
    /// No log holds what the member has missed of this slice. `own`: it is this node, which no pass can help.
    fn mark(&mut self, slice: Slice, own: bool) {
        if !own {
            self.machine.mark(slice);
            self.unsaved = true;
        }
    }

    /// What is on its way is not acknowledged.
    fn fail(&mut self) {
        if let Flight::Page { rest, .. } = std::mem::replace(&mut self.flight, Flight::Nothing) {
            self.rest = Some(rest);
        }
    }
}

impl Flight {
    /// The member has it.
    fn is_away(&self) -> bool {
        matches!(self, Flight::Batch { .. } | Flight::Page { .. })
    }

    fn is_overdue(&self, now: Instant) -> bool {
        match self {
            Flight::Batch { since, .. } | Flight::Page { since, .. } => {
                now.since(*since) >= HANDOFF_PATIENCE
            }
            Flight::Nothing | Flight::Reading | Flight::Forgetting => false,
        }
    }
}

/// Runs a task whose news come back to the loop.
fn spawn(
    rt: &Rt,
    arrivals: &Rc<Arrivals>,
    (at, node): (usize, NodeId),
    task: impl Future<Output = News> + 'static,
) {
    let arrivals = Rc::clone(arrivals);
    rt.spawn(async move {
        let news = task.await;
        arrivals.push(Asker::Handoff { at, node }, Reply::Handoff(news));
    });
}
