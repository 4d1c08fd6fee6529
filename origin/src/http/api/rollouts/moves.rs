//! `/api/rollouts/{id}/…`: start, advance, pause, roll back. The command line's rules: what it asks a person for is a
//! field here, and a guard that failed is overruled by nobody.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::etag::IfMatch;
use super::super::once::{Answer, Begun, Post};
use super::{RolloutSummary, not_found, revision};
use crate::App;
use crate::http::auth::Reader;
use crate::http::extract::Id;
use crate::http::problem::{Code, Problem};
use crate::rollout::state::{Refusal, State as RolloutState};
use crate::rollout::{self, BULK, Request, RolloutError, Waived};
use crate::store::rollouts::{self, RolloutId};

/// The paths.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(start))
        .routes(routes!(advance))
        .routes(routes!(pause))
        .routes(routes!(roll_back))
}

/// The body of a start or a rollback.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Confirmation {
    /// Needed for more than two agents.
    #[serde(default)]
    confirm: bool,
}

/// The body of an advance.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Advance {
    /// Needed for more than two agents.
    #[serde(default)]
    confirm: bool,
    /// Also where the guard has too few calls for a verdict.
    #[serde(default)]
    without_verdict: bool,
    /// Also where agents or numbers failed so far.
    #[serde(default)]
    despite_failures: bool,
}

/// The body of a pause.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Pause {}

/// Start a rollout.
///
/// The first stage begins. After a pause it goes on; what failed is tried again.
#[utoipa::path(
    post, path = "/rollouts/{id}/start", operation_id = "startRollout", tag = "rollouts",
    params(("id" = RolloutId, Path), ("If-Match" = Option<String>, Header, description = "The ETag that was read.")),
    request_body = Confirmation,
    responses(
        (
            status = 200, description = "It is under way.", body = RolloutSummary,
            headers(("ETag" = String, description = "Its revision."))
        ),
        (status = 412, description = ""),
    )
)]
pub async fn start(
    State(app): State<Arc<App>>,
    id: Id<RolloutId>,
    if_match: IfMatch,
    post: Post<Confirmation>,
) -> Result<Answer, Problem> {
    let (begun, writer, body) = post.begin(&app).await?;
    move_on(begun, &writer, id, &if_match, Request::Start, body.confirm).await
}

/// Begin a rollout's next stage.
///
/// Only people do that, and only where the guard found the calls of the stages before not to be worse.
#[utoipa::path(
    post, path = "/rollouts/{id}/advance", operation_id = "advanceRollout", tag = "rollouts",
    params(("id" = RolloutId, Path), ("If-Match" = Option<String>, Header, description = "The ETag that was read.")),
    request_body = Advance,
    responses(
        (
            status = 200, description = "It is under way.", body = RolloutSummary,
            headers(("ETag" = String, description = "Its revision."))
        ),
        (status = 412, description = ""),
    )
)]
pub async fn advance(
    State(app): State<Arc<App>>,
    id: Id<RolloutId>,
    if_match: IfMatch,
    post: Post<Advance>,
) -> Result<Answer, Problem> {
    let (begun, writer, body) = post.begin(&app).await?;
    let waived = Waived { verdict: body.without_verdict, failures: body.despite_failures };
    move_on(begun, &writer, id, &if_match, Request::Advance(waived), body.confirm).await
}

/// Pause a rollout.
///
/// No further agent is switched. Those that are stay where they are.
#[utoipa::path(
    post, path = "/rollouts/{id}/pause", operation_id = "pauseRollout", tag = "rollouts",
    params(("id" = RolloutId, Path), ("If-Match" = Option<String>, Header, description = "The ETag that was read.")),
    request_body = Pause,
    responses(
        (
            status = 200, description = "It is paused.", body = RolloutSummary,
            headers(("ETag" = String, description = "Its revision."))
        ),
        (status = 412, description = ""),
    )
)]
pub async fn pause(
    State(app): State<Arc<App>>,
    id: Id<RolloutId>,
    if_match: IfMatch,
    post: Post<Pause>,
) -> Result<Answer, Problem> {
    let (begun, writer, Pause {}) = post.begin(&app).await?;
    move_on(begun, &writer, id, &if_match, Request::Pause, false).await
}

/// Roll back a rollout.
///
/// Every agent that it switched becomes what it was before, and so do its numbers, at Twilio too.
#[utoipa::path(
    post, path = "/rollouts/{id}/rollback", operation_id = "rollBackRollout", tag = "rollouts",
    params(("id" = RolloutId, Path), ("If-Match" = Option<String>, Header, description = "The ETag that was read.")),
    request_body = Confirmation,
    responses(
        (
            status = 200, description = "It is under way.", body = RolloutSummary,
            headers(("ETag" = String, description = "Its revision."))
        ),
        (status = 412, description = ""),
    )
)]
pub async fn roll_back(
    State(app): State<Arc<App>>,
    id: Id<RolloutId>,
    if_match: IfMatch,
    post: Post<Confirmation>,
) -> Result<Answer, Problem> {
    let (begun, writer, body) = post.begin(&app).await?;
    move_on(begun, &writer, id, &if_match, Request::RollBack, body.confirm).await
}

async fn move_on(
    begun: Begun,
    writer: &Reader,
    Id(id): Id<RolloutId>,
    if_match: &IfMatch,
    request: Request,
    is_confirmed: bool,
) -> Result<Answer, Problem> {
    let mut work = match begun {
        Begun::Now(work) => work,
        Begun::Before(answer) => return Ok(answer),
    };
    let project = Some(writer.project);
    let rollout = rollouts::lock(work.conn(), project, id).await?.ok_or_else(not_found)?;
    if_match.check(revision(&rollout))?;
    let agents = rollout::affected(work.conn(), &rollout, request).await?;
    let moved = rollout::request(work.conn(), project, id, request, &writer.actor).await;
    let (now, has_moved) = moved.map_err(|error| refused(error, rollout.state))?;
    if has_moved && agents >= BULK && !is_confirmed {
        let detail = format!("This is about {agents} agents: say \"confirm\": true if that is meant.");
        return Err(Problem::new(Code::ConfirmationNeeded, detail).with("agents", agents));
    }
    let revision = revision(&now);
    let answer = Answer::new(StatusCode::OK, &RolloutSummary::from(now))?.tagged(revision);
    work.finish(answer).await
}

fn refused(error: RolloutError, state: RolloutState) -> Problem {
    let refusal = match error {
        RolloutError::NotFound => return not_found(),
        RolloutError::Store(error) => return error.into(),
        RolloutError::Refused(refusal) => refusal,
    };
    let detail = format!("Not possible: {refusal}.");
    match refusal {
        Refusal::Worse => Problem::new(Code::GuardFailed, detail),
        Refusal::NotEnoughCalls => Problem::new(Code::GuardUndecided, detail),
        Refusal::Failures(failures) => Problem::new(Code::RolloutFailures, detail).with("failures", failures),
        Refusal::NotStarted
        | Refusal::StageRunning
        | Refusal::Paused
        | Refusal::NoFurtherStage
        | Refusal::RolledBack
        | Refusal::NothingToPause => Problem::new(Code::RolloutState, detail).with("state", state.as_str()),
    }
}
