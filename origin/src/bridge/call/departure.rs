//! The process stops, and the call goes on in another one: from a quiet moment on, or from the last.

use super::{Action, Call, EndReason, Millis, Phase};

impl Call {
    /// This process stops, and has time for the call until then.
    pub(super) fn depart(&mut self, by: Millis) {
        self.departs_by = Some(by);
    }

    /// Leaves when nobody would notice, or when there is no more time. A call that is on its way out leaves as it meant
    /// to, if need be before its last words are heard.
    pub(super) fn departure_due(&mut self, now: Millis, out: &mut Vec<Action>) {
        let Some(by) = self.departs_by else { return };
        if let Some(leaving) = &mut self.leaving {
            leaving.hurry(by);
        } else if now >= by || self.nothing_is_lost() {
            self.end(now, EndReason::HandedOver, out);
        }
    }

    /// Whether the next process finds in the record all that this one knows.
    fn nothing_is_lost(&self) -> bool {
        match self.phase {
            Phase::Opening => true,
            Phase::Talking => self.is_quiet() && self.keys.is_idle(),
            Phase::Over => false,
        }
    }
}
