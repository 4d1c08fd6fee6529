//! Vapi's assistants and tools, to be read.
//!
//! Source: Vapi's API reference, "List Assistants", "Get Assistant", "Get Tool". The request rate that Vapi allows is not
//! published; it answers 429, with `Retry-After`. Reading changes nothing there, so requests are repeated.

use std::time::Duration;

use reqwest::StatusCode;
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tokio::time::sleep;

use crate::config::VapiApi;
use crate::providers::retry_after;

/// For one request and its answer.
const LIMIT: Duration = Duration::from_secs(20);
/// How often a request is made before it has failed.
const ATTEMPTS: u32 = 5;
/// The pause before the second attempt; it doubles from one to the next.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause that is granted. Asked for a longer one, the request has failed.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// The longest prompts are far below it.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// Vapi's default.
const PAGE: usize = 100;
/// The most that Vapi gives at once, for more of one instant than a page holds.
const LARGEST_PAGE: usize = 1_000;
/// More assistants than any organisation has; stops a list that does not end.
const MAX_ASSISTANTS: usize = 20_000;

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not reached, or no answer in time, again and again.
    #[error("Vapi cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// The key is not valid.
    #[error("Vapi refuses VAPI_API_KEY: it must be the organisation's private key")]
    Unauthorized,
    /// Another answer that is not a success.
    #[error("Vapi answered with status {status} to GET {path}, {attempts} times")]
    Refused {
        /// The answer's status.
        status: u16,
        /// What was asked for.
        path: String,
        /// How often.
        attempts: u32,
    },
    /// An answer that is too long or not JSON.
    #[error("Vapi's answer to GET {0} cannot be read")]
    Unreadable(String),
}

/// Reads from one organisation.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    http: &'a reqwest::Client,
    api: &'a VapiApi,
}

impl<'a> Reader<'a> {
    /// A reader with this key.
    pub const fn new(http: &'a reqwest::Client, api: &'a VapiApi) -> Self {
        Self { http, api }
    }

    /// One assistant; `None`: there is none of that id.
    pub async fn assistant(&self, id: &str) -> Result<Option<Value>, ReadError> {
        self.get(&["assistant", id], &[]).await
    }

    /// One tool; `None`: there is none of that id.
    pub async fn tool(&self, id: &str) -> Result<Option<Value>, ReadError> {
        self.get(&["tool", id], &[]).await
    }

    /// Every assistant, each once.
    pub async fn assistants(&self) -> Result<Vec<Value>, ReadError> {
        let mut all: Vec<Value> = Vec::new();
        let mut oldest: Option<String> = None;
        let mut limit = PAGE;
        while all.len() < MAX_ASSISTANTS {
            let limit_text = limit.to_string();
            let mut query = vec![("limit", limit_text.as_str())];
            // Vapi pages by date. Assistants made in the same instant come twice, which is seen by their ids.
            query.extend(oldest.as_deref().map(|date| ("createdAtLe", date)));
            let page = self.get(&["assistant"], &query).await?;
            let Some(Value::Array(page)) = page else { return Err(ReadError::Unreadable("/assistant".to_owned())) };
            let is_last = page.len() < limit;
            let before = all.len();
            for assistant in page {
                if !all.iter().any(|known| known["id"] == assistant["id"]) {
                    all.push(assistant);
                }
            }
            let date = all.iter().filter_map(|assistant| assistant["createdAt"].as_str()).min();
            oldest = date.map(str::to_owned);
            if is_last || oldest.is_none() {
                break;
            }
            limit = match all.len() == before {
                false => PAGE,
                true if limit < LARGEST_PAGE => LARGEST_PAGE,
                true => return Err(ReadError::Unreadable("/assistant".to_owned())),
            };
        }
        Ok(all)
    }

    async fn get(&self, steps: &[&str], query: &[(&str, &str)]) -> Result<Option<Value>, ReadError> {
        let mut url = self.api.api_url.clone();
        let path = format!("/{}", steps.join("/"));
        let unusable = || ReadError::Unreadable(path.clone());
        // Ids come from people and from other answers: each is one step of the path, whatever is in it.
        url.path_segments_mut().map_err(|()| unusable())?.pop_if_empty().extend(steps);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            let request = self.http.get(url.clone()).bearer_auth(self.api.api_key.expose_secret()).timeout(LIMIT);
            let (failure, asked) = match request.send().await {
                Ok(response) => match response.status() {
                    StatusCode::NOT_FOUND if steps.len() > 1 => return Ok(None),
                    StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(ReadError::Unauthorized),
                    status if status.is_success() => match body(response).await {
                        Ok(Some(body)) => return Ok(Some(body)),
                        Ok(None) => return Err(unusable()),
                        Err(error) => (ReadError::Unreachable(error.without_url()), None),
                    },
                    status => {
                        let refused =
                            ReadError::Refused { status: status.as_u16(), path: path.clone(), attempts: attempt };
                        if status != StatusCode::TOO_MANY_REQUESTS && !status.is_server_error() {
                            return Err(refused);
                        }
                        (refused, retry_after(&response))
                    }
                },
                Err(error) => (ReadError::Unreachable(error.without_url()), None),
            };
            let next = asked.unwrap_or(pause);
            if attempt >= ATTEMPTS || next > LONGEST_PAUSE {
                return Err(failure);
            }
            tracing::info!(error = %failure, pause_ms = next.as_millis(), "Vapi is asked again after a pause");
            sleep(next).await;
            pause *= 2;
        }
        Err(unusable())
    }
}

/// The whole answer as JSON; `None`: it is too long, or no JSON.
async fn body(mut response: reqwest::Response) -> reqwest::Result<Option<Value>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_BYTES {
            return Ok(None);
        }
    }
    Ok(serde_json::from_slice(&bytes).ok())
}
