//! The REST API.

use serde_json::{Value, json};
use std::time::Duration;
use tests::hosts::http_client;
use tests::vapi::Fault;

use super::receiver::{CALLER, setup};

#[tokio::test]
async fn an_assistant_is_patched_member_by_member() {
    let vapi = setup(|_| {}).await;
    let model = json!({"provider": "openai", "model": "gpt-4.1", "tools": [{"type": "endCall"}]});
    let server = json!({"url": "https://edge.tandem.test/x", "secret": "s"});
    let (status, made) = vapi.rest("POST", "/assistant", json!({"name": "A", "model": model, "server": server})).await;
    assert_eq!(status, 201);
    assert_eq!(made["isServerUrlSecretSet"], true);
    assert_eq!(made["server"], json!({"url": "https://edge.tandem.test/x"}));
    let path = format!("/assistant/{}", made["id"].as_str().expect("an id"));

    let change = json!({"model": {"provider": "openai", "model": "gpt-4.1-mini"}, "server": null});
    let (status, patched) = vapi.rest("PATCH", &path, change).await;
    assert_eq!(status, 200);
    assert_eq!(patched["name"], "A");
    assert_eq!(patched["model"], json!({"provider": "openai", "model": "gpt-4.1-mini"}));
    assert_eq!((&patched["server"], &patched["isServerUrlSecretSet"]), (&Value::Null, &Value::Null));

    assert_eq!(vapi.rest("GET", &path, Value::Null).await, (200, patched.clone()));
    assert_eq!(vapi.rest("GET", "/assistant?limit=1", Value::Null).await.1, json!([patched.clone()]));
    assert_eq!(vapi.rest("DELETE", &path, Value::Null).await, (200, patched));
    assert_eq!(vapi.rest("GET", &path, Value::Null).await.0, 404);
}

#[tokio::test]
async fn bad_bodies_are_refused_in_vapis_shape() {
    let vapi = setup(|_| {}).await;
    let (status, error) = vapi.rest("POST", "/assistant", json!({"name": "x".repeat(41), "colour": "red"})).await;
    assert_eq!((status, &error["statusCode"], &error["error"]), (400, &json!(400), &json!("Bad Request")));
    assert_eq!(error["message"].as_array().map(Vec::len), Some(2), "{error}");

    let number =
        json!({"provider": "twilio", "number": "+15550100009", "twilioAccountSid": "AC1", "twilioAuthToken": "t"});
    let without = |key: &str| {
        let mut body = number.clone();
        body.as_object_mut().expect("an object").remove(key);
        body
    };
    for key in ["provider", "number", "twilioAccountSid", "twilioAuthToken"] {
        assert_eq!(vapi.rest("POST", "/phone-number", without(key)).await.0, 400, "without {key}");
    }
    let (status, made) = vapi.rest("POST", "/phone-number", number.clone()).await;
    assert_eq!((status, &made["status"], &made["smsEnabled"]), (201, &json!("active"), &json!(true)));
    assert_eq!(vapi.rest("POST", "/phone-number", number).await.0, 400, "the same number twice");
    let path = format!("/phone-number/{}", made["id"].as_str().expect("an id"));
    assert_eq!(vapi.rest("PATCH", &path, json!({"assistantId": null})).await.0, 400, "the provider is wanted again");

    let nobody = json!({"phoneNumberId": vapi.number_id, "customer": {"number": CALLER}});
    let (status, error) = vapi.rest("POST", "/call", nobody).await;
    assert_eq!((status, error["message"].is_string()), (400, true), "{error}");
}

