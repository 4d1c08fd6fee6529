//! Tools: those that an assistant refers to, those written in it, and the functions of old assistants.

mod builtin;
mod function;

use super::Context;
use crate::import::draft::ToolDraft;
use crate::import::mapping::{LOST_TOOLS, TOOL};
use crate::import::path::{Node, Path};
use crate::import::report::Outcome;

/// What OpenAI takes as the name of a function: this many of `A-Z`, `a-z`, `0-9`, `_` and `-`.
const MAX_NAME: usize = 64;
/// What OpenAI takes as the description of a function, in characters.
const MAX_DESCRIPTION: usize = 1_000;

/// The fields that refer to tools, and the ids in them.
pub(super) fn references<'a>(assistant: &Node<'a>) -> Vec<(Node<'a>, Node<'a>)> {
    let list = |key: &str| assistant.at(&["model", key]).map(|list| list.items()).unwrap_or_default();
    let pinned = list("toolRefs").into_iter().filter_map(|item| Some((item.clone(), item.get("toolId")?)));
    let plain = list("toolIds").into_iter().map(|item| (item.clone(), item));
    pinned.chain(plain).filter(|(_, id)| id.text().is_some()).collect()
}

impl Context<'_> {
    pub(super) fn tools(&mut self) -> Vec<ToolDraft> {
        self.server();
        let mut drafts: Vec<ToolDraft> = Vec::new();
        let mut seen = Vec::new();
        let tools = self.tools;
        for (_, field) in references(&self.assistant) {
            let id = field.text().unwrap_or_default();
            let Some(tool) = tools.get(id).and_then(Option::as_ref) else {
                self.ledger.note(&field, Outcome::lost("Vapi has no such tool: at Vapi, it fails the call"));
                continue;
            };
            self.ledger.note(&field, Outcome::carried_as("see the fields of the tool"));
            if !seen.contains(&id) {
                seen.push(id);
                self.tool(&Node::new(Path::tool(id), tool), Some(id), &mut drafts);
            }
        }
        for tool in self.assistant.at(&["model", "tools"]).map(|list| list.items()).unwrap_or_default() {
            self.tool(&tool, None, &mut drafts);
        }
        for function in self.assistant.at(&["model", "functions"]).map(|list| list.items()).unwrap_or_default() {
            let draft = self.old_function(&function);
            self.keep(draft, &function, &mut drafts);
        }
        self.old_flags(&mut drafts);
        drafts
    }

    fn tool(&mut self, tool: &Node<'_>, id: Option<&str>, drafts: &mut Vec<ToolDraft>) {
        let kind = tool.get("type").and_then(|kind| kind.text().map(str::to_owned)).unwrap_or_default();
        let draft = match kind.as_str() {
            "function" => self.function(tool, id),
            "transferCall" => self.transfer(tool, id),
            "endCall" | "dtmf" => self.simple(tool, &kind, id),
            _ => {
                let known = LOST_TOOLS.iter().find(|(lost, _)| *lost == kind);
                self.lose(tool, known.map_or("Tandem does not know this kind of tool", |(_, why)| why));
                None
            }
        };
        self.keep(draft, tool, drafts);
        self.by_rules(tool);
    }

    /// Notes of all a tool's fields that it is lost, but for bookkeeping.
    fn lose(&mut self, tool: &Node<'_>, why: &'static str) {
        const BOOKKEEPING: [&str; 6] =
            ["id", "orgId", "createdAt", "updatedAt", "isServerUrlSecretSet", "latestVersion"];
        for (_, field) in tool.members().into_iter().filter(|(key, _)| !BOOKKEEPING.contains(key)) {
            self.ledger.note_all(&field, &Outcome::lost(why));
        }
    }

    /// The rules for tools, on one that stands in the assistant: its fields are in the assistant's document.
    fn by_rules(&mut self, tool: &Node<'_>) {
        for leaf in tool.leaves() {
            self.ledger.note_unless_noted(&leaf, |leaf| crate::import::mapping::outcome(TOOL, leaf, tool.path.depth()));
        }
    }

    /// Adds a tool, unless the agent has one of that name: the model could not tell them apart.
    fn keep(&mut self, draft: Option<ToolDraft>, tool: &Node<'_>, drafts: &mut Vec<ToolDraft>) {
        let Some(draft) = draft else { return };
        if drafts.iter().any(|other| other.name == draft.name) {
            self.lose(tool, "the assistant has another tool of this name");
        } else {
            drafts.push(draft);
        }
    }

    /// What a tool is known by from import to import.
    fn source(&self, id: Option<&str>, name: &str) -> String {
        id.map_or_else(|| format!("assistant:{}/{name}", self.assistant_id), |id| format!("tool:{id}"))
    }

    /// The description of a function, no longer than OpenAI takes.
    fn description(&mut self, function: &Node<'_>) -> Option<String> {
        let field = function.get("description")?;
        let text = field.text()?;
        let short: String = text.chars().filter(|c| *c != '\0').take(MAX_DESCRIPTION).collect();
        let outcome = if text.chars().count() > MAX_DESCRIPTION {
            Outcome::choice(format!("cut to {MAX_DESCRIPTION} characters, which is all that OpenAI takes"))
        } else {
            Outcome::carried()
        };
        self.ledger.note_text(&field, outcome);
        Some(short)
    }
}

/// Whether OpenAI takes this as the name of a function.
fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}
