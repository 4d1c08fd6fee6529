//! `/api/agents`: voice assistants, and which system runs them.

pub mod body;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use shared::{AgentId, AssistantId, SystemType};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::body::{AgentBody, bodies, one, tagged};
use super::etag::{IfMatch, Tagged};
use super::merge_patch::MergePatch;
use super::once::{Answer, Begun, Post};
use super::page::{self, Cursor, Limit, Page};
use crate::App;
use crate::agents::{AgentError, AgentFields};
use crate::http::auth::{Reader, Writer};
use crate::http::extract::{self, Id, Params};
use crate::http::problem::{Code, Problem};
use crate::store::agents;
use crate::switching::{self, Missing, SwitchError};
use crate::telemetry::SystemLabels;

/// The paths.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, change, delete))
        .routes(routes!(show_system_type, switch))
}

/// Which agents to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// How many on a page.
    #[param(inline)]
    limit: Option<Limit>,
    /// `nextCursor` of the page before.
    #[param(value_type = Option<AgentId>)]
    cursor: Option<Cursor<AgentId>>,
    /// On this system.
    system_type: Option<SystemType>,
    /// With this in the name, in whatever case.
    name: Option<String>,
    /// With this assistant at Vapi.
    vapi_assistant_id: Option<AssistantId>,
}

/// List agents.
#[utoipa::path(
    get, path = "/agents", operation_id = "listAgents", tag = "agents", params(Filter),
    responses((status = 200, description = "A page.", body = Page<AgentBody>))
)]
pub async fn list(
    State(app): State<Arc<App>>,
    reader: Reader,
    Params(filter): Params<Filter>,
) -> Result<Json<Page<AgentBody>>, Problem> {
    let Filter { limit, cursor, system_type, name, vapi_assistant_id } = filter;
    let filter = agents::Filter { system_type, name, vapi_assistant_id };
    let mut conn = app.db.acquire().await?;
    let before = cursor.map(Cursor::key);
    let mut agents = agents::list(&mut conn, reader.project, &filter, before, Limit::to_fetch(limit)).await?;
    let next = page::cut(&mut agents, limit, |agent| agent.id);
    Ok(Json(Page::of(bodies(&mut conn, agents).await?, next)))
}

/// Make an agent.
///
/// It begins on `vapi`, whether it can run there or not.
#[utoipa::path(
    post, path = "/agents", operation_id = "createAgent", tag = "agents", request_body = AgentFields,
    responses((
        status = 201, description = "It was made.", body = AgentBody,
        headers(("Location" = String, description = "Its path."), ("ETag" = String, description = "Its revision."))
    ))
)]
pub async fn create(State(app): State<Arc<App>>, post: Post<AgentFields>) -> Result<Answer, Problem> {
    let (begun, writer, fields) = post.begin(&app).await?;
    let mut work = match begun {
        Begun::Now(work) => work,
        Begun::Before(answer) => return Ok(answer),
    };
    let id = crate::agents::create(work.conn(), writer.project, &fields, &writer.actor).await?;
    let agent = one(work.conn(), &writer, id).await?;
    let answer = Answer::created(format!("/api/agents/{id}"), &agent)?.tagged(agent.revision);
    work.finish(answer).await
}

/// Read an agent.
#[utoipa::path(
    get, path = "/agents/{id}", operation_id = "getAgent", tag = "agents", params(("id" = AgentId, Path)),
    responses((
        status = 200, description = "The agent.", body = AgentBody,
        headers(("ETag" = String, description = "Its revision."))
    ))
)]
pub async fn show(
    State(app): State<Arc<App>>,
    reader: Reader,
    Id(id): Id<AgentId>,
) -> Result<Tagged<AgentBody>, Problem> {
    let mut conn = app.db.acquire().await?;
    one(&mut conn, &reader, id).await.map(tagged)
}

/// A change of an agent.
pub type AgentPatch = MergePatch<AgentFields>;

/// Change an agent.
///
/// What its present system needs cannot be taken away. Calls in progress go on as they began.
#[utoipa::path(
    patch, path = "/agents/{id}", operation_id = "changeAgent", tag = "agents", params(("id" = AgentId, Path)),
    request_body(content = AgentPatch, content_type = "application/merge-patch+json"),
    responses(
        (
            status = 200, description = "The agent as it is now.", body = AgentBody,
            headers(("ETag" = String, description = "Its revision."))
        ),
        (status = 409, description = ""),
    )
)]
pub async fn change(
    State(app): State<Arc<App>>,
    Writer(writer): Writer,
    Id(id): Id<AgentId>,
    if_match: IfMatch,
    patch: AgentPatch,
) -> Result<Tagged<AgentBody>, Problem> {
    let mut tx = app.db.begin().await?;
    let agent = agents::lock(&mut tx, writer.project, id).await?.ok_or_else(|| Problem::not_found("agent"))?;
    if_match.check(agent.revision)?;
    let fields = patch.apply(&AgentFields::of(&mut tx, &agent).await?)?;
    crate::agents::change(&mut tx, app.config.systems(), &agent, &fields, &writer.actor).await?;
    let body = one(&mut tx, &writer, id).await?;
    tx.commit().await?;
    Ok(tagged(body))
}

