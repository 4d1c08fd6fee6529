//! HTTP: every path the origin answers, and what all of them have in common.

pub mod api;
pub mod auth;
pub mod extract;
pub mod health;
pub mod media_stream;
pub mod observe;
pub mod problem;
pub mod rate_limit;
pub mod webhooks;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;

use crate::App;
use crate::http::problem::{Code, Problem};

/// The whole server. A family of paths is a router of its own, merged here.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .merge(health::router())
        .merge(media_stream::router())
        .merge(webhooks::router())
        .merge(api::router(&app))
        .fallback(async || nothing_here())
        .method_not_allowed_fallback(async || other_method())
        .layer(from_fn_with_state(Arc::clone(&app), observe::observe))
        .with_state(app)
}

fn nothing_here() -> Problem {
    Problem::new(Code::NotFound, "There is nothing at this path.")
}

fn other_method() -> Problem {
    Problem::new(Code::MethodNotAllowed, "This path does not take the method.")
}
