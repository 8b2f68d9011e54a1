//! Three nodes in a simulated world, N=3: who is who, and what clocks and addresses may do.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use super::cluster::{Cluster, Comparing};
use super::tests::{Client, PORT, config, get, post, put};
use super::{Config, Started, run};
use crate::base::member::NodeId;
use crate::cluster::ring::{Member, Topology};
use crate::rt::Rt;
use crate::rt::mesh::mesh;
use crate::rt::resolve::Book;
use crate::rt::sim::World;
use crate::store::format::newborn;

mod copies_tests;

const NODES: u16 = 3;
/// A machine that is no node.
const CLIENTS: u16 = 9;
const NAMES: [&str; NODES as usize] = ["a:1", "b:1", "c:1"];
/// As the index of a node.
const A: u16 = 0;
const B: u16 = 1;
const C: u16 = 2;
const SHARDS: u16 = 3;
/// Long enough for everything that is not broken: handshakes, detectors, hand-offs.
const SOON: Duration = Duration::from_secs(20);

/// Three nodes and a machine of clients.
struct Town {
    world: World,
    client: Rt,
    /// How many of the nodes are members, from the first.
    members: u16,
    /// N.
    copies: usize,
    /// Rows soon lie in tables, whose blocks are read from the disk each time.
    on_disk: bool,
    repair_every: Option<Duration>,
    nodes: Vec<Setup>,
}

/// What one node is started with, and what it has told its operator.
struct Setup {
    uuid: Cell<u128>,
    shards: Cell<u16>,
    cores: usize,
    accept: RefCell<Vec<NodeId>>,
    book: Book,
    log: Rc<RefCell<Vec<String>>>,
}

impl Town {
    /// Disks are there, nobody runs.
    fn new(seed: u64) -> Town {
        let world = World::new(seed);
        let client = world.boot(CLIENTS, 1).remove(0);
        let setup = |node: u16| Setup {
            uuid: Cell::new(100 + u128::from(node)),
            shards: Cell::new(SHARDS),
            cores: 1 + (seed as usize + usize::from(node)) % 2,
            accept: RefCell::default(),
            book: (0..NODES).map(|node| vec![address(node)]).collect(),
            log: Rc::default(),
        };
        let town = Town {
            world,
            client,
            members: NODES,
            copies: 3,
            on_disk: false,
            repair_every: None,
            nodes: (0..NODES).map(setup).collect(),
        };
        for node in 0..NODES {
            town.wipe(node, town.setup(node).uuid.get());
        }
        town
    }

    /// All run and have found each other.
    fn whole(seed: u64) -> Town {
        Town::new(seed).started()
    }

    fn started(self) -> Town {
        let town = self;
        for node in 0..NODES {
            town.boot(node);
        }
        for node in 0..NODES {
            town.until(node, "\"status\":\"ok\"");
        }
        town
    }

    fn setup(&self, node: u16) -> &Setup {
        &self.nodes[usize::from(node)]
    }

    /// Ends the node and gives it a new disk with this identity.
    fn wipe(&self, node: u16, uuid: u128) {
        self.world.kill(ip_of(node));
        let disk = self.world.disk(ip_of(node));
        for (path, _) in disk.files() {
            disk.remove(&path);
        }
        for (path, bytes) in (0..self.setup(node).shards.get()).map(newborn) {
            disk.write(&Path::new("/data").join(path), &bytes);
        }
        self.setup(node).uuid.set(uuid);
    }

    fn config(&self, node: u16) -> Config {
        let member = |name: &&str| Member {
            name: (*name).to_owned(),
            zone: String::new(),
        };
        let setup = self.setup(node);
        let names = NAMES.iter().take(usize::from(self.members));
        let topology = Topology::new(names.map(member).collect(), self.copies, 10);
        let mut config = config(setup.shards.get());
        config.store.node_uuid = setup.uuid.get();
        config.listen = vec![address(node)];
        if self.on_disk {
            config.store.memtable_bytes = 2 << 10;
            config.cache_bytes = 0;
        }
        config.cluster = Some(Cluster {
            topology: topology.expect("three members"),
            me: NodeId(node),
            addresses: setup.book.clone(),
            write_quorum: 1,
            read_quorum: 1,
            timeout: Duration::from_secs(2),
            comparing: Comparing {
                every: self.repair_every,
                age_min: Duration::from_secs(1),
                rows: 3,
                heads_max: 8,
            },
            gc_grace: config.store.gc_grace,
            secret: None,
            accept: setup.accept.borrow().clone(),
        });
        config
    }

