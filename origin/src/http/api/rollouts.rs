//! `/api/rollouts`: batches of switches, stage by stage. Those of several projects are the command line's only.
//!
//! What is asked for here moves a rollout; a running origin's job does the work, see [`crate::rollout`].

pub mod moves;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use shared::{AgentId, ProjectId, SystemType};
use time::OffsetDateTime;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{IntoParams, PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::etag::Tagged;
use super::once::{Answer, Begun, Post};
use super::page::{Cursor, Limit, Page};
use crate::App;
use crate::http::auth::Reader;
use crate::http::extract::{Id, Params};
use crate::http::problem::Problem;
use crate::rollout::changes::{self, Changes};
use crate::rollout::cohort::Stage;
use crate::rollout::plan::{self, Plan, PlanError, PlanRequest};
use crate::rollout::settings::GuardSettings;
use crate::rollout::state::{Reason, State as RolloutState};
use crate::rollout::view::{self, ItemView, RolloutView};
use crate::rollout::{Request, Waived};
use crate::store::rollouts::items::ItemState;
use crate::store::rollouts::{self, Rollout, RolloutId, Scope};

/// The paths.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(preview))
        .routes(routes!(show))
        .routes(routes!(list_agents))
        .routes(routes!(preview_move))
        .merge(moves::router())
}

/// A rollout, without how its agents, numbers and calls stand.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutSummary {
    id: RolloutId,
    #[schema(required)]
    project_id: Option<ProjectId>,
    /// Where its agents go.
    target: SystemType,
    /// How far it has come.
    state: RolloutState,
    /// Why it is paused or rolled back.
    #[schema(required)]
    reason: Option<Reason>,
    /// How many stages were begun.
    stage: u16,
    #[schema(value_type = Vec<String>)]
    stages: Vec<Stage>,
    guard: GuardSettings,
    /// Who planned it.
    created_by: String,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// When it last went on.
    #[serde(with = "time::serde::rfc3339")]
    changed_at: OffsetDateTime,
}

impl From<Rollout> for RolloutSummary {
    fn from(rollout: Rollout) -> Self {
        Self {
            id: rollout.id,
            project_id: rollout.project_id,
            target: rollout.target,
            state: rollout.state,
            reason: rollout.reason,
            stage: rollout.stage,
            stages: rollout.stages,
            guard: rollout.guard,
            created_by: rollout.created_by,
            created_at: rollout.created_at,
            changed_at: rollout.changed_at,
        }
    }
}

/// It grows with every move: the microsecond of the last one.
fn revision(rollout: &Rollout) -> i64 {
    i64::try_from(rollout.changed_at.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX)
}

/// A share in percent.
#[derive(Clone, Copy, Debug)]
struct Share(u8);

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            share @ 1..=100 => Ok(Self(share)),
            _ => Err(D::Error::custom("a share must be 1 to 100 percent")),
        }
    }
}

impl PartialSchema for Share {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(100)).into()
    }
}

impl ToSchema for Share {}

/// Which agents are to be switched, and how.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RolloutFields {
    /// Where they go.
    target: SystemType,
    /// The agents. Without this: all of the project.
    #[serde(default)]
    #[schema(min_items = 1)]
    agent_ids: Option<Vec<AgentId>>,
    /// The stages, in percent; each contains the ones before. Without any: 100 for agents that are named, otherwise 25,
    /// 50 and 100.
    #[serde(default)]
    #[schema(inline)]
    percent: Vec<Share>,
    /// One or two agents that go first, alone.
    #[serde(default)]
    #[schema(max_items = 2)]
    pilots: Vec<AgentId>,
    #[serde(default)]
    guard: GuardSettings,
}

