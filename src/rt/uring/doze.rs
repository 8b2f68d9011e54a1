//! A short sleep in `epoll_wait` itself, before a core parks in its executor.
//!
//! ```text
//! nothing to do ─▶ doze, for a while ─┬─ a socket is ready, a write has ended, or the alarm was rung ─▶ go on
//!                                     ├─ interrupted: something is for glommio's rings ─▶ reactor
//!                                     └─ over ─▶ park in the executor
//! ```
//!
//! A park costs a dozen system calls (two rings are linked, two timers cancelled and set, a barrier sent to all
//! CPUs), its wake-up included; a doze costs one. Under load the next request is a few microseconds away, so most
//! waits end here, and the CPU idles meanwhile.
//!
//! A doze begins awake while one short write is all the disk owes: few wait for it, and the waking of this CPU is a seventh
//! of what they wait (docs/decisions/0008-durable-ring.md). Each look gives the CPU away first: a worker of the kernel
//! that has to end the write on this CPU would otherwise wait until the doze sleeps.
//!
//! What the executor would wake for while it sleeps, and what becomes of it here:
//! - sockets: in the set.
//! - durable writes: they have a ring of their own, which is in the set (`durable.rs`). The kernel finishes most of
//!   them on this thread, which it interrupts for that; the rest make the ring readable.
//! - other work of the disk: while it is under way nobody dozes (`turn.rs`). Its end would interrupt the doze too,
//!   unless a worker of the kernel did it: that only fills a ring which is in no set.
//! - other cores: they wake whatever waker is registered, and here it is an [`Alarm`], an eventfd in the set.
//! - timers of other tasks, the blocking thread, pings of the watchdog: late by at most two dozes (`turn.rs`), because
//!   one that brings nothing is followed by a park, one that is interrupted by a turn, and none begins when the reactor
//!   has been left alone for the length of one.

#![expect(unsafe_code, reason = "eventfd and epoll_pwait2 have no safe wrapper")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;
use std::time::{Duration, Instant};

/// How long a doze may be awake at its beginning: twice what a disk in good health takes. Of a slow one it is little.
pub(super) const AWAKE_MAX: Duration = Duration::from_micros(200);

/// Wakes a core that dozes, from any thread.
pub(super) struct Alarm {
    fd: OwnedFd,
    /// A wake-up outside a doze costs no system call: who wakes has made the condition true before, and the core
    /// looks at it once more after it has set this.
    dozing: AtomicBool,
}

impl Alarm {
    pub(super) fn new() -> io::Result<Alarm> {
        // SAFETY: no pointers; a fresh descriptor is returned or -1.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Alarm {
            // SAFETY: just created, owned by nobody else.
            fd: unsafe { OwnedFd::from_raw_fd(fd) },
            dozing: AtomicBool::new(false),
        })
    }

    /// For the set: edge-triggered, so that nobody has to read it.
    pub(super) fn descriptor(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    pub(super) fn set(&self, dozing: bool) {
        self.dozing.store(dozing, Ordering::SeqCst);
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.dozing.load(Ordering::SeqCst) {
            // SAFETY: eight bytes of a live value. It fails only when the counter is full, and then it has rung.
            unsafe { libc::eventfd_write(self.fd.as_raw_fd(), 1) };
        }
    }
}

/// How a doze ended.
#[derive(Debug)]
pub(super) enum Dozed {
    /// So many events.
    Events(usize),
    /// By the alarm, and nothing else: whoever rang it has made true what is waited for.
    Rung,
    Interrupted,
    Over,
    /// The kernel is older than 5.11, or a filter forbids the call.
    Unable,
}

/// Waits until the set has events: awake for `awake`, then asleep for `asleep` at most.
#[expect(clippy::disallowed_methods, reason = "rt owns the clock")]
pub(super) fn doze(
    set: RawFd,
    happened: &mut [MaybeUninit<libc::epoll_event>],
    awake: Duration,
    asleep: Duration,
) -> Dozed {
    if !awake.is_zero() {
        let began = Instant::now();
        while began.elapsed() < awake {
            std::thread::yield_now();
            match sleep(set, happened, Duration::ZERO) {
                Dozed::Over => {}
                dozed => return dozed,
            }
        }
    }
    sleep(set, happened, asleep)
}

/// Sleeps until the set has events, at most `pause`.
fn sleep(set: RawFd, happened: &mut [MaybeUninit<libc::epoll_event>], pause: Duration) -> Dozed {
    let pause = libc::timespec {
        tv_sec: pause.as_secs() as libc::time_t,
        tv_nsec: libc::c_long::from(pause.subsec_nanos() as i32),
    };
    // SAFETY: the kernel writes at most as many events as there is room for, and only reads the pause; there is
    // no signal mask.
    let count = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait2,
            set,
            happened.as_mut_ptr(),
            happened.len() as libc::c_int,
            &raw const pause,
            std::ptr::null::<libc::sigset_t>(),
            0_usize,
        )
    };
    match usize::try_from(count) {
        Ok(0) => Dozed::Over,
        Ok(count) => Dozed::Events(count),
        Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {
            Dozed::Interrupted
        }
        Err(_) => Dozed::Unable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    fn set_with(alarm: &Alarm) -> OwnedFd {
        // SAFETY: no pointers but the event, which lives; fresh descriptors are owned by nobody else.
        unsafe {
            let set = OwnedFd::from_raw_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC));
            let mut event = libc::epoll_event {
                events: (libc::EPOLLIN | libc::EPOLLET) as u32,
                u64: 7,
            };
            let (own, fd) = (set.as_raw_fd(), alarm.descriptor());
            assert_eq!(
                libc::epoll_ctl(own, libc::EPOLL_CTL_ADD, fd, &raw mut event),
                0
            );
            set
        }
    }

    #[test]
    fn an_alarm_ends_every_doze_it_is_rung_in_and_makes_no_noise_outside() {
        const LONG: Duration = Duration::from_secs(60);
        let alarm = Arc::new(Alarm::new().expect("a descriptor"));
        let waker = Waker::from(Arc::clone(&alarm));
        let set = set_with(&alarm);
        let mut room = [MaybeUninit::uninit(); 4];
        let mut doze = |awake, asleep| doze(set.as_raw_fd(), &mut room, awake, asleep);
        if matches!(doze(Duration::ZERO, Duration::ZERO), Dozed::Unable) {
            eprintln!("skipped: this kernel has no epoll_pwait2");
            return;
        }
        for (awake, asleep) in [
            (Duration::ZERO, LONG),
            (LONG, Duration::ZERO),
            (AWAKE_MAX, LONG),
        ] {
            let case = format!("awake for {awake:?}, asleep for {asleep:?}");
            waker.wake_by_ref();
            let dozed = doze(awake.min(AWAKE_MAX), Duration::ZERO);
            assert!(matches!(dozed, Dozed::Over), "{case}: {dozed:?}");
            alarm.set(true);
            waker.wake_by_ref();
            // Never read, and yet each ring is an event of its own.
            let dozed = doze(awake, asleep);
            assert!(matches!(dozed, Dozed::Events(1)), "{case}: {dozed:?}");
            alarm.set(false);
        }
    }
}
