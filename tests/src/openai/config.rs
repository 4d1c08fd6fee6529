//! The session's configuration: its defaults, what an update changes, and what it may not change.

use std::time::Duration;

use serde_json::{Value, json};

use super::audio::Format;
use super::errors::ApiError;
use super::fields::check_fields;
use super::session_fields::SESSION;

/// What the rules of an update need to know of the session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Circumstances {
    /// The assistant has spoken.
    pub(super) has_spoken: bool,
    /// A response runs.
    pub(super) is_responding: bool,
}

/// How turns are found in the caller's audio.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum TurnDetection {
    /// By the client, with commits.
    Manual,
    /// By energy and silence.
    Server { threshold: f64, prefix_ms: u64, silence_ms: u64 },
    /// By guessing from what was said whether it is complete; the longest wait if it is not.
    Semantic { longest_wait_ms: u64 },
}

/// The effective configuration.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Config {
    session: Value,
}

impl Config {
    /// As in `session.created`: the defaults that the service's reference shows in its example.
    pub(super) fn new(session_id: &str, model: &str, expires_at: u64) -> Self {
        let mut session = json!({
            "type": "realtime",
            "object": "realtime.session",
            "id": session_id,
            "model": model,
            "output_modalities": ["audio"],
            "instructions": "You are a helpful, witty, and friendly AI. Act like a human, but remember that you \
                             aren't a human and that you can't do human things in the real world.",
            "tools": [],
            "tool_choice": "auto",
            "max_output_tokens": "inf",
            "tracing": null,
            "truncation": "auto",
            "prompt": null,
            "expires_at": expires_at,
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": 24000},
                    "transcription": null,
                    "noise_reduction": null,
                    "turn_detection": server_vad(),
                },
                "output": {
                    "format": {"type": "audio/pcm", "rate": 24000},
                    "voice": "marin",
                    "speed": 1.0,
                },
            },
            "include": null,
        });
        if is_reasoning(model) {
            session["reasoning"] = json!({"effort": "low"});
        }
        Self { session }
    }

    /// The whole of it, as `session.created` and `session.updated` carry it.
    pub(super) fn to_json(&self) -> &Value {
        &self.session
    }

    /// The configuration after an update; an update with any fault changes nothing.
    pub(super) fn updated(&self, update: &Value, now: Circumstances) -> Result<Self, ApiError> {
        if update.get("type").and_then(Value::as_str) == Some("transcription") {
            return Err(ApiError::request(
                "invalid_value",
                "Passing a transcription session update event to a realtime session is not allowed.",
            )
            .at("session.type"));
        }
        // An update without its type is refused for that, whatever else is wrong with it.
        if update.is_object() && update.get("type").is_none() {
            return Err(ApiError::missing_parameter("session.type"));
        }
        check_fields("session", update, SESSION)?;
        let mut next = self.clone();
        for (name, value) in update.as_object().into_iter().flatten() {
            match name.as_str() {
                "audio" => next.merge_audio(value),
                _ => next.session[name] = value.clone(),
            }
        }
        self.check_change(&next, now)?;
        next.check_models()?;
        Ok(next)
    }

    fn merge_audio(&mut self, audio: &Value) {
        for (name, value) in audio["input"].as_object().into_iter().flatten() {
            let current = &mut self.session["audio"]["input"][name];
            *current = match name.as_str() {
                "format" => with_rate(value),
                "noise_reduction" => merged(&json!({"type": "near_field", "strength": 1.0}), current, value),
                "turn_detection" if value["type"] == current["type"] => merged(&json!({}), current, value),
                "turn_detection" if value["type"] == "server_vad" => merged(&server_vad(), &Value::Null, value),
                "turn_detection" => merged(&semantic_vad(), &Value::Null, value),
                // The options of a transcription belong to its model.
                _ if value.get("model").is_none_or(|model| *model == current["model"]) => {
                    merged(&json!({}), current, value)
                }
                _ => value.clone(),
            };
        }
        for (name, value) in audio["output"].as_object().into_iter().flatten() {
            self.session["audio"]["output"][name] = if name == "format" { with_rate(value) } else { value.clone() };
        }
    }

    /// Rules on what may change, and when.
    fn check_change(&self, next: &Self, now: Circumstances) -> Result<(), ApiError> {
        let changes = |pointer: &str| self.session.pointer(pointer) != next.session.pointer(pointer);
        if changes("/model") {
            // The wording is ours.
            let message = "Cannot update the model of a session.";
            return Err(ApiError::request("cannot_update_model", message).at("session.model"));
        }
        if changes("/audio/output/voice") && now.has_spoken {
            return Err(ApiError::voice_locked());
        }
        if changes("/audio/output/speed") && now.is_responding {
            // The wording is ours.
            let message = "Cannot update a session's speed while a response is in progress.";
            return Err(ApiError::request("cannot_update_speed", message).at("session.audio.output.speed"));
        }
        if changes("/tracing") && !self.session["tracing"].is_null() {
            // The wording is ours.
            let message = "Cannot update tracing once it is enabled.";
            return Err(ApiError::request("cannot_update_tracing", message).at("session.tracing"));
        }
        Ok(())
    }

    /// Options that only some models know. Except for "Unknown parameter", the wording is ours.
    fn check_models(&self) -> Result<(), ApiError> {
        let model = self.session["model"].as_str().unwrap_or_default();
        for option in ["reasoning", "parallel_tool_calls"] {
            if !is_reasoning(model) && self.session.get(option).is_some() {
                return Err(unsupported(&format!("session.{option}"), model));
            }
        }
        for (at, tool) in self.session["tools"].as_array().into_iter().flatten().enumerate() {
            let is_reachable = ["server_url", "tunnel_id", "connector_id"].iter().any(|way| tool[way].is_string());
            if tool["type"] == "mcp" && !is_reachable {
                return Err(ApiError::missing_parameter(&format!("session.tools[{at}].server_url")));
            }
        }
        let input = &self.session["audio"]["input"];
        let Some(transcription) = input["transcription"].as_object() else { return Ok(()) };
        let path = |option: &str| format!("session.audio.input.transcription.{option}");
        let Some(model) = transcription.get("model").and_then(Value::as_str) else {
            return Err(ApiError::missing_parameter(&path("model")));
        };
        let supported: &[&str] = match model {
            "gpt-transcribe" | "gpt-live-transcribe" => &["language", "languages", "keywords", "prompt"],
            "gpt-realtime-whisper" => &["language", "delay"],
            _ => &["language", "prompt"],
        };
        for option in transcription.keys().filter(|option| *option != "model") {
            if !supported.contains(&option.as_str()) {
                return Err(unsupported(&path(option), model));
            }
        }
        if model == "gpt-realtime-whisper" && !input["turn_detection"].is_null() {
            return Err(unsupported("session.audio.input.turn_detection", model));
        }
        Ok(())
    }

    pub(super) fn input_format(&self) -> Format {
        Format::from_json(&self.session["audio"]["input"]["format"])
    }

    pub(super) fn output(&self) -> &Value {
        &self.session["audio"]["output"]
    }

    pub(super) fn turn_detection(&self) -> TurnDetection {
        let detection = &self.session["audio"]["input"]["turn_detection"];
        let number = |name: &str| detection[name].as_u64().unwrap_or_default();
        match detection["type"].as_str() {
            Some("server_vad") => TurnDetection::Server {
                threshold: detection["threshold"].as_f64().unwrap_or_default(),
                prefix_ms: number("prefix_padding_ms"),
                silence_ms: number("silence_duration_ms"),
            },
            Some(_) => TurnDetection::Semantic {
                longest_wait_ms: match detection["eagerness"].as_str() {
                    Some("low") => 8_000,
                    Some("high") => 2_000,
                    _ => 4_000,
                },
            },
            None => TurnDetection::Manual,
        }
    }

    /// A switch of turn detection, such as `create_response`.
    pub(super) fn turn_switch(&self, name: &str) -> bool {
        self.session["audio"]["input"]["turn_detection"][name] == true
    }

    pub(super) fn idle_timeout(&self) -> Option<Duration> {
        let timeout = &self.session["audio"]["input"]["turn_detection"]["idle_timeout_ms"];
        timeout.as_u64().map(Duration::from_millis)
    }

    /// The transcription model, when transcription is on.
    pub(super) fn transcription_model(&self) -> Option<&str> {
        self.session["audio"]["input"]["transcription"]["model"].as_str()
    }

    pub(super) fn wants_logprobs(&self) -> bool {
        self.session["include"].as_array().is_some_and(|include| !include.is_empty())
    }
}

