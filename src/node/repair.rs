//! Drives anti-entropy: compares this core's shards with those of the other replicas, and sends what they lack.
//!
//! ```text
//!  machine: Page ─▶ scan of our shard ─▶ Compare ─▶ peer ─┬─ Same ───────────────────────▶ Done
//!                                                         └─ Heads ─▶ lacking ─▶ Write ─▶ Done
//! ```
//!
//! One page on a core at a time, which bounds what this holds in memory. The rows of the page are kept until the
//! answer has come: they are what may have to be sent.
//!
//! Invariant: while the machine waits for a page, `flight` is not `Nothing`. Whoever takes it tells the machine.
//!
//! What it does not do: mend a damaged block. One of ours ends the job, and what is behind it is not compared; where the
//! other cannot read, it is sent nothing, as it may have had something newer (see `cluster::read`).

use std::rc::Rc;
use std::time::Duration;

use super::arrivals::Asker;
use super::compare::Part;
use super::failure::Failure;
use super::links::{Heard, What};
use super::metrics::Metric;
use super::msg::Reply;
use super::route::Router;
use crate::base::hash::KeyHash;
use crate::base::limits::{
    CLOCK_SKEW_MAX, COMPARE_BYTES_MAX, COMPARE_ROWS, FRAME_BODY_BYTES_MAX, KEY_BYTES_MAX,
    VALUE_BYTES_MAX,
};
use crate::base::member::NodeId;
use crate::base::record::Row;
use crate::base::rows::Rows;
use crate::base::slices::Slices;
use crate::base::time::Instant;
use crate::base::version::Version;
use crate::cluster::PeerState;
use crate::cluster::repair::{Event, FIRST_AFTER, Job, Own, Repair, Step, lacking};
use crate::rt::Rt;
use crate::store::{Page, ScanRange};
use crate::wire::compare::{Compare, Head, Sum, Window};
use crate::wire::message::{Message, Why};

/// A page that is not answered by then counts as failed.
const PATIENCE: Duration = Duration::from_secs(10);

// A page fits a frame whatever its rows are: it is ended by the row that fills it.
const _: () = assert!(
    COMPARE_BYTES_MAX + VALUE_BYTES_MAX + KEY_BYTES_MAX + 64 * COMPARE_ROWS <= FRAME_BODY_BYTES_MAX
);

/// What one core compares with others.
pub(crate) struct Repairing {
    machine: Repair,
    flight: Flight,
    /// Number of the last request.
    asked: u64,
    /// Rows sent in this pass.
    sent: u64,
    /// The slices this node shares with the member it is comparing with.
    shared: Option<(NodeId, Box<Slices>)>,
}

/// What is under way.
enum Flight {
    Nothing,
    Reading {
        job: Job,
        range: Box<ScanRange>,
    },
    Asked {
        page: Settled,
        since: Instant,
    },
    Sent {
        rows: u64,
        upto: Option<Box<[u8]>>,
        since: Instant,
    },
}

impl Flight {
    /// The other has it, since then.
    fn away_since(&self) -> Option<Instant> {
        match self {
            Flight::Asked { since, .. } | Flight::Sent { since, .. } => Some(*since),
            Flight::Nothing | Flight::Reading { .. } => None,
        }
    }
}

/// A page of ours.
struct Settled {
    job: Job,
    /// Those old enough, in order; and the end of the page before.
    rows: Rows,
    after: Option<Box<[u8]>>,
    /// Where the next page begins.
    resume: Option<Box<[u8]>>,
    window: Window,
}

impl Repairing {
    pub(super) fn new(rt: &Rt, every: Duration) -> Repairing {
        // Or all cores of all members would begin at once after a start of the whole cluster.
        let late = every.min(FIRST_AFTER) / 4 * (rt.entropy() % 256) as u32 / 256;
        Repairing {
            machine: Repair::new(rt.now() + late, every),
            flight: Flight::Nothing,
            asked: 0,
            sent: 0,
            shared: None,
        }
    }

