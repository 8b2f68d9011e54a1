//! Client sockets of one thread: non-blocking, in one edge-triggered epoll set.
//!
//! A socket enters the set once, for reading and writing, and stays: no system call per change of interest. So whoever
//! is told "readable" must read until nothing is left, and whoever could not write all is told when there is room again.
//! A read that fills less than the buffer leaves nothing either, unless the event says that the peer has ended: bytes and
//! end may come as one event, and no other would tell of the end.

#![expect(unsafe_code, reason = "epoll has no safe wrapper")]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

const EVENTS_MAX: usize = 256;

/// What may be done with one socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The caller's number for it.
    pub socket: usize,
    /// Bytes, the end or an error can be read.
    pub readable: bool,
    /// The peer sends nothing more: read on until that is seen.
    pub ended: bool,
    pub writable: bool,
}

/// The sockets of one thread, named by small numbers of the caller's choice.
pub struct Sockets {
    set: OwnedFd,
    slots: Vec<Slot>,
    happened: Vec<libc::epoll_event>,
    /// Kernels before 5.11 wait in milliseconds.
    coarse: bool,
}

#[derive(Default)]
struct Slot {
    /// Tells the events of this socket from those of the one before it.
    generation: u32,
    socket: Option<TcpStream>,
}

impl Sockets {
    pub fn new() -> io::Result<Sockets> {
        // SAFETY: no pointers; a fresh descriptor is returned or -1.
        let set = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if set < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Sockets {
            // SAFETY: just created, owned by nobody else.
            set: unsafe { OwnedFd::from_raw_fd(set) },
            slots: Vec::new(),
            happened: Vec::with_capacity(EVENTS_MAX),
            coarse: false,
        })
    }

    /// Begins to connect socket `number`, which is closed before if it was open. It is writable when it is open; then,
    /// or when a read or write fails, the caller knows how it went.
    pub fn open(&mut self, number: usize, to: SocketAddr) -> io::Result<()> {
        self.close(number);
        let socket = Socket::new(
            Domain::for_address(to),
            Type::STREAM.nonblocking().cloexec(),
            Some(Protocol::TCP),
        )?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&SockAddr::from(to)) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        if self.slots.len() <= number {
            self.slots.resize_with(number + 1, Slot::default);
        }
        let slot = &mut self.slots[number];
        let interest = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        let mut event = libc::epoll_event {
            events: interest as u32,
            u64: u64::from(slot.generation) << 32 | number as u64,
        };
        // SAFETY: both descriptors are open; the kernel copies the event during the call.
        let outcome = unsafe {
            libc::epoll_ctl(
                self.set.as_raw_fd(),
                libc::EPOLL_CTL_ADD,
                socket.as_raw_fd(),
                &raw mut event,
            )
        };
        if outcome != 0 {
            return Err(io::Error::last_os_error());
        }
        slot.socket = Some(TcpStream::from(OwnedFd::from(socket)));
        Ok(())
    }

    /// Closing takes it out of the set; events on their way are forgotten.
    pub fn close(&mut self, number: usize) {
        if let Some(slot) = self.slots.get_mut(number) {
            slot.socket = None;
            slot.generation = slot.generation.wrapping_add(1);
        }
    }

    /// Why a connection could not be opened or broke, if the kernel knows.
    pub fn error(&self, number: usize) -> Option<io::Error> {
        self.socket(number).ok()?.take_error().ok().flatten()
    }

    /// Bytes read; 0 at the end of the stream.
    pub fn read(&mut self, number: usize, buf: &mut [u8]) -> io::Result<usize> {
        self.socket(number)?.read(buf)
    }

    pub fn write(&mut self, number: usize, bytes: &[u8]) -> io::Result<usize> {
        self.socket(number)?.write(bytes)
    }

    fn socket(&self, number: usize) -> io::Result<&TcpStream> {
        let slot = self.slots.get(number);
        let socket = slot.and_then(|slot| slot.socket.as_ref());
        Ok(socket.ok_or(io::ErrorKind::NotConnected)?)
    }

    /// Appends what has become ready, after `at_most` or sooner.
    pub fn wait(&mut self, at_most: Duration, ready: &mut Vec<Ready>) -> io::Result<()> {
        let count = match self.wait_for_events(at_most) {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                self.coarse = true;
                self.wait_for_events(at_most)?
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            outcome => outcome?,
        };
        // SAFETY: the kernel filled the first `count` entries, which is within the capacity.
        unsafe { self.happened.set_len(count) };
        for happened in &self.happened {
            // Copied out: the struct is packed.
            let (token, flags) = (happened.u64, happened.events as i32);
            let number = (token & u64::from(u32::MAX)) as usize;
            let current = self.slots.get(number);
            if current.is_none_or(|slot| u64::from(slot.generation) != token >> 32) {
                continue;
            }
            let broken = libc::EPOLLERR | libc::EPOLLHUP;
            ready.push(Ready {
                socket: number,
                readable: flags & (libc::EPOLLIN | libc::EPOLLRDHUP | broken) != 0,
                ended: flags & (libc::EPOLLRDHUP | broken) != 0,
                writable: flags & (libc::EPOLLOUT | broken) != 0,
            });
        }
        Ok(())
    }

    fn wait_for_events(&mut self, at_most: Duration) -> io::Result<usize> {
        let set = self.set.as_raw_fd();
        let (events, room) = (self.happened.as_mut_ptr(), EVENTS_MAX as i32);
        let count = if self.coarse {
            let millis = i32::try_from(at_most.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
            // SAFETY: `events` has room for EVENTS_MAX entries.
            i64::from(unsafe { libc::epoll_wait(set, events, room, millis) })
        } else {
            let at_most = libc::timespec {
                tv_sec: at_most.as_secs() as libc::time_t,
                tv_nsec: at_most.subsec_nanos().into(),
            };
            let no_mask = std::ptr::null::<libc::sigset_t>();
            // SAFETY: `events` has room for EVENTS_MAX entries; the timespec lives through the call; no signal mask.
            unsafe {
                libc::syscall(
                    libc::SYS_epoll_pwait2,
                    set,
                    events,
                    room,
                    &raw const at_most,
                    no_mask,
                    0,
                )
            }
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }
}

/// Whether opening a connection failed for want of something on this machine: descriptors or memory.
#[must_use]
pub fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const LONG: Duration = Duration::from_secs(10);

    fn until(sockets: &mut Sockets, wanted: impl Fn(&Ready) -> bool) -> Ready {
        loop {
            let mut ready = Vec::new();
            sockets.wait(LONG, &mut ready).unwrap();
            assert!(!ready.is_empty(), "nothing for {LONG:?}");
            if let Some(found) = ready.into_iter().find(|ready| wanted(ready)) {
                return found;
            }
        }
    }

    #[test]
    fn opens_writes_reads_and_sees_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sockets = Sockets::new().unwrap();
        sockets.open(3, listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let open = until(&mut sockets, |ready| ready.writable);
        assert_eq!((open.socket, open.readable), (3, false));
        assert_eq!(sockets.write(3, b"ping").unwrap(), 4);
        let mut buf = [0; 16];
        assert_eq!(peer.read(&mut buf).unwrap(), 4);
        peer.write_all(b"pong").unwrap();
        until(&mut sockets, |ready| ready.readable);
        assert_eq!(sockets.read(3, &mut buf).unwrap(), 4);
        peer.write_all(b"bye").unwrap();
        drop(peer);
        until(&mut sockets, |ready| ready.ended);
        assert_eq!(sockets.read(3, &mut buf).unwrap(), 3);
        assert_eq!(sockets.read(3, &mut buf).unwrap(), 0);
        sockets.close(3);
        let gone = sockets.read(3, &mut buf).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotConnected);
    }

    #[test]
    fn a_refusal_is_told_and_a_reopened_socket_is_another() {
        let closed = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let mut sockets = Sockets::new().unwrap();
        sockets.open(0, closed).unwrap();
        until(&mut sockets, |ready| ready.writable);
        let why = sockets.error(0).unwrap();
        assert_eq!(why.kind(), io::ErrorKind::ConnectionRefused);
        sockets.open(0, closed).unwrap();
        sockets.close(0);
        let mut ready = Vec::new();
        sockets.wait(Duration::ZERO, &mut ready).unwrap();
        assert_eq!(ready, [], "a closed socket is silent");
    }

    #[test]
    fn old_kernels_wait_in_milliseconds() {
        let mut sockets = Sockets::new().unwrap();
        sockets.coarse = true;
        sockets
            .wait(Duration::from_micros(10), &mut Vec::new())
            .unwrap();
    }
}
