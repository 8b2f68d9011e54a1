//! Clients at work while nodes are killed and paused, one at a time: no promise is broken, and in the end all
//! replicas are equal.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kvstore::base::version::Version;

use crate::client::{Answer, Connection};
use crate::history::{Act, Op, Outcome, check};
use crate::process::Node;
use crate::trio::{Trio, get, is, log, until};

const CLIENTS: usize = 6;
const KEYS: usize = 24;
const ROUNDS: usize = 3;
/// Requests that must be through while a fault lasts: enough for every client to have met it.
const OPS_PER_FAULT: usize = 200;
/// Between two requests of a client. Two cores are soon full, and starved nodes are not what is looked at here.
const PACE: Duration = Duration::from_millis(3);
/// A client gives up after this, or all of them would soon wait for the node that is paused.
const PATIENCE: Duration = Duration::from_secs(1);

#[test]
fn promises_are_kept_while_nodes_die_and_pause() {
    let quorums = [("CLUSTER_WRITE_QUORUM", "2"), ("CLUSTER_READ_QUORUM", "2")];
    let mut trio = Trio::start(&quorums);
    let crowd = Crowd::set_to_work([0, 1, 2].map(|at| trio.port(at)));
    for round in 0..ROUNDS {
        let killed = round % 3;
        trio.kill(killed);
        crowd.does_some();
        trio.begin(killed);
        trio.is_whole();
        crowd.does_some();

        let paused = (round + 1) % 3;
        trio.node(paused).signal("STOP");
        for at in (0..3).filter(|at| *at != paused) {
            is(trio.node(at), 200, "degraded");
        }
        crowd.does_some();
        let told = log(trio.node(paused)).len();
        trio.node(paused).signal("CONT");
        trio.is_whole();
        crowd.does_some();
        // It was the one that slept, not the others that were silent.
        let told = log(trio.node(paused)).split_off(told);
        assert!(!told.contains(" is down: "), "{told}");
    }
    let mut history = crowd.go_home();
    let count = |what: fn(&Act) -> bool| history.iter().filter(|op| what(&op.act)).count();
    let reads = count(|act| matches!(act, Act::Read(..)));
    let acked = count(|act| matches!(act, Act::Write(_, Outcome::Acked(_))));
    let unknown = count(|act| matches!(act, Act::Write(_, Outcome::Unknown)));
    println!(
        "{} operations, {reads} reads, {acked} writes answered, {unknown} unknown",
        history.len()
    );
    assert!(reads > 500 && acked > 500, "the clients hardly worked");
    check(&history).unwrap_or_else(|broken| panic!("{broken}"));

    // What is equal on all three must also be new enough: it is one more read of everything.
    agree(&trio, &mut history);
    check(&history).unwrap_or_else(|broken| panic!("after healing: {broken}"));
    let scans: Vec<_> = trio.running().map(|node| get(node, "/scan?r=1")).collect();
    assert!(scans.windows(2).all(|pair| pair[0] == pair[1]), "{scans:?}");
}

/// Waits until the three copies of each key are equal, and adds what they are.
fn agree(trio: &Trio, history: &mut Vec<Op>) {
    for key in 0..KEYS {
        until(&format!("equal: key {key}"), || {
            let start = Instant::now();
            let copy = |node: &Node| read(&mut node.connect(), key, "&r=1").expect("an answer");
            let copies: Vec<Act> = trio.running().map(copy).collect();
            if copies.windows(2).any(|pair| pair[0] != pair[1]) {
                return Err(format!("{copies:?}"));
            }
            let end = Instant::now();
            let act = copies[0].clone();
            history.push(Op {
                key,
                start,
                end,
                act,
            });
            Ok(())
        });
    }
}

/// The clients, each in a thread.
struct Crowd {
    threads: Vec<std::thread::JoinHandle<Vec<Op>>>,
    ops: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
}

