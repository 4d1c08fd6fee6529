//! What edge and origin must agree on: words, routes, decisions, signatures, tokens and messages.
//!
//! Everything here is pure: no I/O, no clock, no randomness. Time comes in as an argument, so the same code and
//! the same tests run on the host and in the Worker's wasm.
//!
//! Not here: how a webhook is received or forwarded (`edge`, `origin`), and anything that needs the database.

pub mod dead_letter;
pub mod decision;
pub mod hmac;
pub mod hop;
pub mod ids;
pub mod route;
pub mod stream_token;
pub mod system_type;
pub mod twilio;
pub mod vapi;

pub use ids::{AccountSid, AgentId, AssistantId, CallId, CallSid, E164, NumberId, ProjectId, ToolId, VapiCallId};
pub use system_type::SystemType;
