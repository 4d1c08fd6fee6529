//! Cloudflare's REST API for Workers KV, in front of the local Worker's namespace or of a table in memory.
//!
//! The local Worker serves the same shapes through its explorer API, but without accounts, authentication and rate
//! limits: this adds them, faults on command, and a record of every write. Not simulated: the minute that a write
//! may take to be seen elsewhere, and expiry.

mod api;
mod backend;
mod pace;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request as HttpRequest, State};
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::faults::Faults;
use crate::hosts::http_client;
use crate::record::Record;
use api::{ApiError, Operation, Pair};
use backend::Backend;
use pace::{Pace, Refused};

/// A bulk write may have this many bytes, and nothing else comes near it.
const BODY_LIMIT: usize = 100 * 1024 * 1024;

/// How the simulator is set up.
#[derive(Debug, Clone)]
pub struct KvApiOptions {
    /// The account in the path.
    pub account_id: String,
    /// The token with the permission "Workers KV Storage Write".
    pub token: String,
    /// The one namespace there is; with an upstream, the `id` of the binding in wrangler.toml.
    pub namespace_id: String,
    /// Base URL of the local Worker's explorer API (`…/cdn-cgi/local/explorer/api`); without one, a table in memory.
    pub upstream: Option<String>,
    /// Between two writes of one key: one second.
    pub write_interval: Duration,
    /// Requests in five minutes: 1,200.
    pub request_limit: usize,
}

impl KvApiOptions {
    /// Cloudflare's limits and a table in memory.
    pub fn new(account_id: &str, token: &str, namespace_id: &str) -> Self {
        Self {
            account_id: account_id.to_owned(),
            token: token.to_owned(),
            namespace_id: namespace_id.to_owned(),
            upstream: None,
            write_interval: Duration::from_secs(1),
            request_limit: 1200,
        }
    }
}

/// A fault on command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// 429 with this `Retry-After`.
    RateLimited {
        /// Seconds.
        retry_after_s: u64,
    },
    /// 500, and nothing has happened.
    ServerError,
    /// 500, although the write has taken effect.
    ErrorAfterEffect,
    /// 401, as after a token was revoked.
    Unauthorized,
    /// A bulk request succeeds, but for these keys. Other requests do not use this fault up.
    UnsuccessfulKeys(Vec<String>),
    /// The answer comes, but only after this.
    Delay(Duration),
}

impl Fault {
    /// Whether it shows only in what becomes of an admitted request.
    fn is_late(&self) -> bool {
        matches!(self, Self::ErrorAfterEffect | Self::UnsuccessfulKeys(_))
    }
}

/// A key written or deleted.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// The key.
    pub key: String,
    /// The value as text; `None` when it was deleted.
    pub value: Option<String>,
    /// The metadata, or null.
    pub metadata: Value,
    /// When.
    pub at: OffsetDateTime,
}

impl Write {
    /// The value as JSON; null when it is deleted or something else.
    pub fn json(&self) -> Value {
        let value = self.value.as_deref().unwrap_or_default();
        serde_json::from_str(value).unwrap_or_default()
    }
}

/// A request as the record keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `PUT`, `POST`, `DELETE`.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// How many keys it named.
    pub keys: usize,
    /// The status answered; 0 while it is under way.
    pub status: u16,
}

/// A running simulator. It ends when this is dropped.
#[derive(Debug)]
pub struct KvApi {
    address: SocketAddr,
    writes: Record<Write>,
    requests: Record<Request>,
    /// Faults for the next requests.
    pub faults: Faults<Fault>,
    _stop: DropGuard,
}

impl KvApi {
    /// Starts on a free port of 127.0.0.1.
    pub async fn start(options: KvApiOptions) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let client = http_client().build().map_err(std::io::Error::other)?;
        let shared = Arc::new(Shared {
            pace: Mutex::new(Pace::new(options.write_interval, options.request_limit)),
            backend: Backend::new(&options, client),
            options,
            writes: Record::default(),
            requests: Record::default(),
            faults: Faults::default(),
        });
        let router = Router::new().fallback(serve).with_state(Arc::clone(&shared));
        let stopped = stop.clone();
        tokio::spawn(async move {
            let serving = axum::serve(listener, router);
            tokio::select! {
                _ = serving => {}
                () = stopped.cancelled() => {}
            }
        });
        Ok(Self {
            address,
            writes: shared.writes.clone(),
            requests: shared.requests.clone(),
            faults: shared.faults.clone(),
            _stop: stop.drop_guard(),
        })
    }

    /// What stands in for `https://api.cloudflare.com/client/v4`.
    pub fn api_url(&self) -> String {
        format!("http://{}/client/v4", self.address)
    }

    /// Every key written or deleted, in the order of effect.
    pub fn writes(&self) -> &Record<Write> {
        &self.writes
    }

    /// Every request.
    pub fn requests(&self) -> &Record<Request> {
        &self.requests
    }
}

