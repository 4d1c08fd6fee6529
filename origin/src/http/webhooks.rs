//! The webhooks, as Twilio and Vapi send them or as the edge passes them on.
//!
//! A request is accepted with the provider's own signature or with the edge's, so that Twilio's fallback URL can point
//! straight at the origin.

pub mod sender;
pub mod twilio;
pub mod vapi;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::post;
use shared::twilio::answer::path;

use crate::App;
use crate::http::problem::{Code, Problem};

/// As at the edge. A Twilio webhook is a few kilobytes, Vapi's report of a long call a few hundred.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// The webhook routes.
pub fn router() -> Router<Arc<App>> {
    Router::new()
        .route(path::VOICE, post(twilio::voice))
        .route(path::RESUME, post(twilio::resume))
        .route(path::EXPECTED, post(twilio::expected))
        .route(path::STATUS, post(twilio::status))
        .route(path::STREAM_STATUS, post(twilio::stream_status))
        .route(shared::vapi::WEBHOOK_PATH, post(vapi::webhook))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
}

/// Neither the provider nor the edge signed the request.
fn invalid_signature(status: StatusCode) -> Problem {
    Problem::new(Code::InvalidSignature, "The request is signed neither by its provider nor by the edge.")
        .with_status(status)
}
