//! Token counts by the service's published rules.
//!
//! Audio is exact: 1 token per 100 ms of the caller, 1 per 50 ms of the assistant. Text is the usual estimate
//! of four characters a token; a tokenizer would be a large dependency for numbers that nobody compares.

use serde_json::{Value, json};

use super::audio::whole_ms;
use super::conversation::{Item, ItemKind};

/// Milliseconds of the caller's audio in a token.
pub(super) const AUDIO_IN_MS: u64 = 100;
/// Milliseconds of the assistant's audio in a token.
pub(super) const AUDIO_OUT_MS: u64 = 50;

/// Tokens of some text.
pub(super) fn text_tokens(text: &str) -> u64 {
    text.chars().count().div_ceil(4) as u64
}

/// Tokens by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tokens {
    pub(super) text: u64,
    pub(super) audio: u64,
}

impl Tokens {
    pub(super) fn text(text: &str) -> Self {
        Self { text: text_tokens(text), audio: 0 }
    }

    pub(super) fn total(self) -> u64 {
        self.text + self.audio
    }

    /// What an item costs as input, or as output when it was just generated. The caller's transcript is made
    /// by another model and costs nothing here.
    pub(super) fn of(item: &Item) -> Self {
        let ms = whole_ms(item.audio.len());
        match &item.kind {
            ItemKind::CallerSpeech { .. } => Self { text: 0, audio: ms.div_ceil(AUDIO_IN_MS) },
            ItemKind::AgentSpeech { transcript } => {
                Self { text: transcript.as_deref().map_or(0, text_tokens), audio: ms.div_ceil(AUDIO_OUT_MS) }
            }
            ItemKind::Message { .. } => Self { text: text_tokens(&item.text()), audio: ms.div_ceil(AUDIO_IN_MS) },
            ItemKind::Call { name, arguments, .. } => {
                Self { text: text_tokens(name) + text_tokens(arguments), audio: 0 }
            }
            ItemKind::CallOutput { output, .. } => Self::text(output),
        }
    }
}

impl std::ops::Add for Tokens {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { text: self.text + other.text, audio: self.audio + other.audio }
    }
}

impl std::iter::Sum for Tokens {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), std::ops::Add::add)
    }
}

/// The `usage` of a `response.done`. `cached` is what the response before had read already.
pub(super) fn usage(input: Tokens, cached: Tokens, output: Tokens) -> Value {
    // A truncated conversation is shorter than what was read before.
    let cached = Tokens { text: cached.text.min(input.text), audio: cached.audio.min(input.audio) };
    json!({
        "total_tokens": input.total() + output.total(),
        "input_tokens": input.total(),
        "output_tokens": output.total(),
        "input_token_details": {
            "text_tokens": input.text,
            "audio_tokens": input.audio,
            "image_tokens": 0,
            "cached_tokens": cached.total(),
            "cached_tokens_details": {
                "text_tokens": cached.text,
                "audio_tokens": cached.audio,
                "image_tokens": 0,
            },
        },
        "output_token_details": {"text_tokens": output.text, "audio_tokens": output.audio},
    })
}
