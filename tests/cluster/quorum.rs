//! What W and R promise while nodes come and go: the original README's consistency tests, certain refusals, hints.

use crate::process::{Node, scratch};
use crate::trio::{LOOKS, Trio, get, list, member, ports, put, until};

/// The original's Data Consistency tests 1 to 4, request by request, at its defaults (N=3, W=1, R=1). W=1 promises
/// one copy at once and the others soon, the first copy not always that of the node that was asked: where the
/// original reads at once, so does this, and looks again.
#[test]
fn the_originals_consistency_tests() {
    let mut trio = Trio::start(&[]);
    // 1. Cross-node read consistency.
    trio.put(0, "consistency:test", "v1");
    comes(&trio, "consistency:test", "v1");
    // 2. Write-read from different nodes.
    trio.put(1, "cross:node", "data-from-n2");
    comes(&trio, "cross:node", "data-from-n2");
    // 3. Timestamp consistency.
    trio.put(0, "versioned:key", "v1");
    trio.put(0, "versioned:key", "v2");
    comes(&trio, "versioned:key", "v2");
    // 4. Quorum behaviour: one node dies after the write, two read, the third has it after its return.
    for node in trio.running() {
        assert_eq!(get(node, "/metrics").0, 200);
    }
    trio.put(0, "quorum:test", "data");
    trio.kill(2);
    comes(&trio, "quorum:test", "data");
    trio.begin(2);
    comes(&trio, "quorum:test", "data");
}

/// Each node, asked for its own copy, has the value soon and keeps it.
fn comes(trio: &Trio, key: &str, value: &str) {
    for node in trio.running() {
        until(&format!("{value} on port {}", node.port), || {
            let found = get(node, &format!("/get?key={key}&r=1"));
            let so = found == (200, value.to_owned());
            so.then_some(()).ok_or(format!("{found:?}"))
        });
    }
}

/// The bodies of those tests as curl sends them: a form's content type, no `charset`, a name for the host.
#[test]
fn the_original_by_curl() {
    if std::process::Command::new("curl")
        .arg("-V")
        .output()
        .is_err()
    {
        println!("skipped: curl is not installed");
        return;
    }
    let trio = Trio::start(&[]);
    let curl = |args: &[&str]| {
        let output = std::process::Command::new("curl")
            .arg("-s")
            .args(args)
            .output();
        String::from_utf8(output.expect("curl runs").stdout).expect("text")
    };
    let at = |node: usize, target: &str| format!("http://localhost:{}{target}", trio.port(node));
    let body = r#"{"key":"consistency:test","value":"v1"}"#;
    assert_eq!(curl(&["-X", "POST", &at(0, "/put"), "-d", body]), "OK");
    comes(&trio, "consistency:test", "v1");
    for node in 0..3 {
        assert_eq!(curl(&[&at(node, "/get?key=consistency:test")]), "v1");
    }
}

