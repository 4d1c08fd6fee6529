//! The socket around the sessions, and the handles by which a test watches and disturbs them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::RealtimeOptions;
use super::errors::ApiError;
use super::handshake::{Admission, Fault, Refusal, admit, refused};
use super::recognise::Recogniser;
use super::record::Closed;
use super::script::Reply;
use super::session::{Behaviour, Output, Session, Start};

/// A client that takes no data for so long is given up.
const SEND_LIMIT: Duration = Duration::from_secs(10);
/// How long the simulator waits for a client's part of a handshake or a close.
const CLIENT_LIMIT: Duration = Duration::from_secs(10);

/// A running simulator. Dropping it ends it, with all its connections.
#[derive(Debug)]
pub struct Realtime {
    address: SocketAddr,
    shared: Arc<Shared>,
    _running: DropGuard,
}

#[derive(Debug)]
struct Shared {
    options: RealtimeOptions,
    behaviour: Arc<Behaviour>,
    state: Mutex<State>,
    sessions_count: watch::Sender<usize>,
    stop: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    sessions: Vec<SessionHandle>,
    refusals: Vec<Refusal>,
    next_faults: VecDeque<Fault>,
    every_fault: Option<Fault>,
    next_replies: VecDeque<Vec<Reply>>,
}

impl Realtime {
    /// Starts listening.
    pub async fn start(options: RealtimeOptions) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(options.bind)
            .await
            .with_context(|| format!("the OpenAI simulator cannot listen on {}", options.bind))?;
        let address = listener.local_addr()?;
        let behaviour = Behaviour {
            pace: options.pace,
            default_reply: options.default_reply.clone(),
            recogniser: Recogniser::new(options.caller_clips.clone()),
            undercount_ms: options.undercount_ms,
            token_limit: options.token_limit,
            longest: options.longest_session,
        };
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            options,
            behaviour: Arc::new(behaviour),
            state: Mutex::default(),
            sessions_count: watch::Sender::new(0),
            stop: stop.clone(),
        });
        tokio::spawn(accept_connections(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, _running: stop.drop_guard() })
    }

    /// Where a client connects, less the query: `ws://127.0.0.1:PORT/v1/realtime`.
    pub fn url(&self) -> String {
        format!("ws://{}/v1/realtime", self.address)
    }

    /// The sessions so far, in the order of their handshakes.
    pub fn sessions(&self) -> Vec<SessionHandle> {
        self.shared.state().sessions.clone()
    }

    /// One of them, counted from 0.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn session(&self, number: usize) -> SessionHandle {
        let sessions = self.sessions();
        sessions.get(number).unwrap_or_else(|| panic!("there are {} sessions", sessions.len())).clone()
    }

    /// Waits until there are more than `number` sessions and returns the one of this number.
    pub async fn wait_for_session(&self, number: usize, limit: Duration) -> anyhow::Result<SessionHandle> {
        let mut count = self.shared.sessions_count.subscribe();
        timeout(limit, count.wait_for(|count| *count > number))
            .await
            .with_context(|| format!("no session {number} was opened within {limit:?}"))??;
        Ok(self.session(number))
    }

    /// The handshakes refused so far.
    pub fn refusals(&self) -> Vec<Refusal> {
        self.shared.state().refusals.clone()
    }

    /// Lets something go wrong with the next connection; several calls, with the next ones in turn.
    pub fn next_connection(&self, fault: Fault) {
        self.shared.state().next_faults.push_back(fault);
    }

    /// Lets something go wrong with every connection from now on, or with none again.
    pub fn every_connection(&self, fault: Option<Fault>) {
        self.shared.state().every_fault = fault;
    }

    /// Another script for the next session instead of the options' one; several calls, for the next ones.
    pub fn next_session_says(&self, replies: Vec<Reply>) {
        self.shared.state().next_replies.push_back(replies);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the simulator's state panics")
    }

    fn open_session(&self, admission: &Admission, fault: Option<Fault>) -> (SessionHandle, mpsc::Receiver<Command>) {
        let mut state = self.state();
        let replies = state.next_replies.pop_front().unwrap_or_else(|| self.options.replies.clone());
        let since_epoch = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let start = Start {
            number: state.sessions.len(),
            nonce: Uuid::new_v4().simple().to_string()[..12].to_owned(),
            model: admission.model.clone(),
            expires_at: (since_epoch + self.options.longest_session).as_secs(),
            replies: replies.into(),
            replies_apart: self.options.replies_apart.clone().into(),
            caller_texts: self.options.caller_texts.clone().into(),
            refuses_updates: fault == Some(Fault::RefuseUpdates),
            update_delay: match fault {
                Some(Fault::DelayUpdates(delay)) => Some(delay),
                _ => None,
            },
        };
        let (commands, inbox) = mpsc::channel(64);
        let handle = SessionHandle {
            session: Arc::new(Mutex::new(Session::new(start, Arc::clone(&self.behaviour)))),
            changes: watch::Sender::new(()),
            began: Instant::now(),
            commands,
        };
        state.sessions.push(handle.clone());
        self.sessions_count.send_replace(state.sessions.len());
        (handle, inbox)
    }
}

