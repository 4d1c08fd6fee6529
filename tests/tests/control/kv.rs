//! Cloudflare's bulk KV API, as far as replication uses it, with a memory that can be looked into and answers that can
//! be changed in mid-test.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{post, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// What the next request meets instead of success.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// 429 with `Retry-After` in seconds.
    RateLimited(u32),
    /// 500 in Cloudflare's envelope.
    ServerError,
    /// 502 from something in between.
    BadGateway,
    /// Success, but the keys that contain this are not written.
    Partly(&'static str),
    /// No answer, ever; nothing is written.
    Silence,
    /// Written and answered only after [`FakeKv::release`].
    Slow,
    /// Written, but the answer is lost.
    AnswerLost,
}

/// The API and what it keeps.
#[derive(Clone, Debug)]
pub(crate) struct FakeKv {
    address: SocketAddr,
    state: Arc<Mutex<Kept>>,
    released: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Kept {
    values: HashMap<String, Value>,
    /// Every revision that was ever written to a key, in order.
    history: HashMap<String, Vec<i64>>,
    faults: VecDeque<Fault>,
    requests: usize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    key: String,
    value: String,
    metadata: Value,
}

impl FakeKv {
    /// Starts the API on a free port.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let kv = Self { address, state: Arc::default(), released: Arc::default() };
        let namespace = "/client/v4/accounts/account/storage/kv/namespaces/routes";
        let router = Router::new()
            .route(&format!("{namespace}/bulk"), put(write))
            .route(&format!("{namespace}/bulk/delete"), post(delete))
            .with_state(kv.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        kv
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/client/v4", self.address)
    }

    /// The next requests meet these, one each.
    pub(crate) fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.lock().faults.extend(faults);
    }

    pub(crate) fn get(&self, key: &str) -> Option<Value> {
        self.lock().values.get(key).cloned()
    }

    pub(crate) fn keys(&self) -> HashSet<String> {
        self.lock().values.keys().cloned().collect()
    }

    /// Something that nobody replicated.
    pub(crate) fn put(&self, key: &str, value: Value) {
        self.lock().values.insert(key.to_owned(), value);
    }

    pub(crate) fn history(&self, key: &str) -> Vec<i64> {
        self.lock().history.get(key).cloned().unwrap_or_default()
    }

    pub(crate) fn requests(&self) -> usize {
        self.lock().requests
    }

    pub(crate) fn faults_left(&self) -> usize {
        self.lock().faults.len()
    }

    /// Lets one slow request go on.
    pub(crate) fn release(&self) {
        self.released.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.state.lock().expect("no test panics while it holds this")
    }

    /// Takes the fault that this request meets.
    fn meet(&self) -> Option<Fault> {
        let mut kept = self.lock();
        kept.requests += 1;
        kept.faults.pop_front()
    }
}

fn envelope(status: StatusCode, result: &Value) -> Response {
    let errors = if status.is_success() { json!([]) } else { json!([{ "code": 10001, "message": "no" }]) };
    let body = json!({ "success": status.is_success(), "errors": errors, "messages": [], "result": result });
    (status, Json(body)).into_response()
}

async fn write(State(kv): State<FakeKv>, headers: HeaderMap, Json(pairs): Json<Vec<Pair>>) -> Response {
    let fault = kv.meet();
    let distinct: HashSet<&str> = pairs.iter().map(|pair| pair.key.as_str()).collect();
    if let Some(refusal) = refuse(&headers, fault.as_ref(), distinct.len() == pairs.len()).await {
        return refusal;
    }
    if matches!(fault, Some(Fault::Slow)) {
        kv.released.notified().await;
    }
    let mut failed = Vec::new();
    {
        let mut kept = kv.lock();
        for Pair { key, value, metadata } in pairs {
            if matches!(fault, Some(Fault::Partly(part)) if key.contains(part)) {
                failed.push(key);
                continue;
            }
            let value: Value = serde_json::from_str(&value).expect("a route is JSON");
            let revision = value["revision"].as_i64().expect("a route has a revision");
            assert_eq!(metadata, json!({ "revision": revision }), "a listing tells the revision");
            kept.history.entry(key.clone()).or_default().push(revision);
            kept.values.insert(key, value);
        }
    }
    if matches!(fault, Some(Fault::AnswerLost)) {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    envelope(StatusCode::OK, &json!({ "successful_key_count": 0, "unsuccessful_keys": failed }))
}

async fn delete(State(kv): State<FakeKv>, headers: HeaderMap, Json(keys): Json<Vec<String>>) -> Response {
    let fault = kv.meet();
    if let Some(refusal) = refuse(&headers, fault.as_ref(), true).await {
        return refusal;
    }
    let mut kept = kv.lock();
    for key in &keys {
        kept.values.remove(key);
    }
    envelope(StatusCode::OK, &json!({ "successful_key_count": keys.len(), "unsuccessful_keys": [] }))
}

/// What stands in the way of a request, if anything does.
async fn refuse(headers: &HeaderMap, fault: Option<&Fault>, distinct: bool) -> Option<Response> {
    if headers.get("authorization").is_none_or(|value| value != "Bearer token") {
        return Some(envelope(StatusCode::FORBIDDEN, &Value::Null));
    }
    if !distinct {
        return Some(envelope(StatusCode::BAD_REQUEST, &Value::Null));
    }
    match fault {
        Some(Fault::RateLimited(seconds)) => {
            let refusal = envelope(StatusCode::TOO_MANY_REQUESTS, &Value::Null);
            Some(([("retry-after", seconds.to_string())], refusal).into_response())
        }
        Some(Fault::ServerError) => Some(envelope(StatusCode::INTERNAL_SERVER_ERROR, &Value::Null)),
        Some(Fault::BadGateway) => Some((StatusCode::BAD_GATEWAY, "<html>").into_response()),
        Some(Fault::Silence) => std::future::pending().await,
        Some(Fault::Partly(_) | Fault::AnswerLost | Fault::Slow) | None => None,
    }
}
