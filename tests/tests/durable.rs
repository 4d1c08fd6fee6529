//! What the origin does exactly once, mends by itself and brings back: the inbox, runs of tools, call records, the
//! reconciler, the replica and dead letters. The origin runs in this process, on a real Postgres, beside the simulated services.

#[path = "durable/answering.rs"]
mod answering;
#[path = "durable/audit.rs"]
mod audit;
#[path = "durable/call_records.rs"]
mod call_records;
#[path = "durable/dead_letters.rs"]
mod dead_letters;
#[path = "durable/explain.rs"]
mod explain;
#[path = "durable/inbox.rs"]
mod inbox;
#[path = "durable/providers.rs"]
mod providers;
#[path = "durable/reconcile.rs"]
mod reconcile;
#[path = "durable/replica.rs"]
mod replica;
#[path = "durable/tool_runs.rs"]
mod tool_runs;
#[path = "durable/world.rs"]
mod world;
