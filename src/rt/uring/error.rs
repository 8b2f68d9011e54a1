//! Why a node cannot start, and what the person at the keyboard can do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// A reason not to start. `Display` is one line for people, [`StartError::hint`] the remedy.
/// Nothing has been changed except that the data directory may have been created. Fix and start again.
#[derive(Debug)]
pub enum StartError {
    /// The kernel, or the sandbox posing as one, does not know io_uring.
    IoUringMissing { kernel: String },
    /// `kernel.io_uring_disabled` forbids it to this process (1: unless in `io_uring_group`; 2: to everybody).
    IoUringDisabled { sysctl: u8 },
    /// Forbidden although the sysctl allows it: a seccomp filter (mode 2), or a security module.
    IoUringForbidden { seccomp: u8 },
    /// io_uring_setup failed in another way.
    IoUringFailed(io::Error),
    /// Too little memory may be locked, in bytes.
    Memlock { limit: u64, need: u64 },
    /// Too few files may be open.
    Descriptors { limit: u64, need: u64 },
    /// /sys is not mounted: the disk's properties are read from there.
    NoSysfs,
    /// The affinity mask could not be read, or a core could not be placed.
    Cpu { cpu: usize, why: String },
    /// Somebody listens on this port already.
    PortTaken { port: u16, holder: Option<Holder> },
    /// The address cannot be listened on.
    Address { addr: String, why: io::Error },
    /// The port belongs to privileged processes.
    PortPrivileged { addr: String, why: io::Error },
    /// Another process uses this data directory.
    DirLocked {
        dir: PathBuf,
        holder: Option<Holder>,
    },
    /// The data directory cannot be created or written.
    DirUnusable { dir: PathBuf, why: io::Error },
    /// Files there cannot be read past the page cache.
    NoDirectIo {
        dir: PathBuf,
        file_system: String,
        why: String,
    },
    /// A thread could not be started, or an executor in it.
    Executor { core: usize, why: String },
}

/// A process that holds what we want.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub pid: u32,
    /// Its command line, empty when it may not be read.
    pub command: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.command.as_str() {
            "" => write!(f, "pid {}", self.pid),
            command => write!(f, "pid {} ({command})", self.pid),
        }
    }
}

/// " by pid 7 (kvstore -port 8081)", or nothing.
fn by(holder: Option<&Holder>) -> String {
    holder.map_or_else(String::new, |holder| format!(" by {holder}"))
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IoUringMissing { kernel } => write!(
                f,
                "this kernel ({kernel}) or sandbox (gVisor, old WSL, old podman) has no io_uring; Linux 5.8 or newer is needed"
            ),
            Self::IoUringDisabled { sysctl } => write!(
                f,
                "io_uring_setup: Operation not permitted. kernel.io_uring_disabled={sysctl} forbids io_uring to this process"
            ),
            Self::IoUringForbidden { seccomp: 0 } => write!(
                f,
                "io_uring_setup: Operation not permitted. kernel.io_uring_disabled=0, seccomp=0: a security module blocks io_uring"
            ),
            Self::IoUringForbidden { seccomp } => write!(
                f,
                "io_uring_setup: Operation not permitted. kernel.io_uring_disabled=0, seccomp={seccomp}: a container seccomp profile blocks io_uring"
            ),
            Self::IoUringFailed(why) => write!(f, "io_uring_setup: {why}"),
            Self::Memlock { limit, need } => write!(
                f,
                "locked-memory limit is {} KiB, need at least {} KiB",
                limit / 1024,
                need / 1024
            ),
            Self::Descriptors { limit, need } => {
                write!(f, "open-file limit is {limit}, need at least {need}")
            }
            Self::NoSysfs => write!(
                f,
                "/sys is not mounted; disk properties are read from there"
            ),
            Self::Cpu { cpu, why } => write!(f, "cannot use CPU {cpu}: {why}"),
            Self::PortTaken { port, holder } => {
                write!(f, "port {port} is in use{}", by(holder.as_ref()))
            }
            Self::Address { addr, why } | Self::PortPrivileged { addr, why } => {
                write!(f, "cannot listen on {addr}: {why}")
            }
            Self::DirLocked { dir, holder } => {
                write!(f, "{} is locked{}", dir.display(), by(holder.as_ref()))
            }
            Self::DirUnusable { dir, why } if why.kind() == io::ErrorKind::NotADirectory => {
                write!(f, "data directory {}: {why}", dir.display())
            }
            Self::DirUnusable { dir, why } => {
                write!(f, "cannot use data directory {}: {why}", dir.display())
            }
            Self::NoDirectIo {
                dir,
                file_system,
                why,
            } => write!(
                f,
                "data dir {} is on {file_system}: no direct I/O ({why})",
                dir.display()
            ),
            Self::Executor { core, why } => write!(f, "cannot start core {core}: {why}"),
        }
    }
}

