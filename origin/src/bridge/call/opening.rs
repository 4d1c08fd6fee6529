//! From the stream's start to the session's confirmation: the caller's audio is held, then the conversation begins.

use std::collections::VecDeque;

use super::{Action, Call, Millis, Phase};
use crate::bridge::wire::BYTES_PER_MS;

/// How long OpenAI may take until it confirms the session, in milliseconds. The caller hears nothing meanwhile.
pub const OPENING_LIMIT_MS: Millis = 10_000;
/// How much of the caller's audio is held until then; the oldest goes first.
const HELD_LIMIT_BYTES: u64 = 10_000 * BYTES_PER_MS;

/// The session is not confirmed: audio would be read in the wrong format, so it is held.
#[derive(Debug)]
pub(super) struct Opening {
    since: Millis,
    held: VecDeque<(String, u64)>,
    held_bytes: u64,
}

impl Opening {
    pub(super) fn new(now: Millis) -> Self {
        Self { since: now, held: VecDeque::new(), held_bytes: 0 }
    }

    /// When waiting is over.
    pub(super) fn deadline(&self) -> Millis {
        self.since + OPENING_LIMIT_MS
    }

    /// Keeps a message with so many bytes of audio until the session is confirmed.
    pub(super) fn hold(&mut self, message: String, bytes: u64) {
        self.held_bytes += bytes;
        self.held.push_back((message, bytes));
        while self.held_bytes > HELD_LIMIT_BYTES {
            let Some((_, oldest)) = self.held.pop_front() else { break };
            self.held_bytes -= oldest;
        }
    }
}

impl Call {
    /// The session is as we asked: what was said before, then the agent's turn if it has one, then the held audio.
    pub(super) fn confirmed(&mut self, now: Millis, out: &mut Vec<Action>) {
        let Phase::Opening(opening) = &mut self.phase else { return };
        let held = std::mem::take(&mut opening.held);
        out.push(Action::SetUp(now.saturating_sub(opening.since)));
        self.phase = Phase::Talking;
        self.responses.release();
        out.extend(std::mem::take(&mut self.replay).into_iter().map(Action::ToModel));
        if let Some(ask) = self.first_ask.take() {
            self.ask(now, ask, out);
        }
        out.extend(held.into_iter().map(|(message, _)| Action::ToModel(message)));
        out.extend(self.responses.next(now).map(Action::ToModel));
    }
}
