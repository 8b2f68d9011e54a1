//! The whole node in a simulated world: several cores, a slow and splitting network, a disk, raw bytes of clients.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use super::hosts::Door;
use super::{Config, NodeError, Started, run};
use crate::base::limits::{
    HEAD_TIMEOUT, IDLE_TIMEOUT, OUTPUT_BYTES_HIGH, READ_BYTES_GUESS, SHUTDOWN_GRACE, WRITE_TIMEOUT,
};
use crate::http::client::{Answers, Got};
use crate::http::request::Method;
use crate::rt::Rt;
use crate::rt::mesh::mesh;
use crate::rt::net::{Net, Token};
use crate::rt::sim::World;
use crate::rt::sim::disk::Fault;
use crate::store::format::newborn;
use crate::store::options::Options;

const SERVER: u16 = 1;
pub(super) const CLIENT: u16 = 2;
pub(super) const PORT: u16 = 8081;
/// Pauses of a client that waits for the network.
const SHORT: Duration = Duration::from_micros(50);
const LONG: Duration = Duration::from_millis(20);

/// A node that serves, and a machine of clients.
struct Town {
    world: World,
    client: Rt,
    ended: Rc<RefCell<Vec<Result<(), NodeError>>>>,
    /// What the operator was told.
    log: Rc<RefCell<Vec<String>>>,
    cores: Cell<usize>,
}

pub(super) fn config(shards: u16) -> Config {
    Config {
        store: Options {
            dir: PathBuf::from("/data"),
            shard: 0,
            node_uuid: 7,
            memtable_bytes: 1 << 20,
            l0_files_max: 4,
            keys_per_block_max: 128,
            bloom_l0: 10,
            bloom_l1: 10,
            wal_commit_interval: Duration::from_millis(5),
            wal_records_per_group_max: 512,
            wal_segment_bytes: 1 << 20,
            gc_grace: Duration::from_secs(3600),
        },
        shards,
        cache_bytes: 1 << 20,
        listen: vec![SocketAddr::new(World::ip(SERVER), PORT)],
        door: Door::default(),
        cluster: None,
    }
}

impl Town {
    /// Boots the server and waits until it has announced itself.
    fn new(seed: u64, cores: usize, shards: u16) -> Town {
        let world = World::new(seed);
        let client = world.boot(CLIENT, 1).remove(0);
        let town = Town {
            world,
            client,
            ended: Rc::default(),
            log: Rc::default(),
            cores: Cell::new(cores),
        };
        let disk = town.world.disk(SERVER);
        for (path, bytes) in (0..shards).map(newborn) {
            disk.write(&config(shards).store.dir.join(path), &bytes);
        }
        town.boot(shards);
        town
    }

    fn boot(&self, shards: u16) {
        let announced = Rc::new(Cell::new(false));
        self.ended.borrow_mut().clear();
        let cores = self.world.boot(SERVER, self.cores.get());
        for (rt, port) in cores.into_iter().zip(mesh(self.cores.get())) {
            let (announced, ended) = (Rc::clone(&announced), Rc::clone(&self.ended));
            let announce = move |_: &Started| assert!(!announced.replace(true), "announced once");
            let log = Rc::clone(&self.log);
            let log = Rc::new(move |text: &str| log.borrow_mut().push(text.to_owned()));
            let node = run(rt.clone(), port, config(shards), Box::new(announce), log);
            rt.spawn(async move {
                let end = node.await;
                ended.borrow_mut().push(end);
            });
        }
        let seed = self.world.seed();
        for _ in 0..1000 {
            self.world.run_for(Duration::from_millis(1));
            if announced.get() {
                return;
            }
        }
        panic!("SEED={seed}: the node did not start");
    }

    fn server(&self) -> SocketAddr {
        SocketAddr::new(World::ip(SERVER), PORT)
    }

    /// Runs a client to its end.
    fn client<T>(&self, body: impl AsyncFnOnce(&mut Client) -> T) -> T {
        let (rt, server) = (self.client.clone(), self.server());
        let seed = self.world.seed();
        self.world.run(&self.client, async move {
            let mut client = Client::connect(&rt, server, seed);
            body(&mut client).await
        })
    }

