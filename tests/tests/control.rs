//! The control plane against a real Postgres: the schema, switching an agent over HTTP, and replication to a store that
//! fails in every way Cloudflare's does.

#[path = "control/agents_api.rs"]
mod agents_api;
#[path = "control/audit.rs"]
mod audit;
#[path = "control/calls.rs"]
mod calls;
#[path = "control/contract.rs"]
mod contract;
#[path = "control/every_operation.rs"]
mod every_operation;
#[path = "control/first_steps.rs"]
mod first_steps;
#[path = "control/fleet.rs"]
mod fleet;
#[path = "control/frame.rs"]
mod frame;
#[path = "control/guard.rs"]
mod guard;
#[path = "control/harness.rs"]
mod harness;
#[path = "control/kv.rs"]
mod kv;
#[path = "control/migrations.rs"]
mod migrations;
#[path = "control/numbers.rs"]
mod numbers;
#[path = "control/numbers_api.rs"]
mod numbers_api;
#[path = "control/operations.rs"]
mod operations;
#[path = "control/pointing.rs"]
mod pointing;
#[path = "control/purchase_crashes.rs"]
mod purchase_crashes;
#[path = "control/records_api.rs"]
mod records_api;
#[path = "control/replication.rs"]
mod replication;
#[path = "control/rollout_exact.rs"]
mod rollout_exact;
#[path = "control/rollout_numbers.rs"]
mod rollout_numbers;
#[path = "control/rollout_outlook.rs"]
mod rollout_outlook;
#[path = "control/rollouts.rs"]
mod rollouts;
#[path = "control/rollouts_api.rs"]
mod rollouts_api;
#[path = "control/system_type_api.rs"]
mod system_type_api;
#[path = "control/tools_api.rs"]
mod tools_api;
#[path = "control/watch.rs"]
mod watch;
