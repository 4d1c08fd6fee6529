//! `Calls`: create, fetch, update.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::call::{Call, CallStatus, Callbacks, Command, Direction, NewDocument, Setup, action_of, rfc2822};
use super::super::exchange::{Exchange, lock};
use super::super::executor::Step;
use super::super::trace::{EndReason, Purpose};
use super::super::twiml::{Action, Document};
use super::{ApiError, Form, Reply};

/// Longest `Twiml` parameter, in characters.
const TWIML_LIMIT: usize = 4000;
const EVENTS: [&str; 4] = ["initiated", "ringing", "answered", "completed"];

pub(super) fn create(exchange: &Arc<Exchange>, form: &Form) -> Result<Reply, ApiError> {
    let to = form.filled("To").ok_or_else(|| ApiError::new(400, 21201, "No 'To' number is specified"))?;
    let from = form.filled("From").ok_or_else(|| ApiError::new(400, 21213, "No 'From' number is specified"))?;
    if !lock(&exchange.numbers).contains_key(from) {
        return Err(ApiError::new(400, 21212, format!("The 'From' number {from} is not a valid phone number")));
    }
    let events = match form.all("StatusCallbackEvent") {
        events if events.is_empty() => vec!["completed".to_owned()],
        events => events,
    };
    if let Some(unknown) = events.iter().find(|event| !EVENTS.contains(&event.as_str())) {
        return Err(ApiError::new(400, 21626, format!("StatusCallbackEvent {unknown} is invalid")));
    }
    for name in ["StatusCallback", "FallbackUrl"] {
        form.check_url(name, 21609)?;
    }
    let first = match document(form)? {
        Some(NewDocument::At(action)) => Step::Fetch { purpose: Purpose::Voice, action, extra: Vec::new() },
        Some(NewDocument::Inline(document)) => Step::Run { document, url: None },
        None => return Err(ApiError::new(400, 21205, "Url or Twiml is required")),
    };
    let callee = exchange.callee(to);
    let setup = Setup {
        from: from.to_owned(),
        to: to.to_owned(),
        direction: Direction::OutboundApi,
        caller: callee.script(),
        callbacks: Callbacks {
            status: action_of(form.get("StatusCallback"), form.get("StatusCallbackMethod")),
            events,
            fallback: action_of(form.get("FallbackUrl"), form.get("FallbackMethod")),
        },
        extra: Vec::new(),
    };
    // 4 h is Twilio's own limit of a call.
    let limit_s: u64 = form.get("TimeLimit").and_then(|text| text.parse().ok()).unwrap_or(4 * 3600);
    let handle = super::super::begin(exchange, setup, Some(Step::Ring(callee, Box::new(first))), limit_s * 1000);
    let call = exchange.call(handle.sid().as_str()).ok_or_else(|| missing(handle.sid().as_str()))?;
    Ok((201, Some(body(&call))))
}

pub(super) fn fetch(exchange: &Exchange, sid: &str) -> Result<Reply, ApiError> {
    let call = exchange.call(sid).ok_or_else(|| missing(sid))?;
    Ok((200, Some(body(&call))))
}

pub(super) fn update(exchange: &Exchange, sid: &str, form: &Form) -> Result<Reply, ApiError> {
    let call = exchange.call(sid).ok_or_else(|| missing(sid))?;
    let not_in_progress = || ApiError::new(400, 21220, "Call is not in-progress. Cannot redirect.");
    let status = call.status();
    let command = match form.filled("Status") {
        Some("completed") => Some(Command::End(EndReason::CompletedByApi)),
        Some("canceled") if matches!(status, CallStatus::Queued | CallStatus::Initiated | CallStatus::Ringing) => {
            Some(Command::End(EndReason::CompletedByApi))
        }
        Some("canceled") => return Err(not_in_progress()),
        Some(other) => {
            return Err(ApiError::new(400, 20001, format!("Status {other} cannot be set")));
        }
        None => document(form)?.map(Command::Replace),
    };
    let Some(command) = command else {
        return Err(ApiError::new(400, 20001, "Url, Twiml or Status is required"));
    };
    if matches!(command, Command::Replace(_)) && status != CallStatus::InProgress {
        return Err(not_in_progress());
    }
    if !call.command(command) {
        return Err(not_in_progress());
    }
    Ok((200, Some(body(&call))))
}

/// The document that a request names. `Url` wins over `Twiml` on create; on update they exclude one
/// another. Unreadable `Twiml` is refused here, where Twilio would take it and fail the call.
fn document(form: &Form) -> Result<Option<NewDocument>, ApiError> {
    form.check_url("Url", 21205)?;
    if let Some(Action { url, method }) = action_of(form.get("Url"), form.get("Method")) {
        return Ok(Some(NewDocument::At(Action { url, method })));
    }
    let Some(twiml) = form.filled("Twiml") else {
        return Ok(None);
    };
    if twiml.chars().count() > TWIML_LIMIT {
        return Err(ApiError::new(400, 32018, format!("Twiml is longer than {TWIML_LIMIT} characters")));
    }
    let document = Document::parse(twiml).map_err(|error| ApiError::new(400, 12100, error))?;
    Ok(Some(NewDocument::Inline(document)))
}

fn missing(sid: &str) -> ApiError {
    ApiError::not_found(&format!("Calls/{sid}.json"))
}

fn body(call: &Call) -> Value {
    let account = &call.exchange.options.account_sid;
    let answered = call.is_answered();
    let over = call.status().is_over();
    let number_sid = lock(&call.exchange.numbers).get(&call.to).map(|number| number.sid.clone());
    json!({
        "sid": call.sid,
        "account_sid": account,
        "api_version": "2010-04-01",
        "answered_by": null,
        "caller_name": null,
        "date_created": rfc2822(call.began),
        "date_updated": rfc2822(call.began),
        "direction": call.direction.as_str(),
        "duration": over.then(|| call.duration_s().to_string()),
        "end_time": over.then(|| rfc2822(time::OffsetDateTime::now_utc())),
        "forwarded_from": null,
        "from": call.from,
        "from_formatted": call.from,
        "group_sid": null,
        "parent_call_sid": null,
        "phone_number_sid": number_sid,
        "price": null,
        "price_unit": "USD",
        "queue_time": "0",
        "start_time": answered.then(|| rfc2822(call.began)),
        "status": call.status(),
        "subresource_uris": {},
        "to": call.to,
        "to_formatted": call.to,
        "trunk_sid": null,
        "uri": format!("/2010-04-01/Accounts/{account}/Calls/{}.json", call.sid),
    })
}
