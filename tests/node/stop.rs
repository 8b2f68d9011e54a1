//! Stopping as asked: what was begun is finished, the exit code is 0, and the next start finds all of it.

use std::time::Duration;

use crate::client::Connection;
use crate::process::{Node, scratch};

#[test]
fn sigterm_and_sigint_exit_0_and_keep_everything() {
    let dir = scratch();
    for (round, signal) in ["TERM", "INT"].iter().enumerate() {
        let node = Node::start(dir.path(), &[], &[]);
        let mut client = node.connect();
        for n in 0..=round {
            let answer = client
                .get(&format!("/get?key=round:{n}"))
                .expect("an answer");
            assert_eq!(answer.status, if n < round { 200 } else { 404 });
        }
        let answer = client
            .put(&format!("round:{round}"), "x")
            .expect("an answer");
        assert_eq!(answer.text(), "OK");
        node.signal(signal);
        assert_eq!(node.ended().code(), Some(0), "SIG{signal}");
    }
    let log = std::fs::read_to_string(dir.path().join("data/node.log")).expect("node.log exists");
    assert_eq!(log.matches(" INFO stopped as asked\n").count(), 2, "{log}");
}

/// Writers go on until the node refuses them; each answer is checked after a restart.
#[test]
fn writes_in_flight_are_finished() {
    let dir = scratch();
    let node = Node::start(dir.path(), &[("MEMTABLE_SIZE", "64KB")], &[]);
    let port = node.port;
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            std::thread::spawn(move || {
                let mut client = Connection::open(port).expect("it runs");
                let mut answered = 0;
                while let Ok(answer) = client.put(&format!("w{writer}:{answered}"), "value") {
                    if answer.status != 200 {
                        break;
                    }
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    let mut client = node.connect();
    while client.get("/get?key=w0:100").expect("an answer").status != 200 {}
    assert_eq!(node.stop().code(), Some(0));
    let answered: Vec<u32> = writers
        .into_iter()
        .map(|writer| writer.join().expect("writers do not panic"))
        .collect();
    let node = Node::start(dir.path(), &[("MEMTABLE_SIZE", "64KB")], &[]);
    let mut client = node.connect();
    for (writer, count) in answered.iter().enumerate() {
        for n in 0..*count {
            let key = format!("w{writer}:{n}");
            let answer = client.get(&format!("/get?key={key}")).expect("an answer");
            assert_eq!(
                (answer.status, answer.text().as_str()),
                (200, "value"),
                "{key} of {count}"
            );
        }
    }
}

/// The process title stays what was typed: scripts look for it (`pkill -f "kvstore.*8083"`).
#[test]
fn the_command_line_stays_visible() {
    let dir = scratch();
    let node = Node::start(dir.path(), &[], &["-cores", "1"]);
    let line = std::fs::read(format!("/proc/{}/cmdline", node.pid())).expect("it runs");
    let words: Vec<&[u8]> = line.split(|&byte| byte == 0).collect();
    assert_eq!(
        words[1..3],
        [&b"-port"[..], node.port.to_string().as_bytes()]
    );
}

/// A put whose last byte is missing: the node has to wait for it.
fn half_a_put(node: &Node) -> Connection {
    let mut client = node.connect();
    // Answered, so that the next request is known to be read.
    assert_eq!(client.put("k", "1").expect("an answer").text(), "OK");
    let body = r#"{"key":"k","value":"2"}"#;
    let request = format!(
        "POST /put HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    client
        .send(&request.as_bytes()[..request.len() - 1])
        .expect("it runs");
    std::thread::sleep(Duration::from_millis(200));
    client
}

/// As `timeout` stops a process: the child and then its group.
#[test]
fn two_signals_at_once_are_one_request() {
    let dir = scratch();
    let node = Node::start(dir.path(), &[], &["-cores", "1"]);
    let mut client = half_a_put(&node);
    node.signal("TERM");
    node.signal("TERM");
    std::thread::sleep(Duration::from_millis(200));
    client.send(b"}").expect("it waits for this");
    assert_eq!(client.answer().expect("an answer").text(), "OK");
    assert_eq!(node.ended().code(), Some(0));
}

#[test]
fn a_later_signal_ends_it_at_once_and_says_so() {
    let dir = scratch();
    let node = Node::start(dir.path(), &[], &["-cores", "1"]);
    let _waits = half_a_put(&node);
    node.signal("INT");
    std::thread::sleep(Duration::from_millis(1100));
    node.signal("INT");
    let printed = node.cwd.join("printed");
    assert_eq!(node.ended().code(), Some(130));
    let printed = std::fs::read_to_string(printed).expect("it printed");
    assert!(
        printed.ends_with(
            "hint: everything answered OK is on disk; the next start reads the log again\n"
        ),
        "{printed}"
    );
}
