//! Vapi's REST API, as far as calls are handed over, the provider bypass, and looked up.
//!
//! A call created with `phoneCallProviderBypassEnabled` is not dialled by Vapi; the answer holds the TwiML that connects
//! our Twilio call to the assistant. There is no idempotency key, so a request is never repeated here.

pub mod assistants;
pub mod phone_numbers;

use std::time::Duration;

use reqwest::StatusCode;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::{AssistantId, CallSid, E164, VapiCallId};

use crate::config::Vapi;

/// A call that Vapi has made is to be known here, also when nobody waits for it any more.
const CREATE_LIMIT: Duration = Duration::from_secs(10);
/// Twilio waits for this answer while the caller hears ringing.
const LIMIT: Duration = Duration::from_secs(3);
/// A record may hold a long conversation, and nobody waits for it.
const LOOK_LIMIT: Duration = Duration::from_secs(10);

/// A call that Vapi is ready to take.
#[derive(Debug)]
pub struct BypassCall {
    /// Vapi's id of the call.
    pub id: VapiCallId,
    /// The TwiML that connects it.
    pub twiml: String,
}

/// Why Vapi does not take the call.
#[derive(Debug, thiserror::Error)]
pub enum VapiError {
    /// Not reached, or no answer in time.
    #[error("Vapi cannot be reached")]
    Unreachable(#[from] reqwest::Error),
    /// An answer that is not a success.
    #[error("Vapi refused with status {0}")]
    Refused(u16),
    /// A success without an id or TwiML.
    #[error("Vapi's answer has no usable {0}")]
    Incomplete(&'static str),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Call {
    id: String,
    phone_call_provider_details: Option<ProviderDetails>,
}

#[derive(Deserialize)]
struct ProviderDetails {
    twiml: Option<String>,
}

/// Creates a call for a caller who is already on our Twilio line. It is named after it: Vapi learns the SID itself only
/// when the stream opens, and its messages must lead to the right record also when this answer is lost.
pub async fn create_bypass_call(
    http: &reqwest::Client,
    config: &Vapi,
    phone_number_id: &str,
    assistant_id: &AssistantId,
    customer: Option<&E164>,
    call_sid: &CallSid,
) -> Result<BypassCall, VapiError> {
    let mut body = json!({
        "phoneNumberId": phone_number_id,
        "assistantId": assistant_id,
        "phoneCallProviderBypassEnabled": true,
        "name": call_sid,
    });
    if let Some(number) = customer {
        body["customer"] = json!({ "number": number });
    }
    let url = format!("{}/call", config.api_url.as_str().trim_end_matches('/'));
    let request = http.post(url).bearer_auth(config.api_key.expose_secret()).json(&body).timeout(CREATE_LIMIT);
    read(request.send().await?).await
}

/// Asks again for a call that was created before, when its first answer never reached Twilio.
pub async fn bypass_call(http: &reqwest::Client, config: &Vapi, id: &VapiCallId) -> Result<BypassCall, VapiError> {
    let url = format!("{}/call/{id}", config.api_url.as_str().trim_end_matches('/'));
    read(http.get(url).bearer_auth(config.api_key.expose_secret()).timeout(LIMIT).send().await?).await
}

/// A call as Vapi knows it.
#[derive(Debug)]
pub struct CallState {
    /// Whether it is over.
    pub is_over: bool,
    /// Why, in Vapi's open set of words.
    pub ended_reason: Option<String>,
    /// The whole record.
    pub record: Value,
}

/// Looks a call up. `None`: there is no such call.
pub async fn call(http: &reqwest::Client, config: &Vapi, id: &VapiCallId) -> Result<Option<CallState>, VapiError> {
    let url = format!("{}/call/{id}", config.api_url.as_str().trim_end_matches('/'));
    let request = http.get(url).bearer_auth(config.api_key.expose_secret()).timeout(LOOK_LIMIT);
    let response = request.send().await?;
    match response.status() {
        StatusCode::NOT_FOUND => Ok(None),
        status if status.is_success() => {
            let record: Value = response.json().await?;
            let text = |name: &str| record.get(name).and_then(Value::as_str).map(str::to_owned);
            // `not-found`: Vapi has lost it.
            let is_over = matches!(text("status").as_deref(), Some("ended" | "not-found"));
            Ok(Some(CallState { is_over, ended_reason: text("endedReason"), record }))
        }
        status => Err(VapiError::Refused(status.as_u16())),
    }
}

async fn read(response: reqwest::Response) -> Result<BypassCall, VapiError> {
    let status = response.status();
    if !status.is_success() {
        return Err(VapiError::Refused(status.as_u16()));
    }
    let call: Call = response.json().await?;
    let twiml = call.phone_call_provider_details.and_then(|details| details.twiml);
    Ok(BypassCall {
        id: call.id.parse().map_err(|_| VapiError::Incomplete("call id"))?,
        twiml: twiml.filter(|twiml| !twiml.is_empty()).ok_or(VapiError::Incomplete("TwiML"))?,
    })
}
