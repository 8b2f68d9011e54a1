//! Pure. What came of a run, told to people and to programs.
//!
//! ```text
//! thread tallies ─▶ recorder ─┬─ second by second ─▶ live (a line), hlog (HdrHistogram's interval log)
//!                             └─ Outcome ─▶ text · json ─▶ compare
//!                                          csv · html
//! ```
//!
//! Every report is a function of an [`Outcome`](super::outcome::Outcome); none of them measures or rounds for another.
//! Where a rate was given the response times are the headline and the service times stand beside them. Tables are in
//! milliseconds, JSON and CSV in whole nanoseconds; only the blocks that `hey` has too are in seconds, as there.

pub mod compare;
pub mod csv;
pub mod fail_if;
pub mod hlog;
pub mod html;
pub mod json;
pub mod live;
pub mod recorder;
pub mod significance;
pub mod svg;
pub mod text;

use std::time::Duration;

use hdrhistogram::Histogram;

use super::tally::{OpTally, Tally};

/// The latencies a run is judged by: of the response where there are any, else of the service.
fn judged(tally: &Tally) -> Histogram<u64> {
    tally.response().unwrap_or_else(|| tally.service())
}

/// The same of one kind of request.
fn judged_of(of: &OpTally) -> &Histogram<u64> {
    of.response.as_ref().unwrap_or(&of.service)
}

/// In milliseconds, as a number of them.
fn ms(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn per_second(count: u64, elapsed: Duration) -> f64 {
    match elapsed {
        Duration::ZERO => 0.0,
        elapsed => count as f64 / elapsed.as_secs_f64(),
    }
}

/// `1.2 GB`: three digits or so, in powers of 1000, for people.
fn rounded(number: f64, unit: &str) -> String {
    let scales = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    match scales.iter().find(|(scale, _)| number >= *scale) {
        Some((scale, prefix)) => format!("{:.2} {prefix}{unit}", number / scale),
        None => format!("{number:.0} {unit}"),
    }
}

#[cfg(test)]
pub(crate) mod example {
    //! Runs that the reports of all kinds are tried on: invented, and the same on every machine.

    use std::time::Duration;

    use super::super::outcome::{Described, Machine, Outcome, Sample};
    use super::super::tally::{Ending, Failure, Op, Tally, Times};
    use crate::base::time::Instant;

    fn machine() -> Machine {
        Machine {
            cpu: "Imagined CPU @ 3.00GHz".to_owned(),
            cpus: 2,
            kernel: "6.1.0".to_owned(),
            governor: "performance".to_owned(),
            version: "0.1.0".to_owned(),
            server_before: r#"{"status":"ok"}"#.to_owned(),
            server_after: r#"{"status":"degraded"}"#.to_owned(),
        }
    }

    fn good(items: u64) -> Ending {
        Ending {
            status: 200,
            failure: None,
            missing: false,
            items,
        }
    }

    fn run(command: &str, workload: &str) -> Described {
        Described {
            command: command.split(' ').map(str::to_owned).collect(),
            targets: vec!["http://localhost:8081".to_owned()],
            workload: workload.to_owned(),
            connections: 50,
            threads: 2,
            pipeline: 1,
            requests: None,
            duration: Some(Duration::from_secs(3)),
            began_unix_ms: 1_764_000_000_000,
            ..Described::default()
        }
    }

    /// A closed loop of one kind of request, nothing failed: each second a little slower.
    pub(crate) fn closed() -> Outcome {
        let mut total = Tally::default();
        let mut seconds = Vec::new();
        for second in 0..3 {
            let mut tally = Tally::default();
            for n in 0..1_000 {
                let took = 80_000 + 200 * n + 10_000 * u64::from(second);
                let times = Times {
                    intended: None,
                    sent: Instant(0),
                    ended: Instant(took),
                };
                tally.answered(Op::Request, times, good(1));
            }
            tally.bytes_in = 120_000;
            tally.bytes_out = 90_000;
            seconds.push(Sample::of(second, &tally));
            total.merge(&tally);
        }
        let mut run = run(
            "kvstore bench -n 3000 http://localhost:8081/get?key=1",
            "GET /get?key=1",
        );
        run.requests = Some(3_000);
        run.duration = None;
        Outcome {
            run,
            machine: machine(),
            elapsed: Duration::from_millis(3_000),
            total,
            seconds,
            warnings: Vec::new(),
        }
    }

    /// At a rate, several kinds, with a stall in the second second, missing keys, refusals and lost answers.
    pub(crate) fn paced() -> Outcome {
        let mut total = Tally::default();
        let mut seconds = Vec::new();
        for second in 0..3 {
            let tally = paced_second(second);
            seconds.push(Sample::of(second, &tally));
            total.merge(&tally);
        }
        let mut run = run(
            "kvstore bench -z 3s -rate 600 -workload mixed http://localhost:8081",
            "mixed",
        );
        run.rate = Some(600.0);
        Outcome {
            run,
            machine: machine(),
            elapsed: Duration::from_millis(3_010),
            total,
            seconds,
            warnings: vec!["requests were sent late: the load generator was busy".to_owned()],
        }
    }

    fn paced_second(second: u32) -> Tally {
        let mut tally = Tally::default();
        let late = if second == 1 { 300_000_000 } else { 50_000 };
        for n in 0..600_u64 {
            let sent = late * (600 - n) / 600;
            let op = [Op::Get, Op::Get, Op::Put, Op::Scan, Op::Batch][n as usize % 5];
            let items = if matches!(op, Op::Scan | Op::Batch) {
                50
            } else {
                1
            };
            let times = Times {
                intended: Some(Instant(0)),
                sent: Instant(sent),
                ended: Instant(sent + 200_000 + 1_000 * n),
            };
            let mut ending = good(items);
            if op == Op::Get && n % 50 == 0 {
                ending.status = 404;
                ending.missing = true;
            }
            if second == 1 && n % 100 == 99 {
                ending.status = 503;
                ending.failure = Some(Failure::Status(503));
            }
            tally.answered(op, times, ending);
        }
        if second == 1 {
            tally.lost(Op::Put, Failure::TimedOut);
            tally.lost(Op::Put, Failure::Closed);
        }
        tally.bytes_in = 500_000;
        tally.bytes_out = 400_000;
        tally
    }

    /// Compares with a file in `tests/golden/bench`; `UPDATE=1` rewrites it.
    #[expect(clippy::disallowed_methods, reason = "golden files are read by tests")]
    pub(crate) fn golden(name: &str, text: &str) {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/bench");
        let path = format!("{folder}/{name}");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::create_dir_all(folder).expect("the folder is writable");
            std::fs::write(&path, text).expect("golden file is writable");
        } else {
            let expected = std::fs::read_to_string(&path).expect("golden file");
            assert_eq!(expected, text, "run with UPDATE=1 and read the diff");
        }
    }
}