    /// Starts a node, again if it runs, and waits until it has announced itself.
    fn boot(&self, node: u16) {
        let announced = self.launch(node);
        for _ in 0..10_000 {
            self.world.run_for(Duration::from_millis(1));
            if announced.get() {
                return;
            }
        }
        panic!("{}: node {node} did not start", self.seed());
    }

    /// Starts a node, again if it runs; whether it has announced itself.
    fn launch(&self, node: u16) -> Rc<Cell<bool>> {
        let announced = Rc::new(Cell::new(false));
        let setup = self.setup(node);
        setup.log.borrow_mut().clear();
        let cores = self.world.boot(ip_of(node), setup.cores);
        for (rt, port) in cores.into_iter().zip(mesh(setup.cores)) {
            let announced = Rc::clone(&announced);
            let announce = move |_: &Started| announced.set(true);
            let log = Rc::clone(&setup.log);
            let log = Rc::new(move |text: &str| log.borrow_mut().push(text.to_owned()));
            let node = run(rt.clone(), port, self.config(node), Box::new(announce), log);
            rt.spawn(async move { drop(node.await) });
        }
        announced
    }

    /// As [`Town::boot`], taking a member in whatever it has.
    fn boot_accepting(&self, node: u16, member: u16) {
        self.setup(node).accept.replace(vec![NodeId(member)]);
        self.boot(node);
        self.setup(node).accept.take();
    }

    /// Stops a node in order.
    fn stop(&self, node: u16) {
        self.world.stop(ip_of(node));
        self.world.run_for(SOON);
        self.world.kill(ip_of(node));
    }

    /// One request on a connection of its own.
    fn ask(&self, node: u16, request: &str) -> String {
        let (rt, seed) = (self.client.clone(), self.world.seed());
        self.world.run(&self.client, async move {
            Client::connect(&rt, address(node), seed).ask(request).await
        })
    }

    /// Asks for the health of a node until it says so; all of its cores, because any may be asked.
    fn until(&self, node: u16, wanted: &str) {
        let mut health = String::new();
        for _ in 0..300 {
            let mut all = true;
            for _ in 0..6 {
                health = self.ask(node, &get("/health"));
                all &= health.contains(wanted);
            }
            if all {
                return;
            }
            self.world.run_for(Duration::from_millis(100));
        }
        let log = self.setup(node).log.borrow();
        panic!("{}: {health} lacks {wanted}; {log:#?}", self.seed());
    }

    /// Of all its cores.
    fn metric(&self, node: u16, name: &str) -> u64 {
        let metrics = self.ask(node, &get("/metrics"));
        let (_, rest) = metrics
            .split_once(&format!("\"{name}\":"))
            .expect("a metric");
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().expect("a number")
    }

    /// All that a node which is not running keeps for others is gone.
    fn lose_hints(&self, node: u16) {
        let disk = self.world.disk(ip_of(node));
        let files = disk.files().into_iter().map(|(path, _)| path);
        let hints: Vec<PathBuf> = files
            .filter(|path| path.starts_with("/data/hints"))
            .collect();
        assert!(!hints.is_empty(), "{}", self.seed());
        for path in &hints {
            assert!(disk.remove(path), "{}: {path:?}", self.seed());
        }
    }

    fn logged(&self, node: u16, part: &str) -> bool {
        let log = self.setup(node).log.borrow();
        log.iter().any(|line| line.contains(part))
    }

    fn file(&self, node: u16, name: &str) -> String {
        let bytes = self
            .world
            .disk(ip_of(node))
            .read_durable(&PathBuf::from("/data").join(name));
        String::from_utf8(bytes.unwrap_or_default()).expect("text")
    }

    fn seed(&self) -> String {
        format!("SEED={}", self.world.seed())
    }
}

/// Nodes of a world count from 1.
fn ip_of(node: u16) -> u16 {
    node + 1
}

