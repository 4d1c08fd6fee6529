//! Who may make the model speak. OpenAI runs one response at a time and refuses a second, and the server makes
//! responses of its own for the caller's turns: this keeps at most one request under way, and the others waiting,
//! however many reasons to speak come up meanwhile.
//!
//! Requests are tagged, and the tag comes back with `response.created`: only so is a response of ours told from one of
//! the server's. A request that is no longer wanted is cancelled when its response appears; before that OpenAI knows
//! nothing to cancel.

use std::collections::VecDeque;

use super::openai::{self, ErrorBody, ResponseId};
use super::playback::Millis;

/// Requests that wait. More reasons to speak than this are never there at once; the oldest goes.
const WAITING_LIMIT: usize = 8;
/// A request that OpenAI has not answered in this time is forgotten, in milliseconds.
const ANSWER_LIMIT_MS: Millis = 10_000;
/// How long a request waits that was refused for a response that we know nothing of, in milliseconds.
const BUSY_MS: Millis = 1_000;

/// What the model is asked to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// What the conversation calls for.
    Turn,
    /// These words and no others.
    Say(String),
    /// Words of its own for this purpose.
    Guide(String),
}

/// Whether the caller shall hear a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Wanted,
    /// The caller has spoken into it.
    Unwanted,
}

/// A response that runs.
#[derive(Debug)]
struct Active {
    id: ResponseId,
    ask: Ask,
    fate: Fate,
}

/// A request that has no answer yet.
#[derive(Debug)]
struct Asked {
    event_id: String,
    ask: Ask,
    fate: Fate,
    since: Millis,
}

/// The sequencer of one session.
#[derive(Debug, Default)]
pub struct Responses {
    active: Option<Active>,
    asked: Option<Asked>,
    waiting: VecDeque<Ask>,
    /// Until when nothing is asked for, whoever wants it.
    held_until: Option<Millis>,
    count: u32,
}

impl Responses {
    /// Wants a response; returns the request, if one may be sent now.
    pub fn want(&mut self, now: Millis, ask: Ask) -> Option<String> {
        self.wait(ask);
        self.next(now)
    }

    /// Wants a response after all others, with the next [`Self::next`].
    pub fn wait(&mut self, ask: Ask) {
        if !self.waiting.contains(&ask) {
            self.waiting.push_back(ask);
        }
        if self.waiting.len() > WAITING_LIMIT {
            self.waiting.pop_front();
        }
    }

    /// A response has begun: ours if it has the tag of our request, else one that the server made for the caller's turn.
    /// Returns its cancellation if it is not wanted any more.
    pub fn created(&mut self, id: ResponseId, tag: Option<&str>) -> Option<String> {
        let ours = self.asked.take_if(|asked| tag == Some(asked.event_id.as_str()));
        let (ask, fate) = ours.map_or((Ask::Turn, Fate::Wanted), |asked| (asked.ask, asked.fate));
        let cancel = (fate == Fate::Unwanted).then(|| openai::cancel_response(&id));
        self.active = Some(Active { id, ask, fate });
        cancel
    }

    /// The response that has begun takes the turn that was waited for.
    pub fn forget_turn(&mut self) {
        self.waiting.retain(|ask| *ask != Ask::Turn);
    }

    /// A response is over. Returns what it was to say, if the caller was to hear it.
    pub fn done(&mut self, id: &str) -> Option<Ask> {
        let over = self.active.take_if(|active| active.id == id)?;
        (over.fate == Fate::Wanted).then_some(over.ask)
    }

    /// Something that we sent was refused; returns what was asked for, if it was our request and for no other reason
    /// than that another response was quicker: then it waits for the end of that one.
    pub fn refused(&mut self, now: Millis, error: &ErrorBody) -> Option<Ask> {
        let refused = self.asked.take_if(|asked| error.event_id.as_deref() == Some(asked.event_id.as_str()))?;
        if refused.fate == Fate::Unwanted {
            return None;
        }
        if error.code.as_deref() != Some("conversation_already_has_active_response") {
            return Some(refused.ask);
        }
        if self.active.is_none() {
            self.hold(now + BUSY_MS);
        }
        self.waiting.push_front(refused.ask);
        None
    }

