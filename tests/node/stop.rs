//! Stopping as asked: what was begun is finished, the exit code is 0, and the next start finds all of it.

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
                let mut client = crate::client::Connection::open(port).expect("it runs");
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
