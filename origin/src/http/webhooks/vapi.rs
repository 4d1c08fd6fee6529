//! Vapi's server messages.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::Value;
use shared::vapi::message::Message;

use super::invalid_signature;
use super::sender::Received;
use crate::App;
use crate::http::extract::require_media_type;
use crate::http::problem::Problem;
use crate::vapi_calls;

/// `POST /api/vapi/webhook`
pub async fn webhook(State(app): State<Arc<App>>, received: Received) -> Result<Json<Value>, Problem> {
    let sender = received.vapi_sender(&app).ok_or_else(|| invalid_signature(StatusCode::UNAUTHORIZED))?;
    require_media_type(&received.headers, &["application/json"])?;
    let message =
        Message::parse(&received.body).map_err(|error| Problem::invalid(format!("The body is not valid: {error}.")))?;
    let delivery = received.delivery(sender, || message.delivery_id.clone());
    Ok(Json(vapi_calls::handle(&app, &message, &delivery, &received.body).await?))
}
