//! Changes that nobody else's change was lost under: `ETag` and `If-Match`.
//!
//! A tag is the revision of what can be changed. What is only shown with it, such as how far replication is, may change
//! under the same tag, so there is no `If-None-Match`.

use std::convert::Infallible;
use std::fmt::Display;
use std::sync::Arc;

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::HeaderValue;
use axum::http::header::{ETAG, IF_MATCH};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::App;
use crate::http::problem::{Code, Problem};

/// The tag of a revision, which most often is a number.
pub fn tag(revision: impl Display) -> String {
    format!("\"{revision}\"")
}

/// Something with a revision.
#[derive(Debug)]
pub struct Tagged<T, R = i64>(pub R, pub T);

impl<T: Serialize, R: Display> IntoResponse for Tagged<T, R> {
    fn into_response(self) -> Response {
        let mut response = Json(self.1).into_response();
        if let Ok(tag) = HeaderValue::try_from(tag(self.0)) {
            response.headers_mut().insert(ETAG, tag);
        }
        response
    }
}

/// What the sender believes to change. Without the header they change whatever is there.
#[derive(Clone, Debug)]
pub struct IfMatch(Option<String>);

impl FromRequestParts<Arc<App>> for IfMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Infallible> {
        // What is not text matches nothing.
        Ok(Self(parts.headers.get(IF_MATCH).map(|value| value.to_str().unwrap_or_default().to_owned())))
    }
}

impl IfMatch {
    /// Refuses what has another revision. The row must be locked.
    pub fn check(&self, revision: impl Display) -> Result<(), Problem> {
        let Some(tags) = &self.0 else { return Ok(()) };
        let now = tag(revision);
        // What lies in between may have made the tag a weak one, by compressing the answer.
        let matches = |given: &str| given == "*" || given.strip_prefix("W/").unwrap_or(given) == now;
        if tags.split(',').map(str::trim).any(matches) {
            return Ok(());
        }
        Err(Problem::new(Code::PreconditionFailed, "It was changed meanwhile: read it again."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_revision_itself_matches() {
        let matches = |header: Option<&str>| IfMatch(header.map(str::to_owned)).check(12).is_ok();
        for header in [None, Some("\"12\""), Some("W/\"12\""), Some("*"), Some("\"1\", \"12\"")] {
            assert!(matches(header), "{header:?}");
        }
        for header in ["", "12", "\"1\"", "\"2\"", "\"120\"", "\"11\", \"13\""] {
            assert!(!matches(Some(header)), "{header}");
        }
    }
}
