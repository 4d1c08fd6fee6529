//! Simulators of the outside services, and what the end-to-end tests share.
//!
//! Each simulator speaks its service's public contract, refuses what the real service refuses, and records what it
//! saw. None of this is reachable from product code.

pub mod bench_bridge;
pub mod bench_edge;
pub mod bench_rollout;
pub mod cloudflare;
pub mod demo;
pub mod dev;
pub mod faults;
pub mod gate;
pub mod hosts;
pub mod latency;
pub mod openai;
pub mod python;
pub mod record;
pub mod shapes;
pub mod speech;
pub mod stack;
pub mod tandem;
pub mod tool_server;
pub mod twilio;
pub mod vapi;
