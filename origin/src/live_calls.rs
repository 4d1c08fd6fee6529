//! Which calls are bridged by this process at this moment.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared::CallId;

/// The calls, each with how many streams it has here: a new one may open before the old one is gone.
#[derive(Clone, Debug, Default)]
pub struct LiveCalls(Arc<Mutex<HashMap<CallId, usize>>>);

/// A stream of a live call; the call counts as live until this is dropped.
#[derive(Debug)]
pub struct LiveStream {
    calls: LiveCalls,
    call: CallId,
}

impl LiveCalls {
    /// Notes that a stream of this call has opened.
    #[must_use]
    pub fn enter(&self, call: CallId) -> LiveStream {
        *self.lock().entry(call).or_default() += 1;
        LiveStream { calls: self.clone(), call }
    }

    /// The calls that are live.
    pub fn all(&self) -> Vec<CallId> {
        self.lock().keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CallId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LiveStream {
    fn drop(&mut self) {
        let mut calls = self.calls.lock();
        if let Some(streams) = calls.get_mut(&self.call) {
            *streams -= 1;
            if *streams == 0 {
                calls.remove(&self.call);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_call_is_live_until_its_last_stream_ends() {
        let (live, call) = (LiveCalls::default(), CallId(Uuid::nil()));
        let first = live.enter(call);
        let second = live.enter(call);
        drop(first);
        assert_eq!(live.all(), [call]);
        drop(second);
        assert_eq!(live.all(), []);
    }
}
