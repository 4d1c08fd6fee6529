//! Messages that need an answer.

use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::vapi::clock::{epoch_ms, iso};
use crate::vapi::facts::{Facts, ORG_ID};
use crate::vapi::history::{History, ToolCall};

/// A tool as configured, for the copy that `tool-calls` carries beside each call.
#[derive(Debug, Clone)]
pub struct ToolConfig {
    /// For the model.
    pub description: String,
    /// JSON Schema of the arguments.
    pub parameters: Value,
    /// The tool's own server URL, if it has one.
    pub server_url: Option<String>,
}

/// The call has no assistant yet; the answer names one.
pub fn assistant_request(facts: &Facts, at: OffsetDateTime) -> Value {
    facts.message("assistant-request", at, json!({}))
}

/// The model calls `calls`; each comes with its tool as configured. `toolCalls` repeats `toolCallList`,
/// which no type mentions and real deliveries contain.
pub fn tool_calls(facts: &Facts, at: OffsetDateTime, history: &History, calls: &[(ToolCall, ToolConfig)]) -> Value {
    let list: Vec<Value> = calls.iter().map(|(call, _)| call.on_the_wire()).collect();
    let with_tools: Vec<Value> = calls
        .iter()
        .map(|(call, tool)| {
            let mut entry = json!({
                "type": "function",
                "async": false,
                "function": {"name": call.name, "description": tool.description, "parameters": tool.parameters},
                "messages": [{"type": "request-start", "content": "One moment."}],
                "toolCall": call.on_the_wire(),
            });
            if let Some(url) = &tool.server_url {
                entry["server"] = json!({"url": url, "timeoutSeconds": 20});
            }
            entry
        })
        .collect();
    facts.message(
        "tool-calls",
        at,
        json!({
            "toolCallList": list,
            "toolCalls": list,
            "toolWithToolCallList": with_tools,
            "artifact": history.artifact(),
        }),
    )
}

/// One call of `name`, for tests that send a single message.
pub fn tool_call(facts: &Facts, at: OffsetDateTime, name: &str, arguments: Value) -> Value {
    let call = ToolCall {
        id: format!("call_{}", &uuid::Uuid::new_v4().simple().to_string()[..24]),
        name: name.to_owned(),
        arguments,
    };
    let tool = ToolConfig {
        description: String::new(),
        parameters: json!({"type": "object", "properties": {}}),
        server_url: None,
    };
    tool_calls(facts, at, &History::new(at, None), &[(call, tool)])
}

/// `transferCall` was called without a destination.
pub fn transfer_destination_request(facts: &Facts, at: OffsetDateTime, history: &History) -> Value {
    facts.message("transfer-destination-request", at, json!({"artifact": history.artifact()}))
}

/// A handoff whose destination the server decides; `parameters` is what the model filled in.
pub fn handoff_destination_request(facts: &Facts, at: OffsetDateTime, parameters: &Value) -> Value {
    facts.message("handoff-destination-request", at, json!({"parameters": parameters}))
}

/// A query to a custom knowledge base.
pub fn knowledge_base_request(facts: &Facts, at: OffsetDateTime, history: &History) -> Value {
    facts.message(
        "knowledge-base-request",
        at,
        json!({"messages": history.messages(), "messagesOpenAIFormatted": history.openai_formatted()}),
    )
}

/// Asks for raw PCM: 16 bit, mono, at `sample_rate`.
pub fn voice_request(facts: &Facts, at: OffsetDateTime, text: &str, sample_rate: u32) -> Value {
    facts.message("voice-request", at, json!({"text": text, "sampleRate": sample_rate}))
}

/// Asks how long to wait before taking the caller's turn as over.
pub fn endpointing_request(facts: &Facts, at: OffsetDateTime, history: &History) -> Value {
    facts.message(
        "call.endpointing.request",
        at,
        json!({"messages": history.messages(), "messagesOpenAIFormatted": history.openai_formatted()}),
    )
}

/// Asks whether a campaign may dial `number`. There is no call yet, so this takes no facts.
pub fn campaign_predial(at: OffsetDateTime, campaign_id: &str, number: &str) -> Value {
    json!({"message": {
        "timestamp": epoch_ms(at),
        "type": "campaign.predial",
        "campaignId": campaign_id,
        "contact": {
            "id": uuid::Uuid::new_v4().to_string(),
            "campaignId": campaign_id,
            "orgId": ORG_ID,
            "number": number,
            "createdAt": iso(at),
        },
    }})
}
