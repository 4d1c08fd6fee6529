//! One Worker for every test of this file, the origin behind it, and what a test needs to play Twilio and Vapi.
//!
//! Tests run side by side, each with calls and numbers of its own. Only one that takes the origin away runs alone.

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use sha1::Sha1;
use tests::hosts::http_client;
use tests::stack::edge::{Edge, EdgeOptions, KV_NAMESPACE_ID};
use tests::stack::link::{Link, State};
use tests::stack::ports;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::origin::{NEVER, Origin};

/// The Worker's public base, which Twilio signs.
pub(crate) const PUBLIC: &str = "https://edge.tandem.test";
pub(crate) const MEDIA_URL: &str = "wss://origin.tandem.test/media-stream";
pub(crate) const HOP_SECRET: &str = "hop-secret";
pub(crate) const TWILIO_TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// The one that Twilio signs with once it is rotated.
pub(crate) const NEXT_TWILIO_TOKEN: &str = "fedcba9876543210fedcba9876543210";
/// An account below the main one, and what Twilio signs its webhooks with.
pub(crate) const SUB_ACCOUNT: &str = "AC5ab0cdeb0d2b2a4a3f9d6c2a8d3f6b7e";
pub(crate) const SUB_TOKEN: &str = "00112233445566778899aabbccddeeff";
pub(crate) const VAPI_SECRET: &str = "vapi-secret";
pub(crate) const AGENT: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// How often the log is read for what has to come.
const POLL: std::time::Duration = std::time::Duration::from_millis(20);

pub(crate) struct World {
    base_url: String,
    kv_url: String,
    link: Link,
    pub(crate) origin: Origin,
    reachable: RwLock<()>,
    edge: Edge,
}

/// The origin is there while this lives.
pub(crate) type Reachable = RwLockReadGuard<'static, ()>;

/// The origin can be taken away while this lives.
pub(crate) struct Outage {
    link: &'static Link,
    _alone: RwLockWriteGuard<'static, ()>,
}

impl Outage {
    /// Nobody listens where the origin was.
    pub(crate) async fn begin(&self) {
        self.link.set(State::Refuse).await.expect("the link is there");
    }

    /// The origin takes connections, and nothing moves on them.
    pub(crate) async fn hang(&self) {
        self.link.set(State::Hang).await.expect("the link is there");
    }

    /// The origin is back.
    pub(crate) async fn end(&self) {
        self.link.set(State::Open).await.expect("the link is there");
    }
}

/// The world with an origin that is there.
pub(crate) async fn world() -> (&'static World, Reachable) {
    let world = &*WORLD;
    let reachable = world.reachable.read().await;
    world.reach_origin().await;
    (world, reachable)
}

/// The world for a test that takes the origin away.
pub(crate) async fn world_alone() -> (&'static World, Outage) {
    let world = &*WORLD;
    let alone = world.reachable.write().await;
    world.reach_origin().await;
    (world, Outage { link: &world.link, _alone: alone })
}

// Each test has a runtime that ends with it; the world has one of its own that stays.
static WORLD: LazyLock<World> = LazyLock::new(|| {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        runtime.expect("a runtime starts").block_on(async {
            sender.send(start().await).expect("the tests wait");
            std::future::pending::<()>().await;
        });
    });
    receiver.recv().expect("the Worker and its origin start")
});

async fn start() -> World {
    let listener = ports::listen().await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let origin = Origin::serve(listener);
    let link = Link::start(address).await.expect("a port is free");
    let edge = Edge::start(options(&link.base_url())).await.expect("the Worker starts");
    let kv_url = format!("{}/storage/kv/namespaces/{KV_NAMESPACE_ID}/bulk", edge.kv_api_url());
    World { base_url: edge.base_url(), kv_url, link, origin, reachable: RwLock::new(()), edge }
}

/// What a Worker in front of an origin is set up with.
pub(crate) fn options(origin_url: &str) -> EdgeOptions {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    EdgeOptions {
        vars: vec![
            pair("ORIGIN_URL", origin_url),
            pair("MEDIA_URL", MEDIA_URL),
            pair("EDGE_URL", PUBLIC),
            pair("VAPI_API_URL", "https://vapi.tandem.test"),
        ],
        secrets: vec![
            pair("TWILIO_AUTH_TOKEN", &format!("{NEXT_TWILIO_TOKEN},{TWILIO_TOKEN},{SUB_ACCOUNT}:{SUB_TOKEN}")),
            pair("VAPI_SERVER_SECRET", VAPI_SECRET),
            pair("EDGE_ORIGIN_SECRET", HOP_SECRET),
        ],
        port: None,
    }
}

