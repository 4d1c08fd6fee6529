//! A Vapi server message, reduced to what anything here turns on. Unknown types and fields are normal.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::hmac::to_hex;
use crate::{AssistantId, CallSid, E164, VapiCallId, hop};

/// The type of a server message, as far as its answer depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageType {
    /// Which assistant is to take this call?
    AssistantRequest,
    /// The model wants tools to run.
    ToolCalls,
    /// Where is this call to be transferred?
    TransferDestinationRequest,
    /// To which assistant is this call to be handed?
    HandoffDestinationRequest,
    /// Documents for a question.
    KnowledgeBaseRequest,
    /// How long to wait before the caller's turn counts as over.
    EndpointingRequest,
    /// May this campaign call be made?
    CampaignPredial,
    /// The call's state changed.
    StatusUpdate,
    /// The call is over; this is its report.
    EndOfCallReport,
    /// Any other event, known or not; it needs no answer.
    Event(String),
}

impl MessageType {
    fn parse(word: &str) -> Self {
        match word {
            "assistant-request" => Self::AssistantRequest,
            "tool-calls" => Self::ToolCalls,
            "transfer-destination-request" => Self::TransferDestinationRequest,
            "handoff-destination-request" => Self::HandoffDestinationRequest,
            "knowledge-base-request" => Self::KnowledgeBaseRequest,
            "call.endpointing.request" => Self::EndpointingRequest,
            "campaign.predial" => Self::CampaignPredial,
            "status-update" => Self::StatusUpdate,
            "end-of-call-report" => Self::EndOfCallReport,
            other => Self::Event(other.to_owned()),
        }
    }

    /// Whether Vapi waits for the body of the answer.
    pub const fn needs_answer(&self) -> bool {
        !matches!(self, Self::StatusUpdate | Self::EndOfCallReport | Self::Event(_))
    }

    /// Vapi's spelling.
    pub fn as_str(&self) -> &str {
        match self {
            Self::AssistantRequest => "assistant-request",
            Self::ToolCalls => "tool-calls",
            Self::TransferDestinationRequest => "transfer-destination-request",
            Self::HandoffDestinationRequest => "handoff-destination-request",
            Self::KnowledgeBaseRequest => "knowledge-base-request",
            Self::EndpointingRequest => "call.endpointing.request",
            Self::CampaignPredial => "campaign.predial",
            Self::StatusUpdate => "status-update",
            Self::EndOfCallReport => "end-of-call-report",
            Self::Event(word) => word,
        }
    }
}

impl fmt::Display for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One tool that the model wants to run.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    /// Unique within the call, except the constant `hook-function-call`.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// The arguments as an object, whichever of Vapi's three encodings they came in.
    pub arguments: Value,
}

/// A server message.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// What it is.
    pub kind: MessageType,
    /// When Vapi sent it first.
    pub at: Option<OffsetDateTime>,
    /// The call it is about. Messages of chats and sessions have none.
    pub call_id: Option<VapiCallId>,
    /// When that call was created.
    pub call_created_at: Option<OffsetDateTime>,
    /// Twilio's id of the call: Vapi's word for it, or the name that the origin gave the call when it handed it over.
    pub call_sid: Option<CallSid>,
    /// The assistant that runs the call.
    pub assistant_id: Option<AssistantId>,
    /// Our number in the call.
    pub number: Option<E164>,
    /// The other side.
    pub customer: Option<E164>,
    /// `status` of a status update.
    pub status: Option<String>,
    /// Why the call ended, in Vapi's open set of words.
    pub ended_reason: Option<String>,
    /// Tools to run, in the order asked.
    pub tool_calls: Vec<ToolCall>,
    /// The idempotency key: equal when Vapi repeats the message.
    pub delivery_id: String,
}

/// A body that is no server message.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// Not JSON, or not `{"message": {"type": …}}`.
    #[error("the body is not a Vapi server message: {0}")]
    Malformed(#[from] serde_json::Error),
}

