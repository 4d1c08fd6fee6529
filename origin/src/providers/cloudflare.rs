//! Cloudflare's KV through its REST API: the edge's store, written and read in bulk.
//!
//! From Cloudflare's documentation of `storage/kv/namespaces/{id}/bulk`: at most 10,000 pairs and 100 MB a request,
//! the same key twice is refused, a request that succeeded as a whole may still name keys that failed, a read names at
//! most 100 keys, a listing gives 1,000 a page, and the whole API allows 1,200 requests in 5 minutes.
//!
//! What is read may be as old as KV allows, about a minute.

use std::collections::HashMap;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config;
use crate::providers::retry_after;

/// A bulk write of a thousand routes takes well under a second; the rest is for a bad day.
const TIMEOUT: Duration = Duration::from_secs(20);
/// How long we wait after a 429 that does not say.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Keys that one read may name.
pub const MAX_GET: usize = 100;
/// How often, and how long at a time, a listing waits when Cloudflare asks it to.
const MAX_WAITS: u32 = 5;
const MAX_WAIT: Duration = Duration::from_mins(1);

/// One namespace of KV.
#[derive(Clone, Debug)]
pub struct Kv {
    http: reqwest::Client,
    namespace_url: String,
    token: SecretString,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// At most 512 bytes.
    pub key: String,
    /// The text to keep.
    pub value: String,
    /// What a listing tells of the key: at most 1,024 bytes of JSON.
    pub metadata: Value,
}

/// A key in a listing.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Listed {
    /// The key.
    pub name: String,
    /// What it was written with, or null.
    #[serde(default)]
    pub metadata: Value,
}

/// Why Cloudflare did not do what we asked.
#[derive(Debug, thiserror::Error)]
pub enum CloudflareError {
    /// Too many requests.
    #[error("Cloudflare asks to wait for {} s", .retry_after.as_secs())]
    RateLimited {
        /// How long to wait.
        retry_after: Duration,
    },
    /// An answer other than success.
    #[error("Cloudflare refused the request with status {status}: {reason}")]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// Cloudflare's code and words.
        reason: String,
    },
    /// No answer, or one that is not Cloudflare's.
    #[error("Cloudflare cannot be reached")]
    Unreachable(#[source] reqwest::Error),
}

impl CloudflareError {
    /// A word for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::RateLimited { .. } => "rate_limited",
            Self::Refused { .. } => "refused",
            Self::Unreachable(_) => "unreachable",
        }
    }
}

/// Cloudflare's envelope, as far as we read it.
#[derive(Debug, Deserialize)]
struct Answer<R> {
    #[serde(default)]
    success: bool,
    #[serde(default = "Vec::new")]
    errors: Vec<ApiError>,
    #[serde(default = "none")]
    result: Option<R>,
    #[serde(default)]
    result_info: Option<ResultInfo>,
}

