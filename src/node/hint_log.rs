//! The durable hints of one shard: writes that a replica missed, kept until it has them.
//!
//! ```text
//!  add ──▶ a store in <data>/hints ──▶ batch: oldest version first ──▶ the target ──▶ forget
//!            │ the disk refused it
//!            └──▶ lost: the slice is dirty
//! ```
//!
//! A second LSM tree is the log: group commit, recovery, checksums and giving space back are what it does anyway.
//! Rejected: a format of its own, which would need all of them again. Its rows are in `hint_row`.
//!
//! Invariants
//! * Nobody waits for a hint to become durable: it counts for no quorum. One that does not become durable is
//!   reported by [`HintLog::take_lost`], unless the process dies first.
//! * A hint keeps the version of its write; the version of the row it lies in is this log's own.
//! * A batch sees every hint that was added before it began: an empty one means that none is left.
//! * Nothing lies on disk before the first hint, which is when the store is made. Hints that come meanwhile wait
//!   in memory.
//!
//! What it does not do: decide what is kept and when it is sent (`cluster::hints`), send, or look after the hints
//! of names that are no members any more: they stay until such a member is back.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::hint_row::{DIRTY, END, HINTS, Hint, client_key, hint_row, row_state, section, tag_of};
use crate::base::hash::KeyHash;
use crate::base::limits::WAL_QUEUE_BYTES_MAX;
use crate::base::member::NodeId;
use crate::base::record::{Entry, OwnedEntry, Row, State};
use crate::base::slices::{Slice, Slices};
use crate::base::time::Instant;
use crate::base::version::{Clock, Version};
use crate::rt::Rt;
use crate::store::completions::{Done, Failed};
use crate::store::format::{CURRENT, newborn, shard_dir};
use crate::store::options::Options;
use crate::store::shared::Shared;
use crate::store::{Op, OpenError, Page, ReadError, Refused, ScanRange, Store};

/// Small tables and segments: hints are rare, and each shard has such a store.
const MEMTABLE_BYTES: u64 = 4 << 20;
const WAL_SEGMENT_BYTES: u64 = 4 << 20;
/// Rows of one batch, and of one page while counting: bounds the scan where the bytes do not.
const BATCH_ROWS_MAX: usize = 4096;
/// Bytes of one page while counting.
const COUNT_PAGE_BYTES: usize = 1 << 20;
/// What a hint that waits for its store is charged beside its bytes, so that all of them fit the store's queue.
const WAITING_OVERHEAD_BYTES: usize = 64;
/// How often outcomes are looked at by a call that waits for one: about what a device takes to sync. The mailbox
/// has one waiting place, and several targets may wait.
const OUTCOME_POLL: Duration = Duration::from_millis(1);
/// After the store could not be made: a full disk is not asked again for each hint.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The hints of one shard for all targets. Lives and dies on its core. At most one `batch` per target at a time.
pub struct HintLog {
    rt: Rt,
    options: Options,
    log: Rc<dyn Fn(&str)>,
    /// Of this store alone: its outcomes must not reach the mailbox of the shards.
    shared: Rc<Shared>,
    inner: RefCell<Inner>,
}

/// Changed only in steps that cannot suspend.
struct Inner {
    place: Place,
    /// Versions of rows.
    clock: Clock,
    last_ticket: u64,
    /// Records accepted whose outcome has not come.
    in_flight: BTreeMap<u64, Asked>,
    /// Outcomes somebody waits for.
    settled: BTreeMap<u64, Result<(), Refused>>,
    /// By [`NodeId`].
    targets: Vec<Target>,
    lost: Vec<Lost>,
}

/// Where rows go.
enum Place {
    /// There is no store; one is made no earlier than then.
    Absent {
        not_before: Instant,
    },
    /// One is being made.
    Opening {
        waiting: Vec<Waiting>,
        bytes: usize,
    },
    Open(Rc<Store>),
    Closed,
}

/// One record on its way to a store that is being made.
struct Waiting {
    ticket: u64,
    rows: Vec<(Vec<u8>, OwnedEntry)>,
}

