//! The part of a core's loop that other members see: their links here, our links there.
//!
//! ```text
//!  socket of a client that turns out to be a member ─▶ hand_over ─▶ the core it is for ─▶ welcome ─▶ served
//!  end of a turn: answers to members, requests to members ─▶ one write per link
//! ```

use std::time::Duration;

use super::core::Core;
use super::msg::{Kind, Msg};
use super::replica;
use super::served::{Ended, Guest, HandOver, Served};
use crate::rt::net::Token;

/// A link on which a member has sent nothing for so long, not even a heartbeat, is dead.
const SERVED_SILENCE_MAX: Duration = Duration::from_secs(15);

impl Core<'_> {
    pub(super) fn on_ready(&mut self, token: Token, readable: bool, writable: bool) {
        if self.conns.contains_key(&token) || self.router.member.is_none() {
            return self.serve_one(token, |conn, turn, input| {
                conn.on_ready(turn, input, readable, writable)
            });
        }
        if self.served.contains_key(&token) {
            self.serve_peer(token, readable);
        } else if let Some(member) = &mut self.router.member {
            let ready = (readable, writable);
            member
                .peers
                .on_ready(&mut self.net, token, &mut self.input, ready);
        }
    }

    fn serve_peer(&mut self, token: Token, readable: bool) {
        let Some(served) = self.served.get_mut(&token) else {
            return;
        };
        let ended = served.on_ready(&mut self.net, self.router, &mut self.input, readable);
        if let Err(ended) = ended {
            self.end_served(token, &ended);
        }
    }

    /// A member's connection is to be served here.
    pub(super) fn welcome(&mut self, token: Token, guest: Guest) {
        let mut served = Served::new(token, guest, self.router.secret(), self.now);
        let begun = served.begin(&mut self.net, self.router);
        self.served.insert(token, served);
        if let Err(ended) = begun {
            self.end_served(token, &ended);
        }
    }

    fn end_served(&mut self, token: Token, ended: &Ended) {
        self.net.close(token);
        if let Some(served) = self.served.remove(&token)
            && let Ended::Fault(why) = ended
        {
            let line = format!("link of peer {}: {why}", served.name());
            let log = &*self.router.log;
            self.router.grumble.tell(log, self.now, &line, &line);
        }
    }

    /// Answers and requests to other members leave: one write per link.
    pub(super) fn send_to_peers(&mut self) {
        let mut answers = std::mem::take(&mut self.router.peer_answers);
        let mut touched: Vec<Token> = Vec::new();
        for (job, digest, reply) in answers.drain(..) {
            if let Some(served) = self.served.get_mut(&job.token) {
                replica::tell(&reply, digest, |message| served.answer(job.id, message));
                touched.push(job.token);
            }
        }
        self.router.peer_answers = answers;
        touched.sort_unstable();
        touched.dedup();
        for token in touched {
            let sent = self
                .served
                .get_mut(&token)
                .map(|served| served.push_out(&mut self.net));
            if let Some(Err(ended)) = sent {
                self.end_served(token, &ended);
            }
        }
        if let Some(member) = &mut self.router.member {
            member.peers.flush(&mut self.net);
        }
    }

    /// Deadlines, heartbeats and silence of members.
    pub(super) fn look_at_members(&mut self) {
        self.router.look_at_dues();
        self.router.look_at_repair();
        let Some(member) = &mut self.router.member else {
            return;
        };
        if member.peers.wake_at() > self.now {
            return;
        }
        member.peers.tick(&mut self.net);
        self.router.share_view();
        self.router.look_at_handoffs();
        let silent = |served: &Served| self.now.since(served.heard) > SERVED_SILENCE_MAX;
        let gone = self.served.iter().filter(|(_, served)| silent(served));
        let gone: Vec<Token> = gone.map(|(token, _)| *token).collect();
        for token in gone {
            self.end_served(token, &Ended::Gone);
        }
    }

    /// A connection turns out to be a member's, for one of our cores.
    pub(super) fn hand_over(&mut self, token: Token, guest: Option<(usize, Guest)>) {
        match guest {
            Some((core, guest)) if core == self.rt.core() => self.welcome(token, guest),
            Some((core, guest)) => match self.net.detach(token) {
                Ok(connection) => {
                    let parcel = HandOver { connection, guest };
                    self.router.port.send(core, Msg(Kind::HandOver(parcel)));
                }
                Err(_) => self.net.close(token),
            },
            None => self.net.close(token),
        }
    }
}
