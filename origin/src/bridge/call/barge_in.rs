//! The caller speaks into the agent's words.
//!
//! What is queued at Twilio goes first, then the model learns what was heard: an item of which something was heard is
//! truncated there, one of which nothing was heard is deleted. Audio that the model has sent after that is dropped; what
//! belongs to items of a response that still runs is settled when it is over, since only then nothing more comes.

use super::{Action, Call, Millis};
use crate::bridge::openai;
use crate::bridge::playback::Part;
use crate::bridge::wire::{Audio, BYTES_PER_MS};

/// A response that the caller has interrupted and that still runs.
#[derive(Debug)]
pub(super) struct Fenced {
    id: String,
    /// Parts of which is known what was heard.
    settled: Vec<Part>,
    /// What the model is told when the response is over.
    then: Vec<String>,
}

impl Call {
    /// The caller speaks, and OpenAI stops the running response by itself (`interrupt_response`).
    pub(super) fn interrupt(&mut self, now: Millis, out: &mut Vec<Action>) {
        self.fence(now, None, out);
    }

    /// The same when OpenAI does not stop it: what runs is cancelled.
    pub(super) fn interrupt_ourselves(&mut self, now: Millis, out: &mut Vec<Action>) {
        if !self.is_protected() {
            self.fence(now, Some(openai::cancel_response), out);
        }
    }

    fn fence(&mut self, now: Millis, cancel: Option<fn(&str) -> String>, out: &mut Vec<Action>) {
        // Whoever speaks now is answered, and not what failed before.
        self.retry.forget();
        let clear = (!self.playback.is_idle()).then(|| self.stream.clear());
        out.extend(clear.map(Action::ToCaller));
        if let Some(id) = self.responses.fence().cloned() {
            out.extend(cancel.map(|cancel| Action::ToModel(cancel(&id))));
            self.settle(out);
            self.fenced = Some(Fenced { id, settled: Vec::new(), then: Vec::new() });
        }
        out.extend(self.waits.cut(now).map(Action::Turn));
        if self.playback.is_idle() {
            return;
        }
        out.push(Action::Interrupted);
        for heard in self.playback.clear(now) {
            // A later part of an item of which the first was heard cannot be deleted alone.
            if !self.transcript.is_of_session(&heard.part.item_id) {
                // Nobody knows it any more.
            } else if heard.heard_ms > 0 || heard.part.content_index > 0 {
                out.push(Action::ToModel(openai::truncate(&heard.part, heard.heard_ms)));
            } else {
                self.delete(&heard.part, out);
            }
            out.extend(self.transcript.cut(&heard.part.item_id, heard.heard_ms).map(Action::Line));
            if let Some(fenced) = &mut self.fenced {
                fenced.settled.push(heard.part);
            }
        }
    }

    /// Nothing of an item was heard.
    fn delete(&mut self, part: &Part, out: &mut Vec<Action>) {
        let delete = openai::delete(&part.item_id);
        match &mut self.fenced {
            Some(fenced) => fenced.then.push(delete),
            None => out.push(Action::ToModel(delete)),
        }
    }

    /// Audio that the caller will not hear.
    pub(super) fn late_audio(&mut self, response_id: &str, part: &Part, audio: Audio<'_>) {
        let Some(fenced) = self.fenced.as_mut().filter(|fenced| fenced.id == response_id) else { return };
        self.transcript.agent_sounds(&part.item_id, audio.byte_len() / BYTES_PER_MS);
        if fenced.settled.contains(part) {
            return;
        }
        fenced.settled.push(part.clone());
        // An item of which everything was heard that had come, and now there is more of it.
        let heard_ms = self.playback.last_sent_ms(part).unwrap_or(0);
        fenced.then.push(match heard_ms {
            0 => openai::delete(&part.item_id),
            heard_ms => openai::truncate(part, heard_ms),
        });
        // Told when the words are there as well.
        self.transcript.cut(&part.item_id, heard_ms);
    }

    /// The interrupted response is over, or out of sight.
    pub(super) fn settle(&mut self, out: &mut Vec<Action>) {
        out.extend(self.fenced.take().into_iter().flat_map(|fenced| fenced.then).map(Action::ToModel));
    }

    /// Whether this is the response that was interrupted last.
    pub(super) fn is_fenced(&self, response_id: &str) -> bool {
        self.fenced.as_ref().is_some_and(|fenced| fenced.id == response_id)
    }
}
