//! One conversation as a pure state machine: what comes over the line goes in, what Vapi does comes out.
//!
//! The media socket and the server messages are elsewhere; the time is an argument.

use std::collections::VecDeque;

use serde_json::Value;
use time::OffsetDateTime;

use super::facts::Facts;
use super::history::{History, Spoken, ToolCall, Turn};
use super::messages::{self, Role, TranscriptKind};
use super::script::{Script, Step};
use super::sound::{Detector, Speech};

/// What the model reads when a tool gave no usable answer.
pub const NO_RESULT: &str = "No result returned.";

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Send this server message, if the assistant wants its type.
    Tell(Value),
    /// Play audio to the caller, then this mark.
    Play {
        /// Mu-law.
        audio: Vec<u8>,
        /// Its name comes back when the audio has been played.
        mark: String,
    },
    /// Drop what has not been played.
    Clear,
    /// Call a tool; [`Talk::tool_answered`] takes the answer.
    Ask(ToolCall),
    /// The assistant hangs up.
    Close,
}

/// A conversation under way.
#[derive(Debug)]
pub(crate) struct Talk {
    facts: Facts,
    history: History,
    steps: VecDeque<Step>,
    detector: Detector,
    caller_since: Option<OffsetDateTime>,
    stage: Stage,
    /// The caller has finished speaking at a time when nobody was waiting for it.
    unheard: Option<Spoken>,
    interruptible: bool,
    caller_turns: usize,
    turn: u32,
}

/// What the assistant is doing.
#[derive(Debug)]
enum Stage {
    Speaking {
        text: String,
        mark: String,
        from: OffsetDateTime,
    },
    Listening {
        text: String,
    },
    Waiting {
        call: ToolCall,
    },
    /// The script is over.
    Idle,
}

impl Talk {
    /// The conversation of a call that has just been connected, and its first actions.
    ///
    /// `interruptible` is `firstMessageInterruptionsEnabled`: off by default, it protects the first thing said.
    pub(crate) fn start(
        facts: Facts,
        instructions: Option<String>,
        interruptible: bool,
        script: Script,
        now: OffsetDateTime,
    ) -> (Self, Vec<Action>) {
        let mut talk = Self {
            history: History::new(now, instructions),
            facts,
            steps: script.steps.into(),
            detector: Detector::default(),
            caller_since: None,
            stage: Stage::Idle,
            unheard: None,
            interruptible,
            caller_turns: 0,
            turn: 0,
        };
        let mut actions = vec![
            Action::Tell(messages::status_update(&talk.facts, now, "in-progress")),
            Action::Tell(messages::assistant_started(&talk.facts, now)),
        ];
        talk.advance(now, &mut actions);
        (talk, actions)
    }

    /// The conversation so far.
    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    /// The call.
    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// How often the caller began to speak.
    pub(crate) fn caller_turns(&self) -> usize {
        self.caller_turns
    }

    /// A stretch of the caller's audio.
    pub(crate) fn hear(&mut self, audio: &[u8], now: OffsetDateTime) -> Vec<Action> {
        let speech = self.detector.hear(audio);
        self.on_speech(speech, now)
    }

    /// No audio for a while.
    pub(crate) fn line_quiet(&mut self, now: OffsetDateTime) -> Vec<Action> {
        let speech = self.detector.end();
        self.on_speech(speech, now)
    }

    /// A mark has come back. Marks flushed by a `clear` are no longer awaited and mean nothing.
    pub(crate) fn played(&mut self, name: &str, now: OffsetDateTime) -> Vec<Action> {
        let mut actions = Vec::new();
        if matches!(&self.stage, Stage::Speaking { mark, .. } if mark == name) {
            self.stop_speaking(now, &mut actions);
            self.advance(now, &mut actions);
        }
        actions
    }

    /// The awaited tool has answered; `None` for an answer that Vapi cannot use.
    pub(crate) fn tool_answered(&mut self, result: Option<String>, now: OffsetDateTime) -> Vec<Action> {
        let mut actions = Vec::new();
        if let Stage::Waiting { call } = &self.stage {
            let call = call.clone();
            self.history.push(Turn::ToolResult {
                at: now,
                tool_call_id: call.id,
                name: call.name,
                result: result.unwrap_or_else(|| NO_RESULT.to_owned()),
            });
            self.tell_history(now, &mut actions);
            self.advance(now, &mut actions);
        }
        actions
    }

    /// The call is over: keeps what was being said in the history.
    pub(crate) fn end(&mut self, now: OffsetDateTime) -> Vec<Action> {
        let mut actions = Vec::new();
        self.stop_speaking(now, &mut actions);
        actions
    }

