//! Pure. What a run was, and what came of it: all that the reports need.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::tally::Tally;

/// A run in the words of whoever started it.
#[derive(Clone, Debug, Default)]
pub struct Described {
    /// As typed, the program's name first.
    pub command: Vec<String>,
    pub targets: Vec<String>,
    /// `get`, `ycsb-a`, …; or the method of the request.
    pub workload: String,
    pub connections: usize,
    pub threads: usize,
    pub pipeline: usize,
    /// Requests per second over all connections; `None`: as fast as answers come.
    pub rate: Option<f64>,
    pub warmup: Duration,
    pub requests: Option<u64>,
    pub duration: Option<Duration>,
    /// Milliseconds since 1970 at the first measured request.
    pub began_unix_ms: u64,
}

/// The machine of the load generator, and what the first target says of itself.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    pub cpu: String,
    pub cpus: usize,
    pub kernel: String,
    /// `performance`, `powersave`, …; empty when the kernel does not say.
    pub governor: String,
    /// Version of this program.
    pub version: String,
    /// `/health` of the first target before and after the run, when it has one.
    pub server_before: String,
    pub server_after: String,
}

/// One second of the run, over all threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// From the first measured request, counted from 0.
    pub second: u32,
    /// Requests that ended.
    pub requests: u64,
    pub failed: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub p50: Duration,
    pub p99: Duration,
    pub p999: Duration,
    pub max: Duration,
}

/// A whole run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub run: Described,
    pub machine: Machine,
    /// From the first measured request to the last answer.
    pub elapsed: Duration,
    pub total: Tally,
    pub seconds: Vec<Sample>,
    /// Why the figures may say less than they seem to, one sentence each.
    pub warnings: Vec<String>,
}

impl Sample {
    /// Of the response times where there are any, else of the service times.
    #[must_use]
    pub fn of(second: u32, tally: &Tally) -> Sample {
        let latencies = tally.response().unwrap_or_else(|| tally.service());
        Sample {
            second,
            requests: tally.ended(),
            failed: tally.failed(),
            bytes_in: tally.bytes_in,
            bytes_out: tally.bytes_out,
            p50: quantile(&latencies, 0.5),
            p99: quantile(&latencies, 0.99),
            p999: quantile(&latencies, 0.999),
            max: Duration::from_nanos(latencies.max()),
        }
    }
}

/// The latency that this share of the requests (0 to 1) did not exceed; zero when there were none.
#[must_use]
pub fn quantile(latencies: &Histogram<u64>, share: f64) -> Duration {
    Duration::from_nanos(latencies.value_at_quantile(share))
}

impl Outcome {
    /// Requests that ended, per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        match self.elapsed {
            Duration::ZERO => 0.0,
            elapsed => self.total.ended() as f64 / elapsed.as_secs_f64(),
        }
    }
}
