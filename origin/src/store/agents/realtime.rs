//! How an agent runs on OpenAI Realtime; the column `agents.realtime`.
//!
//! The names are ours, the values OpenAI's. Turning this into a `session.update` is the bridge's business. Fields that
//! a newer version wrote are ignored, so that an older one can still take calls.

pub mod call;

use serde::{Deserialize, Serialize};

pub use self::call::CallRules;

/// An agent's settings on OpenAI Realtime.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RealtimeSettings {
    /// A realtime model; `None`: the origin's `OPENAI_MODEL`.
    #[serde(default)]
    pub model: Option<String>,
    /// One of OpenAI's voices, such as `marin`, or the id of a custom one.
    pub voice: String,
    /// Speaking rate, 0.25 to 1.5.
    #[serde(default = "normal_speed")]
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
    /// What happens in a call beside the session.
    #[serde(default, skip_serializing_if = "CallRules::is_empty")]
    pub call: CallRules,
}

impl RealtimeSettings {
    /// What is out of range, each with the field's name; none: OpenAI and the bridge can work with it.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.voice.trim().is_empty() {
            faults.push("voice must be named".to_owned());
        }
        if !(0.25..=1.5).contains(&self.speed) {
            faults.push("speed must be 0.25 to 1.5".to_owned());
        }
        if let TurnDetection::ServerVad { threshold, .. } = &self.turn_detection
            && !(0.0..=1.0).contains(threshold)
        {
            faults.push("turnDetection.threshold must be 0 to 1".to_owned());
        }
        faults.extend(self.call.faults());
        faults
    }
}

fn normal_speed() -> f64 {
    1.0
}

/// How the end of a turn is found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum TurnDetection {
    /// By silence.
    ServerVad {
        /// How loud speech must be, 0 to 1.
        #[serde(default = "default_threshold")]
        threshold: f64,
        /// How much audio from before the speech is kept, in milliseconds.
        #[serde(default = "default_prefix_padding_ms")]
        prefix_padding_ms: u32,
        /// How much silence ends the turn, in milliseconds.
        #[serde(default = "default_silence_duration_ms")]
        silence_duration_ms: u32,
        /// After how much silence of both sides the agent asks whether anybody is there, in milliseconds.
        #[serde(default)]
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

/// How soon a semantic turn detection lets the agent speak: it waits at most 8, 4 or 2 seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoiseReduction {
    /// At the mouth: a handset.
    NearField,
    /// In the room: a speakerphone.
    FarField,
}

/// Transcription of the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Transcription {
    /// A transcription model, such as `gpt-transcribe`.
    pub model: String,
    /// ISO 639-1 code; `None`: detected.
    #[serde(default)]
    pub language: Option<String>,
    /// Words that callers are likely to say, such as names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keywords: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn what_is_out_of_range_is_named() {
        let text = r#"{"voice":" ","speed":2,"turnDetection":{"type":"server_vad","threshold":2},
            "call":{"maxDurationSeconds":1}}"#;
        let settings: RealtimeSettings = serde_json::from_str(text).unwrap();
        assert_eq!(settings.faults().len(), 4, "{:?}", settings.faults());
        let settings: RealtimeSettings = serde_json::from_str(r#"{"voice":"marin"}"#).unwrap();
        assert_eq!(settings.faults(), [""; 0]);
    }
}
