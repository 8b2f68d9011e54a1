//! What the shards of one core share: the mailbox of finished writes, the block cache, the background runner.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::Poll;
use std::time::Duration;

use super::Store;
use super::background::{JobError, Work};
use super::bell::Bell;
use super::cache::Cache;
use super::completions::Completions;
use crate::rt::Rt;

/// One per core, created before its shards.
pub struct Shared {
    completions: Completions,
    cache: Rc<Cache>,
    work: Bell,
    stores: RefCell<Vec<Weak<Store>>>,
    job_failures: Cell<u64>,
    log: Rc<dyn Fn(&str)>,
}

/// After a failed job (full disk, damaged input) the runner rests, so that it neither spins nor floods the log.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

impl Shared {
    /// `cache_bytes`: capacity of this core's block cache. `log` gets what an operator should know of
    /// background work.
    #[must_use]
    pub fn new(rt: &Rt, cache_bytes: u64, log: Rc<dyn Fn(&str)>) -> Rc<Shared> {
        let shared = Rc::new(Shared {
            completions: Completions::default(),
            cache: Rc::new(Cache::new(cache_bytes)),
            work: Bell::default(),
            stores: RefCell::default(),
            job_failures: Cell::new(0),
            log,
        });
        rt.spawn(run_jobs(rt.clone(), Rc::clone(&shared)));
        shared
    }

    /// Outcomes of writes to any shard of this core, and the failure of a shard.
    #[must_use]
    pub fn completions(&self) -> &Completions {
        &self.completions
    }

    /// (hits, misses) of the block cache.
    #[must_use]
    pub fn cache_stats(&self) -> (u64, u64) {
        self.cache.stats()
    }

    /// Flushes and compactions that failed and were put off.
    #[must_use]
    pub fn job_failures(&self) -> u64 {
        self.job_failures.get()
    }

    /// What the operator reads.
    pub(crate) fn log(&self) -> Rc<dyn Fn(&str)> {
        Rc::clone(&self.log)
    }

    pub(crate) fn cache(&self) -> &Rc<Cache> {
        &self.cache
    }

    /// Rung when a shard may have work for the runner.
    pub(crate) fn work(&self) -> &Bell {
        &self.work
    }

    pub(crate) fn add(&self, store: &Rc<Store>) {
        self.stores.borrow_mut().push(Rc::downgrade(store));
        self.work.ring();
    }

    pub(crate) fn fail(&self, why: String) {
        self.completions.fail(why);
    }

    async fn wait_for_job(&self) -> (Rc<Store>, Work) {
        poll_fn(|cx| match self.next_job() {
            Some(job) => Poll::Ready(job),
            None => {
                self.work.register(cx);
                Poll::Pending
            }
        })
        .await
    }

    /// The most urgent work of any shard: flushes before compactions, then in shard order.
    fn next_job(&self) -> Option<(Rc<Store>, Work)> {
        let mut stores = self.stores.borrow_mut();
        stores.retain(|store| store.strong_count() > 0);
        let jobs = stores.iter().filter_map(Weak::upgrade).filter_map(|store| {
            let work = store.next_work()?;
            Some((store, work))
        });
        jobs.min_by_key(|(_, work)| matches!(work, Work::Compact(_)))
    }
}

/// The one background task of a core: jobs run one after the other, each in slices (`pace`), so that all
/// background work together leaves at least half of the core to requests.
async fn run_jobs(rt: Rt, shared: Rc<Shared>) {
    // Told once per reason, not once per attempt.
    let mut told: Option<String> = None;
    loop {
        let (store, work) = shared.wait_for_job().await;
        let failure = match store.perform(&work).await {
            Ok(()) | Err(JobError::Closing | JobError::Manifest(_)) => None,
            Err(JobError::Disk(error)) => Some(format!("background work is put off: {error}")),
            Err(JobError::Damaged(why)) => Some(format!("background work is put off: {why}")),
        };
        drop(store);
        if failure.is_some() {
            shared.job_failures.set(shared.job_failures.get() + 1);
            rt.sleep(RETRY_PAUSE).await;
        }
        match &failure {
            Some(why) if failure != told => (shared.log)(why),
            None if told.is_some() => (shared.log)("background work goes on"),
            _ => {}
        }
        told = failure;
    }
}
