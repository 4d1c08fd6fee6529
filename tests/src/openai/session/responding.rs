//! The model's side of a session: responses, from their creation to `response.done`.

use std::collections::VecDeque;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::Session;
use crate::openai::audio::{Format, whole_ms};
use crate::openai::conversation::{Item, ItemKind};
use crate::openai::errors::ApiError;
use crate::openai::plan::{Limits, Planned, Step, plan};
use crate::openai::record::Finished;
use crate::openai::script::{Ending, Reply};
use crate::openai::usage::{Tokens, usage};

/// A response under way.
#[derive(Debug)]
pub(super) struct Running {
    id: String,
    /// Out of band: its items are not in the default conversation.
    is_apart: bool,
    /// What it was created with, or the session's.
    settings: Settings,
    /// What is still to come, at times of the session.
    steps: VecDeque<Planned>,
    item_ids: Vec<String>,
    /// The item being generated is the last of `item_ids`.
    has_open_item: bool,
    /// The caller began to speak: stops then.
    interrupted_at: Option<Duration>,
    input: Tokens,
    audio_ms: u64,
}

/// The fields of a response that change on its way.
struct Progress<'a> {
    status: &'a str,
    details: &'a Value,
    output: Value,
    usage: Value,
}

#[derive(Debug)]
struct Settings {
    modalities: Value,
    format: Value,
    voice: Value,
    max_output_tokens: Value,
    metadata: Value,
}

impl Running {
    pub(super) fn next_due(&self) -> Option<Duration> {
        let step = self.steps.front().map(|planned| planned.due);
        self.interrupted_at.into_iter().chain(step).min()
    }

    fn is_text_only(&self) -> bool {
        self.settings.modalities[0] == "text"
    }

    /// `response` as events carry it.
    fn to_json(&self, progress: Progress<'_>, conversation_id: &str) -> Value {
        let Progress { status, details, output, usage } = progress;
        let conversation = (!self.is_apart).then_some(conversation_id);
        json!({
            "object": "realtime.response",
            "id": self.id,
            "status": status,
            "status_details": details,
            "output": output,
            "conversation_id": conversation,
            "output_modalities": self.settings.modalities,
            "max_output_tokens": self.settings.max_output_tokens,
            "audio": {"output": {"format": self.settings.format, "voice": self.settings.voice}},
            "usage": usage,
            "metadata": self.settings.metadata,
        })
    }
}

impl Session {
    /// The response that writes to the default conversation.
    pub(super) fn active(&self) -> Option<&Running> {
        self.running.iter().find(|response| !response.is_apart)
    }

    /// Creates a response; `overrides` as in `response.create`, null for one that turn detection makes.
    pub(super) fn start_response(&mut self, overrides: &Value) -> Result<(), ApiError> {
        let is_apart = overrides["conversation"] == "none";
        if let Some(active) = self.active().filter(|_| !is_apart) {
            return Err(ApiError::active_response(&active.id));
        }
        let settings = self.response_settings(overrides);
        if self.has_spoken && settings.voice != self.config.output()["voice"] {
            return Err(ApiError::voice_locked());
        }
        let input = self.input_tokens(overrides)?;
        let reply = self.next_reply(is_apart, overrides);
        let limits = Limits {
            is_text_only: settings.modalities[0] == "text",
            max_tokens: settings.max_output_tokens.as_u64(),
            speed: self.config.output()["speed"].as_f64().unwrap_or(1.0),
        };
        let mut steps: VecDeque<Planned> = plan(&reply, &self.behaviour.pace, limits).into();
        for planned in &mut steps {
            planned.due += self.now;
        }
        let response = Running {
            id: self.new_id("resp"),
            is_apart,
            settings,
            steps,
            item_ids: Vec::new(),
            has_open_item: false,
            interrupted_at: None,
            input,
            audio_ms: 0,
        };
        let progress = Progress { status: "in_progress", details: &Value::Null, output: json!([]), usage: Value::Null };
        let created = response.to_json(progress, &self.conversation_id());
        self.running.push(response);
        self.emit(json!({"type": "response.created", "response": created}));
        self.emit_rate_limits();
        Ok(())
    }

