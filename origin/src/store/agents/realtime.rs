//! How an agent runs on OpenAI Realtime; the column `agents.realtime`.
//!
//! The names are ours, the values OpenAI's. Turning this into a `session.update` is the bridge's business. Fields that
//! a newer version wrote are ignored, so that an older one can still take calls.

pub mod call;
pub mod mcp;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::call::CallRules;
pub use self::mcp::McpServer;
use crate::store::StoreError;

/// OpenAI's own voices of realtime sessions. Source: the official SDK's types.
pub const VOICES: [&str; 10] =
    ["alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar"];
/// What a custom voice's id begins with.
const CUSTOM_VOICE: &str = "voice_";
/// OpenAI's limit on the transcription's prompt, in characters.
const MOST_PROMPT: usize = 1_024;
/// Far more than a transcription model makes use of.
const MOST_KEYWORDS: usize = 1_000;
/// Transcription models that take keywords.
const WITH_KEYWORDS: [&str; 2] = ["gpt-transcribe", "gpt-live-transcribe"];
/// The transcription model that works without turn detection only, which no phone call can do without.
const WITHOUT_TURNS: &str = "gpt-realtime-whisper";

/// An agent's settings on OpenAI Realtime.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RealtimeSettings {
    /// A realtime model; `None`: the origin's `OPENAI_MODEL`.
    #[serde(default)]
    #[schema(pattern = "^[A-Za-z0-9._-]{1,100}$")]
    pub model: Option<String>,
    /// One of OpenAI's voices, such as `marin`, or the id of a custom one.
    #[schema(pattern = "^(alloy|ash|ballad|coral|echo|sage|shimmer|verse|marin|cedar|voice_[A-Za-z0-9_-]+)$")]
    pub voice: String,
    /// Speaking rate, 0.25 to 1.5.
    #[serde(default = "normal_speed")]
    #[schema(minimum = 0.25, maximum = 1.5)]
    pub speed: f64,
    /// How the end of the caller's turn is found.
    #[serde(default)]
    pub turn_detection: TurnDetection,
    /// Noise reduction on the caller's audio, before anything else hears it; `None`: off.
    #[serde(default)]
    pub noise_reduction: Option<NoiseReduction>,
    /// Transcription of the caller; `None`: off, and then a lost session cannot be rebuilt.
    #[serde(default)]
    pub transcription: Option<Transcription>,
    /// Servers of tools that OpenAI calls itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mcp_servers: Vec<McpServer>,
    /// What happens in a call beside the session.
    #[serde(default, skip_serializing_if = "CallRules::is_empty")]
    pub call: CallRules,
}

impl RealtimeSettings {
    /// What is out of range, each with the field's name; none: OpenAI and the bridge can work with it.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.model.as_ref().is_some_and(|model| !is_model_name(model)) {
            faults.push("model must be the name of a realtime model, such as gpt-realtime-2.1".to_owned());
        }
        if !VOICES.contains(&self.voice.as_str()) && !is_custom_voice(&self.voice) {
            faults.push(format!("voice must be one of {}, or the id of a custom one", VOICES.join(", ")));
        }
        if !(0.25..=1.5).contains(&self.speed) {
            faults.push("speed must be 0.25 to 1.5".to_owned());
        }
        self.turn_detection.faults(&mut faults);
        if let Some(transcription) = &self.transcription {
            transcription.faults(&mut faults);
        }
        mcp::faults(&self.mcp_servers, &mut faults);
        faults.extend(self.call.faults());
        if self.call.reasoning_effort.is_some() && self.model.as_ref().is_some_and(|model| !is_reasoning_model(model)) {
            faults.push("call.reasoningEffort needs a model that reasons: gpt-realtime-2 or later".to_owned());
        }
        let waits = matches!(self.turn_detection, TurnDetection::ServerVad { idle_timeout_ms: Some(_), .. });
        if waits && self.call.interrupt_after_words.is_some_and(|words| words > 0) {
            faults.push("turnDetection.idleTimeoutMs does not go with call.interruptAfterWords".to_owned());
        }
        faults
    }

    /// As the column holds it. Nothing with a fault is stored: it would fail in a call, with somebody listening.
    pub fn to_stored(&self) -> Result<serde_json::Value, StoreError> {
        let faults = self.faults();
        if !faults.is_empty() {
            return Err(StoreError::Invalid(faults));
        }
        serde_json::to_value(self).map_err(|error| sqlx::Error::Encode(error.into()).into())
    }
}

/// A custom voice is named by its id.
pub fn is_custom_voice(voice: &str) -> bool {
    voice.strip_prefix(CUSTOM_VOICE).is_some_and(|id| !id.is_empty() && is_word(id))
}

