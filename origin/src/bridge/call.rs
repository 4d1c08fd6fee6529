//! The call as a pure state machine: what a socket, a tool or the clock says goes in, what is to be done comes out.

use std::collections::{HashSet, VecDeque};

use super::openai::{self, Event, FunctionCall, ResponseDone};
use super::playback::{Heard, Millis, Part, Playback};
use super::responses::Responses;
use super::transcript::{Line, Role, Transcript};
use super::twilio::{self, StreamSid};
use super::wire::Audio;

/// How long OpenAI may take until it confirms the session, in milliseconds. The caller hears nothing meanwhile.
pub const OPENING_LIMIT_MS: Millis = 10_000;
/// How much of the caller's audio is held until then; the oldest goes first.
const HELD_LIMIT_BYTES: u64 = 10_000 * super::wire::BYTES_PER_MS;
/// A mark follows every piece of at most this many bytes: 200 ms, cut where base64 can be cut.
const PIECE_BYTES: usize = 1599;
/// How long after each failed response in a row the next is asked for, in milliseconds: at once for a fault of the
/// moment, later for a limit on tokens, which is over within seconds. A session that fails once more is spoiled.
const RETRY_AFTER_MS: [Millis; 2] = [200, 2_000];
/// The id of the event that sets the session up; a refusal names it.
pub const SESSION_EVENT_ID: &str = "session";

/// What a call needs to know before its first message.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The stream on Twilio's side.
    pub stream_sid: StreamSid,
    /// The `session.update` to send, with [`SESSION_EVENT_ID`].
    pub session_update: String,
    /// What the agent says first, word for word; `None` waits for the caller.
    pub greeting: Option<String>,
    /// The conversation so far, as events, when the call is taken up again.
    pub replay: Vec<String>,
    /// Whether it is the agent's turn to speak in that conversation.
    pub owes_turn: bool,
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
    /// OpenAI's socket is open.
    ModelReady,
    /// OpenAI said something.
    Model(Event<'a>),
    /// OpenAI's socket is gone, or was never to be had.
    ModelGone,
    /// A tool has an output.
    ToolDone {
        /// The function call.
        call_id: String,
        /// Text for the model.
        output: String,
    },
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
    /// Run a tool and report with [`Input::ToolDone`].
    RunTool(FunctionCall),
    /// Keep a line of the transcript.
    Line(Line),
    /// Add a response's usage to the call's.
    Usage(serde_json::Value),
    /// Note a fault of OpenAI's that the call outlives: code and place.
    Fault {
        /// OpenAI's code.
        code: String,
        /// What it was about.
        context: &'static str,
    },
    /// Close both sockets. Nothing comes after it.
    End(EndReason),
}

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Twilio said that the call is over.
    CallerHungUp,
    /// Twilio's socket went without a word; the call may be alive.
    StreamLost,
    /// OpenAI could not be reached or left; the call is alive.
    ModelLost,
    /// OpenAI refused the session's settings; the call is alive.
    SessionRefused,
    /// OpenAI did not confirm the session in time; the call is alive.
    SetupTimedOut,
}

impl EndReason {
    /// The word that stands in records and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CallerHungUp => "caller_hung_up",
            Self::StreamLost => "stream_lost",
            Self::ModelLost => "model_lost",
            Self::SessionRefused => "session_refused",
            Self::SetupTimedOut => "setup_timed_out",
        }
    }

    /// Whether the phone call is over as well; otherwise Twilio asks how to go on.
    pub const fn ends_call(self) -> bool {
        matches!(self, Self::CallerHungUp)
    }
}

#[derive(Debug)]
enum Phase {
    /// The session is not confirmed: audio would be read in the wrong format, so it is held.
    Opening {
        since: Millis,
        held: VecDeque<(String, u64)>,
        held_bytes: u64,
    },
    Talking,
    Over,
}

/// One stream of one call.
#[derive(Debug)]
pub struct Call {
    stream: StreamSid,
    session_update: String,
    /// Until a response has succeeded.
    greeting: Option<String>,
    replay: Vec<String>,
    owes_turn: bool,
    phase: Phase,
    playback: Playback,
    responses: Responses,
    transcript: Transcript,
    /// Function calls whose outputs the model still waits for.
    running_tools: HashSet<String>,
    /// Responses that failed since one did not.
    failures: usize,
    /// When the failed response is asked for again.
    retry_at: Option<Millis>,
}