    fn response_settings(&self, overrides: &Value) -> Settings {
        let session = self.config.to_json();
        let or = |value: &Value, default: &Value| if value.is_null() { default.clone() } else { value.clone() };
        let output = &overrides["audio"]["output"];
        Settings {
            modalities: or(&overrides["output_modalities"], &session["output_modalities"]),
            format: or(&output["format"], &self.config.output()["format"]),
            voice: or(&output["voice"], &self.config.output()["voice"]),
            max_output_tokens: or(&overrides["max_output_tokens"], &session["max_output_tokens"]),
            metadata: overrides["metadata"].clone(),
        }
    }

    /// What the response reads: instructions, tools, and the conversation or its own `input`.
    fn input_tokens(&self, overrides: &Value) -> Result<Tokens, ApiError> {
        let session = self.config.to_json();
        let pick = |name: &str| overrides.get(name).unwrap_or(&session[name]);
        let instructions = Tokens::text(pick("instructions").as_str().unwrap_or_default());
        let tools: Tokens =
            pick("tools").as_array().into_iter().flatten().map(|tool| Tokens::text(&tool.to_string())).sum();
        let Some(input) = overrides["input"].as_array() else {
            let items: Tokens = self.conversation.items().iter().map(Tokens::of).sum();
            return Ok(instructions + tools + items);
        };
        let mut own = Tokens::default();
        for (at, item) in input.iter().enumerate() {
            let id = item["id"].as_str().unwrap_or_default();
            own = own
                + match self.conversation.listed(id).filter(|_| item["type"] == "item_reference") {
                    Some(item) => Tokens::of(item),
                    None if item["type"] == "item_reference" => {
                        // The wording is ours.
                        let message = format!("Item with item_id not found: {id}");
                        let error = ApiError::request("invalid_value", message);
                        return Err(error.at(format!("response.input[{at}].id")));
                    }
                    None => Tokens::of(&Item::from_client(String::new(), item, self.config.input_format())?),
                };
        }
        Ok(instructions + tools + own)
    }

    /// The next reply of the script, if the model could give it.
    fn next_reply(&mut self, is_apart: bool, overrides: &Value) -> Reply {
        let script = if is_apart { &mut self.start.replies_apart } else { &mut self.start.replies };
        let Some(reply) = script.pop_front() else { return self.behaviour.default_reply.clone() };
        let session = self.config.to_json();
        let tools = overrides.get("tools").unwrap_or(&session["tools"]);
        let choice = overrides.get("tool_choice").unwrap_or(&session["tool_choice"]);
        let knows = |name: &str| tools.as_array().into_iter().flatten().any(|tool| tool["name"] == name);
        let Some(name) = reply.called_tools().find(|name| *choice == "none" || !knows(name)) else {
            return reply;
        };
        let fault = format!("the model cannot call {name}: the session does not offer it");
        self.record.script_faults.push(fault);
        self.behaviour.default_reply.clone()
    }

    fn emit_rate_limits(&mut self) {
        let limit = self.behaviour.token_limit;
        let remaining = limit.saturating_sub(self.tokens_used);
        self.emit(json!({
            "type": "rate_limits.updated",
            "rate_limits": [
                {"name": "tokens", "limit": limit, "remaining": remaining, "reset_seconds": 0.5},
            ],
        }));
    }

    /// Carries out the step, or the interruption, that is due.
    pub(super) fn run_step(&mut self, due: Duration) {
        let Some(at) = self.running.iter().position(|response| response.next_due() == Some(due)) else {
            return;
        };
        let response = &mut self.running[at];
        if response.interrupted_at == Some(due) {
            return self.stop(at, "turn_detected");
        }
        let Some(Planned { step, .. }) = response.steps.pop_front() else { return };
        match step {
            Step::OpenMessage => self.open_message(at),
            Step::Transcript(text) => self.add_words(at, &text),
            Step::Audio(samples) => self.add_audio(at, &samples),
            Step::CloseMessage { is_whole } => {
                self.close_item(at, if is_whole { "completed" } else { "incomplete" });
            }
            Step::OpenCall { name } => {
                let call_id = self.new_id("call");
                self.open_item(at, ItemKind::Call { name, call_id, arguments: String::new() });
            }
            Step::Arguments(piece) => self.add_arguments(at, &piece),
            Step::CloseCall => self.close_item(at, "completed"),
            Step::Finish(ending) => self.finish(at, &details_of(&ending)),
        }
    }

