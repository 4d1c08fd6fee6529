//! Whether the process lives, whether it should be sent work, and its metrics. No key is needed.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use crate::http::problem::{Code, Problem};
use crate::{App, store};

/// A database that takes longer is not ready.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// `/healthz`, `/readyz`, `/metrics`.
pub fn router() -> Router<Arc<App>> {
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz)).route("/metrics", get(metrics))
}

async fn healthz() -> Response {
    Json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") })).into_response()
}

async fn readyz(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    if app.shutdown.is_cancelled() {
        return Err(Problem::new(Code::Draining, "The origin is shutting down."));
    }
    match tokio::time::timeout(PROBE_TIMEOUT, sqlx::query("select 1").execute(&app.db)).await {
        Ok(Ok(_)) => Ok(Json(json!({ "status": "ready" })).into_response()),
        Ok(Err(error)) => Err(Problem::unavailable(error)),
        Err(elapsed) => Err(Problem::unavailable(elapsed)),
    }
}

async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    // Asked for here, so that it grows also when no job runs. While the database is away the last word stands.
    let lag = async { store::replica::lag_s(&mut *app.db.acquire().await?).await };
    if let Ok(Ok(lag)) = tokio::time::timeout(PROBE_TIMEOUT, lag).await {
        app.metrics.replication_lag.set(lag);
    }
    let text = app.metrics.encode().map_err(Problem::internal)?;
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, content_type)], text).into_response())
}
