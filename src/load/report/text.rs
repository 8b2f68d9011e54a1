//! Pure. The summary of a run, in the blocks and the order of `hey`.
//!
//! Whoever reads `hey`'s output with eyes or a script finds every line again: seconds with four places, percentiles as
//! `99% in 0.0123 secs`. What `hey` cannot know is added behind or between: tails beyond 99 %, a table of the kinds of
//! requests in milliseconds, and at a given rate the response time (from when a request should have been sent)
//! beside the service time.

use std::fmt::Write;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::super::outcome::Outcome;
use super::super::tally::{Op, OpTally, Tally};
use super::{judged, judged_of, ms, per_second};

/// Bars of the histogram: as many and as long as those of `hey`.
const BARS: usize = 10;
const BAR_LEN_MAX: u64 = 40;

/// Shares of the requests whose latency is told, in percent.
const PERCENTS: [(&str, f64); 9] = [
    ("10", 0.1),
    ("25", 0.25),
    ("50", 0.5),
    ("75", 0.75),
    ("90", 0.9),
    ("95", 0.95),
    ("99", 0.99),
    ("99.9", 0.999),
    ("99.99", 0.9999),
];

/// The whole summary, with its last end of line.
#[must_use]
pub fn text(outcome: &Outcome) -> String {
    let latencies = judged(&outcome.total);
    let blocks = [
        summary(outcome, &latencies),
        bars(&latencies),
        distribution(&outcome.total, &latencies),
        kinds(outcome),
        statuses(&outcome.total),
        errors(&outcome.total),
        warnings(&outcome.warnings),
    ];
    let blocks: Vec<String> = blocks
        .into_iter()
        .filter(|block| !block.is_empty())
        .collect();
    format!("\n{}\n", blocks.join("\n"))
}

fn seconds(nanos: f64) -> String {
    format!("{:.4} secs", nanos / 1e9)
}

fn summary(outcome: &Outcome, latencies: &Histogram<u64>) -> String {
    let total = &outcome.total;
    let mut lines = format!(
        "Summary:\n  Total:\t{:.4} secs\n",
        outcome.elapsed.as_secs_f64()
    );
    if !latencies.is_empty() {
        let rows = [
            ("Slowest", latencies.max() as f64),
            ("Fastest", latencies.min() as f64),
            ("Average", latencies.mean()),
        ];
        for (name, nanos) in rows {
            put(&mut lines, format_args!("  {name}:\t{}\n", seconds(nanos)));
        }
    }
    put(
        &mut lines,
        format_args!("  Requests/sec:\t{:.4}\n", outcome.rate()),
    );
    if let Some(rate) = outcome.run.rate {
        put(
            &mut lines,
            format_args!("  Asked for:\t{rate:.4} requests/sec\n"),
        );
    }
    let answers: u64 = total.statuses.values().sum();
    if total.bytes_in > 0 {
        put(
            &mut lines,
            format_args!(
                "\n  Total data:\t{} bytes\n  Size/request:\t{} bytes\n",
                total.bytes_in,
                total.bytes_in / answers.max(1)
            ),
        );
    }
    lines
}

fn put(lines: &mut String, what: std::fmt::Arguments<'_>) {
    lines.write_fmt(what).expect("a string takes all");
}

/// The first bar is the fastest request alone; ten equal steps lead from there to the slowest.
fn bars(latencies: &Histogram<u64>) -> String {
    if latencies.is_empty() {
        return String::new();
    }
    let (fastest, slowest) = (latencies.min(), latencies.max());
    let step = (slowest - fastest) as f64 / BARS as f64;
    let ends: Vec<f64> = (0..=BARS)
        .map(|bar| fastest as f64 + step * bar as f64)
        .collect();
    let mut counts = [0_u64; BARS + 1];
    for value in latencies.iter_recorded() {
        let at = latencies.lowest_equivalent(value.value_iterated_to()) as f64;
        let bar = ends.iter().position(|end| at <= *end).unwrap_or(BARS);
        counts[bar] += value.count_since_last_iteration();
    }
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let mut lines = String::from("Response time histogram:\n");
    for (end, count) in ends.iter().zip(counts) {
        let len = (count * BAR_LEN_MAX + most / 2) / most;
        let bar = "■".repeat(usize::try_from(len).unwrap_or(0));
        put(
            &mut lines,
            format_args!("  {:.4} [{count}]\t|{bar}\n", end / 1e9),
        );
    }
    lines
}

