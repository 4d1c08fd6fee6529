//! The requests of the KV API and what it refuses in them; its answers and errors. Pure.

use std::collections::HashMap;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const MAX_PAIRS: usize = 10_000;
const MAX_GET: usize = 100;
const MAX_KEY_BYTES: usize = 512;
const MAX_VALUE_BYTES: usize = 25 * 1024 * 1024;
const MAX_METADATA_BYTES: usize = 1024;
const MIN_TTL_S: u64 = 60;

/// A key to write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pair {
    pub(super) key: String,
    pub(super) value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) metadata: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration_ttl: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<bool>,
}

impl Pair {
    /// The value as it will be read.
    pub(super) fn bytes(&self) -> Vec<u8> {
        if self.base64 == Some(true) {
            STANDARD.decode(&self.value).unwrap_or_default()
        } else {
            self.value.clone().into_bytes()
        }
    }
}

/// A request, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operation {
    BulkPut(Vec<Pair>),
    BulkDelete(Vec<String>),
    BulkGet(Vec<String>),
    Get(String),
    Put(Pair),
    Delete(String),
    /// The query: prefix, limit, cursor.
    Keys(Listing),
}

/// What part of the keys is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) prefix: String,
    pub(super) limit: usize,
    pub(super) cursor: String,
}

impl Operation {
    /// Reads a request for `account` and `namespace`, the only ones there are.
    pub(super) fn parse(
        method: &str,
        path: &str,
        body: &[u8],
        account: &str,
        namespace: &str,
    ) -> Result<Self, ApiError> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let rest = path
            .strip_prefix("/client/v4/accounts/")
            .ok_or_else(|| ApiError::new(404, 7003, "Could not route to the request URL"))?;
        let (in_account, rest) = rest.split_once('/').unwrap_or((rest, ""));
        if in_account != account {
            // A token says nothing about accounts it does not belong to.
            return Err(ApiError::new(403, 10000, "Authentication error"));
        }
        let rest = rest
            .strip_prefix("storage/kv/namespaces/")
            .ok_or_else(|| ApiError::new(404, 7003, "Could not route to the request URL"))?;
        let (in_namespace, rest) = rest.split_once('/').unwrap_or((rest, ""));
        if in_namespace != namespace {
            return Err(ApiError::new(404, 10013, "namespace not found"));
        }
        let key = rest.strip_prefix("values/").map(decode).transpose()?;
        let operation = match (method, rest, key) {
            ("PUT", "bulk", _) => Self::BulkPut(json_body(body)?),
            ("POST", "bulk/delete", _) => Self::BulkDelete(json_body(body)?),
            ("POST", "bulk/get", _) => {
                #[derive(Deserialize)]
                struct Wanted {
                    keys: Vec<String>,
                }
                Self::BulkGet(json_body::<Wanted>(body)?.keys)
            }
            ("GET", "keys", _) => Self::Keys(listing(query)?),
            ("GET", _, Some(key)) => Self::Get(key),
            ("DELETE", _, Some(key)) => Self::Delete(key),
            ("PUT", _, Some(key)) => Self::Put(single(key, query, body)?),
            _ => {
                return Err(ApiError::new(405, 10405, "Method not allowed for this authentication scheme"));
            }
        };
        operation.check()?;
        Ok(operation)
    }

    /// The keys it names.
    pub(super) fn keys(&self) -> Vec<String> {
        match self {
            Self::BulkPut(pairs) => pairs.iter().map(|pair| pair.key.clone()).collect(),
            Self::BulkDelete(keys) | Self::BulkGet(keys) => keys.clone(),
            Self::Get(key) | Self::Delete(key) => vec![key.clone()],
            Self::Put(pair) => vec![pair.key.clone()],
            Self::Keys(_) => Vec::new(),
        }
    }

    /// Whether it changes anything.
    pub(super) fn writes(&self) -> bool {
        matches!(self, Self::BulkPut(_) | Self::BulkDelete(_) | Self::Put(_) | Self::Delete(_))
    }

    /// A bulk operation less some keys.
    pub(super) fn without(self, keys: &[String]) -> Self {
        match self {
            Self::BulkPut(pairs) => Self::BulkPut(pairs.into_iter().filter(|pair| !keys.contains(&pair.key)).collect()),
            Self::BulkDelete(all) => Self::BulkDelete(all.into_iter().filter(|key| !keys.contains(key)).collect()),
            other => other,
        }
    }

    fn check(&self) -> Result<(), ApiError> {
        let keys = self.keys();
        let most = if matches!(self, Self::BulkGet(_)) { MAX_GET } else { MAX_PAIRS };
        if keys.len() > most {
            return Err(ApiError::invalid(&format!(
                "a bulk request may name {most} keys, this one has {}",
                keys.len()
            )));
        }
        if let Some(key) = keys.iter().find(|key| key.len() > MAX_KEY_BYTES) {
            return Err(ApiError::invalid(&format!("key of {} bytes exceeds the limit of {MAX_KEY_BYTES}", key.len())));
        }
        if let Some(key) = keys.iter().find(|key| matches!(key.as_str(), "" | "." | "..")) {
            return Err(ApiError::invalid(&format!("\"{key}\" is not allowed as a key")));
        }
        let pairs: &[Pair] = match self {
            Self::BulkPut(pairs) => pairs,
            Self::Put(pair) => std::slice::from_ref(pair),
            _ => &[],
        };
        let mut values = HashMap::new();
        for pair in pairs {
            pair.check()?;
            if values.insert(&pair.key, &pair.value).is_some_and(|other| *other != pair.value) {
                return Err(ApiError::invalid(&format!("key \"{}\" occurs twice with different values", pair.key)));
            }
        }
        Ok(())
    }
}