    /// Asks the node to stop, and gives it `patience`; true when every core has returned Ok.
    fn stop(&self, patience: Duration) -> bool {
        self.world.stop(SERVER);
        self.world.run_for(patience);
        let ended = self.ended.borrow();
        let quiet = self.log.borrow().is_empty();
        quiet && ended.len() == self.cores.get() && ended.iter().all(Result::is_ok)
    }
}

/// One connection that speaks raw bytes.
pub(super) struct Client {
    pub(super) rt: Rt,
    net: Net,
    token: Token,
    seed: u64,
    /// Bytes received and not taken yet.
    input: Vec<u8>,
    /// The server has closed (`true`: by reset).
    closed: Option<bool>,
    /// `X-Kv-Next` of the last answer.
    next: Option<String>,
}

impl Client {
    pub(super) fn connect(rt: &Rt, server: SocketAddr, seed: u64) -> Client {
        let mut net = rt.net(&[]).expect("a client");
        let token = net.connect(server).expect("a socket");
        Client {
            rt: rt.clone(),
            net,
            token,
            seed,
            input: Vec::new(),
            closed: None,
            next: None,
        }
    }

    /// Writes everything, however often that takes.
    async fn send(&mut self, bytes: &[u8]) {
        let (mut sent, mut pause) = (0, SHORT);
        while sent < bytes.len() {
            match self.net.write(self.token, &bytes[sent..]) {
                Ok(taken) => sent += taken,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    // Reading meanwhile, or two full directions would wait for each other.
                    self.receive();
                    self.wait(&mut pause).await;
                }
                Err(_) => return,
            }
        }
    }

    /// Waits ever longer: bulk moves in large pieces, single answers are seen soon.
    async fn wait(&mut self, pause: &mut Duration) {
        self.rt.sleep(*pause).await;
        *pause = (*pause * 2).min(LONG);
    }

    /// Takes what has arrived; false when nothing had.
    fn receive(&mut self) -> bool {
        let mut buf = [0; 64 << 10];
        match self.net.read(self.token, &mut buf) {
            Ok(0) => self.closed = Some(false),
            Ok(read) => {
                self.input.extend_from_slice(&buf[..read]);
                return true;
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => self.closed = Some(true),
        }
        false
    }

    /// Waits until the server has closed; how it did.
    async fn until_closed(&mut self) -> bool {
        let mut pause = SHORT;
        loop {
            if !self.receive() {
                if let Some(reset) = self.closed {
                    return reset;
                }
                self.wait(&mut pause).await;
            }
        }
    }

    /// The next answer as `status body`; an error text when the server closes before it is whole.
    async fn answer(&mut self, method: Method) -> String {
        let mut answers = Answers::new(64 << 20);
        let mut pause = SHORT;
        loop {
            match answers.next(&self.input, method) {
                Got::NeedMore { consumed } => {
                    self.input.drain(..consumed);
                }
                Got::Interim { consumed } => {
                    self.input.drain(..consumed);
                    return "100".to_owned();
                }
                Got::Answer { answer, consumed } => {
                    let body = String::from_utf8_lossy(answer.body);
                    let close = if answer.keep_alive { "" } else { " close" };
                    let text = format!("{}{close} {body}", answer.status);
                    let next = answer.field("X-Kv-Next");
                    self.next = next.map(|next| String::from_utf8_lossy(next).into_owned());
                    self.input.drain(..consumed);
                    return text;
                }
                Got::Bad { text } => panic!("SEED={}: {text}", self.seed),
            }
            if !self.receive() {
                match self.closed {
                    Some(true) => return "reset".to_owned(),
                    Some(false) => return "closed".to_owned(),
                    None => self.wait(&mut pause).await,
                }
            }
        }
    }

    pub(super) async fn ask(&mut self, request: &str) -> String {
        self.send(request.as_bytes()).await;
        let method = if request.starts_with("HEAD") {
            Method::Head
        } else {
            Method::Get
        };
        self.answer(method).await
    }
}

pub(super) fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: node\r\n\r\n")
}

pub(super) fn post(target: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {target} HTTP/1.1\r\nHost: node\r\nContent-Length: {length}\r\n\r\n{body}")
}