impl Call {
    /// A call whose stream started at `now`.
    pub fn new(setup: Setup, now: Millis) -> Self {
        Self {
            stream: setup.stream_sid,
            session_update: setup.session_update,
            greeting: setup.greeting,
            replay: setup.replay,
            owes_turn: setup.owes_turn,
            phase: Phase::Opening { since: now, held: VecDeque::new(), held_bytes: 0 },
            playback: Playback::default(),
            responses: Responses::default(),
            transcript: Transcript::from_position(setup.next_position),
            running_tools: HashSet::new(),
            failures: 0,
            retry_at: None,
        }
    }

    /// When [`Input::Tick`] is due.
    pub fn deadline(&self) -> Option<Millis> {
        match self.phase {
            Phase::Opening { since, .. } => Some(since + OPENING_LIMIT_MS),
            Phase::Talking => self.retry_at,
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
            Input::ModelReady => out.push(Action::ToModel(std::mem::take(&mut self.session_update))),
            Input::Model(event) => self.model(now, event, out),
            Input::ModelGone => self.end(now, EndReason::ModelLost, out),
            Input::ToolDone { call_id, output } => self.tool_done(&call_id, &output, out),
            Input::Tick => {
                if self.deadline().is_some_and(|deadline| now >= deadline) {
                    self.due(now, out);
                }
            }
        }
    }

    fn due(&mut self, now: Millis, out: &mut Vec<Action>) {
        if self.retry_at.take().is_some() {
            self.speak(out);
        } else {
            self.end(now, EndReason::SetupTimedOut, out);
        }
    }

    /// Asks the model to speak, as soon as it may: first the greeting, if it has one.
    fn speak(&mut self, out: &mut Vec<Action>) {
        let Some(event_id) = self.responses.want() else { return };
        let say = self
            .greeting
            .as_ref()
            .map(|greeting| format!("Greet the caller by saying exactly these words and nothing else: {greeting}"));
        out.push(Action::ToModel(openai::create_response(&event_id, say.as_deref())));
    }

    fn caller(&mut self, now: Millis, event: twilio::Event<'_>, out: &mut Vec<Action>) {
        match event {
            twilio::Event::Media(audio) => self.caller_audio(audio, out),
            twilio::Event::Mark(name) => {
                for heard in self.playback.mark_returned(now, name.as_str()) {
                    out.extend(self.transcript.heard(&heard).map(Action::Line));
                }
            }
            twilio::Event::Stop => self.end(now, EndReason::CallerHungUp, out),
            twilio::Event::Connected | twilio::Event::Start(_) | twilio::Event::Dtmf(_) | twilio::Event::Other => {}
        }
    }

    fn caller_audio(&mut self, audio: Audio<'_>, out: &mut Vec<Action>) {
        let message = openai::append(audio);
        match &mut self.phase {
            Phase::Opening { held, held_bytes, .. } => {
                *held_bytes += audio.byte_len();
                held.push_back((message, audio.byte_len()));
                while *held_bytes > HELD_LIMIT_BYTES {
                    let Some((_, oldest)) = held.pop_front() else { break };
                    *held_bytes -= oldest;
                }
            }
            Phase::Talking => out.push(Action::ToModel(message)),
            Phase::Over => {}
        }
    }

    fn model(&mut self, now: Millis, event: Event<'_>, out: &mut Vec<Action>) {
        match event {
            Event::SessionUpdated { mulaw: true } => self.confirmed(out),
            Event::SessionUpdated { mulaw: false } => self.end(now, EndReason::SessionRefused, out),
            Event::Audio { response_id, part, audio } => {
                if self.responses.may_play(response_id.as_str()) {
                    self.agent_audio(now, &part, audio, out);
                }
            }
            Event::SpeechStarted => self.interrupt(now, out),
            Event::Committed(item) => self.transcript.place(item.as_str(), Role::Caller),
            Event::CallerTranscript(item, text) => {
                out.extend(self.transcript.caller_said(item.as_str(), text.as_str()).map(Action::Line));
            }
            Event::TranscriptDelta(item, text) => self.transcript.agent_says(item.as_str(), text.as_str()),
            Event::TranscriptDone(item, text) => {
                out.extend(self.transcript.agent_said(item.as_str(), text.as_str()).map(Action::Line));
            }
            Event::ResponseCreated(id) => {
                self.retry_at = None;
                self.responses.created(id);
            }
            Event::FunctionCall(call) => {
                if self.running_tools.insert(call.call_id.clone()) {
                    out.push(Action::RunTool(call));
                }
            }
            Event::ResponseDone(done) => self.response_done(now, done, out),
            Event::Error(error) => self.error(now, &error, out),
            Event::ItemAdded(_) | Event::Other => {}
        }
    }

