//! What the Worker counts: one data point a request, whatever became of it, and nothing in it that names a caller.

use axum::body::Bytes;
use axum::extract::State;
use axum::routing::any;
use axum::{Router, http::StatusCode};
use reqwest::RequestBuilder;
use serde_json::Value;
use tests::stack::workerd::{Binding, Service, Workerd};
use tests::stack::{edge, ports, root};
use tokio::sync::watch;

use crate::origin::{NEVER, Origin};
use crate::survival::{Queue, options};
use crate::world::{PUBLIC, TWILIO_TOKEN, VAPI_SECRET, call_sid, client, send, twilio_signature};

/// Where data points go.
#[derive(Clone)]
struct Dataset(watch::Sender<Vec<Value>>);

impl Dataset {
    async fn serve() -> (Self, String) {
        let dataset = Self(watch::Sender::new(Vec::new()));
        let listener = ports::listen().await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        let take = async |State(Self(points)): State<Self>, body: Bytes| {
            points.send_modify(|all| all.push(serde_json::from_slice(&body).expect("a point is JSON")));
            StatusCode::OK
        };
        let app = Router::new().fallback(any(take)).with_state(dataset.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (dataset, address)
    }

    /// The point with this number, once there are so many.
    async fn wait(&self, number: usize) -> Value {
        let mut points = self.0.subscribe();
        let found = points.wait_for(|all| all.len() >= number);
        let all = tokio::time::timeout(NEVER, found).await.expect("a point is written").expect("it is served");
        assert_eq!(all.len(), number, "one request, one point: {all:?}");
        all[number - 1].clone()
    }
}

/// The texts of a point, in order: workerd writes each as a list of bytes.
fn texts(point: &Value) -> Vec<String> {
    let names = ["index1".to_owned()].into_iter().chain((1..=20).map(|n| format!("blob{n}")));
    let lists = names.filter_map(|name| serde_json::from_value::<Vec<u8>>(point[name].clone()).ok());
    lists.map(|list| String::from_utf8(list).expect("a text")).collect()
}

#[tokio::test]
async fn every_request_is_counted_and_no_caller_named() {
    edge::build().await.expect("the Worker is built");
    let listener = ports::listen().await.expect("a port is free");
    let origin_url = format!("http://{}", listener.local_addr().expect("it is bound"));
    Origin::serve(listener);
    let (_queue, queue_address) = Queue::serve().await;
    let (dataset, dataset_address) = Dataset::serve().await;
    let mut options = options(root().join("edge/src/entry.js"), &origin_url, queue_address);
    options.bindings.push(("METRICS", Binding::Dataset("dataset")));
    options.services.push(("dataset", Service::External(dataset_address)));
    let worker = Workerd::start(&options).await.expect("it starts");

    let url = |path: &str| format!("http://127.0.0.1:{}{path}", worker.port());
    let call = call_sid();
    let form = [("CallSid", call.as_str()), ("From", "+15550100002"), ("To", "+15550100003")];
    let signed = |path: &str| {
        let signature = twilio_signature(TWILIO_TOKEN, &format!("{PUBLIC}{path}"), &form);
        client().post(url(path)).form(&form).header("x-twilio-signature", signature)
    };
    let vapi = || client().post(url("/api/vapi/webhook")).header("content-type", "application/json");
    let unsigned = client().post(url("/twilio/voice")).form(&form);
    let long = client().post(url("/twilio/voice")).header("content-type", "application/x-www-form-urlencoded");
    let requests: [(RequestBuilder, u16, [&str; 3]); 9] = [
        (unsigned, 403, ["refuse", "/twilio/voice", "signature_invalid"]),
        (client().get(url("/twilio/voice")), 405, ["refuse", "/twilio/voice", "method_not_allowed"]),
        (client().post(url("/twilio/resume")).body("x"), 415, ["refuse", "/twilio/resume", "unsupported_media_type"]),
        (long.body("a".repeat(1024 * 1024 + 1)), 413, ["refuse", "/twilio/voice", "body_too_large"]),
        (
            vapi().header("x-vapi-secret", VAPI_SECRET).body("{"),
            400,
            ["refuse", "/api/vapi/webhook", "malformed_message"],
        ),
        (vapi().body("{}"), 401, ["refuse", "/api/vapi/webhook", "unauthorized"]),
        (client().get(url("/twilio/+15550100002")), 404, ["refuse", "other", "not_found"]),
        (signed("/twilio/status"), 204, ["deliver", "/twilio/status", ""]),
        (signed("/twilio/voice"), 200, ["bridge", "/twilio/voice", ""]),
    ];
    // A health check is not.
    assert_eq!(send(client().get(url("/healthz"))).await.0, 200);
    for (number, (request, status, expected)) in requests.into_iter().enumerate() {
        assert_eq!(send(request).await.0, status, "{expected:?}");
        let point = dataset.wait(number + 1).await;
        assert_eq!(texts(&point), expected, "and nothing else");
        assert_eq!(point["double1"], status, "{point}");
    }
}
