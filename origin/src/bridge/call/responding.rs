//! The model's responses: asked for, played and ended.

use super::greeting::Greeting;
use super::{Action, Call, Millis, Phase};
use crate::bridge::call::loss::Loss;
use crate::bridge::openai::{ErrorBody, ResponseCreated, ResponseDone};
use crate::bridge::playback::Part;
use crate::bridge::responses::Ask;
use crate::bridge::wire::{Audio, BYTES_PER_MS};

/// Audio goes to Twilio in pieces of at most this many bytes, so that marks can stand between them: 200 ms, cut where
/// base64 can be cut.
const PIECE_BYTES: usize = 1599;

impl Call {
    /// Asks the model to speak, as soon as it may: the one door for every reason to.
    pub(super) fn ask(&mut self, now: Millis, ask: Ask, out: &mut Vec<Action>) {
        out.extend(self.responses.want(now, ask).map(Action::ToModel));
    }

    /// Asks again for a response that failed, and for what waits, if it is time.
    pub(super) fn responses_due(&mut self, now: Millis, out: &mut Vec<Action>) {
        out.extend(self.responses.due(now).map(Action::ToModel));
        if let Some(ask) = self.retry.due(now) {
            self.ask(now, ask, out);
        }
    }

    pub(super) fn response_created(&mut self, created: ResponseCreated, out: &mut Vec<Action>) {
        if !self.is_fenced(&created.id) {
            self.settle(out);
        }
        self.retry.forget();
        self.responses.release();
        let tag = created.tag().map(str::to_owned);
        if tag.is_none() && self.unseen_outputs == 0 {
            // The server answers the caller, and knows all that anybody wanted to say.
            self.responses.forget_turn();
        }
        out.extend(self.responses.created(created.id, tag.as_deref()).map(Action::ToModel));
    }

    pub(super) fn agent_audio(
        &mut self,
        now: Millis,
        response_id: &str,
        part: &Part,
        audio: Audio<'_>,
        out: &mut Vec<Action>,
    ) {
        if !self.responses.may_play(response_id) {
            return self.late_audio(response_id, part, audio);
        }
        self.transcript.agent_sounds(&part.item_id, audio.byte_len() / BYTES_PER_MS);
        for piece in audio.pieces(PIECE_BYTES) {
            out.push(Action::ToCaller(self.stream.media(piece)));
            let mark = self.playback.sent(now, part, piece.byte_len());
            self.waits.audio(now);
            if let Some(mark) = mark {
                self.waits.mark_sent(&mark);
                out.push(Action::ToCaller(self.stream.mark(&mark)));
            }
        }
    }

    /// Nothing more of an item comes: its end is marked, so that it is known when it was heard.
    pub(super) fn mark_end(&mut self, out: &mut Vec<Action>) {
        if let Some(mark) = self.playback.mark() {
            self.waits.mark_sent(&mark);
            out.push(Action::ToCaller(self.stream.mark(&mark)));
        }
    }

    pub(super) fn response_done(&mut self, now: Millis, done: ResponseDone, out: &mut Vec<Action>) {
        if let Some(usage) = done.usage.filter(serde_json::Value::is_object) {
            out.push(Action::Usage(usage));
        }
        self.mark_end(out);
        if self.is_fenced(&done.id) {
            self.settle(out);
        }
        let ask = self.responses.done(&done.id);
        let details = done.status_details.unwrap_or_default();
        match done.status.as_str() {
            "failed" => self.failed(now, &details.error.unwrap_or_default(), ask, out),
            "incomplete" => self.incomplete(details.reason.as_deref().unwrap_or_default(), ask.as_ref(), out),
            _ => self.retry.succeeded(),
        }
        if !matches!(self.phase, Phase::Talking) {
            return;
        }
        if matches!(done.status.as_str(), "completed" | "incomplete") {
            self.unanswered.answered();
            self.losses = 0;
        }
        if self.retry.deadline().is_none() {
            self.first_words_generated(now, out);
        }
        if let Some(event) = self.responses.next(now) {
            self.retry.forget();
            out.push(Action::ToModel(event));
        }
    }

    pub(super) fn error(&mut self, now: Millis, error: &ErrorBody, out: &mut Vec<Action>) {
        if let Some(ask) = self.responses.refused(now, error) {
            return self.failed(now, error, Some(ask), out);
        }
        out.push(Action::Fault { code: error.word().to_owned(), context: "event" });
        if let Some(loss) = Loss::of(error) {
            self.model_lost(now, loss, out);
        }
    }

    /// Whether the first message is being kept from interruptions.
    pub(super) fn is_protected(&self) -> bool {
        matches!(self.greeting, Greeting::Protected { .. })
    }
}
