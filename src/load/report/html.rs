//! Pure. A run as one HTML page that needs nothing else: no script, no font, no other file.
//!
//! It may be mailed, attached to a ticket and opened years later. Charts are SVG inside the page; light and dark follow
//! the reader's system; columns become one on a telephone. Command, targets and what the server said of itself come
//! from outside and are escaped, and the page's own policy would let nothing run that was not.

use std::fmt::Write;

use hdrhistogram::Histogram;

use super::super::outcome::{Outcome, Sample};
use super::super::tally::Tally;
use super::svg::{Axis, Chart, Line};
use super::{judged, judged_of, ms, nanos, per_second, rounded};

/// More seconds than a chart has room for are joined: mean of the rates, greatest of the latencies.
const POINTS_MAX: usize = 300;

/// How densely the latencies are read off between 0 and 50 %, between 50 and 75 %, and so on.
const STEPS_PER_HALF: u32 = 8;

const STYLE: &str = "
:root{color-scheme:light dark;--back:#fff;--card:#f6f7f9;--text:#16181d;--soft:#5b6472;--grid:#dfe3e8;
--a:#1d5fd1;--b:#b45309;--c:#c81e1e;--good:#15803d}
@media (prefers-color-scheme:dark){:root{--back:#101216;--card:#191c22;--text:#e8eaee;--soft:#9aa4b2;
--grid:#2d323b;--a:#6aa5ff;--b:#f5b13d;--c:#ff7b7b;--good:#4ade80}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1280px;padding:16px;background:var(--back);color:var(--text);
font:15px/1.45 system-ui,sans-serif}
h1{font-size:22px;margin:0 0 4px}h2{font-size:16px;margin:0 0 8px}
code,td.num{font-family:ui-monospace,monospace;font-size:13px}
code{overflow-wrap:anywhere}
.soft{color:var(--soft)}
.cards{display:grid;gap:12px;grid-template-columns:repeat(auto-fit,minmax(140px,1fr));margin:16px 0}
.charts{display:grid;gap:12px;grid-template-columns:repeat(auto-fit,minmax(min(100%,340px),1fr));margin:12px 0}
.card{background:var(--card);border-radius:8px;padding:12px;min-width:0;margin:0 0 12px}
.cards .card,.charts .card{margin:0}
.big{font-size:20px;font-weight:600;white-space:nowrap}
.bad{color:var(--c)}.good{color:var(--good)}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%}
th,td{padding:4px 8px;text-align:left;border-bottom:1px solid var(--grid);vertical-align:top}
th{font-weight:600;white-space:nowrap}td.num,th.num{text-align:right;white-space:nowrap}
.facts th{width:1%}.facts td{overflow-wrap:anywhere}
svg{display:block;width:100%;height:auto}
svg text{font-size:13px;fill:var(--soft)}svg .y{text-anchor:end}svg .x,svg .label{text-anchor:middle}
.grid{stroke:var(--grid);fill:none}
.line{fill:none;stroke-width:2;stroke-linejoin:round}
.line.a,.dot.a{stroke:var(--a)}.line.b,.dot.b{stroke:var(--b);stroke-dasharray:6 3}
.line.c,.dot.c{stroke:var(--c);stroke-dasharray:2 3}
.dot.a{fill:var(--a)}.dot.b{fill:var(--b)}.dot.c{fill:var(--c)}
.key{margin:4px 0 0;color:var(--soft);font-size:13px}.key svg{display:inline-block;width:28px;height:8px;margin:0 6px 0 0}
.key span{margin-right:16px;white-space:nowrap}
.warn{border-left:4px solid var(--b)}
";

/// The whole page.
#[must_use]
pub fn html(outcome: &Outcome) -> String {
    let title = format!("kvstore bench: {}", outcome.run.workload);
    let sections = [
        head(outcome),
        headline(outcome),
        warnings(&outcome.warnings),
        charts(outcome),
        kinds(outcome),
        answers(&outcome.total),
        facts(outcome),
    ];
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{}</title><style>{STYLE}</style></head>\n<body>\n{}\n</body></html>\n",
        escaped(&title),
        sections.join("\n")
    )
}

