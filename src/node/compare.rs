//! Answers another member that compares its rows with ours.
//!
//! ```text
//!  Compare ─▶ the core of the shard ─▶ task: walk the range, add up ─┬─ the same sum ─▶ Same
//!                                                                    └─ another ──────▶ Heads, as many as fit
//! ```
//!
//! What the other lacks of ours, it gets when we compare. One walk at a time on a core, with a pause after each page,
//! and a bounded number of pages: others are told that this core is busy, and come again.

use std::cell::Cell;
use std::rc::Rc;

use super::arrivals::Asker;
use super::failure::Failure;
use super::msg::{Ask, Reply};
use super::read_faults::ReadFaults;
use super::replica::Job;
use super::route::{Router, Waiting};
use crate::base::hash::KeyHash;
use crate::base::limits::{COMPARE_BYTES_MAX, COMPARE_PAGES_MAX, SLICE};
use crate::rt::Rt;
use crate::store::{ScanRange, Store};
use crate::wire::compare::{Compare, Head, Sum, Window};
use crate::wire::message::Why;

/// What is compared, as the owner of the shard is asked.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub shard: u16,
    pub part: Part,
    pub window: Window,
    pub sum: Sum,
    pub range: ScanRange,
}

/// Keys that lie in shard `part` when there are `of`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub of: u16,
    pub part: u16,
}

/// How our rows compare.
#[derive(Debug)]
pub(crate) enum Compared {
    Same,
    Differs {
        heads: Vec<Head>,
        /// The last key that was looked at; `None`: all of the range was.
        resume: Option<Box<[u8]>>,
    },
}

impl Part {
    pub(super) fn holds(self, hash: KeyHash) -> bool {
        hash.shard(self.of) == self.part
    }
}

impl Router {
    /// Compares for a peer. The answer comes to the job.
    pub(crate) fn serve_compare(&mut self, job: Job, compare: Compare<'_>) -> Result<(), Why> {
        if compare.shard >= self.owners.shards() {
            return Err(Why::Unsupported);
        }
        let question = Question {
            shard: compare.shard,
            part: Part {
                of: compare.of,
                part: compare.part,
            },
            window: compare.window,
            sum: compare.sum,
            range: ScanRange {
                after: compare.after.map(Box::from),
                to: Some(compare.to.into()),
                dead: true,
                apart: true,
                slices: Some(compare.slices),
                ..ScanRange::default()
            },
        };
        let asker = Asker::Peer(job);
        if self.local(question.shard).is_some() {
            self.compare_local(question, asker);
            return Ok(());
        }
        let core = self.owners.core_of(question.shard);
        self.may_ask(core).map_err(Why::from)?;
        let ticket = self.waiting.insert(Waiting::Fetching { asker });
        self.ask(core, ticket, Ask::Compare(Box::new(question)));
        Ok(())
    }

    /// Compares a range of a shard of ours in a task.
    pub(super) fn compare_local(&mut self, question: Question, asker: Asker) {
        let store = self.local(question.shard).map(Rc::clone);
        let member = self.member.as_ref();
        let (Some(store), Some(member)) = (store, member) else {
            return self.reply(asker, Reply::Compared(Err(Failure::Closed)));
        };
        let Some(turn) = Turn::take(&member.comparing) else {
            return self.reply(asker, Reply::Compared(Err(Failure::Busy)));
        };
        let walk = Walk {
            rt: self.rt.clone(),
            store,
            faults: self.read_faults.clone(),
            rows: member.facts.comparing.rows,
            heads_max: member.facts.comparing.heads_max,
        };
        let arrivals = Rc::clone(&self.arrivals);
        self.rt.spawn(async move {
            let compared = walk.compare(question).await;
            drop(turn);
            arrivals.push(asker, Reply::Compared(compared));
        });
    }
}

/// The right to walk, until it is dropped.
struct Turn(Rc<Cell<bool>>);

impl Turn {
    fn take(taken: &Rc<Cell<bool>>) -> Option<Turn> {
        (!taken.replace(true)).then(|| Turn(Rc::clone(taken)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// What one walk needs.
struct Walk {
    rt: Rt,
    store: Rc<Store>,
    faults: ReadFaults,
    rows: usize,
    heads_max: usize,
}

impl Walk {
    async fn compare(&self, question: Question) -> Result<Compared, Failure> {
        let Question {
            mut range,
            part,
            window,
            ..
        } = question;
        let (mut sum, mut heads) = (Sum::default(), Vec::new());
        for _ in 0..COMPARE_PAGES_MAX {
            let page = self.store.scan(&range, self.rows, COMPARE_BYTES_MAX).await;
            let page = page.map_err(|error| self.faults.tell(&error))?;
            for row in page.rows.iter() {
                let hash = KeyHash::of(row.key);
                if part.holds(hash) {
                    let head = Head::of(hash, row.entry.version);
                    if window.holds(&row.entry) {
                        sum.add(head);
                    }
                    heads.push(head);
                }
            }
            if page.resume.is_none() && sum == question.sum {
                return Ok(Compared::Same);
            }
            range.after = page.resume;
            if range.after.is_none() || heads.len() >= self.heads_max {
                break;
            }
            if self.rt.stop().is_raised() {
                return Err(Failure::Closed);
            }
            self.rt.sleep(SLICE).await;
        }
        let resume = range.after;
        Ok(Compared::Differs { heads, resume })
    }
}
