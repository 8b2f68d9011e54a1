//! Answers another member that compares its rows with ours.
//!
//! ```text
//!  Compare ─▶ the core of the shard ─▶ task: walk the range, add up ─┬─ the same sum ─▶ Same
//!                                                                    └─ another ──────▶ Heads, as many as fit
//! ```
//!
//! Values are walked over and left where they are: what the other lacks of ours, it gets when we compare.

use std::rc::Rc;

use super::arrivals::Asker;
use super::msg::{Ask, Reply};
use super::replica::Job;
use super::route::{Router, Waiting};
use crate::base::hash::KeyHash;
use crate::base::limits::{COMPARE_BYTES_MAX, COMPARE_HEADS_MAX, COMPARE_ROWS};
use crate::rt::Rt;
use crate::store::{ReadError, ScanRange, Store};
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
        let Some(store) = self.local(question.shard).map(Rc::clone) else {
            return;
        };
        let (rt, arrivals) = (self.rt.clone(), Rc::clone(&self.arrivals));
        let faults = self.read_faults.clone();
        self.rt.spawn(async move {
            let compared = compared(&rt, &store, question).await;
            let compared = compared.map_err(|error| faults.tell(&error));
            arrivals.push(asker, Reply::Compared(compared));
        });
    }
}

async fn compared(rt: &Rt, store: &Store, question: Question) -> Result<Compared, ReadError> {
    let Question {
        mut range,
        part,
        window,
        ..
    } = question;
    let (mut sum, mut heads) = (Sum::default(), Vec::new());
    loop {
        let page = store.scan(&range, COMPARE_ROWS, COMPARE_BYTES_MAX).await?;
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
        let resume = page.resume;
        if resume.is_none() && sum == question.sum {
            return Ok(Compared::Same);
        }
        if resume.is_none() || heads.len() >= COMPARE_HEADS_MAX {
            return Ok(Compared::Differs { heads, resume });
        }
        range.after = resume;
        rt.yield_now().await;
    }
}