impl Pair {
    fn check(&self) -> Result<(), ApiError> {
        if self.value.len() > MAX_VALUE_BYTES {
            return Err(ApiError::invalid("value exceeds the limit of 25 MiB"));
        }
        if self.metadata.as_ref().is_some_and(|metadata| metadata.to_string().len() > MAX_METADATA_BYTES) {
            return Err(ApiError::invalid("metadata exceeds the limit of 1024 bytes"));
        }
        if let Some(ttl) = self.expiration_ttl.filter(|ttl| *ttl < MIN_TTL_S) {
            return Err(ApiError::invalid(&format!(
                "invalid expiration_ttl of {ttl}: it must be at least {MIN_TTL_S}"
            )));
        }
        if self.base64 == Some(true) && STANDARD.decode(&self.value).is_err() {
            return Err(ApiError::invalid("value is not base64"));
        }
        Ok(())
    }
}

fn json_body<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::invalid(&error.to_string()))
}

/// The body of a single PUT is the value itself. Multipart bodies, which carry metadata, are not simulated.
fn single(key: String, query: &str, body: &[u8]) -> Result<Pair, ApiError> {
    let value =
        String::from_utf8(body.to_vec()).map_err(|_| ApiError::invalid("this simulator takes text values only"))?;
    let mut pair = Pair { key, value, metadata: None, expiration_ttl: None, expiration: None, base64: None };
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let seconds = value.parse().map_err(|_| ApiError::invalid(&format!("{name} must be a number")))?;
        match name.as_ref() {
            "expiration_ttl" => pair.expiration_ttl = Some(seconds),
            "expiration" => pair.expiration = Some(seconds),
            _ => {}
        }
    }
    Ok(pair)
}

fn listing(query: &str) -> Result<Listing, ApiError> {
    let mut listing = Listing { prefix: String::new(), limit: 1000, cursor: String::new() };
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match name.as_ref() {
            "prefix" => listing.prefix = value.into_owned(),
            "cursor" => listing.cursor = value.into_owned(),
            "limit" => {
                listing.limit = value
                    .parse()
                    .ok()
                    .filter(|limit| (10..=1000).contains(limit))
                    .ok_or_else(|| ApiError::invalid("limit must be between 10 and 1000"))?;
            }
            _ => {}
        }
    }
    Ok(listing)
}

/// Percent-decoding of a path segment, in which a plus is a plus.
fn decode(segment: &str) -> Result<String, ApiError> {
    let form = segment.replace('+', "%2B");
    let decoded = url::form_urlencoded::parse(form.as_bytes()).next();
    match decoded {
        Some((key, _)) if !segment.contains(['/', '&', '=']) => Ok(key.into_owned()),
        _ => Err(ApiError::new(404, 7003, "Could not route to the request URL")),
    }
}

