//! `/api/numbers`: phone numbers, who answers them, and where Twilio sends their calls.

pub mod getting;

use std::fmt;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use shared::route::VapiHandover;
use shared::{AgentId, E164, NumberId, ProjectId, SystemType};
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::etag::{IfMatch, Tagged};
use super::once::{Answer, Begun, Post};
use super::page::{self, Cursor, Limit, Page};
use crate::App;
use crate::http::auth::{Reader, Writer};
use crate::http::extract::{self, Id, Params};
use crate::http::problem::{Code, Problem};
use crate::numbers::{NumberError, holding, pointing};
use crate::providers::twilio::numbers::VoiceSettings;
use crate::store;
use crate::store::numbers::{self, PhoneNumber};
use crate::store::pointings::{Place, Pointing, PointingState};

/// When to try again what Twilio or Vapi cannot do now, where they do not say. Longer than for a fault of ours: theirs
/// seldom pass within a moment.
const PROVIDER_RETRY_SECONDS: u64 = 5;

/// The paths.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .merge(getting::router())
        .routes(routes!(list))
        .routes(routes!(show, assign, release))
        .routes(routes!(point))
}

/// A phone number as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Number)]
pub struct NumberBody {
    id: NumberId,
    project_id: ProjectId,
    number: E164,
    #[schema(required)]
    agent_id: Option<AgentId>,
    system_type: SystemType,
    vapi_handover: VapiHandover,
    #[schema(required)]
    vapi_phone_number_id: Option<String>,
    /// Since when it is being given back; `null`: it is not.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    releasing_since: Option<OffsetDateTime>,
    /// `null`: Twilio is not told about this number.
    #[schema(required)]
    pointing: Option<PointingBody>,
    #[serde(skip)]
    revision: Revision,
}

/// What can be changed of a number: its record, and what Twilio is asked to do with it. How far that is, and what was
/// found there, is only shown.
#[derive(Clone, Copy, Debug)]
pub struct Revision {
    record: i64,
    request: Option<i64>,
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.record)?;
        self.request.map_or(Ok(()), |request| write!(f, "-{request}"))
    }
}

/// Where Twilio sends the number's calls, or is to send them.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Pointing)]
pub struct PointingBody {
    place: Place,
    state: PointingState,
    #[serde(with = "time::serde::rfc3339")]
    requested_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    settled_at: Option<OffsetDateTime>,
    /// How our record, Twilio and Vapi differed at the last check; `null`: not checked yet.
    #[schema(required, value_type = Option<Vec<Object>>)]
    drift: Option<serde_json::Value>,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    checked_at: Option<OffsetDateTime>,
    /// Vapi was asked to take the number and has not been seen to have it, or may have changed it at Twilio.
    vapi_asked: bool,
    /// Failed attempts since it was asked for.
    attempts: i32,
    #[schema(required)]
    error: Option<PointingError>,
    /// What Twilio said last.
    #[schema(required)]
    found: Option<VoiceSettings>,
    /// The settings that calls reach Vapi with, and that a way back restores.
    #[schema(required)]
    remembered: Option<VoiceSettings>,
}

/// Why the last attempt failed.
#[derive(Debug, Serialize, ToSchema)]
pub struct PointingError {
    /// A stable word.
    code: String,
    /// A sentence.
    detail: String,
}

impl From<(String, String)> for PointingError {
    fn from((code, detail): (String, String)) -> Self {
        Self { code, detail }
    }
}

impl From<Pointing> for PointingBody {
    fn from(pointing: Pointing) -> Self {
        Self {
            place: pointing.place,
            state: pointing.state,
            requested_at: pointing.requested_at,
            settled_at: pointing.settled_at,
            drift: pointing.drift,
            checked_at: pointing.checked_at,
            vapi_asked: pointing.vapi_saved,
            attempts: pointing.attempts,
            error: pointing.error.map(PointingError::from),
            found: pointing.found,
            remembered: pointing.remembered,
        }
    }
}

impl NumberBody {
    fn new(number: PhoneNumber, pointing: Option<Pointing>) -> Self {
        Self {
            revision: Revision { record: number.revision, request: pointing.as_ref().map(|pointing| pointing.request) },
            pointing: pointing.map(PointingBody::from),
            id: number.id,
            project_id: number.project_id,
            number: number.number,
            agent_id: number.agent_id,
            system_type: number.system_type,
            vapi_handover: number.vapi_handover,
            vapi_phone_number_id: number.vapi_phone_number_id,
            releasing_since: number.releasing_since,
        }
    }
}

