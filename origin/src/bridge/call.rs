//! The call as a pure state machine: what a socket, a tool or the clock says goes in, what is to be done comes out.
//!
//! Here are the inputs, the actions and who handles what. Each idea has a file of its own: `greeting`, `turns` of caller
//! and agent, `barge_in`, `responding` and `failures` of responses, `tools`, `keypad`, `gaps` in the caller's audio,
//! `limits` of the call, `leaving` the stream, and `departure` to another process; `loss` of the session and `reopening`, by which a call goes on in the
//! next one with what is `unanswered` of the caller's sound and with `tool_notes`, and `ringing` until then.

mod barge_in;
mod departure;
mod end_reason;
mod failures;
mod gaps;
mod greeting;
mod keypad;
mod leaving;
mod limits;
mod loss;
mod reopening;
mod responding;
mod ringing;
mod tool_notes;
mod tools;
mod turns;
mod unanswered;

use self::barge_in::Fenced;
pub use self::end_reason::EndReason;
use self::failures::Retry;
use self::gaps::Gaps;
use self::greeting::Greeting;
use self::keypad::Keys;
use self::leaving::Leaving;
pub use self::limits::Rules;
use self::limits::Silence;
use self::loss::Loss;
use self::reopening::NextSession;
use self::ringing::Ringing;
use self::tool_notes::ToolNotes;
use self::tools::RunningTools;
use self::turns::Floor;
use self::unanswered::Unanswered;
use super::openai::{self, Event, FunctionCall, Turns};
use super::playback::{Millis, Playback};
use super::responses::{Ask, Responses};
use super::session::Said;
use super::sessions::Unavailable;
use super::transcript::{Line, Role, Transcript};
use super::twilio::{self, StreamSid};
use super::waits::{Turn, Waits};
use super::wire::Audio;
use crate::steps::Step;
use crate::store::agents::realtime::call::Keypad;
use crate::tools::Command;

/// The id of the event that sets the session up; a refusal names it.
pub const SESSION_EVENT_ID: &str = "session";

/// What a call needs to know before its first message.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The stream on Twilio's side.
    pub stream_sid: StreamSid,
    /// What every session is told first, as events.
    pub opening: Vec<String>,
    /// The conversation so far, when the call is taken up again.
    pub past: Vec<Said>,
    /// Whether the agent's last words in it did not reach the caller whole.
    pub broke_off: bool,
    /// What the agent says first; `None`: it waits for the caller.
    pub first_ask: Option<Ask>,
    /// For how long the caller may speak before that, in milliseconds.
    pub first_after_ms: Millis,
    /// The `session.update` after the first message, which gives the turns to OpenAI; `None`: it has them all along,
    /// and the caller can interrupt the first message.
    pub protection: Option<String>,
    /// How many words the caller says before the agent falls silent, if OpenAI does not decide it.
    pub interrupt_after_words: u32,
    /// How keys are gathered.
    pub keypad: Option<Keypad>,
    /// What limits the call.
    pub rules: Rules,
    /// Where the transcript goes on.
    pub next_position: u32,
}

