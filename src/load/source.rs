//! Pure. The requests of one thread, one after the other, and what their answers must be.
//!
//! A request is written straight into the connection's buffer: head pieces that never change are made once per target,
//! keys and values are copied in. No formatting, no allocation per request.

use super::keys::Keys;
use super::plan::{Act, Plan, Space, Work};
use super::tally::{Ending, Failure, Op};
use super::template::Filling;
use crate::http::client::Answer;
use crate::http::response::put_decimal;

/// What was asked: all that is needed to judge the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    pub op: Op,
    key: u64,
    items: u64,
}

/// The requests of one thread.
pub struct Source<'a> {
    plan: &'a Plan,
    /// Per target: ` HTTP/1.1`, Host and the other fields.
    heads: Vec<Vec<u8>>,
    rng: fastrand::Rng,
    keys: Keys,
    /// Number of the next request, and how far from it the one after is.
    number: u64,
    step: u64,
    /// Of the first request, and of its key in sequence.
    first: (u64, u64),
    /// Number of the next write: of the thread in the upper 16 bits.
    write: u64,
    /// Requests of this thread that may be under way.
    in_flight: u64,
    body: Vec<u8>,
}

/// Which thread of how many, and its share.
#[derive(Clone, Copy, Debug)]
pub struct Thread {
    pub index: usize,
    pub count: usize,
    pub connections: usize,
    /// Measured requests of the threads before it, when their number is known.
    pub first: Option<u64>,
}

impl<'a> Source<'a> {
    #[must_use]
    pub fn new(plan: &'a Plan, thread: Thread) -> Source<'a> {
        let heads = plan.targets.iter().map(|target| {
            let connection = if plan.keep_alive {
                ""
            } else {
                "Connection: close\r\n"
            };
            let fields = &plan.fields;
            format!(" HTTP/1.1\r\nHost: {}\r\n{connection}{fields}", target.host).into_bytes()
        });
        let space = plan.work.space();
        let (number, step) = match thread.first {
            Some(first) => (first, 1),
            None => (thread.index as u64, thread.count as u64),
        };
        let first_key = match (thread.first, &plan.work) {
            (Some(first), Work::Mix { acts, .. }) if acts[0].0 == Act::Batch => {
                first * space.batch_items as u64
            }
            (Some(first), _) => first,
            (None, _) => space.keys.count() / thread.count as u64 * thread.index as u64,
        };
        Source {
            plan,
            heads: heads.collect(),
            rng: fastrand::Rng::with_seed(plan.seed.wrapping_add(thread.index as u64)),
            keys: space.keys.for_thread(thread.index, thread.count, first_key),
            number,
            step,
            first: (number, first_key),
            write: (thread.index as u64) << 48,
            in_flight: (thread.connections * plan.pipeline) as u64,
            body: Vec::new(),
        }
    }

    /// Begins with the first number and key again: those so far were for warming up.
    pub fn restart(&mut self) {
        let (number, key) = self.first;
        self.number = number;
        self.keys.seek(key);
    }

    /// Appends the next request to a target. `follow` belongs to the connection: the key that the put after this get is
    /// for.
    pub fn next(&mut self, target: usize, follow: &mut Option<u64>, out: &mut Vec<u8>) -> Asked {
        let plan = self.plan;
        match &plan.work {
            Work::Spelt { .. } => self.spelt(target, out),
            Work::Mix { acts, space } => {
                if let Some(key) = follow.take() {
                    return self.put(target, space, key, out);
                }
                match self.act(acts) {
                    Act::Get => self.get(target, space, out),
                    Act::ReadModifyWrite => {
                        let asked = self.get(target, space, out);
                        *follow = Some(asked.key);
                        asked
                    }
                    Act::Put => {
                        let key = self.draw();
                        self.put(target, space, key, out)
                    }
                    Act::Insert => {
                        let key = self.keys.add();
                        self.put(target, space, key, out)
                    }
                    Act::Delete => self.delete(target, space, out),
                    Act::Scan => self.scan(target, space, out),
                    Act::Batch => self.batch(target, space, out),
                }
            }
        }
    }

    fn act(&mut self, acts: &[(Act, u32)]) -> Act {
        if let [(only, _)] = acts {
            return *only;
        }
        let all: u32 = acts.iter().map(|(_, weight)| weight).sum();
        let mut left = self.rng.u32(..all);
        for (act, weight) in acts {
            match left.checked_sub(*weight) {
                None => return *act,
                Some(more) => left = more,
            }
        }
        unreachable!("a number below the sum of the weights falls to one of them")
    }

    fn draw(&mut self) -> u64 {
        self.keys.draw(&mut self.rng, self.in_flight)
    }

    fn spelt(&mut self, target: usize, out: &mut Vec<u8>) -> Asked {
        let plan = self.plan;
        let Work::Spelt {
            method,
            body,
            space,
        } = &plan.work
        else {
            unreachable!("asked for by the kind of work")
        };
        let path = &plan.targets[target].path;
        let keyed = path.has_keys()
            || body
                .as_ref()
                .is_some_and(super::template::Template::has_keys);
        let mut filling = Filling {
            number: self.number,
            key: if keyed {
                self.keys.draw(&mut self.rng, self.in_flight)
            } else {
                0
            },
            keys: &space.format,
            rng: &mut self.rng,
        };
        self.number += self.step;
        out.extend_from_slice(method.as_bytes());
        out.push(b' ');
        path.put(out, &mut filling);
        self.body.clear();
        if let Some(body) = body {
            body.put(&mut self.body, &mut filling);
        }
        self.end(target, body.is_some(), out);
        Asked {
            op: Op::Request,
            key: 0,
            items: 1,
        }
    }

    fn get(&mut self, target: usize, space: &Space, out: &mut Vec<u8>) -> Asked {
        let key = self.draw();
        out.extend_from_slice(b"GET /get?key=");
        space.format.put(out, key);
        self.end_query(b'&', out);
        self.end(target, false, out);
        Asked {
            op: Op::Get,
            key,
            items: 1,
        }
    }

    fn put(&mut self, target: usize, space: &Space, key: u64, out: &mut Vec<u8>) -> Asked {
        self.body.clear();
        self.item(space, key);
        out.extend_from_slice(b"POST /put");
        self.end_query(b'?', out);
        self.end(target, true, out);
        Asked {
            op: Op::Put,
            key,
            items: 1,
        }
    }

    fn batch(&mut self, target: usize, space: &Space, out: &mut Vec<u8>) -> Asked {
        self.body.clear();
        self.body.extend_from_slice(b"{\"items\":[");
        for at in 0..space.batch_items {
            if at > 0 {
                self.body.push(b',');
            }
            let key = self.draw();
            self.item(space, key);
        }
        self.body.extend_from_slice(b"]}");
        out.extend_from_slice(b"POST /batch");
        self.end_query(b'?', out);
        self.end(target, true, out);
        Asked {
            op: Op::Batch,
            key: 0,
            items: space.batch_items as u64,
        }
    }

    fn item(&mut self, space: &Space, key: u64) {
        self.body.extend_from_slice(b"{\"key\":\"");
        space.format.put(&mut self.body, key);
        self.body.extend_from_slice(b"\",\"value\":\"");
        space
            .values
            .put(&mut self.body, &mut self.rng, key, self.write);
        self.write += 1;
        self.body.extend_from_slice(b"\"}");
    }

    fn delete(&mut self, target: usize, space: &Space, out: &mut Vec<u8>) -> Asked {
        let key = self.draw();
        out.extend_from_slice(b"POST /delete?key=");
        space.format.put(out, key);
        self.end_query(b'&', out);
        self.end(target, false, out);
        Asked {
            op: Op::Delete,
            key,
            items: 1,
        }
    }

    fn scan(&mut self, target: usize, space: &Space, out: &mut Vec<u8>) -> Asked {
        let key = self.draw();
        let rows = match space.scan_rows_vary {
            true => self.rng.usize(1..=space.scan_rows),
            false => space.scan_rows,
        };
        out.extend_from_slice(b"GET /scan?start=");
        space.format.put(out, key);
        out.extend_from_slice(b"&limit=");
        put_decimal(out, rows as u64);
        self.end_query(b'&', out);
        self.end(target, false, out);
        Asked {
            op: Op::Scan,
            key,
            items: rows as u64,
        }
    }

    fn end_query(&self, mark: u8, out: &mut Vec<u8>) {
        if !self.plan.query.is_empty() {
            out.push(mark);
            out.extend_from_slice(self.plan.query.as_bytes());
        }
    }

    fn end(&self, target: usize, body: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.heads[target]);
        if body {
            out.extend_from_slice(b"Content-Length: ");
            put_decimal(out, self.body.len() as u64);
            out.extend_from_slice(b"\r\n\r\n");
            out.extend_from_slice(&self.body);
        } else {
            out.extend_from_slice(b"\r\n");
        }
    }

