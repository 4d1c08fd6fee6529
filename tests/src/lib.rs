//! Simulators.

pub mod hosts;
