//! Pure. One line of progress for every second, to be written over the line before it.

use std::time::Duration;

use super::super::outcome::Sample;
use super::{ms, nanos};

/// `  12s  48210 req/s  p50 0.812 ms  p99 2.400 ms  failed 0`, without an end of line. `failed`: since the start.
#[must_use]
pub fn line(elapsed: Duration, sample: &Sample, failed: u64) -> String {
    let latencies = match sample.requests {
        0 => "no answers".to_owned(),
        _ => format!(
            "p50 {:.3} ms  p99 {:.3} ms",
            ms(nanos(sample.p50)),
            ms(nanos(sample.p99))
        ),
    };
    format!(
        "{:>4}s  {:>7} req/s  {latencies}  failed {failed}",
        elapsed.as_secs(),
        sample.requests
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_a_line() {
        let sample = Sample {
            second: 11,
            requests: 48_210,
            p50: Duration::from_micros(812),
            p99: Duration::from_micros(2_400),
            ..Sample::default()
        };
        assert_eq!(
            line(Duration::from_secs(12), &sample, 3),
            "  12s    48210 req/s  p50 0.812 ms  p99 2.400 ms  failed 3"
        );
        assert_eq!(
            line(Duration::from_secs(1), &Sample::default(), 0),
            "   1s        0 req/s  no answers  failed 0"
        );
    }
}