fn distribution(total: &Tally, latencies: &Histogram<u64>) -> String {
    if latencies.is_empty() {
        return String::new();
    }
    let service = total.service();
    let paced = total.response().is_some();
    let mut lines = String::from("Latency distribution:\n");
    if paced {
        lines.push_str(
            "  Response time (from the intended start)  Service time (from the sending)\n",
        );
    }
    let quantile = |share: f64| {
        let of = |histogram: &Histogram<u64>| seconds(histogram.value_at_quantile(share) as f64);
        (of(latencies), of(&service))
    };
    for (percent, share) in PERCENTS.into_iter().chain([("100", 1.0)]) {
        let (judged, service) = quantile(share);
        let line = format!("  {percent}% in {judged}");
        match paced {
            true => put(&mut lines, format_args!("{line:<43}{service}\n")),
            false => put(&mut lines, format_args!("{line}\n")),
        }
    }
    lines
}

/// What a row of the table of kinds tells.
struct Kind {
    name: &'static str,
    of: OpTally,
}

fn kinds(outcome: &Outcome) -> String {
    let kinds: Vec<Kind> = outcome
        .total
        .ops()
        .map(|(op, of)| Kind {
            name: op.name(),
            of: of.clone(),
        })
        .collect();
    if kinds.is_empty() {
        return String::new();
    }
    let many = outcome
        .total
        .ops()
        .any(|(op, _)| matches!(op, Op::Scan | Op::Batch));
    let mut lines = String::from("Operations (latencies in milliseconds):\n");
    put(
        &mut lines,
        format_args!(
            "  {:<18}{:>10}{:>8}{:>9}{:>11}{}{:>10}{:>10}{:>10}{:>10}\n",
            "",
            "count",
            "failed",
            "missing",
            "req/s",
            if many { "     items/s" } else { "" },
            "p50",
            "p99",
            "p99.9",
            "max"
        ),
    );
    for Kind { name, of } in &kinds {
        let first = judged_of(of);
        row(&mut lines, name, Some(of), first, outcome.elapsed, many);
        if of.response.is_some() {
            row(
                &mut lines,
                "  service time",
                None,
                &of.service,
                outcome.elapsed,
                many,
            );
        }
    }
    lines
}

fn row(
    lines: &mut String,
    name: &str,
    counts: Option<&OpTally>,
    latencies: &Histogram<u64>,
    elapsed: Duration,
    many: bool,
) {
    let rate = |count: u64| format!("{:.1}", per_second(count, elapsed));
    let [count, failed, missing, rate, items] = match counts {
        Some(of) => [
            of.ended.to_string(),
            of.failed.to_string(),
            of.missing.to_string(),
            rate(of.ended),
            rate(of.items),
        ],
        None => [const { String::new() }; 5],
    };
    let items = if many {
        format!("{items:>12}")
    } else {
        String::new()
    };
    put(
        lines,
        format_args!("  {name:<18}{count:>10}{failed:>8}{missing:>9}{rate:>11}{items}"),
    );
    for share in [0.5, 0.99, 0.999, 1.0] {
        let cell = match latencies.is_empty() {
            true => "-".to_owned(),
            false => format!("{:.3}", ms(latencies.value_at_quantile(share))),
        };
        put(lines, format_args!("{cell:>10}"));
    }
    lines.push('\n');
}

fn statuses(total: &Tally) -> String {
    if total.statuses.is_empty() {
        return String::new();
    }
    let mut lines = String::from("Status code distribution:\n");
    for (status, count) in &total.statuses {
        put(
            &mut lines,
            format_args!("  [{status}]\t{count} responses\n"),
        );
    }
    lines
}

fn errors(total: &Tally) -> String {
    if total.failures.is_empty() {
        return String::new();
    }
    let mut lines = String::from("Error distribution:\n");
    for (failure, count) in &total.failures {
        put(&mut lines, format_args!("  [{count}]\t{failure}\n"));
    }
    lines
}

fn warnings(warnings: &[String]) -> String {
    let lines: Vec<String> = warnings
        .iter()
        .map(|warning| format!("warning: {warning}\n"))
        .collect();
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[test]
    fn golden_summaries() {
        example::golden("closed.txt", &text(&example::closed()));
        example::golden("paced.txt", &text(&example::paced()));
    }

    #[test]
    fn every_request_is_in_one_bar() {
        let outcome = example::paced();
        let latencies = judged(&outcome.total);
        let counted: u64 = bars(&latencies)
            .lines()
            .filter_map(|line| {
                line.split_once('[')?
                    .1
                    .split_once(']')?
                    .0
                    .parse::<u64>()
                    .ok()
            })
            .sum();
        assert_eq!(counted, latencies.len());
    }

    #[test]
    fn a_run_without_any_answer_has_a_summary_too() {
        let mut outcome = Outcome::default();
        outcome
            .total
            .lost(Op::Get, super::super::super::tally::Failure::Connect);
        let text = text(&outcome);
        assert!(text.contains("Requests/sec:\t0.0000\n"), "{text}");
        assert!(
            !text.contains("histogram") && !text.contains("NaN"),
            "{text}"
        );
        assert!(
            text.contains("Error distribution:\n  [1]\tconnection refused"),
            "{text}"
        );
    }
}
