//! Vapi's server messages.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::Value;
use shared::vapi::message::Message;

use super::invalid_signature;
use super::sender::Received;
use crate::App;
use crate::http::problem::Problem;
use crate::vapi_calls;

/// `POST /api/vapi/webhook`
pub async fn webhook(
    State(app): State<Arc<App>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let received = Received { method: &method, uri: &uri, headers: &headers, body: &body };
    let sender = received.vapi_sender(&app).ok_or_else(|| invalid_signature(StatusCode::UNAUTHORIZED))?;
    let message =
        Message::parse(&body).map_err(|error| Problem::invalid(format!("The body is not valid: {error}.")))?;
    let delivery = received.delivery(sender, || message.delivery_id.clone());
    Ok(Json(vapi_calls::handle(&app, &message, &delivery, &body).await?))
}
