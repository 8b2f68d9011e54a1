//! What one core says to another. Every byte is owned: nothing here points into the sender.
//!
//! ```text
//!  asking core                      owning core
//!  Ask { ticket, what }  ────────▶  reads or writes its own shard
//!  slot of `ticket`      ◀────────  Reply { ticket, reply }           one for each Ask
//! ```
//!
//! The rest of [`Msg`] walks all cores through start and stop together (see `barrier.rs`).

use crate::base::hash::KeyHash;
use crate::base::record::{OwnedEntry, OwnedRow, OwnedState};
use crate::base::version::Version;
use crate::store::{Page, ScanRange};

use super::Started;
use super::compare::{Compared, Question};
use super::failure::Failure;
use super::handoff::News;
use super::metrics::Snapshot;
use super::served::HandOver;
use super::view::View;

/// One message of the mesh. Opaque above `node`: the command line only creates the mesh.
pub struct Msg(pub(crate) Kind);

/// The kinds of [`Msg`].
pub(crate) enum Kind {
    Ask {
        ticket: u64,
        ask: Ask,
    },
    Reply {
        ticket: u64,
        reply: Reply,
    },
    /// To core 0: the sender's shards are open.
    Opened(Started),
    /// From core 0: every shard is open; accept connections.
    Listen,
    /// To core 0: the sender accepts connections, and knows whether it may answer them.
    Listening,
    /// A peer has dialled: the connection is for a shard of the receiver.
    HandOver(HandOver),
    /// From core 0: the member of this name was met with this identity.
    Met(String, u128),
    /// How the sender sees the cluster now.
    Saw(View),
    /// The sender has no request left and will ask for nothing more.
    Drained,
}

/// Something only the owner of a shard can do.
pub(crate) enum Ask {
    /// Coordinate a read of this key.
    Get {
        key: Box<[u8]>,
        hash: KeyHash,
        needed: u16,
        after: Version,
    },
    /// Coordinate a write: one atomic record, keys of one shard with the same replicas, each once.
    Write {
        shard: u16,
        changes: Vec<Change>,
        needed: u16,
    },
    /// Read this node's own copy.
    Fetch { key: Box<[u8]>, hash: KeyHash },
    /// Write this node's own copy.
    Apply { shard: u16, rows: Vec<OwnedRow> },
    Scan {
        shard: u16,
        range: ScanRange,
        rows_max: usize,
    },
    /// Compare a range with a peer's.
    Compare(Box<Question>),
    /// Counters of the receiving core and its shards.
    Snapshot,
}

/// A key and its new state; the owning core stamps the version.
pub(crate) struct Change {
    pub key: Box<[u8]>,
    pub state: OwnedState,
}

/// The answer to an [`Ask`].
pub(crate) enum Reply {
    /// The newest entry, a tombstone included.
    Got(Result<Option<OwnedEntry>, Failure>),
    /// Durable under this version, or not.
    Written(Result<Version, Failure>),
    /// Rows that brought their versions are durable here, or not.
    Applied(Result<(), Failure>),
    Page {
        shard: u16,
        page: Result<Page, Failure>,
    },
    Compared(Result<Compared, Failure>),
    Snapshot(Box<Snapshot>),
    /// Of a task of the same core, for what is owed to a member.
    Handoff(News),
}
