//! A client of the cluster: asks for random things at random nodes and writes down what it is told.
//!
//! ```text
//! draw a burst ─▶ one node ─▶ replies in order ─▶ a Record per key ─▶ think ─▶ ..
//! ```
//!
//! Each value is unique and its bytes follow from its number, so that a value read is known by its first digits and
//! checked to the last byte. What no server may ever answer is reported at once, everything else is the checker's.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::ask::{self, Ask, Asking};
use super::book::Book;
use super::line::Line;
use super::plan::Plan;
use crate::base::time::Instant;
use crate::base::version::Version;
use crate::load::answer::{Reply, Rows, rows_in, value_got, write_outcome};
use crate::load::history::{Act, How, Outcome, Record, Seen};
use crate::node::cluster::Level;
use crate::rt::Rt;

/// The machine a client sits at: clients are far away from the nodes' numbers.
pub(super) fn machine(client: u16) -> u16 {
    100 + client
}

pub(super) struct Client {
    rt: Rt,
    id: u16,
    rng: fastrand::Rng,
    plan: Rc<Plan>,
    book: Rc<Book>,
    line: Line,
    node: u16,
    /// The greatest version of each key that this client has been told.
    newest: BTreeMap<u16, Version>,
}

impl Client {
    pub(super) fn new(rt: &Rt, id: u16, plan: &Rc<Plan>, book: &Rc<Book>) -> Client {
        Client {
            rt: rt.clone(),
            id,
            rng: fastrand::Rng::with_seed(plan.seed.wrapping_mul(37) ^ u64::from(id)),
            plan: Rc::clone(plan),
            book: Rc::clone(book),
            line: Line::new(rt),
            node: plan.asked(1),
            newest: BTreeMap::new(),
        }
    }

    /// The whole working life.
    pub(super) async fn work(mut self) {
        for _ in 0..self.plan.bursts {
            if self.rng.u8(..4) == 0 {
                let node = self.rng.u16(1..=self.plan.nodes);
                self.node = self.plan.asked(node);
            }
            let count = self.rng.usize(1..=self.plan.burst_max);
            let burst: Vec<Asking> = (0..count).map(|_| self.draw()).collect();
            if !self.carry_out(self.node, &burst).await {
                // As people do: wait a little, perhaps ask another node.
                let pause_ms = self.rng.u64(1..500);
                self.rest(Duration::from_millis(pause_ms)).await;
            }
            let think_us = self.rng.u64(1..=self.plan.think_ms_max * 1_000);
            self.rest(Duration::from_micros(think_us)).await;
        }
        self.line.hang_up();
        self.book.busy.set(self.book.busy.get() - 1);
    }

    pub(super) async fn rest(&self, pause: Duration) {
        self.rt.sleep(pause).await;
    }

    fn draw(&mut self) -> Asking {
        let odds = self.plan.odds;
        let key = self.rng.u16(..self.plan.keys);
        let mut roll = self.rng.u8(..100);
        let mut falls = |percent: u8| {
            let hit = roll < percent;
            roll = roll.saturating_sub(percent);
            hit
        };
        let ask = if falls(odds.get) {
            let demands = self.rng.u8(..100) < odds.after;
            let newest = self.newest.get(&key).filter(|_| demands);
            let after = newest.copied().unwrap_or(Version::ZERO);
            let how = How::Get;
            Ask::Get { key, after, how }
        } else if falls(odds.delete) {
            Ask::Delete { key }
        } else if falls(odds.batch) {
            let items = (0..self.rng.usize(1..6))
                .map(|_| (self.rng.u16(..self.plan.keys), self.book.next_value()));
            Ask::Batch {
                items: items.collect(),
            }
        } else if falls(odds.scan) {
            let mut ends = [(); 2].map(|()| self.rng.u16(..self.plan.keys));
            ends.sort_unstable();
            Ask::Scan(Rows {
                from: ends[0],
                to: ends[1],
                rows_max: [None, Some(1), Some(3)][self.rng.usize(..3)],
            })
        } else {
            let value = self.book.next_value();
            Ask::Put { key, value }
        };
        let level = match self.rng.u8(..100) < odds.explicit {
            true => match self.rng.u8(..4) {
                0 => Level::One,
                1 => Level::Quorum,
                2 => Level::All,
                _ => Level::Exactly(self.rng.u16(1..=self.plan.copies)),
            },
            false => Level::Default,
        };
        Asking { ask, level }
    }

    /// Asks, and writes down what came of it. True when every request got the answer it was made for.
    pub(super) async fn carry_out(&mut self, node: u16, burst: &[Asking]) -> bool {
        let requests: Vec<Vec<u8>> = burst
            .iter()
            .map(|asking| ask::request(asking, self.plan.value_bytes_max))
            .collect();
        let invoke = self.rt.now();
        // Longer than the node may take, so that its word is heard.
        let patience = self.plan.timeout * 2 + Duration::from_secs(1);
        let replies = self.line.ask(node, &requests, patience).await;
        let mut well = true;
        for (asking, (reply, complete)) in burst.iter().zip(replies) {
            match self.note(asking, invoke, complete, &reply) {
                Ok(done) => well &= done,
                Err(what) => {
                    let reply = reply.show();
                    let text = format!("node {node}, {asking:?}: {what}: {reply}");
                    self.book.broken(text);
                }
            }
        }
        well
    }

