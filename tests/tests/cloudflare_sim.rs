//! The simulated KV API, used as a replicator uses the real one.

use std::time::Duration;

use serde_json::{Value, json};
use tests::cloudflare::{Fault, KvApi, KvApiOptions};
use tests::hosts::http_client;

struct Client {
    http: reqwest::Client,
    base: String,
    token: &'static str,
}

impl Client {
    async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let method = method.parse().expect("a method");
        let sent = self.http.request(method, format!("{}/{path}", self.base)).bearer_auth(self.token).json(&body);
        let answer = sent.send().await.expect("an answer");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a body");
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    async fn bulk(&self, body: Value) -> (u16, Value) {
        self.call("PUT", "bulk", body).await
    }
}

/// A simulator without the limit of one write a second, unless a test wants it.
async fn start(write_interval: Duration) -> (KvApi, Client) {
    let options = KvApiOptions { write_interval, ..KvApiOptions::new("acc", "token", "ns") };
    let kv = KvApi::start(options).await.expect("a free port");
    let base = format!("{}/accounts/acc/storage/kv/namespaces/ns", kv.api_url());
    let client = Client { http: http_client().build().expect("a client"), base, token: "token" };
    (kv, client)
}

#[tokio::test]
async fn what_is_written_in_bulk_is_read_listed_and_deleted() {
    let (kv, client) = start(Duration::ZERO).await;
    let route = json!({"revision": 1}).to_string();
    let pairs = json!([
        {"key": "number:+15550100", "value": route, "metadata": {"revision": 1}},
        {"key": "assistant:a1", "value": "aGk=", "base64": true},
    ]);
    let (status, answer) = client.bulk(pairs).await;
    assert_eq!(status, 200);
    assert_eq!(answer["result"], json!({"successful_key_count": 2, "unsuccessful_keys": []}));
    assert_eq!((&answer["success"], &answer["errors"]), (&json!(true), &json!([])));

    assert_eq!(client.call("GET", "values/number%3A%2B15550100", Value::Null).await, (200, json!({"revision": 1})));
    let (_, bulk) = client.call("POST", "bulk/get", json!({"keys": ["assistant:a1", "none"]})).await;
    assert_eq!(bulk["result"]["values"], json!({"assistant:a1": "hi", "none": null}));
    let (_, keys) = client.call("GET", "keys?prefix=number%3A", Value::Null).await;
    assert_eq!(keys["result"], json!([{"name": "number:+15550100", "metadata": {"revision": 1}}]));

    let (status, answer) = client.call("POST", "bulk/delete", json!(["number:+15550100"])).await;
    assert_eq!((status, &answer["result"]["successful_key_count"]), (200, &json!(1)));
    let (status, answer) = client.call("GET", "values/number:+15550100", Value::Null).await;
    assert_eq!((status, &answer["errors"][0]["code"]), (404, &json!(10009)));

    let writes: Vec<_> = kv.writes().all().into_iter().map(|write| (write.key, write.value)).collect();
    assert_eq!(
        writes,
        [
            ("number:+15550100".to_owned(), Some(route)),
            ("assistant:a1".to_owned(), Some("hi".to_owned())),
            ("number:+15550100".to_owned(), None),
        ]
    );
}

#[tokio::test]
async fn a_key_written_again_at_once_is_refused_and_changes_nothing() {
    // An hour, so that the test is the same on a machine that stalls.
    let (kv, client) = start(Duration::from_hours(1)).await;
    assert_eq!(client.bulk(json!([{"key": "a", "value": "1"}])).await.0, 200);
    let (status, answer) = client.bulk(json!([{"key": "b", "value": "1"}, {"key": "a", "value": "2"}])).await;
    assert_eq!((status, &answer["success"], &answer["result"]), (429, &json!(false), &Value::Null));
    assert_eq!(client.call("GET", "values/a", Value::Null).await, (200, json!(1)));
    assert_eq!(client.call("GET", "values/b", Value::Null).await.0, 404);
    assert_eq!(kv.writes().all().len(), 1);

    // A key that failed was not written, so it may be tried again at once; the fault waits for an admitted request.
    kv.faults.next(1, Fault::UnsuccessfulKeys(vec!["b".into()]));
    assert_eq!(client.bulk(json!([{"key": "a", "value": "2"}])).await.0, 429);
    let pairs = json!([{"key": "b", "value": "1"}, {"key": "c", "value": "1"}]);
    assert_eq!(client.bulk(pairs).await.1["result"]["unsuccessful_keys"], json!(["b"]));
    assert_eq!(client.bulk(json!([{"key": "b", "value": "1"}])).await.0, 200);
}