impl Crowd {
    fn set_to_work(ports: [u16; 3]) -> Crowd {
        let (ops, over) = (Arc::default(), Arc::default());
        let threads = (0..CLIENTS).map(|client| {
            let (ops, over) = (Arc::clone(&ops), Arc::clone(&over));
            std::thread::spawn(move || work(client, ports, &ops, &over))
        });
        let threads = threads.collect();
        Crowd { threads, ops, over }
    }

    /// Waits until so many more requests have been answered.
    fn does_some(&self) {
        let before = self.ops.load(Ordering::Relaxed);
        until("at work", || {
            let done = self.ops.load(Ordering::Relaxed) - before;
            let enough = done >= OPS_PER_FAULT;
            enough.then_some(()).ok_or(format!("{done} requests"))
        });
    }

    fn go_home(self) -> Vec<Op> {
        self.over.store(true, Ordering::Relaxed);
        let histories = self.threads.into_iter().map(|thread| thread.join());
        histories
            .flat_map(|history| history.expect("no client saw a wrong answer"))
            .collect()
    }
}

/// One client until it is over. A node that does not answer is left for another; what was asked stays open.
fn work(client: usize, ports: [u16; 3], ops: &AtomicUsize, over: &AtomicBool) -> Vec<Op> {
    let mut rng = fastrand::Rng::with_seed(client as u64);
    let mut history = Vec::new();
    let mut connection = None;
    for step in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        std::thread::sleep(PACE);
        // Now and then somewhere else, so that all clients meet all nodes.
        if rng.u32(..20) == 0 {
            connection = None;
        }
        let Some(open) = connection
            .take()
            .or_else(|| Connection::with_patience(ports[rng.usize(..3)], PATIENCE).ok())
        else {
            continue;
        };
        let mut open = open;
        let key = rng.usize(..KEYS);
        let start = Instant::now();
        let act = match rng.u32(..10) {
            0..6 => read(&mut open, key, ""),
            choice => {
                let value = (choice < 9).then(|| format!("{client}:{step}"));
                Some(write(&mut open, key, value))
            }
        };
        let end = Instant::now();
        match &act {
            None | Some(Act::Write(_, Outcome::Unknown)) => {}
            Some(_) => {
                ops.fetch_add(1, Ordering::Relaxed);
                connection = Some(open);
            }
        }
        history.extend(act.map(|act| Op {
            key,
            start,
            end,
            act,
        }));
    }
    history
}

/// `None`: no answer, or none that tells of the key.
fn read(connection: &mut Connection, key: usize, level: &str) -> Option<Act> {
    let answer = connection.get(&format!("/get?key=k{key}{level}")).ok()?;
    let version = version(&answer);
    match answer.status {
        200 => Some(Act::Read(Some(answer.text()), version.expect("a version"))),
        404 => Some(Act::Read(None, version.unwrap_or_default())),
        503 | 504 => None,
        status => panic!("{status} {}", answer.text()),
    }
}

fn write(connection: &mut Connection, key: usize, value: Option<String>) -> Act {
    let answer = match &value {
        Some(value) => asked(
            connection,
            "/put",
            &format!(r#"{{"key":"k{key}","value":"{value}"}}"#),
        ),
        None => asked(connection, &format!("/delete?key=k{key}"), ""),
    };
    let outcome = match answer {
        Err(_) => Outcome::Unknown,
        Ok(answer) if answer.status == 200 => Outcome::Acked(version(&answer).expect("a version")),
        Ok(answer) => {
            let text = answer.text();
            assert_eq!(answer.status, 503, "{text}");
            match text.contains("\"outcome\":\"not_applied\"") {
                true => Outcome::NotApplied,
                false => Outcome::Unknown,
            }
        }
    };
    Act::Write(value, outcome)
}

/// A POST that wants to know the outcome: errors as JSON.
fn asked(connection: &mut Connection, target: &str, body: &str) -> io::Result<Answer> {
    let request = format!(
        "POST {target} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.send(request.as_bytes())?;
    connection.answer()
}

fn version(answer: &Answer) -> Option<Version> {
    Version::parse(answer.field("x-kv-version")?.as_bytes())
}
