//! Vapi's records of phone numbers that are at Twilio.
//!
//! Source: Vapi's API reference, "Create Phone Number", "Update Phone Number", and what operators have seen: importing a
//! number, and perhaps every later save, points it at Vapi at Twilio. There is no idempotency key; a number can be
//! imported once.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use shared::{AccountSid, AssistantId, E164};

use crate::config::Vapi;
use crate::providers::retry_after;

/// For one request and its answer.
const LIMIT: Duration = Duration::from_secs(10);
/// Vapi asks Twilio in between.
const IMPORT_LIMIT: Duration = Duration::from_secs(20);
/// The most that Vapi lists at once.
const PAGE: usize = 1_000;
/// What is kept of Vapi's words for an error, in characters.
const MESSAGE_CHARACTERS: usize = 300;

/// A number as Vapi knows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VapiNumber {
    /// Vapi's id of it.
    pub id: String,
    /// The number; a SIP address has none.
    pub number: Option<String>,
    /// `twilio`, `vapi` and others: only Twilio's can come to us.
    pub provider: String,
    /// Who answers it; `None`: whoever its server names.
    pub assistant_id: Option<String>,
    /// Where messages go for assistants without a server of their own.
    pub server: Option<Server>,
    created_at: Option<String>,
}

/// Where messages go.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Server {
    /// Its URL.
    pub url: Option<String>,
}

/// Who answers a number at Vapi, and who is told.
#[derive(Clone, Copy, Debug)]
pub struct Answering<'a> {
    /// The assistant.
    pub assistant: &'a AssistantId,
    /// Our webhook.
    pub server_url: &'a str,
}

/// Why Vapi did not do it.
#[derive(Debug, thiserror::Error)]
pub enum PhoneNumbersError {
    /// Not reached, or no answer in time: whether the request took effect is not known.
    #[error("Vapi cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// Too many requests.
    #[error("Vapi asks to wait")]
    RateLimited {
        /// How long, if Vapi said.
        retry_after: Option<Duration>,
    },
    /// An answer that is not a success.
    #[error("Vapi refused with status {status}: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Vapi's words.
        message: String,
        /// How long to wait, if Vapi said.
        retry_after: Option<Duration>,
    },
    /// A success that cannot be read.
    #[error("Vapi's answer cannot be read")]
    Unreadable,
}

impl From<reqwest::Error> for PhoneNumbersError {
    fn from(error: reqwest::Error) -> Self {
        Self::Unreachable(error.without_url())
    }
}

/// The numbers of one organisation.
#[derive(Clone, Copy, Debug)]
pub struct PhoneNumbers<'a> {
    /// For the requests.
    pub http: &'a reqwest::Client,
    /// Access to Vapi.
    pub config: &'a Vapi,
}

impl PhoneNumbers<'_> {
    /// One number by Vapi's id of it; `None`: there is none.
    pub async fn fetch(&self, id: &str) -> Result<Option<VapiNumber>, PhoneNumbersError> {
        match read(self.request(Method::GET, &["phone-number", id])?.send().await?).await {
            Ok(number) => Ok(Some(number)),
            Err(PhoneNumbersError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One number by itself; `None`: it was never imported.
    pub async fn find(&self, number: &E164) -> Result<Option<VapiNumber>, PhoneNumbersError> {
        Ok(self.all().await?.into_iter().find(|known| known.number.as_deref() == Some(number.as_str())))
    }

    /// Every number of the organisation. Vapi pages by date.
    pub async fn all(&self) -> Result<Vec<VapiNumber>, PhoneNumbersError> {
        let mut all: Vec<VapiNumber> = Vec::new();
        loop {
            let mut query = vec![("limit", PAGE.to_string())];
            query.extend(all.last().and_then(|oldest| oldest.created_at.clone()).map(|at| ("createdAtLe", at)));
            let request = self.request(Method::GET, &["phone-number"])?.query(&query);
            let page: Vec<VapiNumber> = read(request.send().await?).await?;
            let (known, whole) = (all.len(), page.len() >= PAGE);
            for number in page {
                if !all.iter().any(|known| known.id == number.id) {
                    all.push(number);
                }
            }
            if !whole || all.len() == known {
                return Ok(all);
            }
        }
    }

    /// Lets Vapi have a number of ours at Twilio, which points it at Vapi there. SMS stays where it is.
    pub async fn import(
        &self,
        number: &E164,
        account: &AccountSid,
        token: &str,
        answering: Answering<'_>,
    ) -> Result<VapiNumber, PhoneNumbersError> {
        let mut body = self.answering(answering);
        body.insert("number".to_owned(), json!(number));
        body.insert("twilioAccountSid".to_owned(), json!(account));
        body.insert("twilioAuthToken".to_owned(), json!(token));
        body.insert("smsEnabled".to_owned(), json!(false));
        let request = self.request(Method::POST, &["phone-number"])?.json(&body).timeout(IMPORT_LIMIT);
        read(request.send().await?).await
    }

    /// Sets who answers a number, and who is told.
    pub async fn save(&self, id: &str, answering: Answering<'_>) -> Result<VapiNumber, PhoneNumbersError> {
        let request = self.request(Method::PATCH, &["phone-number", id])?;
        read(request.json(&self.answering(answering)).timeout(IMPORT_LIMIT).send().await?).await
    }

    /// Forgets a number. `false`: there is none.
    pub async fn delete(&self, id: &str) -> Result<bool, PhoneNumbersError> {
        let response = self.request(Method::DELETE, &["phone-number", id])?.send().await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => Ok(true),
            _ => Err(fault(response).await),
        }
    }

    /// The secret goes as a plain header: the inline `secret` has left Vapi's types, and credentials are made by hand.
    fn answering(&self, Answering { assistant, server_url }: Answering<'_>) -> Map<String, Value> {
        let secret = self.config.server_secrets.first().map_or("", |secret| secret.expose_secret());
        let body = json!({
            "provider": "twilio",
            "assistantId": assistant,
            "server": { "url": server_url, "headers": { "X-Vapi-Secret": secret } },
        });
        match body {
            Value::Object(members) => members,
            _ => Map::new(),
        }
    }

    fn request(&self, method: Method, steps: &[&str]) -> Result<RequestBuilder, PhoneNumbersError> {
        let mut url = self.config.api_url.clone();
        url.path_segments_mut().map_err(|()| PhoneNumbersError::Unreadable)?.pop_if_empty().extend(steps);
        Ok(self.http.request(method, url).bearer_auth(self.config.api_key.expose_secret()).timeout(LIMIT))
    }
}

async fn read<T: DeserializeOwned>(response: Response) -> Result<T, PhoneNumbersError> {
    if !response.status().is_success() {
        return Err(fault(response).await);
    }
    let bytes = response.bytes().await?;
    serde_json::from_slice(&bytes).map_err(|_| PhoneNumbersError::Unreadable)
}

/// A refusal in Vapi's words: one, or a list of them.
async fn fault(response: Response) -> PhoneNumbersError {
    let (status, retry_after) = (response.status(), retry_after(&response));
    if status == StatusCode::TOO_MANY_REQUESTS {
        return PhoneNumbersError::RateLimited { retry_after };
    }
    let body: Value = response.json().await.unwrap_or_default();
    let message = match &body["message"] {
        Value::String(text) => text.clone(),
        Value::Array(texts) => texts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; "),
        _ => "no reason given".to_owned(),
    };
    PhoneNumbersError::Refused {
        status: status.as_u16(),
        message: message.chars().take(MESSAGE_CHARACTERS).collect(),
        retry_after,
    }
}
