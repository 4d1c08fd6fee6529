//! `/api/keys`: the API keys of the project. A key is shown once, when it is made.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::once::{Answer, Begun, Post};
use super::page::{Cursor, Limit, Page};
use crate::App;
use crate::http::auth::{Reader, Writer};
use crate::http::extract::{Id, Params};
use crate::http::problem::Problem;
use crate::keys;
use crate::store::api_keys::{self, KeyId, KeyRecord, Role};

/// The paths.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(revoke))
}

/// An API key, without the key itself.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ApiKey)]
pub struct KeyBody {
    id: KeyId,
    /// What the key begins with. Events name it so: `api-key:<prefix>`.
    prefix: String,
    role: Role,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// To the minute. `null`: never.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    last_used_at: Option<OffsetDateTime>,
    /// Since when it is refused. `null`: it is valid.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    revoked_at: Option<OffsetDateTime>,
}

impl From<KeyRecord> for KeyBody {
    fn from(key: KeyRecord) -> Self {
        let KeyRecord { id, role, prefix, created_at, last_used_at, revoked_at } = key;
        Self { id, prefix, role, created_at, last_used_at, revoked_at }
    }
}

/// A key that was just made.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = NewApiKey)]
pub struct NewKeyBody {
    #[serde(flatten)]
    record: KeyBody,
    /// The key. Only the first answer has it: it is not kept for the same request again (`Idempotency-Key`).
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

/// Which keys to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// How many on a page.
    #[param(inline)]
    limit: Option<Limit>,
    /// `nextCursor` of the page before.
    #[param(value_type = Option<KeyId>)]
    cursor: Option<Cursor<KeyId>>,
}

/// List API keys, those that were revoked too.
#[utoipa::path(
    get, path = "/keys", operation_id = "listKeys", tag = "keys", params(Filter),
    responses((status = 200, description = "A page.", body = Page<KeyBody>))
)]
pub async fn list(
    State(app): State<Arc<App>>,
    reader: Reader,
    Params(Filter { limit, cursor }): Params<Filter>,
) -> Result<Json<Page<KeyBody>>, Problem> {
    let mut conn = app.db.acquire().await?;
    let keys = api_keys::list(&mut conn, reader.project, cursor.map(Cursor::key), Limit::to_fetch(limit)).await?;
    Ok(Json(Page::new(keys, limit, |key| key.id, KeyBody::from)))
}

/// What a key is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = ApiKeyFields)]
pub struct KeyFields {
    role: Role,
}

/// Make an API key.
#[utoipa::path(
    post, path = "/keys", operation_id = "createKey", tag = "keys", request_body = KeyFields,
    responses((
        status = 201, description = "It was made. `key` is shown this once.", body = NewKeyBody,
        headers(("Location" = String, description = "Its path."))
    ))
)]
pub async fn create(State(app): State<Arc<App>>, post: Post<KeyFields>) -> Result<Answer, Problem> {
    let (begun, writer, KeyFields { role }) = post.begin(&app).await?;
    let mut work = match begun {
        Begun::Now(work) => work,
        Begun::Before(answer) => return Ok(answer),
    };
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(Problem::internal)?;
    let (key, record) = keys::issue(work.conn(), writer.project, role, random, &writer.actor).await?;
    let location = format!("/api/keys/{}", record.id);
    let answer = Answer::created(location, &NewKeyBody { record: record.into(), key: None })?;
    work.finish(answer.showing_once("key", key.expose_secret())).await
}

/// Revoke an API key.
///
/// From now on it is refused. Again changes nothing. It stays in the list.
#[utoipa::path(
    delete, path = "/keys/{id}", operation_id = "revokeKey", tag = "keys", params(("id" = KeyId, Path)),
    responses((status = 204, description = "It is refused."))
)]
pub async fn revoke(
    State(app): State<Arc<App>>,
    Writer(writer): Writer,
    Id(id): Id<KeyId>,
) -> Result<StatusCode, Problem> {
    let mut tx = app.db.begin().await?;
    keys::revoke(&mut tx, writer.project, id, &writer.actor).await?.ok_or_else(|| Problem::not_found("API key"))?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
