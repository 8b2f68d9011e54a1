//! TCP sockets as the core's set wants them: non-blocking, close-on-exec, without Nagle's delay.

#![expect(unsafe_code, reason = "accept4 has no safe wrapper")]

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

const BACKLOG: i32 = 4096;

pub(super) fn listener(addr: SocketAddr) -> io::Result<Socket> {
    let socket = stream_socket(addr)?;
    if addr.is_ipv6() {
        // The caller lists the IPv4 address beside it, if wanted.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&SockAddr::from(addr))?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Non-blocking, close-on-exec, no Nagle delay; accepted sockets inherit the latter.
pub(super) fn stream_socket(peer: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(peer),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

pub(super) fn accept_one(listener: RawFd) -> io::Result<(TcpStream, SocketAddr)> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: storage and length are the pair socket2 prepared for exactly this; the descriptor returned is
    // owned by nobody else.
    let (socket, addr) = unsafe {
        SockAddr::try_init(|storage, len| {
            let fd = libc::accept4(listener, storage.cast(), len, flags);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(OwnedFd::from_raw_fd(fd))
        })
    }?;
    let addr = addr.as_socket().ok_or(io::ErrorKind::InvalidData)?;
    Ok((TcpStream::from(socket), addr))
}

/// Whether a socket that dials is its own peer. The kernel picks its port, and on loopback may pick the very one that is
/// dialled: where nobody listens, the socket then meets itself (TCP's simultaneous open) and looks connected.
pub(super) fn has_met_itself(socket: &Socket, to: SocketAddr) -> bool {
    let local = socket.local_addr().ok().and_then(|local| local.as_socket());
    local.is_some_and(|local| (local.ip(), local.port()) == (to.ip(), to.port()))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_socket_that_meets_itself_is_told_from_one_that_meets_a_listener() {
        let socket = stream_socket(SocketAddr::from(([127, 0, 0, 1], 1))).expect("a socket");
        let any = SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0)));
        socket.bind(&any).expect("loopback exists");
        let own = socket.local_addr().expect("bound").as_socket();
        let own = own.expect("TCP");
        // What the kernel may do by itself when nobody listens there.
        if let Err(error) = socket.connect(&SockAddr::from(own)) {
            assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS));
        }
        let peer = socket.peer_addr().expect("it looks connected");
        assert_eq!(peer.as_socket(), Some(own));
        assert!(has_met_itself(&socket, own));

        let listener = listener(SocketAddr::from(([127, 0, 0, 1], 0))).expect("loopback exists");
        let there = listener.local_addr().expect("bound").as_socket();
        let there = there.expect("TCP");
        let socket = stream_socket(there).expect("a socket");
        if let Err(error) = socket.connect(&SockAddr::from(there)) {
            assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS));
        }
        assert!(!has_met_itself(&socket, there));
    }

    #[test]
    fn accepted_sockets_inherit_no_delay() {
        let listener = listener(SocketAddr::from(([127, 0, 0, 1], 0))).expect("loopback exists");
        let addr = listener.local_addr().expect("bound").as_socket();
        let client = TcpStream::connect(addr.expect("TCP")).expect("connect");
        let (mut socket, peer) = loop {
            match accept_one(listener.as_raw_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => break done.expect("one waits"),
            }
        };
        assert_eq!(peer, client.local_addr().expect("connected"));
        assert!(socket.nodelay().expect("TCP"));
        let error = socket.read(&mut [0]).expect_err("nothing was sent");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        // SAFETY: asks for the flags of an open descriptor.
        let flags = unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_GETFD) };
        assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    }
}
