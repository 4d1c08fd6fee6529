//! What ends a call that nobody ends: silence, and the longest time that it may take.
//!
//! Silence is when nobody speaks and nobody is about to: no audio is played, no response runs, no tool. A caller who
//! says nothing is asked now and then; what is asked stops the clock and does not set it back, unlike anything else that
//! is said.

use super::{Action, Call, EndReason, Millis};
use crate::bridge::responses::Ask;
use crate::store::agents::realtime::CallRules;
use crate::store::agents::realtime::call::Idle;

/// How the agent takes its leave where its owner has written no words for it.
const TIME_IS_UP: &str = "The call has lasted as long as it may and is ended now. Tell the caller so in one short \
                          sentence, in the language of the conversation, and say goodbye.";
const NOBODY_THERE: &str = "The caller has said nothing for a long time, and the call is ended now. Say goodbye in one \
                            short sentence, in the language of the conversation.";

/// The limits of a stream, and the words that go with them.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// When the call has taken as long as it may, on the stream's clock.
    pub ends_at: Option<Millis>,
    /// How much silence ends the call.
    pub silence_ms: Option<Millis>,
    /// What is said to a caller who says nothing.
    pub idle: Option<Idle>,
    /// What the agent says before it ends the call.
    pub farewell: Option<String>,
    /// What ends the call when the agent says it, in lower case.
    pub end_phrases: Vec<String>,
}

impl Rules {
    /// An agent's rules, with the origin's own limits where it has none. `spent_ms`: how long the call has taken.
    pub fn new(rules: &CallRules, max_seconds: u32, silence_seconds: u32, spent_ms: Millis) -> Self {
        let ms = |own: Option<u32>, ours: u32| Millis::from(own.unwrap_or(ours)) * 1000;
        Self {
            ends_at: Some(ms(rules.max_duration_seconds, max_seconds).saturating_sub(spent_ms)),
            silence_ms: Some(ms(rules.silence_timeout_seconds, silence_seconds)),
            idle: rules.idle.clone().filter(|idle| !idle.messages.is_empty()),
            farewell: rules.end_call_message.clone().filter(|words| !words.trim().is_empty()),
            end_phrases: rules.end_call_phrases.iter().map(|phrase| phrase.trim().to_lowercase()).collect(),
        }
    }

    /// Whether these words of the agent's end the call.
    pub(super) fn ends_call(&self, text: &str) -> bool {
        !self.end_phrases.is_empty() && {
            let text = text.to_lowercase();
            self.end_phrases.iter().any(|phrase| !phrase.is_empty() && text.contains(phrase))
        }
    }

    fn last_words(&self, guide: &str) -> Ask {
        self.farewell.clone().map_or_else(|| Ask::Guide(guide.to_owned()), Ask::Say)
    }
}

/// What silence asks for.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Prompt(String),
    End,
}

/// Who is heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sound {
    /// Somebody, or somebody is about to be.
    #[default]
    Speech,
    /// The agent, asking whether anybody is there.
    Prompt,
    /// Nobody, since then.
    Nothing(Millis),
}

/// The clock of silence.
#[derive(Debug, Default)]
pub(super) struct Silence {
    sound: Sound,
    caller_speaks: bool,
    /// Silence before the prompts that have interrupted it.
    before_ms: Millis,
    /// Silence since the last prompt or speech.
    prompts: u32,
    limit_ms: Option<Millis>,
    idle: Option<Idle>,
}

impl Silence {
    pub(super) fn new(rules: &Rules) -> Self {
        Self { limit_ms: rules.silence_ms, idle: rules.idle.clone(), ..Self::default() }
    }

    /// The caller begins to speak.
    pub(super) fn caller_speaks(&mut self) {
        self.caller_speaks = true;
        self.sound = Sound::Speech;
        self.before_ms = 0;
    }

    /// The caller has spoken, or has pressed a key.
    pub(super) fn caller_spoke(&mut self) {
        self.caller_speaks = false;
        self.sound = Sound::Speech;
        self.before_ms = 0;
    }

    /// `quiet`: nothing comes from the agent.
    pub(super) fn update(&mut self, now: Millis, quiet: bool) {
        match (self.sound, quiet && !self.caller_speaks) {
            (Sound::Speech | Sound::Prompt, true) => self.sound = Sound::Nothing(now),
            (Sound::Nothing(_), false) => {
                self.sound = Sound::Speech;
                self.before_ms = 0;
            }
            _ => {}
        }
    }

