//! Dead letters: events that the edge could not deliver, listed and brought back.
//!
//! A replay goes to a running origin as the edge would send it, with the delivery id of the first attempt; so an event
//! that was taken after all takes no second effect, and one that was cut off may be replayed again.

use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{StatusCode, Url};
use serde::Serialize;
use shared::dead_letter::{DeadLetter, KEY_PREFIX};
use shared::hop::{self, SignedRequest};

use crate::answering::unix_now;
use crate::config::SharedSecret;
use crate::providers::cloudflare::{CloudflareError, Kv};

/// Letters read at a time: with bodies of a megabyte, far from the 25 MB of one read.
const READ_BATCH: usize = 15;
/// Replayed letters deleted at a time. Cut off in between, they are replayed again, which does no harm.
const DELETE_BATCH: usize = 50;
/// How long the origin may take with one event, as at the edge.
const LIMIT: Duration = Duration::from_secs(15);

/// A letter in the edge's store.
#[derive(Clone, Debug, Serialize)]
pub struct Stored {
    /// Its key.
    pub key: String,
    /// The letter; `None`: it cannot be read.
    pub letter: Option<DeadLetter<'static>>,
}

/// What became of a replay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The origin has it, and the letter is deleted.
    Replayed,
    /// The origin answered with this status; the letter is kept.
    Refused(u16),
    /// The letter cannot be read or sent; it is kept.
    Unreadable,
    /// The letter is deleted: the origin will never take it, or it cannot be read.
    Discarded,
}

impl Outcome {
    /// Whether no attempt will ever end otherwise: the origin has read the event and calls it malformed, too long or of
    /// the wrong kind, or there is nothing to be read. The same four as at the edge: any other 4xx is about the way there,
    /// 404 for instance another server's word.
    const fn is_final(&self) -> bool {
        matches!(self, Self::Unreadable | Self::Refused(400 | 413 | 415 | 422))
    }
}

/// A letter and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Replay {
    /// The letter's key.
    pub key: String,
    /// Its delivery id.
    pub delivery: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
}

/// Why a replay was given up.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The letters cannot be read or deleted.
    #[error(transparent)]
    Cloudflare(#[from] CloudflareError),
    /// Nothing answers there, so the rest is not tried.
    #[error("no origin answers at {origin}")]
    NoOrigin {
        /// Where it was looked for.
        origin: Url,
        /// Why.
        source: reqwest::Error,
    },
}

/// Reads all letters, the oldest first.
pub async fn list(kv: &Kv) -> Result<Vec<Stored>, CloudflareError> {
    let keys: Vec<String> = kv.list(KEY_PREFIX).await?.into_iter().map(|key| key.name).collect();
    let mut letters = Vec::with_capacity(keys.len());
    for keys in keys.chunks(READ_BATCH) {
        let mut values = kv.get(keys).await?;
        // One that has expired or was replayed in between is gone.
        letters.extend(keys.iter().filter_map(|key| {
            let text = values.remove(key)?;
            Some(Stored { key: key.clone(), letter: serde_json::from_str(&text).ok() })
        }));
    }
    letters.sort_by(|left, right| left.key.cmp(&right.key));
    Ok(letters)
}

/// Where letters are replayed to, and how.
#[derive(Debug)]
pub struct Replayer<'a> {
    /// The edge's store.
    pub kv: &'a Kv,
    /// For the requests.
    pub http: &'a reqwest::Client,
    /// Base URL of a running origin.
    pub origin: &'a Url,
    /// What edge and origin share.
    pub secret: &'a SharedSecret,
}

impl Replayer<'_> {
    /// Replays letters in order, and deletes those that the origin took.
    pub async fn replay(&self, letters: &[Stored]) -> Result<Vec<Replay>, ReplayError> {
        self.send_all(letters, false).await
    }

    /// Replays letters once more, and deletes also those that the origin refuses for good. What it may take later is
    /// kept: nobody can throw away by mistake what an outage has brought here.
    pub async fn discard(&self, letters: &[Stored]) -> Result<Vec<Replay>, ReplayError> {
        self.send_all(letters, true).await
    }

    async fn send_all(&self, letters: &[Stored], discard: bool) -> Result<Vec<Replay>, ReplayError> {
        let mut replays = Vec::with_capacity(letters.len());
        let mut taken = Vec::new();
        let mut given_up = None;
        for stored in letters {
            let outcome = match self.send(stored).await {
                Ok(outcome) if discard && outcome.is_final() => Outcome::Discarded,
                Ok(outcome) => outcome,
                Err(error) => {
                    given_up = Some(error);
                    break;
                }
            };
            if matches!(outcome, Outcome::Replayed | Outcome::Discarded) {
                taken.push(stored.key.clone());
            }
            if taken.len() >= DELETE_BATCH {
                self.kv.delete(&std::mem::take(&mut taken)).await?;
            }
            let delivery = stored.letter.as_ref().map(|letter| letter.delivery.clone().into_owned());
            replays.push(Replay { key: stored.key.clone(), delivery, outcome });
        }
        if !taken.is_empty() {
            self.kv.delete(&taken).await?;
        }
        given_up.map_or(Ok(replays), Err)
    }

    async fn send(&self, stored: &Stored) -> Result<Outcome, ReplayError> {
        let Some((letter, body)) = stored.letter.as_ref().and_then(|letter| Some((letter, letter.body.bytes()?)))
        else {
            return Ok(Outcome::Unreadable);
        };
        // A path and nothing else: it must not lead to another host.
        let base = self.origin.as_str().trim_end_matches('/');
        let url = format!("{base}{}", letter.path);
        if !letter.path.starts_with('/') || Url::parse(&url).is_err() {
            return Ok(Outcome::Unreadable);
        }
        let signed = SignedRequest { method: "POST", path_and_query: &letter.path, body: &body };
        let request = self
            .http
            .post(url)
            .header(CONTENT_TYPE, letter.content_type.as_ref())
            .header(hop::SIGNATURE_HEADER, hop::sign(self.secret.signing(), unix_now(), signed))
            .header(hop::DELIVERY_HEADER, letter.delivery.as_ref())
            .timeout(LIMIT)
            .body(body);
        match request.send().await {
            Ok(response) if response.status().is_success() => Ok(Outcome::Replayed),
            Ok(response) => Ok(Outcome::Refused(response.status().as_u16())),
            Err(error) if error.is_builder() => Ok(Outcome::Unreadable),
            Err(error) if error.is_timeout() => Ok(Outcome::Refused(StatusCode::GATEWAY_TIMEOUT.as_u16())),
            Err(source) => Err(ReplayError::NoOrigin { origin: self.origin.clone(), source }),
        }
    }
}