fn address(node: u16) -> SocketAddr {
    SocketAddr::new(World::ip(ip_of(node)), PORT)
}

fn uuid(node: u128) -> String {
    format!("{node:032x}")
}

/// Its own clients get nothing from an empty store, and are told what to do.
fn gets_nothing_from(town: &Town, node: u16) {
    for request in [
        put("k1", "w"),
        get("/get?key=k1"),
        get("/scan"),
        post("/delete?key=k1", ""),
        post("/batch", "{\"items\":[{\"key\":\"k1\",\"value\":\"w\"}]}"),
    ] {
        let refused = town.ask(node, &request);
        assert!(refused.starts_with("503 "), "{refused}");
        let remedy = "start each member that refuses it once with -accept-member b:1";
        assert!(refused.contains(remedy), "{refused}");
        let json = request.replacen("\r\n", "\r\nAccept: application/json\r\n", 1);
        let refused = town.ask(node, &json);
        assert!(refused.contains("\"error\":\"not_accepted\""), "{refused}");
        let writes = !request.starts_with("GET");
        let outcome = refused.contains("\"outcome\":\"not_applied\"");
        assert_eq!(outcome, writes, "{refused}");
    }
}

#[test]
fn a_member_with_a_new_disk_is_refused_until_it_is_accepted_and_then_sent_everything() {
    for seed in 0..6 {
        let town = Town::whole(seed);
        for n in 0..40 {
            let request = put(&format!("k{n}"), "v");
            let request = request.replace("/put ", "/put?consistency=all ");
            assert_eq!(town.ask(A, &request), "200 OK", "SEED={seed}");
        }
        assert!(town.file(A, "MEMBERS").contains(&uuid(101)), "SEED={seed}");
        town.wipe(B, 201);
        town.boot(B);
        for node in [A, B, C] {
            town.until(node, "\"status\":\"mismatch\"");
        }
        for node in [A, C] {
            town.until(node, "{\"name\":\"b:1\",\"state\":\"mismatch\"}");
            let me = NAMES[usize::from(node)];
            let remedy = format!("start {me} once with -accept-member b:1");
            assert!(town.logged(node, &remedy), "SEED={seed}");
            let heard = town.setup(B).log.borrow().clone();
            assert!(
                town.logged(B, &remedy),
                "SEED={seed}: the new one hears of it too, {heard:#?}"
            );
        }
        // Of what a stranger misses only the slice is noted.
        let one = put("k40", "v").replace("/put ", "/put?consistency=one ");
        assert_eq!(town.ask(A, &one), "200 OK", "SEED={seed}");
        town.world.run_for(Duration::from_secs(5));
        let noted = ["hints_kept", "hint_bytes", "dirty_slices"].map(|name| town.metric(A, name));
        assert_eq!(noted, [0, 0, 1], "SEED={seed}");
        gets_nothing_from(&town, B);
        // What is known outlives a restart, and the stranger counts for no write.
        town.boot(A);
        town.until(A, "{\"name\":\"b:1\",\"state\":\"mismatch\"}");
        town.until(A, "{\"name\":\"c:1\",\"state\":\"up\"}");
        let all = post("/delete?key=none&consistency=all", "");
        let refused = town.ask(A, &all);
        assert!(
            refused.starts_with("503 2 of the 3"),
            "SEED={seed}: {refused}"
        );
        let refused = town.ask(A, &get("/get?key=k1&consistency=all"));
        let want = "503 too few replicas can be read: 2 of the 3 needed\n";
        assert_eq!(refused, want, "SEED={seed}");
        assert!(town.file(A, "MEMBERS").contains(&uuid(101)), "SEED={seed}");

        for node in [A, C] {
            town.boot_accepting(node, B);
        }
        for node in [A, B, C] {
            town.until(node, "\"status\":\"ok\"");
        }
        town.world.run_for(3 * SOON);
        assert!(town.file(A, "MEMBERS").contains(&uuid(201)), "SEED={seed}");
        // It is known by now, without being accepted.
        town.boot(A);
        town.until(A, "\"status\":\"ok\"");
        town.world.kill(ip_of(A));
        town.world.kill(ip_of(C));
        town.until(B, "\"status\":\"degraded\"");
        for n in 0..=40 {
            let answer = town.ask(B, &get(&format!("/get?key=k{n}")));
            assert_eq!(answer, "200 v", "SEED={seed} k{n}");
        }
    }
}

