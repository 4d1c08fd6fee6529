//! Whether a request comes from Vapi. Vapi signs nothing unless it is set up to, so three ways are accepted:
//! the secret in `X-Vapi-Secret`, the same as a bearer token, or an HMAC credential with the default payload
//! `{timestamp}.{body}`. The unit of the timestamp is undocumented: seconds and milliseconds are both read.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::hmac::{Algorithm, equal, from_hex, mac};

/// How old an HMAC timestamp may be, in seconds.
pub const TOLERANCE_SECONDS: u64 = 300;

/// The headers that can prove the sender.
#[derive(Clone, Copy, Debug, Default)]
pub struct Credentials<'a> {
    /// `X-Vapi-Secret`.
    pub secret: Option<&'a str>,
    /// `Authorization`.
    pub authorization: Option<&'a str>,
    /// `X-Signature`.
    pub signature: Option<&'a str>,
    /// `X-Timestamp`.
    pub timestamp: Option<&'a str>,
}

/// Whether one of the secrets stands behind the request. Several are valid while one is rotated.
pub fn verify<S: AsRef<str>>(secrets: &[S], now: u64, credentials: Credentials<'_>, body: &[u8]) -> bool {
    secrets.iter().map(AsRef::as_ref).filter(|secret| !secret.is_empty()).any(|secret| {
        let is_secret = |text: &str| equal(text.as_bytes(), secret.as_bytes());
        credentials.secret.is_some_and(is_secret)
            || credentials.authorization.and_then(bearer).is_some_and(is_secret)
            || signed(secret, now, credentials, body)
    })
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn signed(secret: &str, now: u64, credentials: Credentials<'_>, body: &[u8]) -> bool {
    let (Some(signature), Some(timestamp)) = (credentials.signature, credentials.timestamp) else { return false };
    let Ok(at) = timestamp.parse::<u64>() else { return false };
    let at_seconds = if at > 100_000_000_000 { at / 1000 } else { at };
    if now.abs_diff(at_seconds) > TOLERANCE_SECONDS {
        return false;
    }
    let signature = signature.strip_prefix("sha256=").unwrap_or(signature);
    let presented = [from_hex(signature), STANDARD.decode(signature).ok()];
    let computed = mac(Algorithm::Sha256, secret.as_bytes(), &[timestamp.as_bytes(), b".", body]);
    presented.iter().flatten().any(|presented| equal(presented, &computed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hmac::to_hex;

    const NOW: u64 = 1_795_000_000;

    fn accepts(credentials: Credentials<'_>, body: &[u8]) -> bool {
        verify(&["next", "current"], NOW, credentials, body)
    }

    #[test]
    fn secret_and_bearer() {
        assert!(accepts(Credentials { secret: Some("current"), ..Credentials::default() }, b"x"));
        assert!(accepts(Credentials { authorization: Some("Bearer next"), ..Credentials::default() }, b"x"));
        for wrong in [
            Credentials::default(),
            Credentials { secret: Some(""), ..Credentials::default() },
            Credentials { secret: Some("curren"), ..Credentials::default() },
            Credentials { authorization: Some("Basic next"), ..Credentials::default() },
            Credentials { authorization: Some("next"), ..Credentials::default() },
        ] {
            assert!(!accepts(wrong, b"x"), "{wrong:?}");
        }
        assert!(!verify(&[""], NOW, Credentials { secret: Some(""), ..Credentials::default() }, b""));
    }

    #[test]
    fn hmac_over_timestamp_and_body() {
        for at in [NOW.to_string(), (NOW * 1000).to_string()] {
            let computed = mac(Algorithm::Sha256, b"current", &[at.as_bytes(), b".{}"]);
            for signature in [to_hex(&computed), format!("sha256={}", to_hex(&computed)), STANDARD.encode(&computed)] {
                let credentials =
                    Credentials { signature: Some(&signature), timestamp: Some(&at), ..Credentials::default() };
                assert!(accepts(credentials, b"{}"));
                assert!(!accepts(credentials, b"{ }"));
                assert!(!verify(&["current"], NOW + TOLERANCE_SECONDS + 1, credentials, b"{}"));
                assert!(!accepts(Credentials { timestamp: None, ..credentials }, b"{}"));
            }
        }
    }
}
