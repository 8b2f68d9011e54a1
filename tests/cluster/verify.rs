//! `kvstore verify` against three nodes, one of which is killed and started again meanwhile.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use crate::process::{command, output, scratch};
use crate::trio::{Trio, get, ports};

/// The first lines of what verify says come when its clients are about to start: the node dies under them.
#[test]
fn verify_watches_a_node_die_and_come_back() {
    let mut trio = Trio::start(&[]);
    let dir = scratch();
    let urls = [0, 1, 2].map(|at| format!("http://localhost:{}", trio.port(at)));
    let mut child = command(dir.path())
        .args(["verify", "-duration", "3s", "-seed", "7"])
        .args(&urls)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut told = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut text = String::new();
    told.read_line(&mut text).expect("text");
    assert!(
        text.starts_with("3 nodes, N=3 W=2 R=2, 8 clients, 24 keys at a time, 3s, seed 7, "),
        "{text}"
    );
    trio.kill(1);
    trio.knows_of_the_dead();
    trio.begin(1);
    told.read_to_string(&mut text).expect("text");
    let ended = child.wait().expect("it ends");
    assert_eq!(ended.code(), Some(0), "{text}");
    assert!(text.ends_with("all promises kept\n"), "{text}");
    println!("{text}");
    // It leaves nothing behind.
    trio.is_whole();
    for node in trio.running() {
        assert_eq!(get(node, "/scan?r=3"), (200, "{}\n".to_owned()));
    }
}

#[test]
fn verify_needs_somebody_to_ask_and_quorums_that_can_be_met() {
    let dir = scratch();
    let [nobody] = ports();
    let url = format!("localhost:{nobody}");
    let found = output(command(dir.path()).args(["verify", &url]));
    let text = String::from_utf8_lossy(&found.stderr).into_owned();
    assert_eq!(found.status.code(), Some(3), "{text}");
    assert!(text.contains("nobody answers at"), "{text}");

    let trio = Trio::start(&[]);
    let url = format!("localhost:{}", trio.port(0));
    let found = output(command(dir.path()).args(["verify", "-w", "4", &url]));
    let text = String::from_utf8_lossy(&found.stderr).into_owned();
    assert_eq!(found.status.code(), Some(2), "{text}");
    assert!(
        text.contains("-w 4 is more than the 3 replicas there are of a key"),
        "{text}"
    );
}
