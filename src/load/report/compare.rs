//! Pure. Two runs side by side: how much the second differs from the first, and whether that is more than noise.

use std::fmt::Write;

use super::fail_if::{Metric, change};
use super::json::{Kind, Report, Second};
use super::ms;
use super::significance::{LEVEL, SECONDS_MIN, mann_whitney};

/// The whole table, with its last end of line.
#[must_use]
pub fn compare(a: &Report, b: &Report) -> String {
    let mut out = String::new();
    for (name, report) in [("a", a), ("b", b)] {
        let command = plain(&report.run.command.join(" "));
        put(&mut out, format_args!("{name}: {command}\n"));
    }
    for difference in differences(a, b) {
        put(&mut out, format_args!("warning: {difference}\n"));
    }
    put(
        &mut out,
        format_args!(
            "\n{:<22}{:>13}{:>13}{:>11}  seconds differ\n",
            "", "a", "b", "change"
        ),
    );
    let seconds = (whole_seconds(a), whole_seconds(b));
    for metric in Metric::ALL {
        let verdict = verdict(metric, seconds.0, seconds.1);
        let row = row("", metric, Some(&a.totals), Some(&b.totals));
        let line = format!("{row}  {verdict}");
        put(&mut out, format_args!("{}\n", line.trim_end()));
    }
    if a.ops.len() > 1 || b.ops.len() > 1 {
        kinds(&mut out, a, b);
    }
    put(
        &mut out,
        format_args!(
            "\nLatencies in milliseconds. p: how often chance alone would make the seconds of two equal runs differ as \
             much\n(Mann-Whitney U; {LEVEL} or more is called noise, fewer than {SECONDS_MIN} whole seconds say nothing). \
             It knows the seconds of these\ntwo runs and nothing of what else differed between them.\n"
        ),
    );
    out
}

fn put(out: &mut String, what: std::fmt::Arguments<'_>) {
    out.write_fmt(what).expect("a string takes all");
}

/// Reports may come from anywhere: nothing in them may move the cursor of a terminal.
fn plain(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '?' } else { c };
    text.chars().map(shown).collect()
}

/// What makes the runs hard to compare.
fn differences(a: &Report, b: &Report) -> Vec<String> {
    let of = |report: &Report| {
        let run = &report.run;
        let rate = |rate: f64| format!("{rate} requests/s");
        [
            ("workload", run.workload.clone()),
            ("connections", run.connections.to_string()),
            ("pipeline", run.pipeline.to_string()),
            ("rate", run.rate_per_s.map_or("none".to_owned(), rate)),
            ("CPU", report.machine.cpu.clone()),
            ("CPUs", report.machine.cpus.to_string()),
            ("kernel", report.machine.kernel.clone()),
            ("governor", report.machine.governor.clone()),
        ]
    };
    of(a)
        .into_iter()
        .zip(of(b))
        .filter(|(a, b)| a.1 != b.1)
        .map(|((name, a), (_, b))| {
            format!("the runs differ in {name}: {} and {}", plain(&a), plain(&b))
        })
        .collect()
}

fn kinds(out: &mut String, a: &Report, b: &Report) {
    let mut names: Vec<&str> = a.ops.iter().map(|kind| &*kind.op).collect();
    for kind in &b.ops {
        if !names.contains(&&*kind.op) {
            names.push(&kind.op);
        }
    }
    for name in names {
        let of = |report: &'_ Report| report.ops.iter().position(|kind| kind.op == name);
        let (in_a, in_b) = (of(a).map(|at| &a.ops[at]), of(b).map(|at| &b.ops[at]));
        out.push('\n');
        for metric in Metric::ALL {
            let row = row(&plain(name), metric, in_a, in_b);
            put(out, format_args!("{row}\n"));
        }
    }
}

