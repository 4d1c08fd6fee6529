//! The shell around a call: owns both sockets and the clock, feeds the state machine and does what it says.
//!
//! One task runs one stream. Whatever is slow (the database, tools, opening a session) is handed to others, so audio
//! never waits for it.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::{Message as CallerMessage, Utf8Bytes, WebSocket};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_tungstenite::tungstenite::Message as ModelMessage;
use tokio_util::sync::CancellationToken;

use super::alarm::Alarm;
use super::call::{Action, Call, EndReason, Input};
use super::openai::{Event as ModelEvent, FunctionCall};
use super::playback::Millis;
use super::sessions::{Occasion, Session, Unavailable};
use super::twilio::Event as CallerEvent;
use super::watch::{self, Verdict, Watch};
use crate::providers::openai::Socket;
use crate::tools::Command;

/// A peer that does not take a message within this time is gone.
const SEND_LIMIT: Duration = Duration::from_secs(5);
/// A closing handshake that takes longer is not waited for.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// How often OpenAI is asked for a sign of life: a socket whose other end is gone without a word looks like silence.
const PING_EVERY: Duration = Duration::from_secs(2);
/// So many pings without anything in return, and the session counts as lost.
const UNANSWERED_PINGS: u32 = 2;
/// Tool outputs under way; far more than a model asks for at once.
const TOOL_QUEUE: usize = 64;

/// What a call does besides speaking.
pub trait Effects {
    /// Starts a tool. Its output goes to `done`, some time.
    fn run_tool(&mut self, call: FunctionCall, done: mpsc::Sender<ToolDone>);
    /// Keeps a line, usage, a time or a fault.
    fn note(&mut self, action: Action);
    /// Hears a message of Twilio's, for the recording.
    fn twilio_said(&self, _message: &Utf8Bytes) {}
    /// Hears a message to Twilio, for the recording.
    fn twilio_told(&self, _message: &str) {}
    /// Opens a session.
    fn open_session(&mut self, occasion: Occasion) -> Opening;
}

/// A tool's output.
#[derive(Debug)]
pub struct ToolDone {
    /// The function call.
    pub call_id: String,
    /// Text for the model.
    pub output: String,
    /// What the tool does to the call.
    pub command: Option<Command>,
}

/// A session that is being opened.
pub type Opening = Pin<Box<dyn Future<Output = Result<Session, Unavailable>> + Send>>;

/// What one turn of the loop woke up for.
enum Woken {
    Caller(Option<Utf8Bytes>),
    Opened(Box<Result<Session, Unavailable>>),
    Model(Option<tokio_tungstenite::tungstenite::Utf8Bytes>),
    /// Nothing but a sign of life.
    ModelLives,
    Tool(ToolDone),
    Ping,
    Watch,
    Leave(Instant),
    Over,
    Deadline,
    /// A message that carries nothing for us, such as a pong.
    Nothing,
}

/// A stream that has ended, with what is still to be closed.
#[derive(Debug)]
pub struct Ended {
    /// Why.
    pub reason: EndReason,
    caller: WebSocket,
    model: Option<Socket>,
}

