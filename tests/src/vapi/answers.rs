//! What Vapi accepts as an answer to each message type.
//!
//! Stricter than the SDK's types where the documentation or operators' experience is: strings without line
//! breaks as tool results, exactly one way to name an assistant, no members that Vapi does not know.

use serde_json::{Map, Value};

use super::facts::object;

type Check = Result<(), String>;

/// Checks the body of a 200 answer to a message of type `message_type`; the error is a sentence that names the
/// member at fault. Types that need no answer accept any body.
pub fn validate_answer(message_type: &str, body: &Value) -> Check {
    if !super::messages::ANSWERED.contains(&message_type) {
        return Ok(());
    }
    let Some(body) = body.as_object() else {
        return Err(format!("the answer to {message_type} must be a JSON object"));
    };
    if body.contains_key("messageResponse") {
        return Err("messageResponse is a wrapper of the SDK's types and is not sent".into());
    }
    match message_type {
        "assistant-request" => assistant_request(body),
        "tool-calls" => tool_results(body),
        "transfer-destination-request" => {
            known(body, &["destination", "message", "error"])?;
            destination_or_error(body, &["number", "sip", "assistant"])?;
            optional_message(body, &["request-start", "request-complete", "request-failed", "request-response-delayed"])
        }
        "handoff-destination-request" => {
            known(body, &["destination", "result", "error"])?;
            optional_string(body, "result")?;
            destination_or_error(body, &["assistant", "squad", "dynamic"])
        }
        "knowledge-base-request" => knowledge_base(body),
        "call.endpointing.request" => {
            known(body, &["timeoutSeconds"])?;
            match body.get("timeoutSeconds").and_then(Value::as_f64) {
                Some(wait) if wait >= 0.0 => Ok(()),
                _ => Err("timeoutSeconds must be a number that is not negative".into()),
            }
        }
        "campaign.predial" => {
            known(body, &["eligible"])?;
            match body.get("eligible") {
                Some(Value::Bool(_)) => Ok(()),
                _ => Err("eligible must be true or false, nothing that only looks like it".into()),
            }
        }
        _ => Err(format!("the answer to {message_type} is not JSON: it is raw audio")),
    }
}

/// Checks an answer to `tool-calls` and that it answers every one of `asked` (id, name), in that order.
pub fn validate_tool_answer(asked: &[(String, String)], body: &Value) -> Check {
    validate_answer("tool-calls", body)?;
    if body.get("error").is_some() {
        return Ok(());
    }
    let results = body["results"].as_array().map_or(&[][..], Vec::as_slice);
    if results.len() != asked.len() {
        return Err(format!("{} calls were asked, {} answered", asked.len(), results.len()));
    }
    for (index, ((id, name), result)) in asked.iter().zip(results).enumerate() {
        if result["toolCallId"] != *id {
            return Err(format!("results[{index}].toolCallId should be {id}: results come in the order asked"));
        }
        if result["name"] != *name {
            return Err(format!("results[{index}].name should be {name}"));
        }
    }
    Ok(())
}

fn assistant_request(body: &Map<String, Value>) -> Check {
    const CHOICES: [&str; 6] = ["assistantId", "assistant", "squadId", "squad", "workflowId", "workflow"];
    const OVERRIDES: [&str; 3] = ["assistantOverrides", "squadOverrides", "workflowOverrides"];
    let allowed: Vec<&str> = CHOICES.into_iter().chain(OVERRIDES).chain(["destination", "error"]).collect();
    known(body, &allowed)?;
    for id in ["assistantId", "squadId", "workflowId"] {
        optional_string(body, id)?;
    }
    for inline in ["assistant", "squad", "workflow"].into_iter().chain(OVERRIDES) {
        if body.get(inline).is_some_and(|value| !value.is_object()) {
            return Err(format!("{inline} must be an object"));
        }
    }
    // Precedence: error, destination, the rest.
    if body.contains_key("error") {
        return non_empty(body, "error").map(drop);
    }
    if let Some(to) = body.get("destination") {
        return destination(to, &["number", "sip"]);
    }
    let chosen: Vec<&str> = CHOICES.into_iter().filter(|key| body.contains_key(*key)).collect();
    match chosen[..] {
        [_] => Ok(()),
        [] => {
            Err("one of assistantId, assistant, squadId, squad, workflowId, workflow, destination, error is needed"
                .into())
        }
        _ => Err(format!("only one of {} may be given", chosen.join(", "))),
    }
}

