//! What other members ask of this node as a replica: their writes, reads and pages, on our shards.
//!
//! ```text
//!  Served ─ serve_write ─▶ rows by shard ─┬─ ours ──▶ log ─▶ on_done ─┐
//!                                         └─ another core's: Ask ─▶ Reply ┴─▶ all parts durable ─▶ Written
//! ```
//!
//! A peer sends a request to the core that owns its key; one that does not (it has just started, or thinks we have
//! more cores) is served all the same, through the mesh. Versions come with the rows and are kept: a replica never
//! stamps.

use super::arrivals::Asker;
use super::compare::Compared;
use super::failure::Failure;
use super::msg::{Ask, Reply};
use super::route::{Router, Waiting};
use crate::base::hash::KeyHash;
use crate::base::limits::{SCAN_PAGE_BYTES, SCAN_PAGE_ROWS};
use crate::base::planted::{self, Bug};
use crate::base::record::{OwnedEntry, OwnedRow};
use crate::rt::net::Token;
use crate::store::{Got, Op, ScanRange};
use crate::wire::frame;
use crate::wire::message::{Message, Row, Scan, Why};
use crate::wire::proof::Secret;

/// One request of a peer: the link it came on, and its id there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub token: Token,
    pub id: u64,
}

/// A write whose rows went to several shards.
pub(super) struct Gather {
    asker: Asker,
    left: usize,
    outcome: Result<(), Failure>,
}

impl Router {
    pub(crate) fn secret(&self) -> Option<&Secret> {
        self.member
            .as_ref()
            .and_then(|member| member.facts.secret.as_ref())
    }

