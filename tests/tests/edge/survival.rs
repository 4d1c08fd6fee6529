//! An event that has arrived survives what happens to its request: a sender that hangs up, Rust that panics. In workerd
//! without wrangler's simulator, which reads a request to its end for a sender that is gone.

use std::path::PathBuf;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::any;
use axum::{Json, Router};
use serde_json::{Value, json};
use tests::stack::scratch::Scratch;
use tests::stack::workerd::{Binding, Service, Workerd, WorkerdOptions};
use tests::stack::{edge, ports, root};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::origin::{Behaviour, NEVER, Origin};
use crate::world::{
    self, HOP_SECRET, MEDIA_URL, PUBLIC, TWILIO_TOKEN, VAPI_SECRET, call_sid, client, send, twilio_signature,
};

/// A queue that only remembers.
#[derive(Clone)]
pub(crate) struct Queue(watch::Sender<Vec<String>>);

impl Queue {
    pub(crate) async fn serve() -> (Self, String) {
        let queue = Self(watch::Sender::new(Vec::new()));
        let listener = ports::listen().await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        let take = async |State(queue): State<Self>, headers: HeaderMap, body: Bytes| queue.take(&headers, &body);
        let app = Router::new().fallback(any(take)).with_state(queue.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (queue, address)
    }

    fn take(&self, headers: &HeaderMap, body: &Bytes) -> Json<Value> {
        assert_eq!(headers["x-msg-fmt"], "text");
        let text = String::from_utf8(body.to_vec()).expect("a message is a text");
        self.0.send_modify(|all| all.push(text));
        Json(json!({"metadata": {"metrics": {"backlogCount": 0, "backlogBytes": 0, "oldestMessageTimestamp": 0}}}))
    }

    /// The first message.
    async fn wait(&self) -> Value {
        let mut queued = self.0.subscribe();
        let found = queued.wait_for(|all| !all.is_empty());
        let all = tokio::time::timeout(NEVER, found).await.expect("the event is queued").expect("it is served");
        serde_json::from_str(&all[0]).expect("a message is JSON")
    }
}

pub(crate) fn options(entry: PathBuf, origin: &str, queue: String) -> WorkerdOptions {
    let text = |value: &str| Binding::Text(value.to_owned());
    WorkerdOptions {
        entry,
        bindings: vec![
            ("ORIGIN_URL", text(origin)),
            ("MEDIA_URL", text(MEDIA_URL)),
            ("EDGE_URL", text(PUBLIC)),
            ("TWILIO_AUTH_TOKEN", text(TWILIO_TOKEN)),
            ("VAPI_SERVER_SECRET", text(VAPI_SECRET)),
            ("EDGE_ORIGIN_SECRET", text(HOP_SECRET)),
            ("ROUTES", Binding::Kv("kv")),
            ("RETRIES", Binding::Queue("queue")),
        ],
        services: vec![("kv", Service::Script(root().join("tests/bench/kv.js"))), ("queue", Service::External(queue))],
        outbound: None,
    }
}

#[tokio::test]
async fn an_event_outlives_the_sender_that_hangs_up() {
    edge::build().await.expect("the Worker is built");
    let listener = ports::listen().await.expect("a port is free");
    let origin_url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let origin = Origin::serve(listener);
    let (queue, queue_address) = Queue::serve().await;
    let options = options(root().join("edge/src/entry.js"), &origin_url, queue_address);
    let worker = Workerd::start(&options).await.expect("it starts");

    let call = call_sid();
    origin.behave(&call, Behaviour::Hang);
    let form = [("CallSid", call.as_str()), ("CallStatus", "completed")];
    let body = format!("CallSid={call}&CallStatus=completed");
    let head = format!(
        "POST /twilio/status HTTP/1.1\r\nhost: edge\r\ncontent-length: {}\r\n\
         content-type: application/x-www-form-urlencoded\r\nx-twilio-signature: {}\r\n\r\n",
        body.len(),
        twilio_signature(TWILIO_TOKEN, &format!("{PUBLIC}/twilio/status"), &form),
    );
    let mut sender = TcpStream::connect(("127.0.0.1", worker.port())).await.expect("the Worker listens");
    sender.write_all(format!("{head}{body}").as_bytes()).await.expect("it is sent");
    origin.wait_for(&call, 1).await;
    // A reset: workerd takes a mere end for a sender that still listens.
    sender.set_zero_linger().expect("the socket takes it");
    drop(sender);
    let event = queue.wait().await;
    assert_eq!((&event["path"], &event["body"]["text"]), (&json!("/twilio/status"), &json!(body)), "{event}");
}

/// Stands for a build of ours in which everything panics.
const BROKEN: &str = "
class Worker {}
Worker.prototype.begin = () => { throw new WebAssembly.RuntimeError('unreachable'); };
export default Worker;
";

#[tokio::test]
async fn a_panic_loses_no_event() {
    edge::build().await.expect("the Worker is built");
    let scratch = Scratch::new("broken").expect("a directory");
    std::fs::create_dir_all(scratch.join("src/shell")).expect("a directory");
    std::fs::create_dir(scratch.join("build")).expect("a directory");
    std::fs::write(scratch.join("build/index.js"), BROKEN).expect("it is written");
    for file in ["entry.js", "salvage.js", "shell/glue.js"] {
        let to = scratch.join("src").join(file);
        std::fs::copy(root().join("edge/src").join(file), to).expect("it is copied");
    }
    let (queue, queue_address) = Queue::serve().await;
    let options = options(scratch.join("src/entry.js"), "http://127.0.0.1:9", queue_address);
    let worker = Workerd::start(&options).await.expect("it starts");
    let url = |path: &str| format!("http://127.0.0.1:{}{path}", worker.port());
    let vapi = |kind: &str, call: &str| {
        let message = json!({"message": {"type": kind, "call": {"id": call}}});
        client().post(url("/api/vapi/webhook")).header("x-vapi-secret", VAPI_SECRET).json(&message)
    };
    let form = |path: &str, call: &str| {
        client().post(url(path)).header("x-twilio-signature", "AAAA").form(&[("CallSid", call)])
    };

    let call = call_sid();
    assert_eq!(send(form(&format!("/twilio/status?call={call}"), &call)).await, (204, String::new()));
    let kept = queue.wait().await;
    let head = kept["head"].as_str().expect("the head is kept");
    assert!(head.starts_with("POST\nhttp://"), "{head}");
    for line in ["content-type:application/x-www-form-urlencoded", "x-twilio-signature:AAAA"] {
        assert!(head.lines().any(|there| there == line), "{head}");
    }
    assert!(kept["arrivedAt"].is_u64() && kept["gzip"].as_str().is_some_and(|text| text.starts_with("H4sI")), "{kept}");
    for kind in ["status-update", "end-of-call-report", "brand-new"] {
        assert_eq!(send(vapi(kind, &call)).await, (200, "{}".to_owned()), "{kind}");
    }
    let queued = queue.0.borrow().len();
    assert_eq!(queued, 4);

    // A question cannot wait for the queue.
    for kind in ["tool-calls", "assistant-request"] {
        world::refused(vapi(kind, &call), 503, "unavailable").await;
    }
    let (status, twiml) = send(form("/twilio/voice", &call)).await;
    assert_eq!(status, 200);
    assert!(twiml.contains(">/twilio/voice?attempt=2</Redirect>"), "{twiml}");
    world::refused(form("/twilio/voice?attempt=2", &call), 503, "unavailable").await;
    world::refused(form("/nowhere", &call), 503, "unavailable").await;
    assert_eq!(queue.0.borrow().len(), queued);
}