#[derive(Debug)]
enum Command {
    /// There is something new to send.
    Wake,
    Close(u16, String),
    Drop,
    Stall,
}

/// A session of the simulator, watched from outside.
#[derive(Debug, Clone)]
pub struct SessionHandle {
    session: Arc<Mutex<Session>>,
    changes: watch::Sender<()>,
    began: Instant,
    commands: mpsc::Sender<Command>,
}

impl SessionHandle {
    /// Looks into the session.
    pub fn read<T>(&self, look: impl FnOnce(&Session) -> T) -> T {
        look(&self.lock())
    }

    /// Waits until the session is as wanted.
    pub async fn wait_for(&self, is_so: impl Fn(&Session) -> bool, limit: Duration) -> anyhow::Result<()> {
        let mut changes = self.changes.subscribe();
        let deadline = Instant::now() + limit;
        while !self.read(&is_so) {
            if timeout_at(deadline, changes.changed()).await.is_err() {
                let summary = self.read(|session| session.record().summary());
                anyhow::bail!("the session did not become as expected within {limit:?}; it had: {summary}");
            }
        }
        Ok(())
    }

    /// Adds a reply to the end of the session's script.
    pub fn push_reply(&self, reply: Reply) {
        self.lock().push_reply(reply);
    }

    /// Lets the next transcription fail.
    pub fn fail_next_transcription(&self) {
        self.lock().fail_transcription();
    }

    /// Sends an `error` event that no client event caused.
    pub fn send_error(&self, error: ApiError) {
        self.lock().send_error(self.began.elapsed(), error);
        self.command(Command::Wake);
    }

    /// The hour is over: `error` `session_expired`, close 1001.
    pub fn expire(&self) {
        self.lock().expire(self.began.elapsed());
        self.command(Command::Wake);
    }

    /// Closes with a code, such as 1011.
    pub fn close(&self, code: u16, reason: &str) {
        self.command(Command::Close(code, reason.to_owned()));
    }

    /// Drops the connection without a close frame (1006 to the client).
    pub fn drop_connection(&self) {
        self.command(Command::Drop);
    }

    /// Keeps the connection and neither reads nor says anything any more.
    pub fn stall(&self) {
        self.command(Command::Stall);
    }

    fn command(&self, command: Command) {
        // Full or closed: the connection is over, or as good as.
        let _ = self.commands.try_send(command);
    }

    fn lock(&self) -> MutexGuard<'_, Session> {
        self.session.lock().expect("no holder of a session panics")
    }

    fn change<T>(&self, change: impl FnOnce(&mut Session, Duration) -> T) -> T {
        let result = change(&mut self.lock(), self.began.elapsed());
        self.changes.send_replace(());
        result
    }

    fn close_recorded(&self, closed: Closed) {
        self.change(|session, _| session.record_mut().closed.get_or_insert(closed).clone());
    }
}