fn row(kind: &str, metric: Metric, a: Option<&Kind>, b: Option<&Kind>) -> String {
    let figures = [a, b].map(|kind| metric.of(kind?));
    let cells = figures.map(|figure| match figure {
        None => "-".to_owned(),
        Some(nanos) if metric.is_latency() => format!("{:.3}", ms(nanos as u64)),
        Some(count) if metric == Metric::Failed => format!("{count:.0}"),
        Some(rate) => format!("{rate:.1}"),
    });
    let change = match figures {
        [Some(a), Some(b)] if a == b => "=".to_owned(),
        [Some(a), Some(b)] if a == 0.0 => format!("+{:.0}", b - a),
        [Some(a), Some(b)] => format!("{:+.1}%", change(a, b)),
        _ => "-".to_owned(),
    };
    let name = match kind {
        "" => metric.name().to_owned(),
        kind => format!("{kind} {}", metric.name()),
    };
    format!("{name:<22}{:>13}{:>13}{change:>11}", cells[0], cells[1])
}

/// The seconds of a run without the last one if that was cut short: its rate is none.
pub(super) fn whole_seconds(report: &Report) -> &[Second] {
    let whole = |of: &Second| (u64::from(of.second) + 1) * 1_000_000_000 <= report.elapsed_ns;
    let count = report.seconds.iter().take_while(|of| whole(of)).count();
    &report.seconds[..count]
}

fn verdict(metric: Metric, a: &[Second], b: &[Second]) -> String {
    let figure: fn(&Second) -> u64 = match metric {
        Metric::Rate => |of| of.requests,
        Metric::P50 => |of| of.p50_ns,
        // Seconds keep no p90.
        Metric::P90 => return String::new(),
        Metric::P99 => |of| of.p99_ns,
        Metric::P999 => |of| of.p999_ns,
        Metric::Max => |of| of.max_ns,
        Metric::Failed => |of| of.failed,
    };
    let figures = [a, b].map(|seconds| -> Vec<f64> {
        let answered = |of: &&Second| !metric.is_latency() || of.requests > 0;
        let kept = seconds.iter().filter(answered);
        kept.map(|of| figure(of) as f64).collect()
    });
    match mann_whitney(&figures[0], &figures[1]) {
        None => "too few".to_owned(),
        Some(p) if p < 0.001 => "yes (p < 0.001)".to_owned(),
        Some(p) if p < LEVEL => format!("yes (p = {p:.3})"),
        Some(p) => format!("noise (p = {p:.2})"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    /// A run of twelve seconds whose figures wander a little around a rate and a p99.
    fn long(rate: u64, p99_ns: u64) -> Report {
        let mut report = Report::of(&example::paced());
        let one = report.seconds[0].clone();
        report.elapsed_ns = 12_400_000_000;
        report.seconds = (0..=12)
            .map(|second| {
                let wander = u64::from(second * 7 % 5);
                Second {
                    second,
                    // The last one is cut short.
                    requests: if second == 12 { 1 } else { rate + wander },
                    p99_ns: p99_ns + 1_000 * wander,
                    ..one.clone()
                }
            })
            .collect();
        report
    }

    #[test]
    fn golden_comparison() {
        let a = long(600, 900_000);
        let mut b = long(601, 2_000_000);
        b.run.connections = 100;
        b.run.command.push("\x1b[31m".to_owned());
        b.totals.requests_per_s *= 1.001;
        b.totals.failed = 0;
        b.totals.response.as_mut().expect("paced").p99_ns *= 2;
        b.ops.remove(0);
        let text = compare(&a, &b);
        assert!(!text.contains('\x1b'), "{text}");
        example::golden("compare.txt", &text);
    }

    #[test]
    fn a_run_and_itself_are_equal() {
        let a = long(600, 900_000);
        let text = compare(&a, &a);
        assert!(
            !text.contains("yes (") && !text.contains("warning"),
            "{text}"
        );
        assert!(text.contains("noise (p = 1.00)"), "{text}");
    }

    #[test]
    fn a_cut_second_is_no_evidence() {
        let report = long(600, 1);
        assert_eq!(whole_seconds(&report).len(), 12);
        let short = Report::of(&example::paced());
        assert_eq!(whole_seconds(&short).len(), 3);
        assert!(compare(&short, &short).contains("too few"));
    }
}
