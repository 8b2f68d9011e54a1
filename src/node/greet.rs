//! The door for members: judges who dials, and says how this node sees its peers.

use super::barrier::tell_others;
use super::cluster::Cluster;
use super::coordinate::Member;
use super::failure::Refusal;
use super::json;
use super::msg::Kind;
use super::peers::Peers;
use super::route::Router;
use super::served::Guest;
use super::standing::Standing;
use super::view::{Sight, View};
use crate::base::member::NodeId;
use crate::cluster::PeerState;
use crate::http::fields;
use crate::wire::hello::{self, Hello};
use crate::wire::proof::Ends;

/// What this process says of itself in a handshake.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub node_uuid: u128,
    pub cores: u16,
    pub shards: u16,
    pub digest: u64,
    pub fields: String,
}

impl Router {
    /// Judges the Upgrade request of a member, given its header fields: the core its connection is for, and what
    /// that core needs to know.
    pub(crate) fn greet(&self, request_fields: &[u8]) -> Result<(usize, Guest), Refusal> {
        let member = self.member.as_deref().ok_or(Refusal::UnknownPath)?;
        let pairs = fields::pairs(request_fields);
        let theirs = Hello::read_request(pairs).map_err(|bad| Refusal::Peer(bad.to_string()))?;
        let (facts, identity) = (&*member.facts, &*member.identity);
        let core = theirs.core % identity.cores;
        let mine = hello(facts, identity, theirs.from, core, self.rt.entropy());
        if let Err(mismatch) = hello::judge(&mine, &theirs) {
            return Err(self.turned_away(theirs.from, &mismatch.to_string()));
        }
        let found = facts.topology.find(theirs.from);
        if found.is_none_or(|node| node == facts.me) {
            return Err(self.turned_away(theirs.from, "it is no member of this cluster"));
        }
        if let Err(why) = member.peers.judge(theirs.from, theirs.node) {
            self.turned_away(theirs.from, &why);
            return Err(Refusal::Stranger(why));
        }
        let head = mine.answer_head(
            &theirs,
            identity.cores,
            identity.shards,
            facts.secret.as_ref(),
        );
        let guest = Guest {
            name: theirs.from.to_owned(),
            ends: Ends::of(&theirs, &mine),
            unsent: head,
            input: Vec::new(),
        };
        Ok((usize::from(core), guest))
    }

    fn turned_away(&self, name: &str, why: &str) -> Refusal {
        let name: String = name.chars().take(64).collect();
        let line = format!("peer {name} was turned away: {why}");
        self.grumble.tell(&*self.log, self.now(), &line, &line);
        Refusal::Peer(why.to_owned())
    }

    /// One word for `/health`, and the peers as more fields of its object.
    pub(crate) fn health(&self, stopping: bool) -> (&'static str, String) {
        let Some(member) = self.member.as_deref() else {
            return (if stopping { "stopping" } else { "ok" }, String::new());
        };
        let mut view = member.peers.view();
        for other in &member.views {
            view.worsen(other);
        }
        let mut peers = Vec::new();
        for (at, other) in member.facts.topology.members().iter().enumerate() {
            let node = NodeId(at as u16);
            if node == member.facts.me {
                continue;
            }
            let mut line = b"{\"name\":".to_vec();
            json::put_text(&mut line, other.name.as_bytes());
            let state = view.of(node).word();
            line.extend_from_slice(format!(",\"state\":\"{state}\"}}").as_bytes());
            peers.push(String::from_utf8_lossy(&line).into_owned());
        }
        let status = match stopping {
            true => "stopping",
            false => view.status(),
        };
        let more = format!(
            ",\"clock_offset_ms\":{},\"peers\":[{}]",
            view.ahead_tenths * 100,
            peers.join(",")
        );
        (status, more)
    }

    /// Tells the other cores what has changed for this one.
    pub(super) fn share_view(&mut self) {
        let core = self.rt.core();
        let Some(member) = &mut self.member else {
            return;
        };
        let view = member.peers.view();
        if view != member.views[core] {
            member.views[core] = view.clone();
            tell_others(&self.rt, &mut self.port, || Kind::Saw(view.clone()));
        }
    }

    /// What another core has told.
    pub(super) fn saw(&mut self, core: usize, view: View) {
        if let Some(member) = &mut self.member {
            member.views[core] = view;
        }
    }
}

impl Peers {
    /// How this core sees the cluster now.
    fn view(&self) -> View {
        let nodes = (0..self.peers.len() as u16).map(NodeId);
        let sight = |node| match (self.is_mismatched(node), self.state(node)) {
            (true, _) => Sight::Mismatch,
            (_, PeerState::Up) => Sight::Up,
            (_, PeerState::Suspect) => Sight::Suspect,
            (_, PeerState::Down) => Sight::Down,
        };
        View {
            peers: nodes.map(sight).collect(),
            joining: self.standing == Standing::Unsure,
            skewed: self.clocks.fenced().is_some(),
            ahead_tenths: -self.clocks.offset_ms() / 100,
        }
    }
}

/// What this node says of itself to another.
pub(super) fn hello<'a>(
    facts: &'a Cluster,
    identity: &'a Identity,
    to: &'a str,
    core: u16,
    nonce: u64,
) -> Hello<'a> {
    Hello {
        from: Member::own_name(facts),
        to,
        node: identity.node_uuid,
        core,
        topology: identity.digest,
        fields: &identity.fields,
        nonce,
        secret: facts.secret.is_some(),
    }
}
