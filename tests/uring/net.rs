//! Sockets: an echo server as the node would write it, and every way out of `park`.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use kvstore::rt::Rt;
use kvstore::rt::net::{Event, Net, Token};

use crate::{data_dir, free_addr, isolated, on_one_core};

/// Bytes waiting for a slow reader above which the server stops reading.
const HIGH: usize = 256 << 10;

/// Echoes on all connections until `served` of them have ended.
async fn echo(rt: &Rt, net: &mut Net, served: usize) {
    let mut pending: BTreeMap<Token, (Vec<u8>, bool)> = BTreeMap::new();
    let mut buf = vec![0; 64 << 10];
    let (mut events, mut ended) = (Vec::new(), 0);
    while ended < served {
        net.poll(&mut events).expect("poll");
        if events.is_empty() {
            net.park(None, &mut |_| false).await.expect("park");
            continue;
        }
        for event in events.drain(..) {
            match event {
                Event::Accept => {
                    while let Some((token, peer)) = net.accept().expect("accept") {
                        assert!(peer.ip().is_loopback());
                        pending.insert(token, (Vec::new(), false));
                    }
                }
                Event::Ready { token, .. } => {
                    let Some((out, eof)) = pending.get_mut(&token) else {
                        panic!("an event for a connection that was closed");
                    };
                    while !*eof && out.len() < HIGH {
                        match net.read(token, &mut buf) {
                            Ok(0) => *eof = true,
                            Ok(count) => out.extend_from_slice(&buf[..count]),
                            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                            Err(error) => panic!("{error}"),
                        }
                    }
                    while !out.is_empty() {
                        match net.write(token, out) {
                            Ok(count) => drop(out.drain(..count)),
                            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                            Err(error) => panic!("{error}"),
                        }
                    }
                    if *eof && out.is_empty() {
                        pending.remove(&token);
                        net.close(token);
                        ended += 1;
                    } else {
                        let (readable, writable) = (!*eof && out.len() < HIGH, !out.is_empty());
                        net.set_interest(token, readable, writable)
                            .expect("interest");
                    }
                }
            }
        }
        rt.yield_now().await;
    }
}

#[test]
fn echo_of_64_connections_with_a_mebibyte_each() {
    isolated("net::echo_of_64_connections_with_a_mebibyte_each", || {
        const CONNECTIONS: usize = 64;
        const BYTES: usize = 1 << 20;
        let dir = data_dir();
        on_one_core(dir.path(), |rt, _| async move {
            let addr = free_addr();
            let mut net = rt.net(&[addr]).expect("listen");
            let clients: Vec<_> = (0..CONNECTIONS)
                .map(|client| {
                    thread::spawn(move || {
                        let sent: Vec<u8> = (0..BYTES).map(|at| (at * 7 + client) as u8).collect();
                        let mut reading = TcpStream::connect(addr).expect("connect");
                        let mut writing = reading.try_clone().expect("dup");
                        let expected = sent.clone();
                        let writer = thread::spawn(move || {
                            writing.write_all(&sent).expect("send");
                            writing.shutdown(std::net::Shutdown::Write).expect("fin");
                        });
                        let mut got = Vec::new();
                        reading.read_to_end(&mut got).expect("receive");
                        writer.join().expect("writer");
                        assert!(got == expected, "client {client}: {} bytes", got.len());
                    })
                })
                .collect();
            echo(&rt, &mut net, CONNECTIONS).await;
            for client in clients {
                client.join().expect("a client failed");
            }
        });
    });
}

#[test]
fn a_connection_given_to_another_set_of_sockets_goes_on_there() {
    isolated(
        "net::a_connection_given_to_another_set_of_sockets_goes_on_there",
        || {
            let dir = data_dir();
            on_one_core(dir.path(), |rt, _| async move {
                let addr = free_addr();
                let mut old = rt.net(&[addr]).expect("listen");
                let mut new = rt.net(&[]).expect("sockets");
                let mut client = TcpStream::connect(addr).expect("connect");
                client.write_all(b"early").expect("send");
                assert_eq!(next(&mut old).await, [Event::Accept]);
                let (token, _) = old.accept().expect("accept").expect("one waits");
                let moved = old.detach(token).expect("detach");
                assert!(old.read(token, &mut [0]).is_err(), "it is gone here");
                let token = new.adopt(moved).expect("adopt");
                let mut buf = [0; 9];
                next(&mut new).await;
                assert_eq!(new.read(token, &mut buf).expect("read"), 5);
                assert_eq!(new.write(token, b"here").expect("write"), 4);
                client.read_exact(&mut buf[..4]).expect("receive");
                assert_eq!(&buf[..4], b"here");
                drop(new.detach(token).expect("detach"));
                assert_eq!(client.read(&mut buf).expect("end"), 0, "dropped is closed");
            });
        },
    );
}

