//! Leaving the stream of our own will: the agent ends the call, puts the caller through, or a limit is reached.
//!
//! What the agent says is heard to its end: the stream is left when no response runs and the last mark has come back,
//! or at a cap. Until then the caller cannot interrupt: what they say does not reach the model any more.

use super::turns::Floor;
use super::{Action, Call, EndReason, Millis, Phase};
use crate::bridge::responses::Ask;
use crate::steps::Step;
use crate::tools::Command;

/// How long the last words may take, in milliseconds.
pub(super) const LAST_WORDS_LIMIT_MS: Millis = 20_000;

/// A call on its way out of the stream.
#[derive(Debug)]
pub(super) struct Leaving {
    reason: EndReason,
    /// What comes after the stream, unless the call is over.
    step: Option<Step>,
    /// When it leaves whatever is being said.
    by: Millis,
}

impl Leaving {
    pub(super) const fn deadline(&self) -> Millis {
        self.by
    }

    /// There is no time beyond that.
    pub(super) fn hurry(&mut self, by: Millis) {
        self.by = self.by.min(by);
    }
}

impl Call {
    /// Does what a tool of ours wants.
    pub(super) fn command(&mut self, now: Millis, command: Command, out: &mut Vec<Action>) {
        let (reason, step, say) = match command {
            Command::HangUp { say } => (EndReason::AgentHungUp, None, say.or_else(|| self.rules.farewell.clone())),
            Command::Transfer { destination, say } => {
                (EndReason::Transferring, Some(Step::Transfer { destination }), say)
            }
            Command::PressKeys { keys } => (EndReason::PressingKeys, Some(Step::PressKeys { keys }), None),
        };
        self.leave(now, reason, step, say.map(Ask::Say), out);
    }

    /// Leaves the stream once everything is heard. The first reason counts.
    pub(super) fn leave(
        &mut self,
        now: Millis,
        reason: EndReason,
        step: Option<Step>,
        last_words: Option<Ask>,
        out: &mut Vec<Action>,
    ) {
        if self.leaving.is_some() {
            return;
        }
        // The caller's turn is over, also in the middle of it.
        self.floor = Floor::Settled;
        if let Some(ask) = last_words.filter(|_| matches!(self.phase, Phase::Talking)) {
            self.responses.release();
            self.ask(now, ask, out);
        }
        self.leaving = Some(Leaving { reason, step, by: now + LAST_WORDS_LIMIT_MS });
    }

    /// The agent has said this: perhaps it has ended the call with it.
    pub(super) fn agent_said(&mut self, now: Millis, text: &str, out: &mut Vec<Action>) {
        if self.rules.ends_call(text) {
            self.leave(now, EndReason::AgentHungUp, None, None, out);
        }
    }

    /// What follows from an input for the call as a whole.
    pub(super) fn conclude(&mut self, now: Millis, out: &mut Vec<Action>) {
        let nothing_to_hear = self.responses.is_idle() && self.playback.is_idle();
        if let Some(leaving) = self.leaving.take_if(|leaving| nothing_to_hear || now >= leaving.by) {
            out.extend(leaving.step.map(Action::Step));
            self.end(now, leaving.reason, out);
        } else {
            let quiet = nothing_to_hear
                && self.leaving.is_none()
                && matches!(self.phase, Phase::Talking)
                && self.tools.is_idle();
            self.silence.update(now, quiet);
        }
    }
}