pub(super) fn put(key: &str, value: &str) -> String {
    post(
        "/put",
        &format!("{{\"key\":\"{key}\",\"value\":\"{value}\"}}"),
    )
}

#[test]
fn the_conversation_of_the_readme() {
    for seed in 0..30 {
        let town = Town::new(seed, 1 + seed as usize % 3, 1 + seed as u16 % 5);
        town.client(async |client: &mut Client| {
            let batch = "{\"items\":[{\"key\":\"product:101\",\"value\":\"Laptop\"},\
                {\"key\":\"product:103\",\"value\":\"Keyboard\"},{\"key\":\"product:102\",\"value\":\"x\"},\
                {\"key\":\"product:102\",\"value\":\"Mouse\"}]}";
            for (request, want) in [
                (put("user:1001", "Alice Smith"), "200 OK"),
                (get("/get?key=user:1001"), "200 Alice Smith"),
                (get("/get?key=nobody"), "404 Not Found\n"),
                (post("/batch", batch), "200 Batch Processed"),
                (
                    get("/scan?start=product:101&end=product:199"),
                    "200 {\"product:101\":\"Laptop\",\"product:102\":\"Mouse\",\"product:103\":\"Keyboard\"}\n",
                ),
                (get("/scan?start=b&end=a"), "200 {}\n"),
                (get("/scan?start=product:102&limit=1"), "200 {\"product:102\":\"Mouse\"}\n"),
                (post("/delete?key=user:1001", ""), "200 Deleted"),
                (get("/get?key=user:1001"), "404 Not Found\n"),
                (post("/batch", "{\"items\":[]}"), "200 Batch Processed"),
                (get("/health"), "200 {\"status\":\"ok\",\"version\":\"0.1.0\"}\n"),
                ("HEAD /get?key=product:101 HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), "200 "),
                (put("", "x"), "400 key must be a non-empty string\n"),
            ] {
                assert_eq!(client.ask(&request).await, want, "SEED={seed}: {request}");
            }
            let metrics = client.ask(&get("/metrics")).await;
            let want = "200 {\"writes\":1,\"reads\":4,\"batches\":2,\"scans\":3,\"deletes\":1,\"errors\":0,";
            assert!(metrics.starts_with(want), "SEED={seed}: {metrics}");
        });
        assert!(town.stop(Duration::from_secs(3)), "SEED={seed}");
    }
}

/// Random requests, pipelined without waiting and cut anywhere, get their answers in order, and every read
/// sees the writes in front of it.
#[test]
fn pipelined_requests_are_answered_in_order_and_reads_see_earlier_writes() {
    for seed in 0..60 {
        let town = Town::new(seed, 2, 3);
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut model = std::collections::BTreeMap::new();
        let (mut requests, mut wants) = (Vec::new(), Vec::new());
        for n in 0..300 {
            let key = format!("k{}", rng.u8(..12));
            match rng.u8(..10) {
                0..4 => {
                    requests.push(put(&key, &n.to_string()));
                    wants.push("200 OK".to_owned());
                    model.insert(key, n.to_string());
                }
                4 => {
                    requests.push(post(&format!("/delete?key={key}"), ""));
                    wants.push("200 Deleted".to_owned());
                    model.remove(&key);
                }
                5 => {
                    requests.push(get("/scan?start=k&end=l"));
                    let rows: Vec<_> = model.iter().map(|(k, v)| format!("{k:?}:{v:?}")).collect();
                    wants.push(format!("200 {{{}}}\n", rows.join(",")));
                }
                _ => {
                    requests.push(get(&format!("/get?key={key}")));
                    let value = model.get(&key);
                    wants.push(
                        value.map_or("404 Not Found\n".into(), |value| format!("200 {value}")),
                    );
                }
            }
        }
        town.client(async |client: &mut Client| {
            client.send(requests.concat().as_bytes()).await;
            for (n, want) in wants.iter().enumerate() {
                let answer = client.answer(Method::Get).await;
                assert_eq!(&answer, want, "SEED={seed} request {n}: {}", requests[n]);
            }
        });
        assert!(town.stop(Duration::from_secs(3)), "SEED={seed}");
    }
}

#[test]
fn every_cut_of_the_bytes_gives_the_same_answers() {
    let town = Town::new(5, 2, 2);
    let bytes = [put("a", "1"), get("/get?key=a"), get("/nowhere")].concat();
    for cut in 1..bytes.len() {
        town.client(async |client: &mut Client| {
            let (head, tail) = bytes.as_bytes().split_at(cut);
            client.send(head).await;
            client.rt.sleep(Duration::from_millis(40)).await;
            client.send(tail).await;
            assert_eq!(client.answer(Method::Get).await, "200 OK", "cut at {cut}");
            assert_eq!(client.answer(Method::Get).await, "200 1", "cut at {cut}");
            let last = client.answer(Method::Get).await;
            assert!(
                last.starts_with("404 no such endpoint"),
                "cut at {cut}: {last}"
            );
        });
    }
}

#[test]
fn a_client_that_does_not_read_is_held_back_and_then_gets_everything_in_order() {
    for seed in 0..8 {
        let town = Town::new(seed, 2, 2);
        let value = "v".repeat(100_000);
        town.client(async |client: &mut Client| {
            assert_eq!(client.ask(&put("big", &value)).await, "200 OK");
            let count = 100;
            let mut sent = 0;
            let request = get("/get?key=big");
            // Writes without reading until the server stops taking, for as long as half the write deadline.
            let all = request.repeat(count);
            let until = client.rt.now() + WRITE_TIMEOUT / 2;
            while client.rt.now() < until && sent < all.len() {
                if let Ok(taken) = client.net.write(client.token, &all.as_bytes()[sent..]) {
                    sent += taken;
                }
                client.rt.sleep(Duration::from_millis(50)).await;
            }
            client.send(&all.as_bytes()[sent..]).await;
            for n in 0..count {
                let answer = client.answer(Method::Get).await;
                assert_eq!(answer.len(), value.len() + 4, "SEED={seed}: answer {n}");
            }
        });
    }
}

/// What a client makes the node hold by asking and not reading, wherever the values lie.
#[test]
fn pipelined_reads_of_large_values_hold_a_bounded_amount() {
    let value = "v".repeat(OUTPUT_BYTES_HIGH);
    for seed in 0..4 {
        let town = Town::new(seed, 2, 2);
        let server = town.server();
        let held = town.client(async |client: &mut Client| {
            for key in ["a", "b", "c", "d"] {
                assert_eq!(client.ask(&put(key, &value)).await, "200 OK");
            }
            let mut other = Client::connect(&client.rt, server, seed);
            let all = ["a", "b", "c", "d"].map(|key| get(&format!("/get?key={key}")));
            client.send(all.concat().repeat(32).as_bytes()).await;
            client.rt.sleep(Duration::from_secs(1)).await;
            let metrics = other.ask(&get("/metrics")).await;
            let (_, held) = metrics.split_once("\"held_bytes\":").expect("a gauge");
            let (held, _) = held.split_once(',').expect("more gauges");
            held.parse::<usize>().expect("a number")
        });
        // Unsent output, and the reads that were let go before the first answer told how long they are.
        let bound = (2 + OUTPUT_BYTES_HIGH / READ_BYTES_GUESS) * value.len();
        assert!(
            held > value.len() / 2 && held <= bound,
            "SEED={seed}: {held} of {bound}"
        );
    }
}

#[test]
fn a_client_that_never_reads_is_cut_at_the_write_deadline() {
    let town = Town::new(3, 1, 1);
    let value = "v".repeat(4 * OUTPUT_BYTES_HIGH);
    let reset = town.client(async |client: &mut Client| {
        assert_eq!(client.ask(&put("big", &value)).await, "200 OK");
        client.send(get("/get?key=big").as_bytes()).await;
        client
            .rt
            .sleep(WRITE_TIMEOUT + Duration::from_secs(5))
            .await;
        client.until_closed().await;
        client.input.len()
    });
    assert!(
        reset < value.len(),
        "cut in the middle, not after everything"
    );
}

#[test]
fn large_scans_stream_and_survive_slow_readers() {
    for seed in 0..6 {
        let town = Town::new(seed, 2, 3);
        let value = "v".repeat(10_000);
        town.client(async |client: &mut Client| {
            for batch in 0..6 {
                let items: Vec<String> = (0..50)
                    .map(|n| {
                        format!(
                            "{{\"key\":\"k{:03}\",\"value\":\"{value}\"}}",
                            batch * 50 + n
                        )
                    })
                    .collect();
                let body = format!("{{\"items\":[{}]}}", items.join(","));
                assert_eq!(
                    client.ask(&post("/batch", &body)).await,
                    "200 Batch Processed"
                );
            }
            client.send(get("/scan").as_bytes()).await;
            client.send(get("/get?key=none").as_bytes()).await;
            client.rt.sleep(Duration::from_secs(5)).await;
            let answer = client.answer(Method::Get).await;
            let body = answer.strip_prefix("200 ").expect("200");
            let rows: std::collections::BTreeMap<String, String> =
                serde_json::from_str(body).expect("whole JSON");
            assert_eq!(rows.len(), 300, "SEED={seed}");
            assert!(rows.values().all(|got| *got == value), "SEED={seed}");
            assert_eq!(client.answer(Method::Get).await, "404 Not Found\n");
            // Pages by limit end at about a megabyte, and each names the start of the next.
            let (mut start, mut rows) = (String::new(), Vec::new());
            loop {
                let page = client
                    .ask(&get(&format!("/scan?limit=250&start={start}")))
                    .await;
                assert!(page.len() < 1_100_000, "SEED={seed}: {} bytes", page.len());
                let page = page.strip_prefix("200 ").expect("200");
                let page: std::collections::BTreeMap<String, String> =
                    serde_json::from_str(page).expect("whole JSON");
                rows.extend(page.into_keys());
                match client.next.take() {
                    Some(next) => start = next,
                    None => break,
                }
            }
            assert_eq!(rows.len(), 300, "SEED={seed}");
            assert!(rows.is_sorted(), "SEED={seed}");
            client.send(b"HEAD /scan HTTP/1.1\r\nHost: h\r\n\r\n").await;
            assert_eq!(client.answer(Method::Head).await, "200 ", "SEED={seed}");
            assert_eq!(client.ask(&get("/get?key=none")).await, "404 Not Found\n");
        });
        assert!(town.stop(Duration::from_secs(3)), "SEED={seed}");
    }
}

#[test]
fn bad_framing_is_answered_once_and_nothing_after_it_is_done() {
    for seed in 0..20 {
        let town = Town::new(seed, 2, 2);
        town.client(async |client: &mut Client| {
            let bytes = [
                put("a", "1"),
                "GET /get?key=a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
                put("a", "2"),
            ]
            .concat();
            client.send(bytes.as_bytes()).await;
            assert_eq!(client.answer(Method::Get).await, "200 OK", "SEED={seed}");
            let bad = client.answer(Method::Get).await;
            assert!(bad.starts_with("400 close "), "SEED={seed}: {bad}");
            assert!(!client.until_closed().await, "SEED={seed}: a reset may eat the answer");
            assert_eq!(client.input, b"", "SEED={seed}");
        });
        let after = town.client(async |client: &mut Client| client.ask(&get("/get?key=a")).await);
        assert_eq!(after, "200 1", "SEED={seed}");
    }
}

#[test]
fn connections_close_when_asked_and_half_closed_ones_get_their_answers() {
    let last = Cell::new(0);
    for seed in 0..20 {
        let town = Town::new(seed, 2, 2);
        town.client(async |client: &mut Client| {
            let close = "GET /get?key=a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            assert_eq!(
                client.ask(close).await,
                "404 close Not Found\n",
                "SEED={seed}"
            );
            assert!(!client.until_closed().await, "SEED={seed}");
        });
        town.client(async |client: &mut Client| {
            let old = "GET /scan HTTP/1.0\r\n\r\n";
            assert_eq!(client.ask(old).await, "200 close {}\n", "SEED={seed}");
            client.until_closed().await;
        });
        town.client(async |client: &mut Client| {
            let both = [put("a", "1"), get("/get?key=a")].concat();
            client.send(both.as_bytes()).await;
            client.net.shutdown_write(client.token);
            assert_eq!(client.answer(Method::Get).await, "200 OK", "SEED={seed}");
            // Unless the end of the client's half came behind its answer.
            let answer = client.answer(Method::Get).await;
            last.set(last.get() + u32::from(answer == "200 close 1"));
            assert_eq!(answer.replace(" close", ""), "200 1", "SEED={seed}");
            assert!(!client.until_closed().await, "SEED={seed}");
        });
        // A body that never becomes whole is not stored.
        town.client(async |client: &mut Client| {
            let half = put("half", "1");
            client.send(&half.as_bytes()[..half.len() - 1]).await;
            client.net.shutdown_write(client.token);
            client.until_closed().await;
            assert_eq!(client.input, b"", "SEED={seed}");
        });
        let after =
            town.client(async |client: &mut Client| client.ask(&get("/get?key=half")).await);
        assert_eq!(after, "404 Not Found\n", "SEED={seed}");
    }
    assert!(last.get() > 0, "no answer said that it is the last");
}