/// Text from outside, for text and attributes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() && c != '\n' && c != '\t' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

fn put(out: &mut String, what: std::fmt::Arguments<'_>) {
    out.write_fmt(what).expect("a string takes all");
}

fn head(outcome: &Outcome) -> String {
    format!(
        "<h1>{}</h1>\n<p class=\"soft\">{} on {}</p>",
        escaped(&outcome.run.workload),
        escaped(&began(outcome.run.began_unix_ms)),
        escaped(&outcome.run.targets.join(", "))
    )
}

fn began(unix_ms: u64) -> String {
    let ms = i64::try_from(unix_ms).ok();
    match ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()) {
        Some(time) => format!("{}", time.strftime("%Y-%m-%d %H:%M:%S UTC")),
        None => String::new(),
    }
}

fn headline(outcome: &Outcome) -> String {
    let latencies = judged(&outcome.total);
    let failed = outcome.total.failed();
    let at = |share: f64| match latencies.is_empty() {
        true => "-".to_owned(),
        false => short(ms(latencies.value_at_quantile(share))),
    };
    let share = failed as f64 / outcome.total.ended().max(1) as f64 * 100.0;
    let failures = match failed {
        0 => "0".to_owned(),
        failed => format!("{failed} ({share:.2}%)"),
    };
    let cards = [
        ("requests per second", format!("{:.0}", outcome.rate()), ""),
        ("p50", at(0.5), ""),
        ("p99", at(0.99), ""),
        ("p99.9", at(0.999), ""),
        ("max", at(1.0), ""),
        (
            "failed",
            failures,
            if failed > 0 { " bad" } else { " good" },
        ),
        ("requests", outcome.total.ended().to_string(), ""),
        (
            "seconds",
            format!("{:.2}", outcome.elapsed.as_secs_f64()),
            "",
        ),
        ("received", rounded(outcome.total.bytes_in as f64, "B"), ""),
        ("sent", rounded(outcome.total.bytes_out as f64, "B"), ""),
    ];
    let mut out = String::from("<div class=\"cards\">");
    for (name, figure, class) in cards {
        put(
            &mut out,
            format_args!(
                "<div class=\"card\"><div class=\"soft\">{name}</div><div class=\"big{class}\">{figure}</div></div>"
            ),
        );
    }
    out.push_str("</div>");
    if outcome.total.response().is_some() {
        out.push_str(
            "<p class=\"soft\">Latencies are response times: from when the given rate wanted a request sent. \
             Service times, from when it was sent, are below.</p>",
        );
    }
    out
}

/// Four digits of so many milliseconds, which fit on a card.
fn short(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.3} ms"),
        ms if ms < 100.0 => format!("{ms:.2} ms"),
        ms => format!("{ms:.1} ms"),
    }
}

fn warnings(warnings: &[String]) -> String {
    let mut out = String::new();
    for warning in warnings {
        let warning = escaped(warning);
        put(
            &mut out,
            format_args!("<p class=\"card warn\">{warning}</p>"),
        );
    }
    out
}

fn charts(outcome: &Outcome) -> String {
    let points = points(outcome);
    let mut out = String::from("<div class=\"charts\">");
    card(
        &mut out,
        "Requests per second",
        &rate_chart(&points),
        &[("a", "rate")],
    );
    let names = [("a", "p50"), ("b", "p99"), ("c", "max")];
    card(
        &mut out,
        "Latency over time",
        &latency_chart(&points),
        &names,
    );
    let total = &outcome.total;
    let (service, response) = (total.service(), total.response());
    let names: &[(&str, &str)] = match &response {
        Some(_) => &[("a", "response time"), ("b", "service time")],
        None => &[("a", "service time")],
    };
    let chart = percentile_chart(&service, response.as_ref());
    card(&mut out, "Latency by percentile", &chart, names);
    out.push_str("</div>");
    out
}

