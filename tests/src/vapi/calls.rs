//! Calls: what the API keeps of one, and what it takes to make one.

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::clock::iso;
use super::error::ApiError;
use super::facts::{CallKind, Facts, NumberFacts, object};
use super::history::History;
use super::resources::{Collection, presented};
use super::schema::{is_e164, refuse, set};

/// A call as the record keeps it. The members change while it runs.
#[derive(Debug, Clone)]
pub struct Call {
    /// What its messages say about it.
    pub facts: Facts,
    /// `queued`, `ringing`, `in-progress`, `ended`: the current one, unlike in the messages.
    pub status: &'static str,
    /// When the media began to flow.
    pub started_at: Option<OffsetDateTime>,
    /// When it was over.
    pub ended_at: Option<OffsetDateTime>,
    /// Why.
    pub ended_reason: Option<String>,
    /// Whether someone else holds the telephone line (`phoneCallProviderBypassEnabled`, or the inbound URL).
    pub handed_over: bool,
    /// The document that connects the caller, of a call made with the bypass.
    pub twiml: Option<String>,
    /// What was said and done.
    pub history: Option<History>,
    /// Everything the caller sent, as mu-law.
    pub heard: Vec<u8>,
    /// The caller's speech that was noticed, in turns.
    pub caller_turns: usize,
    /// `name`, which can be changed.
    pub name: Option<String>,
    /// Removed through the API.
    pub deleted: bool,
}

impl Call {
    pub(crate) fn new(facts: Facts, handed_over: bool) -> Self {
        Self {
            status: match facts.kind {
                CallKind::Inbound => "ringing",
                CallKind::Outbound | CallKind::Web => "queued",
            },
            facts,
            started_at: None,
            ended_at: None,
            ended_reason: None,
            handed_over,
            twiml: None,
            history: None,
            heard: Vec::new(),
            caller_turns: 0,
            name: None,
            deleted: false,
        }
    }

    /// Neither ended nor refused: counts against the concurrency limit.
    pub fn is_live(&self) -> bool {
        self.ended_at.is_none()
    }

    /// The call as `GET /call/{id}` shows it.
    pub(crate) fn to_json(&self) -> Value {
        let mut call = object(self.facts.call());
        call.insert("status".into(), self.status.into());
        let optional = [
            ("name", self.name.clone()),
            ("startedAt", self.started_at.map(iso)),
            ("endedAt", self.ended_at.map(iso)),
            ("endedReason", self.ended_reason.clone()),
        ];
        for (key, value) in optional {
            if let Some(value) = value {
                call.insert(key.into(), value.into());
            }
        }
        if let Some(twiml) = &self.twiml {
            call.insert("phoneCallProviderBypassEnabled".into(), true.into());
            call.insert("phoneCallProviderDetails".into(), json!({"twiml": twiml}));
        }
        if let Some(at) = self.ended_at.or(self.started_at) {
            call.insert("updatedAt".into(), iso(at).into());
        }
        if let Some(history) = &self.history {
            call.insert("artifact".into(), {
                let mut artifact = object(history.artifact());
                artifact.insert("transcript".into(), history.transcript().into());
                artifact.into()
            });
        }
        call.into()
    }
}

/// What `POST /call` asks for, checked.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) facts: Facts,
    pub(crate) bypass: bool,
    pub(crate) name: Option<String>,
}

