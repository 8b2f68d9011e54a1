//! Three nodes with a network each, joined by a bridge in a fourth, and cuts between them.
//!
//! ```text
//!  kvt-<pid>-1       kvt-<pid>-2       kvt-<pid>-3        namespaces; nothing leads out of them
//!   10.77.0.1         10.77.0.2         10.77.0.3         one node each, clients beside it
//!       └─ v1 ─────────── v2 ─────────── v3 ─ bridge in kvt-<pid>-sw, where frames are dropped
//! ```
//!
//! Needs root, `ip`, `nft` and `curl`; without them the test is skipped and says why.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::process::{Node, command, scratch};
use crate::trio::{LOOKS, until};

const PORT: u16 = 8081;
/// The bridge's rules live in one table, so that healing is taking it away.
const TABLE: &str = "part";

/// Namespaces and their nodes, gone when dropped.
struct Networks {
    prefix: String,
    nodes: Vec<Node>,
    dir: TempDir,
}

impl Networks {
    /// The error is why this machine cannot.
    fn new() -> Result<Networks, String> {
        for (tool, ask) in [("ip", "-V"), ("nft", "-v"), ("curl", "-V")] {
            let found = Command::new(tool).arg(ask).output();
            found.map_err(|error| format!("{tool}: {error}"))?;
        }
        let networks = Networks {
            prefix: format!("kvt-{}", std::process::id()),
            nodes: Vec::new(),
            dir: scratch(),
        };
        let switch = networks.name("sw");
        // What may be forbidden: making a namespace, a bridge, and rules for it.
        try_run("ip", &["netns", "add", &switch])?;
        try_run(
            "ip",
            &["-n", &switch, "link", "add", "br0", "type", "bridge"],
        )?;
        networks.try_nft("add table bridge probe")?;
        run("ip", &["-n", &switch, "link", "set", "br0", "up"]);
        for at in 1..=3 {
            networks.join(&switch, at);
        }
        Ok(networks)
    }

    fn join(&self, switch: &str, at: usize) {
        let (own, port) = (self.name(&at.to_string()), format!("v{at}"));
        let ip = |words: &str| run("ip", &words.split(' ').collect::<Vec<_>>());
        ip(&format!("netns add {own}"));
        ip(&format!(
            "-n {switch} link add {port} type veth peer name eth0 netns {own}"
        ));
        ip(&format!("-n {switch} link set {port} master br0 up"));
        ip(&format!("-n {own} addr add 10.77.0.{at}/24 dev eth0"));
        ip(&format!("-n {own} link set eth0 up"));
        ip(&format!("-n {own} link set lo up"));
    }

    fn name(&self, part: &str) -> String {
        format!("{}-{part}", self.prefix)
    }