async fn accept_connections(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stop.cancelled() => return,
        };
        // A connection that was gone before it was accepted is none of ours.
        let Ok((stream, _)) = accepted else { continue };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let stop = shared.stop.clone();
            tokio::select! {
                () = serve(stream, &shared) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn serve(stream: TcpStream, shared: &Shared) {
    let fault = {
        let mut state = shared.state();
        state.next_faults.pop_front().or(state.every_fault)
    };
    if fault == Some(Fault::NoHandshake) {
        let _stream = stream;
        return std::future::pending().await;
    }
    // Small frames must not wait for each other.
    let _ = stream.set_nodelay(true);
    let mut admission = None;
    // The type of the error is the library's.
    #[expect(clippy::result_large_err)]
    let judge =
        |request: &Request, mut response: Response| match admit(request, &mut response, &shared.options.api_key, fault)
        {
            Ok(admitted) => {
                admission = Some(admitted);
                Ok(response)
            }
            Err((status, body)) => {
                let code = body["error"]["code"].as_str().map(str::to_owned);
                shared.state().refusals.push(Refusal { status: status.as_u16(), code });
                Err(refused(status, &body))
            }
        };
    // The longest audio that may be appended, as base64, is larger than the library's default.
    let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
    let handshake = tokio_tungstenite::accept_hdr_async_with_config(stream, judge, Some(config));
    let Ok(Ok(mut socket)) = timeout(CLIENT_LIMIT, handshake).await else { return };
    let Some(admission) = admission else { return };
    if admission.wants_beta {
        let error = ApiError::beta_shape();
        let event = json!({"type": "error", "event_id": "event_beta", "error": error.to_json(None)});
        let _ = send(&mut socket, Message::text(event.to_string())).await;
        let reason = "invalid_request_error.beta_api_shape_disabled";
        return close(&mut socket, 4000, reason).await;
    }
    if fault == Some(Fault::Silent) {
        let _socket = socket;
        return std::future::pending().await;
    }
    let (handle, inbox) = shared.open_session(&admission, fault);
    pump(&mut socket, &handle, inbox).await;
}

/// Carries one session's events between the socket and the state machine until either ends.
async fn pump(socket: &mut WebSocketStream<TcpStream>, handle: &SessionHandle, mut inbox: mpsc::Receiver<Command>) {
    loop {
        let output = handle.change(|session, _| session.take_output());
        for output in output {
            match output {
                Output::Event(event) => {
                    if send(socket, Message::text(event.to_string())).await.is_err() {
                        return handle.close_recorded(Closed::ByClient(1006));
                    }
                }
                Output::Close(code, reason) => {
                    handle.close_recorded(Closed::ByServer(code));
                    return close(socket, code, reason).await;
                }
            }
        }
        let due = handle.read(Session::next_due).map(|due| handle.began + due);
        let next_step = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    handle.change(|session, now| session.on_text(now, &text));
                }
                Some(Ok(Message::Binary(_))) => {
                    // The wording is ours.
                    let message = "Events must be sent as text frames.";
                    let error = ApiError::request("invalid_json", message);
                    handle.change(|session, now| session.send_error(now, error));
                }
                Some(Ok(Message::Close(frame))) => {
                    let code = frame.map_or(1005, |frame| frame.code.into());
                    handle.close_recorded(Closed::ByClient(code));
                    // Lets the library answer the close.
                    let _ = timeout(CLIENT_LIMIT, socket.next()).await;
                    return;
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return handle.close_recorded(Closed::ByClient(1006)),
            },
            () = next_step => handle.change(Session::tick),
            command = inbox.recv() => match command {
                Some(Command::Wake) | None => {}
                Some(Command::Close(code, reason)) => {
                    handle.close_recorded(Closed::ByServer(code));
                    return close(socket, code, &reason).await;
                }
                Some(Command::Drop) => return handle.close_recorded(Closed::ByServer(1006)),
                Some(Command::Stall) => std::future::pending().await,
            },
        }
    }
}

async fn send(socket: &mut WebSocketStream<TcpStream>, message: Message) -> anyhow::Result<()> {
    Ok(timeout(SEND_LIMIT, socket.send(message)).await??)
}

/// Closes and waits until the client has answered, so that it can read the code.
async fn close(socket: &mut WebSocketStream<TcpStream>, code: u16, reason: &str) {
    let frame = CloseFrame { code: code.into(), reason: reason.into() };
    if timeout(SEND_LIMIT, socket.close(Some(frame))).await.is_ok() {
        tokio::select! {
            () = async { while let Some(Ok(_)) = socket.next().await {} } => {}
            () = sleep(CLIENT_LIMIT) => {}
        }
    }
}
