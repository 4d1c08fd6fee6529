//! The caller speaks into the agent's words.

use super::{Action, Call, Millis};
use crate::bridge::openai;
use crate::bridge::playback::Heard;

impl Call {
    /// What is queued at Twilio goes first, then the model learns what was heard. Whether the running response is
    /// cancelled is the server's part (`interrupt_response`).
    pub(super) fn interrupt(&mut self, now: Millis, out: &mut Vec<Action>) {
        // The server answers what the caller says now.
        self.retry.forget();
        self.responses.fence();
        if self.playback.is_idle() {
            return;
        }
        out.push(Action::ToCaller(self.stream.clear()));
        for heard in self.playback.clear(now) {
            out.push(Action::ToModel(openai::truncate(&heard.part, heard.heard_ms)));
            self.cut(&heard, out);
        }
    }

    /// The caller has heard no more of a part than this.
    pub(super) fn cut(&mut self, heard: &Heard, out: &mut Vec<Action>) {
        out.extend(self.transcript.cut(heard).map(Action::Line));
    }
}
