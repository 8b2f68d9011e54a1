//! Starting: banner, log, precedence of settings, and every way a start fails.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::process::{Node, command, free_port, output, scratch};

/// One `error:` line, one `hint:` line, nothing else: no banner, no panic text.
pub(crate) fn refused(output: &Output, exit: i32) -> (String, String) {
    let stderr = String::from_utf8(output.stderr.clone()).expect("messages are UTF-8");
    assert_eq!(output.status.code(), Some(exit), "{stderr}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let lines: Vec<&str> = stderr.lines().collect();
    match lines[..] {
        [error, hint] => (
            error
                .strip_prefix("error: ")
                .expect("an error line")
                .to_string(),
            hint.strip_prefix("hint: ")
                .expect("a hint line")
                .to_string(),
        ),
        _ => panic!("not two lines: {stderr}"),
    }
}

#[test]
fn the_banner_is_the_originals_on_stdout_and_in_node_log() {
    let dir = scratch();
    let node = Node::start(dir.path(), &[], &["-cores", "1"]);
    let printed = node.printed();
    let lines: Vec<&str> = printed.lines().collect();
    let rule = "===============================================";
    assert_eq!(
        lines[..10],
        [
            rule,
            " kv-store Starting...",
            rule,
            &format!("Port:             {}", node.port),
            "Data Directory:   ./data",
            "MemTable Size:    64 MB",
            "Virtual Nodes:    10",
            "Replication (N):  1",
            "Write Quorum (W): 1",
            "Read Quorum (R):  1",
        ]
    );
    let [loaded, replayed, hints, r1, running, r2] = lines[lines.len() - 6..] else {
        panic!("a short banner: {printed}");
    };
    assert!(loaded.starts_with("✓ Loaded 0 SSTables in "), "{loaded}");
    assert!(
        replayed.starts_with("✓ Replayed 0 WAL entries in "),
        "{replayed}"
    );
    for line in [loaded, replayed] {
        assert!(
            ["ns", "µs", "ms", "s"]
                .iter()
                .any(|unit| line.ends_with(unit)),
            "{line}"
        );
    }
    assert_eq!(hints, "✓ Hinted Handoff: ACTIVE");
    assert_eq!((r1, r2), (rule, rule));
    assert_eq!(
        running,
        format!(" kv-store Node running on port {}", node.port)
    );
    let log = std::fs::read_to_string(dir.path().join("data/node.log")).expect("node.log exists");
    let (first, rest) = log.split_once('\n').expect("lines");
    assert!(
        first.ends_with(&format!(
            "Z INFO kvstore {} starts: pid {}, directory ./data, shards 1, cores 1",
            env!("CARGO_PKG_VERSION"),
            node.pid()
        )),
        "when, what and who: {first}"
    );
    assert_eq!(rest, printed, "then the banner, and nothing else yet");
    assert!(node.stop().success());
}

#[test]
fn flag_beats_environment_beats_file() {
    let dir = scratch();
    std::fs::write(
        dir.path().join(".env"),
        "NET_PORT=1\nMEMTABLE_SIZE=33554432   # 32MB\nexport CLUSTER_VIRTUAL_NODES=\"20\"\r\nMAX_LO_FILES=4\n",
    )
    .expect("scratch is writable");
    let node = Node::start(
        dir.path(),
        &[
            ("NET_PORT", "2"),
            ("CLUSTER_VIRTUAL_NODES", "30 # inline"),
            ("MEMTABLE_SIZE", ""),
            ("KVSTORE_DRI", "x"),
        ],
        &["--cores=1"],
    );
    let printed = node.printed();
    for line in [
        format!("Port:             {}\n", node.port),
        "MemTable Size:    32 MB\n".to_string(),
        "Virtual Nodes:    30\n".to_string(),
    ] {
        assert!(printed.contains(&line), "{line}{printed}");
    }
    assert!(
        printed.contains(
            "WARN .env:4: unknown setting MAX_LO_FILES (ignored); did you mean MAX_L0_FILES?\n"
        ),
        "{printed}"
    );
    assert!(
        printed.contains(
            "WARN environment: unknown setting KVSTORE_DRI (ignored); did you mean KVSTORE_DIR?\n"
        ),
        "{printed}"
    );
    assert!(node.stop().success());
}

#[test]
fn usage_errors_exit_2_with_a_suggestion() {
    let dir = scratch();
    for (args, error, hint) in [
        (
            &["-prot", "8081"][..],
            "unknown flag -prot",
            "did you mean -port?",
        ),
        (
            &["--pears", "x"],
            "unknown flag -pears",
            "did you mean -peers?",
        ),
        (&["start"], "\"start\" is not a flag", "-help"),
        (&["sim"], "sim needs a -seed", "kvstore sim -seed 72"),
        (
            &["sim", "-seed", "soon"],
            "-seed \"soon\" is not a number",
            "kvstore sim -seed 72",
        ),
        (&["-port"], "-port needs a value", "-help"),
        (&["-"], "unknown flag -", "-help"),
        (
            &["-port", "+17081"],
            "NET_PORT (-port): \"+17081\" is not allowed",
            "from 1 to 65535",
        ),
        (
            &["-memtable-size", "3"],
            "unknown flag -memtable-size",
            "set MEMTABLE_SIZE in the environment or in .env",
        ),
        (
            &["-env-file", ""],
            "-env-file \"\" does not exist",
            "NAME=value",
        ),
        (
            &["-env-file", "nowhere"],
            "-env-file \"nowhere\" does not exist",
            "NAME=value",
        ),
        (
            &["-insecure-no-auth=maybe"],
            "KVSTORE_INSECURE_NO_AUTH (-insecure-no-auth): \"maybe\"",
            "true or false",
        ),
        (
            &["-port", "99999"],
            "NET_PORT (-port): \"99999\" is not allowed",
            "from 1 to 65535",
        ),
    ] {
        let (found, advice) = refused(&output(command(dir.path()).args(args)), 2);
        assert!(found.contains(error), "{args:?}: {found}");
        assert!(advice.contains(hint), "{args:?}: {advice}");
    }
    assert!(
        !dir.path().join("data").exists(),
        "a refused start touches nothing"
    );
}

#[test]
fn bad_settings_are_named_with_their_source() {
    let dir = scratch();
    let env_file = dir.path().join(".env");
    for (file, environment, error, hint) in [
        (
            "\nMEMTABLE_SIZE=lots\n",
            ("X", ""),
            "MEMTABLE_SIZE (.env:2): \"lots\" is not allowed",
            "a size",
        ),
        (
            "",
            ("WAL_COMMIT_INTERVAL", "5"),
            "WAL_COMMIT_INTERVAL (environment): \"5\"",
            "such as 5ms",
        ),
        (
            "",
            ("CLUSTER_WRITE_QUORUM", "2"),
            "CLUSTER_WRITE_QUORUM (environment): 2",
            "set CLUSTER_WRITE_QUORUM to at most 1",
        ),
        (
            "",
            ("CLUSTER_READ_QUORUM", "3"),
            "CLUSTER_READ_QUORUM (environment): 3",
            "set CLUSTER_READ_QUORUM to at most 1",
        ),
        (
            "KVSTORE_PEERS=10.0.0.2:8082\n",
            ("X", ""),
            "KVSTORE_PEERS (.env:1): 10.0.0.2:8082 is on another machine",
            "-advertise",
        ),
        (
            "",
            ("KVSTORE_PEERS", "http://localhost:1"),
            "KVSTORE_PEERS (environment): \"http://localhost:1\" is not allowed",
            "host:port",
        ),
        (
            "",
            ("NET_LISTEN", "0.0.0.0"),
            "NET_LISTEN (environment): 0.0.0.0 is reachable",
            "-insecure-no-auth",
        ),
        (
            "NET_PORT\n",
            ("X", ""),
            ".env:1: there is no '='",
            "-env-file",
        ),
        (
            "",
            ("KVSTORE_CORES", "1000"),
            "KVSTORE_CORES (environment): 1000 cores",
            "fewer cores",
        ),
    ] {
        std::fs::write(&env_file, file).expect("scratch is writable");
        let run = output(command(dir.path()).env(environment.0, environment.1));
        let (found, advice) = refused(&run, 1);
        assert!(found.contains(error), "{error}: {found}");
        assert!(advice.contains(hint), "{hint}: {advice}");
    }
}

#[test]
fn a_flag_takes_back_what_the_environment_allows() {
    let dir = scratch();
    let run = output(
        command(dir.path())
            .env("KVSTORE_INSECURE_NO_AUTH", "true")
            .args(["-insecure-no-auth=false", "-listen", "0.0.0.0"])
            .args(["-port", &free_port().to_string()]),
    );
    let (error, _) = refused(&run, 1);
    assert!(
        error.starts_with("NET_LISTEN (-listen): 0.0.0.0 is reachable"),
        "{error}"
    );
}

#[test]
fn a_variable_that_is_no_text_is_refused_by_name() {
    let dir = scratch();
    let odd = OsStr::from_bytes(b"./d\xff");
    let (error, hint) = refused(&output(command(dir.path()).env("KVSTORE_DIR", odd)), 1);
    assert!(error.starts_with("KVSTORE_DIR (environment): "), "{error}");
    assert!(hint.contains("UTF-8"), "{hint}");
}

/// Nobody writes to the pipe: a start that opened it as a file would wait for ever.
#[test]
fn a_pipe_is_no_settings_file() {
    let dir = scratch();
    let made = Command::new("mkfifo").arg(dir.path().join(".env")).status();
    assert!(made.expect("coreutils are there").success());
    let (error, _) = refused(&output(&mut command(dir.path())), 1);
    assert_eq!(error, ".env cannot be read: a pipe, not a file");
}

#[test]
fn naming_only_oneself_is_a_cluster_of_one() {
    let dir = scratch();
    let port = free_port();
    let peers = format!("localhost:{port}");
    let node = Node::try_start(dir.path(), port, &[], &["-cores", "1", "-peers", &peers])
        .expect("it starts");
    assert!(node.stop().success());
}

#[test]
fn a_taken_port_names_who_has_it() {
    let dir = scratch();
    let port = free_port();
    let first = Node::try_start(dir.path(), port, &[], &["-cores", "1"]).expect("it starts");
    let run = output(command(dir.path()).args(["-port", &port.to_string(), "-dir", "./other"]));
    let (error, hint) = refused(&run, 1);
    let wanted = format!("port {port} is in use by pid {} (", first.pid());
    assert!(error.starts_with(&wanted), "{error}");
    assert!(
        error.contains("-port"),
        "the command line is shown: {error}"
    );
    assert!(hint.contains("-port"), "{hint}");
    first.kill();

    let foreign = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = foreign.local_addr().expect("it has an address").port();
    let run = output(command(dir.path()).args(["-port", &port.to_string(), "-dir", "./other"]));
    let (error, _) = refused(&run, 1);
    let wanted = format!("port {port} is in use by pid {} (", std::process::id());
    assert!(error.starts_with(&wanted), "{error}");
}

#[test]
fn a_locked_directory_names_who_has_it() {
    let dir = scratch();
    let first = Node::start(dir.path(), &[], &["-cores", "1"]);
    let port = free_port().to_string();
    let run = output(command(dir.path()).args(["-port", &port, "-dir", "./data"]));
    let (error, hint) = refused(&run, 1);
    let wanted = format!("./data is locked by pid {} (", first.pid());
    assert!(error.starts_with(&wanted), "{error}");
    assert!(hint.contains("-dir"), "{hint}");
    first.kill();
    // The lock died with its holder.
    let second = Node::start(dir.path(), &[], &["-cores", "1"]);
    assert!(second.stop().success());
}

#[test]
fn an_unusable_directory_is_refused() {
    let dir = scratch();
    std::fs::write(dir.path().join("file"), "x").expect("scratch is writable");
    let port = free_port().to_string();
    let mut places = vec!["./file", "./file/below"];
    let closed = dir.path().join("closed");
    std::fs::create_dir(&closed).expect("scratch is writable");
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o555)).expect("it is ours");
    // To root every directory is open.
    if std::fs::write(closed.join("probe"), "").is_err() {
        places.push("./closed");
    }
    places.push("/proc/kvstore");
    for place in places {
        let run = output(command(dir.path()).args(["-port", &port, "-dir", place]));
        let (error, hint) = refused(&run, 1);
        assert!(error.contains(place), "{error}");
        assert!(hint.contains("-dir"), "{hint}");
        if place == "./file" {
            assert!(error.ends_with("not a directory"), "{error}");
        }
    }
}

