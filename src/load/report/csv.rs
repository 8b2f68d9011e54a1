//! Pure. One row for every second of a run.
//!
//! `hey -o csv` writes one row for every request. Those are not kept here: at 200 000 requests per second they would
//! cost the load generator more than the requests. What a spreadsheet is wanted for is how a run went over time.

use std::fmt::Write;

use super::super::outcome::Outcome;
use super::nanos;

const HEADER: &str = "second,requests,failed,bytes_in,bytes_out,p50_ns,p99_ns,p999_ns,max_ns";

/// Header and rows, each with its end of line. Only numbers: nothing needs quotes.
#[must_use]
pub fn csv(outcome: &Outcome) -> String {
    let mut out = format!("{HEADER}\n");
    for of in &outcome.seconds {
        let [p50, p99, p999, max] = [of.p50, of.p99, of.p999, of.max].map(nanos);
        writeln!(
            out,
            "{},{},{},{},{},{p50},{p99},{p999},{max}",
            of.second, of.requests, of.failed, of.bytes_in, of.bytes_out
        )
        .expect("a string takes all");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[test]
    fn every_second_is_a_row() {
        let text = csv(&example::paced());
        example::golden("paced.csv", &text);
        assert_eq!(text.lines().count(), 4);
        for line in text.lines() {
            assert_eq!(line.split(',').count(), HEADER.split(',').count());
        }
    }
}
