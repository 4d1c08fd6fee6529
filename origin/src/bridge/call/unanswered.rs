//! The caller's sound that no session has understood yet.
//!
//! OpenAI cannot hand a conversation from one session to the next: what a session has of the caller is lost with it,
//! unless it is text by then. So the end of the caller's sound is kept, for the next session to hear first: all of it
//! while no session is confirmed and while the caller speaks, until the words are known or answered; otherwise as much
//! as it takes OpenAI to notice that somebody speaks.

use std::collections::VecDeque;

use crate::bridge::openai;
use crate::bridge::wire::{Audio, BYTES_PER_MS};

/// What is kept of a caller who is silent: what OpenAI puts before a turn, and what it takes to notice one.
const RECENT_BYTES: u64 = 600 * BYTES_PER_MS;
/// What is kept at most, 20 s; the oldest goes first.
const LIMIT_BYTES: u64 = 20_000 * BYTES_PER_MS;

/// How far the caller's turn has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Turn {
    /// Nobody waits for an answer.
    #[default]
    Quiet,
    /// The caller speaks.
    Speaking,
    /// The turn is an item; its words are not known. It ended here, in bytes since the stream began.
    Said { end: u64 },
    /// The words are known, and not answered.
    Understood,
}

/// The end of the caller's sound.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    /// Base64 texts, one after the other.
    text: VecDeque<u8>,
    /// Of each, the length of its text and the bytes of audio it stands for.
    pieces: VecDeque<(usize, u64)>,
    /// Bytes of audio that are kept, and that there have been since the stream began.
    kept: u64,
    end: u64,
    turn: Turn,
}

impl Unanswered {
    /// Notes a piece of sound. `listening`: a session hears it as well.
    pub(super) fn push(&mut self, audio: Audio<'_>, listening: bool) {
        let bytes = audio.byte_len();
        self.text.extend(audio.as_str().as_bytes());
        self.pieces.push_back((audio.as_str().len(), bytes));
        self.kept += bytes;
        self.end += bytes;
        self.keep(if listening && !self.is_open() { RECENT_BYTES } else { LIMIT_BYTES });
    }

    /// The caller has begun to speak.
    pub(super) fn speech_started(&mut self) {
        self.turn = Turn::Speaking;
    }

    /// What the caller said has become an item.
    pub(super) fn committed(&mut self) {
        self.turn = Turn::Said { end: self.end };
    }

    /// The item's words are known.
    pub(super) fn understood(&mut self) {
        if self.forget_turn() {
            self.turn = Turn::Understood;
        }
    }

    /// The agent has answered.
    pub(super) fn answered(&mut self) {
        if self.forget_turn() || self.turn == Turn::Understood {
            self.turn = Turn::Quiet;
        }
    }

    /// Whether the sound that is kept holds words which nobody has understood: whoever hears it will answer.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.turn, Turn::Speaking | Turn::Said { .. })
    }

    /// Whether the caller's words are known and wait for an answer.
    pub(super) fn owes(&self) -> bool {
        self.turn == Turn::Understood
    }

    /// Whether the caller neither speaks nor waits.
    pub(super) fn is_quiet(&self) -> bool {
        self.turn == Turn::Quiet
    }

    /// The messages by which a new session hears what is kept. For it, the caller's turn begins anew.
    pub(super) fn replay(&mut self) -> Vec<String> {
        let mut rest: &[u8] = self.text.make_contiguous();
        let mut messages = Vec::with_capacity(self.pieces.len());
        for (length, _) in &self.pieces {
            let (text, after) = rest.split_at(*length);
            rest = after;
            messages.extend(std::str::from_utf8(text).ok().and_then(Audio::new).map(openai::append));
        }
        if self.is_open() {
            self.turn = Turn::Speaking;
        }
        messages
    }

    /// The item's sound is needed no more; what came after it is kept. `false`: there is no item.
    fn forget_turn(&mut self) -> bool {
        let Turn::Said { end } = self.turn else { return false };
        self.keep(RECENT_BYTES.min(self.end - end));
        true
    }

    fn keep(&mut self, limit: u64) {
        while self.kept > limit {
            let Some((length, bytes)) = self.pieces.pop_front() else { return };
            self.text.drain(..length);
            self.kept -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    /// Frames of 20 ms, each of one byte's value.
    fn speak(sound: &mut Unanswered, frames: std::ops::Range<u8>) {
        for frame in frames {
            sound.push(Audio::new(&STANDARD.encode([frame; 160])).unwrap(), true);
        }
    }

    /// The first and the last frame kept.
    fn kept(sound: &mut Unanswered) -> Option<(u8, u8)> {
        let messages: Vec<serde_json::Value> =
            sound.replay().iter().map(|message| serde_json::from_str(message).unwrap()).collect();
        let frame = |message: &serde_json::Value| STANDARD.decode(message["audio"].as_str().unwrap()).unwrap()[0];
        Some((frame(messages.first()?), frame(messages.last()?)))
    }

    #[test]
    fn of_silence_only_the_end_is_kept_and_of_speech_all() {
        let mut sound = Unanswered::default();
        speak(&mut sound, 0..100);
        assert_eq!(kept(&mut sound), Some((70, 99)));
        sound.speech_started();
        speak(&mut sound, 100..200);
        assert_eq!(kept(&mut sound), Some((70, 199)));
    }

    #[test]
    fn words_that_are_known_are_not_heard_again_and_what_came_after_them_is() {
        let mut sound = Unanswered::default();
        sound.speech_started();
        speak(&mut sound, 0..50);
        sound.committed();
        speak(&mut sound, 50..60);
        assert!(sound.is_open());
        assert_eq!(kept(&mut sound), Some((0, 59)), "not known yet");
        sound.committed();
        sound.understood();
        assert!(sound.owes() && !sound.is_open());
        assert_eq!(kept(&mut sound), None);
        speak(&mut sound, 60..70);
        assert_eq!(kept(&mut sound), Some((60, 69)));
        sound.answered();
        assert!(sound.is_quiet());
    }

    #[test]
    fn an_answer_to_the_turn_before_does_not_close_the_present_one() {
        let mut sound = Unanswered::default();
        sound.speech_started();
        sound.answered();
        sound.understood();
        assert!(sound.is_open());
    }

    #[test]
    fn what_no_session_hears_is_kept_up_to_the_limit() {
        let mut sound = Unanswered::default();
        let frame = STANDARD.encode([1; 160]);
        for _ in 0..1200 {
            sound.push(Audio::new(&frame).unwrap(), false);
        }
        assert_eq!(sound.replay().len(), 1000);
    }
}
