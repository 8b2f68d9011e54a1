//! From nothing to an open link: the dial, the handshake, and the place the link takes.
//!
//! ```text
//!  Idle ─ dial ─▶ Greeting ─ greeted ─┬─ 101, proofs and settings agree ─▶ open
//!                                     └─ anything else ─▶ disagree: told once, dialled again later
//! ```

use std::rc::Rc;
use std::time::Duration;

use super::failure::STRANGER;
use super::greet;
use super::links::{Link, Phase, Spot, said_no};
use super::peer_news::Line;
use super::peers::Peers;
use crate::base::limits::HEAD_BYTES_MAX;
use crate::base::time::Instant;
use crate::cluster::health;
use crate::http::fields;
use crate::rt::net::{Net, Token};
use crate::wire::frame;
use crate::wire::hello::Answer;
use crate::wire::message::Message;

/// A peer whose address is not known is looked for in the book so often.
const REDIAL_UNKNOWN: Duration = Duration::from_millis(200);
/// A peer that disagrees is asked again so often: somebody may be mending its settings.
const REDIAL_REFUSED: Duration = Duration::from_secs(5);

impl Peers {
    pub(super) fn dial(&mut self, net: &mut Net, spot: Spot, now: Instant) {
        let failures = self.link(spot).failures as usize;
        let Some(address) = self.facts.addresses.nth(spot.node.index(), failures) else {
            // Whoever looks names up tells of it.
            self.link(spot).phase = Phase::Idle(Some(now + REDIAL_UNKNOWN));
            return;
        };
        let token = match net.connect(address) {
            Ok(token) => token,
            Err(error) => return self.failed(spot, now, &error.to_string()),
        };
        if let Err(error) = net.set_interest(token, true, true) {
            net.close(token);
            return self.failed(spot, now, &error.to_string());
        }
        let nonce = self.rt.entropy();
        let core = if self.peers[spot.node.index()].shards == 0 {
            self.rt.core() as u16
        } else {
            spot.core
        };
        let name = &self.facts.topology.members()[spot.node.index()].name;
        let hello = greet::hello(&self.facts, &self.identity, name, core, nonce);
        let head = hello.request_head(&address.to_string());
        let link = self.link(spot);
        link.phase = Phase::Greeting {
            token,
            since: now,
            nonce,
        };
        link.out = head;
        link.sent = 0;
        link.input = Vec::new();
        link.blocked = true;
        self.by_token.insert(token, spot);
    }

    /// Reads the answer to the handshake; returns its length once it has been accepted, and where the link now is.
    pub(super) fn greeted(
        &mut self,
        net: &mut Net,
        spot: Spot,
        bytes: &[u8],
    ) -> Option<(usize, Spot)> {
        let Phase::Greeting { token, nonce, .. } = self.link(spot).phase else {
            return None;
        };
        let head = match fields::answer_head(bytes) {
            Ok(Some(head)) => head,
            Ok(None) if bytes.len() < HEAD_BYTES_MAX => return None,
            Ok(None) | Err(_) => {
                self.disagree(net, spot, "it speaks something else");
                return None;
            }
        };
        if head.status != 101 {
            let body = head.bytes.saturating_add(head.body_bytes());
            if bytes.len() < body.min(HEAD_BYTES_MAX) {
                return None;
            }
            let why = said_no(head.status, &bytes[head.bytes..]);
            self.peers[spot.node.index()].refuses_us |= head.status == STRANGER.code();
            self.disagree(net, spot, &why);
            return None;
        }
        let answer = match Answer::read(head.fields.iter().copied()) {
            Ok(answer) => answer,
            Err(bad) => {
                self.disagree(net, spot, &format!("bad answer to the handshake: {bad}"));
                return None;
            }
        };
        let name = self.facts.topology.members()[spot.node.index()]
            .name
            .clone();
        let facts = Rc::clone(&self.facts);
        let mine = greet::hello(&facts, &self.identity, &name, answer.hello.core, nonce);
        let accepted = answer.accept(&mine, facts.secret.as_ref());
        let accepted = accepted.map_err(|refusal| refusal.to_string());
        let node = answer.hello.node;
        match accepted.and_then(|proof| self.meet(&name, node).map(|()| proof)) {
            Ok(proof) => {
                let (cores, shards) = (answer.cores, answer.shards);
                let spot = self.open(net, spot, token, (cores, answer.hello.core, shards));
                if let Some(mac) = proof {
                    frame::put(&mut self.link(spot).out, 0, 0, &Message::Proof { mac });
                    self.dirty.push(token);
                }
                Some((head.bytes, spot))
            }
            Err(why) => {
                self.disagree(net, spot, &why);
                None
            }
        }
    }

    /// The handshake is done: the link takes its place among those of the peer.
    fn open(
        &mut self,
        net: &mut Net,
        spot: Spot,
        token: Token,
        (cores, core, shards): (u16, u16, u16),
    ) -> Spot {
        let now = self.rt.now();
        let peer = &mut self.peers[spot.node.index()];
        peer.shards = shards;
        peer.mismatch = false;
        peer.refuses_us = false;
        peer.has_spoken = true;
        peer.trouble.clear();
        let (from, to) = (usize::from(spot.core), usize::from(core.min(cores - 1)));
        let mut gone = Vec::new();
        if peer.links.len() != usize::from(cores) {
            // The peer has another number of cores than when it was last seen (or it was never seen): what is open
            // to a process of another shape leads nowhere, so only this one stays.
            let spare = (0..cores).map(|_| Link::new(None)).collect();
            let mut before = std::mem::replace(&mut peer.links, spare);
            peer.links[to] = before.swap_remove(from);
            gone.extend(before.iter().filter_map(|link| link.phase.token()));
        } else {
            peer.links.swap(from, to);
        }
        let link = &mut peer.links[to];
        link.phase = Phase::Open { token, heard: now };
        link.failures = 0;
        for (core, link) in peer.links.iter().enumerate() {
            if let Some(token) = link.phase.token() {
                let core = core as u16;
                self.by_token.insert(token, Spot { core, ..spot });
            }
        }
        for token in gone {
            self.hang_up(net, spot.node, token);
        }
        self.detector.on(now, spot.node, health::Event::Heard);
        self.judge_standing();
        Spot {
            core: to as u16,
            ..spot
        }
    }

    /// The handshake has failed for a reason that waiting does not mend.
    fn disagree(&mut self, net: &mut Net, spot: Spot, why: &str) {
        let name = &self.facts.topology.members()[spot.node.index()].name;
        let peer = &mut self.peers[spot.node.index()];
        let told = std::mem::replace(&mut peer.mismatch, true) && peer.trouble == why;
        peer.has_spoken = true;
        if !told {
            let line = Line::Warn(format!("peer {name}: {why}"));
            self.tell(&[line]);
        }
        self.judge_standing();
        self.lose(net, spot, why);
        let at = self.rt.now() + REDIAL_REFUSED;
        self.link(spot).phase = Phase::Idle(Some(at));
    }
}
