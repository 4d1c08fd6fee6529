//! The control plane, `/api/…`: for programs with an API key.
//!
//! JSON is camelCase, times are RFC 3339 in UTC, errors are problem details. Lists give the newest first.

pub mod agents;
pub mod calls;
pub mod events;
pub mod numbers;
pub mod routes;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};

use crate::App;
use crate::http::problem::Problem;

/// Far above any body of this API.
const BODY_LIMIT: usize = 64 * 1024;
/// No request of this API takes a second.
const TIMEOUT: Duration = Duration::from_secs(15);

const DEFAULT_LIMIT: i64 = 50;
const MAX_LIMIT: i64 = 200;

/// All paths of the API, without the prefix.
pub fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/agents", get(agents::list))
        .route("/agents/{id}", get(agents::show))
        .route("/agents/{id}/system-type", get(agents::show).put(agents::switch))
        .route("/numbers", get(numbers::list))
        .route("/routes/explain", get(routes::explain))
        .route("/calls", get(calls::list))
        .route("/calls/{id}", get(calls::show))
        .route("/events", get(events::list))
        .layer(from_fn(limit_time))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
}

async fn limit_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(elapsed) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", "The request took too long.")
            .caused_by(elapsed)
            .into_response(),
    }
}

/// A list: `{"items": […]}`.
#[derive(Debug, Serialize)]
pub struct List<T> {
    items: Vec<T>,
}

impl<T> FromIterator<T> for List<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self { items: items.into_iter().collect() }
    }
}

/// The query of a list.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    limit: Option<i64>,
}

impl Limit {
    fn get(self) -> Result<i64, Problem> {
        limit(self.limit)
    }
}

fn limit(given: Option<i64>) -> Result<i64, Problem> {
    match given.unwrap_or(DEFAULT_LIMIT) {
        limit @ 1..=MAX_LIMIT => Ok(limit),
        _ => Err(Problem::invalid(format!("limit must be between 1 and {MAX_LIMIT}."))),
    }
}
