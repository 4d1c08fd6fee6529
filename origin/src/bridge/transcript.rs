//! The conversation as text, in the order in which it was spoken.
//!
//! The caller's words come from a separate model and may arrive after the agent's answer to them; an agent's words run
//! ahead of its audio. An item takes its place when it is first heard of, and its text when that is known.
//!
//! Text and audio are not aligned. What the caller heard of an item that was cut off is reckoned: of one that is whole,
//! by the share of its audio; of one that was still being generated, by the pace at which the agent speaks, since more
//! of its words are there than of its audio. The reckoning is made anew when more is known.

use super::playback::Heard;

/// How fast an agent speaks of which no whole item is known yet, in characters a second: the usual pace of OpenAI's
/// voices in languages written with letters.
const USUAL_PACE: u64 = 15;
/// So much audio tells the pace, in milliseconds.
const PACE_KNOWN_MS: u64 = 1_000;

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

/// How far an item's text has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    Growing,
    Whole,
}

#[derive(Debug)]
struct Entry {
    line: Line,
    /// All that the agent said, heard or not.
    said: String,
    text: Text,
    /// Audio of it that was generated, played or not.
    generated_ms: u64,
}

/// All items of a stream.
#[derive(Debug)]
pub struct Transcript {
    next_position: u32,
    /// In the order of their places.
    entries: Vec<Entry>,
    pace: Pace,
    /// Where the lines of the present session begin.
    session_from: u32,
}

/// How fast the agent speaks.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    characters: u64,
    ms: u64,
}

impl Pace {
    fn characters_in(self, ms: u64) -> u64 {
        if self.ms >= PACE_KNOWN_MS { self.characters * ms / self.ms } else { USUAL_PACE * ms / 1000 }
    }
}

impl Transcript {
    /// A transcript whose first line stands at `next_position`: a call taken up again goes on where it was.
    pub fn from_position(next_position: u32) -> Self {
        Self { next_position, entries: Vec::new(), pace: Pace::default(), session_from: next_position }
    }

    /// Gives an item its place.
    pub fn place(&mut self, item_id: &str, role: Role) {
        self.entry(item_id, role);
    }

    /// All that the caller said in an item. Silence makes no line.
    pub fn caller_said(&mut self, item_id: &str, text: &str) -> Option<Line> {
        let line = &mut self.entry(item_id, Role::Caller).line;
        text.trim().clone_into(&mut line.text);
        (!line.text.is_empty()).then(|| line.clone())
    }

    /// More of what the agent says in an item.
    pub fn agent_says(&mut self, item_id: &str, delta: &str) {
        self.entry(item_id, Role::Assistant).said.push_str(delta);
    }

    /// More of an item's audio, played or not.
    pub fn agent_sounds(&mut self, item_id: &str, ms: u64) {
        self.entry(item_id, Role::Assistant).generated_ms += ms;
    }

    /// All that the agent says in an item. After a truncation OpenAI has forgotten it and tells less.
    pub fn agent_said(&mut self, item_id: &str, text: &str) -> Option<Line> {
        let entry = self.entry(item_id, Role::Assistant);
        if text.trim().len() > entry.said.trim().len() {
            text.clone_into(&mut entry.said);
        }
        if entry.line.interrupted {
            return self.reckon(item_id);
        }
        entry.text = Text::Whole;
        // Perhaps more was generated since.
        entry.line.heard_ms = entry.line.heard_ms.filter(|heard_ms| *heard_ms >= entry.generated_ms);
        entry.said.trim().clone_into(&mut entry.line.text);
        let (characters, ms) = (weight(&entry.line.text), entry.generated_ms);
        let line = entry.line.clone();
        self.pace.characters += characters;
        self.pace.ms += ms;
        Some(line)
    }

