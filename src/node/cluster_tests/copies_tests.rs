//! What the copies of a key hold after absences, hints, repairs, batches and odd names: the faults of the program this
//! one replaces, each as the short story that shows it (docs/original-bugs.md).

use super::*;
use crate::base::planted::{self, Bug};
use crate::http::client::put_query_value;

const ALL: [u16; NODES as usize] = [A, B, C];

/// Runs a story as it is, which must hold, and with a mistake put in, which must not.
fn holds_but_for(bug: Bug, story: impl Fn() -> bool) {
    assert!(story());
    planted::plant(Some(bug));
    let held = story();
    planted::plant(None);
    assert!(!held, "the story holds with {bug:?} too");
}

fn target(path: &str, key: &str, level: &str) -> String {
    let mut target = format!("{path}?{level}&key=");
    put_query_value(&mut target, key.as_bytes());
    target
}

/// Writes a key, or deletes it, with so many copies.
fn write(town: &Town, node: u16, (key, value): (&str, Option<&str>), copies: u8) {
    let request = match value {
        Some(value) => {
            let body = serde_json::json!({ "key": key, "value": value }).to_string();
            post(&format!("/put?w={copies}"), &body)
        }
        None => post(&target("/delete", key, &format!("w={copies}")), ""),
    };
    let told = town.ask(node, &request);
    assert!(told.starts_with("200 "), "{}: {told}", town.seed());
}

/// What a node's own copy says.
fn own(town: &Town, node: u16, key: &str) -> String {
    town.ask(node, &get(&target("/get", key, "r=1")))
}

fn sees(town: &Town, node: u16, other: u16, state: &str) {
    let name = NAMES[usize::from(other)];
    town.until(
        node,
        &format!("{{\"name\":\"{name}\",\"state\":\"{state}\"}}"),
    );
}

/// Two nodes miss an old value and an old deletion, come back and take newer values; then the one that keeps their
/// hints comes back too, and hands them over.
#[test]
fn late_hints_bring_nothing_old_back() {
    for seed in 0..3 {
        holds_but_for(Bug::HintStamped, || {
            let town = Town::whole(seed);
            for key in ["put", "deleted"] {
                write(&town, A, (key, Some("first")), 3);
            }
            for node in [B, C] {
                town.world.kill(ip_of(node));
                sees(&town, A, node, "down");
            }
            write(&town, A, ("put", Some("old")), 1);
            write(&town, A, ("deleted", None), 1);
            town.world.run_for(SOON);
            town.world.kill(ip_of(A));
            for node in [B, C] {
                town.boot(node);
            }
            sees(&town, B, C, "up");
            for key in ["put", "deleted"] {
                write(&town, B, (key, Some("new")), 2);
            }
            town.boot(A);
            town.world.run_for(SOON);
            assert!(town.metric(A, "hints_replayed") >= 4, "SEED={seed}");
            let copies = ALL.map(|node| ["put", "deleted"].map(|key| own(&town, node, key)));
            copies.as_flattened().iter().all(|copy| copy == "200 new")
        });
    }
}

/// The copies of one write are the same write: whoever compares them finds nothing to repair.
#[test]
fn copies_of_one_write_have_one_version() {
    for seed in 0..3 {
        holds_but_for(Bug::ReplicaStamps, || {
            let town = Town::whole(seed);
            write(&town, A, ("put", Some("v")), 3);
            write(&town, B, ("deleted", None), 3);
            town.world.run_for(SOON);
            let syncs = || ALL.map(|node| town.metric(node, "wal_syncs"));
            let before = syncs();
            for node in ALL {
                let all = |key| town.ask(node, &get(&target("/get", key, "r=3")));
                assert_eq!(all("put"), "200 v", "SEED={seed}");
                assert_eq!(all("deleted"), "404 Not Found\n", "SEED={seed}");
            }
            town.world.run_for(SOON);
            syncs() == before
        });
    }
}

