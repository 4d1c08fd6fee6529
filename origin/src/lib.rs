//! The origin: webhooks, the control plane, the media bridge, jobs and commands.
//!
//! Read the migrations first, then `main.rs`, then this file. Inside, things point one way: `http` to the domain
//! (`switching`, `replication`), and that to `store`, `providers` and `jobs`.

pub mod config;
pub mod keys;
pub mod store;
pub mod telemetry;
