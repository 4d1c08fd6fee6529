//! Signing as Twilio does it. Written apart from the product's verification on purpose: two
//! implementations that meet in a test say more than one that agrees with itself.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;

/// Name and value of one webhook parameter, as they are before form encoding.
pub type Param = (String, String);

/// The value of `X-Twilio-Signature`: base64 of HMAC-SHA1 with the auth token as key over the URL
/// (as requested, byte for byte, without its fragment), followed by every parameter: names in order of
/// their bytes, and under a repeated name the distinct values in order, each after the name.
///
/// For GET and for WebSocket upgrades `params` is empty: what they carry is in the URL.
pub fn sign(auth_token: &str, url: &str, params: &[Param]) -> String {
    let mut sorted: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, value) in params {
        sorted.entry(name).or_default().insert(value);
    }
    let mut mac = Hmac::<Sha1>::new_from_slice(auth_token.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(url.split('#').next().unwrap_or_default().as_bytes());
    for (name, values) in sorted {
        for value in values {
            mac.update(name.as_bytes());
            mac.update(value.as_bytes());
        }
    }
    BASE64_STANDARD.encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with Twilio's own SDKs; see the file's notes.
    const VECTORS: &str = include_str!("../../../shared/tests/twilio_vectors.json");

    #[test]
    fn the_sdks_vectors_are_met() {
        let vectors: Vec<serde_json::Value> = serde_json::from_str(VECTORS).expect("the vectors are JSON");
        let mut checked = 0;
        for vector in vectors.iter().filter(|vector| vector["algorithm"] == "HMAC_SHA1") {
            let mut params: Vec<Param> = Vec::new();
            for (name, value) in vector["params"].as_object().expect("params is an object") {
                let values = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
                params.extend(values.iter().map(|value| (name.clone(), value.as_str().expect("a text").to_owned())));
            }
            let text = |key: &str| vector[key].as_str().expect("a text").to_owned();
            assert_eq!(sign(&text("token"), &text("url"), &params), text("signature"), "{}", vector["id"]);
            checked += 1;
        }
        assert_eq!(checked, 7);
    }

    #[test]
    fn the_fragment_is_not_signed() {
        assert_eq!(sign("t", "https://h.test/p?q#rc=2&rp=5xx", &[]), sign("t", "https://h.test/p?q", &[]));
    }
}
