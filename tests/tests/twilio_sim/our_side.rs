//! A server that answers webhooks from a list and does with a stream what the test says.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use serde_json::{Value, json};
use tests::hosts::Hosts;
use tests::twilio::{CallHandle, Caller, EndReason, InboundCall, Number, Twilio, TwilioOptions};
use tokio::net::TcpListener;

pub(crate) const ACCOUNT: &str = "AC00000000000000000000000000000001";
pub(crate) const TOKEN: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const NUMBER: &str = "+15550100";
pub(crate) const BASE: &str = "https://edge.tandem.test";
/// More than any test takes; reached only when something hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// One answer to one webhook.
#[derive(Clone)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
    never: bool,
}

impl Answer {
    pub(crate) fn twiml(verbs: &str) -> Self {
        Self::of("text/xml", &format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response>{verbs}</Response>"))
    }

    pub(crate) fn of(content_type: &str, body: &str) -> Self {
        let headers = vec![("content-type", content_type.to_owned())];
        Self { status: 200, headers, body: body.to_owned(), never: false }
    }

    pub(crate) fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new(), never: false }
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(crate) fn never() -> Self {
        Self { never: true, ..Self::status(200) }
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) method: String,
    /// Path and query, byte for byte.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Received {
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    pub(crate) fn params(&self) -> Vec<(String, String)> {
        url::form_urlencoded::parse(&self.body).into_owned().collect()
    }

    pub(crate) fn param(&self, name: &str) -> Option<String> {
        self.params().into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

type OnStream = Arc<dyn Fn(Socket) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Our side.
pub(crate) struct OurSide {
    shared: Arc<Shared>,
    pub(crate) hosts: Hosts,
}

struct Shared {
    answers: Mutex<HashMap<String, VecDeque<Answer>>>,
    received: Mutex<Vec<Received>>,
    on_stream: OnStream,
}

impl OurSide {
    /// A side that handles no streams.
    pub(crate) async fn start() -> Self {
        Self::streaming(|_| async {}).await
    }

    /// A side that does this with every stream at `wss://edge.tandem.test/media`.
    pub(crate) async fn streaming<F>(on_stream: impl Fn(Socket) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let shared = Arc::new(Shared {
            answers: Mutex::default(),
            received: Mutex::default(),
            on_stream: Arc::new(move |socket| Box::pin(on_stream(socket))),
        });
        let router = Router::new().route("/media", get(upgrade)).fallback(any(answer)).with_state(shared.clone());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        let hosts = Hosts::new([(BASE, format!("http://{address}"))]);
        Self { shared, hosts }
    }

    /// What a path answers: one after the other, the last one for ever.
    pub(crate) fn answer(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        let mut table = self.shared.answers.lock().expect("no test panics here");
        table.insert(path.to_owned(), answers.into_iter().collect());
    }

    pub(crate) fn received(&self, path: &str) -> Vec<Received> {
        let all = self.shared.received.lock().expect("no test panics here");
        all.iter().filter(|request| request.path() == path).cloned().collect()
    }

    /// The simulator in front of this side, ten times as fast as life, with one number.
    pub(crate) async fn twilio(&self) -> Twilio {
        self.twilio_with(|_| {}).await
    }

    pub(crate) async fn twilio_with(&self, change: impl FnOnce(&mut TwilioOptions)) -> Twilio {
        let mut options = TwilioOptions::new(ACCOUNT, TOKEN, self.hosts.clone());
        options.pace = 10;
        change(&mut options);
        let twilio = Twilio::start(options).await.expect("a free port");
        twilio.set_number(number());
        twilio
    }
}

/// The number of most tests: `/voice`, `/fallback`, `/status`.
pub(crate) fn number() -> Number {
    Number::new(NUMBER)
        .voice_url(&format!("{BASE}/voice"))
        .fallback_url(&format!("{BASE}/fallback"))
        .status_callback(&format!("{BASE}/status"))
}

pub(crate) fn call(twilio: &Twilio, caller: Caller) -> CallHandle {
    twilio.call(InboundCall { to: NUMBER.to_owned(), caller, ..InboundCall::default() })
}

/// One call from beginning to end.
pub(crate) async fn whole_call(twilio: &Twilio, caller: Caller) -> (CallHandle, EndReason) {
    let call = call(twilio, caller);
    let reason = call.wait_ended(LIMIT).await.expect("the call ends");
    (call, reason)
}

pub(crate) fn codes(twilio: &Twilio) -> Vec<u32> {
    twilio.notifications().iter().map(|notification| notification.code).collect()
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path().to_owned();
    record(&shared, &method, &uri, headers, &body);
    let answer = {
        let mut table = shared.answers.lock().expect("no test panics here");
        let answers = table.entry(path).or_default();
        if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }
    };
    let answer = answer.unwrap_or_else(|| Answer::status(204));
    if answer.never {
        return std::future::pending().await;
    }
    let mut response = answer.body.into_response();
    *response.status_mut() = StatusCode::from_u16(answer.status).expect("a valid status");
    response.headers_mut().clear();
    for (name, value) in answer.headers {
        response.headers_mut().append(name, value.parse().expect("a valid header"));
    }
    response
}

async fn upgrade(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    record(&shared, &Method::GET, &uri, headers, &[]);
    let on_stream = shared.on_stream.clone();
    upgrade.on_upgrade(move |socket| on_stream(Socket { socket, stream_sid: String::new() }))
}

fn record(shared: &Shared, method: &Method, uri: &Uri, headers: HeaderMap, body: &[u8]) {
    shared.received.lock().expect("no test panics here").push(Received {
        method: method.to_string(),
        target: uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        headers,
        body: body.to_vec(),
    });
}

/// Our end of a stream.
pub(crate) struct Socket {
    pub(crate) socket: WebSocket,
    stream_sid: String,
}

impl Socket {
    /// The next message; `None` when the other end has closed.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            match self.socket.recv().await {
                Some(Ok(Message::Text(text))) => {
                    let message: Value = serde_json::from_str(&text).expect("Twilio sends JSON");
                    if message["event"] == "start" {
                        message["streamSid"].as_str().expect("start has a streamSid").clone_into(&mut self.stream_sid);
                    }
                    return Some(message);
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// The next message of this event, and how many `media` came before it.
    pub(crate) async fn next_of(&mut self, event: &str) -> (Value, usize) {
        let mut media = 0;
        loop {
            let message = self.next().await.expect("the stream is open");
            if message["event"] == event {
                return (message, media);
            }
            media += usize::from(message["event"] == "media");
        }
    }

    pub(crate) async fn send(&mut self, message: Value) {
        self.send_text(&message.to_string()).await;
    }

    pub(crate) async fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.expect("the stream is open");
    }

    /// So many milliseconds of audible audio.
    pub(crate) async fn speak(&mut self, ms: usize) {
        use base64::Engine as _;
        let payload = base64::prelude::BASE64_STANDARD.encode(vec![0x20; ms * 8]);
        let stream_sid = self.stream_sid.clone();
        self.send(json!({"event": "media", "streamSid": stream_sid, "media": {"payload": payload}})).await;
    }

    pub(crate) async fn mark(&mut self, name: &str) {
        let stream_sid = self.stream_sid.clone();
        self.send(json!({"event": "mark", "streamSid": stream_sid, "mark": {"name": name}})).await;
    }

    pub(crate) async fn clear(&mut self) {
        let stream_sid = self.stream_sid.clone();
        self.send(json!({"event": "clear", "streamSid": stream_sid})).await;
    }
}
