//! What does not come in: unsigned, of the wrong kind, too long, nowhere. The origin hears of none of it.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::origin::NEVER;
use crate::world::{
    NEXT_TWILIO_TOKEN, PUBLIC, SUB_ACCOUNT, SUB_TOKEN, TWILIO_TOKEN, VAPI_SECRET, World, call_sid, client, incoming,
    number, refused, send, text, twilio_signature, unique, world,
};

#[tokio::test]
async fn twilio_must_have_signed_this_very_request() {
    let (world, _reachable) = world().await;
    let (call, to) = (call_sid(), number());
    let params = incoming(&call, &to);
    let voice = format!("{PUBLIC}/twilio/voice");
    let good = twilio_signature(TWILIO_TOKEN, &voice, &params);
    for (path, signature) in [
        ("/twilio/voice", None),
        ("/twilio/voice", Some(String::new())),
        ("/twilio/voice", Some("not base64!".to_owned())),
        ("/twilio/voice", Some(twilio_signature("", &voice, &params))),
        ("/twilio/voice", Some(twilio_signature("another", &voice, &params))),
        ("/twilio/voice", Some(twilio_signature(TWILIO_TOKEN, &world.url("/twilio/voice"), &params))),
        ("/twilio/voice", Some(twilio_signature(TWILIO_TOKEN, &voice, &params[1..]))),
        ("/twilio/voice?attempt=2", Some(good.clone())),
        ("/twilio/resume", Some(good.clone())),
        ("/twilio/status", Some(good.clone())),
        ("/twilio/stream-status", Some(good.clone())),
    ] {
        let mut request = world.form(path, &params);
        if let Some(signature) = &signature {
            request = request.header("x-twilio-signature", signature);
        }
        refused(request, 403, "signature_invalid").await;
    }
    // An algorithm that nobody knows is no excuse to fall back to one that matches.
    let request = world.form("/twilio/voice", &params).header("x-twilio-signature", &good);
    let request = request.header("x-twilio-webhooks-signature-settings", "key=k,algorithm=HMAC_MD5");
    refused(request, 403, "signature_invalid").await;
    assert!(world.origin.received(&call).is_empty());

    let rotated = twilio_signature(NEXT_TWILIO_TOKEN, &voice, &params);
    send(world.form("/twilio/voice", &params).header("x-twilio-signature", rotated)).await;
    assert_eq!(world.origin.received(&call).len(), 1);
}

#[tokio::test]
async fn a_sub_accounts_token_proves_its_own_webhooks_only() {
    let (world, _reachable) = world().await;
    let other = SUB_ACCOUNT.replace("AC5", "AC6");
    for (account, token, is_its) in [
        (Some(SUB_ACCOUNT), SUB_TOKEN, true),
        // A sub-account's webhooks are signed with its own token, but the main one is the owner of all.
        (Some(SUB_ACCOUNT), TWILIO_TOKEN, true),
        (Some(&*other), SUB_TOKEN, false),
        (None, SUB_TOKEN, false),
        (Some(SUB_ACCOUNT), &*format!("{SUB_ACCOUNT}:{SUB_TOKEN}"), false),
    ] {
        let call = call_sid();
        let mut params = vec![("CallSid", call.as_str()), ("CallStatus", "completed")];
        params.extend(account.map(|account| ("AccountSid", account)));
        let signature = twilio_signature(token, &format!("{PUBLIC}/twilio/status"), &params);
        let request = world.form("/twilio/status", &params).header("x-twilio-signature", signature);
        if is_its {
            assert_eq!(send(request).await.0, 204, "{account:?}");
        } else {
            refused(request, 403, "signature_invalid").await;
        }
        assert_eq!(world.origin.received(&call).len(), usize::from(is_its), "{account:?}");
    }
}

