//! Pure. Answers of finished writes on their way from the shards of one core to that core's loop.

use std::cell::RefCell;
use std::task::{Context, Poll, Waker};

/// Outcome of one accepted write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// What the caller passed to `Store::write`.
    pub ticket: u64,
    pub result: Result<(), Failed>,
}

/// Why an accepted write was not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// The log failed under it: it may or may not be on disk. Never to be reported as "not written".
    Unknown,
    /// The disk is full and the write certainly is not on it.
    Full,
}

/// Mailbox of one core, shared by its shards. Plain cells: nothing crosses a thread here.
#[derive(Debug, Default)]
pub struct Completions {
    inner: RefCell<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    done: Vec<Done>,
    failure: Option<String>,
    waiting: Option<Waker>,
}

impl Completions {
    /// Adds one outcome; the loop is woken once for however many follow before it runs.
    pub(crate) fn push(&self, done: Done) {
        let mut inner = self.inner.borrow_mut();
        inner.done.push(done);
        if let Some(waker) = inner.waiting.take() {
            drop(inner);
            waker.wake();
        }
    }

    /// A shard cannot go on. The first reason is kept.
    pub(crate) fn fail(&self, why: String) {
        let mut inner = self.inner.borrow_mut();
        inner.failure.get_or_insert(why);
        if let Some(waker) = inner.waiting.take() {
            drop(inner);
            waker.wake();
        }
    }

    /// Why a shard of this core cannot go on: answer what can be answered, then end the process (exit 74). A
    /// restart recovers.
    pub fn failure(&self) -> Option<String> {
        self.inner.borrow().failure.clone()
    }

    /// Moves every outcome to the end of `into`, oldest first.
    pub fn take(&self, into: &mut Vec<Done>) {
        into.append(&mut self.inner.borrow_mut().done);
    }

    /// Ready when an outcome waits or a shard has failed; otherwise wakes the task when that happens.
    pub fn poll_any(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.inner.borrow_mut();
        if !inner.done.is_empty() || inner.failure.is_some() {
            return Poll::Ready(());
        }
        inner.waiting = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_keep_their_order_and_are_taken_once() {
        let box_ = Completions::default();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(box_.poll_any(&mut cx).is_pending());
        box_.push(Done {
            ticket: 1,
            result: Ok(()),
        });
        box_.push(Done {
            ticket: 2,
            result: Err(Failed::Unknown),
        });
        assert!(box_.poll_any(&mut cx).is_ready());
        let mut got = Vec::new();
        box_.take(&mut got);
        box_.take(&mut got);
        assert_eq!(
            got.iter().map(|done| done.ticket).collect::<Vec<_>>(),
            [1, 2]
        );
        assert!(box_.poll_any(&mut cx).is_pending());
    }
}
