//! How the edge proves itself to the origin.
//!
//! `Tandem-Signature: t=<unix seconds>,v1=<hex HMAC-SHA256(secret, "<t>.<METHOD>.<path and query>.<body>")>` signs one
//! request; `Tandem-Delivery` carries the webhook's idempotency key, equal on every retry.

use sha2::{Digest, Sha256};

use crate::hmac::{Algorithm, equal, from_hex, mac, to_hex};

/// The header that holds the signature.
pub const SIGNATURE_HEADER: &str = "tandem-signature";
/// The header that holds the webhook's idempotency key.
pub const DELIVERY_HEADER: &str = "tandem-delivery";
/// How far the two clocks may be apart, and how long a captured request stays usable, in seconds.
pub const TOLERANCE_SECONDS: u64 = 300;

/// The longest idempotency key that is sent as it is, in bytes.
const MAX_DELIVERY_BYTES: usize = 200;

/// An idempotency key as it stands in [`DELIVERY_HEADER`].
///
/// Keys are made of what a sender chose, which may be long or hold what no header can; such a key is replaced by its
/// hash, so that no event is unsendable.
pub fn delivery(key: String) -> String {
    if key.len() <= MAX_DELIVERY_BYTES && key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return key;
    }
    format!("sha256:{}", to_hex(&Sha256::digest(key)))
}

/// The parts of a request that are signed.
#[derive(Clone, Copy, Debug)]
pub struct SignedRequest<'a> {
    /// Upper-case HTTP method.
    pub method: &'a str,
    /// Path and query as they stand in the request line.
    pub path_and_query: &'a str,
    /// The body's bytes.
    pub body: &'a [u8],
}

impl SignedRequest<'_> {
    /// What is signed before the body, at `at`, in unix seconds: for whoever signs a long body by other means.
    pub fn head(&self, at: u64) -> String {
        format!("{at}.{}.{}.", self.method, self.path_and_query)
    }

    fn mac(&self, secret: &str, at: u64) -> Vec<u8> {
        mac(Algorithm::Sha256, secret.as_bytes(), &[self.head(at).as_bytes(), self.body])
    }
}

/// The value of [`SIGNATURE_HEADER`] at `now`, in unix seconds.
pub fn sign(secret: &str, now: u64, request: SignedRequest<'_>) -> String {
    format!("t={now},v1={}", to_hex(&request.mac(secret, now)))
}

/// Why a request is not the edge's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HopError {
    /// The header is not `t=…,v1=…`.
    #[error("the signature header is malformed")]
    Malformed,
    /// The signature's time is more than [`TOLERANCE_SECONDS`] away.
    #[error("the signature is too old or from the future")]
    Stale,
    /// The signature does not match the request.
    #[error("the signature does not match")]
    Mismatch,
}

/// Checks a [`SIGNATURE_HEADER`] against the request that carried it.
pub fn verify(secret: &str, now: u64, header: &str, request: SignedRequest<'_>) -> Result<(), HopError> {
    let (at, signature) = header
        .strip_prefix("t=")
        .and_then(|rest| rest.split_once(",v1="))
        .and_then(|(at, signature)| Some((at.parse::<u64>().ok()?, from_hex(signature)?)))
        .ok_or(HopError::Malformed)?;
    if now.abs_diff(at) > TOLERANCE_SECONDS {
        return Err(HopError::Stale);
    }
    if equal(&request.mac(secret, at), &signature) { Ok(()) } else { Err(HopError::Mismatch) }
}

#[cfg(test)]
#[cfg(not(target_arch = "wasm32"))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_795_000_000;

    #[test]
    fn known_answer() {
        let request = SignedRequest { method: "POST", path_and_query: "/twilio/voice?attempt=1", body: b"a=1" };
        assert_eq!(
            sign("secret", NOW, request),
            format!(
                "t={NOW},v1={}",
                to_hex(&mac(Algorithm::Sha256, b"secret", &[b"1795000000.POST./twilio/voice?attempt=1.a=1"]))
            )
        );
    }

    #[test]
    fn malformed_headers() {
        let request = SignedRequest { method: "POST", path_and_query: "/", body: b"" };
        for header in ["", "t=1", "t=x,v1=00", "v1=00,t=1", "t=1795000000,v1=zz", "t=-1,v1=00"] {
            assert_eq!(verify("s", NOW, header, request), Err(HopError::Malformed), "{header}");
        }
    }

    proptest! {
        #[test]
        fn every_key_fits_a_header_and_stays_apart(key in any::<String>(), other in any::<String>()) {
            let sent = delivery(key.clone());
            prop_assert!(sent.len() <= MAX_DELIVERY_BYTES && sent.bytes().all(|byte| byte.is_ascii_graphic()), "{sent}");
            prop_assert_eq!(sent == delivery(other.clone()), key == other);
        }

        #[test]
        fn an_ordinary_key_is_sent_as_it_is(key in "[!-~]{1,200}") {
            prop_assert_eq!(delivery(key.clone()), key);
        }

        #[test]
        fn only_the_signed_request_within_the_tolerance_passes(
            body in proptest::collection::vec(any::<u8>(), 0..64), drift in 0u64..1000, flip in any::<proptest::sample::Index>()
        ) {
            let request = SignedRequest { method: "POST", path_and_query: "/twilio/status", body: &body };
            let header = sign("secret", NOW, request);
            let expected = if drift <= TOLERANCE_SECONDS { Ok(()) } else { Err(HopError::Stale) };
            prop_assert_eq!(verify("secret", NOW + drift, &header, request), expected);
            prop_assert_eq!(verify("secret", NOW - drift, &header, request), expected);
            prop_assert_eq!(verify("other", NOW, &header, request), Err(HopError::Mismatch));
            let longer = SignedRequest { path_and_query: "/twilio/status?", ..request };
            prop_assert_eq!(verify("secret", NOW, &header, longer), Err(HopError::Mismatch));
            if !body.is_empty() {
                let mut changed = body.clone();
                let at = flip.index(changed.len());
                changed[at] ^= 1;
                let changed = SignedRequest { body: &changed, ..request };
                prop_assert_eq!(verify("secret", NOW, &header, changed), Err(HopError::Mismatch));
            }
        }
    }
}
