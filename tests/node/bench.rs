//! The load generator against a real node, and against servers that are none.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Output;

use crate::process::{Node, command, output, scratch};

fn bench(cwd: &std::path::Path, words: &[&str]) -> (Output, String) {
    let ended = output(command(cwd).arg("bench").args(words));
    let text = String::from_utf8_lossy(&ended.stdout).into_owned();
    (ended, text)
}

/// A counter of `/metrics`.
fn counter(node: &Node, name: &str) -> u64 {
    let answer = node.connect().get("/metrics").expect("an answer");
    let metrics: serde_json::Value = serde_json::from_str(&answer.text()).expect("JSON");
    metrics[name].as_u64().expect("a number")
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn as_many_requests_as_asked_and_each_counted() {
    let dir = scratch();
    let node = Node::start(dir.path(), &[], &["-cores", "1"]);
    let base = format!("http://localhost:{}", node.port);
    let url = format!("{base}/put");
    let body = r#"{"key":"bench:{{.RequestNumber}}","value":"data"}"#;
    let (ended, text) = bench(
        dir.path(),
        &[
            "-n", "105", "-c", "10", "-cpus", "2", "-m", "POST", "-d", body, &url,
        ],
    );
    assert!(ended.status.success(), "{ended:?}");
    assert!(text.contains("[200]\t105 responses"), "{text}");
    assert_eq!(counter(&node, "writes"), 105);
    let rows = node.connect().get("/scan").expect("an answer").text();
    let rows = json(&rows);
    let keys: BTreeSet<_> = rows
        .as_object()
        .expect("an object")
        .keys()
        .cloned()
        .collect();
    assert_eq!(keys, (0..105).map(|n| format!("bench:{n}")).collect());

    // Fewer requests than connections, a new connection for each, and pipelining.
    for words in [
        &["-n", "3", "-c", "50"][..],
        &["-n", "37", "-c", "5", "-disable-keepalive"],
        &["-n", "1000", "-c", "3", "-pipeline", "16"],
    ] {
        let before = counter(&node, "reads");
        let (ended, text) = bench(
            dir.path(),
            &[words, &[&format!("{base}/get?key=bench:1")]].concat(),
        );
        assert!(ended.status.success(), "{ended:?}");
        assert!(
            text.contains(&format!("[200]\t{} responses", words[1])),
            "{text}"
        );
        assert_eq!((counter(&node, "reads") - before).to_string(), words[1]);
    }
}

#[test]
fn every_workload_runs_clean_and_checks_what_it_reads() {
    let dir = scratch();
    let node = Node::start(dir.path(), &[], &["-cores", "1"]);
    let base = format!("localhost:{}", node.port);
    for workload in [
        "get", "put", "mixed", "scan", "batch", "ycsb-a", "ycsb-b", "ycsb-c", "ycsb-d", "ycsb-e",
        "ycsb-f", "delete",
    ] {
        let words = [
            "-load",
            "-keys",
            "500",
            "-value-size",
            "20-60",
            "-batch-size",
            "10",
            "-scan-len",
            "20",
            "-verify",
            "-n",
            "400",
            "-c",
            "8",
            "-o",
            "json",
            "-workload",
            workload,
            &base,
        ];
        let (ended, text) = bench(dir.path(), &words);
        assert!(ended.status.success(), "{workload}: {ended:?}");
        let report = json(&text);
        assert_eq!(report["totals"]["requests"], 400, "{workload}");
        assert_eq!(report["totals"]["failed"], 0, "{workload}");
        let missing = report["totals"]["missing"].as_u64().expect("a number");
        assert!(
            workload == "delete" || missing == 0,
            "{workload}: {missing} missing"
        );
    }
}

#[test]
fn a_rate_is_kept_and_every_file_written() {
    let dir = scratch();
    let node = Node::start(dir.path(), &[], &["-cores", "1"]);
    let base = format!("localhost:{}", node.port);
    let words = [
        "-workload",
        "put",
        "-rate",
        "500",
        "-z",
        "2s",
        "-c",
        "4",
        "-warmup",
        "100ms",
        "-json",
        "r.json",
        "-csv",
        "r.csv",
        "-hdr",
        "r.hlog",
        "-html",
        "r.html",
        &base,
    ];
    let (ended, text) = bench(dir.path(), &words);
    assert!(ended.status.success(), "{ended:?}");
    assert!(text.contains("Response time"), "{text}");
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).expect("written");
    let report = json(&read("r.json"));
    // The schedule has 1000 requests; a stalled machine may leave the last of them unsent, never send more.
    let requests = report["totals"]["requests"].as_u64().expect("a number");
    assert!((1..=1000).contains(&requests), "{requests}");
    assert!(
        report["totals"]["response"]["p50_ns"].as_u64()
            >= report["totals"]["service"]["p50_ns"].as_u64()
    );
    assert!(read("r.csv").lines().count() >= 2);
    assert!(read("r.hlog").contains("Tag=put,"));
    assert!(read("r.html").contains("<svg"));

    // The same run against itself: nothing is worse, and a wish that cannot hold is exit code 4.
    let compare = |fail_if: &str| {
        let words = ["compare", "r.json", "r.json", "-fail-if", fail_if];
        bench(dir.path(), &words).0.status.code()
    };
    assert_eq!(compare("p99>+10%"), Some(0));
    assert_eq!(compare("p99>-10%"), Some(4));
    assert_eq!(compare("p99"), Some(2));
}

