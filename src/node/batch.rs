//! One `POST /batch`: split by shard, one atomic record each, one answer when all are durable.
//!
//! ```text
//!  items ─▶ shard 0: record ─▶ our log            ─┐
//!          shard 1: record ─▶ our log              ├─▶ all durable: 200; else which items failed and why
//!          shard 2: record ─▶ mesh ─▶ their log   ─┘
//! ```
//!
//! Atomic within a shard, not across shards; in a cluster, within a part: the items of one shard and one set of
//! replicas, up to 4 MiB. Of equal keys the last in the array wins; the others are not written.

use super::answer::{Answer, Written};
use super::body::Item;
use super::coordinate::Client;
use super::failure::{Failure, Refusal};
use super::msg::{Ask, Change};
use super::route::{Place, Router, Waiting, own, text};
use crate::base::hash::KeyHash;
use crate::base::member::NodeId;
use crate::base::record::{Entry, OwnedEntry, OwnedRow};
use crate::base::slices::Slice;
use crate::cluster::REPLICAS_MAX;
use crate::store::Op;

/// A batch some of whose parts are not answered yet.
pub(super) struct Batch {
    place: Place,
    parts_left: u32,
    /// Places in the array of those that are written, sorted into parts.
    items: Vec<u32>,
    /// Places of those that were not.
    failed: Vec<u32>,
    failure: Failure,
}

/// The items of one part, among all that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    first: usize,
    count: usize,
}

/// What the items of one record have in common. `piece`: a record between nodes fits one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    shard: u16,
    replicas: [NodeId; REPLICAS_MAX],
    piece: u32,
}

/// Keys and values of one record that goes to peers, at most, unless one row alone has more.
const PART_BYTES_MAX: usize = 4 << 20;

impl Router {
    /// Writes many keys, each shard's part as one atomic record. The answer comes to `place`.
    pub(crate) fn batch(&mut self, items: &[Item<'_>], needed: u16, place: Place) {
        let kept = self.divide(items);
        let batch = self.waiting.insert(Waiting::Batch(Batch {
            place,
            // One for this function itself, so that no part can finish the batch before the last is out.
            parts_left: 1,
            items: kept.iter().map(|&(_, at)| at as u32).collect(),
            failed: Vec::new(),
            failure: Failure::Busy,
        }));
        let mut first = 0;
        for part in kept.chunk_by(|a, b| a.0 == b.0) {
            let count = part.len();
            let share = Share { first, count };
            first += count;
            if let Some(Waiting::Batch(batch)) = self.waiting.get_mut(batch) {
                batch.parts_left += 1;
            }
            let rows = part.iter().map(|&(_, at)| &items[at]);
            let outcome = self.write_part(part[0].0.shard, rows, needed, (batch, share));
            if let Err(failure) = outcome {
                self.settle_part(batch, share, Err(failure));
            }
        }
        self.settle_part(batch, Share { first, count: 0 }, Ok(()));
    }

    fn write_part<'a>(
        &mut self,
        shard: u16,
        rows: impl Iterator<Item = &'a Item<'a>>,
        needed: u16,
        (batch, share): (u64, Share),
    ) -> Result<(), Failure> {
        let waiting = Waiting::Part { batch, share };
        if self.local(shard).is_some() {
            let version = self.clock.stamp(self.wall_ms);
            if self.member.is_some() {
                let rows = rows.map(|item| OwnedRow {
                    key: item.key.as_bytes().into(),
                    entry: OwnedEntry {
                        version,
                        state: own(text(&item.value)),
                    },
                });
                let rows = rows.collect();
                self.start_write(Client::Part { batch, share }, shard, rows, needed);
                return Ok(());
            }
            let ops: Vec<Op<'_>> = rows
                .map(|item| Op {
                    key: item.key.as_bytes(),
                    entry: Entry {
                        version,
                        state: text(&item.value),
                    },
                })
                .collect();
            return self.write_local(shard, &ops, waiting);
        }
        let core = self.owners.core_of(shard);
        self.may_ask(core)?;
        let changes = rows
            .map(|item| Change {
                key: item.key.as_bytes().into(),
                state: own(text(&item.value)),
            })
            .collect();
        let ticket = self.waiting.insert(waiting);
        let ask = Ask::Write {
            shard,
            changes,
            needed,
        };
        self.ask(core, ticket, ask);
        Ok(())
    }

    /// Of equal keys the last of the array; sorted into parts, each with one shard and one set of replicas.
    fn divide(&self, items: &[Item<'_>]) -> Vec<(Part, usize)> {
        let shards = self.owners.shards();
        let part_of = |item: &Item<'_>| {
            let hash = KeyHash::of(item.key.as_bytes());
            Part {
                shard: hash.shard(shards),
                replicas: self.replicas_of(hash),
                piece: 0,
            }
        };
        let mut order: Vec<(Part, &str, usize)> = items
            .iter()
            .enumerate()
            .map(|(at, item)| (part_of(item), &*item.key, at))
            .collect();
        order.sort_unstable();
        // Of equal keys the last of the array is the last here, and wins.
        let mut kept: Vec<(Part, usize)> = Vec::with_capacity(order.len());
        let mut bytes = 0;
        for (n, (part, key, at)) in order.iter().enumerate() {
            if order.get(n + 1).is_some_and(|next| next.1 == *key) {
                continue;
            }
            let row = key.len() + items[*at].value.len();
            let mut part = *part;
            if let Some((before, _)) = kept.last() {
                part.piece = before.piece;
                if self.member.is_some() && bytes + row > PART_BYTES_MAX {
                    part.piece += 1;
                    bytes = 0;
                }
            }
            bytes += row;
            kept.push((part, *at));
        }
        kept
    }

    /// The replicas of a key as something to sort by; alone, a node has one set.
    fn replicas_of(&self, hash: KeyHash) -> [NodeId; REPLICAS_MAX] {
        let mut set = [NodeId(u16::MAX); REPLICAS_MAX];
        if let Some(member) = &self.member {
            let replicas = member.ring.replicas(Slice::of(hash.token()));
            for (place, node) in set.iter_mut().zip(replicas) {
                *place = *node;
            }
            set.sort_unstable();
        }
        set
    }

    pub(super) fn settle_part(&mut self, ticket: u64, share: Share, outcome: Result<(), Failure>) {
        let Some(Waiting::Batch(batch)) = self.waiting.get_mut(ticket) else {
            return;
        };
        batch.parts_left -= 1;
        if let Err(failure) = outcome {
            // An unknown outcome outweighs a refusal: the client must not believe that nothing happened.
            if batch.failed.is_empty() || failure.leaves_doubt() {
                batch.failure = failure;
            }
            let items = batch.items.iter().skip(share.first).take(share.count);
            batch.failed.extend(items);
        }
        if batch.parts_left > 0 {
            return;
        }
        let answer = if batch.failed.is_empty() {
            Answer::Written(Written::Batch, None)
        } else if batch.failed.len() == batch.items.len() {
            Answer::Refused(Refusal::Store(batch.failure))
        } else {
            let mut failed = std::mem::take(&mut batch.failed);
            failed.sort_unstable();
            Answer::Refused(Refusal::Partial {
                failed,
                items: batch.items.len(),
                failure: batch.failure,
            })
        };
        let place = batch.place;
        self.waiting.remove(ticket);
        self.answered.push((place, answer));
    }
}
