//! Links to the other members: this core dials, asks, and hears the answers.
//!
//! ```text
//!  router ─ send ─▶ link.out ─ flush, once per turn ─▶ socket ─▶ their core
//!  router ◀─ arrived ◀─ requests[id] ◀─ frames ◀───── socket ◀─┘
//!
//!  link:  Idle ──dial──▶ Greeting ──101 accepted──▶ Open ──any doubt──▶ Idle, dialled again later
//! ```
//!
//! One pool per core: a link for each core of each peer, so that a request goes straight to the core that owns its
//! key. The first link to a peer is kept up always (it carries the heartbeat); the others are dialled when they
//! are first wanted, and meanwhile any open link serves: the peer passes the request on by itself.
//!
//! Everything sent gets exactly one answer in `arrived`: what the peer says, or `Lost` when the link ends first.
//! No request is ever sent twice.
//!
//! Bounds: `PEER_REQUESTS_MAX` requests and `PEER_UNSENT_BYTES_MAX` unsent bytes per link; above that `send` says
//! `Busy` at once. Absent: what the answers mean (`coordinate`), and the links others have dialled (`served`).

use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::Journal;
use super::cluster::Cluster;
use super::greet::Identity;
use super::known::Known;
use super::links::{Heard, Link, Peer, Phase, Spot, What};
use super::peer_news::{self, Line};
use super::slots::Slots;
use super::standing::Standing;
use crate::base::hash::{KeyHash, Map};
use crate::base::limits::{PEER_REQUESTS_MAX, PEER_UNSENT_BYTES_MAX};
use crate::base::member::NodeId;
use crate::base::time::Instant;
use crate::cluster::PeerState;
use crate::cluster::clock::Clocks;
use crate::cluster::health::{self, Detector, PING_INTERVAL};
use crate::rt::Rt;
use crate::rt::net::{Net, Token};
use crate::wire::frame;
use crate::wire::message::Message;

/// A dial and its handshake may take this long.
const GREETING_PATIENCE: Duration = Duration::from_secs(2);
/// Pauses between dials: the first, doubled up to the last.
const REDIAL_FIRST: Duration = Duration::from_millis(50);
const REDIAL_MAX: Duration = Duration::from_secs(2);
/// An open link on which nothing has come for so long, although pings left, is dead.
const LINK_SILENCE_MAX: Duration = Duration::from_secs(5);

/// All peers of one core.
pub(crate) struct Peers {
    pub(super) rt: Rt,
    pub(super) facts: Rc<Cluster>,
    pub(super) identity: Rc<Identity>,
    /// By [`NodeId`]; my own entry is unused.
    pub(super) peers: Vec<Peer>,
    /// The members met before; `known` has what may be done with it.
    pub(super) known: Known,
    /// Who was met since this was last taken.
    pub(super) met: Vec<(String, u128)>,
    pub(super) by_token: Map<Token, Spot>,
    requests: Slots<Request>,
    pub(super) detector: Detector,
    pub(super) standing: Standing,
    pub(super) clocks: Clocks,
    /// Links with bytes to send.
    pub(super) dirty: Vec<Token>,
    arrived: Vec<Arrived>,
    pinged_at: Instant,
    pub(super) journal: Journal,
}

/// Something that was sent and not answered.
struct Request {
    /// The asker's; of a ping, when it was sent.
    ticket: u64,
    /// Of the link it went out on; its place among the links may change.
    token: Token,
    what: What,
}

/// One answer.
pub(crate) struct Arrived {
    pub ticket: u64,
    pub node: NodeId,
    pub what: What,
    pub heard: Heard,
}

/// Why nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotSent {
    /// No link is open.
    Down,
    Busy,
}

impl Peers {
    pub(crate) fn new(
        rt: &Rt,
        facts: &Rc<Cluster>,
        identity: &Rc<Identity>,
        journal: Journal,
    ) -> Peers {
        let now = rt.now();
        let members = facts.topology.members().len();
        let peer = |_| Peer {
            links: vec![Link::new(Some(now))],
            shards: 0,
            trouble: String::new(),
            mismatch: false,
            has_spoken: false,
            refuses_us: false,
        };
        Peers {
            rt: rt.clone(),
            peers: (0..members).map(peer).collect(),
            known: Known::default(),
            met: Vec::new(),
            facts: Rc::clone(facts),
            identity: Rc::clone(identity),
            by_token: Map::default(),
            requests: Slots::new(),
            detector: Detector::new(members, facts.me, now),
            standing: Standing::default(),
            clocks: Clocks::new(members),
            dirty: Vec::new(),
            arrived: Vec::new(),
            pinged_at: now,
            journal,
        }
    }

