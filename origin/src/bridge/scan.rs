//! The two messages that carry audio, read without a JSON parser: nine of ten messages of a call are these.
//!
//! Only the very text is taken that the services write, byte for byte but for its values, and of those only plain ones.
//! Everything else gives `None` and is for the parser, so a service that writes its messages otherwise costs time and
//! nothing more.

/// A `media` message of Twilio's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Media<'a> {
    /// In milliseconds, as digits.
    pub(super) timestamp: &'a str,
    /// Without escapes.
    pub(super) payload: &'a str,
}

/// A `response.output_audio.delta` event of OpenAI's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Delta<'a> {
    pub(super) response_id: &'a str,
    pub(super) item_id: &'a str,
    pub(super) content_index: u32,
    /// Without escapes.
    pub(super) audio: &'a str,
}

/// Reads a message in Twilio's order of members.
pub(super) fn media(message: &str) -> Option<Media<'_>> {
    let rest = message.strip_prefix(r#"{"event":"media","sequenceNumber":""#)?;
    let (_, rest) = plain(rest)?;
    let rest = rest.strip_prefix(r#","media":{"track":"inbound","chunk":""#)?;
    let (_, rest) = plain(rest)?;
    let (timestamp, rest) = plain(rest.strip_prefix(r#","timestamp":""#)?)?;
    let (payload, rest) = plain(rest.strip_prefix(r#","payload":""#)?)?;
    let (_, rest) = plain(rest.strip_prefix(r#"},"streamSid":""#)?)?;
    (rest == "}").then_some(Media { timestamp, payload })
}

/// Reads an event whose members may come in any order: the service promises none.
pub(super) fn delta(message: &str) -> Option<Delta<'_>> {
    let (mut kind, mut response_id, mut item_id, mut delta) = (None, None, None, None);
    let mut content_index = None;
    let mut rest = message.strip_prefix('{')?;
    loop {
        let (name, value) = plain(rest.strip_prefix('"')?)?;
        let value = value.strip_prefix(':')?;
        let place = match name {
            "type" => Some(&mut kind),
            "response_id" => Some(&mut response_id),
            "item_id" => Some(&mut item_id),
            "delta" => Some(&mut delta),
            "event_id" | "obfuscation" | "content_index" | "output_index" => None,
            // What else a message may hold is the parser's.
            _ => return None,
        };
        rest = if let Some(text) = value.strip_prefix('"') {
            let (text, rest) = plain(text)?;
            let is_odd = match place {
                // A member that comes twice is an error.
                Some(place) => place.replace(text).is_some(),
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
    let whole = rest == "}" && kind == Some("response.output_audio.delta");
    whole.then_some(Delta {
        response_id: response_id?,
        item_id: item_id?,
        content_index: content_index.unwrap_or(0),
        audio: delta?,
    })
}

/// Splits behind a JSON string's opening mark: its text, if that stands for itself, and what follows the closing mark.
fn plain(text: &str) -> Option<(&str, &str)> {
    let (text, rest) = text.split_once('"')?;
    // Looked at to the end in any case, which processors do many bytes at a time.
    let odd = text.bytes().filter(|byte| *byte == b'\\' || *byte < b' ').count();
    (odd == 0).then_some((text, rest))
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
        assert_eq!(media(MEDIA), Some(Media { timestamp: "25", payload: "//8A" }));
        let taken = Delta { response_id: "resp_1", item_id: "item_1", content_index: 10, audio: "//8A" };
        assert_eq!(delta(DELTA), Some(taken));
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
            assert_eq!(delta(&DELTA.replace(of, with)), None, "{with}");
        }
    }

    /// Whatever is taken means the same to the parser.
    fn agrees(message: &str) {
        if let Some(taken) = media(message) {
            let parsed: Value = serde_json::from_str(message).unwrap();
            assert_eq!(parsed["event"], "media");
            assert_eq!(parsed["media"]["payload"], taken.payload);
            assert_eq!(parsed["media"]["timestamp"], taken.timestamp);
        }
        if let Some(taken) = delta(message) {
            let parsed: Value = serde_json::from_str(message).unwrap();
            assert_eq!(parsed["type"], "response.output_audio.delta");
            assert_eq!(parsed["response_id"], taken.response_id);
            assert_eq!(parsed["item_id"], taken.item_id);
            assert_eq!(parsed["delta"], taken.audio);
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
        fn a_spoilt_message_is_not_taken_for_another(at in any::<prop::sample::Index>(), character in any::<char>(), long in any::<bool>()) {
            for message in [MEDIA, DELTA] {
                let place = at.index(message.len());
                let with = if long { format!("{character}{character}") } else { character.to_string() };
                agrees(&format!("{}{with}{}", &message[..place], &message[place + 1..]));
            }
        }
    }
}
