//! The people whom our side dials, with `<Dial>` or by creating a call.

use super::caller::Caller;

/// What happens when one number (or SIP address) is dialled.
#[derive(Clone, Debug)]
pub struct Callee {
    /// How long it rings before the outcome.
    pub ring_ms: u64,
    /// What then happens.
    pub outcome: Outcome,
    /// What they say and do on a call that REST created; without it they listen until `for_ms` is over.
    pub script: Option<Caller>,
}

/// How dialling ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Somebody answers and talks for so long.
    Answers {
        /// Milliseconds on the line.
        for_ms: u64,
    },
    /// The line is busy.
    Busy,
    /// Nobody answers until the `timeout` of the dialling side.
    NoAnswer,
    /// The number does not exist.
    Unreachable,
}

impl Callee {
    /// Answers after a second of ringing and talks for so long.
    pub fn answers_for_ms(for_ms: u64) -> Self {
        Self { ring_ms: 1000, outcome: Outcome::Answers { for_ms }, script: None }
    }

    /// Ends in this way after a second of ringing.
    pub fn with(outcome: Outcome) -> Self {
        Self { ring_ms: 1000, outcome, script: None }
    }

    pub(crate) fn script(&self) -> Caller {
        match (&self.script, self.outcome) {
            (Some(script), _) => script.clone(),
            (None, Outcome::Answers { for_ms }) => Caller::new().wait_ms(for_ms).hang_up(),
            (None, _) => Caller::new(),
        }
    }
}

impl Default for Callee {
    /// Who is dialled and not configured answers and talks for three seconds.
    fn default() -> Self {
        Self::answers_for_ms(3000)
    }
}