struct Target {
    tag: u64,
    /// No hint lies before this row: a batch need not walk over the graves of all that were forgotten.
    from: Vec<u8>,
    /// The smallest row that became visible since the last batch began, which may have passed its place.
    added: Option<Vec<u8>>,
}

/// What a record was.
enum Asked {
    Hint { target: NodeId, row: Vec<u8> },
    Awaited,
}

/// What opening found for one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    pub bytes: u64,
    pub records: u64,
    pub dirty: Slices,
}

/// A hint that was accepted and is not on disk: the target's slice is dirty now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    pub target: NodeId,
    pub slice: Slice,
}

impl HintLog {
    /// Opens what an earlier process left for `targets`, the ring names of the members in their order, and says
    /// what it is, one for each. Reads all of it: a log of 2 GiB takes seconds.
    pub async fn open(
        rt: &Rt,
        data_dir: &Path,
        shard: u16,
        node_uuid: u128,
        targets: &[String],
        log: Rc<dyn Fn(&str)>,
    ) -> Result<(Rc<HintLog>, Vec<Pending>), OpenError> {
        let options = Options {
            dir: data_dir.join("hints"),
            shard,
            node_uuid,
            memtable_bytes: MEMTABLE_BYTES,
            l0_files_max: 4,
            keys_per_block_max: 16,
            // Rows are only ever scanned for.
            bloom_l0: 0,
            bloom_l1: 0,
            wal_segment_bytes: WAL_SEGMENT_BYTES,
            wal_commit_interval: Duration::from_millis(5),
            wal_records_per_group_max: 1000,
            gc_grace: Duration::ZERO,
        };
        HintLog::open_with(rt, options, targets, log).await
    }

    async fn open_with(
        rt: &Rt,
        options: Options,
        targets: &[String],
        log: Rc<dyn Fn(&str)>,
    ) -> Result<(Rc<HintLog>, Vec<Pending>), OpenError> {
        let dir = options.dir.join(shard_dir(options.shard));
        let there = match rt.list(&dir).await {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(cannot_open(&error)),
        };
        let hints = HintLog {
            rt: rt.clone(),
            options,
            // Batches go from front to back: a cache would hold what is never read again.
            shared: Shared::new(rt, 0, Rc::clone(&log)),
            log,
            inner: RefCell::new(Inner {
                place: Place::Absent {
                    not_before: Instant(0),
                },
                // No other clock stamps rows of this store.
                clock: Clock::new(0),
                last_ticket: 0,
                in_flight: BTreeMap::new(),
                settled: BTreeMap::new(),
                targets: targets.iter().map(|name| Target::new(name)).collect(),
                lost: Vec::new(),
            }),
        };
        if there {
            hints.open_store().await?;
        }
        let mut pending = Vec::new();
        for name in targets {
            let counted = hints.count(tag_of(name)).await;
            pending.push(counted.map_err(|error| OpenError(error.to_string(), None))?);
        }
        Ok((Rc::new(hints), pending))
    }

    /// Keeps a write that `target` missed, in the background. Refused: nothing was kept.
    pub fn add(
        self: &Rc<Self>,
        target: NodeId,
        key: &[u8],
        entry: &Entry<'_>,
    ) -> Result<(), Refused> {
        let row = hint_row(self.tag(target), key, entry);
        let asked = Asked::Hint {
            target,
            row: row.clone(),
        };
        self.put(&[unstamped(&row, row_state(&entry.state))], asked)
            .map(drop)
    }

    /// The oldest hints for `target`, at most `bytes_max` of them but at least one if there is any.
    pub async fn batch(&self, target: NodeId, bytes_max: u32) -> Result<Vec<Hint>, ReadError> {
        let last = self.inner.borrow().last_ticket;
        self.settle();
        while self.inner.borrow().awaits_hint(target, last) {
            self.rt.sleep(OUTCOME_POLL).await;
            self.settle();
        }
        let from = self.inner.borrow_mut().begin_batch(target);
        let hints = self.first_hints(from, target, bytes_max).await?;
        let tag = self.tag(target);
        let first = match hints.first() {
            Some(hint) => hint.row(tag),
            None => section(tag, END),
        };
        self.inner.borrow_mut().targets[target.index()].advance(first);
        Ok(hints)
    }

