//! How Vapi proves itself to a server: the headers of each style of credential. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use sha2::{Sha256, Sha512};
use time::OffsetDateTime;

use super::clock::epoch_ms;

/// HMAC of a payload, for one of the hash types (which share no object-safe trait).
macro_rules! mac {
    ($hash:ty, $key:expr, $payload:expr) => {{
        let mut mac = Hmac::<$hash>::new_from_slice(&$key).expect("HMAC takes keys of any length");
        mac.update($payload);
        mac.finalize().into_bytes().to_vec()
    }};
}

/// A style of proof.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Auth {
    /// Nothing: what happens when nobody has set it up.
    #[default]
    None,
    /// The legacy `server.secret`: `X-Vapi-Secret: <secret>`, in plain text.
    Secret(String),
    /// A bearer credential.
    Bearer {
        /// The token.
        token: String,
        /// `Authorization` unless configured otherwise; `X-Vapi-Secret` replaces the legacy secret.
        header: String,
        /// Whether `Bearer ` precedes the token.
        prefix: bool,
    },
    /// An HMAC credential.
    Hmac(HmacPlan),
}

impl Auth {
    /// `Authorization: Bearer <token>`.
    pub fn bearer(token: &str) -> Self {
        Self::Bearer { token: token.to_owned(), header: "Authorization".into(), prefix: true }
    }

    /// The HMAC plan with Vapi's defaults over SHA-256: hex of `{timestamp}.{body}` in `x-signature`.
    pub fn hmac(secret: &str) -> Self {
        Self::Hmac(HmacPlan::new(secret))
    }

    /// The headers for one attempt to post `body`.
    pub fn headers(&self, attempt: &Signing<'_>) -> Vec<(String, String)> {
        match self {
            Self::None => Vec::new(),
            Self::Secret(secret) => vec![("X-Vapi-Secret".into(), secret.clone())],
            Self::Bearer { token, header, prefix } => {
                let value = if *prefix { format!("Bearer {token}") } else { token.clone() };
                vec![(header.clone(), value)]
            }
            Self::Hmac(plan) => plan.headers(attempt),
        }
    }
}

/// What a signature may cover.
#[derive(Debug, Clone, Copy)]
pub struct Signing<'a> {
    /// The bytes that are posted.
    pub body: &'a [u8],
    /// The public URL, as configured.
    pub url: &'a str,
    /// When this attempt is made.
    pub at: OffsetDateTime,
    /// Stable over the attempts of one message; sent only if the plan names a header for it.
    pub message_id: &'a str,
}

/// An HMAC plan, with the field names of the SDK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HmacPlan {
    /// `secretKey`.
    pub secret_key: String,
    /// `secretIsBase64`: the key is the decoded bytes.
    pub secret_is_base64: bool,
    /// `algorithm`, which has no default in the API.
    pub algorithm: Algorithm,
    /// `signatureHeader`.
    pub signature_header: String,
    /// `signaturePrefix`, such as `sha256=`.
    pub signature_prefix: String,
    /// `signatureEncoding`.
    pub encoding: Encoding,
    /// `timestampHeader`; `None` is `includeTimestamp: false`.
    pub timestamp_header: Option<String>,
    /// The timestamp's unit, which Vapi does not document.
    pub timestamp_unit: TimestampUnit,
    /// `payloadFormat`: `{timestamp}`, `{body}`, `{method}`, `{url}` and `{svix-id}` are replaced.
    pub payload_format: String,
    /// `messageIdHeader`: the only delivery id that is equal on every attempt.
    pub message_id_header: Option<String>,
}

/// `algorithm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs)]
pub enum Algorithm {
    Sha1,
    Sha256,
    Sha512,
}

/// `signatureEncoding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs)]
pub enum Encoding {
    Hex,
    Base64,
}

/// Both are plausible: a receiver has to take either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs)]
pub enum TimestampUnit {
    Seconds,
    Milliseconds,
}