/// Parks until the listener or a connection has something, and returns what.
async fn next(net: &mut Net) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        net.poll(&mut events).expect("poll");
        if !events.is_empty() {
            return events;
        }
        net.park(None, &mut |_| false).await.expect("park");
    }
}

/// One accepted connection and its client.
async fn pair(net: &mut Net, addr: SocketAddr) -> (Token, TcpStream) {
    let client = TcpStream::connect(addr).expect("connect");
    assert_eq!(next(net).await, [Event::Accept]);
    let (token, peer) = net.accept().expect("accept").expect("one waits");
    assert_eq!(peer, client.local_addr().expect("connected"));
    assert_eq!(net.accept().expect("accept"), None);
    (token, client)
}

#[test]
fn park_ends_by_socket_timer_and_waker() {
    isolated("net::park_ends_by_socket_timer_and_waker", || {
        let dir = data_dir();
        on_one_core(dir.path(), |rt, _| async move {
            let addr = free_addr();
            let mut net = rt.net(&[addr]).expect("listen");
            let (token, mut client) = pair(&mut net, addr).await;
            for round in 0..50 {
                // By the timer, with a wait on the sockets left armed; and nothing else ends it.
                let till = rt.now() + Duration::from_millis(1);
                net.park(Some(till), &mut |_| false).await.expect("park");
                assert!(
                    rt.now() >= till,
                    "round {round}: nothing but the timer was due"
                );

                // The armed wait completes while this core is busy, and is old news when it parks again.
                client.write_all(b"x").expect("send");
                let readable = Event::Ready {
                    token,
                    readable: true,
                    writable: false,
                };
                assert_eq!(next(&mut net).await, [readable]);
                rt.sleep(Duration::from_micros(100)).await;
                assert_eq!(net.read(token, &mut [0; 8]).expect("read"), 1);
                let till = rt.now() + Duration::from_millis(1);
                net.park(Some(till), &mut |_| false).await.expect("park");
                assert!(
                    rt.now() >= till,
                    "round {round}: the event had been dealt with"
                );

                // By another thread, through whatever `ready` looks at.
                let stop = kvstore::rt::stop::Stop::default();
                let raiser = {
                    let stop = stop.clone();
                    thread::spawn(move || stop.raise())
                };
                net.park(None, &mut |cx| stop.poll_raised(cx).is_ready())
                    .await
                    .expect("park");
                assert!(stop.is_raised());
                raiser.join().expect("raise");

                // By a time already past, and by a condition already true: at once.
                net.park(Some(rt.now()), &mut |_| false)
                    .await
                    .expect("park");
                net.park(None, &mut |_| true).await.expect("park");
                rt.yield_now().await;
            }
        });
    });
}

#[test]
fn every_event_ends_the_park_it_comes_in() {
    isolated("net::every_event_ends_the_park_it_comes_in", || {
        const ROUNDS: usize = 2000;
        let dir = data_dir();
        on_one_core(dir.path(), |rt, _| async move {
            let addr = free_addr();
            let mut net = rt.net(&[addr]).expect("listen");
            let (token, mut client) = pair(&mut net, addr).await;
            // Ping-pong: one lost event and both sides wait for ever (the test then never ends).
            let other = thread::spawn(move || {
                for _ in 0..ROUNDS {
                    client.write_all(b"p").expect("ping");
                    client.read_exact(&mut [0]).expect("pong");
                }
                client
            });
            for _ in 0..ROUNDS {
                assert_eq!(
                    next(&mut net).await,
                    [Event::Ready {
                        token,
                        readable: true,
                        writable: false
                    }]
                );
                assert_eq!(net.read(token, &mut [0; 8]).expect("read"), 1);
                assert_eq!(net.write(token, b"p").expect("write"), 1);
                rt.yield_now().await;
            }
            other.join().expect("client");
        });
    });
}

