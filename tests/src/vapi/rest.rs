//! The REST API: routes, the key, faults on command, and the record of requests.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request as HttpRequest, State};
use axum::http::HeaderMap;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde_json::Value;

use super::error::ApiError;
use super::{Fault, Shared, handlers, inbound, media};
use crate::gate::When;
use handlers::Kind;

/// Bodies above this are refused; assistants with long prompts are well below it.
const BODY_LIMIT: usize = 4 * 1024 * 1024;

/// A request as the record keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// `GET`, `POST`, `PATCH`, `DELETE`.
    pub method: String,
    /// The path without the query.
    pub path: String,
    /// The query, or empty.
    pub query: String,
    /// The body: JSON if it was, else a string.
    pub body: Value,
    /// The status answered; 0 while it is under way.
    pub status: u16,
}

pub(crate) type App = State<Arc<Shared>>;

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let api = Router::new()
        .merge(stored_at("/assistant", Kind::Assistant))
        .merge(stored_at("/tool", Kind::Tool))
        .merge(stored_at("/phone-number", Kind::Number))
        .route("/call", get(handlers::calls).post(handlers::create_call))
        .route("/call/{id}", get(handlers::call).patch(handlers::rename_call).delete(handlers::delete_call))
        .fallback(async || ApiError::new(404, "Not Found", "Cannot find this route"))
        .layer(from_fn_with_state(Arc::clone(&shared), admit));
    let twilio = Router::new()
        .route("/twilio/inbound_call", post(inbound::inbound_call))
        .route("/twilio/status", post(inbound::status));
    Router::new()
        .merge(twilio)
        .merge(api)
        .layer(from_fn_with_state(Arc::clone(&shared), record))
        .route("/{call_id}/transport", get(media::upgrade))
        .with_state(shared)
}

/// The five routes of a stored kind.
fn stored_at(path: &str, kind: Kind) -> Router<Arc<Shared>> {
    Router::new()
        .route(
            path,
            get(async move |state, query| handlers::list(state, kind, query))
                .post(async move |state, body| handlers::create(state, kind, body).await),
        )
        .route(
            &format!("{path}/{{id}}"),
            get(async move |state, id| handlers::read(state, kind, id))
                .patch(async move |state, id, body| handlers::patch(state, kind, id, body).await)
                .delete(async move |state, id| handlers::delete(state, kind, id)),
        )
}

/// Records a request and the status of its answer, refused ones as well.
async fn record(State(shared): App, request: HttpRequest, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(bytes) = to_bytes(body, BODY_LIMIT).await else {
        return ApiError::new(413, "Payload Too Large", "request entity too large").into_response();
    };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let position = shared.requests.push(Request {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        body: serde_json::from_slice(&bytes).unwrap_or(Value::String(text)),
        status: 0,
    });
    let response = next.run(HttpRequest::from_parts(parts, Body::from(bytes))).await;
    shared.requests.update(position, |request| {
        request.status = response.status().as_u16();
    });
    response
}

/// Applies the fault ordered for this request, then checks the key.
async fn admit(State(shared): App, mut request: HttpRequest, next: Next) -> Response {
    tokio::time::sleep(shared.options.rest_delay).await;
    let creates_call = request.method() == "POST" && request.uri().path() == "/call";
    let calls_only = |fault: &Fault| matches!(fault, Fault::ConcurrencyBlocked | Fault::OverConcurrencyLimit);
    match shared.faults.take_if(|fault| creates_call || !calls_only(fault)) {
        None => {}
        Some(Fault::RateLimited { retry_after_s }) => {
            return ApiError::too_many_requests(retry_after_s).into_response();
        }
        Some(Fault::ServerError) => return ApiError::internal().into_response(),
        Some(Fault::Unauthorized) => return ApiError::unauthorized().into_response(),
        Some(Fault::OverConcurrencyLimit) => {
            return ApiError::bad_request("Over Concurrency Limit").into_response();
        }
        Some(Fault::Slow(delay)) => tokio::time::sleep(delay).await,
        // For the handler: the call is made and refused at once.
        Some(fault @ Fault::ConcurrencyBlocked) => {
            request.extensions_mut().insert(fault);
        }
    }
    if authorized(request.headers(), &shared.options.api_key) {
        let gate = shared.gates.take(request.method().as_str(), request.uri().path());
        gate.stop(When::Before).await;
        let response = next.run(request).await;
        gate.stop(When::After).await;
        response
    } else {
        ApiError::unauthorized().into_response()
    }
}

fn authorized(headers: &HeaderMap, key: &str) -> bool {
    let sent = headers.get("authorization").and_then(|value| value.to_str().ok());
    sent.and_then(|value| value.strip_prefix("Bearer ")) == Some(key)
}
