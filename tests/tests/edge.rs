//! The Worker as it will run, in workerd: what it answers by itself, what it forwards, and what becomes of an event
//! that the origin does not take. The origin is the test's own and checks the edge's signature on every request.

#[path = "edge/consumer.rs"]
mod consumer;
#[path = "edge/dead_letters.rs"]
mod dead_letters;
#[path = "edge/events.rs"]
mod events;
#[path = "edge/metrics.rs"]
mod metrics;
#[path = "edge/origin.rs"]
mod origin;
#[path = "edge/refusals.rs"]
mod refusals;
#[path = "edge/survival.rs"]
mod survival;
#[path = "edge/vapi.rs"]
mod vapi;
#[path = "edge/voice.rs"]
mod voice;
#[path = "edge/world.rs"]
mod world;
