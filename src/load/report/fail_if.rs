//! Pure. Conditions under which a comparison of two runs fails: what a build server is told to refuse.
//!
//! ```text
//! conditions  condition ("," condition)*
//! condition   metric (">" | "<") ["+" | "-"] number ["%"]
//! metric      rate | p50 | p90 | p99 | p99.9 | max | failed
//! ```
//!
//! With `%` the change from the first run to the second is meant, without it the figure of the second. `p99>+10%`:
//! the second run's p99 is more than a tenth above that of the first. Latencies are compared in percent only.

use super::json::{Kind, Latencies, Report};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Metric {
    Rate,
    P50,
    P90,
    P99,
    P999,
    Max,
    Failed,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FailIf {
    metric: Metric,
    /// More than the bound fails; else less than it.
    above: bool,
    bound: f64,
    percent: bool,
    /// As typed.
    text: String,
}

/// Text that is no condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Bytes before what cannot be understood.
    pub offset: usize,
    pub why: String,
}

impl Metric {
    pub(super) const ALL: [Metric; 7] = [
        Metric::Rate,
        Metric::P50,
        Metric::P90,
        Metric::P99,
        Metric::P999,
        Metric::Max,
        Metric::Failed,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Metric::Rate => "rate",
            Metric::P50 => "p50",
            Metric::P90 => "p90",
            Metric::P99 => "p99",
            Metric::P999 => "p99.9",
            Metric::Max => "max",
            Metric::Failed => "failed",
        }
    }

    /// Requests per second, nanoseconds, or requests. `None`: a latency where nothing was answered.
    pub(super) fn of(self, kind: &Kind) -> Option<f64> {
        let latency = |of: fn(&Latencies) -> u64| {
            let latencies = kind.judged();
            (latencies.answers > 0).then(|| of(latencies) as f64)
        };
        match self {
            Metric::Rate => Some(kind.requests_per_s),
            Metric::Failed => Some(kind.failed as f64),
            Metric::P50 => latency(|of| of.p50_ns),
            Metric::P90 => latency(|of| of.p90_ns),
            Metric::P99 => latency(|of| of.p99_ns),
            Metric::P999 => latency(|of| of.p999_ns),
            Metric::Max => latency(|of| of.max_ns),
        }
    }

    pub(super) fn is_latency(self) -> bool {
        !matches!(self, Metric::Rate | Metric::Failed)
    }
}

/// In percent of `a`. From nothing to something is infinitely more.
pub(super) fn change(a: f64, b: f64) -> f64 {
    match (a == 0.0, b == 0.0) {
        (true, true) => 0.0,
        (true, false) => f64::INFINITY,
        (false, _) => (b - a) / a * 100.0,
    }
}

/// Understands one or more conditions.
pub fn parse(text: &str) -> Result<Vec<FailIf>, Refused> {
    let mut conditions = Vec::new();
    let mut offset = 0;
    for part in text.split(',') {
        conditions.push(condition(part, offset)?);
        offset += part.len() + 1;
    }
    Ok(conditions)
}

fn condition(text: &str, before: usize) -> Result<FailIf, Refused> {
    let refused = |offset: usize, why: String| Refused {
        offset: before + offset,
        why,
    };
    let start = text.len() - text.trim_start().len();
    let Some(sign) = text.find(['>', '<']) else {
        return Err(refused(text.len(), "> or < is missing".to_owned()));
    };
    let name = text[..sign].trim();
    let found = Metric::ALL.into_iter().find(|metric| metric.name() == name);
    let Some(metric) = found else {
        let known = Metric::ALL.map(Metric::name).join(", ");
        return Err(refused(start, format!("{name:?} is none of {known}")));
    };
    let rest = &text[sign + 1..];
    let at = sign + 1 + (rest.len() - rest.trim_start().len());
    let rest = rest.trim();
    let (number, percent) = match rest.strip_suffix('%') {
        Some(number) => (number.trim_end(), true),
        None => (rest, false),
    };
    if !number.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) {
        return Err(refused(at, "a number is missing".to_owned()));
    }
    let digits = |c: char| c.is_ascii_digit() || c == '.';
    let bound = number.parse::<f64>().ok();
    let bound = bound.filter(|_| number[1..].chars().all(digits));
    let Some(bound) = bound else {
        return Err(refused(at, format!("{number:?} is not a number")));
    };
    if metric.is_latency() && !percent {
        let why = "latencies are compared in percent, such as +10%";
        return Err(refused(at + number.len(), why.to_owned()));
    }
    Ok(FailIf {
        metric,
        above: text[sign..].starts_with('>'),
        bound,
        percent,
        text: text.trim().to_owned(),
    })
}

