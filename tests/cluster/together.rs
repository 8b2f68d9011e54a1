//! The manual start: members find each other however they are listed, in whichever order they come.

use crate::process::{Node, command, output, scratch};
use crate::trio::{get, is, list, member, ports, put, tells};

/// The original's three commands, then the same cluster with every node in its own list, addresses for names, a
/// name twice. All of them are one topology, so each node may be started in either style.
#[test]
fn three_commands_in_three_styles() {
    let dir = scratch();
    let [a, b, c] = ports();
    let styles = [
        [list(&[b, c]), list(&[a, c]), list(&[a, b])],
        [list(&[a, b, c]), list(&[c, b, a]), list(&[a, b, c])],
        [
            format!("127.0.0.1:{b},[::1]:{c}"),
            format!("LOCALHOST:{a},localhost:{c},localhost:{c}"),
            format!("127.0.0.1:{c},localhost:{a},localhost:0{b}"),
        ],
    ];
    for (round, style) in styles.iter().enumerate() {
        let start = |name: &str, port: u16, peers: &str| {
            member(dir.path(), name, port, &[], &["-peers", peers])
        };
        let first = start("node1", a, &style[0]);
        let printed = first.printed();
        for line in [
            "Virtual Nodes:    10\n",
            "Replication (N):  3\n",
            "Write Quorum (W): 1\n",
            "Read Quorum (R):  1\n",
            "Cluster:          3 members\n",
            "✓ Hinted Handoff: ACTIVE\n",
        ] {
            assert!(printed.contains(line), "{line}{printed}");
        }
        // Nobody else is there yet: one copy is what was asked for, and one there is.
        let early = format!("early{round}");
        put(&first, "/put", &early, "alone");
        assert_eq!(get(&first, &format!("/get?key={early}")).1, "alone");
        is(&first, 200, "degraded");

        let second = start("node2", b, &style[1]);
        let third = start("node3", c, &style[2]);
        let all = [first, second, third];
        for node in &all {
            is(node, 200, "ok");
        }
        for (at, node) in all.iter().enumerate() {
            let key = format!("key{round}-{at}");
            put(node, "/put?w=3", &key, "v");
            for other in &all {
                let found = get(other, &format!("/get?key={key}&r=1"));
                assert_eq!(found, (200, "v".to_owned()), "{key} on port {}", other.port);
            }
        }
        for node in &all {
            let found = get(node, &format!("/get?key={early}&r=3"));
            assert_eq!(
                found,
                (200, "alone".to_owned()),
                "what came early reaches all"
            );
        }
        for node in all {
            assert_eq!(node.stop().code(), Some(0));
        }
    }
}

#[test]
fn a_list_of_nobody_else_is_a_node_alone() {
    let dir = scratch();
    let [a] = ports();
    let peers = format!("localhost:{a},127.0.0.1:{a}");
    let node = member(dir.path(), "node1", a, &[], &["-peers", &peers]);
    let printed = node.printed();
    assert!(printed.contains("Replication (N):  1\n"), "{printed}");
    assert!(
        printed.contains("Copies:           1 node, so N is 1 instead of 3\n"),
        "{printed}"
    );
    put(&node, "/put?consistency=all", "k", "v");
    let health = get(&node, "/health");
    assert!(health.1.starts_with("{\"status\":\"ok\""), "{}", health.1);
    assert!(!health.1.contains("peers"), "{}", health.1);
}

/// A misspelt name is no loopback name: with neighbours on other machines a node must say what it is called.
#[test]
fn a_misspelt_name_is_refused_or_named() {
    let dir = scratch();
    let [a, nobody] = ports();
    let peers = format!("lcalhost.invalid:8082,localhost:{nobody}");
    let port = a.to_string();
    let mut started = command(dir.path());
    started.args(["-port", &port, "-peers", &peers, "-dir", "./data"]);
    let output = output(&mut started);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("lcalhost.invalid:8082 is on another machine") && told.contains("-advertise"),
        "{told}"
    );
    assert!(!dir.path().join("data").exists(), "nothing was touched");

    let own = format!("me.invalid:{a}");
    let flags = ["-peers", &peers, "-advertise", &own];
    let node = member(dir.path(), "node1", a, &[], &flags);
    tells(
        &node,
        "WARN peer lcalhost.invalid:8082: failed to lookup address",
    );
    serves_alone(&node, nobody);
}

#[test]
fn a_peer_that_is_not_there_is_named_and_does_not_matter_to_w_1() {
    let dir = scratch();
    let [a, nobody] = ports();
    let peers = list(&[nobody]);
    let node = member(dir.path(), "node1", a, &[], &["-peers", &peers]);
    serves_alone(&node, nobody);
}

fn serves_alone(node: &Node, nobody: u16) {
    tells(
        node,
        &format!("WARN peer localhost:{nobody} is down: Connection refused"),
    );
    is(node, 200, "degraded");
    for n in 0..20 {
        put(node, "/put", &format!("k{n}"), "v");
        assert_eq!(get(node, &format!("/get?key=k{n}")), (200, "v".to_owned()));
    }
    let (status, text) = get(node, "/get?key=k1&r=2");
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("too few replicas can be read"), "{text}");
}
