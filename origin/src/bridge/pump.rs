//! The shell around a call: owns both sockets and the clock, feeds the state machine and does what it says.
//!
//! One task runs one stream. Whatever is slow (the database, tools, opening a session) is handed to others, so audio
//! never waits for it. What is sent goes out when neither socket has anything more to read: messages that came together
//! leave together, in one write.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{BoxStream, SelectAll, once, unfold};
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Bytes, Message, Utf8Bytes};
use tokio_util::sync::CancellationToken;

use super::alarm::Alarm;
use super::call::{Action, Call, EndReason, Input};
use super::openai::{FunctionCall, Reader};
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
/// Tool outputs under way; far more than a model asks for at once. The channel has room for some from the start, so they
/// are boxed.
const TOOL_QUEUE: usize = 64;
/// So many messages leave although there is more to read: a peer that never pauses must not silence the other.
const MOST_UNFLUSHED: u32 = 16;

/// Twilio's socket. TLS ends before the origin.
pub type CallerSocket = WebSocketStream<TcpStream>;

/// What a call does besides speaking.
pub trait Effects {
    /// Starts a tool. Its output goes to `done`, some time.
    fn run_tool(&mut self, call: FunctionCall, done: mpsc::Sender<Box<ToolDone>>);
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
    Model(Option<Utf8Bytes>),
    /// Neither socket has more to read, and something waits to be sent.
    Flush,
    /// Nothing but a sign of life.
    CallerLives,
    ModelLives,
    Tool(Box<ToolDone>),
    Ping,
    Watch,
    Leave(Instant),
    Over,
    Deadline,
}

/// A stream that has ended, with what is still to be closed.
#[derive(Debug)]
pub struct Ended {
    /// Why.
    pub reason: EndReason,
    caller: CallerSocket,
    model: Option<Socket>,
}

/// Runs a stream to its end. `leave` tells that this process stops, and until when it has time for the call, `over` that
/// the call is over.
pub async fn run(
    mut caller: CallerSocket,
    mut call: Box<Call>,
    leave: impl Future<Output = Instant> + Send,
    over: CancellationToken,
    effects: &mut impl Effects,
) -> Ended {
    let started = Instant::now();
    let mut watch = Watch::default();
    let (tool_done, tools) = mpsc::channel(TOOL_QUEUE);
    let mut others = others(tools, leave, over, effects.open_session(Occasion::Start));
    let mut sessions = Sessions { model: None, unanswered_pings: 0, next: NextSession::Opening };
    let mut reader = Reader::default();
    let mut unflushed = Unflushed::default();
    // Whether both sockets had nothing more when they were last looked at, a moment ago.
    let mut dry = false;
    let mut alarm = Alarm::new();
    let mut out = Vec::new();

    loop {
        // In this order: each socket is read dry, as far as `MOST_UNFLUSHED` allows, before anything is written.
        let woken = poll_fn(|context| {
            // What comes after the last look wakes this task, so it need not be looked for.
            if !std::mem::take(&mut dry)
                && let ready @ Poll::Ready(_) = look(context, &mut caller, sessions.model.as_mut(), &unflushed)
            {
                return ready;
            }
            if let Poll::Ready(Some(other)) = others.poll_next_unpin(context) {
                return Poll::Ready(other);
            }
            let Some(deadline) = call.deadline() else { return Poll::Pending };
            alarm.poll(context, started + Duration::from_millis(deadline)).map(|()| Woken::Deadline)
        })
        .await;
        let now = millis(started);
        dry = matches!(woken, Woken::Flush);
        match woken {
            Woken::Caller(Some(text)) => {
                watch = Watch::Alive;
                effects.twilio_said(&text);
                match CallerEvent::parse(&text) {
                    Ok(event) => call.handle(now, Input::Caller(event), &mut out),
                    Err(error) => tracing::warn!(%error, "Twilio sent a message that cannot be read"),
                }
            }
            Woken::Caller(None) => call.handle(now, Input::CallerGone, &mut out),
            Woken::Model(Some(text)) => {
                sessions.unanswered_pings = 0;
                match reader.read(&text) {
                    Ok(event) => call.handle(now, Input::Model(event), &mut out),
                    Err(error) => tracing::warn!(%error, "OpenAI sent an event that cannot be read"),
                }
            }
            Woken::CallerLives => watch = Watch::Alive,
            Woken::ModelLives => sessions.unanswered_pings = 0,
            Woken::Model(None) => {
                sessions.model = None;
                call.handle(now, Input::ModelGone, &mut out);
            }
            Woken::Opened(result) => {
                let input = sessions.opened(now, *result);
                call.handle(now, input, &mut out);
            }
            Woken::Tool(done) => {
                let ToolDone { call_id, output, command } = *done;
                call.handle(now, Input::ToolDone { call_id, output, command }, &mut out);
            }
            Woken::Ping => {
                if !sessions.ping().await {
                    tracing::warn!("OpenAI gives no sign of life");
                    sessions.model = None;
                    call.handle(now, Input::ModelGone, &mut out);
                }
            }
            Woken::Watch => {
                if is_dead(&mut watch, &mut caller).await {
                    call.handle(now, Input::CallerGone, &mut out);
                }
            }
            Woken::Leave(by) => {
                let by = now.saturating_add(in_millis(by.saturating_duration_since(Instant::now())));
                call.handle(now, Input::Leave { by }, &mut out);
            }
            Woken::Over => call.handle(now, Input::CallOver, &mut out),
            Woken::Deadline => call.handle(now, Input::Tick, &mut out),
            Woken::Flush => {}
        }
        let mut ended = None;
        loop {
            let told =
                perform(&mut out, &mut caller, &mut sessions, &mut others, &mut unflushed, effects, &tool_done).await;
            ended = ended.or(told.ended);
            let mut lost = told.lost;
            if dry || ended.is_some() || unflushed.is_full() {
                lost = unflushed.flush(&mut caller, &mut sessions).await.or(lost);
            }
            match lost {
                // The call may have more to say about it, or go on with another session.
                Some(lost) if ended.is_none() => {
                    dry = false;
                    call.handle(millis(started), lost, &mut out);
                }
                _ => break,
            }
        }
        if let Some(reason) = ended {
            return Ended { reason, caller, model: sessions.model };
        }
    }
}

