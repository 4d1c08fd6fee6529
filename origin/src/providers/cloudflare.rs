//! Cloudflare's KV through its REST API: the edge's store, written in bulk.
//!
//! From Cloudflare's documentation of `storage/kv/namespaces/{id}/bulk`: at most 10,000 pairs and 100 MB a request,
//! the same key twice is refused, a request that succeeded as a whole may still name keys that failed, and the whole
//! API allows 1,200 requests in 5 minutes.

use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use crate::config;

/// A bulk write of a thousand routes takes well under a second; the rest is for a bad day.
const TIMEOUT: Duration = Duration::from_secs(20);
/// How long we wait after a 429 that does not say.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(5);

/// One namespace of KV.
#[derive(Clone, Debug)]
pub struct Kv {
    http: reqwest::Client,
    namespace_url: String,
    token: SecretString,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// At most 512 bytes.
    pub key: String,
    /// The text to keep.
    pub value: String,
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
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    success: bool,
    errors: Vec<ApiError>,
    result: Option<BulkResult>,
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
        self.send(Method::PUT, "bulk", &pairs).await
    }

    /// Deletes keys; gives the keys that were not deleted. A key that does not exist counts as deleted.
    pub async fn delete(&self, keys: &[String]) -> Result<Vec<String>, CloudflareError> {
        self.send(Method::POST, "bulk/delete", &keys).await
    }

    async fn send(&self, method: Method, path: &str, body: &impl Serialize) -> Result<Vec<String>, CloudflareError> {
        let response = self
            .http
            .request(method, format!("{}/{path}", self.namespace_url))
            .bearer_auth(self.token.expose_secret())
            .timeout(TIMEOUT)
            .json(body)
            .send()
            .await
            .map_err(unreachable)?;
        let status = response.status();
        if status == StatusCode::TOO_MANY_REQUESTS {
            let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            let retry_after = seconds.map_or(DEFAULT_RETRY_AFTER, Duration::from_secs);
            return Err(CloudflareError::RateLimited { retry_after });
        }
        let text = response.bytes().await.map_err(unreachable)?;
        verdict(status, &text)
    }
}

/// The error without its URL, which names the account.
fn unreachable(error: reqwest::Error) -> CloudflareError {
    CloudflareError::Unreachable(error.without_url())
}

/// Reads an answer: the keys that failed, or why everything did.
fn verdict(status: StatusCode, text: &[u8]) -> Result<Vec<String>, CloudflareError> {
    let answer: Option<Answer> = serde_json::from_slice(text).ok();
    match answer {
        Some(answer) if status.is_success() && answer.success => {
            Ok(answer.result.unwrap_or_default().unsuccessful_keys)
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
        assert_eq!(verdict(StatusCode::OK, text).unwrap(), ["number:+15550100"]);
        assert!(verdict(StatusCode::OK, br#"{"success":true,"result":null}"#).unwrap().is_empty());
    }

    #[test]
    fn anything_else_is_refused() {
        let text = br#"{"success":false,"errors":[{"code":10000,"message":"Authentication error"}],"result":null}"#;
        let error = verdict(StatusCode::FORBIDDEN, text).unwrap_err().to_string();
        assert!(error.contains("403") && error.contains("10000 Authentication error"), "{error}");
        for (status, text) in [(200, "{}"), (200, r#"{"success":false}"#), (200, "<html>"), (502, "")] {
            let status = StatusCode::from_u16(status).unwrap();
            assert!(verdict(status, text.as_bytes()).is_err(), "{text}");
        }
    }
}
