//! The two messages that carry audio, read without a JSON parser: nine of ten messages of a call are these.
//!
//! Only the very text is taken that the services write, byte for byte but for its values, and of those only plain ones.
//! Everything else gives `None` and is for the parser, so a service that writes its messages otherwise costs time and
//! nothing more.

use std::ops::Range;

use super::wire::Audio;

/// A `media` message of Twilio's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Media<'a> {
    /// In milliseconds, as digits.
    pub(super) timestamp: &'a str,
    pub(super) audio: Audio<'a>,
}

/// A `response.output_audio.delta` event of OpenAI's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Delta<'a> {
    pub(super) response_id: &'a str,
    pub(super) item_id: &'a str,
    pub(super) content_index: u32,
    pub(super) audio: Audio<'a>,
}

/// Reads a message in Twilio's order of members.
pub(super) fn media(message: &str) -> Option<Media<'_>> {
    let rest = message.strip_prefix(r#"{"event":"media","sequenceNumber":""#)?;
    let (_, rest) = digits(rest)?;
    let (_, rest) = digits(rest.strip_prefix(r#"","media":{"track":"inbound","chunk":""#)?)?;
    let (timestamp, rest) = digits(rest.strip_prefix(r#"","timestamp":""#)?)?;
    let (payload, rest) = rest.strip_prefix(r#"","payload":""#)?.split_once('"')?;
    let stream = rest.strip_prefix(r#"},"streamSid":""#)?.strip_suffix(r#""}"#)?;
    let audio = Audio::new(payload)?;
    is_plain(stream).then_some(Media { timestamp, audio })
}

/// Reads OpenAI's audio events one after another.
///
/// Those of one part differ in their ids and their audio alone, and what is the same as before need not be taken apart
/// again.
#[derive(Debug, Default)]
pub(super) struct Deltas {
    before: String,
    places: Places,
}

/// Where the values of an audio event are in its text.
#[derive(Clone, Debug, Default)]
struct Places {
    event_id: Range<usize>,
    response_id: Range<usize>,
    item_id: Range<usize>,
    content_index: u32,
    audio: Range<usize>,
}

impl Deltas {
    /// Reads an event whose members may come in any order: the service promises none.
    pub(super) fn read<'a>(&mut self, message: &'a str) -> Option<Delta<'a>> {
        let alike = self.alike(message);
        let is_new = alike.is_none();
        let places = alike.or_else(|| places(message))?;
        let delta = places.of(message)?;
        if is_new {
            message.clone_into(&mut self.before);
            self.places = places;
        }
        Some(delta)
    }

    /// The places in an event that differs from the one before in the two values that it may.
    fn alike(&self, message: &str) -> Option<Places> {
        let (old, new) = (self.before.as_bytes(), message.as_bytes());
        if old.is_empty() {
            return None;
        }
        let Places { event_id, audio, .. } = &self.places;
        // What comes behind the audio is as much further back as the audio is longer.
        let moved = |at: usize| if at > audio.start { (at + new.len()).checked_sub(old.len()) } else { Some(at) };
        let moved = |range: &Range<usize>| Some(moved(range.start)?..moved(range.end)?);
        let (first, second) = if event_id.start < audio.start { (event_id, audio) } else { (audio, event_id) };
        for same in [0..first.start, first.end..second.start, second.end..old.len()] {
            if old.get(same.clone())? != new.get(moved(&same)?)? {
                return None;
            }
        }
        let Places { response_id, item_id, content_index, .. } = &self.places;
        let places = Places {
            event_id: moved(event_id)?,
            response_id: moved(response_id)?,
            item_id: moved(item_id)?,
            content_index: *content_index,
            audio: moved(audio)?,
        };
        is_plain(message.get(places.event_id.clone())?).then_some(places)
    }
}

impl Places {
    fn of<'a>(&self, message: &'a str) -> Option<Delta<'a>> {
        Some(Delta {
            response_id: message.get(self.response_id.clone())?,
            item_id: message.get(self.item_id.clone())?,
            content_index: self.content_index,
            audio: Audio::new(message.get(self.audio.clone())?)?,
        })
    }
}

fn places(message: &str) -> Option<Places> {
    let (mut kind, mut event_id, mut response_id, mut item_id, mut delta) = (None, None, None, None, None);
    let mut content_index = None;
    let mut rest = message.strip_prefix('{')?;
    loop {
        let (name, value) = plain(rest.strip_prefix('"')?)?;
        let value = value.strip_prefix(':')?;
        let place = match name {
            "type" => Some(&mut kind),
            "event_id" => Some(&mut event_id),
            "response_id" => Some(&mut response_id),
            "item_id" => Some(&mut item_id),
            "delta" => Some(&mut delta),
            "obfuscation" | "content_index" | "output_index" => None,
            // What else a message may hold is the parser's.
            _ => return None,
        };
        rest = if let Some(value) = value.strip_prefix('"') {
            let (text, rest) = plain(value)?;
            let begins = message.len() - value.len();
            let is_odd = match place {
                // A member that comes twice is an error.
                Some(place) => place.replace(begins..begins + text.len()).is_some(),
                None => name.ends_with("index"),
            };
            if is_odd {
                return None;
            }
            rest
        } else {
            let end = value.bytes().position(|byte| !byte.is_ascii_digit())?;
            let (digits, rest) = value.split_at_checked(end)?;
            if place.is_some() || !name.ends_with("index") || (digits.starts_with('0') && digits != "0") {
                return None;
            }
            let index: u32 = digits.parse().ok()?;
            if name == "content_index" && content_index.replace(index).is_some() {
                return None;
            }
            rest
        };
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None => break,
        }
    }
    let whole = rest == "}" && message.get(kind?) == Some("response.output_audio.delta");
    whole.then_some(Places {
        event_id: event_id?,
        response_id: response_id?,
        item_id: item_id?,
        content_index: content_index.unwrap_or(0),
        audio: delta?,
    })
}

/// Splits behind leading digits.
fn digits(text: &str) -> Option<(&str, &str)> {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit())?;
    text.split_at_checked(end)
}