#[derive(Debug)]
struct Shared {
    options: KvApiOptions,
    pace: Mutex<Pace>,
    backend: Backend,
    writes: Record<Write>,
    requests: Record<Request>,
    faults: Faults<Fault>,
}

async fn serve(State(shared): State<Arc<Shared>>, request: HttpRequest) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let position =
        shared.requests.push(Request { method: parts.method.to_string(), path: path.clone(), keys: 0, status: 0 });
    let authorization = parts.headers.get("authorization").and_then(|value| value.to_str().ok());
    let answer = match to_bytes(body, BODY_LIMIT).await {
        Err(_) => Err(ApiError::too_large()),
        Ok(body) => shared.answer(position, parts.method.as_str(), &path, authorization, &body).await,
    };
    let response = answer.unwrap_or_else(ApiError::into_response);
    shared.requests.update(position, |request| {
        request.status = response.status().as_u16();
    });
    response
}

impl Shared {
    async fn answer(
        &self,
        position: usize,
        method: &str,
        path: &str,
        authorization: Option<&str>,
        body: &[u8],
    ) -> Result<Response, ApiError> {
        let bulk = path.contains("/bulk");
        let fault = self.faults.take_if(|fault| bulk || !matches!(fault, Fault::UnsuccessfulKeys(_)));
        match &fault {
            Some(Fault::RateLimited { retry_after_s }) => {
                return Err(ApiError::rate_limited(*retry_after_s));
            }
            Some(Fault::ServerError) => return Err(ApiError::internal()),
            Some(Fault::Unauthorized) => return Err(ApiError::unauthorized()),
            Some(Fault::Delay(delay)) => tokio::time::sleep(*delay).await,
            Some(Fault::ErrorAfterEffect | Fault::UnsuccessfulKeys(_)) | None => {}
        }
        if authorization.and_then(|value| value.strip_prefix("Bearer ")) != Some(self.options.token.as_str()) {
            return Err(ApiError::unauthorized());
        }
        let operation = Operation::parse(method, path, body, &self.options.account_id, &self.options.namespace_id)?;
        self.requests.update(position, |request| request.keys = operation.keys().len());
        let failing = match &fault {
            Some(Fault::UnsuccessfulKeys(keys)) => keys.as_slice(),
            _ => &[],
        };
        let operation = operation.without(failing);
        let written = if operation.writes() { operation.keys() } else { Vec::new() };
        let admitted = self.pace.lock().unwrap_or_else(PoisonError::into_inner).admit(Instant::now(), &written);
        if let Err(Refused::TooManyRequests { retry_after_s } | Refused::KeyTooSoon { retry_after_s }) = admitted {
            // The fault has not come to pass.
            if let Some(fault) = fault.filter(Fault::is_late) {
                self.faults.put_back(fault);
            }
            return Err(ApiError::rate_limited(retry_after_s));
        }
        let done = self.backend.perform(&operation, failing).await?;
        if done.status().is_success() {
            self.note(&operation);
        }
        match fault {
            Some(Fault::ErrorAfterEffect) => Err(ApiError::internal()),
            _ => Ok(done),
        }
    }

    /// Records what an operation that has taken effect wrote.
    fn note(&self, operation: &Operation) {
        let write = |key: &str, pair: Option<&Pair>| {
            self.writes.push(Write {
                key: key.to_owned(),
                value: pair.map(|pair| String::from_utf8_lossy(&pair.bytes()).into_owned()),
                metadata: pair.and_then(|pair| pair.metadata.clone()).unwrap_or_default(),
                at: OffsetDateTime::now_utc(),
            });
        };
        match operation {
            Operation::BulkPut(pairs) => pairs.iter().for_each(|pair| write(&pair.key, Some(pair))),
            Operation::Put(pair) => write(&pair.key, Some(pair)),
            Operation::BulkDelete(keys) => keys.iter().for_each(|key| write(key, None)),
            Operation::Delete(key) => write(key, None),
            Operation::BulkGet(_) | Operation::Get(_) | Operation::Keys(_) => {}
        }
    }
}
