//! `/api/events`: read the audit log.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::{AgentId, CallId, NumberId};
use time::OffsetDateTime;

use super::List;
use crate::App;
use crate::http::auth::Reader;
use crate::http::extract::Params;
use crate::http::problem::Problem;
use crate::store::events::chain::EventHash;
use crate::store::events::{self, Event};

/// An event as the API shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EventBody {
    id: i64,
    #[serde(rename = "type")]
    kind: String,
    actor: String,
    agent_id: Option<AgentId>,
    number_id: Option<NumberId>,
    call_id: Option<CallId>,
    before: Option<Value>,
    after: Option<Value>,
    details: Value,
    request_id: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    position: i64,
    hash: EventHash,
}

impl From<Event> for EventBody {
    fn from(event: Event) -> Self {
        Self {
            id: event.id,
            kind: event.kind,
            actor: event.actor,
            agent_id: event.agent_id,
            number_id: event.number_id,
            call_id: event.call_id,
            before: event.before,
            after: event.after,
            details: event.details,
            request_id: event.request_id,
            at: event.at,
            position: event.position,
            hash: event.hash,
        }
    }
}

/// Which events to show.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Filter {
    limit: Option<i64>,
    agent_id: Option<AgentId>,
}

/// `GET /api/events`.
pub async fn list(
    State(app): State<Arc<App>>,
    reader: Reader,
    Params(filter): Params<Filter>,
) -> Result<Json<List<EventBody>>, Problem> {
    let limit = super::limit(filter.limit)?;
    let mut conn = app.db.acquire().await?;
    let events = events::list(&mut conn, reader.project, filter.agent_id, limit).await?;
    Ok(Json(events.into_iter().map(EventBody::from).collect()))
}
