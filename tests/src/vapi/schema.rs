//! What the API refuses in the bodies of assistants, tools and numbers. Each check returns all faults.

use serde_json::{Map, Value};

use super::error::ApiError;
use super::facts::object;

type Faults = Vec<String>;

/// The members of an assistant that can be written, after the SDK, then those of older assistants that the API
/// still takes.
const ASSISTANT: [&str; 43] = [
    "transcriber",
    "model",
    "voice",
    "firstMessage",
    "firstMessageInterruptionsEnabled",
    "firstMessageMode",
    "voicemailDetection",
    "clientMessages",
    "serverMessages",
    "maxDurationSeconds",
    "backgroundSound",
    "modelOutputInMessagesEnabled",
    "transportConfigurations",
    "observabilityPlan",
    "credentials",
    "hooks",
    "name",
    "voicemailMessage",
    "endCallMessage",
    "endCallPhrases",
    "compliancePlan",
    "metadata",
    "backgroundSpeechDenoisingPlan",
    "analysisPlan",
    "artifactPlan",
    "startSpeakingPlan",
    "stopSpeakingPlan",
    "monitorPlan",
    "credentialIds",
    "server",
    "keypadInputPlan",
    // Legacy.
    "serverUrl",
    "serverUrlSecret",
    "forwardingPhoneNumber",
    "endCallFunctionEnabled",
    "dialKeypadFunctionEnabled",
    "recordingEnabled",
    "hipaaEnabled",
    "backgroundDenoisingEnabled",
    "silenceTimeoutSeconds",
    "responseDelaySeconds",
    "numWordsToInterruptAssistant",
    "messagePlan",
];

const SERVER: [&str; 8] = [
    "url",
    "timeoutSeconds",
    "credentialId",
    "staticIpAddressesEnabled",
    "encryptedPaths",
    "headers",
    "backoffPlan",
    // Legacy inline secret: gone from the SDK, still honoured.
    "secret",
];

const FUNCTION_TOOL: [&str; 8] =
    ["type", "function", "messages", "async", "server", "variableExtractionPlan", "parameters", "rejectionPlan"];

const NUMBER: [&str; 15] = [
    "provider",
    "number",
    "twilioAccountSid",
    "twilioAuthToken",
    "twilioApiKey",
    "twilioApiSecret",
    "name",
    "assistantId",
    "squadId",
    "workflowId",
    "server",
    "fallbackDestination",
    "hooks",
    "smsEnabled",
    "credentialId",
];

/// Every value of `serverMessages`.
const SERVER_MESSAGES: [&str; 28] = [
    "assistant.started",
    "assistant.speechStarted",
    "conversation-update",
    "end-of-call-report",
    "function-call",
    "hang",
    "language-changed",
    "language-change-detected",
    "model-output",
    "phone-call-control",
    "speech-update",
    "status-update",
    "transcript",
    "transcript[transcriptType=\"final\"]",
    "tool-calls",
    "transfer-destination-request",
    "handoff-destination-request",
    "transfer-update",
    "user-interrupted",
    "voice-input",
    "chat.created",
    "chat.deleted",
    "session.created",
    "session.updated",
    "session.deleted",
    "call.deleted",
    "call.delete.failed",
    "call.artifact.upload",
];

/// Turns faults into the 400 that lists them.
pub(crate) fn refuse(faults: Faults) -> Result<(), ApiError> {
    if faults.is_empty() { Ok(()) } else { Err(ApiError::invalid(faults)) }
}

/// E.164: a plus and up to 15 digits, the first not 0.
pub(crate) fn is_e164(number: &str) -> bool {
    number.strip_prefix('+').is_some_and(|digits| {
        (2..=15).contains(&digits.len()) && !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit())
    })
}

/// An assistant, new or changed. `null` clears a member and is always allowed.
pub(crate) fn assistant(body: &Map<String, Value>) -> Faults {
    let mut faults = unknown(body, "", &ASSISTANT);
    if set(body, "name").is_some_and(|name| name.as_str().is_none_or(|text| text.chars().count() > 40)) {
        faults.push("name must be shorter than or equal to 40 characters".into());
    }
    faults.extend(range(body, "maxDurationSeconds", 10.0, 43_200.0));
    faults.extend(range(body, "silenceTimeoutSeconds", 5.0, 3600.0));
    if let Some(wanted) = set(body, "serverMessages") {
        let valid = wanted.as_array().is_some_and(|list| {
            list.iter().all(|item| item.as_str().is_some_and(|name| SERVER_MESSAGES.contains(&name)))
        });
        if !valid {
            faults.push(format!(
                "each value in serverMessages must be one of the following values: {}",
                SERVER_MESSAGES.join(", ")
            ));
        }
    }
    faults.extend(server(body));
    if let Some(model) = set(body, "model") {
        if model["provider"].as_str().is_none() {
            faults.push("model.provider must be a string".into());
        }
        if model["model"].as_str().is_none() {
            faults.push("model.model must be a string".into());
        }
    }
    faults
}

