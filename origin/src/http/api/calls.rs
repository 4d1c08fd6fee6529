//! `/api/calls`: read calls, and one with all that is known of it: transcript, tools, latency, cost, recordings.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::Value;
use shared::{AgentId, CallId, CallSid, NumberId, ProjectId, SystemType, VapiCallId};
use time::OffsetDateTime;

use super::{Limit, List};
use crate::App;
use crate::end_reason::EndReason;
use crate::http::auth::Reader;
use crate::http::extract::{Id, Params};
use crate::http::problem::Problem;
use crate::prices::Cost;
use crate::store::call_facts;
use crate::store::call_tools::{self, CallTool};
use crate::store::call_turns::{self, CallTurn};
use crate::store::calls::{self, Call};
use crate::store::recordings::{self, Place, Recording};
use crate::store::transcript_items::{self, TranscriptItem};

/// A call as the API shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CallBody {
    id: CallId,
    project_id: ProjectId,
    agent_id: AgentId,
    number_id: Option<NumberId>,
    call_sid: Option<CallSid>,
    vapi_call_id: Option<VapiCallId>,
    from: Option<String>,
    to: Option<String>,
    system_type: SystemType,
    pin_reason: Option<String>,
    status: &'static str,
    #[serde(with = "time::serde::rfc3339")]
    started_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    answered_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    ended_at: Option<OffsetDateTime>,
    /// From when we first heard of it to the answer.
    ring_ms: Option<i64>,
    /// From the answer to the end.
    talk_ms: Option<i64>,
    end_reason: Option<&'static str>,
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
            status: call.status.as_str(),
            started_at: call.started_at,
            answered_at: call.answered_at,
            ended_at: call.ended_at,
            ring_ms: call.answered_at.map(|answered| ms_between(call.started_at, answered)),
            talk_ms: call.answered_at.zip(call.ended_at).map(|(answered, ended)| ms_between(answered, ended)),
            end_reason: call.end_reason.map(EndReason::as_str),
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
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WholeCall {
    #[serde(flatten)]
    call: CallBody,
    end_detail: Option<String>,
    cost: Option<Cost>,
    /// From the start of the last stream to a session that listens and speaks.
    setup_ms: Option<i32>,
    interruptions: Option<i32>,
    latency: LatencyBody,
    transcript: Vec<ItemBody>,
    turns: Vec<TurnBody>,
    tools: Vec<ToolBody>,
    recordings: Vec<RecordingBody>,
}

/// From the end of the caller's words to the first audio of the answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LatencyBody {
    turns: i64,
    p50_ms: Option<i32>,
    p95_ms: Option<i32>,
    max_ms: Option<i32>,
    /// As the provider tells it, where it is not measured here.
    told_mean_ms: Option<i32>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TurnBody {
    #[serde(with = "time::serde::rfc3339")]
    speech_ended_at: OffsetDateTime,
    first_audio_ms: i32,
    first_heard_ms: Option<i32>,
}

impl From<CallTurn> for TurnBody {
    fn from(turn: CallTurn) -> Self {
        let CallTurn { speech_ended_at, first_audio_ms, first_heard_ms } = turn;
        Self { speech_ended_at, first_audio_ms, first_heard_ms }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ToolBody {
    tool_call_id: String,
    name: String,
    arguments: Value,
    result: Option<String>,
    outcome: &'static str,
    #[serde(with = "time::serde::rfc3339")]
    started_at: OffsetDateTime,
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

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RecordingBody {
    state: &'static str,
    key: Option<String>,
    url: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    started_at: OffsetDateTime,
    duration_ms: Option<i64>,
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

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ItemBody {
    /// From 0.
    position: usize,
    role: &'static str,
    text: String,
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

/// `GET /api/calls`.
pub async fn list(
    State(app): State<Arc<App>>,
    reader: Reader,
    Params(limit): Params<Limit>,
) -> Result<Json<List<CallBody>>, Problem> {
    let limit = limit.get()?;
    let mut conn = app.db.acquire().await?;
    let calls = calls::list(&mut conn, reader.project, limit).await?;
    Ok(Json(calls.into_iter().map(CallBody::from).collect()))
}

/// `GET /api/calls/{id}`.
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
