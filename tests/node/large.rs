//! The most expensive requests the limits allow: the node answers or refuses them, and goes on serving others.
//!
//! A core that does not come round within the watchdog's patience ends the process, so "alive at the end" is
//! the statement; nothing here looks at a clock.

use std::thread;

use crate::client::Connection;
use crate::process::{Node, scratch};

const VALUE_BYTES: usize = 8 << 20;

/// A node with eight values of the greatest length, whichever cores they lie on.
fn with_large_values(dir: &std::path::Path) -> Node {
    let node = Node::start(dir, &[], &[]);
    let value = "v".repeat(VALUE_BYTES);
    let mut client = node.connect();
    for n in 0..8 {
        let stored = client.put(&format!("big{n}"), &value).expect("an answer");
        assert_eq!((stored.status, stored.text().as_str()), (200, "OK"));
    }
    node
}

fn is_alive(node: Node) {
    let health = node.connect().get("/health").expect("it serves");
    assert_eq!(health.status, 200);
    assert_eq!(node.stop().code(), Some(0));
}

#[test]
fn pipelined_reads_of_the_largest_values_whether_read_or_not() {
    let dir = scratch();
    let node = with_large_values(dir.path());
    let request = |n: usize| {
        format!(
            "GET /get?key=big{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
            n % 8
        )
    };
    let all: String = (0..128).map(request).collect();
    let mut deaf = Vec::new();
    for _ in 0..4 {
        let mut client = node.connect();
        client.send(all.as_bytes()).expect("requests are small");
        deaf.push(client);
    }
    let mut reader = node.connect();
    reader.send(all.as_bytes()).expect("requests are small");
    for n in 0..128 {
        let answer = reader.answer().expect("an answer");
        assert!(
            answer.status == 503 || answer.body.len() == VALUE_BYTES,
            "answer {n}: {} with {} bytes",
            answer.status,
            answer.body.len()
        );
    }
    drop(deaf);
    is_alive(node);
}

#[test]
fn many_clients_read_the_largest_values_at_once() {
    let dir = scratch();
    let node = with_large_values(dir.path());
    let port = node.port;
    let readers: Vec<_> = (0..150)
        .map(|n| {
            thread::spawn(move || {
                let mut client = Connection::open(port).expect("it accepts");
                client.get(&format!("/get?key=big{}", n % 8))
            })
        })
        .collect();
    let mut whole = 0;
    for reader in readers {
        // A client that is slow while the node is full may be cut; it never gets a wrong value.
        if let Ok(answer) = reader.join().expect("no panic") {
            assert!(answer.status == 503 || answer.body.len() == VALUE_BYTES);
            whole += usize::from(answer.status == 200);
        }
    }
    assert!(whole > 0, "some are served");
    is_alive(node);
}

#[test]
fn a_batch_of_as_many_items_as_fit_is_refused_or_done() {
    let dir = scratch();
    let node = Node::start(dir.path(), &[], &["-cores", "1"]);
    let items = |count: usize| {
        let items: Vec<String> = (0..count)
            .map(|n| format!(r#"{{"key":"{n:06x}","value":""}}"#))
            .collect();
        format!(r#"{{"items":[{}]}}"#, items.join(","))
    };
    let mut client = node.connect();
    let most = client
        .post("/batch", items(65_536).as_bytes())
        .expect("an answer");
    assert_eq!(
        (most.status, most.text().as_str()),
        (200, "Batch Processed")
    );
    let more = client
        .post("/batch", items(2_300_000).as_bytes())
        .expect("an answer");
    assert_eq!(
        (more.status, more.text().as_str()),
        (413, "more than 65536 items; send several batches\n")
    );
    is_alive(node);
}
