//! How a stream of a call begins: with the agent's first message, or with whatever the conversation so far calls for.
//!
//! What counts is what the caller has heard. After a stream was lost somebody speaks in any case, since the caller does
//! not know that the line is back.

use super::playback::Millis;
use super::responses::Ask;
use super::session::Said;
use crate::store::transcript_items::{Speaker, TranscriptItem};

/// A caller who has heard the agent's last words may well speak first when the line is back. After so many milliseconds
/// the agent does.
const CALLER_FIRST_MS: Millis = 2_000;

/// What a stream begins with.
#[derive(Debug, PartialEq, Eq)]
pub struct Beginning {
    /// What the agent says unasked; `None`: it waits for the caller.
    pub ask: Option<Ask>,
    /// For how long the caller may speak before it, in milliseconds.
    pub after_ms: Millis,
    /// Whether this is the first message of the call, as far as the caller knows.
    pub is_first: bool,
    /// What the agent knows of the conversation so far.
    pub past: Vec<Said>,
    /// Whether the agent's last words in it did not reach the caller whole.
    pub broke_off: bool,
}

/// What the first message of a new call is like.
#[derive(Debug)]
pub struct First {
    /// What the agent says; `None`: it waits for the caller.
    pub ask: Option<Ask>,
    /// Whether it has to be heard whole.
    pub is_protected: bool,
}

impl Beginning {
    /// Of a stream that finds this `past`. `taken_up`: the call has had a stream before.
    pub fn new(past: Vec<TranscriptItem>, taken_up: bool, first: First) -> Self {
        let unheard = |item: &TranscriptItem| {
            item.role == Speaker::Assistant
                && if first.is_protected { !is_whole(item) } else { item.heard_ms.unwrap_or(0) == 0 }
        };
        if first.ask.is_some() && past.iter().all(unheard) {
            return Self { ask: first.ask, after_ms: 0, is_first: true, past: Vec::new(), broke_off: false };
        }
        let broke_off = past.last().is_some_and(|last| last.role == Speaker::Assistant && !is_whole(last));
        let awaits_caller = !broke_off && past.last().is_none_or(|last| last.role == Speaker::Assistant);
        Self {
            ask: (taken_up || !awaits_caller).then_some(Ask::Turn),
            after_ms: if awaits_caller { CALLER_FIRST_MS } else { 0 },
            is_first: false,
            past: past.into_iter().map(said).collect(),
            broke_off,
        }
    }
}

/// Whether the caller has heard all of it: that is known once its last mark has come back.
const fn is_whole(item: &TranscriptItem) -> bool {
    !item.interrupted && item.heard_ms.is_some()
}

fn said(item: TranscriptItem) -> Said {
    match item.role {
        Speaker::Caller => Said::Caller(item.text),
        Speaker::Assistant => Said::Agent(item.text),
        Speaker::Tool => Said::Note(item.text),
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    fn item(role: Speaker, heard_ms: Option<i32>, interrupted: bool) -> TranscriptItem {
        let (text, item_id, at) = ("Words.".to_owned(), None, OffsetDateTime::UNIX_EPOCH);
        TranscriptItem { position: 0, role, text, item_id, heard_ms, interrupted, at }
    }

    fn whole() -> TranscriptItem {
        item(Speaker::Assistant, Some(900), false)
    }

    fn cut(heard_ms: i32) -> TranscriptItem {
        item(Speaker::Assistant, Some(heard_ms), true)
    }

    fn unknown() -> TranscriptItem {
        item(Speaker::Assistant, None, false)
    }

    fn caller() -> TranscriptItem {
        item(Speaker::Caller, None, false)
    }

    fn greeting() -> Ask {
        Ask::Say("Hello.".into())
    }

    /// What an agent that greets does after this, and whether it is the first message.
    fn greets(past: &[TranscriptItem], taken_up: bool, is_protected: bool) -> (Option<Ask>, bool) {
        let beginning = Beginning::new(past.to_vec(), taken_up, First { ask: Some(greeting()), is_protected });
        assert_eq!(beginning.past.is_empty(), beginning.is_first, "who is greeted has no past");
        (beginning.ask, beginning.is_first)
    }

    #[test]
    fn a_first_message_is_said_until_it_is_heard() {
        let first = (Some(greeting()), true);
        for is_protected in [false, true] {
            for past in [&[][..], &[unknown()], &[cut(0)], &[unknown(), cut(0)]] {
                assert_eq!(greets(past, true, is_protected), first, "{past:?}");
            }
            assert_eq!(greets(&[], false, is_protected), first);
            // Once somebody has heard it, or has spoken, it is not said again.
            for past in [&[whole()][..], &[unknown(), whole()], &[unknown(), caller()], &[whole(), unknown()]] {
                assert_eq!(greets(past, true, is_protected), (Some(Ask::Turn), false), "{past:?}");
            }
        }
        assert_eq!(greets(&[cut(300)], true, false), (Some(Ask::Turn), false), "it goes on from there");
        assert_eq!(greets(&[cut(300)], true, true), first, "what is protected is heard whole");
    }

    #[test]
    fn whoever_is_back_on_the_line_hears_somebody() {
        let listening = |past: &[TranscriptItem], taken_up: bool| {
            let first = First { ask: None, is_protected: false };
            let Beginning { ask, after_ms, broke_off, .. } = Beginning::new(past.to_vec(), taken_up, first);
            (ask, after_ms, broke_off)
        };
        let turn = Some(Ask::Turn);
        assert_eq!(listening(&[], false).0, None, "a new call");
        assert_eq!(listening(&[], true), (turn.clone(), CALLER_FIRST_MS, false), "perhaps nobody heard the caller");
        assert_eq!(listening(&[caller()], true), (turn.clone(), 0, false), "an answer is due");
        assert_eq!(listening(&[item(Speaker::Tool, None, false)], true), (turn.clone(), 0, false), "something is new");
        assert_eq!(listening(&[caller(), whole()], true), (turn.clone(), CALLER_FIRST_MS, false));
        for last in [unknown(), cut(0), cut(300)] {
            assert_eq!(listening(&[caller(), last], true), (turn.clone(), 0, true), "the rest is due");
        }
    }
}
