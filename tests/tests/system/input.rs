//! Bad input at the origin's own webhooks: a clear refusal, and nothing that anybody could find afterwards.

use reqwest::RequestBuilder;
use serde_json::{Value, json};
use shared::hop::{self, SignedRequest};
use tests::tandem::{EDGE_ORIGIN_SECRET, ORIGIN_URL, VAPI_SECRET};
use tests::vapi::{Facts, messages};
use time::OffsetDateTime;

use crate::world::{Spec, World, incoming, is_bridged, new_call_sid, send, unix_now};

const FORM: &str = "application/x-www-form-urlencoded";
const TWILIO_PATHS: [&str; 4] = ["/twilio/voice", "/twilio/resume", "/twilio/status", "/twilio/stream-status"];
const VAPI_PATH: &str = "/api/vapi/webhook";

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_and_changes_nothing() {
    let world = World::default().await;
    let [agent] = world.agents([Spec::on_vapi("none")]).await;
    let sid = new_call_sid();
    let params = incoming(&sid, &agent.number, "ringing");
    let before = world.rows().await;

    for path in TWILIO_PATHS {
        refused(post(&world, path, FORM, b"CallSid=CA1&To=%2B15550100".to_vec()), 403, "invalid_signature").await;
        let other = world.twilio(ORIGIN_URL, "/twilio/other", &params).build().expect("a request");
        let signature = other.headers()["x-twilio-signature"].clone();
        let moved = post(&world, path, FORM, form(&params)).header("x-twilio-signature", signature);
        refused(moved, 403, "invalid_signature").await;

        let body = form(&params);
        refused(edge_signed(&world, path, &body, unix_now() - 301), 403, "invalid_signature").await;
        refused(edge_signed(&world, path, &body, unix_now() + 400), 403, "invalid_signature").await;
        let changed = [&body[..], b"&x=y"].concat();
        let stale = edge_signed(&world, path, &body, unix_now()).body(changed);
        refused(stale, 403, "invalid_signature").await;

        refused(edge_signed(&world, path, b"To=%FF&CallSid=CA1", unix_now()), 400, "invalid_request").await;
        refused(world.twilio(ORIGIN_URL, path, &[("To", "+15550100")]), 400, "invalid_request").await;
        refused(world.twilio(ORIGIN_URL, path, &[("CallSid", "'; drop table calls")]), 400, "invalid_request").await;
        refused(post(&world, path, "application/json", b"{}".to_vec()), 415, "unsupported_media_type").await;
        refused(post(&world, path, FORM, vec![b'a'; 1024 * 1024 + 1]), 413, "body_too_large").await;
        let get = world.client.get(world.tandem.api(path));
        refused(get, 405, "method_not_allowed").await;
    }

    let facts = Facts::inbound(&agent.assistant, &agent.number, "+15550198");
    let message = messages::status_update(&facts, OffsetDateTime::now_utc(), "in-progress").to_string().into_bytes();
    let vapi = |body: Vec<u8>| post(&world, VAPI_PATH, "application/json", body);
    let authentic = |body: Vec<u8>| vapi(body).header("x-vapi-secret", VAPI_SECRET);
    refused(vapi(message.clone()), 401, "invalid_signature").await;
    refused(vapi(message.clone()).header("x-vapi-secret", "guessed"), 401, "invalid_signature").await;
    refused(vapi(message.clone()).header("authorization", "Bearer "), 401, "invalid_signature").await;
    for body in ["", "{", "[]", "{}", r#"{"message":{}}"#, r#"{"message":{"type":1}}"#, "\u{0}"] {
        refused(authentic(body.into()), 400, "invalid_request").await;
    }
    let plain = post(&world, VAPI_PATH, "text/plain", message.clone()).header("x-vapi-secret", VAPI_SECRET);
    refused(plain, 415, "unsupported_media_type").await;
    refused(authentic(vec![b' '; 1024 * 1024 + 1]), 413, "body_too_large").await;
    refused(world.client.put(world.tandem.api(VAPI_PATH)), 405, "method_not_allowed").await;
    refused(world.client.post(world.tandem.api("/twilio/nothing")), 404, "not_found").await;

    assert_eq!(world.rows().await, before);
    refusals_are_counted(&world).await;
    what_is_good_still_passes(&world, &params, &message).await;
}

