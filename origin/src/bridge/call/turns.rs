//! Whose turn it is: what follows when the caller begins and ends to speak.
//!
//! Usually OpenAI's turn detection stops the agent and answers the caller, which is quickest; here then only Twilio's
//! buffer is emptied. Its switches know no "not yet", though. For a first message that must not be interrupted, and for
//! an agent that shall not fall silent at the first sound, both are off, OpenAI only tells of speech, and the call
//! decides: it cancels, and asks for answers. Which of the two holds is what the last `session.updated` says.

use super::gaps::Speech;
use super::greeting::{Greeting, Owed};
use super::{Action, Call, Millis};
use crate::bridge::openai::Turns;
use crate::bridge::responses::Ask;

/// How much speech an agent takes for one word, in milliseconds: OpenAI tells of sound while somebody speaks, and of
/// words only later.
const WORD_MS: Millis = 400;
/// The longest turn of a caller's during which nothing is asked for, in milliseconds.
const LONGEST_TURN_MS: Millis = 120_000;
/// How long the server's own answer to a turn is waited for before another reason to speak may go first, in
/// milliseconds.
const SERVER_ANSWERS_MS: Millis = 1_500;

/// What the caller's present speech does to the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Floor {
    /// The caller does not speak, or has interrupted.
    #[default]
    Settled,
    /// The caller speaks into the agent's words; from then on it is an interruption.
    Contested(Millis),
}

impl Call {
    pub(super) fn speech_started(&mut self, now: Millis, out: &mut Vec<Action>) {
        self.gaps.speech(now, Speech::Open);
        self.silence.caller_speaks();
        if self.leaving.is_some() {
            return;
        }
        self.responses.hold(now + LONGEST_TURN_MS);
        if self.is_protected() {
            return;
        }
        match (self.turns, self.interrupt_after_words) {
            (Turns::Server, _) => self.interrupt(now, out),
            (Turns::Ours, 0) => self.interrupt_ourselves(now, out),
            (Turns::Ours, words) => self.floor = Floor::Contested(now + WORD_MS * Millis::from(words)),
        }
    }

    pub(super) fn speech_stopped(&mut self, now: Millis) {
        self.gaps.speech(now, Speech::None);
        self.silence.caller_spoke();
        self.floor = Floor::Settled;
    }

    /// The caller's turn is closed and stands in the conversation.
    pub(super) fn turn_closed(&mut self, now: Millis, out: &mut Vec<Action>) {
        self.speech_stopped(now);
        match self.turns {
            Turns::Server => self.responses.hold(now + SERVER_ANSWERS_MS),
            Turns::Ours => {
                self.responses.release();
                let is_aside = self.interrupt_after_words > 0 && !self.is_protected() && self.agent_speaks();
                if is_aside {
                    out.extend(self.responses.next(now).map(Action::ToModel));
                } else {
                    self.answer(now, out);
                }
            }
        }
    }

    /// The caller waits for an answer that nobody but us asks for.
    pub(super) fn answer(&mut self, now: Millis, out: &mut Vec<Action>) {
        match &mut self.greeting {
            Greeting::Protected { turn, .. } => *turn = Owed::Yes,
            Greeting::Free => self.ask(now, Ask::Turn, out),
        }
    }

    pub(super) fn floor_deadline(&self) -> Option<Millis> {
        match self.floor {
            Floor::Settled => None,
            Floor::Contested(at) => Some(at),
        }
    }

    pub(super) fn floor_due(&mut self, now: Millis, out: &mut Vec<Action>) {
        if self.floor_deadline().is_some_and(|at| now >= at) {
            self.floor = Floor::Settled;
            self.interrupt_ourselves(now, out);
        }
    }

    /// Whether the caller hears the agent, or soon will.
    pub(super) fn agent_speaks(&self) -> bool {
        !self.playback.is_idle() || self.responses.is_heard()
    }
}