/// What a stream waits for besides its sockets and its deadline.
type Others<'a> = SelectAll<BoxStream<'a, Woken>>;

/// Of all these only the one that has something to tell is asked; audio comes a hundred times a second.
fn others<'a>(
    tools: mpsc::Receiver<Box<ToolDone>>,
    leave: impl Future<Output = Instant> + Send + 'a,
    over: CancellationToken,
    opening: Opening,
) -> Others<'a> {
    let tools = unfold(tools, |mut tools| async { tools.recv().await.map(|done| (Woken::Tool(done), tools)) });
    SelectAll::from_iter([
        tools.boxed(),
        every(PING_EVERY).map(|()| Woken::Ping).boxed(),
        every(watch::CHECK_EVERY).skip(1).map(|()| Woken::Watch).boxed(),
        once(leave.map(Woken::Leave)).boxed(),
        once(over.cancelled_owned().map(|()| Woken::Over)).boxed(),
        opened(opening),
    ])
}

/// What a socket has to say, the caller's first; with neither, whether something waits to be sent.
fn look(
    context: &mut Context<'_>,
    caller: &mut CallerSocket,
    model: Option<&mut Socket>,
    unflushed: &Unflushed,
) -> Poll<Woken> {
    if let Poll::Ready(message) = caller.poll_next_unpin(context) {
        return Poll::Ready(caller_woke(message));
    }
    if let Some(Poll::Ready(message)) = model.map(|model| model.poll_next_unpin(context)) {
        return Poll::Ready(model_woke(message));
    }
    if unflushed.any() { Poll::Ready(Woken::Flush) } else { Poll::Pending }
}

/// Now, and then again and again; what is missed is left out.
fn every(period: Duration) -> impl futures_util::Stream<Item = ()> + Send {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    unfold(ticks, |mut ticks| async {
        ticks.tick().await;
        Some(((), ticks))
    })
}

fn opened(opening: Opening) -> BoxStream<'static, Woken> {
    once(opening.map(|result| Woken::Opened(Box::new(result)))).boxed()
}

/// How many messages lie in the sockets' buffers.
#[derive(Debug, Default)]
struct Unflushed {
    to_caller: u32,
    to_model: u32,
}

impl Unflushed {
    fn any(&self) -> bool {
        self.to_caller + self.to_model > 0
    }

    fn is_full(&self) -> bool {
        self.to_caller + self.to_model >= MOST_UNFLUSHED
    }

    /// Sends what waits. A peer that does not take it is lost.
    async fn flush(&mut self, caller: &mut CallerSocket, sessions: &mut Sessions) -> Option<Input<'static>> {
        let Self { to_caller, to_model } = std::mem::take(self);
        let mut lost = None;
        if to_caller > 0 && !sent(caller.flush()).await {
            lost = Some(Input::CallerGone);
        }
        if to_model > 0
            && let Some(socket) = sessions.model.as_mut()
            && !sent(socket.flush()).await
        {
            lost = Some(Input::ModelGone);
        }
        lost
    }
}