    /// How a member is to be counted on now: one without an open link cannot be asked whatever it was before.
    pub(crate) fn state(&self, node: NodeId) -> PeerState {
        if node == self.facts.me {
            return PeerState::Up;
        }
        match self.peers[node.index()].links.iter().any(Link::is_open) {
            true => self.detector.state(node),
            false => PeerState::Down,
        }
    }

    /// Whether the peer and this node disagree about the cluster.
    pub(crate) fn is_mismatched(&self, node: NodeId) -> bool {
        self.peers[node.index()].mismatch
    }

    /// Shards of a peer; 0 before the first handshake.
    pub(crate) fn shards(&self, node: NodeId) -> u16 {
        self.peers[node.index()].shards
    }

    /// Queues one request; its answer comes under `ticket`. `hash`: of the key it is about.
    pub(crate) fn send(
        &mut self,
        node: NodeId,
        hash: Option<KeyHash>,
        (ticket, what): (u64, What),
        deadline: Duration,
        message: &Message<'_>,
    ) -> Result<(), NotSent> {
        let core = self.peers[node.index()].core_for(hash);
        let core = core.ok_or(NotSent::Down)? as u16;
        self.send_on(Spot { node, core }, (ticket, what), deadline, message)
    }

    /// The same, on one link.
    fn send_on(
        &mut self,
        spot: Spot,
        (ticket, what): (u64, What),
        deadline: Duration,
        message: &Message<'_>,
    ) -> Result<(), NotSent> {
        let link = &mut self.peers[spot.node.index()].links[usize::from(spot.core)];
        let token = link.phase.token().ok_or(NotSent::Down)?;
        if link.requests >= PEER_REQUESTS_MAX || link.unsent() >= PEER_UNSENT_BYTES_MAX {
            return Err(NotSent::Busy);
        }
        if link.requests == 0
            && let Phase::Open { heard, .. } = &mut link.phase
        {
            // Nothing was asked, so nothing could be heard: silence counts from now.
            *heard = self.rt.now();
        }
        let id = self.requests.insert(Request {
            ticket,
            token,
            what,
        });
        link.requests += 1;
        let deadline_ms = u32::try_from(deadline.as_millis())
            .unwrap_or(u32::MAX)
            .max(1);
        if link.unsent() == 0 {
            self.dirty.push(token);
        }
        frame::put(&mut link.out, id, deadline_ms, message);
        Ok(())
    }

    /// The next answer, if one has come.
    pub(crate) fn next_arrived(&mut self) -> Option<Arrived> {
        self.arrived.pop()
    }

