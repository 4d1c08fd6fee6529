//! Keys that the caller presses, gathered to entries for the model. Twilio only tells of single keys, and OpenAI knows
//! of none on a WebSocket.

use super::{Action, Call, Millis};
use crate::bridge::openai::{self, Voice};
use crate::bridge::transcript::Role;
use crate::store::agents::realtime::call::Keypad;

/// Without a rule, an entry is complete after this pause, in milliseconds: longer than between two keys of a number.
const PAUSE_MS: Millis = 1_200;
/// No entry is longer.
const LONGEST: usize = 64;

/// The keys of the present entry.
#[derive(Debug)]
pub(super) struct Keys {
    rules: Keypad,
    pressed: String,
    complete_at: Option<Millis>,
    entries: u32,
}

impl Keys {
    pub(super) fn new(rules: Option<Keypad>) -> Self {
        let pause = Keypad { timeout_ms: u32::try_from(PAUSE_MS).ok(), delimiters: String::new() };
        // Without either, no entry would ever be complete.
        let rules = rules.filter(|rules| rules.timeout_ms.is_some() || !rules.delimiters.is_empty()).unwrap_or(pause);
        Self { rules, pressed: String::new(), complete_at: None, entries: 0 }
    }

    pub(super) fn deadline(&self) -> Option<Millis> {
        self.complete_at
    }

    /// Whether no entry has been begun.
    pub(super) fn is_idle(&self) -> bool {
        self.pressed.is_empty()
    }

    /// A key was pressed; returns the entry that it completes.
    fn press(&mut self, now: Millis, key: &str) -> Option<String> {
        if self.rules.delimiters.contains(key) {
            return self.complete();
        }
        self.pressed.push_str(key);
        self.complete_at = self.rules.timeout_ms.map(|timeout| now + Millis::from(timeout));
        if self.pressed.len() >= LONGEST { self.complete() } else { None }
    }

    fn complete(&mut self) -> Option<String> {
        self.complete_at = None;
        (!self.pressed.is_empty()).then(|| std::mem::take(&mut self.pressed))
    }

    fn due(&mut self, now: Millis) -> Option<String> {
        if self.complete_at.is_some_and(|at| now >= at) { self.complete() } else { None }
    }
}

impl Call {
    pub(super) fn key_pressed(&mut self, now: Millis, key: &str, out: &mut Vec<Action>) {
        let is_key = matches!(key.as_bytes(), [b'0'..=b'9' | b'*' | b'#' | b'A'..=b'D']);
        if is_key && let Some(entry) = self.keys.press(now, key) {
            self.entered(now, &entry, out);
        }
    }

    pub(super) fn keys_due(&mut self, now: Millis, out: &mut Vec<Action>) {
        if let Some(entry) = self.keys.due(now) {
            self.entered(now, &entry, out);
        }
    }

    /// An entry is a turn of the caller's: it interrupts, stands in the conversation, and is answered.
    fn entered(&mut self, now: Millis, entry: &str, out: &mut Vec<Action>) {
        self.keys.entries += 1;
        let item_id = format!("keys_{}", self.keys.entries);
        let words = format!("[keys pressed: {entry}]");
        self.transcript.place(&item_id, Role::Caller);
        out.extend(self.transcript.caller_said(&item_id, &words).map(Action::Line));
        self.interrupt_ourselves(now, out);
        let item = openai::text_item(Voice::User, &words);
        self.tell_model(item, out);
        self.answer(now, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(timeout_ms: Option<u32>, delimiters: &str) -> Keys {
        Keys::new(Some(Keypad { timeout_ms, delimiters: delimiters.to_owned() }))
    }

    #[test]
    fn a_pause_completes_an_entry() {
        let mut keys = Keys::new(None);
        assert_eq!(keys.press(0, "1"), None);
        assert_eq!(keys.press(1000, "2"), None);
        assert_eq!(keys.deadline(), Some(1000 + PAUSE_MS));
        assert_eq!(keys.due(1500), None);
        assert_eq!(keys.due(1000 + PAUSE_MS).as_deref(), Some("12"));
        assert_eq!(keys.deadline(), None);
        assert_eq!(keys.due(9000), None);
    }

    #[test]
    fn a_delimiter_completes_an_entry_and_is_not_part_of_it() {
        let mut keys = keys(None, "#");
        assert_eq!(keys.press(0, "#"), None, "an empty entry is none");
        assert_eq!(keys.press(0, "4"), None);
        assert_eq!(keys.deadline(), None);
        assert_eq!(keys.press(0, "*"), None);
        assert_eq!(keys.press(0, "#").as_deref(), Some("4*"));
    }

    #[test]
    fn an_entry_always_ends() {
        let mut neither = keys(None, "");
        neither.press(0, "1");
        assert!(neither.deadline().is_some());
        let mut endless = keys(None, "#");
        let complete = (0..LONGEST).filter_map(|_| endless.press(0, "1")).count();
        assert_eq!(complete, 1);
    }
}
