//! The conversation: items in order, with the audio and the text that the model has of each.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use super::audio::{Decoder, Format, samples_in, whole_ms};
use super::client_events::decode_audio;
use super::errors::ApiError;

/// One item, as the server has it.
#[derive(Debug, Clone)]
pub struct Item {
    /// Chosen by the client, or made by the server.
    pub id: String,
    /// What it is.
    pub kind: ItemKind,
    /// `in_progress`, `completed` or `incomplete`.
    pub status: &'static str,
    /// Its audio at 8 kHz, as long as the model has it: truncation shortens it.
    pub audio: Vec<i16>,
    /// Where it was truncated, counted in its own audio.
    pub truncated_at_ms: Option<u64>,
    /// The name of the recording that the caller spoke, when it was recognised.
    pub clip: Option<String>,
}

/// The kinds of item.
#[derive(Debug, Clone, PartialEq)]
pub enum ItemKind {
    /// Audio committed from the input buffer.
    CallerSpeech {
        /// Once it was transcribed.
        transcript: Option<String>,
    },
    /// Audio that a response made. Truncation deletes the transcript.
    AgentSpeech {
        /// What was said.
        transcript: Option<String>,
    },
    /// Text that a response made, or a message that the client made.
    Message {
        /// `system`, `user` or `assistant`.
        role: String,
        /// Content parts; audio is in the item, not here.
        content: Vec<Value>,
    },
    /// A function call.
    Call {
        /// Of the function.
        name: String,
        /// What its output must name.
        call_id: String,
        /// JSON as text.
        arguments: String,
    },
    /// The result of a function call.
    CallOutput {
        /// Of the call.
        call_id: String,
        /// Free text.
        output: String,
    },
}

/// What the model knows of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// Empty where the model has audio only.
    pub text: String,
    /// Audio that it has.
    pub audio_ms: u64,
}

impl Item {
    pub(super) fn new(id: String, kind: ItemKind, status: &'static str) -> Self {
        Self { id, kind, status, audio: Vec::new(), truncated_at_ms: None, clip: None }
    }

    /// Its audio, in milliseconds.
    pub fn audio_ms(&self) -> u64 {
        whole_ms(self.audio.len())
    }

    /// Its text: transcript, message, or output of a call.
    pub fn text(&self) -> String {
        match &self.kind {
            ItemKind::CallerSpeech { transcript } | ItemKind::AgentSpeech { transcript } => {
                transcript.clone().unwrap_or_default()
            }
            ItemKind::Message { content, .. } => {
                let texts = content.iter().filter_map(|part| part["text"].as_str());
                texts.collect::<Vec<_>>().join(" ")
            }
            ItemKind::Call { arguments, .. } => arguments.clone(),
            ItemKind::CallOutput { output, .. } => output.clone(),
        }
    }

    fn role(&self) -> &str {
        match &self.kind {
            ItemKind::CallerSpeech { .. } => "user",
            ItemKind::AgentSpeech { .. } | ItemKind::Call { .. } => "assistant",
            ItemKind::Message { role, .. } => role,
            ItemKind::CallOutput { .. } => "tool",
        }
    }

    /// From a checked `item` of a client.
    pub(super) fn from_client(id: String, item: &Value, format: Format) -> Result<Self, ApiError> {
        let text = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
        let mut audio = Vec::new();
        let kind = match item["type"].as_str() {
            Some("function_call") => ItemKind::Call {
                name: text("name"),
                call_id: item["call_id"].as_str().map_or_else(|| id.clone(), str::to_owned),
                arguments: text("arguments"),
            },
            Some("function_call_output") => ItemKind::CallOutput { call_id: text("call_id"), output: text("output") },
            _ => {
                let mut content = item["content"].as_array().cloned().unwrap_or_default();
                for (at, part) in content.iter_mut().filter_map(Value::as_object_mut).enumerate() {
                    if let Some(Value::String(base64)) = part.remove("audio") {
                        let bytes = decode_audio(&format!("item.content[{at}].audio"), &base64)?;
                        audio.extend(Decoder::new(format).decode(&bytes));
                    }
                }
                ItemKind::Message { role: text("role"), content }
            }
        };
        Ok(Self { audio, ..Self::new(id, kind, "completed") })
    }

    /// As events carry it; with audio only in the answer to a retrieval.
    pub(super) fn to_json(&self, audio_as: Option<Format>) -> Value {
        let mut item = Map::new();
        item.insert("id".to_owned(), json!(self.id));
        item.insert("object".to_owned(), json!("realtime.item"));
        item.insert("status".to_owned(), json!(self.status));
        let own = match &self.kind {
            ItemKind::CallerSpeech { transcript } => {
                self.message("user", "input_audio", transcript.as_deref(), audio_as)
            }
            // Nothing generated yet.
            ItemKind::AgentSpeech { .. } if self.status == "in_progress" => {
                json!({"type": "message", "role": "assistant", "content": []})
            }
            ItemKind::AgentSpeech { transcript } => {
                self.message("assistant", "output_audio", transcript.as_deref(), audio_as)
            }
            ItemKind::Message { role, content } => {
                json!({"type": "message", "role": role, "content": content})
            }
            ItemKind::Call { name, call_id, arguments } => {
                json!({"type": "function_call", "name": name, "call_id": call_id, "arguments": arguments})
            }
            ItemKind::CallOutput { call_id, output } => {
                json!({"type": "function_call_output", "call_id": call_id, "output": output})
            }
        };
        if let Value::Object(own) = own {
            item.extend(own);
        }
        Value::Object(item)
    }

