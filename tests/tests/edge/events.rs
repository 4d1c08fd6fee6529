//! Events: told to the origin at once, kept when it does not take them, and delivered once it does.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::origin::{Behaviour, Received};
use crate::world::{PUBLIC, World, call_sid, refused, send, twilio_signature, unique, world, world_alone};

fn ended(call: &str) -> [(&str, &str); 4] {
    [("CallSid", call), ("CallStatus", "completed"), ("SequenceNumber", "3"), ("CallDuration", "")]
}

/// Both are the same event: equal in everything that the origin can see but the time of the signature.
fn assert_same(one: &Received, other: &Received) {
    assert_eq!(
        (&one.path_and_query, &one.content_type, &one.delivery, &one.body),
        (&other.path_and_query, &other.content_type, &other.delivery, &other.body)
    );
}

async fn tell(world: &World, path: &str, call: &str) -> (u16, String) {
    send(world.twilio(path, &ended(call))).await
}

#[tokio::test]
async fn an_event_is_told_at_once() {
    let (world, _reachable) = world().await;
    for path in ["/twilio/status", "/twilio/stream-status?from=test"] {
        let call = call_sid();
        assert_eq!(tell(world, path, &call).await, (204, String::new()));
        let received = world.origin.received(&call);
        assert_eq!(received.len(), 1);
        assert_eq!(received[0].path_and_query, path);
        assert_eq!(received[0].body, format!("CallSid={call}&CallStatus=completed&SequenceNumber=3&CallDuration="));
        let bare = path.split('?').next().expect("there is a path");
        assert_eq!(received[0].delivery, format!("twilio:{bare}:{call}:completed:3:-"));
    }
}

#[tokio::test]
async fn an_event_that_the_origin_fails_at_is_kept_and_comes_again() {
    let (world, _reachable) = world().await;
    for (path, failure) in [
        ("/twilio/status", Behaviour::Answer(503, "text/plain", "no")),
        ("/twilio/stream-status", Behaviour::Hang),
        ("/twilio/status", Behaviour::Answer(401, "text/plain", "no")),
    ] {
        let call = call_sid();
        world.origin.behave(&call, failure);
        assert_eq!(tell(world, path, &call).await.0, 204);
        world.origin.behave(&call, Behaviour::Answer(204, "", ""));
        let received = world.origin.wait_for(&call, 2).await;
        assert_same(&received[0], &received[1]);
    }
}

#[tokio::test]
async fn an_event_that_the_origin_refuses_is_refused() {
    let (world, _reachable) = world().await;
    let call = call_sid();
    world.origin.behave(&call, Behaviour::Answer(422, "application/problem+json", "{\"status\":422}"));
    assert_eq!(tell(world, "/twilio/status", &call).await, (422, "{\"status\":422}".to_owned()));
}

#[tokio::test]
async fn events_survive_an_outage() {
    let (world, outage) = world_alone().await;
    let (status, stream, vapi) = (call_sid(), call_sid(), unique());
    let message = json!({"type": "status-update", "status": "ended", "endedReason": "customer-ended-call é \"'",
        "call": {"id": vapi}});
    outage.begin().await;
    assert_eq!(tell(world, "/twilio/status?x=1", &status).await.0, 204);
    assert_eq!(tell(world, "/twilio/stream-status", &stream).await.0, 204);
    assert_eq!(send(world.vapi(&message)).await, (200, "{}".to_owned()));
    assert!(world.origin.received(&status).is_empty());
    outage.end().await;

    let received = world.origin.wait_for(&status, 1).await;
    assert_eq!(received[0].path_and_query, "/twilio/status?x=1");
    assert_eq!(received[0].content_type, "application/x-www-form-urlencoded");
    assert_eq!(received[0].body, format!("CallSid={status}&CallStatus=completed&SequenceNumber=3&CallDuration="));
    assert_eq!(received[0].delivery, format!("twilio:/twilio/status:{status}:completed:3:-"));
    world.origin.wait_for(&stream, 1).await;
    let received = world.origin.wait_for(&vapi, 1).await;
    assert_eq!(received[0].content_type, "application/json");
    assert_eq!(received[0].body, json!({ "message": message }).to_string());
    assert!(received[0].delivery.starts_with(&format!("vapi:{vapi}:status-update:")), "{received:?}");
}

fn report(call: &str, transcript: &str) -> Value {
    json!({"type": "end-of-call-report", "endedReason": "hangup", "call": {"id": call},
        "artifact": {"transcript": transcript}})
}

#[tokio::test]
async fn a_report_longer_than_a_queue_takes_is_kept_too() {
    let (world, _reachable) = world().await;
    let call = unique();
    let transcript = "AI: And your number?\nUser: Ünknown.\n".repeat(20_000);
    let message = report(&call, &transcript);
    assert!(transcript.len() > 4 * 128_000);
    world.origin.behave(&call, Behaviour::Answer(500, "text/plain", "no"));
    assert_eq!(send(world.vapi(&message)).await, (200, "{}".to_owned()));
    world.origin.behave(&call, Behaviour::Answer(200, "application/json", "{}"));
    let received = world.origin.wait_for(&call, 2).await;
    assert_same(&received[0], &received[1]);
    assert_eq!(received[1].body, json!({ "message": message }).to_string());
}

#[tokio::test]
async fn an_event_that_can_be_neither_told_nor_kept_is_the_senders_to_repeat() {
    let (world, _reachable) = world().await;
    let call = unique();
    // Noise does not get shorter by compression.
    let noise: Vec<u8> =
        std::iter::repeat_with(uuid::Uuid::new_v4).take(10_000).flat_map(uuid::Uuid::into_bytes).collect();
    let message = report(&call, &BASE64_STANDARD.encode(noise));
    world.origin.behave(&call, Behaviour::Answer(500, "text/plain", "no"));
    refused(world.vapi(&message), 503, "unavailable").await;
}

#[tokio::test]
async fn bytes_that_are_no_text_are_kept_as_they_are() {
    let (world, _reachable) = world().await;
    let call = call_sid();
    // In a field that nothing reads.
    let mut body = format!("{{\"message\":{{\"type\":\"hang\",\"call\":{{\"id\":\"{call}\"}},\"x\":\"").into_bytes();
    body.extend(b"\xff\xfe\"}}");
    world.origin.behave(&call, Behaviour::Answer(500, "text/plain", "no"));
    let request = world.vapi(&json!({})).body(body.clone());
    assert_eq!(send(request).await, (200, "{}".to_owned()));
    world.origin.behave(&call, Behaviour::Answer(200, "application/json", "{}"));
    assert_eq!(world.origin.wait_for(&call, 2).await[1].body, body);
}

#[tokio::test]
async fn a_repeated_event_has_the_same_key() {
    let (world, _reachable) = world().await;
    let call = call_sid();
    for _ in 0..2 {
        tell(world, "/twilio/status", &call).await;
    }
    let signature =
        twilio_signature(crate::world::NEXT_TWILIO_TOKEN, &format!("{PUBLIC}/twilio/status"), &ended(&call));
    let rotated = world.form("/twilio/status", &ended(&call)).header("x-twilio-signature", signature);
    assert_eq!(send(rotated).await.0, 204);
    let received = world.origin.received(&call);
    assert_eq!(received.len(), 3);
    assert_same(&received[0], &received[1]);
    assert_same(&received[0], &received[2]);
}
