//! Identifiers as types, so that one cannot be passed where another is meant.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

/// A text that is not a valid identifier of the named kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {0}")]
pub struct InvalidId(pub &'static str);

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self).map_err(|_| InvalidId($what))
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }
    };
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $pattern:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(pattern = $pattern))]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Checks the text and takes it.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidId> {
                let text = text.into();
                let valid: fn(&str) -> bool = $valid;
                if valid(&text) { Ok(Self(text)) } else { Err(InvalidId($what)) }
            }

            /// The text as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

uuid_id!(
    /// A customer's workspace: agents, numbers, tools and keys belong to one.
    ProjectId,
    "project id"
);
uuid_id!(
    /// A voice assistant.
    AgentId,
    "agent id"
);
uuid_id!(
    /// A phone number's record.
    NumberId,
    "number id"
);
uuid_id!(
    /// One phone call, whichever system runs it.
    CallId,
    "call id"
);
uuid_id!(
    /// A function that agents may call.
    ToolId,
    "tool id"
);

text_id!(
    /// Twilio's id of a call. Documented as `CA` and 32 hex digits; nothing here depends on the length.
    CallSid,
    "Twilio call SID",
    "^CA[A-Za-z0-9]{1,62}$",
    |text| sid(text, "CA")
);
text_id!(
    /// Twilio's id of an account, `AC…`.
    AccountSid,
    "Twilio account SID",
    "^AC[A-Za-z0-9]{1,62}$",
    |text| sid(text, "AC")
);
text_id!(
    /// Vapi's id of an assistant.
    AssistantId,
    "Vapi assistant id",
    "^[A-Za-z0-9_-]{1,128}$",
    opaque
);
text_id!(
    /// Vapi's id of a call.
    VapiCallId,
    "Vapi call id",
    "^[A-Za-z0-9_-]{1,128}$",
    opaque
);
text_id!(
    /// A phone number in E.164: `+` and at most 15 digits, the first not zero.
    E164,
    "E.164 phone number",
    "^[+][1-9][0-9]{1,14}$",
    |text| {
        text.strip_prefix('+').is_some_and(|digits| {
            (2..=15).contains(&digits.len()) && !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit())
        })
    }
);

impl E164 {
    /// The number with all but its last two digits hidden, for logs.
    pub fn masked(&self) -> String {
        let (hidden, shown) = self.0.split_at(self.0.len() - 2);
        format!("{}{shown}", "*".repeat(hidden.len()))
    }
}

fn sid(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix)
        .is_some_and(|rest| (1..=62).contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_alphanumeric()))
}

fn opaque(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phone_numbers() {
        for good in ["+15550100", "+15550100001", "+442071838750"] {
            assert!(E164::new(good).is_ok(), "{good}");
        }
        for bad in ["15550100", "+0555", "+1", "+1 555", "+1234567890123456", "client:ann", "", "+15550100\n"] {
            assert!(E164::new(bad).is_err(), "{bad}");
        }
        assert_eq!(E164::new("+15550100").unwrap().masked(), "*******00");
    }

    #[test]
    fn ids_with_separators_are_refused() {
        assert!(CallSid::new("CA0123abc").is_ok());
        for bad in ["CA", "AC01", "CA01.02", "CA01 "] {
            assert!(CallSid::new(bad).is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<AssistantId>("\"a/b\"").is_err());
    }
}
