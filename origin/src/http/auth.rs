//! Who is asking: API keys of a project, with a role.
//!
//! 401 without a valid key, 403 for a role that may not; that something belongs to another project is never told, it
//! is 404 like what does not exist.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use shared::ProjectId;

use crate::App;
use crate::http::problem::Problem;
use crate::keys;
use crate::store::api_keys::{self, Role};
use crate::store::events::Actor;

/// Somebody with a valid key.
#[derive(Clone, Debug)]
pub struct Reader {
    /// Whose data they may see.
    pub project: ProjectId,
    /// Who they are in the log.
    pub actor: Actor,
}

/// Somebody with a valid key that may change things.
#[derive(Clone, Debug)]
pub struct Writer(pub Reader);

impl FromRequestParts<Arc<App>> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        authenticate(&parts.headers, app).await.map(|(reader, _)| reader)
    }
}

impl FromRequestParts<Arc<App>> for Writer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        match authenticate(&parts.headers, app).await? {
            (reader, Role::Write) => Ok(Self(reader)),
            (_, Role::Read) => Err(Problem::forbidden()),
        }
    }
}

async fn authenticate(headers: &HeaderMap, app: &App) -> Result<(Reader, Role), Problem> {
    let digest = bearer(headers).and_then(keys::digest).ok_or_else(Problem::unauthorized)?;
    let mut conn = app.db.acquire().await?;
    let key = api_keys::find(&mut conn, &digest.hash).await?.ok_or_else(Problem::unauthorized)?;
    Ok((Reader { project: key.project_id, actor: Actor::ApiKey(key.prefix) }, key.role))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
