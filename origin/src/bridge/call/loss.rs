//! The session at OpenAI is of no more use.

use super::{Action, Call, EndReason, Millis, Phase};
use crate::bridge::openai::ErrorBody;
use crate::bridge::sessions::Unavailable;

/// How much loss without an answer in between a call bears before it goes elsewhere.
const LOSSES_LIMIT: u32 = 4;

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// The socket is gone, or the session is over its time: another one may be had.
    Gone,
    /// Response after response failed: another session may do better.
    Spoiled,
    /// OpenAI wants no calls of ours, for quota or key: another session would fail alike.
    Refused(Unavailable),
}

impl Loss {
    /// What an error of OpenAI's means for the session; `None`: it goes on.
    pub(super) fn of(error: &ErrorBody) -> Option<Self> {
        match error.word() {
            "session_expired" => Some(Self::Gone),
            code => Unavailable::of_code(code).map(Self::Refused),
        }
    }

    /// How much of what a call bears.
    const fn weight(self) -> u32 {
        match self {
            Self::Gone | Self::Refused(_) => 1,
            // By then the caller has waited for three responses.
            Self::Spoiled => 2,
        }
    }
}

impl Call {
    /// The one place that decides how a call goes on without its session: with another one, or elsewhere.
    pub(super) fn model_lost(&mut self, now: Millis, loss: Loss, out: &mut Vec<Action>) {
        self.losses += loss.weight();
        match loss {
            Loss::Refused(why) => self.end(now, EndReason::ModelUnavailable(why), out),
            _ if self.losses >= LOSSES_LIMIT => {
                self.end(now, EndReason::ModelUnavailable(Unavailable::Failing), out);
            }
            Loss::Gone | Loss::Spoiled => {
                self.let_session_go(now, out);
                self.phase = Phase::Opening;
                out.push(Action::OpenSession);
            }
        }
    }
}
