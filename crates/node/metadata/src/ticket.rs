//! Tickets: how the outcome of a submitted batch comes back, to threads and to async tasks alike.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::StoreError;

#[derive(Default)]
struct Slot {
    outcome: Option<Result<(), StoreError>>,
    waker: Option<Waker>,
}

#[derive(Default)]
struct Shared {
    slot: Mutex<Slot>,
    done: Condvar,
}

impl Shared {
    /// A panic elsewhere cannot leave the slot half-written: each lock covers one assignment.
    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The outcome of one batch, some time. It is a [`Future`] of no particular runtime; threads call [`Ticket::wait`].
/// Dropping it does not undo the batch.
#[must_use = "a batch is durable only when its ticket says so"]
pub struct Ticket(Arc<Shared>);

/// The other half, held by the writer thread. Dropped without an outcome it reports that the store closed.
pub(crate) struct Promise(Arc<Shared>);

pub(crate) fn ticket() -> (Promise, Ticket) {
    let shared = Arc::new(Shared::default());
    (Promise(shared.clone()), Ticket(shared))
}

impl Ticket {
    /// Blocks until the batch is on disk or has failed.
    pub fn wait(self) -> Result<(), StoreError> {
        let mut slot = self.0.slot();
        loop {
            if let Some(outcome) = slot.outcome.take() {
                return outcome;
            }
            slot = self.0.done.wait(slot).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Future for Ticket {
    type Output = Result<(), StoreError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.0.slot();
        match slot.outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                slot.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Promise {
    pub(crate) fn keep(self, outcome: Result<(), StoreError>) {
        self.set(outcome);
    }

    fn set(&self, outcome: Result<(), StoreError>) {
        let mut slot = self.0.slot();
        slot.outcome = Some(outcome);
        let waker = slot.waker.take();
        drop(slot);
        self.0.done.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if Arc::strong_count(&self.0) > 1 && self.0.slot().outcome.is_none() {
            self.set(Err(StoreError::Closed));
        }
    }
}
