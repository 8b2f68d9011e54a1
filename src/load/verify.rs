//! Pure. `kvstore verify`: what its clients ask of a live cluster, and what the answers say for the history.
//!
//! ```text
//! clients ask, nodes die as they please ──▶ records ──▶ history::check ──▶ all promises kept, or which was not
//! then every key is read off every node alone ──▶ records
//! ```
//!
//! Keys come in generations of [`Plan::keys`]: clients work on the newest, and look back at older ones now and then.
//! So a key has a story of bounded length, however long the run, for the checker's time grows with the square of it.
//! Each value is unique. Keys live below a prefix of their own, which nobody else can have.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::answer::{Reply, Rows, rows_in, value_got, value_text, write_outcome};
use super::history::{Act, How, Outcome, Record, Rules, Seen, Unexplained, check};
use crate::base::time::Instant;
use crate::base::version::Version;
use crate::http::client::{put_query_value, request};
use crate::http::request::Method;

/// Letters behind the number of a value.
const VALUE_BYTES_MAX: usize = 100;
/// What one client asks in this time falls to one key of a generation.
const PER_KEY: Duration = Duration::from_secs(1);
/// Keys of all generations: their names have five digits.
const KEYS_MAX: u64 = 60_000;
/// Keys a scan asks about.
const SCAN_KEYS_MAX: u16 = 4;

/// What to do. In the history, `clients` and above are the numbers of the nodes that are read in the end.
#[derive(Clone, Debug)]
pub struct Plan {
    pub clients: u16,
    /// Of one generation.
    pub keys: u16,
    /// Replicas of each key (N).
    pub copies: u16,
    pub write_quorum: u16,
    pub read_quorum: u16,
    pub seed: u64,
    pub duration: Duration,
    pub prefix: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Put { key: u16, value: u64 },
    Delete { key: u16 },
    Get { key: u16, after: Version, how: How },
    Scan(Rows),
}

/// Decides what one client asks.
pub(super) struct Client<'p> {
    plan: &'p Plan,
    id: u16,
    rng: fastrand::Rng,
    values: u64,
    /// The greatest version of each key that this client has been told.
    newest: BTreeMap<u16, Version>,
}

impl Plan {
    pub(super) fn key_name(&self, key: u16) -> String {
        format!("{}{key:05}", self.prefix)
    }

    fn generation(&self) -> Duration {
        let generations = KEYS_MAX / u64::from(self.keys.max(1));
        let share = self.duration / u32::try_from(generations.max(1)).unwrap_or(u32::MAX);
        let bounded = PER_KEY * u32::from(self.keys) / u32::from(self.clients.max(1));
        bounded.max(share)
    }

    fn rules(&self) -> Rules {
        Rules {
            copies: self.copies,
            // Only the clock of a node alone orders all writes, and nobody says here that a node is alone.
            ordered: false,
            // A node alone tells none.
            deletions_told: self.copies > 1,
        }
    }

    /// Whether the promises were kept.
    pub fn judge(&self, history: &[Record]) -> Result<(), Unexplained> {
        check(history, &self.rules())
    }