async fn refusals_are_counted(world: &World) {
    let (_, metrics) = send(world.client.get(world.tandem.api("/metrics"))).await;
    let routes = TWILIO_PATHS.into_iter().chain([VAPI_PATH]);
    let counted = |route: &str, method: &str, status: u16| {
        let line = format!(r#"tandem_http_requests_total{{method="{method}",route="{route}",status="{status}"}} "#);
        metrics.lines().find_map(|found| found.strip_prefix(&line)?.parse::<u64>().ok()).unwrap_or_default()
    };
    for route in routes {
        let (unsigned, wrong_method) = if route == VAPI_PATH { (401, "PUT") } else { (403, "GET") };
        let refused = [unsigned, 400, 413, 415].map(|status| counted(route, "POST", status));
        assert!(refused.iter().all(|count| *count > 0), "{route}: {refused:?}");
        assert!(counted(route, wrong_method, 405) > 0, "{route}");
    }
}

/// The same requests, well made: so it was not for another reason that they were refused.
async fn what_is_good_still_passes(world: &World, params: &[(&str, &str)], message: &[u8]) {
    let (status, twiml) = send(world.twilio(ORIGIN_URL, "/twilio/voice", params)).await;
    assert!(status == 200 && twiml.contains("cannot take your call") && !is_bridged(&twiml), "{status} {twiml}");
    let (status, twiml) = send(edge_signed(world, "/twilio/voice?attempt=1", &form(params), unix_now())).await;
    assert!(status == 200 && twiml.contains("cannot take your call"), "{status} {twiml}");
    // Longer than any report of a long call.
    let mut long: Value = serde_json::from_slice(message).expect("it is JSON");
    long["message"]["artifact"] = json!({ "transcript": "x".repeat(1000 * 1024) });
    let body = long.to_string().into_bytes();
    let sent = post(world, VAPI_PATH, "application/json", body).header("x-vapi-secret", VAPI_SECRET);
    assert_eq!(send(sent).await, (200, "{}".to_owned()));
}

fn post(world: &World, path: &str, content_type: &str, body: Vec<u8>) -> RequestBuilder {
    world.client.post(world.tandem.api(path)).header("content-type", content_type).body(body)
}

fn form(params: &[(&str, &str)]) -> Vec<u8> {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(params).finish().into_bytes()
}

fn edge_signed(world: &World, path: &str, body: &[u8], at: u64) -> RequestBuilder {
    let signed = SignedRequest { method: "POST", path_and_query: path, body };
    post(world, path, FORM, body.to_vec())
        .header("tandem-signature", hop::sign(EDGE_ORIGIN_SECRET, at, signed))
        .header("tandem-delivery", "test:1")
}

async fn refused(request: RequestBuilder, status: u16, code: &str) {
    let request = request.build().expect("a request");
    let what = format!("{} {}", request.method(), request.url().path());
    let client = tests::hosts::http_client().build().expect("the options fit");
    let response = client.execute(request).await.expect("the origin answers");
    let content_type = response.headers().get("content-type").cloned();
    let answered = response.status().as_u16();
    let body = response.text().await.expect("the answer is complete");
    let problem: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{what}: {answered} {body}"));
    assert_eq!(
        (answered, &problem["code"], &problem["status"]),
        (status, &json!(code), &json!(status)),
        "{what} {body}"
    );
    assert_eq!(content_type.expect("it has a type"), "application/problem+json", "{what}");
    assert!(problem["title"].is_string() && problem["detail"].is_string() && problem["type"].is_string(), "{body}");
}