    /// The target has these (one at least). Once this has returned they are gone for good; after an error some may come again.
    pub async fn forget(self: &Rc<Self>, target: NodeId, hints: &[Hint]) -> Result<(), Refused> {
        let tag = self.tag(target);
        let rows: Vec<Vec<u8>> = hints.iter().map(|hint| hint.row(tag)).collect();
        let graves = rows.iter().map(|row| unstamped(row, State::Deleted));
        self.put_durably(&graves.collect::<Vec<_>>()).await
    }

    /// Remembers in which slices `target` lacks something that is not in the log; durable when this has returned.
    pub async fn save_dirty(
        self: &Rc<Self>,
        target: NodeId,
        dirty: &Slices,
    ) -> Result<(), Refused> {
        let state = State::Live {
            value: &dirty.to_bytes(),
            text: false,
        };
        let row = section(self.tag(target), DIRTY);
        self.put_durably(&[unstamped(&row, state)]).await
    }

    /// Moves what was lost since the last call to the end of `into`. Look now and then: nobody is woken.
    pub fn take_lost(&self, into: &mut Vec<Lost>) {
        self.settle();
        into.append(&mut self.inner.borrow_mut().lost);
    }

    /// Why the log cannot go on, when it cannot: to be treated like the failure of a shard.
    pub fn failure(&self) -> Option<String> {
        self.shared.completions().failure()
    }

    /// Finishes what was accepted and seals the log. Idempotent.
    pub async fn close(&self) {
        while matches!(self.inner.borrow().place, Place::Opening { .. }) {
            self.rt.sleep(OUTCOME_POLL).await;
        }
        if let Some(store) = self.store() {
            store.close().await;
        }
        self.settle();
        self.inner.borrow_mut().place = Place::Closed;
    }

    fn tag(&self, target: NodeId) -> u64 {
        self.inner.borrow().targets[target.index()].tag
    }

    fn store(&self) -> Option<Rc<Store>> {
        match &self.inner.borrow().place {
            Place::Open(store) => Some(Rc::clone(store)),
            _ => None,
        }
    }