fn card(out: &mut String, title: &str, chart: &str, lines: &[(&str, &str)]) {
    put(
        out,
        format_args!("<div class=\"card\"><h2>{title}</h2>{chart}<p class=\"key\">"),
    );
    for (class, name) in lines {
        put(
            out,
            format_args!(
                "<span><svg viewBox=\"0 0 28 8\" aria-hidden=\"true\">\
                 <polyline class=\"line {class}\" points=\"0,4 28,4\"/></svg>{name}</span>"
            ),
        );
    }
    out.push_str("</p></div>");
}

/// One or more seconds of a run.
struct Point {
    second: f64,
    rate: f64,
    /// p50, p99 and max, in milliseconds. `None`: no answers.
    latencies: Option<[f64; 3]>,
}

fn points(outcome: &Outcome) -> Vec<Point> {
    // A last second that was cut short would look like a breakdown.
    let whole = |of: &&Sample| f64::from(of.second) + 1.0 <= outcome.elapsed.as_secs_f64();
    let mut seconds: Vec<&Sample> = outcome.seconds.iter().filter(whole).collect();
    if seconds.is_empty() {
        seconds = outcome.seconds.iter().collect();
    }
    let joined = seconds.len().div_ceil(POINTS_MAX).max(1);
    seconds
        .chunks(joined)
        .map(|some| {
            let requests: u64 = some.iter().map(|of| of.requests).sum();
            let most = |figure: fn(&Sample) -> std::time::Duration| {
                let figures = some.iter().map(|of| figure(of));
                ms(nanos(figures.max().unwrap_or_default()))
            };
            Point {
                second: f64::from(some[0].second),
                rate: requests as f64 / some.len() as f64,
                latencies: (requests > 0)
                    .then(|| [most(|of| of.p50), most(|of| of.p99), most(|of| of.max)]),
            }
        })
        .collect()
}

fn time_axis(points: &[Point]) -> Axis {
    let last = points.last().map_or(1.0, |point| point.second);
    let mut axis = Axis::linear("seconds", last.max(1.0));
    axis.high = last.max(1.0);
    axis.ticks
        .retain(|(at, text)| *at <= last.max(1.0) && !text.contains('.'));
    axis
}

fn rate_chart(points: &[Point]) -> String {
    let most = points.iter().map(|point| point.rate).fold(0.0, f64::max);
    let line = points.iter().map(|point| (point.second, point.rate));
    Chart {
        told: format!("requests per second over time, at most {most:.0}"),
        x: time_axis(points),
        y: Axis::linear("requests/s", most),
        lines: vec![Line {
            class: "a",
            points: line.collect(),
        }],
    }
    .draw()
}

fn latency_chart(points: &[Point]) -> String {
    let known = || {
        points
            .iter()
            .filter_map(|point| Some((point.second, point.latencies?)))
    };
    let all = || {
        known()
            .flat_map(|(_, latencies)| latencies)
            .filter(|of| *of > 0.0)
    };
    let (least, most) = (all().fold(f64::MAX, f64::min), all().fold(0.0, f64::max));
    let y = match most > 0.0 {
        true => Axis::log("milliseconds", least, most),
        false => Axis::log("milliseconds", 1.0, 10.0),
    };
    let line = |at: usize, class| Line {
        class,
        points: known().map(|(second, of)| (second, of[at])).collect(),
    };
    Chart {
        told: format!("p50, p99 and greatest latency over time, at most {most:.3} milliseconds"),
        x: time_axis(points),
        y,
        lines: vec![line(0, "a"), line(1, "b"), line(2, "c")],
    }
    .draw()
}

