//! The model and what it is told.

use super::Context;
use crate::import::draft::without_nul;
use crate::import::mapping::{MODELS, Setting};
use crate::import::path::Node;
use crate::import::report::Outcome;
use crate::store::agents::realtime::call::{OpeningItem, OpeningRole, ReasoningEffort};
use crate::store::agents::realtime::{CallRules, is_reasoning_model};

impl Context<'_> {
    /// The system messages as one text. What else is in the conversation before it begins goes to the rules.
    pub(super) fn instructions(&mut self, call: &mut CallRules) -> String {
        let mut parts = Vec::new();
        if let Some(prompt) = self.assistant.at(&["model", "systemPrompt"])
            && let Some(text) = prompt.text()
        {
            parts.push(text);
            self.ledger.note_text(&prompt, Outcome::carried());
        }
        let messages = self.assistant.at(&["model", "messages"]).map(|list| list.items()).unwrap_or_default();
        for message in messages {
            let (Some(role), Some(content)) = (message.get("role"), message.get("content")) else { continue };
            let Some(text) = content.text() else { continue };
            let outcome = match role.text() {
                Some("system" | "developer") => {
                    parts.push(text);
                    Outcome::carried()
                }
                Some("user") => {
                    call.opening.push(OpeningItem { role: OpeningRole::Caller, text: without_nul(text) });
                    Outcome::setting(Setting::Opening)
                }
                Some("assistant" | "bot") => {
                    call.opening.push(OpeningItem { role: OpeningRole::Assistant, text: without_nul(text) });
                    Outcome::setting(Setting::Opening)
                }
                _ => continue,
            };
            self.ledger.note(&role, outcome.clone());
            self.ledger.note_text(&content, outcome);
        }
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.trim().is_empty()).collect();
        if parts.is_empty() {
            let missing = "the agent has no instructions and cannot be switched until it has";
            self.ledger.note_default("model.messages", "nothing", Outcome::lost(missing));
        }
        without_nul(&parts.join("\n\n"))
    }

    /// A realtime model, or none for the origin's own.
    pub(super) fn model(&mut self, call: &mut CallRules) -> Option<String> {
        let provider = self.assistant.at(&["model", "provider"]);
        let named = self.assistant.at(&["model", "model"]);
        let chosen = self.options.model.clone();

        let openai = provider.as_ref().and_then(Node::text) == Some("openai");
        let name = named.as_ref().and_then(Node::text);
        let ours = MODELS.iter().find(|(theirs, _)| openai && name == Some(*theirs)).map(|(_, ours)| *ours);
        let (model, outcome) = match (ours, chosen) {
            (Some(ours), _) if name == Some(ours) => (Some(ours.to_owned()), Outcome::carried()),
            (Some(ours), _) => (Some(ours.to_owned()), Outcome::approximated(format!("{ours}, its successor"))),
            (None, Some(chosen)) => {
                let note = format!("{chosen}, as chosen with --model");
                (Some(chosen), Outcome::approximated(note))
            }
            (None, None) => {
                let note = "the origin's OPENAI_MODEL: realtime models speak themselves; choose one with --model";
                (None, Outcome::choice(note))
            }
        };
        if let Some(field) = self.assistant.at(&["model", "reasoningEffort"])
            && let Some(effort) = field.text().and_then(effort)
        {
            if model.as_deref().is_none_or(is_reasoning_model) {
                call.reasoning_effort = Some(effort);
                self.ledger.note(&field, Outcome::setting(Setting::ReasoningEffort));
            } else {
                self.ledger.note(&field, Outcome::carried_as("the model does not reason"));
            }
        }
        let fields: Vec<Node<'_>> = provider.into_iter().chain(named).filter(|field| field.text().is_some()).collect();
        if fields.is_empty() {
            self.ledger.note_default("model", "a text model", outcome);
        } else {
            for field in &fields {
                self.ledger.note(field, outcome.clone());
            }
        }
        model
    }
}

fn effort(name: &str) -> Option<ReasoningEffort> {
    Some(match name {
        "minimal" => ReasoningEffort::Minimal,
        "low" => ReasoningEffort::Low,
        "medium" => ReasoningEffort::Medium,
        "high" => ReasoningEffort::High,
        "xhigh" => ReasoningEffort::Xhigh,
        _ => return None,
    })
}
