//! What is noted about every request: an id, a log line, metrics.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::{App, request_id};

/// Names a request; taken from the sender when it is sensible, and always in the answer.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Paths that machines ask every few seconds: not worth a line each.
const QUIET: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// The middleware.
pub async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = method_name(request.method());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let id = id_of(request.headers().get(REQUEST_ID));

    let span = tracing::info_span!("request", request_id = id, method, route);
    let mut response = request_id::scope(id.clone(), next.run(request).instrument(span.clone())).await;
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }

    let status = response.status().as_u16();
    let took = started.elapsed();
    app.metrics.observe_request(method, &route, status, took);
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    span.in_scope(|| {
        if QUIET.contains(&route.as_str()) {
            tracing::debug!(status, duration_ms, "Answered a request");
        } else {
            tracing::info!(status, duration_ms, "Answered a request");
        }
    });
    response
}

fn id_of(given: Option<&HeaderValue>) -> String {
    given
        .and_then(|id| id.to_str().ok())
        .filter(|id| {
            (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        })
        .map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// One of few words, as a label of metrics: a method in a request can be anything.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sensible_request_id_is_kept() {
        let given = HeaderValue::from_static("abc-1");
        assert_eq!(id_of(Some(&given)), "abc-1");
        for bad in ["", "a b", "line\tbreak", &"x".repeat(65)] {
            let id = id_of(Some(&HeaderValue::from_str(bad).unwrap()));
            assert!(id != bad && id.len() == 36, "{bad:?}");
        }
    }
}
