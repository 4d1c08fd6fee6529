//! `/api/calls`: read calls, and one with all that is known of it: transcript, tools, latency, cost, recordings.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::{AgentId, CallId, CallSid, NumberId, ProjectId, SystemType, VapiCallId};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::page::{Cursor, Limit, Page};
use crate::App;
use crate::end_reason::EndReason;
use crate::http::auth::Reader;
use crate::http::extract::{Id, Params};
use crate::http::problem::Problem;
use crate::prices::Cost;
use crate::store::call_facts;
use crate::store::call_tools::{self, CallTool};
use crate::store::call_turns::{self, CallTurn};
use crate::store::calls::{self, Call, CallStatus};
use crate::store::recordings::{self, Place, Recording};
use crate::store::transcript_items::{self, TranscriptItem};

/// The paths.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show))
}

/// A phone call; the same record whichever system ran it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Call)]
pub struct CallBody {
    id: CallId,
    project_id: ProjectId,
    agent_id: AgentId,
    #[schema(required)]
    number_id: Option<NumberId>,
    #[schema(required)]
    call_sid: Option<CallSid>,
    #[schema(required)]
    vapi_call_id: Option<VapiCallId>,
    #[schema(required)]
    from: Option<String>,
    #[schema(required)]
    to: Option<String>,
    system_type: SystemType,
    #[schema(required)]
    pin_reason: Option<String>,
    status: CallStatus,
    #[serde(with = "time::serde::rfc3339")]
    started_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    answered_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    ended_at: Option<OffsetDateTime>,
    /// From when we first heard of it to the answer.
    #[schema(required)]
    ring_ms: Option<i64>,
    /// From the answer to the end.
    #[schema(required)]
    talk_ms: Option<i64>,
    #[schema(required)]
    end_reason: Option<EndReason>,
    resumes: i32,
    usage: Value,
}

impl From<Call> for CallBody {
    fn from(call: Call) -> Self {
        Self {
            id: call.id,
            project_id: call.project_id,
            agent_id: call.agent_id,
            number_id: call.number_id,
            call_sid: call.call_sid,
            vapi_call_id: call.vapi_call_id,
            from: call.from,
            to: call.to,
            system_type: call.system_type,
            pin_reason: call.pin_reason,
            status: call.status,
            started_at: call.started_at,
            answered_at: call.answered_at,
            ended_at: call.ended_at,
            ring_ms: call.answered_at.map(|answered| ms_between(call.started_at, answered)),
            talk_ms: call.answered_at.zip(call.ended_at).map(|(answered, ended)| ms_between(answered, ended)),
            end_reason: call.end_reason,
            resumes: call.resumes,
            usage: call.usage,
        }
    }
}

/// Sender's clocks may differ from ours by a little.
fn ms_between(from: OffsetDateTime, to: OffsetDateTime) -> i64 {
    i64::try_from((to - from).whole_milliseconds().max(0)).unwrap_or(i64::MAX)
}

/// A call and all that is known of it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WholeCall {
    #[serde(flatten)]
    call: CallBody,
    #[schema(required)]
    end_detail: Option<String>,
    #[schema(required)]
    cost: Option<Cost>,
    /// From the start of the last stream to a session that listens and speaks.
    #[schema(required)]
    setup_ms: Option<i32>,
    #[schema(required)]
    interruptions: Option<i32>,
    latency: LatencyBody,
    transcript: Vec<ItemBody>,
    turns: Vec<TurnBody>,
    tools: Vec<ToolBody>,
    recordings: Vec<RecordingBody>,
}

/// From the end of the caller's words to the first audio of the answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Latency)]
struct LatencyBody {
    turns: i64,
    #[schema(required)]
    p50_ms: Option<i32>,
    #[schema(required)]
    p95_ms: Option<i32>,
    #[schema(required)]
    max_ms: Option<i32>,
    /// As the provider tells it, where it is not measured here.
    #[schema(required)]
    told_mean_ms: Option<i32>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Turn)]
struct TurnBody {
    #[serde(with = "time::serde::rfc3339")]
    speech_ended_at: OffsetDateTime,
    first_audio_ms: i32,
    #[schema(required)]
    first_heard_ms: Option<i32>,
}

impl From<CallTurn> for TurnBody {
    fn from(turn: CallTurn) -> Self {
        let CallTurn { speech_ended_at, first_audio_ms, first_heard_ms } = turn;
        Self { speech_ended_at, first_audio_ms, first_heard_ms }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CallTool)]
struct ToolBody {
    tool_call_id: String,
    name: String,
    arguments: Value,
    #[schema(required)]
    result: Option<String>,
    outcome: &'static str,
    #[serde(with = "time::serde::rfc3339")]
    started_at: OffsetDateTime,
    #[schema(required)]
    duration_ms: Option<i32>,
}