    /// A command in the network of a node.
    fn inside(&self, at: usize, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(&at.to_string()), program]);
        command
    }

    fn start(&mut self) {
        for at in 1..=3 {
            let cwd = self.dir.path().join(format!("node{at}"));
            std::fs::create_dir_all(&cwd).expect("scratch is writable");
            let node = self.start_one(at, &cwd);
            self.nodes.push(node);
        }
        for at in 1..=3 {
            self.is(at, "ok", &[]);
        }
    }

    fn start_one(&self, at: usize, cwd: &Path) -> Node {
        let binary = command(cwd).get_program().to_string_lossy().into_owned();
        let mut program = self.inside(at, &binary);
        program
            .current_dir(cwd)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("CLUSTER_WRITE_QUORUM", "2")
            .env("CLUSTER_READ_QUORUM", "2");
        let own = format!("10.77.0.{at}");
        let peers = format!("10.77.0.1:{PORT},10.77.0.2:{PORT},10.77.0.3:{PORT}");
        let advertise = format!("{own}:{PORT}");
        let flags = [
            "-listen",
            &own,
            "-insecure-no-auth",
            "-advertise",
            &advertise,
            "-peers",
            &peers,
        ];
        match Node::try_run(program, cwd, PORT, &flags) {
            Ok(node) => node,
            Err(text) => panic!("node {at} does not start:\n{text}"),
        }
    }

    fn try_nft(&self, rule: &str) -> Result<Output, String> {
        let words = ["netns", "exec", &self.name("sw"), "nft"];
        let words: Vec<&str> = words.into_iter().chain(rule.split(' ')).collect();
        try_run("ip", &words)
    }

    fn nft(&self, rule: &str) {
        if let Err(error) = self.try_nft(rule) {
            panic!("{error}");
        }
    }

    /// Frames from one node to another are lost from now on.
    fn cut(&self, ways: &[(usize, usize)]) {
        self.nft(&format!("add table bridge {TABLE}"));
        self.nft(&format!(
            "add chain bridge {TABLE} cut {{ type filter hook forward priority 0 ; policy accept ; }}"
        ));
        for (from, to) in ways {
            self.nft(&format!(
                "add rule bridge {TABLE} cut iifname v{from} oifname v{to} drop"
            ));
        }
    }

    fn heal(&self) {
        self.nft(&format!("delete table bridge {TABLE}"));
        for at in 1..=3 {
            self.is(at, "ok", &[]);
        }
    }

    /// A request from beside the node: status and body.
    fn ask(&self, at: usize, target: &str, body: Option<&str>) -> (u16, String) {
        let mut curl = self.inside(at, "curl");
        curl.args(["-s", "--max-time", "20", "-w", "\n%{http_code}"]);
        if let Some(body) = body {
            curl.args(["-X", "POST", "-d", body]);
        }
        let url = format!("http://10.77.0.{at}:{PORT}{target}");
        let output = curl.arg(url).output().expect("ip runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, code) = text.rsplit_once('\n').expect("a code behind the body");
        (code.parse().expect("a code"), body.to_owned())
    }

    fn put(&self, at: usize, target: &str, key: &str, value: &str) -> (u16, String) {
        let body = format!(r#"{{"key":"{key}","value":"{value}"}}"#);
        self.ask(at, target, Some(&body))
    }

    /// Waits until all cores of a node say this of its health, and that exactly these peers are down.
    fn is(&self, at: usize, status: &str, down: &[usize]) {
        let mut wanted = vec![format!("\"status\":\"{status}\"")];
        for other in (1..=3).filter(|other| *other != at) {
            let state = if down.contains(&other) { "down" } else { "up" };
            wanted.push(format!(
                "{{\"name\":\"10.77.0.{other}:{PORT}\",\"state\":\"{state}\"}}"
            ));
        }
        until(&format!("{status}: node {at}"), || {
            for _ in 0..LOOKS {
                let (_, text) = self.ask(at, "/health", None);
                if !wanted.iter().all(|words| text.contains(words)) {
                    return Err(text);
                }
            }
            Ok(())
        });
    }

    /// Waits until each node, asked for its own copy, has the same answer.
    fn all_have(&self, key: &str, want: (u16, &str)) {
        for at in 1..=3 {
            until(&format!("{want:?}: {key} on node {at}"), || {
                let found = self.ask(at, &format!("/get?key={key}&r=1"), None);
                let so = (found.0, found.1.as_str()) == want;
                so.then_some(()).ok_or(format!("{found:?}"))
            });
        }
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        self.nodes.clear();
        for part in ["1", "2", "3", "sw"] {
            // Those that were never made cannot be taken away.
            try_run("ip", &["netns", "del", &self.name(part)]).ok();
        }
    }
}

fn try_run(program: &str, words: &[&str]) -> Result<Output, String> {
    let output = Command::new(program).args(words).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(output),
        false => Err(format!(
            "{program} {}: {}",
            words.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}

fn run(program: &str, words: &[&str]) {
    if let Err(error) = try_run(program, words) {
        panic!("{error}");
    }
}

#[test]
fn partitions() {
    let mut networks = match Networks::new() {
        Ok(networks) => networks,
        Err(why) => {
            println!("skipped: {why}");
            return;
        }
    };
    networks.start();
    for key in ["k", "d", "both"] {
        let stored = networks.put(1, "/put?w=3", key, "old");
        assert_eq!(stored, (200, "OK".to_owned()));
    }
    one_node_is_cut_off(&networks);
    frames_are_lost_one_way(&networks);
}

/// The minority serves what needs one copy and says no to the rest; the majority does not notice. Afterwards the
/// newest version of each key is everywhere, deletions included.
fn one_node_is_cut_off(networks: &Networks) {
    networks.cut(&[(1, 2), (2, 1), (1, 3), (3, 1)]);
    networks.is(1, "degraded", &[2, 3]);
    networks.is(2, "degraded", &[1]);
    networks.is(3, "degraded", &[1]);

    let (status, text) = networks.put(1, "/put", "refused", "v");
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("outcome: not_applied"), "{text}");
    let (status, text) = networks.ask(1, "/get?key=k", None);
    assert_eq!(status, 503, "{text}");
    let (status, text) = networks.ask(1, "/scan", None);
    assert_eq!(status, 503, "{text}");
    let alone = networks.ask(1, "/get?key=k&r=1", None);
    assert_eq!(alone, (200, "old".to_owned()));
    assert_eq!(networks.put(1, "/put?w=1", "both", "minority").0, 200);
    assert_eq!(networks.put(1, "/put?w=1", "island", "v").0, 200);

    assert_eq!(networks.put(2, "/put", "k", "new").0, 200);
    assert_eq!(networks.put(3, "/put", "both", "majority").0, 200);
    assert_eq!(networks.ask(2, "/delete?key=d", Some("")).0, 200);
    for at in [2, 3] {
        let found = networks.ask(at, "/get?key=k", None);
        assert_eq!(found, (200, "new".to_owned()), "node {at}");
        assert_eq!(networks.ask(at, "/get?key=d", None).0, 404, "node {at}");
    }
    let (status, text) = networks.put(2, "/put?w=3", "refused", "v");
    assert_eq!(status, 503, "{text}");

    networks.heal();
    networks.all_have("k", (200, "new"));
    networks.all_have("both", (200, "majority"));
    networks.all_have("island", (200, "v"));
    networks.all_have("d", (404, "Not Found\n"));
    networks.all_have("refused", (404, "Not Found\n"));
}

/// What the first sends to the second is lost, the other way is open: both count each other as down, for neither
/// can get an answer; the third sees both.
fn frames_are_lost_one_way(networks: &Networks) {
    networks.cut(&[(1, 2)]);
    networks.is(1, "degraded", &[2]);
    networks.is(2, "degraded", &[1]);
    networks.is(3, "ok", &[]);

    for (from, to) in [(1, 2), (2, 1)] {
        let key = format!("from{from}");
        assert_eq!(
            networks.put(from, "/put", &key, "v").0,
            200,
            "1 or 2, and 3"
        );
        let found = networks.ask(to, &format!("/get?key={key}"), None);
        assert_eq!(found, (200, "v".to_owned()), "quorums meet in node 3");
        let (status, text) = networks.put(from, "/put?w=3", "refused", "v");
        assert_eq!(status, 503, "{text}");
        assert!(text.contains("outcome: not_applied"), "{text}");
    }
    assert_eq!(networks.put(3, "/put?w=3", "from3", "v").0, 200);

    networks.heal();
    for key in ["from1", "from2", "from3"] {
        networks.all_have(key, (200, "v"));
    }
    networks.all_have("refused", (404, "Not Found\n"));
}
