//! API keys: `tdm_` and 256 random bits. A key is shown once; only its SHA-256 is kept.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};

/// How every key begins, so that scanners for leaked secrets can know it.
const PREFIX: &str = "tdm_";
/// How many characters of a key people see: enough to tell keys apart, too few to guess the rest.
const SHOWN: usize = 12;

/// A key as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDigest {
    /// SHA-256 of the whole key.
    pub hash: [u8; 32],
    /// The first characters, to show.
    pub prefix: String,
}

/// Makes a key out of random bytes. The key itself is for its owner's eyes only.
pub fn make(random: [u8; 32]) -> (SecretString, KeyDigest) {
    let key = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
    let kept = keep(&key);
    (key.into(), kept)
}

/// What is kept of a presented key; `None` when it cannot be one of ours.
pub fn digest(presented: &str) -> Option<KeyDigest> {
    let body = presented.strip_prefix(PREFIX)?;
    let ours = body.len() == 43 && body.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    ours.then(|| keep(presented))
}

fn keep(key: &str) -> KeyDigest {
    KeyDigest { hash: Sha256::digest(key).into(), prefix: key.chars().take(SHOWN).collect() }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn a_made_key_is_recognized() {
        let (key, kept) = make([7; 32]);
        assert_eq!(digest(key.expose_secret()), Some(kept.clone()));
        assert_eq!(kept.prefix.len(), SHOWN);
        assert_ne!(make([8; 32]).1, kept);
    }

    #[test]
    fn anything_else_is_not() {
        let (key, _) = make([7; 32]);
        let key = key.expose_secret();
        for other in ["", "tdm_", "tdm_short", &key[..46], &format!("{key}x"), &key.replace("tdm_", "sk__"), "tdm_é"] {
            assert_eq!(digest(other), None, "{other}");
        }
    }
}
