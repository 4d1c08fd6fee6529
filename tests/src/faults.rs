//! Faults on command: a simulator asks here, once a request, whether it should misbehave.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Faults waiting to happen, one per request, in the order they were ordered. Clones share the queue.
#[derive(Debug)]
pub struct Faults<F> {
    queue: Arc<Mutex<VecDeque<F>>>,
}

impl<F> Clone for Faults<F> {
    fn clone(&self) -> Self {
        Self { queue: Arc::clone(&self.queue) }
    }
}

impl<F> Default for Faults<F> {
    fn default() -> Self {
        Self { queue: Arc::default() }
    }
}

impl<F: Clone> Faults<F> {
    /// The next `n` requests meet `fault`, after those already ordered.
    pub fn next(&self, n: usize, fault: F) {
        self.lock().extend(std::iter::repeat_n(fault, n));
    }

    /// Takes back what was ordered and has not happened.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// The fault for the request at hand, if one was ordered and it is of a kind that `applies` to it.
    pub(crate) fn take_if(&self, applies: impl Fn(&F) -> bool) -> Option<F> {
        let mut queue = self.lock();
        if queue.front().is_some_and(applies) { queue.pop_front() } else { None }
    }

    /// The fault was taken, but the request failed for another reason: the next one meets it.
    pub(crate) fn put_back(&self, fault: F) {
        self.lock().push_front(fault);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<F>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
