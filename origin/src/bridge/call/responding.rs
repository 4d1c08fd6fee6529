//! The model's responses: asked for, played, ended, and asked for again when they failed.

use super::loss::Loss;
use super::{Action, Call, EndReason, Millis, Phase, SESSION_EVENT_ID};
use crate::bridge::openai::{ErrorBody, ResponseCreated, ResponseDone};
use crate::bridge::playback::Part;
use crate::bridge::responses::Ask;
use crate::bridge::transcript::Role;
use crate::bridge::wire::Audio;

/// A mark follows every piece of at most this many bytes: 200 ms, cut where base64 can be cut.
const PIECE_BYTES: usize = 1599;
/// How long after each failed response in a row the next is asked for, in milliseconds: at once for a fault of the
/// moment, later for a limit on tokens, which is over within seconds. A session that fails once more is spoiled.
pub(super) const RETRY_AFTER_MS: [Millis; 2] = [200, 2_000];

/// Responses that failed.
#[derive(Debug, Default)]
pub(super) struct Retry {
    /// Since one did not.
    failures: usize,
    /// When the failed one is asked for again, and what it was.
    again: Option<(Millis, Ask)>,
}

impl Retry {
    pub(super) fn deadline(&self) -> Option<Millis> {
        self.again.as_ref().map(|(at, _)| *at)
    }

    /// Another response has come up, or will.
    pub(super) fn forget(&mut self) {
        self.again = None;
    }
}

impl Call {
    /// Asks the model to speak, as soon as it may: the one door for every reason to.
    pub(super) fn ask(&mut self, now: Millis, ask: Ask, out: &mut Vec<Action>) {
        out.extend(self.responses.want(now, ask).map(Action::ToModel));
    }

    /// Asks again for a response that failed, and for what waits, if it is time.
    pub(super) fn responses_due(&mut self, now: Millis, out: &mut Vec<Action>) {
        out.extend(self.responses.due(now).map(Action::ToModel));
        if let Some((_, ask)) = self.retry.again.take_if(|(at, _)| now >= *at) {
            self.ask(now, ask, out);
        }
    }

    pub(super) fn response_created(&mut self, created: ResponseCreated, out: &mut Vec<Action>) {
        self.retry.forget();
        let tag = created.tag().map(str::to_owned);
        out.extend(self.responses.created(created.id, tag.as_deref()).map(Action::ToModel));
    }

    pub(super) fn agent_audio(&mut self, now: Millis, part: &Part, audio: Audio<'_>, out: &mut Vec<Action>) {
        self.transcript.place(&part.item_id, Role::Assistant);
        for piece in audio.pieces(PIECE_BYTES) {
            out.push(Action::ToCaller(self.stream.media(piece)));
            let mark = self.playback.sent(now, part, piece.byte_len());
            out.push(Action::ToCaller(self.stream.mark(&mark)));
        }
    }

    pub(super) fn response_done(&mut self, now: Millis, done: ResponseDone, out: &mut Vec<Action>) {
        if let Some(usage) = done.usage.filter(serde_json::Value::is_object) {
            out.push(Action::Usage(usage));
        }
        let ask = self.responses.done(&done.id);
        if done.status == "failed" {
            let error = done.status_details.and_then(|details| details.error).unwrap_or_default();
            let fatal = error.is_fatal();
            let code = error.code.unwrap_or_else(|| "unknown".to_owned());
            out.push(Action::Fault { code, context: "response" });
            // The caller waits for it, and OpenAI does not try again.
            match RETRY_AFTER_MS.get(self.retry.failures) {
                Some(after) if !fatal => self.retry.again = ask.map(|ask| (now + after, ask)),
                _ => return self.model_lost(now, if fatal { Loss::Refused } else { Loss::Spoiled }, out),
            }
            self.retry.failures += 1;
        } else {
            self.retry.failures = 0;
        }
        if let Some(event) = self.responses.next(now) {
            self.retry.forget();
            out.push(Action::ToModel(event));
        }
    }

    pub(super) fn error(&mut self, now: Millis, error: &ErrorBody, out: &mut Vec<Action>) {
        self.responses.refused(now, error);
        out.push(Action::Fault { code: error.code.clone().unwrap_or_else(|| "unknown".to_owned()), context: "event" });
        if error.is_fatal() {
            let loss = if error.code.as_deref() == Some("session_expired") { Loss::Gone } else { Loss::Refused };
            self.model_lost(now, loss, out);
        } else if matches!(self.phase, Phase::Opening(_)) && error.event_id.as_deref() == Some(SESSION_EVENT_ID) {
            self.end(now, EndReason::SessionRefused, out);
        }
    }
}
