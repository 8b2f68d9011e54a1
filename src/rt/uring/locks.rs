//! What one process may hold alone: its port and its data directory. Refusals name the holder.
//!
//! SO_REUSEPORT lets every core listen on one port, and would let a second node share it silently: half of the
//! requests would go astray. So a start first binds without it (a conflict with any listener shows), and holds
//! the abstract unix socket `@kvstore-port-N` for life (two nodes starting at once do not see each other's
//! listeners yet). The kernel drops both holds with the process, however it dies.

#![expect(
    clippy::disallowed_methods,
    reason = "files and /proc are rt's business"
)]

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::error::{Holder, StartError};
use super::{file, preflight};
use crate::base::limits::DISK_PAGE_BYTES;

/// The first bytes every executor reads (see `cores::prove_direct_io`).
pub(super) const PROBE: [u8; DISK_PAGE_BYTES] = [b'k'; DISK_PAGE_BYTES];

/// A holder's command line is shown up to here.
const COMMAND_CHARS_MAX: usize = 200;

/// Holds ports against other processes while it lives.
#[derive(Debug)]
pub struct PortClaim {
    addrs: Vec<SocketAddr>,
    _doors: Vec<UnixDatagram>,
}

impl PortClaim {
    /// The addresses to listen on: those asked for, without IPv6 ones on a machine that has no IPv6.
    #[must_use]
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }
}

/// Makes sure that no other process listens on these addresses, nor will another node. Port 0 cannot be
/// claimed: each core would get its own.
pub fn claim_port(addrs: &[SocketAddr]) -> Result<PortClaim, StartError> {
    let ports: BTreeSet<u16> = addrs.iter().map(SocketAddr::port).collect();
    let doors = ports
        .into_iter()
        .map(hold_door)
        .collect::<Result<Vec<_>, _>>()?;
    let mut usable = Vec::new();
    let mut unsupported = None;
    for &addr in addrs {
        match try_bind(addr) {
            Ok(()) => usable.push(addr),
            Err(why) if lacks_ipv6(addr, &why) => unsupported = Some((addr, why)),
            Err(why) if why.kind() == io::ErrorKind::AddrInUse => {
                return Err(StartError::PortTaken {
                    port: addr.port(),
                    holder: listener_inodes(addr.port())
                        .iter()
                        .find_map(|it| holder(it)),
                });
            }
            Err(why) => return Err(cannot_listen(addr, why)),
        }
    }
    match unsupported {
        Some((addr, why)) if usable.is_empty() => Err(cannot_listen(addr, why)),
        _ => Ok(PortClaim {
            addrs: usable,
            _doors: doors,
        }),
    }
}

fn cannot_listen(addr: SocketAddr, why: io::Error) -> StartError {
    let privileged = why.kind() == io::ErrorKind::PermissionDenied && addr.port() < 1024;
    let addr = addr.to_string();
    if privileged {
        StartError::PortPrivileged { addr, why }
    } else {
        StartError::Address { addr, why }
    }
}

/// A kernel without IPv6 does not know the family; one with IPv6 switched off on `lo` (usual in containers)
/// has no `::1`.
fn lacks_ipv6(addr: SocketAddr, why: &io::Error) -> bool {
    match why.raw_os_error() {
        Some(libc::EAFNOSUPPORT) => true,
        Some(libc::EADDRNOTAVAIL) => addr.is_ipv6() && addr.ip().is_loopback(),
        _ => false,
    }
}

fn hold_door(port: u16) -> Result<UnixDatagram, StartError> {
    let name = format!("kvstore-port-{port}");
    let door = UnixAddr::from_abstract_name(&name).and_then(|addr| UnixDatagram::bind_addr(&addr));
    door.map_err(|why| match why.kind() {
        io::ErrorKind::AddrInUse => StartError::PortTaken {
            port,
            holder: door_inodes(&name).iter().find_map(|it| holder(it)),
        },
        _ => StartError::Address {
            addr: format!("@{name}"),
            why,
        },
    })
}

/// SO_REUSEADDR lets connections of a former process linger in TIME_WAIT; a listener still conflicts.
fn try_bind(addr: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(
        Domain::for_address(addr),
        Type::STREAM.cloexec(),
        Some(Protocol::TCP),
    )?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(addr))
}

/// Holds a data directory while it lives.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

