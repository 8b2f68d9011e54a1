//! Drives anti-entropy: compares this core's shards with those of the other replicas, and sends what they lack.
//!
//! ```text
//!  machine: Page ─▶ scan of our shard ─▶ Compare ─▶ peer ─┬─ Same ───────────────────────▶ Done
//!                                                         └─ Heads ─▶ lacking ─▶ Write ─▶ Done
//! ```
//!
//! One page on a core at a time, which bounds what this holds in memory. The rows of the page are kept until the
//! answer has come: they are what may have to be sent.

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
use crate::base::limits::{CLOCK_SKEW_MAX, COMPARE_BYTES_MAX, COMPARE_ROWS};
use crate::base::member::NodeId;
use crate::base::rows::Rows;
use crate::base::time::Instant;
use crate::base::version::Version;
use crate::cluster::PeerState;
use crate::cluster::repair::{Event, Job, Repair, Step, lacking};
use crate::store::{Page, ScanRange};
use crate::wire::compare::{Compare, Head, Sum, Window};
use crate::wire::message::{Message, Row};

/// A page that is not answered by then counts as failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// What one core compares with others.
pub(crate) struct Repairing {
    machine: Repair,
    flight: Flight,
    /// Number of the last request.
    asked: u64,
    /// Rows sent in this pass.
    sent: u64,
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

/// A page of ours.
struct Settled {
    job: Job,
    /// Those that count, in order.
    rows: Rows,
    /// Where the next page begins.
    resume: Option<Box<[u8]>>,
}

impl Repairing {
    pub(super) fn new(now: Instant, every: Duration) -> Repairing {
        Repairing {
            machine: Repair::new(now, every),
            flight: Flight::Nothing,
            asked: 0,
            sent: 0,
        }
    }

    /// When [`Router::look_at_repair`] has something to do.
    pub(super) fn due(&self) -> Instant {
        let overdue = match &self.flight {
            Flight::Asked { since, .. } | Flight::Sent { since, .. } => Some(*since + PATIENCE),
            Flight::Nothing | Flight::Reading { .. } => None,
        };
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
        let event = match repairing.flight {
            Flight::Nothing | Flight::Reading { .. } => Event::Tick,
            Flight::Asked { .. } | Flight::Sent { .. } => Event::Failed,
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
            Step::Ended => self.end_pass(),
            Step::Page { job, after } => self.read_page(job, after),
        }
    }

    fn end_pass(&mut self) {
        self.pen.counters.count(Metric::RepairPasses);
        let sent = self
            .repairing()
            .map_or(0, |repairing| std::mem::take(&mut repairing.sent));
        if sent > 0 {
            let line = format!("repair: {sent} rows that other replicas lacked were sent to them");
            (self.log)(&line);
        }
    }

    /// Our shards beside those of each member that is up.
    fn jobs(&self) -> Vec<Job> {
        let Some(member) = &self.member else {
            return Vec::new();
        };
        let shards = self.owners.shards();
        let nodes = member.facts.topology.members().len() as u16;
        let others = (0..nodes)
            .map(NodeId)
            .filter(|node| *node != member.facts.me && member.peers.state(*node) == PeerState::Up);
        let others: Vec<NodeId> = others.collect();
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
        let Some(store) = self.stores.get(job.at).map(Rc::clone) else {
            return;
        };
        let Some(member) = &mut self.member else {
            return;
        };
        let range = Box::new(ScanRange {
            after,
            dead: true,
            slices: Some(Box::new(member.shared_slices(job.node))),
            ..ScanRange::default()
        });
        let (scanned, faults) = (range.clone(), self.read_faults.clone());
        if let Some(repairing) = &mut member.repairing {
            repairing.flight = Flight::Reading { job, range };
        }
        let (arrivals, shard) = (Rc::clone(&self.arrivals), job.shard);
        self.rt.spawn(async move {
            let page = store.scan(&scanned, COMPARE_ROWS, COMPARE_BYTES_MAX).await;
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
        let counts = |row: &Row<'_>| {
            let hash = KeyHash::of(row.key);
            let counts = window.holds(&row.entry) && theirs.holds(hash);
            if counts {
                sum.add(Head::of(hash, row.entry.version));
            }
            counts
        };
        let rows: Rows = rows.iter().filter(counts).collect();
        let Some(last) = rows.last() else {
            return self.repair_goes_on(Event::Done { upto: resume });
        };
        let sent = self.ask_whether_same(job, &range, last.key, window, sum);
        let now = self.now();
        let Some(repairing) = self.repairing() else {
            return;
        };
        if !sent {
            return self.repair_goes_on(Event::Failed);
        }
        repairing.flight = Flight::Asked {
            page: Settled { job, rows, resume },
            since: now,
        };
    }

    /// What is settled: not so young that it may still be on its way, and no tombstone one side may have forgotten.
    fn window(&self) -> Window {
        let (age, grave_age) = self
            .member
            .as_ref()
            .map_or_else(Default::default, |member| {
                (member.facts.repair_age, member.facts.gc_grace)
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
        let Some(repairing) = self.repairing().filter(|of| of.asked == asked) else {
            return;
        };
        let flight = std::mem::replace(&mut repairing.flight, Flight::Nothing);
        let event = match (flight, heard) {
            (Flight::Nothing | Flight::Reading { .. }, _) => return,
            (Flight::Asked { page, .. }, Heard::Same) => Event::Done { upto: page.resume },
            (Flight::Asked { page, .. }, Heard::Heads { heads, resume }) => {
                return self.send_lacking(page, heads, resume);
            }
            (Flight::Sent { rows, upto, .. }, Heard::Written) => {
                repairing.sent += rows;
                self.pen.counters.add(Metric::RowsRepaired, rows);
                Event::Done { upto }
            }
            (Flight::Asked { .. } | Flight::Sent { .. }, _) => Event::Failed,
        };
        self.repair_goes_on(event);
    }

    /// The member has these, up to `seen` or all of the page.
    fn send_lacking(&mut self, page: Settled, mut heads: Vec<Head>, seen: Option<Box<[u8]>>) {
        let Settled { job, rows, resume } = page;
        let told = |row: &Row<'_>| seen.as_ref().is_none_or(|seen| *row.key <= **seen);
        let own: Vec<Head> = rows
            .iter()
            .take_while(told)
            .map(|row| Head::of(KeyHash::of(row.key), row.entry.version))
            .collect();
        let upto = seen.or(resume);
        let lacks = lacking(&own, &mut heads);
        let lacks: Vec<Row<'_>> = lacks.into_iter().filter_map(|at| rows.get(at)).collect();
        let Some(first) = lacks.first() else {
            return self.repair_goes_on(Event::Done { upto });
        };
        let (hash, count) = (KeyHash::of(first.key), lacks.len() as u64);
        let message = Message::Write {
            healing: true,
            rows: lacks,
        };
        if !self.ask_for_repair(job.node, hash, &message) {
            return self.repair_goes_on(Event::Failed);
        }
        let since = self.now();
        if let Some(repairing) = self.repairing() {
            repairing.flight = Flight::Sent {
                rows: count,
                upto,
                since,
            };
        }
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
