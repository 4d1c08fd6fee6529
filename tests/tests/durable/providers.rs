//! The look-ups of Twilio's and Vapi's REST APIs, with answers that a test sets.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Both APIs, on one port.
#[derive(Clone, Debug)]
pub(crate) struct Providers {
    address: SocketAddr,
    state: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    answers: HashMap<String, (u16, Value)>,
    asked: Vec<String>,
}

impl Providers {
    /// Starts them on a free port; every call is unknown.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let providers = Self { address: listener.local_addr().expect("an address"), state: Arc::default() };
        let router = Router::new().fallback(answer).with_state(providers.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        providers
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What the look-up of this call gives: a Twilio SID or a Vapi id.
    pub(crate) fn set(&self, call: &str, status: u16, body: Value) {
        self.lock().answers.insert(call.to_owned(), (status, body));
    }

    /// The calls that were looked up, in order.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.lock().asked.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().expect("no test panics while it holds this")
    }
}

async fn answer(State(providers): State<Providers>, headers: HeaderMap, uri: Uri) -> Response {
    let twilio = uri.path().strip_prefix("/2010-04-01/Accounts/").and_then(|rest| {
        let (account, call) = rest.split_once("/Calls/")?;
        Some((account, call.strip_suffix(".json")?))
    });
    let (call, authorization) = match (twilio, uri.path().strip_prefix("/call/")) {
        // `AC01:token`
        (Some(("AC01", sid)), _) => (sid.to_owned(), "Basic QUMwMTp0b2tlbg=="),
        // `AC02:its-own`, a sub-account: its calls are set and asked for as `AC02/…`.
        (Some(("AC02", sid)), _) => (format!("AC02/{sid}"), "Basic QUMwMjppdHMtb3du"),
        (Some(_), _) => return StatusCode::NOT_FOUND.into_response(),
        (None, Some(id)) => (id.to_owned(), "Bearer vapi-key"),
        (None, None) => return StatusCode::IM_A_TEAPOT.into_response(),
    };
    if headers.get("authorization").is_none_or(|value| value != authorization) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let mut inner = providers.lock();
    inner.asked.push(call.clone());
    let (status, body) = inner.answers.get(&call).cloned().unwrap_or((404, json!({ "status": 404 })));
    (StatusCode::from_u16(status).expect("a status"), Json(body)).into_response()
}
