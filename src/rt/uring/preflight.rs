//! Checks and settings before the first executor: everything glommio would answer with a panic or a riddle.

#![expect(
    unsafe_code,
    reason = "limits, signals and probes are plain system calls"
)]

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::error::StartError;

/// glommio refuses to start below this, even for root.
const MEMLOCK_BYTES_MIN: u64 = 512 << 10;
/// Each executor registers its I/O memory in three rings, and the kernel counts it each time.
const RINGS: u64 = 3;
const IO_MEMORY_BYTES_MIN: u64 = 64 << 10;
const IO_MEMORY_BYTES_MAX: u64 = 4 << 20;

/// Raises the limits this process may raise, ignores signals that would kill it for an ordinary error, and
/// checks that io_uring can be used. Call once, before any thread is started.
pub fn preflight() -> Result<(), StartError> {
    for signal in [libc::SIGPIPE, libc::SIGXFSZ] {
        // SAFETY: SIG_IGN is a valid disposition for both; no handler of ours exists.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    raise_limit(libc::RLIMIT_NOFILE);
    let memlock = raise_limit(libc::RLIMIT_MEMLOCK);
    if memlock < MEMLOCK_BYTES_MIN {
        return Err(StartError::Memlock {
            limit: memlock,
            need: MEMLOCK_BYTES_MIN,
        });
    }
    if !Path::new("/sys/dev/block").is_dir() {
        return Err(StartError::NoSysfs);
    }
    probe_io_uring()
}

/// What rings, sockets and wake-ups of one core, and the process around them, keep open.
const DESCRIPTORS_PER_CORE: u64 = 17;
const DESCRIPTORS_OF_PROCESS: u64 = 32;

/// Files this process may have open (as [`preflight`] has raised it); an error when they do not suffice for so
/// many cores to start.
pub fn check_descriptors(cores: usize) -> Result<u64, StartError> {
    let limit = limit(libc::RLIMIT_NOFILE).rlim_cur;
    let need = DESCRIPTORS_OF_PROCESS + DESCRIPTORS_PER_CORE * cores as u64;
    if limit < need {
        return Err(StartError::Descriptors { limit, need });
    }
    Ok(limit)
}

/// CPUs this process may run on, ascending: its affinity mask, which cpusets and taskset narrow.
pub fn available_cpus() -> Result<Vec<usize>, StartError> {
    // SAFETY: an all-zero cpu_set_t is the empty set; the kernel writes at most the size given.
    let (result, set) = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        let size = size_of::<libc::cpu_set_t>();
        (libc::sched_getaffinity(0, size, &raw mut set), set)
    };
    if result != 0 {
        return Err(StartError::Cpu {
            cpu: 0,
            why: io::Error::last_os_error().to_string(),
        });
    }
    Ok((0..libc::CPU_SETSIZE as usize)
        // SAFETY: the index is below CPU_SETSIZE.
        .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) })
        .collect())
}

/// Bytes of registered I/O memory for each of `cores` executors: what the limit on locked memory allows. A
/// registration the kernel refuses all the same, and a request the memory has no room for, use the heap instead.
pub(super) fn io_memory_bytes(cores: usize) -> usize {
    let locked = limit(libc::RLIMIT_MEMLOCK).rlim_cur;
    let share = locked / (RINGS * cores.max(1) as u64);
    let bytes = share.clamp(IO_MEMORY_BYTES_MIN, IO_MEMORY_BYTES_MAX);
    usize::try_from(bytes - bytes % IO_MEMORY_BYTES_MIN).expect("at most 4 MiB")
}

/// Without this the first sleep of the first executor takes 15 to 80 ms (the kernel waits for a grace period
/// when other threads exist). Failure only costs that.
pub(super) fn register_membarrier() {
    const REGISTER_PRIVATE_EXPEDITED: i32 = 1 << 4;
    // SAFETY: no pointers; an unknown command is refused.
    unsafe { libc::syscall(libc::SYS_membarrier, REGISTER_PRIVATE_EXPEDITED, 0, 0) };
}

pub(super) fn thread_id() -> i32 {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::gettid() }
}

pub(super) fn random_u64() -> u64 {
    let mut bytes = [0u8; 8];
    // SAFETY: the buffer is as long as said. Up to 256 bytes are delivered whole once the kernel's generator is
    // seeded, for which the call waits.
    let count = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    assert_eq!(count, 8, "getrandom exists since Linux 3.17 and delivers");
    u64::from_ne_bytes(bytes)
}

