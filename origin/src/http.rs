//! HTTP: every path the origin answers, and what all of them have in common.

pub mod api;
pub mod auth;
pub mod extract;
pub mod health;
pub mod media_stream;
pub mod observe;
pub mod problem;
pub mod webhooks;

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;

use crate::App;
use crate::http::problem::Problem;

/// The whole server. A family of paths is a router of its own, merged here.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .merge(health::router())
        .merge(media_stream::router())
        .merge(webhooks::router())
        .nest("/api", api::router())
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "not_found", "There is nothing at this path."))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "This path does not take the method.")
        })
        .layer(from_fn_with_state(Arc::clone(&app), observe::observe))
        .with_state(app)
}
