//! Builders of every server message, as JSON bodies ready to be posted. No I/O, and the time is an argument.
//!
//! The shapes follow the official SDK's types, with what real deliveries add or do differently.

mod events;
mod report;
mod requests;

pub use events::*;
pub use report::*;
pub use requests::*;

/// The events that an assistant without `serverMessages` sends: these eleven, not none.
pub const DEFAULT_SERVER_MESSAGES: [&str; 11] = [
    "conversation-update",
    "end-of-call-report",
    "function-call",
    "hang",
    "speech-update",
    "status-update",
    "tool-calls",
    "transfer-destination-request",
    "handoff-destination-request",
    "user-interrupted",
    "assistant.started",
];

/// The message types whose answer Vapi uses.
pub const ANSWERED: [&str; 8] = [
    "assistant-request",
    "tool-calls",
    "transfer-destination-request",
    "handoff-destination-request",
    "knowledge-base-request",
    "voice-request",
    "call.endpointing.request",
    "campaign.predial",
];

/// `message.type` of a body.
pub fn message_type(body: &serde_json::Value) -> &str {
    body["message"]["type"].as_str().unwrap_or_default()
}
