//! What the routes of the REST API do.

use axum::extract::{Extension, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Json, body::Bytes};
use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::calls::{Call, limits, twiml, wanted};
use super::error::ApiError;
use super::facts::object;
use super::import;
use super::messages;
use super::resources::{Collection, Filter, presented};
use super::rest::App;
use super::schema::{self, refuse};
use super::{Fault, PUBLIC_MEDIA, Shared, Stored};

type Answer = Result<Response, ApiError>;
type Pairs = Query<Vec<(String, String)>>;

/// `endedReason` of a call that was refused because too many run.
const OVER_LIMIT: &str = "call.start.error-subscription-concurrency-limit-reached";

/// What is stored under its own path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Assistant,
    Tool,
    Number,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Assistant => "Assistant",
            Self::Tool => "Tool",
            Self::Number => "Phone Number",
        }
    }

    pub(crate) fn of(self, stored: &mut Stored) -> &mut Collection {
        match self {
            Self::Assistant => &mut stored.assistants,
            Self::Tool => &mut stored.tools,
            Self::Number => &mut stored.numbers,
        }
    }

    fn check(self, body: &Map<String, Value>, create: bool) -> Vec<String> {
        match self {
            Self::Assistant => schema::assistant(body),
            Self::Tool => schema::tool(body, create),
            Self::Number => schema::number(body, create),
        }
    }
}

pub(crate) fn list(State(shared): App, kind: Kind, Query(query): Pairs) -> Answer {
    let filter = Filter::parse(&query).map_err(ApiError::invalid)?;
    let mut stored = shared.stored();
    let page = filter.apply(kind.of(&mut stored).newest_first().map(presented));
    Ok(Json(page).into_response())
}

pub(crate) fn read(State(shared): App, kind: Kind, Path(id): Path<String>) -> Answer {
    let mut stored = shared.stored();
    let found = kind.of(&mut stored).get(&id).ok_or_else(|| ApiError::not_found(kind.name(), &id))?;
    Ok(Json(presented(found)).into_response())
}

pub(crate) async fn create(State(shared): App, kind: Kind, body: Bytes) -> Answer {
    let mut body = json_object(&body)?;
    refuse(kind.check(&body, true))?;
    // What has begun goes on, whether or not the sender waits for it.
    let creating = tokio::spawn(async move {
        if kind == Kind::Number {
            import::admit(&shared, &mut body).await?;
        }
        let made = kind.of(&mut shared.stored()).create(body, OffsetDateTime::now_utc());
        Ok((StatusCode::CREATED, Json(presented(&made))).into_response())
    });
    creating.await.unwrap_or_else(|_| Err(ApiError::internal()))
}

pub(crate) async fn patch(State(shared): App, kind: Kind, Path(id): Path<String>, body: Bytes) -> Answer {
    let body = json_object(&body)?;
    refuse(kind.check(&body, false))?;
    let now = OffsetDateTime::now_utc();
    let patched = kind.of(&mut shared.stored()).patch(&id, body, now);
    let patched = patched.ok_or_else(|| ApiError::not_found(kind.name(), &id))?;
    if kind == Kind::Number && shared.options.patch_rewrites_twilio {
        import::point_at_vapi(&shared, &patched).await?;
    }
    Ok(Json(presented(&patched)).into_response())
}

/// Answers with what was deleted.
pub(crate) fn delete(State(shared): App, kind: Kind, Path(id): Path<String>) -> Answer {
    let deleted = kind.of(&mut shared.stored()).delete(&id);
    let deleted = deleted.ok_or_else(|| ApiError::not_found(kind.name(), &id))?;
    Ok(Json(presented(&deleted)).into_response())
}

pub(crate) async fn calls(State(shared): App, Query(query): Pairs) -> Answer {
    let filter = Filter::parse(&query).map_err(ApiError::invalid)?;
    let calls = shared.calls.all();
    let shown = calls.iter().rev().filter(|call| !call.deleted).map(Call::to_json);
    Ok(Json(filter.apply(shown)).into_response())
}

pub(crate) async fn call(State(shared): App, Path(id): Path<String>) -> Answer {
    Ok(Json(known(&shared, &id)?.to_json()).into_response())
}

/// Only the name of a call can be changed.
pub(crate) async fn rename_call(State(shared): App, Path(id): Path<String>, body: Bytes) -> Answer {
    let body = json_object(&body)?;
    let name = match body.get("name").and_then(Value::as_str) {
        Some(name) if body.len() == 1 => name.to_owned(),
        _ => {
            return Err(ApiError::invalid(vec!["name must be a string, and the only property".into()]));
        }
    };
    known(&shared, &id)?;
    shared.change(&id, |call| call.name = Some(name));
    Ok(Json(known(&shared, &id)?.to_json()).into_response())
}

pub(crate) async fn delete_call(State(shared): App, Path(id): Path<String>) -> Answer {
    let call = known(&shared, &id)?;
    shared.change(&id, |call| call.deleted = true);
    shared.tell(messages::call_deletion(&call.facts, OffsetDateTime::now_utc(), true));
    Ok(Json(call.to_json()).into_response())
}

/// `POST /call`. With the provider bypass, the answer holds the TwiML that connects the caller; without, Vapi would
/// now dial the customer, which this simulator leaves at `queued`.
pub(crate) async fn create_call(State(shared): App, fault: Option<Extension<Fault>>, body: Bytes) -> Answer {
    let body = json_object(&body)?;
    let now = OffsetDateTime::now_utc();
    let wanted = {
        let stored = shared.stored();
        wanted(&body, &stored.assistants, &stored.numbers, now)?
    };
    let limit = shared.options.concurrency_limit;
    let live = shared.calls.all().iter().filter(|call| call.is_live()).count();
    let blocked = fault.is_some() || live >= limit;

    let mut call = Call::new(wanted.facts, wanted.bypass);
    call.name = wanted.name;
    if blocked {
        call.status = "ended";
        call.ended_at = Some(now);
        call.ended_reason = Some(OVER_LIMIT.to_owned());
    } else if wanted.bypass {
        call.twiml = Some(twiml(PUBLIC_MEDIA, &call.facts.call_id));
    }
    let mut answer = object(call.to_json());
    let live = if blocked { live } else { live + 1 };
    answer.insert("subscriptionLimits".into(), limits(limit, live, blocked));
    shared.open(call);
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

fn known(shared: &Shared, id: &str) -> Result<Call, ApiError> {
    shared.call(id).ok_or_else(|| ApiError::not_found("Call", id))
}

fn json_object(body: &Bytes) -> Result<Map<String, Value>, ApiError> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(ApiError::invalid(vec!["body must be an object".into()])),
        Err(error) => Err(ApiError::bad_request(error.to_string())),
    }
}