#[tokio::test]
async fn vapi_must_prove_itself() {
    let (world, _reachable) = world().await;
    let call = unique();
    let message = json!({"message": {"type": "hang", "call": {"id": call}}});
    let request = || world.json("/api/vapi/webhook", &message);
    let headers = refused(request(), 401, "unauthorized").await;
    assert_eq!(headers["www-authenticate"], "Bearer");
    refused(request().header("x-vapi-secret", ""), 401, "unauthorized").await;
    refused(request().header("x-vapi-secret", "another"), 401, "unauthorized").await;
    refused(request().bearer_auth("another"), 401, "unauthorized").await;
    refused(request().header("x-signature", "00").header("x-timestamp", "1"), 401, "unauthorized").await;
    assert!(world.origin.received(&call).is_empty());
    assert_eq!(send(request().bearer_auth(VAPI_SECRET)).await.0, 200);
}

#[tokio::test]
async fn bodies_of_the_wrong_kind() {
    let (world, _reachable) = world().await;
    let voice = |body: &str| client().post(world.url("/twilio/voice")).body(body.to_owned());
    let form = "application/x-www-form-urlencoded";
    refused(voice("CallSid=CA1"), 415, "unsupported_media_type").await;
    refused(voice("{}").header("content-type", "text/plain"), 415, "unsupported_media_type").await;
    let signed = |body: &str| voice(body).header("content-type", form).header("x-twilio-signature", "AAAA");
    refused(signed("CallSid=%FF"), 400, "malformed_form").await;
    let no_call = twilio_signature(TWILIO_TOKEN, &format!("{PUBLIC}/twilio/voice"), &[("To", "+15550100")]);
    let no_call = world.form("/twilio/voice", &[("To", "+15550100")]).header("x-twilio-signature", no_call);
    refused(no_call, 400, "malformed_form").await;
    refused(voice(&"a".repeat(1024 * 1024 + 1)).header("content-type", form), 413, "body_too_large").await;

    let vapi = |body: &str| client().post(world.url("/api/vapi/webhook")).body(body.to_owned());
    refused(vapi("{}").header("content-type", form), 415, "unsupported_media_type").await;
    let vapi = |body: &str| {
        vapi(body).header("content-type", "application/json; charset=utf-8").header("x-vapi-secret", VAPI_SECRET)
    };
    for body in ["", "{", "[]", "{}", "{\"message\":{}}", "{\"message\":{\"type\":7}}"] {
        refused(vapi(body), 400, "malformed_message").await;
    }
    refused(vapi(&"a".repeat(1024 * 1024 + 1)), 413, "body_too_large").await;
    refused(vapi(&"a".repeat(1024 * 1024)), 400, "malformed_message").await;
}

#[tokio::test]
async fn twilios_json_is_proven_and_then_no_call() {
    let (world, _reachable) = world().await;
    let call = call_sid();
    let body = json!({ "CallSid": call, "CallStatus": "completed" }).to_string();
    let hash = shared::hmac::to_hex(&<sha2::Sha256 as sha2::Digest>::digest(&body));
    let send = |path: &str, token: &str, body: &str| {
        let signature = twilio_signature(token, &format!("{PUBLIC}{path}"), &[]);
        let request = client().post(world.url(path)).header("content-type", "application/json").body(body.to_owned());
        request.header("x-twilio-signature", signature)
    };
    let path = format!("/twilio/status?bodySHA256={hash}");
    refused(send(&path, TWILIO_TOKEN, &body), 415, "unsupported_media_type").await;
    refused(send(&path, TWILIO_TOKEN, "{}"), 403, "signature_invalid").await;
    refused(send(&path, "another", &body), 403, "signature_invalid").await;
    refused(send("/twilio/status", TWILIO_TOKEN, &body), 403, "signature_invalid").await;
    assert!(world.origin.received(&call).is_empty());
}

