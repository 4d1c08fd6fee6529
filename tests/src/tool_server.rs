//! A customer's tool server: it takes Vapi's `tool-calls` message, whoever sends it, and answers in Vapi's shape.
//!
//! It checks nothing about the sender unless it is told which secrets to accept. Tests verify signatures themselves, on
//! the recorded headers and bytes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use serde_json::{Value, json};
use shared::hop::{self, SignedRequest};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::record::Record;

/// Characters in the answer of `huge`: far more than any model wants.
pub const HUGE_CHARS: usize = 200_000;

/// A request as the record keeps it.
#[derive(Debug, Clone)]
pub struct Request {
    /// The headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body, byte for byte.
    pub body: Vec<u8>,
    /// The names of the functions it asks for, in order.
    pub functions: Vec<String>,
    /// The status answered; 0 while it is under way.
    pub status: u16,
}

impl Request {
    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A header by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// A booking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Booking {
    /// What the customer's system takes two requests for the same by: the `Idempotency-Key` header, else the call
    /// and tool call.
    pub key: String,
    /// The arguments.
    pub arguments: Value,
}

/// A running tool server. It ends when this is dropped.
#[derive(Debug)]
pub struct ToolServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

#[derive(Debug, Default)]
struct Shared {
    requests: Record<Request>,
    bookings: Mutex<Vec<Booking>>,
    secrets: Mutex<Option<Vec<String>>>,
}

impl ToolServer {
    /// Starts on a free port of 127.0.0.1.
    pub async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let router = Router::new().route("/tools", post(serve)).with_state(Arc::clone(&shared));
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            let serving = axum::serve(listener, router);
            tokio::select! {
                _ = serving => {}
                () = stopped.cancelled() => {}
            }
        });
        Ok(Self { address, shared, _stop: stop.drop_guard() })
    }

    /// Where tools are called: `http://127.0.0.1:<port>/tools`.
    pub fn url(&self) -> String {
        format!("http://{}/tools", self.address)
    }

    /// Every request.
    pub fn requests(&self) -> &Record<Request> {
        &self.shared.requests
    }

    /// Refuses whatever is not signed with one of these secrets from now on.
    pub fn accept(&self, secrets: &[&str]) {
        let secrets = secrets.iter().map(|secret| (*secret).to_owned()).collect();
        *self.shared.secrets.lock().unwrap_or_else(PoisonError::into_inner) = Some(secrets);
    }

    /// Every booking that took effect: one for each key, however often it was asked for.
    pub fn bookings(&self) -> Vec<Booking> {
        self.shared.bookings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let text = |value: &axum::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers: BTreeMap<String, String> =
        headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
    let idempotency_key = headers.get("idempotency-key").cloned();
    let signature = headers.get(hop::SIGNATURE_HEADER).cloned().unwrap_or_default();
    let message = serde_json::from_slice(&body).map(|value: Value| value["message"].clone());
    let calls = message.as_ref().map_or_else(|_| Vec::new(), calls);
    let position = shared.requests.push(Request {
        headers,
        body: body.to_vec(),
        functions: calls.iter().map(|call| call.name.clone()).collect(),
        status: 0,
    });
    let response = match message {
        _ if !is_accepted(&shared, &signature, &body) => StatusCode::UNAUTHORIZED.into_response(),
        Ok(message) if message["type"] == "tool-calls" && !calls.is_empty() => {
            let call_id = message["call"]["id"].as_str().unwrap_or_default();
            answer(&shared, call_id, idempotency_key.as_deref(), &calls).await
        }
        _ => (StatusCode::BAD_REQUEST, "a tool-calls message with calls in it is expected").into_response(),
    };
    shared.requests.update(position, |request| {
        request.status = response.status().as_u16();
    });
    response
}

fn is_accepted(shared: &Shared, signature: &str, body: &[u8]) -> bool {
    let secrets = shared.secrets.lock().unwrap_or_else(PoisonError::into_inner);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let request = SignedRequest { method: "POST", path_and_query: "/tools", body };
    secrets.as_ref().is_none_or(|secrets| secrets.iter().any(|s| hop::verify(s, now, signature, request).is_ok()))
}

/// A function call, whichever of the three shapes in the wild it came in.
#[derive(Debug, Clone, PartialEq)]
struct Call {
    id: String,
    name: String,
    arguments: Value,
}

fn calls(message: &Value) -> Vec<Call> {
    let list = message["toolCallList"].as_array().or_else(|| message["toolCalls"].as_array());
    list.into_iter().flatten().map(one_call).collect()
}

fn one_call(call: &Value) -> Call {
    // `{id, function: {name, arguments}}` on the wire, flat in the documentation's samples.
    let function = if call["function"].is_object() { &call["function"] } else { call };
    let arguments = match [&function["arguments"], &function["parameters"]].into_iter().find(|value| !value.is_null()) {
        Some(Value::String(text)) => serde_json::from_str(text).unwrap_or_default(),
        Some(value) => value.clone(),
        None => Value::Null,
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Call { id: text(&call["id"]), name: text(&function["name"]), arguments }
}

async fn answer(shared: &Shared, call_id: &str, idempotency_key: Option<&str>, calls: &[Call]) -> Response {
    let mut results = Vec::new();
    for call in calls {
        let outcome = match call.name.as_str() {
            "get_slots" => Ok(slots(&call.arguments)),
            "book_appointment" => {
                let key = idempotency_key.map_or_else(|| format!("{call_id}/{}", call.id), str::to_owned);
                Ok(book(shared, key, &call.arguments))
            }
            "slow" => {
                let ms = call.arguments["ms"].as_u64().unwrap_or(1000);
                tokio::time::sleep(Duration::from_millis(ms)).await;
                Ok(format!("It took {ms} ms."))
            }
            "huge" => Ok("x".repeat(HUGE_CHARS)),
            "fails" => return (StatusCode::INTERNAL_SERVER_ERROR, "out of order").into_response(),
            other => Err(format!("There is no tool {other}.")),
        };
        results.push(match outcome {
            Ok(result) => json!({"toolCallId": call.id, "name": call.name, "result": result}),
            Err(error) => json!({"toolCallId": call.id, "name": call.name, "error": error}),
        });
    }
    axum::Json(json!({"results": results})).into_response()
}

/// The free slots of a date: the same for the same date.
fn slots(arguments: &Value) -> String {
    match arguments["date"].as_str() {
        Some(date) => format!("On {date} these times are free: 09:00, 11:30, 16:15."),
        None => "Which date?".to_owned(),
    }
}

/// Books once for each key, and says the same however often it is asked.
fn book(shared: &Shared, key: String, arguments: &Value) -> String {
    let mut bookings = shared.bookings.lock().unwrap_or_else(PoisonError::into_inner);
    let known = bookings.iter().position(|booking| booking.key == key);
    let index = known.unwrap_or_else(|| {
        bookings.push(Booking { key, arguments: arguments.clone() });
        bookings.len() - 1
    });
    format!("Booked, the reference is A-{:04}.", index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_shapes_of_a_call_are_read() {
        let expected = Call { id: "c1".into(), name: "get_slots".into(), arguments: json!({"date": "2026-11-23"}) };
        for call in [
            json!({"id": "c1", "type": "function", "function": {"name": "get_slots", "arguments": {"date": "2026-11-23"}}}),
            json!({"id": "c1", "type": "function", "function": {"name": "get_slots", "arguments": "{\"date\":\"2026-11-23\"}"}}),
            json!({"id": "c1", "name": "get_slots", "parameters": {"date": "2026-11-23"}}),
        ] {
            assert_eq!(one_call(&call), expected);
        }
    }
}
