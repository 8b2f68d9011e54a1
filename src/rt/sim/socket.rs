//! One core's sockets: the simulated half of the `rt::net` facade, on top of the network of [`super::net`].
//!
//! Every call ends at once; only [`Net::park`] waits. Tokens of other cores and of closed connections are
//! `NotConnected`.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::exec::{Exec, Sleep};
use super::net::{End, Host, Network, Parcel, Pipe, node_of};
use super::{Process, World};
use crate::base::time::Instant;
use crate::rt::net::{Event, Token};

/// Events of one `poll`.
const EVENTS_MAX: usize = 256;

/// One core's sockets.
pub(in crate::rt) struct Net {
    process: Process,
    host: u64,
}

/// A connection between two cores of a node. It still belongs to the old one, which hears nothing of it; one that
/// is dropped stays open until the node ends (a plain number is all that may cross cores).
pub(in crate::rt) struct Detached(u64);

impl Process {
    pub(in crate::rt) fn net(&self, listen: &[SocketAddr]) -> io::Result<Net> {
        let host = self.shared.exec.serial();
        let fresh = Host {
            node: self.node,
            listen: listen.to_vec(),
            accepting: true,
            backlog: VecDeque::new(),
            waker: None,
        };
        if self.life.is_alive() {
            self.shared.net.borrow_mut().hosts.insert(host, fresh);
        }
        Ok(Net {
            process: self.clone(),
            host,
        })
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.with(|network, exec, host| network.close_host(host, exec));
    }
}

impl Net {
    fn with<T>(&self, act: impl FnOnce(&mut Network, &Exec, u64) -> T) -> T {
        let shared = &self.process.shared;
        act(&mut shared.net.borrow_mut(), &shared.exec, self.host)
    }

    /// Acts on a connection of this core; any other token is not a socket.
    fn with_end<T>(
        &self,
        token: Token,
        act: impl FnOnce(&mut Network, &Exec) -> io::Result<T>,
    ) -> io::Result<T> {
        self.with(|network, exec, host| {
            let known = network
                .ends
                .get(&token.0)
                .is_some_and(|end| end.host == host);
            if known {
                act(network, exec)
            } else {
                Err(io::ErrorKind::NotConnected.into())
            }
        })
    }

    pub(in crate::rt) fn poll(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        self.with(|network, exec, host| {
            let mut ready: Vec<Event> = network.ready(host).collect();
            exec.chance(|rng| rng.shuffle(&mut ready));
            events.extend(ready.into_iter().take(EVENTS_MAX));
        });
        Ok(())
    }

    pub(in crate::rt) fn accept(&mut self) -> io::Result<Option<(Token, SocketAddr)>> {
        Ok(self.with(|network, _, host| {
            let id = network.hosts.get_mut(&host)?.backlog.pop_front()?;
            let end = network.ends.get(&id)?;
            Some((Token(id), end.peer_addr))
        }))
    }

    pub(in crate::rt) fn set_accepting(&mut self, on: bool) -> io::Result<()> {
        self.with(|network, _, host| {
            if let Some(host) = network.hosts.get_mut(&host) {
                host.accepting = on;
            }
        });
        Ok(())
    }

    pub(in crate::rt) fn stop_listening(&mut self) {
        self.with(|network, exec, id| {
            let backlog = network.hosts.get_mut(&id).map(|host| {
                host.listen.clear();
                std::mem::take(&mut host.backlog)
            });
            for end in backlog.into_iter().flatten() {
                network.reset(end, exec);
            }
        });
    }

    pub(in crate::rt) fn connect(&mut self, to: SocketAddr) -> io::Result<Token> {
        let caller = self.process.node;
        if !self.process.life.is_alive() {
            return Err(io::ErrorKind::NetworkDown.into());
        }
        Ok(self.with(|network, exec, host| {
            let id = exec.serial() * 2;
            let callee = node_of(to, caller);
            network.ports_used = network.ports_used.wrapping_add(1);
            let port = 32_768 | network.ports_used;
            let ip = if to.ip().is_loopback() {
                to.ip()
            } else {
                World::ip(caller)
            };
            network.ends.insert(id, End::new(host, to, false));
            network.pipes.insert(id, Pipe::new(callee, caller));
            network.pipes.insert(id ^ 1, Pipe::new(caller, callee));
            let from = SocketAddr::new(ip, port);
            network.send(id ^ 1, Parcel::Connect { from, to }, exec);
            Token(id)
        }))
    }