    /// Hands over one record, to be waited for by its ticket or not. Its ops get their versions when it is written.
    fn put(self: &Rc<Self>, ops: &[Op<'_>], asked: Asked) -> Result<u64, Refused> {
        self.settle();
        let mut inner = self.inner.borrow_mut();
        let ticket = inner.last_ticket + 1;
        match &inner.place {
            Place::Closed => return Err(Refused::Closed),
            Place::Open(_) => inner.write(ops, ticket, self.rt.wall_ms())?,
            Place::Opening { .. } => inner.wait(ops, ticket)?,
            Place::Absent { not_before } if self.rt.now() < *not_before => {
                return Err(Refused::Busy);
            }
            Place::Absent { .. } => {
                inner.place = Place::Opening {
                    waiting: Vec::new(),
                    bytes: 0,
                };
                inner.wait(ops, ticket)?;
                self.rt.spawn(Rc::clone(self).make_store());
            }
        }
        inner.last_ticket = ticket;
        inner.in_flight.insert(ticket, asked);
        Ok(ticket)
    }

    async fn put_durably(self: &Rc<Self>, ops: &[Op<'_>]) -> Result<(), Refused> {
        let ticket = self.put(ops, Asked::Awaited)?;
        loop {
            self.rt.sleep(OUTCOME_POLL).await;
            self.settle();
            if let Some(outcome) = self.inner.borrow_mut().settled.remove(&ticket) {
                return outcome;
            }
        }
    }

    /// Takes the outcomes that have come.
    fn settle(&self) {
        let mut done: Vec<Done> = Vec::new();
        let mut inner = self.inner.borrow_mut();
        self.shared.completions().take(&mut done);
        for Done { ticket, result } in done {
            let outcome = result.map_err(|why| match why {
                Failed::Full => Refused::Full,
                Failed::Unknown => Refused::Closed,
            });
            inner.answer(ticket, outcome);
        }
    }

    /// Hints without a CURRENT are none: a crash came before the first of them was durable.
    async fn begin(&self) -> std::io::Result<()> {
        let (current, bytes) = newborn(self.options.shard);
        let current = self.options.dir.join(current);
        let folder = current.parent().unwrap_or(&self.options.dir);
        self.rt.create_dir(folder).await?;
        if !self
            .rt
            .list(folder)
            .await?
            .iter()
            .any(|name| name == CURRENT)
        {
            self.rt.replace(&current, &bytes).await?;
        }
        Ok(())
    }

    async fn open_store(&self) -> Result<(), OpenError> {
        let begun = self.begin().await;
        begun.map_err(|error| cannot_open(&error))?;
        let (store, opened) = Store::open(&self.rt, self.options.clone(), &self.shared).await?;
        let mut inner = self.inner.borrow_mut();
        inner.clock.observe(opened.max_version);
        let before = std::mem::replace(&mut inner.place, Place::Open(store));
        if let Place::Opening { waiting, .. } = before {
            for Waiting { ticket, rows } in waiting {
                let ops = rows.iter().map(|(row, entry)| Op {
                    key: row,
                    entry: entry.as_entry(),
                });
                let ops: Vec<Op<'_>> = ops.collect();
                if let Err(refused) = inner.write(&ops, ticket, self.rt.wall_ms()) {
                    inner.answer(ticket, Err(refused));
                }
            }
        }
        Ok(())
    }

    /// The first hint has come.
    async fn make_store(self: Rc<Self>) {
        let Err(error) = self.open_store().await else {
            return;
        };
        (self.log)(&format!("hints cannot be kept: {}", error.0));
        let mut inner = self.inner.borrow_mut();
        let not_before = self.rt.now() + RETRY_PAUSE;
        let before = std::mem::replace(&mut inner.place, Place::Absent { not_before });
        if let Place::Opening { waiting, .. } = before {
            for Waiting { ticket, .. } in waiting {
                inner.answer(ticket, Err(Refused::Busy));
            }
        }
    }

    /// The first hints from row `from` on.
    async fn first_hints(
        &self,
        from: Vec<u8>,
        target: NodeId,
        bytes_max: u32,
    ) -> Result<Vec<Hint>, ReadError> {
        let mut range = ScanRange {
            from: Some(from.into()),
            after: None,
            to: Some(section(self.tag(target), END).into()),
            ..ScanRange::default()
        };
        let mut hints = Vec::new();
        let mut room = u64::from(bytes_max);
        while hints.is_empty() {
            let Some(page) = self.page(&range, bytes_max as usize).await? else {
                break;
            };
            for row in page.rows.iter() {
                let hint = self.hint(row)?;
                match room.checked_sub(hint.bytes()) {
                    None if !hints.is_empty() => break,
                    left => room = left.unwrap_or(0),
                }
                hints.push(hint);
            }
            // A page over graves may end without a row.
            match page.resume {
                Some(resume) => range.after = Some(resume),
                None => break,
            }
        }
        Ok(hints)
    }

    async fn count(&self, tag: u64) -> Result<Pending, ReadError> {
        let mut range = ScanRange {
            from: Some(section(tag, DIRTY).into()),
            after: None,
            to: Some(section(tag, END).into()),
            ..ScanRange::default()
        };
        let mut pending = Pending {
            bytes: 0,
            records: 0,
            dirty: Slices::NONE,
        };
        while let Some(page) = self.page(&range, COUNT_PAGE_BYTES).await? {
            for row in page.rows.iter() {
                if *row.key == *section(tag, DIRTY) {
                    let bytes = row.entry.value().map(TryInto::try_into);
                    let Some(Ok(bytes)) = bytes else {
                        return Err(self.foreign(row.key));
                    };
                    pending.dirty = Slices::from_bytes(bytes);
                } else {
                    pending.bytes += self.hint(row)?.bytes();
                    pending.records += 1;
                }
            }
            match page.resume {
                Some(resume) => range.after = Some(resume),
                None => break,
            }
        }
        Ok(pending)
    }

    /// `None`: there is no store.
    async fn page(&self, range: &ScanRange, bytes_max: usize) -> Result<Option<Page>, ReadError> {
        match self.store() {
            Some(store) => store.scan(range, BATCH_ROWS_MAX, bytes_max).await.map(Some),
            None => Ok(None),
        }
    }

    fn hint(&self, row: Row<'_>) -> Result<Hint, ReadError> {
        Hint::of(row).ok_or_else(|| self.foreign(row.key))
    }

    fn foreign(&self, row: &[u8]) -> ReadError {
        let dir = self.options.dir.join(shard_dir(self.options.shard));
        ReadError {
            file: dir.display().to_string(),
            why: format!("row {} is no hint", row.escape_ascii()),
        }
    }
}

fn cannot_open(error: &io::Error) -> OpenError {
    OpenError(format!("hints: {error}"), Some(error.kind()))
}

impl Inner {
    fn write(&mut self, ops: &[Op<'_>], ticket: u64, wall_ms: u64) -> Result<(), Refused> {
        let Place::Open(store) = &self.place else {
            return Err(Refused::Busy);
        };
        let stamped = ops.iter().map(|op| Op {
            key: op.key,
            entry: Entry {
                version: self.clock.stamp(wall_ms),
                state: op.entry.state,
            },
        });
        store.write(&stamped.collect::<Vec<_>>(), ticket)
    }

    fn wait(&mut self, ops: &[Op<'_>], ticket: u64) -> Result<(), Refused> {
        let Place::Opening { waiting, bytes } = &mut self.place else {
            return Err(Refused::Busy);
        };
        let value_bytes = |op: &Op<'_>| op.entry.value().map_or(0, <[u8]>::len);
        let cost = |op: &Op<'_>| WAITING_OVERHEAD_BYTES + op.key.len() + value_bytes(op);
        let cost: usize = ops.iter().map(cost).sum();
        if *bytes + cost > WAL_QUEUE_BYTES_MAX {
            return Err(Refused::Busy);
        }
        *bytes += cost;
        let rows = ops.iter().map(|op| (op.key.to_vec(), op.entry.to_owned()));
        waiting.push(Waiting {
            ticket,
            rows: rows.collect(),
        });
        Ok(())
    }

    /// The outcome of a record has come.
    fn answer(&mut self, ticket: u64, outcome: Result<(), Refused>) {
        match (self.in_flight.remove(&ticket), outcome) {
            (Some(Asked::Hint { target, row }), Ok(())) => {
                self.targets[target.index()].lower(row);
            }
            (Some(Asked::Hint { target, row }), Err(_)) => {
                let slice = Slice::of(KeyHash::of(client_key(&row)).token());
                self.lost.push(Lost { target, slice });
            }
            (Some(Asked::Awaited), outcome) => {
                self.settled.insert(ticket, outcome);
            }
            (None, _) => {}
        }
    }

    /// Whether a hint of an earlier ticket, or of this one, is on its way.
    fn awaits_hint(&self, target: NodeId, last: u64) -> bool {
        let to_it =
            |asked: &Asked| matches!(asked, Asked::Hint { target: to, .. } if *to == target);
        self.in_flight.range(..=last).any(|(_, asked)| to_it(asked))
    }

    /// The row a batch starts at.
    fn begin_batch(&mut self, target: NodeId) -> Vec<u8> {
        let target = &mut self.targets[target.index()];
        target.added = None;
        target.from.clone()
    }
}

impl Target {
    fn new(name: &str) -> Target {
        let tag = tag_of(name);
        Target {
            tag,
            from: section(tag, HINTS),
            added: None,
        }
    }

    /// A hint is visible.
    fn lower(&mut self, row: Vec<u8>) {
        if self.added.as_ref().is_none_or(|added| row < *added) {
            self.added = Some(row.clone());
        }
        if row < self.from {
            self.from = row;
        }
    }

    /// A batch found nothing before `row`.
    fn advance(&mut self, row: Vec<u8>) {
        self.from = match self.added.take() {
            Some(added) if added < row => added,
            _ => row,
        };
    }
}

fn unstamped<'a>(row: &'a [u8], state: State<'a>) -> Op<'a> {
    let version = Version::ZERO;
    Op {
        key: row,
        entry: Entry { version, state },
    }
}

#[cfg(test)]
mod tests;
