//! Machines that grant too little: limits, memory for a disk, a disk without direct I/O.

use std::path::Path;
use std::process::Command;

use crate::client::Connection;
use crate::process::{Node, command, free_port, output, scratch};
use crate::start::refused;

/// The program under a shell that first does `before` (`ulimit`, say).
fn under(before: &str, cwd: &Path) -> Command {
    let program = command(cwd);
    let mut shell = Command::new("bash");
    shell
        .current_dir(cwd)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .args(["-c", &format!("{before} && exec \"$0\" \"$@\"")])
        .arg(program.get_program())
        .args(["-port", &free_port().to_string()]);
    shell
}

#[test]
fn a_directory_in_memory_is_warned_of() {
    let Ok(place) = tempfile::tempdir_in("/dev/shm") else {
        println!("skipped: /dev/shm cannot be used");
        return;
    };
    let dir = scratch();
    let data = place.path().join("data").display().to_string();
    let node = Node::start(dir.path(), &[], &["-cores", "1", "-dir", &data]);
    let printed = node.printed();
    assert!(
        printed.contains(&format!(
            "WARN {data} is in memory (tmpfs): nothing in it survives a reboot\n"
        )),
        "{printed}"
    );
    assert!(node.stop().success());
    let node = Node::start(dir.path(), &[], &["-cores", "1"]);
    assert!(!node.printed().contains("in memory"), "{}", node.printed());
}

/// ramfs has no direct I/O; a mount namespace of its own keeps the mount to the child.
#[test]
fn without_direct_io_nothing_is_written() {
    let dir = scratch();
    std::fs::create_dir(dir.path().join("ram")).expect("scratch is writable");
    let run = |script: &str| {
        let program = command(dir.path());
        let mut unshare = Command::new("unshare");
        unshare
            .current_dir(dir.path())
            .args(["-m", "bash", "-c"])
            .arg(format!("mount -t ramfs none ram && {script}"))
            .arg(program.get_program())
            .args(["-port", &free_port().to_string(), "-dir", "./ram/data"]);
        output(&mut unshare)
    };
    if !run("true").status.success() {
        println!("skipped: no ramfs can be mounted");
        return;
    }
    let (error, hint) = refused(&run("exec \"$0\" \"$@\""), 1);
    assert!(
        error.starts_with("data dir ./ram/data is on ramfs: no direct I/O"),
        "{error}"
    );
    assert!(hint.contains("ext4 or xfs"), "{hint}");
    let left = run("{ \"$0\" \"$@\" 2>&1; find ram -type f; }");
    let left = String::from_utf8_lossy(&left.stdout).into_owned();
    assert!(
        left.ends_with("file system\n"),
        "nothing but the refusal: {left}"
    );
}

#[test]
fn too_few_files_for_a_start_are_refused() {
    let dir = scratch();
    let (error, hint) = refused(
        &output(under("ulimit -n 40", dir.path()).args(["-cores", "1"])),
        1,
    );
    assert_eq!(error, "open-file limit is 40, need at least 49");
    assert!(hint.contains("ulimit -n 65536"), "{hint}");
    assert!(!dir.path().join("data").exists(), "nothing was touched");
}

/// Clients beyond the limit wait in silence; the operator must not.
#[test]
fn clients_that_cannot_be_accepted_are_told_to_the_operator() {
    let dir = scratch();
    let node = Node::start_under("ulimit -n 100", dir.path(), &["-cores", "1"]);
    let warned = node.printed();
    assert!(
        warned.contains("WARN only 100 files may be open"),
        "{warned}"
    );
    let clients: Vec<_> = (0..120)
        .map(|_| Connection::open(node.port).expect("the kernel lets them wait"))
        .collect();
    let text = "clients wait, no more connections can be accepted";
    let log = || std::fs::read_to_string(dir.path().join("data/node.log")).expect("it exists");
    let since = std::time::Instant::now();
    while !log().contains(text) {
        assert!(since.elapsed().as_secs() < 20, "no word of it: {}", log());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    let log = log();
    assert_eq!(log.matches(text).count(), 1, "once a minute: {log}");
    assert!(log.contains("ulimit -n"), "{log}");
    drop(clients);
    assert!(node.stop().success());
}

/// Nothing is damaged, so a backup must not be spoken of.
#[test]
fn a_limit_hit_at_the_start_is_named_as_one() {
    let dir = scratch();
    let run = output(under("ulimit -f 1000", dir.path()).args(["-cores", "1", "-dir", "./data"]));
    let stderr = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("error: shard 0 cannot be opened: "),
        "{stderr}"
    );
    assert!(
        stderr.contains("ulimit -f") && !stderr.contains("backup"),
        "{stderr}"
    );
    // The same directory without the limit: it was fine all along.
    let node = Node::start(dir.path(), &[], &["-cores", "1"]);
    assert!(node.stop().success());
}
