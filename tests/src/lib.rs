//! Simulators.

pub mod hosts;
pub mod shapes;
pub mod speech;
