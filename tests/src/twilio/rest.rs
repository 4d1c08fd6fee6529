//! The REST API: credentials, faults on command, and the way to the resources below.

mod calls;
mod numbers;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::Fault;
use super::exchange::{Exchange, RestRequest};
use crate::gate::When;

pub(crate) fn router(exchange: Arc<Exchange>) -> Router {
    Router::new().route("/2010-04-01/{*path}", any(handle)).with_state(exchange)
}

/// An answer: status and JSON, or nothing (204).
type Reply = (u16, Option<Value>);

/// An error as the 2010 API words it.
#[derive(Debug)]
struct ApiError {
    status: u16,
    code: u32,
    message: String,
}

impl ApiError {
    fn new(status: u16, code: u32, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    fn not_found(what: &str) -> Self {
        Self::new(404, 20404, format!("The requested resource {what} was not found"))
    }
}

/// The parameters of a request: form body or query, repeated names kept.
#[derive(Debug)]
struct Form(Vec<(String, String)>);

impl Form {
    fn parse(bytes: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(bytes).into_owned().collect())
    }

    /// The value, blank ones included.
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The value, if it is not blank.
    fn filled(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect()
    }

    /// A URL that Twilio could request.
    fn check_url(&self, name: &str, code: u32) -> Result<(), ApiError> {
        match self.filled(name) {
            Some(url) if !url.starts_with("https://") && !url.starts_with("http://") => {
                Err(ApiError::new(400, code, format!("{name} is not valid: {url}")))
            }
            _ => Ok(()),
        }
    }
}

async fn handle(
    State(exchange): State<Arc<Exchange>>,
    method: Method,
    Path(path): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    tokio::time::sleep(exchange.options.rest_delay).await;
    let fault = exchange.next_fault(method != Method::GET);
    // Without `Accounts/{sid}`.
    let below = path.split('/').skip(2).collect::<Vec<_>>().join("/");
    let gate = exchange.gates.take(method.as_str(), &below);
    gate.stop(When::Before).await;
    let note = |status| {
        exchange.note_request(RestRequest { method: method.to_string(), path: below.clone(), status });
    };
    let error = |status, code, message: &str| {
        note(status);
        respond(Err(ApiError::new(status, code, message)))
    };
    match fault {
        Some(Fault::TooManyRequests) => return error(429, 20429, "Too Many Requests"),
        Some(Fault::RateLimited { retry_after_s }) => {
            let mut answer = error(429, 20429, "Too Many Requests");
            answer.headers_mut().insert(RETRY_AFTER, retry_after_s.into());
            return answer;
        }
        Some(Fault::Refused) => return error(400, 20001, "Refused on command"),
        Some(Fault::ServerError) => {
            return error(500, 20500, "An internal server error has occurred");
        }
        Some(Fault::Unauthorized) => return unauthorized(),
        Some(Fault::BadGateway) => {
            let page = "<html><body><h1>502 Bad Gateway</h1></body></html>";
            return (StatusCode::BAD_GATEWAY, [(CONTENT_TYPE, "text/html")], page).into_response();
        }
        Some(Fault::Silence) => return std::future::pending().await,
        Some(Fault::LostAnswer) | None => {}
    }
    if !admitted(&exchange, &headers) {
        return unauthorized();
    }
    let form = match (&method, is_form(&headers)) {
        (&Method::GET | &Method::DELETE, _) => Form::parse(query.unwrap_or_default().as_bytes()),
        (_, true) => Form::parse(&body),
        (_, false) if body.is_empty() => Form(Vec::new()),
        (_, false) => return error(415, 20415, "Unsupported Media Type: send a form"),
    };
    let reply = route(&exchange, &method, &path, &form);
    note(reply.as_ref().map_or_else(|error| error.status, |(status, _)| *status));
    gate.stop(When::After).await;
    if fault == Some(Fault::LostAnswer) {
        return std::future::pending().await;
    }
    respond(reply)
}

fn route(exchange: &Arc<Exchange>, method: &Method, path: &str, form: &Form) -> Result<Reply, ApiError> {
    let missing = || ApiError::not_found(&format!("/2010-04-01/{path}"));
    let inside = path.strip_suffix(".json").ok_or_else(missing)?;
    let segments: Vec<&str> = inside.split('/').collect();
    let ["Accounts", account, rest @ ..] = segments.as_slice() else {
        return Err(missing());
    };
    if *account != exchange.options.account_sid {
        return Err(missing());
    }
    match (method.as_str(), rest) {
        ("GET", []) => {
            let name = "Simulated account";
            let body = json!({"sid": account, "friendly_name": name, "status": "active", "type": "Full"});
            Ok((200, Some(body)))
        }
        ("GET", ["AvailablePhoneNumbers", country, kind]) => numbers::search(exchange, country, kind, form),
        ("GET", ["IncomingPhoneNumbers"]) => Ok(numbers::list(exchange, form)),
        ("POST", ["IncomingPhoneNumbers"]) => numbers::buy(exchange, form),
        ("GET", ["IncomingPhoneNumbers", sid]) => numbers::fetch(exchange, sid),
        ("POST", ["IncomingPhoneNumbers", sid]) => numbers::update(exchange, sid, form),
        ("DELETE", ["IncomingPhoneNumbers", sid]) => numbers::release(exchange, sid),
        ("POST", ["Calls"]) => calls::create(exchange, form),
        ("GET", ["Calls", sid]) => calls::fetch(exchange, sid),
        ("POST", ["Calls", sid]) => calls::update(exchange, sid, form),
        (_, [] | ["IncomingPhoneNumbers" | "Calls", ..]) => {
            Err(ApiError::new(405, 20004, format!("Method {method} not allowed")))
        }
        _ => Err(missing()),
    }
}

fn respond(reply: Result<Reply, ApiError>) -> Response {
    let (status, body) = reply.unwrap_or_else(|error| {
        let body = json!({
            "code": error.code,
            "message": error.message,
            "more_info": format!("https://www.twilio.com/docs/errors/{}", error.code),
            "status": error.status,
        });
        (error.status, Some(body))
    });
    let status = StatusCode::from_u16(status).expect("the statuses above are valid");
    match body {
        Some(body) => (status, axum::Json(body)).into_response(),
        None => status.into_response(),
    }
}

fn unauthorized() -> Response {
    let mut response = respond(Err(ApiError::new(401, 20003, "Authenticate")));
    let realm = "Basic realm=\"Twilio API\"".parse().expect("plain ASCII");
    response.headers_mut().insert(WWW_AUTHENTICATE, realm);
    response
}

fn is_form(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| value.starts_with("application/x-www-form-urlencoded"))
}

fn admitted(exchange: &Exchange, headers: &HeaderMap) -> bool {
    let credentials = || {
        let value = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
        String::from_utf8(BASE64_STANDARD.decode(value).ok()?).ok()
    };
    credentials().is_some_and(|text| text.split_once(':').is_some_and(|(user, word)| exchange.admits(user, word)))
}
