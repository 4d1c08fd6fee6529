//! Who speaks first, and what.

use super::Context;
use crate::import::draft::without_nul;
use crate::import::mapping::Setting;
use crate::import::path::Node;
use crate::import::report::Outcome;
use crate::store::agents::realtime::CallRules;
use crate::store::agents::realtime::call::FirstMessage;

impl Context<'_> {
    /// The greeting, if the agent begins with one.
    pub(super) fn opening(&mut self, call: &mut CallRules) -> Option<String> {
        let message = self.assistant.get("firstMessage").filter(|field| field.text().is_some());
        let text = message.as_ref().and_then(Node::text).filter(|text| !text.trim().is_empty());
        let mode_field = self.assistant.get("firstMessageMode");
        let mode = match mode_field.as_ref().map(|field| field.text().unwrap_or_default()) {
            Some("assistant-waits-for-user") => Some(FirstMessage::Caller),
            Some("assistant-speaks-first-with-model-generated-message") => Some(FirstMessage::Generated),
            // As without a mode. What is not known here is not noted, so it counts as lost.
            _ => None,
        };
        let is_known = mode.is_some() || mode_field.as_ref().and_then(Node::text) == Some("assistant-speaks-first");
        if let Some(field) = mode_field.filter(|_| is_known) {
            let outcome = match mode {
                Some(FirstMessage::Generated) => Outcome::setting(Setting::FirstMessage),
                Some(FirstMessage::Caller) => Outcome::carried_as("the agent has no greeting"),
                _ => Outcome::carried(),
            };
            self.ledger.note(&field, outcome);
        }
        call.first_message = mode;

        let audio = text.is_some_and(|text| text.starts_with("https://") || text.starts_with("http://"));
        let greeting = text.filter(|_| mode.is_none() && !audio);
        if let Some(field) = &message {
            match (text, mode) {
                (Some(_), Some(_)) => {
                    self.ledger.note(field, Outcome::carried_as("not said at Vapi either, in this mode"));
                }
                (Some(_), None) if audio => {
                    self.ledger.note(field, Outcome::lost("a recording cannot be played; write the words instead"));
                }
                (Some(_), None) => {
                    self.ledger.note_text(field, Outcome::approximated("the model is asked to say exactly this"));
                }
                (None, _) => {}
            }
        }
        self.interruptions(call, greeting.is_some() || mode == Some(FirstMessage::Generated));
        greeting.map(without_nul)
    }

    fn interruptions(&mut self, call: &mut CallRules, speaks_first: bool) {
        let field = self.assistant.get("firstMessageInterruptionsEnabled").filter(|field| field.flag().is_some());
        match field.as_ref().and_then(|field| field.flag().map(|allowed| (field, allowed))) {
            // As it is without a rule.
            Some((field, true)) => self.ledger.note(field, Outcome::carried()),
            Some((field, false)) if !speaks_first => {
                self.ledger.note(field, Outcome::carried_as("the agent does not speak first"));
            }
            Some((field, false)) => {
                call.first_message_interruptible = Some(false);
                self.ledger.note(field, Outcome::setting(Setting::FirstMessageInterruptible));
            }
            None if speaks_first => {
                call.first_message_interruptible = Some(false);
                let outcome = Outcome::setting(Setting::FirstMessageInterruptible);
                self.ledger.note_default("firstMessageInterruptionsEnabled", "no interruptions", outcome);
            }
            None => {}
        }
    }
}