    fn message(&self, role: &str, kind: &str, transcript: Option<&str>, audio_as: Option<Format>) -> Value {
        let mut part = json!({"type": kind, "transcript": transcript});
        if let Some(format) = audio_as {
            part["audio"] = json!(BASE64_STANDARD.encode(format.encode(&self.audio)));
        }
        json!({"type": "message", "role": role, "content": [part]})
    }
}

/// The default conversation, and beside it the items of responses that were kept out of it.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    items: Vec<Item>,
    apart: Vec<Item>,
}

impl Conversation {
    pub(super) fn items(&self) -> &[Item] {
        &self.items
    }

    /// Any item, in the conversation or beside it.
    pub(super) fn item(&self, id: &str) -> Option<&Item> {
        self.items.iter().chain(&self.apart).find(|item| item.id == id)
    }

    pub(super) fn item_mut(&mut self, id: &str) -> Option<&mut Item> {
        self.items.iter_mut().chain(&mut self.apart).find(|item| item.id == id)
    }

    pub(super) fn listed(&self, id: &str) -> Option<&Item> {
        self.items.iter().find(|item| item.id == id)
    }

    pub(super) fn last_id(&self) -> Option<String> {
        self.items.last().map(|item| item.id.clone())
    }

    pub(super) fn id_before(&self, id: &str) -> Option<String> {
        let at = self.items.iter().position(|item| item.id == id)?;
        Some(self.items[at.checked_sub(1)?].id.clone())
    }

    pub(super) fn push(&mut self, item: Item) {
        self.items.push(item);
    }

    pub(super) fn push_apart(&mut self, item: Item) {
        self.apart.push(item);
    }

    /// `after` as in `previous_item_id`: `root` is the beginning, absent is the end.
    pub(super) fn insert(&mut self, item: Item, after: Option<&str>) -> Result<(), ApiError> {
        if self.item(&item.id).is_some() {
            // The wording is ours.
            let message = format!("Error creating item: an item with id '{}' already exists.", item.id);
            return Err(ApiError::request("item_create_duplicate_item_id", message).at("item.id"));
        }
        if let ItemKind::CallOutput { call_id, .. } = &item.kind
            && !self.has_call(call_id)
        {
            return Err(ApiError::unknown_call(call_id));
        }
        let at = match after {
            None => self.items.len(),
            Some("root") => 0,
            Some(id) => {
                let at = self.items.iter().position(|item| item.id == id);
                // The wording is ours.
                let message = || format!("Previous item with id '{id}' not found.");
                at.map(|at| at + 1).ok_or_else(|| {
                    ApiError::request("item_create_invalid_previous_item_id", message()).at("previous_item_id")
                })?
            }
        };
        self.items.insert(at, item);
        Ok(())
    }

    fn has_call(&self, wanted: &str) -> bool {
        self.items.iter().any(|item| matches!(&item.kind, ItemKind::Call { call_id, .. } if call_id == wanted))
    }

    pub(super) fn remove(&mut self, id: &str) -> Option<Item> {
        let at = self.items.iter().position(|item| item.id == id)?;
        Some(self.items.remove(at))
    }

    /// Cuts the assistant's audio and forgets its transcript. `undercount_ms` is by how much the service's own
    /// count of the audio is below what it sent.
    pub(super) fn truncate(
        &mut self,
        id: &str,
        content_index: u64,
        end_ms: u64,
        undercount_ms: u64,
    ) -> Result<(), ApiError> {
        let Some(item) = self.items.iter_mut().find(|item| item.id == id) else {
            return Err(ApiError::truncate_unknown_item(id));
        };
        let has_ms = item.audio_ms().saturating_sub(undercount_ms);
        let ItemKind::AgentSpeech { transcript } = &mut item.kind else {
            return Err(ApiError::truncate_without_audio());
        };
        if content_index != 0 || item.audio.is_empty() && item.truncated_at_ms.is_none() {
            return Err(ApiError::truncate_without_audio());
        }
        if end_ms > has_ms {
            return Err(ApiError::truncate_beyond(has_ms, end_ms));
        }
        *transcript = None;
        item.audio.truncate(samples_in(end_ms));
        item.truncated_at_ms = Some(end_ms);
        Ok(())
    }

    /// What the model has of the conversation.
    pub(super) fn memory(&self) -> Vec<Remembered> {
        self.items
            .iter()
            .map(|item| Remembered { role: item.role().to_owned(), text: item.text(), audio_ms: item.audio_ms() })
            .collect()
    }
}
