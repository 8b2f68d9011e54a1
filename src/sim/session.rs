//! One opened store under the seeded workload, every answer held against the ledger.
//!
//! ```text
//! writer: write, read, scan, pause, flush ...      reader (some seeds): get, scan, get ...
//!            └──────── Ledger::asked / confirmed / saw ────────┘
//! ```
//!
//! A session ends well, with a broken promise ([`End::Broken`]), or because the store said that it cannot go on
//! ([`End::Failed`]), which is a broken promise too unless the story injected a fault.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::ledger::{Key, Ledger, Seen, Violation};
use super::plan::Plan;
use crate::base::hash::KeyHash;
use crate::base::record::{OwnedEntry, OwnedState};
use crate::base::version::{Clock, Version};
use crate::rt::Rt;
use crate::store::completions::Done;
use crate::store::shared::Shared;
use crate::store::{Got, Op, Refused, ScanRange, Stats, Store};

/// Virtual time after which a wait is a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a session ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The store, or a read, reported that it cannot go on.
    Failed(String),
    /// The store broke a promise.
    Broken(Violation),
}

impl From<Violation> for End {
    fn from(violation: Violation) -> End {
        End::Broken(violation)
    }
}

/// An open store and the workload on it.
pub struct Session {
    work: Rc<Work>,
    rng: fastrand::Rng,
    clock: Clock,
    /// Late versions stay above this: what was before the session is settled.
    late_floor: Version,
    next_ticket: u64,
    in_flight: usize,
}

/// What the writer and the reader share.
struct Work {
    rt: Rt,
    plan: Plan,
    store: Rc<Store>,
    shared: Rc<Shared>,
    ledger: Rc<RefCell<Ledger>>,
    /// The reader is to end.
    over: Cell<bool>,
    reader_end: RefCell<Option<End>>,
}

impl Session {
    /// Opens the store, reads all of it, and lets the ledger judge the recovery.
    pub async fn open(
        rt: &Rt,
        plan: &Plan,
        ledger: &Rc<RefCell<Ledger>>,
        life: u64,
    ) -> Result<Session, End> {
        let shared = Shared::new(rt, plan.cache_bytes, Rc::new(|_: &str| {}));
        let opened = Store::open(rt, plan.options.clone(), &shared).await;
        let (store, opened) = opened.map_err(|error| End::Failed(error.0))?;
        let work = Rc::new(Work {
            rt: rt.clone(),
            plan: plan.clone(),
            store,
            shared,
            ledger: Rc::clone(ledger),
            over: Cell::new(false),
            reader_end: RefCell::default(),
        });
        let reading = work.read_all().await?;
        work.ledger.borrow_mut().settle(&reading)?;
        let mut clock = Clock::new(9);
        clock.observe(opened.max_version);
        let late_floor = clock.stamp(rt.wall_ms());
        let newest = reading.values().flatten().map(|entry| entry.version).max();
        if newest.is_some_and(|newest| newest > opened.max_version) {
            let text = format!(
                "open reported {} but {newest:?} is there",
                opened.max_version
            );
            return Err(Violation(text).into());
        }
        if plan.reader {
            let reader = Rc::clone(&work);
            let rng = fastrand::Rng::with_seed(plan.seed ^ life << 8);
            rt.spawn(async move { reader.keep_reading(rng).await });
        }
        Ok(Session {
            work,
            rng: fastrand::Rng::with_seed(plan.seed.wrapping_mul(31) ^ life),
            clock,
            late_floor,
            next_ticket: life << 32 | 1,
            in_flight: 0,
        })
    }

    /// Does so many random things.
    pub async fn run(&mut self, steps: usize) -> Result<(), End> {
        for _ in 0..steps {
            let plan = &self.work.plan;
            let mut roll = self.rng.u8(..100);
            let mut falls = |percent: u8| {
                let hit = roll < percent;
                roll = roll.saturating_sub(percent);
                hit
            };
            if falls(plan.read_percent) {
                let key = key_of(self.rng.usize(..plan.keys));
                self.work.read(&key).await?;
            } else if falls(plan.scan_percent) {
                self.work.scan_some(&mut self.rng).await?;
            } else if falls(plan.pause_percent) {
                let pause = Duration::from_micros(self.rng.u64(10..20_000));
                self.work.rt.sleep(pause).await;
            } else if falls(plan.flush_percent) {
                let flush = self.work.store.flush();
                self.work.within("a flush did not end", flush).await?;
            } else {
                self.write()?;
            }
            self.collect(self.work.plan.in_flight_max - 1).await?;
        }
        Ok(())
    }

