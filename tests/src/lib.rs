//! Simulators.

pub mod hosts;
pub mod speech;
