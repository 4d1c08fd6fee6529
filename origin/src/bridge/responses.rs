//! Who may make the model speak. OpenAI runs one response at a time and refuses a second: this keeps at most one
//! request under way and one waiting, however many reasons to speak come up meanwhile.

use super::openai::{ErrorBody, ResponseId};

/// Whether a response runs.
#[derive(Debug, Default, PartialEq, Eq)]
enum Slot {
    #[default]
    Idle,
    /// We asked for one; the id of our event.
    Requested(String),
    Active(ResponseId),
}

/// The sequencer of one session.
#[derive(Debug, Default)]
pub struct Responses {
    slot: Slot,
    /// A response is wanted as soon as the present one is over.
    waiting: bool,
    /// The response whose late audio is dropped, because the caller has interrupted it.
    fenced: Option<ResponseId>,
    asked: u32,
}

impl Responses {
    /// Asks for a response; returns the id of the event to send now, if one may be sent now.
    pub fn want(&mut self) -> Option<String> {
        if self.slot == Slot::Idle {
            self.waiting = false;
            self.asked += 1;
            let event_id = event_id(self.asked);
            self.slot = Slot::Requested(event_id.clone());
            Some(event_id)
        } else {
            self.waiting = true;
            None
        }
    }

    /// A response has begun: ours, or one that the server made for the caller's turn.
    pub fn created(&mut self, id: ResponseId) {
        self.slot = Slot::Active(id);
    }

    /// A response is over; returns the event id of the next request, if one was waiting.
    pub fn done(&mut self, id: &str) -> Option<String> {
        if self.fenced.as_deref() == Some(id) {
            self.fenced = None;
        }
        if matches!(&self.slot, Slot::Active(active) if active == id) {
            self.slot = Slot::Idle;
        }
        if self.waiting { self.want() } else { None }
    }

    /// Our request was refused. When another response was quicker, ours waits for its end.
    pub fn refused(&mut self, error: &ErrorBody) {
        if self.asked == 0 || error.event_id.as_deref() != Some(event_id(self.asked).as_str()) {
            return;
        }
        if matches!(self.slot, Slot::Requested(_)) {
            self.slot = Slot::Idle;
        }
        self.waiting |= error.code.as_deref() == Some("conversation_already_has_active_response");
    }

    /// The caller interrupts: the active response's audio is dropped from now on.
    pub fn fence(&mut self) {
        if let Slot::Active(id) = &self.slot {
            self.fenced = Some(id.clone());
        }
    }

    /// Whether audio of this response may still be played.
    pub fn may_play(&self, id: &str) -> bool {
        self.fenced.as_deref() != Some(id)
    }
}

fn event_id(asked: u32) -> String {
    format!("create_{asked}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(event_id: &str) -> ErrorBody {
        ErrorBody {
            code: Some("conversation_already_has_active_response".into()),
            event_id: Some(event_id.into()),
            ..ErrorBody::default()
        }
    }

    #[test]
    fn one_at_a_time_and_requests_coalesce() {
        let mut responses = Responses::default();
        assert_eq!(responses.want().as_deref(), Some("create_1"));
        assert_eq!(responses.want(), None);
        responses.created("r1".into());
        assert_eq!(responses.want(), None);
        assert_eq!(responses.done("r1").as_deref(), Some("create_2"));
        responses.created("r2".into());
        assert_eq!(responses.done("r2"), None);
    }

    #[test]
    fn a_quicker_response_of_the_servers_goes_first() {
        let mut responses = Responses::default();
        let ours = responses.want().unwrap();
        responses.created("vad".into());
        responses.refused(&busy(&ours));
        assert_eq!(responses.done("vad").as_deref(), Some("create_2"));
        responses.refused(&busy("create_2"));
        responses.created("vad2".into());
        assert_eq!(responses.done("vad2").as_deref(), Some("create_3"));
    }

    #[test]
    fn a_refusal_of_somebody_elses_request_asks_for_nothing() {
        let mut responses = Responses::default();
        responses.refused(&busy("create_0"));
        responses.want();
        responses.created("r1".into());
        responses.refused(&busy("create_9"));
        responses.refused(&ErrorBody { event_id: None, ..busy("") });
        assert_eq!(responses.done("r1"), None);
    }

    #[test]
    fn late_audio_is_fenced_until_its_response_is_done() {
        let mut responses = Responses::default();
        responses.created("r1".into());
        assert!(responses.may_play("r1"));
        responses.fence();
        assert!(!responses.may_play("r1"));
        assert!(responses.may_play("r2"));
        responses.done("r1");
        responses.fence();
        assert!(responses.may_play("r2"));
    }
}
