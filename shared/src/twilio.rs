//! Twilio's side of the contract: the form it posts, how it signs, and the TwiML it is answered with.

pub mod answer;
pub mod form;
pub mod signature;
pub mod twiml;
pub mod webhook;