/// More than one page of each shard: it dies while some have come and some have not.
#[test]
fn a_member_that_dies_while_it_is_sent_everything_gets_the_rest() {
    const KEYS: usize = 2400;
    let mut midway = 0;
    for seed in 0..10 {
        let town = Town::whole(seed);
        let value = "v".repeat(300);
        for first in (0..KEYS).step_by(200) {
            let items: Vec<String> = (first..first + 200)
                .map(|n| format!("{{\"key\":\"k{n}\",\"value\":\"{value}\"}}"))
                .collect();
            let body = format!("{{\"items\":[{}]}}", items.join(","));
            let done = town.ask(A, &post("/batch?consistency=all", &body));
            assert_eq!(done, "200 Batch Processed", "SEED={seed}");
        }
        town.world.kill(ip_of(C));
        town.wipe(B, 201);
        town.boot(B);
        town.boot_accepting(A, B);
        for round in 0..3 {
            let before = town.metric(B, "memtable_bytes");
            for _ in 0..5_000 {
                if town.metric(B, "memtable_bytes") > before {
                    break;
                }
                town.world.run_for(Duration::from_millis(1));
            }
            midway += u32::from(town.metric(A, "dirty_slices") > 0);
            match round {
                0 => town.world.crash(ip_of(B)),
                1 => town.world.kill(ip_of(B)),
                // What was left to do is known after a restart, too.
                _ => town.world.crash(ip_of(A)),
            }
            town.boot(if round == 2 { A } else { B });
        }
        town.until(A, "{\"name\":\"b:1\",\"state\":\"up\"}");
        town.world.run_for(SOON);
        assert_eq!(town.metric(A, "dirty_slices"), 0, "SEED={seed}");
        town.world.kill(ip_of(A));
        town.until(B, "\"status\":\"degraded\"");
        for n in 0..KEYS {
            let answer = town.ask(B, &get(&format!("/get?key=k{n}")));
            assert_eq!(answer, format!("200 {value}"), "SEED={seed} k{n}");
        }
    }
    assert!(midway > 10, "{midway} deaths came midway");
}

/// It cannot know that it has lost its disk before others say so, and says nothing of its data until then.
#[test]
fn a_new_data_directory_answers_nobody_before_the_members_are_heard() {
    for seed in 0..6 {
        let town = Town::whole(seed);
        let all = put("k", "v").replace("/put ", "/put?consistency=all ");
        assert_eq!(town.ask(A, &all), "200 OK", "SEED={seed}");
        town.wipe(B, 201);
        for other in [A, C] {
            town.world.partition(ip_of(other), ip_of(B));
            town.world.partition(ip_of(B), ip_of(other));
        }
        let announced = town.launch(B);
        let (mut joining, mut refused) = (0, 0);
        for round in 0..60 {
            town.world.run_for(Duration::from_millis(50));
            if round == 15 {
                town.world.heal();
            }
            let answer = town.ask(B, &get("/get?key=k"));
            joining += u32::from(answer.starts_with("503 this node has a new data directory"));
            refused += u32::from(answer.contains("-accept-member b:1"));
            assert!(!answer.starts_with("404"), "SEED={seed}: {answer}");
            assert!(round >= 15 || !announced.get(), "SEED={seed}");
        }
        assert!(joining > 8, "SEED={seed}: {joining}");
        assert!(refused > 0 && announced.get(), "SEED={seed}");
        // Out of reach of all others it serves what it has: a first node of a cluster looks the same.
        for other in [A, C] {
            town.world.kill(ip_of(other));
        }
        town.boot(B);
        assert!(
            town.ask(B, &get("/get?key=k")).starts_with("404"),
            "SEED={seed}"
        );
    }
}