#[test]
fn clients_that_hold_back_their_body_are_told_to_go_on() {
    for seed in 0..20 {
        let town = Town::new(seed, 2, 2);
        town.client(async |client: &mut Client| {
            let body = "{\"key\":\"a\",\"value\":\"1\"}";
            let head = format!(
                "POST /put HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            // A write in front: its answer comes before the 100.
            client.send(put("b", "2").as_bytes()).await;
            client.send(head.as_bytes()).await;
            assert_eq!(client.answer(Method::Get).await, "200 OK", "SEED={seed}");
            assert_eq!(client.answer(Method::Get).await, "100", "SEED={seed}");
            assert_eq!(client.ask(body).await, "200 OK", "SEED={seed}");
            let huge = "POST /put HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n";
            let refused = client.ask(huge).await;
            assert!(refused.starts_with("413 close "), "SEED={seed}: {refused}");
        });
        for (path, status) in [("/nope", "404"), ("/scan", "405"), ("/delete", "400")] {
            town.client(async |client: &mut Client| {
                let head = format!(
                    "POST {path} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
                );
                let answer = client.ask(&head).await;
                let instead = format!("{status} close ");
                assert!(answer.starts_with(&instead), "SEED={seed}: {answer}");
            });
        }
    }
}

#[test]
fn deadlines_are_kept() {
    let town = Town::new(1, 1, 1);
    for (bytes, patience, want) in [
        (
            "GET /get",
            HEAD_TIMEOUT,
            "408 close the request did not come in time\n",
        ),
        ("", IDLE_TIMEOUT, "closed"),
    ] {
        let (answer, waited) = town.client(async |client: &mut Client| {
            let begin = client.rt.now();
            client.send(bytes.as_bytes()).await;
            let answer = client.answer(Method::Get).await;
            (answer, client.rt.now().since(begin))
        });
        assert_eq!(answer, want);
        assert!(
            waited >= patience && waited < patience + Duration::from_secs(3),
            "{waited:?}"
        );
    }
}

/// A slow sender who makes no progress is cut, one who does is not.
#[test]
fn slow_bodies_are_judged_by_their_progress() {
    let town = Town::new(2, 1, 1);
    let value = "v".repeat(40_000);
    let request = put("slow", &value);
    for (piece, want) in [
        (10_000, "200 OK"),
        (100, "408 close the request did not come in time\n"),
    ] {
        let answer = town.client(async |client: &mut Client| {
            for chunk in request.as_bytes().chunks(piece) {
                client.send(chunk).await;
                client.rt.sleep(Duration::from_secs(20)).await;
                client.receive();
                if client.closed.is_some() || !client.input.is_empty() {
                    break;
                }
            }
            client.answer(Method::Get).await
        });
        assert_eq!(answer, want, "pieces of {piece}");
    }
}

#[test]
fn a_stopping_node_finishes_what_has_begun() {
    for seed in 0..40 {
        let town = Town::new(seed, 2, 3);
        let idle = Client::connect(&town.client, town.server(), seed);
        let mut client = Client::connect(&town.client, town.server(), seed);
        let puts: String = (0..20).map(|n| put(&format!("k{n}"), "1")).collect();
        let stop_after = Duration::from_micros(fastrand::Rng::with_seed(seed).u64(1..3000));
        let answers = town.world.run(&town.client, async {
            client.send(puts.as_bytes()).await;
            client.rt.sleep(stop_after).await;
            town.world.stop(SERVER);
            let mut answers = Vec::new();
            loop {
                let answer = client.answer(Method::Get).await;
                if answer == "closed" || answer == "reset" {
                    return answers;
                }
                answers.push(answer);
            }
        });
        assert!(
            answers
                .iter()
                .all(|answer| answer == "200 OK" || answer == "200 close OK"),
            "SEED={seed}: {answers:?}"
        );
        town.world.run_for(Duration::from_secs(3));
        let ended = town.ended.borrow();
        assert_eq!(
            ended.len(),
            2,
            "SEED={seed}: well before the grace {SHUTDOWN_GRACE:?} is over"
        );
        assert!(ended.iter().all(Result::is_ok), "SEED={seed}: {ended:?}");
        drop(idle);
    }
}

#[test]
fn a_reset_client_leaves_nothing_behind() {
    for seed in 0..40 {
        let town = Town::new(seed, 2, 3);
        let mut rng = fastrand::Rng::with_seed(seed);
        for _ in 0..10 {
            let mut client = Client::connect(&town.client, town.server(), seed);
            let all = [
                put("a", "1"),
                get("/scan"),
                get("/get?key=a"),
                get("/metrics"),
            ]
            .concat();
            let pause = Duration::from_micros(rng.u64(1..2000));
            town.world.run(&town.client, async move {
                client.send(all.as_bytes()).await;
                client.rt.sleep(pause).await;
            });
        }
        let open = town.client(async |client: &mut Client| {
            client.rt.sleep(Duration::from_secs(1)).await;
            client.ask(&get("/metrics")).await
        });
        assert!(open.contains("\"connections\":1,"), "SEED={seed}: {open}");
        assert!(town.stop(Duration::from_secs(3)), "SEED={seed}");
    }
}

#[test]
fn shards_survive_another_number_of_cores() {
    for seed in 0..5 {
        let town = Town::new(seed, 2, 3);
        for (round, cores) in [1, 4, 2].into_iter().enumerate() {
            town.client(async |client: &mut Client| {
                for n in 0..20 {
                    let put = put(&format!("k{n:02}"), &format!("{round}"));
                    assert_eq!(client.ask(&put).await, "200 OK", "SEED={seed}");
                }
            });
            assert!(
                town.stop(Duration::from_secs(3)),
                "SEED={seed} round {round}"
            );
            town.cores.set(cores);
            town.boot(3);
            let rows: Vec<String> = (0..20)
                .map(|n| format!("\"k{n:02}\":\"{round}\""))
                .collect();
            let want = format!("200 {{{}}}\n", rows.join(","));
            let scan = town.client(async |client: &mut Client| client.ask(&get("/scan")).await);
            assert_eq!(scan, want, "SEED={seed} round {round}");
        }
    }
}

/// A disk that fails under the log: the client is told the truth, the operator too, and the node ends.
#[test]
fn a_failed_log_ends_the_node_and_promises_nothing() {
    for seed in 0..40 {
        let town = Town::new(seed, 2, 2);
        let answer = town.client(async |client: &mut Client| {
            assert_eq!(client.ask(&put("a", "1")).await, "200 OK", "SEED={seed}");
            // The log is sealed and its next segment ready: the write is the first to meet the fault.
            client.rt.sleep(Duration::from_secs(1)).await;
            let disk = town.world.disk(SERVER);
            disk.fail_from(disk.ops(), Fault::Io);
            client.ask(&put("a", "2")).await
        });
        let outcomes = ["503 outcome: unknown;", "503 close outcome: unknown;"];
        let told = outcomes.iter().any(|text| answer.starts_with(text));
        assert!(told, "SEED={seed}: {answer}");
        town.world.run_for(Duration::from_secs(5));
        let ended = town.ended.borrow();
        assert_eq!(ended.len(), 2, "SEED={seed}");
        let faults = ended
            .iter()
            .filter(|end| matches!(end, Err(NodeError::Log(_))));
        assert_eq!(faults.count(), 1, "SEED={seed}: {ended:?}");
        let log = town.log.borrow();
        assert!(
            log.iter().any(|line| line.contains("WAL write")),
            "SEED={seed}: the operator is told, {log:?}"
        );
    }
}
