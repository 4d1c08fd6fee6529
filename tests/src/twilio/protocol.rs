//! The messages of Media Streams: what our side may send, exactly, and what it is sent.
//!
//! Pure. Twilio ignores a message with a missing *or extra* field and says so once per stream, in the
//! debugger only (31951); this is as strict.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

/// A message of our side, accepted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FromOurSide {
    Media(Vec<u8>),
    Mark(String),
    Clear,
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "lowercase", deny_unknown_fields)]
enum Raw {
    Media {
        #[serde(rename = "streamSid")]
        stream_sid: String,
        media: RawMedia,
    },
    Mark {
        #[serde(rename = "streamSid")]
        stream_sid: String,
        mark: RawMark,
    },
    Clear {
        #[serde(rename = "streamSid")]
        stream_sid: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMedia {
    payload: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMark {
    name: String,
}

/// Reads a text message of our side. The error is the text of a 31951 warning.
pub(crate) fn read(text: &str, stream_sid: &str) -> Result<FromOurSide, String> {
    let raw: Raw = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let (named, message) = match raw {
        Raw::Media { stream_sid, media } => {
            let audio = BASE64_STANDARD.decode(media.payload).map_err(|error| format!("media.payload: {error}"))?;
            (stream_sid, FromOurSide::Media(audio))
        }
        Raw::Mark { stream_sid, mark } => (stream_sid, FromOurSide::Mark(mark.name)),
        Raw::Clear { stream_sid } => (stream_sid, FromOurSide::Clear),
    };
    if named == stream_sid { Ok(message) } else { Err(format!("streamSid {named} is not this stream")) }
}

/// Writes the messages to our side and keeps their counters.
#[derive(Debug)]
pub(crate) struct Writer {
    account_sid: String,
    call_sid: String,
    stream_sid: String,
    /// Counts every message after `connected`, from 1.
    sequence: u64,
    /// Counts `media` messages, from 1.
    chunk: u64,
}

impl Writer {
    pub(crate) fn new(account_sid: &str, call_sid: &str, stream_sid: &str) -> Self {
        let own = str::to_owned;
        Self {
            account_sid: own(account_sid),
            call_sid: own(call_sid),
            stream_sid: own(stream_sid),
            sequence: 0,
            chunk: 0,
        }
    }

    pub(crate) fn connected() -> String {
        r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#.to_owned()
    }

    pub(crate) fn start(&mut self, parameters: &[(String, String)]) -> String {
        let parameters: serde_json::Map<String, Value> =
            parameters.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        let body = format!(
            concat!(
                r#"{{"accountSid":"{}","streamSid":"{}","callSid":"{}","tracks":["inbound"],"#,
                r#""mediaFormat":{{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}},"customParameters":{}}}"#
            ),
            self.account_sid,
            self.stream_sid,
            self.call_sid,
            Value::Object(parameters)
        );
        self.event("start", &body)
    }

    /// `timestamp_ms`: since the start of the stream.
    pub(crate) fn media(&mut self, audio: &[u8], timestamp_ms: u64) -> String {
        self.chunk += 1;
        let (chunk, payload) = (self.chunk, BASE64_STANDARD.encode(audio));
        let body =
            format!(r#"{{"track":"inbound","chunk":"{chunk}","timestamp":"{timestamp_ms}","payload":"{payload}"}}"#);
        self.event("media", &body)
    }

    pub(crate) fn dtmf(&mut self, digit: char) -> String {
        self.event("dtmf", &format!(r#"{{"track":"inbound_track","digit":"{digit}"}}"#))
    }

    pub(crate) fn mark(&mut self, name: &str) -> String {
        self.event("mark", &json!({"name": name}).to_string())
    }

    pub(crate) fn stop(&mut self) -> String {
        let body = format!(r#"{{"accountSid":"{}","callSid":"{}"}}"#, self.account_sid, self.call_sid);
        self.event("stop", &body)
    }

    /// The order of the members is the real one, which some readers depend on.
    fn event(&mut self, event: &str, body: &str) -> String {
        self.sequence += 1;
        let (sequence, stream) = (self.sequence, &self.stream_sid);
        format!(r#"{{"event":"{event}","sequenceNumber":"{sequence}","{event}":{body},"streamSid":"{stream}"}}"#)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_messages_are_accepted() {
        let read = |text: &str| read(text, "MZ1");
        assert_eq!(
            read(r#"{"event":"media","streamSid":"MZ1","media":{"payload":"AQI="}}"#),
            Ok(FromOurSide::Media(vec![1, 2]))
        );
        assert_eq!(
            read(r#"{"event":"mark","streamSid":"MZ1","mark":{"name":"a"}}"#),
            Ok(FromOurSide::Mark("a".to_owned()))
        );
        assert_eq!(read(r#"{"event":"clear","streamSid":"MZ1"}"#), Ok(FromOurSide::Clear));
    }

    #[test]
    fn anything_missing_extra_or_unknown_is_not() {
        for text in [
            "hello",
            r#"{"event":"stop","streamSid":"MZ1"}"#,
            r#"{"event":"clear"}"#,
            r#"{"event":"clear","streamSid":"MZ2"}"#,
            r#"{"event":"clear","streamSid":"MZ1","sequenceNumber":"4"}"#,
            r#"{"event":"mark","streamSid":"MZ1"}"#,
            r#"{"event":"mark","streamSid":"MZ1","mark":{}}"#,
            r#"{"event":"media","streamSid":"MZ1","media":{"payload":"AQI=","track":"outbound"}}"#,
            r#"{"event":"media","streamSid":"MZ1","media":{"payload":"not base64"}}"#,
        ] {
            assert!(read(text, "MZ1").is_err(), "{text}");
        }
    }

    #[test]
    fn counters_are_strings_and_count_everything_after_connected() {
        let mut writer = Writer::new("AC1", "CA1", "MZ1");
        let start: Value =
            serde_json::from_str(&writer.start(&[("token".to_owned(), "\"t\"".to_owned())])).expect("JSON");
        assert_eq!(start["start"]["customParameters"], json!({"token": "\"t\""}));
        assert_eq!((&start["sequenceNumber"], &start["start"]["callSid"]), (&json!("1"), &json!("CA1")));
        let _ = writer.mark("m");
        let media: Value = serde_json::from_str(&writer.media(&[0xFF], 5)).expect("JSON");
        assert_eq!(
            media,
            json!({"event": "media", "sequenceNumber": "3", "streamSid": "MZ1",
                   "media": {"track": "inbound", "chunk": "1", "timestamp": "5", "payload": "/w=="}})
        );
    }
}
