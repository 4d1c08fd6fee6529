//! `/api/numbers`: phone numbers, where Twilio sends their calls, buying them and taking them over.

use std::collections::HashMap;
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
use uuid::Uuid;

use super::once::{Answer, Begun, Post};
use super::page::{self, Cursor, Limit, Page};
use crate::App;
use crate::http::auth::{Reader, Writer};
use crate::http::extract::{self, Id, Params};
use crate::http::problem::{Code, Problem};
use crate::numbers::{NumberError, holding, pointing, purchase};
use crate::providers::twilio::numbers::{AvailableNumber, Search, VoiceSettings};
use crate::store;
use crate::store::numbers::{self, PhoneNumber};
use crate::store::pointings::{Place, Pointing, PointingState};
use crate::store::purchases::{self, Purchase, PurchaseId};

/// The paths.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(list, buy))
        .routes(routes!(available))
        .routes(routes!(adopt))
        .routes(routes!(show_purchase))
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
    /// `null`: Twilio is not told about this number.
    #[schema(required)]
    pointing: Option<PointingBody>,
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
    code: String,
    detail: String,
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
            attempts: pointing.attempts,
            error: pointing.error.map(|(code, detail)| PointingError { code, detail }),
            found: pointing.found,
            remembered: pointing.remembered,
        }
    }
}

impl NumberBody {
    fn new(number: PhoneNumber, pointing: Option<Pointing>) -> Self {
        Self {
            pointing: pointing.map(PointingBody::from),
            id: number.id,
            project_id: number.project_id,
            number: number.number,
            agent_id: number.agent_id,
            system_type: number.system_type,
            vapi_handover: number.vapi_handover,
            vapi_phone_number_id: number.vapi_phone_number_id,
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
    #[param(value_type = Option<String>)]
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
    responses((status = 200, description = "The number.", body = NumberBody))
)]
pub async fn show(
    State(app): State<Arc<App>>,
    reader: Reader,
    Id(id): Id<NumberId>,
) -> Result<Json<NumberBody>, Problem> {
    one(&mut *app.db.acquire().await?, reader.project, id).await.map(Json)
}

/// What kind of number.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NumberType {
    /// Of a place.
    Local,
    /// Free for callers.
    TollFree,
    /// Of a mobile network.
    Mobile,
    /// Of a country.
    National,
}

impl NumberType {
    const fn at_twilio(self) -> &'static str {
        match self {
            Self::Local => "Local",
            Self::TollFree => "TollFree",
            Self::Mobile => "Mobile",
            Self::National => "National",
        }
    }
}

/// What to look for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// Two capital letters of ISO 3166; default `US`.
    country: Option<String>,
    /// Default `local`.
    #[serde(rename = "type")]
    #[param(rename = "type", inline)]
    kind: Option<NumberType>,
    /// Three digits, in the US and Canada.
    area_code: Option<String>,
    /// Two or more digits or letters that the number holds; `*` is any digit.
    contains: Option<String>,
}

/// Numbers for sale.
#[derive(Debug, Serialize, ToSchema)]
pub struct AvailableNumbers {
    items: Vec<AvailableNumber>,
}

/// How many numbers for sale are shown.
const OFFERS: usize = 50;

/// Look for numbers that can be bought.
///
/// Nothing is reserved by looking.
#[utoipa::path(
    get, path = "/numbers/available", operation_id = "listAvailableNumbers", tag = "numbers", params(Wanted),
    responses(
        (status = 200, description = "Numbers for sale.", body = AvailableNumbers),
        (status = 409, description = ""),
        (status = 422, description = ""),
    )
)]
pub async fn available(
    State(app): State<Arc<App>>,
    _: Reader,
    Params(Wanted { country, kind, area_code, contains }): Params<Wanted>,
) -> Result<Json<AvailableNumbers>, Problem> {
    let country = country.unwrap_or_else(|| "US".to_owned());
    if country.len() != 2 || !country.bytes().all(|letter| letter.is_ascii_uppercase()) {
        return Err(Problem::invalid("country must be two capital letters."));
    }
    let kind = kind.unwrap_or(NumberType::Local).at_twilio();
    let search = Search { country, kind, area_code, contains, limit: OFFERS };
    Ok(Json(AvailableNumbers { items: holding::search(&app, &search).await? }))
}

/// A number, and who is to answer it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NumberForAgent {
    number: E164,
    agent_id: AgentId,
}

/// Buy a number.
///
/// It costs money from then on. The purchase goes on by itself, and is shown at the path in `Location`; once it is
/// `bought`, the number gets its agent's system and is configured for it.
#[utoipa::path(
    post, path = "/numbers", operation_id = "buyNumber", tag = "numbers", request_body = NumberForAgent,
    responses(
        (
            status = 202, description = "The purchase, which goes on.", body = Purchase,
            headers(("Location" = String, description = "The purchase's path."))
        ),
        (status = 404, description = ""),
        (status = 409, description = ""),
    )
)]
pub async fn buy(State(app): State<Arc<App>>, post: Post<NumberForAgent>) -> Result<Answer, Problem> {
    let (begun, writer, NumberForAgent { number, agent_id }) = post.begin(&app).await?;
    let mut work = match begun {
        Begun::Now(work) => work,
        Begun::Before(answer) => return Ok(answer),
    };
    let (project, actor) = (writer.project, &writer.actor);
    let id = purchase::intend(work.conn(), &app.config, project, agent_id, &number, actor).await?;
    let intended = purchases::get(work.conn(), id).await?.ok_or_else(|| Problem::not_found("purchase"))?;
    let answer = Answer::accepted(format!("/api/numbers/purchases/{id}"), &intended)?;
    work.finish(answer).await
}

