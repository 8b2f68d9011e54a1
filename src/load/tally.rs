//! Pure. What happened to the requests of one interval: counts, and histograms of their latencies.
//!
//! ```text
//! intended ──── waits for a free connection ──── sent ──── the server works ──── answered
//!    └───────────────────────── response time ───────────────────────────────────┘
//!                                                  └────────── service time ──────┘
//! ```
//!
//! In a closed loop a request is intended when it is sent, and the two are one. At a given rate they differ as soon
//! as the server falls behind: a stall of one second delays all requests that should have been sent in it, and only
//! the response time tells of them ("coordinated omission": Gil Tene, wrk2; YCSB issue 214).

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::base::time::Instant;

/// Latencies are kept in nanoseconds with three significant digits, from a microsecond to an hour. Shorter counts as a
/// microsecond, longer as an hour.
pub const LATENCY_LOW: Duration = Duration::from_micros(1);
pub const LATENCY_HIGH: Duration = Duration::from_secs(3600);
const DIGITS: u8 = 3;

/// What a request was for. The order is that of the reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    Get,
    Put,
    Delete,
    Scan,
    Batch,
    /// The request the command line spelt out.
    Request,
}

impl Op {
    pub const ALL: [Op; 6] = [
        Op::Get,
        Op::Put,
        Op::Delete,
        Op::Scan,
        Op::Batch,
        Op::Request,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Op::Get => "get",
            Op::Put => "put",
            Op::Delete => "delete",
            Op::Scan => "scan",
            Op::Batch => "batch",
            Op::Request => "request",
        }
    }
}

/// Why a request has no good answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// The connection was refused, or could not be opened in time.
    Connect,
    /// This machine has no free port: too many connections were closed a moment ago.
    NoPort,
    /// The server closed or broke the connection before the answer was whole.
    Closed,
    /// No answer within the time allowed.
    TimedOut,
    /// What came is no HTTP/1.1 answer.
    Malformed,
    /// An answer with a status of 400 or above (404 to a get or delete is an answer like any other).
    Status(u16),
    /// With `-verify`: another value than any that was written to this key, or rows out of order.
    WrongValue,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Connect => f.write_str("connection refused or not opened in time"),
            Failure::NoPort => f.write_str(
                "no free port on this machine: too many connections closed a moment ago",
            ),
            Failure::Closed => f.write_str("connection closed before the answer was whole"),
            Failure::TimedOut => f.write_str("no answer in time"),
            Failure::Malformed => f.write_str("not an HTTP/1.1 answer"),
            Failure::Status(status) => write!(f, "status {status}"),
            Failure::WrongValue => f.write_str("a value that nobody wrote to this key"),
        }
    }
}

/// A latency histogram over [`LATENCY_LOW`]..[`LATENCY_HIGH`], in nanoseconds.
#[must_use]
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(nanos(LATENCY_LOW), nanos(LATENCY_HIGH), DIGITS)
        .expect("bounds and digits are constants that hdrhistogram takes")
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The requests of one kind.
#[derive(Clone, Debug)]
pub struct OpTally {
    /// From the sending to the last byte of the answer. Of all answers, good or bad.
    pub service: Histogram<u64>,
    /// From the time the schedule wanted it sent. `None` in a closed loop, where it would be the same.
    pub response: Option<Histogram<u64>>,
    /// All that ended, with or without an answer.
    pub ended: u64,
    pub failed: u64,
    /// Of a get or delete: there was no such key. Not failed.
    pub missing: u64,
    /// Items of batches and rows of scans; else one per answer.
    pub items: u64,
}

/// What happened in one interval on one thread; or, merged, on all of them and in all intervals.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    ops: [Option<Box<OpTally>>; Op::ALL.len()],
    pub statuses: BTreeMap<u16, u64>,
    pub failures: BTreeMap<Failure, u64>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// At a given rate: how much later than intended a request was sent.
    pub lag: Option<Box<Histogram<u64>>>,
    /// Processor time this program took, and how long it could have taken on its threads.
    pub busy: Duration,
    pub watched: Duration,
}

/// When a request was intended, sent and answered.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// `None` in a closed loop.
    pub intended: Option<Instant>,
    pub sent: Instant,
    pub ended: Instant,
}

/// What an answer said.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    pub status: u16,
    pub failure: Option<Failure>,
    pub missing: bool,
    pub items: u64,
}

impl OpTally {
    fn new() -> OpTally {
        OpTally {
            service: histogram(),
            response: None,
            ended: 0,
            failed: 0,
            missing: 0,
            items: 0,
        }
    }
}

impl Tally {
    /// The requests of this kind; `None` when there were none.
    #[must_use]
    pub fn op(&self, op: Op) -> Option<&OpTally> {
        self.ops[op as usize].as_deref()
    }

    /// The kinds there were, in the order of [`Op::ALL`].
    pub fn ops(&self) -> impl Iterator<Item = (Op, &OpTally)> {
        Op::ALL
            .into_iter()
            .filter_map(|op| Some((op, self.op(op)?)))
    }

