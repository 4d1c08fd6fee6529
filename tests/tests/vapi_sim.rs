//! The simulated Vapi, used as a router uses the real one.

#[path = "vapi_sim/api.rs"]
mod api;
#[path = "vapi_sim/calls.rs"]
mod calls;
#[path = "vapi_sim/delivery.rs"]
mod delivery;
#[path = "vapi_sim/receiver.rs"]
mod receiver;
