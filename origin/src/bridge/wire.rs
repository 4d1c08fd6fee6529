//! What both sockets' messages have in common: borrowed JSON text and base64 audio.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// Bytes of mu-law in a millisecond: 8 kHz, one byte a sample, one channel.
pub const BYTES_PER_MS: u64 = 8;
/// Silence in mu-law.
const SILENCE: u8 = 0xFF;

/// A JSON text that is borrowed from the message where it has no escapes.
#[derive(Clone, Debug, Deserialize)]
pub struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Text<'a> {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text as it stands in the message; `None` when it was written with escapes.
    pub fn borrowed(self) -> Option<&'a str> {
        match self.0 {
            Cow::Borrowed(text) => Some(text),
            Cow::Owned(_) => None,
        }
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

/// Base64 text that is safe to splice into JSON as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audio<'a>(&'a str);

impl<'a> Audio<'a> {
    /// Takes padded standard base64, refuses anything else.
    pub fn new(text: &'a str) -> Option<Self> {
        let body = text.trim_end_matches('=');
        // Looked at to the end in any case, which processors do many bytes at a time.
        let odd = body.bytes().filter(|byte| !byte.is_ascii_alphanumeric() && !matches!(byte, b'+' | b'/')).count();
        let valid = text.len().is_multiple_of(4) && text.len() - body.len() <= 2 && odd == 0;
        valid.then_some(Self(text))
    }

    /// The base64 text.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// Number of mu-law bytes that the text stands for.
    pub fn byte_len(self) -> u64 {
        let padding = self.0.len() - self.0.trim_end_matches('=').len();
        (self.0.len() / 4 * 3 - padding) as u64
    }

    /// Cuts the text into pieces of at most `bytes` bytes without decoding; `bytes` is a multiple of three.
    pub fn pieces(self, bytes: usize) -> impl Iterator<Item = Audio<'a>> {
        debug_assert!(bytes > 0 && bytes.is_multiple_of(3), "base64 can be cut only between groups of three bytes");
        let step = bytes / 3 * 4;
        let text = self.0;
        (0..text.len()).step_by(step).filter_map(move |at| text.get(at..text.len().min(at + step)).map(Audio))
    }
}

/// So many bytes of mu-law silence, as base64.
pub fn silence(bytes: u64) -> String {
    STANDARD.encode(vec![SILENCE; usize::try_from(bytes).unwrap_or_default()])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_base64_is_spliced() {
        for bad in ["a", "a\"b=", "====", "ab=c", "a b=", "a-_=", "éé"] {
            assert_eq!(Audio::new(bad), None, "{bad}");
        }
        assert_eq!(Audio::new("").map(Audio::byte_len), Some(0));
    }

    proptest! {
        #[test]
        fn pieces_are_the_same_audio(bytes in proptest::collection::vec(any::<u8>(), 0..4000)) {
            let text = STANDARD.encode(&bytes);
            let audio = Audio::new(&text).unwrap();
            prop_assert_eq!(audio.byte_len(), bytes.len() as u64);
            let mut joined = Vec::new();
            for piece in audio.pieces(1599) {
                let decoded = STANDARD.decode(piece.as_str()).unwrap();
                prop_assert!(decoded.len() <= 1599);
                prop_assert_eq!(piece.byte_len(), decoded.len() as u64);
                joined.extend(decoded);
            }
            prop_assert_eq!(joined, bytes);
        }
    }
}