/// Looks after Twilio's socket: whether it has been silent for too long, pings included.
async fn is_dead(watch: &mut Watch, caller: &mut CallerSocket) -> bool {
    match watch.check() {
        Verdict::Fine => false,
        Verdict::Ask => {
            // A failed ping shows as a closed socket at the next read.
            let _ = timeout(SEND_LIMIT, caller.send(Message::Ping(Bytes::new()))).await;
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
    next: NextSession,
}

enum NextSession {
    None,
    Opening,
    Waiting(Box<Socket>),
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
        let _ = timeout(SEND_LIMIT, socket.send(Message::Ping(Bytes::new()))).await;
        true
    }

    /// A session is open, or there is none to be had.
    fn opened(&mut self, now: Millis, result: Result<Session, Unavailable>) -> Input<'static> {
        match result {
            Ok(session) => {
                let ends = now.saturating_add(session.lasts_ms(Instant::now()));
                self.next = NextSession::Waiting(Box::new(session.socket));
                Input::SessionReady { ends, turns: session.turns }
            }
            Err(why) => {
                self.next = NextSession::None;
                Input::SessionUnavailable(why)
            }
        }
    }

    /// The waiting session is in use from now on; the one before is closed without waiting for it.
    fn take(&mut self) {
        let NextSession::Waiting(new) = std::mem::replace(&mut self.next, NextSession::None) else { return };
        self.unanswered_pings = 0;
        if let Some(mut old) = self.model.replace(*new) {
            tokio::spawn(async move { timeout(CLOSE_LIMIT, old.close(None)).await });
        }
    }
}

/// What came of doing what the call said.
#[derive(Default)]
struct Performed {
    ended: Option<EndReason>,
    /// The peer that cannot be sent to.
    lost: Option<Input<'static>>,
}

/// Does what the call said. Messages are only put into the sockets' buffers.
async fn perform(
    out: &mut Vec<Action>,
    caller: &mut CallerSocket,
    sessions: &mut Sessions,
    others: &mut Others<'_>,
    unflushed: &mut Unflushed,
    effects: &mut impl Effects,
    tool_done: &mpsc::Sender<Box<ToolDone>>,
) -> Performed {
    let mut performed = Performed::default();
    for action in out.drain(..) {
        match action {
            Action::ToCaller(text) => {
                unflushed.to_caller += 1;
                effects.twilio_told(&text);
                if !sent(caller.feed(Message::text(text))).await {
                    performed.lost = Some(Input::CallerGone);
                }
            }
            Action::ToModel(text) => {
                if let Some(socket) = sessions.model.as_mut() {
                    unflushed.to_model += 1;
                    if !sent(socket.feed(Message::text(text))).await {
                        performed.lost = Some(Input::ModelGone);
                    }
                }
            }
            Action::OpenSession => {
                if matches!(sessions.next, NextSession::None) {
                    sessions.next = NextSession::Opening;
                    others.push(opened(effects.open_session(Occasion::MidCall)));
                }
            }
            Action::TakeSession => sessions.take(),
            Action::RunTool(function) => effects.run_tool(function, tool_done.clone()),
            Action::End(reason) => performed.ended = Some(reason),
            note => effects.note(note),
        }
    }
    performed
}

async fn sent<E>(sending: impl Future<Output = Result<(), E>>) -> bool {
    let mut sending = pin!(sending);
    match poll_fn(|context| Poll::Ready(sending.as_mut().poll(context))).await {
        Poll::Ready(result) => result.is_ok(),
        // Nearly never: only a message that the kernel does not take at once needs a clock.
        Poll::Pending => matches!(timeout(SEND_LIMIT, sending).await, Ok(Ok(()))),
    }
}

fn caller_woke(message: Option<Result<Message, tungstenite::Error>>) -> Woken {
    match message {
        Some(Ok(Message::Text(text))) => Woken::Caller(Some(text)),
        Some(Ok(Message::Close(_)) | Err(_)) | None => Woken::Caller(None),
        Some(Ok(_)) => Woken::CallerLives,
    }
}

fn model_woke(message: Option<Result<Message, tungstenite::Error>>) -> Woken {
    match message {
        Some(Ok(Message::Text(text))) => Woken::Model(Some(text)),
        Some(Ok(Message::Close(frame))) => {
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
        let _ = timeout(CLOSE_LIMIT, self.caller.send(Message::Close(None))).await;
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
