//! Phone numbers: where Twilio sends their calls, buying them, taking them over, giving them back.

pub mod pointing;
