//! One `POST /batch`: split by shard, one atomic record each, one answer when all are durable.
//!
//! ```text
//!  items ─▶ shard 0: record ─▶ our log            ─┐
//!          shard 1: record ─▶ our log              ├─▶ all durable: 200; else how many items failed and why
//!          shard 2: record ─▶ mesh ─▶ their log   ─┘
//! ```
//!
//! Atomic within a shard, not across shards. Of equal keys the last in the array wins; the others are not written.

use super::answer::{Answer, Written};
use super::body::Item;
use super::failure::{Failure, Refusal};
use super::msg::{Ask, Change};
use super::route::{Place, Router, Waiting, own, text};
use crate::base::hash::KeyHash;
use crate::base::record::Entry;
use crate::store::Op;

/// A batch some of whose parts are not answered yet.
pub(super) struct Batch {
    place: Place,
    parts_left: u32,
    items: u32,
    failed: u32,
    failure: Failure,
}

impl Router {
    /// Writes many keys, each shard's part as one atomic record. The answer comes to `place`.
    pub(crate) fn batch(&mut self, items: &[Item<'_>], place: Place) {
        let shards = self.owners.shards();
        let mut order: Vec<(u16, &str, usize)> = items
            .iter()
            .enumerate()
            .map(|(at, item)| {
                let shard = KeyHash::of(item.key.as_bytes()).shard(shards);
                (shard, &*item.key, at)
            })
            .collect();
        order.sort_unstable();
        // Of equal keys the last of the array is the last here, and wins.
        let mut kept: Vec<(u16, usize)> = Vec::with_capacity(order.len());
        for (n, (shard, key, at)) in order.iter().enumerate() {
            if order.get(n + 1).is_none_or(|next| next.1 != *key) {
                kept.push((*shard, *at));
            }
        }
        let batch = self.waiting.insert(Waiting::Batch(Batch {
            place,
            // One for this function itself, so that no part can finish the batch before the last is out.
            parts_left: 1,
            items: kept.len() as u32,
            failed: 0,
            failure: Failure::Busy,
        }));
        for part in kept.chunk_by(|a, b| a.0 == b.0) {
            if let Some(Waiting::Batch(batch)) = self.waiting.get_mut(batch) {
                batch.parts_left += 1;
            }
            let rows = part.iter().map(|&(_, at)| &items[at]);
            let outcome = self.write_part(part[0].0, rows, batch);
            if let Err(failure) = outcome {
                self.settle_part(batch, part.len() as u32, Err(failure));
            }
        }
        self.settle_part(batch, 0, Ok(()));
    }

    fn write_part<'a>(
        &mut self,
        shard: u16,
        rows: impl ExactSizeIterator<Item = &'a Item<'a>>,
        batch: u64,
    ) -> Result<(), Failure> {
        let items = rows.len() as u32;
        let waiting = Waiting::Part { batch, items };
        if self.local(shard).is_some() {
            let version = self.clock.stamp(self.wall_ms);
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
        self.ask(core, ticket, Ask::Write { shard, changes });
        Ok(())
    }

    pub(super) fn settle_part(&mut self, ticket: u64, items: u32, outcome: Result<(), Failure>) {
        let Some(Waiting::Batch(batch)) = self.waiting.get_mut(ticket) else {
            return;
        };
        batch.parts_left -= 1;
        if let Err(failure) = outcome {
            // An unknown outcome outweighs a refusal: the client must not believe that nothing happened.
            if batch.failed == 0 || failure == Failure::Unknown {
                batch.failure = failure;
            }
            batch.failed += items;
        }
        if batch.parts_left > 0 {
            return;
        }
        let answer = if batch.failed == 0 {
            Answer::Written(Written::Batch, None)
        } else if batch.failed == batch.items {
            Answer::Refused(Refusal::Store(batch.failure))
        } else {
            Answer::Refused(Refusal::Partial {
                failed: batch.failed,
                items: batch.items,
                failure: batch.failure,
            })
        };
        let place = batch.place;
        self.waiting.remove(ticket);
        self.answered.push((place, answer));
    }
}