impl From<CallTool> for ToolBody {
    fn from(tool: CallTool) -> Self {
        Self {
            tool_call_id: tool.tool_call_id,
            name: tool.name,
            arguments: tool.arguments,
            result: tool.result,
            outcome: tool.outcome.as_str(),
            started_at: tool.started_at,
            duration_ms: tool.duration_ms,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Recording)]
struct RecordingBody {
    state: &'static str,
    #[schema(required)]
    key: Option<String>,
    #[schema(required)]
    url: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    started_at: OffsetDateTime,
    #[schema(required)]
    duration_ms: Option<i64>,
    #[schema(required)]
    bytes: Option<i64>,
}

impl From<Recording> for RecordingBody {
    fn from(recording: Recording) -> Self {
        let (key, url) = match recording.place {
            Place::Key(key) => (Some(key), None),
            Place::Url(url) => (None, Some(url)),
        };
        let Recording { state, started_at, duration_ms, bytes, .. } = recording;
        Self { state: state.as_str(), key, url, started_at, duration_ms, bytes }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TranscriptItem)]
struct ItemBody {
    /// From 0.
    position: usize,
    role: &'static str,
    text: String,
    #[schema(required)]
    heard_ms: Option<i32>,
    interrupted: bool,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
}

impl ItemBody {
    fn new(position: usize, item: TranscriptItem) -> Self {
        Self {
            position,
            role: item.role.as_str(),
            text: item.text,
            heard_ms: item.heard_ms,
            interrupted: item.interrupted,
            at: item.at,
        }
    }
}

/// Which calls to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// How many on a page.
    #[param(inline)]
    limit: Option<Limit>,
    /// `nextCursor` of the page before.
    #[param(value_type = Option<CallId>)]
    cursor: Option<Cursor<CallId>>,
    agent_id: Option<AgentId>,
    /// To this number of ours.
    number_id: Option<NumberId>,
    /// Run by this system.
    system_type: Option<SystemType>,
    status: Option<CallStatus>,
    end_reason: Option<EndReason>,
    /// With this name at Twilio.
    call_sid: Option<CallSid>,
    /// With this name at Vapi.
    vapi_call_id: Option<VapiCallId>,
    /// That began then or later.
    #[serde(default, with = "time::serde::rfc3339::option")]
    since: Option<OffsetDateTime>,
    /// That began before.
    #[serde(default, with = "time::serde::rfc3339::option")]
    until: Option<OffsetDateTime>,
}

/// List calls.
#[utoipa::path(
    get, path = "/calls", operation_id = "listCalls", tag = "calls", params(Filter),
    responses((status = 200, description = "A page.", body = Page<CallBody>))
)]
pub async fn list(
    State(app): State<Arc<App>>,
    reader: Reader,
    Params(filter): Params<Filter>,
) -> Result<Json<Page<CallBody>>, Problem> {
    let Filter { limit, cursor, agent_id, number_id, system_type, status, end_reason, .. } = filter;
    let Filter { call_sid, vapi_call_id, since, until, .. } = filter;
    let filter =
        calls::Filter { agent_id, number_id, system_type, status, end_reason, call_sid, vapi_call_id, since, until };
    let mut conn = app.db.acquire().await?;
    let before = cursor.map(Cursor::key);
    let calls = calls::list(&mut conn, reader.project, &filter, before, Limit::to_fetch(limit)).await?;
    Ok(Json(Page::new(calls, limit, |call| call.id, CallBody::from)))
}

/// Read a call.
///
/// With all that is known of it: transcript, tools, latency, cost, recordings. It grows while the call goes on.
#[utoipa::path(
    get, path = "/calls/{id}", operation_id = "getCall", tag = "calls", params(("id" = CallId, Path)),
    responses((status = 200, description = "The call.", body = WholeCall))
)]
pub async fn show(State(app): State<Arc<App>>, reader: Reader, Id(id): Id<CallId>) -> Result<Json<WholeCall>, Problem> {
    let mut conn = app.db.acquire().await?;
    let call = calls::get(&mut conn, reader.project, id).await?.ok_or_else(|| Problem::not_found("call"))?;
    let facts = call_facts::of_call(&mut conn, id).await?;
    let latency = call_turns::latency(&mut conn, id).await?;
    let items = transcript_items::of_call(&mut conn, id).await?;
    Ok(Json(WholeCall {
        call: call.into(),
        end_detail: facts.end_detail,
        cost: facts.cost,
        setup_ms: facts.setup_ms,
        interruptions: facts.interruptions,
        latency: LatencyBody {
            turns: latency.turns,
            p50_ms: latency.p50_ms,
            p95_ms: latency.p95_ms,
            max_ms: latency.max_ms,
            told_mean_ms: facts.told_latency_ms,
        },
        transcript: items.into_iter().enumerate().map(|(position, item)| ItemBody::new(position, item)).collect(),
        turns: call_turns::of_call(&mut conn, id).await?.into_iter().map(TurnBody::from).collect(),
        tools: call_tools::of_call(&mut conn, id).await?.into_iter().map(ToolBody::from).collect(),
        recordings: recordings::of_call(&mut conn, id).await?.into_iter().map(RecordingBody::from).collect(),
    }))
}
