//! `POST` requests that take effect once, however often they are sent: `Idempotency-Key`.
//!
//! The key is claimed, the work is done and the answer is kept in one transaction. Of two equal requests at a time the
//! second waits for the first and then gives its answer; a crash undoes claim and work together. An error is not kept:
//! nothing was done, and the same key may try again.

use std::fmt::Display;
use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts as _, Request};
use axum::http::header::{CONTENT_TYPE, ETAG, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use shared::ProjectId;
use sqlx::{PgConnection, Postgres, Transaction};

use super::etag;
use crate::App;
use crate::http::auth::{Reader, Writer};
use crate::http::extract;
use crate::http::problem::{Code, Problem};
use crate::store::idempotency::{self, Claim};

/// The request's header.
pub const KEY: &str = "idempotency-key";
/// In the answer of a request that took effect before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// For how long an answer is kept.
pub const KEEP_HOURS: i32 = 24;
const MOST_KEY: usize = 255;

/// A `POST` of somebody who may change things, with its body.
#[derive(Debug)]
pub struct Post<T> {
    /// Who sent it.
    pub writer: Reader,
    /// The body.
    pub body: T,
    key: Option<Key>,
}

#[derive(Debug)]
struct Key {
    text: String,
    path: String,
    body_sha256: [u8; 32],
}

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Post<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let Writer(writer) = Writer::from_request_parts(&mut parts, app).await?;
        let key = key(&parts.headers)?;
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        extract::require_media_type(&parts.headers, &["application/json"])?;
        let bytes = extract::body(Request::from_parts(parts, body), app).await?;
        let key = key.map(|text| Key { text, path, body_sha256: Sha256::digest(&bytes).into() });
        Ok(Self { writer, body: extract::json(&bytes)?, key })
    }
}

fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(KEY) else { return Ok(None) };
    let is_valid =
        |text: &&str| (1..=MOST_KEY).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    let text = value.to_str().ok().filter(is_valid);
    let text = text.ok_or_else(|| {
        Problem::invalid(format!(
            "Idempotency-Key must be 1 to {MOST_KEY} visible characters of ASCII, without spaces."
        ))
    })?;
    Ok(Some(text.to_owned()))
}

/// Whether a request is to take effect.
#[derive(Debug)]
pub enum Begun {
    /// It is: do the work on this transaction and [`finish`](Work::finish) it.
    Now(Work),
    /// It has before.
    Before(Answer),
}

/// The work of one request, undone unless it is finished.
#[derive(Debug)]
pub struct Work {
    tx: Transaction<'static, Postgres>,
    key: Option<(ProjectId, Key)>,
}

impl<T> Post<T> {
    /// The answer of the same request, if it took effect before: for work that first has to ask somebody else, who may
    /// not be there any more. [`begin`](Self::begin) decides afterwards.
    pub async fn answered(&self, app: &App) -> Result<Option<Answer>, Problem> {
        let Some(key) = &self.key else { return Ok(None) };
        let claim = Claim { project: self.writer.project, path: &key.path, key: &key.text };
        kept(&mut *app.db.acquire().await?, &claim, key).await
    }

    /// Claims the key. The body is given back for the work.
    pub async fn begin(self, app: &App) -> Result<(Begun, Reader, T), Problem> {
        let Self { writer, body, key } = self;
        let mut tx = app.db.begin().await?;
        let Some(key) = key else { return Ok((Begun::Now(Work { tx, key: None }), writer, body)) };
        let claim = Claim { project: writer.project, path: &key.path, key: &key.text };
        let is_new = idempotency::claim(&mut tx, &claim, &key.body_sha256).await.map_err(|error| {
            if error.is_lock_timeout() {
                Problem::new(Code::RequestInProgress, "The same request is being worked on.").retry_after(1)
            } else {
                error.into()
            }
        })?;
        if is_new {
            let work = Work { tx, key: Some((writer.project, key)) };
            return Ok((Begun::Now(work), writer, body));
        }
        // It may just have been forgotten, after a day.
        let Some(answer) = kept(&mut tx, &claim, &key).await? else {
            return Err(Problem::new(Code::RequestInProgress, "The same request was worked on.").retry_after(1));
        };
        Ok((Begun::Before(answer), writer, body))
    }
}

/// What a key was answered. It must not have come with another body.
async fn kept(conn: &mut PgConnection, claim: &Claim<'_>, key: &Key) -> Result<Option<Answer>, Problem> {
    let Some(kept) = idempotency::find(conn, claim).await? else { return Ok(None) };
    if kept.body_sha256 != key.body_sha256 {
        let detail = "This Idempotency-Key came before with another body.";
        return Err(Problem::new(Code::IdempotencyKeyReused, detail));
    }
    let answer: Answer = serde_json::from_value(kept.answer).map_err(Problem::internal)?;
    Ok(Some(Answer { is_replayed: true, ..answer }))
}

impl Work {
    /// Where the work is done.
    pub fn conn(&mut self) -> &mut PgConnection {
        &mut self.tx
    }

    /// Keeps the answer and makes the work count.
    pub async fn finish(mut self, answer: Answer) -> Result<Answer, Problem> {
        if let Some((project, key)) = &self.key {
            let claim = Claim { project: *project, path: &key.path, key: &key.text };
            let kept = serde_json::to_value(&answer).map_err(Problem::internal)?;
            idempotency::keep(&mut self.tx, &claim, &kept).await?;
        }
        self.tx.commit().await?;
        Ok(answer)
    }
}

/// The answer to a `POST`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    status: u16,
    location: Option<String>,
    etag: Option<String>,
    body: Value,
    /// Members of the body that are shown once and not kept.
    #[serde(skip)]
    once: serde_json::Map<String, Value>,
    #[serde(skip)]
    is_replayed: bool,
}

impl Answer {
    /// With this status and body.
    pub fn new(status: StatusCode, body: &impl Serialize) -> Result<Self, Problem> {
        let body = serde_json::to_value(body).map_err(Problem::internal)?;
        let (once, is_replayed) = (serde_json::Map::new(), false);
        Ok(Self { status: status.as_u16(), location: None, etag: None, body, once, is_replayed })
    }

    /// 201: something was made, at this path.
    pub fn created(location: String, body: &impl Serialize) -> Result<Self, Problem> {
        Ok(Self { location: Some(location), ..Self::new(StatusCode::CREATED, body)? })
    }

    /// 202: it goes on, and is shown at this path.
    pub fn accepted(location: String, body: &impl Serialize) -> Result<Self, Problem> {
        Ok(Self { location: Some(location), ..Self::new(StatusCode::ACCEPTED, body)? })
    }

    /// With the tag of a revision.
    #[must_use]
    pub fn tagged(self, revision: impl Display) -> Self {
        Self { etag: Some(etag::tag(revision)), ..self }
    }

    /// Shows a member of the body this once only: it is not kept, and not in the answer to the same request again.
    #[must_use]
    pub fn showing_once(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.once.insert(name.to_owned(), value.into());
        self
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let Self { status, location, etag, mut body, once, is_replayed } = self;
        if let Value::Object(members) = &mut body {
            members.extend(once);
        }
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
        let mut response = (status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in [(LOCATION, location), (ETAG, etag)] {
            if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
                headers.insert(name, value);
            }
        }
        if is_replayed {
            headers.insert(REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}