    fn open_message(&mut self, at: usize) {
        let is_text_only = self.running[at].is_text_only();
        let kind = if is_text_only {
            ItemKind::Message { role: "assistant".to_owned(), content: Vec::new() }
        } else {
            ItemKind::AgentSpeech { transcript: None }
        };
        self.open_item(at, kind);
        let part =
            if is_text_only { json!({"type": "text", "text": ""}) } else { json!({"type": "audio", "transcript": ""}) };
        self.emit_part(at, "response.content_part.added", json!({"part": part}));
    }

    fn open_item(&mut self, at: usize, kind: ItemKind) {
        let item = Item::new(self.new_id("item"), kind, "in_progress");
        let id = item.id.clone();
        let response = &mut self.running[at];
        response.item_ids.push(id.clone());
        response.has_open_item = true;
        let is_apart = response.is_apart;
        let shown = item.to_json(None);
        if is_apart {
            self.conversation.push_apart(item);
        } else {
            self.conversation.push(item);
        }
        self.emit_output(at, "response.output_item.added", json!({"item": shown}));
        self.emit_item("conversation.item.added", &id);
    }

    fn add_words(&mut self, at: usize, words: &str) {
        let is_text_only = self.running[at].is_text_only();
        match self.open_item_mut(at) {
            Some(Item { kind: ItemKind::Message { content, .. }, .. }) => {
                let text = content.first().and_then(|part| part["text"].as_str()).unwrap_or_default();
                *content = vec![json!({"type": "output_text", "text": format!("{text}{words}")})];
            }
            // What was truncated stays forgotten, whatever still comes.
            Some(Item { kind: ItemKind::AgentSpeech { transcript }, truncated_at_ms: None, .. }) => {
                transcript.get_or_insert_default().push_str(words);
            }
            _ => {}
        }
        let kind = if is_text_only { "response.output_text.delta" } else { "response.output_audio_transcript.delta" };
        self.emit_part(at, kind, json!({"delta": words}));
    }

    fn add_audio(&mut self, at: usize, samples: &[i16]) {
        let format = Format::from_json(&self.running[at].settings.format);
        self.running[at].audio_ms += whole_ms(samples.len());
        self.has_spoken = true;
        if let Some(item) = self.open_item_mut(at).filter(|item| item.truncated_at_ms.is_none()) {
            item.audio.extend_from_slice(samples);
        }
        let delta = BASE64_STANDARD.encode(format.encode(samples));
        self.emit_part(at, "response.output_audio.delta", json!({"delta": delta}));
    }

    fn add_arguments(&mut self, at: usize, piece: &str) {
        let mut id_of_call = String::new();
        if let Some(Item { kind: ItemKind::Call { call_id, arguments, .. }, .. }) = self.open_item_mut(at) {
            arguments.push_str(piece);
            id_of_call.clone_from(call_id);
        }
        let delta = json!({"call_id": id_of_call, "delta": piece});
        self.emit_output(at, "response.function_call_arguments.delta", with_item(self.open_id(at), delta));
    }

    /// Ends the item being generated, with all its `.done` events.
    fn close_item(&mut self, at: usize, status: &'static str) {
        let Some(item) = self.open_item_mut(at) else { return };
        item.status = status;
        let item = item.clone();
        match &item.kind {
            ItemKind::Call { name, call_id, arguments } => {
                let done = json!({"call_id": call_id, "name": name, "arguments": arguments});
                let done = with_item(&item.id, done);
                self.emit_output(at, "response.function_call_arguments.done", done);
            }
            ItemKind::Message { .. } => {
                let text = item.text();
                self.emit_part(at, "response.output_text.done", json!({"text": text}));
                let part = json!({"part": {"type": "text", "text": text}});
                self.emit_part(at, "response.content_part.done", part);
            }
            _ => {
                let text = item.text();
                self.emit_part(at, "response.output_audio.done", json!({}));
                self.emit_part(at, "response.output_audio_transcript.done", json!({"transcript": text}));
                let part = json!({"part": {"type": "audio", "transcript": text}});
                self.emit_part(at, "response.content_part.done", part);
            }
        }
        self.emit_item("conversation.item.done", &item.id);
        self.emit_output(at, "response.output_item.done", json!({"item": item.to_json(None)}));
        self.running[at].has_open_item = false;
    }

