//! `kill -9` under load: every answered write is there after the restart, with its value or a later one.
//!
//! Twenty writers put, overwrite, batch and delete keys of their own, remember what was answered, and what was
//! sent without an answer. A small memtable makes flushes and compactions part of every round.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::client::Connection;
use crate::process::{Node, scratch};

const WRITERS: u64 = 20;
const ROUNDS: u64 = 4;
/// Answered requests of all writers before the kill: enough for several flushes of 64 KiB.
const ANSWERS_PER_ROUND: u64 = 4000;
const KEYS_PER_WRITER: u64 = 400;

/// What one key may hold after a crash.
#[derive(Clone, Debug, Default)]
struct Key {
    /// As of the last answer. `None`: absent.
    answered: Option<String>,
    /// Sent later, answer unknown.
    unsure: Vec<Option<String>>,
}

type Keys = BTreeMap<String, Key>;

/// One writer until the node dies under it.
fn write(port: u16, writer: u64, round: u64, keys: &mut Keys, answers: &AtomicU64) {
    let seed = round * WRITERS + writer;
    let mut rng = fastrand::Rng::with_seed(seed);
    let Ok(mut client) = Connection::open(port) else {
        return;
    };
    for step in 0.. {
        let key = |n: u64| format!("w{writer}:{n:04}");
        let first = rng.u64(0..KEYS_PER_WRITER);
        let value = format!("{round}.{step}.{}", "v".repeat(rng.usize(0..200)));
        let (changes, outcome): (Vec<(String, Option<String>)>, io::Result<_>) =
            match rng.u32(0..10) {
                0 => (
                    vec![(key(first), None)],
                    client.post(&format!("/delete?key={}", key(first)), b""),
                ),
                1 => {
                    let batch: Vec<_> = (first..first + 5)
                        .map(|n| (key(n), Some(value.clone())))
                        .collect();
                    let items: Vec<String> = batch
                        .iter()
                        .map(|(key, _)| format!(r#"{{"key":"{key}","value":"{value}"}}"#))
                        .collect();
                    let body = format!(r#"{{"items":[{}]}}"#, items.join(","));
                    (batch, client.post("/batch", body.as_bytes()))
                }
                _ => (
                    vec![(key(first), Some(value.clone()))],
                    client.put(&key(first), &value),
                ),
            };
        let answered = matches!(&outcome, Ok(answer) if answer.status == 200);
        for (key, state) in changes {
            let entry = keys.entry(key).or_default();
            if answered {
                entry.answered = state;
                entry.unsure.clear();
            } else {
                entry.unsure.push(state);
            }
        }
        match outcome {
            Ok(answer) if answer.status == 200 => answers.fetch_add(1, Ordering::Relaxed),
            // Overload is an answer that promises nothing happened; counting it as unsure is weaker and safe.
            Ok(answer) if answer.status == 503 => continue,
            Ok(answer) => panic!(
                "seed {seed} step {step}: {} {}",
                answer.status,
                answer.text()
            ),
            Err(_) => return,
        };
    }
}

/// Compares a restarted node with what the writers know; what is found becomes what is known.
fn check(node: &Node, keys: &mut Keys, what: &str) {
    let mut client = node.connect();
    for (name, key) in keys.iter_mut() {
        let answer = client.get(&format!("/get?key={name}")).expect("an answer");
        let found = match answer.status {
            200 => Some(answer.text()),
            404 => None,
            status => panic!("{what}: {name}: {status} {}", answer.text()),
        };
        assert!(
            found == key.answered || key.unsure.contains(&found),
            "{what}: {name} holds {found:?}, answered was {:?}, unsure {:?}",
            key.answered,
            key.unsure
        );
        key.answered = found;
        key.unsure.clear();
    }
    // A scan agrees with the reads: nothing lost, nothing doubled, nothing that was never written.
    let scan = client.get("/scan").expect("an answer");
    assert_eq!(scan.status, 200, "{what}: {}", scan.text());
    let rows: Vec<String> = keys
        .iter()
        .filter_map(|(name, key)| Some(format!("\"{name}\":\"{}\"", key.answered.as_ref()?)))
        .collect();
    assert_eq!(scan.text(), format!("{{{}}}\n", rows.join(",")), "{what}");
}

#[test]
fn every_answered_write_survives_kill_9() {
    let dir = scratch();
    let settings = [("MEMTABLE_SIZE", "64KB"), ("MAX_L0_FILES", "2")];
    let mut keys: Vec<Keys> = (0..WRITERS).map(|_| Keys::new()).collect();
    for round in 0..ROUNDS {
        let node = Node::start(dir.path(), &settings, &[]);
        let answers = Arc::new(AtomicU64::new(0));
        let port = node.port;
        let writers: Vec<_> = (0..WRITERS)
            .zip(keys.drain(..))
            .map(|(writer, mut keys)| {
                let answers = Arc::clone(&answers);
                std::thread::spawn(move || {
                    write(port, writer, round, &mut keys, &answers);
                    keys
                })
            })
            .collect();
        let enough = |answers: u64| {
            answers >= ANSWERS_PER_ROUND || writers.iter().all(|it| it.is_finished())
        };
        while !enough(answers.load(Ordering::Relaxed)) {
            std::thread::yield_now();
        }
        node.kill();
        keys = writers
            .into_iter()
            .map(|writer| writer.join().expect("a writer saw a wrong answer"))
            .collect();
        assert!(
            answers.load(Ordering::Relaxed) >= ANSWERS_PER_ROUND,
            "the node died by itself"
        );

        // And again, in the middle of recovery.
        Node::start_and_kill(dir.path(), &settings);
        let node = Node::start(dir.path(), &settings, &[]);
        let mut all: Keys = keys.iter().flat_map(|keys| keys.clone()).collect();
        check(&node, &mut all, &format!("round {round}"));
        for (name, key) in all {
            let writer: usize = name[1..]
                .split(':')
                .next()
                .and_then(|n| n.parse().ok())
                .expect("w<n>:");
            keys[writer].insert(name, key);
        }
        node.kill();
    }
}
