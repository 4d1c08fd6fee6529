//! Dead letters: events that the edge could not deliver for a day and keeps in its store, until somebody replays them.
//!
//! The edge's consumer writes them, the origin's commands read and delete them. A letter lies under
//! `dead:<enqueued at, milliseconds>:<hash of the delivery id>`: keys list in the order of time, and an event that dies
//! twice is one letter.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::hmac::to_hex;

/// How every key of a dead letter begins, and no key of a route.
pub const KEY_PREFIX: &str = "dead:";
/// How long the edge keeps a letter (its `expiration_ttl`), in seconds: 14 days. It holds what callers said, and the
/// origin remembers only a little longer which events have taken effect.
pub const KEEP_SECONDS: u32 = 14 * 24 * 60 * 60;

/// Hex digits of the hash in a key; the time before it makes even these more than enough.
const HASH_DIGITS: usize = 32;

/// An event that was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter<'a> {
    /// Path and query at the origin.
    pub path: Cow<'a, str>,
    /// The body's media type.
    pub content_type: Cow<'a, str>,
    /// The body, byte for byte as it was received.
    #[serde(flatten)]
    pub body: Body<'a>,
    /// `Tandem-Delivery`: equal on every attempt, and on a replay.
    pub delivery: Cow<'a, str>,
    /// Unix time in milliseconds of when the event was first put aside.
    pub enqueued_at: u64,
    /// How often the edge tried to deliver it.
    pub attempts: u32,
    /// The origin's status at the last attempt; absent when there was none, or when it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

/// A body inside a JSON text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body<'a> {
    /// A body that is UTF-8, as it is.
    #[serde(rename = "body")]
    Text(Cow<'a, str>),
    /// Any other, in base64 with padding.
    #[serde(rename = "bodyBase64")]
    Base64(Cow<'a, str>),
}

impl<'a> Body<'a> {
    /// A body as text if it is text.
    pub fn new(bytes: &'a [u8]) -> Self {
        std::str::from_utf8(bytes)
            .map_or_else(|_| Self::Base64(STANDARD.encode(bytes).into()), |text| Self::Text(text.into()))
    }

    /// The bytes that were received; `None` when it is not base64.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        match self {
            Self::Text(text) => Some(text.as_bytes().to_vec()),
            Self::Base64(text) => STANDARD.decode(text.as_bytes()).ok(),
        }
    }
}

impl DeadLetter<'_> {
    /// Where it lies in the edge's store.
    pub fn key(&self) -> String {
        let hash = to_hex(&Sha256::digest(self.delivery.as_bytes()));
        // Thirteen digits reach to the year 2286, so keys sort as numbers do.
        format!("{KEY_PREFIX}{:013}:{}", self.enqueued_at, hash.get(..HASH_DIGITS).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(body: &[u8]) -> DeadLetter<'_> {
        DeadLetter {
            path: "/twilio/status".into(),
            content_type: "application/x-www-form-urlencoded".into(),
            body: Body::new(body),
            delivery: "twilio:tok".into(),
            enqueued_at: 1_795_000_000_000,
            attempts: 100,
            status: None,
        }
    }

    #[test]
    fn wire_shape_is_the_agreed_one() {
        let text = r#"{"path":"/twilio/status","contentType":"application/x-www-form-urlencoded","body":"CallSid=CA01","delivery":"twilio:tok","enqueuedAt":1795000000000,"attempts":100}"#;
        assert_eq!(serde_json::to_string(&letter(b"CallSid=CA01")).unwrap(), text);
        assert_eq!(serde_json::from_str::<DeadLetter<'_>>(text).unwrap(), letter(b"CallSid=CA01"));
        let refused = serde_json::to_value(DeadLetter { status: Some(422), ..letter(b"") }).unwrap();
        assert_eq!(refused["status"], 422);
        let bytes = serde_json::to_value(letter(b"\xff\x00")).unwrap();
        assert_eq!((bytes["bodyBase64"].as_str(), bytes.get("body")), (Some("/wA="), None));
    }

    #[test]
    fn a_body_comes_back_byte_for_byte() {
        for body in [&b"CallSid=CA01&Name=%22"[..], "{\"a\":\"\u{e9}\n\"}".as_bytes(), b"", b"\xff\x00"] {
            let text = serde_json::to_string(&letter(body)).unwrap();
            let back: DeadLetter<'_> = serde_json::from_str(&text).unwrap();
            assert_eq!(back.body.bytes().as_deref(), Some(body));
        }
        assert_eq!(Body::Base64("?".into()).bytes(), None);
    }

    #[test]
    fn a_letter_without_a_body_is_none() {
        let text = r#"{"path":"/","contentType":"","delivery":"d","enqueuedAt":1,"attempts":1}"#;
        assert!(serde_json::from_str::<DeadLetter<'_>>(text).is_err());
    }

    #[test]
    fn a_key_tells_time_and_delivery() {
        let key = letter(b"").key();
        assert!(key.starts_with("dead:1795000000000:") && key.len() == 19 + HASH_DIGITS, "{key}");
        assert_eq!(key, letter(b"other").key());
        assert_ne!(key, DeadLetter { delivery: "twilio:other".into(), ..letter(b"") }.key());
        assert!(DeadLetter { enqueued_at: 999_999_999_999, ..letter(b"") }.key() < key);
    }
}
