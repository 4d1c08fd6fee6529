//! What Vapi does itself and Tandem too: end the call, hand it over, press keys.

use serde_json::{Value, json};
use shared::E164;

use super::is_name;
use crate::import::convert::Context;
use crate::import::draft::{Target, ToolDraft, without_nul};
use crate::import::mapping::Setting;
use crate::import::path::Node;
use crate::import::report::Outcome;
use crate::store::tools::settings::{Destination, ToolSettings};

/// Long enough for Twilio to be asked.
const TIMEOUT_MS: u32 = 10_000;

impl Context<'_> {
    /// `endCall` and `dtmf`.
    pub(super) fn simple(&mut self, tool: &Node<'_>, kind: &str, id: Option<&str>) -> Option<ToolDraft> {
        let (target, setting) = match kind {
            "endCall" => (Target::EndCall, Setting::EndCallTool),
            _ => (Target::SendDtmf, Setting::DtmfTool),
        };
        let messages = self.messages(tool);
        let mut draft = self.builtin(tool, kind, id, target, setting)?;
        draft.settings.messages = messages;
        Some(draft)
    }

    pub(super) fn transfer(&mut self, tool: &Node<'_>, id: Option<&str>) -> Option<ToolDraft> {
        let mut destinations = Vec::new();
        for field in tool.get("destinations").map(|list| list.items()).unwrap_or_default() {
            match self.destination(&field) {
                Some(destination) => destinations.push(destination),
                None => self.ledger.note_all(&field, &Outcome::lost("only numbers and SIP addresses can be dialled")),
            }
        }
        if destinations.is_empty() {
            self.lose(tool, "it has no number or SIP address of its own: destinations are not asked of a server");
            return None;
        }
        let messages = self.messages(tool);
        let mut draft = self.builtin(tool, "transferCall", id, Target::TransferCall, Setting::TransferTool)?;
        set_destinations(&mut draft, destinations);
        draft.settings.messages = messages;
        Some(draft)
    }

    /// The tool under its own name, or under Vapi's, which prompts use.
    fn builtin(
        &mut self,
        tool: &Node<'_>,
        default_name: &str,
        id: Option<&str>,
        target: Target,
        setting: Setting,
    ) -> Option<ToolDraft> {
        let function = tool.get("function");
        let own = function.as_ref().and_then(|function| function.get("name"));
        let name = own.as_ref().and_then(Node::text).unwrap_or(default_name).to_owned();
        if !is_name(&name) {
            self.lose(tool, "OpenAI takes no function of this name");
            return None;
        }
        for field in tool.get("type").iter().chain(&own) {
            self.ledger.note(field, Outcome::setting(setting));
        }
        let description = function.as_ref().and_then(|function| self.description(function));
        if let Some(schema) = function.as_ref().and_then(|function| function.get("parameters")) {
            self.ledger.note_all(&schema, &Outcome::approximated("Tandem writes the arguments of its own tools"));
        }
        Some(bare(self.source(id, &name), name, description, target))
    }

    fn destination(&mut self, field: &Node<'_>) -> Option<Destination> {
        let kind = field.get("type")?;
        let description = field.get("description").filter(|field| field.text().is_some());
        // A text, or an object of which only a fixed text can be said.
        let message = field.get("message").filter(|field| field.text().is_some());
        let own = |node: &Option<Node<'_>>| node.as_ref().and_then(Node::text).map(without_nul);
        let destination = match kind.text()? {
            "number" => {
                let number_field = field.get("number")?;
                let number: E164 = number_field.text()?.parse().ok()?;
                let extension = field.get("extension").filter(|field| field.text().is_some());
                let caller_id = field.get("callerId").and_then(|field| Some((field.text()?.parse().ok()?, field)));
                let caller_field = caller_id.as_ref().map(|(_, field)| field.clone());
                for known in [&number_field].into_iter().chain(&extension).chain(&caller_field) {
                    self.ledger.note(known, Outcome::setting(Setting::TransferTool));
                }
                Destination::Number {
                    number,
                    extension: own(&extension),
                    caller_id: caller_id.map(|(number, _)| number),
                    description: own(&description),
                    message: own(&message),
                }
            }
            "sip" => {
                let uri = field.get("sipUri").filter(|uri| uri.text().is_some_and(|uri| uri.starts_with("sip")))?;
                self.ledger.note(&uri, Outcome::setting(Setting::TransferTool));
                let sip_uri = own(&Some(uri))?;
                Destination::Sip { sip_uri, description: own(&description), message: own(&message) }
            }
            _ => return None,
        };
        self.ledger.note(&kind, Outcome::setting(Setting::TransferTool));
        for text in description.iter().chain(&message) {
            self.ledger.note_text(text, Outcome::setting(Setting::TransferTool));
        }
        if let Some(check) = field.get("numberE164CheckEnabled").filter(|check| check.flag().is_some()) {
            self.ledger.note(&check, Outcome::carried_as("the number is of that form"));
        }
        if let Some(mode) = field.at(&["transferPlan", "mode"]).filter(|mode| mode.text() == Some("blind-transfer")) {
            self.ledger.note(&mode, Outcome::carried());
        }
        Some(destination)
    }

    /// Old assistants switch these tools on without writing them.
    pub(super) fn old_flags(&mut self, drafts: &mut Vec<ToolDraft>) {
        let flags = [
            ("endCallFunctionEnabled", "endCall", Target::EndCall, Setting::EndCallTool),
            ("dialKeypadFunctionEnabled", "dtmf", Target::SendDtmf, Setting::DtmfTool),
        ];
        for (key, name, target, setting) in flags {
            let Some(field) = self.assistant.get(key).filter(|field| field.flag().is_some()) else { continue };
            if field.flag() == Some(false) {
                self.ledger.note(&field, Outcome::carried());
            } else if drafts.iter().any(|draft| draft.name == name) {
                self.ledger.note(&field, Outcome::carried_as("the tool is there"));
            } else {
                drafts.push(bare(self.source(None, name), name.to_owned(), None, target));
                self.ledger.note(&field, Outcome::setting(setting));
            }
        }
        self.old_forwarding(drafts);
    }

    fn old_forwarding(&mut self, drafts: &mut Vec<ToolDraft>) {
        let one = self.assistant.get("forwardingPhoneNumber");
        let many = self.assistant.get("forwardingPhoneNumbers").map(|list| list.items()).unwrap_or_default();
        let mut destinations: Vec<Destination> = Vec::new();
        let taken = drafts.iter().any(|draft| draft.name == "transferCall");
        for field in one.into_iter().chain(many) {
            if taken {
                self.ledger.note_all(&field, &Outcome::lost("the assistant has a tool that transfers"));
            } else if let Some(number) = field.text().and_then(|text| text.parse().ok()) {
                let (extension, caller_id, description, message) = (None, None, None, None);
                destinations.push(Destination::Number { number, extension, caller_id, description, message });
                self.ledger.note(&field, Outcome::setting(Setting::TransferTool));
            } else if let Some(destination) = self.destination(&field) {
                destinations.push(destination);
            }
        }
        if !destinations.is_empty() {
            let source = self.source(None, "transferCall");
            let mut draft = bare(source, "transferCall".to_owned(), None, Target::TransferCall);
            set_destinations(&mut draft, destinations);
            drafts.push(draft);
        }
    }
}

