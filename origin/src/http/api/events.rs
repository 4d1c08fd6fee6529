//! `/api/events`: read the audit log, and where its chain ends.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::{AgentId, CallId, NumberId, ProjectId};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::page::{Cursor, Limit, Page};
use crate::App;
use crate::http::auth::Reader;
use crate::http::extract::Params;
use crate::http::problem::Problem;
use crate::store::events::chain::{self, EventHash, Head};
use crate::store::events::{self, Event};

/// The paths.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(head))
}

/// Something that happened.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Event)]
pub struct EventBody {
    id: i64,
    /// A dotted word, such as `agent.system_type_changed`.
    #[serde(rename = "type")]
    kind: String,
    /// `api-key:<prefix>`, `command:<name>` or `origin`.
    actor: String,
    #[schema(required)]
    agent_id: Option<AgentId>,
    #[schema(required)]
    number_id: Option<NumberId>,
    #[schema(required)]
    call_id: Option<CallId>,
    /// What was, for a change.
    #[schema(required)]
    before: Option<Value>,
    /// What is.
    #[schema(required)]
    after: Option<Value>,
    details: Value,
    /// Of the request, job or command that caused it.
    #[schema(required)]
    request_id: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    /// Its place in the project's chain: 1, 2, 3, … in the order in which changes took effect.
    position: i64,
    /// SHA-256 over the event and the hash of the one before it.
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

/// Which events to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// How many on a page.
    #[param(inline)]
    limit: Option<Limit>,
    /// `nextCursor` of the page before.
    #[param(value_type = Option<i64>)]
    cursor: Option<Cursor<i64>>,
    agent_id: Option<AgentId>,
    number_id: Option<NumberId>,
    call_id: Option<CallId>,
    /// Of this type.
    #[serde(rename = "type")]
    #[param(rename = "type")]
    kind: Option<String>,
    /// By this actor; `api-key` and `command` are all of that kind.
    actor: Option<String>,
    /// Caused by this request, job or command.
    request_id: Option<String>,
    /// Logged then or later.
    #[serde(default, with = "time::serde::rfc3339::option")]
    since: Option<OffsetDateTime>,
    /// Logged before.
    #[serde(default, with = "time::serde::rfc3339::option")]
    until: Option<OffsetDateTime>,
}

/// List events.
#[utoipa::path(
    get, path = "/events", operation_id = "listEvents", tag = "events", params(Filter),
    responses((status = 200, description = "A page.", body = Page<EventBody>))
)]
pub async fn list(
    State(app): State<Arc<App>>,
    reader: Reader,
    Params(filter): Params<Filter>,
) -> Result<Json<Page<EventBody>>, Problem> {
    let Filter { limit, cursor, agent_id, number_id, call_id, kind, actor, request_id, since, until } = filter;
    let filter = events::Filter { agent_id, number_id, call_id, kind, actor, request_id, since, until };
    let mut conn = app.db.acquire().await?;
    let before = cursor.map(Cursor::key);
    let events = events::list(&mut conn, reader.project, &filter, before, Limit::to_fetch(limit)).await?;
    Ok(Json(Page::new(events, limit, |event| event.position, EventBody::from)))
}

/// Where the project's chain of events ends.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = EventHead)]
pub struct HeadBody {
    project_id: ProjectId,
    head: Head,
}

/// Read where the chain of events ends.
///
/// Kept elsewhere, it proves later that nothing up to here was lost or edited: `tandem events verify --against`.
#[utoipa::path(
    get, path = "/events/head", operation_id = "getEventHead", tag = "events",
    responses((status = 200, description = "The head.", body = HeadBody))
)]
pub async fn head(State(app): State<Arc<App>>, reader: Reader) -> Result<Json<HeadBody>, Problem> {
    let mut conn = app.db.acquire().await?;
    let head = chain::head(&mut conn, reader.project).await?.unwrap_or(Head::START);
    Ok(Json(HeadBody { project_id: reader.project, head }))
}
