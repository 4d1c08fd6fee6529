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
    /// Notes that a stream of this call has opened. `None`: as many calls as `limit` allows are live already.
    #[must_use]
    pub fn enter(&self, call: CallId, limit: Option<usize>) -> Option<LiveStream> {
        let mut calls = self.lock();
        if !has_room(&calls, call, limit) {
            return None;
        }
        *calls.entry(call).or_default() += 1;
        Some(LiveStream { calls: self.clone(), call })
    }

    /// Whether a stream of this call would be let in.
    pub fn has_room(&self, call: CallId, limit: Option<usize>) -> bool {
        has_room(&self.lock(), call, limit)
    }

    /// The calls that are live.
    pub fn all(&self) -> Vec<CallId> {
        self.lock().keys().copied().collect()
    }

    /// How many calls are live.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CallId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn has_room(calls: &HashMap<CallId, usize>, call: CallId, limit: Option<usize>) -> bool {
    calls.contains_key(&call) || limit.is_none_or(|limit| calls.len() < limit)
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
        let first = live.enter(call, None);
        let second = live.enter(call, None);
        drop(first);
        assert_eq!(live.all(), [call]);
        drop(second);
        assert_eq!(live.all(), []);
    }

    #[test]
    fn the_limit_is_of_calls_and_lets_a_live_one_have_another_stream() {
        let live = LiveCalls::default();
        let (here, other) = (CallId(Uuid::nil()), CallId(Uuid::max()));
        let first = live.enter(here, Some(1));
        assert!(first.is_some() && live.enter(here, Some(1)).is_some());
        assert!(live.enter(other, Some(1)).is_none() && !live.has_room(other, Some(1)));
        drop(first);
        assert!(live.enter(other, Some(1)).is_some());
    }
}