/// Bytes free for this user on the file system of `path`.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path ends with a zero and both live across the call; an all-zero struct is valid.
    let (result, found) = unsafe {
        let mut found: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(path.as_ptr(), &raw mut found), found)
    };
    match result {
        0 => Ok(found.f_bavail.saturating_mul(found.f_frsize)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// An error when files in `dir` cannot be opened past the page cache. Leaves nothing behind: the file has no
/// name. A file system that knows no nameless files is left to the proof each core makes.
pub(super) fn probe_direct_io(dir: &Path) -> io::Result<()> {
    #[expect(clippy::disallowed_methods, reason = "files are rt's business")]
    let open = |flags| {
        std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_TMPFILE | flags)
            .open(dir)
    };
    match open(libc::O_DIRECT) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) && open(0).is_ok() => Err(error),
        _ => Ok(()),
    }
}

/// The type of the file system `path` is on, as /proc/self/mountinfo names it.
#[expect(clippy::disallowed_methods, reason = "files are rt's business")]
pub fn file_system(path: &Path) -> String {
    let mounts = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    let mounts = String::from_utf8_lossy(&mounts);
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    mounts
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let point = left.split(' ').nth(4)?;
            let name = right.split(' ').next()?;
            path.starts_with(point).then_some((point.len(), name))
        })
        // The deepest mount point wins, and of several mounted on one point the last.
        .max_by_key(|(depth, _)| *depth)
        .map_or_else(
            || "an unknown file system".to_owned(),
            |(_, name)| name.to_owned(),
        )
}

pub(super) fn limit(which: libc::__rlimit_resource_t) -> libc::rlimit {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the struct lives across the call. It fails for unknown resources only and leaves zeroes then.
    unsafe { libc::getrlimit(which, &raw mut limit) };
    limit
}

/// Raises the soft limit to the hard one; returns what holds afterwards.
fn raise_limit(which: libc::__rlimit_resource_t) -> u64 {
    let mut wanted = limit(which);
    wanted.rlim_cur = wanted.rlim_max;
    // SAFETY: the struct lives across the call. A refusal leaves the old limit, which is read below.
    unsafe { libc::setrlimit(which, &raw const wanted) };
    limit(which).rlim_cur
}

/// glommio would panic in its executor's thread; this asks the kernel first, and by itself.
fn probe_io_uring() -> Result<(), StartError> {
    // struct io_uring_params is 120 bytes of integers; all zero asks for a plain ring.
    let mut params = [0u64; 15];
    // SAFETY: the kernel reads and writes the 120 bytes; the result is a descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 2, params.as_mut_ptr()) };
    if fd >= 0 {
        // SAFETY: just created, owned by nobody else.
        unsafe { libc::close(fd as i32) };
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(match error.raw_os_error() {
        Some(libc::ENOSYS) => StartError::IoUringMissing {
            kernel: words("/proc/sys/kernel/osrelease"),
        },
        Some(libc::EPERM | libc::EACCES) => {
            match words("/proc/sys/kernel/io_uring_disabled").parse() {
                Ok(sysctl) if sysctl > 0 => StartError::IoUringDisabled { sysctl },
                _ => StartError::IoUringForbidden {
                    seccomp: seccomp_mode(),
                },
            }
        }
        Some(libc::ENOMEM) => StartError::Memlock {
            limit: limit(libc::RLIMIT_MEMLOCK).rlim_cur,
            need: MEMLOCK_BYTES_MIN,
        },
        _ => StartError::IoUringFailed(error),
    })
}

fn seccomp_mode() -> u8 {
    // Of this thread: filters are set per thread and inherited.
    words("/proc/thread-self/status")
        .lines()
        .find_map(|line| line.strip_prefix("Seccomp:"))
        .and_then(|mode| mode.trim().parse().ok())
        .unwrap_or(0)
}

#[expect(clippy::disallowed_methods, reason = "files are rt's business")]
fn words(path: &str) -> String {
    std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_has_a_file_system_and_this_process_a_cpu() {
        assert_ne!(file_system(Path::new("/")), "an unknown file system");
        assert_eq!(file_system(Path::new("/proc/self")), "proc");
        assert!(free_bytes(Path::new("/")).expect("it exists") > 0);
        assert!(!available_cpus().expect("the mask can be read").is_empty());
    }

    #[test]
    fn io_memory_is_whole_slabs_within_its_bounds() {
        for cores in [1, 2, 3, 48, 4096] {
            let bytes = io_memory_bytes(cores) as u64;
            assert!((IO_MEMORY_BYTES_MIN..=IO_MEMORY_BYTES_MAX).contains(&bytes));
            assert!(bytes.is_multiple_of(IO_MEMORY_BYTES_MIN));
        }
    }
}
