//! The door: who may open a session, and what is said to the others.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};

/// What goes wrong with a connection, on command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The handshake is refused with this status: 401, 429, 500, 503, ...
    Refuse(u16),
    /// The same with this code.
    RefuseWith(u16, &'static str),
    /// The TCP connection is accepted and the handshake never answered.
    NoHandshake,
    /// The handshake succeeds, and nothing is ever said.
    Silent,
    /// Every `session.update` is refused.
    RefuseUpdates,
    /// `session.updated` takes so long.
    DelayUpdates(Duration),
}

/// A handshake that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP.
    pub status: u16,
    /// From the body.
    pub code: Option<String>,
}

/// What an accepted handshake says of the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Admission {
    pub(super) model: String,
    /// It asked for the retired beta API: the socket opens only to say so.
    pub(super) wants_beta: bool,
}

/// Subprotocols for clients that cannot send headers.
const PROTOCOL: &str = "realtime";
const KEY_PROTOCOL: &str = "openai-insecure-api-key.";

/// Judges a handshake; on success the answer is completed.
pub(super) fn admit(
    request: &Request,
    response: &mut Response,
    api_key: &str,
    fault: Option<Fault>,
) -> Result<Admission, (StatusCode, Value)> {
    match fault {
        Some(Fault::Refuse(status)) => return Err(refusal_on_command(status, None)),
        Some(Fault::RefuseWith(status, code)) => return Err(refusal_on_command(status, Some(code))),
        _ => {}
    }
    if request.uri().path() != "/v1/realtime" {
        let message = format!("Invalid URL (GET {})", request.uri().path());
        return Err((StatusCode::NOT_FOUND, error(None, &message)));
    }
    let protocols: Vec<&str> =
        header_text(request, "sec-websocket-protocol").unwrap_or_default().split(',').map(str::trim).collect();
    let bearer = header_text(request, "authorization").and_then(|value| value.strip_prefix("Bearer "));
    let key = bearer.or_else(|| protocols.iter().find_map(|name| name.strip_prefix(KEY_PROTOCOL)));
    match key {
        None => {
            let message = "Missing bearer or basic authentication in header";
            return Err((StatusCode::UNAUTHORIZED, error(None, message)));
        }
        Some(key) if key != api_key => {
            let message = format!(
                "Incorrect API key provided: {}. You can find your API key at \
                 https://platform.openai.com/account/api-keys.",
                masked(key)
            );
            return Err((StatusCode::UNAUTHORIZED, error(Some("invalid_api_key"), &message)));
        }
        Some(_) => {}
    }
    let query: Vec<_> = url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).collect();
    let model = query.iter().find(|(name, value)| name == "model" && !value.is_empty());
    // Exactly one of these; sessions for a call or for transcription are not simulated.
    let other = query.iter().any(|(name, _)| name == "call_id" || name == "intent");
    let Some((_, model)) = model.filter(|_| !other) else {
        let message = "You must provide a model parameter.";
        return Err((StatusCode::BAD_REQUEST, error(Some("missing_model"), message)));
    };
    if protocols.contains(&PROTOCOL) {
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    }
    Ok(Admission { model: model.clone().into_owned(), wants_beta: request.headers().contains_key("openai-beta") })
}

/// The answer to a refused handshake.
pub(super) fn refused(status: StatusCode, body: &Value) -> ErrorResponse {
    let mut response = ErrorResponse::new(Some(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if status == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn refusal_on_command(status: u16, code: Option<&str>) -> (StatusCode, Value) {
    let code = code.or(match status {
        401 => Some("invalid_api_key"),
        429 => Some("rate_limit_exceeded"),
        _ => None,
    });
    let status = StatusCode::from_u16(status).expect("a test asks for a status that exists");
    (status, error(code, "Refused on the command of a test."))
}

fn error(code: Option<&str>, message: &str) -> Value {
    json!({"error": {"message": message, "type": "invalid_request_error", "param": null, "code": code}})
}

fn header_text<'r>(request: &'r Request, name: &str) -> Option<&'r str> {
    request.headers().get(name)?.to_str().ok()
}

/// As the service shows a key: its first and last characters.
fn masked(key: &str) -> String {
    let characters: Vec<char> = key.chars().collect();
    if characters.len() <= 12 {
        return "*".repeat(characters.len());
    }
    let (head, tail) = (&characters[..8], &characters[characters.len() - 4..]);
    let stars = "*".repeat(characters.len() - 12);
    format!("{}{stars}{}", head.iter().collect::<String>(), tail.iter().collect::<String>())
}