    /// The bytes of a request.
    pub(super) fn request(&self, ask: &Ask, host: &str) -> (Method, Vec<u8>) {
        let by_key = |path: &str, key: u16| {
            let mut target = format!("{path}?key=");
            put_query_value(&mut target, self.key_name(key).as_bytes());
            target
        };
        let (r, w) = (self.read_quorum, self.write_quorum);
        let mut after_text = String::new();
        let mut body = None;
        let (method, target) = match ask {
            Ask::Put { key, value } => {
                let value = value_text(*value, VALUE_BYTES_MAX);
                let item = serde_json::json!({ "key": self.key_name(*key), "value": value });
                body = Some(item.to_string());
                (Method::Post, format!("/put?w={w}"))
            }
            Ask::Delete { key } => (Method::Post, format!("{}&w={w}", by_key("/delete", *key))),
            Ask::Get { key, after, how } => {
                if *after > Version::ZERO {
                    after_text = after.to_string();
                }
                let r = if *how == How::Last { 1 } else { r };
                (Method::Get, format!("{}&r={r}", by_key("/get", *key)))
            }
            Ask::Scan(rows) => {
                let mut target = "/scan?start=".to_owned();
                put_query_value(&mut target, self.key_name(rows.from).as_bytes());
                target.push_str("&end=");
                put_query_value(&mut target, self.key_name(rows.to).as_bytes());
                (Method::Get, format!("{target}&r={r}"))
            }
        };
        let fields = [("X-KV-After", &*after_text)];
        let fields = if after_text.is_empty() {
            &[][..]
        } else {
            &fields
        };
        let mut out = Vec::new();
        let body = body.as_deref().map(str::as_bytes);
        request(&mut out, method, &target, host, fields, body);
        (method, out)
    }

    /// What an answer says. Err: no server may answer that.
    pub(super) fn understand(&self, ask: &Ask, reply: &Reply) -> Result<Vec<(u16, Act)>, String> {
        if let Reply::Nonsense(text) = reply {
            return Err(text.clone());
        }
        let write = |key, value, success| {
            let outcome = match reply {
                Reply::Answer {
                    status,
                    version,
                    body,
                } => write_outcome(success, *status, *version, body)?,
                Reply::Lost => Outcome::Unknown,
                Reply::Unasked | Reply::Nonsense(_) => return Ok(Vec::new()),
            };
            Ok(vec![(key, Act::Write { value, outcome })])
        };
        match ask {
            Ask::Put { key, value } => return write(*key, Some(*value), "OK"),
            Ask::Delete { key } => return write(*key, None, "Deleted"),
            Ask::Get { .. } | Ask::Scan(_) => {}
        }
        let Reply::Answer {
            status,
            version,
            body,
        } = reply
        else {
            return Ok(Vec::new());
        };
        let read = |how, after, value, version| {
            let seen = Seen { value, version };
            Act::Read { how, after, seen }
        };
        match ask {
            Ask::Get { key, after, how } => {
                let value = value_got(*status, body, VALUE_BYTES_MAX)?;
                let act = |value| (*key, read(*how, *after, value, *version));
                Ok(value.map(act).into_iter().collect())
            }
            Ask::Scan(_) if *status >= 500 => Ok(Vec::new()),
            Ask::Scan(rows) if *status == 200 => {
                let rows = rows_in(body, *rows, |key| self.key_name(key), VALUE_BYTES_MAX)?;
                let act = |(key, value)| (key, read(How::Scan, Version::ZERO, value, None));
                Ok(rows.into_iter().map(act).collect())
            }
            _ => Err("an answer that no read gets".to_owned()),
        }
    }

    /// Replicas that a request waits for.
    pub(super) fn quorum(&self, ask: &Ask) -> u16 {
        match ask {
            Ask::Put { .. } | Ask::Delete { .. } => self.write_quorum,
            Ask::Get { how: How::Last, .. } => 1,
            Ask::Get { .. } | Ask::Scan(_) => self.read_quorum,
        }
    }
}

