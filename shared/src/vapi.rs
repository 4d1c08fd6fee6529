//! Vapi's side of the contract: its server messages, how it proves itself, and the answers it needs.

pub mod answer;
pub mod auth;
pub mod message;

/// The webhook's path, on the edge and on the origin alike.
pub const WEBHOOK_PATH: &str = "/api/vapi/webhook";
