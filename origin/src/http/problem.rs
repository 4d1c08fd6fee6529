//! The one error type at the HTTP boundary: RFC 9457 problem details with a stable [`Code`].
//!
//! The inner cause is logged here, once, and never part of an answer.

pub mod code;

use std::error::Error;
use std::fmt::Write as _;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

pub use self::code::Code;
use crate::request_id;
use crate::store::StoreError;

/// When to try again after a temporary fault, in seconds.
const RETRY_SECONDS: u64 = 2;

/// What went wrong with a request.
#[derive(Debug)]
pub struct Problem(Box<Inner>);

#[derive(Debug)]
struct Inner {
    code: Code,
    status: StatusCode,
    detail: String,
    more: Map<String, Value>,
    retry_after_s: Option<u64>,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl Problem {
    /// A problem of a kind, and a sentence for people.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let status = code.status();
        let retry_after_s = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_SECONDS);
        Self(Box::new(Inner { code, status, detail: detail.into(), more: Map::new(), retry_after_s, cause: None }))
    }

    /// Answers with another status than the code's own, where the sender expects that.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self
    }

    /// Adds a member of its own to the answer.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.more.insert(name.to_owned(), value.into());
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.0.retry_after_s = Some(seconds);
        self
    }

    /// Adds the cause, for the log only.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Error + Send + Sync + 'static) -> Self {
        self.0.cause = Some(Box::new(cause));
        self
    }

    /// No valid key.
    pub fn unauthorized() -> Self {
        Self::new(Code::Unauthorized, "Send a valid API key: Authorization: Bearer tdm_…")
    }

    /// A valid key that may not do this.
    pub fn forbidden() -> Self {
        Self::new(Code::Forbidden, "This API key may read but not change anything.")
    }

    /// Nothing there, or nothing of this project's.
    pub fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound, format!("There is no such {what}."))
    }

    /// The request is not what this path takes.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(Code::InvalidRequest, detail)
    }

    /// The form is right, the values are not; all their faults, each with its field's name first.
    pub fn invalid_value(faults: Vec<String>) -> Self {
        Self::new(Code::InvalidValue, format!("Not possible: {}.", faults.join("; "))).with("faults", faults)
    }

    /// Our fault, for now.
    pub fn unavailable(cause: impl Error + Send + Sync + 'static) -> Self {
        Self::new(Code::Unavailable, "Not possible at the moment; try again.").caused_by(cause)
    }

    /// Our fault.
    pub fn internal(cause: impl Error + Send + Sync + 'static) -> Self {
        Self::new(Code::Internal, "Something went wrong here.").caused_by(cause)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Invalid(faults) => Self::invalid_value(faults),
            error if error.is_temporary() => Self::unavailable(error),
            error => Self::internal(error),
        }
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        StoreError::from(error).into()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Inner { code, status, detail, more, retry_after_s, cause } = *self.0;
        let code = code.as_str();
        if let Some(cause) = cause {
            tracing::error!(code, cause = chain(&*cause), "A request failed");
        }
        let mut body = json!({
            "type": format!("urn:tandem:problem:{code}"),
            "title": status.canonical_reason().unwrap_or("Error"),
            "status": status.as_u16(),
            "code": code,
            "detail": detail,
            "requestId": request_id::current(),
        });
        if let Value::Object(members) = &mut body {
            members.extend(more);
        }
        let mut response = (status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = retry_after_s {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// An error and its causes in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        // Writing to a String cannot fail.
        let _ = write!(text, ": {cause}");
        next = cause.source();
    }
    text
}
