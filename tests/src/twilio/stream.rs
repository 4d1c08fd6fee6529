//! The socket of `<Connect><Stream>`: handshake, the two directions, and its end.
//!
//! The rules of the messages are in `protocol`, those of playing in `ledger`; this moves bytes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::SplitStream;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::client::{Request, generate_key};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_util::sync::CancellationToken;

use super::call::{Call, param};
use super::exchange::lock;
use super::ledger::{ChunkFact, Playback};
use super::line::{Air, Frame};
use super::protocol::{self, FromOurSide, Writer};
use super::sid::StreamSid;
use super::signature::sign;
use super::trace::{Purpose, What};
use super::twiml::{Action, Stream};
use super::webhook::Failure;

type Socket = WebSocketStream<TcpStream>;

/// For TCP and for the handshake; Twilio documents none.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// For the goodbye at the end: what is queued, `stop`, close.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// Messages towards our side that may wait in a socket that our side does not read: 20 s of audio.
pub(crate) const OUTLET: usize = 1000;

/// What is sent to our side.
#[derive(Debug)]
pub(crate) enum ToOurSide {
    Media {
        frame: Frame,
        at_us: u64,
    },
    Mark {
        name: String,
        cleared: bool,
    },
    Dtmf(char),
    /// `stop`, then close: the call is over or went elsewhere.
    Stop,
}

/// What is known of one stream. Times are of the call's clock.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamFacts {
    /// Its id.
    pub stream_sid: StreamSid,
    /// The public URL as in the TwiML.
    pub url: String,
    /// `customParameters`.
    pub parameters: Vec<(String, String)>,
    /// When Twilio began to connect.
    pub connecting_ms: u64,
    /// When `start` was sent; `None` if the handshake failed.
    pub started_ms: Option<u64>,
    /// How it ended; `None` while it runs.
    pub ended: Option<String>,
    /// The code with which our side closed, if it did.
    pub close_code: Option<u16>,
    /// When each of the caller's frames went out on the socket, in microseconds.
    pub frames_sent_us: Vec<u64>,
    /// Every `media` message of our side, in order.
    pub chunks: Vec<ChunkFact>,
    /// How often our side sent `clear`.
    pub clears: usize,
}

/// How a stream ended.
#[derive(Debug)]
enum End {
    /// It never started, or broke.
    Failed(Failure),
    /// Our side closed it in good order.
    Closed(u16),
    /// The call was over, or given another document.
    Stopped,
}

/// Runs one stream from handshake to end. `stop` ends it from this side.
pub(crate) async fn run(call: Arc<Call>, stream: Stream, stop: CancellationToken) {
    let stream_sid = StreamSid::random();
    let index = {
        let mut state = lock(&call.state);
        state.streams.push(StreamFacts {
            stream_sid: stream_sid.clone(),
            url: stream.url.clone(),
            parameters: stream.parameters.clone(),
            connecting_ms: call.clock.now_ms(),
            started_ms: None,
            ended: None,
            close_code: None,
            frames_sent_us: Vec::new(),
            chunks: Vec::new(),
            clears: 0,
        });
        state.streams.len() - 1
    };
    let running = Running { call, stream, stream_sid, index };
    let end = match stop.run_until_cancelled(running.connect()).await {
        None => End::Stopped,
        Some(Err(failure)) => End::Failed(failure),
        Some(Ok(socket)) => running.converse(socket, &stop).await,
    };
    running.over(end);
}

struct Running {
    call: Arc<Call>,
    stream: Stream,
    stream_sid: StreamSid,
    index: usize,
}