    /// Requests that ended, of all kinds.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.ops().map(|(_, of)| of.ended).sum()
    }

    /// Requests that failed, of all kinds.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.ops().map(|(_, of)| of.failed).sum()
    }

    /// The service times of all kinds together.
    #[must_use]
    pub fn service(&self) -> Histogram<u64> {
        let mut all = histogram();
        for (_, of) in self.ops() {
            add(&mut all, &of.service);
        }
        all
    }

    /// The response times of all kinds together; `None` in a closed loop.
    #[must_use]
    pub fn response(&self) -> Option<Histogram<u64>> {
        let mut all = None;
        for (_, of) in self.ops() {
            if let Some(response) = &of.response {
                add(all.get_or_insert_with(histogram), response);
            }
        }
        all
    }

    /// An answer came.
    pub fn answered(&mut self, op: Op, times: Times, ending: Ending) {
        let of = self.ops[op as usize].get_or_insert_with(|| Box::new(OpTally::new()));
        of.service
            .saturating_record(nanos(times.ended - times.sent));
        if let Some(intended) = times.intended {
            let response = of.response.get_or_insert_with(histogram);
            response.saturating_record(nanos(times.ended - intended));
            let lag = self.lag.get_or_insert_with(|| Box::new(histogram()));
            lag.saturating_record(nanos(times.sent - intended));
        }
        of.ended += 1;
        of.missing += u64::from(ending.missing);
        of.items += ending.items;
        *self.statuses.entry(ending.status).or_default() += 1;
        if let Some(failure) = ending.failure {
            of.failed += 1;
            *self.failures.entry(failure).or_default() += 1;
        }
    }

    /// No answer will come.
    pub fn lost(&mut self, op: Op, failure: Failure) {
        let of = self.ops[op as usize].get_or_insert_with(|| Box::new(OpTally::new()));
        of.ended += 1;
        of.failed += 1;
        *self.failures.entry(failure).or_default() += 1;
    }

    /// Takes in what another thread or interval has seen.
    pub fn merge(&mut self, other: &Tally) {
        for (op, theirs) in other.ops() {
            let ours = self.ops[op as usize].get_or_insert_with(|| Box::new(OpTally::new()));
            add(&mut ours.service, &theirs.service);
            if let Some(response) = &theirs.response {
                add(ours.response.get_or_insert_with(histogram), response);
            }
            ours.ended += theirs.ended;
            ours.failed += theirs.failed;
            ours.missing += theirs.missing;
            ours.items += theirs.items;
        }
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        for (failure, count) in &other.failures {
            *self.failures.entry(*failure).or_default() += count;
        }
        if let Some(lag) = &other.lag {
            add(self.lag.get_or_insert_with(|| Box::new(histogram())), lag);
        }
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.busy += other.busy;
        self.watched += other.watched;
    }
}

fn add(to: &mut Histogram<u64>, from: &Histogram<u64>) {
    to.add(from).expect("all histograms have the same bounds");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(intended: Option<u64>, sent: u64, ended: u64) -> Times {
        Times {
            intended: intended.map(Instant),
            sent: Instant(sent),
            ended: Instant(ended),
        }
    }

    const GOOD: Ending = Ending {
        status: 200,
        failure: None,
        missing: false,
        items: 1,
    };

    #[test]
    fn a_stall_shows_in_the_response_time_alone() {
        let mut tally = Tally::default();
        tally.answered(Op::Get, times(Some(0), 1_000_000, 1_500_000), GOOD);
        let of = tally.op(Op::Get).expect("one get");
        assert!((490_000..=510_000).contains(&of.service.max()));
        let response = of.response.as_ref().expect("a rate was given");
        assert!((1_490_000..=1_510_000).contains(&response.max()));
        assert!(tally.lag.expect("sent late").max() >= 999_000);
        assert!(tally.ops[Op::Put as usize].is_none(), "no histogram unused");
    }

    #[test]
    fn merging_adds_up() {
        let mut one = Tally::default();
        one.answered(Op::Get, times(None, 0, 5_000), GOOD);
        one.lost(Op::Get, Failure::TimedOut);
        let mut other = Tally::default();
        let refused = Ending {
            status: 503,
            failure: Some(Failure::Status(503)),
            ..GOOD
        };
        other.answered(Op::Put, times(None, 0, 9_000_000), refused);
        other.merge(&one);
        assert_eq!((other.ended(), other.failed()), (3, 2));
        assert_eq!(other.service().len(), 2, "what was lost has no latency");
        assert_eq!(other.response(), None);
        assert_eq!(other.statuses, BTreeMap::from([(200, 1), (503, 1)]));
        let failures = [(Failure::TimedOut, 1), (Failure::Status(503), 1)];
        assert_eq!(other.failures, BTreeMap::from(failures));
        assert_eq!(
            other.ops().map(|(op, _)| op.name()).collect::<Vec<_>>(),
            ["get", "put"]
        );
    }
}
