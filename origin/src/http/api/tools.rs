//! `/api/tools`: functions that agents may call. Which agent has which is the agents' `toolIds`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::{AgentId, ProjectId, ToolId};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::etag::{IfMatch, Tagged};
use super::merge_patch::MergePatch;
use super::once::{Answer, Begun, Post};
use super::page::{Cursor, Limit, Page};
use crate::App;
use crate::http::auth::{Reader, Writer};
use crate::http::extract::{Id, Params};
use crate::http::problem::{Code, Problem};
use crate::store::tools::Builtin;
use crate::store::tools::records::{self, ToolRecord};
use crate::store::tools::settings::ToolSettings;
use crate::tools::fields::{self, ToolError, ToolFields};

/// The paths.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, change, delete))
}

/// A function that agents may call.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Tool)]
pub struct ToolBody {
    id: ToolId,
    project_id: ProjectId,
    name: String,
    #[schema(required)]
    function_name: Option<String>,
    description: String,
    #[schema(value_type = Object)]
    parameters: Value,
    #[schema(required)]
    builtin: Option<Builtin>,
    /// Its query is masked.
    #[schema(required)]
    target_url: Option<String>,
    /// Masked, but in the answer that tells of a new one.
    #[schema(required)]
    secret: Option<String>,
    timeout_ms: i32,
    settings: ToolSettings,
}

impl From<&ToolRecord> for ToolBody {
    fn from(tool: &ToolRecord) -> Self {
        let shown = ToolFields::of(tool);
        Self {
            id: tool.id,
            project_id: tool.project_id,
            name: shown.name,
            function_name: shown.function_name,
            description: shown.description,
            parameters: shown.parameters,
            builtin: shown.builtin,
            target_url: shown.target_url,
            secret: shown.secret,
            timeout_ms: shown.timeout_ms,
            settings: shown.settings,
        }
    }
}

/// Which tools to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// How many on a page.
    #[param(inline)]
    limit: Option<Limit>,
    /// `nextCursor` of the page before.
    #[param(value_type = Option<ToolId>)]
    cursor: Option<Cursor<ToolId>>,
    /// With this in the name, in whatever case.
    name: Option<String>,
    /// Of this agent.
    agent_id: Option<AgentId>,
}

/// List tools.
#[utoipa::path(
    get, path = "/tools", operation_id = "listTools", tag = "tools", params(Filter),
    responses((status = 200, description = "A page.", body = Page<ToolBody>))
)]
pub async fn list(
    State(app): State<Arc<App>>,
    reader: Reader,
    Params(filter): Params<Filter>,
) -> Result<Json<Page<ToolBody>>, Problem> {
    let Filter { limit, cursor, name, agent_id } = filter;
    let filter = records::Filter { name, agent: agent_id };
    let mut conn = app.db.acquire().await?;
    let before = cursor.map(Cursor::key);
    let tools = records::list(&mut conn, reader.project, &filter, before, Limit::to_fetch(limit)).await?;
    Ok(Json(Page::new(tools, limit, |tool| tool.id, |tool| ToolBody::from(&tool))))
}

/// Make a tool.
#[utoipa::path(
    post, path = "/tools", operation_id = "createTool", tag = "tools", request_body = ToolFields,
    responses((
        status = 201, description = "It was made.", body = ToolBody,
        headers(("Location" = String, description = "Its path."), ("ETag" = String, description = "Its revision."))
    ))
)]
pub async fn create(State(app): State<Arc<App>>, post: Post<ToolFields>) -> Result<Answer, Problem> {
    let (begun, writer, fields) = post.begin(&app).await?;
    let mut work = match begun {
        Begun::Now(work) => work,
        Begun::Before(answer) => return Ok(answer),
    };
    let secret = new_secret()?;
    let kept = fields::create(work.conn(), writer.project, &fields, &app.tools, secret, &writer.actor).await?;
    let body = ToolBody::from(&kept.tool);
    let mut answer = Answer::created(format!("/api/tools/{}", kept.tool.id), &body)?.tagged(kept.tool.revision);
    if let Some(secret) = kept.new_secret {
        answer = answer.showing_once("secret", secret.expose_secret());
    }
    work.finish(answer).await
}

