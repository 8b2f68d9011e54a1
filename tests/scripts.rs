//! The scripts of tests/scripts, each run once as people run it, with small sizes.
//!
//! On ports that are free and in folders below `target/tmp`, so that they may run beside each other. A script that
//! takes too long is asked to end by `timeout`, and then ends its nodes as after Ctrl-C.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

fn script(name: &str, settings: &[(&str, &str)]) -> Command {
    let built = || env!("CARGO_BIN_EXE_kvstore").into();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after=20", "100"])
        .arg(folder.join(name))
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("TMPDIR", env!("CARGO_TARGET_TMPDIR"))
        .env(
            "KVSTORE_BIN",
            std::env::var_os("KVSTORE_BIN").unwrap_or_else(built),
        )
        .env("PORT", "0")
        .envs(settings.iter().copied())
        .stdin(Stdio::null());
    command
}

#[expect(clippy::print_stdout, reason = "whoever reads the log shall know")]
fn curl_is_missing() -> bool {
    let missing = Command::new("curl").arg("--version").output().is_err();
    if missing {
        println!("skipped: curl is not installed");
    }
    missing
}

fn passes(name: &str, settings: &[(&str, &str)]) {
    if curl_is_missing() {
        return;
    }
    let run = script(name, settings).output().expect("timeout is there");
    let (out, errors) = (
        String::from_utf8_lossy(&run.stdout),
        String::from_utf8_lossy(&run.stderr),
    );
    assert!(run.status.success(), "{}\n{out}\n{errors}", run.status);
    assert!(out.ends_with(" passed, 0 failed\n"), "{out}\n{errors}");
    assert!(out.contains("\nPASS  "), "{out}");
    assert!(!out.contains("\nFAIL  "), "{out}\n{errors}");
}

#[test]
fn ingress() {
    passes("ingress_script.sh", &[]);
}

#[test]
fn cluster() {
    passes("test_cluster.sh", &[]);
}

#[test]
fn failover() {
    passes("test_failover.sh", &[("KEYS", "60")]);
}

#[test]
fn recovery() {
    passes(
        "test_recovery.sh",
        &[("ROUNDS", "1"), ("ANSWERS_MIN", "100")],
    );
}

#[test]
fn intensity() {
    let few = [("CONNECTIONS", "3"), ("REQUESTS", "50"), ("KEYS", "600")];
    for name in [
        "test_read_intensity.sh",
        "test_write_intensity.sh",
        "test_mixed_workload.sh",
    ] {
        passes(name, &few);
    }
}

/// The newcomer's cluster: what it says one may try works, and asked to end it ends all three nodes.
#[test]
fn the_cluster_of_a_newcomer() {
    if curl_is_missing() {
        return;
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target/tmp is writable");
    let place = dir.path().to_str().expect("the path is UTF-8");
    let mut child = script("start_cluster.sh", &[("DIR", place)])
        .stdout(Stdio::piped())
        .spawn()
        .expect("timeout is there");
    let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut said = String::new();
    while !said.contains("Ctrl-C stops") {
        let read = out.read_line(&mut said).expect("it prints text");
        assert!(read > 0, "it ended:\n{said}");
    }
    let mut commands = said
        .lines()
        .map(str::trim)
        .filter(|it| it.starts_with("curl "));
    let mut answer = || {
        let command = commands.next().expect("it says what to try");
        let run = |_| Command::new("sh").args(["-c", command]).output();
        // A value that was written to one node is a moment later on the others, and so is the news of a peer on all cores.
        let mut tries = (0..500).map(run).map(|it| it.expect("a shell").stdout);
        let is_early = |answer: &Vec<u8>| {
            answer == b"Not Found\n" || answer.starts_with(b"{\"status\":\"degraded\"")
        };
        tries.find(|answer| !is_early(answer)).unwrap_or_default()
    };
    assert_eq!(answer(), b"OK", "{said}");
    assert_eq!(answer(), b"Alice Smith", "{said}");
    assert!(answer().starts_with(b"{\"status\":\"ok\""), "{said}");
    let kill = format!("kill -TERM {}", child.id());
    let sent = Command::new("sh").args(["-c", &kill]).status();
    assert!(sent.expect("a shell").success());
    out.read_to_string(&mut said).expect("it prints text");
    let status = child.wait().expect("it is our child");
    // `timeout` passes the signal on and the script's exit code back.
    assert!(status.success(), "{status}\n{said}");
    assert!(said.contains("\nstopped; the data is in "), "{said}");
    for at in 1..=3 {
        let node = dir.path().join(format!("node{at}/NODE"));
        assert!(node.exists(), "the data stays");
    }
}
