//! What all parts of one story write down: operations for the checker, steps for people, sums for the tests.

use std::cell::{Cell, Ref, RefCell};

use super::super::ledger::Violation;
use crate::base::time::Instant;
use crate::load::history::Record;

/// Steps that a failure tells.
const STEPS_TOLD: usize = 80;

/// What a story consisted of: tests use it to show that they tested something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Writes acknowledged, refused for sure, and neither. Each key of a batch counts.
    pub acked: u64,
    pub not_applied: u64,
    pub unknown: u64,
    pub gets: u64,
    pub scans: u64,
    /// Reads that got an error, or no answer.
    pub unread: u64,
    /// Reads of one replica that must show whatever was kept for it.
    pub healed: u64,
    /// Faults that took place: directions cut, pairs of machines whose connections are reset, SIGKILLs, power losses, orderly stops, processes paused, wall clocks set.
    pub cuts: u64,
    pub resets: u64,
    pub kills: u64,
    pub crashes: u64,
    pub stops: u64,
    pub pauses: u64,
    pub skews: u64,
    /// Answers 507: the disk was full.
    pub full: u64,
    /// Nodes that ended of their own accord because their disk failed.
    pub failures: u64,
    /// Reads of tables that had a wrong bit.
    pub rotten: u64,
    /// Hash of the whole history.
    pub trace: u64,
}

impl Report {
    /// Sums up; traces are not summed.
    pub fn add(&mut self, other: &Report) {
        self.acked += other.acked;
        self.not_applied += other.not_applied;
        self.unknown += other.unknown;
        self.gets += other.gets;
        self.scans += other.scans;
        self.unread += other.unread;
        self.healed += other.healed;
        self.cuts += other.cuts;
        self.resets += other.resets;
        self.kills += other.kills;
        self.crashes += other.crashes;
        self.stops += other.stops;
        self.pauses += other.pauses;
        self.skews += other.skews;
        self.full += other.full;
        self.failures += other.failures;
        self.rotten += other.rotten;
    }
}

struct Step {
    now: Instant,
    /// Of an operation.
    key: Option<u16>,
    text: String,
}

/// One per story, shared by its clients and its town.
#[derive(Default)]
pub(super) struct Book {
    records: RefCell<Vec<Record>>,
    steps: RefCell<Vec<Step>>,
    sums: RefCell<Report>,
    broken: RefCell<Option<Violation>>,
    last_value: Cell<u64>,
    /// Clients that have not finished.
    pub(super) busy: Cell<usize>,
}

impl Book {
    pub(super) fn record(&self, record: Record) {
        let (key, text) = (Some(record.key), record.to_string());
        self.note(record.complete, key, text);
        self.records.borrow_mut().push(record);
    }

    pub(super) fn records(&self) -> Ref<'_, [Record]> {
        Ref::map(self.records.borrow(), Vec::as_slice)
    }

    pub(super) fn step(&self, now: Instant, text: &str) {
        self.note(now, None, text.to_owned());
    }

    fn note(&self, now: Instant, key: Option<u16>, text: String) {
        let step = Step { now, key, text };
        self.steps.borrow_mut().push(step);
    }

    /// The last steps, of all operations those on `key` alone if one is given.
    pub(super) fn steps(&self, key: Option<u16>) -> String {
        let steps = self.steps.borrow();
        let wanted = |step: &&Step| key.is_none() || step.key.is_none() || step.key == key;
        let told: Vec<&Step> = steps.iter().filter(wanted).collect();
        let told = &told[told.len().saturating_sub(STEPS_TOLD)..];
        let line = |step: &&Step| format!("  {:>9} us  {}\n", step.now.0 / 1_000, step.text);
        told.iter().map(line).collect()
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut Report)) {
        count(&mut self.sums.borrow_mut());
    }

    pub(super) fn sums(&self) -> Report {
        *self.sums.borrow()
    }

    /// A promise was broken before the checker has even looked; the first one is told.
    pub(super) fn broken(&self, text: String) {
        self.broken.borrow_mut().get_or_insert(Violation(text));
    }

    pub(super) fn verdict(&self) -> Result<(), Violation> {
        self.broken.borrow().clone().map_or(Ok(()), Err)
    }

    /// A number for a value, never given before.
    pub(super) fn next_value(&self) -> u64 {
        self.last_value.set(self.last_value.get() + 1);
        self.last_value.get()
    }
}