fn server_vad() -> Value {
    json!({
        "type": "server_vad",
        "threshold": 0.5,
        "prefix_padding_ms": 300,
        "silence_duration_ms": 200,
        "idle_timeout_ms": null,
        "create_response": true,
        "interrupt_response": true,
    })
}

fn semantic_vad() -> Value {
    json!({
        "type": "semantic_vad",
        "eagerness": "auto",
        "create_response": true,
        "interrupt_response": true,
    })
}

/// `update` over `current` over `defaults`; `null` is "off".
fn merged(defaults: &Value, current: &Value, update: &Value) -> Value {
    if update.is_null() {
        return Value::Null;
    }
    let mut result = defaults.clone();
    for layer in [current, update] {
        for (name, value) in layer.as_object().into_iter().flatten() {
            result[name] = value.clone();
        }
    }
    result
}

fn with_rate(format: &Value) -> Value {
    let mut format = format.clone();
    if format["type"] == "audio/pcm" {
        format["rate"] = json!(24_000);
    }
    format
}

/// `gpt-realtime-2` and later, but not the dated names of the first model, such as `gpt-realtime-2025-08-28`.
fn is_reasoning(model: &str) -> bool {
    model
        .strip_prefix("gpt-realtime-")
        .and_then(|version| version.split(['.', '-']).next()?.parse::<u32>().ok())
        .is_some_and(|version| (2..1000).contains(&version))
}

fn unsupported(path: &str, model: &str) -> ApiError {
    let message = format!("Unsupported parameter: '{path}' is not supported with the '{model}' model.");
    ApiError::request("unsupported_parameter", message).at(path)
}
