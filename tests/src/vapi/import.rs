//! Importing a Twilio number: Vapi points the number's URLs at itself, through Twilio's API.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::error::ApiError;
use super::schema::set;
use super::{PUBLIC_API, Shared};

const TWILIO_LIMIT: Duration = Duration::from_secs(10);

/// Checks what only the whole state tells, adds what Vapi adds, and points the number at Vapi.
///
/// The wording of the error for a number that is there already is not documented.
pub(crate) async fn admit(shared: &Arc<Shared>, body: &mut Map<String, Value>) -> Result<(), ApiError> {
    let number = body.get("number").and_then(Value::as_str).unwrap_or_default();
    refuse_known(shared, number)?;
    if let Some(id) = set(body, "assistantId").and_then(Value::as_str)
        && shared.stored().assistants.get(id).is_none()
    {
        return Err(ApiError::bad_request(format!("Couldn't Get Assistant With ID {id}.")));
    }
    body.entry("status").or_insert_with(|| "active".into());
    body.entry("smsEnabled").or_insert_with(|| true.into());
    point_at_vapi(shared, body).await?;
    // Another import may have been faster meanwhile.
    refuse_known(shared, body.get("number").and_then(Value::as_str).unwrap_or_default())
}

fn refuse_known(shared: &Shared, number: &str) -> Result<(), ApiError> {
    match shared.stored().numbers.find("number", number) {
        Some(_) => Err(ApiError::bad_request(format!("Phone Number {number} Is Already In Use."))),
        None => Ok(()),
    }
}

/// Sets `VoiceUrl`, `StatusCallback` and, unless SMS is off, `SmsUrl` of the number at Twilio.
pub(crate) async fn point_at_vapi(shared: &Arc<Shared>, number: &Map<String, Value>) -> Result<(), ApiError> {
    let Some(base) = shared.options.twilio_api_url.as_deref() else {
        return Ok(());
    };
    if number.get("provider").is_none_or(|provider| provider != "twilio") {
        return Ok(());
    }
    match tokio::time::timeout(TWILIO_LIMIT, point(shared, base, number)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(ApiError::bad_request(format!("Couldn't Update Twilio Phone Number. {error}"))),
        Err(_) => Err(ApiError::bad_request("Couldn't Update Twilio Phone Number. Timed out.")),
    }
}

async fn point(shared: &Shared, base: &str, number: &Map<String, Value>) -> Result<(), String> {
    let text = |key: &str| set(number, key).and_then(Value::as_str).unwrap_or_default();
    let account = text("twilioAccountSid");
    let (user, password) = match text("twilioAuthToken") {
        "" => (text("twilioApiKey"), text("twilioApiSecret")),
        token => (account, token),
    };
    let client = &shared.sender.client;
    let collection = format!("{base}/2010-04-01/Accounts/{account}/IncomingPhoneNumbers");
    let found = client
        .get(format!("{collection}.json?PhoneNumber={}", text("number").replace('+', "%2B")))
        .basic_auth(user, Some(password))
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .map_err(|error| error.to_string())?;
    let found: Value = found.json().await.map_err(|error| error.to_string())?;
    let sid = found["incoming_phone_numbers"][0]["sid"].as_str().ok_or("The number is not on this Twilio account.")?;

    let mut form = vec![
        ("VoiceUrl", format!("{PUBLIC_API}/twilio/inbound_call")),
        ("VoiceMethod", "POST".to_owned()),
        ("StatusCallback", format!("{PUBLIC_API}/twilio/status")),
        ("StatusCallbackMethod", "POST".to_owned()),
    ];
    if number.get("smsEnabled") != Some(&Value::Bool(false)) {
        form.push(("SmsUrl", format!("{PUBLIC_API}/twilio/sms")));
        form.push(("SmsMethod", "POST".to_owned()));
    }
    client
        .post(format!("{collection}/{sid}.json"))
        .basic_auth(user, Some(password))
        .form(&form)
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .map_err(|error| error.to_string())?;
    Ok(())
}
