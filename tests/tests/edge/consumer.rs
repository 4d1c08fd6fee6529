//! The consumer of the queues, message by message: what it acknowledges and what it wants again. A module around the
//! Worker plays the queue, because a real one's last attempt is a day away.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::routing::any;
use serde_json::{Value, json};
use shared::dead_letter::DeadLetter;
use tests::stack::scratch::Scratch;
use tests::stack::workerd::{Service, Workerd};
use tests::stack::{edge, ports, root};

use crate::origin::{Behaviour, Origin};
use crate::survival::{Queue, options};
use crate::world::{call_sid, client};

/// Hands the Worker a batch as a queue does, and tells how each message was settled.
const PLAYER: &str = r#"
import worker from "ENTRY";

export default {
  async fetch(request, env, context) {
    const { queue, messages } = await request.json();
    const settled = [];
    const played = messages.map((message) => ({
      ...message,
      ack: () => settled.push({ id: message.id, ack: true }),
      retry: ({ delaySeconds }) => settled.push({ id: message.id, retry: delaySeconds }),
    }));
    await worker.queue({ queue, messages: played }, env, context);
    return Response.json(settled);
  },
};
"#;

/// A KV namespace that takes every value, or none.
#[derive(Clone, Default)]
struct Store(Arc<Mutex<(bool, Vec<String>)>>);

impl Store {
    async fn serve() -> (Self, String) {
        let store = Self::default();
        let listener = ports::listen().await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        let answer = async |State(store): State<Self>, method: Method, uri: Uri, body: Bytes| {
            assert!(method == Method::PUT && uri.path().starts_with("/dead"), "{method} {uri}");
            let mut store = store.0.lock().unwrap_or_else(PoisonError::into_inner);
            if store.0 {
                return StatusCode::SERVICE_UNAVAILABLE;
            }
            store.1.push(String::from_utf8(body.to_vec()).expect("a letter is a text"));
            StatusCode::OK
        };
        let app = Router::new().fallback(any(answer)).with_state(store.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (store, address)
    }

    fn fail(&self, fails: bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = fails;
    }

    /// The letters that it has taken since the last time.
    fn take(&self) -> Vec<DeadLetter<'static>> {
        let written = std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).1);
        written
            .iter()
            .map(|text| serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}")))
            .collect()
    }
}

struct Consumer {
    worker: Workerd,
    origin: Origin,
    store: Store,
    _scratch: Scratch,
}

impl Consumer {
    async fn start() -> Self {
        edge::build().await.expect("the Worker is built");
        let scratch = Scratch::new("consumer").expect("a directory");
        let player = PLAYER.replace("ENTRY", &root().join("edge/src/entry.js").display().to_string());
        std::fs::write(scratch.join("player.js"), player).expect("it is written");
        let listener = ports::listen().await.expect("a port is free");
        let origin_url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let origin = Origin::serve(listener);
        let (store, store_address) = Store::serve().await;
        let (_queue, queue_address) = Queue::serve().await;
        let mut options = options(scratch.join("player.js"), &origin_url, queue_address);
        for (name, service) in &mut options.services {
            if *name == "kv" {
                *service = Service::External(store_address.clone());
            }
        }
        let worker = Workerd::start(&options).await.expect("it starts");
        Self { worker, origin, store, _scratch: scratch }
    }

    /// How one message of a queue is settled that comes for the `attempts`th time.
    async fn settle(&self, queue: &str, attempts: u32, body: &str) -> Value {
        let batch = json!({"queue": queue, "messages": [{"id": "m1", "attempts": attempts, "body": body}]});
        let url = format!("http://127.0.0.1:{}/", self.worker.port());
        let answer = client().post(url).json(&batch).send().await.expect("the Worker answers");
        let settled = answer.text().await.expect("it is complete");
        let settled: Value =
            serde_json::from_str(&settled).unwrap_or_else(|_| panic!("{settled}\n{}", self.worker.log_tail()));
        assert_eq!(settled.as_array().map(Vec::len), Some(1), "each message is settled once: {settled}");
        settled[0].clone()
    }
}

fn event(call: &str) -> String {
    let event = json!({"path": "/twilio/status", "contentType": "application/x-www-form-urlencoded",
        "delivery": format!("twilio:{call}"), "enqueuedAt": 1_795_000_000_000_u64,
        "body": {"text": format!("CallSid={call}&CallStatus=completed")}});
    event.to_string()
}

#[tokio::test]
async fn a_letter_that_the_store_does_not_take_is_not_lost() {
    let consumer = Consumer::start().await;
    let call = call_sid();
    consumer.store.fail(true);
    for attempts in [1, 2, 50] {
        let settled = consumer.settle("tandem-retries-dead", attempts, &event(&call)).await;
        assert_eq!(settled, json!({"id": "m1", "retry": 3600}), "the store may be back in an hour");
    }
    assert!(consumer.store.take().is_empty());
    consumer.store.fail(false);
    let settled = consumer.settle("tandem-retries-dead", 51, &event(&call)).await;
    assert_eq!(settled, json!({"id": "m1", "ack": true}));
    let letters = consumer.store.take();
    assert_eq!(letters.len(), 1);
    assert_eq!(
        (letters[0].path.as_ref(), letters[0].delivery.as_ref()),
        ("/twilio/status", &*format!("twilio:{call}"))
    );
    let body = format!("CallSid={call}&CallStatus=completed");
    assert_eq!(letters[0].body.bytes().as_deref(), Some(body.as_bytes()));
    // Told at once, then the queue's first attempt and all its retries.
    assert_eq!(letters[0].attempts, 102);
    assert!(consumer.origin.received(&call).is_empty(), "it was given up before");
}

#[tokio::test]
async fn the_last_attempt_leaves_a_letter_with_what_was_counted() {
    let consumer = Consumer::start().await;
    let call = call_sid();
    consumer.origin.behave(&call, Behaviour::Answer(503, "text/plain", "no"));
    let settle = async |attempts| consumer.settle("tandem-retries", attempts, &event(&call)).await;
    for attempts in [1, 100] {
        let settled = settle(attempts).await;
        assert!(settled["retry"].as_u64().is_some_and(|seconds| seconds >= 5), "{settled}");
    }
    // Then the queue gives it to the dead letters.
    consumer.store.fail(true);
    assert!(settle(101).await["retry"].is_u64());
    assert!(consumer.store.take().is_empty());
    consumer.store.fail(false);
    assert_eq!(settle(101).await, json!({"id": "m1", "ack": true}));
    assert_eq!(consumer.store.take().iter().map(|letter| letter.attempts).collect::<Vec<_>>(), [102]);

    // One that is refused is given up at once, with as many as there were.
    consumer.origin.behave(&call, Behaviour::Answer(422, "application/problem+json", "{}"));
    assert_eq!(settle(7).await, json!({"id": "m1", "ack": true}));
    assert_eq!(consumer.store.take().iter().map(|letter| letter.attempts).collect::<Vec<_>>(), [8]);
    consumer.origin.behave(&call, Behaviour::Answer(204, "", ""));
    assert_eq!(settle(101).await, json!({"id": "m1", "ack": true}));
    assert!(consumer.store.take().is_empty(), "the origin has it");
}
