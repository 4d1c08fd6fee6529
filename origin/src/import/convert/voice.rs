//! The voice.

use super::Context;
use crate::import::mapping::{DEFAULT_VOICE, VOICES};
use crate::import::path::Node;
use crate::import::report::Outcome;

impl Context<'_> {
    /// OpenAI's voice and its speed. A voice of another provider is replaced, by a chosen one or by the default.
    pub(super) fn voice(&mut self) -> (String, f64) {
        let Some(voice) = self.assistant.get("voice") else {
            let (voice, outcome) = self.substitute("default");
            self.ledger.note_default("voice", "one of Vapi's own voices", outcome);
            return (voice, 1.0);
        };
        let provider = voice.get("provider").filter(|field| field.text().is_some());
        // Old assistants name the voice alone. Some providers number theirs.
        let id = if voice.value.is_string() { Some(voice.clone()) } else { voice.get("voiceId") };
        let id = id.filter(|id| id.value.is_string() || id.value.is_number());
        let provider_name = provider.as_ref().and_then(Node::text).unwrap_or_default();
        let id_name = id.as_ref().map(|id| id.text().map_or_else(|| id.value.to_string(), str::to_owned));
        let name = [provider_name, id_name.as_deref().unwrap_or_default()].join(":");
        let name = name.trim_matches(':');

        let chosen = self.options.voices.contains_key(name);
        let known = VOICES.iter().find(|known| id_name.as_deref() == Some(**known));
        let (chosen_voice, outcome) = match known {
            Some(known) if provider_name == "openai" && !chosen => ((*known).to_owned(), Outcome::carried()),
            _ => self.substitute(name),
        };
        for field in provider.iter().chain(&id) {
            self.ledger.note(field, outcome.clone());
        }
        let speed = voice.get("speed").and_then(|field| {
            let speed = field.number()?;
            let ours = (speed.clamp(0.25, 1.5) * 100.0).round() / 100.0;
            self.ledger.note(
                &field,
                if provider_name == "openai" && (ours - speed).abs() < 0.005 {
                    Outcome::carried()
                } else {
                    Outcome::approximated(format!("{ours}; OpenAI's voices go from 0.25 to 1.5"))
                },
            );
            Some(ours)
        });
        if provider_name == "openai" {
            for key in ["model", "cachingEnabled"] {
                if let Some(field) = voice.get(key) {
                    self.ledger.note_all(&field, &Outcome::approximated("the session's model speaks itself"));
                }
            }
            if let Some(field) = voice.get("chunkPlan") {
                self.ledger.note_all(&field, &Outcome::approximated("the session's model speaks itself, in one piece"));
            }
        }
        (chosen_voice, speed.unwrap_or(1.0))
    }

    fn substitute(&self, name: &str) -> (String, Outcome) {
        if let Some(voice) = self.options.voices.get(name) {
            return (voice.clone(), Outcome::approximated(format!("{voice}, as chosen with --voice")));
        }
        let name: String = name.chars().take(80).collect();
        let note = format!("{DEFAULT_VOICE}; callers hear another voice: choose it with --voice {name:?}=VOICE");
        (DEFAULT_VOICE.to_owned(), Outcome::choice(note))
    }
}
