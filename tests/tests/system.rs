//! The whole system as a black box: real calls of a simulated Twilio through the Worker in workerd and the origin, with
//! Postgres, OpenAI and Vapi behind them. Nothing is looked at but HTTP answers, sockets, records and rows.
//!
//! A stack takes seconds to start, so each test starts one and plays many scenes in it.

#[path = "system/audio.rs"]
mod audio;
#[path = "system/backlog.rs"]
mod backlog;
#[path = "system/bridged.rs"]
mod bridged;
#[path = "system/decisions.rs"]
mod decisions;
#[path = "system/early.rs"]
mod early;
#[path = "system/handover.rs"]
mod handover;
#[path = "system/input.rs"]
mod input;
#[path = "system/leaving.rs"]
mod leaving;
#[path = "system/loss.rs"]
mod loss;
#[path = "system/outage.rs"]
mod outage;
#[path = "system/pointing.rs"]
mod pointing;
#[path = "system/records.rs"]
mod records;
#[path = "system/refusals.rs"]
mod refusals;
#[path = "system/resuming.rs"]
mod resuming;
#[path = "system/rotation.rs"]
mod rotation;
#[path = "system/sessions.rs"]
mod sessions;
#[path = "system/speech.rs"]
mod speech;
#[path = "system/steps.rs"]
mod steps;
#[path = "system/survival.rs"]
mod survival;
#[path = "system/switching.rs"]
mod switching;
#[path = "system/tokens.rs"]
mod tokens;
#[path = "system/tools.rs"]
mod tools;
#[path = "system/world.rs"]
mod world;
