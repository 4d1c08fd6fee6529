//! The call as a pure state machine: what a socket, a tool or the clock says goes in, what is to be done comes out.
//!
//! Here are the inputs, the actions and who handles what. Each idea has a file of its own: `opening` until the session
//! is confirmed, `responding` for the model's turns, `barge_in`, `tools`, and `loss` of the session.

mod barge_in;
mod end_reason;
mod loss;
mod opening;
mod responding;
mod tools;

pub use self::end_reason::EndReason;
use self::loss::Loss;
pub use self::opening::OPENING_LIMIT_MS;
use self::opening::Opening;
use self::responding::Retry;
use self::tools::RunningTools;
use super::openai::{self, Event, FunctionCall};
use super::playback::{Millis, Playback};
use super::responses::{Ask, Responses};
use super::transcript::{Line, Role, Transcript};
use super::twilio::{self, StreamSid};
use super::wire::Audio;

/// The id of the event that sets the session up; a refusal names it.
pub const SESSION_EVENT_ID: &str = "session";

/// What a call needs to know before its first message.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The stream on Twilio's side.
    pub stream_sid: StreamSid,
    /// The `session.update` to send, with [`SESSION_EVENT_ID`].
    pub session_update: String,
    /// The conversation so far, as events, when the call is taken up again.
    pub replay: Vec<String>,
    /// What the agent says first; `None`: it waits for the caller.
    pub first_ask: Option<Ask>,
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
    /// This process stops: another one takes the call up.
    Leave,
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

/// How far a call has come.
#[derive(Debug)]
enum Phase {
    /// The session is not confirmed.
    Opening(Opening),
    /// Both sides can speak.
    Talking,
    /// Nothing happens any more.
    Over,
}

/// One stream of one call.
#[derive(Debug)]
pub struct Call {
    stream: StreamSid,
    session_update: String,
    replay: Vec<String>,
    first_ask: Option<Ask>,
    phase: Phase,
    playback: Playback,
    responses: Responses,
    retry: Retry,
    transcript: Transcript,
    tools: RunningTools,
}

impl Call {
    /// A call whose stream started at `now`.
    pub fn new(setup: Setup, now: Millis) -> Self {
        Self {
            stream: setup.stream_sid,
            session_update: setup.session_update,
            replay: setup.replay,
            first_ask: setup.first_ask,
            phase: Phase::Opening(Opening::new(now)),
            playback: Playback::default(),
            responses: Responses::default(),
            retry: Retry::default(),
            transcript: Transcript::from_position(setup.next_position),
            tools: RunningTools::default(),
        }
    }

    /// When [`Input::Tick`] is due: the first of all that is waited for.
    pub fn deadline(&self) -> Option<Millis> {
        match &self.phase {
            Phase::Opening(opening) => Some(opening.deadline()),
            Phase::Talking => [self.retry.deadline(), self.responses.deadline()].into_iter().flatten().min(),
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
            Input::ModelGone => self.model_lost(now, Loss::Gone, out),
            Input::ToolDone { call_id, output } => self.tool_done(now, &call_id, &output, out),
            Input::Leave => self.end(now, EndReason::HandedOver, out),
            Input::Tick => self.tick(now, out),
        }
    }

    /// Does what is due. Each part looks for itself whether its time has come.
    fn tick(&mut self, now: Millis, out: &mut Vec<Action>) {
        match &self.phase {
            Phase::Opening(opening) => {
                if now >= opening.deadline() {
                    self.end(now, EndReason::SetupTimedOut, out);
                }
            }
            Phase::Talking => self.responses_due(now, out),
            Phase::Over => {}
        }
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
            Phase::Opening(opening) => opening.hold(message, audio.byte_len()),
            Phase::Talking => out.push(Action::ToModel(message)),
            Phase::Over => {}
        }
    }

    fn model(&mut self, now: Millis, event: Event<'_>, out: &mut Vec<Action>) {
        match event {
            Event::SessionUpdated { mulaw: true } => self.confirmed(now, out),
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
            Event::ResponseCreated(created) => self.response_created(created, out),
            Event::FunctionCall(call) => self.tool_wanted(call, out),
            Event::ResponseDone(done) => self.response_done(now, done, out),
            Event::Error(error) => self.error(now, &error, out),
            Event::ItemAdded(_) | Event::Other => {}
        }
    }

    /// The end, once.
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