    fn confirmed(&mut self, out: &mut Vec<Action>) {
        if let Phase::Opening { held, .. } = &mut self.phase {
            let held = std::mem::take(held);
            self.phase = Phase::Talking;
            out.extend(std::mem::take(&mut self.replay).into_iter().map(Action::ToModel));
            if self.greeting.is_some() || self.owes_turn {
                self.speak(out);
            }
            out.extend(held.into_iter().map(|(message, _)| Action::ToModel(message)));
        }
    }

    fn agent_audio(&mut self, now: Millis, part: &Part, audio: Audio<'_>, out: &mut Vec<Action>) {
        self.transcript.place(&part.item_id, Role::Assistant);
        for piece in audio.pieces(PIECE_BYTES) {
            out.push(Action::ToCaller(self.stream.media(piece)));
            let mark = self.playback.sent(now, part, piece.byte_len());
            out.push(Action::ToCaller(self.stream.mark(&mark)));
        }
    }

    /// The caller speaks: what is queued at Twilio goes first, then the model learns what was heard. Whether the
    /// running response is cancelled is the server's part (`interrupt_response`).
    fn interrupt(&mut self, now: Millis, out: &mut Vec<Action>) {
        // The server answers what the caller says now.
        self.retry_at = None;
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

    fn cut(&mut self, heard: &Heard, out: &mut Vec<Action>) {
        out.extend(self.transcript.cut(heard).map(Action::Line));
    }

    fn response_done(&mut self, now: Millis, done: ResponseDone, out: &mut Vec<Action>) {
        if let Some(usage) = done.usage.filter(serde_json::Value::is_object) {
            out.push(Action::Usage(usage));
        }
        if done.status == "failed" {
            let error = done.status_details.and_then(|details| details.error).unwrap_or_default();
            let fatal = error.is_fatal();
            let code = error.code.unwrap_or_else(|| "unknown".to_owned());
            out.push(Action::Fault { code, context: "response" });
            // The caller waits for it, and OpenAI does not try again.
            match RETRY_AFTER_MS.get(self.failures).filter(|_| !fatal) {
                Some(after) => self.retry_at = Some(now + after),
                None => return self.end(now, EndReason::ModelLost, out),
            }
            self.failures += 1;
        } else {
            self.failures = 0;
            self.greeting = None;
        }
        if let Some(event_id) = self.responses.done(&done.id) {
            self.retry_at = None;
            out.push(Action::ToModel(openai::create_response(&event_id, None)));
        }
    }

    fn tool_done(&mut self, call_id: &str, output: &str, out: &mut Vec<Action>) {
        if !self.running_tools.remove(call_id) {
            return;
        }
        out.push(Action::ToModel(openai::function_output(call_id, output)));
        if self.running_tools.is_empty()
            && let Some(event_id) = self.responses.want()
        {
            out.push(Action::ToModel(openai::create_response(&event_id, None)));
        }
    }

    fn error(&mut self, now: Millis, error: &openai::ErrorBody, out: &mut Vec<Action>) {
        self.responses.refused(error);
        out.push(Action::Fault { code: error.code.clone().unwrap_or_else(|| "unknown".to_owned()), context: "event" });
        if error.is_fatal() {
            self.end(now, EndReason::ModelLost, out);
        } else if matches!(self.phase, Phase::Opening { .. }) && error.event_id.as_deref() == Some(SESSION_EVENT_ID) {
            self.end(now, EndReason::SessionRefused, out);
        }
    }

    fn end(&mut self, now: Millis, reason: EndReason, out: &mut Vec<Action>) {
        for heard in self.playback.clear(now) {
            self.cut(&heard, out);
        }
        self.phase = Phase::Over;
        out.push(Action::End(reason));
    }
}

#[cfg(test)]
mod tests;
