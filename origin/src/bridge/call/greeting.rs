//! A first message that the caller cannot interrupt. What the caller says meanwhile is in the conversation and is
//! answered after it.

use super::{Action, Call, Millis};
use crate::bridge::responses::Ask;

/// No first message is protected for longer, in milliseconds: then the caller gets a word in, whatever has gone wrong.
const LONGEST_MS: Millis = 60_000;
/// How late the last mark of it may be, in milliseconds.
const LATE_MARK_MS: Millis = 2_000;

/// Whether the caller can interrupt.
#[derive(Debug)]
pub(super) enum Greeting {
    /// At any time.
    Free,
    /// Not before the first message is over.
    Protected {
        /// What gives the turns back to OpenAI.
        lift: String,
        /// Whether the caller has said something meanwhile.
        turn: Owed,
        /// When it is over at the latest.
        until: Millis,
        /// How far the message has come.
        state: FirstWords,
    },
}

/// Whether the caller waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owed {
    No,
    Yes,
}

/// How far the first message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstWords {
    ToCome,
    Generated,
}

impl Greeting {
    /// Protected if there is something to lift.
    pub(super) fn new(lift: Option<String>, now: Millis) -> Self {
        lift.map_or(Self::Free, |lift| Self::Protected {
            lift,
            turn: Owed::No,
            until: now + LONGEST_MS,
            state: FirstWords::ToCome,
        })
    }

    pub(super) fn deadline(&self) -> Option<Millis> {
        match self {
            Self::Free => None,
            Self::Protected { until, .. } => Some(*until),
        }
    }
}

impl Call {
    /// A response is over, and was not to be asked for again: if it is the first, its words are all there.
    pub(super) fn first_words_generated(&mut self, now: Millis, out: &mut Vec<Action>) {
        let played = now + self.playback.remaining_ms(now) + LATE_MARK_MS;
        if let Greeting::Protected { state, until, .. } = &mut self.greeting {
            *state = FirstWords::Generated;
            *until = played.min(*until);
        }
        self.greeting_due(now, out);
    }

    /// Ends the protection when the message is played, or takes too long.
    pub(super) fn greeting_due(&mut self, now: Millis, out: &mut Vec<Action>) {
        let Greeting::Protected { until, state, .. } = &self.greeting else { return };
        let is_played = *state == FirstWords::Generated && self.playback.is_idle();
        if !is_played && now < *until {
            return;
        }
        let Greeting::Protected { lift, turn, .. } = std::mem::replace(&mut self.greeting, Greeting::Free) else {
            return;
        };
        self.tell_model(lift, out);
        if turn == Owed::Yes {
            self.ask(now, Ask::Turn, out);
        }
    }
}