    /// Waits for every answer and reads everything once more.
    pub async fn finish(&mut self) -> Result<(), End> {
        self.collect(0).await?;
        self.work.over.set(true);
        let reading = self.work.read_all().await?;
        self.work.ledger.borrow_mut().settle(&reading)?;
        Ok(())
    }

    /// Closes the store: from here on a reopened one is exactly as it was.
    pub async fn close(&mut self) -> Result<(), End> {
        self.finish().await?;
        let close = self.work.store.close();
        self.work.within("close did not end", close).await
    }

    #[must_use]
    pub fn stats(&self) -> Stats {
        self.work.store.stats()
    }

    /// Hands one random write over.
    fn write(&mut self) -> Result<(), End> {
        let work = Rc::clone(&self.work);
        let plan = &work.plan;
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let mut picked: Vec<usize> = (0..plan.keys).collect();
        self.rng.shuffle(&mut picked);
        picked.truncate(self.rng.usize(1..=plan.batch_max));
        let late = self.rng.u8(..100) < plan.late_percent;
        let mut ops = Vec::new();
        for index in picked {
            let stamp = self.clock.stamp(self.work.rt.wall_ms());
            let version = match late {
                true => self.late_version(stamp),
                false => stamp,
            };
            let state = match self.rng.u8(..100) < plan.delete_percent {
                true => OwnedState::Deleted,
                false => OwnedState::Live {
                    value: value_of(ticket, &mut self.rng, plan.value_bytes_max),
                    text: ticket.is_multiple_of(2),
                },
            };
            ops.push((key_of(index), OwnedEntry { version, state }));
        }
        self.work.ledger.borrow_mut().asked(ticket, &ops);
        let borrowed: Vec<Op<'_>> = ops
            .iter()
            .map(|(key, entry)| Op {
                key,
                entry: entry.as_entry(),
            })
            .collect();
        match self.work.store.write(&borrowed, ticket) {
            Ok(()) => self.in_flight += 1,
            Err(refused) => {
                self.work.ledger.borrow_mut().refused(ticket);
                if refused != Refused::Busy {
                    return Err(End::Failed(format!("write refused: {refused:?}")));
                }
            }
        }
        Ok(())
    }

    /// A version between the start of the session and `stamp`, of another origin so that it is unique.
    fn late_version(&mut self, stamp: Version) -> Version {
        Version {
            hlc: self.rng.u64(self.late_floor.hlc..=stamp.hlc),
            origin: 10 + self.rng.u32(..1 << 20),
        }
    }

    /// Takes answers until at most `left` writes are in flight.
    async fn collect(&mut self, left: usize) -> Result<(), End> {
        let mut done: Vec<Done> = Vec::new();
        loop {
            let completions = self.work.shared.completions();
            completions.take(&mut done);
            for answer in done.drain(..) {
                self.in_flight -= 1;
                match answer.result {
                    Ok(()) => self.work.ledger.borrow_mut().confirmed(answer.ticket)?,
                    Err(why) => return Err(End::Failed(format!("write failed: {why:?}"))),
                }
            }
            if let Some(why) = completions.failure() {
                return Err(End::Failed(why));
            }
            if let Some(end) = self.work.reader_end.take() {
                return Err(end);
            }
            if self.in_flight <= left {
                return Ok(());
            }
            let any = poll_fn(|cx| completions.poll_any(cx));
            self.work.within("no write was answered", any).await?;
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.work.over.set(true);
    }
}

impl Work {
    /// Waits, but not for ever: a store that only retries would keep the world going without end.
    async fn within(&self, what: &str, work: impl Future<Output = ()>) -> Result<(), End> {
        let mut work = pin!(work);
        let mut late = pin!(self.rt.sleep(PATIENCE));
        poll_fn(|cx| {
            if work.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            late.as_mut()
                .poll(cx)
                .map(|()| Err(End::Failed(format!("{what} within {PATIENCE:?}"))))
        })
        .await
    }

    async fn keep_reading(&self, mut rng: fastrand::Rng) {
        while !self.over.get() {
            let key = key_of(rng.usize(..self.plan.keys));
            let outcome = match rng.u8(..8) {
                0 => self.scan_some(&mut rng).await,
                _ => self.read(&key).await,
            };
            if let Err(end) = outcome {
                self.reader_end.replace(Some(end));
                return;
            }
            self.rt
                .sleep(Duration::from_micros(rng.u64(1..3_000)))
                .await;
        }
    }

    async fn get(&self, key: &[u8]) -> Result<Seen, End> {
        let hash = KeyHash::of(key);
        let got = self
            .store
            .get(key, hash, |entry| entry.map(|entry| entry.to_owned()));
        match got.map_err(|error| End::Failed(error.to_string()))? {
            Got::Answer(seen) => Ok(seen),
            Got::Disk(_) => {
                let read = self.store.get_from_disk(key, hash).await;
                read.map_err(|error| End::Failed(error.to_string()))
            }
        }
    }