    /// The caller interrupts: nothing is heard of what runs or was asked for. Words that wait are not said any more.
    /// Returns the response that is to be cancelled, unless the server does that.
    pub fn fence(&mut self) -> Option<&ResponseId> {
        self.waiting.retain(|ask| *ask == Ask::Turn);
        if let Some(asked) = &mut self.asked {
            asked.fate = Fate::Unwanted;
        }
        let active = self.active.as_mut().filter(|active| active.fate == Fate::Wanted)?;
        active.fate = Fate::Unwanted;
        Some(&active.id)
    }

    /// Asks for nothing before this time, or before [`Self::release`].
    pub fn hold(&mut self, until: Millis) {
        self.held_until = Some(until);
    }

    /// Asks again.
    pub fn release(&mut self) {
        self.held_until = None;
    }

    /// The next request, if there is one and it may be sent.
    pub fn next(&mut self, now: Millis) -> Option<String> {
        if self.held_until.is_some() || self.asked.is_some() || self.active.is_some() {
            return None;
        }
        let ask = self.waiting.pop_front()?;
        self.count += 1;
        let event_id = format!("create_{}", self.count);
        let event = openai::create_response(&event_id, &ask);
        self.asked = Some(Asked { event_id, ask, fate: Fate::Wanted, since: now });
        Some(event)
    }

    /// When [`Self::due`] has something to do.
    pub fn deadline(&self) -> Option<Millis> {
        let unanswered = self.asked.as_ref().map(|asked| asked.since + ANSWER_LIMIT_MS);
        self.held_until.into_iter().chain(unanswered).min()
    }

    /// Lets go of what has taken too long; returns the next request.
    pub fn due(&mut self, now: Millis) -> Option<String> {
        self.held_until.take_if(|until| now >= *until);
        self.asked.take_if(|asked| now >= asked.since + ANSWER_LIMIT_MS);
        self.next(now)
    }

    /// The session is gone: gives what was wanted of it and is not over.
    pub fn abandon(&mut self) -> Vec<Ask> {
        let Self { active, asked, waiting, .. } = std::mem::take(self);
        let active = active.filter(|active| active.fate == Fate::Wanted).map(|active| active.ask);
        let asked = asked.filter(|asked| asked.fate == Fate::Wanted).map(|asked| asked.ask);
        let mut wanted: Vec<Ask> = active.into_iter().chain(asked).chain(waiting).collect();
        wanted.dedup();
        wanted
    }

    /// Whether audio of this response may be played.
    pub fn may_play(&self, id: &str) -> bool {
        self.active.as_ref().is_some_and(|active| active.id == id && active.fate == Fate::Wanted)
    }

    /// Whether a response runs, or is asked for, that the caller is to hear.
    pub fn is_heard(&self) -> bool {
        let active = self.active.as_ref().map(|active| active.fate);
        active.into_iter().chain(self.asked.as_ref().map(|asked| asked.fate)).any(|fate| fate == Fate::Wanted)
    }

    /// Whether no response runs, and none is asked for or wanted.
    pub fn is_idle(&self) -> bool {
        self.active.is_none() && self.asked.is_none() && self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event_id(request: Option<String>) -> Option<String> {
        let event: serde_json::Value = serde_json::from_str(&request?).unwrap();
        assert_eq!(event["response"]["metadata"]["tandem"], event["event_id"]);
        event["event_id"].as_str().map(str::to_owned)
    }

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
        assert_eq!(event_id(responses.want(0, Ask::Turn)).as_deref(), Some("create_1"));
        assert_eq!(responses.want(0, Ask::Turn), None);
        assert_eq!(responses.created("r1".into(), Some("create_1")), None);
        assert_eq!(responses.want(0, Ask::Turn), None);
        assert_eq!(responses.done("r1"), Some(Ask::Turn));
        assert_eq!(event_id(responses.next(0)).as_deref(), Some("create_2"));
        responses.created("r2".into(), Some("create_2"));
        assert_eq!(responses.done("r2"), Some(Ask::Turn));
        assert_eq!(responses.next(0), None);
        assert!(responses.is_idle());
    }