#[tokio::test]
async fn a_wrong_token_is_refused_before_anything_else() {
    let (kv, client) = start(Duration::ZERO).await;
    let stranger = Client { token: "other", http: client.http.clone(), base: client.base.clone() };
    let (status, answer) = stranger.bulk(json!("not even a list")).await;
    assert_eq!((status, &answer["errors"][0]["code"]), (401, &json!(10000)));
    assert!(kv.writes().all().is_empty());
}

#[tokio::test]
async fn faults_come_in_order_and_then_it_works() {
    let (kv, client) = start(Duration::ZERO).await;
    kv.faults.next(1, Fault::RateLimited { retry_after_s: 7 });
    kv.faults.next(2, Fault::ServerError);
    kv.faults.next(1, Fault::ErrorAfterEffect);
    kv.faults.next(1, Fault::UnsuccessfulKeys(vec!["b".into()]));
    let pairs = json!([{"key": "a", "value": "1"}, {"key": "b", "value": "1"}]);

    let url = format!("{}/bulk", client.base);
    let limited = client.http.put(url).bearer_auth("token").json(&pairs).send().await.expect("an answer");
    assert_eq!(limited.status(), 429);
    assert_eq!(limited.headers()["retry-after"], "7");
    for _ in 0..2 {
        assert_eq!(client.bulk(pairs.clone()).await.0, 500);
    }
    assert!(kv.writes().all().is_empty());
    assert_eq!(client.bulk(json!([{"key": "c", "value": "1"}])).await.0, 500);
    assert_eq!(kv.writes().all().len(), 1, "the write took effect though the answer was 500");

    // The fault waits for a request that it can apply to.
    assert_eq!(client.call("GET", "keys", Value::Null).await.0, 200);
    let (status, answer) = client.bulk(pairs.clone()).await;
    assert_eq!((status, &answer["success"]), (200, &json!(true)));
    assert_eq!(answer["result"], json!({"successful_key_count": 1, "unsuccessful_keys": ["b"]}));
    assert_eq!(client.call("GET", "values/b", Value::Null).await.0, 404);
    assert_eq!(client.bulk(pairs).await.1["result"]["successful_key_count"], 2);

    let statuses: Vec<_> = kv.requests().all().iter().map(|request| request.status).collect();
    assert_eq!(statuses, [429, 500, 500, 500, 200, 200, 404, 200]);
}

/// An explorer API of the local Worker, as far as its paths go, stood in for by a second simulator without limits.
#[tokio::test]
async fn an_upstream_gets_the_same_operations() {
    let (behind, direct) = start(Duration::ZERO).await;
    let upstream = axum::Router::new().fallback({
        let base = format!("{}/accounts/acc", behind.api_url());
        let http = direct.http.clone();
        async move |request: axum::extract::Request| {
            let (parts, body) = request.into_parts();
            assert!(!parts.headers.contains_key("authorization"), "the explorer has no authentication");
            let path = parts.uri.path_and_query().expect("a path").as_str().replace("/explorer/api", "");
            let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
            let sent = http.request(parts.method, format!("{base}{path}")).bearer_auth("token").body(body);
            let answer = sent.send().await.expect("an answer");
            let status = axum::http::StatusCode::from_u16(answer.status().as_u16()).expect("a status");
            (status, answer.bytes().await.expect("a body"))
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let explorer = format!("http://{}/explorer/api", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, upstream).await });

    let options = KvApiOptions { upstream: Some(explorer), ..KvApiOptions::new("acc", "token", "ns") };
    let kv = KvApi::start(options).await.expect("a free port");
    let base = format!("{}/accounts/acc/storage/kv/namespaces/ns", kv.api_url());
    let client = Client { base, ..direct };
    let (status, answer) = client.bulk(json!([{"key": "number:+1 5/5", "value": "1"}])).await;
    assert_eq!((status, &answer["result"]["successful_key_count"]), (200, &json!(1)));
    assert_eq!(client.call("GET", "values/number%3A%2B1%205%2F5", Value::Null).await, (200, json!(1)));
    assert_eq!(client.call("GET", "values/other", Value::Null).await.1["errors"][0]["code"], 10009);
    assert_eq!(behind.writes().all()[0].key, "number:+1 5/5");
    assert_eq!(kv.writes().all()[0].key, "number:+1 5/5");
}
