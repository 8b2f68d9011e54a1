//! What a person reads who cannot start a node, and the holds a started one has on port and folder.

#![expect(unsafe_code, reason = "a seccomp filter has no safe wrapper")]

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use kvstore::rt::stop::Stop;
use kvstore::rt::uring::{
    Holder, RunError, StartError, claim_port, lock_dir, preflight, raise_on_signals, run,
};
use signal_hook::consts::SIGTERM;

use crate::{child, command, cpus, data_dir, free_addr, in_child, isolated, text, unusable};

fn holder(error: StartError) -> Holder {
    match error {
        StartError::PortTaken { holder, .. } | StartError::DirLocked { holder, .. } => {
            holder.expect("we may look into our own processes")
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_second_node_is_told_who_holds_port_and_folder() {
    const NAME: &str = "start::a_second_node_is_told_who_holds_port_and_folder";
    const PLACE: &str = "KVSTORE_TEST_PLACE";
    if in_child(NAME) {
        let place = std::env::var(PLACE).expect("the parent sets it");
        let (addr, dir) = place.split_once(' ').expect("two words");
        let _claim = claim_port(&[addr.parse().expect("an address")]).expect("free");
        let _lock = lock_dir(dir.as_ref()).expect("free");
        println!("held");
        // Until the parent kills us.
        std::io::stdin().lines().for_each(drop);
        return;
    }
    let (addr, dir) = (free_addr(), data_dir());
    let path = dir.path().join("new/node");
    let mut first = command(NAME)
        .env(PLACE, format!("{addr} {}", path.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this binary can be started");
    let stdout = BufReader::new(first.stdout.take().expect("piped"));
    let held = stdout
        .lines()
        .map_while(Result::ok)
        .any(|line| line.contains("held"));
    assert!(held, "the child could take what is free");

    for error in [
        claim_port(&[addr]).map(drop).expect_err("held"),
        lock_dir(&path).map(drop).expect_err("held"),
    ] {
        let message = error.to_string();
        let holder = holder(error);
        assert_eq!(holder.pid, first.id(), "{message}");
        assert!(holder.command.contains(NAME), "{message}");
        assert!(message.contains(&holder.to_string()), "{message}");
    }
    // However it dies, the kernel lets go.
    first.kill().expect("it is our child");
    first.wait().expect("it is our child");
    let _claim = claim_port(&[addr]).expect("free again");
    let _lock = lock_dir(&path).expect("free again");
    let again = holder(lock_dir(&path).map(drop).expect_err("held by ourselves"));
    assert_eq!(again.pid, std::process::id());
}

#[test]
fn a_stranger_on_the_port_is_named_too() {
    let stranger = TcpListener::bind("127.0.0.1:0").expect("loopback exists");
    let addr = stranger.local_addr().expect("bound");
    let error = claim_port(&[addr]).map(drop).expect_err("in use");
    assert!(error.to_string().starts_with(&format!(
        "port {} is in use by pid {} (",
        addr.port(),
        std::process::id()
    )));
    drop(stranger);
    // Connections left over from a former process are no listener. Another process may draw the freed port for a
    // connection of its own, and then nobody is named: look again with another port.
    let claimed = (0..10).find_map(|_| {
        let former = TcpListener::bind("127.0.0.1:0").expect("loopback exists");
        let addr = former.local_addr().expect("bound");
        let client = TcpStream::connect(addr).expect("connect");
        let (accepted, _) = former.accept().expect("accept");
        drop((accepted, former));
        drop(client);
        claim_port(&[addr]).ok().map(|claim| (claim, addr))
    });
    // A plain std listener sets SO_REUSEADDR, as ours do: lingering ends of it do not conflict.
    let (claim, addr) = claimed.expect("nobody listens");
    assert_eq!(claim.addrs(), [addr]);
}

#[test]
fn an_address_of_another_machine_is_refused() {
    let error = claim_port(&["192.0.2.1:8081".parse().expect("an address")])
        .map(drop)
        .expect_err("not ours");
    assert!(
        error
            .to_string()
            .starts_with("cannot listen on 192.0.2.1:8081: "),
        "{error}"
    );
}

#[test]
fn all_cores_listen_on_a_claimed_port() {
    isolated("start::all_cores_listen_on_a_claimed_port", || {
        let addr = free_addr();
        let claim = claim_port(&[addr]).expect("free");
        let dir = data_dir();
        let stop = Stop::default();
        let client = {
            let stop = stop.clone();
            thread::spawn(move || {
                // Connections are spread by the kernel: each core ends once it has had one.
                while !stop.is_raised() {
                    drop(TcpStream::connect(addr));
                }
            })
        };
        let seeds = vec![claim.addrs().to_vec(); 2];
        let ended = run(&cpus(2), dir.path(), &stop, seeds, |rt, addrs| async move {
            let mut net = rt.net(&addrs)?;
            while net.accept()?.is_none() {
                net.park(None, &mut |_| false).await?;
            }
            Ok::<(), std::io::Error>(())
        });
        stop.raise();
        client.join().expect("the client does not panic");
        ended.expect("both cores had a connection");
    });
}

#[test]
fn an_impossible_cpu_or_folder_is_an_error_not_a_panic() {
    isolated(
        "start::an_impossible_cpu_or_folder_is_an_error_not_a_panic",
        || {
            let body = |_, ()| async { Ok::<(), ()>(()) };
            let dir = data_dir();
            let stop = Stop::default();
            let two = vec![cpus(1)[0], 4095];
            match run(&two, dir.path(), &stop, vec![(), ()], body) {
                Err(RunError::Start(StartError::Cpu { cpu: 4095, .. })) => {}
                other => panic!("{other:?}"),
            }
            match run(&cpus(1), "/proc/nothing".as_ref(), &stop, vec![()], body) {
                Err(RunError::Start(StartError::DirUnusable { dir, .. })) => {
                    assert_eq!(dir, std::path::Path::new("/proc/nothing"));
                }
                other => panic!("{other:?}"),
            }
            // Nothing of the failed starts is in the way.
            run(&cpus(1), dir.path(), &stop, vec![()], body).expect("the machine is as before");
        },
    );
}

#[test]
fn the_first_signal_asks_and_a_later_one_insists() {
    const NAME: &str = "start::the_first_signal_asks_and_a_later_one_insists";
    const PAUSE_MS: &str = "KVSTORE_TEST_PAUSE_MS";
    if in_child(NAME) {
        let pause = std::env::var(PAUSE_MS).expect("the parent sets it");
        let pause = Duration::from_millis(pause.parse().expect("a number"));
        let stop = Stop::default();
        raise_on_signals(&stop, "error: enough\n").expect("handlers can be set");
        signal_hook::low_level::raise(SIGTERM).expect("to ourselves");
        while !stop.is_raised() {
            thread::yield_now();
        }
        thread::sleep(pause);
        signal_hook::low_level::raise(SIGTERM).expect("to ourselves");
        thread::sleep(Duration::from_millis(500));
        std::process::exit(0);
    }
    // As timeout(1) sends two, to its child and to its group; and as a person does who is tired of waiting.
    for (pause_ms, code) in [(0, 0), (1100, 130)] {
        let output = command(NAME).env(PAUSE_MS, pause_ms.to_string()).output();
        let output = output.expect("it runs");
        assert_eq!(output.status.code(), Some(code), "after {pause_ms} ms");
        let stderr = text(&output.stderr);
        assert_eq!(stderr.contains("error: enough\n"), code == 130, "{stderr}");
    }
}

#[test]
fn too_little_lockable_memory_is_named() {
    let Some(output) = child("start::too_little_lockable_memory_is_named", || {
        let limit = std::process::id().to_string();
        let lowered = std::process::Command::new("prlimit")
            .args(["--memlock=65536:65536", "--pid", &limit])
            .status();
        if !lowered.is_ok_and(|status| status.success()) {
            println!("skipped: prlimit(1) cannot be used");
            return;
        }
        let error = preflight().expect_err("64 KiB are too little");
        println!("error: {error}\nhint: {}", error.hint());
    }) else {
        return;
    };
    let stdout = text(&output.stdout);
    if stdout.contains("skipped: ") {
        eprintln!("{stdout}");
        return;
    }
    assert!(
        stdout.contains(
            "error: locked-memory limit is 64 KiB, need at least 512 KiB\nhint: ulimit -l unlimited"
        ),
        "{stdout}{}",
        text(&output.stderr)
    );
}

/// Makes io_uring_setup fail for this thread with `errno`, as a container's seccomp profile does.
fn forbid_io_uring(errno: i32) {
    let op = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter {
        code: u16::try_from(code).expect("16 bits"),
        jt,
        jf,
        k,
    };
    let call = u32::try_from(libc::SYS_io_uring_setup).expect("small");
    let mut filter = [
        // The number of the call is the first word of what a filter sees.
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call, 0, 1),
        op(
            libc::BPF_RET | libc::BPF_K,
            libc::SECCOMP_RET_ERRNO | errno.unsigned_abs(),
            0,
            0,
        ),
        op(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: program and filter live across the calls; the kernel copies and checks them.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
            ) == 0
    };
    assert!(done, "{}", std::io::Error::last_os_error());
}

#[test]
fn a_sandbox_without_io_uring_is_named() {
    for (errno, message) in [
        (
            libc::EPERM,
            "error: io_uring_setup: Operation not permitted. kernel.io_uring_disabled=0, seccomp=2: \
             a container seccomp profile blocks io_uring\nhint: allow io_uring_setup",
        ),
        (
            libc::ENOSYS,
            "or sandbox (gVisor, old WSL, old podman) has no io_uring",
        ),
    ] {
        const ERRNO: &str = "KVSTORE_TEST_ERRNO";
        let name = "start::a_sandbox_without_io_uring_is_named";
        if in_child(name) {
            let errno = std::env::var(ERRNO).expect("the parent sets it");
            forbid_io_uring(errno.parse().expect("a number"));
            let error = preflight().expect_err("the filter is in place");
            println!("error: {error}\nhint: {}", error.hint());
            std::process::exit(0);
        }
        if unusable(name) {
            return;
        }
        let output = command(name).env(ERRNO, errno.to_string()).output();
        let output = output.expect("this binary can be started");
        let stdout = text(&output.stdout);
        assert!(stdout.contains(message), "{stdout}{}", text(&output.stderr));
    }
}
