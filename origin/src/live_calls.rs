//! Which calls are bridged by this process at this moment.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared::{CallId, CallSid};
use tokio_util::sync::CancellationToken;

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

    /// Whether a stream of this call is here.
    pub fn is_live(&self, call: CallId) -> bool {
        self.lock().contains_key(&call)
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

/// Tells the streams of a call that it is over, when somebody else learns of that first.
#[derive(Clone, Debug, Default)]
pub struct Endings(Arc<Mutex<HashMap<CallSid, (usize, CancellationToken)>>>);

/// A stream that is told.
#[derive(Debug)]
pub struct Told {
    endings: Endings,
    call: CallSid,
    /// Cancelled when the call is over.
    pub over: CancellationToken,
}

impl Endings {
    /// For a stream of this call, while it lives.
    #[must_use]
    pub fn enter(&self, call: CallSid) -> Told {
        let mut calls = self.lock();
        let (streams, over) = calls.entry(call.clone()).or_default();
        *streams += 1;
        let over = over.clone();
        Told { endings: self.clone(), call, over }
    }

    /// The call is over.
    pub fn tell(&self, call: &CallSid) {
        if let Some((_, over)) = self.lock().get(call) {
            over.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CallSid, (usize, CancellationToken)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let mut calls = self.endings.lock();
        if let Some((streams, _)) = calls.get_mut(&self.call) {
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

    #[test]
    fn every_stream_of_a_call_is_told_of_its_end() {
        let endings = Endings::default();
        let (here, other): (CallSid, CallSid) = ("CA01".parse().unwrap(), "CA02".parse().unwrap());
        let first = endings.enter(here.clone());
        let second = endings.enter(here.clone());
        let elsewhere = endings.enter(other);
        drop(first);
        endings.tell(&here);
        assert!(second.over.is_cancelled() && !elsewhere.over.is_cancelled());
        drop(second);
        assert_eq!(endings.lock().len(), 1);
    }
}
