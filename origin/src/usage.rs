//! What a call uses at OpenAI: tokens by modality, summed over its responses and transcripts.
//!
//! The fields are OpenAI's own, so that a sum reads like the `usage` of one response. Source: `response.done` and
//! `conversation.item.input_audio_transcription.completed` in OpenAI's API reference. Cached tokens are part of the
//! input tokens.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// The sum of a call. It goes on when the call is taken up again, with another model if need be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// All responses together.
    #[serde(flatten)]
    pub total: Tokens,
    /// The same by the model that spoke.
    pub models: BTreeMap<String, Tokens>,
    /// What the transcripts of the caller's words used, by model.
    pub transcription: BTreeMap<String, Transcribed>,
}

/// Tokens of responses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "OpenAI's names, and all there is to say")]
pub struct Tokens {
    pub total_tokens: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    #[serde(deserialize_with = "or_default")]
    pub input_token_details: InputTokens,
    #[serde(deserialize_with = "or_default")]
    pub output_token_details: ByModality,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "OpenAI's names, and all there is to say")]
pub struct InputTokens {
    #[serde(flatten)]
    pub all: ByModality,
    pub cached_tokens: u64,
    #[serde(deserialize_with = "or_default")]
    pub cached_tokens_details: ByModality,
}

/// Tokens by what they stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "OpenAI's names, and all there is to say")]
pub struct ByModality {
    pub text_tokens: u64,
    pub audio_tokens: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub image_tokens: u64,
}

/// What transcripts used. A model counts either tokens or time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Transcribed {
    /// Tokens, of a model that counts them.
    #[serde(flatten)]
    pub tokens: Tokens,
    /// Time, of a model that counts that.
    #[serde(skip_serializing_if = "is_zero")]
    pub duration_ms: u64,
}

impl Usage {
    /// What the call had used before, as it was kept.
    pub fn kept(value: &Value) -> Self {
        serde_json::from_value(value.clone()).unwrap_or_default()
    }

    /// Adds the `usage` of a response by this model.
    pub fn add_response(&mut self, model: &str, usage: &Value) {
        let tokens: Tokens = serde_json::from_value(usage.clone()).unwrap_or_default();
        *self.models.entry(model.to_owned()).or_default() += &tokens;
        self.total += &tokens;
    }

    /// Adds the `usage` of a transcript by this model.
    pub fn add_transcript(&mut self, model: &str, usage: &Value) {
        let used = self.transcription.entry(model.to_owned()).or_default();
        match usage["seconds"].as_f64() {
            Some(seconds) => used.duration_ms += whole_ms(seconds),
            None => used.tokens += &serde_json::from_value(usage.clone()).unwrap_or_default(),
        }
    }

    /// As it is kept.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl AddAssign<&Self> for Tokens {
    fn add_assign(&mut self, more: &Self) {
        self.total_tokens += more.total_tokens;
        self.input_tokens += more.input_tokens;
        self.output_tokens += more.output_tokens;
        self.input_token_details.all += &more.input_token_details.all;
        self.input_token_details.cached_tokens += more.input_token_details.cached_tokens;
        self.input_token_details.cached_tokens_details += &more.input_token_details.cached_tokens_details;
        self.output_token_details += &more.output_token_details;
    }
}

impl AddAssign<&Self> for ByModality {
    fn add_assign(&mut self, more: &Self) {
        self.text_tokens += more.text_tokens;
        self.audio_tokens += more.audio_tokens;
        self.image_tokens += more.image_tokens;
    }
}

/// Null counts as absent.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and is far below")]
fn whole_ms(seconds: f64) -> u64 {
    (seconds * 1000.0).round() as u64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn usage_adds_up_and_is_read_back() {
        let response = json!({
            "total_tokens": 30, "input_tokens": 20, "output_tokens": 10,
            "input_token_details": {
                "text_tokens": 5, "audio_tokens": 15, "image_tokens": 0, "cached_tokens": 8,
                "cached_tokens_details": {"text_tokens": 3, "audio_tokens": 5, "image_tokens": 0},
            },
            "output_token_details": {"text_tokens": 2, "audio_tokens": 8},
        });
        let mut usage = Usage::default();
        usage.add_response("a", &response);
        usage = Usage::kept(&usage.to_value());
        usage.add_response("b", &response);
        usage.add_response("b", &json!({"output_tokens": 1, "total_tokens": 1, "input_token_details": null}));
        usage.add_transcript(
            "t",
            &json!({"type": "tokens", "total_tokens": 9, "input_tokens": 7, "output_tokens": 2,
            "input_token_details": {"audio_tokens": 7, "text_tokens": 0}}),
        );
        usage.add_transcript("w", &json!({"type": "duration", "seconds": 1.25}));
        usage.add_transcript("w", &json!({"type": "duration", "seconds": 2}));
        let kept = usage.to_value();
        assert_eq!((&kept["total_tokens"], &kept["models"]["a"]["total_tokens"]), (&json!(61), &json!(30)));
        assert_eq!(kept["models"]["b"]["output_tokens"], 11);
        assert_eq!(kept["input_token_details"]["cached_tokens_details"], json!({"text_tokens": 6, "audio_tokens": 10}));
        assert_eq!(kept["transcription"]["t"]["input_token_details"]["audio_tokens"], 7);
        assert_eq!(kept["transcription"]["w"]["duration_ms"], 3250);
        assert_eq!(Usage::kept(&kept), usage);
    }

    #[test]
    fn what_cannot_be_read_counts_nothing() {
        assert_eq!(Usage::kept(&json!({})), Usage::default());
        let mut usage = Usage::default();
        usage.add_response("a", &json!("?"));
        assert_eq!(usage.total, Tokens::default());
    }
}