#[test]
fn what_an_accepted_member_lacks_is_noted_before_it_is_known() {
    let mut missing = 0;
    for seed in 0..6 {
        let town = Town::whole(seed);
        let request = put("k", "v").replace("/put ", "/put?consistency=all ");
        assert_eq!(town.ask(A, &request), "200 OK", "SEED={seed}");
        for node in [A, C] {
            town.stop(node);
        }
        town.wipe(B, 201);
        // It is not there yet when it is accepted; and once it is known, that start is soon over.
        town.boot_accepting(A, B);
        town.boot(B);
        while !town.file(A, "MEMBERS").contains(&uuid(201)) {
            town.world.run_for(Duration::from_millis(1));
        }
        town.world.crash(ip_of(A));
        missing += u32::from(town.ask(B, &get("/get?key=k")).starts_with("404"));
        town.boot(A);
        town.until(A, "{\"name\":\"b:1\",\"state\":\"up\"}");
        town.world.run_for(3 * SOON);
        town.world.kill(ip_of(A));
        town.until(B, "\"status\":\"degraded\"");
        assert_eq!(town.ask(B, &get("/get?key=k")), "200 v", "SEED={seed}");
    }
    assert!(missing > 0, "the crash came too late in every world");
}

#[test]
fn two_names_with_one_data_directory_are_refused() {
    for seed in 0..6 {
        let town = Town::new(seed);
        town.boot(A);
        town.boot(B);
        town.until(A, "{\"name\":\"b:1\",\"state\":\"up\"}");
        town.wipe(C, 101);
        town.boot(C);
        town.until(A, "{\"name\":\"c:1\",\"state\":\"mismatch\"}");
        assert!(
            town.logged(A, "c:1 and b:1 have one data directory"),
            "SEED={seed}"
        );
        town.until(A, "{\"name\":\"b:1\",\"state\":\"up\"}");
        assert!(!town.file(A, "MEMBERS").contains("c:1"), "SEED={seed}");
    }
}

#[test]
fn a_disk_that_refuses_members_is_asked_again() {
    for seed in 0..6 {
        let town = Town::new(seed);
        town.boot(A);
        let disk = town.world.disk(ip_of(A));
        disk.set_capacity(0);
        town.boot(B);
        town.until(A, "{\"name\":\"b:1\",\"state\":\"up\"}");
        town.world.run_for(SOON);
        assert!(town.logged(A, "MEMBERS cannot be written"), "SEED={seed}");
        assert_eq!(town.file(A, "MEMBERS"), "", "SEED={seed}");
        disk.heal();
        town.world.run_for(SOON);
        assert!(town.file(A, "MEMBERS").contains(&uuid(101)), "SEED={seed}");
    }
}

/// One copy of each key: the node that stamps keeps none of most of them, so nothing but `CLOCK` tells what it stamped.
#[test]
fn stamps_go_on_above_all_before_when_the_wall_clock_is_set_back() {
    for seed in 0..24 {
        let mut town = Town::new(seed);
        town.copies = 1;
        let town = town.started();
        town.world.run_for(Duration::from_millis(700 * seed));
        assert_eq!(town.ask(A, &put("k", "0")), "200 OK", "SEED={seed}");
        for round in 1..4 {
            if seed % 2 == 0 {
                town.world.crash(ip_of(A));
            } else {
                town.stop(A);
            }
            // All of them: one that is set back alone takes no writes.
            for node in [A, B, C] {
                town.world.set_skew_ms(ip_of(node), -3_600_000 * round);
            }
            town.boot(A);
            for other in ["b:1", "c:1"] {
                town.until(A, &format!("{{\"name\":\"{other}\",\"state\":\"up\"}}"));
            }
            let value = round.to_string();
            assert_eq!(town.ask(A, &put("k", &value)), "200 OK", "SEED={seed}");
            for node in [A, B, C] {
                let got = town.ask(node, &get("/get?key=k"));
                assert_eq!(got, format!("200 {value}"), "SEED={seed} round {round}");
            }
        }
    }
}

/// A stop in order leaves no clock ahead of the wall, or the next writes of other members would lose.
#[test]
fn after_a_stop_in_order_writes_of_other_members_win_at_once() {
    for seed in 0..8 {
        let town = Town::whole(seed);
        town.world.run_for(Duration::from_millis(300 * seed));
        town.world.stop(ip_of(A));
        town.world.run_for(Duration::from_secs(1));
        town.boot(A);
        for (node, value) in [(A, "1"), (B, "2")] {
            let all = put("k", value).replace("/put ", "/put?consistency=all ");
            while !town.ask(node, &all).starts_with("200") {
                town.world.run_for(Duration::from_millis(20));
            }
        }
        assert_eq!(town.ask(C, &get("/get?key=k")), "200 2", "SEED={seed}");
    }
}