impl Running {
    async fn connect(&self) -> Result<Socket, Failure> {
        let url = &self.stream.url;
        self.call.note(What::StreamConnecting { url: url.clone() });
        check(&self.stream)?;
        let options = &self.call.exchange.options;
        let destination =
            options.hosts.resolve(url).map_err(|unresolved| Failure::new(31902, unresolved.to_string()))?;
        let tcp = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(&destination.address))
            .await
            .map_err(|_| Failure::new(31901, "connect timeout"))?
            .map_err(|error| Failure::new(31902, format!("connection refused: {error}")))?;
        // 160-byte messages: waiting to fill a segment would bunch them.
        tcp.set_nodelay(true).map_err(|error| Failure::new(31902, error.to_string()))?;
        let request = Request::builder()
            .uri(&destination.url)
            .header("Host", destination.host)
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", generate_key())
            .header("User-Agent", "Twilio.TmeWs/1.0")
            .header("x-twilio-signature", sign(&self.call.exchange.primary_token(), url, &[]))
            .body(())
            .map_err(|error| Failure::new(31923, error.to_string()))?;
        let handshake = tokio_tungstenite::client_async(request, tcp);
        match tokio::time::timeout(CONNECT_LIMIT, handshake).await {
            Err(_) => Err(Failure::new(31920, "no answer to the handshake")),
            Ok(Err(WsError::Http(answer))) => {
                Err(Failure::new(31920, format!("the handshake's answer was {}, not 101", answer.status())))
            }
            Ok(Err(error)) => Err(Failure::new(31920, format!("the handshake failed: {error}"))),
            Ok(Ok((socket, _))) => Ok(socket),
        }
    }

    async fn converse(&self, socket: Socket, stop: &CancellationToken) -> End {
        let (outlet, queue) = mpsc::channel(OUTLET);
        let (sink, mut source) = socket.split();
        let call = self.call.clone();
        let writer = Writer::new(&call.exchange.options.account_sid, call.sid.as_str(), self.stream_sid.as_str());
        let pump = Pump { call, index: self.index, writer, parameters: self.stream.parameters.clone() };
        let mut pump = tokio::spawn(pump.run(sink, queue));
        {
            let mut line = lock(&self.call.line);
            line.playback = Playback::default();
            line.air = Air::Stream;
        }
        self.call.note(What::StreamStarted { stream_sid: self.stream_sid.clone() });
        self.callback("stream-started", None);
        *lock(&self.call.outlet) = Some(outlet.clone());
        let end = match stop.run_until_cancelled(self.listen(&mut source, &outlet)).await {
            Some(end) => end,
            None => End::Stopped,
        };
        *lock(&self.call.outlet) = None;
        {
            let mut line = lock(&self.call.line);
            line.air = Air::Nothing;
            lock(&self.call.state).streams[self.index].chunks = line.playback.chunks().to_vec();
        }
        // A pump whose socket our side does not read is stuck: it is given up.
        let goodbye = async {
            if matches!(end, End::Stopped) {
                let _ = outlet.send(ToOurSide::Stop).await;
            }
            drop(outlet);
            let _ = (&mut pump).await;
            // Our side's half of the close.
            while let Some(Ok(_)) = source.next().await {}
        };
        if tokio::time::timeout(CLOSE_LIMIT, goodbye).await.is_err() {
            pump.abort();
        }
        end
    }

    /// Takes our side's messages until it closes.
    async fn listen(&self, source: &mut SplitStream<Socket>, outlet: &mpsc::Sender<ToOurSide>) -> End {
        let (mut warned_binary, mut warned_message) = (false, false);
        loop {
            match source.next().await {
                Some(Ok(Message::Text(text))) => {
                    if let Err(text) = self.obey(&text, outlet).await
                        && !std::mem::replace(&mut warned_message, true)
                    {
                        self.call.notify(&Failure::new(31951, text), &self.stream.url);
                    }
                }
                Some(Ok(Message::Binary(_))) => {
                    if !std::mem::replace(&mut warned_binary, true) {
                        self.call.notify(&Failure::new(31950, "a binary message"), &self.stream.url);
                    }
                }
                Some(Ok(Message::Close(frame))) => return self.closed(frame.as_ref()),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake))) | None => {
                    return End::Failed(Failure::new(31921, "the connection broke"));
                }
                Some(Err(WsError::Protocol(error))) => {
                    return End::Failed(Failure::new(31924, error.to_string()));
                }
                Some(Err(error)) => return End::Failed(Failure::new(31921, error.to_string())),
            }
        }
    }

    async fn obey(&self, text: &str, outlet: &mpsc::Sender<ToOurSide>) -> Result<(), String> {
        let at_us = self.call.clock.now_us();
        match protocol::read(text, self.stream_sid.as_str())? {
            FromOurSide::Media(audio) => lock(&self.call.line).playback.media(audio, at_us),
            FromOurSide::Mark(name) => {
                let played = lock(&self.call.line).playback.mark(name);
                if let Some(name) = played {
                    let _ = outlet.send(ToOurSide::Mark { name, cleared: false }).await;
                }
            }
            FromOurSide::Clear => {
                let cleared = lock(&self.call.line).playback.clear();
                lock(&self.call.state).streams[self.index].clears += 1;
                self.call.note(What::Cleared { dropped_ms: cleared.dropped_ms });
                for name in cleared.marks {
                    let _ = outlet.send(ToOurSide::Mark { name, cleared: true }).await;
                }
            }
        }
        Ok(())
    }

    fn closed(&self, frame: Option<&CloseFrame>) -> End {
        // 1005: a close frame without a code.
        let code = frame.map_or(1005, |frame| u16::from(frame.code));
        lock(&self.call.state).streams[self.index].close_code = Some(code);
        match code {
            1000 | 1001 | 1005 => End::Closed(code),
            // Whether a clean close is noted as 31921 too is not documented.
            _ => End::Failed(Failure::new(31921, format!("our side closed with code {code}"))),
        }
    }

    fn over(&self, end: End) {
        let stream_sid = self.stream_sid.clone();
        let ended = match end {
            End::Failed(failure) => {
                self.call.notify(&failure, &self.stream.url);
                let Failure { code, text } = failure;
                self.callback("stream-error", Some(&text));
                self.call.note(What::StreamFailed { stream_sid, code, error: text.clone() });
                format!("{code} {text}")
            }
            End::Closed(code) => {
                self.callback("stream-stopped", None);
                let reason = format!("our side closed it ({code})");
                self.call.note(What::StreamStopped { stream_sid, reason: reason.clone() });
                reason
            }
            End::Stopped => {
                self.callback("stream-stopped", None);
                let reason = "the call left it".to_owned();
                self.call.note(What::StreamStopped { stream_sid, reason: reason.clone() });
                reason
            }
        };
        lock(&self.call.state).streams[self.index].ended = Some(ended);
    }

    fn callback(&self, event: &str, error: Option<&str>) {
        let Some(Action { url, method }) = &self.stream.status_callback else {
            return;
        };
        let now = time::OffsetDateTime::now_utc().format(&time::format_description::well_known::Rfc3339);
        let mut params = vec![
            param("AccountSid", &self.call.exchange.options.account_sid),
            param("CallSid", self.call.sid.as_str()),
            param("StreamSid", self.stream_sid.as_str()),
            param("StreamName", self.stream.name.as_deref().unwrap_or(self.stream_sid.as_str())),
            param("StreamEvent", event),
            param("Timestamp", now.expect("a date of this century has this form")),
        ];
        params.extend(error.map(|error| param("StreamError", error)));
        self.call.callback(Purpose::StreamStatus, Action { url: url.clone(), method: *method }, params);
    }
}