/// A tool. Only function tools are checked beyond their type.
pub(crate) fn tool(body: &Map<String, Value>, create: bool) -> Faults {
    let kind = set(body, "type").and_then(Value::as_str);
    let mut faults = Vec::new();
    if kind == Some("function") {
        faults = unknown(body, "", &FUNCTION_TOOL);
    }
    if create && kind.is_none() {
        faults.push("type must be a string".into());
    }
    if let Some(function) = set(body, "function") {
        let name = function["name"].as_str().unwrap_or_default();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(allowed) {
            faults.push("function.name must match /^[a-zA-Z0-9_-]{1,64}$/ regular expression".into());
        }
    } else if create && kind == Some("function") {
        faults.push("function should not be empty".into());
    }
    faults.extend(server(body));
    faults
}

/// A number. Both import and change are discriminated by `provider`.
pub(crate) fn number(body: &Map<String, Value>, create: bool) -> Faults {
    const PROVIDERS: [&str; 5] = ["byo-phone-number", "twilio", "vonage", "vapi", "telnyx"];
    let provider = set(body, "provider").and_then(Value::as_str).unwrap_or_default();
    if !PROVIDERS.contains(&provider) {
        return vec![format!("provider must be one of the following values: {}", PROVIDERS.join(", "))];
    }
    let mut faults = unknown(body, "", &NUMBER);
    if set(body, "name").is_some_and(|name| name.as_str().is_none_or(|text| text.chars().count() > 40)) {
        faults.push("name must be shorter than or equal to 40 characters".into());
    }
    faults.extend(server(body));
    if provider == "twilio" && create {
        if !set(body, "number").and_then(Value::as_str).is_some_and(is_e164) {
            faults.push("number must be a valid phone number in the E.164 format. Hot tip, you may be missing the country code (Eg. US: +1).".into());
        }
        if set(body, "twilioAccountSid").and_then(Value::as_str).is_none() {
            faults.push("twilioAccountSid must be a string".into());
        }
        let key_pair = set(body, "twilioApiKey").is_some() && set(body, "twilioApiSecret").is_some();
        if set(body, "twilioAuthToken").is_none() && !key_pair {
            faults.push("twilioAuthToken or twilioApiKey and twilioApiSecret must be given".into());
        }
    }
    faults
}

/// The `server` object of a body, if it has one.
fn server(body: &Map<String, Value>) -> Faults {
    let Some(server) = set(body, "server") else {
        return Vec::new();
    };
    let server = object(server.clone());
    let mut faults = unknown(&server, "server.", &SERVER);
    faults.extend(range(&server, "timeoutSeconds", 1.0, 300.0).map(|fault| format!("server.{fault}")));
    let url = set(&server, "url").and_then(Value::as_str);
    if set(&server, "url").is_some()
        && !url.is_some_and(|url| url.starts_with("https://") || url.starts_with("http://"))
    {
        faults.push("server.url must be a URL address".into());
    }
    if let Some(plan) = set(&server, "backoffPlan") {
        let plan = object(plan.clone());
        if !matches!(plan.get("type").and_then(Value::as_str), Some("fixed" | "exponential")) {
            faults.push("server.backoffPlan.type must be one of the following values: fixed, exponential".into());
        }
        for (key, most) in [("maxRetries", 10.0), ("baseDelaySeconds", 10.0)] {
            faults.extend(range(&plan, key, 0.0, most).map(|fault| format!("server.backoffPlan.{fault}")));
        }
    }
    faults
}

fn unknown(body: &Map<String, Value>, path: &str, allowed: &[&str]) -> Faults {
    body.keys()
        .filter(|key| !allowed.contains(&key.as_str()))
        .map(|key| format!("{path}property {key} should not exist"))
        .collect()
}

fn range(body: &Map<String, Value>, key: &str, least: f64, most: f64) -> Option<String> {
    let number = set(body, key)?.as_f64();
    match number {
        Some(value) if value < least => Some(format!("{key} must not be less than {least}")),
        Some(value) if value > most => Some(format!("{key} must not be greater than {most}")),
        Some(_) => None,
        None => Some(format!("{key} must be a number")),
    }
}

/// A member that is there and not `null`.
pub(crate) fn set<'a>(body: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    body.get(key).filter(|value| !value.is_null())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_assistant_with_faults_hears_of_all_of_them() {
        let faults = assistant(&object(json!({
            "name": "x".repeat(41),
            "colour": "red",
            "maxDurationSeconds": 5,
            "server": {"url": "edge", "timeoutSeconds": 301},
        })));
        assert_eq!(faults.len(), 5, "{faults:?}");
    }

    #[test]
    fn null_clears_without_being_checked() {
        assert_eq!(assistant(&object(json!({"name": null, "server": null, "hooks": null}))), Faults::new());
    }

    #[test]
    fn a_change_of_a_number_wants_the_provider_again() {
        assert_eq!(number(&object(json!({"assistantId": null})), false).len(), 1);
        assert_eq!(number(&object(json!({"provider": "twilio", "assistantId": null})), false), Faults::new());
    }
}