/// Which numbers to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// How many on a page.
    #[param(inline)]
    limit: Option<Limit>,
    /// `nextCursor` of the page before.
    #[param(value_type = Option<NumberId>)]
    cursor: Option<Cursor<NumberId>>,
    /// Answered by this agent.
    agent_id: Option<AgentId>,
    /// On this system.
    system_type: Option<SystemType>,
}

/// List phone numbers.
#[utoipa::path(
    get, path = "/numbers", operation_id = "listNumbers", tag = "numbers", params(Filter),
    responses((status = 200, description = "A page.", body = Page<NumberBody>))
)]
pub async fn list(
    State(app): State<Arc<App>>,
    reader: Reader,
    Params(Filter { limit, cursor, agent_id, system_type }): Params<Filter>,
) -> Result<Json<Page<NumberBody>>, Problem> {
    let filter = numbers::Filter { agent_id, system_type, before: cursor.map(Cursor::key) };
    let mut conn = app.db.acquire().await?;
    let mut found = numbers::list(&mut conn, reader.project, &filter, Limit::to_fetch(limit)).await?;
    let next = page::cut(&mut found, limit, |number| number.id);
    Ok(Json(Page::of(bodies(&mut conn, found).await?, next)))
}

/// Read a phone number.
#[utoipa::path(
    get, path = "/numbers/{id}", operation_id = "getNumber", tag = "numbers", params(("id" = NumberId, Path)),
    responses((
        status = 200, description = "The number.", body = NumberBody,
        headers(("ETag" = String, description = "Its revision."))
    ))
)]
pub async fn show(
    State(app): State<Arc<App>>,
    reader: Reader,
    Id(id): Id<NumberId>,
) -> Result<Tagged<NumberBody, Revision>, Problem> {
    one(&mut *app.db.acquire().await?, reader.project, id).await.map(tagged)
}

/// Who is to answer a number.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Assignment {
    /// `null`: nobody; callers hear that the number is not in service.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(required)]
    agent_id: Option<AgentId>,
}

/// Have another agent answer a number, or nobody.
///
/// The number gets that agent's system. Calls in progress go on as they began.
#[utoipa::path(
    put, path = "/numbers/{id}", operation_id = "assignNumber", tag = "numbers", params(("id" = NumberId, Path)),
    request_body = Assignment,
    responses(
        (
            status = 200, description = "The number as it is now.", body = NumberBody,
            headers(("ETag" = String, description = "Its revision."))
        ),
        (status = 409, description = ""),
    )
)]
pub async fn assign(
    State(app): State<Arc<App>>,
    Writer(writer): Writer,
    Id(id): Id<NumberId>,
    if_match: IfMatch,
    extract::Json(Assignment { agent_id }): extract::Json<Assignment>,
) -> Result<Tagged<NumberBody, Revision>, Problem> {
    let mut tx = app.db.begin().await?;
    let number = holding::lock(&mut tx, writer.project, id, agent_id).await?;
    if_match.check(one(&mut tx, writer.project, id).await?.revision)?;
    holding::give(&mut tx, number, agent_id, &writer.actor).await?;
    let body = one(&mut tx, writer.project, id).await?;
    tx.commit().await?;
    Ok(tagged(body))
}

/// A confirmation.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Confirmation {
    /// The number once more.
    confirm: E164,
}