    /// Makes rows of a peer durable. The answer comes to the job.
    pub(crate) fn serve_write(&mut self, job: Job, rows: &[Row<'_>]) -> Result<(), Why> {
        let shards = self.owners.shards();
        let ops = rows.iter().map(|row| Op {
            key: row.key,
            entry: row.entry,
        });
        let mut ops: Vec<(u16, Op<'_>)> = ops
            .map(|op| (KeyHash::of(op.key).shard(shards), op))
            .collect();
        for (_, op) in &mut ops {
            self.clock.observe_within(op.entry.version, self.wall_ms);
            if planted::is(Bug::ReplicaStamps) {
                op.entry.version = self.clock.stamp(self.wall_ms);
            }
        }
        newest_of_each(&mut ops);
        self.apply_all(&ops, Asker::Peer(job)).map_err(Why::from)
    }

    /// Makes rows durable, each shard's as one record. The outcome comes to the asker.
    pub(super) fn apply_all(&mut self, ops: &[(u16, Op<'_>)], asker: Asker) -> Result<(), Failure> {
        let parts = ops.chunk_by(|a, b| a.0 == b.0);
        let count = parts.clone().count();
        if count <= 1 {
            return match ops.first() {
                Some((shard, _)) => self.apply(*shard, &plain(ops), asker),
                None => {
                    self.reply(asker, Reply::Applied(Ok(())));
                    Ok(())
                }
            };
        }
        let ticket = self.waiting.insert(Waiting::Gather(Gather {
            asker,
            left: count,
            outcome: Ok(()),
        }));
        for part in parts {
            let sent = self.apply(part[0].0, &plain(part), Asker::Here(ticket));
            if let Err(failure) = sent {
                self.gathered(ticket, Err(failure));
            }
        }
        Ok(())
    }

    /// Makes rows of one shard durable, wherever it lies. The outcome comes to the asker.
    pub(super) fn apply(
        &mut self,
        shard: u16,
        ops: &[Op<'_>],
        asker: Asker,
    ) -> Result<(), Failure> {
        let waiting = Waiting::Applying { asker };
        if self.local(shard).is_some() {
            return self.write_local(shard, ops, waiting);
        }
        let core = self.owners.core_of(shard);
        self.may_ask(core)?;
        let ticket = self.waiting.insert(waiting);
        let rows = ops
            .iter()
            .map(|op| OwnedRow {
                key: op.key.into(),
                entry: op.entry.to_owned(),
            })
            .collect();
        self.ask(core, ticket, Ask::Apply { shard, rows });
        Ok(())
    }

    /// One part of a write over several shards is done.
    pub(super) fn gathered(&mut self, ticket: u64, outcome: Result<(), Failure>) {
        let Some(Waiting::Gather(gather)) = self.waiting.get_mut(ticket) else {
            return;
        };
        gather.left -= 1;
        // As soon as one part may be there, the whole may be.
        gather.outcome = match (gather.outcome, outcome) {
            (Err(_), Err(failure)) | (Ok(()), Err(failure)) => Err(failure),
            (earlier, Ok(())) => earlier,
        };
        if gather.left == 0 {
            let (asker, outcome) = (gather.asker, gather.outcome.map_err(|_| Failure::Unknown));
            self.waiting.remove(ticket);
            self.reply(asker, Reply::Applied(outcome));
        }
    }

    /// Reads one key for a peer: into `out` at once, or by the job when the answer must be waited for.
    pub(crate) fn serve_read(
        &mut self,
        job: Job,
        key: &[u8],
        digest_only: bool,
        out: &mut Vec<u8>,
    ) {
        let hash = KeyHash::of(key);
        let shard = hash.shard(self.owners.shards());
        let asker = if digest_only {
            Asker::PeerDigest(job)
        } else {
            Asker::Peer(job)
        };
        let refuse = |out: &mut Vec<u8>, failure: Failure| {
            let why = Why::from(failure);
            frame::put(out, job.id, 0, &Message::Refused { why });
        };
        let Some(store) = self.local(shard).cloned() else {
            let core = self.owners.core_of(shard);
            if let Err(failure) = self.may_ask(core) {
                return refuse(out, failure);
            }
            let ticket = self.waiting.insert(Waiting::Fetching { asker });
            let key = key.into();
            return self.ask(core, ticket, Ask::Fetch { key, hash });
        };
        let got = store.get(key, hash, |entry| {
            let message = if digest_only {
                Message::digest_of(entry.as_ref())
            } else {
                Message::Got { entry }
            };
            frame::put(out, job.id, 0, &message);
        });
        match got {
            Ok(Got::Answer(())) => {}
            Ok(Got::Disk(_)) => self.read_from_disk(store, key.into(), hash, asker),
            Err(error) => {
                let failure = self.read_faults.tell(&error);
                refuse(out, failure);
            }
        }
    }

    /// Reads one page of a shard for a peer. The answer comes to the job.
    pub(crate) fn serve_scan(&mut self, job: Job, scan: Scan<'_>) -> Result<(), Why> {
        if scan.shard >= self.owners.shards() {
            return Err(Why::Unsupported);
        }
        let own = |end: Option<&[u8]>| end.map(Box::from);
        let range = ScanRange {
            from: own(scan.from),
            after: own(scan.after),
            to: own(scan.to),
            dead: !planted::is(Bug::GravesStripped),
            slices: scan.slices,
            apart: false,
        };
        let rows_max = (scan.rows_max as usize).clamp(1, SCAN_PAGE_ROWS);
        let (shard, asker) = (scan.shard, Asker::Peer(job));
        if self.local(shard).is_some() {
            self.scan_local(shard, range, rows_max, asker);
            return Ok(());
        }
        let core = self.owners.core_of(shard);
        self.may_ask(core).map_err(Why::from)?;
        let ticket = self.waiting.insert(Waiting::Fetching { asker });
        let ask = Ask::Scan {
            shard,
            range,
            rows_max,
        };
        self.ask(core, ticket, ask);
        Ok(())
    }
}

/// A record holds each key once, in any order; the greatest version of a key that is there twice wins.
pub(super) fn newest_of_each(ops: &mut Vec<(u16, Op<'_>)>) {
    ops.sort_by(|a, b| {
        (a.0, a.1.key)
            .cmp(&(b.0, b.1.key))
            .then(b.1.entry.order(&a.1.entry))
    });
    ops.dedup_by(|later, first| later.1.key == first.1.key);
}

fn plain<'a>(ops: &[(u16, Op<'a>)]) -> Vec<Op<'a>> {
    ops.iter().map(|(_, op)| *op).collect()
}

/// An answer of ours to a peer, in its words. `digest`: it wants no more of an entry.
pub(crate) fn tell(reply: &Reply, digest: bool, give: impl FnOnce(&Message<'_>)) {
    let refused = |failure: &Failure| Message::Refused {
        why: Why::from(*failure),
    };
    match reply {
        Reply::Applied(Ok(())) => give(&Message::Written),
        Reply::Got(Ok(entry)) => {
            let entry = entry.as_ref().map(OwnedEntry::as_entry);
            if digest {
                give(&Message::digest_of(entry.as_ref()));
            } else {
                give(&Message::Got { entry });
            }
        }
        Reply::Page { page: Ok(page), .. } => {
            give(&Message::Page {
                rows: page.rows.iter().collect(),
                resume: page.resume.as_deref(),
            });
        }
        Reply::Compared(Ok(Compared::Same)) => give(&Message::Same),
        Reply::Compared(Ok(Compared::Differs { heads, resume })) => give(&Message::Heads {
            heads: heads.clone(),
            resume: resume.as_deref(),
        }),
        Reply::Applied(Err(failure))
        | Reply::Compared(Err(failure))
        | Reply::Got(Err(failure))
        | Reply::Page {
            page: Err(failure), ..
        } => give(&refused(failure)),
        // Nothing a peer asks is answered so.
        Reply::Written(_) | Reply::Snapshot(_) | Reply::Handoff(_) => {
            give(&Message::Refused { why: Why::Unknown })
        }
    }
}

impl From<Failure> for Why {
    fn from(failure: Failure) -> Why {
        match failure {
            Failure::Busy => Why::Busy,
            Failure::Full => Why::Full,
            Failure::Closed => Why::Closed,
            Failure::Unreadable => Why::Unreadable,
            // All but the first are the coordinator's own and never a replica's.
            Failure::Unknown
            | Failure::Unavailable { .. }
            | Failure::Uncertain { .. }
            | Failure::TimedOut { .. }
            | Failure::NotApplied { .. }
            | Failure::Lost
            | Failure::Stale => Why::Unknown,
        }
    }
}

/// A page fits a frame whatever its rows are: it is ended by the row that fills it.
const _: () = assert!(
    SCAN_PAGE_BYTES
        + crate::base::limits::VALUE_BYTES_MAX
        + crate::base::limits::KEY_BYTES_MAX
        + 64 * SCAN_PAGE_ROWS
        <= crate::base::limits::FRAME_BODY_BYTES_MAX
);
