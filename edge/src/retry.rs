//! An event on the queue: one text, so that no runtime's serializer can lose it on the way. How long it waits between
//! two attempts, and the letter that is left of it when none succeeded.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use shared::dead_letter::{self, DeadLetter};

/// The longest text sent, in bytes. Cloudflare takes 128,000 with about 100 of its own.
pub const MAX_MESSAGE_BYTES: usize = 127_000;
/// How the name of a dead-letter queue ends.
const DEAD_LETTERS: &str = "-dead";

/// How long an event waits after an attempt that failed: up to and with the attempt on the left, the seconds on the
/// right. Young events come back soon, old ones do not crowd an origin that is just recovering.
pub const SCHEDULE: [(u32, u32); 8] =
    [(1, 5), (2, 15), (3, 30), (4, 60), (5, 120), (6, 300), (40, 600), (MAX_RETRIES, 1200)];
/// `max_retries` of the queue in `wrangler.toml`, and the most that Cloudflare allows.
pub const MAX_RETRIES: u32 = 100;
/// How long a dead letter waits until it is written again, if its store failed, in seconds.
pub const DEAD_LETTER_DELAY_SECONDS: u32 = 3600;

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
    /// Unix time in milliseconds of when the event was put here.
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

/// How long the message with this id waits after an attempt that failed, in seconds; the first attempt is 1.
///
/// Up to a quarter more than [`SCHEDULE`] says, different for each message: what an outage brought together spreads out
/// again.
pub fn delay_seconds(message_id: &str, attempts: u32) -> u32 {
    let delay =
        SCHEDULE.iter().find(|(last, _)| attempts <= *last).map_or(DEAD_LETTER_DELAY_SECONDS, |(_, delay)| *delay);
    // FNV-1a: ids are random enough, this only has to use all of them.
    let hash =
        message_id.bytes().fold(2_166_136_261, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619));
    delay + ((delay * (hash >> 24)) >> 10)
}

/// What is left of an event that was given up after so many attempts of the consumer. `body` is what was received,
/// `status` the origin's at the last attempt.
pub fn letter<'a>(event: &'a Event<'_>, body: &'a [u8], attempts: u32, status: Option<u16>) -> DeadLetter<'a> {
    DeadLetter {
        path: event.path.as_ref().into(),
        content_type: event.content_type.as_ref().into(),
        body: dead_letter::Body::new(body),
        delivery: event.delivery.as_ref().into(),
        enqueued_at: event.enqueued_at,
        // And the first one, before it came here.
        attempts: attempts + 1,
        status,
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
            enqueued_at: 1_795_000_000_000,
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

    fn all_delays(message_id: &str) -> Vec<u32> {
        (1..=MAX_RETRIES).map(|attempts| delay_seconds(message_id, attempts)).collect()
    }

    #[test]
    fn delays_grow_and_bridge_at_least_a_day() {
        assert_eq!(SCHEDULE[SCHEDULE.len() - 1].0, MAX_RETRIES);
        for id in ["", "a", "2a6b1c0e9f", "ffffffff"] {
            let delays = all_delays(id);
            assert!(delays.is_sorted(), "{delays:?}");
            assert!((5..=6).contains(&delays[0]), "an outage of seconds is over in seconds: {delays:?}");
            let sum: u32 = delays.iter().sum();
            // The queue keeps a message for four days at least.
            assert!((24 * 3600..48 * 3600).contains(&sum), "{sum} s");
        }
    }

    #[test]
    fn events_that_failed_together_come_back_apart() {
        let last: std::collections::BTreeSet<_> =
            (0..100).map(|n| delay_seconds(&format!("message-{n}"), MAX_RETRIES)).collect();
        assert!(last.len() > 50, "{last:?}");
        assert!(last.iter().all(|delay| (1200..1500).contains(delay)), "{last:?}");
    }

    #[test]
    fn every_environment_retries_as_often_as_the_schedule_says() {
        let configured: Vec<_> = include_str!("../../wrangler.toml")
            .lines()
            .filter_map(|line| line.strip_prefix("max_retries = "))
            .collect();
        assert!(!configured.is_empty() && configured.iter().all(|times| *times == MAX_RETRIES.to_string()));
    }

    #[test]
    fn names_of_dead_letter_queues() {
        assert!(is_dead_letters("tandem-retries-dead") && !is_dead_letters("tandem-retries"));
    }

    #[test]
    fn a_letter_is_the_event() {
        let event = event(b"CallSid=CA01");
        let letter = letter(&event, b"CallSid=CA01", 101, Some(503));
        assert_eq!(letter.key().get(..19), Some("dead:1795000000000:"));
        assert_eq!(letter.status, Some(503));
        assert_eq!((letter.attempts, letter.body.bytes().as_deref()), (102, Some(&b"CallSid=CA01"[..])));
    }
}
