//! How numbers come: searched for and bought, or taken over.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use shared::{AgentId, E164};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::super::once::{Answer, Begun, Post};
use super::super::page::{Cursor, Limit, Page};
use super::{NumberBody, one};
use crate::App;
use crate::http::auth::Reader;
use crate::http::extract::{Id, Params};
use crate::http::problem::Problem;
use crate::numbers::{holding, purchase};
use crate::providers::twilio::numbers::{AvailableNumber, Search};
use crate::store::purchases::{self, Purchase, PurchaseId, PurchaseState};

/// The paths.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(available))
        .routes(routes!(buy))
        .routes(routes!(adopt))
        .routes(routes!(list_purchases))
        .routes(routes!(show_purchase))
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
    #[param(pattern = "^[A-Z]{2}$")]
    country: Option<String>,
    /// Default `local`.
    #[serde(rename = "type")]
    #[param(rename = "type", inline)]
    kind: Option<NumberType>,
    /// Three digits, in the US and Canada.
    #[param(pattern = "^[0-9]{3}$")]
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
    if area_code.as_ref().is_some_and(|code| code.len() != 3 || !code.bytes().all(|digit| digit.is_ascii_digit())) {
        return Err(Problem::invalid("areaCode must be three digits."));
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

/// Which purchases to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PurchaseFilter {
    /// How many on a page.
    #[param(inline)]
    limit: Option<Limit>,
    /// `nextCursor` of the page before.
    #[param(value_type = Option<Uuid>)]
    cursor: Option<Cursor<Uuid>>,
    /// That have come so far.
    state: Option<PurchaseState>,
}

/// List purchases.
#[utoipa::path(
    get, path = "/numbers/purchases", operation_id = "listPurchases", tag = "numbers", params(PurchaseFilter),
    responses((status = 200, description = "A page.", body = Page<Purchase>))
)]
pub async fn list_purchases(
    State(app): State<Arc<App>>,
    reader: Reader,
    Params(PurchaseFilter { limit, cursor, state }): Params<PurchaseFilter>,
) -> Result<Json<Page<Purchase>>, Problem> {
    let (before, most) = (cursor.map(Cursor::key), Limit::to_fetch(limit));
    let found = purchases::list(&mut *app.db.acquire().await?, reader.project, state, before, most).await?;
    Ok(Json(Page::new(found, limit, |purchase| purchase.id.0, |purchase| purchase)))
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
            headers(("Location" = String, description = "Its path."), ("ETag" = String, description = "Its revision."))
        ),
        (status = 404, description = ""),
        (status = 409, description = ""),
    )
)]
pub async fn adopt(State(app): State<Arc<App>>, post: Post<NumberForAgent>) -> Result<Answer, Problem> {
    if let Some(answer) = post.answered(&app).await? {
        return Ok(answer);
    }
    let known = match holding::look(&app, &post.body.number).await {
        Ok(known) => known,
        // The same request may have come through meanwhile.
        Err(error) => return post.answered(&app).await?.ok_or_else(|| error.into()),
    };
    let (begun, writer, NumberForAgent { agent_id, .. }) = post.begin(&app).await?;
    let mut work = match begun {
        Begun::Now(work) => work,
        Begun::Before(answer) => return Ok(answer),
    };
    let (project, actor) = (writer.project, &writer.actor);
    let id = holding::adopt(work.conn(), &app.config, project, agent_id, &known, actor).await?;
    let body = one(work.conn(), project, id).await?;
    let answer = Answer::created(format!("/api/numbers/{id}"), &body)?.tagged(body.revision);
    work.finish(answer).await
}
