//! What ends a call, and what is said to a caller who says nothing.

use super::{Context, scaled};
use crate::import::draft::without_nul;
use crate::import::mapping::{Setting, default};
use crate::import::path::Node;
use crate::import::report::Outcome;
use crate::store::agents::realtime::CallRules;
use crate::store::agents::realtime::call::Idle;

impl Context<'_> {
    pub(super) fn ending(&mut self, call: &mut CallRules) {
        let limit = self.seconds("maxDurationSeconds", Setting::MaxDuration, (10, 43_200));
        call.max_duration_seconds = Some(limit.unwrap_or_else(|| {
            self.ledger.note_default("maxDurationSeconds", "600 s", Outcome::setting(Setting::MaxDuration));
            default::MAX_DURATION_SECONDS
        }));
        let silence = self.seconds("silenceTimeoutSeconds", Setting::SilenceTimeout, (5, 3_600));
        call.silence_timeout_seconds = Some(silence.unwrap_or_else(|| {
            self.ledger.note_default("silenceTimeoutSeconds", "30 s", Outcome::setting(Setting::SilenceTimeout));
            default::SILENCE_TIMEOUT_SECONDS
        }));
        if let Some(field) = self.assistant.get("endCallMessage")
            && let Some(text) = field.text().filter(|text| !text.trim().is_empty())
        {
            call.end_call_message = Some(without_nul(text));
            self.ledger.note_text(&field, Outcome::setting(Setting::EndCallMessage));
        }
        for field in self.assistant.get("endCallPhrases").map(|list| list.items()).unwrap_or_default() {
            if let Some(text) = field.text().map(without_nul).filter(|text| !text.trim().is_empty()) {
                call.end_call_phrases.push(text);
                self.ledger.note_text(&field, Outcome::setting(Setting::EndCallPhrases));
            }
        }
    }

    fn seconds(&mut self, key: &str, setting: Setting, (least, most): (u32, u32)) -> Option<u32> {
        let field = self.assistant.get(key)?;
        let given = field.number()?;
        let seconds = scaled(given, 1.0, least, most)?;
        let outcome = Outcome::setting(setting);
        let exact = (f64::from(seconds) - given).abs() < f64::EPSILON;
        self.ledger.note(&field, if exact { outcome } else { outcome.and(&format!("as {seconds} s")) });
        Some(seconds)
    }

    /// Idle messages: of the hook on the caller's silence, or of old assistants' plan. The first there is counts.
    pub(super) fn idle(&mut self, call: &mut CallRules) {
        for hook in self.assistant.get("hooks").map(|list| list.items()).unwrap_or_default() {
            let on = hook.get("on").and_then(|on| on.text().map(str::to_owned)).unwrap_or_default();
            let said = if on == "customer.speech.timeout" && call.idle.is_none() { said(&hook) } else { None };
            let Some(said) = said else {
                let note = match on.as_str() {
                    "customer.speech.timeout" => {
                        "only one hook on silence, which says fixed words, can be carried over"
                    }
                    "" => "a hook without an event",
                    _ => "there are no hooks on this event",
                };
                self.ledger.note_all(&hook, &Outcome::lost(note));
                continue;
            };
            let options = hook.get("options");
            let option = |key: &str| options.as_ref().and_then(|options| options.get(key));
            call.idle = Some(Idle {
                after_ms: milliseconds(option("timeoutSeconds").as_ref()),
                times: times(option("triggerMaxCount").as_ref()),
                messages: said.iter().filter_map(Node::text).map(without_nul).collect(),
            });
            self.ledger.note_all(&hook, &Outcome::setting(Setting::Idle));
            for text in &said {
                self.ledger.note_text(text, Outcome::setting(Setting::Idle));
            }
            if let Some(reset) = option("triggerResetMode") {
                self.ledger.note_all(&reset, &Outcome::approximated("counted over the whole call"));
            }
        }

        let Some(plan) = self.assistant.get("messagePlan") else { return };
        let messages = plan.get("idleMessages").map(|list| list.items()).unwrap_or_default();
        let messages: Vec<Node<'_>> =
            messages.into_iter().filter(|text| text.text().is_some_and(|text| !text.trim().is_empty())).collect();
        let numbers = [plan.get("idleTimeoutSeconds"), plan.get("idleMessageMaxSpokenCount")];
        if call.idle.is_some() {
            let note = Outcome::lost("the hook on silence comes before it");
            messages.iter().chain(numbers.iter().flatten()).for_each(|field| self.ledger.note_all(field, &note));
        } else if messages.is_empty() {
            let note = Outcome::carried_as("without messages it means nothing");
            numbers.iter().flatten().for_each(|field| self.ledger.note_all(field, &note));
        } else {
            call.idle = Some(Idle {
                after_ms: milliseconds(numbers[0].as_ref()),
                times: times(numbers[1].as_ref()),
                messages: messages.iter().filter_map(Node::text).map(without_nul).collect(),
            });
            for field in messages.iter().chain(numbers.iter().flatten()) {
                self.ledger.note_text(field, Outcome::setting(Setting::Idle));
            }
        }
    }
}

/// The fixed words of a hook that does nothing but say them.
fn said<'a>(hook: &Node<'a>) -> Option<Vec<Node<'a>>> {
    let mut words = Vec::new();
    for action in hook.get("do")?.items() {
        let members = action.members();
        let exact = action.get("exact")?;
        // Nothing but the type and the words: no prompt, no condition of the future.
        if action.get("type")?.text()? != "say" || members.len() != 2 {
            return None;
        }
        let texts = if exact.value.is_array() { exact.items() } else { vec![exact] };
        words.extend(texts);
    }
    let all_texts = words.iter().all(|word| word.text().is_some_and(|text| !text.trim().is_empty()));
    let known = hook.members().iter().all(|(key, _)| ["on", "do", "options", "name"].contains(key));
    let options = hook.get("options").is_none_or(|options| {
        let numbers = ["timeoutSeconds", "triggerMaxCount"];
        options.members().iter().all(|(key, value)| match *key {
            "triggerResetMode" => value.value.is_string(),
            key => numbers.contains(&key) && value.number().is_some(),
        })
    });
    (!words.is_empty() && all_texts && known && options).then_some(words)
}

fn milliseconds(field: Option<&Node<'_>>) -> u32 {
    let seconds = field.and_then(Node::number).unwrap_or(default::IDLE_SECONDS);
    scaled(seconds, 1000.0, 2_000, 1_000_000).unwrap_or(7_500)
}

fn times(field: Option<&Node<'_>>) -> u32 {
    field.and_then(Node::number).and_then(|count| scaled(count, 1.0, 1, 100)).unwrap_or(default::IDLE_TIMES)
}