    /// The caller has heard all that was sent of an item so far. It is told once the text is known.
    pub fn heard(&mut self, heard: &Heard) -> Option<Line> {
        let entry = self.known(&heard.part.item_id).filter(|entry| !entry.line.interrupted)?;
        entry.line.heard_ms = Some(heard.heard_ms);
        (entry.text == Text::Whole).then(|| entry.line.clone())
    }

    /// The caller hears no more of an item: only what was heard stays.
    pub fn cut(&mut self, item_id: &str, heard_ms: u64) -> Option<Line> {
        let entry = self.known(item_id).filter(|entry| !entry.line.interrupted)?;
        entry.line.interrupted = true;
        entry.line.heard_ms = Some(heard_ms);
        // Differs from whatever is reckoned, so that it is told.
        entry.line.text.clone_from(&entry.said);
        self.reckon(item_id).or_else(|| self.known(item_id).map(|entry| entry.line.clone()))
    }

    /// Where the next line will stand.
    pub fn next_position(&self) -> u32 {
        self.next_position
    }

    /// Every line so far that has words, in order.
    pub fn lines(&self) -> Vec<&Line> {
        self.entries.iter().map(|entry| &entry.line).filter(|line| !line.text.is_empty()).collect()
    }

    /// Whether the present session knows this item.
    pub fn is_of_session(&self, item_id: &str) -> bool {
        self.place_of(item_id).is_some_and(|at| self.entries[at].line.position >= self.session_from)
    }

    /// The session is gone. Its last words may have broken off: of an item whose words are not all there, those stay for
    /// which there is audio.
    pub fn end_session(&mut self) -> Vec<Line> {
        let of_session = self.entries.iter().filter(|entry| entry.line.position >= self.session_from);
        let broken_off: Vec<(String, u64)> = of_session
            .filter(|entry| entry.line.role == Role::Assistant && entry.text == Text::Growing)
            .map(|entry| (entry.line.item_id.clone(), entry.generated_ms))
            .collect();
        self.session_from = self.next_position;
        broken_off.into_iter().filter_map(|(item, sent_ms)| self.cut(&item, sent_ms)).collect()
    }

    /// What was heard of an item that was cut; `None`: it is known already.
    fn reckon(&mut self, item_id: &str) -> Option<Line> {
        let pace = self.pace;
        let entry = self.known(item_id)?;
        let heard_ms = entry.line.heard_ms.unwrap_or_default();
        let share = if heard_ms >= entry.generated_ms {
            weight(&entry.said)
        } else {
            weight(&entry.said) * heard_ms / entry.generated_ms
        };
        let characters = match entry.text {
            Text::Whole => share,
            Text::Growing => share.min(pace.characters_in(heard_ms)),
        };
        let text = leading_words(&entry.said, characters);
        if text == entry.line.text {
            return None;
        }
        entry.line.text = text;
        Some(entry.line.clone())
    }

    fn entry(&mut self, item_id: &str, role: Role) -> &mut Entry {
        let at = self.place_of(item_id).unwrap_or_else(|| {
            let line = Line {
                position: self.next_position,
                role,
                item_id: item_id.to_owned(),
                text: String::new(),
                heard_ms: None,
                interrupted: false,
            };
            self.next_position += 1;
            self.entries.push(Entry { line, said: String::new(), text: Text::Growing, generated_ms: 0 });
            self.entries.len() - 1
        });
        &mut self.entries[at]
    }

    fn known(&mut self, item_id: &str) -> Option<&mut Entry> {
        self.place_of(item_id).map(|at| &mut self.entries[at])
    }

    /// From the end: what is talked of is nearly always what was said last.
    fn place_of(&self, item_id: &str) -> Option<usize> {
        self.entries.iter().rposition(|entry| entry.line.item_id == item_id)
    }
}

/// The length of a text as it is spoken: a character of Chinese, Japanese or Korean takes as long as three letters.
fn weight(text: &str) -> u64 {
    text.chars().map(weight_of).sum()
}

fn weight_of(character: char) -> u64 {
    if matches!(character, '\u{2e80}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}') { 3 } else { 1 }
}

