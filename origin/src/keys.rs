//! API keys: `tdm_` and 256 random bits. A key is shown once; only its SHA-256 is kept. That one was made or revoked is
//! logged.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::SecretString;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use shared::ProjectId;
use sqlx::PgConnection;

use crate::store::api_keys::{self, KeyId, KeyRecord, Role};
use crate::store::events::{self, Actor, NewEvent};
use crate::store::{self, StoreError};

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

/// Makes a key of a project out of random bytes, within the caller's transaction.
pub async fn issue(
    conn: &mut PgConnection,
    project: ProjectId,
    role: Role,
    random: [u8; 32],
    actor: &Actor,
) -> store::Result<(SecretString, KeyRecord)> {
    let (key, digest) = make(random);
    let record = api_keys::insert(conn, project, role, &digest).await?;
    let event = NewEvent { after: Some(state(&record)), ..NewEvent::new(project, "api_key.created", actor) };
    events::append(conn, &event).await?;
    Ok((key, record))
}

/// Revokes a key of the project, within the caller's transaction; again changes nothing. `None`: there is no such key.
pub async fn revoke(
    conn: &mut PgConnection,
    project: ProjectId,
    key: KeyId,
    actor: &Actor,
) -> Result<Option<KeyRecord>, StoreError> {
    let Some(mut record) = api_keys::lock(conn, project, key).await? else { return Ok(None) };
    if record.revoked_at.is_none() {
        let before = state(&record);
        record.revoked_at = Some(api_keys::revoke(conn, key).await?);
        let event = NewEvent {
            before: Some(before),
            after: Some(state(&record)),
            ..NewEvent::new(project, "api_key.revoked", actor)
        };
        events::append(conn, &event).await?;
    }
    Ok(Some(record))
}

/// What an event tells of a key.
fn state(key: &KeyRecord) -> Value {
    json!({ "id": key.id, "prefix": key.prefix, "role": key.role, "isRevoked": key.revoked_at.is_some() })
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
