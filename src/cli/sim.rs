//! `kvstore sim -seed N`: one simulated cluster of `tests/sim.rs`, told to a person.
//!
//! ```text
//!  seed ─▶ plan ─▶ the cluster lives ─┬─ kept its promises ─▶ plan, sums           exit 0
//!                                     └─ broke one ─────────▶ what, plan, last steps  exit 1
//! ```
//!
//! Whoever has a seed of a failed night run needs neither the sources nor a compiler to see what it does. The same
//! program and seed tell the same story, on any machine.

use std::io::Write;
use std::process::ExitCode;

use super::say;
use crate::sim::cluster::{self, plan};

/// Tells the story of one seed.
pub fn replay(seed: u64, out: &mut dyn Write) -> ExitCode {
    let plan = plan::Plan::draw(seed, plan::NODES_MAX);
    match cluster::run(&plan) {
        Ok(report) => {
            say(out, &format!("{plan:?}\n{report:?}\n"));
            ExitCode::SUCCESS
        }
        Err(violation) => {
            say(out, &format!("{}\n", violation.0.trim_end()));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::planted::{Bug, plant};

    fn told(seed: u64) -> (ExitCode, String) {
        let mut out = Vec::new();
        let code = replay(seed, &mut out);
        (code, String::from_utf8(out).expect("text"))
    }

    #[test]
    fn a_seed_is_told_and_a_broken_promise_is_a_failure() {
        let (code, text) = told(0);
        assert_eq!(code, ExitCode::SUCCESS, "{text}");
        assert!(text.starts_with("Plan { seed: 0,"), "{text}");
        assert!(text.contains("\nReport { acked: "), "{text}");
        plant(Some(Bug::HintStamped));
        let (code, text) = told(0);
        plant(None);
        assert_eq!(code, ExitCode::FAILURE, "{text}");
        assert!(text.starts_with("SEED=0: "), "{text}");
        assert!(
            text.contains("\nPlan { ") && text.contains("last steps:\n"),
            "{text}"
        );
    }
}