impl<'p> Client<'p> {
    pub(super) fn new(plan: &'p Plan, id: u16) -> Client<'p> {
        Client {
            plan,
            id,
            rng: fastrand::Rng::with_seed(plan.seed.wrapping_mul(37) ^ u64::from(id)),
            values: 0,
            newest: BTreeMap::new(),
        }
    }

    pub(super) fn rng(&mut self) -> &mut fastrand::Rng {
        &mut self.rng
    }

    /// What to ask so long after the start.
    pub(super) fn next(&mut self, passed: Duration) -> Ask {
        let keys = self.plan.keys;
        let generation = passed.as_nanos() / self.plan.generation().as_nanos();
        let last = (KEYS_MAX / u64::from(keys)).saturating_sub(1);
        let generation = u64::try_from(generation).map_or(last, |nth| nth.min(last)) as u16;
        let first = generation * keys;
        let slot = self.rng.u16(..keys);
        let key = match self.rng.u8(..4) {
            0 => self.rng.u16(..=first + slot),
            _ => first + slot,
        };
        match self.rng.u8(..100) {
            0..50 => {
                let demands = self.rng.u8(..5) == 0;
                let newest = self.newest.get(&key).filter(|_| demands);
                let after = newest.copied().unwrap_or(Version::ZERO);
                let how = How::Get;
                Ask::Get { key, after, how }
            }
            50..60 => Ask::Scan(Rows {
                from: first + slot,
                to: first + (slot + self.rng.u16(..SCAN_KEYS_MAX)).min(keys - 1),
                rows_max: None,
            }),
            60..72 => Ask::Delete { key },
            _ => {
                self.values += 1;
                let value = self.values * u64::from(self.plan.clients) + u64::from(self.id);
                Ask::Put { key, value }
            }
        }
    }

    /// What came of it, for the history. Err: an answer no server may give.
    pub(super) fn note(
        &mut self,
        ask: &Ask,
        invoke: Instant,
        complete: Instant,
        reply: &Reply,
    ) -> Result<Vec<Record>, String> {
        let acts = self.plan.understand(ask, reply)?;
        let record = |(key, act)| Record {
            client: self.id,
            key,
            quorum: self.plan.quorum(ask),
            invoke,
            complete,
            act,
        };
        let records: Vec<Record> = acts.into_iter().map(record).collect();
        for Record { key, act, .. } in &records {
            let told = match act {
                Act::Write { outcome, .. } => match outcome {
                    Outcome::Acked(version) => *version,
                    Outcome::NotApplied | Outcome::Unknown => None,
                },
                Act::Read { seen, .. } => seen.version,
            };
            if let Some(version) = told {
                let newest = self.newest.entry(*key).or_default();
                *newest = version.max(*newest);
            }
        }
        Ok(records)
    }
}

/// Keys that somebody has tried to write.
pub(super) fn written(history: &[Record]) -> BTreeSet<u16> {
    let writes = history
        .iter()
        .filter(|record| matches!(record.act, Act::Write { .. }));
    writes.map(|record| record.key).collect()
}

/// Whether there is anything to judge: a write that was answered, and a read.
#[must_use]
pub fn is_telling(history: &[Record]) -> bool {
    let is_acked = |of: &Record| {
        let Act::Write { outcome, .. } = &of.act else {
            return false;
        };
        matches!(outcome, Outcome::Acked(_))
    };
    let is_read = |of: &Record| {
        matches!(
            of.act,
            Act::Read {
                how: How::Get | How::Scan,
                ..
            }
        )
    };
    history.iter().any(is_acked) && history.iter().any(is_read)
}

/// How many of what, for people.
#[must_use]
pub fn summary(history: &[Record], unanswered: u64) -> String {
    let count = |what: fn(&Act) -> bool| history.iter().filter(|of| what(&of.act)).count();
    let outcome = |wanted: fn(&Outcome) -> bool| {
        let writes = history.iter().filter(|of| match &of.act {
            Act::Write { outcome, .. } => wanted(outcome),
            Act::Read { .. } => false,
        });
        writes.count()
    };
    let keys: BTreeSet<u16> = history.iter().map(|record| record.key).collect();
    format!(
        "{} observations of {} keys: {} reads and scanned rows, {} reads of single copies, \
         {} writes answered, {} refused, {} of unknown outcome; {unanswered} other requests without an answer",
        history.len(),
        keys.len(),
        count(|act| matches!(
            act,
            Act::Read {
                how: How::Get | How::Scan,
                ..
            }
        )),
        count(|act| matches!(
            act,
            Act::Read {
                how: How::Last | How::Healed,
                ..
            }
        )),
        outcome(|of| matches!(of, Outcome::Acked(_))),
        outcome(|of| matches!(of, Outcome::NotApplied)),
        outcome(|of| matches!(of, Outcome::Unknown)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            clients: 2,
            keys: 5,
            copies: 3,
            write_quorum: 2,
            read_quorum: 2,
            seed: 7,
            duration: Duration::from_secs(60),
            prefix: "kvstore-verify:1:".to_owned(),
        }
    }

    fn answer(status: u16, hlc: u64, body: &str) -> Reply {
        Reply::Answer {
            status,
            version: (hlc > 0).then_some(Version { hlc, origin: 1 }),
            body: body.as_bytes().to_vec(),
        }
    }

    /// (ask, from, to, answer) in order, as one client has them.
    fn history(plan: &Plan, story: &[(Ask, u64, u64, Reply)]) -> Vec<Record> {
        let mut client = Client::new(plan, 0);
        let mut history = Vec::new();
        for (ask, from, to, reply) in story {
            let records = client.note(ask, Instant(*from), Instant(*to), reply);
            history.extend(records.expect("an answer of our server"));
        }
        history
    }

    fn get(how: How) -> Ask {
        Ask::Get {
            key: 3,
            after: Version::ZERO,
            how,
        }
    }

    #[test]
    fn a_lie_in_the_answers_is_told() {
        let plan = plan();
        let (put, again) = (Ask::Put { key: 3, value: 1 }, Ask::Put { key: 3, value: 2 });
        let [one, two] = [1, 2].map(|value| value_text(value, VALUE_BYTES_MAX));
        let writes = [
            (put, 1_000, 2_000, answer(200, 5, "OK")),
            (again, 3_000, 4_000, answer(200, 6, "OK")),
        ];
        let with = |last: [(Ask, u64, u64, Reply); 1]| {
            let story = [&writes[..], &last[..]].concat();
            let verdict = plan.judge(&history(&plan, &story));
            verdict.map_err(|unexplained| unexplained.text)
        };
        let fresh = answer(200, 6, &two);
        assert_eq!(with([(get(How::Get), 5_000, 6_000, fresh)]), Ok(()));
        let stale = || answer(200, 5, &one);
        let text = with([(get(How::Get), 5_000, 6_000, stale())]).expect_err("a stale read");
        assert!(text.contains("no order explains this"), "{text}");
        assert!(
            text.contains("[client 0 5..6 us Get k3 r=2 saw #1"),
            "{text}"
        );
        // While the second put was under way it was no lie.
        assert_eq!(with([(get(How::Get), 3_500, 6_000, stale())]), Ok(()));
        // A single copy is asked when all are said to be equal: it must be the newest one.
        assert!(with([(get(How::Last), 5_000, 6_000, stale())]).is_err());
        let gone = answer(404, 0, "Not Found\n");
        assert!(with([(get(How::Get), 5_000, 6_000, gone)]).is_err());
        let rows = Rows {
            from: 3,
            to: 4,
            rows_max: None,
        };
        let scanned = answer(200, 0, &format!("{{\"kvstore-verify:1:00003\":\"{one}\"}}"));
        let text = with([(Ask::Scan(rows), 5_000, 6_000, scanned)]).expect_err("a stale row");
        assert!(text.contains("Scan k3 r=2 saw #1"), "{text}");
    }

    #[test]
    fn writes_without_an_answer_may_have_been_done_and_unasked_ones_not() {
        let plan = plan();
        let put = Ask::Put { key: 3, value: 1 };
        let one = value_text(1, VALUE_BYTES_MAX);
        let read = (get(How::Get), 5_000, 6_000, answer(200, 5, &one));
        let judge = |reply| {
            let story = [(put.clone(), 1_000, 2_000, reply), read.clone()];
            plan.judge(&history(&plan, &story)).is_ok()
        };
        assert!(judge(Reply::Lost));
        let lost = [(put.clone(), 1_000, 2_000, Reply::Lost), read.clone()];
        assert!(!is_telling(&history(&plan, &lost)), "no write was answered");
        let done = [
            (put.clone(), 1_000, 2_000, answer(200, 5, "OK")),
            read.clone(),
        ];
        assert!(is_telling(&history(&plan, &done)));
        assert!(!is_telling(&history(&plan, &done[..1])), "nothing was read");
        assert!(judge(answer(503, 0, "late; outcome: unknown\n")));
        assert!(!judge(answer(503, 0, "too few; outcome: not_applied\n")));
        assert!(!judge(Reply::Unasked));
    }

    #[test]
    fn answers_no_server_may_give_are_no_observations() {
        let plan = plan();
        for (ask, reply) in [
            (get(How::Get), answer(200, 5, "1.somebody elses")),
            (get(How::Get), Reply::Nonsense("bad head".to_owned())),
            (get(How::Get), answer(400, 0, "r must be at most 1\n")),
            (Ask::Delete { key: 1 }, answer(200, 5, "OK")),
        ] {
            assert!(plan.understand(&ask, &reply).is_err(), "{ask:?} {reply:?}");
        }
        assert_eq!(
            plan.understand(&get(How::Get), &Reply::Lost),
            Ok(Vec::new())
        );
    }

    #[test]
    fn requests_name_the_quorums() {
        let plan = plan();
        let text = |ask: &Ask| {
            let (_, bytes) = plan.request(ask, "localhost:8081");
            String::from_utf8(bytes).expect("ASCII")
        };
        let first = |ask: &Ask| text(ask).lines().next().map(str::to_owned);
        let line = |text: &str| Some(format!("{text} HTTP/1.1"));
        assert_eq!(
            first(&get(How::Get)),
            line("GET /get?key=kvstore-verify:1:00003&r=2")
        );
        assert_eq!(
            first(&get(How::Last)),
            line("GET /get?key=kvstore-verify:1:00003&r=1")
        );
        assert_eq!(
            first(&Ask::Delete { key: 3 }),
            line("POST /delete?key=kvstore-verify:1:00003&w=2")
        );
        let put = text(&Ask::Put { key: 3, value: 1 });
        assert!(
            put.starts_with("POST /put?w=2 HTTP/1.1\r\nHost: localhost:8081\r\n"),
            "{put}"
        );
        let demanding = Ask::Get {
            key: 3,
            after: Version { hlc: 10, origin: 2 },
            how: How::Get,
        };
        assert!(text(&demanding).contains("X-KV-After: 000000000000000a.00000002\r\n"));
    }

    #[test]
    fn clients_stay_in_their_generations_and_make_no_value_twice() {
        for (keys, duration_s) in [(1, 10), (24, 60), (1_000, 36_000)] {
            let plan = Plan {
                keys,
                duration: Duration::from_secs(duration_s),
                ..plan()
            };
            let mut values = BTreeSet::new();
            for id in 0..plan.clients {
                let mut client = Client::new(&plan, id);
                for step in 0..1_000 {
                    let passed = plan.duration * step / 1_000;
                    let newest = passed.as_nanos() / plan.generation().as_nanos();
                    let below = (newest as u64 + 1) * u64::from(keys);
                    assert!(below <= KEYS_MAX + u64::from(keys));
                    match client.next(passed) {
                        Ask::Put { key, value } => {
                            assert!(u64::from(key) < below && values.insert(value));
                        }
                        Ask::Get { key, .. } | Ask::Delete { key } => {
                            assert!(u64::from(key) < below);
                        }
                        Ask::Scan(rows) => {
                            assert!(rows.from <= rows.to && u64::from(rows.to) < below);
                        }
                    }
                }
            }
        }
    }
}
