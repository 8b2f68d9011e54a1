//! Peers that are none: other programs, other clusters, other secrets, copies of oneself. Each is told by name and
//! gets no data; what needs no peer goes on.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use crate::process::{Node, scratch};
use crate::trio::{get, is, list, log, member, ports, put, tells};

/// Answers every connection to a port with the same bytes, for as long as the test runs.
fn server(port: u16, answer: &'static [u8]) {
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut request = [0; 4096];
            // A client that has gone away needs no answer.
            if stream.read(&mut request).is_ok_and(|count| count > 0) {
                stream.write_all(answer).unwrap_or_default();
            }
        }
    });
}

/// The node serves what needs no other copy, and refuses at once what does.
fn stands_alone(node: &Node) {
    put(node, "/put", "own", "v");
    assert_eq!(get(node, "/get?key=own"), (200, "v".to_owned()));
    let (status, text) = get(node, "/get?key=own&consistency=all");
    assert_eq!(status, 503, "{text}");
    let body = br#"{"key":"other","value":"v"}"#;
    let answer = node.connect().post("/put?consistency=all", body);
    let answer = answer.expect("an answer");
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("not_applied"), "{}", answer.text());
    assert_eq!(get(node, "/get?key=other").0, 404, "nothing was written");
}

#[test]
fn servers_that_speak_something_else() {
    const GARBAGE: &[u8] = b"\x00\xffSSH-2.0-OpenSSH_9.2\r\n\x16\x03\x01\x02\x00\r\n\r\n";
    const NGINX: &[u8] =
        b"HTTP/1.1 404 Not Found\r\nServer: nginx/1.22.1\r\nContent-Type: text/html\r\n\
        Content-Length: 13\r\nConnection: close\r\n\r\n<html></html>";
    const HALF: &[u8] =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: kvpeer/1\r\n\r\n";
    for (answer, told) in [
        (GARBAGE, "it speaks something else"),
        (NGINX, "it refuses us with 404: <html></html>"),
        (HALF, "bad answer to the handshake: "),
    ] {
        let dir = scratch();
        let [a, other] = ports();
        server(other, answer);
        let peers = list(&[other]);
        let node = member(dir.path(), "node1", a, &[], &["-peers", &peers]);
        tells(&node, &format!("WARN peer localhost:{other}: {told}"));
        is(&node, 503, "mismatch");
        stands_alone(&node);
    }
}

/// A server that accepts and says nothing is told like one that is not there.
#[test]
fn a_server_that_says_nothing() {
    let dir = scratch();
    let [a, other] = ports();
    let listener = TcpListener::bind(("127.0.0.1", other)).expect("the port is free");
    let peers = list(&[other]);
    let node = member(dir.path(), "node1", a, &[], &["-peers", &peers]);
    tells(
        &node,
        &format!("WARN peer localhost:{other} is down: it does not answer the handshake"),
    );
    stands_alone(&node);
    drop(listener);
}

/// Two nodes with their own ideas of the cluster.
fn pair(dir: &Path, first: Who<'_>, second: Who<'_>) -> [Node; 2] {
    let start = |name: &str, who: Who<'_>| {
        member(dir, name, who.port, who.settings, &["-peers", who.peers])
    };
    [start("node1", first), start("node2", second)]
}

#[derive(Clone, Copy)]
struct Who<'a> {
    port: u16,
    peers: &'a str,
    settings: &'a [(&'a str, &'a str)],
}

/// Neither of two nodes gives or takes data of the other.
fn keep_apart(nodes: &[Node; 2]) {
    for node in nodes {
        is(node, 503, "mismatch");
    }
    for node in nodes {
        stands_alone(node);
        put(node, "/put", &format!("of{}", node.port), "v");
    }
    let (a, b) = (&nodes[0], &nodes[1]);
    for (here, there) in [(a, b), (b, a)] {
        let found = get(here, &format!("/get?key=of{}", there.port));
        assert_eq!(
            found.0, 404,
            "data went from {} to {}",
            there.port, here.port
        );
        let metrics = get(here, "/metrics").1;
        assert!(metrics.contains("\"hints_replayed\":0,"), "{metrics}");
    }
}

