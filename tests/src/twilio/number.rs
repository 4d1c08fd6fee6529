//! A phone number of the account: its settings under the names that the REST API gives them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::call::{action_of, rfc2822};
use super::sid::NumberSid;
use super::twiml::Action;

/// Settings that the API takes, with their value in a new number. What is not here is refused
/// nowhere and kept nowhere, as at Twilio.
const SETTINGS: &[(&str, Option<&str>)] = &[
    ("AddressSid", None),
    ("ApiVersion", Some("2010-04-01")),
    ("BundleSid", None),
    ("EmergencyAddressSid", None),
    ("EmergencyStatus", Some("Inactive")),
    ("FriendlyName", None),
    ("IdentitySid", None),
    ("SmsApplicationSid", None),
    ("SmsFallbackMethod", Some("POST")),
    ("SmsFallbackUrl", None),
    ("SmsMethod", Some("POST")),
    ("SmsUrl", None),
    ("StatusCallback", None),
    ("StatusCallbackMethod", Some("POST")),
    ("TrunkSid", None),
    ("VoiceApplicationSid", None),
    ("VoiceCallerIdLookup", Some("false")),
    ("VoiceFallbackMethod", Some("POST")),
    ("VoiceFallbackUrl", None),
    ("VoiceMethod", Some("POST")),
    ("VoiceReceiveMode", Some("voice")),
    ("VoiceUrl", None),
];

/// A number and its settings.
#[derive(Clone, Debug)]
pub struct Number {
    pub(crate) sid: NumberSid,
    pub(crate) e164: String,
    settings: BTreeMap<&'static str, String>,
    created: time::OffsetDateTime,
    updated: time::OffsetDateTime,
}

impl Number {
    /// A number without a voice URL.
    pub fn new(e164: &str) -> Self {
        let now = time::OffsetDateTime::now_utc();
        let defaults = SETTINGS.iter().filter_map(|(name, value)| Some((*name, (*value)?.to_owned())));
        let mut number = Self {
            sid: NumberSid::random(),
            e164: e164.to_owned(),
            settings: defaults.collect(),
            created: now,
            updated: now,
        };
        number.set("FriendlyName", e164);
        number
    }

    /// `VoiceUrl`, requested with POST.
    #[must_use]
    pub fn voice_url(self, url: &str) -> Self {
        self.with("VoiceUrl", url)
    }

    /// `VoiceFallbackUrl`.
    #[must_use]
    pub fn fallback_url(self, url: &str) -> Self {
        self.with("VoiceFallbackUrl", url)
    }

    /// `StatusCallback`.
    #[must_use]
    pub fn status_callback(self, url: &str) -> Self {
        self.with("StatusCallback", url)
    }

    /// Any setting by its REST name (`VoiceMethod`, `TrunkSid`, …).
    #[must_use]
    pub fn with(mut self, setting: &str, value: &str) -> Self {
        self.set(setting, value);
        self
    }

    pub(crate) fn set(&mut self, setting: &str, value: &str) {
        let Some((name, _)) = SETTINGS.iter().find(|(name, _)| *name == setting) else {
            return;
        };
        self.settings.insert(name, value.to_owned());
        // A trunk and an application exclude one another.
        let other = match setting {
            "TrunkSid" => "VoiceApplicationSid",
            "VoiceApplicationSid" => "TrunkSid",
            _ => "",
        };
        if !value.is_empty() {
            self.settings.remove(other);
        }
        self.updated = time::OffsetDateTime::now_utc();
    }

    /// A setting; nothing if it is blank.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Where a call to this number goes; nothing if there is no voice URL, or something else comes first.
    pub(crate) fn voice(&self) -> Option<Action> {
        if self.setting("TrunkSid").or(self.setting("VoiceApplicationSid")).is_some() {
            return None;
        }
        action_of(self.setting("VoiceUrl"), self.setting("VoiceMethod"))
    }

    pub(crate) fn fallback(&self) -> Option<Action> {
        action_of(self.setting("VoiceFallbackUrl"), self.setting("VoiceFallbackMethod"))
    }

    pub(crate) fn callback(&self) -> Option<Action> {
        action_of(self.setting("StatusCallback"), self.setting("StatusCallbackMethod"))
    }

    pub(crate) fn json(&self, account_sid: &str) -> Value {
        let mut body = json!({
            "sid": self.sid,
            "account_sid": account_sid,
            "phone_number": self.e164,
            "address_requirements": "none",
            "beta": false,
            "capabilities": {"voice": true, "sms": true, "mms": true, "fax": false},
            "date_created": rfc2822(self.created),
            "date_updated": rfc2822(self.updated),
            "origin": "twilio",
            "status": "in-use",
            "type": "local",
            "emergency_address_status": "unregistered",
            "uri": format!("/2010-04-01/Accounts/{account_sid}/IncomingPhoneNumbers/{}.json", self.sid),
        });
        for (name, _) in SETTINGS {
            let value = self.settings.get(name);
            let id = name.ends_with("Sid");
            body[snake(name)] = match (*name, value) {
                ("VoiceCallerIdLookup", value) => json!(value.is_some_and(|value| value == "true")),
                (_, Some(value)) if id && value.is_empty() => Value::Null,
                (_, value) => json!(value),
            };
        }
        body
    }
}

fn snake(name: &str) -> String {
    let mut snake = String::new();
    for character in name.chars() {
        if character.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(character.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_appear_under_their_json_names() {
        let number = Number::new("+15550100").voice_url("https://h.test/v").with("VoiceCallerIdLookup", "true");
        let body = number.json("AC1");
        assert_eq!(body["voice_url"], "https://h.test/v");
        assert_eq!(body["voice_caller_id_lookup"], true);
        assert_eq!((&body["trunk_sid"], &body["voice_method"]), (&Value::Null, &json!("POST")));
    }

    #[test]
    fn a_trunk_comes_before_the_voice_url_and_removes_the_application() {
        let mut number = Number::new("+15550100").voice_url("https://h.test/v").with("VoiceApplicationSid", "AP1");
        assert_eq!(number.voice(), None);
        number.set("TrunkSid", "TK1");
        assert_eq!(number.setting("VoiceApplicationSid"), None);
        number.set("TrunkSid", "");
        assert_eq!(number.voice().map(|action| action.url).as_deref(), Some("https://h.test/v"));
    }
}