#[test]
fn failures_are_counted_and_told_by_the_exit_code() {
    let dir = scratch();
    let node = Node::start(dir.path(), &[], &["-cores", "1"]);
    let url = format!("localhost:{}/nothing/here", node.port);
    let (ended, text) = bench(dir.path(), &["-n", "10", &url]);
    assert_eq!(ended.status.code(), Some(3));
    assert!(text.contains("[404]\t10 responses"), "{text}");
    let (ended, _) = bench(dir.path(), &["-n", "10", "-max-errors", "100", &url]);
    assert!(ended.status.success());
    drop(node);

    let (ended, _) = bench(dir.path(), &["-n", "10", &url]);
    assert_eq!(ended.status.code(), Some(1));
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(told.contains("nobody answers at localhost:"), "{told}");
}

#[test]
fn other_servers_and_their_lies() {
    let dir = scratch();
    // Answers the first request of a connection with each of these, in turn.
    let answers: [&[u8]; 4] = [
        b"HTTP/1.0 200 OK\r\nServer: x\r\n\r\nup to the end",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
    ];
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("{}/", listener.local_addr().expect("bound"));
    let server = std::thread::spawn(move || {
        let mut turn = answers.iter();
        // The first connection only looks whether somebody is here.
        drop(listener.accept());
        while let Some(answer) = turn.as_slice().first() {
            let (mut socket, _) = listener.accept().expect("a client");
            let mut request = [0; 4096];
            if socket.read(&mut request).is_ok_and(|read| read > 0) {
                turn.next();
                socket.write_all(answer).expect("sent");
            }
        }
    });
    let words = [
        "-n",
        "4",
        "-c",
        "1",
        "-disable-keepalive",
        "-o",
        "json",
        &url,
    ];
    let (ended, text) = bench(dir.path(), &words);
    server.join().expect("served");
    assert_eq!(ended.status.code(), Some(3), "{ended:?}");
    let report = json(&text);
    assert_eq!(report["statuses"]["200"], 2, "{text}");
    assert_eq!(report["totals"]["failed"], 2, "{text}");
    let why: Vec<_> = report["failures"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|of| of["why"].to_string())
        .collect();
    assert_eq!(why.len(), 2, "{why:?}");
}

/// Answer and end of the stream may come as one event: that must not look like two connections that end.
#[test]
fn a_server_that_closes_is_called_once_for_each_request() {
    let dir = scratch();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let server = std::thread::spawn(move || {
        let (mut accepted, mut request) = (0, [0; 4096]);
        loop {
            let (mut socket, _) = listener.accept().expect("a client");
            accepted += 1;
            match socket.read(&mut request) {
                Ok(read) if request[..read].starts_with(b"END") => return accepted,
                Ok(1..) => {
                    let answer =
                        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";
                    socket.write_all(answer).expect("sent");
                }
                // A connection that was only looked at.
                _ => {}
            }
        }
    });
    let (ended, text) = bench(
        dir.path(),
        &["-n", "100", "-c", "1", "-o", "json", &format!("{address}/")],
    );
    let mut last = TcpStream::connect(address).expect("it listens");
    last.write_all(b"END").expect("sent");
    let accepted = server.join().expect("served");
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(json(&text)["totals"]["requests"], 100);
    assert_eq!(
        accepted, 102,
        "one to look, one for each request, one to end"
    );
}

#[test]
fn a_wrong_value_is_found() {
    let dir = scratch();
    let node = Node::start(dir.path(), &[], &["-cores", "1"]);
    let base = format!("localhost:{}", node.port);
    let get = [
        "-workload",
        "get",
        "-keys",
        "10",
        "-n",
        "200",
        "-verify",
        &base,
    ];
    let (ended, _) = bench(dir.path(), &[&["-load"][..], &get].concat());
    assert!(ended.status.success(), "{ended:?}");
    node.connect()
        .put("bench:00000003", "not ours")
        .expect("an answer");
    let (ended, text) = bench(dir.path(), &get);
    assert_eq!(ended.status.code(), Some(3), "{text}");
    assert!(
        text.contains("a value that nobody wrote to this key"),
        "{text}"
    );
}
