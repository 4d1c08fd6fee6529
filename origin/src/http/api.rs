//! The control plane, `/api/…`: for programs with an API key.
//!
//! JSON is camelCase, times are RFC 3339 in UTC, errors are problem details. [`openapi`] describes it all, made out of
//! the handlers; `origin/openapi.json` is that description, and `make openapi` writes it anew.
//!
//! # Adding a resource
//!
//! 1. Its file here: bodies (`Serialize` or `Deserialize`, and `ToSchema`), handlers with `#[utoipa::path]`, which
//!    names `operation_id`, `tag`, what is particular of the parameters, and the answers that are particular; and a
//!    `router()` with its handlers, which [`described`] merges.
//! 2. A list takes [`Limit`](page::Limit) and [`Cursor`](page::Cursor) among its filters and gives a
//!    [`Page`](page::Page).
//! 3. A `POST` takes [`Post`](once::Post) and does its work in the transaction that this begins. What follows later,
//!    such as requests to other services, is a job that the transaction leaves behind.
//! 4. A change takes [`IfMatch`](etag::IfMatch), locks the row and checks its revision; a `PATCH` takes a
//!    [`MergePatch`](merge_patch::MergePatch). What has a revision is answered as [`Tagged`](etag::Tagged).
//! 5. A problem of a new kind is a line in [`Code`].
//!
//! What all have in common is not repeated by the handlers: 400, 401, 403, 404, 412, 413, 415, 422, 429 and 503 with
//! their problems, `Idempotency-Key`, the headers of all answers. Unknown query parameters are refused for all of them,
//! by the description.

pub mod agents;
pub mod calls;
pub mod etag;
pub mod events;
pub mod keys;
pub mod merge_patch;
pub mod numbers;
pub mod once;
pub mod openapi;
pub mod page;
pub mod projects;
pub mod rollouts;
pub mod routes;
pub mod tools;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::Method;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;

use crate::App;
use crate::http::problem::{Code, Problem};
use crate::http::{auth, nothing_here, other_method};

/// Instructions of an agent are the longest thing that anybody sends.
const BODY_LIMIT: usize = 256 * 1024;
/// Those that ask Twilio or Vapi take seconds, all others less than one.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Everything below `/api` but the webhook.
pub fn router(app: &Arc<App>) -> Router<Arc<App>> {
    let (router, document) = described();
    let known = Arc::new(KnownParameters::of(&document));
    let document = document.to_string();
    let public = Router::new()
        .route("/api/openapi.json", get(async move || ([(CONTENT_TYPE, "application/json")], document.clone())));
    router
        .route("/api/{*rest}", axum::routing::any(async || nothing_here()))
        .method_not_allowed_fallback(async || other_method())
        .layer(from_fn_with_state(known, refuse_unknown_parameters))
        .layer(from_fn_with_state(Arc::clone(app), auth::require_key))
        .layer(from_fn(limit_time))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .merge(public)
        .merge(docs())
}

/// `/docs`: the description, readable. All that it is made of is in the binary; it asks nobody else.
fn docs() -> Router<Arc<App>> {
    let config = utoipa_swagger_ui::Config::from("/api/openapi.json")
        .validator_url("none")
        .doc_expansion("none")
        .display_request_duration(true)
        .persist_authorization(false);
    Router::from(SwaggerUi::new("/docs").config(config))
}

/// The handlers, and the description made out of them.
pub fn described() -> (Router<Arc<App>>, serde_json::Value) {
    let resources = OpenApiRouter::new()
        .merge(agents::router())
        .merge(calls::router())
        .merge(events::router())
        .merge(keys::router())
        .merge(numbers::router())
        .merge(projects::router())
        .merge(rollouts::router())
        .merge(routes::router())
        .merge(tools::router());
    let (router, described) = OpenApiRouter::with_openapi(openapi::base()).nest("/api", resources).split_for_parts();
    (router, openapi::complete(&described))
}

async fn limit_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(elapsed) => Problem::new(Code::Timeout, "The request took too long.").caused_by(elapsed).into_response(),
    }
}

/// The query parameters of every operation that is described.
#[derive(Debug)]
struct KnownParameters(HashMap<(String, Method), HashSet<String>>);

impl KnownParameters {
    fn of(document: &serde_json::Value) -> Self {
        let operations = openapi::operations(document).filter_map(|(path, method, operation)| {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let in_query = parameters.filter(|parameter| parameter["in"] == "query");
            let names = in_query.filter_map(|parameter| Some(parameter["name"].as_str()?.to_owned())).collect();
            Some(((path.to_owned(), method.to_uppercase().parse().ok()?), names))
        });
        Self(operations.collect())
    }
}

async fn refuse_unknown_parameters(
    State(known): State<Arc<KnownParameters>>,
    path: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let operation = path.map(|path| (path.as_str().to_owned(), request.method().clone()));
    if let Some(known) = operation.and_then(|operation| known.0.get(&operation)) {
        let query = request.uri().query().unwrap_or_default();
        // A text with a NUL is none that anything can be looked for by: Postgres does not take it.
        if query.contains("%00") {
            return Problem::invalid("The query is not valid: it holds a NUL character.").into_response();
        }
        let given = reqwest::Url::parse(&format!("http://query/?{query}"));
        let given = given.iter().flat_map(reqwest::Url::query_pairs).map(|(name, _)| name);
        if let Some(name) = given.into_iter().find(|name| !known.contains(&**name)) {
            let detail = format!("There is no query parameter `{name}` here.");
            return Problem::new(Code::UnknownParameter, detail).into_response();
        }
    }
    next.run(request).await
}