/// What Twilio refuses before it connects.
fn check(stream: &Stream) -> Result<(), Failure> {
    let url = &stream.url;
    match url.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("wss") && !rest.is_empty() => {}
        Some(("wss", _)) | None => {
            return Err(Failure::new(31923, format!("malformed stream URL {url}")));
        }
        Some((scheme, _)) => {
            return Err(Failure::new(31922, format!("scheme {scheme} is not wss")));
        }
    }
    if url.contains('?') {
        return Err(Failure::new(31920, "a stream URL has no query string"));
    }
    match stream.track.as_deref() {
        None | Some("inbound_track") => Ok(()),
        Some(track) => Err(Failure::new(31941, format!("track {track} under <Connect>"))),
    }
}

/// The writing half: its own task, so that a full socket does not stop the reading.
struct Pump {
    call: Arc<Call>,
    index: usize,
    writer: Writer,
    parameters: Vec<(String, String)>,
}

impl Pump {
    async fn run(
        mut self,
        mut sink: futures_util::stream::SplitSink<Socket, Message>,
        mut queue: mpsc::Receiver<ToOurSide>,
    ) {
        // An error here shows in the reading half as well, which reports it.
        let _ = self.feed(&mut sink, &mut queue).await;
    }

    async fn feed(
        &mut self,
        sink: &mut futures_util::stream::SplitSink<Socket, Message>,
        queue: &mut mpsc::Receiver<ToOurSide>,
    ) -> Result<(), WsError> {
        sink.send(Message::text(Writer::connected())).await?;
        sink.send(Message::text(self.writer.start(&self.parameters))).await?;
        let started_us = self.call.clock.now_us();
        lock(&self.call.state).streams[self.index].started_ms = Some(started_us / 1000);
        while let Some(message) = queue.recv().await {
            let text = match message {
                ToOurSide::Media { frame, at_us } => {
                    let sent_us = self.call.clock.now_us();
                    lock(&self.call.state).streams[self.index].frames_sent_us.push(sent_us);
                    self.writer.media(&frame, at_us.saturating_sub(started_us) / 1000)
                }
                ToOurSide::Mark { name, cleared } => {
                    let text = self.writer.mark(&name);
                    self.call.note(What::Mark { name, cleared });
                    text
                }
                ToOurSide::Dtmf(digit) => self.writer.dtmf(digit),
                ToOurSide::Stop => {
                    sink.send(Message::text(self.writer.stop())).await?;
                    let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
                    return sink.send(Message::Close(Some(close))).await;
                }
            };
            sink.send(Message::text(text)).await?;
        }
        // Our side closed: the reading half has answered, this sends what is left of the answer.
        sink.close().await
    }
}
