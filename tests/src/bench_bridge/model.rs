//! OpenAI's side of a call: a session that takes all audio and speaks without a pause, turn after turn, at the pace of
//! speech. It listens to nothing that it is told but the settings and the first wish to hear it.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::accept_async;
use uuid::Uuid;

use super::caller::FRAME_BYTES;
use super::frames::{self, Writer};
use super::line::{End, Received, Receiver, Sender, between};
use super::load::{Expected, Load, Paced};

/// One answer of the model: 6 s.
const TURN_TICKS: u32 = 300;
/// Some words of its text: every 200 ms.
const WORDS_TICKS: u32 = 10;
const WORDS: &str = "and so on";

/// One session.
struct Session {
    stream: TcpStream,
    state: RefCell<State>,
    expected: Expected,
}

struct State {
    sender: Sender,
    audio: Writer,
    /// Ticks since the first answer began.
    ticks: u32,
    /// What every piece of audio of this turn begins with.
    head: String,
    response: String,
    item: String,
    delta: String,
    /// What the wish for the first answer was tagged with; the answer bears it.
    tag: Option<Value>,
    speaks: bool,
}

/// Takes sessions.
pub(super) async fn serve(listener: TcpListener, load: Rc<Load>) {
    while let Ok((stream, _)) = listener.accept().await {
        let load = Rc::clone(&load);
        tokio::task::spawn_local(async move {
            load.sessions.set(load.sessions.get() + 1);
            // An error is its end.
            let _ = session(stream, &load).await;
            load.sessions.set(load.sessions.get() - 1);
        });
    }
}

async fn session(stream: TcpStream, load: &Rc<Load>) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let stream = accept_async(stream).await?.into_inner();
    stream.writable().await?;
    let state = State {
        sender: Sender::new(End::Server),
        audio: Writer::new(usize::try_from(load.delta_ms * 8)?),
        ticks: 0,
        head: String::new(),
        response: String::new(),
        item: String::new(),
        delta: String::new(),
        tag: None,
        speaks: false,
    };
    let session = Rc::new(Session { stream, state: RefCell::new(state), expected: Expected::default() });
    session.send(&json!({ "type": "session.created", "event_id": id("event"), "session": defaults() }))?;
    let mut receiver = Receiver::default();
    while receiver.more(&session.stream).await? {
        while let Some(message) = receiver.next() {
            match message {
                Received::Text(text) => session.take(load, text)?,
                Received::Ping(payload) => session.state.borrow_mut().sender.pong(&session.stream, payload)?,
                Received::Close => return Ok(()),
                Received::Other => {}
            }
        }
    }
    Ok(())
}

