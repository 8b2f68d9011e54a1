//! Three nodes on loopback, each with a directory of its own, that name each other as peers.

use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::client::Connection;
use crate::process::{Node, scratch};

/// What has not come by then does not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Looks again and again until it is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> Result<(), String>) {
    let since = Instant::now();
    loop {
        match is_so() {
            Ok(()) => return,
            Err(seen) if since.elapsed() > PATIENCE => panic!("not {what}; seen last: {seen}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Ports that are free and stay so: below those the kernel gives to clients, or a dial to a node that is not there
/// could meet itself (TCP's simultaneous open), and take the port besides.
pub(crate) fn ports<const N: usize>() -> [u16; N] {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id() as u16;
    std::array::from_fn(|_| {
        loop {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let port = 10_240 + start.wrapping_mul(97).wrapping_add(step) % 20_000;
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return port;
            }
        }
    })
}

/// `localhost:8081,localhost:8082`.
pub(crate) fn list(ports: &[u16]) -> String {
    let names: Vec<String> = ports
        .iter()
        .map(|port| format!("localhost:{port}"))
        .collect();
    names.join(",")
}

/// A member on `<dir>/<name>/data`.
pub(crate) fn member(
    dir: &Path,
    name: &str,
    port: u16,
    settings: &[(&str, &str)],
    flags: &[&str],
) -> Node {
    let cwd = dir.join(name);
    std::fs::create_dir_all(&cwd).expect("scratch is writable");
    match Node::try_start(&cwd, port, settings, flags) {
        Ok(node) => node,
        Err(text) => panic!("node {name} does not start:\n{text}"),
    }
}

/// What a node has written to its log since its directory was created.
pub(crate) fn log(node: &Node) -> String {
    std::fs::read_to_string(node.cwd.join("data/node.log")).expect("a running node has a log")
}

/// Waits for a line with `text` in the log of a node.
pub(crate) fn tells(node: &Node, text: &str) {
    until(&format!("told: {text}"), || {
        let log = log(node);
        log.contains(text).then_some(()).ok_or(log)
    });
}

/// How often a node is asked for its health in a row: each connection comes to one of its cores, and each core has
/// eyes of its own.
pub(crate) const LOOKS: usize = 12;

/// Waits until `/health` of a node says so, on all cores: its status code and the word in its body.
pub(crate) fn is(node: &Node, code: u16, status: &str) {
    until(&format!("{status}: port {}", node.port), || {
        for _ in 0..LOOKS {
            let answer = node.connect().get("/health").map_err(|e| e.to_string())?;
            let text = answer.text();
            if answer.status != code || !text.contains(&format!("\"status\":\"{status}\"")) {
                return Err(format!("{} {text}", answer.status));
            }
        }
        Ok(())
    });
}

/// A write that must be answered `OK`.
pub(crate) fn put(node: &Node, target: &str, key: &str, value: &str) {
    let body = format!(r#"{{"key":"{key}","value":"{value}"}}"#);
    let answer = node.connect().post(target, body.as_bytes());
    let answer = answer.expect("an answer");
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "OK"),
        "{key}"
    );
}

/// Status and body of a GET.
pub(crate) fn get(node: &Node, target: &str) -> (u16, String) {
    let answer = node.connect().get(target).expect("an answer");
    (answer.status, answer.text())
}

pub(crate) struct Trio {
    dir: TempDir,
    ports: [u16; 3],
    nodes: [Option<Node>; 3],
    settings: Vec<(String, String)>,
}

impl Trio {
    /// Three nodes that see each other.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Trio {
        let own = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        let mut trio = Trio {
            dir: scratch(),
            ports: ports(),
            nodes: [None, None, None],
            settings: settings.iter().map(own).collect(),
        };
        for at in 0..3 {
            trio.begin(at);
        }
        trio.is_whole();
        trio
    }

    /// Starts a node that is not running.
    pub(crate) fn begin(&mut self, at: usize) {
        let others: Vec<u16> = (0..3)
            .filter(|other| *other != at)
            .map(|other| self.ports[other])
            .collect();
        let settings: Vec<(&str, &str)> = self
            .settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let peers = list(&others);
        let mut flags = vec!["-peers", &peers];
        // Members may well have different numbers of cores.
        if at == 2 {
            flags.extend(["-cores", "1"]);
        }
        let name = format!("node{}", at + 1);
        let port = self.ports[at];
        self.nodes[at] = Some(member(self.dir.path(), &name, port, &settings, &flags));
    }

    pub(crate) fn node(&self, at: usize) -> &Node {
        self.nodes[at].as_ref().expect("it runs")
    }

    pub(crate) fn port(&self, at: usize) -> u16 {
        self.ports[at]
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().flatten()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, at: usize) {
        self.nodes[at].take().expect("it runs").kill();
    }

    /// SIGTERM; it ends as it should.
    pub(crate) fn stop(&mut self, at: usize) {
        let ended = self.nodes[at].take().expect("it runs").stop();
        assert_eq!(ended.code(), Some(0));
    }

    /// Waits until all three see all three.
    pub(crate) fn is_whole(&self) {
        for at in 0..3 {
            is(self.node(at), 200, "ok");
        }
    }

    /// Waits until the running nodes know that another does not run.
    pub(crate) fn knows_of_the_dead(&self) {
        for node in self.running() {
            is(node, 200, "degraded");
        }
    }

    pub(crate) fn connect(&self, at: usize) -> Connection {
        self.node(at).connect()
    }

    pub(crate) fn put(&self, at: usize, key: &str, value: &str) {
        put(self.node(at), "/put", key, value);
    }

    /// What one node answers out of its own copy.
    pub(crate) fn get(&self, at: usize, key: &str) -> (u16, String) {
        get(self.node(at), &format!("/get?key={key}&r=1"))
    }
}
