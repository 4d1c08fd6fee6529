//! A plain client of the Realtime API, as a telephone bridge would be one.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tests::openai::{Pace, Realtime, RealtimeOptions, Reply};
use tests::speech::{Clip, clip};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// Nothing here takes longer, unless it never comes.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

pub(crate) const MODEL: &str = "gpt-realtime-2.1";

/// A service that is quick, so that tests are.
pub(crate) fn quick() -> RealtimeOptions {
    RealtimeOptions {
        pace: Pace { first_token: Duration::from_millis(5), times_real_time: 100.0, ..Pace::default() },
        ..RealtimeOptions::default()
    }
}

/// The same with a script.
pub(crate) fn saying(replies: Vec<Reply>) -> RealtimeOptions {
    RealtimeOptions { replies, ..quick() }
}

pub(crate) fn speech(name: &str) -> Reply {
    Reply::speech(clip(name))
}

/// The `session` of a telephone bridge's update.
pub(crate) fn telephone() -> Value {
    json!({
        "type": "realtime",
        "output_modalities": ["audio"],
        "instructions": "You are Ana, the receptionist of a dental clinic.",
        "audio": {
            "input": {
                "format": {"type": "audio/pcmu"},
                "noise_reduction": {"type": "near_field"},
                "transcription": {"model": "gpt-transcribe", "languages": ["en"]},
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.5,
                    "prefix_padding_ms": 300,
                    "silence_duration_ms": 500,
                    "create_response": true,
                    "interrupt_response": true,
                },
            },
            "output": {"format": {"type": "audio/pcmu"}, "voice": "marin"},
        },
        "tools": [{
            "type": "function",
            "name": "transfer_call",
            "description": "Hand the caller to a person.",
            "parameters": {"type": "object", "properties": {"department": {"type": "string"}}},
        }],
    })
}

/// A handshake with the right key.
pub(crate) fn request(realtime: &Realtime, query: &str) -> Request {
    let mut request = format!("{}{query}", realtime.url()).into_client_request().expect("a valid address");
    let bearer = format!("Bearer {}", RealtimeOptions::default().api_key);
    request.headers_mut().insert("authorization", bearer.parse().expect("a valid header"));
    request
}

pub(crate) struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Every event so far, in order.
    pub(crate) events: Vec<Value>,
    /// Every event sent, in order.
    pub(crate) sent: Vec<Value>,
}

impl Client {
    pub(crate) async fn connect(realtime: &Realtime) -> Self {
        let request = request(realtime, &format!("?model={MODEL}"));
        let (socket, _) = connect_async(request).await.expect("the simulator accepts a good handshake");
        Self::over(socket)
    }

    pub(crate) fn over(socket: WebSocketStream<MaybeTlsStream<TcpStream>>) -> Self {
        Self { socket, events: Vec::new(), sent: Vec::new() }
    }

    /// Connected, with the session of a telephone bridge confirmed.
    pub(crate) async fn on_the_telephone(realtime: &Realtime) -> Self {
        let mut client = Self::connect(realtime).await;
        client.update(telephone()).await;
        client
    }

    /// Updates the session and waits until that is confirmed.
    pub(crate) async fn update(&mut self, session: Value) -> Value {
        self.send(json!({"type": "session.update", "session": session})).await;
        self.until("session.updated").await
    }

    pub(crate) async fn send(&mut self, event: Value) {
        self.send_text(&event.to_string()).await;
        self.sent.push(event);
    }

    pub(crate) async fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.expect("the simulator takes a frame");
    }

    /// Sends an event that must be refused; returns the `error` object.
    pub(crate) async fn refused(&mut self, event: Value) -> Value {
        self.send(event).await;
        self.until("error").await["error"].clone()
    }

    /// Says something and then nothing for a while: all at once, as turn detection counts audio, not the clock.
    pub(crate) async fn say(&mut self, clip: &Clip, silence_ms: usize) {
        for frame in clip.frames_then_silence(silence_ms) {
            self.append(&frame).await;
        }
    }

    pub(crate) async fn append(&mut self, audio: &[u8]) {
        let audio = BASE64_STANDARD.encode(audio);
        self.send(json!({"type": "input_audio_buffer.append", "audio": audio})).await;
    }

    pub(crate) async fn next_frame(&mut self) -> Option<Result<Message, Error>> {
        timeout(LIMIT, self.socket.next()).await.expect("the simulator sends something in time")
    }

    /// Reads up to the next event of this type.
    pub(crate) async fn until(&mut self, kind: &str) -> Value {
        self.until_such(|event| event["type"] == kind, kind).await
    }

    /// Reads up to the next event that is as wanted.
    pub(crate) async fn until_such(&mut self, is_it: impl Fn(&Value) -> bool, what: &str) -> Value {
        loop {
            let text = match self.next_frame().await {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                other => panic!("waiting for {what} got {other:?} after {:?}", self.kinds()),
            };
            let event: Value = serde_json::from_str(&text).expect("events are JSON");
            self.events.push(event.clone());
            if is_it(&event) {
                return event;
            }
        }
    }

    /// Reads up to the close frame and returns its code and text.
    pub(crate) async fn until_closed(&mut self) -> Option<(u16, String)> {
        loop {
            match self.next_frame().await {
                Some(Ok(Message::Text(text))) => {
                    self.events.push(serde_json::from_str(&text).expect("events are JSON"));
                }
                Some(Ok(Message::Close(frame))) => {
                    return frame.map(|frame| (frame.code.into(), frame.reason.to_string()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }

    /// The types of the events so far; runs of deltas count once.
    pub(crate) fn kinds(&self) -> Vec<String> {
        let mut kinds: Vec<String> =
            self.events.iter().map(|event| event["type"].as_str().unwrap_or_default().to_owned()).collect();
        kinds.dedup_by(|a, b| a == b && a.rsplit('.').next() == Some("delta"));
        kinds
    }

    pub(crate) fn all(&self, kind: &str) -> Vec<&Value> {
        self.events.iter().filter(|event| event["type"] == kind).collect()
    }

    /// The audio of one item, put together from its deltas.
    pub(crate) fn audio_of(&self, item_id: &str) -> Vec<u8> {
        self.all("response.output_audio.delta")
            .into_iter()
            .filter(|event| event["item_id"] == item_id)
            .flat_map(|event| {
                let delta = event["delta"].as_str().expect("a delta is text");
                BASE64_STANDARD.decode(delta).expect("a delta is base64")
            })
            .collect()
    }
}
