//! Events that the origin never takes: they end as letters in the edge's store, nothing of them lost.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use shared::dead_letter::{DeadLetter, KEEP_SECONDS, KEY_PREFIX};
use tests::stack::edge::{Edge, KV_NAMESPACE_ID};
use tests::stack::ports;

use crate::origin::{Behaviour, NEVER, Origin, now};
use crate::world::{PUBLIC, TWILIO_TOKEN, VAPI_SECRET, call_sid, client, options, send, twilio_signature, unique};

/// How often the store is asked for what has to come.
const POLL: Duration = Duration::from_millis(200);

/// The letters in the store by their keys, once there are so many: when each is forgotten, and what it says.
async fn letters(edge: &Edge, count: usize) -> BTreeMap<String, (u64, DeadLetter<'static>)> {
    let namespace = format!("{}/storage/kv/namespaces/{KV_NAMESPACE_ID}", edge.kv_api_url());
    let get = async |path: &str| {
        let response = client().get(format!("{namespace}/{path}")).send().await.expect("the store is there");
        response.text().await.expect("the answer is complete")
    };
    let search = async {
        loop {
            let keys: Value = serde_json::from_str(&get(&format!("keys?prefix={KEY_PREFIX}")).await).expect("JSON");
            let keys = keys["result"].as_array().expect("a list of keys").clone();
            if keys.len() >= count {
                return keys;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let keys = tokio::time::timeout(NEVER, search).await.unwrap_or_else(|_| panic!("no letters:\n{}", edge.log()));
    let mut letters = BTreeMap::new();
    for key in keys {
        let name = key["name"].as_str().expect("a key has a name").to_owned();
        let text = get(&format!("values/{name}")).await;
        let letter = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        letters.insert(name, (key["expiration"].as_u64().expect("a letter is forgotten once"), letter));
    }
    letters
}

#[tokio::test]
async fn an_event_that_never_passes_is_left_as_a_letter() {
    let listener = ports::listen().await.expect("a port is free");
    let origin_url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let origin = Origin::serve(listener);
    let edge = Edge::start_impatient(options(&origin_url), 1).await.expect("the Worker starts");
    let url = |path: &str| format!("{}{path}", edge.base_url());
    let fails = Behaviour::Answer(503, "text/plain", "no");

    let call = call_sid();
    origin.behave(&call, fails.clone());
    let form = [("CallSid", call.as_str()), ("CallStatus", "completed"), ("CallerName", "Zoë \"Z\"")];
    let signature = twilio_signature(TWILIO_TOKEN, &format!("{PUBLIC}/twilio/status?x=1"), &form);
    let status = client().post(url("/twilio/status?x=1")).form(&form).header("x-twilio-signature", signature);
    assert_eq!(send(status).await.0, 204);

    // Neither short enough for a queue nor a text.
    let report = unique();
    origin.behave(&report, fails.clone());
    let mut body = format!("{{\"message\":{{\"type\":\"end-of-call-report\",\"call\":{{\"id\":\"{report}\"}},\"x\":\"");
    body.push_str(&"a".repeat(300_000));
    let body = [body.as_bytes(), b"\xff\xfe\"}}"].concat();
    let vapi = || client().post(url("/api/vapi/webhook")).header("x-vapi-secret", VAPI_SECRET);
    assert_eq!(send(vapi().header("content-type", "application/json").body(body.clone())).await.0, 200);

    // One that the origin could not take at first, and then would not.
    let refused = unique();
    origin.behave(&refused, fails);
    let message = json!({"message": {"type": "hang", "call": {"id": refused}}});
    assert_eq!(send(vapi().json(&message)).await.0, 200);
    origin.behave(&refused, Behaviour::Answer(422, "application/problem+json", "{}"));

    let letters = letters(&edge, 3).await;
    assert_eq!(letters.len(), 3, "{letters:?}");
    let of = |id: &str| {
        let found = letters.iter().find(|(_, (_, letter))| {
            letter.body.bytes().is_some_and(|body| String::from_utf8_lossy(&body).contains(id))
        });
        let (key, (expiration, letter)) = found.unwrap_or_else(|| panic!("no letter about {id}: {letters:?}"));
        assert_eq!(*key, letter.key());
        assert!(letter.enqueued_at.abs_diff(now() * 1000) < NEVER.as_secs() * 1000, "{letter:?}");
        let kept = expiration.abs_diff(now());
        assert!(kept.abs_diff(u64::from(KEEP_SECONDS)) < NEVER.as_secs(), "{kept} s");
        letter
    };
    let letter = of(&call);
    assert_eq!(
        (letter.path.as_ref(), letter.content_type.as_ref()),
        ("/twilio/status?x=1", "application/x-www-form-urlencoded")
    );
    assert_eq!(letter.delivery, format!("twilio:/twilio/status:{call}:completed:-:-"));
    let sent = origin.received(&call);
    assert_eq!(letter.body.bytes().as_deref(), Some(&*sent[0].body));
    assert_eq!(sent.len(), 3, "told at once, and by the consumer twice");

    let letter = of(&report);
    assert_eq!((letter.path.as_ref(), letter.content_type.as_ref()), ("/api/vapi/webhook", "application/json"));
    assert!(letter.body.bytes().as_deref() == Some(&*body), "the body is the one that was received");

    let letter = of(&refused);
    assert_eq!((origin.received(&refused).len(), letter.attempts), (2, 2), "the refusal was final");
    assert_eq!(letter.status, Some(422), "it says why");
    edge.stop().await.expect("it ends");
}
