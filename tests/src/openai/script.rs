//! What the simulated model will say and do, and how fast.

use std::time::Duration;

use serde_json::Value;

use crate::speech::Clip;

/// One response of the model.
#[derive(Debug, Clone)]
pub struct Reply {
    pub(super) parts: Vec<Part>,
    pub(super) ending: Ending,
    pub(super) think: Option<Duration>,
    pub(super) pause: Option<Pause>,
    pub(super) cut_at_ms: Option<u64>,
}

/// One output item.
#[derive(Debug, Clone)]
pub(super) enum Part {
    Speech(Clip),
    Call { name: String, arguments: String },
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Pause {
    pub(super) at_ms: u64,
    pub(super) length: Duration,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Ending {
    Completed,
    Incomplete(&'static str),
    Failed { kind: String, code: Option<String>, message: String },
}

impl Reply {
    fn new(parts: Vec<Part>, ending: Ending) -> Self {
        Self { parts, ending, think: None, pause: None, cut_at_ms: None }
    }

    /// Speaks.
    pub fn speech(clip: Clip) -> Self {
        Self::new(vec![Part::Speech(clip)], Ending::Completed)
    }

    /// Calls a function. A model calls only what it was given: when the session has no tool of this name, the
    /// default reply is spoken instead and the session's record says so (`script_faults`).
    pub fn tool_call(name: &str, arguments: &Value) -> Self {
        Self::new(vec![], Ending::Completed).then_tool_call(name, arguments)
    }

    /// Fails with nothing said; the error is in `response.done` only, as the real service has it.
    pub fn failing(kind: &str, code: Option<&str>, message: &str) -> Self {
        Self::new(
            vec![],
            Ending::Failed { kind: kind.to_owned(), code: code.map(str::to_owned), message: message.to_owned() },
        )
    }

    /// The failure of the model itself.
    pub fn server_error() -> Self {
        let message = "The server had an error while processing your request. Sorry about that! \
                       Please contact us through our help center at help.openai.com if the error persists.";
        Self::failing("server_error", None, message)
    }

    /// The failure when the account's tokens of this minute are used up.
    pub fn rate_limited() -> Self {
        let message = "Rate limit reached for realtime model on tokens per min (TPM). Please try again in 2s.";
        Self::failing("rate_limit_error", Some("rate_limit_exceeded"), message)
    }

    /// Then speaks, as another audio item of the same response.
    #[must_use]
    pub fn then_speech(mut self, clip: Clip) -> Self {
        self.parts.push(Part::Speech(clip));
        self
    }

    /// Then calls a function in the same response.
    #[must_use]
    pub fn then_tool_call(mut self, name: &str, arguments: &Value) -> Self {
        self.parts.push(Part::Call { name: name.to_owned(), arguments: arguments.to_string() });
        self
    }

    /// Then calls a function with this text for its arguments, which a model may write badly.
    #[must_use]
    pub fn then_raw_tool_call(mut self, name: &str, arguments: &str) -> Self {
        self.parts.push(Part::Call { name: name.to_owned(), arguments: arguments.to_owned() });
        self
    }

    /// Does nothing at all, unless more is said of it.
    pub fn silence() -> Self {
        Self::new(vec![], Ending::Completed)
    }

    /// Ends like `other`, once this reply's own items are there.
    #[must_use]
    pub fn then_fails_like(mut self, other: Self) -> Self {
        self.ending = other.ending;
        self
    }

    /// Stops after so much audio, `incomplete` for this reason: `max_output_tokens` or `content_filter`.
    #[must_use]
    pub fn incomplete_at(mut self, audio_ms: u64, reason: &'static str) -> Self {
        self.cut_at_ms = Some(audio_ms);
        self.ending = Ending::Incomplete(reason);
        self
    }

    /// The first token takes so long.
    #[must_use]
    pub fn after(mut self, think: Duration) -> Self {
        self.think = Some(think);
        self
    }

    /// Generation stands still for a while after so much audio of the first item.
    #[must_use]
    pub fn pausing(mut self, at_ms: u64, length: Duration) -> Self {
        self.pause = Some(Pause { at_ms, length });
        self
    }

    pub(super) fn called_tools(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Call { name, .. } => Some(name.as_str()),
            Part::Speech(_) => None,
        })
    }
}

/// How fast things happen at the simulated service.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// From the beginning of a response to its first output.
    pub first_token: Duration,
    /// Audio is generated this many times as fast as it is played.
    pub times_real_time: f64,
    /// From a commit to the caller's transcript.
    pub transcription: Duration,
    /// From `speech_started` until the interrupted response stops: deltas sent meanwhile are late.
    pub interruption: Duration,
    /// From `session.update` to `session.updated`.
    pub session_update: Duration,
}

impl Default for Pace {
    /// Quick, for tests that run in real time; a real first token takes several times as long.
    fn default() -> Self {
        Self {
            first_token: Duration::from_millis(60),
            times_real_time: 4.0,
            transcription: Duration::from_millis(80),
            interruption: Duration::from_millis(30),
            session_update: Duration::ZERO,
        }
    }
}