/// Serde's own default would ask for one of the result.
fn none<R>() -> Option<R> {
    None
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ResultInfo {
    cursor: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Values {
    #[serde(default)]
    values: HashMap<String, Option<String>>,
}

#[derive(Debug, Deserialize)]
struct ApiError {
    code: i64,
    message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BulkResult {
    unsuccessful_keys: Vec<String>,
}

impl Kv {
    /// A client for the configured namespace.
    pub fn new(http: reqwest::Client, config: &config::Cloudflare) -> Self {
        let api = config.api_url.as_str().trim_end_matches('/');
        Self {
            http,
            namespace_url: format!(
                "{api}/accounts/{}/storage/kv/namespaces/{}",
                config.account_id, config.namespace_id
            ),
            token: config.api_token.clone(),
        }
    }

    /// Writes pairs with distinct keys; gives the keys that were not written.
    pub async fn put(&self, pairs: &[Pair]) -> Result<Vec<String>, CloudflareError> {
        self.bulk(Method::PUT, "bulk", &pairs).await
    }

    /// Deletes keys; gives the keys that were not deleted. A key that does not exist counts as deleted.
    pub async fn delete(&self, keys: &[String]) -> Result<Vec<String>, CloudflareError> {
        self.bulk(Method::POST, "bulk/delete", &keys).await
    }

    /// Reads at most [`MAX_GET`] keys; those that do not exist are not in the answer.
    pub async fn get(&self, keys: &[String]) -> Result<HashMap<String, String>, CloudflareError> {
        let request = self.request(Method::POST, "bulk/get").json(&json!({ "keys": keys }));
        let (found, _) = send::<Values>(request).await?;
        let values = found.unwrap_or_default().values;
        Ok(values.into_iter().filter_map(|(key, value)| Some((key, value?))).collect())
    }

    /// The same. Asked to wait, it waits a few times.
    pub async fn get_patiently(&self, keys: &[String]) -> Result<HashMap<String, String>, CloudflareError> {
        let mut waits = 0;
        loop {
            match self.get(keys).await {
                Err(CloudflareError::RateLimited { retry_after }) if waits < MAX_WAITS && retry_after <= MAX_WAIT => {
                    waits += 1;
                    tokio::time::sleep(retry_after).await;
                }
                answer => return answer,
            }
        }
    }

    /// Lists every key that begins with `prefix`. Asked to wait, it waits a few times.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Listed>, CloudflareError> {
        let (mut keys, mut cursor, mut waits) = (Vec::new(), String::new(), 0);
        loop {
            let query = [("prefix", prefix), ("limit", "1000"), ("cursor", &cursor)];
            let asked = if cursor.is_empty() { &query[..2] } else { &query[..] };
            match send::<Vec<Listed>>(self.request(Method::GET, "keys").query(asked)).await {
                Ok((page, next)) => {
                    keys.extend(page.unwrap_or_default());
                    cursor = next.unwrap_or_default();
                    if cursor.is_empty() {
                        return Ok(keys);
                    }
                }
                Err(CloudflareError::RateLimited { retry_after }) if waits < MAX_WAITS && retry_after <= MAX_WAIT => {
                    waits += 1;
                    tokio::time::sleep(retry_after).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn bulk(&self, method: Method, path: &str, body: &impl Serialize) -> Result<Vec<String>, CloudflareError> {
        let (result, _) = send::<BulkResult>(self.request(method, path).json(body)).await?;
        Ok(result.unwrap_or_default().unsuccessful_keys)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}/{path}", self.namespace_url))
            .bearer_auth(self.token.expose_secret())
            .timeout(TIMEOUT)
    }
}

/// Sends a request; gives its result and where the next page begins.
async fn send<R: DeserializeOwned>(request: RequestBuilder) -> Result<(Option<R>, Option<String>), CloudflareError> {
    let response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    if status == StatusCode::TOO_MANY_REQUESTS {
        let retry_after = retry_after(&response).unwrap_or(DEFAULT_RETRY_AFTER);
        return Err(CloudflareError::RateLimited { retry_after });
    }
    let text = response.bytes().await.map_err(unreachable)?;
    verdict(status, &text)
}

/// The error without its URL, which names the account.
fn unreachable(error: reqwest::Error) -> CloudflareError {
    CloudflareError::Unreachable(error.without_url())
}

/// Reads an answer: its result and the cursor of the next page, or why everything failed.
fn verdict<R: DeserializeOwned>(
    status: StatusCode,
    text: &[u8],
) -> Result<(Option<R>, Option<String>), CloudflareError> {
    let answer: Option<Answer<R>> = serde_json::from_slice(text).ok();
    match answer {
        Some(answer) if status.is_success() && answer.success => {
            Ok((answer.result, answer.result_info.and_then(|info| info.cursor)))
        }
        answer => {
            let errors = answer.map(|answer| answer.errors).unwrap_or_default();
            let reason = errors.first().map_or_else(
                || "an answer that is not Cloudflare's".to_owned(),
                |error| format!("{} {}", error.code, error.message),
            );
            Err(CloudflareError::Refused { status, reason })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_may_name_failed_keys() {
        let text = br#"{"success":true,"errors":[],"messages":[],
            "result":{"successful_key_count":1,"unsuccessful_keys":["number:+15550100"]}}"#;
        let (result, cursor) = verdict::<BulkResult>(StatusCode::OK, text).unwrap();
        assert_eq!((result.unwrap().unsuccessful_keys, cursor), (vec!["number:+15550100".to_owned()], None));
        assert!(verdict::<BulkResult>(StatusCode::OK, br#"{"success":true,"result":null}"#).unwrap().0.is_none());
    }

    #[test]
    fn a_listing_has_pages() {
        let text = br#"{"success":true,"errors":[],"messages":[],"result_info":{"count":2,"cursor":"next"},
            "result":[{"name":"number:+15550100","metadata":{"revision":3}},{"name":"other"}]}"#;
        let (page, cursor) = verdict::<Vec<Listed>>(StatusCode::OK, text).unwrap();
        assert_eq!(page.unwrap()[0].metadata, json!({ "revision": 3 }));
        assert_eq!(cursor.as_deref(), Some("next"));
    }

    #[test]
    fn anything_else_is_refused() {
        let text = br#"{"success":false,"errors":[{"code":10000,"message":"Authentication error"}],"result":null}"#;
        let error = verdict::<BulkResult>(StatusCode::FORBIDDEN, text).unwrap_err().to_string();
        assert!(error.contains("403") && error.contains("10000 Authentication error"), "{error}");
        for (status, text) in [(200, "{}"), (200, r#"{"success":false}"#), (200, "<html>"), (502, "")] {
            let status = StatusCode::from_u16(status).unwrap();
            assert!(verdict::<BulkResult>(status, text.as_bytes()).is_err(), "{text}");
        }
    }
}