#[test]
fn other_members_are_another_cluster() {
    let dir = scratch();
    let [a, b, c] = ports();
    let (short, long) = (list(&[b]), list(&[a, c]));
    let who = |port, peers| Who {
        port,
        peers,
        settings: &[],
    };
    let nodes = pair(dir.path(), who(a, &short), who(b, &long));
    let (own, other) = (format!("localhost:{a}"), format!("localhost:{b}"));
    tells(
        &nodes[0],
        &format!("topology differs in members: {other} has localhost:{c}, {own} has nothing more"),
    );
    tells(
        &nodes[1],
        &format!("topology differs in members: {other} has localhost:{c}, {own} has nothing more"),
    );
    keep_apart(&nodes);
}

#[test]
fn other_virtual_nodes_are_another_cluster() {
    let dir = scratch();
    let [a, b] = ports();
    let peers = list(&[a, b]);
    let who = |port, settings| Who {
        port,
        peers: &peers,
        settings,
    };
    let more = [("CLUSTER_VIRTUAL_NODES", "128")];
    let nodes = pair(dir.path(), who(a, &[]), who(b, &more));
    for node in &nodes {
        tells(
            node,
            &format!("topology differs in vnodes: localhost:{b} has 128, localhost:{a} has 10"),
        );
    }
    keep_apart(&nodes);
}

#[test]
fn other_zones_are_another_cluster() {
    let dir = scratch();
    let [a, b] = ports();
    let peers = list(&[a, b]);
    let who = |port, settings| Who {
        port,
        peers: &peers,
        settings,
    };
    let zones = format!("localhost:{a}=east,localhost:{b}=west");
    let zoned = [("CLUSTER_ZONES", &zones[..])];
    let nodes = pair(dir.path(), who(a, &[]), who(b, &zoned));
    for node in &nodes {
        tells(node, "topology differs in zones: ");
        tells(node, &format!("localhost:{b} has east,west"));
    }
    keep_apart(&nodes);
}

#[test]
fn secrets_are_the_same_or_nothing_is_said() {
    const SECRET: &str = "correct horse battery staple";
    const WRONG: &str = "incorrect horse battery staple";
    let with = |secret| [("CLUSTER_SECRET", secret)];
    let dir = scratch();
    let [a, b] = ports();
    let peers = list(&[a, b]);
    let who = |port, settings| Who {
        port,
        peers: &peers,
        settings,
    };
    let (right, wrong) = (with(SECRET), with(WRONG));

    let nodes = pair(dir.path(), who(a, &right), who(b, &wrong));
    for (node, other) in [(&nodes[0], b), (&nodes[1], a)] {
        tells(
            node,
            &format!("localhost:{other} does not know our cluster secret"),
        );
    }
    keep_apart(&nodes);
    let logs = nodes.each_ref().map(log).concat();
    assert!(!logs.contains("horse"), "a secret is in a log:\n{logs}");
    let [first, second] = nodes;
    assert!(second.stop().success());

    // A secret on one side only.
    let second = member(dir.path(), "node2", b, &[], &["-peers", &peers]);
    let nodes = [first, second];
    for node in &nodes {
        tells(
            node,
            &format!("cluster secret: localhost:{b} has none, localhost:{a} has a secret"),
        );
    }
    keep_apart(&nodes);
    let [first, second] = nodes;
    assert!(second.stop().success());

    // The mended setting is enough: the first node has not been started again.
    let second = member(dir.path(), "node2", b, &right, &["-peers", &peers]);
    is(&first, 200, "ok");
    is(&second, 200, "ok");
    put(&first, "/put?consistency=all", "both", "v");
    assert_eq!(get(&second, "/get?key=both&r=1"), (200, "v".to_owned()));
}

/// Two data directories with one identity would each count for the other's copy.
#[test]
fn a_copied_data_directory() {
    let dir = scratch();
    let [a, b] = ports();
    let peers = list(&[a, b]);
    let first = member(dir.path(), "node1", a, &[], &["-peers", &peers]);
    assert!(first.stop().success());
    let copied = Command::new("cp")
        .args(["-r", "node1", "node2"])
        .current_dir(dir.path())
        .status();
    assert!(copied.expect("there is a cp").success());
    let who = |port| Who {
        port,
        peers: &peers,
        settings: &[],
    };
    let nodes = pair(dir.path(), who(a), who(b));
    for node in &nodes {
        tells(node, "are one node, ");
        tells(node, "its data directory was copied");
    }
    keep_apart(&nodes);
}