    /// When [`Router::look_at_repair`] has something to do.
    pub(super) fn due(&self) -> Instant {
        let overdue = self.flight.away_since().map(|since| since + PATIENCE);
        let due = overdue.or(self.machine.due());
        due.unwrap_or(Instant(u64::MAX))
    }
}

impl Router {
    fn repairing(&mut self) -> Option<&mut Repairing> {
        self.member.as_mut()?.repairing.as_mut()
    }

    /// Goes on when it is time.
    pub(crate) fn look_at_repair(&mut self) {
        let now = self.now();
        let Some(repairing) = self.repairing().filter(|repairing| repairing.due() <= now) else {
            return;
        };
        let event = match repairing.flight.away_since() {
            None => Event::Tick,
            Some(_) => Event::Failed,
        };
        self.repair_goes_on(event);
    }

    /// Tells the machine, and does what it wants.
    fn repair_goes_on(&mut self, event: Event) {
        let now = self.now();
        let Some(repairing) = self.repairing() else {
            return;
        };
        repairing.flight = Flight::Nothing;
        let mut step = repairing.machine.on(now, event);
        if step == Step::Plan {
            let jobs = self.jobs();
            let Some(repairing) = self.repairing() else {
                return;
            };
            step = repairing.machine.on(now, Event::Planned(jobs));
        }
        match step {
            Step::Idle | Step::Plan => {}
            Step::Ended { whole } => self.end_pass(whole),
            Step::Page { job, after } => self.read_page(job, after),
        }
    }

    fn end_pass(&mut self, whole: bool) {
        let metric = if whole {
            Metric::RepairPasses
        } else {
            Metric::RepairPassesCut
        };
        self.pen.counters.count(metric);
        let sent = self
            .repairing()
            .map_or(0, |repairing| std::mem::take(&mut repairing.sent));
        if sent > 0 {
            let line = format!("repair: {sent} rows that other replicas lacked were sent to them");
            (self.log)(&line);
        }
    }

    /// Our shards beside those of each other replica that is up, the next member after this one first.
    fn jobs(&self) -> Vec<Job> {
        let Some(member) = &self.member else {
            return Vec::new();
        };
        // What is here may be another member's.
        if self.may_serve(member, false).is_err() {
            return Vec::new();
        }
        let (me, shards) = (member.facts.me, self.owners.shards());
        let nodes = member.facts.topology.members().len() as u16;
        let others = (me.0 + 1..nodes).chain(0..me.0).map(NodeId);
        let others: Vec<NodeId> = others
            .filter(|node| member.peers.state(*node) == PeerState::Up)
            .filter(|node| !member.shared_slices(*node).is_empty())
            .collect();
        let mut jobs = Vec::new();
        for (at, ours) in self.owners.shards_of(self.rt.core()).enumerate() {
            for node in &others {
                let theirs = overlapping(ours, shards, member.peers.shards(*node));
                jobs.extend(theirs.map(|shard| Job {
                    at,
                    node: *node,
                    shard,
                }));
            }
        }
        jobs
    }

    fn read_page(&mut self, job: Job, after: Option<Box<[u8]>>) {
        let store = self.stores.get(job.at).map(Rc::clone);
        let (Some(store), Some(member)) = (store, &mut self.member) else {
            return self.repair_goes_on(Event::Unreadable);
        };
        let shared = member.repairing.as_mut().and_then(|of| of.shared.take());
        let shared = shared.filter(|shared| shared.0 == job.node);
        let (_, slices) =
            shared.unwrap_or_else(|| (job.node, Box::new(member.shared_slices(job.node))));
        let range = Box::new(ScanRange {
            after,
            dead: true,
            apart: true,
            slices: Some(slices.clone()),
            ..ScanRange::default()
        });
        let (scanned, rows_max) = (range.clone(), member.facts.comparing.rows);
        if let Some(repairing) = &mut member.repairing {
            repairing.shared = Some((job.node, slices));
            repairing.flight = Flight::Reading { job, range };
        }
        let (arrivals, shard) = (Rc::clone(&self.arrivals), job.shard);
        let faults = self.read_faults.clone();
        self.rt.spawn(async move {
            let page = store.scan(&scanned, rows_max, COMPARE_BYTES_MAX).await;
            let page = page.map_err(|error| faults.tell(&error));
            arrivals.push(Asker::Comparing, Reply::Page { shard, page });
        });
    }