impl Message {
    /// Reads a webhook's body.
    pub fn parse(body: &[u8]) -> Result<Self, MessageError> {
        let Envelope { message } = serde_json::from_slice(body)?;
        let delivery_id = message.delivery_id();
        let call = message.call.unwrap_or_default();
        let number_of = |party: Option<Party>| party.and_then(|party| party.number?.parse().ok());
        let call_sid = [call.phone_call_provider_id, call.transport.and_then(|transport| transport.call_sid)]
            .into_iter()
            .flatten()
            .chain(call.name.filter(|name| is_whole_call_sid(name)))
            .find_map(|sid| sid.parse().ok());
        Ok(Self {
            kind: MessageType::parse(&message.kind),
            at: moment(&message.timestamp),
            call_id: call.id.and_then(|id| id.parse().ok()),
            call_created_at: call.created_at.and_then(|at| OffsetDateTime::parse(&at, &Rfc3339).ok()),
            call_sid,
            assistant_id: call
                .assistant_id
                .or(message.assistant.and_then(|assistant| assistant.id))
                .and_then(|id| id.parse().ok()),
            number: number_of(message.phone_number.or(call.phone_number)),
            customer: number_of(message.customer.or(call.customer)),
            status: message.status,
            ended_reason: message.ended_reason,
            tool_calls: message.tool_calls.into_iter().filter_map(RawToolCall::read).collect(),
            delivery_id,
        })
    }
}

#[derive(Deserialize)]
struct Envelope {
    message: RawMessage,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMessage {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, deserialize_with = "lenient")]
    call: Option<RawCall>,
    #[serde(default, deserialize_with = "lenient")]
    assistant: Option<Assistant>,
    #[serde(default, deserialize_with = "lenient")]
    phone_number: Option<Party>,
    #[serde(default, deserialize_with = "lenient")]
    customer: Option<Party>,
    #[serde(default, deserialize_with = "lenient")]
    status: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    ended_reason: Option<String>,
    #[serde(default, rename = "toolCallList", deserialize_with = "lenient_list")]
    tool_calls: Vec<RawToolCall>,
    /// Epoch milliseconds, or an ISO text in old deliveries.
    #[serde(default)]
    timestamp: Value,
    #[serde(default, deserialize_with = "lenient")]
    transcript: Option<Value>,
    #[serde(default, deserialize_with = "lenient")]
    role: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    transcript_type: Option<String>,
}

impl RawMessage {
    /// Presigned URLs differ between attempts, so the key is made of what tells messages of one call apart instead of
    /// from the whole body. A report comes once a call.
    fn delivery_id(&self) -> String {
        let call = self.call.as_ref().and_then(|call| call.id.as_deref()).unwrap_or("-");
        let mut facts = Sha256::new();
        let mut fact = |text: &str| {
            facts.update((text.len() as u64).to_be_bytes());
            facts.update(text.as_bytes());
        };
        match self.kind.as_str() {
            "end-of-call-report" => {}
            "status-update" => fact(self.status.as_deref().unwrap_or_default()),
            "tool-calls" => {
                for call in &self.tool_calls {
                    fact(call.id.as_deref().unwrap_or_default());
                }
                if self.tool_calls.iter().any(|call| call.id.as_deref() == Some(HOOK_TOOL_CALL_ID)) {
                    fact(&self.timestamp.to_string());
                }
            }
            _ => {
                fact(&self.timestamp.to_string());
                fact(self.status.as_deref().unwrap_or_default());
                fact(self.role.as_deref().unwrap_or_default());
                fact(self.transcript_type.as_deref().unwrap_or_default());
                fact(&self.transcript.as_ref().map(Value::to_string).unwrap_or_default());
            }
        }
        let digest = to_hex(&facts.finalize());
        hop::delivery(format!("vapi:{call}:{}:{}", self.kind, digest.get(..16).unwrap_or_default()))
    }
}

/// The id that Vapi gives to every tool call made by an assistant's hook; it identifies nothing.
pub const HOOK_TOOL_CALL_ID: &str = "hook-function-call";

