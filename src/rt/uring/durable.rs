//! Durable writes, on a ring of the core's own beside those of glommio.
//!
//! ```text
//! begin ─▶ submission queue ─ submit: one io_uring_enter ─▶ kernel: write, flush ─▶ completion queue ─ reap ─▶ waker
//!            (nobody knows yet)                                                       (no system call)
//! ```
//!
//! glommio tells the kernel of a write, and hears of its end, only in a turn of its reactor: four `io_uring_enter`
//! each, and a dozen system calls if the core slept in between. Here the first takes one call and the second none.
//! The ring's descriptor is in the epoll set of the core's [`Net`](super::net::Net), so whatever the loop sleeps in
//! (`doze.rs`, `waiting.rs`) ends with the write (docs/decisions/0008-durable-ring.md).
//!
//! Who does what: the loop that owns the sockets submits before it sleeps and reaps whenever it comes by. While it
//! sleeps in the executor, or has not been seen yet, a write is submitted as it is begun. A core without sockets
//! (start, end, tools) has nobody to reap: there writes go through glommio. Should the loop wait for something else,
//! a write looks after itself every now and then.
//!
//! Invariants: buffer and file belong to the write until the kernel has answered, also when nobody waits any more;
//! no more writes are under way than the completion queue holds.

#![expect(
    unsafe_code,
    reason = "a pushed entry points to memory the kernel reads"
)]

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use glommio::io::{DmaBuffer, DmaFile};
use glommio::timer::Timer;
use io_uring::{IoUring, opcode, types};

use crate::base::limits::DISK_PAGE_BYTES;

/// Writes under way at most; one shard has one. More go through glommio.
const ENTRIES: u32 = 64;
/// A write that nobody has looked after for so long looks after itself: its core's loop waits for something else.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

pub(super) struct Ring {
    inner: RefCell<Inner>,
    /// Sets of sockets that have this ring in them.
    watched: Cell<usize>,
    /// The loop is awake, and will come by before it sleeps.
    attended: Cell<bool>,
}

struct Inner {
    ring: IoUring,
    writes: Vec<Option<Write>>,
    free: Vec<usize>,
    /// Begun, and the kernel does not know of them.
    queued: usize,
}

struct Write {
    buf: DmaBuffer,
    /// Its descriptor must stay what it is until the kernel has looked it up.
    _file: Rc<DmaFile>,
    state: State,
}

enum State {
    UnderWay(Option<Waker>),
    /// As the kernel says it: bytes written, or an error number below zero.
    Done(i32),
    /// Nobody waits any more.
    Abandoned,
}

impl Ring {
    /// For the calling thread alone.
    pub(super) fn new() -> io::Result<Ring> {
        // The end of a write need not interrupt a core at work: each of its system calls looks, and they are never
        // farther apart than a slice of background work (`base::limits::SLICE`). Kernels before 6.0 do without.
        let ring = IoUring::builder()
            .setup_coop_taskrun()
            .setup_single_issuer()
            .build(ENTRIES)
            .or_else(|_| IoUring::new(ENTRIES))?;
        Ok(Ring {
            inner: RefCell::new(Inner {
                ring,
                writes: (0..ENTRIES).map(|_| None).collect(),
                free: (0..ENTRIES as usize).collect(),
                queued: 0,
            }),
            watched: Cell::new(0),
            attended: Cell::new(false),
        })
    }

    /// For the set of sockets; readable while the end of a write has not been reaped.
    pub(super) fn descriptor(&self) -> RawFd {
        self.inner.borrow().ring.as_raw_fd()
    }

    /// The descriptor is in one more set.
    pub(super) fn watch(&self) {
        self.watched.set(self.watched.get() + 1);
    }

    /// The descriptor is in one set less.
    pub(super) fn unwatch(&self) {
        self.watched.set(self.watched.get() - 1);
        self.attend(false);
        self.submit();
    }

    pub(super) fn attend(&self, attended: bool) {
        self.attended.set(attended);
    }

    /// Begins to write. `Err`: not here.
    pub(super) fn begin(
        self: &Rc<Self>,
        file: &Rc<DmaFile>,
        buf: DmaBuffer,
        pos: u64,
    ) -> Result<Writing, DmaBuffer> {
        if self.watched.get() == 0 {
            return Err(buf);
        }
        let slot = self.inner.borrow_mut().push(file, buf, pos)?;
        if !self.attended.get() {
            self.submit();
        }
        Ok(Writing {
            ring: Rc::clone(self),
            slot,
            look: Timer::new(LOOK_INTERVAL),
        })
    }

    /// Tells the kernel of what has been begun.
    pub(super) fn submit(&self) {
        self.enter(0);
    }