/// Read a purchase.
#[utoipa::path(
    get, path = "/numbers/purchases/{id}", operation_id = "getPurchase", tag = "numbers",
    params(("id" = Uuid, Path)), responses((status = 200, description = "The purchase.", body = Purchase))
)]
pub async fn show_purchase(
    State(app): State<Arc<App>>,
    reader: Reader,
    Id(id): Id<Uuid>,
) -> Result<Json<Purchase>, Problem> {
    let found = purchases::get(&mut *app.db.acquire().await?, PurchaseId(id)).await?;
    found.filter(|found| found.project_id == reader.project).map(Json).ok_or_else(|| Problem::not_found("purchase"))
}

/// Take over a number that is at Twilio already.
///
/// Whether or not Vapi knows it. It gets its agent's system, and Twilio is told where that wants its calls.
#[utoipa::path(
    post, path = "/numbers/adopt", operation_id = "adoptNumber", tag = "numbers", request_body = NumberForAgent,
    responses(
        (
            status = 201, description = "The number.", body = NumberBody,
            headers(("Location" = String, description = "Its path."))
        ),
        (status = 404, description = ""),
        (status = 409, description = ""),
    )
)]
pub async fn adopt(State(app): State<Arc<App>>, post: Post<NumberForAgent>) -> Result<Answer, Problem> {
    let known = holding::look(&app, &post.body.number).await?;
    let (begun, writer, NumberForAgent { agent_id, .. }) = post.begin(&app).await?;
    let mut work = match begun {
        Begun::Now(work) => work,
        Begun::Before(answer) => return Ok(answer),
    };
    let (project, actor) = (writer.project, &writer.actor);
    let id = holding::adopt(work.conn(), &app.config, project, agent_id, &known, actor).await?;
    let body = one(work.conn(), project, id).await?;
    let answer = Answer::created(format!("/api/numbers/{id}"), &body)?;
    work.finish(answer).await
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
        (status = 200, description = "The number as it is now.", body = NumberBody),
        (status = 409, description = ""),
    )
)]
pub async fn assign(
    State(app): State<Arc<App>>,
    Writer(writer): Writer,
    Id(id): Id<NumberId>,
    extract::Json(Assignment { agent_id }): extract::Json<Assignment>,
) -> Result<Json<NumberBody>, Problem> {
    let mut tx = app.db.begin().await?;
    holding::assign(&mut tx, writer.project, id, agent_id, &writer.actor).await?;
    let body = one(&mut tx, writer.project, id).await?;
    tx.commit().await?;
    Ok(Json(body))
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
/// Nobody may answer it any more, and no call to it may be in progress.
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
    Params(Confirmation { confirm }): Params<Confirmation>,
) -> Result<StatusCode, Problem> {
    let number = numbers::get(&mut *app.db.acquire().await?, writer.project, id).await?;
    let number = number.ok_or_else(|| Problem::not_found("number"))?;
    if number.number != confirm {
        return Err(Problem::invalid("confirm names another number."));
    }
    holding::release(&app, writer.project, id, &writer.actor).await?;
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
    params(("id" = NumberId, Path)), request_body = PointAgain,
    responses((status = 202, description = "The number; it is being done.", body = NumberBody))
)]
pub async fn point(
    State(app): State<Arc<App>>,
    Id(id): Id<NumberId>,
    post: Post<PointAgain>,
) -> Result<Answer, Problem> {
    let (begun, writer, PointAgain { overwrite }) = post.begin(&app).await?;
    let mut work = match begun {
        Begun::Now(work) => work,
        Begun::Before(answer) => return Ok(answer),
    };
    one(work.conn(), writer.project, id).await?;
    if !pointing::retry(work.conn(), id, overwrite).await? {
        return Err(Problem::not_found("pointing"));
    }
    let body = one(work.conn(), writer.project, id).await?;
    let answer = Answer::accepted(format!("/api/numbers/{id}"), &body)?;
    work.finish(answer).await
}

async fn one(conn: &mut PgConnection, project: ProjectId, id: NumberId) -> Result<NumberBody, Problem> {
    let number = numbers::get(conn, project, id).await?.ok_or_else(|| Problem::not_found("number"))?;
    bodies(conn, vec![number]).await?.pop().ok_or_else(|| Problem::not_found("number"))
}

/// Adds to numbers what is shown with them.
async fn bodies(conn: &mut PgConnection, numbers: Vec<PhoneNumber>) -> store::Result<Vec<NumberBody>> {
    let ids: Vec<NumberId> = numbers.iter().map(|number| number.id).collect();
    let states = pointing::state_of(conn, &ids).await?;
    let mut states: HashMap<NumberId, Pointing> = states.into_iter().map(|state| (state.number_id, state)).collect();
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
            NumberError::NoAssistant => {
                Self::new(Code::AgentNotConfigured, detail).with("missing", vec!["vapiAssistantId"])
            }
            NumberError::Twilio(_) | NumberError::Vapi(_) => {
                let kind = if error.passes().is_some() { Code::ProviderUnavailable } else { Code::ProviderRefused };
                Self::new(kind, detail).with("reason", code).with("twilioCode", twilio)
            }
            _ => Self::new(Code::NumberConflict, detail).with("reason", code),
        }
    }
}