/// `gpt-realtime-2` and later, but not the dated names of the first model, such as `gpt-realtime-2025-08-28`.
pub fn is_reasoning_model(model: &str) -> bool {
    let version = model.strip_prefix("gpt-realtime-").and_then(|rest| rest.split(['.', '-']).next());
    version.and_then(|version| version.parse::<u32>().ok()).is_some_and(|version| (2..1000).contains(&version))
}

/// It stands in the query of a URL.
fn is_model_name(model: &str) -> bool {
    (1..=100).contains(&model.len()) && is_word(&model.replace('.', "-"))
}

fn is_word(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn normal_speed() -> f64 {
    1.0
}

/// How the end of a turn is found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TurnDetection {
    /// By silence.
    #[serde(rename_all = "camelCase")]
    ServerVad {
        /// How loud speech must be, 0 to 1.
        #[serde(default = "default_threshold")]
        #[schema(minimum = 0, maximum = 1)]
        threshold: f64,
        /// How much audio from before the speech is kept, in milliseconds.
        #[serde(default = "default_prefix_padding_ms")]
        #[schema(minimum = 0, maximum = 10_000)]
        prefix_padding_ms: u32,
        /// How much silence ends the turn, in milliseconds.
        #[serde(default = "default_silence_duration_ms")]
        #[schema(minimum = 0, maximum = 10_000)]
        silence_duration_ms: u32,
        /// After how much silence of both sides the agent asks whether anybody is there, in milliseconds.
        #[serde(default)]
        #[schema(minimum = 5_000, maximum = 30_000)]
        idle_timeout_ms: Option<u32>,
    },
    /// By whether the caller seems to have finished.
    SemanticVad {
        /// How soon the agent takes its turn.
        #[serde(default)]
        eagerness: Eagerness,
    },
}

fn default_threshold() -> f64 {
    0.5
}

fn default_prefix_padding_ms() -> u32 {
    300
}

fn default_silence_duration_ms() -> u32 {
    500
}

impl Default for TurnDetection {
    fn default() -> Self {
        Self::ServerVad {
            threshold: default_threshold(),
            prefix_padding_ms: default_prefix_padding_ms(),
            silence_duration_ms: default_silence_duration_ms(),
            idle_timeout_ms: None,
        }
    }
}

impl TurnDetection {
    fn faults(&self, faults: &mut Vec<String>) {
        let Self::ServerVad { threshold, prefix_padding_ms, silence_duration_ms, idle_timeout_ms } = self else {
            return;
        };
        if !(0.0..=1.0).contains(threshold) {
            faults.push("turnDetection.threshold must be 0 to 1".to_owned());
        }
        // OpenAI names no bounds of these two; a turn that takes longer than this to end is none on the phone.
        for (name, value) in [("prefixPaddingMs", prefix_padding_ms), ("silenceDurationMs", silence_duration_ms)] {
            if *value > 10_000 {
                faults.push(format!("turnDetection.{name} must be 0 to 10000"));
            }
        }
        if idle_timeout_ms.is_some_and(|timeout| !(5_000..=30_000).contains(&timeout)) {
            faults.push("turnDetection.idleTimeoutMs must be 5000 to 30000".to_owned());
        }
    }
}

/// How soon a semantic turn detection lets the agent speak: it waits at most 8, 4 or 2 seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Eagerness {
    /// 8 seconds.
    Low,
    /// 4 seconds.
    Medium,
    /// 2 seconds.
    High,
    /// OpenAI's choice, at present the same as medium.
    #[default]
    Auto,
}

/// Where the caller's microphone is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoiseReduction {
    /// At the mouth: a handset.
    NearField,
    /// In the room: a speakerphone.
    FarField,
}

/// Transcription of the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Transcription {
    /// A transcription model, such as `gpt-transcribe`.
    #[schema(pattern = "^[A-Za-z0-9._-]{1,100}$")]
    pub model: String,
    /// ISO 639-1 code; `None`: detected.
    #[serde(default)]
    #[schema(pattern = "^[a-z]{2}$")]
    pub language: Option<String>,
    /// Words that callers are likely to say, such as names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keywords: Vec<String>,
    /// What calls are about, in a sentence or two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1_024)]
    pub prompt: Option<String>,
}

