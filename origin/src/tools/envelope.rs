//! The message that a tool's server gets: Vapi's `tool-calls`, whichever system runs the call.
//!
//! Servers read more of it than the function call: who is calling, on which number, which assistant. What Tandem knows
//! of a call stands where Vapi has it; what it does not know is left out, as Vapi itself leaves it out at times.

use serde_json::{Value, json};
use shared::{CallSid, SystemType, VapiCallId};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::arguments::Arguments;
use crate::store::agents::Agent;
use crate::store::calls::Call;
use crate::store::tools::Tool;

/// What is told of the call that a tool is run in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallFacts {
    /// Its id at the system that runs it.
    pub id: Option<String>,
    pub(super) call_sid: Option<String>,
    pub(super) started_at: Option<OffsetDateTime>,
    pub(super) caller: Option<String>,
    pub(super) number: Option<String>,
    pub(super) assistant_id: Option<String>,
    pub(super) assistant_name: Option<String>,
}

impl CallFacts {
    /// What a call's record and its agent say.
    pub fn new(call: &Call, agent: &Agent) -> Self {
        let vapi_id = call.vapi_call_id.as_ref().filter(|_| call.system_type == SystemType::Vapi);
        Self {
            id: Some(vapi_id.map_or_else(|| call.id.to_string(), |id: &VapiCallId| id.as_str().to_owned())),
            call_sid: call.call_sid.as_ref().map(|sid: &CallSid| sid.as_str().to_owned()),
            started_at: Some(call.started_at),
            caller: call.from.clone(),
            number: call.to.clone(),
            assistant_id: agent.vapi_assistant_id.as_ref().map(|id| id.as_str().to_owned()),
            assistant_name: Some(agent.name.clone()),
        }
    }
}

/// The body for one function call.
pub(super) fn body(
    tool: &Tool,
    facts: &CallFacts,
    tool_call_id: &str,
    arguments: &Arguments,
    now: OffsetDateTime,
) -> Value {
    let function_call = json!({
        "id": tool_call_id,
        "type": "function",
        "function": { "name": tool.name, "arguments": arguments },
    });
    let function = json!({ "name": tool.name, "description": tool.description, "parameters": tool.parameters });
    let milliseconds = now.unix_timestamp_nanos() / 1_000_000;
    let mut message = json!({
        "type": "tool-calls",
        "timestamp": i64::try_from(milliseconds).unwrap_or_default(),
        "toolCallList": [function_call],
        "toolCalls": [function_call],
        "toolWithToolCallList": [{ "type": "function", "function": function, "toolCall": function_call }],
        "call": call(facts),
    });
    if let Some(customer) = party(facts.caller.as_deref()) {
        message["customer"] = customer;
    }
    if let Some(number) = party(facts.number.as_deref()) {
        message["phoneNumber"] = number;
    }
    if let Some(id) = &facts.assistant_id {
        message["assistant"] = json!({ "id": id, "name": facts.assistant_name });
    }
    json!({ "message": message })
}

fn call(facts: &CallFacts) -> Value {
    let mut call = json!({ "id": facts.id, "type": "inboundPhoneCall", "status": "in-progress" });
    if let Some(at) = facts.started_at.and_then(|at| at.format(&Rfc3339).ok()) {
        call["createdAt"] = at.into();
    }
    if let Some(sid) = &facts.call_sid {
        call["phoneCallProvider"] = "twilio".into();
        call["phoneCallProviderId"] = sid.as_str().into();
    }
    if let Some(id) = &facts.assistant_id {
        call["assistantId"] = id.as_str().into();
    }
    if let Some(customer) = party(facts.caller.as_deref()) {
        call["customer"] = customer;
    }
    call
}

fn party(number: Option<&str>) -> Option<Value> {
    number.map(|number| json!({ "number": number }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::macros::datetime;

    use super::*;
    use crate::store::tools::settings::ToolSettings;
    use crate::store::tools::{Builtin, ToolTarget};

    #[test]
    fn everything_stands_where_vapi_has_it() {
        let tool = Tool {
            id: uuid::Uuid::nil(),
            name: "get_slots".into(),
            description: "Free tables.".into(),
            parameters: json!({ "type": "object" }),
            target: ToolTarget::Builtin(Builtin::EndCall),
            timeout: Duration::from_secs(1),
            settings: ToolSettings::default(),
        };
        let facts = CallFacts {
            id: Some("call-1".into()),
            call_sid: Some("CA01".into()),
            started_at: Some(datetime!(2026-11-22 15:00 UTC)),
            caller: Some("+15550199".into()),
            number: Some("+15550100".into()),
            assistant_id: Some("assistant-1".into()),
            assistant_name: Some("Ana".into()),
        };
        let arguments = json!({ "party": 2 });
        let body = body(&tool, &facts, "c1", arguments.as_object().unwrap(), datetime!(2026-11-22 15:00:01.5 UTC));
        let function_call =
            json!({ "id": "c1", "type": "function", "function": { "name": "get_slots", "arguments": { "party": 2 } } });
        let expected = json!({ "message": {
            "type": "tool-calls", "timestamp": 1_795_359_601_500_i64,
            "toolCallList": [function_call], "toolCalls": [function_call],
            "toolWithToolCallList": [{ "type": "function", "toolCall": function_call, "function":
                { "name": "get_slots", "description": "Free tables.", "parameters": { "type": "object" } } }],
            "call": { "id": "call-1", "type": "inboundPhoneCall", "status": "in-progress",
                      "createdAt": "2026-11-22T15:00:00Z", "phoneCallProvider": "twilio",
                      "phoneCallProviderId": "CA01", "assistantId": "assistant-1",
                      "customer": { "number": "+15550199" } },
            "customer": { "number": "+15550199" }, "phoneNumber": { "number": "+15550100" },
            "assistant": { "id": "assistant-1", "name": "Ana" },
        }});
        assert_eq!(body, expected);
    }
}
