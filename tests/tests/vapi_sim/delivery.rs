//! Sending server messages: proof, limits, retries, and what counts as an answer.

use std::collections::BTreeMap;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use tests::vapi::{Auth, Backoff, Facts, History, Server, messages};
use time::OffsetDateTime;

use super::receiver::{CALLER, Got, NUMBER, PUBLIC_URL, setup};

fn facts() -> Facts {
    Facts::inbound("a1", NUMBER, CALLER)
}

fn header(got: &Got, name: &str) -> String {
    String::from_utf8_lossy(got.headers.get(name).expect("the header is there").as_bytes()).into_owned()
}

/// `x-signature` over `{timestamp}.{body}`, recomputed from what arrived.
pub(super) fn is_signed(got: &Got, secret: &str) -> bool {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any key");
    mac.update(header(got, "x-timestamp").as_bytes());
    mac.update(b".");
    mac.update(&got.body);
    let hex: Vec<_> = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    hex.concat() == header(got, "x-signature")
}

#[tokio::test]
async fn each_style_of_proof_arrives_with_the_public_host() {
    let vapi = setup(|_| {}).await;
    let now = OffsetDateTime::now_utc();
    assert_eq!(vapi.vapi.send(messages::hang(&facts(), now)).await.status, 200);
    for auth in [Auth::Secret("s".into()), Auth::bearer("t")] {
        vapi.vapi.send_to(&Server::new(PUBLIC_URL, auth), messages::hang(&facts(), now)).await;
    }
    let mut own = Server::new(PUBLIC_URL, Auth::bearer("t"));
    own.headers = vec![("authorization".into(), "Basic x".into())];
    vapi.vapi.send_to(&own, messages::hang(&facts(), now)).await;

    let got = vapi.receiver.got();
    assert!(is_signed(&got[0], "secret"));
    assert!(!is_signed(&got[0], "other"));
    assert_eq!(header(&got[0], "host"), "edge.tandem.test");
    assert_eq!(header(&got[1], "x-vapi-secret"), "s");
    assert_eq!(header(&got[2], "authorization"), "Bearer t");
    assert_eq!(header(&got[3], "authorization"), "Basic x", "own headers win over the credential");
}

#[tokio::test]
async fn a_tool_answer_has_to_be_right_in_every_member() {
    let vapi = setup(|_| {}).await;
    let now = OffsetDateTime::now_utc();
    let call = || messages::tool_call(&facts(), now, "get_slots", json!({}));
    assert_eq!(vapi.vapi.send(call()).await.status, 200);
    assert!(vapi.vapi.deliveries().all()[0].accepted());

    let bad = [
        (500, json!({"results": []})),
        (200, json!({})),
        (200, json!({"results": []})),
        (200, json!({"results": [{"toolCallId": "another", "name": "get_slots", "result": "09:00"}]})),
        (200, json!("not an object")),
    ];
    for (status, body) in bad {
        vapi.receiver.answer(status, body.clone());
        vapi.vapi.send(call()).await;
        let delivery = vapi.vapi.deliveries().all().pop().expect("it was sent");
        assert!(!delivery.accepted(), "{status} {body}");
        assert!(delivery.fault.is_some());
    }
    // Nobody looks at the body of an answer to an event.
    vapi.receiver.answer(204, json!("whatever"));
    vapi.vapi.send(messages::hang(&facts(), now)).await;
    assert!(vapi.vapi.deliveries().all().pop().expect("it was sent").accepted());
}

#[tokio::test]
async fn nothing_is_retried_without_a_plan() {
    let vapi = setup(|_| {}).await;
    vapi.receiver.answer(503, Value::Null);
    let answer = vapi.vapi.send(messages::hang(&facts(), OffsetDateTime::now_utc())).await;
    assert_eq!(answer.status, 503);
    assert_eq!(vapi.receiver.got().len(), 1);
}

#[tokio::test]
async fn a_plan_retries_until_success_or_an_excluded_status() {
    let vapi = setup(|_| {}).await;
    let plan = Backoff { exponential: true, max_retries: 3, base_delay: Duration::ZERO, excluded: vec![413] };
    let server = Server { backoff: Some(plan), ..Server::new(PUBLIC_URL, Auth::hmac("secret")) };
    let now = OffsetDateTime::now_utc();
    let history = History::new(now, None);
    let report = messages::end_of_call_report(&facts(), now, &history, now, "customer-ended-call");

    vapi.receiver.answer(500, Value::Null);
    vapi.receiver.answer(429, Value::Null);
    assert_eq!(vapi.vapi.send_to(&server, report.clone()).await.status, 200);
    let got = vapi.receiver.got();
    assert_eq!(got.len(), 3);
    assert!(got.iter().all(|each| is_signed(each, "secret")));
    assert_ne!(got[0].body, got[1].body, "URLs are signed afresh, so bodies differ");

    vapi.receiver.answer(413, Value::Null);
    assert_eq!(vapi.vapi.send_to(&server, report.clone()).await.status, 413);
    for _ in 0..4 {
        vapi.receiver.answer(500, Value::Null);
    }
    assert_eq!(vapi.vapi.send_to(&server, report).await.status, 500);
    let attempts: Vec<_> = vapi.vapi.deliveries().all().iter().map(|delivery| delivery.attempts.len()).collect();
    assert_eq!(attempts, [3, 1, 4]);
}

#[tokio::test]
async fn silence_and_unknown_hosts_are_no_answer() {
    let vapi = setup(|_| {}).await;
    let now = OffsetDateTime::now_utc();
    vapi.receiver.answer(0, Value::Null);
    let impatient = Server { timeout: Duration::from_millis(50), ..Server::new(PUBLIC_URL, Auth::None) };
    let answer = vapi.vapi.send_to(&impatient, messages::tool_call(&facts(), now, "get_slots", json!({}))).await;
    assert_eq!((answer.status, answer.body), (0, json!("")));
    let nowhere = Server::new("https://nowhere.tandem.test/x", Auth::None);
    assert_eq!(vapi.vapi.send_to(&nowhere, messages::hang(&facts(), now)).await.status, 0);
    let failures: Vec<_> =
        vapi.vapi.deliveries().all().iter().map(|delivery| delivery.attempts[0].failure.clone()).collect();
    assert_eq!(failures[0].as_deref(), Some("timeout of 50ms exceeded"));
    assert!(failures[1].as_deref().is_some_and(|failure| failure.contains("nowhere.tandem.test")));
}

#[tokio::test]
async fn the_server_of_the_assistant_brings_its_own_proof() {
    let credentials = BTreeMap::from([("c1".to_owned(), Auth::bearer("assistant's"))]);
    let vapi = setup(|options| options.credentials = credentials).await;
    let server = json!({"url": PUBLIC_URL, "credentialId": "c1"});
    let id = vapi.vapi.add_assistant(json!({"name": "B", "server": server}));
    let now = OffsetDateTime::now_utc();
    vapi.vapi.send(messages::hang(&Facts::inbound(&id, NUMBER, CALLER), now)).await;
    assert_eq!(header(&vapi.receiver.got()[0], "authorization"), "Bearer assistant's");
}