fn moment(timestamp: &Value) -> Option<OffsetDateTime> {
    match timestamp {
        Value::Number(number) => {
            let ms = number.as_i64()?;
            let seconds = OffsetDateTime::from_unix_timestamp(ms.div_euclid(1000)).ok()?;
            seconds.checked_add(Duration::milliseconds(ms.rem_euclid(1000)))
        }
        Value::String(text) => OffsetDateTime::parse(text, &Rfc3339).ok(),
        _ => None,
    }
}

/// A call may be named anything, also something that only begins like a SID.
fn is_whole_call_sid(name: &str) -> bool {
    name.strip_prefix("CA").is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawCall {
    #[serde(default, deserialize_with = "lenient")]
    name: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    id: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    created_at: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    assistant_id: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    phone_call_provider_id: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    transport: Option<Transport>,
    #[serde(default, deserialize_with = "lenient")]
    phone_number: Option<Party>,
    #[serde(default, deserialize_with = "lenient")]
    customer: Option<Party>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Transport {
    #[serde(default, deserialize_with = "lenient")]
    call_sid: Option<String>,
}

#[derive(Deserialize)]
struct Assistant {
    #[serde(default, deserialize_with = "lenient")]
    id: Option<String>,
}

#[derive(Deserialize)]
struct Party {
    #[serde(default, deserialize_with = "lenient")]
    number: Option<String>,
}

/// The three shapes seen in deliveries: `function.arguments` as an object, as a JSON text, or flat beside the id.
#[derive(Deserialize)]
struct RawToolCall {
    #[serde(default, deserialize_with = "lenient")]
    id: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    function: Option<RawFunction>,
    #[serde(default, deserialize_with = "lenient")]
    name: Option<String>,
    #[serde(default, alias = "parameters")]
    arguments: Value,
}

#[derive(Deserialize)]
struct RawFunction {
    #[serde(default)]
    name: String,
    #[serde(default)]
    arguments: Value,
}

impl RawToolCall {
    fn read(self) -> Option<ToolCall> {
        let (name, arguments) = match self.function {
            Some(function) => (function.name, function.arguments),
            None => (self.name?, self.arguments),
        };
        let arguments = match arguments {
            Value::String(text) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
            other => other,
        };
        let arguments = if arguments.is_null() { Value::Object(serde_json::Map::new()) } else { arguments };
        Some(ToolCall { id: self.id?, name, arguments })
    }
}

/// A field of an unexpected kind counts as absent: one odd field must not cost the whole event.
fn lenient<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::de::DeserializeOwned,
{
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).ok())
}

