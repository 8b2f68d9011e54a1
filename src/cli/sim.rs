//! `kvstore sim`: the simulated clusters of `tests/sim.rs`, told to a person.
//!
//! ```text
//!  -seed N      ─▶ plan ─▶ the cluster lives ─┬─ kept its promises ─▶ plan, sums           exit 0
//!                                             └─ broke one ─────────▶ what, plan, last steps  exit 1
//!  -seeds A..B  ─▶ each of them, on all cores ─┬─ all kept theirs ──▶ how many, sums of all   exit 0
//!                                              └─ the first to break one ▶ as above, and how to replay it  exit 1
//! ```
//!
//! Whoever has a seed of a failed night run needs neither the sources nor a compiler to see what it does. The same
//! program and seed tell the same story, on any machine. A release build runs several times as many as a test does.

use std::cell::Cell;
use std::io::Write;
use std::ops::Range;
use std::process::ExitCode;

use super::args::Sim;
use super::say;
use crate::rt::jobs::{jobs_at_once, share_out};
use crate::sim::cluster::{self, Report, plan};

/// A line tells how far it has come after so many seeds.
const SEEDS_PER_LINE: u64 = 500;

thread_local! {
    /// The seed this thread is at.
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Does what was asked for.
pub fn run(asked: Sim, out: &mut dyn Write) -> ExitCode {
    tell_seeds_of_bugs();
    match asked {
        Sim::Seed(seed) => replay(seed, out),
        Sim::Seeds { seeds, jobs } => replay_all(seeds, jobs.unwrap_or_else(jobs_at_once), out),
    }
}

/// Tells the story of one seed.
fn replay(seed: u64, out: &mut dyn Write) -> ExitCode {
    match live(seed) {
        Ok(report) => {
            let plan = plan::Plan::draw(seed, plan::NODES_MAX);
            say(out, &format!("{plan:?}\n{report:?}\n"));
            ExitCode::SUCCESS
        }
        Err(broken) => {
            say(out, &broken);
            ExitCode::FAILURE
        }
    }
}

/// Tells how many seeds there were, or the story of the first that was found to break a promise.
fn replay_all(seeds: Range<u64>, jobs: usize, out: &mut dyn Write) -> ExitCode {
    let (mut sum, mut done, mut code) = (Report::default(), 0, ExitCode::SUCCESS);
    let count = seeds.end.saturating_sub(seeds.start);
    let work = |seed| (seed, live(seed));
    share_out(seeds, jobs, work, |(seed, lived)| {
        match lived {
            Ok(report) => sum.add(&report),
            Err(broken) => {
                say(out, &format!("{broken}replay: {}\n", again(seed)));
                code = ExitCode::FAILURE;
                return false;
            }
        }
        done += 1;
        if done % SEEDS_PER_LINE == 0 && done < count {
            say(out, &format!("{done} of {count} seeds\n"));
        }
        true
    });
    if code == ExitCode::SUCCESS {
        say(
            out,
            &format!("{count} seeds, all kept their promises\n{sum:?}\n"),
        );
    }
    code
}

/// What came of one seed, or the text of what it broke.
fn live(seed: u64) -> Result<Report, String> {
    SEED.set(Some(seed));
    let lived = cluster::run(&plan::Plan::draw(seed, plan::NODES_MAX));
    SEED.set(None);
    lived.map_err(|violation| format!("{}\n", violation.0.trim_end()))
}

fn again(seed: u64) -> String {
    format!("kvstore sim -seed {seed}")
}

/// In a node a bug aborts the process; here it is what was looked for, and a seed that finds one has failed like any
/// other.
fn tell_seeds_of_bugs() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |bug| {
        before(bug);
        if let Some(seed) = SEED.get() {
            let plan = plan::Plan::draw(seed, plan::NODES_MAX);
            let text = format!("SEED={seed}: {bug}\n{plan:?}\nreplay: {}\n", again(seed));
            say(&mut std::io::stdout(), &text);
            std::process::exit(1);
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::planted::{Bug, plant};

    fn told(tell: impl FnOnce(&mut dyn Write) -> ExitCode) -> (ExitCode, String) {
        let mut out = Vec::new();
        let code = tell(&mut out);
        (code, String::from_utf8(out).expect("text"))
    }

    #[test]
    fn a_seed_is_told_and_a_broken_promise_is_a_failure() {
        let (code, text) = told(|out| replay(0, out));
        assert_eq!(code, ExitCode::SUCCESS, "{text}");
        assert!(text.starts_with("Plan { seed: 0,"), "{text}");
        assert!(text.contains("\nReport { acked: "), "{text}");
        plant(Some(Bug::HintStamped));
        let (code, text) = told(|out| replay(0, out));
        plant(None);
        assert_eq!(code, ExitCode::FAILURE, "{text}");
        assert!(text.starts_with("SEED=0: "), "{text}");
        for part in ["\nPlan { ", "\nReport { ", "\nlast steps:\n"] {
            assert!(text.contains(part), "{text}");
        }
    }

    /// The hook ends the process: the test runs itself in another one.
    #[test]
    fn a_panic_is_a_failure_that_tells_its_seed() {
        const CHILD: &str = "KVSTORE_TEST_OF_A_PANIC";
        if std::env::var_os(CHILD).is_some() {
            tell_seeds_of_bugs();
            SEED.set(Some(5));
            panic!("as planned");
        }
        let program = std::env::current_exe().expect("it runs");
        let name = "cli::sim::tests::a_panic_is_a_failure_that_tells_its_seed";
        let output = std::process::Command::new(program)
            .args([name, "--exact"])
            .env(CHILD, "1")
            .output()
            .expect("it runs again");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        for part in [
            "SEED=5: ",
            "as planned",
            "\nPlan { seed: 5,",
            "\nreplay: kvstore sim -seed 5\n",
        ] {
            assert!(text.contains(part), "{part:?}: {text}");
        }
    }

    #[test]
    fn seeds_are_counted() {
        let (code, text) = told(|out| replay_all(3..9, 2, out));
        assert_eq!(code, ExitCode::SUCCESS, "{text}");
        let (first, rest) = text.split_once('\n').expect("lines");
        assert_eq!(first, "6 seeds, all kept their promises");
        assert!(rest.starts_with("Report { acked: "), "{text}");
    }
}