    #[test]
    fn a_quicker_response_of_the_servers_goes_first() {
        let mut responses = Responses::default();
        responses.want(0, Ask::Say("Hi".into()));
        responses.created("vad".into(), None);
        assert_eq!(responses.refused(0, &busy("create_1")), None);
        assert_eq!(responses.next(0), None, "the server's runs");
        responses.done("vad");
        assert_eq!(event_id(responses.next(0)).as_deref(), Some("create_2"));
        // The one that was in the way is over before we heard of it.
        assert_eq!(responses.refused(5, &busy("create_2")), None);
        assert_eq!(responses.next(5), None);
        assert_eq!(responses.deadline(), Some(5 + BUSY_MS));
        assert_eq!(event_id(responses.due(5 + BUSY_MS)).as_deref(), Some("create_3"));
    }

    #[test]
    fn a_request_stays_under_way_while_the_server_makes_one_of_its_own() {
        let mut responses = Responses::default();
        responses.want(0, Ask::Turn);
        responses.created("vad".into(), None);
        responses.done("vad");
        assert_eq!(responses.want(0, Ask::Turn), None, "ours is not answered yet");
        responses.created("r1".into(), Some("create_1"));
        responses.done("r1");
        assert_eq!(event_id(responses.next(0)).as_deref(), Some("create_2"));
    }

    #[test]
    fn only_the_refusal_of_our_own_request_counts() {
        let mut responses = Responses::default();
        responses.want(0, Ask::Turn);
        let invalid = ErrorBody { code: Some("invalid_value".into()), ..busy("create_9") };
        assert_eq!(responses.refused(0, &invalid), None);
        assert_eq!(responses.refused(0, &ErrorBody { event_id: None, ..busy("") }), None);
        let invalid = ErrorBody { event_id: Some("create_1".into()), ..invalid };
        assert_eq!(responses.refused(0, &invalid), Some(Ask::Turn));
        assert!(responses.is_idle());
    }

    #[test]
    fn an_interruption_fences_what_runs_and_cancels_what_appears() {
        let mut responses = Responses::default();
        responses.created("r1".into(), None);
        assert!(responses.may_play("r1"));
        responses.want(0, Ask::Say("Are you there?".into()));
        assert_eq!(responses.fence().map(String::as_str), Some("r1"));
        assert_eq!(responses.fence(), None, "once");
        assert!(!responses.may_play("r1"));
        assert_eq!(responses.done("r1"), None, "nobody waits for it");
        assert!(!responses.may_play("r1"), "nor is it played when it is over");
        assert_eq!(responses.next(0), None, "the words are not said any more");

        responses.want(0, Ask::Turn);
        assert_eq!(responses.fence(), None, "there is nothing to cancel yet");
        let cancel = responses.created("r2".into(), Some("create_1")).unwrap();
        assert_eq!(cancel, r#"{"response_id":"r2","type":"response.cancel"}"#);
        assert!(!responses.may_play("r2"));
    }

    #[test]
    fn nothing_is_asked_for_while_it_is_held_and_a_silent_server_blocks_nobody() {
        let mut responses = Responses::default();
        responses.hold(100);
        assert_eq!(responses.want(0, Ask::Turn), None);
        assert_eq!(responses.due(99), None);
        assert!(responses.due(100).is_some());
        assert_eq!(responses.deadline(), Some(100 + ANSWER_LIMIT_MS));
        assert_eq!(responses.due(100 + ANSWER_LIMIT_MS), None);
        assert!(responses.want(0, Ask::Turn).is_some());
    }
}
