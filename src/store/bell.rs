//! Pure. Wakes the one task that waits for something.
//!
//! The waiter checks its condition, then registers, in one poll; whoever changes the condition rings. On one
//! core nothing can happen in between, so no ring is lost. A ring with nobody waiting is forgotten: the
//! condition, not the bell, holds the state.

use std::cell::Cell;
use std::task::{Context, Waker};

/// One waiting place.
#[derive(Default)]
pub(crate) struct Bell {
    waiting: Cell<Option<Waker>>,
}

impl Bell {
    /// The task of `cx` is woken by the next ring. It replaces whoever waited before.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        let waker = match self.waiting.take() {
            Some(waker) if waker.will_wake(cx.waker()) => waker,
            _ => cx.waker().clone(),
        };
        self.waiting.set(Some(waker));
    }

    /// Wakes the waiting task, if there is one.
    pub(crate) fn ring(&self) {
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;

    use super::*;

    struct Sleeper;

    impl Wake for Sleeper {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn a_ring_reaches_the_waiter_once() {
        let sleeper = Arc::new(Sleeper);
        let waker = Waker::from(Arc::clone(&sleeper));
        let bell = Bell::default();
        bell.ring();
        bell.register(&Context::from_waker(&waker));
        bell.register(&Context::from_waker(&waker));
        // The test, its waker and the bell's one copy.
        assert_eq!(Arc::strong_count(&sleeper), 3);
        bell.ring();
        assert_eq!(Arc::strong_count(&sleeper), 2);
    }
}
