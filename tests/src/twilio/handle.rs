//! A call as tests and people hold it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::call::{Call, CallStatus, Command};
use super::caller::Caller;
use super::dead_air::Gap;
use super::exchange::lock;
use super::line::Recording;
use super::sid::CallSid;
use super::stream::StreamFacts;
use super::trace::{EndReason, TraceEntry, What};

/// One call, live or over. Clones are the same call.
#[derive(Clone)]
pub struct CallHandle {
    call: Arc<Call>,
}

/// What was waited for did not happen in time; prints the call's trace.
pub struct NotInTime {
    trace: String,
}

impl fmt::Debug for NotInTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not in time; the call so far:\n{}", self.trace)
    }
}

impl fmt::Display for NotInTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::error::Error for NotInTime {}

impl CallHandle {
    pub(crate) fn new(call: Arc<Call>) -> Self {
        Self { call }
    }

    /// The call's id.
    pub fn sid(&self) -> &CallSid {
        &self.call.sid
    }

    /// Its `CallStatus`.
    pub fn status(&self) -> CallStatus {
        self.call.status()
    }

    /// When the call's clock was at zero: relates its times to those of other simulators of this process (divide
    /// by the `pace`).
    pub fn began_at(&self) -> std::time::Instant {
        self.call.clock.origin()
    }

    /// Everything that happened so far, in order.
    pub fn trace(&self) -> Vec<TraceEntry> {
        self.call.trace()
    }

    /// The trace, a line an entry.
    pub fn trace_text(&self) -> String {
        let lines: Vec<String> = self.trace().iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    /// The names of the verbs executed, in order.
    pub fn verbs(&self) -> Vec<String> {
        lock(&self.call.state).verbs.clone()
    }

    /// What Twilio itself said to the caller (`<Say>`, the application error), in order.
    pub fn said(&self) -> Vec<String> {
        lock(&self.call.state).said.clone()
    }

    /// Why the call is over, if it is.
    pub fn end_reason(&self) -> Option<EndReason> {
        lock(&self.call.state).ended.map(|(_, reason)| reason)
    }

    /// The streams of this call, in order, live ones included.
    pub fn streams(&self) -> Vec<StreamFacts> {
        let line = lock(&self.call.line);
        let mut streams = lock(&self.call.state).streams.clone();
        if let Some(live) = streams.last_mut().filter(|last| last.started_ms.is_some() && last.ended.is_none()) {
            live.chunks = line.playback.chunks().to_vec();
        }
        streams
    }

    /// The latest stream.
    pub fn stream(&self) -> Option<StreamFacts> {
        self.streams().pop()
    }

    /// Both sides of the call so far.
    pub fn recording(&self) -> Recording {
        lock(&self.call.line).recording().clone()
    }

    /// The longest run of dead air so far: silence on the answered call, from our side, unasked for, while
    /// the caller was not speaking. It begins with the answer, with the end of our sound or with the end
    /// of the caller's words, whichever is last, and ends with the next sound of either side; a `<Pause>`
    /// in it does not count and does not end it.
    pub fn dead_air_ms(&self) -> u64 {
        lock(&self.call.line).dead_air().longest_ms()
    }

    /// Every run of dead air of half a second and more.
    pub fn dead_air(&self) -> Vec<Gap> {
        lock(&self.call.line).dead_air().gaps()
    }

    /// The caller hangs up now.
    pub fn hang_up(&self) {
        self.call.command(Command::End(EndReason::CallerHungUp));
    }

    /// Adds steps to the end of the caller's script: `handle.then(Caller::new().say(words))`.
    pub fn then(&self, more: Caller) {
        lock(&self.call.line).direct(more);
    }

    /// Waits until the call is over and every callback about it has been delivered or has failed.
    /// `limit` is of the wall clock.
    pub async fn wait_ended(&self, limit: Duration) -> Result<EndReason, NotInTime> {
        let ended = tokio::time::timeout(limit, self.call.finished.cancelled()).await.is_ok();
        self.end_reason().filter(|_| ended).ok_or_else(|| self.not_in_time())
    }

    /// Waits until the trace holds what is looked for, and gives its first such entry.
    pub async fn wait_for(&self, limit: Duration, found: impl Fn(&What) -> bool) -> Result<TraceEntry, NotInTime> {
        let mut changes = self.call.changes();
        let search = async {
            loop {
                changes.mark_unchanged();
                if let Some(entry) = self.trace().into_iter().find(|entry| found(&entry.what)) {
                    return entry;
                }
                if changes.changed().await.is_err() {
                    // The sender lives in the call, which `self` holds.
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(limit, search).await.map_err(|_| self.not_in_time())
    }

    fn not_in_time(&self) -> NotInTime {
        NotInTime { trace: self.trace_text() }
    }
}
