//! The wait of a parked core: for its epoll set, inside the executor.
//!
//! glommio has no public "wait for any descriptor". The [`Waiting`] half borrows one: a glommio `UnixStream`
//! made from the dup arms POLL_ADD at creation; once that completes, its next read finds no socket and fails
//! with ENOTSOCK, which is the signal. Undocumented, hence glommio `=0.9.0` and a test of exactly this.

#![expect(unsafe_code, reason = "a dup of the set, owned by a stream")]

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_io::AsyncRead;
use glommio::net::UnixStream;
use glommio::timer::Timer;

use crate::base::limits::ACCEPT_PAUSE;

/// Until the set has an event, the timer is over, or `ready` says so. False: that was so at once, and the reactor has not
/// turned.
pub(super) async fn wait(
    set: RawFd,
    waiting: &mut Option<Waiting>,
    mut timer: Option<Timer>,
    ready: &mut dyn FnMut(&mut Context<'_>) -> bool,
) -> bool {
    // A completion found at the first look is of an event long dealt with: the last park ended before it
    // came. A new POLL_ADD looks at the set when it is submitted, so nothing since the last look at the sockets
    // is missed.
    let mut fresh = false;
    let mut nap: Option<Timer> = None;
    let mut looks = 0;
    poll_fn(|cx| {
        looks += 1;
        if ready(cx) {
            return Poll::Ready(());
        }
        if let Some(timer) = &mut timer
            && Pin::new(timer).poll(cx).is_ready()
        {
            return Poll::Ready(());
        }
        if let Some(nap) = &mut nap {
            return Pin::new(nap).poll(cx).map(drop);
        }
        loop {
            let armed = match waiting {
                Some(armed) => armed,
                None => match Waiting::arm(set) {
                    Ok(armed) => waiting.insert(armed),
                    // No descriptor left to wait with: look at the sockets every few milliseconds until
                    // something has been closed.
                    Err(_) => {
                        let nap = nap.insert(Timer::new(ACCEPT_PAUSE));
                        return Pin::new(nap).poll(cx).map(drop);
                    }
                },
            };
            if armed.poll(cx).is_pending() {
                fresh = true;
                return Poll::Pending;
            }
            *waiting = None;
            if fresh {
                return Poll::Ready(());
            }
        }
    })
    .await;
    looks > 1
}

/// One POLL_ADD on the epoll set, in flight or completed.
pub(super) struct Waiting(UnixStream);

impl Waiting {
    pub(super) fn arm(set: RawFd) -> io::Result<Waiting> {
        let dup = duplicate(set)?;
        // SAFETY: ownership moves into the stream, which closes it. It is no socket, and nothing is ever sent
        // or received on it: the only call made is the poll below.
        Ok(Waiting(unsafe {
            UnixStream::from_raw_fd(dup.into_raw_fd())
        }))
    }

    /// Ready once the set has had an event since it was armed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Whatever the outcome is, it is not a read: ENOTSOCK says that the poll behind it has completed.
        Pin::new(&mut self.0).poll_read(cx, &mut [0]).map(|_| ())
    }
}

/// The lowest free descriptor, as one more name of the set.
pub(super) fn duplicate(set: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; `set` is open, and the duplicate is owned by nobody else.
    unsafe {
        let dup = libc::fcntl(set, libc::F_DUPFD_CLOEXEC, 0);
        if dup < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(dup))
    }
}

#[cfg(test)]
mod tests {
    use super::super::net::{READABLE, watch};
    use super::*;
    use std::io::Write;
    use std::os::fd::AsRawFd;

    /// The undocumented detail this file stands on: pending while the set is quiet, and once it has an event, an
    /// error that is no I/O error but "this is no socket".
    #[test]
    fn a_glommio_stream_on_an_epoll_set_pends_until_the_set_has_an_event() {
        if let Err(why) = super::super::preflight() {
            eprintln!("skipped: {why}");
            return;
        }
        let executor = glommio::LocalExecutorBuilder::new(glommio::Placement::Unbound)
            .make()
            .expect("preflight has passed");
        executor.run(async {
            // SAFETY: no pointers; owned by nobody else.
            let set = unsafe { OwnedFd::from_raw_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC)) };
            let (mut client, server) = std::os::unix::net::UnixStream::pair().expect("a pair");
            watch(
                set.as_raw_fd(),
                libc::EPOLL_CTL_ADD,
                server.as_raw_fd(),
                READABLE,
                0,
            )
            .expect("watch");
            let mut waiting = Waiting::arm(set.as_raw_fd()).expect("arm");
            for turn in 0..10 {
                let polled = poll_fn(|cx| Poll::Ready(waiting.poll(cx))).await;
                assert!(polled.is_pending(), "turn {turn}: the set is quiet");
                super::super::turn::Turn::default().await;
            }
            client.write_all(b"x").expect("send");
            let result = poll_fn(|cx| Pin::new(&mut waiting.0).poll_read(cx, &mut [0])).await;
            let error = result.expect_err("there is nothing to read from an epoll set");
            assert_eq!(error.raw_os_error(), Some(libc::ENOTSOCK));
            // Level-triggered: armed again, it completes again.
            let mut again = Waiting::arm(set.as_raw_fd()).expect("arm");
            poll_fn(|cx| again.poll(cx)).await;
        });
    }
}