/// After a crash it waits for the wall clock instead.
#[test]
fn after_a_crash_writes_of_other_members_win_at_once() {
    for seed in 0..8 {
        let town = Town::whole(seed);
        town.world.run_for(Duration::from_millis(300 * seed));
        town.world.crash(ip_of(A));
        town.boot(A);
        for (node, value) in [(A, "1"), (B, "2")] {
            let all = put("k", value).replace("/put ", "/put?consistency=all ");
            while !town.ask(node, &all).starts_with("200") {
                town.world.run_for(Duration::from_millis(20));
            }
        }
        assert_eq!(town.ask(C, &get("/get?key=k")), "200 2", "SEED={seed}");
    }
}

#[test]
fn a_node_whose_clock_is_far_from_the_others_takes_no_writes() {
    for (seed, skew_ms) in [(0, 3_600_000), (1, -3_600_000), (2, 700), (3, -700)] {
        let town = Town::whole(seed);
        let all = |value: &str| put("k", value).replace("/put ", "/put?consistency=all ");
        assert_eq!(town.ask(A, &all("1")), "200 OK", "SEED={seed}");
        town.world.set_skew_ms(ip_of(A), skew_ms);
        town.until(A, "\"status\":\"clock_skew\"");
        let refused = town.ask(A, &all("2"));
        let side = if skew_ms > 0 { "ahead of" } else { "behind" };
        assert!(
            refused.starts_with("503 this node's clock is "),
            "{refused}"
        );
        assert!(refused.contains(side), "SEED={seed}: {refused}");
        let json = all("2").replacen("\r\n", "\r\nAccept: application/json\r\n", 1);
        let refused = town.ask(A, &json);
        assert!(refused.contains("\"error\":\"clock_skew\""), "{refused}");
        assert!(refused.contains("\"outcome\":\"not_applied\""), "{refused}");
        assert!(
            town.logged(A, "it takes no writes from clients"),
            "SEED={seed}"
        );
        // It reads, and keeps what is written through others.
        assert_eq!(town.ask(A, &get("/get?key=k")), "200 1", "SEED={seed}");
        town.until(B, "\"status\":\"ok\"");
        assert_eq!(town.ask(B, &all("3")), "200 OK", "SEED={seed}");
        // A sharp sample of before is preferred for five seconds.
        town.world.run_for(Duration::from_secs(6));
        assert!(town.logged(B, "the clock of peer a:1"), "SEED={seed}");
        assert_eq!(town.ask(A, &get("/get?key=k")), "200 3", "SEED={seed}");
        town.world.set_skew_ms(ip_of(A), 0);
        town.until(A, "\"status\":\"ok\"");
        assert_eq!(town.ask(A, &all("4")), "200 OK", "SEED={seed}");
    }
}

/// Whatever the number of their shards. The keeper of the hints has lost them, and nobody reads.
#[test]
fn what_no_hint_holds_is_found_by_comparison() {
    for seed in 0..6 {
        let mut town = Town::new(seed);
        town.repair_every = Some(Duration::from_secs(5));
        town.on_disk = seed % 2 == 0;
        for (node, shards) in [(B, 2), (C, 5)] {
            town.setup(node).shards.set(shards);
            town.wipe(node, town.setup(node).uuid.get());
        }
        let town = town.started();
        let write = |at: u32, value: &str| {
            let put = put(&format!("key{at}"), value);
            let told = town.ask(A, &put);
            assert!(told.starts_with("200 "), "SEED={seed}: {told}");
        };
        (0..30).for_each(|at| write(at, "old"));
        town.world.run_for(SOON);
        town.stop(C);
        town.until(A, "\"state\":\"down\"");
        (20..60).for_each(|at| write(at, "new"));
        let deleted = town.ask(A, &post("/delete?key=key0", ""));
        assert!(deleted.starts_with("200 "), "SEED={seed}: {deleted}");
        town.stop(A);
        town.lose_hints(A);
        town.boot(A);
        town.boot(C);
        town.until(C, "\"status\":\"ok\"");
        town.world.run_for(2 * SOON);
        assert_eq!(town.metric(A, "hints_replayed"), 0, "SEED={seed}");
        let repaired = town.metric(A, "rows_repaired") + town.metric(B, "rows_repaired");
        // One at a time they may find the same.
        assert!((41..=82).contains(&repaired), "SEED={seed}: {repaired}");
        for at in 0..60 {
            let got = town.ask(C, &get(&format!("/get?r=1&key=key{at}")));
            let wanted = match at {
                0 => "404 ",
                1..20 => "old",
                _ => "new",
            };
            assert!(got.contains(wanted), "SEED={seed} key{at}: {got}");
        }
        let before = town.metric(A, "repair_passes");
        town.world.run_for(SOON);
        assert!(town.metric(A, "repair_passes") > before, "SEED={seed}");
        let after = town.metric(A, "rows_repaired") + town.metric(B, "rows_repaired");
        assert_eq!(after, repaired, "SEED={seed}: equal now");
    }
}

