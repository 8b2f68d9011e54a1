//! Pure. A run as JSON: for programs, and to be compared with another run.
//!
//! The schema is stable: a field never changes its meaning, new ones may come, and [`SCHEMA`] grows when one goes.
//! Units are part of the names. What is not known or not there is `null`.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::super::outcome::{Outcome, Sample};
use super::super::tally::{OpTally, Tally};
use super::{nanos, per_second};

pub const SCHEMA: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub schema: u32,
    pub run: Run,
    pub machine: Machine,
    pub elapsed_ns: u64,
    pub totals: Kind,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// At a given rate: how much later than intended requests were sent.
    pub lag: Option<Latencies>,
    /// By name, in the order of the text report.
    pub ops: Vec<Kind>,
    pub statuses: BTreeMap<u16, u64>,
    pub failures: Vec<Failures>,
    pub seconds: Vec<Second>,
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub command: Vec<String>,
    pub targets: Vec<String>,
    pub workload: String,
    pub connections: usize,
    pub threads: usize,
    pub pipeline: usize,
    pub rate_per_s: Option<f64>,
    pub warmup_ns: u64,
    pub requests: Option<u64>,
    pub duration_ns: Option<u64>,
    pub began_unix_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cpus: usize,
    pub kernel: String,
    pub governor: String,
    pub version: String,
    pub server_before: String,
    pub server_after: String,
}

/// Requests of one kind, or of all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kind {
    /// `all` for the totals.
    pub op: String,
    pub requests: u64,
    pub failed: u64,
    pub missing: u64,
    pub items: u64,
    pub requests_per_s: f64,
    pub items_per_s: f64,
    pub service: Latencies,
    /// From the intended start; `null` in a closed loop.
    pub response: Option<Latencies>,
}

/// Of the requests that were answered. All zero when there were none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latencies {
    pub answers: u64,
    pub min_ns: u64,
    pub mean_ns: u64,
    pub p50_ns: u64,
    pub p75_ns: u64,
    pub p90_ns: u64,
    pub p95_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
    pub p9999_ns: u64,
    pub max_ns: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    pub why: String,
    pub count: u64,
}

/// Latencies of the response where there are any, else of the service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Second {
    pub second: u32,
    pub requests: u64,
    pub failed: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
    pub max_ns: u64,
}

/// The JSON text of a run, with its last end of line.
#[must_use]
pub fn json(outcome: &Outcome) -> String {
    let report = Report::of(outcome);
    let mut text = serde_json::to_string_pretty(&report).expect("numbers and strings");
    text.push('\n');
    text
}

/// A report that [`json`] has made, by this program or one before it.
pub fn read(text: &[u8]) -> Result<Report, String> {
    #[derive(Deserialize)]
    struct Versioned {
        schema: Option<u32>,
    }
    let versioned: Versioned =
        serde_json::from_slice(text).map_err(|error| format!("not a report: {error}"))?;
    match versioned.schema {
        Some(SCHEMA) => {
            serde_json::from_slice(text).map_err(|error| format!("a broken report: {error}"))
        }
        Some(other) => Err(format!(
            "a report of schema {other}, this program reads {SCHEMA}"
        )),
        None => Err("not a report: it has no schema".to_owned()),
    }
}

impl Kind {
    /// The latencies the run is judged by.
    #[must_use]
    pub fn judged(&self) -> &Latencies {
        self.response.as_ref().unwrap_or(&self.service)
    }
}

impl Latencies {
    fn of(histogram: &Histogram<u64>) -> Latencies {
        let at = |share| histogram.value_at_quantile(share);
        Latencies {
            answers: histogram.len(),
            min_ns: histogram.min(),
            mean_ns: histogram.mean() as u64,
            p50_ns: at(0.5),
            p75_ns: at(0.75),
            p90_ns: at(0.9),
            p95_ns: at(0.95),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            p9999_ns: at(0.9999),
            max_ns: histogram.max(),
        }
    }
}

impl Second {
    fn of(sample: &Sample) -> Second {
        Second {
            second: sample.second,
            requests: sample.requests,
            failed: sample.failed,
            bytes_in: sample.bytes_in,
            bytes_out: sample.bytes_out,
            p50_ns: nanos(sample.p50),
            p99_ns: nanos(sample.p99),
            p999_ns: nanos(sample.p999),
            max_ns: nanos(sample.max),
        }
    }
}

