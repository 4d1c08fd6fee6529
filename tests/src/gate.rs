//! Requests that are held: a simulator stops at one until the test has seen it there, and lets it go or cuts it off.

use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// Where a request is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// It has had no effect yet. If the sender goes away, it never will.
    Before,
    /// It has had its effect, and is not answered.
    After,
}

/// Gates waiting for their requests. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gates(Arc<Mutex<Vec<Gate>>>);

#[derive(Clone, Debug)]
struct Gate {
    when: When,
    method: &'static str,
    path: &'static str,
    reached: CancellationToken,
    open: CancellationToken,
}

/// A gate for one request. Dropped, it lets it through.
#[derive(Debug)]
pub struct Held {
    reached: CancellationToken,
    open: CancellationToken,
}

impl Held {
    /// Waits until the request stands there.
    pub async fn reached(&self) {
        self.reached.cancelled().await;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.open.cancel();
    }
}

impl Gates {
    /// Holds the next request with this method whose path begins so.
    pub(crate) fn hold(&self, when: When, method: &'static str, path: &'static str) -> Held {
        let (reached, open) = (CancellationToken::new(), CancellationToken::new());
        let gate = Gate { when, method, path, reached: reached.clone(), open: open.clone() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(gate);
        Held { reached, open }
    }

    /// The gate of the request at hand, if there is one.
    pub(crate) fn take(&self, method: &str, path: &str) -> Passing {
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        gates.retain(|gate| !gate.open.is_cancelled());
        let position = gates.iter().position(|gate| gate.method == method && path.starts_with(gate.path));
        Passing(position.map(|position| gates.remove(position)))
    }
}

/// A request on its way through a gate, or none.
pub(crate) struct Passing(Option<Gate>);

impl Passing {
    /// Stands at the gate, if this is where it is.
    pub(crate) async fn stop(&self, when: When) {
        if let Some(gate) = self.0.as_ref().filter(|gate| gate.when == when) {
            gate.reached.cancel();
            gate.open.cancelled().await;
        }
    }
}