/// Takes `dir/LOCK`, creating the directory if need be. The lock is the kernel's (flock); the text in the file
/// (pid, host, start time) is for people and for the message of whoever comes second.
pub fn lock_dir(dir: &Path) -> Result<DirLock, StartError> {
    let unusable = |why| StartError::DirUnusable {
        dir: dir.to_owned(),
        why,
    };
    file::create_dir(dir).map_err(unusable)?;
    preflight::probe_direct_io(dir).map_err(|why| StartError::NoDirectIo {
        dir: dir.to_owned(),
        file_system: preflight::file_system(dir),
        why: why.to_string(),
    })?;
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join("LOCK"))
        .map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // What cannot be read names nobody; the refusal stands.
            file.read_to_string(&mut text).unwrap_or_default();
            return Err(StartError::DirLocked {
                dir: dir.to_owned(),
                holder: named_in(&text),
            });
        }
        Err(TryLockError::Error(why)) => return Err(unusable(why)),
    }
    let text = format!(
        "pid {}\nhost {}\nstarted {}\n",
        std::process::id(),
        host(),
        httpdate::fmt_http_date(std::time::SystemTime::now())
    );
    let mut write = || {
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(text.as_bytes())
    };
    write().map_err(unusable)?;
    Ok(DirLock { _file: file })
}

/// Creates the directory and `tmp/probe` in it, a page of known bytes on stable storage.
pub(super) fn write_probe(dir: &Path) -> Result<PathBuf, StartError> {
    let write = || {
        let dir = std::path::absolute(dir)?;
        let tmp = dir.join("tmp");
        file::create_dir(&tmp)?;
        let path = tmp.join("probe");
        let mut probe = File::create(&path)?;
        probe.write_all(&PROBE)?;
        probe.sync_all()?;
        Ok(path)
    };
    write().map_err(|why| StartError::DirUnusable {
        dir: dir.to_owned(),
        why,
    })
}

/// The holder as a LOCK file names it. Its command line can be looked up on its own machine only (a container
/// counts as one: it has pids of its own).
fn named_in(text: &str) -> Option<Holder> {
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
    };
    let pid = field("pid")?.parse().ok()?;
    let there = field("host")?;
    let command = if there == host() {
        command(pid)
    } else {
        clip(format!("on {there}"))
    };
    Some(Holder { pid, command })
}

fn host() -> String {
    text_of("/proc/sys/kernel/hostname").trim().to_owned()
}

/// Inodes of the TCP sockets listening on `port`.
fn listener_inodes(port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .flat_map(|table| {
            text_of(table)
                .lines()
                .skip(1)
                .filter_map(|line| {
                    let fields: Vec<&str> = line.split_whitespace().collect();
                    let (_, local) = fields.get(1)?.rsplit_once(':')?;
                    let listens =
                        *fields.get(3)? == LISTEN && u16::from_str_radix(local, 16) == Ok(port);
                    listens.then(|| fields.get(9).map(ToString::to_string))?
                })
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Inodes of the abstract unix sockets of this name.
fn door_inodes(name: &str) -> Vec<String> {
    let end = format!("@{name}");
    text_of("/proc/net/unix")
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            (*fields.get(7)? == end).then(|| fields.get(6).map(ToString::to_string))?
        })
        .collect()
}

/// The process that has the socket `inode` open; None when we may not look into it.
fn holder(inode: &str) -> Option<Holder> {
    let link = PathBuf::from(format!("socket:[{inode}]"));
    std::fs::read_dir("/proc").ok()?.find_map(|process| {
        let pid: u32 = process.ok()?.file_name().to_str()?.parse().ok()?;
        let mut open = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
        open.any(|fd| fd.is_ok_and(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to == link)))
            .then(|| Holder {
                pid,
                command: command(pid),
            })
    })
}

fn command(pid: u32) -> String {
    let words = text_of(&format!("/proc/{pid}/cmdline")).replace('\0', " ");
    clip(words.trim().to_owned())
}

/// Foreign text at a length that leaves the message around it readable.
fn clip(text: String) -> String {
    match text.char_indices().nth(COMMAND_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn text_of(path: &str) -> String {
    std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_privileged_port_is_told_from_a_foreign_address() {
        for (addr, errno, hint) in [
            ("127.0.0.1:84", libc::EACCES, "CAP_NET_BIND_SERVICE"),
            (
                "192.0.2.1:8081",
                libc::EADDRNOTAVAIL,
                "address of this machine",
            ),
        ] {
            let addr = addr.parse().expect("an address");
            let error = cannot_listen(addr, io::Error::from_raw_os_error(errno));
            assert!(error.hint().contains(hint), "{error}: {}", error.hint());
        }
    }

    #[test]
    fn a_lock_file_names_its_holder() {
        let here = format!("pid {}\nhost {}\nstarted now\n", std::process::id(), host());
        let holder = named_in(&here).expect("well formed");
        assert_eq!(holder.pid, std::process::id());
        assert!(
            !holder.command.is_empty(),
            "our own command line is readable"
        );
        let away = named_in("pid 7\nhost elsewhere.invalid\n").expect("well formed");
        assert_eq!(away.to_string(), "pid 7 (on elsewhere.invalid)");
        let endless =
            named_in(&format!("pid 7\nhost {}\n", "é".repeat(5000))).expect("well formed");
        assert_eq!(endless.command, format!("on {}…", "é".repeat(197)));
        assert_eq!(named_in("garbage"), None);
        assert_eq!(named_in(""), None);
    }
}
