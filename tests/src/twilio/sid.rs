//! Twilio's identifiers: two letters and 32 hexadecimal digits.

use std::fmt;

macro_rules! sid {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
        pub struct $name(String);

        impl $name {
            pub(crate) fn random() -> Self {
                Self(format!(concat!($prefix, "{}"), uuid::Uuid::new_v4().simple()))
            }

            /// The text of the sid.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

sid!(
    /// A call (`CA…`).
    CallSid,
    "CA"
);
sid!(
    /// A media stream (`MZ…`).
    StreamSid,
    "MZ"
);
sid!(
    /// A phone number of the account (`PN…`).
    NumberSid,
    "PN"
);
