//! Clients of outside services: one module for each. They know the service's words and limits, and nothing of ours.

pub mod cloudflare;
pub mod openai;
pub mod twilio;
pub mod vapi;

use std::time::Duration;

use reqwest::header::RETRY_AFTER;

/// The longest wait that is taken at its word.
const LONGEST_WAIT: Duration = Duration::from_hours(1);

/// How long a service asks to wait, which all of ours say in seconds.
fn retry_after(response: &reqwest::Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
}
