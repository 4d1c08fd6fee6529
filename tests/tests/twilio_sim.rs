//! The Twilio simulator does to a server what Twilio does: checked with small servers as "our side".

#[path = "twilio_sim/calls.rs"]
mod calls;
#[path = "twilio_sim/our_side.rs"]
mod our_side;
#[path = "twilio_sim/rest.rs"]
mod rest;
#[path = "twilio_sim/shapes.rs"]
mod shapes;
#[path = "twilio_sim/streams.rs"]
mod streams;
#[path = "twilio_sim/webhooks.rs"]
mod webhooks;
