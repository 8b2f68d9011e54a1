//! Sockets of one core: an epoll set, parked inside the core's io_uring reactor.
//!
//! ```text
//! token  = generation << 32 | slot      (listeners: LISTENER, all the same; the alarm of doze.rs: ALARM; the ring of
//!                                        durable.rs: RING)
//! poll   = epoll_wait(set, 256, 0 ms)   never sleeps
//! park   = a doze (doze.rs) first; if it brings nothing:
//!          POLL_ADD on a dup of the set's own descriptor, in glommio's ring; sleeps until it is readable
//! ```
//!
//! To the caller readiness is a level: what it has not read is reported again. To the kernel it is an edge, for
//! connections that only read (all of them, mostly): a level is looked at once more after every read, at the next
//! `epoll_wait`, a tenth of that call's cost per connection. A read that came back short has emptied the socket
//! (epoll(7)), unless the end of the stream lies behind the bytes, which the event has told; until then the
//! connection is `pending` and reported by `poll` itself.
//!
//! Invariants: a descriptor is closed when its slot is freed, and the generation moves on, so a stale token
//! finds nothing. A connection with no interest is taken out of the set (epoll reports errors and hang-ups
//! regardless of interest, and a caller that is not interested would spin on them).

#![expect(unsafe_code, reason = "epoll, accept4 and dup have no safe wrapper")]

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use glommio::timer::Timer;
use socket2::{SockAddr, Socket};

use super::doze::{AWAKE_MAX, Alarm, Dozed, doze};
use super::tcp::{accept_one, has_met_itself, listener, stream_socket};
use super::turn;
use super::waiting::{Waiting, duplicate, wait};
use super::{Core, preflight, until};
use crate::base::time::Instant;
use crate::rt::net::{Event, Token};

/// Events of one `poll`, so that one core's sockets cannot keep its other tasks waiting.
const EVENTS_MAX: usize = 256;
/// Kept free of connections out of RLIMIT_NOFILE, but at most a quarter of it.
const DESCRIPTORS_FOR_FILES_MAX: u64 = 256;
const LISTENER: u64 = u64::MAX;
const ALARM: u64 = u64::MAX - 1;
const RING: u64 = u64::MAX - 2;
pub(super) const READABLE: u32 = libc::EPOLLIN as u32;
const WRITABLE: u32 = libc::EPOLLOUT as u32;
/// Interest in reading alone: an edge, with the end of the stream told apart.
const READ_EDGE: u32 = READABLE | (libc::EPOLLRDHUP | libc::EPOLLPRI) as u32 | libc::EPOLLET as u32;
const ENDED: u32 = libc::EPOLLRDHUP as u32 | BROKEN;
/// Urgent data: a read stops before it, whatever is behind.
const URGENT: u32 = libc::EPOLLPRI as u32;
const BROKEN: u32 = (libc::EPOLLERR | libc::EPOLLHUP) as u32;

pub(in crate::rt) struct Net {
    core: Core,
    set: OwnedFd,
    listeners: Vec<Socket>,
    /// The listener asked first at the next `accept`.
    turn: usize,
    slots: Vec<Slot>,
    free: Vec<u32>,
    happened: Vec<libc::epoll_event>,
    /// A doze has brought `happened`; the next `poll` need not ask.
    fetched: bool,
    alarm: Arc<Alarm>,
    /// The alarm as a waker; `None`: this kernel cannot doze.
    waker: Option<Waker>,
    /// Connections whose edge the last `poll` has told; those still pending are told again.
    reported: Vec<Token>,
    waiting: Option<Waiting>,
    /// The ring of durable writes is in the set.
    watches_ring: bool,
    /// Descriptors from here on are for files and for waiting, not for clients.
    descriptors_high: RawFd,
    /// Of the youngest connection. The kernel hands out the lowest free one, so it tells how many are in use.
    newest: RawFd,
}

/// A socket between two cores: in no set.
pub(in crate::rt) struct Detached(TcpStream);