/// Runs a stream to its end. `leave` tells that this process stops, and until when it has time for the call, `over` that
/// the call is over.
pub async fn run(
    mut caller: WebSocket,
    mut call: Call,
    leave: impl Future<Output = Instant>,
    over: CancellationToken,
    effects: &mut impl Effects,
) -> Ended {
    let started = Instant::now();
    let mut watch = Watch::default();
    let mut looks = interval(watch::CHECK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks.tick().await;
    let mut leave = pin!(leave);
    let mut leaving = false;
    let mut sessions = Sessions {
        model: None,
        unanswered_pings: 0,
        waiting: None,
        opening: Some(effects.open_session(Occasion::Start)),
    };
    let (tool_done, mut tools) = mpsc::channel(TOOL_QUEUE);
    let mut ping = interval(PING_EVERY);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut alarm = Alarm::new();
    let mut out = Vec::new();

    loop {
        let deadline = call.deadline().map(|at| started + Duration::from_millis(at));
        let woken = tokio::select! {
            message = caller.recv() => {
                watch = Watch::Alive;
                caller_text(message)
            }
            message = next(&mut sessions.model), if sessions.model.is_some() => message,
            result = opened(&mut sessions.opening), if sessions.opening.is_some() => Woken::Opened(Box::new(result)),
            Some(done) = tools.recv() => Woken::Tool(done),
            () = alarm.until(deadline.unwrap_or(started)), if deadline.is_some() => Woken::Deadline,
            _ = ping.tick() => Woken::Ping,
            _ = looks.tick() => Woken::Watch,
            by = &mut leave, if !leaving => Woken::Leave(by),
            () = over.cancelled() => Woken::Over,
        };
        let now = millis(started);
        match &woken {
            Woken::Caller(Some(text)) => {
                effects.twilio_said(text);
                match CallerEvent::parse(text) {
                    Ok(event) => call.handle(now, Input::Caller(event), &mut out),
                    Err(error) => tracing::warn!(%error, "Twilio sent a message that cannot be read"),
                }
            }
            Woken::Caller(None) => call.handle(now, Input::CallerGone, &mut out),
            Woken::Model(Some(text)) => {
                sessions.unanswered_pings = 0;
                match ModelEvent::parse(text) {
                    Ok(event) => call.handle(now, Input::Model(event), &mut out),
                    Err(error) => tracing::warn!(%error, "OpenAI sent an event that cannot be read"),
                }
            }
            Woken::ModelLives => sessions.unanswered_pings = 0,
            Woken::Model(None) => {
                sessions.model = None;
                call.handle(now, Input::ModelGone, &mut out);
            }
            Woken::Deadline => call.handle(now, Input::Tick, &mut out),
            Woken::Over => call.handle(now, Input::CallOver, &mut out),
            Woken::Watch => {
                if is_dead(&mut watch, &mut caller).await {
                    call.handle(now, Input::CallerGone, &mut out);
                }
            }
            Woken::Leave(by) => {
                leaving = true;
                let by = now.saturating_add(in_millis(by.saturating_duration_since(Instant::now())));
                call.handle(now, Input::Leave { by }, &mut out);
            }
            Woken::Ping | Woken::Nothing | Woken::Opened(_) | Woken::Tool(_) => {}
        }
        match woken {
            Woken::Opened(result) => {
                sessions.opening = None;
                match *result {
                    Ok(session) => {
                        let ends = now.saturating_add(session.lasts_ms(Instant::now()));
                        sessions.waiting = Some(session.socket);
                        let turns = session.turns;
                        call.handle(now, Input::SessionReady { ends, turns }, &mut out);
                    }
                    Err(why) => call.handle(now, Input::SessionUnavailable(why), &mut out),
                }
            }
            Woken::Tool(ToolDone { call_id, output, command }) => {
                call.handle(now, Input::ToolDone { call_id, output, command }, &mut out);
            }
            Woken::Ping if !sessions.ping().await => {
                tracing::warn!("OpenAI gives no sign of life");
                sessions.model = None;
                call.handle(now, Input::ModelGone, &mut out);
            }
            _ => {}
        }
        let ended = perform(&mut out, &mut call, started, &mut caller, &mut sessions, effects, &tool_done).await;
        if let Some(reason) = ended {
            return Ended { reason, caller, model: sessions.model };
        }
    }
}

/// Looks after Twilio's socket: whether it has been silent for too long, pings included.
async fn is_dead(watch: &mut Watch, caller: &mut WebSocket) -> bool {
    match watch.check() {
        Verdict::Fine => false,
        Verdict::Ask => {
            // A failed ping shows as a closed socket at the next read.
            let _ = timeout(SEND_LIMIT, caller.send(CallerMessage::Ping(Bytes::new()))).await;
            false
        }
        Verdict::Dead => {
            tracing::warn!("Twilio's socket is dead");
            true
        }
    }
}

/// The session in use, and the one that is to take its place.
struct Sessions {
    model: Option<Socket>,
    unanswered_pings: u32,
    waiting: Option<Socket>,
    opening: Option<Opening>,
}

impl Sessions {
    /// `false`: the session has been silent for too long.
    async fn ping(&mut self) -> bool {
        let Some(socket) = &mut self.model else { return true };
        if self.unanswered_pings >= UNANSWERED_PINGS {
            return false;
        }
        self.unanswered_pings += 1;
        // A failed ping shows as a closed socket at the next read.
        let _ = timeout(SEND_LIMIT, socket.send(ModelMessage::Ping(Vec::new().into()))).await;
        true
    }

    /// The waiting session is in use from now on; the one before is closed without waiting for it.
    fn take(&mut self) {
        self.unanswered_pings = 0;
        if let Some(mut old) = std::mem::replace(&mut self.model, self.waiting.take()) {
            tokio::spawn(async move { timeout(CLOSE_LIMIT, old.close(None)).await });
        }
    }
}

async fn opened(opening: &mut Option<Opening>) -> Result<Session, Unavailable> {
    match opening {
        Some(opening) => opening.await,
        None => std::future::pending().await,
    }
}

/// Does what the call said. A peer that cannot be sent to is reported to the call, which may say more.
async fn perform(
    out: &mut Vec<Action>,
    call: &mut Call,
    started: Instant,
    caller: &mut WebSocket,
    sessions: &mut Sessions,
    effects: &mut impl Effects,
    tool_done: &mpsc::Sender<ToolDone>,
) -> Option<EndReason> {
    let mut ended = None;
    while !out.is_empty() {
        let mut lost = None;
        let (mut to_caller, mut to_model) = (false, false);
        for action in out.drain(..) {
            match action {
                Action::ToCaller(text) => {
                    to_caller = true;
                    effects.twilio_told(&text);
                    if !sent(caller.feed(CallerMessage::text(text))).await {
                        lost = Some(Input::CallerGone);
                    }
                }
                Action::ToModel(text) => {
                    if let Some(socket) = sessions.model.as_mut() {
                        to_model = true;
                        if !sent(socket.feed(ModelMessage::text(text))).await {
                            lost = Some(Input::ModelGone);
                        }
                    }
                }
                Action::OpenSession => {
                    if sessions.opening.is_none() && sessions.waiting.is_none() {
                        sessions.opening = Some(effects.open_session(Occasion::MidCall));
                    }
                }
                Action::TakeSession => {
                    sessions.take();
                    to_model = true;
                }
                Action::RunTool(function) => effects.run_tool(function, tool_done.clone()),
                Action::End(reason) => ended = Some(reason),
                note => effects.note(note),
            }
        }
        if to_caller && !sent(caller.flush()).await {
            lost = Some(Input::CallerGone);
        }
        if to_model
            && let Some(socket) = sessions.model.as_mut()
            && !sent(socket.flush()).await
        {
            lost = Some(Input::ModelGone);
        }
        if let Some(lost) = lost
            && ended.is_none()
        {
            call.handle(millis(started), lost, out);
        }
    }
    ended
}

async fn sent<E>(sending: impl Future<Output = Result<(), E>>) -> bool {
    let mut sending = pin!(sending);
    match poll_fn(|context| Poll::Ready(sending.as_mut().poll(context))).await {
        Poll::Ready(result) => result.is_ok(),
        // Nearly never: only a message that the kernel does not take at once needs a clock.
        Poll::Pending => matches!(timeout(SEND_LIMIT, sending).await, Ok(Ok(()))),
    }
}

fn caller_text(message: Option<Result<CallerMessage, axum::Error>>) -> Woken {
    match message {
        Some(Ok(CallerMessage::Text(text))) => Woken::Caller(Some(text)),
        Some(Ok(CallerMessage::Close(_)) | Err(_)) | None => Woken::Caller(None),
        Some(Ok(_)) => Woken::Nothing,
    }
}

async fn next(model: &mut Option<Socket>) -> Woken {
    let Some(socket) = model else { return Woken::Nothing };
    match socket.next().await {
        Some(Ok(ModelMessage::Text(text))) => Woken::Model(Some(text)),
        Some(Ok(ModelMessage::Close(frame))) => {
            let code = frame.map(|frame| u16::from(frame.code));
            tracing::info!(code, "OpenAI closed the session");
            Woken::Model(None)
        }
        Some(Err(_)) | None => Woken::Model(None),
        Some(Ok(_)) => Woken::ModelLives,
    }
}

impl Ended {
    /// Closes both sockets. If the call is alive, Twilio asks at once how it goes on.
    pub async fn close(mut self) {
        let _ = timeout(CLOSE_LIMIT, self.caller.send(CallerMessage::Close(None))).await;
        if let Some(mut socket) = self.model {
            let _ = timeout(CLOSE_LIMIT, socket.close(None)).await;
        }
    }
}

fn millis(started: Instant) -> Millis {
    in_millis(started.elapsed())
}

fn in_millis(duration: Duration) -> Millis {
    u64::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