impl Transcription {
    fn faults(&self, faults: &mut Vec<String>) {
        let mut fault = |is: bool, text: &str| {
            if is {
                faults.push(format!("transcription.{text}"));
            }
        };
        fault(!is_model_name(&self.model), "model must be the name of a transcription model");
        fault(self.model == WITHOUT_TURNS, "model must be one that works with turn detection");
        let is_code = |code: &String| code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_lowercase());
        fault(self.language.as_ref().is_some_and(|code| !is_code(code)), "language must be two letters, such as en");
        let takes_keywords = WITH_KEYWORDS.contains(&self.model.as_str());
        fault(!self.keywords.is_empty() && !takes_keywords, "keywords need gpt-transcribe or gpt-live-transcribe");
        fault(self.keywords.len() > MOST_KEYWORDS, "keywords must be 1000 at most");
        fault(self.keywords.iter().any(|word| word.trim().is_empty()), "keywords must not be empty");
        let length = self.prompt.as_ref().map_or(0, |prompt| prompt.chars().count());
        fault(length > MOST_PROMPT, "prompt must be of 1024 characters at most");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_voice_is_described() {
        let schema = serde_json::to_value(<RealtimeSettings as utoipa::PartialSchema>::schema()).unwrap();
        let pattern = schema["properties"]["voice"]["pattern"].as_str().unwrap();
        assert!(pattern.starts_with(&format!("^({}|{CUSTOM_VOICE}", VOICES.join("|"))), "{pattern}");
    }

    #[test]
    fn a_voice_is_enough() {
        let settings: RealtimeSettings = serde_json::from_str(r#"{"voice":"marin","fromTheFuture":1}"#).unwrap();
        assert_eq!(settings.turn_detection, TurnDetection::default());
        assert!((settings.speed - 1.0).abs() < f64::EPSILON);
        assert!(serde_json::from_str::<RealtimeSettings>("{}").is_err());
    }

    #[test]
    fn settings_survive_the_database() {
        let text = r#"{"model":"gpt-realtime-2.1","voice":"cedar","speed":1.1,
            "turnDetection":{"type":"semantic_vad","eagerness":"high"},"noiseReduction":"far_field",
            "transcription":{"model":"gpt-transcribe","language":"en"}}"#;
        let settings: RealtimeSettings = serde_json::from_str(text).unwrap();
        assert_eq!(settings.turn_detection, TurnDetection::SemanticVad { eagerness: Eagerness::High });
        assert_eq!(serde_json::to_value(settings).unwrap(), serde_json::from_str::<serde_json::Value>(text).unwrap());
    }

    /// The field that each fault names first.
    fn faulty(text: &str) -> Vec<String> {
        let settings: RealtimeSettings = serde_json::from_str(text).unwrap();
        let stored = settings.to_stored();
        let faults = settings.faults();
        assert_eq!(stored.is_err(), !faults.is_empty(), "what has faults is not stored");
        faults.iter().map(|fault| fault.split(' ').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn all_that_is_out_of_range_is_named() {
        let text = r#"{"voice":"nova","speed":2,"model":"a b","turnDetection":{"type":"server_vad","threshold":2,
            "prefixPaddingMs":10001,"silenceDurationMs":10001,"idleTimeoutMs":4999},
            "transcription":{"model":"gpt-realtime-whisper","language":"english","keywords":[" "]},
            "mcpServers":[{"label":"a b","url":"http://x"}],
            "call":{"maxDurationSeconds":1,"interruptAfterWords":1}}"#;
        assert_eq!(
            faulty(text),
            [
                "model",
                "voice",
                "speed",
                "turnDetection.threshold",
                "turnDetection.prefixPaddingMs",
                "turnDetection.silenceDurationMs",
                "turnDetection.idleTimeoutMs",
                "transcription.model",
                "transcription.language",
                "transcription.keywords",
                "transcription.keywords",
                "mcpServers[0].label",
                "mcpServers[0].url",
                "call.maxDurationSeconds",
                "turnDetection.idleTimeoutMs",
            ]
        );
        assert_eq!(faulty(r#"{"voice":"marin"}"#), [""; 0]);
        assert_eq!(faulty(r#"{"voice":"voice_1a"}"#), [""; 0]);
        assert_eq!(faulty(r#"{"voice":"voice_"}"#), ["voice"]);
    }

    #[test]
    fn only_some_models_reason() {
        let reasons = ["gpt-realtime-2", "gpt-realtime-2.1", "gpt-realtime-2.1-mini", "gpt-realtime-3-mini"];
        assert!(reasons.into_iter().all(is_reasoning_model));
        let others = ["gpt-realtime", "gpt-realtime-mini", "gpt-realtime-1.5", "gpt-realtime-2025-08-28", "gpt-5"];
        assert!(!others.into_iter().any(is_reasoning_model));
        let effort = |model| format!(r#"{{"voice":"ash","model":"{model}","call":{{"reasoningEffort":"low"}}}}"#);
        assert_eq!(faulty(&effort("gpt-realtime-1.5")), ["call.reasoningEffort"]);
        assert_eq!(faulty(&effort("gpt-realtime-2")), [""; 0]);
    }
}