#[derive(Default)]
struct Slot {
    generation: u32,
    socket: Option<TcpStream>,
    /// As registered in the set; 0: not in the set.
    interest: u32,
    /// The edge has been told, and no read has found the socket empty since.
    pending: bool,
    /// The peer has sent its last, or something urgent: only a read of nothing, or an error, empties the socket.
    stops_short: bool,
}

impl Net {
    pub(super) fn new(core: Core, listen: &[SocketAddr]) -> io::Result<Net> {
        // SAFETY: no pointers; a fresh descriptor is returned or -1.
        let set = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if set < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just created, owned by nobody else.
        let set = unsafe { OwnedFd::from_raw_fd(set) };
        let listeners = listen
            .iter()
            .map(|addr| {
                listener(*addr).map_err(|error| {
                    io::Error::new(error.kind(), format!("listen {addr}: {error}"))
                })
            })
            .collect::<io::Result<Vec<_>>>()?;
        let alarm = Arc::new(Alarm::new()?);
        let edge = READABLE | libc::EPOLLET as u32;
        let (own, descriptor) = (set.as_raw_fd(), alarm.descriptor());
        watch(own, libc::EPOLL_CTL_ADD, descriptor, edge, ALARM)?;
        let mut net = Net {
            core,
            fetched: false,
            waker: Some(Waker::from(Arc::clone(&alarm))),
            alarm,
            set,
            listeners,
            turn: 0,
            slots: Vec::new(),
            free: Vec::new(),
            happened: Vec::with_capacity(EVENTS_MAX),
            reported: Vec::new(),
            waiting: None,
            watches_ring: false,
            descriptors_high: descriptors_high(),
            newest: 0,
        };
        net.watch_listeners(libc::EPOLL_CTL_ADD, true)?;
        if let Some(ring) = net.core.ring() {
            watch(own, libc::EPOLL_CTL_ADD, ring.descriptor(), READABLE, RING)?;
            ring.watch();
            net.watches_ring = true;
        }
        net.core.pulse().serve();
        Ok(net)
    }

    pub(in crate::rt) fn poll(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        if !std::mem::take(&mut self.fetched) {
            self.fetch()?;
        }
        if let Some(ring) = self.core.ring() {
            ring.attend(true);
            ring.reap();
        }
        let slots = &self.slots;
        self.reported.retain(|token| is_pending(slots, *token));
        events.extend(self.reported.iter().map(|&token| Event::Ready {
            token,
            readable: true,
            writable: false,
        }));
        let mut accept = false;
        for happened in &self.happened {
            // Copied out: the struct is packed.
            let (token, flags) = (happened.u64, happened.events);
            if token == LISTENER {
                accept = true;
                continue;
            }
            // Rung as the doze ended anyway; reaped above.
            if token == ALARM || token == RING {
                continue;
            }
            if let Some(slot) = occupied(&mut self.slots, Token(token))
                && slot.interest == READ_EDGE
            {
                slot.stops_short |= flags & (ENDED | URGENT) != 0;
                if std::mem::replace(&mut slot.pending, true) {
                    // Told above.
                    continue;
                }
                self.reported.push(Token(token));
            }
            events.push(Event::Ready {
                token: Token(token),
                readable: flags & (READABLE | BROKEN) != 0,
                writable: flags & (WRITABLE | BROKEN) != 0,
            });
        }
        if accept {
            events.push(Event::Accept);
        }
        Ok(())
    }

