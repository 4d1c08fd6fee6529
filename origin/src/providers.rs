//! Clients of outside services: one module for each. They know the service's words and limits, and nothing of ours.

pub mod cloudflare;
pub mod openai;
pub mod twilio;
pub mod vapi;