/// A read stops at what was sent as urgent, and the edge for all of it has been told by then.
#[test]
fn what_is_behind_urgent_data_is_told_too() {
    isolated("net::what_is_behind_urgent_data_is_told_too", || {
        let dir = data_dir();
        on_one_core(dir.path(), |rt, _| async move {
            let addr = free_addr();
            let mut net = rt.net(&[addr]).expect("listen");
            let (token, mut client) = pair(&mut net, addr).await;
            for round in 0..3 {
                client.write_all(b"before").expect("send");
                send_urgent(&client);
                client.write_all(b"behind").expect("send");
                let (mut buf, mut got) = ([0; 64], Vec::new());
                while !got.ends_with(b"behind") {
                    for event in next(&mut net).await {
                        assert!(matches!(event, Event::Ready { token: of, .. } if of == token));
                        // Once for each event, as the node does.
                        if let Ok(count) = net.read(token, &mut buf) {
                            got.extend_from_slice(&buf[..count]);
                        }
                    }
                }
                assert_eq!(got, b"beforebehind", "round {round}");
            }
        });
    });
}

#[expect(unsafe_code, reason = "send with a flag has no safe wrapper")]
fn send_urgent(socket: &TcpStream) {
    // SAFETY: one byte of a live value, to a socket that is open.
    let sent = unsafe { libc::send(socket.as_raw_fd(), b"!".as_ptr().cast(), 1, libc::MSG_OOB) };
    assert_eq!(sent, 1);
}

#[test]
fn what_is_not_read_is_told_again() {
    isolated("net::what_is_not_read_is_told_again", || {
        let dir = data_dir();
        on_one_core(dir.path(), |rt, _| async move {
            let addr = free_addr();
            let mut net = rt.net(&[addr]).expect("listen");
            let (token, mut client) = pair(&mut net, addr).await;
            let readable = [Event::Ready {
                token,
                readable: true,
                writable: false,
            }];
            client.write_all(b"0123456789").expect("send");
            assert_eq!(next(&mut net).await, readable);
            assert_eq!(next(&mut net).await, readable, "nothing was read");
            assert_eq!(net.read(token, &mut [0; 4]).expect("some"), 4);
            assert_eq!(next(&mut net).await, readable, "six are left");
            assert_eq!(net.read(token, &mut [0; 6]).expect("the rest"), 6);
            assert_eq!(next(&mut net).await, readable, "nobody knows that it was");
            let error = net.read(token, &mut [0; 6]).expect_err("empty");
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            let mut events = Vec::new();
            net.poll(&mut events).expect("poll");
            assert_eq!(events, [], "known to be empty");

            // The end of the stream comes with the last bytes, as one event.
            client.write_all(b"last").expect("send");
            drop(client);
            rt.sleep(Duration::from_millis(1)).await;
            assert_eq!(next(&mut net).await, readable);
            assert_eq!(net.read(token, &mut [0; 64]).expect("short"), 4);
            assert_eq!(next(&mut net).await, readable, "and the end behind it");
            assert_eq!(net.read(token, &mut [0; 64]).expect("the end"), 0);
        });
    });
}

#[test]
fn interest_decides_what_is_reported() {
    isolated("net::interest_decides_what_is_reported", || {
        let dir = data_dir();
        on_one_core(dir.path(), |rt, _| async move {
            let addr = free_addr();
            let mut net = rt.net(&[addr]).expect("listen");
            let (token, mut client) = pair(&mut net, addr).await;
            let mut events = Vec::new();
            client.write_all(b"hello").expect("send");
            assert_eq!(next(&mut net).await.len(), 1);

            net.set_interest(token, false, false).expect("off");
            net.poll(&mut events).expect("poll");
            assert_eq!(events, []);
            net.set_interest(token, false, true).expect("writable");
            net.poll(&mut events).expect("poll");
            assert_eq!(
                events.pop(),
                Some(Event::Ready {
                    token,
                    readable: false,
                    writable: true
                })
            );
            net.set_interest(token, true, true).expect("both");
            net.poll(&mut events).expect("poll");
            assert_eq!(
                events.pop(),
                Some(Event::Ready {
                    token,
                    readable: true,
                    writable: true
                })
            );

            // A broken connection makes no noise while nobody is interested.
            net.set_interest(token, false, false).expect("off");
            client.set_linger_zero();
            drop(client);
            rt.sleep(Duration::from_millis(1)).await;
            net.poll(&mut events).expect("poll");
            assert_eq!(events, []);
            net.set_interest(token, true, false).expect("on");
            assert_eq!(
                next(&mut net).await,
                [Event::Ready {
                    token,
                    readable: true,
                    writable: true
                }],
                "both, so that whichever the caller tries next reports the error"
            );
            assert_eq!(net.read(token, &mut [0; 8]).expect("sent before"), 5);
            let error = net.read(token, &mut [0; 8]).expect_err("reset");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        });
    });
}

/// Makes the next close a reset.
trait LingerZero {
    fn set_linger_zero(&self);
}