impl HmacPlan {
    /// Vapi's defaults, over SHA-256 and with seconds.
    pub fn new(secret_key: &str) -> Self {
        Self {
            secret_key: secret_key.to_owned(),
            secret_is_base64: false,
            algorithm: Algorithm::Sha256,
            signature_header: "x-signature".into(),
            signature_prefix: String::new(),
            encoding: Encoding::Hex,
            timestamp_header: Some("x-timestamp".into()),
            timestamp_unit: TimestampUnit::Seconds,
            payload_format: "{timestamp}.{body}".into(),
            message_id_header: None,
        }
    }

    fn headers(&self, attempt: &Signing<'_>) -> Vec<(String, String)> {
        let timestamp = match self.timestamp_unit {
            TimestampUnit::Seconds => attempt.at.unix_timestamp(),
            TimestampUnit::Milliseconds => epoch_ms(attempt.at),
        }
        .to_string();
        let signature = self.sign(&self.payload(attempt, &timestamp));
        let mut headers = vec![(self.signature_header.clone(), format!("{}{signature}", self.signature_prefix))];
        headers.extend(self.timestamp_header.clone().map(|name| (name, timestamp)));
        headers.extend(self.message_id_header.clone().map(|name| (name, attempt.message_id.to_owned())));
        headers
    }

    /// The format with its placeholders replaced. `{body}` is replaced last and once, so that a body which
    /// contains a placeholder is signed as it is.
    fn payload(&self, attempt: &Signing<'_>, timestamp: &str) -> Vec<u8> {
        let fill = |text: &str| {
            text.replace("{timestamp}", timestamp)
                .replace("{method}", "POST")
                .replace("{url}", attempt.url)
                .replace("{svix-id}", attempt.message_id)
        };
        match self.payload_format.split_once("{body}") {
            Some((before, after)) => [fill(before).as_bytes(), attempt.body, fill(after).as_bytes()].concat(),
            None => fill(&self.payload_format).into_bytes(),
        }
    }

    fn sign(&self, payload: &[u8]) -> String {
        let key = if self.secret_is_base64 {
            STANDARD.decode(&self.secret_key).expect("secretKey is base64, as secretIsBase64 says")
        } else {
            self.secret_key.clone().into_bytes()
        };
        let code = match self.algorithm {
            Algorithm::Sha1 => mac!(Sha1, key, payload),
            Algorithm::Sha256 => mac!(Sha256, key, payload),
            Algorithm::Sha512 => mac!(Sha512, key, payload),
        };
        match self.encoding {
            Encoding::Hex => hex(&code),
            Encoding::Base64 => STANDARD.encode(code),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String does not fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(body: &[u8]) -> Signing<'_> {
        Signing {
            body,
            url: "https://edge.tandem.test/api/vapi/webhook",
            at: OffsetDateTime::from_unix_timestamp(1_795_359_599).expect("a valid time"),
            message_id: "m1",
        }
    }

    fn value(headers: &[(String, String)], name: &str) -> String {
        let found = headers.iter().find(|(header, _)| header == name);
        found.expect("the header is there").1.clone()
    }

    /// The expected value is from `printf '1795359599.{"message":{}}' | openssl dgst -sha256 -hmac key`.
    #[test]
    fn hmac_signs_timestamp_dot_body() {
        let headers = Auth::hmac("key").headers(&attempt(br#"{"message":{}}"#));
        assert_eq!(value(&headers, "x-timestamp"), "1795359599");
        assert_eq!(value(&headers, "x-signature"), "2a697b9f9182b3150d9c0561ed423648234dfb0db202e41f3a40dfae0aad79b8");
    }

    #[test]
    fn a_placeholder_inside_the_body_is_signed_as_it_stands() {
        let plan = HmacPlan { payload_format: "{svix-id}.{timestamp}.{body}".into(), ..HmacPlan::new("key") };
        assert_eq!(plan.payload(&attempt(b"{timestamp}"), "7"), b"m1.7.{timestamp}");
    }

    #[test]
    fn the_secret_is_sent_in_plain_text() {
        let headers = Auth::Secret("s3cret".into()).headers(&attempt(b""));
        assert_eq!(headers, [("X-Vapi-Secret".to_owned(), "s3cret".to_owned())]);
    }
}
