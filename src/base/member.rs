//! Pure. The name of a member inside one process: its place in the sorted member list.

use std::fmt;

/// A member of the cluster: index in the member list, which every member sorts alike. It means nothing outside
/// the topology it was taken from; what is stored for longer names members by their ring name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u16);

impl NodeId {
    /// As an index into tables with one entry per member.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}