impl RolloutFields {
    fn request(self, project: ProjectId) -> Result<PlanRequest, Problem> {
        let Self { target, agent_ids, percent, pilots, guard } = self;
        let faults = guard.faults();
        if !faults.is_empty() {
            return Err(Problem::invalid_value(faults));
        }
        let usual: &[u8] = if agent_ids.is_some() { &[100] } else { &[25, 50, 100] };
        let percent = if percent.is_empty() { usual.to_vec() } else { percent.iter().map(|share| share.0).collect() };
        let stages = percent.into_iter().map(Stage::Percent).collect();
        let scope = agent_ids.map_or(Scope::Project(project), Scope::Agents);
        Ok(PlanRequest { scope, within: Some(project), target, stages, pilots, guard })
    }
}

impl From<PlanError> for Problem {
    fn from(error: PlanError) -> Self {
        let field = match &error {
            PlanError::Store(_) => None,
            PlanError::ForeignPilots(_) | PlanError::TooManyPilots => Some("pilots"),
            PlanError::NoSuchAgents(_) | PlanError::NoAgents => Some("agentIds"),
        };
        match (field, error) {
            (_, PlanError::Store(error)) => error.into(),
            (field, error) => Self::invalid_value(vec![format!("{}: {error}", field.unwrap_or_default())]),
        }
    }
}

/// Which rollouts to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// How many on a page.
    #[param(inline)]
    limit: Option<Limit>,
    /// `nextCursor` of the page before.
    #[param(value_type = Option<RolloutId>)]
    cursor: Option<Cursor<RolloutId>>,
    /// That have come so far.
    state: Option<RolloutState>,
}

/// List rollouts.
#[utoipa::path(
    get, path = "/rollouts", operation_id = "listRollouts", tag = "rollouts", params(Filter),
    responses((status = 200, description = "A page.", body = Page<RolloutSummary>))
)]
pub async fn list(
    State(app): State<Arc<App>>,
    reader: Reader,
    Params(filter): Params<Filter>,
) -> Result<Json<Page<RolloutSummary>>, Problem> {
    let Filter { limit, cursor, state } = filter;
    let mut conn = app.db.acquire().await?;
    let before = cursor.map(Cursor::key);
    let rows = rollouts::list(&mut conn, Some(reader.project), state, before, Limit::to_fetch(limit)).await?;
    Ok(Json(Page::new(rows, limit, |rollout| rollout.id, RolloutSummary::from)))
}

/// Show what a rollout would change.
///
/// Agent by agent, what it and its numbers are and what they would be, and what becomes of the numbers at Twilio as far
/// as is known of what they have there. Nothing is changed or recorded.
#[utoipa::path(
    post, path = "/rollouts/plan", operation_id = "planRollout", tag = "rollouts", request_body = RolloutFields,
    responses((status = 200, description = "The plan.", body = Plan))
)]
pub async fn preview(State(app): State<Arc<App>>, post: Post<RolloutFields>) -> Result<Answer, Problem> {
    let (begun, writer, fields) = post.begin(&app).await?;
    let mut work = match begun {
        Begun::Now(work) => work,
        Begun::Before(answer) => return Ok(answer),
    };
    let plan = plan::plan(work.conn(), &app.config, &fields.request(writer.project)?).await?;
    let answer = Answer::new(StatusCode::OK, &plan)?;
    work.finish(answer).await
}

/// Make a rollout.
///
/// Its agents are fixed by that; none is switched before it is started.
#[utoipa::path(
    post, path = "/rollouts", operation_id = "createRollout", tag = "rollouts", request_body = RolloutFields,
    responses((
        status = 201, description = "It was made.", body = RolloutView,
        headers(("Location" = String, description = "Its path."), ("ETag" = String, description = "Its revision."))
    ))
)]
pub async fn create(State(app): State<Arc<App>>, post: Post<RolloutFields>) -> Result<Answer, Problem> {
    let (begun, writer, fields) = post.begin(&app).await?;
    let mut work = match begun {
        Begun::Now(work) => work,
        Begun::Before(answer) => return Ok(answer),
    };
    let request = fields.request(writer.project)?;
    let plan = plan::plan(work.conn(), &app.config, &request).await?;
    let id = plan::record(work.conn(), &request.scope, &plan, &writer.actor).await?;
    let rollout = rollouts::get(work.conn(), Some(writer.project), id).await?.ok_or_else(not_found)?;
    let revision = revision(&rollout);
    let view = view::show(work.conn(), rollout).await?;
    let answer = Answer::created(format!("/api/rollouts/{id}"), &view)?.tagged(revision);
    work.finish(answer).await
}

