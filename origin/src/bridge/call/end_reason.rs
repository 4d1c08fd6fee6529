//! Why a stream ends, and whether the phone call ends with it.

use crate::bridge::sessions::Unavailable;

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Twilio said that the call is over.
    CallerHungUp,
    /// Twilio's socket went without a word; the call may be alive.
    StreamLost,
    /// There is no session to be had; the call is alive and has to go elsewhere.
    ModelUnavailable(Unavailable),
    /// This process stops; another takes the call up.
    HandedOver,
    /// The agent said goodbye and ended it.
    AgentHungUp,
    /// Nobody said anything for too long.
    Silence,
    /// It had lasted as long as it may.
    MaxDuration,
    /// The caller is put through to somebody; the call is alive.
    Transferring,
    /// Keys are pressed, and then the call goes on.
    PressingKeys,
    /// Somebody else has told that the call is over.
    CallOver,
}

impl EndReason {
    /// The word that stands in records and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CallerHungUp => "caller_hung_up",
            Self::StreamLost => "stream_lost",
            Self::ModelUnavailable(why) => why.as_str(),
            Self::HandedOver => "handed_over",
            Self::AgentHungUp => "agent_hung_up",
            Self::Silence => "silence",
            Self::MaxDuration => "max_duration",
            Self::Transferring => "transferring",
            Self::PressingKeys => "pressing_keys",
            Self::CallOver => "call_over",
        }
    }

    /// Whether the phone call is over as well; otherwise Twilio asks how to go on.
    pub const fn ends_call(self) -> bool {
        matches!(self, Self::CallerHungUp) || self.hangs_up()
    }

    /// Whether it is we who end the phone call.
    pub const fn hangs_up(self) -> bool {
        matches!(self, Self::AgentHungUp | Self::Silence | Self::MaxDuration)
    }
}