    fn on_speech(&mut self, speech: Option<Speech>, now: OffsetDateTime) -> Vec<Action> {
        let mut actions = Vec::new();
        match speech {
            None => {}
            Some(Speech::Started) => {
                self.caller_since = Some(now);
                self.caller_turns += 1;
                self.turn += 1;
                self.tell_speech(Role::User, "started", now, &mut actions);
                if matches!(self.stage, Stage::Speaking { .. }) && self.interruptible {
                    actions.push(Action::Clear);
                    actions.push(Action::Tell(messages::user_interrupted(
                        &self.facts,
                        now,
                        &format!("turn-{}", self.turn),
                    )));
                    self.stop_speaking(now, &mut actions);
                    self.advance(now, &mut actions);
                }
            }
            Some(Speech::Stopped) => {
                self.tell_speech(Role::User, "stopped", now, &mut actions);
                let from = self.caller_since.take().unwrap_or(now);
                self.unheard = Some(Spoken { text: String::new(), from, until: now });
                self.understand(now, &mut actions);
            }
        }
        actions
    }

    /// Takes what the caller has said, once it is both complete and awaited.
    fn understand(&mut self, now: OffsetDateTime, actions: &mut Vec<Action>) {
        let Stage::Listening { text } = &self.stage else {
            return;
        };
        let Some(said) = self.unheard.take() else {
            return;
        };
        let text = text.clone();
        self.tell_transcript(Role::User, &text, now, actions);
        self.history.push(Turn::User(Spoken { text, ..said }));
        self.tell_history(now, actions);
        self.stage = Stage::Idle;
        self.advance(now, actions);
    }

    fn advance(&mut self, now: OffsetDateTime, actions: &mut Vec<Action>) {
        match self.steps.pop_front() {
            None => self.stage = Stage::Idle,
            Some(Step::Say { text, audio }) => {
                self.turn += 1;
                let mark = format!("turn-{}", self.turn);
                self.tell_speech(Role::Assistant, "started", now, actions);
                actions.push(Action::Tell(messages::assistant_speech_started(&self.facts, now, &text, self.turn)));
                actions.push(Action::Play { audio, mark: mark.clone() });
                self.stage = Stage::Speaking { text, mark, from: now };
            }
            Some(Step::Hear { text }) => {
                self.stage = Stage::Listening { text };
                self.understand(now, actions);
            }
            Some(Step::Call { name, arguments }) => {
                self.turn += 1;
                let call_id: String = self.facts.call_id.chars().filter(char::is_ascii_alphanumeric).take(18).collect();
                let id = format!("call_{call_id}{:06}", self.turn);
                let call = ToolCall { id, name, arguments };
                self.history.push(Turn::ToolCalls { at: now, calls: vec![call.clone()] });
                actions.push(Action::Ask(call.clone()));
                self.stage = Stage::Waiting { call };
            }
            Some(Step::HangUp) => {
                self.stage = Stage::Idle;
                actions.push(Action::Close);
            }
        }
    }

    /// From here on interruptions count: the protected first message is over.
    fn stop_speaking(&mut self, now: OffsetDateTime, actions: &mut Vec<Action>) {
        if let Stage::Speaking { text, from, .. } = &self.stage {
            let (text, from) = (text.clone(), *from);
            self.stage = Stage::Idle;
            self.interruptible = true;
            self.tell_speech(Role::Assistant, "stopped", now, actions);
            self.tell_transcript(Role::Assistant, &text, now, actions);
            self.history.push(Turn::Bot(Spoken { text, from, until: now }));
            self.tell_history(now, actions);
        }
    }

    fn tell_speech(&self, role: Role, status: &str, now: OffsetDateTime, actions: &mut Vec<Action>) {
        actions.push(Action::Tell(messages::speech_update(&self.facts, now, role, status, self.turn)));
    }

    fn tell_transcript(&self, role: Role, text: &str, now: OffsetDateTime, actions: &mut Vec<Action>) {
        let guess = text.split_whitespace().next().unwrap_or_default();
        for (kind, text) in [(TranscriptKind::Partial, guess), (TranscriptKind::Final, text)] {
            actions.push(Action::Tell(messages::transcript(&self.facts, now, role, kind, text)));
        }
    }

    fn tell_history(&self, now: OffsetDateTime, actions: &mut Vec<Action>) {
        actions.push(Action::Tell(messages::conversation_update(&self.facts, now, &self.history)));
    }
}
