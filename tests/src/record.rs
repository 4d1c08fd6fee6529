//! A list of what a simulator saw, that tests can read and wait on.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

/// How long [`Record::wait`] waits. It guards against a hang; nothing is measured with it.
const WAIT_LIMIT: Duration = Duration::from_secs(20);

/// An append-only list shared between a simulator and its tests. Clones share the entries.
pub struct Record<T> {
    entries: Arc<Mutex<Vec<T>>>,
    changed: Arc<watch::Sender<u64>>,
}

impl<T> Clone for Record<T> {
    fn clone(&self) -> Self {
        Self { entries: Arc::clone(&self.entries), changed: Arc::clone(&self.changed) }
    }
}

impl<T> Default for Record<T> {
    fn default() -> Self {
        Self { entries: Arc::default(), changed: Arc::new(watch::Sender::new(0)) }
    }
}

impl<T: Clone> fmt::Debug for Record<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("entries", &self.all().len()).finish()
    }
}

impl<T: Clone> Record<T> {
    /// Appends an entry, wakes whoever waits, and returns the entry's position.
    pub fn push(&self, entry: T) -> usize {
        let position = {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            entries.push(entry);
            entries.len() - 1
        };
        self.changed.send_modify(|version| *version += 1);
        position
    }

    /// Changes the entry at `position`, for what becomes known later (an answer, an end).
    pub fn update(&self, position: usize, change: impl FnOnce(&mut T)) {
        if let Some(entry) = self.entries.lock().unwrap_or_else(PoisonError::into_inner).get_mut(position) {
            change(entry);
        }
        self.changed.send_modify(|version| *version += 1);
    }

    /// Changes the first entry that `matches`.
    pub fn update_first(&self, matches: impl Fn(&T) -> bool, change: impl FnOnce(&mut T)) {
        let position = self.entries.lock().unwrap_or_else(PoisonError::into_inner).iter().position(matches);
        if let Some(position) = position {
            self.update(position, change);
        }
    }

    /// A copy of the first entry that `matches`, if there is one already.
    pub fn find(&self, matches: impl Fn(&T) -> bool) -> Option<T> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().find(|entry| matches(entry)).cloned()
    }

    /// A copy of all entries so far, oldest first.
    pub fn all(&self) -> Vec<T> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `found` makes something of the entries, and returns it.
    ///
    /// # Panics
    /// When that has not happened within 20 seconds; `what` says what was awaited.
    pub async fn wait<R>(&self, what: &str, found: impl Fn(&[T]) -> Option<R>) -> R {
        let mut changes = self.changed.subscribe();
        let waiting = async {
            loop {
                // Marked as seen before looking, so that a change in between wakes us again.
                changes.borrow_and_update();
                let result = found(&self.entries.lock().unwrap_or_else(PoisonError::into_inner));
                if let Some(result) = result {
                    return result;
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let result = tokio::time::timeout(WAIT_LIMIT, waiting).await;
        result.unwrap_or_else(|_| panic!("not seen within {} s: {what}", WAIT_LIMIT.as_secs()))
    }

    /// Waits for the first entry that `matches`.
    pub async fn first(&self, what: &str, matches: impl Fn(&T) -> bool) -> T {
        self.wait(what, |entries| entries.iter().find(|e| matches(e)).cloned()).await
    }
}