/// The envelope of every answer that is not a value.
pub(super) fn success(result: &Value) -> Response {
    Json(json!({"success": true, "errors": [], "messages": [], "result": result})).into_response()
}

/// The result of a bulk write or delete.
pub(super) fn bulk_result(done: usize, failed: &[String]) -> Value {
    json!({"successful_key_count": done, "unsuccessful_keys": failed})
}

/// `{"success": false, "errors": [{"code", "message"}], "messages": [], "result": null}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    status: u16,
    code: u32,
    message: String,
    retry_after_s: Option<u64>,
}

impl ApiError {
    pub(super) fn new(status: u16, code: u32, message: &str) -> Self {
        Self { status, code, message: message.to_owned(), retry_after_s: None }
    }

    fn invalid(message: &str) -> Self {
        Self::new(400, 10001, message)
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(401, 10000, "Authentication error")
    }

    pub(super) fn key_not_found() -> Self {
        Self::new(404, 10009, "get: 'key not found'")
    }

    pub(super) fn too_large() -> Self {
        Self::new(413, 10001, "request body exceeds the limit of 100 MB")
    }

    pub(super) fn rate_limited(retry_after_s: u64) -> Self {
        let error = Self::new(429, 971, "Please wait and consider throttling your request speed");
        Self { retry_after_s: Some(retry_after_s), ..error }
    }

    pub(super) fn internal() -> Self {
        Self::new(500, 10001, "internal error")
    }

    pub(super) fn upstream(error: &reqwest::Error) -> Self {
        Self::new(502, 10001, &format!("the local Worker did not answer: {error}"))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let errors = json!([{"code": self.code, "message": self.message}]);
        let body = json!({"success": false, "errors": errors, "messages": [], "result": null});
        let mut response = (status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert("retry-after", seconds.into());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "/client/v4/accounts/acc/storage/kv/namespaces/ns";

    fn parse(method: &str, rest: &str, body: &Value) -> Result<Operation, ApiError> {
        Operation::parse(method, &format!("{BASE}/{rest}"), body.to_string().as_bytes(), "acc", "ns")
    }

    #[test]
    fn keys_in_the_path_are_decoded_and_a_plus_stays() {
        let got = parse("GET", "values/number%3A+1555%2F1", &Value::Null);
        assert_eq!(got, Ok(Operation::Get("number:+1555/1".into())));
    }

    #[test]
    fn one_key_twice_with_different_values_spoils_the_whole_request() {
        let body = json!([{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]);
        assert!(parse("PUT", "bulk", &body).is_err());
        let body = json!([{"key": "a", "value": "1"}, {"key": "a", "value": "1"}]);
        assert!(parse("PUT", "bulk", &body).is_ok());
    }

    #[test]
    fn limits_hold() {
        let pairs = |n: usize| (0..n).map(|i| json!({"key": i.to_string(), "value": ""})).collect::<Value>();
        assert!(parse("PUT", "bulk", &pairs(10_000)).is_ok());
        assert!(parse("PUT", "bulk", &pairs(10_001)).is_err());
        assert!(parse("PUT", "bulk", &json!([{"key": "k".repeat(513), "value": ""}])).is_err());
        assert!(parse("PUT", "bulk", &json!([{"key": "k", "value": "", "expiration_ttl": 59}])).is_err());
        assert!(parse("PUT", "bulk", &json!([{"key": "k", "value": {}}])).is_err());
        assert!(parse("POST", "bulk/get", &json!({"keys": vec!["k"; 101]})).is_err());
    }

    #[test]
    fn other_accounts_and_namespaces_are_closed() {
        let status = |path: &str| Operation::parse("GET", path, b"", "acc", "ns").map_err(|error| error.status);
        assert_eq!(status("/client/v4/accounts/other/storage/kv/namespaces/ns/keys"), Err(403));
        assert_eq!(status("/client/v4/accounts/acc/storage/kv/namespaces/other/keys"), Err(404));
    }
}