    fn fetch(&mut self) -> io::Result<()> {
        self.happened.clear();
        // SAFETY: `happened` has room for EVENTS_MAX entries; the kernel writes at most that many.
        let count = unsafe {
            libc::epoll_wait(
                self.set.as_raw_fd(),
                self.happened.as_mut_ptr(),
                EVENTS_MAX as i32,
                0,
            )
        };
        if count < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::Interrupted => Ok(()),
                _ => Err(error),
            };
        }
        // SAFETY: the kernel filled the first `count` entries, which is not negative and within capacity.
        unsafe { self.happened.set_len(count as usize) };
        Ok(())
    }

    pub(in crate::rt) fn accept(&mut self) -> io::Result<Option<(Token, SocketAddr)>> {
        if self.is_short_of_descriptors() {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let mut empty = 0;
        while empty < self.listeners.len() {
            self.turn %= self.listeners.len();
            match accept_one(self.listeners[self.turn].as_raw_fd()) {
                Ok((socket, addr)) => {
                    self.newest = socket.as_raw_fd();
                    let token = self.insert(socket, READ_EDGE)?;
                    return Ok(Some((token, addr)));
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                        return Err(error);
                    }
                    Some(libc::EAGAIN) => {
                        empty += 1;
                        self.turn += 1;
                    }
                    // The client is already gone, or its network is (accept(2): "treat like EAGAIN by retrying").
                    Some(
                        libc::EINTR
                        | libc::ECONNABORTED
                        | libc::EPROTO
                        | libc::EPERM
                        | libc::ENETDOWN
                        | libc::ENETUNREACH
                        | libc::EHOSTDOWN
                        | libc::EHOSTUNREACH
                        | libc::ENOPROTOOPT
                        | libc::ENONET
                        | libc::EOPNOTSUPP,
                    ) => {}
                    _ => return Err(error),
                },
            }
        }
        Ok(None)
    }

    /// Whether one more connection would take what files need: a flood of clients must not make a flush fail.
    /// Asks the kernel only once the newest connection says that it may be so.
    fn is_short_of_descriptors(&mut self) -> bool {
        if self.newest >= self.descriptors_high {
            self.newest =
                duplicate(self.set.as_raw_fd()).map_or(RawFd::MAX, |free| free.as_raw_fd());
        }
        self.newest >= self.descriptors_high
    }

    pub(in crate::rt) fn set_accepting(&mut self, on: bool) -> io::Result<()> {
        self.watch_listeners(libc::EPOLL_CTL_MOD, on)
    }

    pub(in crate::rt) fn stop_listening(&mut self) {
        self.listeners.clear();
    }

    pub(in crate::rt) fn connect(&mut self, to: SocketAddr) -> io::Result<Token> {
        let socket = stream_socket(to)?;
        match socket.connect(&SockAddr::from(to)) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        if has_met_itself(&socket, to) {
            // No TIME_WAIT: the port belongs to the peer that is to come back.
            socket.set_linger(Some(Duration::ZERO))?;
            return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
        }
        self.insert(TcpStream::from(OwnedFd::from(socket)), WRITABLE)
    }

    pub(in crate::rt) fn read(&mut self, token: Token, buf: &mut [u8]) -> io::Result<usize> {
        let slot = self.slot(token).ok_or(io::ErrorKind::NotConnected)?;
        let mut socket = slot.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let read = again_if_interrupted(|| socket.read(buf));
        match &read {
            Ok(read) if *read < buf.len() && !slot.stops_short => slot.pending = false,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => slot.pending = false,
            _ => {}
        }
        read
    }

    /// std sends with MSG_NOSIGNAL: a vanished peer is an error, not a signal.
    pub(in crate::rt) fn write(&mut self, token: Token, bytes: &[u8]) -> io::Result<usize> {
        let mut socket = self.socket(token)?;
        again_if_interrupted(|| socket.write(bytes))
    }

    pub(in crate::rt) fn set_interest(
        &mut self,
        token: Token,
        readable: bool,
        writable: bool,
    ) -> io::Result<()> {
        let set = self.set.as_raw_fd();
        let slot = self.slot(token).ok_or(io::ErrorKind::NotConnected)?;
        let interest = match (readable, writable) {
            (true, false) => READ_EDGE,
            (true, true) => READABLE | WRITABLE,
            (false, true) => WRITABLE,
            (false, false) => 0,
        };
        let change = match (slot.interest, interest) {
            (old, new) if old == new => return Ok(()),
            (0, _) => libc::EPOLL_CTL_ADD,
            (_, 0) => libc::EPOLL_CTL_DEL,
            _ => libc::EPOLL_CTL_MOD,
        };
        let socket = slot
            .socket
            .as_ref()
            .expect("a slot with a valid token is occupied");
        watch(set, change, socket.as_raw_fd(), interest, token.0)?;
        slot.interest = interest;
        // The kernel has looked at the socket again: what is there will be told.
        slot.pending = false;
        Ok(())
    }

    pub(in crate::rt) fn shutdown_write(&mut self, token: Token) {
        if let Ok(socket) = self.socket(token) {
            // Fails only when the peer is gone already, which the next read reports.
            socket.shutdown(Shutdown::Write).unwrap_or_default();
        }
    }

    pub(in crate::rt) fn detach(&mut self, token: Token) -> io::Result<Detached> {
        self.set_interest(token, false, false)?;
        let socket = self.vacate(token).ok_or(io::ErrorKind::NotConnected)?;
        Ok(Detached(socket))
    }

    pub(in crate::rt) fn adopt(&mut self, connection: Detached) -> io::Result<Token> {
        self.insert(connection.0, READ_EDGE)
    }

    pub(in crate::rt) fn close(&mut self, token: Token) {
        // Closing the only descriptor of a socket takes it out of the set.
        drop(self.vacate(token));
    }

    /// Frees the slot: the token is stale from now on.
    fn vacate(&mut self, token: Token) -> Option<TcpStream> {
        let slot = self.slot(token)?;
        let socket = slot.socket.take();
        *slot = Slot {
            generation: slot.generation.wrapping_add(1),
            ..Slot::default()
        };
        self.free.push(token.0 as u32);
        socket
    }

    pub(in crate::rt) async fn park(
        &mut self,
        till: Option<Instant>,
        ready: &mut dyn FnMut(&mut Context<'_>) -> bool,
    ) -> io::Result<()> {
        let pending = |token: &Token| is_pending(&self.slots, *token);
        if self.fetched || self.reported.iter().any(pending) {
            return Ok(());
        }
        loop {
            // Who is ready runs first; and what it asks of the disk must be on its way before anybody sleeps.
            turn::settle().await;
            if self.core.is_overdue() {
                self.core.turn_reactor().await;
            }
            let ring = self.core.ring();
            ring.inspect(|ring| ring.submit());
            if turn::is_awaited() || ring.is_some_and(|ring| ring.is_queued()) {
                self.core.turn_reactor().await;
            }
            if ring.is_some_and(|ring| ring.is_queued()) {
                return Ok(());
            }
            if turn::is_awaited() || turn::is_under_way() {
                // Of the end of such an operation glommio's rings tell the executor alone.
                break;
            }
            match self.doze(till, ready) {
                Dozed::Events(_) => return Ok(()),
                Dozed::Interrupted => self.core.turn_reactor().await,
                Dozed::Rung => {}
                Dozed::Over => break,
                Dozed::Unable => {
                    self.waker = None;
                    break;
                }
            }
        }
        turn::begin();
        let set = self.set.as_raw_fd();
        let waiting = &mut self.waiting;
        let timer = till.map(|till| Timer::new(until(&self.core, till)));
        let _parked = self.core.pulse().park();
        self.core.ring().inspect(|ring| ring.attend(false));
        let turned = wait(set, waiting, timer, ready).await;
        self.core.ring().inspect(|ring| ring.attend(true));
        match turned {
            true => self.core.note_turn(),
            // Or deadlines close to each other could keep the reactor waiting for ever.
            false => self.core.turn_reactor().await,
        }
        Ok(())
    }

    fn doze(
        &mut self,
        till: Option<Instant>,
        ready: &mut dyn FnMut(&mut Context<'_>) -> bool,
    ) -> Dozed {
        let Some(waker) = &self.waker else {
            return Dozed::Unable;
        };
        let longest = turn::interval_max();
        let pause = till.map_or(longest, |till| until(&self.core, till).min(longest));
        self.alarm.set(true);
        let dozed = if ready(&mut Context::from_waker(waker)) {
            Dozed::Events(0)
        } else {
            self.happened.clear();
            let awake = match self.core.ring() {
                Some(ring) if ring.is_lone() => pause.min(AWAKE_MAX),
                _ => Duration::ZERO,
            };
            let room = &mut self.happened.spare_capacity_mut()[..EVENTS_MAX];
            doze(self.set.as_raw_fd(), room, awake, pause - awake)
        };
        self.alarm.set(false);
        let ended = self.core.ring().is_some_and(|ring| ring.reap());
        if let Dozed::Events(count @ 1..) = dozed {
            // SAFETY: the kernel filled the first `count` entries, which is within the capacity it was told.
            unsafe { self.happened.set_len(count) };
            self.happened
                .retain(|happened| !matches!(happened.u64, ALARM | RING));
            self.fetched = !self.happened.is_empty();
            if !self.fetched {
                return Dozed::Rung;
            }
        }
        match dozed {
            // By the end of a write, which the kernel finishes on this thread.
            Dozed::Interrupted | Dozed::Over if ended => Dozed::Rung,
            dozed => dozed,
        }
    }

    fn insert(&mut self, socket: TcpStream, interest: u32) -> io::Result<Token> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("descriptors are ints")
        });
        let slot = &mut self.slots[index as usize];
        let token = Token(u64::from(slot.generation) << 32 | u64::from(index));
        if let Err(error) = watch(
            self.set.as_raw_fd(),
            libc::EPOLL_CTL_ADD,
            socket.as_raw_fd(),
            interest,
            token.0,
        ) {
            self.free.push(index);
            return Err(error);
        }
        slot.socket = Some(socket);
        slot.interest = interest;
        Ok(token)
    }

    fn slot(&mut self, token: Token) -> Option<&mut Slot> {
        occupied(&mut self.slots, token)
    }

    fn socket(&mut self, token: Token) -> io::Result<&TcpStream> {
        self.slot(token)
            .and_then(|slot| slot.socket.as_ref())
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn watch_listeners(&mut self, change: i32, on: bool) -> io::Result<()> {
        for listener in &self.listeners {
            let interest = if on { READABLE } else { 0 };
            watch(
                self.set.as_raw_fd(),
                change,
                listener.as_raw_fd(),
                interest,
                LISTENER,
            )?;
        }
        Ok(())
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if self.watches_ring
            && let Some(ring) = self.core.ring()
        {
            ring.unwatch();
        }
    }
}

