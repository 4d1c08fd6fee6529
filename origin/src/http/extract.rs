//! What handlers take out of a request. Whatever does not fit is a [`Problem`] that says why.

use std::str::FromStr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;

use crate::App;
use crate::http::problem::Problem;

/// A JSON body. Its type should refuse unknown fields.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        require_media_type(request.headers(), "application/json")?;
        let body = body(request, app).await?;
        serde_json::from_slice(&body)
            .map(Self)
            .map_err(|error| Problem::invalid(format!("The body is not valid: {error}.")))
    }
}

/// The body's bytes, as many as the route takes.
pub async fn body(request: Request, app: &Arc<App>) -> Result<Bytes, Problem> {
    Bytes::from_request(request, app).await.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large.")
        } else {
            Problem::invalid("The body could not be read.")
        }
    })
}

/// Refuses a request whose body is of another type.
pub fn require_media_type(headers: &HeaderMap, expected: &str) -> Result<(), Problem> {
    let is_it = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|essence| essence.trim().eq_ignore_ascii_case(expected));
    if is_it {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        format!("Send Content-Type: {expected}."),
    ))
}

/// The query. Its type should refuse unknown parameters.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Arc<App>> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        match Query::from_request_parts(parts, app).await {
            Ok(Query(params)) => Ok(Self(params)),
            Err(error) => Err(Problem::invalid(format!("The query is not valid: {}.", error.body_text()))),
        }
    }
}

/// The one id in the path. What is no id names nothing that exists: 404.
#[derive(Debug)]
pub struct Id<T>(pub T);

impl<T: FromStr> FromRequestParts<Arc<App>> for Id<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, app).await;
        let id = path.ok().and_then(|Path(text)| text.parse().ok());
        id.map(Self).ok_or_else(|| Problem::not_found("id"))
    }
}
