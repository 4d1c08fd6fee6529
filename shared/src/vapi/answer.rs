//! Well-formed answers for messages that cannot or must not be acted on, so that Vapi never hangs.

use serde_json::{Value, json};

use super::message::{Message, MessageType};

/// Why a message gets no real answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The agent has left Vapi and the call began after that.
    Switched,
    /// No agent belongs to the message.
    UnknownAgent,
    /// The origin cannot be reached in time.
    Unavailable,
}

impl Refusal {
    /// One line, without a line break: Vapi's parser takes no more.
    const fn sentence(self) -> &'static str {
        match self {
            Self::Switched => "This assistant is no longer served here.",
            Self::UnknownAgent => "This assistant is not known here.",
            Self::Unavailable => "The service is not available right now.",
        }
    }
}

/// The body that the message's type expects.
pub fn refuse(message: &Message, refusal: Refusal) -> Value {
    let sentence = refusal.sentence();
    match message.kind {
        MessageType::ToolCalls => {
            let results: Vec<_> =
                message.tool_calls.iter().map(|call| tool_error(&call.id, &call.name, sentence)).collect();
            tool_results(&results)
        }
        MessageType::AssistantRequest | MessageType::TransferDestinationRequest => json!({ "error": sentence }),
        // The SDK's type wants a destination even beside an error.
        MessageType::HandoffDestinationRequest => json!({ "destination": {}, "error": sentence }),
        MessageType::KnowledgeBaseRequest => json!({ "documents": [] }),
        // Vapi's own default wait.
        MessageType::EndpointingRequest => json!({ "timeoutSeconds": 0.5 }),
        MessageType::CampaignPredial => json!({ "eligible": false }),
        MessageType::StatusUpdate | MessageType::EndOfCallReport | MessageType::Event(_) => json!({}),
    }
}

/// The answer to `tool-calls`: one result per call, in the order asked.
pub fn tool_results(results: &[Value]) -> Value {
    json!({ "results": results })
}

/// The result of a tool that worked. Vapi wants one line of text.
pub fn tool_result(id: &str, name: &str, result: &str) -> Value {
    json!({ "toolCallId": id, "name": name, "result": one_line(result) })
}

/// The same, after which Vapi says these words and ends the call.
pub fn tool_result_ending(id: &str, name: &str, result: &str, last_words: &str) -> Value {
    let mut answer = tool_result(id, name, result);
    answer["message"] = json!({
        "type": "request-complete", "role": "assistant", "content": last_words, "endCallAfterSpokenEnabled": true,
    });
    answer
}

/// The answer to `transfer-destination-request`: where the caller goes, as Vapi names destinations, and what is said
/// before.
pub fn transfer(destination: &Value, said_before: Option<&str>) -> Value {
    let mut answer = json!({ "destination": destination });
    if let Some(words) = said_before {
        answer["message"] = json!({ "type": "request-start", "content": words });
    }
    answer
}

/// The result of a tool that did not work.
pub fn tool_error(id: &str, name: &str, error: &str) -> Value {
    json!({ "toolCallId": id, "name": name, "error": one_line(error) })
}

fn one_line(text: &str) -> String {
    text.split(['\r', '\n']).map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(message: &Value) -> Value {
        let message = Message::parse(json!({ "message": message }).to_string().as_bytes()).unwrap();
        refuse(&message, Refusal::Switched)
    }

    #[test]
    fn every_tool_call_gets_a_result_in_order() {
        let answer = refused(&json!({"type": "tool-calls", "toolCallList": [
            {"id": "a", "function": {"name": "f", "arguments": {}}}, {"id": "b", "function": {"name": "g", "arguments": {}}}]}));
        let ids: Vec<_> = answer["results"].as_array().unwrap().iter().map(|r| r["toolCallId"].clone()).collect();
        assert_eq!(ids, ["a", "b"]);
        assert!(answer["results"][0]["error"].is_string());
    }

    #[test]
    fn shapes_by_type() {
        assert!(refused(&json!({"type": "assistant-request"}))["error"].is_string());
        assert_eq!(refused(&json!({"type": "handoff-destination-request"}))["destination"], json!({}));
        assert_eq!(refused(&json!({"type": "campaign.predial"})), json!({"eligible": false}));
        assert_eq!(refused(&json!({"type": "hang"})), json!({}));
        assert_eq!(refused(&json!({"type": "status-update", "status": "ended"})), json!({}));
    }

    #[test]
    fn an_ending_has_words_after_which_vapi_hangs_up() {
        let answer = tool_result_ending("a", "end_call", "The call is ending.", "Goodbye.");
        assert_eq!(
            (&answer["result"], &answer["message"]["content"]),
            (&json!("The call is ending."), &json!("Goodbye."))
        );
        assert_eq!(answer["message"]["endCallAfterSpokenEnabled"], true);
    }

    #[test]
    fn results_are_one_line() {
        assert_eq!(tool_result("a", "f", "one\r\n\n two")["result"], "one two");
    }
}