/// Share q of the requests stands at 1/(1-q): every further nine gets as much room as the one before.
fn percentile_chart(service: &Histogram<u64>, response: Option<&Histogram<u64>>) -> String {
    let first = response.unwrap_or(service);
    let most = first.max().max(service.max());
    let least = [first, service].map(|of| of.min().max(1));
    let count = (first.len() as f64).max(10.0);
    let mut x = Axis::log("percentile", 1.0, count);
    x.ticks = [
        (2.0, "50%"),
        (10.0, "90%"),
        (100.0, "99%"),
        (1e3, "99.9%"),
        (1e4, "99.99%"),
        (1e5, "99.999%"),
        (1e6, "5 nines"),
        (1e7, "6 nines"),
        (1e8, "7 nines"),
    ]
    .into_iter()
    .filter(|(at, _)| *at <= x.high && (*at != 1e5 || x.high < 1e7))
    .map(|(at, text)| (at, text.to_owned()))
    .collect();
    let y = match most {
        0 => Axis::log("milliseconds", 1.0, 10.0),
        most => Axis::log("milliseconds", ms(least[0].min(least[1])), ms(most)),
    };
    let mut lines = vec![curve("a", first)];
    if response.is_some() {
        lines.push(curve("b", service));
    }
    Chart {
        told: format!(
            "latency by percentile, at most {:.3} milliseconds",
            ms(most)
        ),
        x,
        y,
        lines,
    }
    .draw()
}

fn curve(class: &'static str, of: &Histogram<u64>) -> Line {
    let count = of.len() as f64;
    let points = of.iter_quantiles(STEPS_PER_HALF).map(|step| {
        let above = 1.0 - step.quantile_iterated_to();
        // The slowest one of n stands at n.
        let at = if above * count <= 1.0 {
            count
        } else {
            1.0 / above
        };
        (at, ms(step.value_iterated_to()))
    });
    Line {
        class,
        points: match of.is_empty() {
            true => Vec::new(),
            false => points.collect(),
        },
    }
}

fn kinds(outcome: &Outcome) -> String {
    let mut out = String::from(
        "<div class=\"card\"><h2>Operations</h2><div class=\"wide\"><table><tr><th>operation</th>",
    );
    for name in [
        "requests", "failed", "missing", "req/s", "items/s", "p50 ms", "p90 ms", "p99 ms",
        "p99.9 ms", "max ms",
    ] {
        put(&mut out, format_args!("<th class=\"num\">{name}</th>"));
    }
    out.push_str("</tr>");
    for (op, of) in outcome.total.ops() {
        let rate = |count: u64| format!("{:.1}", per_second(count, outcome.elapsed));
        let counts = [
            of.ended.to_string(),
            of.failed.to_string(),
            of.missing.to_string(),
            rate(of.ended),
            rate(of.items),
        ];
        kind(&mut out, op.name(), &counts, judged_of(of));
        if of.response.is_some() {
            let none = [const { String::new() }; 5];
            kind(&mut out, "… service time", &none, &of.service);
        }
    }
    out.push_str("</table></div></div>");
    out
}

fn kind(out: &mut String, name: &str, counts: &[String; 5], latencies: &Histogram<u64>) {
    put(out, format_args!("<tr><th>{name}</th>"));
    for count in counts {
        put(out, format_args!("<td class=\"num\">{count}</td>"));
    }
    for share in [0.5, 0.9, 0.99, 0.999, 1.0] {
        let cell = match latencies.is_empty() {
            true => "-".to_owned(),
            false => format!("{:.3}", ms(latencies.value_at_quantile(share))),
        };
        put(out, format_args!("<td class=\"num\">{cell}</td>"));
    }
    out.push_str("</tr>");
}

fn answers(total: &Tally) -> String {
    let mut out =
        String::from("<div class=\"charts\"><div class=\"card\"><h2>Statuses</h2><table>");
    for (status, count) in &total.statuses {
        row(&mut out, &status.to_string(), *count);
    }
    out.push_str("</table></div><div class=\"card\"><h2>Failures</h2><table>");
    if total.failures.is_empty() {
        out.push_str("<tr><td>none</td></tr>");
    }
    for (failure, count) in &total.failures {
        row(&mut out, &escaped(&failure.to_string()), *count);
    }
    out.push_str("</table></div></div>");
    out
}

