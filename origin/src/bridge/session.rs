//! An agent's configuration as the `session.update` that opens its calls.
//!
//! Source: OpenAI's API reference, "Realtime client events: session.update". The formats are fixed: mu-law both ways, so
//! that audio passes through undecoded. What was said before, in a call that is taken up again, follows as text items.

use serde_json::{Value, json};

use super::call::SESSION_EVENT_ID;
use super::openai::{self, Turns, Voice};
use super::responses::Ask;
use super::sessions::Terms;
use crate::store::agents::realtime::call::{FirstMessage, OpeningRole};
use crate::store::agents::realtime::{
    CallRules, Eagerness, McpServer, NoiseReduction, RealtimeSettings, Transcription, TurnDetection, is_custom_voice,
    is_reasoning_model,
};
use crate::store::tools::Tool;

/// The id of the event that gives the turns to OpenAI after the first message.
const PROTECTION_EVENT_ID: &str = "protection";

/// Who stops the agent when the caller speaks, and answers the caller: OpenAI, unless the agent's rules want what it
/// cannot do.
fn turns(settings: &RealtimeSettings) -> Turns {
    if settings.call.interrupt_after_words.is_some_and(|words| words > 0) { Turns::Ours } else { Turns::Server }
}

/// What the agent says first in a new call.
pub fn first_ask(greeting: Option<&str>, rules: &CallRules) -> Option<Ask> {
    match rules.first_message {
        Some(FirstMessage::Caller) => None,
        Some(FirstMessage::Generated) => Some(Ask::Turn),
        Some(FirstMessage::Greeting) | None => greeting.map(|words| Ask::Say(words.to_owned())),
    }
}

/// The `session.update` that ends the protection of the first message; `None`: it can be interrupted, or there is none.
pub fn protection(settings: &RealtimeSettings, first: Option<&Ask>) -> Option<String> {
    let is_protected = first.is_some() && settings.call.first_message_interruptible == Some(false);
    is_protected.then(|| {
        let turn_detection = turn_detection(&settings.turn_detection, turns(settings));
        json!({
            "type": "session.update",
            "event_id": PROTECTION_EVENT_ID,
            "session": { "type": "realtime", "audio": { "input": { "turn_detection": turn_detection } } },
        })
        .to_string()
    })
}

/// The conversation that a call begins with.
pub fn opening(rules: &CallRules) -> impl Iterator<Item = String> {
    rules.opening.iter().filter(|item| !item.text.is_empty()).map(|item| {
        let voice = match item.role {
            OpeningRole::Caller => Voice::User,
            OpeningRole::Assistant => Voice::Assistant,
        };
        openai::text_item(voice, &item.text)
    })
}

/// What the sessions of a call are opened with.
pub fn terms(
    instructions: &str,
    settings: &RealtimeSettings,
    tools: &[Tool],
    default_model: &str,
    first: Option<&Ask>,
) -> Terms {
    let model = settings.model.as_deref().unwrap_or(default_model);
    Terms { model: model.to_owned(), update: update(instructions, settings, tools, model, first) }
}

/// The `session.update` that opens a call. OpenAI refuses the whole update for one field that it does not know, or that
/// `model` does not.
pub fn update(
    instructions: &str,
    settings: &RealtimeSettings,
    tools: &[Tool],
    model: &str,
    first: Option<&Ask>,
) -> String {
    let functions = tools.iter().map(|tool| {
        json!({
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters,
        })
    });
    let tools: Vec<Value> = functions.chain(settings.mcp_servers.iter().map(mcp_server)).collect();
    let turns = if protection(settings, first).is_some() { Turns::Ours } else { turns(settings) };
    let voice = if is_custom_voice(&settings.voice) { json!({ "id": settings.voice }) } else { json!(settings.voice) };
    let mut session = json!({
        "type": "realtime",
        "output_modalities": ["audio"],
        "instructions": instructions,
        "audio": {
            "input": {
                "format": { "type": "audio/pcmu" },
                "noise_reduction": settings.noise_reduction.map(noise_reduction),
                "transcription": settings.transcription.as_ref().map(transcription),
                "turn_detection": turn_detection(&settings.turn_detection, turns),
            },
            "output": {
                "format": { "type": "audio/pcmu" },
                "voice": voice,
                "speed": settings.speed,
            },
        },
        "tools": tools,
        "tool_choice": "auto",
    });
    if let Some(effort) = settings.call.reasoning_effort.filter(|_| is_reasoning_model(model)) {
        session["reasoning"] = json!({ "effort": effort });
    }
    json!({ "type": "session.update", "event_id": SESSION_EVENT_ID, "session": session }).to_string()
}

