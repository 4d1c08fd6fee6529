//! Messages of Twilio's Media Streams WebSocket.
//!
//! Source: Twilio's "Media Streams - WebSocket messages". Messages to Twilio hold exactly the documented fields: Twilio
//! ignores a message with one too many, and warns of it only once a stream.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::scan;
use super::wire::{Audio, Text};

/// What Twilio says.
#[derive(Debug)]
pub enum Event<'a> {
    /// The socket is up; always first.
    Connected,
    /// The stream's facts; always second.
    Start(Start),
    /// A piece of the caller's audio.
    Media {
        /// mu-law.
        audio: Audio<'a>,
        /// When it begins on the stream's own clock, in milliseconds. Where audio is missing, the clock jumps.
        at_ms: Option<u64>,
    },
    /// Everything sent before this mark has been played, or was cleared.
    Mark(Text<'a>),
    /// The caller pressed a key.
    Dtmf(Text<'a>),
    /// The stream is over because the call is.
    Stop,
    /// Something that Twilio has added since, or audio that is no base64.
    Other,
}

/// The facts of a stream.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Start {
    /// The stream's id, which every message to Twilio repeats.
    pub stream_sid: String,
    /// The call's id.
    pub call_sid: String,
    /// What the TwiML gave the stream on its way.
    #[serde(default)]
    pub custom_parameters: HashMap<String, String>,
    /// The audio's format.
    pub media_format: MediaFormat,
}

/// The format of a stream's audio.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MediaFormat {
    /// `audio/x-mulaw`.
    pub encoding: String,
    /// 8000.
    pub sample_rate: u32,
    /// 1.
    pub channels: u32,
}

impl Start {
    /// Whether the stream has the one format that is documented and that passes through undecoded.
    pub fn is_mulaw(&self) -> bool {
        let format = &self.media_format;
        format.encoding == "audio/x-mulaw" && format.sample_rate == 8000 && format.channels == 1
    }

    /// The stream's id, if it is one: it is spliced into JSON.
    pub fn stream_sid(&self) -> Option<StreamSid> {
        let valid = self.stream_sid.starts_with("MZ") && self.stream_sid.bytes().all(|b| b.is_ascii_alphanumeric());
        valid.then(|| StreamSid(self.stream_sid.clone()))
    }
}

/// Twilio's id of a stream: letters and digits only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSid(String);

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow)]
    event: Text<'a>,
    #[serde(borrow)]
    media: Option<Media<'a>>,
    #[serde(borrow)]
    mark: Option<Mark<'a>>,
    #[serde(borrow)]
    dtmf: Option<Dtmf<'a>>,
    start: Option<Start>,
}

#[derive(Deserialize)]
struct Media<'a> {
    payload: &'a str,
    /// A number in a text. Whatever else it were, the audio must not be lost for it.
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
}

impl Media<'_> {
    fn at_ms(&self) -> Option<u64> {
        self.timestamp?.get().trim_matches('"').parse().ok()
    }
}

#[derive(Deserialize)]
struct Mark<'a> {
    #[serde(borrow)]
    name: Text<'a>,
}

#[derive(Deserialize)]
struct Dtmf<'a> {
    #[serde(borrow)]
    digit: Text<'a>,
}

impl<'a> Event<'a> {
    /// Reads one text message.
    pub fn parse(message: &'a str) -> Result<Self, serde_json::Error> {
        if let Some(media) = scan::media(message) {
            return Ok(Self::Media { audio: media.audio, at_ms: media.timestamp.parse().ok() });
        }
        let frame: Frame<'a> = serde_json::from_str(message)?;
        let event = match frame.event.as_str() {
            "connected" => Some(Self::Connected),
            "start" => frame.start.map(Self::Start),
            "media" => frame.media.and_then(|media| {
                let at_ms = media.at_ms();
                Audio::new(media.payload).map(|audio| Self::Media { audio, at_ms })
            }),
            "mark" => frame.mark.map(|mark| Self::Mark(mark.name)),
            "dtmf" => frame.dtmf.map(|dtmf| Self::Dtmf(dtmf.digit)),
            "stop" => Some(Self::Stop),
            _ => None,
        };
        Ok(event.unwrap_or(Self::Other))
    }
}

