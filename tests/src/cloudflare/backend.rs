//! Where the keys are: behind the local Worker's explorer API, or in memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::http::{StatusCode, header::CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::KvApiOptions;
use super::api::{ApiError, Listing, Operation, Pair, bulk_result, success};

/// The explorer takes half a minute for 10,000 keys.
const UPSTREAM_LIMIT: Duration = Duration::from_secs(90);

#[derive(Debug)]
pub(super) enum Backend {
    Explorer { namespace_url: String, client: reqwest::Client },
    Memory(Mutex<BTreeMap<String, Pair>>),
}

impl Backend {
    pub(super) fn new(options: &KvApiOptions, client: reqwest::Client) -> Self {
        match &options.upstream {
            Some(base) => Self::Explorer {
                namespace_url: format!("{}/storage/kv/namespaces/{}", base.trim_end_matches('/'), options.namespace_id),
                client,
            },
            None => Self::Memory(Mutex::default()),
        }
    }

    /// Performs an operation that has been checked. `failing` keys were taken out of it and are reported as
    /// unsuccessful.
    pub(super) async fn perform(&self, operation: &Operation, failing: &[String]) -> Result<Response, ApiError> {
        match self {
            Self::Memory(table) => {
                let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
                perform(&mut table, operation, failing)
            }
            Self::Explorer { namespace_url, client } => {
                let request = request(client, namespace_url, operation).timeout(UPSTREAM_LIMIT);
                let answer = request.send().await.map_err(|error| ApiError::upstream(&error))?;
                relay(answer, operation, failing).await
            }
        }
    }
}

fn request(client: &reqwest::Client, base: &str, operation: &Operation) -> reqwest::RequestBuilder {
    // Percent-encoded as a path segment: form encoding differs only in the space.
    let value = |key: &str| {
        let key: String = url::form_urlencoded::byte_serialize(key.as_bytes()).collect();
        format!("{base}/values/{}", key.replace('+', "%20"))
    };
    match operation {
        Operation::BulkPut(pairs) => client.put(format!("{base}/bulk")).json(pairs),
        Operation::BulkDelete(keys) => client.post(format!("{base}/bulk/delete")).json(keys),
        Operation::BulkGet(keys) => client.post(format!("{base}/bulk/get")).json(&json!({"keys": keys})),
        Operation::Get(key) => client.get(value(key)),
        Operation::Put(pair) => client.put(value(&pair.key)).body(pair.value.clone()),
        Operation::Delete(key) => client.delete(value(key)),
        Operation::Keys(Listing { prefix, limit, cursor }) => {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query.append_pair("prefix", prefix).append_pair("limit", &limit.to_string());
            if !cursor.is_empty() {
                query.append_pair("cursor", cursor);
            }
            client.get(format!("{base}/keys?{}", query.finish()))
        }
    }
}

/// Passes the explorer's answer on; its shape is that of the real API.
async fn relay(answer: reqwest::Response, operation: &Operation, failing: &[String]) -> Result<Response, ApiError> {
    let status = StatusCode::from_u16(answer.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
    let content_type = answer.headers().get("content-type").cloned();
    let body = answer.bytes().await.map_err(|error| ApiError::upstream(&error))?;
    if status.is_success()
        && !failing.is_empty()
        && matches!(operation, Operation::BulkPut(_) | Operation::BulkDelete(_))
    {
        return Ok(success(&bulk_result(operation.keys().len(), failing)));
    }
    let mut response = (status, Body::from(body)).into_response();
    match content_type {
        Some(kind) => response.headers_mut().insert(CONTENT_TYPE, kind),
        None => response.headers_mut().remove(CONTENT_TYPE),
    };
    Ok(response)
}

fn perform(
    table: &mut BTreeMap<String, Pair>,
    operation: &Operation,
    failing: &[String],
) -> Result<Response, ApiError> {
    let text = |pair: &Pair| Value::from(String::from_utf8_lossy(&pair.bytes()).into_owned());
    let result = match operation {
        Operation::BulkPut(pairs) => {
            table.extend(pairs.iter().map(|pair| (pair.key.clone(), pair.clone())));
            bulk_result(pairs.len(), failing)
        }
        Operation::Put(pair) => {
            table.insert(pair.key.clone(), pair.clone());
            json!({})
        }
        Operation::BulkDelete(keys) => {
            table.retain(|key, _| !keys.contains(key));
            bulk_result(keys.len(), failing)
        }
        Operation::Delete(key) => {
            table.remove(key);
            json!({})
        }
        Operation::BulkGet(keys) => {
            let values: serde_json::Map<String, Value> =
                keys.iter().map(|key| (key.clone(), table.get(key).map_or(Value::Null, text))).collect();
            json!({"values": values})
        }
        // A value comes as it is, without the envelope.
        Operation::Get(key) => {
            let pair = table.get(key).ok_or_else(ApiError::key_not_found)?;
            return Ok(([(CONTENT_TYPE, "application/octet-stream")], pair.bytes()).into_response());
        }
        Operation::Keys(listing) => return Ok(Json(list(table, listing)).into_response()),
    };
    Ok(success(&result))
}

/// A page of keys; the cursor is the last key of the page before.
fn list(table: &BTreeMap<String, Pair>, listing: &Listing) -> Value {
    let mut matching = table.values().filter(|pair| {
        pair.key.starts_with(&listing.prefix) && (listing.cursor.is_empty() || pair.key > listing.cursor)
    });
    let page: Vec<&Pair> = matching.by_ref().take(listing.limit).collect();
    let cursor = match (matching.next(), page.last()) {
        (Some(_), Some(last)) => last.key.as_str(),
        _ => "",
    };
    let keys: Vec<Value> = page
        .iter()
        .map(|pair| match &pair.metadata {
            Some(metadata) => json!({"name": pair.key, "metadata": metadata}),
            None => json!({"name": pair.key}),
        })
        .collect();
    let info = json!({"count": keys.len(), "cursor": cursor});
    json!({"success": true, "errors": [], "messages": [], "result": keys, "result_info": info})
}
