//! Simulators.

pub mod hosts;
pub mod openai;
pub mod shapes;
pub mod speech;
pub mod stack;
pub mod twilio;