    /// What an answer means.
    #[must_use]
    pub fn judge(&self, asked: Asked, answer: &Answer<'_>) -> Ending {
        let absent = answer.status == 404 && matches!(asked.op, Op::Get | Op::Delete);
        let mut ending = Ending {
            status: answer.status,
            failure: None,
            missing: absent,
            items: asked.items,
        };
        if answer.status >= 400 && !absent {
            ending.failure = Some(Failure::Status(answer.status));
            ending.items = 0;
        } else if let Work::Mix { space, .. } = &self.plan.work
            && !absent
        {
            let good = match asked.op {
                Op::Get => !self.plan.verify || space.values.is_of(answer.body, asked.key),
                Op::Scan if self.plan.verify => {
                    let rows = check_rows(space, asked, answer.body);
                    ending.items = rows.unwrap_or(0);
                    rows.is_some()
                }
                Op::Scan => {
                    // Keys and values of ours have no quotes in them, so a row has four.
                    ending.items = memchr::memchr_iter(b'"', answer.body).count() as u64 / 4;
                    true
                }
                _ => true,
            };
            if !good {
                ending.failure = Some(Failure::WrongValue);
            }
        }
        ending
    }
}

/// The number of rows, if they are in order, not before the start, not too many, and the values are of their keys.
fn check_rows(space: &Space, asked: Asked, body: &[u8]) -> Option<u64> {
    let mut start = Vec::new();
    space.format.put(&mut start, asked.key);
    let Rows(rows) = serde_json::from_slice(body).ok()?;
    let in_order = rows.windows(2).all(|pair| pair[0].0 < pair[1].0);
    let from_start = rows
        .first()
        .is_none_or(|(key, _)| key.as_bytes() >= start.as_slice());
    let own = rows.iter().all(|(key, value)| {
        // A row of somebody else lies in the range too, and its value is none of our business.
        let number = space.format.number(key);
        number.is_none_or(|number| space.values.is_of(value.as_bytes(), number))
    });
    let few = rows.len() as u64 <= asked.items;
    (in_order && from_start && own && few).then_some(rows.len() as u64)
}

/// A JSON object of strings, in its order.
struct Rows(Vec<(String, String)>);

impl<'de> serde::Deserialize<'de> for Rows {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Rows, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Rows;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Rows, A::Error> {
                let mut rows = Vec::new();
                while let Some(row) = map.next_entry()? {
                    rows.push(row);
                }
                Ok(Rows(rows))
            }
        }
        from.deserialize_map(Visitor)
    }
}
