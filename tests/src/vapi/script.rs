//! What the simulated assistant does in a call, and what it makes of the caller.

use serde_json::Value;

use super::sound::tone;

/// The steps of a conversation, in order. After the last one the assistant only listens.
#[derive(Debug, Clone, Default)]
pub struct Script {
    pub(crate) steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Clone)]
pub enum Step {
    /// Speak.
    Say {
        /// The words, for the transcript.
        text: String,
        /// How they sound: mu-law, 8 kHz, no header.
        audio: Vec<u8>,
    },
    /// Wait until the caller has said something, whatever it was, and take it for these words.
    Hear {
        /// What the speech recognition comes up with.
        text: String,
    },
    /// Call a tool and wait for its result.
    Call {
        /// The function.
        name: String,
        /// Its arguments.
        arguments: Value,
    },
    /// End the call.
    HangUp,
}

impl Script {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Speaks `audio` (mu-law, 8 kHz).
    #[must_use]
    pub fn say(mut self, text: &str, audio: Vec<u8>) -> Self {
        self.steps.push(Step::Say { text: text.to_owned(), audio });
        self
    }

    /// Speaks a tone of `ms` in place of the words.
    #[must_use]
    pub fn beep(self, text: &str, ms: usize) -> Self {
        self.say(text, tone(ms))
    }

    /// Waits for the caller and understands `text`.
    #[must_use]
    pub fn hear(mut self, text: &str) -> Self {
        self.steps.push(Step::Hear { text: text.to_owned() });
        self
    }

    /// Calls a tool.
    #[must_use]
    pub fn call(mut self, name: &str, arguments: Value) -> Self {
        self.steps.push(Step::Call { name: name.to_owned(), arguments });
        self
    }

    /// Hangs up.
    #[must_use]
    pub fn hang_up(mut self) -> Self {
        self.steps.push(Step::HangUp);
        self
    }
}