#[tokio::test]
async fn a_source_that_is_refused_too_often_is_limited_and_a_genuine_sender_never() {
    let (world, _reachable) = world().await;
    let (call, to) = (call_sid(), number());
    // From the documentation's network, so that no other test of this Worker counts along.
    let flood = "192.0.2.7";
    let forged = |from: &str| world.form("/twilio/voice", &incoming(&call, &to)).header("cf-connecting-ip", from);
    let limited = async {
        loop {
            // With a signature that has to be checked, or without any: both count.
            for request in [forged(flood).header("x-twilio-signature", "AAAA"), forged(flood)] {
                let response = request.send().await.expect("the Worker answers");
                if response.status() == 429 {
                    return response;
                }
                assert_eq!(response.status(), 403);
            }
        }
    };
    let limited = tokio::time::timeout(NEVER, limited).await.expect("the flood is limited");
    assert_eq!(limited.headers()["content-type"], "application/problem+json");
    assert_eq!(limited.headers()["retry-after"], "60");
    let problem: Value = limited.json().await.expect("it is JSON");
    assert_eq!((&problem["status"], &problem["code"]), (&json!(429), &json!("too_many_refusals")));

    refused(forged("198.51.100.7"), 403, "signature_invalid").await;
    let genuine = world.twilio("/twilio/voice", &incoming(&call, &to)).header("cf-connecting-ip", flood);
    assert_eq!(send(genuine).await.0, 200);
    assert_eq!(world.origin.received(&call).len(), 1);
}

#[tokio::test]
async fn a_body_without_a_length_is_bounded_too() {
    let (world, _reachable) = world().await;
    assert!(chunked(world, 1024 * 1024 + 1).await.starts_with("HTTP/1.1 413 "));
    // Of a good length it is read, and then it is not signed.
    assert!(chunked(world, 1000).await.starts_with("HTTP/1.1 403 "));
}

/// Posts a form of this length in chunks, and gives the answer's head.
async fn chunked(world: &World, length: usize) -> String {
    let exchange = async {
        let mut stream = TcpStream::connect(world.address()).await?;
        let head = format!(
            "POST /twilio/voice HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\
             content-type: application/x-www-form-urlencoded\r\nx-twilio-signature: AAAA\r\n\r\n{length:x}\r\n",
            world.address()
        );
        let (mut reader, mut writer) = stream.split();
        let write = async {
            writer.write_all(head.as_bytes()).await?;
            writer.write_all(&vec![b'a'; length]).await?;
            writer.write_all(b"\r\n0\r\n\r\n").await
        };
        let mut answer = vec![0; 64];
        // It may answer, and stop reading, before it has all.
        let (_, read) = tokio::join!(write, reader.read_exact(&mut answer));
        read?;
        std::io::Result::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    tokio::time::timeout(NEVER, exchange).await.expect("the Worker answers").expect("it answers in HTTP")
}

#[tokio::test]
async fn paths_and_methods() {
    let (world, _reachable) = world().await;
    for path in ["/", "/twilio", "/twilio/voice/", "/media-stream", "/api/agents", "/TWILIO/VOICE"] {
        refused(client().post(world.url(path)), 404, "not_found").await;
        refused(client().get(world.url(path)), 404, "not_found").await;
    }
    for path in ["/twilio/voice", "/twilio/resume", "/twilio/status", "/twilio/stream-status", "/api/vapi/webhook"] {
        let headers = refused(client().get(world.url(path)), 405, "method_not_allowed").await;
        assert_eq!(headers["allow"], "POST");
    }
    assert_eq!(refused(client().post(world.url("/healthz")), 405, "method_not_allowed").await["allow"], "GET");
}

#[tokio::test]
async fn it_says_that_it_lives_and_which_version_it_is() {
    let (world, _reachable) = world().await;
    let response = client().get(world.url("/healthz")).send().await.expect("the Worker answers");
    assert_eq!(response.headers()["content-type"], "application/json");
    let (status, body) = text(response).await;
    let body: Value = serde_json::from_str(&body).expect("it is JSON");
    assert_eq!((status, &body["status"]), (200, &json!("ok")));
    assert!(body["version"].as_str().is_some_and(|version| !version.is_empty()), "{body}");
}
