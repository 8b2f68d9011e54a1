//! Pure. Anti-entropy: when a shard is compared with the other replicas, how fast, and what they are to be sent.
//!
//! ```text
//!  Tick when due ─▶ Plan ─▶ jobs: (shard of ours, member, shard of theirs)*
//!                             │
//!        ┌────────────────────┘
//!        ▼                                 ┌─ the same ────────────────┐
//!  Page: rows of ours ─▶ their sum ─▶ ours ┤                           ├─▶ Done ─▶ rest ─▶ next page, next job
//!                                          └─ heads ─▶ lacking ─▶ sent ┘                     └▶ rest until next time
//! ```
//!
//! What no hint holds (its keeper died, its log was lost) is found here though nobody reads it. Each side only sends
//! what the other lacks: what we lack is found when the other compares. So nothing here reads the other's rows, and
//! rows keep their versions: sent twice, or late, they change nothing.
//!
//! Pace: one page at a time on a core, and after each a rest of [`REST_PER_WORK`] times what it took, the other side's
//! part and the waiting in both queues included: a busy cluster is compared more slowly.
//!
//! Rejected: to remember up to which version two replicas are equal, and to compare only what is newer. It spares most
//! of the walk, and what was lost below that mark would never be found.
//!
//! What it does not do: it neither reads nor sends, and keeps nothing over a restart; a pass begins anew.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::member::NodeId;
use crate::base::planted::{self, Bug};
use crate::base::time::Instant;
use crate::wire::compare::Head;

/// The first comparison after a start: what a crash has lost is not to wait for hours. Or earlier, if
/// `REPAIR_INTERVAL` is.
pub const FIRST_AFTER: Duration = Duration::from_secs(60);
/// A page is followed by a rest of so many times as long: about five percent of a core.
pub const REST_PER_WORK: u32 = 19;
/// No rest is longer, so that one slow disk access is not paid for twenty times over.
pub const REST_MAX: Duration = Duration::from_secs(5);
/// A page that failed is tried again after this long,
pub const RETRY_AFTER: Duration = Duration::from_secs(2);
/// and after so many failures in a row that member is left out until the next pass.
pub const FAILURES_MAX: u32 = 3;

/// One shard of ours beside one of another member: the keys that lie in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// Of this core's shards.
    pub at: usize,
    pub node: NodeId,
    /// Of that member.
    pub shard: u16,
}

/// The comparisons of one core. Only its core calls it, and answers each [`Step::Page`] with exactly one event.
#[derive(Debug)]
pub struct Repair {
    every: Duration,
    due: Instant,
    jobs: VecDeque<Job>,
    /// The last key of the first job that is known to be the same.
    after: Option<Box<[u8]>>,
    /// Since when a page is under way.
    began: Option<Instant>,
    failures: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// The jobs of a pass.
    Planned(Vec<Job>),
    /// The member has everything that this node has up to here; `None`: of the whole job.
    Done { upto: Option<Box<[u8]>> },
    /// It is not known what the member has, or it has not got what it lacks.
    Failed,
    /// Our own rows cannot be read.
    Unreadable,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing before [`Repair::due`].
    Idle,
    /// The pass is over.
    Ended,
    /// Say what is to be compared.
    Plan,
    /// Compare the next rows of the job, as many as fit.
    Page { job: Job, after: Option<Box<[u8]>> },
}

impl Repair {
    /// `every`: from the end of a pass to the next.
    #[must_use]
    pub fn new(now: Instant, every: Duration) -> Repair {
        Repair {
            every,
            due: now + every.min(FIRST_AFTER),
            jobs: VecDeque::new(),
            after: None,
            began: None,
            failures: 0,
        }
    }

    /// When `Tick` makes a difference; not before an answer while a page is under way.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.began.is_none().then_some(self.due)
    }

    pub fn on(&mut self, now: Instant, event: Event) -> Step {
        match event {
            Event::Tick if self.began.is_some() || now < self.due => return Step::Idle,
            Event::Tick if self.jobs.is_empty() => return Step::Plan,
            Event::Tick => {}
            Event::Planned(jobs) => self.jobs = jobs.into(),
            Event::Done { upto } => {
                let work = self
                    .began
                    .take()
                    .map_or(Duration::ZERO, |began| now.since(began));
                self.due = now + (REST_PER_WORK * work).min(REST_MAX);
                self.failures = 0;
                self.after = upto;
                if self.after.is_none() {
                    self.jobs.pop_front();
                }
                return self.rest(now);
            }
            Event::Failed => {
                self.failures += 1;
                if self.failures >= FAILURES_MAX
                    && let Some(Job { node, .. }) = self.jobs.pop_front()
                {
                    self.jobs.retain(|job| job.node != node);
                    self.failures = 0;
                    self.after = None;
                }
                self.due = now + RETRY_AFTER;
                return self.rest(now);
            }
            Event::Unreadable => {
                self.jobs.pop_front();
                self.after = None;
                self.due = now + RETRY_AFTER;
                return self.rest(now);
            }
        }
        match self.jobs.front() {
            None => self.rest(now),
            Some(job) => {
                self.began = Some(now);
                let after = self.after.clone();
                Step::Page { job: *job, after }
            }
        }
    }

    fn rest(&mut self, now: Instant) -> Step {
        self.began = None;
        if !self.jobs.is_empty() {
            return Step::Idle;
        }
        self.due = now + self.every;
        Step::Ended
    }
}