#[test]
fn a_directory_keeps_its_shards_and_its_identity() {
    let dir = scratch();
    let node = Node::start(dir.path(), &[], &["-cores", "1", "-shards", "3"]);
    assert!(node.printed().contains("Shards:           3\n"));
    assert!(node.stop().success());
    let port = free_port().to_string();
    let start = |flags: &[&str]| {
        output(
            command(dir.path())
                .args(["-port", &port, "-dir", "./data"])
                .args(flags),
        )
    };
    let (error, hint) = refused(&start(&["-shards", "2"]), 1);
    assert!(
        error.starts_with("KVSTORE_SHARDS (-shards): ./data was created with 3 shards, not 2"),
        "{error}"
    );
    assert!(hint.contains('3'), "{hint}");
    std::fs::write(dir.path().join("data/NODE"), "{").expect("scratch is writable");
    let node = Node::start(dir.path(), &[], &["-cores", "1"]);
    let printed = node.printed();
    assert!(
        printed
            .contains("WARN ./data/NODE: damaged: cut short; written anew from ./data/NODE.bak\n"),
        "{printed}"
    );
    assert!(node.stop().success());
    for name in ["NODE", "NODE.bak"] {
        std::fs::remove_file(dir.path().join("data").join(name))
            .expect("it was written at the first start");
    }
    let (error, _) = refused(&start(&[]), 1);
    assert!(error.contains("holds shards but no NODE file"), "{error}");
}