fn lenient_list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::de::DeserializeOwned,
{
    Ok(match Value::deserialize(deserializer)? {
        Value::Array(items) => items.into_iter().filter_map(|item| serde_json::from_value(item).ok()).collect(),
        _ => Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;

    use super::*;

    fn parse(message: &Value) -> Message {
        Message::parse(json!({ "message": message }).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn facts_of_a_tool_call() {
        let message = parse(&json!({
            "type": "tool-calls", "timestamp": 1_795_359_607_400_i64,
            "toolCallList": [{"id": "call_1", "type": "function", "function": {"name": "get_slots", "arguments": {"party": 2}}}],
            "call": {"id": "7ed33bde", "createdAt": "2026-11-22T14:59:58.000Z", "assistantId": "2224e7d7",
                     "phoneCallProviderId": "CA031b", "customer": {"number": "+15550100002"}},
            "phoneNumber": {"number": "+15550100001"}
        }));
        assert_eq!(message.kind, MessageType::ToolCalls);
        assert_eq!(message.call_created_at, Some(datetime!(2026-11-22 14:59:58 UTC)));
        assert_eq!(message.assistant_id.unwrap().as_str(), "2224e7d7");
        assert_eq!(message.call_sid.unwrap().as_str(), "CA031b");
        assert_eq!(message.number.unwrap().as_str(), "+15550100001");
        assert_eq!(message.customer.unwrap().as_str(), "+15550100002");
        assert_eq!(message.tool_calls[0].arguments, json!({"party": 2}));
    }

    #[test]
    fn a_call_is_known_by_the_name_that_we_gave_it() {
        let sid = "CA0123456789abcdef0123456789abcdef";
        let named = |name: &str, provider_id: Option<&str>| {
            let call = json!({"id": "c", "name": name, "phoneCallProviderId": provider_id});
            parse(&json!({"type": "hang", "call": call})).call_sid.map(|sid| sid.as_str().to_owned())
        };
        assert_eq!(named(sid, None).as_deref(), Some(sid));
        assert_eq!(named(sid, Some("CA02")).as_deref(), Some("CA02"), "Vapi's own word comes first");
        for other in ["CATHY", "", "CA0123456789abcdef0123456789abcdeg", "CA0123456789abcdef0123456789abcdef0"] {
            assert_eq!(named(other, None), None, "{other}");
        }
    }

    #[test]
    fn two_ways_to_tell_the_time() {
        let at = |timestamp: Value| parse(&json!({"type": "hang", "timestamp": timestamp})).at;
        let expected = Some(datetime!(2026-11-22 14:59:59.25 UTC));
        assert_eq!(at(json!(1_795_359_599_250_i64)), expected);
        assert_eq!(at(json!("2026-11-22T14:59:59.250Z")), expected);
        for odd in [json!(null), json!("yesterday"), json!(i64::MAX), json!(1.5e300), json!([])] {
            assert_eq!(at(odd.clone()), None, "{odd}");
        }
    }

    #[test]
    fn three_encodings_of_arguments() {
        for call in [
            json!({"id": "a", "function": {"name": "f", "arguments": {"x": 1}}}),
            json!({"id": "a", "function": {"name": "f", "arguments": "{\"x\":1}"}}),
            json!({"id": "a", "name": "f", "arguments": {"x": 1}}),
            json!({"id": "a", "name": "f", "parameters": {"x": 1}}),
        ] {
            let message = parse(&json!({"type": "tool-calls", "toolCallList": [call]}));
            let expected = ToolCall { id: "a".into(), name: "f".into(), arguments: json!({"x": 1}) };
            assert_eq!(message.tool_calls, [expected], "{call}");
        }
    }

    #[test]
    fn odd_fields_cost_nothing_else() {
        let message = parse(&json!({
            "type": "brand-new", "call": {"id": "7ed33bde", "createdAt": 5, "transport": "?"}, "phoneNumber": [],
            "assistant": {"id": "from-assistant"}, "toolCallList": {"id": 1}
        }));
        assert_eq!(message.kind, MessageType::Event("brand-new".into()));
        assert!(!message.kind.needs_answer());
        assert_eq!(message.call_id.unwrap().as_str(), "7ed33bde");
        assert_eq!(message.assistant_id.unwrap().as_str(), "from-assistant");
        assert_eq!(message.call_created_at, None);
    }

    #[test]
    fn a_repeated_message_has_the_same_delivery() {
        let report = |url: &str| json!({"type": "end-of-call-report", "call": {"id": "c"}, "timestamp": url, "recordingUrl": url});
        assert_eq!(parse(&report("a?sig=1")).delivery_id, parse(&report("a?sig=2")).delivery_id);
        let status = |status: &str| json!({"type": "status-update", "status": status, "call": {"id": "c"}});
        assert_ne!(parse(&status("ringing")).delivery_id, parse(&status("ended")).delivery_id);
        let speech =
            |status: &str| json!({"type": "speech-update", "status": status, "call": {"id": "c"}, "timestamp": 1});
        assert_ne!(parse(&speech("started")).delivery_id, parse(&speech("stopped")).delivery_id);
        let hook = |at: i64| {
            json!({"type": "tool-calls", "call": {"id": "c"}, "timestamp": at,
            "toolCallList": [{"id": HOOK_TOOL_CALL_ID, "function": {"name": "f", "arguments": {}}}]})
        };
        assert_ne!(parse(&hook(1)).delivery_id, parse(&hook(2)).delivery_id);
    }

    #[test]
    fn what_is_not_a_message() {
        for body in ["", "[]", "{}", r#"{"message":{}}"#, r#"{"message":{"type":1}}"#, "\u{0}"] {
            assert!(Message::parse(body.as_bytes()).is_err(), "{body}");
        }
    }
}
