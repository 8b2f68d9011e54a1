//! The loop of one core: the only task that touches its sockets, connections and router.
//!
//! ```text
//! turn:  messages of other cores ─▶ answers of the log, of tasks ─▶ sockets ready ─▶ deadlines ─▶ ship messages
//!        │ worked                                    │ nothing to do
//!        └─▶ give way: to other tasks, and now and   └─▶ doze, then park, until something comes
//!            then to the reactor (disk and timers)
//! ```
//!
//! Each connection is served to the end of what it has, with one write, before the next one is looked at.
//! Background tasks of the same core (flush, compaction, disk reads) run between two turns.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;

use super::answer::{Answer, Form};
use super::arrivals::Asker;
use super::barrier::tell_others;
use super::conn::Conn;
use super::failure::Failure;
use super::hosts::Door;
use super::metrics::Metric;
use super::msg::{Kind, Msg, Reply};
use super::pipeline::Slot;
use super::route::{Place, Router};
use super::served::{HandOver, Served};
use super::turn::{Fate, Turn};
use super::{Announce, Started};
use crate::base::hash::Map;
use crate::base::limits::{
    ACCEPT_PAUSE, ACCEPT_WARN_INTERVAL, CONNECTIONS_PER_CORE_MAX, HELD_BYTES_FREE,
    HELD_BYTES_PER_CORE_MAX, READ_BUFFER_BYTES, SHUTDOWN_GRACE, SWEEP_INTERVAL, TURN_BUDGET,
};
use crate::base::time::Instant;
use crate::http::response::Frame;
use crate::rt::Rt;
use crate::rt::net::{Event, Net, Token};
use crate::store::completions::Done;

/// Connections taken per turn, so that a flood of them does not starve those that are there.
const ACCEPTS_PER_TURN: usize = 64;
/// The clock is looked at once per so many connections served, and messages: one look costs some 25 ns.
const LOOKS_PER_CLOCK: usize = 4;
/// So many served in one turn are a crowd: more have come meanwhile, and the next turn will not be empty.
const CROWD: usize = 4;
/// The shared out buffer keeps at most this much memory between turns.
const OUT_BYTES_KEPT: usize = 1 << 20;

/// Everything one core serves with. One per core.
pub(crate) struct Core<'r> {
    pub(super) rt: Rt,
    pub(super) net: Net,
    pub(super) router: &'r mut Router,
    pub(super) conns: Map<Token, Box<Conn>>,
    /// Sum of what the connections hold ([`Conn::held_bytes`]).
    held_bytes: usize,
    /// Links that other members have dialled.
    pub(super) served: Map<Token, Served>,
    door: Door,
    /// Read buffer, shared by all connections.
    pub(super) input: Box<[u8]>,
    /// Answers of the connection being served.
    out: Vec<u8>,
    spares: Vec<VecDeque<Slot>>,
    /// What other cores have sent; more than one turn's worth waits for the next.
    messages: VecDeque<(usize, Msg)>,
    done: Vec<Done>,
    arrived: Vec<(Asker, Reply)>,
    answers: Vec<(Place, Answer)>,
    touched: Vec<Token>,
    events: Vec<Event>,
    /// When this turn began: near enough for deadlines, and a clock read per request saved.
    pub(super) now: Instant,
    /// Messages, finished writes and ready sockets of this turn.
    served_now: usize,
    /// When some connection may be overdue.
    sweep_at: Option<Instant>,
    /// Accepting is paused until then.
    accept_at: Option<Instant>,
    /// Before then, a pause of accepting is not worth another line in the log.
    accept_warn_at: Instant,
    /// Shutting down: connections that are left then are cut.
    cut_at: Option<Instant>,
    /// Cores that have nothing to ask any more; this one too once `drained`.
    cores_drained: usize,
    drained: bool,
    /// This core accepts connections and knows whether it may answer them.
    is_ready: bool,
    /// Core 0: cores of which that is not true yet, and what to do when all are ready.
    cores_mute: usize,
    announce: Option<(Announce, Started)>,
}