    /// And waits, with the thread, until so many writes have ended.
    fn enter(&self, ended: usize) {
        let mut inner = self.inner.borrow_mut();
        if inner.queued == 0 && ended == 0 {
            return;
        }
        match inner.ring.submit_and_wait(ended) {
            Ok(count) => inner.queued -= count,
            // Again when somebody comes by.
            Err(error) if is_passing(&error) => {}
            Err(error) => panic!("io_uring_enter: {error}"),
        }
    }

    /// Whether something has been begun that the kernel does not know of.
    pub(super) fn is_queued(&self) -> bool {
        self.inner.borrow().queued > 0
    }

    /// Whether all that is under way is one write, and of one page, so that few wait for it: some 25 puts of 100 bytes.
    pub(super) fn is_lone(&self) -> bool {
        let inner = self.inner.borrow();
        let mut writes = inner.writes.iter().flatten();
        inner.free.len() + 1 == ENTRIES as usize
            && writes.all(|write| write.buf.as_bytes().len() <= DISK_PAGE_BYTES)
    }

    /// Wakes whoever waits for a write that has ended. Whether one has.
    pub(super) fn reap(&self) -> bool {
        let mut any = false;
        loop {
            // Woken without the borrow: what a waker does is not ours to know.
            let ended = self.inner.borrow_mut().next_ended();
            match ended {
                None => return any,
                Some(waker) => {
                    any = true;
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                }
            }
        }
    }
}

impl Drop for Ring {
    /// Nobody waits any more, but the kernel reads from the buffers until it has answered.
    fn drop(&mut self) {
        self.reap();
        while self.inner.borrow().free.len() < ENTRIES as usize {
            self.enter(1);
            self.reap();
        }
    }
}

impl Inner {
    fn push(&mut self, file: &Rc<DmaFile>, buf: DmaBuffer, pos: u64) -> Result<usize, DmaBuffer> {
        let Some(slot) = self.free.pop() else {
            return Err(buf);
        };
        let bytes = buf.as_bytes();
        let Ok(len) = u32::try_from(bytes.len()) else {
            self.free.push(slot);
            return Err(buf);
        };
        let entry = opcode::Write::new(types::Fd(file.as_raw_fd()), bytes.as_ptr(), len)
            .offset(pos)
            .build()
            .user_data(slot as u64);
        // SAFETY: `writes` keeps the buffer, which does not move its bytes, and the file until the kernel has
        // answered; the ring waits for that when it is dropped. Should a detached task hold the ring that holds its
        // waker, both stay for ever, and the buffer with them.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        // There are as many entries as slots.
        pushed.expect("a free slot has a free entry");
        self.queued += 1;
        self.writes[slot] = Some(Write {
            buf,
            _file: Rc::clone(file),
            state: State::UnderWay(None),
        });
        Ok(slot)
    }

    /// The next write that has ended, and who waits for it.
    fn next_ended(&mut self) -> Option<Option<Waker>> {
        let ended = self.ring.completion().next()?;
        let slot = ended.user_data() as usize;
        let write = self.writes[slot].as_mut().expect("it is under way");
        match std::mem::replace(&mut write.state, State::Done(ended.result())) {
            State::UnderWay(waker) => Some(waker),
            State::Abandoned | State::Done(_) => {
                self.vacate(slot);
                Some(None)
            }
        }
    }

    fn vacate(&mut self, slot: usize) {
        self.writes[slot] = None;
        self.free.push(slot);
    }
}

/// A write under way: the bytes written.
pub(super) struct Writing {
    ring: Rc<Ring>,
    slot: usize,
    look: Timer,
}

impl Future for Writing {
    type Output = io::Result<usize>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            {
                let mut inner = self.ring.inner.borrow_mut();
                let write = inner.writes[self.slot].as_mut();
                match &mut write.expect("it is ours").state {
                    State::Done(result) => {
                        let result = *result;
                        return Poll::Ready(
                            usize::try_from(result)
                                .map_err(|_| io::Error::from_raw_os_error(-result)),
                        );
                    }
                    State::UnderWay(waker) => *waker = Some(cx.waker().clone()),
                    State::Abandoned => unreachable!("somebody waits"),
                }
            }
            if Pin::new(&mut self.look).poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.look = Timer::new(LOOK_INTERVAL);
            self.ring.submit();
            self.ring.reap();
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let mut inner = self.ring.inner.borrow_mut();
        let write = inner.writes[self.slot].as_mut().expect("it is ours");
        match write.state {
            State::Done(_) => inner.vacate(self.slot),
            _ => write.state = State::Abandoned,
        }
    }
}

/// What `io_uring_enter` may say when it is short of something: the entries stay where they are.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ENOMEM)
    )
}
