//! One JSON line a decision. It names calls and agents; never a phone number, a secret or a body.

use serde::Serialize;

/// A line. What does not apply is left out.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Line<'a> {
    /// The webhook's path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<&'a str>,
    /// What was decided.
    pub decision: &'a str,
    /// Why a call is rejected, or the code of a problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// The sender's id of the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<&'a str>,
    /// The agent, if the replica named it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<shared::AgentId>,
    /// The event's idempotency key, when it had to be kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<&'a str>,
    /// How the look-up of the route went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica: Option<&'a str>,
    /// The origin's status; 0 when it could not be reached in time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<u16>,
    /// What went wrong, in the runtime's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<&'a str>,
    /// Which attempt at a kept event this was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The status answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How long it took, in milliseconds. The runtime's clock moves only with I/O.
    pub ms: u64,
}

impl Line<'_> {
    /// The line as it is printed.
    pub fn render(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_without_what_does_not_apply() {
        let line = Line { decision: "bridge", call: Some("CA01\n"), ms: 3, ..Line::default() };
        assert_eq!(line.render(), r#"{"decision":"bridge","call":"CA01\n","ms":3}"#);
    }
}