    /// Ends a response before its time.
    fn stop(&mut self, at: usize, reason: &str) {
        self.close_item(at, "incomplete");
        self.finish(at, &json!({"type": "cancelled", "reason": reason}));
    }

    /// `details` are its `status_details`, whose `type` is its status.
    fn finish(&mut self, at: usize, details: &Value) {
        let response = self.running.remove(at);
        let items: Vec<&Item> = response.item_ids.iter().filter_map(|id| self.conversation.item(id)).collect();
        let output: Tokens = items.iter().map(|item| Tokens::of(item)).sum();
        let items: Value = items.iter().map(|item| item.to_json(None)).collect();
        let usage = usage(response.input, self.cached, output);
        let status = details["type"].as_str().unwrap_or_default();
        // A completed response shows no details.
        let shown = if status == "completed" { &Value::Null } else { details };
        let progress = Progress { status, details: shown, output: items, usage };
        let done = response.to_json(progress, &self.conversation_id());
        self.tokens_used += response.input.total() + output.total();
        if !response.is_apart {
            self.cached = response.input;
        }
        self.record.responses.push(Finished {
            id: response.id.clone(),
            status: status.to_owned(),
            reason: details["reason"].as_str().map(str::to_owned),
            metadata: response.settings.metadata.clone(),
            item_ids: response.item_ids.clone(),
        });
        self.emit(json!({"type": "response.done", "response": done}));
        if !response.is_apart {
            self.start_idle_timer(Duration::from_millis(response.audio_ms));
        }
    }

    pub(super) fn cancel_response(&mut self, id: Option<&str>) -> Result<(), ApiError> {
        let wanted = |response: &Running| match id {
            Some(id) => response.id == id,
            None => !response.is_apart,
        };
        let at = self.running.iter().position(wanted).ok_or_else(ApiError::nothing_to_cancel)?;
        self.stop(at, "client_cancelled");
        Ok(())
    }

    /// The caller began to speak. What is sent until the response stops is late.
    pub(super) fn interrupt(&mut self) {
        let stops_at = self.now + self.behaviour.pace.interruption;
        if let Some(response) = self.running.iter_mut().find(|response| !response.is_apart) {
            response.interrupted_at.get_or_insert(stops_at);
        }
        self.tick(self.now);
    }

    pub(super) fn finish_interrupted(&mut self) {
        if let Some(at) = self.running.iter().position(|response| response.interrupted_at.is_some()) {
            self.stop(at, "turn_detected");
        }
    }

    fn open_id(&self, at: usize) -> &str {
        self.running[at].item_ids.last().map_or("", String::as_str)
    }

    fn open_item_mut(&mut self, at: usize) -> Option<&mut Item> {
        let response = &self.running[at];
        let id = response.item_ids.last().filter(|_| response.has_open_item)?;
        self.conversation.item_mut(id)
    }

    /// An event of a response's output item.
    fn emit_output(&mut self, at: usize, kind: &str, mut event: Value) {
        let response = &self.running[at];
        event["type"] = json!(kind);
        event["response_id"] = json!(response.id);
        event["output_index"] = json!(response.item_ids.len().saturating_sub(1));
        self.emit(event);
    }

    /// An event of the one content part of a response's output item.
    fn emit_part(&mut self, at: usize, kind: &str, mut event: Value) {
        event["content_index"] = json!(0);
        let event = with_item(self.open_id(at), event);
        self.emit_output(at, kind, event);
    }
}

fn with_item(id: &str, mut event: Value) -> Value {
    event["item_id"] = json!(id);
    event
}

fn details_of(ending: &Ending) -> Value {
    match ending {
        Ending::Completed => json!({"type": "completed"}),
        Ending::Incomplete(reason) => json!({"type": "incomplete", "reason": reason}),
        Ending::Failed { kind, code, message } => json!({
            "type": "failed",
            "error": {"type": kind, "code": code, "message": message},
        }),
    }
}