    /// Sends what the turn has queued: one write per link.
    pub(crate) fn flush(&mut self, net: &mut Net) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for token in dirty.drain(..) {
            if let Some(&spot) = self.by_token.get(&token) {
                self.push_out(net, spot);
            }
        }
        self.dirty = dirty;
    }

    /// The socket of a link is ready. `buffer`: the core's read buffer.
    pub(crate) fn on_ready(
        &mut self,
        net: &mut Net,
        token: Token,
        buffer: &mut [u8],
        (readable, writable): (bool, bool),
    ) {
        let Some(&spot) = self.by_token.get(&token) else {
            return;
        };
        if writable {
            self.push_out(net, spot);
        }
        if readable && self.by_token.contains_key(&token) {
            match net.read(token, buffer) {
                Ok(0) => self.lose(net, spot, "it has closed the connection"),
                Ok(count) => self.take_in(net, spot, &buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => self.lose(net, spot, &error.to_string()),
            }
        }
    }

    /// When `tick` is due.
    pub(crate) fn wake_at(&self) -> Instant {
        let dials = self
            .others()
            .flat_map(|node| &self.peers[node.index()].links);
        dials
            .filter_map(|link| match link.phase {
                Phase::Idle(dial_at) => dial_at,
                Phase::Greeting { since, .. } => Some(since + GREETING_PATIENCE),
                Phase::Open { .. } => None,
            })
            .fold(
                self.detector.wake_at().min(self.pinged_at + PING_INTERVAL),
                Instant::min,
            )
    }

    /// Dials, pings, gives up on the silent, and tells the log what has changed.
    pub(crate) fn tick(&mut self, net: &mut Net) {
        let now = self.rt.now();
        let nodes: Vec<NodeId> = self.others().collect();
        for node in nodes {
            for core in 0..self.peers[node.index()].links.len() as u16 {
                self.look_at(net, Spot { node, core }, now);
            }
        }
        if now >= self.pinged_at + PING_INTERVAL {
            self.pinged_at = now;
            self.ping_all();
        }
        let mut lines = Vec::new();
        for change in self.detector.tick(now) {
            let name = &self.facts.topology.members()[change.node.index()].name;
            let peer = &self.peers[change.node.index()];
            // That the two disagree has been told.
            if !peer.mismatch {
                lines.extend(peer_news::of_peer(change, name, &peer.trouble));
            }
        }
        let members = self.facts.topology.members();
        let name = |node: NodeId| &members[node.index()].name[..];
        let clocks = self.clocks.judge(now, self.rt.wall_ms()).iter();
        lines.extend(clocks.map(|news| peer_news::of_clocks(*news, name)));
        self.tell(&lines);
        self.judge_standing();
        self.flush(net);
    }

    /// Every core sees the same; one of them tells.
    pub(super) fn tell(&self, lines: &[Line]) {
        if self.rt.core() == 0 {
            for line in lines {
                match line {
                    Line::Warn(text) => (self.journal.warn)(text),
                    Line::Info(text) => (self.journal.info)(text),
                }
            }
        }
    }

    /// Closes all links.
    pub(crate) fn close(&mut self, net: &mut Net) {
        for token in self.by_token.keys() {
            net.close(*token);
        }
        self.by_token.clear();
    }

    pub(super) fn others(&self) -> impl Iterator<Item = NodeId> + use<> {
        let me = self.facts.me;
        (0..self.peers.len() as u16)
            .map(NodeId)
            .filter(move |node| *node != me)
    }

    fn look_at(&mut self, net: &mut Net, spot: Spot, now: Instant) {
        let link = &self.peers[spot.node.index()].links[usize::from(spot.core)];
        match link.phase {
            Phase::Idle(Some(at)) if at <= now => self.dial(net, spot, now),
            Phase::Greeting { since, .. } if now.since(since) >= GREETING_PATIENCE => {
                self.lose(net, spot, "it does not answer the handshake");
            }
            Phase::Open { heard, .. }
                if now.since(heard) >= LINK_SILENCE_MAX && link.requests > 0 =>
            {
                self.lose(net, spot, "it is silent");
            }
            Phase::Idle(_) | Phase::Greeting { .. } | Phase::Open { .. } => {}
        }
    }

    /// Asks on every open link: one that is never used would be closed as silent by the other side, perhaps in the very
    /// moment in which its first request leaves.
    fn ping_all(&mut self) {
        let wall_ms = self.rt.wall_ms();
        let nodes: Vec<NodeId> = self.others().collect();
        for node in nodes {
            for core in 0..self.peers[node.index()].links.len() as u16 {
                let spot = Spot { node, core };
                if self.link(spot).is_open() {
                    // A link that takes no more has enough on its way to be judged by.
                    let ping = Message::Ping { wall_ms };
                    let request = (self.pinged_at.0, What::Ping);
                    self.send_on(spot, request, PING_INTERVAL, &ping).ok();
                }
            }
        }
    }

    pub(super) fn link(&mut self, spot: Spot) -> &mut Link {
        &mut self.peers[spot.node.index()].links[usize::from(spot.core)]
    }

    fn push_out(&mut self, net: &mut Net, spot: Spot) {
        let link = self.link(spot);
        let Some(token) = link.phase.token() else {
            return;
        };
        while link.unsent() > 0 {
            match net.write(token, &link.out[link.sent..]) {
                Ok(count) => link.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return self.lose(net, spot, &error.to_string()),
            }
        }
        if link.unsent() == 0 {
            link.out.clear();
            link.sent = 0;
        } else if link.sent > link.out.len() / 2 {
            link.out.drain(..link.sent);
            link.sent = 0;
        }
        let blocked = link.unsent() > 0;
        if blocked != link.blocked {
            link.blocked = blocked;
            if let Err(error) = net.set_interest(token, true, blocked) {
                self.lose(net, spot, &error.to_string());
            }
        }
    }

    fn take_in(&mut self, net: &mut Net, spot: Spot, bytes: &[u8]) {
        let link = self.link(spot);
        let mut input = std::mem::take(&mut link.input);
        // Whole frames are read where they lie; only a cut one is copied.
        let bytes = if input.is_empty() {
            bytes
        } else {
            input.extend_from_slice(bytes);
            &input[..]
        };
        let (mut spot, mut used) = (spot, 0);
        if matches!(self.link(spot).phase, Phase::Greeting { .. }) {
            match self.greeted(net, spot, bytes) {
                Some((head, moved_to)) => (used, spot) = (head, moved_to),
                None => {
                    if matches!(self.link(spot).phase, Phase::Greeting { .. }) {
                        self.link(spot).input = bytes.to_vec();
                    }
                    return;
                }
            }
        }
        let taken = self.take_frames(spot, &bytes[used..]);
        match taken {
            Ok(count) => self.link(spot).input = bytes[used + count..].to_vec(),
            Err(broken) => self.lose(net, spot, &format!("it sends no frames: {broken:?}")),
        }
    }

    fn take_frames(&mut self, spot: Spot, bytes: &[u8]) -> Result<usize, frame::Broken> {
        let now = self.rt.now();
        let token = self.link(spot).phase.token();
        let mut used = 0;
        while let Some((frame, count)) = frame::next(&bytes[used..])? {
            used += count;
            // An answer counts on the link the question went out on; another link's is nobody's.
            let asked = self.requests.get_mut(frame.id);
            if asked.is_none_or(|request| Some(request.token) != token) {
                continue;
            }
            let Some(request) = self.requests.remove(frame.id) else {
                continue;
            };
            self.link(spot).requests -= 1;
            let event = match request.what {
                What::Ping => health::Event::Pong,
                _ => health::Event::Heard,
            };
            self.detector.on(now, spot.node, event);
            if let (What::Ping, Message::Pong { wall_ms }) = (request.what, &frame.message) {
                let sent = Instant(request.ticket);
                self.clocks.heard(spot.node, sent, now, *wall_ms);
            }
            if request.what != What::Ping {
                self.arrived.push(Arrived {
                    ticket: request.ticket,
                    node: spot.node,
                    what: request.what,
                    heard: Heard::of(frame.message),
                });
            }
        }
        if let Phase::Open { heard, .. } = &mut self.link(spot).phase {
            *heard = now;
        }
        Ok(used)
    }

    /// The link is no more: everything asked on it stays unanswered.
    pub(super) fn lose(&mut self, net: &mut Net, spot: Spot, why: &str) {
        let now = self.rt.now();
        let was_open = self.link(spot).is_open();
        if let Some(token) = self.link(spot).phase.token() {
            self.hang_up(net, spot.node, token);
        }
        self.failed(spot, now, why);
        let open = self.peers[spot.node.index()]
            .links
            .iter()
            .any(Link::is_open);
        if was_open && !open {
            self.detector.on(now, spot.node, health::Event::Lost);
        }
    }

    /// Closes a connection; what was asked on it has no answer.
    pub(super) fn hang_up(&mut self, net: &mut Net, node: NodeId, token: Token) {
        self.by_token.remove(&token);
        net.close(token);
        let arrived = &mut self.arrived;
        self.requests.retain(|request| {
            let stays = request.token != token;
            if !stays && request.what != What::Ping {
                arrived.push(Arrived {
                    ticket: request.ticket,
                    node,
                    what: request.what,
                    heard: Heard::Lost,
                });
            }
            stays
        });
    }

    pub(super) fn failed(&mut self, spot: Spot, now: Instant, why: &str) {
        let link = self.link(spot);
        let was_open = link.is_open();
        let failures = link.failures;
        let pause = (REDIAL_FIRST * 2u32.saturating_pow(failures.min(10))).min(REDIAL_MAX);
        *link = Link {
            failures: failures + 1,
            ..Link::new(Some(now + pause))
        };
        let peer = &mut self.peers[spot.node.index()];
        if !was_open {
            self.facts.addresses.doubt(spot.node.index());
        }
        if !was_open && !peer.links.iter().any(Link::is_open) {
            self.detector.on(now, spot.node, health::Event::Refused);
        }
        self.peers[spot.node.index()].trouble = why.to_owned();
    }
}
