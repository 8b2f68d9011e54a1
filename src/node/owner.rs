//! What other cores ask of this one as the owner of shards: it reads, writes and scans for them.

use std::rc::Rc;

use super::arrivals::Asker;
use super::coordinate::Client;
use super::failure::Failure;
use super::msg::{Ask, Change, Reply};
use super::route::{Router, Waiting};
use super::writing::as_op;
use crate::base::hash::KeyHash;
use crate::base::limits::SCAN_PAGE_BYTES;
use crate::base::record::{OwnedEntry, OwnedRow};
use crate::store::{Got, Op, ScanRange, Store};

impl Router {
    /// Does what another core asks of our shards; its reply leaves at the end of this turn or when done.
    pub(crate) fn on_ask(&mut self, core: usize, ticket: u64, ask: Ask) {
        let asker = Asker::There { core, ticket };
        match ask {
            Ask::Get {
                key,
                hash,
                needed,
                after,
            } => {
                let alone = self.reads_alone(hash, needed, after);
                if alone && self.copies() == 1 {
                    return self.fetch(key, hash, asker);
                }
                if let Some(entry) = alone.then(|| self.at_hand(&key, hash)).flatten() {
                    return self.reply(asker, Reply::Got(Ok(entry)));
                }
                let client = Client::Core { core, ticket };
                self.start_read(client, &key, hash, (needed, after), needed == 1 && !alone);
            }
            Ask::Fetch { key, hash } => self.fetch(key, hash, asker),
            Ask::Apply { shard, rows } => {
                let ops: Vec<Op<'_>> = rows.iter().map(as_op).collect();
                if let Err(failure) = self.apply(shard, &ops, asker) {
                    self.reply(asker, Reply::Applied(Err(failure)));
                }
            }
            Ask::Write {
                shard,
                changes,
                needed,
            } => self.write_for(core, ticket, (shard, needed), changes),
            Ask::Scan {
                shard,
                range,
                rows_max,
            } => self.scan_local(shard, range, rows_max, asker),
            Ask::Compare(question) => self.compare_local(*question, asker),
            Ask::Snapshot => {
                let snapshot = Box::new(self.snapshot());
                self.reply(asker, Reply::Snapshot(snapshot));
            }
        }
    }

    /// Stamps and writes what another core's client wants; the version comes to that core.
    fn write_for(
        &mut self,
        core: usize,
        ticket: u64,
        (shard, needed): (u16, u16),
        changes: Vec<Change>,
    ) {
        let version = self.clock.stamp(self.wall_ms);
        let rows = changes.into_iter().map(|change| OwnedRow {
            key: change.key,
            entry: OwnedEntry {
                version,
                state: change.state,
            },
        });
        let rows: Vec<OwnedRow> = rows.collect();
        if self.member.is_some() {
            return self.start_write(Client::Core { core, ticket }, shard, rows, needed);
        }
        let ops: Vec<Op<'_>> = rows.iter().map(as_op).collect();
        let waiting = Waiting::Foreign {
            core,
            ticket,
            version,
        };
        if let Err(failure) = self.write_local(shard, &ops, waiting) {
            let asker = Asker::There { core, ticket };
            self.reply(asker, Reply::Written(Err(failure)));
        }
    }

    /// What this node's own copy has of a key, if no disk is needed to tell.
    fn at_hand(&self, key: &[u8], hash: KeyHash) -> Option<Option<OwnedEntry>> {
        let store = self.local(hash.shard(self.owners.shards()))?;
        match store.get(key, hash, |entry| entry.map(|entry| entry.to_owned())) {
            Ok(Got::Answer(entry)) => Some(entry),
            Ok(Got::Disk(_)) | Err(_) => None,
        }
    }

    /// Reads this node's own copy of a key; the entry comes to the asker.
    pub(super) fn fetch(&mut self, key: Box<[u8]>, hash: KeyHash, asker: Asker) {
        let shard = hash.shard(self.owners.shards());
        let Some(store) = self.local(shard).map(Rc::clone) else {
            return self.reply(asker, Reply::Got(Err(Failure::Closed)));
        };
        let got = store.get(&key, hash, |entry| entry.map(|entry| entry.to_owned()));
        match got {
            Ok(Got::Answer(entry)) => self.reply(asker, Reply::Got(Ok(entry))),
            Ok(Got::Disk(_)) => self.read_from_disk(store, key, hash, asker),
            Err(error) => {
                let failure = self.read_faults.tell(&error);
                self.reply(asker, Reply::Got(Err(failure)));
            }
        }
    }

    /// Reads one page of a shard of ours in a task.
    pub(super) fn scan_local(
        &mut self,
        shard: u16,
        range: ScanRange,
        rows_max: usize,
        asker: Asker,
    ) {
        let Some(store) = self.local(shard).map(Rc::clone) else {
            let page = Err(Failure::Closed);
            return self.arrivals.push(asker, Reply::Page { shard, page });
        };
        let (arrivals, faults) = (Rc::clone(&self.arrivals), self.read_faults.clone());
        self.rt.spawn(async move {
            let page = store.scan(&range, rows_max, SCAN_PAGE_BYTES).await;
            let page = page.map_err(|error| faults.tell(&error));
            arrivals.push(asker, Reply::Page { shard, page });
        });
    }

    pub(super) fn read_from_disk(
        &self,
        store: Rc<Store>,
        key: Box<[u8]>,
        hash: KeyHash,
        asker: Asker,
    ) {
        let (arrivals, faults) = (Rc::clone(&self.arrivals), self.read_faults.clone());
        self.rt.spawn(async move {
            let got = store.get_from_disk(&key, hash).await;
            let got = got.map_err(|error| faults.tell(&error));
            arrivals.push(asker, Reply::Got(got));
        });
    }
}