/// Give a number back to Twilio, for good.
///
/// Nobody may answer it any more, and no call to it may be in progress. `releasingSince` tells from when on nobody gets
/// it; if Twilio or Vapi could not be reached, the same request goes on with it. What they refuse leaves the number here.
#[utoipa::path(
    delete, path = "/numbers/{id}", operation_id = "releaseNumber", tag = "numbers",
    params(("id" = NumberId, Path), Confirmation),
    responses(
        (status = 204, description = "It is given back."),
        (status = 409, description = ""),
        (status = 422, description = ""),
    )
)]
pub async fn release(
    State(app): State<Arc<App>>,
    Writer(writer): Writer,
    Id(id): Id<NumberId>,
    if_match: IfMatch,
    Params(Confirmation { confirm }): Params<Confirmation>,
) -> Result<StatusCode, Problem> {
    let mut tx = app.db.begin().await?;
    let number = holding::lock(&mut tx, writer.project, id, None).await?;
    if_match.check(one(&mut tx, writer.project, id).await?.revision)?;
    if number.number != confirm {
        return Err(Problem::invalid_value(vec!["confirm names another number".to_owned()]));
    }
    holding::begin_release(&mut tx, &app.config, &number, &writer.actor).await?;
    tx.commit().await?;
    holding::finish_release(&app, writer.project, id, &writer.actor).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How to ask once more.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PointAgain {
    /// Overwrite what somebody else has set; it is remembered for the way back to Vapi.
    overwrite: bool,
}

/// Ask once more for what Twilio was to be told about a number.
///
/// After a conflict or a failure. A number that Twilio is not told about is a 404.
#[utoipa::path(
    post, path = "/numbers/{id}/pointing", operation_id = "pointNumber", tag = "numbers",
    params(("id" = NumberId, Path), ("If-Match" = Option<String>, Header, description = "The ETag that was read.")),
    request_body = PointAgain,
    responses(
        (
            status = 202, description = "The number; it is being done.", body = NumberBody,
            headers(("Location" = String, description = "Its path."), ("ETag" = String, description = "Its revision."))
        ),
        (status = 412, description = ""),
    )
)]
pub async fn point(
    State(app): State<Arc<App>>,
    Id(id): Id<NumberId>,
    if_match: IfMatch,
    post: Post<PointAgain>,
) -> Result<Answer, Problem> {
    let (begun, writer, PointAgain { overwrite }) = post.begin(&app).await?;
    let mut work = match begun {
        Begun::Now(work) => work,
        Begun::Before(answer) => return Ok(answer),
    };
    let number = holding::lock(work.conn(), writer.project, id, None).await?;
    if_match.check(one(work.conn(), writer.project, id).await?.revision)?;
    holding::point(work.conn(), &number, overwrite, &writer.actor).await?;
    let body = one(work.conn(), writer.project, id).await?;
    let answer = Answer::accepted(format!("/api/numbers/{id}"), &body)?.tagged(body.revision);
    work.finish(answer).await
}

fn tagged(body: NumberBody) -> Tagged<NumberBody, Revision> {
    Tagged(body.revision, body)
}

async fn one(conn: &mut PgConnection, project: ProjectId, id: NumberId) -> Result<NumberBody, Problem> {
    let number = numbers::get(conn, project, id).await?.ok_or_else(|| Problem::not_found("number"))?;
    bodies(conn, vec![number]).await?.pop().ok_or_else(|| Problem::not_found("number"))
}

/// Adds to numbers what is shown with them.
async fn bodies(conn: &mut PgConnection, numbers: Vec<PhoneNumber>) -> store::Result<Vec<NumberBody>> {
    let mut states = pointing::by_number(conn, numbers.iter().map(|number| number.id)).await?;
    let with_state = |number: PhoneNumber| {
        let state = states.remove(&number.id);
        NumberBody::new(number, state)
    };
    Ok(numbers.into_iter().map(with_state).collect())
}

impl From<NumberError> for Problem {
    fn from(error: NumberError) -> Self {
        let detail = format!("{error}.");
        let (code, twilio) = (error.code(), error.twilio_code());
        match error {
            NumberError::Store(error) => error.into(),
            NumberError::NoAgent => Self::not_found("agent"),
            NumberError::NoNumber => Self::not_found("number"),
            NumberError::NotPointed => Self::not_found("pointing"),
            NumberError::NoAssistant => {
                Self::new(Code::AgentNotConfigured, detail).with("missing", vec!["vapiAssistantId"])
            }
            NumberError::Twilio(_) | NumberError::Vapi(_) => {
                let problem = match error.passes() {
                    Some(asked) => Self::new(Code::ProviderUnavailable, detail)
                        .retry_after(asked.map_or(PROVIDER_RETRY_SECONDS, |asked| asked.as_secs().max(1))),
                    None => Self::new(Code::ProviderRefused, detail),
                };
                problem.with("reason", code).with("twilioCode", twilio)
            }
            _ => Self::new(Code::NumberConflict, detail).with("reason", code),
        }
    }
}
