//! Pure. Answers of tasks (disk reads, scan pages) on their way to the loop of the same core.

use std::cell::RefCell;
use std::task::{Context, Poll, Waker};

use super::msg::Reply;
use super::replica::Job;
use crate::base::member::NodeId;

/// Who asked for something of this core's shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// This core, under this ticket.
    Here(u64),
    /// Another core, under its own ticket.
    There { core: usize, ticket: u64 },
    /// The repair of this node's own copy, for the read under this ticket.
    Repair(u64),
    /// What this core owes to a member: which of its shards, and who.
    Handoff { at: usize, node: NodeId },
    /// What this node's own copy had missed, now that its log is asked again: batch number `sent` of that shard.
    OwnHints { at: usize, sent: u64 },
    /// This core, which compares its shards with those of other members.
    Comparing,
    /// A peer.
    Peer(Job),
    /// A peer that wants no more than a digest.
    PeerDigest(Job),
}

/// Mailbox of one core: tasks push, the loop takes.
#[derive(Default)]
pub(crate) struct Arrivals(RefCell<Inner>);

#[derive(Default)]
struct Inner {
    items: Vec<(Asker, Reply)>,
    waiting: Option<Waker>,
}

impl Arrivals {
    pub(crate) fn push(&self, asker: Asker, reply: Reply) {
        let mut inner = self.0.borrow_mut();
        inner.items.push((asker, reply));
        if let Some(waker) = inner.waiting.take() {
            drop(inner);
            waker.wake();
        }
    }

    /// Moves everything to the end of `into`, oldest first.
    pub(crate) fn take(&self, into: &mut Vec<(Asker, Reply)>) {
        into.append(&mut self.0.borrow_mut().items);
    }

    /// Ready when something waits; otherwise wakes the task when it does.
    pub(crate) fn poll_any(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.0.borrow_mut();
        if !inner.items.is_empty() {
            return Poll::Ready(());
        }
        inner.waiting = Some(cx.waker().clone());
        Poll::Pending
    }
}
