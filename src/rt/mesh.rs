//! Core to core mailboxes: with `stop` and `resolve`, the only memory two cores share.
//!
//! One lane per ordered pair of cores. A core collects messages for a peer in a plain vector and `ship`s the
//! vector once per turn: one lock, one move of pointers, and one wake only when the peer is parked. The lock
//! is held for the length of a `memcpy`; cores are pinned, so a holder is not descheduled by its own process.
//! Rejected: glommio's shared channels (a message is a slot write with fences, and a parked peer costs a
//! syscall per sender), lock-free rings (per-message cost, no gain once messages are batched per turn).
//!
//! Bounds: a lane never holds more than the in-flight cap of its sender, because the sender counts the
//! requests it has not seen answered (`limits::MESH_IN_FLIGHT_MAX`) and replies match requests one to one.
//! Nothing here ever blocks, so the deadlock of two full channels waiting for each other cannot occur.

#![expect(
    clippy::disallowed_types,
    reason = "one of the places where cores share memory"
)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// One core's end of the mesh. Owned by that core; created for all cores at once by [`mesh`].
pub struct Port<M> {
    core: usize,
    hub: Arc<Hub<M>>,
    /// Messages not shipped yet, by receiving core.
    outbox: Vec<Vec<M>>,
}

struct Hub<M> {
    cores: usize,
    /// Lane from `f` to `t` at `f * cores + t`.
    lanes: Vec<Mutex<Vec<M>>>,
    inboxes: Vec<Inbox>,
}

/// Kept on its own cache line: senders of every core read it once per ship.
#[repr(align(128))]
#[derive(Default)]
struct Inbox {
    /// Messages shipped and not yet received.
    waiting: AtomicUsize,
    /// Present while the receiving core is parked.
    parked: Mutex<Option<Waker>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The ports of `cores` cores, in order.
#[must_use]
pub fn mesh<M: Send>(cores: usize) -> Vec<Port<M>> {
    let hub = Arc::new(Hub {
        cores,
        lanes: (0..cores * cores).map(|_| Mutex::new(Vec::new())).collect(),
        inboxes: (0..cores).map(|_| Inbox::default()).collect(),
    });
    (0..cores)
        .map(|core| Port {
            core,
            hub: Arc::clone(&hub),
            outbox: (0..cores).map(|_| Vec::new()).collect(),
        })
        .collect()
}

impl<M: Send> Port<M> {
    /// Cores in the mesh, this one included.
    #[must_use]
    pub fn cores(&self) -> usize {
        self.hub.cores
    }

    /// Queues a message for `to`; it leaves at the next [`Port::ship`].
    pub fn send(&mut self, to: usize, message: M) {
        self.outbox[to].push(message);
    }

    /// Hands every queued message over and wakes the receivers that are parked.
    pub fn ship(&mut self) {
        for (to, batch) in self.outbox.iter_mut().enumerate() {
            if batch.is_empty() {
                continue;
            }
            let count = batch.len();
            let mut lane = locked(&self.hub.lanes[self.core * self.hub.cores + to]);
            if lane.is_empty() {
                std::mem::swap(&mut *lane, batch);
            } else {
                lane.append(batch);
            }
            // Counted under the lane's lock, so the receiver never takes what is not counted yet. SeqCst on both
            // sides: either the receiver's check after registering sees the count, or we see its waker.
            let inbox = &self.hub.inboxes[to];
            inbox.waiting.fetch_add(count, Ordering::SeqCst);
            drop(lane);
            let parked = locked(&inbox.parked).take();
            if let Some(waker) = parked {
                waker.wake();
            }
        }
    }

    /// Appends every message that has arrived, lane by lane, each lane in the order it was sent.
    pub fn receive(&mut self, into: &mut impl Extend<(usize, M)>) {
        let inbox = &self.hub.inboxes[self.core];
        if inbox.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        for from in 0..self.hub.cores {
            let mut lane = locked(&self.hub.lanes[from * self.hub.cores + self.core]);
            let count = lane.len();
            into.extend(lane.drain(..).map(|message| (from, message)));
            drop(lane);
            inbox.waiting.fetch_sub(count, Ordering::SeqCst);
        }
    }

    /// Ready when something has arrived; otherwise the task is woken by the next `ship` to this core.
    pub fn poll_arrived(&self, cx: &mut Context<'_>) -> Poll<()> {
        let inbox = &self.hub.inboxes[self.core];
        if inbox.waiting.load(Ordering::SeqCst) > 0 {
            return Poll::Ready(());
        }
        let mut parked = locked(&inbox.parked);
        if !parked
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *parked = Some(cx.waker().clone());
        }
        drop(parked);
        if inbox.waiting.load(Ordering::SeqCst) > 0 {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_keep_order_and_wake_only_a_parked_receiver() {
        let mut ports = mesh::<u32>(2);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(ports[1].poll_arrived(&mut cx).is_pending());
        for n in 0..5 {
            ports[0].send(1, n);
        }
        let mut got = Vec::new();
        ports[1].receive(&mut got);
        assert!(got.is_empty(), "nothing arrives before ship");
        ports[0].ship();
        assert!(ports[1].poll_arrived(&mut cx).is_ready());
        ports[0].send(1, 5);
        ports[0].ship();
        ports[1].receive(&mut got);
        assert_eq!(got, (0..6).map(|n| (0, n)).collect::<Vec<_>>());
        assert!(ports[1].poll_arrived(&mut cx).is_pending());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the mesh is what threads share")]
    fn nothing_is_lost_between_threads() {
        const COUNT: u64 = 200_000;
        let mut ports = mesh::<u64>(2);
        let mut receiver = ports.pop().expect("two ports");
        let mut sender = ports.pop().expect("two ports");
        let thread = std::thread::spawn(move || {
            for n in 0..COUNT {
                sender.send(1, n);
                if n % 7 == 0 {
                    sender.ship();
                }
            }
            sender.ship();
        });
        let mut got = Vec::new();
        let mut next = 0;
        while next < COUNT {
            receiver.receive(&mut got);
            for (_, n) in got.drain(..) {
                assert_eq!(n, next);
                next += 1;
            }
        }
        thread.join().expect("the sender does not panic");
    }
}