/// The leading words of a text, as many as have this weight at most. Where there are no spaces, a word is a character.
fn leading_words(text: &str, most: u64) -> String {
    let text = text.trim();
    let mut end = 0;
    let mut weight = 0;
    let mut characters = text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        weight += weight_of(character);
        if weight > most {
            break;
        }
        let next = characters.peek().map(|(_, next)| *next);
        if weight_of(character) > 1 || next.is_none_or(char::is_whitespace) {
            end = at + character.len_utf8();
        }
    }
    text[..end].split_whitespace().collect::<Vec<_>>().join(" ")
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
    fn what_is_heard_is_told_once_the_text_is_known() {
        let mut transcript = Transcript::from_position(0);
        transcript.agent_sounds("a", 400);
        assert_eq!(transcript.heard(&heard("a", 400, 400)), None);
        assert_eq!(transcript.agent_said("a", "One.").unwrap().heard_ms, Some(400));
        assert_eq!(transcript.heard(&heard("a", 600, 600)).unwrap().heard_ms, Some(600));

        transcript.agent_sounds("b", 400);
        assert_eq!(transcript.heard(&heard("b", 400, 400)), None);
        transcript.agent_sounds("b", 200);
        assert_eq!(transcript.agent_said("b", "Two.").unwrap().heard_ms, None, "its end is still to be heard");
    }

    #[test]
    fn a_whole_item_is_cut_by_its_share_and_stays_cut() {
        let mut transcript = Transcript::from_position(0);
        transcript.agent_sounds("a", 1000);
        transcript.agent_said("a", "one two three four").unwrap();
        let line = transcript.cut("a", 500).unwrap();
        assert_eq!((line.text.as_str(), line.heard_ms, line.interrupted), ("one two", Some(500), true));
        transcript.agent_says("a", " five");
        assert_eq!(transcript.heard(&heard("a", 1000, 1000)), None);
        assert_eq!(transcript.cut("a", 0), None, "once");
    }

    /// The words of four seconds are there when one second of audio is.
    #[test]
    fn words_that_ran_ahead_of_the_audio_were_not_heard() {
        let sentence = "It is a sentence of just under sixty characters, and no more.";
        let mut transcript = Transcript::from_position(0);
        transcript.agent_sounds("new", 1000);
        transcript.agent_says("new", sentence);
        let line = transcript.cut("new", 1000).unwrap();
        assert_eq!(line.text, "It is a", "fifteen characters a second, in whole words");

        // An agent that is known to speak slowly: 61 characters in twelve seconds.
        transcript.agent_sounds("slow", 12_000);
        transcript.agent_said("slow", sentence).unwrap();
        transcript.agent_sounds("b", 1000);
        transcript.agent_says("b", sentence);
        assert_eq!(transcript.cut("b", 1000).unwrap().text, "It is");
    }

    #[test]
    fn the_reckoning_is_made_anew_when_more_is_known() {
        let mut transcript = Transcript::from_position(0);
        transcript.agent_sounds("a", 400);
        transcript.agent_says("a", "Go");
        assert_eq!(transcript.cut("a", 400).unwrap().text, "Go");
        // Nothing more of the audio counts as heard, but its words come late.
        transcript.agent_sounds("a", 400);
        transcript.agent_says("a", "od day to you, and welcome.");
        assert_eq!(transcript.agent_said("a", "").unwrap().text, "Good");
        assert_eq!(transcript.agent_said("a", ""), None);
    }

    #[test]
    fn whole_words_are_kept_and_single_characters_where_there_are_no_words() {
        assert_eq!(leading_words("one two three", 13), "one two three");
        assert_eq!(leading_words(" one two  three", 12), "one two");
        assert_eq!(leading_words("", 5), "");
        assert_eq!(leading_words("你好世界", 7), "你好");
        assert_eq!(weight("你a"), 4);
    }
}
