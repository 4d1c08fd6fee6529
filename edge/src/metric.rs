//! What is counted: one data point a request in the dataset behind the binding `METRICS`, if there is one. It names what
//! was decided, never a caller, a call or an agent.

use shared::twilio::answer::path;
use shared::vapi;

/// One request. Health checks are not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// What was decided, as in the log.
    pub decision: &'static str,
    /// The webhook's path if it is one of ours, else `other`: anybody can make up paths.
    pub webhook: &'static str,
    /// Why a call is rejected, or the code of a problem; else empty.
    pub reason: &'static str,
    /// The status answered.
    pub status: u16,
    /// How long it took, in milliseconds.
    pub ms: u64,
}

/// A path as it is counted.
pub fn webhook(requested: &str) -> &'static str {
    [path::VOICE, path::RESUME, path::STATUS, path::STREAM_STATUS, vapi::WEBHOOK_PATH]
        .into_iter()
        .find(|known| *known == requested)
        .unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_ours_are_told_apart() {
        assert_eq!(webhook("/twilio/voice"), "/twilio/voice");
        assert_eq!(webhook("/api/vapi/webhook"), "/api/vapi/webhook");
        assert_eq!(webhook("/twilio/+15550100"), "other");
    }
}
