//! What a session saw and did, for assertions.

use std::time::Duration;

use serde_json::Value;

use super::errors::ApiError;

/// Everything of note in one session. Times count from its beginning.
#[derive(Debug, Default)]
pub struct Record {
    /// What the client sent.
    pub received: Vec<Logged>,
    /// What the server sent.
    pub sent: Vec<Logged>,
    /// Every `error` event, with the `event_id` of the client event that caused it.
    pub errors: Vec<(ApiError, Option<String>)>,
    /// Every response that is over.
    pub responses: Vec<Finished>,
    /// Audio that arrived at 8 bytes a millisecond while the input format was not `audio/pcmu`: telephone
    /// audio that a bridge sent too early and that was heard as noise.
    pub misinterpreted_ms: u64,
    /// Replies that could not be given, such as a call of a tool that the session does not have.
    pub script_faults: Vec<String>,
    /// How the session ended.
    pub closed: Option<Closed>,
}

/// An event, or a run of equal ones: appended audio and deltas are counted, not kept.
#[derive(Debug, Clone)]
pub struct Logged {
    /// When the first of them came.
    pub at: Duration,
    /// When the last of them came.
    pub last_at: Duration,
    /// The event's `type`.
    pub kind: String,
    /// How many.
    pub count: usize,
    /// The event; null for appended audio and deltas.
    pub event: Value,
}

/// A response that is over.
#[derive(Debug, Clone)]
pub struct Finished {
    /// `resp_...`
    pub id: String,
    /// `completed`, `cancelled`, `failed` or `incomplete`.
    pub status: String,
    /// `turn_detected`, `client_cancelled`, ...
    pub reason: Option<String>,
    /// As the client gave it; null for responses that turn detection made.
    pub metadata: Value,
    /// Its output items.
    pub item_ids: Vec<String>,
}

/// Who ended the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// The client, with a close frame, or without (1005 for an empty one, 1006 for none).
    ByClient(u16),
    /// The simulator (1006 for a drop without a close frame).
    ByServer(u16),
}

impl Record {
    pub(super) fn log_received(&mut self, at: Duration, event: &Value) {
        log(&mut self.received, at, event);
    }

    pub(super) fn log_sent(&mut self, at: Duration, event: &Value) {
        log(&mut self.sent, at, event);
    }

    /// The received events of a type, in order.
    pub fn received(&self, kind: &str) -> Vec<&Value> {
        self.received.iter().filter(|logged| logged.kind == kind).map(|logged| &logged.event).collect()
    }

    /// The codes of the errors sent, in order.
    pub fn error_codes(&self) -> Vec<&str> {
        self.errors.iter().map(|(error, _)| error.code.as_deref().unwrap_or("")).collect()
    }

    /// One line for messages: the types of all events, received ones marked `>`, sent ones `<`.
    pub fn summary(&self) -> String {
        let mut lines: Vec<(Duration, String)> = Vec::new();
        for (mark, log) in [('>', &self.received), ('<', &self.sent)] {
            lines.extend(log.iter().map(|logged| {
                let times = if logged.count > 1 { format!(" x{}", logged.count) } else { String::new() };
                (logged.at, format!("{mark} {}{times}", logged.kind))
            }));
        }
        lines.sort_by_key(|line| line.0);
        lines.into_iter().map(|line| line.1).collect::<Vec<_>>().join(", ")
    }
}

fn log(log: &mut Vec<Logged>, at: Duration, event: &Value) {
    let kind = event["type"].as_str().unwrap_or("(none)");
    let is_bulk = kind == "input_audio_buffer.append" || kind.rsplit('.').next() == Some("delta");
    match log.last_mut() {
        Some(last) if is_bulk && last.kind == kind => {
            last.count += 1;
            last.last_at = at;
        }
        _ => log.push(Logged {
            at,
            last_at: at,
            kind: kind.to_owned(),
            count: 1,
            event: if is_bulk { Value::Null } else { event.clone() },
        }),
    }
}