fn occupied(slots: &mut [Slot], token: Token) -> Option<&mut Slot> {
    let slot = slots.get_mut((token.0 & 0xffff_ffff) as usize)?;
    let current = u64::from(slot.generation) == token.0 >> 32 && slot.socket.is_some();
    current.then_some(slot)
}

/// Whether the connection is to be told of again.
fn is_pending(slots: &[Slot], token: Token) -> bool {
    let slot = slots.get((token.0 & 0xffff_ffff) as usize);
    slot.is_some_and(|slot| slot.pending && u64::from(slot.generation) == token.0 >> 32)
}

fn descriptors_high() -> RawFd {
    let all = preflight::limit(libc::RLIMIT_NOFILE).rlim_cur;
    let files = (all / 4).min(DESCRIPTORS_FOR_FILES_MAX);
    RawFd::try_from(all - files).unwrap_or(RawFd::MAX)
}

pub(super) fn watch(
    set: RawFd,
    change: i32,
    fd: RawFd,
    interest: u32,
    token: u64,
) -> io::Result<()> {
    let mut event = libc::epoll_event {
        events: interest,
        u64: token,
    };
    // SAFETY: `event` lives across the call; bad descriptors are reported, not undefined.
    match unsafe { libc::epoll_ctl(set, change, fd, &raw mut event) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn again_if_interrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