impl World {
    /// Ends what outage an earlier test left behind.
    async fn reach_origin(&self) {
        self.link.set(State::Open).await.expect("the link is there");
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base_url)
    }

    /// `host:port` of the Worker.
    pub(crate) fn address(&self) -> &str {
        self.base_url.trim_start_matches("http://")
    }

    /// What the Worker has printed.
    pub(crate) fn log(&self) -> String {
        self.edge.log()
    }

    /// What the Worker has decided about a call, in order.
    pub(crate) fn decisions(&self, call: &str) -> Vec<String> {
        self.lines(call).iter().filter_map(|line| line["decision"].as_str().map(str::to_owned)).collect()
    }

    /// The line in which the Worker logs this decision about a call, once it is there.
    pub(crate) async fn logged(&self, call: &str, decision: &str) -> Value {
        let search = async {
            loop {
                if let Some(line) = self.lines(call).into_iter().find(|line| line["decision"] == decision) {
                    return line;
                }
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(NEVER, search).await.unwrap_or_else(|_| panic!("no {decision} of {call}:\n{}", self.log()))
    }

    fn lines(&self, call: &str) -> Vec<Value> {
        // Wrangler puts a mark before what is an error, and colours around it.
        let json = |line: &str| {
            let at = line.find("{\"")?;
            serde_json::Deserializer::from_str(&line[at..]).into_iter::<Value>().next()?.ok()
        };
        self.log().lines().filter_map(json).filter(|line| line["call"] == call).collect()
    }

    /// Writes values into the replica, as Cloudflare's REST API takes them.
    pub(crate) async fn replicate(&self, key: &str, value: &str) {
        let pairs = json!([{"key": key, "value": value}]);
        let written = client().put(&self.kv_url).json(&pairs).send().await.expect("the replica is there");
        assert!(written.status().is_success(), "{:?}", written.text().await);
    }

    pub(crate) async fn replicate_number(&self, number: &str, on: &str, agent_on: &str, more: Value) {
        let mut route = json!({"revision": 1, "number": number, "numberSystemType": on, "agentId": AGENT,
            "agentSystemType": agent_on, "vapiHandover": "none", "fallbackNumber": null});
        for (name, value) in more.as_object().into_iter().flatten() {
            route[name] = value.clone();
        }
        self.replicate(&format!("number:{number}"), &route.to_string()).await;
    }

    pub(crate) async fn replicate_assistant(&self, assistant: &str, on: &str, switched_at: Option<&str>) {
        let route = json!({"revision": 1, "agentId": AGENT, "agentSystemType": on, "switchedAt": switched_at});
        self.replicate(&format!("assistant:{assistant}"), &route.to_string()).await;
    }

    /// A webhook as Twilio sends it.
    pub(crate) fn twilio(&self, path: &str, params: &[(&str, &str)]) -> RequestBuilder {
        let signature = twilio_signature(TWILIO_TOKEN, &format!("{PUBLIC}{path}"), params);
        self.form(path, params).header("x-twilio-signature", signature)
    }

    /// The same without a signature.
    pub(crate) fn form(&self, path: &str, params: &[(&str, &str)]) -> RequestBuilder {
        client().post(self.url(path)).form(params)
    }

    /// A server message as Vapi sends it.
    pub(crate) fn vapi(&self, message: &Value) -> RequestBuilder {
        self.json("/api/vapi/webhook", &json!({ "message": message })).header("x-vapi-secret", VAPI_SECRET)
    }

    pub(crate) fn json(&self, path: &str, body: &Value) -> RequestBuilder {
        client().post(self.url(path)).json(body)
    }
}

/// A client for one test: its connections belong to the test's runtime.
pub(crate) fn client() -> Client {
    http_client().build().expect("the options fit")
}

pub(crate) async fn send(request: RequestBuilder) -> (u16, String) {
    let response = request.send().await.expect("the Worker answers");
    text(response).await
}

pub(crate) async fn text(response: Response) -> (u16, String) {
    (response.status().as_u16(), response.text().await.expect("the answer is complete"))
}

/// Sends what must be refused, and checks that the refusal is a proper problem.
pub(crate) async fn refused(request: RequestBuilder, status: u16, code: &str) -> reqwest::header::HeaderMap {
    let response = request.send().await.expect("the Worker answers");
    let headers = response.headers().clone();
    assert_eq!(headers["content-type"], "application/problem+json");
    let (answered, body) = text(response).await;
    let body: Value = serde_json::from_str(&body).expect("the problem is JSON");
    assert_eq!((answered, &body["code"], &body["status"]), (status, &json!(code), &json!(status)), "{body}");
    headers
}

pub(crate) fn twilio_signature(token: &str, url: &str, params: &[(&str, &str)]) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(token.as_bytes()).expect("any key will do");
    mac.update(url.as_bytes());
    for (name, value) in params.iter().collect::<BTreeSet<_>>() {
        mac.update(name.as_bytes());
        mac.update(value.as_bytes());
    }
    BASE64_STANDARD.encode(mac.finalize().into_bytes())
}

/// An id that nothing else in this run has.
pub(crate) fn unique() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

pub(crate) fn call_sid() -> String {
    format!("CA{}", unique())
}

pub(crate) fn number() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("+1555{:07}", NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn incoming<'a>(call: &'a str, to: &'a str) -> [(&'a str, &'a str); 5] {
    [("CallSid", call), ("From", "+15550100002"), ("To", to), ("CallStatus", "ringing"), ("CallerCity", "")]
}
