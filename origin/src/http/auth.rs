//! Who is asking: API keys of a project, with a role.
//!
//! 401 without a valid key, 403 for a role that may not; that something belongs to another project is never told, it
//! is 404 like what does not exist.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use shared::ProjectId;

use crate::App;
use crate::http::problem::Problem;
use crate::keys;
use crate::store::api_keys::{self, ApiKey, Role};
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

/// Lets requests with a valid key pass, as many as it has; the middleware of all that is not public.
pub async fn require_key(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let key = match authenticate(request.headers(), &app).await {
        Ok(key) => key,
        Err(problem) => return problem.into_response(),
    };
    let allowance = app.rate_limits.take(key.id);
    request.extensions_mut().insert(key);
    let mut response = if allowance.is_granted { next.run(request).await } else { allowance.refusal().into_response() };
    allowance.tell(response.headers_mut());
    response
}

impl FromRequestParts<Arc<App>> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Problem> {
        caller(parts).map(|(reader, _)| reader)
    }
}

impl FromRequestParts<Arc<App>> for Writer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Problem> {
        match caller(parts)? {
            (reader, Role::Write) => Ok(Self(reader)),
            (_, Role::Read) => Err(Problem::forbidden()),
        }
    }
}

/// A path outside of [`require_key`] has no caller.
fn caller(parts: &Parts) -> Result<(Reader, Role), Problem> {
    let key = parts.extensions.get::<ApiKey>().ok_or_else(Problem::unauthorized)?;
    Ok((Reader { project: key.project_id, actor: Actor::ApiKey(key.prefix.clone()) }, key.role))
}

async fn authenticate(headers: &HeaderMap, app: &App) -> Result<ApiKey, Problem> {
    let digest = bearer(headers).and_then(keys::digest).ok_or_else(Problem::unauthorized)?;
    let mut conn = app.db.acquire().await?;
    api_keys::find(&mut conn, &digest.hash).await?.ok_or_else(Problem::unauthorized)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