impl Session {
    fn take(self: &Rc<Self>, load: &Load, text: &str) -> anyhow::Result<()> {
        if text.contains(r#""input_audio_buffer.append""#)
            && let Some(audio) = between(text, r#""audio":""#)
        {
            load.received(&self.expected, frames::read(audio), frames::byte_len(audio), FRAME_BYTES);
            return Ok(());
        }
        let event: Value = serde_json::from_str(text)?;
        match event["type"].as_str() {
            Some("session.update") => {
                let mut session = defaults();
                merge(&mut session, &event["session"]);
                self.send(&json!({ "type": "session.updated", "event_id": id("event"), "session": session }))?;
            }
            Some("response.create") => {
                let state = &mut *self.state.borrow_mut();
                if !std::mem::replace(&mut state.speaks, true) {
                    state.tag = Some(event["response"]["metadata"].clone());
                    load.pace(Uuid::new_v4().as_bytes()[0].into(), Rc::clone(self) as Rc<dyn Paced>);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn send(&self, event: &Value) -> io::Result<()> {
        self.state.borrow_mut().sender.send(&self.stream, &[&event.to_string()])
    }
}

impl Paced for Session {
    fn tick(&self, load: &Load, _: Duration) -> io::Result<()> {
        if !load.is_sending() {
            return Ok(());
        }
        let state = &mut *self.state.borrow_mut();
        let at = state.ticks % TURN_TICKS;
        if at == 0 {
            if state.ticks > 0 {
                state.finish(&self.stream)?;
            }
            state.begin(&self.stream)?;
        }
        state.ticks += 1;
        if at.is_multiple_of(WORDS_TICKS) {
            state.part(&self.stream, "response.output_audio_transcript.delta", &json!({ "delta": WORDS }))?;
        }
        if at.is_multiple_of(load.delta_ms / 20) {
            state.delta.clear();
            BASE64_STANDARD.encode_string(state.audio.next(load.now()), &mut state.delta);
            state.sender.send(&self.stream, &[&state.head, &id("event"), r#"","delta":""#, &state.delta, r#""}"#])?;
            load.sent();
        }
        Ok(())
    }
}

impl State {
    fn begin(&mut self, stream: &TcpStream) -> io::Result<()> {
        (self.response, self.item) = (id("resp"), id("item"));
        let Self { response, item, .. } = self;
        // The order in which the service writes them.
        self.head = format!(
            concat!(
                r#"{{"type":"response.output_audio.delta","response_id":"{}","item_id":"{}","#,
                r#""output_index":0,"content_index":0,"event_id":""#
            ),
            response, item
        );
        let caller = id("item");
        let item = json!({ "id": item, "object": "realtime.item", "type": "message", "status": "in_progress",
            "role": "assistant", "content": [] });
        let response = json!({ "id": response, "object": "realtime.response", "status": "in_progress",
            "status_details": null, "output": [], "usage": null, "metadata": self.tag.take() });
        for event in [
            json!({ "type": "input_audio_buffer.committed", "item_id": caller, "previous_item_id": null }),
            json!({ "type": "conversation.item.input_audio_transcription.completed", "item_id": caller,
                "content_index": 0, "transcript": WORDS, "usage": { "type": "duration", "seconds": 6 } }),
            json!({ "type": "response.created", "response": response }),
            json!({ "type": "response.output_item.added", "response_id": response["id"], "output_index": 0, "item": item }),
            json!({ "type": "conversation.item.added", "item": item, "previous_item_id": caller }),
        ] {
            self.event(stream, event)?;
        }
        self.part(stream, "response.content_part.added", &json!({ "part": { "type": "audio", "transcript": "" } }))
    }

    fn finish(&mut self, stream: &TcpStream) -> io::Result<()> {
        let words = vec![WORDS; (TURN_TICKS / WORDS_TICKS) as usize].concat();
        self.part(stream, "response.output_audio.done", &json!({}))?;
        self.part(stream, "response.output_audio_transcript.done", &json!({ "transcript": words }))?;
        let part = json!({ "type": "audio", "transcript": words });
        self.part(stream, "response.content_part.done", &json!({ "part": part }))?;
        let item = json!({ "id": self.item, "object": "realtime.item", "type": "message", "status": "completed",
            "role": "assistant", "content": [{ "type": "output_audio", "transcript": words }] });
        let details = json!({ "text_tokens": 60, "audio_tokens": 120, "cached_tokens": 100 });
        let response = json!({ "id": self.response, "object": "realtime.response", "status": "completed",
            "status_details": null, "output": [item], "usage": { "total_tokens": 360, "input_tokens": 180,
            "output_tokens": 180, "input_token_details": details, "output_token_details": details } });
        let done = json!({ "type": "response.output_item.done", "response_id": self.response, "output_index": 0,
            "item": item });
        self.event(stream, done)?;
        self.event(stream, json!({ "type": "response.done", "response": response }))
    }

    /// Sends an event of the running answer's only part.
    fn part(&mut self, stream: &TcpStream, kind: &str, more: &Value) -> io::Result<()> {
        let mut event = json!({ "type": kind, "response_id": self.response, "item_id": self.item, "output_index": 0,
            "content_index": 0 });
        merge(&mut event, more);
        self.event(stream, event)
    }

    fn event(&mut self, stream: &TcpStream, mut event: Value) -> io::Result<()> {
        event["event_id"] = id("event").into();
        self.sender.send(stream, &[&event.to_string()])
    }
}

/// An id of the length that the service's have.
fn id(kind: &str) -> String {
    let mut id = format!("{kind}_{}", Uuid::new_v4().simple());
    id.truncate(kind.len() + 22);
    id
}

fn defaults() -> Value {
    json!({
        "type": "realtime", "object": "realtime.session", "id": id("sess"), "model": "gpt-realtime-2.1",
        "output_modalities": ["audio"], "instructions": "", "tools": [], "tool_choice": "auto",
        "max_output_tokens": "inf", "tracing": null, "truncation": "auto", "prompt": null, "expires_at": 4_000_000_000_u64,
        "audio": {
            "input": { "format": { "type": "audio/pcm", "rate": 24000 }, "transcription": null, "turn_detection": null },
            "output": { "format": { "type": "audio/pcm", "rate": 24000 }, "voice": "alloy", "speed": 1.0 },
        },
        "include": null,
    })
}

/// Sets what the second names; a format is replaced whole.
fn merge(value: &mut Value, more: &Value) {
    match (value, more) {
        (Value::Object(value), Value::Object(more)) => {
            for (name, more) in more {
                match value.get_mut(name).filter(|_| name != "format") {
                    Some(value) => merge(value, more),
                    None => {
                        value.insert(name.clone(), more.clone());
                    }
                }
            }
        }
        (value, more) => *value = more.clone(),
    }
}