fn mcp_server(server: &McpServer) -> Value {
    let mut tool = json!({
        "type": "mcp",
        "server_label": server.label,
        "server_url": server.url,
        // Nobody is there to ask while a caller waits.
        "require_approval": "never",
    });
    if let Some(description) = &server.description {
        tool["server_description"] = json!(description);
    }
    if let Some(authorization) = &server.authorization {
        tool["authorization"] = json!(authorization);
    }
    if !server.headers.is_empty() {
        tool["headers"] = json!(server.headers);
    }
    if !server.allowed_tools.is_empty() {
        tool["allowed_tools"] = json!(server.allowed_tools);
    }
    tool
}

fn transcription(transcription: &Transcription) -> Value {
    let mut value = json!({ "model": transcription.model });
    if let Some(language) = &transcription.language {
        value["language"] = json!(language);
    }
    if !transcription.keywords.is_empty() {
        value["keywords"] = json!(transcription.keywords);
    }
    if let Some(prompt) = &transcription.prompt {
        value["prompt"] = json!(prompt);
    }
    value
}

fn noise_reduction(kind: NoiseReduction) -> Value {
    let kind = match kind {
        NoiseReduction::NearField => "near_field",
        NoiseReduction::FarField => "far_field",
    };
    json!({ "type": kind })
}

fn turn_detection(detection: &TurnDetection, turns: Turns) -> Value {
    let by_server = turns == Turns::Server;
    match detection {
        TurnDetection::ServerVad { threshold, prefix_padding_ms, silence_duration_ms, idle_timeout_ms } => json!({
            "type": "server_vad",
            "threshold": threshold,
            "prefix_padding_ms": prefix_padding_ms,
            "silence_duration_ms": silence_duration_ms,
            // It makes a response of its own, which nobody but the server may then make.
            "idle_timeout_ms": idle_timeout_ms.filter(|_| by_server),
            "create_response": by_server,
            "interrupt_response": by_server,
        }),
        TurnDetection::SemanticVad { eagerness } => json!({
            "type": "semantic_vad",
            "eagerness": match eagerness {
                Eagerness::Low => "low",
                Eagerness::Medium => "medium",
                Eagerness::High => "high",
                Eagerness::Auto => "auto",
            },
            "create_response": by_server,
            "interrupt_response": by_server,
        }),
    }
}

/// Something of a conversation's past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// The caller's words.
    Caller(String),
    /// The agent's words, as far as the caller heard them.
    Agent(String),
    /// What happened beside them, such as a tool's result.
    Note(String),
}

