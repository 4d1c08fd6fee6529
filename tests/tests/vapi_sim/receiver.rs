//! What stands at the server URL in these tests: it keeps what it gets and answers as it is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tests::hosts::{Hosts, http_client};
use tests::record::Record;
use tests::vapi::{Auth, Server, Vapi, VapiOptions};
use tokio::net::TcpListener;

pub(crate) const PUBLIC_URL: &str = "https://edge.tandem.test/api/vapi/webhook";

/// A request at the server URL.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

#[derive(Default)]
struct Shared {
    got: Record<Got>,
    answers: Mutex<VecDeque<(u16, Value)>>,
}

/// A server that can be told its next answers; without orders it answers tool calls properly and the rest `{}`.
pub(crate) struct Receiver {
    shared: Arc<Shared>,
    pub(crate) hosts: Hosts,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let router = Router::new().fallback(serve).with_state(Arc::clone(&shared));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        let hosts = Hosts::new([("https://edge.tandem.test", format!("http://{address}"))]);
        Self { shared, hosts }
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        self.shared.got.all()
    }

    /// The next request gets this answer. Status 0: none at all.
    pub(crate) fn answer(&self, status: u16, body: Value) {
        self.shared.answers.lock().expect("no panic elsewhere").push_back((status, body));
    }
}

async fn serve(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> (StatusCode, String) {
    let message: Value = serde_json::from_slice(&body).expect("JSON");
    shared.got.push(Got { headers, body });
    let ordered = shared.answers.lock().expect("no panic elsewhere").pop_front();
    let (status, answer) = ordered.unwrap_or_else(|| (200, usual_answer(&message["message"])));
    if status == 0 {
        std::future::pending::<()>().await;
    }
    (StatusCode::from_u16(status).expect("a status"), answer.to_string())
}

fn usual_answer(message: &Value) -> Value {
    let calls = message["toolCallList"].as_array().cloned().unwrap_or_default();
    if calls.is_empty() {
        return json!({});
    }
    let result = |call: &Value| json!({"toolCallId": call["id"], "name": call["function"]["name"], "result": "09:00"});
    json!({"results": calls.iter().map(result).collect::<Vec<_>>()})
}

/// A Vapi whose organisation has the receiver as its server, with an assistant and a number.
pub(crate) struct Setup {
    pub(crate) vapi: Vapi,
    pub(crate) receiver: Receiver,
    pub(crate) assistant_id: String,
    pub(crate) number_id: String,
}

pub(crate) const NUMBER: &str = "+15550100001";
pub(crate) const CALLER: &str = "+15550100002";

pub(crate) async fn setup(change: impl FnOnce(&mut VapiOptions)) -> Setup {
    let receiver = Receiver::start().await;
    let mut options = VapiOptions::new("key", receiver.hosts.clone());
    options.server = Some(Server::new(PUBLIC_URL, Auth::hmac("secret")));
    options.report_delay = Duration::from_millis(1);
    change(&mut options);
    let vapi = Vapi::start(options).await.expect("a free port");
    let assistant_id = vapi.add_assistant(json!({
        "name": "Receptionist",
        "model": {"provider": "openai", "model": "gpt-4.1", "messages": [{"role": "system", "content": "Be kind."}]},
        "firstMessageInterruptionsEnabled": true,
    }));
    let number_id = vapi
        .add_number(json!({"provider": "twilio", "number": NUMBER, "twilioAccountSid": "AC1", "twilioAuthToken": "t"}));
    Setup { vapi, receiver, assistant_id, number_id }
}

impl Setup {
    /// A REST request with the right key.
    pub(crate) async fn rest(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let client = http_client().build().expect("a client");
        let method = method.parse().expect("a method");
        let sent = client.request(method, format!("{}{path}", self.vapi.api_url())).bearer_auth("key").json(&body);
        let answer = sent.send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    /// A call made with the provider bypass.
    pub(crate) async fn bypass(&self) -> Value {
        let body = json!({
            "assistantId": self.assistant_id,
            "phoneNumberId": self.number_id,
            "customer": {"number": CALLER},
            "phoneCallProviderBypassEnabled": true,
            "type": "inboundPhoneCall",
        });
        let (status, call) = self.rest("POST", "/call", body).await;
        assert_eq!(status, 201, "{call}");
        call
    }
}