impl LingerZero for TcpStream {
    fn set_linger_zero(&self) {
        socket2::SockRef::from(self)
            .set_linger(Some(Duration::ZERO))
            .expect("a TCP socket");
    }
}

#[test]
fn stale_tokens_find_nothing() {
    isolated("net::stale_tokens_find_nothing", || {
        let dir = data_dir();
        on_one_core(dir.path(), |rt, _| async move {
            let addr = free_addr();
            let mut net = rt.net(&[addr]).expect("listen");
            let (first, mut old_client) = pair(&mut net, addr).await;
            net.close(first);
            net.close(first);
            assert_eq!(old_client.read(&mut [0]).expect("end of stream"), 0);
            let (second, mut client) = pair(&mut net, addr).await;
            assert_ne!(first, second);
            net.close(first);
            net.shutdown_write(first);
            for error in [
                net.read(first, &mut [0]).expect_err("stale"),
                net.write(first, b"x").expect_err("stale"),
                net.set_interest(first, true, true).expect_err("stale"),
                net.read(Token(u64::MAX), &mut [0])
                    .expect_err("never given out"),
            ] {
                assert_eq!(error.kind(), ErrorKind::NotConnected);
            }
            assert_eq!(net.write(second, b"y").expect("alive"), 1);
            net.shutdown_write(second);
            let mut all = Vec::new();
            client.read_to_end(&mut all).expect("receive");
            assert_eq!(all, b"y");
            client.write_all(b"still open this way").expect("send");
            assert_eq!(next(&mut net).await.len(), 1);
            assert_eq!(net.read(second, &mut [0; 5]).expect("read"), 5);
        });
    });
}

#[test]
fn connect_reports_success_and_failure_as_readiness() {
    isolated(
        "net::connect_reports_success_and_failure_as_readiness",
        || {
            let dir = data_dir();
            on_one_core(dir.path(), |rt, _| async move {
                let peer = TcpListener::bind("127.0.0.1:0").expect("listen");
                let mut net = rt.net(&[]).expect("a client only");
                assert_eq!(net.accept().expect("no listener"), None);
                let token = net
                    .connect(peer.local_addr().expect("bound"))
                    .expect("connect");
                let writable = Event::Ready {
                    token,
                    readable: false,
                    writable: true,
                };
                assert_eq!(next(&mut net).await, [writable]);
                assert_eq!(net.write(token, b"hi").expect("write"), 2);
                let (mut accepted, _) = peer.accept().expect("accept");
                let mut two = [0; 2];
                accepted.read_exact(&mut two).expect("receive");
                assert_eq!(&two, b"hi");
                net.close(token);

                // Refused: at once, or at the first use.
                let error = match net.connect(free_addr()) {
                    Err(error) => error,
                    Ok(token) => {
                        assert_eq!(next(&mut net).await.len(), 1);
                        net.write(token, b"x").expect_err("nobody there")
                    }
                };
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            });
        },
    );
}

#[test]
fn accepting_can_be_paused_and_ended() {
    isolated("net::accepting_can_be_paused_and_ended", || {
        let dir = data_dir();
        on_one_core(dir.path(), |rt, _| async move {
            let addr = free_addr();
            let mut net = rt.net(&[addr]).expect("listen");
            net.set_accepting(false).expect("off");
            let waiting = TcpStream::connect(addr).expect("the kernel accepts");
            let mut events = Vec::new();
            net.poll(&mut events).expect("poll");
            assert_eq!(events, []);
            net.set_accepting(true).expect("on");
            assert_eq!(next(&mut net).await, [Event::Accept]);
            assert!(net.accept().expect("accept").is_some());
            net.stop_listening();
            assert_eq!(net.accept().expect("nothing listens"), None);
            let refused = TcpStream::connect(addr).expect_err("closed");
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            drop(waiting);
        });
    });
}

#[test]
fn out_of_descriptors_is_an_error_that_passes() {
    isolated("net::out_of_descriptors_is_an_error_that_passes", || {
        let dir = data_dir();
        on_one_core(dir.path(), |rt, _| async move {
            let addr = free_addr();
            let mut net = rt.net(&[addr]).expect("listen");
            let client = TcpStream::connect(addr).expect("connect");
            assert_eq!(next(&mut net).await, [Event::Accept]);
            let mut hoard = Vec::new();
            while let Ok(file) = std::fs::File::open("/dev/null") {
                hoard.push(file);
            }
            let error = net.accept().expect_err("no descriptor is left");
            assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
            hoard.clear();
            assert!(net.accept().expect("accept").is_some());
            drop(client);
        });
    });
}