/// Read a tool.
#[utoipa::path(
    get, path = "/tools/{id}", operation_id = "getTool", tag = "tools", params(("id" = ToolId, Path)),
    responses((
        status = 200, description = "The tool.", body = ToolBody,
        headers(("ETag" = String, description = "Its revision."))
    ))
)]
pub async fn show(
    State(app): State<Arc<App>>,
    reader: Reader,
    Id(id): Id<ToolId>,
) -> Result<Tagged<ToolBody>, Problem> {
    let mut conn = app.db.acquire().await?;
    let tool = records::get(&mut conn, reader.project, id).await?.ok_or_else(not_found)?;
    Ok(Tagged(tool.revision, ToolBody::from(&tool)))
}

/// A change of a tool.
pub type ToolPatch = MergePatch<ToolFields>;

/// Change a tool.
///
/// `"secret": null` gives it a new secret, which is shown in this answer only. Calls in progress keep the tool as it
/// was when they began.
#[utoipa::path(
    patch, path = "/tools/{id}", operation_id = "changeTool", tag = "tools", params(("id" = ToolId, Path)),
    request_body(content = ToolPatch, content_type = "application/merge-patch+json"),
    responses(
        (
            status = 200, description = "The tool as it is now.", body = ToolBody,
            headers(("ETag" = String, description = "Its revision."))
        ),
        (status = 409, description = ""),
    )
)]
pub async fn change(
    State(app): State<Arc<App>>,
    Writer(writer): Writer,
    Id(id): Id<ToolId>,
    if_match: IfMatch,
    patch: ToolPatch,
) -> Result<Tagged<ToolBody>, Problem> {
    let mut tx = app.db.begin().await?;
    let known = records::lock(&mut tx, writer.project, id).await?.ok_or_else(not_found)?;
    if_match.check(known.revision)?;
    let wanted = patch.apply(&ToolFields::of(&known))?;
    let kept = fields::change(&mut tx, &known, &wanted, &app.tools, new_secret()?, &writer.actor).await?;
    tx.commit().await?;
    let mut body = ToolBody::from(&kept.tool);
    if let Some(secret) = kept.new_secret {
        body.secret = Some(secret.expose_secret().to_owned());
    }
    Ok(Tagged(kept.tool.revision, body))
}

/// Delete a tool.
///
/// Only one that no agent has.
#[utoipa::path(
    delete, path = "/tools/{id}", operation_id = "deleteTool", tag = "tools", params(("id" = ToolId, Path)),
    responses((status = 204, description = "It is gone."), (status = 409, description = ""))
)]
pub async fn delete(
    State(app): State<Arc<App>>,
    Writer(writer): Writer,
    Id(id): Id<ToolId>,
    if_match: IfMatch,
) -> Result<StatusCode, Problem> {
    let mut tx = app.db.begin().await?;
    let tool = records::lock(&mut tx, writer.project, id).await?.ok_or_else(not_found)?;
    if_match.check(tool.revision)?;
    fields::delete(&mut tx, &tool, &writer.actor).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<ToolError> for Problem {
    fn from(error: ToolError) -> Self {
        match error {
            ToolError::Invalid(faults) => Self::invalid_value(faults),
            ToolError::NameTaken => Self::new(Code::NameTaken, "Another tool of the project has this name."),
            ToolError::InUse(agents) => {
                let agents: Vec<String> = agents.iter().map(ToString::to_string).collect();
                Self::new(Code::ToolInUse, format!("{} agents have the tool.", agents.len())).with("agentIds", agents)
            }
            ToolError::Store(error) => error.into(),
        }
    }
}

fn not_found() -> Problem {
    Problem::not_found("tool")
}

/// 256 random bits.
fn new_secret() -> Result<SecretString, Problem> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(Problem::internal)?;
    Ok(URL_SAFE_NO_PAD.encode(random).into())
}
