//! What the shards of one core share: the mailbox of finished writes, the block cache, the background runners.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::Poll;

use super::Store;
use super::background::{JobError, Lane, Work};
use super::bell::Bell;
use super::cache::Cache;
use super::completions::Completions;
use super::pace::Pace;
use crate::rt::Rt;

/// One per core, created before its shards.
pub struct Shared {
    completions: Completions,
    cache: Rc<Cache>,
    /// Rung when a shard may have work, by lane.
    work: [Bell; Lane::ALL.len()],
    /// The shard that got the last job, by lane.
    served: [Cell<u16>; Lane::ALL.len()],
    stores: RefCell<Vec<Weak<Store>>>,
    job_failures: Cell<u64>,
    log: Rc<dyn Fn(&str)>,
}

/// Work one could do: its urgency, its turn among equals, whose it is.
type Candidate = (f64, (bool, Reverse<u16>), Rc<Store>, Work);

impl Shared {
    /// `cache_bytes`: capacity of this core's block cache. `log` gets what an operator should know of
    /// background work.
    #[must_use]
    pub fn new(rt: &Rt, cache_bytes: u64, log: Rc<dyn Fn(&str)>) -> Rc<Shared> {
        let shared = Rc::new(Shared {
            completions: Completions::default(),
            cache: Rc::new(Cache::new(cache_bytes)),
            work: Default::default(),
            served: Default::default(),
            stores: RefCell::default(),
            job_failures: Cell::new(0),
            log,
        });
        for lane in Lane::ALL {
            rt.spawn(run_jobs(rt.clone(), Rc::clone(&shared), lane));
        }
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

    /// A shard may have work for the runners.
    pub(crate) fn wake(&self) {
        for bell in &self.work {
            bell.ring();
        }
    }

    pub(crate) fn add(&self, store: &Rc<Store>) {
        self.stores.borrow_mut().push(Rc::downgrade(store));
        self.wake();
    }

    pub(crate) fn fail(&self, why: String) {
        self.completions.fail(why);
    }

    async fn wait_for_job(&self, lane: Lane) -> (Rc<Store>, Work) {
        poll_fn(|cx| match self.next_job(lane) {
            Some(job) => Poll::Ready(job),
            None => {
                self.work[lane as usize].register(cx);
                Poll::Pending
            }
        })
        .await
    }

    /// The most urgent work of any shard; of equals the next one after the shard served last.
    fn next_job(&self, lane: Lane) -> Option<(Rc<Store>, Work)> {
        let mut stores = self.stores.borrow_mut();
        stores.retain(|store| store.strong_count() > 0);
        let last = self.served[lane as usize].get();
        let jobs = stores.iter().filter_map(Weak::upgrade).filter_map(|store| {
            let (urgency, work) = store.next_work(lane)?;
            let shard = store.shard();
            let turn = (shard > last, Reverse(shard));
            Some((urgency, turn, store, work))
        });
        let order = |a: &Candidate, b: &Candidate| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
        let (_, _, store, work) = jobs.max_by(order)?;
        self.served[lane as usize].set(store.shard());
        Some((store, work))
    }

    /// Remembers how a job ended, and tells the operator what is new.
    fn note(self: &Rc<Self>, rt: &Rt, store: &Store, lane: Lane, ended: Result<(), JobError>) {
        let failure = match ended {
            // The shard ends, which is told elsewhere.
            Err(JobError::Closing | JobError::Manifest(_)) => return,
            Ok(()) => None,
            Err(JobError::Disk(error)) => Some(error.to_string()),
            Err(JobError::Damaged(why)) => Some(why),
        };
        let (shard, what) = (store.shard(), lane.name());
        let mut rest = store.rest(lane).borrow_mut();
        let Some(why) = failure else {
            if rest.end() {
                (self.log)(&format!("shard {shard}: {what} goes on"));
            }
            return;
        };
        self.job_failures.set(self.job_failures.get() + 1);
        let (pause, is_news) = rest.fail(rt.now(), &why, lane.rest_max());
        if is_news {
            (self.log)(&format!("shard {shard}: {what} is put off: {why}"));
        }
        let (shared, timer) = (Rc::downgrade(self), rt.clone());
        rt.spawn(async move {
            timer.sleep(pause).await;
            if let Some(shared) = shared.upgrade() {
                shared.wake();
            }
        });
    }
}

/// One lane of a core: its jobs run one after the other, each in slices (`pace`), so that all background work
/// together leaves at least half of the core to requests.
async fn run_jobs(rt: Rt, shared: Rc<Shared>, lane: Lane) {
    let pace = Pace::new(&rt);
    loop {
        let (store, work) = shared.wait_for_job(lane).await;
        let ended = pace.drive(store.perform(&work, &pace)).await;
        shared.note(&rt, &store, lane, ended);
        store.regulate();
        // A flush makes work for the other lane.
        shared.wake();
    }
}
