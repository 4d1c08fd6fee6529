//! `/api/calls`: read calls, and one with its transcript.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::Value;
use shared::{AgentId, CallId, CallSid, NumberId, ProjectId, SystemType, VapiCallId};
use time::OffsetDateTime;

use super::{Limit, List};
use crate::App;
use crate::http::auth::Reader;
use crate::http::extract::{Id, Params};
use crate::http::problem::Problem;
use crate::store::calls::{self, Call};
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
    end_reason: Option<String>,
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
            end_reason: call.end_reason,
            resumes: call.resumes,
            usage: call.usage,
        }
    }
}

/// A call and what was said in it.
#[derive(Debug, Serialize)]
pub struct CallWithTranscript {
    #[serde(flatten)]
    call: CallBody,
    transcript: Vec<ItemBody>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ItemBody {
    position: i32,
    role: &'static str,
    text: String,
    heard_ms: Option<i32>,
    interrupted: bool,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
}

impl From<TranscriptItem> for ItemBody {
    fn from(item: TranscriptItem) -> Self {
        Self {
            position: item.position,
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
pub async fn show(
    State(app): State<Arc<App>>,
    reader: Reader,
    Id(id): Id<CallId>,
) -> Result<Json<CallWithTranscript>, Problem> {
    let mut conn = app.db.acquire().await?;
    let call = calls::get(&mut conn, reader.project, id).await?.ok_or_else(|| Problem::not_found("call"))?;
    let transcript = transcript_items::of_call(&mut conn, id).await?.into_iter().map(ItemBody::from).collect();
    Ok(Json(CallWithTranscript { call: call.into(), transcript }))
}
