//! An event on the queue: one text, so that no runtime's serializer can lose it on the way.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// The longest text sent, in bytes. Cloudflare takes 128,000 with about 100 of its own.
pub const MAX_MESSAGE_BYTES: usize = 127_000;
/// How the name of a dead-letter queue ends.
const DEAD_LETTERS: &str = "-dead";

/// An event that the origin did not take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event<'a> {
    /// Path and query at the origin.
    pub path: Cow<'a, str>,
    /// The body's media type.
    pub content_type: Cow<'a, str>,
    /// `Tandem-Delivery`: equal on every attempt.
    pub delivery: Cow<'a, str>,
    /// Unix seconds of when the event was put here.
    pub enqueued_at: u64,
    /// The body.
    pub body: Body<'a>,
}

/// A body inside a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Body<'a> {
    /// As it is.
    Text(Cow<'a, str>),
    /// Compressed, then base64: a long report, or bytes that are no text.
    Gzip(String),
}

impl<'a> Body<'a> {
    /// A body that is text.
    pub fn text(bytes: &'a [u8]) -> Option<Self> {
        std::str::from_utf8(bytes).ok().map(|text| Self::Text(Cow::Borrowed(text)))
    }

    /// A body that was compressed.
    pub fn gzip(compressed: &[u8]) -> Self {
        Self::Gzip(STANDARD.encode(compressed))
    }
}

impl Event<'_> {
    /// The event as a queue takes it; `None` when it is too long.
    pub fn to_message(&self) -> Option<String> {
        serde_json::to_string(self).ok().filter(|text| text.len() <= MAX_MESSAGE_BYTES)
    }
}

/// The compressed bytes of [`Body::Gzip`].
pub fn compressed(base64: &str) -> Option<Vec<u8>> {
    STANDARD.decode(base64).ok()
}

/// Whether a queue holds what was given up on the first.
pub fn is_dead_letters(queue: &str) -> bool {
    queue.ends_with(DEAD_LETTERS)
}

/// How long an event waits after an attempt that failed, in seconds; the first attempt is 1.
///
/// With Cloudflare's at most 100 retries this bridges an outage of 16 hours; then come the dead letters, which are
/// tried once an hour for as long as the queue keeps them.
pub fn delay_seconds(attempts: u32, dead_letters: bool) -> u32 {
    match attempts {
        _ if dead_letters => 3600,
        0 | 1 => 5,
        2 => 30,
        3 => 120,
        _ => 600,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(body: &[u8]) -> Event<'_> {
        Event {
            path: "/twilio/status".into(),
            content_type: "application/x-www-form-urlencoded".into(),
            delivery: "twilio:tok".into(),
            enqueued_at: 1_795_000_000,
            body: Body::text(body).unwrap_or_else(|| Body::gzip(body)),
        }
    }

    #[test]
    fn comes_back_as_it_went() {
        for body in [&b"CallSid=CA01&Name=%22"[..], "{\"a\":\"\u{e9}\n\"}".as_bytes(), b"", b"\xff\x00"] {
            let text = event(body).to_message().unwrap();
            assert_eq!(serde_json::from_str::<Event<'_>>(&text).unwrap(), event(body));
        }
        let Body::Gzip(text) = Body::gzip(b"\xff\x00") else { panic!("compressed") };
        assert_eq!(compressed(&text).as_deref(), Some(&b"\xff\x00"[..]));
        assert_eq!(compressed("?"), None);
    }

    #[test]
    fn a_long_body_does_not_fit_as_text() {
        assert!(event(&b"a".repeat(120_000)).to_message().is_some());
        assert!(event(&b"a".repeat(127_000)).to_message().is_none());
        // What counts is the text on the queue, escapes included.
        assert!(event(&b"\"".repeat(64_000)).to_message().is_none());
    }

    #[test]
    fn delays_grow() {
        let delays: Vec<_> = (1..=5).map(|attempts| delay_seconds(attempts, false)).collect();
        assert_eq!(delays, [5, 30, 120, 600, 600]);
        assert!(is_dead_letters("tandem-retries-dead") && !is_dead_letters("tandem-retries"));
        assert_eq!(delay_seconds(1, true), 3600);
    }
}
