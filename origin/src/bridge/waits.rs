//! How long the caller waits for an answer: from the end of their words to the first audio, and to the first sign that
//! it was heard.
//!
//! The end of the caller's words is when OpenAI's turn detection says so, which is after the silence that it waits for.

use super::playback::Millis;

/// One turn of the caller's, answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// How long ago the caller's words ended.
    pub ended_ago_ms: Millis,
    /// From then to the first audio that was sent.
    pub first_audio_ms: Millis,
    /// From then to the first mark that came back. `None`: the caller, or the end, came before it.
    pub first_heard_ms: Option<Millis>,
}

/// The turn under way.
#[derive(Debug, Default)]
pub struct Waits(State);

#[derive(Debug, Default)]
enum State {
    #[default]
    Nothing,
    /// The caller's words ended then.
    Waiting(Millis),
    /// The answer is on its way, and this mark is the first behind its beginning.
    Answered { ended: Millis, audio: Millis, mark: Option<String> },
}

impl Waits {
    /// The caller's words have ended.
    pub fn speech_stopped(&mut self, now: Millis) {
        self.0 = State::Waiting(now);
    }

    /// The caller speaks, or all is over: whatever was under way ends here.
    pub fn cut(&mut self, now: Millis) -> Option<Turn> {
        match std::mem::take(&mut self.0) {
            State::Answered { ended, audio, .. } => Some(turn(now, ended, audio, None)),
            State::Nothing | State::Waiting(_) => None,
        }
    }

    /// A piece of the agent's audio is sent.
    pub fn audio(&mut self, now: Millis) {
        if let State::Waiting(ended) = self.0 {
            self.0 = State::Answered { ended, audio: now, mark: None };
        }
    }

    /// A mark is sent behind the audio so far.
    pub fn mark_sent(&mut self, name: &str) {
        if let State::Answered { mark: mark @ None, .. } = &mut self.0 {
            *mark = Some(name.to_owned());
        }
    }

    /// A mark has come back.
    pub fn mark_returned(&mut self, now: Millis, name: &str) -> Option<Turn> {
        match &self.0 {
            State::Answered { ended, audio, mark } if mark.as_deref() == Some(name) => {
                let answered = turn(now, *ended, *audio, Some(now));
                self.0 = State::Nothing;
                Some(answered)
            }
            _ => None,
        }
    }
}

fn turn(now: Millis, ended: Millis, audio: Millis, heard: Option<Millis>) -> Turn {
    Turn {
        ended_ago_ms: now.saturating_sub(ended),
        first_audio_ms: audio.saturating_sub(ended),
        first_heard_ms: heard.map(|heard| heard.saturating_sub(ended)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_the_last_word_to_the_first_sound() {
        let mut waits = Waits::default();
        waits.speech_stopped(1000);
        waits.audio(1400);
        waits.mark_sent("g0.1");
        waits.audio(1410);
        waits.mark_sent("g0.2");
        assert_eq!(waits.mark_returned(1600, "another"), None);
        let told = waits.mark_returned(1620, "g0.1");
        assert_eq!(told, Some(Turn { ended_ago_ms: 620, first_audio_ms: 400, first_heard_ms: Some(620) }));
        assert_eq!(waits.mark_returned(1630, "g0.1"), None);
        waits.audio(9000);
        waits.mark_sent("g0.3");
        assert_eq!(waits.cut(9001), None, "nobody waited for that");
    }

    #[test]
    fn an_answer_that_is_cut_off_at_once_was_still_begun() {
        let mut waits = Waits::default();
        waits.speech_stopped(1000);
        waits.audio(1300);
        waits.mark_sent("g0.1");
        let told = waits.cut(1350);
        assert_eq!(told, Some(Turn { ended_ago_ms: 350, first_audio_ms: 300, first_heard_ms: None }));
        assert_eq!(waits.mark_returned(1400, "g0.1"), None);
    }

    #[test]
    fn a_caller_who_goes_on_has_not_ended() {
        let mut waits = Waits::default();
        waits.speech_stopped(1000);
        assert_eq!(waits.cut(1100), None);
        waits.speech_stopped(2000);
        waits.audio(2200);
        waits.mark_sent("g0.1");
        assert_eq!(waits.mark_returned(2300, "g0.1").unwrap().first_audio_ms, 200);
    }
}