    fn note(
        &mut self,
        asking: &Asking,
        invoke: Instant,
        complete: Instant,
        reply: &Reply,
    ) -> Result<bool, String> {
        if let Reply::Nonsense(text) = reply {
            return Err(text.clone());
        }
        if let Reply::Answer { status: 507, .. } = reply {
            self.book.count(|sums| sums.full += 1);
        }
        let acts = match asking.ask.is_write() {
            true => self.acts_of_write(asking, reply)?,
            false => self.acts_of_read(asking, reply)?,
        };
        let done = matches!(
            reply,
            Reply::Answer {
                status: 200 | 404,
                ..
            }
        );
        if !done {
            let text = format!("client {} {asking:?}: {}", self.id, reply.show());
            self.book.step(complete, &text);
        }
        if !done && self.plan.faults.are_none() {
            return Err("refused although nothing is wrong".to_owned());
        }
        for (key, act) in acts {
            let told = match &act {
                Act::Write { outcome, .. } => match outcome {
                    Outcome::Acked(version) => *version,
                    Outcome::NotApplied | Outcome::Unknown => None,
                },
                Act::Read { seen, .. } => seen.version,
            };
            if let Some(version) = told {
                let newest = self.newest.entry(key).or_default();
                *newest = version.max(*newest);
            }
            self.book.record(Record {
                client: self.id,
                key,
                quorum: self.quorum(asking),
                invoke,
                complete,
                act,
            });
        }
        Ok(done)
    }

    /// Replicas that this request waits for.
    fn quorum(&self, asking: &Asking) -> u16 {
        let default = match asking.ask.is_write() {
            true => self.plan.write_quorum,
            false => self.plan.read_quorum,
        };
        let needed = asking.level.needed(default, self.plan.copies);
        needed.expect("clients ask for what can be had")
    }

    fn acts_of_write(&self, asking: &Asking, reply: &Reply) -> Result<Vec<(u16, Act)>, String> {
        let outcome = match reply {
            Reply::Lost => Outcome::Unknown,
            Reply::Unasked | Reply::Nonsense(_) => return Ok(Vec::new()),
            Reply::Answer {
                status,
                version,
                body,
            } => write_outcome(asking.ask.success(), *status, *version, body)?,
        };
        let changes = asking.ask.changes();
        self.book.count(|sums| match outcome {
            Outcome::Acked(_) => sums.acked += changes.len() as u64,
            Outcome::NotApplied => sums.not_applied += changes.len() as u64,
            Outcome::Unknown => sums.unknown += changes.len() as u64,
        });
        let act = |(key, value, hidden)| {
            let outcome = match hidden {
                // A later item of the same batch has the same key: nobody sees this one.
                true => Outcome::NotApplied,
                false => outcome,
            };
            (key, Act::Write { value, outcome })
        };
        Ok(changes.into_iter().map(act).collect())
    }

    fn acts_of_read(&self, asking: &Asking, reply: &Reply) -> Result<Vec<(u16, Act)>, String> {
        let (status, version, body) = match reply {
            Reply::Answer {
                status,
                version,
                body,
            } => (*status, *version, body),
            Reply::Lost | Reply::Unasked | Reply::Nonsense(_) => {
                self.book.count(|sums| sums.unread += 1);
                return Ok(Vec::new());
            }
        };
        let value_bytes_max = self.plan.value_bytes_max;
        match (&asking.ask, status) {
            (_, 500..) => {
                self.book.count(|sums| sums.unread += 1);
                Ok(Vec::new())
            }
            (Ask::Get { key, after, how }, _) => {
                let Some(value) = value_got(status, body, value_bytes_max)? else {
                    return Ok(Vec::new());
                };
                let (how, after) = (*how, *after);
                self.book.count(|sums| match how {
                    How::Healed => sums.healed += 1,
                    How::Get | How::Scan | How::Last => sums.gets += 1,
                });
                let seen = Seen { value, version };
                Ok(vec![(*key, Act::Read { how, after, seen })])
            }
            (Ask::Scan(rows), 200) => {
                self.book.count(|sums| sums.scans += 1);
                let rows = rows_in(body, *rows, ask::key_name, value_bytes_max)?;
                let act = |(key, value)| {
                    let how = How::Scan;
                    let after = Version::ZERO;
                    let version = None;
                    let seen = Seen { value, version };
                    (key, Act::Read { how, after, seen })
                };
                Ok(rows.into_iter().map(act).collect())
            }
            _ => Err("an answer that no read gets".to_owned()),
        }
    }
}
