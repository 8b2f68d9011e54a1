//! Sockets between all simulated nodes: byte streams that are slow, split anywhere and cut at will.
//!
//! ```text
//! write ──> pipe of the receiving end ──(random delay, random split, partition: wait)──> inbox ──> read
//! connect, FIN and RST travel through the same pipe and never overtake bytes
//! ```
//!
//! - Ends come in pairs `n` and `n ^ 1`; an end's number is its token and is never reused.
//! - Pipe and inbox of an end together hold at most [`SOCKET_BYTES`]; above that the peer's `write` is `WouldBlock`.
//! - A connect picks one of the cores listening on the address by chance; nobody listening is `ConnectionRefused`
//!   at the first read or write.
//! - Closing with bytes unread, writing to a closed end, and the death of a process send RST. An arriving RST by
//!   chance discards what was not read yet.
//! - Readiness is level-triggered and reported in random order.
//!
//! Not modelled: loss, duplication and reordering (TCP hides them), half-open connections after a power loss.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::task::Waker;
use std::time::Duration;

use super::World;
use super::exec::{Alarm, Exec};
use crate::rt::net::{Event, Token};

/// Bytes one direction of a connection holds before `write` blocks.
pub const SOCKET_BYTES: usize = 64 << 10;

/// What the network has done since the world began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that found a listener.
    pub connects: u64,
    pub refused: u64,
    /// Pieces of streams delivered, and their bytes.
    pub deliveries: u64,
    pub bytes: u64,
    pub resets: u64,
}

/// The next thing in the pipe of this end is due.
pub(super) struct Signal(u64);

/// Every socket of the world.
#[derive(Default)]
pub(super) struct Network {
    pub(super) hosts: BTreeMap<u64, Host>,
    pub(super) ends: BTreeMap<u64, End>,
    /// By receiving end. A pipe may outlive both ends.
    pub(super) pipes: BTreeMap<u64, Pipe>,
    cuts: BTreeSet<(u16, u16)>,
    pub(super) ports_used: u16,
    pub(super) counters: Counters,
}

/// One `Net`: the sockets of one core.
pub(super) struct Host {
    pub(super) node: u16,
    pub(super) listen: Vec<SocketAddr>,
    pub(super) accepting: bool,
    pub(super) backlog: VecDeque<u64>,
    pub(super) waker: Option<Waker>,
}

pub(super) struct End {
    pub(super) host: u64,
    pub(super) peer_addr: SocketAddr,
    pub(super) connected: bool,
    pub(super) inbox: VecDeque<u8>,
    /// The peer sends no more.
    pub(super) eof: bool,
    pub(super) error: Option<io::ErrorKind>,
    /// We send no more.
    pub(super) shut: bool,
    pub(super) wants_read: bool,
    pub(super) wants_write: bool,
}

pub(super) struct Pipe {
    pub(super) from: u16,
    pub(super) to: u16,
    pub(super) queue: VecDeque<Parcel>,
    pub(super) bytes: usize,
    /// An alarm is set for the first parcel.
    pub(super) moving: bool,
}

pub(super) enum Parcel {
    /// The receiving end does not exist before this arrives.
    Connect {
        from: SocketAddr,
        to: SocketAddr,
    },
    /// The answer to a connect.
    Connected,
    Refused,
    Bytes(Vec<u8>),
    Fin,
    Rst,
}

impl Network {
    pub(super) fn counters(&self) -> Counters {
        self.counters
    }

    pub(super) fn partition(&mut self, from: u16, to: u16) {
        self.cuts.insert((from, to));
    }

    pub(super) fn heal(&mut self, exec: &Exec) {
        self.cuts.clear();
        let ids: Vec<u64> = self.pipes.keys().copied().collect();
        for id in ids {
            self.start(id, exec);
        }
    }

    /// Loses what is on its way on some connections between two nodes, and ends them for both.
    pub(super) fn sever(&mut self, one: u16, other: u16, exec: &Exec) {
        let between = |pipe: &Pipe| (pipe.from, pipe.to) == (one, other);
        let pipes = self.pipes.iter().filter(|(_, pipe)| between(pipe));
        let ids: Vec<u64> = pipes.map(|(id, _)| *id).collect();
        for id in ids {
            if exec.chance(fastrand::Rng::bool) {
                for end in [id, id ^ 1] {
                    if let Some(pipe) = self.pipes.get_mut(&end) {
                        pipe.queue.clear();
                        pipe.bytes = 0;
                    }
                    self.counters.resets += 1;
                    self.send(end, Parcel::Rst, exec);
                }
            }
        }
    }

