//! From an assistant and its tools to a draft and a report. Pure: the same input gives the same output.
//!
//! Each part below reads its fields and notes what became of each; the rules of `mapping` speak for all others. So every
//! field that is set is in the report once, whether or not anybody here has heard of it.

mod ending;
mod model;
mod opening;
mod speech;
mod tools;
mod turns;
mod voice;

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use shared::AssistantId;

use super::draft::{AgentDraft, canonical, without_nul};
use super::mapping;
use super::path::{Node, Path};
use super::report::{Ledger, Outcome, Report};
use crate::store::agents::realtime::{CallRules, RealtimeSettings};

/// What a person has decided beforehand.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The model for assistants that run on none of OpenAI's realtime models.
    pub model: Option<String>,
    /// OpenAI's voice for a voice of Vapi's, named `provider:voiceId`; `default` for assistants that name none.
    pub voices: BTreeMap<String, String>,
    /// Patterns of fields whose outcome is accepted, see [`Path::matches`].
    pub accepted: Vec<String>,
    /// Hosts that are Tandem itself: a server there is no tool's server.
    pub own_hosts: Vec<String>,
}

/// What Vapi has for the ids of tools; `None`: no such tool.
pub type Tools = BTreeMap<String, Option<Value>>;

/// What an import makes of an assistant.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversion {
    /// The assistant.
    pub assistant_id: AssistantId,
    /// The agent and its tools.
    pub draft: AgentDraft,
    /// What became of every field.
    pub report: Report,
}

/// An assistant that cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Vapi's answer is no assistant: it has no usable id")]
pub struct NoAssistant;

/// The ids of the tools that an assistant refers to, each once.
pub fn tool_ids(assistant: &Value) -> Vec<String> {
    let assistant = Node::new(Path::default(), assistant);
    let mut ids: Vec<String> =
        tools::references(&assistant).into_iter().filter_map(|(_, id)| id.text().map(str::to_owned)).collect();
    ids.sort();
    ids.dedup();
    ids
}

/// What the parts share.
struct Context<'a> {
    assistant: Node<'a>,
    assistant_id: &'a AssistantId,
    tools: &'a Tools,
    options: &'a Options,
    ledger: Ledger,
}

/// Makes a draft and a report of an assistant and the tools that it refers to.
pub fn convert(assistant: &Value, tools: &Tools, options: &Options) -> Result<Conversion, NoAssistant> {
    let assistant_id: AssistantId =
        assistant.get("id").and_then(Value::as_str).and_then(|id| id.parse().ok()).ok_or(NoAssistant)?;
    let mut context = Context {
        assistant: Node::new(Path::default(), assistant),
        assistant_id: &assistant_id,
        tools,
        options,
        ledger: Ledger::default(),
    };
    let draft = context.draft();
    let mut documents = vec![(context.assistant.clone(), mapping::ASSISTANT)];
    // Tools written in the assistant itself are below its own rules, which leave them to `tools`.
    for (id, tool) in tools {
        if let Some(tool) = tool {
            documents.push((Node::new(Path::tool(id), tool), mapping::TOOL));
        }
    }
    let report = context.ledger.report(&documents, &options.accepted);
    Ok(Conversion { assistant_id, draft, report })
}

impl Context<'_> {
    fn draft(&mut self) -> AgentDraft {
        let name = self.name();
        let metadata = self.metadata();
        let mut call = CallRules::default();
        let instructions = self.instructions(&mut call);
        let model = self.model(&mut call);
        let (voice, speed) = self.voice();
        let greeting = self.opening(&mut call);
        self.ending(&mut call);
        self.idle(&mut call);
        let turn_detection = self.turns(&mut call);
        let (noise_reduction, transcription) = self.ear();
        self.surroundings(&mut call);
        let tools = self.tools();
        AgentDraft {
            name,
            instructions,
            greeting,
            realtime: RealtimeSettings {
                model,
                voice,
                speed,
                turn_detection,
                noise_reduction,
                transcription: Some(transcription),
                mcp_servers: Vec::new(),
                call,
            },
            metadata,
            tools,
        }
    }

    fn name(&mut self) -> String {
        let named = self.assistant.get("name");
        let name = named.as_ref().and_then(Node::text).map(without_nul).filter(|name| !name.trim().is_empty());
        if let (Some(field), Some(name)) = (named, name) {
            self.ledger.note(&field, Outcome::carried());
            return name;
        }
        let start: String = self.assistant_id.as_str().chars().take(8).collect();
        let name = format!("Assistant {start}");
        self.ledger.note_default("name", "nothing", Outcome::carried_as(format!("the agent is named {name:?}")));
        name
    }

    fn metadata(&mut self) -> Map<String, Value> {
        let Some(metadata) = self.assistant.get("metadata") else { return Map::new() };
        let mut kept = Map::new();
        for (key, field) in metadata.members() {
            if holds_secret(key, field.value) {
                self.ledger.note_all(&field, &Outcome::lost("looks like a secret, and secrets are never copied"));
            } else {
                self.ledger.note_all(&field, &Outcome::carried_as("kept with the import"));
                kept.insert(without_nul(key), canonical(field.value));
            }
        }
        kept
    }
}

/// Whether a name, or one of the names below it, says that its value is a secret.
fn holds_secret(key: &str, value: &Value) -> bool {
    const SIGNS: [&str; 9] =
        ["secret", "token", "password", "passwd", "apikey", "credential", "authorization", "privatekey", "bearer"];
    let name: String = key.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    SIGNS.iter().any(|sign| name.contains(sign))
        || match value {
            Value::Object(members) => members.iter().any(|(key, value)| holds_secret(key, value)),
            Value::Array(items) => items.iter().any(|value| holds_secret("", value)),
            _ => false,
        }
}

/// A whole number of units out of a number of seconds, within bounds; `None`: not a number.
fn scaled(seconds: f64, per_second: f64, least: u32, most: u32) -> Option<u32> {
    let value = (seconds * per_second).round().clamp(f64::from(least), f64::from(most));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the bounds, which are u32")]
    (!value.is_nan()).then_some(value as u32)
}

#[cfg(test)]
mod tests;