impl FailIf {
    /// Why the comparison fails by this condition; `None`: it does not. A latency of a run without a single answer
    /// cannot be compared, and that fails.
    #[must_use]
    pub fn holds(&self, a: &Report, b: &Report) -> Option<String> {
        let name = self.metric.name();
        let (Some(a), Some(b)) = (self.metric.of(&a.totals), self.metric.of(&b.totals)) else {
            return Some(format!(
                "{}: there is no {name}, nothing was answered",
                self.text
            ));
        };
        let (figure, told) = match self.percent {
            true => {
                let change = change(a, b);
                (change, format!("changed by {change:+.1}%"))
            }
            false => (b, format!("is {b:.1}")),
        };
        let fails = match self.above {
            true => figure > self.bound,
            false => figure < self.bound,
        };
        fails.then(|| format!("{}: {name} {told}", self.text))
    }
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    fn told(text: &str, a: &Report, b: &Report) -> Vec<String> {
        let conditions = parse(text).expect("conditions");
        conditions.iter().filter_map(|of| of.holds(a, b)).collect()
    }

    fn slower() -> (Report, Report) {
        let a = Report::of(&example::closed());
        let mut b = a.clone();
        b.totals.service.p99_ns = a.totals.service.p99_ns * 5 / 4;
        b.totals.requests_per_s = a.totals.requests_per_s * 0.9;
        b.totals.failed = 3;
        (a, b)
    }

    #[test]
    fn conditions_hold_or_do_not() {
        let (a, b) = slower();
        assert_eq!(
            told("p99>+10%, rate < -5%,failed>0", &a, &b),
            [
                "p99>+10%: p99 changed by +25.0%",
                "rate < -5%: rate changed by -10.0%",
                "failed>0: failed is 3.0"
            ]
        );
        assert!(told("p99>30%,rate<-15%,failed>3,p50>0%,max<-0.1%", &a, &b).is_empty());
        assert_eq!(told("rate<901", &a, &b), ["rate<901: rate is 900.0"]);
        assert!(told("rate<900", &a, &b).is_empty());
        assert_eq!(
            told("failed>+5%", &a, &b),
            ["failed>+5%: failed changed by +inf%"]
        );
        assert!(told("p99>+10%,rate<-5%,failed>0,failed>0%", &a, &a).is_empty());
    }

    #[test]
    fn the_response_time_is_what_counts_where_there_is_one() {
        let a = Report::of(&example::paced());
        let mut b = a.clone();
        b.totals.service.p99_ns *= 100;
        assert!(told("p99>+10%", &a, &b).is_empty());
        b.totals.response.as_mut().expect("paced").p99_ns *= 2;
        assert_eq!(told("p99>+10%", &a, &b).len(), 1);
    }

    #[test]
    fn a_run_without_answers_does_not_pass_for_a_fast_one() {
        let (a, mut b) = slower();
        b.totals.service.answers = 0;
        b.totals.service.p99_ns = 0;
        assert_eq!(
            told("p99>+10%", &a, &b),
            ["p99>+10%: there is no p99, nothing was answered"]
        );
    }

    #[test]
    fn what_cannot_be_understood_is_named_with_its_place() {
        for (text, offset, why) in [
            ("", 0, "> or < is missing"),
            ("p99", 3, "> or < is missing"),
            (
                "p98>1%",
                0,
                "\"p98\" is none of rate, p50, p90, p99, p99.9, max, failed",
            ),
            ("failed>0, p98>1%", 10, "\"p98\" is none of"),
            ("p99>", 4, "a number is missing"),
            ("p99> x%", 5, "a number is missing"),
            ("p99>1x%", 4, "\"1x\" is not a number"),
            ("rate>1e5", 5, "\"1e5\" is not a number"),
            ("p99>+%", 4, "\"+\" is not a number"),
            ("p99>+inf%", 4, "is not a number"),
            ("p99>10", 6, "latencies are compared in percent"),
            ("p99>=10%", 4, "a number is missing"),
            ("failed>0,", 9, "> or < is missing"),
        ] {
            let refused = parse(text).expect_err(text);
            assert_eq!(refused.offset, offset, "{text}: {refused:?}");
            assert!(refused.why.contains(why), "{text}: {refused:?}");
        }
    }
}
