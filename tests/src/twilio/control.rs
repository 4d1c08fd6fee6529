//! A door for people: start a call and look at it over HTTP, on the simulator's own port.
//!
//! `POST /sim/calls` with `{"to": "+1…", "from": "+1…", "say": ["hello", "thanks"]}` calls a number;
//! the caller says each clip when the agent has finished speaking, and hangs up after the last
//! answer. `script` instead of `say` gives every step: `[{"interrupt": {"afterMs": 800, "say": "hello"}},
//! "waitUntilQuiet", {"dtmf": "1"}, {"waitMs": 500}, "hangUp"]`. `GET /sim/calls` and
//! `GET /sim/calls/{sid}` show what happened; `POST /sim/calls/{sid}/hang-up` ends it.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::exchange::{Exchange, lock};
use super::{CallHandle, Caller, ClipLoader, InboundCall, start_inbound};

pub(crate) fn router(exchange: Arc<Exchange>) -> Router {
    Router::new()
        .route("/sim/calls", post(start).get(list))
        .route("/sim/calls/{sid}", get(show))
        .route("/sim/calls/{sid}/hang-up", post(hang_up))
        .with_state(exchange)
}

type Refusal = (StatusCode, Json<Value>);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Start {
    to: String,
    from: Option<String>,
    #[serde(default)]
    say: Vec<String>,
    #[serde(default)]
    script: Vec<ScriptStep>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
enum ScriptStep {
    Say(String),
    WaitMs(u64),
    WaitUntilHeardMs(u64),
    WaitUntilQuiet,
    Interrupt { after_ms: u64, say: String },
    Dtmf(String),
    HangUp,
}

async fn start(
    State(exchange): State<Arc<Exchange>>,
    Json(body): Json<Start>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let caller = script(&body, exchange.options.clips).map_err(|error| refusal(StatusCode::BAD_REQUEST, &error))?;
    let mut call = InboundCall { to: body.to, caller, ..InboundCall::default() };
    call.from = body.from.unwrap_or(call.from);
    let handle = start_inbound(&exchange, call);
    Ok((StatusCode::CREATED, Json(json!({"sid": handle.sid()}))))
}

async fn list(State(exchange): State<Arc<Exchange>>) -> Json<Value> {
    let calls: Vec<CallHandle> = lock(&exchange.calls).values().cloned().map(CallHandle::new).collect();
    let calls: Vec<Value> = calls
        .iter()
        .map(|call| json!({"sid": call.sid(), "status": call.status(), "endReason": call.end_reason()}))
        .collect();
    Json(json!({"calls": calls}))
}

async fn show(State(exchange): State<Arc<Exchange>>, Path(sid): Path<String>) -> Result<Json<Value>, Refusal> {
    let call = find(&exchange, &sid)?;
    let streams: Vec<Value> = call
        .streams()
        .iter()
        .map(|stream| {
            json!({
                "streamSid": stream.stream_sid,
                "url": stream.url,
                "startedMs": stream.started_ms,
                "ended": stream.ended,
                "clears": stream.clears,
            })
        })
        .collect();
    Ok(Json(json!({
        "sid": call.sid(),
        "status": call.status(),
        "endReason": call.end_reason(),
        "deadAirMs": call.dead_air_ms(),
        "deadAir": call.dead_air(),
        "verbs": call.verbs(),
        "said": call.said(),
        "streams": streams,
        "trace": call.trace(),
    })))
}

async fn hang_up(State(exchange): State<Arc<Exchange>>, Path(sid): Path<String>) -> Result<StatusCode, Refusal> {
    find(&exchange, &sid)?.hang_up();
    Ok(StatusCode::ACCEPTED)
}

fn find(exchange: &Exchange, sid: &str) -> Result<CallHandle, Refusal> {
    let call = exchange.call(sid).map(CallHandle::new);
    call.ok_or_else(|| refusal(StatusCode::NOT_FOUND, &format!("no call {sid}")))
}

fn refusal(status: StatusCode, error: &str) -> Refusal {
    (status, Json(json!({"error": error})))
}

fn script(body: &Start, clips: ClipLoader) -> Result<Caller, String> {
    let mut caller = Caller::new();
    for clip in &body.say {
        caller = caller.wait_until_agent_quiet().say(clips(clip)?);
    }
    if !body.say.is_empty() {
        caller = caller.wait_until_agent_quiet().hang_up();
    }
    for step in &body.script {
        caller = match step {
            ScriptStep::Say(clip) => caller.say(clips(clip)?),
            ScriptStep::WaitMs(ms) => caller.wait_ms(*ms),
            ScriptStep::WaitUntilHeardMs(ms) => caller.wait_until_heard_ms(*ms),
            ScriptStep::WaitUntilQuiet => caller.wait_until_agent_quiet(),
            ScriptStep::Interrupt { after_ms, say } => caller.interrupt(*after_ms, clips(say)?),
            ScriptStep::Dtmf(digits) => caller.dtmf(digits),
            ScriptStep::HangUp => caller.hang_up(),
        };
    }
    Ok(caller)
}
