//! What happens in a call beside the session itself: who speaks first, how long it lasts, what ends it.
//!
//! OpenAI's sessions have no fields for most of this; it is the bridge's business. Every rule is optional, and without it
//! the bridge does as it always did.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An agent's rules for its calls.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct CallRules {
    /// Who begins; `None`: the agent if it has a greeting, else the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_message: Option<FirstMessage>,
    /// Whether the caller can interrupt what the agent says first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_message_interruptible: Option<bool>,
    /// A conversation that the call begins with, as if it had been said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub opening: Vec<OpeningItem>,
    /// When the call is ended whatever is being said, in seconds from its first audio: 10 to 43,200.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 10, maximum = 43_200)]
    pub max_duration_seconds: Option<u32>,
    /// After how much silence of the caller the call is ended, in seconds: 5 to 3,600.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 5, maximum = 3_600)]
    pub silence_timeout_seconds: Option<u32>,
    /// What is said to a caller who says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Idle>,
    /// What the agent says before it ends the call; `None`: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_call_message: Option<String>,
    /// Phrases of the agent, in any case, after which the call is ended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub end_call_phrases: Vec<String>,
    /// How many words the caller says before the agent falls silent, reckoned by the length of the speech; 0: it does at
    /// the first sound. At most 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 10)]
    pub interrupt_after_words: Option<u32>,
    /// How keys that the caller presses are gathered; `None`: until a short pause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keypad: Option<Keypad>,
    /// `off`, `office`, or the URL of a sound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub background_sound: Option<String>,
    /// Whether the call is recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recording: Option<bool>,
    /// How much a reasoning model thinks; `None`: OpenAI's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_effort: Option<ReasoningEffort>,
}

/// Who begins a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FirstMessage {
    /// The agent, with its greeting.
    Greeting,
    /// The agent, in its own words.
    Generated,
    /// The caller.
    Caller,
}

/// One thing that a call begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OpeningItem {
    /// Who says it.
    pub role: OpeningRole,
    /// The words.
    pub text: String,
}

/// Who says a thing that a call begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OpeningRole {
    /// The caller.
    Caller,
    /// The agent.
    Assistant,
}

/// What is said to a caller who says nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Idle {
    /// After how much silence, in milliseconds: 2,000 to 1,000,000.
    #[schema(minimum = 2_000, maximum = 1_000_000)]
    pub after_ms: u32,
    /// How often in one call, at most.
    pub times: u32,
    /// What is said, one after another.
    pub messages: Vec<String>,
}

/// How keys are gathered to one entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Keypad {
    /// How long after the last key the entry is complete, in milliseconds; `None`: only a delimiter completes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u32>,
    /// The keys that complete an entry: any of `#` and `*`, or none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub delimiters: String,
}

/// How much a reasoning model thinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "OpenAI's words, and all there is to say")]
pub enum ReasoningEffort {
    Minimal,
    Low,
    Medium,
    High,
    Xhigh,
}

impl CallRules {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is out of range, each with the field's name.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut within = |name: &str, value: Option<u32>, least: u32, most: u32| {
            if value.is_some_and(|value| !(least..=most).contains(&value)) {
                faults.push(format!("call.{name} must be {least} to {most}"));
            }
        };
        within("maxDurationSeconds", self.max_duration_seconds, 10, 43_200);
        within("silenceTimeoutSeconds", self.silence_timeout_seconds, 5, 3_600);
        within("interruptAfterWords", self.interrupt_after_words, 0, 10);
        within("idle.afterMs", self.idle.as_ref().map(|idle| idle.after_ms), 2_000, 1_000_000);
        within("idle.times", self.idle.as_ref().map(|idle| idle.times), 1, 100);
        within("keypad.timeoutMs", self.keypad.as_ref().and_then(|keypad| keypad.timeout_ms), 0, 60_000);
        if self.idle.as_ref().is_some_and(|idle| idle.messages.is_empty()) {
            faults.push("call.idle.messages must hold a message".to_owned());
        }
        if self.keypad.as_ref().is_some_and(|keypad| !keypad.delimiters.chars().all(|key| matches!(key, '#' | '*'))) {
            faults.push("call.keypad.delimiters must be of # and *".to_owned());
        }
        if self.end_call_phrases.iter().any(|phrase| phrase.trim().is_empty()) {
            faults.push("call.endCallPhrases must not hold an empty phrase: it would end every call".to_owned());
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rules_are_nothing_and_nothing_is_no_rules() {
        let none: CallRules = serde_json::from_str(r#"{"fromTheFuture":1}"#).unwrap();
        assert!(none.is_empty());
        assert_eq!(serde_json::to_string(&none).unwrap(), "{}");
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let rules: CallRules = serde_json::from_str(
            r#"{"maxDurationSeconds":5,"interruptAfterWords":11,"endCallPhrases":[" "],"keypad":{"delimiters":"A"},
                "idle":{"afterMs":7500,"times":3,"messages":[]}}"#,
        )
        .unwrap();
        assert_eq!(rules.faults().len(), 5, "{:?}", rules.faults());
        let rules: CallRules =
            serde_json::from_str(r##"{"maxDurationSeconds":600,"keypad":{"delimiters":"#"}}"##).unwrap();
        assert_eq!(rules.faults(), [""; 0]);
    }
}
