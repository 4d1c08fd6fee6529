//! How the caller is heard, and what else is heard or pressed in a call.

use super::{Context, scaled};
use crate::import::draft::without_nul;
use crate::import::mapping::{Setting, TRANSCRIPTION_MODEL, default};
use crate::import::path::Node;
use crate::import::report::Outcome;
use crate::store::agents::realtime::call::Keypad;
use crate::store::agents::realtime::{CallRules, NoiseReduction, Transcription};

/// More would make the transcription slower than it helps.
const MAX_KEYWORDS: usize = 100;

impl Context<'_> {
    pub(super) fn ear(&mut self) -> (Option<NoiseReduction>, Transcription) {
        let new = self.assistant.at(&["backgroundSpeechDenoisingPlan", "smartDenoisingPlan", "enabled"]);
        let old = self.assistant.get("backgroundDenoisingEnabled");
        let fields: Vec<Node<'_>> = new.into_iter().chain(old).filter(|field| field.flag().is_some()).collect();
        let on = fields.first().and_then(Node::flag).unwrap_or(true);
        let reduction = on.then_some(NoiseReduction::NearField);
        let outcome =
            if on { Outcome::approximated("OpenAI's noise reduction, near field") } else { Outcome::carried() };
        for field in &fields {
            self.ledger.note(field, outcome.clone());
        }
        if fields.is_empty() {
            let path = "backgroundSpeechDenoisingPlan.smartDenoisingPlan.enabled";
            self.ledger.note_default(path, "smart denoising", outcome);
        }
        (reduction, self.transcription())
    }

    fn transcription(&mut self) -> Transcription {
        let transcriber = self.assistant.get("transcriber");
        let part = |key: &str| transcriber.as_ref().and_then(|transcriber| transcriber.get(key));
        let language = part("language").filter(|field| field.text().is_some());
        let code = language.as_ref().and_then(|field| iso_639_1(field.text().unwrap_or_default()));
        if let Some(field) = &language {
            self.ledger.note(
                field,
                match &code {
                    Some(code) if field.text() == Some(code) => Outcome::carried(),
                    Some(code) => Outcome::approximated(format!("`{code}`")),
                    None => Outcome::approximated("the language is recognised"),
                },
            );
        }
        let mut keywords = Vec::new();
        for list in ["keywords", "keyterm", "keytermsPrompt"].into_iter().filter_map(part) {
            for field in list.items() {
                let Some(text) = field.text() else { continue };
                // Deepgram's keywords may end in a weight: `Invisalign:2`.
                let word = match text.rsplit_once(':') {
                    Some((word, weight)) if weight.parse::<f64>().is_ok() => word,
                    _ => text,
                };
                let word = without_nul(word.trim());
                if word.is_empty() || keywords.len() == MAX_KEYWORDS {
                    self.ledger.note(&field, Outcome::approximated("left out: the list is full or the word empty"));
                    continue;
                }
                if !keywords.contains(&word) {
                    keywords.push(word);
                }
                self.ledger.note(&field, Outcome::setting(Setting::Keywords));
            }
        }
        Transcription { model: TRANSCRIPTION_MODEL.to_owned(), language: code, keywords, prompt: None }
    }

    /// Sounds, keys and the recording.
    pub(super) fn surroundings(&mut self, call: &mut CallRules) {
        match self.assistant.get("backgroundSound") {
            None => {
                call.background_sound = Some(default::BACKGROUND_SOUND.to_owned());
                let outcome = Outcome::setting(Setting::BackgroundSound);
                self.ledger.note_default("backgroundSound", "the sounds of an office", outcome);
            }
            Some(field) => match field.text() {
                Some("off") => self.ledger.note(&field, Outcome::carried()),
                Some(sound) if !sound.is_empty() => {
                    call.background_sound = Some(without_nul(sound));
                    self.ledger.note(&field, Outcome::setting(Setting::BackgroundSound));
                }
                _ => {}
            },
        }
        self.recording(call);
        self.keypad(call);
    }

    fn recording(&mut self, call: &mut CallRules) {
        let new = self.assistant.at(&["artifactPlan", "recordingEnabled"]);
        let old = self.assistant.get("recordingEnabled");
        let fields: Vec<Node<'_>> = new.into_iter().chain(old).filter(|field| field.flag().is_some()).collect();
        let on = fields.first().and_then(Node::flag).unwrap_or(true);
        call.recording = Some(on);
        let outcome = if on { Outcome::setting(Setting::Recording) } else { Outcome::carried() };
        for field in &fields {
            self.ledger.note(field, outcome.clone());
        }
        if fields.is_empty() {
            self.ledger.note_default("artifactPlan.recordingEnabled", "calls are recorded", outcome);
        }
    }

    fn keypad(&mut self, call: &mut CallRules) {
        let Some(plan) = self.assistant.get("keypadInputPlan") else { return };
        let Some(enabled) = plan.get("enabled").filter(|field| field.flag().is_some()) else {
            for field in ["timeoutSeconds", "delimiters"].into_iter().filter_map(|key| plan.get(key)) {
                self.ledger.note_all(&field, &Outcome::carried_as("means nothing while the keypad is off"));
            }
            return;
        };
        let on = enabled.flag() == Some(true);
        let outcome = if on {
            Outcome::setting(Setting::Keypad)
        } else {
            Outcome::approximated("keys reach the agent all the same, after a short pause")
        };
        self.ledger.note(&enabled, outcome.clone());
        let timeout = plan.get("timeoutSeconds");
        let timeout_ms = match timeout.as_ref() {
            Some(field) if field.text() == Some("off") => Some(None),
            Some(field) => field.number().map(|seconds| scaled(seconds, 1000.0, 0, 60_000)),
            None => Some(scaled(default::KEYPAD_TIMEOUT_SECONDS, 1000.0, 0, 60_000)),
        };
        if let (Some(field), Some(_)) = (&timeout, timeout_ms) {
            self.ledger.note(field, outcome.clone());
        }
        let mut delimiters = String::new();
        let given = plan.get("delimiters");
        // One key or a list of keys.
        let keys =
            given.iter().flat_map(|field| if field.value.is_array() { field.items() } else { vec![field.clone()] });
        for key in keys.filter(|key| matches!(key.text(), Some("#" | "*" | ""))) {
            self.ledger.note(&key, outcome.clone());
            delimiters.extend(key.text());
        }
        if on {
            call.keypad = Some(Keypad { timeout_ms: timeout_ms.flatten(), delimiters });
        }
    }
}

/// The two letters of a language tag such as `en-US`; `None` for `multi` and the like.
fn iso_639_1(tag: &str) -> Option<String> {
    let language = tag.split(['-', '_']).next().unwrap_or_default().to_ascii_lowercase();
    (language.len() == 2 && language.bytes().all(|byte| byte.is_ascii_lowercase())).then_some(language)
}
