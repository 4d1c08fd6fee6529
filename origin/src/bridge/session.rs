//! An agent's configuration as the `session.update` that opens its calls.
//!
//! Source: OpenAI's API reference, "Realtime client events: session.update". The formats are fixed: mu-law both ways, so
//! that audio passes through undecoded. What was said before, in a call that is taken up again, follows as text items.

use serde_json::{Value, json};

use super::call::SESSION_EVENT_ID;
use super::transcript::Role;
use crate::store::agents::Agent;
use crate::store::agents::realtime::{Eagerness, NoiseReduction, RealtimeSettings, TurnDetection};
use crate::store::tools::Tool;

/// The `session.update` for an agent. OpenAI refuses the whole update for one field that it does not know.
pub fn update(agent: &Agent, settings: &RealtimeSettings, tools: &[Tool]) -> String {
    let tools: Vec<Value> = tools
        .iter()
        .map(|tool| {
            json!({
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
            })
        })
        .collect();
    json!({
        "type": "session.update",
        "event_id": SESSION_EVENT_ID,
        "session": {
            "type": "realtime",
            "output_modalities": ["audio"],
            "instructions": agent.instructions,
            "audio": {
                "input": {
                    "format": { "type": "audio/pcmu" },
                    "noise_reduction": settings.noise_reduction.map(noise_reduction),
                    "transcription": settings.transcription.as_ref().map(|transcription| {
                        let mut value = json!({ "model": transcription.model });
                        if let Some(language) = &transcription.language {
                            value["language"] = json!(language);
                        }
                        value
                    }),
                    "turn_detection": turn_detection(&settings.turn_detection),
                },
                "output": {
                    "format": { "type": "audio/pcmu" },
                    "voice": settings.voice,
                    "speed": settings.speed,
                },
            },
            "tools": tools,
            "tool_choice": "auto",
        },
    })
    .to_string()
}

fn noise_reduction(kind: NoiseReduction) -> Value {
    let kind = match kind {
        NoiseReduction::NearField => "near_field",
        NoiseReduction::FarField => "far_field",
    };
    json!({ "type": kind })
}

fn turn_detection(detection: &TurnDetection) -> Value {
    match detection {
        TurnDetection::ServerVad { threshold, prefix_padding_ms, silence_duration_ms, idle_timeout_ms } => json!({
            "type": "server_vad",
            "threshold": threshold,
            "prefix_padding_ms": prefix_padding_ms,
            "silence_duration_ms": silence_duration_ms,
            "idle_timeout_ms": idle_timeout_ms,
            "create_response": true,
            "interrupt_response": true,
        }),
        TurnDetection::SemanticVad { eagerness } => json!({
            "type": "semantic_vad",
            "eagerness": match eagerness {
                Eagerness::Low => "low",
                Eagerness::Medium => "medium",
                Eagerness::High => "high",
                Eagerness::Auto => "auto",
            },
            "create_response": true,
            "interrupt_response": true,
        }),
    }
}

/// The events that give a new session the conversation so far. OpenAI has no resume: what is lost is the sound.
pub fn replay<'a>(lines: impl IntoIterator<Item = (Role, &'a str)>) -> Vec<String> {
    let item = |role: &str, kind: &str, text: &str| {
        json!({
            "type": "conversation.item.create",
            "item": { "type": "message", "role": role, "content": [{ "type": kind, "text": text }] },
        })
        .to_string()
    };
    let mut events: Vec<String> = lines
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(role, text)| match role {
            Role::Caller => item("user", "input_text", text),
            Role::Assistant => item("assistant", "output_text", text),
        })
        .collect();
    if !events.is_empty() {
        let steer = "The phone line was interrupted for a moment and is back. Go on with the conversation where it \
                     was; do not greet the caller again.";
        events.push(item("system", "input_text", steer));
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_and_turn_detection_are_always_said() {
        let agent = Agent {
            id: shared::AgentId(uuid::Uuid::nil()),
            project_id: shared::ProjectId(uuid::Uuid::nil()),
            name: "Ana".into(),
            instructions: "Be kind.".into(),
            greeting: None,
            realtime: None,
            vapi_assistant_id: None,
            fallback_number: None,
            system_type: shared::SystemType::OpenaiRealtime,
            switched_at: None,
        };
        let settings: RealtimeSettings = serde_json::from_value(json!({ "voice": "marin" })).unwrap();
        let update: Value = serde_json::from_str(&update(&agent, &settings, &[])).unwrap();
        let audio = &update["session"]["audio"];
        assert_eq!(audio["input"]["format"], json!({ "type": "audio/pcmu" }));
        assert_eq!(audio["output"]["format"], json!({ "type": "audio/pcmu" }));
        assert_eq!(audio["input"]["turn_detection"]["silence_duration_ms"], 500);
        assert_eq!(audio["input"]["turn_detection"]["interrupt_response"], true);
        assert_eq!(audio["input"]["transcription"], Value::Null);
        assert_eq!(update["session"]["instructions"], "Be kind.");
    }

    #[test]
    fn the_past_is_replayed_as_text_with_a_word_not_to_greet() {
        let events = replay([(Role::Caller, "Hi"), (Role::Assistant, ""), (Role::Assistant, "Hello")]);
        let events: Vec<Value> = events.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
        let roles: Vec<_> = events.iter().map(|event| event["item"]["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["user", "assistant", "system"]);
        assert_eq!(events[1]["item"]["content"][0]["type"], "output_text");
        assert!(replay([]).is_empty());
    }
}
