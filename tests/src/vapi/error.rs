//! Errors in the shape of Vapi's API.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// `{"message": "…" | ["…"], "error": "Bad Request", "statusCode": 400}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    status: u16,
    error: &'static str,
    message: Message,
    retry_after_s: Option<u64>,
}

/// `message` is one sentence, or an array when a body was checked against its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Message {
    One(String),
    Many(Vec<String>),
}

impl ApiError {
    /// A single sentence.
    pub(crate) fn new(status: u16, error: &'static str, message: impl Into<String>) -> Self {
        Self { status, error, message: Message::One(message.into()), retry_after_s: None }
    }

    /// 400 with one sentence.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "Bad Request", message)
    }

    /// 400 with all faults of a body.
    pub(crate) fn invalid(faults: Vec<String>) -> Self {
        Self { message: Message::Many(faults), ..Self::bad_request("") }
    }

    /// 404 for an id that is not there.
    pub(crate) fn not_found(what: &str, id: &str) -> Self {
        Self::new(404, "Not Found", format!("{what} With ID {id} Not Found"))
    }

    /// 401.
    pub(crate) fn unauthorized() -> Self {
        Self::new(
            401,
            "Unauthorized",
            "Invalid Key. Hot tip, you may be using the private key instead of the public key, or vice versa.",
        )
    }

    /// 429, with the pause that Vapi asks for.
    pub(crate) fn too_many_requests(retry_after_s: u64) -> Self {
        Self {
            retry_after_s: Some(retry_after_s),
            ..Self::new(429, "Too Many Requests", "ThrottlerException: Too Many Requests")
        }
    }

    /// 500.
    pub(crate) fn internal() -> Self {
        Self::new(500, "Internal Server Error", "Internal server error")
    }

    fn body(&self) -> Value {
        let message = match &self.message {
            Message::One(sentence) => json!(sentence),
            Message::Many(sentences) => json!(sentences),
        };
        json!({"message": message, "error": self.error, "statusCode": self.status})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.body())).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert("retry-after", seconds.into());
        }
        response
    }
}
