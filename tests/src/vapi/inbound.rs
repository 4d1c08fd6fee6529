//! What Twilio calls: an inbound call (also by a redirect from elsewhere), and the status of calls.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use uuid::Uuid;

use super::calls::{Call, number_facts, twiml};
use super::error::ApiError;
use super::facts::{CallKind, Facts};
use super::messages;
use super::resources::presented;
use super::rest::App;
use super::schema::{refuse, set};
use super::{PUBLIC_MEDIA, Shared};

/// `POST /twilio/inbound_call`. Answers TwiML, or 400 for a call that no longer rings: this is why a redirect to
/// here has to be the first verb that Twilio executes.
///
/// Not checked: Twilio's signature. Whether Vapi checks it is not known.
pub(crate) async fn inbound_call(State(shared): App, body: Bytes) -> Result<Response, ApiError> {
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(&body).into_owned().collect();
    let field = |key: &str| form.get(key).map(String::as_str).unwrap_or_default();
    let mut faults = Vec::new();
    if field("CallStatus") != "ringing" {
        faults.push("CallStatus must be one of the following values: ringing".to_owned());
    }
    if !matches!(field("Direction"), "inbound" | "outbound") {
        faults.push("Direction must be one of the following values: inbound, outbound".to_owned());
    }
    refuse(faults)?;
    let number = shared.stored().numbers.find("number", field("To")).cloned();
    let Some(number) = number else {
        return Err(ApiError::new(404, "Not Found", format!("Couldn't Find Phone Number {}.", field("To"))));
    };
    let mut facts = Facts {
        name: None,
        call_id: Uuid::new_v4().to_string(),
        created_at: OffsetDateTime::now_utc(),
        kind: CallKind::Inbound,
        assistant_id: None,
        assistant: None,
        number: Some(number_facts(&number)),
        customer: Some(field("From").to_owned()).filter(|from| from.starts_with('+')),
        call_sid: Some(field("CallSid").to_owned()),
    };
    let document = match set(&number, "assistantId").and_then(Value::as_str) {
        Some(id) => {
            facts.assistant_id = Some(id.to_owned());
            facts.assistant = shared.stored().assistants.get(id).map(presented);
            accept(&shared, facts)
        }
        None => match request_assistant(&shared, &mut facts).await {
            Ok(()) => accept(&shared, facts),
            Err(refusal) => decline(&shared, &facts, &number, refusal),
        },
    };
    Ok(([(CONTENT_TYPE, "text/xml")], document).into_response())
}

/// `POST /twilio/status`: where Vapi learns that a call is over which never got as far as a stream.
pub(crate) async fn status(State(shared): App, body: Bytes) -> &'static str {
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(&body).into_owned().collect();
    let field = |key: &str| form.get(key).map(String::as_str).unwrap_or_default();
    let over = matches!(field("CallStatus"), "completed" | "busy" | "failed" | "no-answer" | "canceled");
    let call = shared.calls.find(|call| {
        call.is_live() && call.started_at.is_none() && call.facts.call_sid.as_deref() == Some(field("CallSid"))
    });
    if let (true, Some(call)) = (over, call) {
        shared.finish(&call.facts.call_id, None, "customer-ended-call");
    }
    ""
}

fn accept(shared: &Arc<Shared>, facts: Facts) -> String {
    let document = twiml(PUBLIC_MEDIA, &facts.call_id);
    shared.open(Call::new(facts, true));
    document
}

/// Why there is no assistant for a call, and what the caller gets instead.
struct Refusal {
    reason: &'static str,
    error: String,
    response: Option<String>,
    /// Verbs for the caller; none for Vapi's own apology.
    verbs: Option<String>,
}

impl Refusal {
    fn new(reason: &'static str, error: &str) -> Self {
        Self { reason, error: error.to_owned(), response: None, verbs: None }
    }
}

/// Asks the number's server (or the organisation's) which assistant takes the call.
async fn request_assistant(shared: &Arc<Shared>, facts: &mut Facts) -> Result<(), Refusal> {
    let body = messages::assistant_request(facts, OffsetDateTime::now_utc());
    let Some(server) = shared.server_for(&body) else {
        return Err(Refusal::new("assistant-request-returned-no-assistant", "No server URL is set."));
    };
    let position = shared.sender.enter(&server, body.clone());
    let (answer, fault) = shared.sender.post(&server, position, &body).await;
    let text = |key: &str| answer.body[key].as_str();
    let refuse = |refusal: Refusal| Err(Refusal { response: Some(answer.body.to_string()), ..refusal });
    if answer.status != 200 {
        let attempt = shared.sender.deliveries.all()[position].attempts.last().cloned();
        let error = attempt.and_then(|attempt| attempt.failure).unwrap_or(format!("status {}", answer.status));
        return refuse(Refusal::new("assistant-request-failed", &error));
    }
    if let Some(error) = text("error") {
        let spoken = Refusal::new("assistant-request-returned-error", error);
        return refuse(Refusal { verbs: Some(say(error)), ..spoken });
    }
    if let Some(number) =
        answer.body["destination"]["number"].as_str().or(answer.body["destination"]["sipUri"].as_str())
    {
        let forwarded = Refusal::new("assistant-request-returned-forwarding-phone-number", "");
        return refuse(Refusal { verbs: Some(dial(number)), ..forwarded });
    }
    if let Some(fault) = fault {
        let reason = if answer.body.as_object().is_some_and(Map::is_empty) {
            "assistant-request-returned-no-assistant"
        } else {
            "assistant-request-returned-invalid-assistant"
        };
        return refuse(Refusal::new(reason, &fault));
    }
    if let Some(id) = text("assistantId") {
        let Some(assistant) = shared.stored().assistants.get(id).map(presented) else {
            return refuse(Refusal::new("assistant-request-returned-invalid-assistant", "No such assistant."));
        };
        facts.assistant_id = Some(id.to_owned());
        facts.assistant = Some(assistant);
    } else {
        facts.assistant = answer.body.get("assistant").cloned();
    }
    Ok(())
}

/// Puts a call without an assistant on record as ended, and answers with what the caller gets: the number's
/// fallback destination if the request itself failed and there is one.
fn decline(shared: &Arc<Shared>, facts: &Facts, number: &Map<String, Value>, refusal: Refusal) -> String {
    let now = OffsetDateTime::now_utc();
    let mut call = Call::new(facts.clone(), true);
    call.status = "ended";
    call.ended_at = Some(now);
    call.ended_reason = Some(refusal.reason.to_owned());
    shared.open(call);
    shared.tell(messages::status_not_accepted(facts, now, refusal.reason, &refusal.error, refusal.response.as_deref()));
    let fallback = number.get("fallbackDestination").and_then(|to| to["number"].as_str()).map(dial);
    let verbs = match refusal.reason {
        "assistant-request-returned-forwarding-phone-number" => refusal.verbs,
        _ => fallback.or(refusal.verbs),
    };
    let verbs = verbs.unwrap_or_else(|| say("Sorry, we could not connect your call."));
    format!(r#"<?xml version="1.0" encoding="UTF-8"?><Response>{verbs}</Response>"#)
}

fn say(text: &str) -> String {
    format!("<Say>{}</Say><Hangup/>", escape(text))
}

fn dial(to: &str) -> String {
    let to = escape(to);
    if to.starts_with("sip") {
        format!("<Dial><Sip>{to}</Sip></Dial>")
    } else {
        format!("<Dial><Number>{to}</Number></Dial>")
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