    async fn read(&self, key: &[u8]) -> Result<(), End> {
        let floor = self.ledger.borrow().floor(key);
        let seen = self.get(key).await?;
        self.ledger.borrow_mut().saw(key, floor, &seen)?;
        Ok(())
    }

    /// All keys by `get`, and once more by scan: both must tell the same. Only while nothing is written.
    async fn read_all(&self) -> Result<BTreeMap<Key, Seen>, End> {
        let mut reading = BTreeMap::new();
        let keys: Vec<Key> = self.ledger.borrow().keys().cloned().collect();
        for key in keys {
            let seen = self.get(&key).await?;
            reading.insert(key, seen);
        }
        let rows = self.scan(&ScanRange::default(), 7).await?;
        let live = |seen: &Seen| match seen {
            Some(entry) if entry.state != OwnedState::Deleted => Some(entry.clone()),
            _ => None,
        };
        let by_get: BTreeMap<Key, OwnedEntry> = reading
            .iter()
            .filter_map(|(key, seen)| Some((key.clone(), live(seen)?)))
            .collect();
        if by_get != rows {
            let text = format!("get and scan differ: get {by_get:?}, scan {rows:?}");
            return Err(Violation(text).into());
        }
        Ok(reading)
    }

    /// A random range in random pages; rows and gaps are both answers.
    async fn scan_some(&self, rng: &mut fastrand::Rng) -> Result<(), End> {
        let mut ends = [rng.usize(..=self.plan.keys), rng.usize(..=self.plan.keys)];
        ends.sort_unstable();
        let range = ScanRange {
            from: (ends[0] > 0).then(|| key_of(ends[0])),
            after: None,
            to: (ends[1] < self.plan.keys).then(|| key_of(ends[1])),
            ..ScanRange::default()
        };
        let inside = |key: &Key| {
            range.from.as_ref().is_none_or(|from| key >= from)
                && range.to.as_ref().is_none_or(|to| key <= to)
        };
        let floors: Vec<(Key, Version)> = {
            let ledger = self.ledger.borrow();
            let keys = ledger.keys().filter(|key| inside(key));
            keys.map(|key| (key.clone(), ledger.floor(key))).collect()
        };
        let rows = self.scan(&range, rng.usize(1..10)).await?;
        if let Some(stray) = rows.keys().find(|key| !inside(key)) {
            return Err(Violation(format!("scan of {range:?} gave {stray:?}")).into());
        }
        let mut ledger = self.ledger.borrow_mut();
        for (key, floor) in &floors {
            match rows.get(key) {
                Some(entry) => ledger.saw(key, *floor, &Some(entry.clone()))?,
                None => ledger.saw(key, *floor, &None)?,
            }
        }
        // A key first written during the scan has no floor yet: whatever was written may be seen.
        for (key, entry) in rows
            .iter()
            .filter(|(key, _)| !floors.iter().any(|(known, _)| known == *key))
        {
            ledger.saw(key, Version::ZERO, &Some(entry.clone()))?;
        }
        Ok(())
    }

    async fn scan(
        &self,
        range: &ScanRange,
        rows_max: usize,
    ) -> Result<BTreeMap<Key, OwnedEntry>, End> {
        let mut rows: BTreeMap<Key, OwnedEntry> = BTreeMap::new();
        let mut range = range.clone();
        loop {
            let page = self.store.scan(&range, rows_max, 4096).await;
            let page = page.map_err(|error| End::Failed(error.to_string()))?;
            if page.rows.len() > rows_max {
                return Err(
                    Violation(format!("{} rows in a page of {rows_max}", page.rows.len())).into(),
                );
            }
            for row in page.rows.iter() {
                let ascends = rows
                    .last_key_value()
                    .is_none_or(|(last, _)| **last < *row.key);
                if !ascends || row.entry.value().is_none() {
                    return Err(
                        Violation(format!("scan gave {:?} out of order or dead", row.key)).into(),
                    );
                }
                rows.insert(row.key.into(), row.entry.to_owned());
            }
            match page.resume {
                Some(resume) => range.after = Some(resume),
                None => return Ok(rows),
            }
        }
    }
}

fn key_of(index: usize) -> Key {
    format!("key:{index:03}").into_bytes().into()
}

/// The ticket, so that no two writes look alike, and filler.
fn value_of(ticket: u64, rng: &mut fastrand::Rng, filler_bytes_max: usize) -> Box<[u8]> {
    let mut value = ticket.to_le_bytes().to_vec();
    let filler = rng.u8(..);
    value.resize(8 + rng.usize(..=filler_bytes_max), filler);
    value.into()
}
