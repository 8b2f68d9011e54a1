//! glommio 0.9.0 can sleep with work at hand (docs/decisions/0002-yields.md). Here: that our settings leave no
//! way into it, that our yield lets the reactor turn, and that a core that answers nobody ends the process.
//! That a ping revives a sleeper is tested beside the watchdog, where a sleeper can be provoked.

use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use kvstore::rt::stop::Stop;
use kvstore::rt::uring::{RunError, run, run_unwatched};
use signal_hook::consts::{SIGCONT, SIGSTOP};

use crate::{child, command, cpus, data_dir, in_child, isolated, on_one_core, text, unusable};

/// A child that prints a counter for every line it is sent.
struct Counter {
    process: Child,
    answers: Receiver<String>,
}

impl Counter {
    fn start(name: &str) -> Counter {
        let mut process = command(name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this binary can be started");
        let lines: Lines<BufReader<ChildStdout>> =
            BufReader::new(process.stdout.take().expect("piped")).lines();
        let (tell, answers) = mpsc::channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(count) = line.strip_prefix("count ") {
                    tell.send(count.to_owned()).unwrap_or_default();
                }
            }
        });
        Counter { process, answers }
    }

    fn signal(&self, signal: i32) {
        let sent = std::process::Command::new("kill")
            .args([format!("-{signal}"), self.process.id().to_string()])
            .status();
        assert!(sent.expect("kill(1) exists").success());
    }

    fn count(&mut self) -> u64 {
        let stdin = self.process.stdin.as_mut().expect("piped");
        stdin.write_all(b"\n").expect("the child lives");
        let answer = self.answers.recv_timeout(Duration::from_secs(20));
        answer.expect("the child answers").parse().expect("a count")
    }

    /// True when the count moves within ten seconds: a hang is for ever, a busy machine is not.
    fn moves(&mut self) -> bool {
        let before = self.count();
        (0..1000).any(|_| {
            thread::sleep(Duration::from_millis(10));
            self.count() != before
        })
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.process.kill().expect("it is our child");
        self.process.wait().expect("it is our child");
    }
}

/// In the child: answers with `count` until the parent closes the pipe.
fn answer(count: Arc<AtomicU64>) {
    thread::spawn(move || {
        for _ in std::io::stdin().lines() {
            println!("count {}", count.load(Ordering::Relaxed));
        }
    });
}

/// With glommio's default preemption timer (100 ms) one such stop in seven puts the executor to sleep for good.
#[test]
fn a_stopped_process_goes_on() {
    const NAME: &str = "hangs::a_stopped_process_goes_on";
    const STOPS: usize = 80;
    if in_child(NAME) {
        let count = Arc::new(AtomicU64::new(0));
        answer(Arc::clone(&count));
        let dir = data_dir();
        let ended = run_unwatched(&cpus(1), dir.path(), &Stop::default(), vec![count], {
            |rt, count| async move {
                while !rt.stop().is_raised() {
                    rt.yield_now().await;
                    count.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<(), ()>(())
            }
        });
        panic!("{ended:?}");
    }
    if unusable(NAME) {
        return;
    }
    let mut child = Counter::start(NAME);
    assert!(child.moves(), "it runs");
    for stop in 0..STOPS {
        child.signal(SIGSTOP);
        thread::sleep(Duration::from_millis(120));
        child.signal(SIGCONT);
        assert!(child.moves(), "hung after stop {stop}");
    }
}

/// Two tasks that wake each other around their yields keep the queue busy; a yield that ends at any wake-up
/// would then never let the reactor turn, and the timer would never fire.
#[test]
fn yields_let_the_reactor_turn_even_when_tasks_wake_each_other() {
    isolated(
        "hangs::yields_let_the_reactor_turn_even_when_tasks_wake_each_other",
        || {
            let dir = data_dir();
            on_one_core(dir.path(), |rt, _| async move {
                let over = std::rc::Rc::new(std::cell::Cell::new(false));
                let wakers = std::rc::Rc::new(std::cell::RefCell::new([const { None }; 2]));
                for me in 0..2 {
                    let (rt2, over, wakers) = (rt.clone(), over.clone(), wakers.clone());
                    rt.spawn(async move {
                        while !over.get() {
                            std::future::poll_fn(|cx| {
                                wakers.borrow_mut()[me] = Some(cx.waker().clone());
                                std::task::Poll::Ready(())
                            })
                            .await;
                            let other: Option<std::task::Waker> =
                                wakers.borrow_mut()[1 - me].take();
                            if let Some(other) = other {
                                other.wake();
                            }
                            rt2.yield_now().await;
                        }
                    });
                }
                rt.sleep(Duration::from_millis(5)).await;
                over.set(true);
            });
        },
    );
}

#[test]
fn a_core_that_answers_nobody_ends_the_process() {
    let Some(output) = child("hangs::a_core_that_answers_nobody_ends_the_process", || {
        let dir = data_dir();
        let ended = run(
            &cpus(2),
            dir.path(),
            &Stop::default(),
            vec![false, true],
            |rt, blocks| async move {
                let mut net = rt.net(&[]).expect("an epoll set can be made");
                rt.yield_now().await;
                if blocks {
                    thread::sleep(Duration::from_secs(60));
                }
                let stop = rt.stop().clone();
                net.park(None, &mut |cx| stop.poll_raised(cx).is_ready())
                    .await
            },
        );
        panic!("{ended:?}");
    }) else {
        return;
    };
    let stderr = text(&output.stderr);
    assert_eq!(output.status.signal(), Some(6), "SIGABRT: {stderr}");
    assert!(
        stderr.contains("error: core 1 has not answered for 2000 ms (thread "),
        "{stderr}"
    );
    assert!(stderr.contains("\nhint: start it again"), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

/// Neither a recovery that blocks before the sockets are open, nor a stopped process, is a dead core.
#[test]
fn patience_counts_only_when_it_is_owed() {
    const NAME: &str = "hangs::patience_counts_only_when_it_is_owed";
    if in_child(NAME) {
        let count = Arc::new(AtomicU64::new(0));
        answer(Arc::clone(&count));
        let dir = data_dir();
        let ended: Result<(), RunError<std::io::Error>> = run(
            &cpus(1),
            dir.path(),
            &Stop::default(),
            vec![count],
            |rt, count| async move {
                thread::sleep(Duration::from_millis(2500));
                let mut net = rt.net(&[]).expect("an epoll set can be made");
                loop {
                    count.fetch_add(1, Ordering::Relaxed);
                    let till = rt.now() + Duration::from_millis(1);
                    net.park(Some(till), &mut |_| false).await?;
                }
            },
        );
        panic!("{ended:?}");
    }
    if unusable(NAME) {
        return;
    }
    let mut child = Counter::start(NAME);
    assert!(child.moves(), "a blocked recovery is no reason to end");
    child.signal(SIGSTOP);
    thread::sleep(Duration::from_millis(2500));
    child.signal(SIGCONT);
    assert!(child.moves(), "a stopped process goes on");
}
