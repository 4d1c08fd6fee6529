//! Taking turns: when the agent begins to speak and when it stops.

use super::{Context, scaled};
use crate::import::mapping::default;
use crate::import::path::Node;
use crate::import::report::Outcome;
use crate::store::agents::realtime::{CallRules, Eagerness, TurnDetection};

impl Context<'_> {
    /// OpenAI's turn detection: semantic where Vapi's was smart, else by as much silence as Vapi waited for.
    pub(super) fn turns(&mut self, call: &mut CallRules) -> TurnDetection {
        self.interruption(call);
        let plan = self.assistant.get("startSpeakingPlan");
        let part = |key: &str| plan.as_ref().and_then(|plan| plan.get(key));
        let provider = plan.as_ref().and_then(|plan| plan.at(&["smartEndpointingPlan", "provider"]));
        let enabled = part("smartEndpointingEnabled");
        let old = self.assistant.get("responseDelaySeconds");
        let wait = part("waitSeconds").into_iter().chain(old).find(|field| field.number().is_some());
        let after_sentence =
            plan.as_ref().and_then(|plan| plan.at(&["transcriptionEndpointingPlan", "onPunctuationSeconds"]));
        let after_sentence = after_sentence.filter(|field| field.number().is_some());

        // `smartEndpointingEnabled` is a yes or no, or the name of a provider.
        let is_smart = |field: &Node<'_>| field.flag() == Some(true) || field.text().is_some_and(|name| name != "off");
        let smart = provider.as_ref().is_some_and(|provider| provider.text().is_some_and(|name| name != "off"))
            || enabled.as_ref().is_some_and(is_smart);
        let known = enabled.filter(|field| field.flag().is_some() || field.text().is_some());
        let smart_fields = provider.filter(|field| field.text().is_some()).into_iter().chain(known);
        let waits: Vec<Node<'_>> = wait.iter().chain(&after_sentence).cloned().collect();
        if smart {
            for field in smart_fields {
                self.ledger.note(&field, Outcome::approximated("semantic turn detection, eagerness auto"));
            }
            for field in waits {
                self.ledger.note(&field, Outcome::approximated("semantic turn detection waits by itself"));
            }
            return TurnDetection::SemanticVad { eagerness: Eagerness::Auto };
        }
        for field in smart_fields {
            self.ledger.note(&field, Outcome::carried());
        }
        let number = |field: Option<&Node<'_>>, default: f64| field.and_then(Node::number).unwrap_or(default);
        let seconds = number(wait.as_ref(), default::WAIT_SECONDS)
            + number(after_sentence.as_ref(), default::ON_PUNCTUATION_SECONDS);
        let silence = scaled(seconds, 1000.0, 100, 5_000).unwrap_or(500);
        let note = format!("{silence} ms of silence end a turn");
        for field in &waits {
            self.ledger.note(field, Outcome::approximated(note.clone()));
        }
        if waits.is_empty() {
            let does = "waits 0.4 s, and 0.1 to 1.5 s more by punctuation";
            self.ledger.note_default("startSpeakingPlan", does, Outcome::approximated(note));
        }
        match TurnDetection::default() {
            TurnDetection::ServerVad { threshold, prefix_padding_ms, idle_timeout_ms, .. } => {
                TurnDetection::ServerVad { threshold, prefix_padding_ms, silence_duration_ms: silence, idle_timeout_ms }
            }
            semantic @ TurnDetection::SemanticVad { .. } => semantic,
        }
    }

    fn interruption(&mut self, call: &mut CallRules) {
        let new = self.assistant.at(&["stopSpeakingPlan", "numWords"]);
        let old = self.assistant.get("numWordsToInterruptAssistant");
        let fields: Vec<Node<'_>> = new.into_iter().chain(old).filter(|field| field.number().is_some()).collect();
        for (position, field) in fields.iter().enumerate() {
            let words = field.number().and_then(|words| scaled(words, 1.0, 0, 10)).unwrap_or(0);
            let outcome = match (position, words) {
                (1.., _) => Outcome::carried_as("stopSpeakingPlan.numWords comes before it"),
                (0, 0) => Outcome::carried(),
                (0, words) => {
                    call.interrupt_after_words = Some(words);
                    // OpenAI tells of sound while somebody speaks, and of words only afterwards.
                    Outcome::approximated("the agent falls silent after 0.4 s of speech for each word")
                }
            };
            self.ledger.note(field, outcome);
        }
    }
}
