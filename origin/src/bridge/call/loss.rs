//! The session at OpenAI is of no more use.

use super::{Action, Call, EndReason, Millis};
use crate::bridge::openai::ErrorBody;

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// The socket is gone, or the session is over its time: another one may be had.
    Gone,
    /// Response after response failed: another session may do better.
    Spoiled,
    /// OpenAI wants no calls of ours, for quota or key: another session would fail alike.
    Refused,
}

impl Loss {
    /// What a fatal error means.
    pub(super) fn of(error: &ErrorBody) -> Self {
        if error.word() == "session_expired" { Self::Gone } else { Self::Refused }
    }
}

impl Call {
    /// The one place that decides how a call goes on without its session.
    pub(super) fn model_lost(&mut self, now: Millis, _loss: Loss, out: &mut Vec<Action>) {
        self.end(now, EndReason::ModelLost, out);
    }
}
