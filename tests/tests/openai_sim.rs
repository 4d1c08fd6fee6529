//! The simulator of OpenAI Realtime behaves as the real service does: seen through a plain WebSocket client,
//! in (short) real time, and held against the official SDK's types.

#[path = "openai_sim/client.rs"]
mod client;
#[path = "openai_sim/faults.rs"]
mod faults;
#[path = "openai_sim/responses.rs"]
mod responses;
#[path = "openai_sim/settings.rs"]
mod settings;
#[path = "openai_sim/shapes.rs"]
mod shapes;
#[path = "openai_sim/strictness.rs"]
mod strictness;
#[path = "openai_sim/turns.rs"]
mod turns;
