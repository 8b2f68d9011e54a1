//! The real runtime against the real kernel. Every test runs in a process of its own (the test binary started
//! again with one test name), because the runtime pins threads, aborts on panics and takes signals.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the tests stand outside of rt: clients are plain threads, files are looked at directly"
)]

mod durable;
mod files;
mod hangs;
mod net;
mod start;

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use kvstore::rt::Rt;
use kvstore::rt::file::Mode;
use kvstore::rt::stop::Stop;
use kvstore::rt::uring::{RunError, available_cpus, preflight, run};

const CHILD: &str = "KVSTORE_TEST_CHILD";

/// True in the process that was started to run the test `name` for real. Such a process ends, at the latest, by
/// its own deadline: a lost wake-up must fail a test, not stop the suite.
fn in_child(name: &str) -> bool {
    let inside = std::env::var(CHILD).as_deref() == Ok(name);
    if inside {
        thread::spawn(|| {
            thread::sleep(Duration::from_secs(120));
            eprintln!("the test has not ended within two minutes");
            std::process::abort();
        });
    }
    inside
}

/// True, and said loudly, where io_uring cannot be used.
fn unusable(name: &str) -> bool {
    let why = preflight().err();
    if let Some(why) = &why {
        eprintln!("skipped: {name}: {why}");
    }
    why.is_some()
}

/// Runs `body` in a process of its own and returns how it ended; None where io_uring cannot be used.
/// `name` is the full name of the calling test.
fn child(name: &str, body: impl FnOnce()) -> Option<Output> {
    if in_child(name) {
        body();
        std::process::exit(0);
    }
    if unusable(name) {
        return None;
    }
    Some(command(name).output().expect("this binary can be started"))
}

/// This binary, about to run the test `name` alone as the child.
fn command(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("/proc is mounted"));
    command
        .args([name, "--exact", "--nocapture"])
        .env(CHILD, name)
        .env("RUST_BACKTRACE", "0");
    command
}

/// [`child`], and it must succeed.
fn isolated(name: &str, body: impl FnOnce()) {
    if let Some(output) = child(name, body) {
        assert!(
            output.status.success(),
            "{name}: {}\n{}{}",
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An address nobody listened on a moment ago.
fn free_addr() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").expect("loopback exists");
    socket.local_addr().expect("bound")
}

/// A directory on a real file system (/tmp may be in memory), removed at the end.
fn data_dir() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target directory is writable")
}

/// The first `cores` CPUs this process may use, repeated when there are fewer.
fn cpus(cores: usize) -> Vec<usize> {
    let cpus = available_cpus().expect("the mask can be read");
    cpus.into_iter().cycle().take(cores).collect()
}

/// Runs `body` on one core until it returns.
fn on_one_core<F>(dir: &Path, body: impl Fn(Rt, PathBuf) -> F + Clone + Send + 'static)
where
    F: Future<Output = ()> + 'static,
{
    let ended = run(&cpus(1), dir, &Stop::default(), vec![dir.to_owned()], {
        move |rt, dir| {
            let done = body(rt, dir);
            async move {
                done.await;
                Ok::<(), std::io::Error>(())
            }
        }
    });
    ended.expect("the core starts and ends");
}

#[test]
fn an_error_on_one_core_stops_the_others_and_is_returned() {
    isolated(
        "an_error_on_one_core_stops_the_others_and_is_returned",
        || {
            let dir = data_dir();
            let stop = Stop::default();
            let ended = run(
                &cpus(2),
                dir.path(),
                &stop,
                vec![false, true],
                |rt, fails| async move {
                    if fails {
                        return Err("broken store");
                    }
                    let mut net = rt.net(&[]).expect("an epoll set can be made");
                    let stop = rt.stop().clone();
                    net.park(None, &mut |cx| stop.poll_raised(cx).is_ready())
                        .await
                        .expect("nothing fails here");
                    Ok(())
                },
            );
            match ended {
                Err(RunError::Body { core: 1, error }) => assert_eq!(error, "broken store"),
                other => panic!("{other:?}"),
            }
            assert!(stop.is_raised());
        },
    );
}

#[test]
fn a_panic_in_a_task_aborts_the_process() {
    let Some(output) = child("a_panic_in_a_task_aborts_the_process", || {
        let dir = data_dir();
        on_one_core(dir.path(), |rt, _| async move {
            rt.spawn(async { panic!("a bug") });
            std::future::pending::<()>().await;
        });
    }) else {
        return;
    };
    let stderr = text(&output.stderr);
    assert!(stderr.contains("a bug"), "{stderr}");
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&output.status),
        Some(6),
        "SIGABRT: {stderr}"
    );
}

#[test]
fn a_core_may_end_while_its_tasks_use_the_disk() {
    let Some(output) = child("a_core_may_end_while_its_tasks_use_the_disk", || {
        let dir = data_dir();
        for _ in 0..40 {
            on_one_core(dir.path(), |rt, dir| async move {
                let path = dir.join("file");
                rt.replace(&path, &[1; 8192]).await.expect("replace");
                for _ in 0..4 {
                    let (rt2, dir, path) = (rt.clone(), dir.clone(), path.clone());
                    rt.spawn(async move {
                        loop {
                            rt2.list(&dir).await.expect("list");
                            let file = rt2.open(&path, Mode::Read).await.expect("open");
                            file.read_at(0, 8192).await.expect("read");
                        }
                    });
                }
                rt.sleep(Duration::from_micros(500)).await;
            });
        }
    }) else {
        return;
    };
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    assert!(!stderr.contains("panicked"), "{stderr}");
}