impl<'r> Core<'r> {
    pub(crate) fn new(
        rt: &Rt,
        net: Net,
        router: &'r mut Router,
        door: Door,
        early: Vec<(usize, Msg)>,
        announce: (Announce, Started),
    ) -> Core<'r> {
        Core {
            rt: rt.clone(),
            net,
            is_ready: false,
            cores_mute: router.owners.cores(),
            router,
            conns: Map::default(),
            held_bytes: 0,
            served: Map::default(),
            door,
            input: vec![0; READ_BUFFER_BYTES].into_boxed_slice(),
            out: Vec::new(),
            spares: Vec::new(),
            messages: early.into(),
            done: Vec::new(),
            arrived: Vec::new(),
            answers: Vec::new(),
            touched: Vec::new(),
            events: Vec::new(),
            now: rt.now(),
            served_now: 0,
            sweep_at: None,
            accept_at: None,
            accept_warn_at: rt.now(),
            cut_at: None,
            cores_drained: 0,
            drained: false,
            announce: (rt.core() == 0).then_some(announce),
        }
    }

    /// Serves until the node is to stop and all cores have finished what they had begun.
    pub(crate) async fn serve(&mut self) -> io::Result<()> {
        loop {
            if !self.is_ready && self.router.is_sure() {
                self.become_ready();
            }
            self.served_now = 0;
            let worked = self.turn()?;
            if self.drained && self.cores_drained >= self.router.owners.cores() {
                return Ok(());
            }
            if self.router.fault.is_some() {
                // The store's mailbox is ready for ever; the rest must still get its turns.
                self.rt.yield_now().await;
            } else if worked {
                self.rt.give_way(self.served_now >= CROWD).await;
            } else {
                self.park().await?;
            }
        }
    }

    fn become_ready(&mut self) {
        self.is_ready = true;
        // Told before the node is announced: its `/health` must not go on saying that it is joining.
        self.router.share_view();
        if self.rt.core() == 0 {
            self.on_listening();
        } else {
            self.router.port.send(0, Msg(Kind::Listening));
        }
    }

    async fn park(&mut self) -> io::Result<()> {
        let until = [
            self.sweep_at,
            self.accept_at,
            self.cut_at,
            self.router.wake_at(),
        ]
        .into_iter()
        .flatten()
        .min();
        let stopping = self.cut_at.is_some();
        let (rt, router) = (&self.rt, &self.router);
        let ready = &mut |cx: &mut std::task::Context<'_>| {
            // Each must be asked, so that each knows whom to wake.
            let message = router.port.poll_arrived(cx).is_ready();
            let done = router.shared.completions().poll_any(cx).is_ready();
            let arrived = router.arrivals.poll_any(cx).is_ready();
            let stop = !stopping && rt.stop().poll_raised(cx).is_ready();
            message || done || arrived || stop
        };
        self.net.park(until, ready).await
    }

    /// One pass over everything that may have work; true when something had.
    fn turn(&mut self) -> io::Result<bool> {
        self.now = self.rt.now();
        self.router.tick();
        let mut worked = self.take_mail();
        self.hand_out();
        let mut events = std::mem::take(&mut self.events);
        self.net.poll(&mut events)?;
        worked |= !events.is_empty();
        self.served_now += events.len();
        let mut looks = 0;
        for event in events.drain(..) {
            // The rest are reported again.
            if self.is_late(&mut looks) {
                break;
            }
            match event {
                Event::Accept => self.accept()?,
                Event::Ready {
                    token,
                    readable,
                    writable,
                } => self.on_ready(token, readable, writable),
            }
        }
        self.events = events;
        worked |= self.router.take_heard();
        self.look_at_clock()?;
        self.hand_out();
        if self.rt.stop().is_raised() {
            worked |= self.stop();
        }
        self.send_to_peers();
        worked |= !(self.messages.is_empty() && self.router.stirred.is_empty());
        self.router.port.ship();
        if self.out.capacity() > OUT_BYTES_KEPT {
            self.out = Vec::new();
        }
        Ok(worked)
    }

    /// Messages, finished writes and finished tasks.
    fn take_mail(&mut self) -> bool {
        self.router.port.receive(&mut self.messages);
        self.router.shared.completions().take(&mut self.done);
        self.router.arrivals.take(&mut self.arrived);
        self.served_now += self.messages.len() + self.done.len() + self.arrived.len();
        let worked = self.served_now > 0;
        let mut look = 0;
        while let Some((from, message)) = self.messages.pop_front() {
            match message.0 {
                Kind::Ask { ticket, ask } => self.router.on_ask(from, ticket, ask),
                Kind::Reply { ticket, reply } => self.router.on_foreign_reply(from, ticket, reply),
                Kind::Listening => self.on_listening(),
                Kind::Drained => self.cores_drained += 1,
                Kind::HandOver(HandOver { connection, guest }) => {
                    match self.net.adopt(connection) {
                        Ok(token) => self.welcome(token, guest),
                        Err(error) => (self.router.log)(&format!("link of a peer: {error}")),
                    }
                }
                Kind::Met(name, node) => self.router.met(&name, node),
                Kind::Saw(view) => self.router.saw(from, view),
                // Both belong to the start, which is over.
                Kind::Opened(_) | Kind::Listen => {}
            }
            if self.is_late(&mut look) {
                break;
            }
        }
        for done in self.done.drain(..) {
            self.router.on_done(done);
        }
        for (asker, reply) in self.arrived.drain(..) {
            self.router.reply(asker, reply);
        }
        if self.router.fault.is_none()
            && let Some(why) = self.router.shared.completions().failure()
        {
            (self.router.log)(&why);
            self.router.fault = Some(why);
            self.rt.stop().raise();
        }
        worked
    }

    /// Whether this turn has lasted long enough. Costly requests come in hundreds (a value of 8 MiB for each of
    /// them); what is left over waits for the next turn, and other tasks get theirs in between.
    fn is_late(&self, looks: &mut usize) -> bool {
        *looks += 1;
        looks.is_multiple_of(LOOKS_PER_CLOCK) && self.rt.now().since(self.now) >= TURN_BUDGET
    }

    /// Core 0: one more core is ready.
    fn on_listening(&mut self) {
        self.cores_mute -= 1;
        if self.cores_mute == 0
            && let Some((announce, started)) = self.announce.take()
        {
            announce(&started);
        }
    }

    /// Brings answers to their connections; each connection sends once, however many it got.
    fn hand_out(&mut self) {
        let mut looks = 0;
        while !(self.router.answered.is_empty() && self.router.stirred.is_empty()) {
            let mut touched = std::mem::take(&mut self.touched);
            touched.append(&mut self.router.stirred);
            std::mem::swap(&mut self.answers, &mut self.router.answered);
            for (place, answer) in self.answers.drain(..) {
                if let Some(conn) = self.conns.get_mut(&place.token) {
                    conn.fill(place.seq, answer);
                    touched.push(place.token);
                }
            }
            touched.sort_unstable();
            touched.dedup();
            let mut served = 0;
            while served < touched.len() && !self.is_late(&mut looks) {
                self.serve_one(touched[served], |conn, turn, _| conn.settle(turn));
                served += 1;
            }
            let late = served < touched.len();
            self.router.stirred.extend(touched.drain(..).skip(served));
            self.touched = touched;
            if late {
                return;
            }
        }
    }

    /// Lends the core to one connection, and buries it when that is its end.
    pub(super) fn serve_one(
        &mut self,
        token: Token,
        serve: impl FnOnce(&mut Conn, &mut Turn<'_>, &mut [u8]) -> Fate,
    ) {
        let Some(conn) = self.conns.get_mut(&token) else {
            return;
        };
        let full = self.held_bytes + self.router.scan_bytes > HELD_BYTES_PER_CORE_MAX;
        let mut turn = Turn {
            net: &mut self.net,
            router: self.router,
            out: &mut self.out,
            spares: &mut self.spares,
            door: &self.door,
            now: self.now,
            stopping: self.cut_at.is_some(),
            full,
        };
        let mut fate = serve(conn, &mut turn, &mut self.input);
        let (before, others) = (conn.counted, self.held_bytes - conn.counted);
        let held = conn.held_bytes();
        if held > before.max(HELD_BYTES_FREE)
            && others + held > HELD_BYTES_PER_CORE_MAX
            && fate == Fate::Keep
        {
            fate = conn.on_overload(&mut turn);
        }
        conn.counted = if fate == Fate::Keep {
            conn.held_bytes()
        } else {
            0
        };
        self.held_bytes = others + conn.counted;
        turn.router
            .pen
            .counters
            .set(Metric::HeldBytes, self.held_bytes as u64);
        match fate {
            Fate::Keep => {
                let soon = turn.now + SWEEP_INTERVAL;
                if let Some(deadline) = conn.deadline() {
                    let at = deadline.max(soon);
                    self.sweep_at = Some(self.sweep_at.map_or(at, |sweep| sweep.min(at)));
                }
            }
            Fate::Close => {
                conn.abandon(&mut turn);
                self.out.clear();
                self.conns.remove(&token);
                self.count_connections();
            }
            Fate::HandOver => {
                let guest = conn.take_guest();
                self.conns.remove(&token);
                self.count_connections();
                self.hand_over(token, guest);
            }
        }
    }

    fn count_connections(&mut self) {
        let open = self.conns.len() as u64;
        self.router.pen.counters.set(Metric::Connections, open);
    }

    fn accept(&mut self) -> io::Result<()> {
        for _ in 0..ACCEPTS_PER_TURN {
            match self.net.accept() {
                Ok(Some((token, client))) => self.admit(token, client.ip()),
                Ok(None) => break,
                Err(error) => {
                    // Out of descriptors or memory: the listener stays ready, and asking again at once would spin.
                    self.net.set_accepting(false)?;
                    self.accept_at = Some(self.rt.now() + ACCEPT_PAUSE);
                    self.warn_of_waiting_clients(&error);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Clients that are not accepted see nothing but silence: the operator must hear of it.
    fn warn_of_waiting_clients(&mut self, error: &io::Error) {
        if self.now < self.accept_warn_at {
            return;
        }
        self.accept_warn_at = self.now + ACCEPT_WARN_INTERVAL;
        (self.router.log)(&format!(
            "core {}: clients wait, no more connections can be accepted than {}: {error}; raise the limit of \
             open files (ulimit -n, LimitNOFILE=) or close idle connections",
            self.rt.core(),
            self.conns.len()
        ));
    }

    fn admit(&mut self, token: Token, client: IpAddr) {
        let now = self.now;
        if self.conns.len() < CONNECTIONS_PER_CORE_MAX {
            let counters = &mut self.router.pen.counters;
            counters.count(Metric::ConnectionsAccepted);
            let conn = Conn::new(token, client, now);
            self.conns.insert(token, Box::new(conn));
            self.count_connections();
            self.serve_one(token, |conn, turn, input| {
                conn.on_ready(turn, input, true, false)
            });
            return;
        }
        let pen = &mut self.router.pen;
        pen.counters.count(Metric::ConnectionsRefused);
        let form = Form {
            frame: Frame::CLOSE,
            json: false,
        };
        let mut answer = Vec::new();
        pen.refused(&mut answer, form, &Failure::Busy.into());
        // Best effort, without waiting: a client that cannot take these few bytes gets a plain close.
        if self.net.write(token, &answer).is_ok() {
            self.net.shutdown_write(token);
        }
        self.net.close(token);
    }

    fn look_at_clock(&mut self) -> io::Result<()> {
        self.look_at_members();
        if self.sweep_at.is_none() && self.accept_at.is_none() {
            return Ok(());
        }
        let now = self.now;
        if self.accept_at.is_some_and(|at| at <= now) {
            self.accept_at = None;
            if self.cut_at.is_none() {
                self.net.set_accepting(true)?;
            }
        }
        if self.sweep_at.is_some_and(|at| at <= now) {
            self.sweep(now);
        }
        Ok(())
    }

    /// Deals with every overdue connection and finds out when the next may be.
    fn sweep(&mut self, now: Instant) {
        self.sweep_at = None;
        let mut overdue = Vec::new();
        let mut next: Option<Instant> = None;
        for (token, conn) in &self.conns {
            match conn.deadline() {
                Some(deadline) if deadline <= now => overdue.push(*token),
                Some(deadline) => next = Some(next.map_or(deadline, |next| next.min(deadline))),
                None => {}
            }
        }
        self.sweep_at = next.map(|next| next.max(now + SWEEP_INTERVAL));
        for token in overdue {
            self.serve_one(token, |conn, turn, _| conn.on_overdue(turn));
        }
    }

    /// Goes on with the shutdown; true when something happened.
    fn stop(&mut self) -> bool {
        let now = self.now;
        let Some(cut_at) = self.cut_at else {
            self.cut_at = Some(now + SHUTDOWN_GRACE);
            // Clients whose connection the kernel has completed get their answers, like all the others.
            while self.conns.len() < CONNECTIONS_PER_CORE_MAX
                && let Ok(Some((token, client))) = self.net.accept()
            {
                self.admit(token, client.ip());
            }
            self.net.stop_listening();
            let tokens: Vec<Token> = self.conns.keys().copied().collect();
            for token in tokens {
                self.serve_one(token, |conn, turn, input| conn.on_stop(turn, input));
            }
            return true;
        };
        if self.drained {
            // The grace holds for waiting on other cores too: one of them may have died.
            if now >= cut_at {
                self.cores_drained = self.router.owners.cores();
            }
            return false;
        }
        if now >= cut_at {
            let tokens: Vec<Token> = self.conns.keys().copied().collect();
            for token in tokens {
                self.serve_one(token, |_, _, _| Fate::Close);
            }
        } else if !self.conns.is_empty() || self.router.is_busy() {
            return false;
        }
        self.drained = true;
        self.cores_drained += 1;
        for token in std::mem::take(&mut self.served).into_keys() {
            self.net.close(token);
        }
        if let Some(member) = &mut self.router.member {
            member.peers.close(&mut self.net);
        }
        tell_others(&self.rt, &mut self.router.port, || Kind::Drained);
        true
    }
}
