//! The conversation as text, in the order in which it was spoken.
//!
//! The caller's words come from a separate model and may arrive after the agent's answer to them; an agent's words run
//! ahead of its audio. An item takes its place when it is first heard of, and its text when that is known. What the
//! caller did not hear of an agent's item is cut off by proportion: text and audio are not aligned.

use std::collections::HashMap;

use super::playback::Heard;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The person on the phone.
    Caller,
    /// The agent.
    Assistant,
}

/// One turn as it is stored; a later line with the same position replaces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Place in the call, from 0.
    pub position: u32,
    /// Who speaks.
    pub role: Role,
    /// OpenAI's id of the item.
    pub item_id: String,
    /// What was said and, for the agent, heard.
    pub text: String,
    /// How much of the agent's audio was heard, once that is known.
    pub heard_ms: Option<u64>,
    /// Whether the caller cut the agent off.
    pub interrupted: bool,
}

/// All items of a stream.
#[derive(Debug)]
pub struct Transcript {
    next_position: u32,
    lines: HashMap<String, Line>,
}

impl Transcript {
    /// A transcript whose first line stands at `next_position`: a call taken up again goes on where it was.
    pub fn from_position(next_position: u32) -> Self {
        Self { next_position, lines: HashMap::new() }
    }

    /// Gives an item its place.
    pub fn place(&mut self, item_id: &str, role: Role) {
        self.line(item_id, role);
    }

    /// All that the caller said in an item. Silence makes no line.
    pub fn caller_said(&mut self, item_id: &str, text: &str) -> Option<Line> {
        let line = self.line(item_id, Role::Caller);
        text.trim().clone_into(&mut line.text);
        (!line.text.is_empty()).then(|| line.clone())
    }

    /// More of what the agent says in an item.
    pub fn agent_says(&mut self, item_id: &str, delta: &str) {
        let line = self.line(item_id, Role::Assistant);
        if !line.interrupted {
            line.text.push_str(delta);
        }
    }

    /// All that the agent says in an item.
    pub fn agent_said(&mut self, item_id: &str, text: &str) -> Option<Line> {
        let line = self.line(item_id, Role::Assistant);
        if line.interrupted {
            return None;
        }
        text.trim().clone_into(&mut line.text);
        Some(line.clone())
    }

    /// The caller has heard all that was sent of an item so far.
    pub fn heard(&mut self, heard: &Heard) -> Option<Line> {
        let line = self.lines.get_mut(&heard.part.item_id).filter(|line| !line.interrupted)?;
        line.heard_ms = Some(heard.heard_ms);
        Some(line.clone())
    }

    /// The caller has cut an item off: only what was heard stays.
    pub fn cut(&mut self, heard: &Heard) -> Option<Line> {
        let line = self.lines.get_mut(&heard.part.item_id)?;
        line.interrupted = true;
        line.heard_ms = Some(heard.heard_ms);
        line.text = proportion(&line.text, heard.heard_ms, heard.sent_ms);
        Some(line.clone())
    }

    fn line(&mut self, item_id: &str, role: Role) -> &mut Line {
        self.lines.entry(item_id.to_owned()).or_insert_with(|| {
            let position = self.next_position;
            self.next_position += 1;
            Line {
                position,
                role,
                item_id: item_id.to_owned(),
                text: String::new(),
                heard_ms: None,
                interrupted: false,
            }
        })
    }
}

/// The leading words of a text, as many as fit into the given share of its characters.
fn proportion(text: &str, heard_ms: u64, sent_ms: u64) -> String {
    if heard_ms >= sent_ms {
        return text.trim().to_owned();
    }
    let characters = text.chars().count() as u64 * heard_ms / sent_ms;
    let mut kept = String::new();
    for word in text.split_whitespace() {
        let length = kept.chars().count() + usize::from(!kept.is_empty()) + word.chars().count();
        if length as u64 > characters {
            break;
        }
        if !kept.is_empty() {
            kept.push(' ');
        }
        kept.push_str(word);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::playback::Part;

    fn heard(item: &str, heard_ms: u64, sent_ms: u64) -> Heard {
        Heard { part: Part { item_id: item.into(), content_index: 0 }, heard_ms, sent_ms }
    }

    #[test]
    fn places_are_in_speech_order_even_when_texts_are_late() {
        let mut transcript = Transcript::from_position(3);
        transcript.place("caller", Role::Caller);
        transcript.agent_says("agent", "Hello ");
        let agent = transcript.agent_said("agent", "Hello there.").unwrap();
        let caller = transcript.caller_said("caller", " Hi. ").unwrap();
        assert_eq!((caller.position, caller.text.as_str()), (3, "Hi."));
        assert_eq!((agent.position, agent.text.as_str()), (4, "Hello there."));
        assert_eq!(transcript.caller_said("noise", "  "), None);
    }

    #[test]
    fn what_was_not_heard_is_cut_and_stays_cut() {
        let mut transcript = Transcript::from_position(0);
        transcript.agent_says("a", "one two three four");
        let line = transcript.cut(&heard("a", 500, 1000)).unwrap();
        assert_eq!((line.text.as_str(), line.heard_ms, line.interrupted), ("one two", Some(500), true));
        transcript.agent_says("a", " five");
        assert_eq!(transcript.agent_said("a", "one two three four five"), None);
        assert_eq!(transcript.heard(&heard("a", 1000, 1000)), None);
        assert_eq!(transcript.cut(&heard("a", 0, 1000)).unwrap().text, "");
    }

    #[test]
    fn proportion_keeps_whole_words() {
        assert_eq!(proportion("one two three", 1000, 1000), "one two three");
        assert_eq!(proportion("one two three", 999, 1000), "one two");
        assert_eq!(proportion("  ", 1, 2), "");
        assert_eq!(proportion("", 0, 0), "");
    }
}
