//! Twilio's REST API: calls are looked up here, and phone numbers have a module of their own.

pub mod numbers;

use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;
use shared::twilio::webhook::CallStatus;
use shared::{AccountSid, CallSid};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::config::Twilio;

/// How long a look may take; nobody waits for it.
const LIMIT: Duration = Duration::from_secs(5);

/// A call as Twilio knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallState {
    /// What it is doing.
    pub status: CallStatus,
    /// When it ended, to the second.
    pub ended_at: Option<OffsetDateTime>,
}

/// Why Twilio does not say.
#[derive(Debug, thiserror::Error)]
pub enum TwilioError {
    /// Not reached, no answer in time, or one that is not Twilio's.
    #[error("Twilio cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// Too many requests: nothing more should be asked for a while.
    #[error("Twilio asks to wait")]
    RateLimited,
    /// An answer that is not a success.
    #[error("Twilio refused with status {0}")]
    Refused(u16),
}

impl From<reqwest::Error> for TwilioError {
    /// Without the URL, which names the account.
    fn from(error: reqwest::Error) -> Self {
        Self::Unreachable(error.without_url())
    }
}

#[derive(Deserialize)]
struct Call {
    status: String,
    end_time: Option<String>,
}

/// Looks a call up. `None`: the account has no such call.
pub async fn call(
    http: &reqwest::Client,
    config: &Twilio,
    account: &AccountSid,
    sid: &CallSid,
) -> Result<Option<CallState>, TwilioError> {
    let api = config.api_url.as_str().trim_end_matches('/');
    let url = format!("{api}/2010-04-01/Accounts/{account}/Calls/{sid}.json");
    let (user, token) = config.credentials(account);
    let response = http.get(url).basic_auth(user, token).timeout(LIMIT).send().await?;
    match response.status() {
        StatusCode::NOT_FOUND => Ok(None),
        StatusCode::TOO_MANY_REQUESTS => Err(TwilioError::RateLimited),
        status if status.is_success() => Ok(Some(state(response.json().await?))),
        status => Err(TwilioError::Refused(status.as_u16())),
    }
}

fn state(call: Call) -> CallState {
    let ended_at = call.end_time.and_then(|text| OffsetDateTime::parse(&text, &Rfc2822).ok());
    CallState { status: CallStatus::parse(&call.status), ended_at }
}

#[cfg(test)]
mod tests {
    use shared::twilio::webhook::CallOutcome;
    use time::macros::datetime;

    use super::*;

    #[test]
    fn times_are_rfc_2822() {
        let read = |text| state(serde_json::from_str(text).unwrap());
        assert_eq!(
            read(r#"{"sid":"CA01","status":"no-answer","end_time":"Sun, 22 Nov 2026 15:01:01 +0000"}"#),
            CallState {
                status: CallStatus::Over(CallOutcome::NoAnswer),
                ended_at: Some(datetime!(2026-11-22 15:01:01 UTC))
            }
        );
        let live = CallState { status: CallStatus::InProgress, ended_at: None };
        assert_eq!(read(r#"{"status":"in-progress","end_time":null}"#), live);
    }
}
