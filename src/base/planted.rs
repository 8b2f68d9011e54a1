//! Pure. Bugs put in on purpose, so that tests can show that they would be seen.
//!
//! A debug build carries every one of them, switched off; [`plant`] switches one on for the calling thread. In
//! a release build [`is`] is `false` before the optimiser even looks. Rejected: a Cargo feature or a `cfg` per
//! bug, which need one more build each and therefore would not be run.

use std::cell::Cell;

/// One deliberate mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A write is answered before its group is on stable storage.
    AckBeforeSync,
    /// The body of a WAL group is believed whatever its checksum says.
    GroupUnchecked,
    /// A block of a table is believed whatever its checksum says.
    BlockUnchecked,
    /// Replay forgets one op.
    ReplaySkips,
    /// A merge takes the entry of the first source instead of the greatest.
    FirstHitWins,
    /// A replica gives a peer's write a version of its own: of two writes one replica answers this, another that,
    /// and an old value that a repair stamps anew covers an acknowledged one.
    ReplicaStamps,
    /// A hint is replayed with a new version: the value that a replica has missed comes back over a newer one.
    HintStamped,
    /// What arrives replaces what is there, whatever the versions say: a write, hint or repair of a peer that
    /// comes late takes back an acknowledged value.
    LastArrivalWins,
    /// A replica that is owed a hint counts as one that holds the write: a read of enough replicas does not find
    /// what was acknowledged.
    HintAcknowledges,
    /// A deletion that is read is not brought to the replicas that lack it: what was said to be gone is read again.
    GraveUnrepaired,
    /// Replicas leave their tombstones out of pages: a scan shows a deleted key that one replica still holds.
    GravesStripped,
    /// A hint is forgotten although the replica has not got it: that replica stays behind for good.
    HintForgotten,
    /// A slice that is marked while a pass over it is under way counts as clean when that pass ends.
    MarkOverlooked,
    /// The slices of a pass count as clean from its first page on.
    MarkClearedEarly,
    /// A comparison sends what the other has not at all, and not what it has in an older version.
    OldCopyOverlooked,
}

/// Mistakes a node makes alone.
pub const BUGS: [Bug; 5] = [
    Bug::AckBeforeSync,
    Bug::GroupUnchecked,
    Bug::BlockUnchecked,
    Bug::ReplaySkips,
    Bug::FirstHitWins,
];

/// Mistakes that need other nodes to be seen: all but the last are those of the program this one replaces.
pub const CLUSTER_BUGS: [Bug; 8] = [
    Bug::ReplicaStamps,
    Bug::HintStamped,
    Bug::LastArrivalWins,
    Bug::HintAcknowledges,
    Bug::GraveUnrepaired,
    Bug::GravesStripped,
    Bug::HintForgotten,
    Bug::OldCopyOverlooked,
];

/// Mistakes in what is to be sent to a member that was away.
pub const HANDOFF_BUGS: [Bug; 2] = [Bug::MarkOverlooked, Bug::MarkClearedEarly];

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Switches one bug on for this thread, or all of them off. Without effect in a release build.
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether the code here is to make this mistake.
#[must_use]
pub fn is(bug: Bug) -> bool {
    cfg!(debug_assertions) && PLANTED.get() == Some(bug)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_planted_unless_asked_for_and_then_one() {
        assert!(!BUGS.into_iter().any(is));
        plant(Some(Bug::ReplaySkips));
        assert!(
            BUGS.into_iter()
                .filter(|bug| is(*bug))
                .eq([Bug::ReplaySkips])
        );
        plant(None);
        assert!(!BUGS.into_iter().any(is));
    }
}