/// Splits behind a JSON string's opening mark: its text, if that stands for itself, and what follows the closing mark.
fn plain(text: &str) -> Option<(&str, &str)> {
    text.split_once('"').filter(|(text, _)| is_plain(text))
}

/// Whether a text in JSON stands for itself.
fn is_plain(text: &str) -> bool {
    // Looked at to the end in any case, which processors do many bytes at a time.
    text.bytes().filter(|byte| matches!(byte, b'\\' | b'"') || *byte < b' ').count() == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const MEDIA: &str = r#"{"event":"media","sequenceNumber":"4","media":{"track":"inbound","chunk":"2","timestamp":"25","payload":"//8A"},"streamSid":"MZ1"}"#;
    const DELTA: &str = r#"{"type":"response.output_audio.delta","event_id":"event_1","response_id":"resp_1","item_id":"item_1","output_index":0,"content_index":10,"delta":"//8A"}"#;

    #[test]
    fn the_services_own_texts_are_taken() {
        let audio = Audio::new("//8A").unwrap();
        assert_eq!(media(MEDIA), Some(Media { timestamp: "25", audio }));
        let taken = Delta { response_id: "resp_1", item_id: "item_1", content_index: 10, audio };
        assert_eq!(Deltas::default().read(DELTA), Some(taken));
    }

    #[test]
    fn what_is_not_wholly_understood_is_left_to_the_parser() {
        for other in ["", "{", "{}", r#"{"event":"stop"}"#, &MEDIA[..MEDIA.len() - 1], &format!("{MEDIA} ")] {
            assert_eq!(media(other), None, "{other}");
        }
        for (of, with) in [("//8A", r"\/\/8A"), ("inbound", "outbound"), ("MZ1\"", "MZ1\",\"x\":1")] {
            assert_eq!(media(&MEDIA.replace(of, with)), None, "{with}");
        }
        for (of, with) in [
            ("//8A", r"\/\/8A"),
            (":10", ":010"),
            (":10", ":-1"),
            (":10", ":4294967296"),
            (":10", r#":"1""#),
            ("audio.delta", "audio.done"),
            ("resp_1\"", "resp_1\",\"response_id\":\"resp_2\""),
            ("resp_1\"", "resp_1\",\"usage\":null"),
            ("\"resp_1\"", "1"),
            ("response_id", "other_id"),
        ] {
            let other = DELTA.replace(of, with);
            let mut deltas = Deltas::default();
            assert_eq!(deltas.read(&other), None, "{with}");
            deltas.read(DELTA).unwrap();
            assert_eq!(deltas.read(&other), None, "{with}");
        }
    }

    /// Whatever is taken means the same to the parser, whatever came before.
    fn agrees(message: &str) {
        let mut after = Deltas::default();
        after.read(DELTA).unwrap();
        agrees_after(message, &mut Deltas::default());
        agrees_after(message, &mut after);
    }

    fn agrees_after(message: &str, deltas: &mut Deltas) {
        if let Some(taken) = media(message) {
            let parsed: Value = serde_json::from_str(message).unwrap();
            assert_eq!(parsed["event"], "media");
            assert_eq!(parsed["media"]["payload"], taken.audio.as_str());
            assert_eq!(parsed["media"]["timestamp"], taken.timestamp);
        }
        if let Some(taken) = deltas.read(message) {
            let parsed: Value = serde_json::from_str(message).unwrap();
            assert_eq!(parsed["type"], "response.output_audio.delta");
            assert_eq!(parsed["response_id"], taken.response_id);
            assert_eq!(parsed["item_id"], taken.item_id);
            assert_eq!(parsed["delta"], taken.audio.as_str());
            assert_eq!(parsed["content_index"].as_u64().unwrap_or(0), u64::from(taken.content_index));
        }
    }

    fn value() -> impl Strategy<Value = String> {
        prop_oneof![
            r"[a-z_0-9]{0,8}".prop_map(|text| format!("\"{text}\"")),
            r#"(0|[1-9][0-9]{0,10}|-1|null|"\\\\u0041"|"é")"#
        ]
    }

    proptest! {
        #[test]
        fn members_in_any_order_mean_what_the_parser_says(
            members in proptest::sample::subsequence(
                vec!["type", "event_id", "response_id", "item_id", "output_index", "content_index", "delta"], 0..=7,
            ).prop_shuffle(),
            values in proptest::collection::vec(value(), 7),
            spoilt in proptest::option::of((any::<prop::sample::Index>(), any::<char>())),
        ) {
            let of = |(name, value): (&&str, &String)| match *name {
                "type" => r#""type":"response.output_audio.delta""#.to_owned(),
                name => format!("\"{name}\":{value}"),
            };
            let mut message = format!("{{{}}}", members.iter().zip(&values).map(of).collect::<Vec<_>>().join(","));
            agrees(&message);
            if let Some((at, character)) = spoilt {
                let at = at.index(message.chars().count());
                message = message.chars().enumerate().map(|(i, c)| if i == at { character } else { c }).collect();
                agrees(&message);
            }
        }

        #[test]
        fn what_came_before_changes_nothing(
            members in Just(["type", "event_id", "response_id", "item_id", "content_index", "delta"].to_vec()).prop_shuffle(),
            values in proptest::collection::vec((r#"[a-z"]{0,4}"#, 0..2_usize, r#"([A-Za-z0-9+/]{4}){0,3}[=\\"]?"#), 4),
        ) {
            let mut deltas = Deltas::default();
            for (event, item, audio) in &values {
                let of = |name: &&str| match *name {
                    "type" => r#""type":"response.output_audio.delta""#.to_owned(),
                    "event_id" => format!(r#""event_id":"{event}""#),
                    "content_index" => format!(r#""content_index":{item}"#),
                    "delta" => format!(r#""delta":"{audio}""#),
                    name => format!(r#""{name}":"{}""#, item * 100),
                };
                let message = format!("{{{}}}", members.iter().map(of).collect::<Vec<_>>().join(","));
                let alone = Deltas::default().read(&message).is_some();
                prop_assert_eq!(deltas.read(&message).is_some(), alone, "{}", message);
                agrees_after(&message, &mut deltas);
            }
        }

        #[test]
        fn a_spoilt_message_is_not_taken_for_another(at in any::<prop::sample::Index>(), character in any::<char>(), long in any::<bool>()) {
            for message in [MEDIA, DELTA] {
                let place = at.index(message.len());
                let with = if long { format!("{character}{character}") } else { character.to_string() };
                agrees(&format!("{}{with}{}", &message[..place], &message[place + 1..]));
            }
        }
    }
}