impl Report {
    #[must_use]
    pub fn of(outcome: &Outcome) -> Report {
        let Outcome {
            run,
            machine,
            elapsed,
            total,
            seconds,
            warnings,
        } = outcome;
        // So few digits read back as the number they were.
        let per_s = |count: u64| (per_second(count, *elapsed) * 1e3).round() / 1e3;
        Report {
            schema: SCHEMA,
            run: Run {
                command: run.command.clone(),
                targets: run.targets.clone(),
                workload: run.workload.clone(),
                connections: run.connections,
                threads: run.threads,
                pipeline: run.pipeline,
                rate_per_s: run.rate,
                warmup_ns: nanos(run.warmup),
                requests: run.requests,
                duration_ns: run.duration.map(nanos),
                began_unix_ms: run.began_unix_ms,
            },
            machine: Machine {
                cpu: machine.cpu.clone(),
                cpus: machine.cpus,
                kernel: machine.kernel.clone(),
                governor: machine.governor.clone(),
                version: machine.version.clone(),
                server_before: machine.server_before.clone(),
                server_after: machine.server_after.clone(),
            },
            elapsed_ns: nanos(*elapsed),
            totals: totals(total, per_s),
            bytes_in: total.bytes_in,
            bytes_out: total.bytes_out,
            lag: total.lag.as_deref().map(Latencies::of),
            ops: total
                .ops()
                .map(|(op, of)| kind(op.name(), of, per_s))
                .collect(),
            statuses: total.statuses.clone(),
            failures: total
                .failures
                .iter()
                .map(|(why, count)| Failures {
                    why: why.to_string(),
                    count: *count,
                })
                .collect(),
            seconds: seconds.iter().map(Second::of).collect(),
            warnings: warnings.clone(),
        }
    }
}

fn kind(op: &str, of: &OpTally, per_s: impl Fn(u64) -> f64) -> Kind {
    Kind {
        op: op.to_owned(),
        requests: of.ended,
        failed: of.failed,
        missing: of.missing,
        items: of.items,
        requests_per_s: per_s(of.ended),
        items_per_s: per_s(of.items),
        service: Latencies::of(&of.service),
        response: of.response.as_ref().map(Latencies::of),
    }
}

fn totals(total: &Tally, per_s: impl Fn(u64) -> f64) -> Kind {
    let sum = |what: fn(&OpTally) -> u64| total.ops().map(|(_, of)| what(of)).sum::<u64>();
    let items = sum(|of| of.items);
    Kind {
        op: "all".to_owned(),
        requests: total.ended(),
        failed: total.failed(),
        missing: sum(|of| of.missing),
        items,
        requests_per_s: per_s(total.ended()),
        items_per_s: per_s(items),
        service: Latencies::of(&total.service()),
        response: total.response().as_ref().map(Latencies::of),
    }
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[test]
    fn a_report_reads_back_as_it_was() {
        for outcome in [example::closed(), example::paced(), Outcome::default()] {
            let text = json(&outcome);
            assert_eq!(read(text.as_bytes()), Ok(Report::of(&outcome)));
        }
        example::golden("paced.json", &json(&example::paced()));
        example::golden("closed.json", &json(&example::closed()));
    }

    #[test]
    fn what_is_no_report_is_refused_in_words() {
        let later = br#"{"schema":2}"#;
        assert_eq!(
            read(later),
            Err("a report of schema 2, this program reads 1".to_owned())
        );
        assert!(read(b"{}").expect_err("empty").contains("no schema"));
        assert!(
            read(b"<html>")
                .expect_err("no JSON")
                .starts_with("not a report")
        );
        let cut = br#"{"schema":1}"#;
        assert!(read(cut).expect_err("cut").starts_with("a broken report"));
    }

    /// A program reads reports of later ones of the same schema, which may say more.
    #[test]
    fn more_fields_do_no_harm() {
        let outcome = example::closed();
        let text = json(&outcome).replacen('{', "{\"more\": [1],", 1);
        assert_eq!(read(text.as_bytes()), Ok(Report::of(&outcome)));
    }
}