#[test]
fn a_shard_whose_files_are_gone_is_not_taken_for_an_empty_one() {
    let dir = scratch();
    let node = Node::start(dir.path(), &[], &["-cores", "1", "-shards", "2"]);
    let mut client = node.connect();
    for n in 0..20 {
        let answer = client.put(&format!("k{n}"), "v").expect("an answer");
        assert_eq!(answer.status, 200);
    }
    assert!(node.stop().success());
    let shard = dir.path().join("data/shards/0001");
    let aside = dir.path().join("aside");
    std::fs::rename(&shard, &aside).expect("the shard is there");
    let port = free_port().to_string();
    let start = || output(command(dir.path()).args(["-port", &port, "-dir", "./data"]));
    for folder in [false, true] {
        if folder {
            std::fs::create_dir(&shard).expect("scratch is writable");
        }
        let run = start();
        let stderr = String::from_utf8(run.stderr).expect("messages are UTF-8");
        assert_eq!(run.status.code(), Some(1), "{stderr}");
        assert!(
            stderr.contains("shards/0001/CURRENT") && stderr.contains("backup"),
            "{stderr}"
        );
    }
    std::fs::remove_dir(&shard).expect("a refused start leaves it as it was");
    std::fs::rename(&aside, &shard).expect("scratch is writable");
    let node = Node::start(dir.path(), &[], &["-cores", "1"]);
    let mut client = node.connect();
    for n in 0..20 {
        let answer = client.get(&format!("/get?key=k{n}")).expect("an answer");
        assert_eq!((answer.status, answer.text()), (200, "v".to_string()));
    }
}

