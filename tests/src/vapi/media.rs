//! The media socket of a handed-over call: Twilio Media Streams from the receiving side.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::mpsc;

use super::Shared;
use super::error::ApiError;
use super::talk::{Action, Talk};

/// A stream that does not start in this time is closed.
const START_LIMIT: Duration = Duration::from_secs(5);

/// Without a frame for this long the caller is taken to be silent: a muted phone sends nothing.
const QUIET_LIMIT: Duration = Duration::from_millis(750);

/// The caller hung up.
const CUSTOMER_ENDED: &str = "customer-ended-call";
/// The script hung up.
const ASSISTANT_ENDED: &str = "assistant-ended-call";
/// The socket went without a `stop`.
const SOCKET_LOST: &str = "phone-call-provider-closed-websocket";

/// `GET /{call_id}/transport`.
pub(crate) async fn upgrade(
    State(shared): State<Arc<Shared>>,
    Path(call_id): Path<String>,
    socket: WebSocketUpgrade,
) -> Response {
    let waiting = shared.call(&call_id).is_some_and(|call| call.is_live() && call.started_at.is_none());
    if !waiting {
        return ApiError::not_found("Call", &call_id).into_response();
    }
    socket.on_upgrade(|socket| run(shared, call_id, socket))
}

/// What a frame from Twilio says.
enum Frame {
    Start {
        call_sid: String,
        stream_sid: String,
    },
    Media(Vec<u8>),
    Mark(String),
    Stop,
    /// `connected`, `dtmf`, control frames, and whatever is not known.
    Other,
    /// The socket is gone.
    Lost,
}

fn parse(message: Option<Result<Message, axum::Error>>) -> Frame {
    let text = match message {
        Some(Ok(Message::Text(text))) => text,
        Some(Ok(Message::Close(_)) | Err(_)) | None => return Frame::Lost,
        Some(Ok(_)) => return Frame::Other,
    };
    let Ok(frame) = serde_json::from_str::<Value>(&text) else {
        return Frame::Other;
    };
    let string = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match frame["event"].as_str() {
        Some("start") => Frame::Start {
            call_sid: string(&frame["start"]["callSid"]),
            stream_sid: string(&frame["start"]["streamSid"]),
        },
        Some("media") => {
            let payload = frame["media"]["payload"].as_str().unwrap_or_default();
            Frame::Media(STANDARD.decode(payload).unwrap_or_default())
        }
        Some("mark") => Frame::Mark(string(&frame["mark"]["name"])),
        Some("stop") => Frame::Stop,
        _ => Frame::Other,
    }
}

async fn run(shared: Arc<Shared>, call_id: String, mut socket: WebSocket) {
    let Ok(Some(stream_sid)) = tokio::time::timeout(START_LIMIT, started(&shared, &call_id, &mut socket)).await else {
        return;
    };
    let Some(call) = shared.call(&call_id) else {
        return;
    };
    let setting = |key: &str| call.facts.assistant.as_ref().map(|assistant| assistant[key].clone()).unwrap_or_default();
    let instructions = setting("model")["messages"][0]["content"].as_str().map(str::to_owned);
    let interruptible = setting("firstMessageInterruptionsEnabled") == true;
    let (mut talk, mut actions) =
        Talk::start(call.facts, instructions, interruptible, shared.script(), OffsetDateTime::now_utc());
    // One tool runs at a time.
    let (answers, mut answered) = mpsc::channel(1);

    let reason = loop {
        match perform(&shared, &talk, &stream_sid, &mut socket, &answers, actions).await {
            Outcome::GoOn => {}
            Outcome::HangUp => break ASSISTANT_ENDED,
            Outcome::Lost => break SOCKET_LOST,
        }
        let frame = tokio::select! {
            frame = tokio::time::timeout(QUIET_LIMIT, socket.recv()) => frame.map(parse),
            Some(result) = answered.recv() => {
                actions = talk.tool_answered(result, OffsetDateTime::now_utc());
                continue;
            }
            () = shared.stop.cancelled() => break SOCKET_LOST,
        };
        let now = OffsetDateTime::now_utc();
        actions = match frame {
            Err(_) => talk.line_quiet(now),
            Ok(Frame::Media(audio)) => {
                let actions = talk.hear(&audio, now);
                shared.change(&call_id, |call| {
                    call.heard.extend_from_slice(&audio);
                    call.caller_turns = talk.caller_turns();
                });
                actions
            }
            Ok(Frame::Mark(name)) => talk.played(&name, now),
            Ok(Frame::Start { .. } | Frame::Other) => Vec::new(),
            Ok(Frame::Stop) => break CUSTOMER_ENDED,
            Ok(Frame::Lost) => break SOCKET_LOST,
        };
    };
    for action in talk.end(OffsetDateTime::now_utc()) {
        if let Action::Tell(body) = action {
            shared.tell(body);
        }
    }
    shared.finish(&call_id, Some(talk.history()), reason);
    let goodbye = Message::Close(Some(CloseFrame { code: 1000, reason: "".into() }));
    // The other side may be gone already.
    let _ = tokio::time::timeout(START_LIMIT, socket.send(goodbye)).await;
}

/// Waits for `start`; only then does Vapi know Twilio's id of a call made with the bypass.
async fn started(shared: &Shared, call_id: &str, socket: &mut WebSocket) -> Option<String> {
    loop {
        match parse(socket.recv().await) {
            Frame::Start { call_sid, stream_sid } => {
                shared.change(call_id, |call| {
                    call.facts.call_sid = Some(call_sid);
                    call.status = "in-progress";
                    call.started_at = Some(OffsetDateTime::now_utc());
                });
                return Some(stream_sid);
            }
            Frame::Lost | Frame::Stop => return None,
            Frame::Media(_) | Frame::Mark(_) | Frame::Other => {}
        }
    }
}

enum Outcome {
    GoOn,
    HangUp,
    Lost,
}

async fn perform(
    shared: &Arc<Shared>,
    talk: &Talk,
    stream_sid: &str,
    socket: &mut WebSocket,
    answers: &mpsc::Sender<Option<String>>,
    actions: Vec<Action>,
) -> Outcome {
    for action in actions {
        let frames = match action {
            Action::Tell(body) => {
                shared.tell(body);
                Vec::new()
            }
            Action::Ask(call) => {
                let (shared, answers) = (Arc::clone(shared), answers.clone());
                let (facts, history) = (talk.facts().clone(), talk.history().clone());
                tokio::spawn(async move {
                    let result = shared.ask_tool(&facts, &history, &call).await;
                    // Nobody listens any more when the call has ended meanwhile.
                    let _ = answers.send(result).await;
                });
                Vec::new()
            }
            Action::Play { audio, mark } => {
                let media =
                    json!({"event": "media", "streamSid": stream_sid, "media": {"payload": STANDARD.encode(audio)}});
                let mark = json!({"event": "mark", "streamSid": stream_sid, "mark": {"name": mark}});
                vec![media, mark]
            }
            Action::Clear => vec![json!({"event": "clear", "streamSid": stream_sid})],
            Action::Close => return Outcome::HangUp,
        };
        for frame in frames {
            let sent = socket.send(Message::Text(frame.to_string().into()));
            if !matches!(tokio::time::timeout(START_LIMIT, sent).await, Ok(Ok(()))) {
                return Outcome::Lost;
            }
        }
    }
    Outcome::GoOn
}