    pub(in crate::rt) fn read(&mut self, token: Token, buf: &mut [u8]) -> io::Result<usize> {
        self.with_end(token, |network, _| {
            let was_full = network.room(token.0 ^ 1) == 0;
            let Some(end) = network.ends.get_mut(&token.0) else {
                return Err(io::ErrorKind::NotConnected.into());
            };
            let taken = end.inbox.len().min(buf.len());
            for (slot, byte) in buf.iter_mut().zip(end.inbox.drain(..taken)) {
                *slot = byte;
            }
            if taken > 0 {
                let peer = network.ends.get(&(token.0 ^ 1)).map(|peer| peer.host);
                if let Some(peer) = peer.filter(|_| was_full) {
                    network.wake(peer);
                }
                return Ok(taken);
            }
            match (end.error, end.eof || buf.is_empty()) {
                (Some(kind), _) => Err(kind.into()),
                (None, true) => Ok(0),
                (None, false) => Err(io::ErrorKind::WouldBlock.into()),
            }
        })
    }

    pub(in crate::rt) fn write(&mut self, token: Token, bytes: &[u8]) -> io::Result<usize> {
        self.with_end(token, |network, exec| {
            let room = network.room(token.0);
            let Some(end) = network.ends.get(&token.0) else {
                return Err(io::ErrorKind::NotConnected.into());
            };
            if let Some(kind) = end.error {
                return Err(kind.into());
            }
            if end.shut {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if bytes.is_empty() {
                return Ok(0);
            }
            if !end.connected || room == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let most = room.min(bytes.len());
            let taken = exec.chance(|rng| match rng.u8(..4) {
                0 => rng.usize(1..=most),
                _ => most,
            });
            let parcel = Parcel::Bytes(bytes[..taken].to_vec());
            network.send(token.0 ^ 1, parcel, exec);
            Ok(taken)
        })
    }

    pub(in crate::rt) fn set_interest(
        &mut self,
        token: Token,
        readable: bool,
        writable: bool,
    ) -> io::Result<()> {
        self.with_end(token, |network, _| {
            if let Some(end) = network.ends.get_mut(&token.0) {
                end.wants_read = readable;
                end.wants_write = writable;
            }
            Ok(())
        })
    }

    pub(in crate::rt) fn detach(&mut self, token: Token) -> io::Result<Detached> {
        self.set_interest(token, false, false)?;
        Ok(Detached(token.0))
    }

    pub(in crate::rt) fn adopt(&mut self, connection: Detached) -> io::Result<Token> {
        let token = Token(connection.0);
        self.with(|network, _, host| match network.ends.get_mut(&token.0) {
            Some(end) => {
                end.host = host;
                Ok(())
            }
            None => Err(io::Error::from(io::ErrorKind::NotConnected)),
        })?;
        self.set_interest(token, true, false)?;
        Ok(token)
    }

    pub(in crate::rt) fn shutdown_write(&mut self, token: Token) {
        let shut = self.with_end(token, |network, exec| {
            let first = network
                .ends
                .get_mut(&token.0)
                .is_some_and(|end| !std::mem::replace(&mut end.shut, true));
            if first {
                network.send(token.0 ^ 1, Parcel::Fin, exec);
            }
            Ok(())
        });
        drop(shut);
    }

    pub(in crate::rt) fn close(&mut self, token: Token) {
        let closed = self.with_end(token, |network, exec| {
            let Some(end) = network.ends.remove(&token.0) else {
                return Ok(());
            };
            if !end.inbox.is_empty() {
                network.counters.resets += 1;
                network.send(token.0 ^ 1, Parcel::Rst, exec);
            } else if !end.shut {
                network.send(token.0 ^ 1, Parcel::Fin, exec);
            }
            network.forget_pipes(token.0);
            Ok(())
        });
        drop(closed);
    }

    pub(in crate::rt) async fn park(
        &mut self,
        until: Option<Instant>,
        ready: &mut dyn FnMut(&mut Context<'_>) -> bool,
    ) -> io::Result<()> {
        self.process.live().await;
        let mut deadline = until.map(|at| Sleep::until(&self.process.shared.exec, at));
        poll_fn(|cx| {
            let due = deadline
                .as_mut()
                .is_some_and(|sleep| Pin::new(sleep).poll(cx).is_ready());
            let live = self.with(|network, _, host| {
                let live = network.ready(host).next().is_some();
                if let Some(host) = network.hosts.get_mut(&host) {
                    host.waker = Some(cx.waker().clone());
                }
                live
            });
            if ready(cx) || due || live {
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
        // A caller that parks while it ignores a ready socket spins: let time pass, so that the world sees it.
        self.process.yield_now().await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::time::Duration;

    use super::*;
    use crate::rt::sim::net::SOCKET_BYTES;
    use crate::rt::{Rt, net};

    const SEEDS: u64 = 200;

    fn address(node: u16) -> SocketAddr {
        SocketAddr::new(World::ip(node), 80)
    }

    async fn rest(net: &mut net::Net) {
        net.park(None, &mut |_| false).await.unwrap();
    }

    /// Reads until end of stream or error.
    async fn drain(net: &mut net::Net, token: Token) -> (Vec<u8>, Option<io::ErrorKind>) {
        let mut got = Vec::new();
        let mut buf = [0; 5000];
        loop {
            match net.read(token, &mut buf) {
                Ok(0) => return (got, None),
                Ok(n) => got.extend_from_slice(&buf[..n]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => rest(net).await,
                Err(error) => return (got, Some(error.kind())),
            }
        }
    }

    /// Writes everything; returns how often the socket was full.
    async fn pour(net: &mut net::Net, token: Token, mut bytes: &[u8]) -> usize {
        let mut full = 0;
        while !bytes.is_empty() {
            match net.write(token, bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    full += 1;
                    net.set_interest(token, false, true).unwrap();
                    rest(net).await;
                    net.set_interest(token, true, false).unwrap();
                }
            }
        }
        full
    }

    async fn accepted(net: &mut net::Net) -> Token {
        loop {
            if let Some((token, _)) = net.accept().unwrap() {
                return token;
            }
            rest(net).await;
        }
    }

    /// A server on node 1 that sends every connection's stream back once it has ended.
    fn echo(rt: &Rt) {
        let mut net = rt.net(&[address(1)]).unwrap();
        rt.spawn(async move {
            loop {
                let token = accepted(&mut net).await;
                let (bytes, error) = drain(&mut net, token).await;
                if error.is_none() {
                    pour(&mut net, token, &bytes).await;
                }
                net.close(token);
            }
        });
    }

    fn pair(seed: u64) -> (World, Rt, Rt) {
        let world = World::new(seed);
        let server = world.boot(1, 1).remove(0);
        let client = world.boot(2, 1).remove(0);
        (world, server, client)
    }

    #[test]
    fn streams_arrive_whole_in_order_through_small_sockets() {
        for seed in 0..SEEDS {
            let (world, server, client) = pair(seed);
            echo(&server);
            let sent: Vec<u8> = (0..2 * SOCKET_BYTES).map(|n| (n / 7) as u8).collect();
            world.run(&client, async {
                let mut net = client.net(&[]).unwrap();
                let token = net.connect(address(1)).unwrap();
                let full = pour(&mut net, token, &sent).await;
                assert!(full > 0, "seed {seed}: the socket never filled");
                net.shutdown_write(token);
                let refused = net.write(token, b"x").unwrap_err();
                assert_eq!(refused.kind(), io::ErrorKind::BrokenPipe);
                let (got, error) = drain(&mut net, token).await;
                assert_eq!((got == sent, error), (true, None), "seed {seed}");
            });
            let counters = world.net_counters();
            assert_eq!((counters.connects, counters.refused), (1, 0));
            assert!(counters.bytes >= sent.len() as u64 * 2);
        }
    }

    #[test]
    fn nobody_listening_is_refused() {
        let (world, server, client) = pair(5);
        world.run(&client, async {
            let mut net = client.net(&[]).unwrap();
            let token = net.connect(address(1)).unwrap();
            assert_eq!(
                drain(&mut net, token).await.1,
                Some(io::ErrorKind::ConnectionRefused)
            );
            net.close(token);
            let mut listening = server.net(&[address(1)]).unwrap();
            let token = net.connect(address(1)).unwrap();
            pour(&mut net, token, b"hello").await;
            listening.stop_listening();
            assert_eq!(
                drain(&mut net, token).await.1,
                Some(io::ErrorKind::ConnectionReset)
            );
            let late = net.connect(address(1)).unwrap();
            assert_eq!(
                drain(&mut net, late).await.1,
                Some(io::ErrorKind::ConnectionRefused)
            );
            net.close(late);
            assert_eq!(
                net.read(late, &mut [0]).unwrap_err().kind(),
                io::ErrorKind::NotConnected
            );
        });
        assert_eq!(world.net_counters().refused, 2);
    }

    #[test]
    fn a_connection_moves_to_another_core_with_what_it_holds() {
        for seed in 0..SEEDS {
            let world = World::new(seed);
            let mut cores = world.boot(1, 2);
            let (second, first) = (cores.pop().unwrap(), cores.pop().unwrap());
            let client = world.boot(2, 1).remove(0);
            let mut theirs = client.net(&[]).unwrap();
            let mut ours = first.net(&[address(1)]).unwrap();
            let mut next = second.net(&[]).unwrap();
            let socket = world.run(&client, async {
                let token = theirs.connect(address(1)).unwrap();
                pour(&mut theirs, token, b"early").await;
                token
            });
            let moved = world.run(&first, async {
                let token = accepted(&mut ours).await;
                let moved = ours.detach(token).unwrap();
                let (mut buf, mut events) = ([0; 9], Vec::new());
                ours.poll(&mut events).unwrap();
                assert!(events.is_empty(), "SEED={seed}: the old core hears nothing");
                let token = next.adopt(moved).unwrap();
                assert!(
                    ours.read(token, &mut buf).is_err(),
                    "SEED={seed}: it is gone here"
                );
                token
            });
            world.run(&client, async {
                pour(&mut theirs, socket, b", late").await;
                theirs.shutdown_write(socket);
            });
            let (got, error) = world.run(&second, drain(&mut next, moved));
            assert_eq!(
                (&got[..], error),
                (&b"early, late"[..], None),
                "SEED={seed}"
            );
        }
    }

    #[test]
    fn a_crash_resets_the_connections_of_the_node() {
        for seed in 0..SEEDS {
            let (world, server, client) = pair(seed);
            echo(&server);
            let mut net = client.net(&[]).unwrap();
            let token = world.run(&client, async {
                let token = net.connect(address(1)).unwrap();
                pour(&mut net, token, b"half a request").await;
                token
            });
            world.crash(1);
            let (got, error) = world.run(&client, drain(&mut net, token));
            assert_eq!(
                (got.len(), error),
                (0, Some(io::ErrorKind::ConnectionReset)),
                "seed {seed}"
            );
        }
    }

    #[test]
    fn closing_with_unread_bytes_is_a_reset_and_without_an_end() {
        for unread in [true, false] {
            let (world, server, client) = pair(9);
            let mut listening = server.net(&[address(1)]).unwrap();
            world.run(&client, async {
                let mut net = client.net(&[]).unwrap();
                let token = net.connect(address(1)).unwrap();
                pour(&mut net, token, b"x").await;
                let other = accepted(&mut listening).await;
                rest(&mut listening).await;
                if !unread {
                    assert_eq!(listening.read(other, &mut [0; 9]).unwrap(), 1);
                }
                listening.close(other);
                let (_, error) = drain(&mut net, token).await;
                assert_eq!(error, unread.then_some(io::ErrorKind::ConnectionReset));
            });
        }
    }

    /// A connection from one node to the other, both ends at rest.
    fn connected(world: &World, server: &Rt, client: &Rt) -> [(net::Net, Token); 2] {
        let mut listening = server.net(&[address(1)]).unwrap();
        let mut net = client.net(&[]).unwrap();
        let (here, there) = world.run(client, async {
            let here = net.connect(address(1)).unwrap();
            (here, accepted(&mut listening).await)
        });
        world.run_for(Duration::from_secs(1));
        [(net, here), (listening, there)]
    }

    #[test]
    fn what_is_severed_has_ended_for_both_and_what_was_under_way_is_lost() {
        let (world, server, client) = pair(12);
        let [(mut net, here), (mut listening, there)] = connected(&world, &server, &client);
        assert_eq!(world.sever(2, 3), 0);
        let mut rounds = 0;
        let reset = loop {
            world.run_for(Duration::from_secs(1));
            match net.write(here, b"x") {
                Ok(_) => drop(world.sever(1, 2)),
                Err(error) => break error.kind(),
            }
            rounds += 1;
        };
        assert!(rounds > 0, "other machines do not matter");
        assert_eq!(reset, io::ErrorKind::ConnectionReset);
        let (got, error) = world.run(&server, drain(&mut listening, there));
        assert!(got.len() < rounds, "the last byte was on its way");
        assert_eq!(error, Some(io::ErrorKind::ConnectionReset));
    }

    #[test]
    fn a_partition_makes_bytes_wait_one_way() {
        let (world, server, client) = pair(12);
        let [(mut net, here), (mut listening, there)] = connected(&world, &server, &client);
        world.partition(2, 1);
        assert!(net.write(here, b"lost").unwrap() > 0);
        assert!(listening.write(there, b"seen").unwrap() > 0);
        world.run_for(Duration::from_secs(60));
        let blocked = listening.read(there, &mut [0; 9]).unwrap_err();
        assert_eq!(blocked.kind(), io::ErrorKind::WouldBlock);
        assert!(net.read(here, &mut [0; 9]).unwrap() > 0);
        world.heal();
        world.run_for(Duration::from_secs(1));
        assert!(listening.read(there, &mut [0; 9]).unwrap() > 0);
    }

    #[test]
    fn connections_spread_over_the_cores_of_a_node() {
        let world = World::new(6);
        let counts = Rc::new(RefCell::new([0; 3]));
        for rt in world.boot(1, 3) {
            let mut net = rt.net(&["0.0.0.0:80".parse().unwrap()]).unwrap();
            let counts = Rc::clone(&counts);
            rt.clone().spawn(async move {
                loop {
                    accepted(&mut net).await;
                    counts.borrow_mut()[rt.core()] += 1;
                }
            });
        }
        let client = world.boot(2, 1).remove(0);
        let mut net = client.net(&[]).unwrap();
        for _ in 0..90 {
            net.connect(address(1)).unwrap();
        }
        world.run_for(Duration::from_secs(1));
        let counts = *counts.borrow();
        assert_eq!(counts.iter().sum::<i32>(), 90);
        assert!(counts.iter().all(|n| *n > 15), "{counts:?}");
        let loopback = net.connect("127.0.0.1:80".parse().unwrap()).unwrap();
        let refused = world.run(&client, drain(&mut net, loopback)).1;
        assert_eq!(
            refused,
            Some(io::ErrorKind::ConnectionRefused),
            "another node's loopback"
        );
    }

    #[test]
    fn readiness_is_a_level_and_follows_interest() {
        let (world, server, client) = pair(8);
        let mut listening = server.net(&[address(1)]).unwrap();
        let mut net = client.net(&[]).unwrap();
        let here = net.connect(address(1)).unwrap();
        net.set_interest(here, true, false).unwrap();
        let polled = |net: &mut net::Net| {
            let mut events = Vec::new();
            net.poll(&mut events).unwrap();
            events
        };
        assert_eq!(polled(&mut net), []);
        listening.set_accepting(false).unwrap();
        world.run_for(Duration::from_secs(1));
        assert_eq!(polled(&mut listening), []);
        listening.set_accepting(true).unwrap();
        assert_eq!(polled(&mut listening), [Event::Accept]);
        assert_eq!(polled(&mut listening), [Event::Accept], "still waiting");
        let (there, from) = listening.accept().unwrap().unwrap();
        assert_eq!(from.ip(), World::ip(2));
        assert!(listening.accept().unwrap().is_none());
        net.write(here, b"x").unwrap();
        world.run_for(Duration::from_secs(1));
        let ready = |token, readable, writable| Event::Ready {
            token,
            readable,
            writable,
        };
        assert_eq!(polled(&mut listening), [ready(there, true, false)]);
        listening.set_interest(there, true, true).unwrap();
        assert_eq!(polled(&mut listening), [ready(there, true, true)]);
        listening.set_interest(there, false, false).unwrap();
        assert_eq!(polled(&mut listening), []);
        let until = client.now() + Duration::from_secs(5);
        world.run(&client, async {
            net.park(Some(until), &mut |_| false).await.unwrap()
        });
        assert!(
            client.now() >= until,
            "nothing was ready, so the deadline ended the pause"
        );
        world.run(&client, async {
            net.park(None, &mut |_| true).await.unwrap()
        });
    }
}