/// Something that happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// Twilio said something.
    Caller(twilio::Event<'a>),
    /// Twilio's socket is gone.
    CallerGone,
    /// A confirmed session waits.
    SessionReady {
        /// When it ends.
        ends: Millis,
        /// Who answers the caller's turns.
        turns: Turns,
    },
    /// No session is to be had.
    SessionUnavailable(Unavailable),
    /// OpenAI said something.
    Model(Event<'a>),
    /// OpenAI's socket is gone.
    ModelGone,
    /// A tool has an output.
    ToolDone {
        /// The function call.
        call_id: String,
        /// Text for the model.
        output: String,
        /// What the tool does to the call.
        command: Option<Command>,
    },
    /// This process stops: another one takes the call up.
    Leave {
        /// When at the latest.
        by: Millis,
    },
    /// Somebody else has learnt that the call is over.
    CallOver,
    /// The deadline that [`Call::deadline`] named has come.
    Tick,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send a text message to Twilio.
    ToCaller(String),
    /// Send a text message to OpenAI.
    ToModel(String),
    /// Open a session beside the present one, unless that is under way, and report with [`Input::SessionReady`].
    OpenSession,
    /// Let the session that waits take the place of the present one.
    TakeSession,
    /// Run a tool and report with [`Input::ToolDone`].
    RunTool(FunctionCall),
    /// Keep a line of the transcript.
    Line(Line),
    /// Add a response's usage to the call's.
    Usage(serde_json::Value),
    /// Add what a transcript of the caller's words used.
    TranscriptUsage(serde_json::Value),
    /// The session listens and speaks, so many milliseconds after the stream's start.
    SetUp(Millis),
    /// The agent has answered.
    Turn(Turn),
    /// The caller has cut the agent off.
    Interrupted,
    /// Note a fault of OpenAI's that the call outlives: code and place.
    Fault {
        /// OpenAI's code.
        code: String,
        /// What it was about.
        context: &'static str,
    },
    /// What comes after the stream, told just before its end.
    Step(Step),
    /// Close both sockets. Nothing comes after it.
    End(EndReason),
}

/// How far a call has come.
#[derive(Debug)]
enum Phase {
    /// There is no session.
    Opening,
    /// Both sides can speak.
    Talking,
    /// Nothing happens any more.
    Over,
}

/// One stream of one call.
#[derive(Debug)]
pub struct Call {
    stream: StreamSid,
    phase: Phase,
    opening: Vec<String>,
    /// What was said before this stream.
    past: Vec<Said>,
    broke_off: bool,
    /// For how long the caller may speak first in the first session.
    caller_first_ms: Option<Millis>,
    unanswered: Unanswered,
    next_session: NextSession,
    ringing: Ringing,
    /// Sessions lost or spoiled since one has answered; a spoiled one counts for more.
    losses: u32,
    /// Since when the first session is waited for.
    waits_since: Option<Millis>,
    /// What gives the turns to OpenAI, if a new session does not do so by itself.
    lift: Option<String>,
    greeting: Greeting,
    turns: Turns,
    floor: Floor,
    interrupt_after_words: u32,
    gaps: Gaps,
    keys: Keys,
    playback: Playback,
    responses: Responses,
    fenced: Option<Fenced>,
    retry: Retry,
    transcript: Transcript,
    waits: Waits,
    tools: RunningTools,
    /// Outputs that were sent, and that the conversation did not hold when it was last heard of.
    unseen_outputs: u32,
    rules: Rules,
    silence: Silence,
    leaving: Option<Leaving>,
    /// When this process has no more time for the call.
    departs_by: Option<Millis>,
    tool_notes: ToolNotes,
}

impl Call {
    /// A call whose stream started at `now`, and which waits for its session.
    pub fn new(setup: Setup, now: Millis) -> Self {
        let mut responses = Responses::default();
        responses.hold(Millis::MAX);
        let caller_first_ms = setup.first_ask.is_some().then_some(setup.first_after_ms);
        // Held, so it is not asked for yet.
        let _ = setup.first_ask.and_then(|ask| responses.want(now, ask));
        Self {
            stream: setup.stream_sid,
            phase: Phase::Opening,
            opening: setup.opening,
            past: setup.past,
            broke_off: setup.broke_off,
            caller_first_ms,
            unanswered: Unanswered::default(),
            next_session: NextSession::Asked { by: now },
            ringing: Ringing::of_new_call(now),
            losses: 0,
            waits_since: Some(now),
            lift: setup.protection.clone(),
            greeting: Greeting::new(setup.protection, now),
            turns: Turns::default(),
            floor: Floor::default(),
            interrupt_after_words: setup.interrupt_after_words,
            gaps: Gaps::default(),
            keys: Keys::new(setup.keypad),
            playback: Playback::default(),
            responses,
            fenced: None,
            retry: Retry::default(),
            transcript: Transcript::from_position(setup.next_position),
            waits: Waits::default(),
            tools: RunningTools::default(),
            unseen_outputs: 0,
            silence: Silence::new(&setup.rules),
            rules: setup.rules,
            leaving: None,
            departs_by: None,
            tool_notes: ToolNotes::default(),
        }
    }

    /// When [`Input::Tick`] is due: the first of all that is waited for.
    pub fn deadline(&self) -> Option<Millis> {
        let always = self.limits_deadline().into_iter().chain(self.departs_by);
        let always = always.min().filter(|_| !matches!(self.phase, Phase::Over));
        self.phase_deadline().into_iter().chain(always).min()
    }

    fn phase_deadline(&self) -> Option<Millis> {
        match &self.phase {
            Phase::Talking => {
                let parts = [
                    self.retry.deadline(),
                    self.responses.deadline(),
                    self.greeting.deadline(),
                    self.floor_deadline(),
                    self.keys.deadline(),
                    self.gaps.deadline(),
                    self.next_session.deadline(),
                ];
                parts.into_iter().flatten().min()
            }
            Phase::Opening => self.ringing.deadline(),
            Phase::Over => None,
        }
    }

    /// Takes one input and appends what is to be done.
    pub fn handle(&mut self, now: Millis, input: Input<'_>, out: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Over) {
            return;
        }
        match input {
            Input::Caller(event) => self.caller(now, event, out),
            Input::CallerGone => self.end(now, EndReason::StreamLost, out),
            Input::SessionReady { ends, turns } => self.session_ready(now, ends, turns, out),
            Input::SessionUnavailable(why) => self.session_unavailable(now, why, out),
            // What a session says that is given up counts for nothing.
            Input::Model(_) | Input::ModelGone if matches!(self.phase, Phase::Opening) => {}
            Input::Model(event) => self.model(now, event, out),
            Input::ModelGone => self.model_lost(now, Loss::Gone, out),
            Input::ToolDone { call_id, output, command } => self.tool_done(now, &call_id, &output, command, out),
            Input::Leave { by } => self.depart(by),
            Input::CallOver => self.end(now, EndReason::CallOver, out),
            Input::Tick => self.tick(now, out),
        }
        if matches!((&self.phase, self.next_session), (Phase::Talking, NextSession::Ready { .. })) {
            self.next_session_due(now, out);
        }
        if !matches!(self.phase, Phase::Over) {
            self.departure_due(now, out);
        }
        if !matches!(self.phase, Phase::Over) {
            self.conclude(now, out);
        }
        self.ringing_follows(now);
    }

    /// Does what is due. Each part looks for itself whether its time has come.
    fn tick(&mut self, now: Millis, out: &mut Vec<Action>) {
        self.limits_due(now, out);
        self.ringing_due(now, out);
        if matches!(self.phase, Phase::Talking) {
            self.fill_gap(now, out);
            self.greeting_due(now, out);
            self.floor_due(now, out);
            self.keys_due(now, out);
            self.responses_due(now, out);
            self.next_session_due(now, out);
        }
    }

    fn caller(&mut self, now: Millis, event: twilio::Event<'_>, out: &mut Vec<Action>) {
        match event {
            twilio::Event::Media { audio, at_ms } => self.caller_audio(now, audio, at_ms, out),
            twilio::Event::Mark(name) => {
                out.extend(self.waits.mark_returned(now, name.as_str()).map(Action::Turn));
                for heard in self.playback.mark_returned(now, name.as_str()) {
                    out.extend(self.transcript.heard(&heard).map(Action::Line));
                }
                self.greeting_due(now, out);
            }
            twilio::Event::Dtmf(key) => {
                self.silence.caller_spoke();
                self.key_pressed(now, key.as_str(), out);
            }
            twilio::Event::Stop => self.end(now, EndReason::CallerHungUp, out),
            twilio::Event::Connected | twilio::Event::Start(_) | twilio::Event::Other => {}
        }
    }

    fn caller_audio(&mut self, now: Millis, audio: Audio<'_>, at_ms: Option<u64>, out: &mut Vec<Action>) {
        let missing = self.gaps.frame(now, at_ms, audio.byte_len());
        let listening = matches!(self.phase, Phase::Talking) && self.leaving.is_none();
        self.unanswered.push(audio, listening);
        if listening {
            out.extend((missing > 0).then(|| Action::ToModel(openai::append_silence(missing))));
            out.push(Action::ToModel(openai::append(audio)));
        }
    }

    fn fill_gap(&mut self, now: Millis, out: &mut Vec<Action>) {
        let missing = self.gaps.due(now);
        if missing > 0 {
            self.tell_model(openai::append_silence(missing), out);
        }
    }

    /// Sends a message to the model. While there is no session that is needless: the next one is told all that was said.
    fn tell_model(&self, message: String, out: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Talking) && self.leaving.is_none() {
            out.push(Action::ToModel(message));
        }
    }

    fn model(&mut self, now: Millis, event: Event<'_>, out: &mut Vec<Action>) {
        match event {
            Event::SessionUpdated { turns, .. } => self.turns = turns,
            Event::Audio { response_id, part, audio } => {
                self.agent_audio(now, response_id.as_str(), &part, audio, out);
            }
            Event::AudioDone(_) => self.mark_end(out),
            Event::SpeechStarted => {
                self.unanswered.speech_started();
                self.speech_started(now, out);
            }
            Event::SpeechStopped => {
                self.waits.speech_stopped(now);
                self.speech_stopped(now);
            }
            Event::Committed(item) => {
                self.unanswered.committed();
                self.transcript.place(item.as_str(), Role::Caller);
                self.turn_closed(now, out);
            }
            Event::CallerTranscript(item, text, usage) => {
                out.extend(usage.and_then(|usage| serde_json::from_str(usage.get()).ok()).map(Action::TranscriptUsage));
                self.unanswered.understood();
                out.extend(self.transcript.caller_said(item.as_str(), text.as_str()).map(Action::Line));
            }
            Event::TranscriptDelta(item, text) => self.transcript.agent_says(item.as_str(), text.as_str()),
            Event::TranscriptDone(item, text) => {
                out.extend(self.transcript.agent_said(item.as_str(), text.as_str()).map(Action::Line));
                self.agent_said(now, text.as_str(), out);
            }
            Event::ResponseCreated(created) => self.response_created(created, out),
            Event::FunctionCall(call) => self.tool_wanted(call, out),
            Event::OutputAdded => self.unseen_outputs = self.unseen_outputs.saturating_sub(1),
            Event::McpCallEnded => self.ask(now, Ask::Turn, out),
            Event::RateLimits(limits) => self.retry.limits(now, &limits),
            Event::ResponseDone(done) => self.response_done(now, done, out),
            Event::Error(error) => self.error(now, &error, out),
            Event::Other => {}
        }
    }

    /// The end, once.
    fn end(&mut self, now: Millis, reason: EndReason, out: &mut Vec<Action>) {
        out.extend(self.waits.cut(now).map(Action::Turn));
        // A lost stream has played what marks have come back for: the clock would count what went into a dead socket.
        let clock = if reason == EndReason::StreamLost { 0 } else { now };
        for heard in self.playback.clear(clock) {
            out.extend(self.transcript.cut(&heard.part.item_id, heard.heard_ms).map(Action::Line));
        }
        self.phase = Phase::Over;
        out.push(Action::End(reason));
    }
}

#[cfg(test)]
mod tests;