/// The events that give a new session the conversation so far. OpenAI has no resume: what is lost is the sound.
/// `broke_off`: the agent's last words did not reach the caller whole.
pub fn replay(past: &[Said], broke_off: bool) -> Vec<String> {
    let said = past.iter().map(|said| match said {
        Said::Caller(text) => (Voice::User, text),
        Said::Agent(text) => (Voice::Assistant, text),
        Said::Note(text) => (Voice::System, text),
    });
    let mut events: Vec<String> =
        said.filter(|(_, text)| !text.is_empty()).map(|(voice, text)| openai::text_item(voice, text)).collect();
    if !events.is_empty() {
        let steer = "This phone call has been going on; what was said so far is above. Go on with the conversation \
                     where it was. Do not greet the caller again, and do not speak of an interruption.";
        let go_on = " Your last words broke off before their end: go on from there.";
        events.push(openai::text_item(Voice::System, &format!("{steer}{}", if broke_off { go_on } else { "" })));
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREETING: Option<&str> = Some("Hello.");

    fn valid(settings: &Value) -> RealtimeSettings {
        let settings: RealtimeSettings = serde_json::from_value(settings.clone()).unwrap();
        assert_eq!(settings.faults(), [""; 0]);
        settings
    }

    fn updated(settings: &Value, model: &str) -> Value {
        let settings = valid(settings);
        let first = first_ask(GREETING, &settings.call);
        let update = update("Be kind.", &settings, &[], model, first.as_ref());
        let update: Value = serde_json::from_str(&update).unwrap();
        update["session"].clone()
    }

    #[test]
    fn formats_and_turn_detection_are_always_said() {
        let session = updated(&json!({ "voice": "marin" }), "gpt-realtime-2.1");
        let audio = &session["audio"];
        assert_eq!(audio["input"]["format"], json!({ "type": "audio/pcmu" }));
        assert_eq!(audio["output"]["format"], json!({ "type": "audio/pcmu" }));
        assert_eq!(audio["input"]["turn_detection"]["silence_duration_ms"], 500);
        assert_eq!(audio["input"]["turn_detection"]["interrupt_response"], true);
        assert_eq!(audio["input"]["transcription"], Value::Null);
        assert_eq!(session["instructions"], "Be kind.");
        assert_eq!(session.get("reasoning"), None);
    }

    #[test]
    fn settings_go_where_the_model_takes_them() {
        let settings = json!({
            "voice": "voice_1", "mcpServers": [{"label": "calendar", "url": "https://mcp.test", "authorization": "t"}],
            "transcription": {"model": "gpt-transcribe", "keywords": ["Invisalign"], "prompt": "A dentist."},
            "call": {"reasoningEffort": "minimal"},
        });
        let session = updated(&settings, "gpt-realtime-2.1");
        assert_eq!(session["audio"]["output"]["voice"], json!({"id": "voice_1"}));
        assert_eq!(session["reasoning"], json!({"effort": "minimal"}));
        assert_eq!(
            session["tools"],
            json!([{"type": "mcp", "server_label": "calendar", "server_url": "https://mcp.test", "authorization": "t",
                    "require_approval": "never"}])
        );
        assert_eq!(session["audio"]["input"]["transcription"]["keywords"], json!(["Invisalign"]));
        assert_eq!(updated(&settings, "gpt-realtime-1.5").get("reasoning"), None);
    }

    #[test]
    fn who_speaks_first_is_the_rules_to_say() {
        let first = |call: Value| {
            let settings = valid(&json!({ "voice": "marin", "call": call }));
            let first = first_ask(GREETING, &settings.call);
            let protection = protection(&settings, first.as_ref());
            (first, protection.is_some())
        };
        assert_eq!(first(json!({})), (Some(Ask::Say("Hello.".into())), false));
        assert_eq!(first(json!({"firstMessage": "generated"})), (Some(Ask::Turn), false));
        assert_eq!(first(json!({"firstMessage": "caller", "firstMessageInterruptible": false})), (None, false));
        assert_eq!(first(json!({"firstMessageInterruptible": false})), (Some(Ask::Say("Hello.".into())), true));
    }

    #[test]
    fn openai_stops_and_answers_unless_the_rules_want_more() {
        let switches = |settings: Value| {
            let detection = updated(&settings, "gpt-realtime-2.1")["audio"]["input"]["turn_detection"].clone();
            (detection["create_response"].clone(), detection["interrupt_response"].clone())
        };
        let both = |value: bool| (json!(value), json!(value));
        assert_eq!(switches(json!({"voice": "ash"})), both(true));
        assert_eq!(switches(json!({"voice": "ash", "call": {"interruptAfterWords": 2}})), both(false));
        let protected = json!({"voice": "ash", "call": {"firstMessageInterruptible": false}});
        assert_eq!(switches(protected.clone()), both(false));
        let settings = valid(&protected);
        let lift = protection(&settings, first_ask(GREETING, &settings.call).as_ref()).unwrap();
        let lift: Value = serde_json::from_str(&lift).unwrap();
        assert_eq!(lift["session"]["audio"]["input"]["turn_detection"]["create_response"], true);
    }

    #[test]
    fn a_call_can_begin_with_a_conversation() {
        let rules: CallRules = serde_json::from_value(json!({"opening": [
            {"role": "caller", "text": "I rang before."}, {"role": "assistant", "text": "Yes."}]}))
        .unwrap();
        let items: Vec<Value> = opening(&rules).map(|item| serde_json::from_str(&item).unwrap()).collect();
        let said_by: Vec<_> = items.iter().map(|item| item["item"]["role"].as_str().unwrap()).collect();
        assert_eq!(said_by, ["user", "assistant"]);
    }

    #[test]
    fn the_past_is_replayed_as_text_with_a_word_not_to_greet() {
        let past = [Said::Caller("Hi".into()), Said::Agent(String::new()), Said::Agent("Hello".into())];
        let events = replay(&past, false);
        let events: Vec<Value> = events.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
        let roles: Vec<_> = events.iter().map(|event| event["item"]["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["user", "assistant", "system"]);
        assert_eq!(events[1]["item"]["content"][0]["type"], "output_text");
        assert!(replay(&[], true).is_empty());
    }
}