fn bare(source: String, name: String, description: Option<String>, target: Target) -> ToolDraft {
    let (default, parameters) = match target {
        Target::SendDtmf => (
            "Press keys on the telephone's keypad.",
            json!({
                "type": "object",
                "properties": { "keys": { "type": "string", "description": "Digits, * and #; w waits half a second." } },
                "required": ["keys"],
            }),
        ),
        Target::TransferCall => ("Hand the caller over.", json!({ "type": "object", "properties": {} })),
        _ => ("End the call.", json!({ "type": "object", "properties": {} })),
    };
    let description = description.filter(|text| !text.trim().is_empty()).unwrap_or_else(|| default.to_owned());
    let settings = ToolSettings::default();
    ToolDraft { source, name, description, parameters, target, timeout_ms: TIMEOUT_MS, settings }
}

/// The destinations, for the tool to know and for the model to choose from.
fn set_destinations(draft: &mut ToolDraft, destinations: Vec<Destination>) {
    let (names, lines): (Vec<Value>, Vec<String>) = destinations
        .iter()
        .map(|destination| {
            let (name, description) = match destination {
                Destination::Number { number, description, .. } => (number.as_str(), description),
                Destination::Sip { sip_uri, description, .. } => (sip_uri.as_str(), description),
            };
            let line = description.as_ref().map_or_else(|| name.to_owned(), |text| format!("{name}: {text}"));
            (Value::from(name), line)
        })
        .unzip();
    let lines = lines.join("\n");
    draft.parameters = json!({
        "type": "object",
        "properties": { "destination": { "type": "string", "enum": names, "description": lines } },
        "required": ["destination"],
    });
    draft.settings.destinations = destinations;
}