/// All are started again with a longer list: the rows whose owner the new member is come to it, as those that owned
/// them before and still do find that it lacks them.
#[test]
fn a_member_that_was_added_to_the_list_of_all_gets_its_rows() {
    for seed in 0..4 {
        let mut town = Town::new(seed);
        (town.members, town.copies) = (2, 2);
        (A..=B).for_each(|node| town.boot(node));
        (A..=B).for_each(|node| town.until(node, "\"status\":\"ok\""));
        for at in 0..60 {
            let body = format!("{{\"key\":\"key{at}\",\"value\":\"v\"}}");
            let told = town.ask(A, &post("/put?w=2", &body));
            assert!(told.starts_with("200 "), "SEED={seed}: {told}");
        }
        (A..=B).for_each(|node| town.stop(node));
        town.members = 3;
        town.repair_every = Some(Duration::from_secs(5));
        let town = town.started();
        town.world.run_for(3 * SOON);
        for (node, at) in (A..=C).flat_map(|node| (0..60).map(move |at| (node, at))) {
            let got = town.ask(node, &get(&format!("/get?r=1&key=key{at}")));
            assert_eq!(got, "200 v", "SEED={seed} node {node} key{at}");
        }
        let sent = town.metric(A, "rows_repaired") + town.metric(B, "rows_repaired");
        assert!((10..60).contains(&sent), "SEED={seed}: {sent}");
    }
}

/// A damaged block of this node is no answer, and other replicas have the row.
#[test]
fn what_this_node_cannot_read_comes_from_another_replica() {
    for seed in 0..4 {
        let mut town = Town::new(seed);
        town.on_disk = true;
        let town = town.started();
        let key = |at: u32| format!("key{at}");
        let value = "v".repeat(300);
        for at in 0..60 {
            let body = format!("{{\"key\":\"{}\",\"value\":\"{value}\"}}", key(at));
            let put = post("/put?w=3", &body);
            let told = town.ask(A, &put);
            assert!(told.starts_with("200 "), "SEED={seed}: {told}");
        }
        town.world.run_for(SOON);
        town.world.disk(ip_of(A)).rot_reads("/sst/", 1);
        for at in 0..60 {
            let got = town.ask(A, &get(&format!("/get?r=1&key={}", key(at))));
            assert!(
                got.starts_with("200 ") && got.contains(&value),
                "SEED={seed}: {got}"
            );
        }
        assert!(town.world.disk(ip_of(A)).rotten_reads() > 20, "SEED={seed}");
        town.world.disk(ip_of(A)).end_rot();
        // These are nowhere else: that others have nothing is no answer.
        town.stop(B);
        town.stop(C);
        for at in 60..90 {
            let told = town.ask(A, &put(&key(at), &value));
            assert!(told.starts_with("200 "), "SEED={seed}: {told}");
        }
        town.world.run_for(SOON);
        town.stop(A);
        town.lose_hints(A);
        (A..=C).for_each(|node| town.boot(node));
        (A..=C).for_each(|node| town.until(node, "\"status\":\"ok\""));
        town.world.disk(ip_of(A)).rot_reads("/sst/", 1);
        let got: Vec<String> = (60..90)
            .map(|at| town.ask(A, &get(&format!("/get?r=1&key={}", key(at)))))
            .collect();
        let unreadable = got.iter().filter(|got| got.starts_with("500 ")).count();
        assert!(unreadable > 5, "SEED={seed}: {got:#?}");
        assert!(
            !got.iter().any(|got| got.starts_with("404 ")),
            "SEED={seed}: {got:#?}"
        );
        // Without the others it says so of all.
        town.world.kill(ip_of(B));
        town.world.kill(ip_of(C));
        let alone: Vec<String> = (0..60)
            .map(|at| town.ask(A, &get(&format!("/get?r=1&key={}", key(at)))))
            .collect();
        assert!(
            alone.iter().any(|got| got.starts_with("50")),
            "SEED={seed}: {alone:#?}"
        );
        assert!(
            !alone.iter().any(|got| got.starts_with("404 ")),
            "SEED={seed}: {alone:#?}"
        );
    }
}