fn tool_results(body: &Map<String, Value>) -> Check {
    known(body, &["results", "error"])?;
    if body.contains_key("error") {
        return single_line(body, "error", "error");
    }
    let Some(results) = body.get("results").and_then(Value::as_array) else {
        return Err("results must be an array".into());
    };
    for (index, result) in results.iter().enumerate() {
        let place = format!("results[{index}]");
        let Some(result) = result.as_object() else {
            return Err(format!("{place} must be an object"));
        };
        known(result, &["toolCallId", "name", "result", "error", "message", "metadata"])
            .and_then(|()| non_empty(result, "toolCallId").map(drop))
            .and_then(|()| non_empty(result, "name").map(drop))
            .and_then(|()| optional_message(result, &["request-complete", "request-failed"]))
            .map_err(|fault| format!("{place}: {fault}"))?;
        match (result.contains_key("result"), result.contains_key("error")) {
            (true, false) => single_line(result, "result", &place)?,
            (false, true) => single_line(result, "error", &place)?,
            _ => return Err(format!("{place} needs either result or error")),
        }
    }
    Ok(())
}

fn knowledge_base(body: &Map<String, Value>) -> Check {
    known(body, &["documents", "message"])?;
    if body.contains_key("message") {
        return optional_message(body, &["custom-message"]);
    }
    let Some(documents) = body.get("documents").and_then(Value::as_array) else {
        return Err("documents must be an array, or message given".into());
    };
    for (index, document) in documents.iter().enumerate() {
        if !document["content"].is_string() || !document["similarity"].is_number() {
            return Err(format!("documents[{index}] needs content (string) and similarity (number)"));
        }
    }
    Ok(())
}

fn destination_or_error(body: &Map<String, Value>, kinds: &[&str]) -> Check {
    match body.get("destination") {
        _ if body.contains_key("error") => non_empty(body, "error").map(drop),
        Some(to) => destination(to, kinds),
        None => Err("destination or error is needed".into()),
    }
}

fn destination(to: &Value, kinds: &[&str]) -> Check {
    let to = object(to.clone());
    let kind = non_empty(&to, "type").map_err(|fault| format!("destination: {fault}"))?;
    if !kinds.contains(&kind) {
        return Err(format!("destination.type {kind} is not one of {}", kinds.join(", ")));
    }
    match kind {
        "number" => {
            let number = non_empty(&to, "number").map_err(|fault| format!("destination: {fault}"))?;
            let checked = to.get("numberE164CheckEnabled") != Some(&Value::Bool(false));
            if checked && !super::schema::is_e164(number) {
                return Err("destination.number must be E.164".into());
            }
            Ok(())
        }
        "sip" => {
            let uri = non_empty(&to, "sipUri").map_err(|fault| format!("destination: {fault}"))?;
            if uri.starts_with("sip:") || uri.starts_with("sips:") {
                Ok(())
            } else {
                Err("destination.sipUri must begin with sip:".into())
            }
        }
        "assistant" => {
            // A transfer knows assistants by name only; a handoff by id and inline as well.
            let named = if kinds.contains(&"number") {
                &["assistantName"][..]
            } else {
                &["assistantName", "assistantId", "assistant"]
            };
            if named.iter().any(|key| to.contains_key(*key)) {
                Ok(())
            } else {
                Err(format!("destination needs one of {}", named.join(", ")))
            }
        }
        _ => Ok(()),
    }
}

fn known(body: &Map<String, Value>, allowed: &[&str]) -> Check {
    match body.keys().find(|key| !allowed.contains(&key.as_str())) {
        Some(key) => Err(format!("{key} is not a member of this answer")),
        None => Ok(()),
    }
}

fn non_empty<'a>(body: &'a Map<String, Value>, key: &str) -> Result<&'a str, String> {
    match body.get(key).and_then(Value::as_str) {
        Some(text) if !text.trim().is_empty() => Ok(text),
        _ => Err(format!("{key} must be a string that is not empty")),
    }
}

fn optional_string(body: &Map<String, Value>, key: &str) -> Check {
    if body.contains_key(key) {
        non_empty(body, key)?;
    }
    Ok(())
}

/// Line breaks are documented to break the parsing of results.
fn single_line(body: &Map<String, Value>, key: &str, place: &str) -> Check {
    match body.get(key).and_then(Value::as_str) {
        None => Err(format!("{place}: {key} must be a string")),
        Some(text) if text.contains(['\n', '\r']) => Err(format!("{place}: {key} has a line break")),
        Some(_) => Ok(()),
    }
}

fn optional_message(body: &Map<String, Value>, types: &[&str]) -> Check {
    let Some(message) = body.get("message") else {
        return Ok(());
    };
    match message["type"].as_str() {
        Some(kind) if types.contains(&kind) => {}
        _ => return Err(format!("message.type must be one of {}", types.join(", "))),
    }
    match message.get("content") {
        None | Some(Value::String(_)) => Ok(()),
        Some(_) => Err("message.content must be a string".into()),
    }
}