impl std::error::Error for StartError {}

impl StartError {
    /// One line: what to do.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::IoUringMissing { .. } => {
                "use Linux 5.8 or newer, on the machine itself or in a container that passes io_uring through"
            }
            Self::IoUringDisabled { sysctl: 1 } => {
                "sysctl -w kernel.io_uring_disabled=0, or put the user's group into kernel.io_uring_group"
            }
            Self::IoUringDisabled { .. } => "sysctl -w kernel.io_uring_disabled=0",
            Self::IoUringForbidden { seccomp: 0 } => {
                "look for a denial in the audit log (SELinux, AppArmor)"
            }
            Self::IoUringForbidden { .. } => {
                "allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp profile (docker run --security-opt seccomp=<profile>)"
            }
            Self::IoUringFailed(_) => {
                "check the limits of open files and memory (ulimit -a) and the kernel log"
            }
            Self::Memlock { .. } => {
                "ulimit -l unlimited | LimitMEMLOCK=infinity (systemd) | docker run --ulimit memlock=-1"
            }
            Self::Descriptors { .. } => {
                "ulimit -n 65536 | LimitNOFILE=65536 (systemd) | docker run --ulimit nofile=65536"
            }
            Self::NoSysfs => "mount -t sysfs sysfs /sys, or pass /sys into the container read-only",
            Self::Cpu { .. } => "check taskset, cpuset and the number of cores asked for",
            Self::PortTaken {
                holder: Some(_), ..
            } => "stop that process or choose another -port",
            Self::PortTaken { holder: None, .. } => {
                "choose another -port; as root, ss -ltnp names who listens there"
            }
            Self::Address { .. } => "use an address of this machine",
            Self::PortPrivileged { .. } => {
                "ports below 1024 need CAP_NET_BIND_SERVICE (AmbientCapabilities= of systemd, setcap); or choose a -port from 1024 on"
            }
            Self::DirLocked {
                holder: Some(_), ..
            } => "stop that process or choose another -dir",
            Self::DirLocked { holder: None, .. } => {
                "choose another -dir; as root, lsof on its LOCK file names who has it"
            }
            Self::DirUnusable { why, .. } => remedy(why.kind()),
            Self::NoDirectIo { .. } => "put -dir on a local ext4 or xfs file system",
            Self::Executor { .. } => {
                "check the limits of threads (ulimit -u), open files (ulimit -n) and locked memory (ulimit -l)"
            }
        }
    }
}

/// What to do about a file or folder the system refuses, by its answer. One map for all of them. Too many open
/// files and a failing disk have no kind of their own: both are in the last row, and the text tells which.
#[must_use]
pub fn remedy(kind: io::ErrorKind) -> &'static str {
    use io::ErrorKind as Kind;
    match kind {
        Kind::StorageFull | Kind::QuotaExceeded => {
            "make room on its file system (df -h, df -i, quota), lift ulimit -f if set, or choose another -dir"
        }
        Kind::PermissionDenied => {
            "make it readable and writable for this user (chown, chmod), or choose another -dir"
        }
        Kind::ReadOnlyFilesystem => "mount it writable, or choose another -dir",
        Kind::NotADirectory | Kind::NotFound => "name a directory that can be made with -dir",
        Kind::FileTooLarge => "ulimit -f unlimited | LimitFSIZE=infinity (systemd)",
        Kind::OutOfMemory => {
            "give the process more memory: the machine's, the container's, ulimit -v and ulimit -l"
        }
        Kind::WouldBlock => {
            "lift the limit of threads: ulimit -u | TasksMax= (systemd) | docker run --pids-limit"
        }
        _ => {
            "check mount, limit of open files (ulimit -n) and kernel log (dmesg), or choose another -dir"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_culprit() {
        let holder = Some(Holder {
            pid: 12345,
            command: "kvstore -port 8081".into(),
        });
        let taken = StartError::PortTaken { port: 8081, holder };
        assert_eq!(
            taken.to_string(),
            "port 8081 is in use by pid 12345 (kvstore -port 8081)"
        );
        let unknown = StartError::DirLocked {
            dir: "/data/node1".into(),
            holder: None,
        };
        assert_eq!(unknown.to_string(), "/data/node1 is locked");
        // No process is named, so none may be talked of.
        assert!(!unknown.hint().contains("that process"));
        let memlock = StartError::Memlock {
            limit: 64 << 10,
            need: 512 << 10,
        };
        assert_eq!(
            memlock.to_string(),
            "locked-memory limit is 64 KiB, need at least 512 KiB"
        );
    }
}
