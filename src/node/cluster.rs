//! What every core knows of the cluster it serves in: facts of the start, which never change, and addresses, which may.
//!
//! ```text
//! member   index (NodeId)   ring name, zone       from the topology: equal on all members, or they do not talk
//!                           addresses             this node's own business: how it reaches the others
//! ```
//!
//! A node that is alone has none of this: its requests take the path without replication.

use std::time::Duration;

use crate::base::member::NodeId;
use crate::cluster::ring::Topology;
use crate::rt::resolve::Book;
use crate::wire::proof::Secret;

/// One per process; each core gets an equal copy.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Members, copies (N) and virtual nodes. At least two members.
    pub topology: Topology,
    pub me: NodeId,
    /// Where each member is dialled, by [`NodeId`]; the first that answers serves. Of all that is here, this alone
    /// may change: whoever looks names up writes into it.
    pub addresses: Book,
    /// Replicas that must hold a write before it is answered (W), 1..=N.
    pub write_quorum: u16,
    /// Replicas that must have answered before a read is (R), 1..=N.
    pub read_quorum: u16,
    /// NETWORK_TIMEOUT: what a request may take before its outcome is called unknown.
    pub timeout: Duration,
    /// CLUSTER_SECRET: peers must prove that they know it.
    pub secret: Option<Secret>,
    /// REPAIR_INTERVAL: pause between two comparisons with the other replicas; `None`: there are none.
    pub repair_every: Option<Duration>,
    /// Rows younger than this are not compared.
    pub repair_age: Duration,
    /// GC_GRACE: tombstones older than this are not compared either.
    pub gc_grace: Duration,
    /// Members to be taken in whatever data directory they come with, once; they are sent all they lack.
    pub accept: Vec<NodeId>,
}

/// How many replicas one request wants, in its own words: `?consistency=`, `?w=` or `?r=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// As configured.
    #[default]
    Default,
    One,
    Quorum,
    All,
    Exactly(u16),
}

impl Level {
    /// The number for `copies` replicas; `None` when it cannot be reached.
    #[must_use]
    pub fn needed(self, default: u16, copies: u16) -> Option<u16> {
        let needed = match self {
            Level::Default => default,
            Level::One => 1,
            Level::Quorum => copies / 2 + 1,
            Level::All => copies,
            Level::Exactly(needed) => needed,
        };
        (1..=copies).contains(&needed).then_some(needed)
    }

    /// A word of `?consistency=`.
    #[must_use]
    pub fn of_word(word: &[u8]) -> Option<Level> {
        match word {
            b"one" => Some(Level::One),
            b"quorum" => Some(Level::Quorum),
            b"all" => Some(Level::All),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_numbers_between_one_and_all() {
        for (level, of_one, of_three, of_four) in [
            (Level::Default, Some(1), Some(1), Some(1)),
            (Level::One, Some(1), Some(1), Some(1)),
            (Level::Quorum, Some(1), Some(2), Some(3)),
            (Level::All, Some(1), Some(3), Some(4)),
            (Level::Exactly(3), None, Some(3), Some(3)),
            (Level::Exactly(0), None, None, None),
        ] {
            let needed = [1, 3, 4].map(|copies| level.needed(1, copies));
            assert_eq!(needed, [of_one, of_three, of_four], "{level:?}");
        }
    }
}