    /// The process of this node is gone.
    pub(super) fn end_node(&mut self, node: u16, exec: &Exec) {
        let hosts: Vec<u64> = self
            .hosts
            .iter()
            .filter(|(_, host)| host.node == node)
            .map(|(id, _)| *id)
            .collect();
        for host in hosts {
            self.close_host(host, exec);
        }
    }

    pub(super) fn close_host(&mut self, host: u64, exec: &Exec) {
        let Some(gone) = self.hosts.remove(&host) else {
            return;
        };
        for end in gone.backlog {
            self.reset(end, exec);
        }
        let ends: Vec<u64> = self
            .ends
            .iter()
            .filter(|(_, end)| end.host == host)
            .map(|(id, _)| *id)
            .collect();
        for end in ends {
            self.reset(end, exec);
        }
    }

    /// Forgets an end and tells its peer so harshly.
    pub(super) fn reset(&mut self, end: u64, exec: &Exec) {
        if self.ends.remove(&end).is_some() {
            self.counters.resets += 1;
            self.send(end ^ 1, Parcel::Rst, exec);
        }
    }

    /// Puts a parcel into the pipe towards `to`.
    pub(super) fn send(&mut self, to: u64, parcel: Parcel, exec: &Exec) {
        let Some(pipe) = self.pipes.get_mut(&to) else {
            return;
        };
        if let Parcel::Bytes(bytes) = &parcel {
            pipe.bytes += bytes.len();
        }
        pipe.queue.push_back(parcel);
        self.start(to, exec);
    }

    /// Sets the alarm for the first parcel, unless one is set or the way is cut.
    fn start(&mut self, to: u64, exec: &Exec) {
        let Some(pipe) = self.pipes.get_mut(&to) else {
            return;
        };
        if pipe.moving || pipe.queue.is_empty() || self.cuts.contains(&(pipe.from, pipe.to)) {
            return;
        }
        pipe.moving = true;
        let delay_ns = exec.chance(|rng| match rng.u8(..32) {
            0 => rng.u64(1_000_000..30_000_000),
            _ => rng.u64(5_000..300_000),
        });
        let due = exec.now() + Duration::from_nanos(delay_ns);
        exec.set_alarm(due, Alarm::Net(Signal(to)));
    }

    /// Delivers what is due at one end.
    pub(super) fn signal(&mut self, Signal(to): Signal, exec: &Exec) {
        let Some(pipe) = self.pipes.get_mut(&to) else {
            return;
        };
        pipe.moving = false;
        if self.cuts.contains(&(pipe.from, pipe.to)) {
            return;
        }
        let Some(parcel) = pipe.queue.pop_front() else {
            return;
        };
        exec.note(to << 32 | self.counters.bytes);
        let parcel = match parcel {
            Parcel::Bytes(mut bytes) => {
                let taken = exec.chance(|rng| match rng.u8(..4) {
                    0 => rng.usize(1..=bytes.len()),
                    1 => 1,
                    _ => bytes.len(),
                });
                let rest = bytes.split_off(taken);
                pipe.bytes -= taken;
                if !rest.is_empty() {
                    pipe.queue.push_front(Parcel::Bytes(rest));
                }
                Parcel::Bytes(bytes)
            }
            other => other,
        };
        self.deliver(to, parcel, exec);
        self.start(to, exec);
        self.forget_pipes(to);
    }

    fn deliver(&mut self, to: u64, parcel: Parcel, exec: &Exec) {
        if let Parcel::Connect { from, to: address } = parcel {
            self.arrive(to, from, address, exec);
            return;
        }
        let Some(end) = self.ends.get_mut(&to) else {
            // Bytes for a closed end are answered with RST, anything else is lost on it.
            if matches!(parcel, Parcel::Bytes(_)) {
                self.counters.resets += 1;
                self.send(to ^ 1, Parcel::Rst, exec);
            }
            return;
        };
        match parcel {
            Parcel::Connect { .. } => {}
            Parcel::Connected => end.connected = true,
            Parcel::Refused => end.error = Some(io::ErrorKind::ConnectionRefused),
            Parcel::Bytes(bytes) => {
                self.counters.deliveries += 1;
                self.counters.bytes += bytes.len() as u64;
                end.inbox.extend(bytes);
            }
            Parcel::Fin => end.eof = true,
            Parcel::Rst => {
                end.error = Some(io::ErrorKind::ConnectionReset);
                if exec.chance(fastrand::Rng::bool) {
                    end.inbox.clear();
                }
            }
        }
        let host = end.host;
        self.wake(host);
    }