#[tokio::test]
async fn a_bad_key_and_ordered_faults_stop_a_request() {
    let vapi = setup(|_| {}).await;
    let client = http_client().build().expect("a client");
    let url = format!("{}/assistant", vapi.vapi.api_url());
    let answer = client.get(&url).bearer_auth("other").send().await.expect("an answer");
    assert_eq!(answer.status(), 401);

    vapi.vapi.faults.next(1, Fault::RateLimited { retry_after_s: 3 });
    vapi.vapi.faults.next(2, Fault::ServerError);
    vapi.vapi.faults.next(1, Fault::Slow(Duration::from_millis(1)));
    let answer = client.get(&url).bearer_auth("key").send().await.expect("an answer");
    assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (429, &"3".parse().expect("a value")));
    for expected in [500, 500, 200] {
        assert_eq!(vapi.rest("GET", "/assistant", Value::Null).await.0, expected);
    }
    let statuses: Vec<_> = vapi.vapi.requests().all().iter().map(|request| request.status).collect();
    assert_eq!(statuses, [401, 429, 500, 500, 200]);
}

#[tokio::test]
async fn calls_beyond_the_limit_are_made_and_refused() {
    let vapi = setup(|options| options.concurrency_limit = 1).await;
    let first = vapi.bypass().await;
    assert_eq!(first["subscriptionLimits"]["remainingConcurrentCalls"], 0);
    let second = vapi.bypass().await;
    assert_eq!(second["subscriptionLimits"]["concurrencyBlocked"], true);
    assert_eq!(second["endedReason"], "call.start.error-subscription-concurrency-limit-reached");
    assert_eq!(second["phoneCallProviderDetails"], Value::Null);

    vapi.vapi.faults.next(1, Fault::OverConcurrencyLimit);
    // The fault waits for a POST /call.
    let path = format!("/call/{}", first["id"].as_str().expect("an id"));
    assert_eq!(vapi.rest("GET", &path, Value::Null).await.1["status"], "ringing");
    let (status, error) = vapi.rest("POST", "/call", json!({})).await;
    assert_eq!((status, &error["message"]), (400, &json!("Over Concurrency Limit")));
}

#[tokio::test]
async fn calls_are_listed_renamed_and_deleted() {
    let vapi = setup(|_| {}).await;
    let (first, second) = (vapi.bypass().await, vapi.bypass().await);
    let (_, list) = vapi.rest("GET", &format!("/call?assistantId={}", vapi.assistant_id), Value::Null).await;
    let ids: Vec<_> = list.as_array().expect("a list").iter().map(|call| call["id"].clone()).collect();
    assert_eq!(ids, [second["id"].clone(), first["id"].clone()], "newest first");
    let path = format!("/call/{}", first["id"].as_str().expect("an id"));
    assert_eq!(vapi.rest("PATCH", &path, json!({"name": "Ann"})).await.1["name"], "Ann");
    assert_eq!(vapi.rest("DELETE", &path, Value::Null).await.1["name"], "Ann");
    assert_eq!(vapi.rest("GET", &path, Value::Null).await.0, 404);
}

/// What an import does to the number at Twilio.
#[tokio::test]
async fn an_import_points_the_number_at_vapi() {
    let twilio = tests::record::Record::<(String, String)>::default();
    let seen = twilio.clone();
    let router = axum::Router::new().fallback(async move |request: axum::extract::Request| {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 16).await.expect("a body");
        seen.push((parts.uri.to_string(), String::from_utf8_lossy(&body).into_owned()));
        axum::Json(json!({"incoming_phone_numbers": [{"sid": "PN1"}]}))
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });

    let vapi = setup(|options| options.twilio_api_url = Some(url)).await;
    let number =
        json!({"provider": "twilio", "number": "+15550100009", "twilioAccountSid": "AC1", "twilioAuthToken": "t"});
    assert_eq!(vapi.rest("POST", "/phone-number", number).await.0, 201);
    let seen = twilio.all();
    assert_eq!(seen[0].0, "/2010-04-01/Accounts/AC1/IncomingPhoneNumbers.json?PhoneNumber=%2B15550100009");
    assert_eq!(seen[1].0, "/2010-04-01/Accounts/AC1/IncomingPhoneNumbers/PN1.json");
    let form = &seen[1].1;
    assert!(form.contains("VoiceUrl=https%3A%2F%2Fapi.vapi.ai%2Ftwilio%2Finbound_call"), "{form}");
    assert!(form.contains("StatusCallback=https%3A%2F%2Fapi.vapi.ai%2Ftwilio%2Fstatus"), "{form}");
}