/// However many cores see it.
#[test]
fn the_log_has_one_line_when_a_peer_goes_and_one_when_it_is_back() {
    for seed in [1, 3, 5] {
        let town = Town::whole(seed);
        let down = "{\"name\":\"b:1\",\"state\":\"down\"}";
        // Members start one after another, and of that there are lines too.
        town.world.run_for(SOON);
        town.setup(A).log.borrow_mut().clear();
        match seed % 3 {
            0 => town.world.crash(ip_of(B)),
            1 => town.stop(B),
            _ => {
                town.world.partition(ip_of(A), ip_of(B));
                town.world.partition(ip_of(B), ip_of(A));
            }
        }
        town.until(A, down);
        town.world.run_for(SOON);
        match seed % 3 {
            2 => town.world.heal(),
            _ => town.boot(B),
        }
        town.until(A, "\"status\":\"ok\"");
        town.world.run_for(SOON);
        let log = town.setup(A).log.borrow();
        assert_eq!(log.len(), 2, "SEED={seed}: {log:#?}");
        assert!(
            log[0].starts_with("peer b:1 is down: "),
            "SEED={seed}: {log:#?}"
        );
        assert!(
            log[1].starts_with("peer b:1 is back after "),
            "SEED={seed}: {log:#?}"
        );
    }
}

#[test]
fn a_clock_file_that_makes_no_sense_is_refused() {
    let town = Town::whole(3);
    assert!(town.file(A, "CLOCK").starts_with("{\"format\":1,"));
    town.stop(A);
    let path = PathBuf::from("/data/CLOCK");
    assert!(town.world.disk(ip_of(A)).flip(&path, 20, 1));
    let (rt, port) = (town.world.boot(ip_of(A), 1).remove(0), mesh(1).remove(0));
    let node = run(
        rt.clone(),
        port,
        town.config(A),
        Box::new(|_| {}),
        Rc::new(|_: &str| {}),
    );
    let refused = town.world.run(&rt, node);
    let text = format!("{refused:?}");
    assert!(
        text.contains("/data/CLOCK: checksum does not match"),
        "{text}"
    );
}

#[test]
fn a_member_is_found_when_its_address_becomes_known_and_when_it_moves() {
    for seed in 0..6 {
        let mut town = Town::new(seed);
        let nowhere = SocketAddr::new(World::ip(77), PORT);
        town.nodes[usize::from(A)].book = [vec![], vec![], vec![nowhere]].into_iter().collect();
        for node in [A, B, C] {
            town.boot(node);
        }
        town.until(B, "\"status\":\"ok\"");
        let down = |name: &str| format!("{{\"name\":\"{name}\",\"state\":\"down\"}}");
        town.until(A, &down("b:1"));
        town.until(A, &down("c:1"));
        let book = &town.setup(A).book;
        let wanted = book.take_wanted();
        assert!(wanted.contains(&usize::from(C)), "SEED={seed}: {wanted:?}");
        assert!(book.set(usize::from(B), vec![address(B)]));
        assert!(book.set(usize::from(C), vec![address(C)]));
        town.until(A, "\"status\":\"ok\"");
        // A member that is there is not asked for.
        book.take_wanted();
        town.world.run_for(SOON);
        assert_eq!(book.take_wanted(), [usize::from(A)], "SEED={seed}");
    }
}
