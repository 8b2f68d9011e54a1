//! One run: starts the threads, joins what they tell, shows how it goes.

use std::io::{self, IsTerminal};
use std::time::Duration;

use crate::cli::{StartError, say};
use crate::load::drive::{self, Told};
use crate::load::outcome::{Described, Sample};
use crate::load::plan::Plan;
use crate::load::report::hlog::Hlog;
use crate::load::report::live;
use crate::load::report::recorder::Recorder;
use crate::load::tally::Tally;
use crate::rt::plain::Clock;
use crate::rt::stop::Stop;

/// From the start of the threads to the first request, so that all of them begin together.
const HEAD_START: Duration = Duration::from_millis(20);

/// What came of a run.
pub(super) struct Ran {
    pub(super) elapsed: Duration,
    pub(super) total: Tally,
    pub(super) seconds: Vec<Sample>,
    pub(super) hlog: Vec<u8>,
    /// Requests that were due and never sent.
    pub(super) unsent: u64,
}

/// Shows a line of progress, over the one before it.
pub(super) type Progress = Box<dyn FnMut(&str)>;

/// On a terminal, and there only. `what` stands in front of each line.
pub(super) fn progress(quiet: bool, what: &'static str) -> Progress {
    if quiet || !io::stderr().is_terminal() {
        return Box::new(|_| {});
    }
    // An empty line takes the last one away.
    Box::new(move |line| {
        let text = match line {
            "" => "\r\x1b[K".to_string(),
            line => format!("\r{what}{line}\x1b[K"),
        };
        say(&mut io::stderr(), &text);
    })
}

/// Runs the plan; ends when all is answered or `stop` is raised.
pub(super) fn run(
    plan: &Plan,
    described: &Described,
    stop: &Stop,
    mut show: Progress,
) -> Result<Ran, StartError> {
    let clock = Clock::start();
    let start = clock.now() + HEAD_START;
    let measured_from = start + plan.warmup;
    let mut recorder = Recorder::new(plan.threads);
    let mut bytes = Vec::new();
    let mut hlog = Hlog::begin(described, &mut bytes);
    let (mut last_ended, mut all_unsent, mut failed, mut failure) = (measured_from, 0, 0, None);
    let mut hear = |thread: usize, second: u32, tally: &Tally| {
        for (second, tally) in recorder.take(thread, second, tally) {
            hlog.second(second, &tally, &mut bytes);
            failed += tally.failed();
            let elapsed = Duration::from_secs(u64::from(second) + 1);
            show(&live::line(elapsed, &Sample::of(second, &tally), failed));
        }
    };
    drive::run(plan, clock, start, stop, |told| match told {
        Told::Second {
            thread,
            second,
            tally,
        } => hear(thread, second, &tally),
        Told::Done {
            thread,
            second,
            tally,
            last,
            unsent,
        } => {
            hear(thread, second, &tally);
            last_ended = last_ended.max(last);
            all_unsent += unsent;
        }
        Told::Failed(error) => failure = Some(error),
    });
    show("");
    if let Some(error) = failure {
        let error = format!("the connections cannot be kept: {error}");
        return Err(StartError::new(
            error,
            "fewer -c, or raise the limit of open files (ulimit -n)",
        ));
    }
    let recorded = recorder.finish();
    for (second, tally) in &recorded.rest {
        hlog.second(*second, tally, &mut bytes);
    }
    Ok(Ran {
        elapsed: last_ended.since(measured_from),
        total: recorded.total,
        seconds: recorded.seconds,
        hlog: bytes,
        unsent: all_unsent,
    })
}