/// A replica that has slept through a deletion and an overwrite takes part in a scan: the deleted key stays away, and
/// the newer value wins though its bytes are smaller. A replica that is away is not an empty one.
#[test]
fn scans_show_the_newest_of_all_copies_or_fail() {
    for seed in 0..3 {
        holds_but_for(Bug::GravesStripped, || {
            let town = Town::whole(seed);
            for key in ["changed", "deleted"] {
                write(&town, A, (key, Some("zzz")), 3);
            }
            town.world.kill(ip_of(C));
            sees(&town, A, C, "down");
            write(&town, A, ("changed", Some("aaa")), 2);
            write(&town, A, ("deleted", None), 2);
            // With its hints.
            town.world.kill(ip_of(A));
            town.boot(C);
            sees(&town, B, C, "up");
            sees(&town, B, A, "down");
            sees(&town, C, B, "up");
            let scans = [B, C].map(|node| town.ask(node, &get("/scan?r=2")));
            assert!(town.ask(B, &get("/scan?r=3")).starts_with("503 "));
            town.world.kill(ip_of(C));
            sees(&town, B, C, "down");
            assert!(town.ask(B, &get("/scan?r=2")).starts_with("503 "));
            let alone = town.ask(B, &get("/scan?r=1"));
            let wanted = "200 {\"changed\":\"aaa\"}\n";
            assert_eq!(alone, wanted, "SEED={seed}");
            scans.iter().all(|scan| scan == wanted)
        });
    }
}

/// Of one key several times in one batch the last counts, on every replica, though its value is the smallest.
#[test]
fn of_equal_keys_in_a_batch_all_replicas_keep_the_last() {
    for seed in 0..4 {
        let town = Town::whole(seed);
        let items: Vec<String> = (1..=3)
            .rev()
            .flat_map(|value| (0..20).map(move |key| (key, value)))
            .map(|(key, value)| format!("{{\"key\":\"k{key}\",\"value\":\"{value}\"}}"))
            .collect();
        let body = format!("{{\"items\":[{}]}}", items.join(","));
        let told = town.ask(A, &post("/batch?w=3", &body));
        assert_eq!(told, "200 Batch Processed", "SEED={seed}");
        for (node, key) in ALL
            .into_iter()
            .flat_map(|node| (0..20).map(move |key| (node, key)))
        {
            let copy = own(&town, node, &format!("k{key}"));
            assert_eq!(copy, "200 1", "SEED={seed} node {node} k{key}");
        }
    }
}

/// Keys full of what a URL, a form or a file name would change, and values that look like something else.
#[test]
fn no_key_and_no_value_means_anything_to_the_nodes() {
    const KEYS: [&str; 12] = [
        "a b",
        "a+b",
        "a&b=c",
        "100%",
        "%41",
        "A",
        "x#y",
        "k?key=z",
        "../up/_/:",
        "\"q\"\\",
        "é\u{1f600}",
        " ",
    ];
    const VALUES: [&str; 6] = [
        "__DELETED__",
        "",
        "null",
        "{\"ts\":0}",
        "\u{fffd}",
        "\u{0}\u{1}",
    ];
    let town = Town::whole(1);
    for (at, key) in KEYS.iter().enumerate() {
        let value = VALUES[at % VALUES.len()];
        write(&town, ALL[at % 3], (key, Some(value)), 3);
    }
    let syncs = || ALL.map(|node| town.metric(node, "wal_syncs"));
    town.world.run_for(SOON);
    let before = syncs();
    for (at, key) in KEYS.iter().enumerate() {
        let value = format!("200 {}", VALUES[at % VALUES.len()]);
        for node in ALL {
            assert_eq!(own(&town, node, key), value, "{key} at node {node}");
            let all = town.ask(node, &get(&target("/get", key, "r=3")));
            assert_eq!(all, value, "{key} of all at node {node}");
        }
    }
    town.world.run_for(SOON);
    assert_eq!(
        syncs(),
        before,
        "a replica was asked for another key, and repaired"
    );
    for (at, key) in KEYS.iter().enumerate() {
        write(&town, ALL[(at + 1) % 3], (key, None), 3);
        let left = KEYS
            .iter()
            .filter(|key| own(&town, A, key).starts_with("200 "));
        assert_eq!(left.count(), KEYS.len() - at - 1, "after {key}");
    }
}

/// Misses, scans and refused requests go over the links that there are.
#[test]
fn requests_between_nodes_open_no_connections() {
    let town = Town::whole(2);
    let accepted = || town.metric(B, "connections_accepted");
    let mut before = 0;
    for n in 0..110 {
        // The first ones are why links to other cores are dialled.
        if n == 10 {
            town.world.run_for(SOON);
            before = accepted();
        }
        let miss = town.ask(A, &get(&format!("/get?r=3&key=miss{n}")));
        assert_eq!(miss, "404 Not Found\n");
        assert_eq!(town.ask(C, &get("/scan?r=3&end=b")), "200 {}\n");
        write(&town, A, (&format!("n{n}"), None), 3);
    }
    // The one that asks now.
    assert_eq!(accepted(), before + 1);
}