    pub(super) fn deadline(&self) -> Option<Millis> {
        let Sound::Nothing(since) = self.sound else { return None };
        let end = self.limit_ms.map(|limit| since + limit.saturating_sub(self.before_ms));
        let prompt = self.idle.as_ref().filter(|idle| self.prompts < idle.times);
        end.into_iter().chain(prompt.map(|idle| since + Millis::from(idle.after_ms))).min()
    }

    fn due(&mut self, now: Millis) -> Option<Due> {
        let Sound::Nothing(since) = self.sound else { return None };
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return None;
        }
        let silent_ms = self.before_ms + now.saturating_sub(since);
        if self.limit_ms.is_some_and(|limit| silent_ms >= limit) {
            return Some(Due::End);
        }
        let idle = self.idle.as_ref()?;
        let text = idle.messages.get(self.prompts as usize % idle.messages.len())?.clone();
        self.prompts += 1;
        self.before_ms = silent_ms;
        self.sound = Sound::Prompt;
        Some(Due::Prompt(text))
    }
}

impl Call {
    /// When a limit is reached, or the last words have taken too long.
    pub(super) fn limits_deadline(&self) -> Option<Millis> {
        match &self.leaving {
            Some(leaving) => Some(leaving.deadline()),
            None => self.rules.ends_at.into_iter().chain(self.silence.deadline()).min(),
        }
    }

    pub(super) fn limits_due(&mut self, now: Millis, out: &mut Vec<Action>) {
        if self.leaving.is_some() {
            return;
        }
        if self.rules.ends_at.is_some_and(|at| now >= at) {
            let last_words = self.rules.last_words(TIME_IS_UP);
            return self.leave(now, EndReason::MaxDuration, None, Some(last_words), out);
        }
        match self.silence.due(now) {
            Some(Due::Prompt(text)) => self.ask(now, Ask::Say(text), out),
            Some(Due::End) => {
                let last_words = self.rules.last_words(NOBODY_THERE);
                self.leave(now, EndReason::Silence, None, Some(last_words), out);
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silence(limit_ms: Millis, after_ms: u32, times: u32) -> Silence {
        let idle = Idle { after_ms, times, messages: vec!["Hello?".into(), "Anybody?".into()] };
        Silence::new(&Rules { silence_ms: Some(limit_ms), idle: Some(idle), ..Rules::default() })
    }

    fn prompt(text: &str) -> Due {
        Due::Prompt(text.into())
    }

    #[test]
    fn prompts_stop_the_clock_and_do_not_set_it_back() {
        let mut silence = silence(10_000, 4_000, 5);
        assert_eq!(silence.deadline(), None);
        silence.update(1_000, true);
        assert_eq!((silence.deadline(), silence.due(4_999)), (Some(5_000), None));
        assert_eq!(silence.due(5_000), Some(prompt("Hello?")));
        silence.update(5_000, false);
        assert_eq!(silence.deadline(), None);
        silence.update(8_000, true);
        assert_eq!(silence.due(12_000), Some(prompt("Anybody?")));
        silence.update(12_000, false);
        silence.update(13_000, true);
        assert_eq!((silence.deadline(), silence.due(15_000)), (Some(15_000), Some(Due::End)));
    }

    #[test]
    fn whoever_speaks_sets_the_clock_back() {
        let mut silence = silence(10_000, 4_000, 1);
        silence.update(0, true);
        assert_eq!(silence.due(4_000), Some(prompt("Hello?")));
        silence.update(4_000, false);
        silence.caller_speaks();
        silence.update(5_000, true);
        assert_eq!(silence.deadline(), None, "while the caller speaks");
        silence.caller_spoke();
        silence.update(6_000, true);
        assert_eq!(silence.deadline(), Some(16_000), "asked once, and not again");
        silence.update(9_000, false);
        silence.update(10_000, true);
        assert_eq!(silence.deadline(), Some(20_000), "the agent spoke");
    }

    #[test]
    fn an_agents_own_rules_come_first() {
        let rules = serde_json::from_str(r#"{"maxDurationSeconds":60,"endCallPhrases":[" Good Bye "]}"#).unwrap();
        let rules = Rules::new(&rules, 3600, 300, 20_000);
        assert_eq!((rules.ends_at, rules.silence_ms), (Some(40_000), Some(300_000)));
        assert!(rules.ends_call("well, GOOD BYE then") && !rules.ends_call("goodbye"));
        assert_eq!(Rules::new(&CallRules::default(), 1, 1, 20_000).ends_at, Some(0));
        assert!(!Rules::default().ends_call("anything"));
    }
}