/// Read a rollout.
///
/// With its progress, stage by stage and at Twilio, and the guard's verdict on the calls of its switched agents.
#[utoipa::path(
    get, path = "/rollouts/{id}", operation_id = "getRollout", tag = "rollouts", params(("id" = RolloutId, Path)),
    responses((
        status = 200, description = "The rollout.", body = RolloutView,
        headers(("ETag" = String, description = "Its revision."))
    ))
)]
pub async fn show(
    State(app): State<Arc<App>>,
    reader: Reader,
    Id(id): Id<RolloutId>,
) -> Result<Tagged<RolloutView>, Problem> {
    let mut conn = app.db.acquire().await?;
    let rollout = rollouts::get(&mut conn, Some(reader.project), id).await?.ok_or_else(not_found)?;
    Ok(Tagged(revision(&rollout), view::show(&mut conn, rollout).await?))
}

/// Which agents of a rollout to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct AgentFilter {
    /// How many on a page.
    #[param(inline)]
    limit: Option<Limit>,
    /// `nextCursor` of the page before.
    #[param(value_type = Option<i32>)]
    cursor: Option<Cursor<i32>>,
    /// Of which this has come.
    state: Option<ItemState>,
}

/// List the agents of a rollout.
///
/// In the order of switching, each with what it was before and what came of it.
#[utoipa::path(
    get, path = "/rollouts/{id}/agents", operation_id = "listRolloutAgents", tag = "rollouts",
    params(("id" = RolloutId, Path), AgentFilter),
    responses((status = 200, description = "A page.", body = Page<ItemView>))
)]
pub async fn list_agents(
    State(app): State<Arc<App>>,
    reader: Reader,
    Id(id): Id<RolloutId>,
    Params(filter): Params<AgentFilter>,
) -> Result<Json<Page<ItemView>>, Problem> {
    let AgentFilter { limit, cursor, state } = filter;
    let mut conn = app.db.acquire().await?;
    rollouts::get(&mut conn, Some(reader.project), id).await?.ok_or_else(not_found)?;
    // Places are counted from 1.
    let after = cursor.map_or(0, Cursor::key);
    let rows = view::agents(&mut conn, id, state, after, Limit::to_fetch(limit)).await?;
    Ok(Json(Page::new(rows, limit, |(position, _)| *position, |(_, agent)| agent)))
}

/// What to preview.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// What would be asked for.
    #[param(inline)]
    request: Move,
}

/// What can be asked of a rollout.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum Move {
    Start,
    Advance,
    Rollback,
}

/// Show what a start, an advance or a rollback would change.
///
/// Worked out now; nothing is changed, and whether it would be refused is not looked at.
#[utoipa::path(
    get, path = "/rollouts/{id}/changes", operation_id = "previewRollout", tag = "rollouts",
    params(("id" = RolloutId, Path), Wanted),
    responses((status = 200, description = "The changes.", body = Changes))
)]
pub async fn preview_move(
    State(app): State<Arc<App>>,
    reader: Reader,
    Id(id): Id<RolloutId>,
    Params(wanted): Params<Wanted>,
) -> Result<Json<Changes>, Problem> {
    let request = match wanted.request {
        Move::Start => Request::Start,
        Move::Advance => Request::Advance(Waived::default()),
        Move::Rollback => Request::RollBack,
    };
    let mut conn = app.db.acquire().await?;
    let rollout = rollouts::get(&mut conn, Some(reader.project), id).await?.ok_or_else(not_found)?;
    Ok(Json(changes::preview(&mut conn, &app.config, &rollout, request).await?))
}

fn not_found() -> Problem {
    Problem::not_found("rollout")
}