/// Nobody waits for more copies than were asked for: neither for silent ones, nor for the word that they are down.
#[test]
fn silent_replicas_delay_nobody_who_does_not_need_them() {
    for seed in 0..4 {
        let town = Town::whole(seed);
        write(&town, A, ("k", Some("v")), 3);
        let silence = |node| {
            for other in ALL {
                town.world.partition(ip_of(node), ip_of(other));
                town.world.partition(ip_of(other), ip_of(node));
            }
        };
        let quick = |request: &str, wanted: &str| {
            let before = town.world.now();
            assert_eq!(town.ask(A, request), wanted, "SEED={seed}");
            let took = town.world.now().since(before);
            assert!(took < Duration::from_millis(300), "SEED={seed}: {took:?}");
        };
        silence(B);
        quick(&get("/get?r=2&key=k"), "200 v");
        quick(&get("/get?r=2&key=miss"), "404 Not Found\n");
        quick(&put("k2", "v").replace("/put ", "/put?w=2 "), "200 OK");
        silence(C);
        for n in 0..20 {
            quick(&get("/get?r=1&key=k"), "200 v");
            quick(&put(&format!("n{n}"), "v"), "200 OK");
        }
        for node in [B, C] {
            sees(&town, A, node, "down");
        }
        let refused = town.ask(A, &get("/get?r=2&key=k"));
        assert!(refused.starts_with("503 "), "SEED={seed}: {refused}");
    }
}

/// The coordinator's own log refuses a write that the others take: it gets a hint like any other replica.
#[test]
fn a_coordinator_whose_own_disk_refuses_a_write_gets_it_later() {
    for seed in 0..4 {
        let town = Town::whole(seed);
        // Its hints have a log with room before its disk is full.
        town.world.kill(ip_of(B));
        sees(&town, A, B, "down");
        for n in 0..20 {
            write(&town, A, (&format!("before{n}"), Some("v")), 2);
        }
        town.boot(B);
        sees(&town, A, B, "up");
        town.world.run_for(SOON);
        let disk = town.world.disk(ip_of(A));
        disk.set_capacity(disk.files().iter().map(|(_, bytes)| bytes).sum());
        let value = "v".repeat(2000);
        let mut keys = Vec::new();
        while town.metric(A, "hints_kept") < 25 {
            let key = format!("k{}", keys.len());
            assert!(keys.len() < 5_000, "SEED={seed}: the disk never refused");
            write(&town, A, (&key, Some(&value)), 2);
            keys.push(key);
        }
        assert_eq!(town.metric(A, "hints_dropped"), 0, "SEED={seed}");
        disk.heal();
        town.world.run_for(SOON);
        assert_eq!(town.metric(A, "hint_bytes"), 0, "SEED={seed}");
        for node in [B, C] {
            town.world.kill(ip_of(node));
        }
        town.until(A, "\"status\":\"degraded\"");
        for key in &keys {
            let copy = own(&town, A, key);
            assert!(
                copy == format!("200 {value}"),
                "SEED={seed} {key}: {copy:.40}"
            );
        }
    }
}

/// With one copy of each key, those of a dead member cannot be written: a program is told which they are.
#[test]
fn a_batch_of_which_a_part_fails_tells_which_items() {
    for seed in 0..4 {
        let mut town = Town::new(seed);
        town.copies = 1;
        let town = town.started();
        town.stop(C);
        sees(&town, A, C, "down");
        // A key twice: only the last of them is written, or not.
        let keys: Vec<String> = (0..40).chain([7]).map(|key| format!("k{key}")).collect();
        let items: Vec<String> = keys
            .iter()
            .map(|key| format!("{{\"key\":\"{key}\",\"value\":\"v\"}}"))
            .collect();
        let body = format!("{{\"items\":[{}]}}", items.join(","));
        let request = post("/batch", &body);
        let json = request.replacen("\r\n", "\r\nAccept: application/json\r\n", 1);
        let told = town.ask(A, &json);
        let (status, answer) = told.split_once(' ').expect("a status and a body");
        assert_eq!(status, "503", "SEED={seed}: {told}");
        let answer: serde_json::Value = serde_json::from_str(answer).expect("JSON");
        let failed: Vec<usize> = serde_json::from_value(answer["failed_items"].clone())
            .unwrap_or_else(|why| panic!("SEED={seed}: {why}: {answer}"));
        let dead = |at: &usize| *at != 7 && own(&town, A, &keys[*at]).starts_with("503 ");
        let wanted: Vec<usize> = (0..keys.len()).filter(dead).collect();
        assert!((5..30).contains(&wanted.len()), "SEED={seed}: {wanted:?}");
        assert_eq!(failed, wanted, "SEED={seed}");
        let plain = town.ask(A, &request);
        let count = format!("{} of 40 items failed: ", wanted.len());
        assert!(plain.contains(&count), "SEED={seed}: {plain}");
    }
}