fn row(out: &mut String, name: &str, count: u64) {
    put(
        out,
        format_args!("<tr><td>{name}</td><td class=\"num\">{count}</td></tr>"),
    );
}

fn facts(outcome: &Outcome) -> String {
    let (run, machine) = (&outcome.run, &outcome.machine);
    let rate = |rate: f64| format!("{rate} requests per second");
    let facts = [
        ("Connections", run.connections.to_string()),
        ("Threads", run.threads.to_string()),
        ("Pipeline", run.pipeline.to_string()),
        (
            "Rate",
            run.rate.map_or("as fast as answers come".to_owned(), rate),
        ),
        ("Warmup", format!("{} s", run.warmup.as_secs_f64())),
        ("CPU", format!("{} × {}", machine.cpus, machine.cpu)),
        ("Kernel", machine.kernel.clone()),
        ("Governor", machine.governor.clone()),
        ("Version", machine.version.clone()),
        ("Server before", machine.server_before.clone()),
        ("Server after", machine.server_after.clone()),
    ];
    let mut out = format!(
        "<div class=\"card\"><h2>Run</h2><p><code>{}</code></p><table class=\"facts\">",
        escaped(&run.command.join(" "))
    );
    for (name, fact) in facts.iter().filter(|(_, fact)| !fact.is_empty()) {
        let fact = escaped(fact);
        put(
            &mut out,
            format_args!("<tr><th>{name}</th><td>{fact}</td></tr>"),
        );
    }
    out.push_str("</table></div>");
    out
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[test]
    fn golden_pages() {
        example::golden("paced.html", &html(&example::paced()));
    }

    #[test]
    fn nothing_from_outside_becomes_markup() {
        let evil = "\"><img src=x onerror=alert(1)>'&\u{7}".to_owned();
        let mut outcome = example::closed();
        outcome.run.targets = vec![evil.clone()];
        outcome.run.workload = evil.clone();
        outcome.run.command = vec![evil.clone()];
        outcome.warnings = vec![evil.clone()];
        let machine = &mut outcome.machine;
        for field in [
            &mut machine.cpu,
            &mut machine.kernel,
            &mut machine.governor,
            &mut machine.version,
            &mut machine.server_before,
            &mut machine.server_after,
        ] {
            field.clone_from(&evil);
        }
        let page = html(&outcome);
        assert!(!page.contains("<img") && !page.contains("\">'"), "{page}");
        let safe = "&quot;&gt;&lt;img src=x onerror=alert(1)&gt;&#39;&amp;\u{fffd}";
        assert_eq!(
            page.matches(safe).count(),
            11,
            "title and head are two of them"
        );
    }

    #[test]
    fn the_page_needs_nothing_else() {
        let page = html(&example::paced());
        for word in [
            "http-equiv=\"refresh\"",
            "<script",
            "<link",
            "src=",
            "url(",
            "@import",
            "NaN",
            "inf",
        ] {
            assert!(!page.contains(word), "{word}");
        }
        // The only address is the target, as text.
        assert_eq!(
            page.matches("http://").count(),
            2,
            "in the head and in the command"
        );
        assert!(html(&Outcome::default()).ends_with("</html>\n"));
    }

    #[test]
    fn long_runs_are_joined_without_losing_a_peak() {
        let mut outcome = example::closed();
        let one = outcome.seconds[0];
        outcome.elapsed = std::time::Duration::from_secs(1_000);
        outcome.seconds = (0..1_000).map(|second| Sample { second, ..one }).collect();
        outcome.seconds[777].max = std::time::Duration::from_millis(500);
        let points = points(&outcome);
        assert!(points.len() <= POINTS_MAX, "{}", points.len());
        let peak = points
            .iter()
            .filter_map(|point| point.latencies)
            .map(|of| of[2]);
        assert_eq!(peak.fold(0.0, f64::max), 500.0);
        assert!(points.iter().all(|point| point.rate == 1_000.0));
    }
}