    /// Our rows of the page have been read.
    pub(super) fn on_own_page(&mut self, page: Result<Page, Failure>) {
        let Some(repairing) = self.repairing() else {
            return;
        };
        let flight = std::mem::replace(&mut repairing.flight, Flight::Nothing);
        let Flight::Reading { job, range } = flight else {
            return;
        };
        let Ok(Page { rows, resume }) = page else {
            return self.repair_goes_on(Event::Unreadable);
        };
        let window = self.window();
        let theirs = self.part_of(job);
        let mut sum = Sum::default();
        let is_old_enough = |row: &Row<'_>| {
            let hash = KeyHash::of(row.key);
            let old_enough = !window.is_young(row.entry.version) && theirs.holds(hash);
            if old_enough && window.holds(&row.entry) {
                sum.add(Head::of(hash, row.entry.version));
            }
            old_enough
        };
        let rows: Rows = rows.iter().filter(is_old_enough).collect();
        let Some(last) = rows.last() else {
            return self.repair_goes_on(Event::Done { upto: resume });
        };
        let sent = self.ask_whether_same(job, &range, last.key, window, sum);
        let since = self.now();
        let Some(repairing) = self.repairing().filter(|_| sent) else {
            return self.repair_goes_on(Event::Failed);
        };
        let page = Settled {
            job,
            rows,
            after: range.after,
            resume,
            window,
        };
        repairing.flight = Flight::Asked { page, since };
    }

    /// What is settled: not so young that it may still be on its way, and no tombstone one side may have forgotten.
    fn window(&self) -> Window {
        let (age, grave_age) = self
            .member
            .as_ref()
            .map_or_else(Default::default, |member| {
                (member.facts.comparing.age_min, member.facts.gc_grace)
            });
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let before = |span| Version::at_ms(self.wall_ms.saturating_sub(ms(span))).hlc;
        Window {
            young_from: before(age),
            young_to: Version::at_ms(self.wall_ms + ms(CLOCK_SKEW_MAX)).hlc,
            graves_from: before(grave_age),
        }
    }

    /// The keys of a shard of theirs.
    fn part_of(&self, job: Job) -> Part {
        let member = self.member.as_ref();
        Part {
            of: member
                .map_or(1, |member| member.peers.shards(job.node))
                .max(1),
            part: job.shard,
        }
    }

    fn ask_whether_same(
        &mut self,
        job: Job,
        range: &ScanRange,
        to: &[u8],
        window: Window,
        sum: Sum,
    ) -> bool {
        let (of, part) = (
            self.owners.shards(),
            self.owners.shards_of(self.rt.core()).start + job.at as u16,
        );
        let Some(slices) = range.slices.clone() else {
            return false;
        };
        let message = Message::Compare(Compare {
            shard: job.shard,
            of,
            part,
            window,
            sum,
            after: range.after.as_deref(),
            to,
            slices,
        });
        self.ask_for_repair(job.node, KeyHash::of(to), &message)
    }

    fn ask_for_repair(&mut self, node: NodeId, hash: KeyHash, message: &Message<'_>) -> bool {
        let Some(member) = &mut self.member else {
            return false;
        };
        let Some(repairing) = &mut member.repairing else {
            return false;
        };
        repairing.asked += 1;
        let request = (repairing.asked, What::Comparison);
        let sent = member
            .peers
            .send(node, Some(hash), request, PATIENCE, message);
        sent.is_ok()
    }

    /// A member has answered request number `asked`.
    pub(super) fn on_compared(&mut self, asked: u64, heard: Heard) {
        let Some(repairing) = self
            .repairing()
            .filter(|of| of.asked == asked && of.flight.away_since().is_some())
        else {
            // Its time was over before it came, and says nothing about what is under way now.
            return;
        };
        let event = match (
            std::mem::replace(&mut repairing.flight, Flight::Nothing),
            heard,
        ) {
            (Flight::Asked { page, .. }, Heard::Same | Heard::Refused(Why::Unreadable)) => {
                Event::Done { upto: page.resume }
            }
            (Flight::Asked { page, .. }, Heard::Heads { heads, resume }) => {
                return self.send_lacking(page, heads, resume);
            }
            (Flight::Sent { rows, upto, .. }, Heard::Written) => {
                repairing.sent += rows;
                self.pen.counters.add(Metric::RowsRepaired, rows);
                Event::Done { upto }
            }
            _ => Event::Failed,
        };
        self.repair_goes_on(event);
    }

    /// The member has these, up to `told` or all of the page.
    fn send_lacking(&mut self, page: Settled, mut heads: Vec<Head>, told: Option<Box<[u8]>>) {
        let Settled {
            job,
            rows,
            after,
            resume,
            window,
        } = page;
        if let Some(told) = &told
            && (Some(told) <= after.as_ref() || rows.last().is_none_or(|row| row.key < &told[..]))
        {
            // Nonsense, by which a pass would not end or rows would be left out.
            return self.repair_goes_on(Event::Failed);
        }
        let known = |row: &Row<'_>| told.as_ref().is_none_or(|told| row.key <= &told[..]);
        let own: Vec<Own> = rows
            .iter()
            .take_while(known)
            .map(|row| Own {
                head: Head::of(KeyHash::of(row.key), row.entry.version),
                over_older_only: !window.holds(&row.entry),
            })
            .collect();
        let lacks = lacking(&own, &mut heads);
        let lacks: Vec<Row<'_>> = lacks.into_iter().filter_map(|at| rows.get(at)).collect();
        let upto = told.or(resume);
        let Some(first) = lacks.first() else {
            return self.repair_goes_on(Event::Done { upto });
        };
        let (hash, rows) = (KeyHash::of(first.key), lacks.len() as u64);
        let message = Message::Write {
            healing: true,
            rows: lacks,
        };
        let sent = self.ask_for_repair(job.node, hash, &message);
        let since = self.now();
        let Some(repairing) = self.repairing().filter(|_| sent) else {
            return self.repair_goes_on(Event::Failed);
        };
        repairing.flight = Flight::Sent { rows, upto, since };
    }
}

/// The shards among `theirs` that share keys with shard `ours` of `of`. Both divide the same line of hashes evenly.
fn overlapping(ours: u16, of: u16, theirs: u16) -> std::ops::Range<u16> {
    let (ours, of, theirs) = (u32::from(ours), u32::from(of), u32::from(theirs));
    let first = ours * theirs / of;
    let end = ((ours + 1) * theirs).div_ceil(of);
    first as u16..end as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_in_one_pair_of_overlapping_shards() {
        let mut rng = fastrand::Rng::with_seed(4);
        for _ in 0..2_000 {
            let (of, theirs) = (rng.u16(1..20), rng.u16(1..20));
            let hash = KeyHash::of(&rng.u64(..).to_le_bytes());
            let pairs = (0..of)
                .flat_map(|ours| overlapping(ours, of, theirs).map(move |shard| (ours, shard)));
            let pair = (hash.shard(of), hash.shard(theirs));
            let holding = pairs.filter(|found| *found == pair).count();
            assert_eq!(holding, 1, "{of} {theirs} {pair:?}");
        }
        assert_eq!(overlapping(1, 4, 4), 1..2);
        assert_eq!(overlapping(0, 2, 3), 0..2);
    }
}
