//! Whether this node may answer clients from what it holds.
//!
//! ```text
//!  Unsure ── every member was met before, has spoken, or cannot be reached ──▶ Good
//!     └───── some member refuses our data directory ─▶ Refused ── it takes us in ──▶ Good
//! ```
//!
//! A node that has lost its disk has the name and the settings of a member, and none of its data: from its own empty
//! store it would say "not found" of everything. The others know (`known`), and say so in the handshake. Until they
//! have been heard the node waits: not for members its directory has met before, for those know it; and no longer than
//! the detector takes to call the others down, because a first start of a cluster looks the same, and one node of it
//! must be able to serve alone. So with every other member out of reach a lost disk is not noticed.
//!
//! One per core, like the links it is judged by.

use super::coordinate::Member;
use super::failure::Refusal;
use super::peer_news;
use super::peers::Peers;
use super::route::Router;
use crate::base::member::NodeId;
use crate::cluster::PeerState;

/// Whether clients are answered, as one core sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Some member that this directory has never met may yet say that it knows another one.
    #[default]
    Unsure,
    /// Nobody objects.
    Good,
    /// This member knows our name with another data directory.
    Refused(NodeId),
}

impl Peers {
    /// Judges anew after something was heard of a peer, or nothing for long.
    pub(super) fn judge_standing(&mut self) {
        let refusing = |node: &NodeId| self.peers[node.index()].refuses_us;
        self.standing = match self.others().find(refusing) {
            Some(node) => Standing::Refused(node),
            None if self.others().all(|node| self.is_looked_for(node)) => Standing::Good,
            None => Standing::Unsure,
        };
    }

    /// Nothing that this member could say is waited for.
    fn is_looked_for(&self, node: NodeId) -> bool {
        let name = &self.facts.topology.members()[node.index()].name;
        self.known.has_met(name)
            || self.peers[node.index()].has_spoken
            || self.detector.state(node) == PeerState::Down
    }
}

/// What the client of a refused write reads.
fn told_of_skew(offset_ms: i64) -> String {
    format!(
        "this node's clock is {} most members'; nothing was done; set it right (NTP, chrony), or write through another \
         node",
        peer_news::apart(-offset_ms)
    )
}

impl Router {
    /// Whether it is known that clients may be answered, or why they may not.
    pub(super) fn is_sure(&self) -> bool {
        let member = self.member.as_deref();
        member.is_none_or(|member| member.peers.standing != Standing::Unsure)
    }

    /// Whether a request for data may be carried out. `write`: it would change some.
    pub(super) fn may_serve(&self, member: &Member, write: bool) -> Result<(), Refusal> {
        let members = member.facts.topology.members();
        let (code, why) = match member.peers.standing {
            Standing::Good => match member.peers.clocks.fenced().filter(|_| write) {
                Some(offset_ms) => ("clock_skew", told_of_skew(offset_ms)),
                None => return Ok(()),
            },
            Standing::Unsure => (
                "joining",
                "this node has a new data directory and has not heard all other members yet; nothing was done, try \
                 again"
                    .to_owned(),
            ),
            Standing::Refused(node) => (
                "not_accepted",
                format!(
                    "{} knows this node with another data directory, so it may lack what was written; nothing was \
                     done; mend its -dir, or to go on with what it has start each member that refuses it once with \
                     -accept-member {}",
                    members[node.index()].name,
                    Member::own_name(&member.facts)
                ),
            ),
        };
        Err(Refusal::NotServing { code, why, write })
    }
}
