//! From one session to the next, in the same stream: what the old one leaves undone, and what the new one is told.

use super::gaps::Speech;
use super::turns::Floor;
use super::{Action, Call, EndReason, Millis, Phase};
use crate::bridge::openai::Turns;
use crate::bridge::responses::Ask;
use crate::bridge::session::{self, Said};
use crate::bridge::sessions::Unavailable;
use crate::bridge::transcript::Role;

/// OpenAI ends a session after an hour without a warning. From this long before on, a quiet moment is looked for.
const LEAD_MS: Millis = 5 * 60_000;
/// This long before, the call moves to the new session, quiet or not.
const LAST_MS: Millis = 10_000;
/// After this pause another session is tried for, when none was to be had.
const AGAIN_MS: Millis = 30_000;

/// How the next session comes about while the present one is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextSession {
    /// It is asked for at `from`, to be in use at `by`.
    Later { from: Millis, by: Millis },
    /// It is being opened.
    Asked { by: Millis },
    /// It waits for a quiet moment, and ends at `ends`.
    Ready { by: Millis, ends: Millis, turns: Turns },
}

impl NextSession {
    /// After a session that began at `now` and ends at `ends`. A short one is left as early as a long one in proportion.
    pub(super) fn after(now: Millis, ends: Millis) -> Self {
        let lasts = ends.saturating_sub(now);
        Self::Later { from: ends - LEAD_MS.min(lasts / 4), by: ends - LAST_MS.min(lasts / 16) }
    }

    pub(super) fn deadline(self) -> Option<Millis> {
        match self {
            Self::Later { from, .. } => Some(from),
            // Whatever comes of it is told.
            Self::Asked { .. } => None,
            Self::Ready { by, .. } => Some(by),
        }
    }
}

impl Call {
    /// A confirmed session waits. It is taken at once by a call that has none.
    pub(super) fn session_ready(&mut self, now: Millis, ends: Millis, turns: Turns, out: &mut Vec<Action>) {
        match (&self.phase, self.next_session) {
            (Phase::Opening, _) => self.take_session(now, ends, turns, out),
            (
                Phase::Talking,
                NextSession::Later { by, .. } | NextSession::Asked { by } | NextSession::Ready { by, .. },
            ) => {
                self.next_session = NextSession::Ready { by, ends, turns };
            }
            (Phase::Over, _) => {}
        }
    }

    /// There is no session to be had; a call that has one yet tries again while it lasts.
    pub(super) fn session_unavailable(&mut self, now: Millis, why: Unavailable, out: &mut Vec<Action>) {
        match (&self.phase, self.next_session) {
            (Phase::Opening, _) => self.end(now, EndReason::ModelUnavailable(why), out),
            (_, NextSession::Asked { by }) => {
                self.next_session = NextSession::Later { from: now + AGAIN_MS, by: by.max(now + AGAIN_MS) };
            }
            _ => {}
        }
    }

    /// Asks for the next session when it is time, and moves to it at a quiet moment, or at the last.
    pub(super) fn next_session_due(&mut self, now: Millis, out: &mut Vec<Action>) {
        match self.next_session {
            NextSession::Later { from, by } if now >= from => {
                self.next_session = NextSession::Asked { by };
                out.push(Action::OpenSession);
            }
            NextSession::Ready { by, ends, turns } if now >= by || self.is_quiet() => {
                self.let_session_go(now, out);
                self.take_session(now, ends, turns, out);
            }
            _ => {}
        }
    }

    /// Nobody speaks, waits or is about to.
    pub(super) fn is_quiet(&self) -> bool {
        self.responses.is_idle()
            && self.playback.is_idle()
            && self.unanswered.is_quiet()
            && self.tool_notes.none_runs()
            && self.retry.deadline().is_none()
            && self.leaving.is_none()
    }

    /// Nothing more is to come of the session: what it leaves undone is wanted of the next one.
    pub(super) fn let_session_go(&mut self, now: Millis, out: &mut Vec<Action>) {
        let mut wanted = self.responses.abandon();
        wanted.extend(self.retry.abandon());
        let broken_off = self.transcript.end_session();
        self.broke_off = !broken_off.is_empty();
        if self.broke_off {
            // What the caller has heard the beginning of is not begun again.
            wanted.retain(|ask| *ask == Ask::Turn);
        }
        if wanted.is_empty() && (self.broke_off || self.unanswered.owes()) {
            wanted.push(Ask::Turn);
        }
        if self.unanswered.is_open() {
            // Whoever speaks now is answered when they have finished.
            wanted.clear();
        }
        out.extend(broken_off.into_iter().map(Action::Line));
        self.responses.hold(Millis::MAX);
        for ask in wanted {
            // Held, so nothing is asked for yet.
            let _ = self.responses.want(now, ask);
        }
        self.fenced = None;
        self.floor = Floor::Settled;
        self.gaps.speech(now, Speech::None);
        self.tool_notes.session_is_gone();
        self.tools.forget();
        self.unseen_outputs = 0;
    }

    /// The new session hears what was said before, then the agent's turn is asked for if one is due, then it hears the
    /// caller's last sound.
    fn take_session(&mut self, now: Millis, ends: Millis, turns: Turns, out: &mut Vec<Action>) {
        if let Some(since) = self.waits_since.take() {
            out.push(Action::SetUp(now.saturating_sub(since)));
        }
        self.stop_ringing(now, out);
        self.phase = Phase::Talking;
        self.next_session = NextSession::after(now, ends);
        self.turns = turns;
        out.push(Action::TakeSession);
        // A new session begins as the first one did; by now the first message may be over.
        let lift = self.lift.clone().filter(|_| !self.is_protected());
        let past = session::replay(&self.said(), std::mem::take(&mut self.broke_off));
        let told = self.opening.iter().cloned().chain(past).chain(lift);
        out.extend(told.map(Action::ToModel));
        match self.caller_first_ms.take() {
            Some(wait_ms @ 1..) => self.responses.hold(now + wait_ms),
            _ => self.responses.release(),
        }
        out.extend(self.responses.next(now).map(Action::ToModel));
        out.extend(self.unanswered.replay().into_iter().map(Action::ToModel));
    }

    /// The whole conversation, in order.
    fn said(&self) -> Vec<Said> {
        let lines = self.transcript.lines().into_iter().map(|line| match line.role {
            Role::Caller => (line.position, Said::Caller(line.text.clone())),
            Role::Assistant => (line.position, Said::Agent(line.text.clone())),
        });
        let notes = self.tool_notes.all().map(|(position, note)| (position, Said::Note(note)));
        let mut said: Vec<(u32, Said)> = notes.chain(lines).collect();
        // Stable: what a tool did stands before what was said of it.
        said.sort_by_key(|(position, _)| *position);
        self.past.iter().cloned().chain(said.into_iter().map(|(_, said)| said)).collect()
    }
}