/// Checks the body of `POST /call` against what there is.
///
/// `phoneCallProviderBypassEnabled` and `type` are documented and not in the SDK; `type` counts only together with
/// the bypass and is `outboundPhoneCall` when left out.
pub(crate) fn wanted(
    body: &Map<String, Value>,
    assistants: &Collection,
    numbers: &Collection,
    now: OffsetDateTime,
) -> Result<Wanted, ApiError> {
    const KNOWN: [&str; 21] = [
        "assistantId",
        "assistant",
        "assistantVersion",
        "assistantOverrides",
        "squadId",
        "squad",
        "squadVersion",
        "squadOverrides",
        "workflowId",
        "workflow",
        "workflowOverrides",
        "phoneNumberId",
        "phoneNumber",
        "customerId",
        "customer",
        "name",
        "schedulePlan",
        "transport",
        "metadata",
        "type",
        "phoneCallProviderBypassEnabled",
    ];
    let mut faults: Vec<String> = body
        .keys()
        .filter(|key| !KNOWN.contains(&key.as_str()))
        .map(|key| format!("property {key} should not exist"))
        .collect();
    let bypass = match body.get("phoneCallProviderBypassEnabled") {
        None => false,
        Some(Value::Bool(on)) => *on,
        Some(_) => {
            faults.push("phoneCallProviderBypassEnabled must be a boolean value".into());
            false
        }
    };
    let kind = match (bypass, set(body, "type").and_then(Value::as_str)) {
        (true, Some("inboundPhoneCall")) => CallKind::Inbound,
        (_, None | Some("outboundPhoneCall")) => CallKind::Outbound,
        _ => {
            faults.push("type must be one of the following values: outboundPhoneCall, inboundPhoneCall".into());
            CallKind::Outbound
        }
    };
    let customer = set(body, "customer").map(|customer| customer["number"].as_str().unwrap_or_default());
    match customer {
        Some(number) if is_e164(number) => {}
        Some(_) => faults.push("customer.number must be a valid phone number in the E.164 format. Hot tip, you may be missing the country code (Eg. US: +1).".into()),
        // A withheld caller id: whether Vapi takes such a call is not documented; it has no use for the number.
        None if bypass => {}
        None => faults.push("customer or customerId must be provided".into()),
    }
    refuse(faults)?;

    let assistant_id = set(body, "assistantId").and_then(Value::as_str);
    let assistant = match assistant_id {
        Some(id) => Some(presented(
            assistants.get(id).ok_or_else(|| ApiError::bad_request(format!("Couldn't Get Assistant With ID {id}.")))?,
        )),
        None => set(body, "assistant").cloned(),
    };
    if assistant.is_none() && !["squadId", "squad", "workflowId", "workflow"].iter().any(|key| set(body, key).is_some())
    {
        return Err(ApiError::bad_request(
            "Need One Of `assistantId`, `assistant`, `squadId`, `squad`, `workflowId`, or `workflow`.",
        ));
    }
    let Some(number_id) = set(body, "phoneNumberId").and_then(Value::as_str) else {
        return Err(ApiError::bad_request("Need Either `phoneNumberId` Or `phoneNumber`."));
    };
    let number = numbers
        .get(number_id)
        .ok_or_else(|| ApiError::bad_request(format!("Couldn't Get Phone Number With ID {number_id}.")))?;
    Ok(Wanted {
        facts: Facts {
            call_id: Uuid::new_v4().to_string(),
            created_at: now,
            kind,
            assistant_id: assistant_id.map(str::to_owned),
            assistant,
            number: Some(number_facts(number)),
            customer: customer.map(str::to_owned),
            call_sid: None,
            name: set(body, "name").and_then(Value::as_str).map(str::to_owned),
        },
        bypass,
        name: set(body, "name").and_then(Value::as_str).map(str::to_owned),
    })
}

/// A stored number as messages describe it.
pub(crate) fn number_facts(number: &Map<String, Value>) -> NumberFacts {
    let text = |key: &str| number.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    NumberFacts { id: text("id"), number: text("number"), account_sid: text("twilioAccountSid") }
}

/// `subscriptionLimits` of a created call.
pub(crate) fn limits(limit: usize, live: usize, blocked: bool) -> Value {
    json!({
        "concurrencyBlocked": blocked,
        "concurrencyLimit": limit,
        "remainingConcurrentCalls": limit.saturating_sub(live),
    })
}

/// The document that connects Twilio's side of a call to the assistant: nothing follows the stream, so the call
/// ends with it.
pub(crate) fn twiml(media_base: &str, call_id: &str) -> String {
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?><Response><Connect><Stream url="{media_base}/{call_id}/transport"/></Connect></Response>"#
    )
}