impl StreamSid {
    /// Plays audio after all that was sent before.
    pub fn media(&self, audio: Audio<'_>) -> String {
        [r#"{"event":"media","streamSid":""#, &self.0, r#"","media":{"payload":""#, audio.as_str(), r#""}}"#].concat()
    }

    /// Asks to be told when all audio sent so far has been played. The name holds letters, digits and dots only.
    pub fn mark(&self, name: &str) -> String {
        debug_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.'), "mark names are spliced into JSON");
        format!(r#"{{"event":"mark","streamSid":"{}","mark":{{"name":"{name}"}}}}"#, self.0)
    }

    /// Drops all audio that has not been played.
    pub fn clear(&self) -> String {
        format!(r#"{{"event":"clear","streamSid":"{}"}}"#, self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = r#"{"event":"start","sequenceNumber":"1","start":{"accountSid":"AC1","streamSid":"MZ1","callSid":"CA1","tracks":["inbound"],"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1},"customParameters":{"token":"t"}},"streamSid":"MZ1"}"#;

    #[test]
    fn documented_messages() {
        fn parse(text: &str) -> Event<'_> {
            Event::parse(text).unwrap()
        }
        assert!(matches!(parse(r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#), Event::Connected));
        let Event::Start(start) = parse(START) else { panic!("not a start") };
        assert!(start.is_mulaw());
        assert_eq!(start.custom_parameters["token"], "t");
        let media = r#"{"event":"media","sequenceNumber":"3","media":{"track":"inbound","chunk":"1","timestamp":"5","payload":"//8A"},"streamSid":"MZ1"}"#;
        let Event::Media { audio, at_ms } = parse(media) else { panic!("not media") };
        assert_eq!((audio.byte_len(), at_ms), (3, Some(5)));
        let odd = media.replace(r#""timestamp":"5","#, r#""timestamp":{},"#);
        assert!(matches!(parse(&odd), Event::Media { at_ms: None, .. }));
        let mark = r#"{"event":"mark","sequenceNumber":"4","streamSid":"MZ1","mark":{"name":"g1.2"}}"#;
        assert!(matches!(parse(mark), Event::Mark(name) if name.as_str() == "g1.2"));
        let dtmf =
            r#"{"event":"dtmf","streamSid":"MZ1","sequenceNumber":"5","dtmf":{"track":"inbound_track","digit":"1"}}"#;
        assert!(matches!(parse(dtmf), Event::Dtmf(digit) if digit.as_str() == "1"));
        let stop =
            r#"{"event":"stop","sequenceNumber":"5","stop":{"accountSid":"AC1","callSid":"CA1"},"streamSid":"MZ1"}"#;
        assert!(matches!(parse(stop), Event::Stop));
    }

    #[test]
    fn strangers_are_ignored_and_garbage_is_an_error() {
        assert!(matches!(Event::parse(r#"{"event":"new"}"#), Ok(Event::Other)));
        assert!(matches!(Event::parse(r#"{"event":"media","media":{"payload":"?"}}"#), Ok(Event::Other)));
        assert!(Event::parse("not json").is_err());
        assert!(Event::parse(r#"{"event":1}"#).is_err());
    }

    #[test]
    fn ids_that_would_break_the_json_are_refused() {
        let text = START.replace("MZ1", "MZ1\\\"");
        let Ok(Event::Start(start)) = Event::parse(&text) else { panic!("not a start") };
        assert_eq!(start.stream_sid(), None);
    }

    #[test]
    fn messages_to_twilio_have_exactly_the_documented_fields() {
        let stream = StreamSid("MZ1".into());
        let audio = Audio::new("//8A").unwrap();
        assert_eq!(stream.media(audio), r#"{"event":"media","streamSid":"MZ1","media":{"payload":"//8A"}}"#);
        assert_eq!(stream.mark("g1.2"), r#"{"event":"mark","streamSid":"MZ1","mark":{"name":"g1.2"}}"#);
        assert_eq!(stream.clear(), r#"{"event":"clear","streamSid":"MZ1"}"#);
    }
}
