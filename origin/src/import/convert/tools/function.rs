//! Functions that a customer's server runs.

use std::collections::BTreeMap;

use reqwest::Url;
use serde_json::{Value, json};

use super::is_name;
use crate::import::convert::{Context, holds_secret, scaled};
use crate::import::draft::{Target, ToolDraft, canonical, without_nul};
use crate::import::mapping::{Setting, default};
use crate::import::path::Node;
use crate::import::report::Outcome;
use crate::store::tools::settings::{ToolMessage, ToolMoment, ToolSettings};

/// How long a tool may take, in milliseconds; the bounds of `tools.timeout_ms`.
const TIMEOUT_MS: (u32, u32) = (100, 60_000);

/// What a server's URL is good for.
enum Place {
    Usable(String),
    /// Usable without the user and password that it held.
    Stripped(String),
    Ours,
    Unusable,
}

impl Context<'_> {
    /// The assistant's own server: the target of tools without one.
    pub(super) fn server(&mut self) {
        for field in [self.assistant.at(&["server", "url"]), self.assistant.get("serverUrl")].into_iter().flatten() {
            let Some(url) = field.text() else { continue };
            let outcome = match self.place(url) {
                Place::Ours => Outcome::carried_as("Tandem itself: it knows of its own calls"),
                Place::Usable(_) | Place::Stripped(_) => Outcome::lost(
                    "the target of tools without a server of their own; of calls on OpenAI Realtime it hears nothing else",
                ),
                Place::Unusable => Outcome::lost("not a URL that can be called"),
            };
            self.ledger.note(&field, outcome);
        }
        if let Some(field) = self.assistant.at(&["server", "timeoutSeconds"])
            && field.number().is_some()
        {
            self.ledger.note(&field, Outcome::carried_as("for tools without a server of their own"));
        }
    }

    pub(super) fn function(&mut self, tool: &Node<'_>, id: Option<&str>) -> Option<ToolDraft> {
        let Some(function) = tool.get("function") else {
            self.lose(tool, "a function without a name");
            return None;
        };
        let draft = self.draft_of(tool, &function, id, tool.at(&["server", "url"]).as_ref())?;
        if let Some(kind) = tool.get("type") {
            self.ledger.note(&kind, Outcome::carried());
        }
        Some(draft)
    }

    /// A function of an old assistant: name, description, parameters and perhaps a URL, without a tool around it.
    pub(super) fn old_function(&mut self, function: &Node<'_>) -> Option<ToolDraft> {
        let draft = self.draft_of(function, function, None, function.get("serverUrl").as_ref());
        for leaf in function.leaves() {
            self.ledger.note_unless_noted(&leaf, |_| Outcome::lost("not of a function as Tandem knows it"));
        }
        draft
    }

    fn draft_of(
        &mut self,
        tool: &Node<'_>,
        function: &Node<'_>,
        id: Option<&str>,
        own_url: Option<&Node<'_>>,
    ) -> Option<ToolDraft> {
        let name_field = function.get("name").filter(|field| field.text().is_some_and(is_name));
        let Some((name_field, name)) = name_field.as_ref().and_then(|field| Some((field, field.text()?))) else {
            self.lose(tool, "OpenAI takes no function of this name, and its server would not know another");
            return None;
        };
        let url = match self.target(own_url) {
            Ok(url) => url,
            Err(why) => {
                self.lose(tool, why);
                return None;
            }
        };
        self.ledger.note(name_field, Outcome::carried());
        let description = self.description(function).unwrap_or_default();
        let parameters = self.schema(function);
        let settings = ToolSettings {
            static_arguments: self.static_arguments(tool),
            background: self.background(tool),
            messages: self.messages(tool),
            ..ToolSettings::default()
        };
        Some(ToolDraft {
            source: self.source(id, name),
            name: name.to_owned(),
            description,
            parameters,
            target: Target::Http { url },
            timeout_ms: self.timeout(tool, own_url.is_some()),
            settings,
        })
    }

    /// The URL of the tool's server, or else of the assistant's.
    fn target(&mut self, own: Option<&Node<'_>>) -> Result<String, &'static str> {
        let inherited = self.assistant.at(&["server", "url"]).or_else(|| self.assistant.get("serverUrl"));
        let Some(text) = own.or(inherited.as_ref()).and_then(Node::text) else {
            return Err("it has no server but the organisation's, which Vapi does not tell: make the tool by hand");
        };
        let (url, outcome) = match self.place(text) {
            Place::Usable(url) => (url, Outcome::carried()),
            Place::Stripped(url) => {
                (url, Outcome::choice("without its user and password: secrets are never copied; Tandem signs instead"))
            }
            Place::Ours => {
                return Err(
                    "its server is Tandem itself: the agent's tool of this name, if there is one, stays as it is",
                );
            }
            Place::Unusable => return Err("its server's URL cannot be called"),
        };
        if let Some(own) = own {
            self.ledger.note(own, outcome);
        }
        Ok(url)
    }

    fn place(&self, text: &str) -> Place {
        let Ok(mut url) = text.trim().parse::<Url>() else { return Place::Unusable };
        let templated = text.contains("{{") || text.contains("{%");
        let Some(host) = url.host_str().filter(|_| matches!(url.scheme(), "http" | "https") && !templated) else {
            return Place::Unusable;
        };
        // The webhook's path gives away a Tandem whose public name is not known here.
        if self.options.own_hosts.iter().any(|own| own == host) || url.path() == "/api/vapi/webhook" {
            return Place::Ours;
        }
        if url.username().is_empty() && url.password().is_none() {
            return Place::Usable(url.into());
        }
        match (url.set_username(""), url.set_password(None)) {
            (Ok(()), Ok(())) => Place::Stripped(url.into()),
            _ => Place::Unusable,
        }
    }

    fn schema(&mut self, function: &Node<'_>) -> Value {
        let nothing = json!({ "type": "object", "properties": {} });
        let Some(field) = function.get("parameters").filter(|field| field.value.is_object()) else { return nothing };
        self.ledger.note_all(&field, &Outcome::carried());
        let mut schema = canonical(field.value);
        // OpenAI refuses the whole session for a schema that is not of an object.
        let kind = schema.get("type").and_then(Value::as_str);
        if kind != Some("object") {
            let note = Outcome::choice("as an object: OpenAI takes no other arguments");
            self.ledger.note_all(&field, &note);
            schema["type"] = "object".into();
        }
        schema
    }

    /// Arguments that the model does not choose: `[{key, value}]`.
    fn static_arguments(&mut self, tool: &Node<'_>) -> BTreeMap<String, Value> {
        let mut arguments = BTreeMap::new();
        // A function of an old assistant has its schema here.
        for item in tool.get("parameters").map(|list| list.items()).unwrap_or_default() {
            let (Some(key), Some(value)) = (item.get("key"), item.get("value")) else { continue };
            let Some(name) = key.text() else { continue };
            if holds_secret(name, value.value) {
                let note = "looks like a secret, and secrets are never copied: have the tool's server add it";
                self.ledger.note_all(&item, &Outcome::lost(note));
                continue;
            }
            self.ledger.note(&key, Outcome::setting(Setting::StaticArguments));
            for leaf in value.leaves() {
                self.ledger.note_text(&leaf, Outcome::setting(Setting::StaticArguments));
            }
            arguments.insert(without_nul(name), canonical(value.value));
        }
        arguments
    }

    fn background(&mut self, tool: &Node<'_>) -> bool {
        let Some(field) = tool.get("async") else { return false };
        let Some(on) = field.flag() else { return false };
        self.ledger.note(&field, if on { Outcome::setting(Setting::Background) } else { Outcome::carried() });
        on
    }

    fn timeout(&mut self, tool: &Node<'_>, own: bool) -> u32 {
        let field = tool.at(&["server", "timeoutSeconds"]).filter(|field| field.number().is_some());
        let inherited = self.assistant.at(&["server", "timeoutSeconds"]).filter(|_| !own);
        let seconds = field.as_ref().or(inherited.as_ref()).and_then(Node::number);
        let seconds = seconds.unwrap_or(default::SERVER_TIMEOUT_SECONDS);
        let timeout = scaled(seconds, 1000.0, TIMEOUT_MS.0, TIMEOUT_MS.1).unwrap_or(TIMEOUT_MS.1);
        if let Some(field) = &field {
            let exact = (f64::from(timeout) - seconds * 1000.0).abs() < 0.5;
            let note = format!("{timeout} ms; a tool may take from 0.1 to 60 s");
            self.ledger.note(field, if exact { Outcome::carried() } else { Outcome::approximated(note) });
        }
        timeout
    }

    /// What is said while a tool runs. Messages without a fixed text are left to the rules.
    pub(super) fn messages(&mut self, tool: &Node<'_>) -> Vec<ToolMessage> {
        let mut messages = Vec::new();
        for message in tool.get("messages").map(|list| list.items()).unwrap_or_default() {
            let (Some(kind), Some(content)) = (message.get("type"), message.get("content")) else { continue };
            let when = match kind.text() {
                Some("request-start") => ToolMoment::Start,
                Some("request-response-delayed") => ToolMoment::Delayed,
                Some("request-complete") => ToolMoment::Complete,
                Some("request-failed") => ToolMoment::Failed,
                _ => continue,
            };
            let Some(text) = content.text().filter(|text| !text.trim().is_empty()) else { continue };
            let setting = || Outcome::setting(Setting::ToolMessages);
            self.ledger.note(&kind, setting());
            self.ledger.note_text(&content, setting());
            let delay = message.get("timingMilliseconds").filter(|field| field.number().is_some());
            let role = message.get("role").filter(|field| matches!(field.text(), Some("system" | "assistant")));
            let end = message.get("endCallAfterSpokenEnabled").filter(|field| field.flag().is_some());
            for field in delay.iter().chain(&role).chain(&end) {
                self.ledger.note(field, setting());
            }
            messages.push(ToolMessage {
                when,
                text: without_nul(text),
                after_ms: delay.and_then(|field| scaled(field.number()?, 1.0, 0, 600_000)),
                to_model: role.is_some_and(|role| role.text() == Some("system")),
                end_call: end.is_some_and(|end| end.flag() == Some(true)),
            });
        }
        messages
    }
}