/// Delete an agent.
///
/// Only one that answers no number and has had no call: calls are kept, and name their agent.
#[utoipa::path(
    delete, path = "/agents/{id}", operation_id = "deleteAgent", tag = "agents", params(("id" = AgentId, Path)),
    responses((status = 204, description = "It is gone."), (status = 409, description = ""))
)]
pub async fn delete(
    State(app): State<Arc<App>>,
    Writer(writer): Writer,
    Id(id): Id<AgentId>,
    if_match: IfMatch,
) -> Result<StatusCode, Problem> {
    let mut tx = app.db.begin().await?;
    let agent = agents::lock(&mut tx, writer.project, id).await?.ok_or_else(|| Problem::not_found("agent"))?;
    if_match.check(agent.revision)?;
    crate::agents::delete(&mut tx, &agent, &writer.actor).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Read which system runs an agent.
///
/// And how far that is in effect: see the switch.
#[utoipa::path(
    get, path = "/agents/{id}/system-type", operation_id = "getSystemType", tag = "agents",
    params(("id" = AgentId, Path)),
    responses((
        status = 200, description = "The agent.", body = AgentBody,
        headers(("ETag" = String, description = "Its revision."))
    ))
)]
pub async fn show_system_type(
    state: State<Arc<App>>,
    reader: Reader,
    id: Id<AgentId>,
) -> Result<Tagged<AgentBody>, Problem> {
    show(state, reader, id).await
}

/// The body of a switch.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = Switch)]
pub struct SwitchBody {
    system_type: SystemType,
}

/// Switch an agent to a system.
///
/// Its new calls and its numbers follow; calls in progress stay where they began. The same value again changes nothing.
/// `inEffect` says whether the edge and Twilio know, `replica` and `twilio` what they are still to be told, and why they
/// have not been yet. A number in `conflict` or `failed` waits for somebody, see `pointNumber`.
#[utoipa::path(
    put, path = "/agents/{id}/system-type", operation_id = "switchAgent", tag = "agents",
    params(("id" = AgentId, Path)), request_body = SwitchBody,
    responses(
        (
            status = 200, description = "The agent as it is now.", body = AgentBody,
            headers(("ETag" = String, description = "Its revision."))
        ),
        (status = 409, description = ""),
    )
)]
pub async fn switch(
    State(app): State<Arc<App>>,
    Writer(writer): Writer,
    Id(id): Id<AgentId>,
    if_match: IfMatch,
    extract::Json(SwitchBody { system_type: target }): extract::Json<SwitchBody>,
) -> Result<Tagged<AgentBody>, Problem> {
    let mut tx = app.db.begin().await?;
    let agent = agents::lock(&mut tx, writer.project, id).await?.ok_or_else(|| Problem::not_found("agent"))?;
    if_match.check(agent.revision)?;
    let switched = switching::switch(&mut tx, app.config.systems(), writer.project, id, target, &writer.actor).await?;
    let body = one(&mut tx, &writer, id).await?;
    tx.commit().await?;
    if switched.changed {
        app.metrics.switches.get_or_create(&SystemLabels { system: target.as_str() }).inc();
        tracing::info!(agent_id = %id, system = %target, actor = %writer.actor, "Switched an agent");
    }
    Ok(tagged(body))
}

impl From<SwitchError> for Problem {
    fn from(error: SwitchError) -> Self {
        match error {
            SwitchError::NotFound => Self::not_found("agent"),
            SwitchError::Store(error) => error.into(),
            SwitchError::NotConfigured(missing) => {
                lacking(Code::AgentNotConfigured, "The agent cannot run on this system yet; missing", missing)
            }
        }
    }
}

impl From<AgentError> for Problem {
    fn from(error: AgentError) -> Self {
        match error {
            AgentError::Invalid(faults) => Self::invalid_value(faults),
            AgentError::NameTaken => Self::new(Code::NameTaken, "Another agent of the project has this name."),
            AgentError::AssistantTaken => {
                Self::new(Code::VapiAssistantTaken, "Another agent has this assistant at Vapi.")
            }
            AgentError::Needed(missing) => lacking(
                Code::NeededBySystem,
                "The agent's present system needs what would go; switch it first",
                missing,
            ),
            AgentError::InUse { numbers, calls } => {
                Self::new(Code::AgentInUse, format!("The agent answers {numbers} numbers and has had {calls} calls."))
                    .with("numbers", numbers)
                    .with("calls", calls)
            }
            AgentError::Store(error) => error.into(),
        }
    }
}

fn lacking(code: Code, detail: &str, missing: Vec<Missing>) -> Problem {
    let missing: Vec<&str> = missing.into_iter().map(Missing::as_str).collect();
    Problem::new(code, format!("{detail}: {}.", missing.join(", "))).with("missing", missing)
}