/// Which of our rows the other has not, or only in an older version. The order of `theirs` is changed.
#[must_use]
pub fn lacking(own: &[Head], theirs: &mut [Head]) -> Vec<usize> {
    theirs.sort_unstable();
    let lacks = |head: &Head| match theirs.binary_search_by_key(&head.key, |their| their.key) {
        Ok(at) => theirs[at].version < head.version && !planted::is(Bug::OldCopyOverlooked),
        Err(_) => true,
    };
    (0..own.len()).filter(|at| lacks(&own[*at])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::version::Version;

    const EVERY: Duration = Duration::from_secs(3600);

    fn job(at: usize, node: u16) -> Job {
        Job {
            at,
            node: NodeId(node),
            shard: 0,
        }
    }

    fn seconds(seconds: u64) -> Instant {
        Instant(0) + Duration::from_secs(seconds)
    }

    fn upto(key: &[u8]) -> Event {
        let upto = Some(key.into());
        Event::Done { upto }
    }

    const END: Event = Event::Done { upto: None };

    /// A machine whose pass has begun, with the first page under way.
    fn begun(jobs: Vec<Job>) -> Repair {
        let mut repair = Repair::new(Instant(0), EVERY);
        assert_eq!(repair.on(seconds(59), Event::Tick), Step::Idle);
        assert_eq!(repair.on(seconds(60), Event::Tick), Step::Plan);
        let first = jobs[0];
        let page = repair.on(seconds(60), Event::Planned(jobs));
        let after = None;
        assert_eq!(page, Step::Page { job: first, after });
        repair
    }

    #[test]
    fn a_pass_goes_through_all_pages_of_all_jobs_and_rests_in_proportion() {
        let mut repair = begun(vec![job(0, 1), job(0, 2)]);
        assert_eq!(repair.due(), None, "one page at a time");
        assert_eq!(repair.on(seconds(61), Event::Tick), Step::Idle);
        let now = seconds(60) + Duration::from_millis(10);
        assert_eq!(repair.on(now, upto(b"k")), Step::Idle);
        let due = now + Duration::from_millis(190);
        assert_eq!(repair.due(), Some(due));
        let next = Step::Page {
            job: job(0, 1),
            after: Some((*b"k").into()),
        };
        assert_eq!(repair.on(due, Event::Tick), next);
        assert_eq!(repair.on(due + Duration::from_secs(2), END), Step::Idle);
        let due = due + Duration::from_secs(2) + REST_MAX;
        assert_eq!(repair.due(), Some(due));
        let next = Step::Page {
            job: job(0, 2),
            after: None,
        };
        assert_eq!(repair.on(due, Event::Tick), next);
        assert_eq!(repair.on(due, END), Step::Ended);
        assert_eq!(repair.due(), Some(due + EVERY));
        assert_eq!(repair.on(due + EVERY, Event::Tick), Step::Plan);
        assert_eq!(
            repair.on(due + EVERY, Event::Planned(Vec::new())),
            Step::Ended,
            "nobody is there"
        );
    }

    #[test]
    fn a_member_that_fails_is_tried_at_the_same_place_and_then_left_out() {
        let mut repair = begun(vec![job(0, 1), job(1, 2), job(1, 1), job(1, 3)]);
        assert_eq!(repair.on(seconds(60), upto(b"k")), Step::Idle);
        let mut now = seconds(60);
        for _ in 0..FAILURES_MAX {
            let page = repair.on(now, Event::Tick);
            let after = Some((*b"k").into());
            let same = Step::Page {
                job: job(0, 1),
                after,
            };
            assert_eq!(page, same);
            assert_eq!(repair.on(now, Event::Failed), Step::Idle);
            now = now + RETRY_AFTER;
        }
        for next in [job(1, 2), job(1, 3)] {
            let page = repair.on(now, Event::Tick);
            let after = None;
            assert_eq!(page, Step::Page { job: next, after });
            repair.on(now, END);
        }
        assert_eq!(repair.due(), Some(now + EVERY));
    }

    #[test]
    fn a_shard_that_cannot_be_read_is_left_out() {
        let mut repair = begun(vec![job(0, 1), job(1, 1)]);
        repair.on(seconds(60), upto(b"k"));
        repair.on(seconds(60), Event::Tick);
        assert_eq!(repair.on(seconds(60), Event::Unreadable), Step::Idle);
        let next = Step::Page {
            job: job(1, 1),
            after: None,
        };
        assert_eq!(repair.on(seconds(70), Event::Tick), next);
    }

    #[test]
    fn the_other_lacks_what_is_not_there_or_older() {
        let head = |key: u64, hlc: u64| Head {
            key,
            version: Version { hlc, origin: 0 },
        };
        let own = [head(9, 5), head(1, 5), head(5, 5), head(3, 5)];
        let mut theirs = [head(5, 4), head(7, 1), head(3, 6), head(9, 5)];
        assert_eq!(lacking(&own, &mut theirs), [1, 2]);
        assert_eq!(lacking(&own, &mut []), [0, 1, 2, 3]);
        assert_eq!(lacking(&[], &mut theirs), [0; 0]);
    }
}