/// A write that too few replicas can take is refused at once and is nowhere, then or later.
#[test]
fn w_3_with_one_node_down_writes_nothing_anywhere() {
    let mut trio = Trio::start(&[("CLUSTER_WRITE_QUORUM", "3"), ("CLUSTER_READ_QUORUM", "2")]);
    trio.put(0, "before", "v");
    trio.kill(1);
    trio.knows_of_the_dead();
    for (at, target, body) in [
        (0, "/put", r#"{"key":"never1","value":"v"}"#),
        (2, "/put?consistency=all", r#"{"key":"never2","value":"v"}"#),
        (
            0,
            "/batch",
            r#"{"items":[{"key":"never3","value":"v"},{"key":"never4","value":"v"}]}"#,
        ),
        (2, "/delete?key=before", ""),
    ] {
        let answer = trio.connect(at).post(target, body.as_bytes());
        let answer = answer.expect("an answer");
        let text = answer.text();
        assert_eq!(answer.status, 503, "{target}: {text}");
        assert!(text.contains("outcome: not_applied"), "{target}: {text}");
    }
    // Fewer are enough for who asks for fewer.
    put(trio.node(0), "/put?w=2", "two", "v");
    let metrics = get(trio.node(0), "/metrics").1;
    assert!(metrics.contains("\"hints_kept\":1,"), "{metrics}");
    trio.begin(1);
    trio.is_whole();
    comes(&trio, "two", "v");
    for at in 0..3 {
        assert_eq!(trio.get(at, "before"), (200, "v".to_owned()));
        for n in 1..=4 {
            assert_eq!(trio.get(at, &format!("never{n}")).0, 404, "node {at}");
        }
        let scan = get(trio.node(at), "/scan?consistency=all");
        assert_eq!(scan, (200, "{\"before\":\"v\",\"two\":\"v\"}\n".to_owned()));
    }
}

/// One of three serves what needs one copy, refuses the rest at once, and hands over what the others missed.
#[test]
fn both_peers_gone_and_back() {
    let mut trio = Trio::start(&[]);
    put(trio.node(0), "/put?w=3", "kept", "v");
    put(trio.node(0), "/put?w=3", "dropped", "v");
    put(trio.node(0), "/put?w=3", "changed", "old");
    trio.kill(1);
    trio.kill(2);
    trio.knows_of_the_dead();
    let mut client = trio.connect(0);
    assert_eq!(trio.get(0, "kept"), (200, "v".to_owned()));
    trio.put(0, "changed", "new");
    let deleted = client.post("/delete?key=dropped", b"").expect("an answer");
    assert_eq!(deleted.text(), "Deleted");
    for n in 0..200 {
        trio.put(0, &format!("missed{n}"), &n.to_string());
    }
    for target in ["/get?key=kept&r=2", "/scan?r=2", "/scan?consistency=all"] {
        let refused = client.get(target).expect("an answer");
        assert_eq!(refused.status, 503, "{target}: {}", refused.text());
    }
    let refused = client.post("/put?w=2", br#"{"key":"never","value":"v"}"#);
    let refused = refused.expect("an answer");
    assert_eq!(refused.status, 503);
    assert!(
        refused.text().contains("1 of the 2 replicas"),
        "{}",
        refused.text()
    );

    // The hints are on disk: the node that owes them may go too.
    trio.stop(0);
    trio.begin(0);
    until("owing what it owed", || {
        let metrics = get(trio.node(0), "/metrics").1;
        let owes = !metrics.contains("\"hint_bytes\":0,");
        owes.then_some(()).ok_or(metrics)
    });
    trio.begin(1);
    trio.begin(2);
    comes(&trio, "changed", "new");
    for n in 0..200 {
        comes(&trio, &format!("missed{n}"), &n.to_string());
    }
    for at in 0..3 {
        until("deleted everywhere", || {
            let found = trio.get(at, "dropped");
            (found.0 == 404).then_some(()).ok_or(format!("{found:?}"))
        });
        assert_eq!(trio.get(at, "never").0, 404);
    }
    until("without hints to hand over", || {
        let metrics = get(trio.node(0), "/metrics").1;
        let empty = metrics.contains("\"hint_bytes\":0,");
        empty.then_some(()).ok_or(metrics)
    });
    let metrics = get(trio.node(0), "/metrics").1;
    assert!(!metrics.contains("\"hints_replayed\":0,"), "{metrics}");
}

/// A replica whose hints are lost as well is mended by whoever reads two copies, deletions included.
#[test]
fn a_quorum_read_mends_what_it_finds_stale() {
    let dir = scratch();
    let [a, b, nobody] = ports();
    let peers = list(&[a, b, nobody]);
    let start = |name: &str, port: u16| member(dir.path(), name, port, &[], &["-peers", &peers]);
    let (first, second) = (start("node1", a), start("node2", b));
    sees(&first, b);
    put(&first, "/put?w=2", "k", "old");
    put(&first, "/put?w=2", "d", "old");
    second.kill();
    put(&first, "/put", "k", "new");
    let deleted = first.connect().post("/delete?key=d", b"");
    assert_eq!(deleted.expect("an answer").text(), "Deleted");
    first.kill();
    let hints = dir.path().join("node1/data/hints");
    if hints.exists() {
        std::fs::remove_dir_all(hints).expect("scratch is writable");
    }

    let (first, second) = (start("node1", a), start("node2", b));
    for node in [&first, &second] {
        sees(node, if node.port == a { b } else { a });
    }
    assert_eq!(get(&second, "/get?key=k&r=2"), (200, "new".to_owned()));
    assert_eq!(get(&second, "/get?key=d&r=2").0, 404);
    first.kill();
    assert_eq!(get(&second, "/get?key=k&r=1"), (200, "new".to_owned()));
    assert_eq!(get(&second, "/get?key=d&r=1").0, 404);
}

/// Waits until all cores of a node count on another.
fn sees(node: &Node, port: u16) {
    let up = format!("{{\"name\":\"localhost:{port}\",\"state\":\"up\"}}");
    until("up", || {
        let answers = (0..LOOKS).map(|_| get(node, "/health").1);
        let blind = answers.into_iter().find(|health| !health.contains(&up));
        blind.map_or(Ok(()), Err)
    });
}
