//! Pure. What to do to whom: a command line, understood.

use std::net::SocketAddr;
use std::time::Duration;

use super::keys::{KeyFormat, Keys};
use super::tally::Op;
use super::template::Template;
use super::values::Values;

/// One run of the load generator.
#[derive(Clone, Debug)]
pub struct Plan {
    /// At least one; connections are spread over them.
    pub targets: Vec<Target>,
    pub work: Work,
    /// Exactly so many measured requests; `None`: until `duration` is over.
    pub requests: Option<u64>,
    /// No request is sent later than this after the first measured one.
    pub duration: Option<Duration>,
    pub connections: usize,
    /// At most one per connection.
    pub threads: usize,
    /// Requests under way on one connection.
    pub pipeline: usize,
    /// Requests per second over all connections, sent when they are due; `None`: as soon as there is an answer.
    pub rate: Option<f64>,
    /// Requests before this are not counted.
    pub warmup: Duration,
    /// For a connection to open, and for a request to be answered.
    pub timeout: Duration,
    pub keep_alive: bool,
    pub seed: u64,
    /// Check what is read.
    pub verify: bool,
    /// Header fields of every request, each with its line end.
    pub fields: String,
    /// For the workloads: behind the `?`, `consistency=quorum` for example; may be empty.
    pub query: String,
}

/// Who is asked.
#[derive(Clone, Debug)]
pub struct Target {
    /// As in the header field `Host`.
    pub host: String,
    pub address: SocketAddr,
    /// Path and query of a request that is spelt out.
    pub path: Template,
}

#[derive(Clone, Debug)]
pub enum Work {
    /// Any request to any server.
    Spelt {
        method: String,
        body: Option<Template>,
        /// For `{{key}}`.
        space: Space,
    },
    /// Requests of this system.
    Mix { acts: Vec<(Act, u32)>, space: Space },
}

/// What one turn of a workload does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Get,
    Put,
    /// A put of a key that was not there.
    Insert,
    Delete,
    Scan,
    Batch,
    /// A get and then a put of the same key, on the same connection.
    ReadModifyWrite,
}

/// Keys and values of a workload.
#[derive(Clone, Debug)]
pub struct Space {
    pub keys: Keys,
    pub format: KeyFormat,
    pub values: Values,
    pub batch_items: usize,
    /// A scan asks for 1 to so many rows, or always for so many.
    pub scan_rows: usize,
    pub scan_rows_vary: bool,
}

impl Work {
    /// The kind a request that could not even be made counts as.
    #[must_use]
    pub fn main_op(&self) -> Op {
        match self {
            Work::Spelt { .. } => Op::Request,
            Work::Mix { acts, .. } => {
                let most = acts.iter().max_by_key(|(_, weight)| *weight);
                match most.map_or(Act::Get, |(act, _)| *act) {
                    Act::Get | Act::ReadModifyWrite => Op::Get,
                    Act::Put | Act::Insert => Op::Put,
                    Act::Delete => Op::Delete,
                    Act::Scan => Op::Scan,
                    Act::Batch => Op::Batch,
                }
            }
        }
    }

    #[must_use]
    pub fn space(&self) -> &Space {
        match self {
            Work::Spelt { space, .. } | Work::Mix { space, .. } => space,
        }
    }
}

/// The acts of a workload by its name, with their weights; `None`: no such workload. `reads` is the percentage of gets
/// in `mixed`. The six of YCSB are those of its core workloads (Cooper et al., SoCC 2010).
#[must_use]
pub fn acts(workload: &str, reads: u32) -> Option<Vec<(Act, u32)>> {
    Some(match workload {
        "get" | "ycsb-c" => vec![(Act::Get, 100)],
        "put" => vec![(Act::Put, 100)],
        "delete" => vec![(Act::Delete, 100)],
        "scan" => vec![(Act::Scan, 100)],
        "batch" => vec![(Act::Batch, 100)],
        "mixed" => vec![(Act::Get, reads), (Act::Put, 100 - reads)],
        "ycsb-a" => vec![(Act::Get, 50), (Act::Put, 50)],
        "ycsb-b" => vec![(Act::Get, 95), (Act::Put, 5)],
        "ycsb-d" => vec![(Act::Get, 95), (Act::Insert, 5)],
        "ycsb-e" => vec![(Act::Scan, 95), (Act::Insert, 5)],
        "ycsb-f" => vec![(Act::Get, 50), (Act::ReadModifyWrite, 50)],
        _ => return None,
    })
}

/// The names [`acts`] knows.
pub const WORKLOADS: [&str; 12] = [
    "get", "put", "delete", "scan", "batch", "mixed", "ycsb-a", "ycsb-b", "ycsb-c", "ycsb-d",
    "ycsb-e", "ycsb-f",
];

/// The part of so many things that falls to one of several, and how many fall to those before it.
#[must_use]
pub fn share(of: u64, part: usize, parts: usize) -> (u64, u64) {
    let (part, parts) = (part as u64, parts as u64);
    let (each, more) = (of / parts, of % parts);
    (each + u64::from(part < more), each * part + part.min(more))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_follow_one_another() {
        for (of, parts) in [(0, 3), (1, 3), (7, 3), (105, 10), (200, 1)] {
            let mut before = 0;
            for part in 0..parts {
                let (mine, first) = share(of, part, parts);
                assert_eq!(first, before, "{part} of {parts} of {of}");
                before += mine;
            }
            assert_eq!(before, of);
        }
    }

    #[test]
    fn every_workload_by_name() {
        for name in WORKLOADS {
            let sum: u32 = acts(name, 70)
                .unwrap()
                .iter()
                .map(|(_, weight)| weight)
                .sum();
            assert_eq!(sum, 100, "{name}");
        }
        assert!(acts("ycsb-g", 70).is_none());
    }
}