#[test]
fn a_first_start_that_is_killed_leaves_a_directory_that_starts() {
    for n in 0..12 {
        let dir = scratch();
        let mut program = command(dir.path());
        program.args([
            "-port",
            &free_port().to_string(),
            "-dir",
            "./data",
            "-shards",
            "40",
        ]);
        program.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = program.spawn().expect("the program starts");
        // Not a wait for anything: the kill is to fall anywhere.
        std::thread::sleep(Duration::from_millis(10 * n));
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
        let node = Node::start(dir.path(), &[], &["-cores", "1"]);
        assert!(node.stop().success());
    }
}

#[test]
fn too_little_locked_memory_is_said_with_numbers() {
    let dir = scratch();
    let program = command(dir.path());
    let mut shell = std::process::Command::new("bash");
    shell
        .current_dir(dir.path())
        .env_clear()
        .args(["-c", "ulimit -l 64 && exec \"$0\" -dir ./data"])
        .arg(program.get_program());
    let (error, hint) = refused(&output(&mut shell), 1);
    assert_eq!(
        error,
        "locked-memory limit is 64 KiB, need at least 512 KiB"
    );
    assert!(hint.contains("ulimit -l unlimited"), "{hint}");
}

#[test]
fn help_and_version() {
    let dir = scratch();
    let help = output(command(dir.path()).arg("-h"));
    assert!(help.status.success() && help.stderr.is_empty());
    let text = String::from_utf8(help.stdout).expect("UTF-8");
    assert!(
        text.contains("-port <value>") && text.contains("MEMTABLE_SIZE"),
        "{text}"
    );
    let version = output(command(dir.path()).arg("--version"));
    assert_eq!(
        version.stdout,
        format!("kvstore {}\n", env!("CARGO_PKG_VERSION")).as_bytes()
    );
}

#[test]
fn every_command_says_how_it_is_used() {
    let dir = scratch();
    for (line, usage) in [
        ("sim -help", "Usage: kvstore sim "),
        ("verify --help", "Usage: kvstore verify "),
        ("verify -w 2 -h", "Usage: kvstore verify "),
        ("bench compare -help", "Usage: kvstore bench compare "),
        ("bench -help", "kvstore bench: a load generator"),
    ] {
        let told = output(command(dir.path()).args(line.split(' ')));
        let text = String::from_utf8(told.stdout).expect("UTF-8");
        assert!(told.status.success() && told.stderr.is_empty(), "{line}");
        assert!(text.starts_with(usage), "{line}: {text}");
    }
}

#[test]
fn a_simulated_cluster_is_replayed_alike() {
    let dir = scratch();
    let told = || output(command(dir.path()).args(["sim", "--seed", "72"]));
    let (first, again) = (told(), told());
    let many = output(command(dir.path()).args(["sim", "-seeds", "70..73", "-jobs=2"]));
    let text = String::from_utf8(many.stdout).expect("UTF-8");
    assert!(many.status.success(), "{text}");
    assert!(
        text.starts_with("3 seeds, all kept their promises\nReport { acked: "),
        "{text}"
    );
    assert!(
        first.status.success() && first.stderr.is_empty(),
        "{first:?}"
    );
    assert_eq!(first.stdout, again.stdout);
    let text = String::from_utf8(first.stdout).expect("UTF-8");
    assert!(text.starts_with("Plan { seed: 72, nodes: "), "{text}");
    assert!(text.contains("\nReport { acked: "), "{text}");
}