    /// A connect reaches the node it is for.
    fn arrive(&mut self, id: u64, from: SocketAddr, to: SocketAddr, exec: &Exec) {
        let Some(pipe) = self.pipes.get(&id) else {
            return;
        };
        let (caller, node) = (pipe.from, pipe.to);
        let listening: Vec<u64> = self
            .hosts
            .iter()
            .filter(|(_, host)| {
                host.node == node
                    && host
                        .listen
                        .iter()
                        .any(|at| answers(*at, host.node, to, caller))
            })
            .map(|(host, _)| *host)
            .collect();
        if listening.is_empty() {
            self.counters.refused += 1;
            self.send(id ^ 1, Parcel::Refused, exec);
            return;
        }
        let host = listening[exec.chance(|rng| rng.usize(..listening.len()))];
        self.counters.connects += 1;
        self.ends.insert(id, End::new(host, from, true));
        if let Some(host) = self.hosts.get_mut(&host) {
            host.backlog.push_back(id);
        }
        self.send(id ^ 1, Parcel::Connected, exec);
        self.wake(host);
    }

    /// Drops the pipes of a pair that nobody will use again.
    pub(super) fn forget_pipes(&mut self, id: u64) {
        let idle = |id: u64| {
            !self.ends.contains_key(&id)
                && self.pipes.get(&id).is_none_or(|pipe| pipe.queue.is_empty())
        };
        if idle(id) && idle(id ^ 1) {
            self.pipes.remove(&id);
            self.pipes.remove(&(id ^ 1));
        }
    }

    pub(super) fn wake(&mut self, host: u64) {
        let waker = self.hosts.get_mut(&host).and_then(|host| host.waker.take());
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Bytes the end's peer may still be sent.
    pub(super) fn room(&self, end: u64) -> usize {
        let waiting = self.ends.get(&(end ^ 1)).map_or(0, |peer| peer.inbox.len());
        let moving = self.pipes.get(&(end ^ 1)).map_or(0, |pipe| pipe.bytes);
        SOCKET_BYTES.saturating_sub(waiting + moving)
    }

    fn readiness(&self, id: u64, end: &End) -> Option<Event> {
        let over = end.error.is_some();
        let readable = end.wants_read && (over || end.eof || !end.inbox.is_empty());
        let writable = end.wants_write && (over || (end.connected && self.room(id) > 0));
        (readable || writable).then_some(Event::Ready {
            token: Token(id),
            readable,
            writable,
        })
    }

    /// What is ready for this host, in the order of connections.
    pub(super) fn ready(&self, host: u64) -> impl Iterator<Item = Event> {
        let accept = self
            .hosts
            .get(&host)
            .filter(|host| host.accepting && !host.backlog.is_empty())
            .map(|_| Event::Accept);
        let own = move |entry: &(&u64, &End)| {
            let (id, end) = *entry;
            end.host == host
                && self
                    .hosts
                    .get(&host)
                    .is_some_and(|host| !host.backlog.contains(id))
        };
        let ends = self.ends.iter().filter(own);
        accept
            .into_iter()
            .chain(ends.filter_map(|(id, end)| self.readiness(*id, end)))
    }
}

impl End {
    pub(super) fn new(host: u64, peer_addr: SocketAddr, connected: bool) -> End {
        End {
            host,
            peer_addr,
            connected,
            inbox: VecDeque::new(),
            eof: false,
            error: None,
            shut: false,
            // As with the real one: who connects hears first that it has.
            wants_read: connected,
            wants_write: !connected,
        }
    }
}

/// The node an address belongs to, seen from `caller`.
pub(super) fn node_of(address: SocketAddr, caller: u16) -> u16 {
    match address.ip() {
        std::net::IpAddr::V4(ip) if ip.octets()[0] == 10 => {
            u16::from_be_bytes([ip.octets()[2], ip.octets()[3]])
        }
        _ => caller,
    }
}

/// Whether a listener at `at` on `node` takes a connect from `caller` to `to`.
fn answers(at: SocketAddr, node: u16, to: SocketAddr, caller: u16) -> bool {
    let local = to.ip().is_loopback() && caller == node;
    let wild = at.ip().is_unspecified() && (local || to.ip() == World::ip(node));
    at.port() == to.port() && (wild || at.ip() == to.ip())
}

impl Pipe {
    pub(super) fn new(from: u16, to: u16) -> Pipe {
        Pipe {
            from,
            to,
            queue: VecDeque::new(),
            bytes: 0,
            moving: false,
        }
    }
}
