//! The door, and what goes wrong on command.

use std::time::Duration;

use serde_json::{Value, json};
use tests::openai::{ApiError, Closed, Fault, Realtime, RealtimeOptions};
use tokio::time::timeout;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Request;

use crate::client::{Client, LIMIT, MODEL, quick, request, telephone};

async fn refusal(request: Request) -> (u16, Value) {
    match connect_async(request).await {
        Err(Error::Http(response)) => {
            let status = response.status().as_u16();
            let body = response.into_body().unwrap_or_default();
            (status, serde_json::from_slice(&body).unwrap_or_default())
        }
        other => panic!("the handshake must be refused, but: {other:?}"),
    }
}

#[tokio::test]
async fn a_session_needs_a_key_and_a_model() {
    let realtime = Realtime::start(quick()).await.expect("it starts");
    let good = format!("?model={MODEL}");
    let bare = format!("{}{good}", realtime.url()).into_client_request().expect("a valid address");
    let (status, body) = refusal(bare).await;
    assert_eq!((status, &body["error"]["message"]), (401, &json!("Missing bearer or basic authentication in header")));

    let mut wrong = request(&realtime, &good);
    wrong.headers_mut().insert("authorization", "Bearer sk-proj-wrong-key-9876".parse().expect("a header"));
    let (status, body) = refusal(wrong).await;
    assert_eq!((status, &body["error"]["code"]), (401, &json!("invalid_api_key")));
    let message = body["error"]["message"].as_str().expect("text");
    assert!(message.starts_with("Incorrect API key provided: sk-proj-**********9876."), "{message}");

    for query in ["", "?model=", "?intent=transcription", &format!("{good}&call_id=rtc_1")] {
        assert_eq!(refusal(request(&realtime, query)).await.0, 400, "{query}");
    }
    let elsewhere = request(&realtime, &format!("/sessions{good}"));
    assert_eq!(refusal(elsewhere).await.0, 404);
    assert_eq!(realtime.refusals().len(), 7);
    assert!(realtime.sessions().is_empty());
}

#[tokio::test]
async fn the_beta_header_opens_the_socket_only_to_close_it() {
    let realtime = Realtime::start(quick()).await.expect("it starts");
    let mut request = request(&realtime, &format!("?model={MODEL}"));
    request.headers_mut().insert("openai-beta", "realtime=v1".parse().expect("a header"));
    let (socket, _) = connect_async(request).await.expect("the socket opens");
    let mut client = Client::over(socket);
    let error = client.until("error").await;
    assert_eq!(error["error"]["code"], "beta_api_shape_disabled");
    let closed = client.until_closed().await.expect("a close frame");
    assert_eq!(closed, (4000, "invalid_request_error.beta_api_shape_disabled".to_owned()));
}

#[tokio::test]
async fn the_first_frame_is_a_session_of_24_khz_pcm_with_server_vad() {
    let realtime = Realtime::start(quick()).await.expect("it starts");
    let mut client = Client::connect(&realtime).await;
    client.until("conversation.created").await;
    assert_eq!(client.kinds(), ["session.created", "conversation.created"]);
    let session = &client.events[0]["session"];
    assert_eq!(session["model"], MODEL);
    for side in ["input", "output"] {
        assert_eq!(session["audio"][side]["format"], json!({"type": "audio/pcm", "rate": 24000}));
    }
    assert_eq!(session["audio"]["input"]["turn_detection"]["type"], "server_vad");
}

#[tokio::test]
async fn handshakes_are_refused_on_command() {
    let realtime = Realtime::start(quick()).await.expect("it starts");
    for status in [401, 429, 500, 503] {
        realtime.next_connection(Fault::Refuse(status));
    }
    for status in [401, 429, 500, 503] {
        assert_eq!(refusal(request(&realtime, &format!("?model={MODEL}"))).await.0, status);
    }
    Client::connect(&realtime).await.until("session.created").await;
}

#[tokio::test]
async fn silence_on_command() {
    let realtime = Realtime::start(quick()).await.expect("it starts");
    let query = format!("?model={MODEL}");
    let moment = Duration::from_millis(100);
    realtime.next_connection(Fault::NoHandshake);
    assert!(timeout(moment, connect_async(request(&realtime, &query))).await.is_err());

    realtime.next_connection(Fault::Silent);
    let mut silent = Client::connect(&realtime).await;
    assert!(timeout(moment, silent.until("session.created")).await.is_err());

    let mut stalled = Client::connect(&realtime).await;
    stalled.until("conversation.created").await;
    realtime.session(0).stall();
    stalled.send(json!({"type": "response.create"})).await;
    assert!(timeout(moment, stalled.until("response.created")).await.is_err());
}

#[tokio::test]
async fn updates_are_refused_or_late_on_command() {
    let realtime = Realtime::start(quick()).await.expect("it starts");
    realtime.next_connection(Fault::RefuseUpdates);
    let mut client = Client::connect(&realtime).await;
    client.refused(json!({"type": "session.update", "session": telephone()})).await;
    let format = realtime.session(0).read(|session| session.config()["audio"]["input"]["format"].clone());
    assert_eq!(format["type"], "audio/pcm");

    realtime.next_connection(Fault::DelayUpdates(Duration::from_millis(500)));
    let mut client = Client::connect(&realtime).await;
    client.send(json!({"type": "session.update", "session": telephone()})).await;
    // Audio that does not wait for the confirmation is misread.
    client.append(&[0xff; 160]).await;
    client.until("session.updated").await;
    assert_eq!(realtime.session(1).read(|session| session.record().misinterpreted_ms), 20);
}

#[tokio::test]
async fn sessions_end_on_command() {
    let realtime = Realtime::start(quick()).await.expect("it starts");
    let mut client = Client::connect(&realtime).await;
    client.until("conversation.created").await;
    realtime.session(0).close(1011, "internal error");
    assert_eq!(client.until_closed().await, Some((1011, "internal error".to_owned())));

    let mut client = Client::connect(&realtime).await;
    client.until("conversation.created").await;
    realtime.session(1).expire();
    assert_eq!(client.until("error").await["error"]["code"], "session_expired");
    let closed = client.until_closed().await.expect("a close frame");
    assert_eq!(closed, (1001, "Your session hit the maximum duration of 60 minutes.".to_owned()));

    let mut client = Client::connect(&realtime).await;
    client.until("conversation.created").await;
    realtime.session(2).drop_connection();
    assert_eq!(client.until_closed().await, None, "no close frame");

    let ends: Vec<_> =
        realtime.sessions().iter().map(|session| session.read(|session| session.record().closed.clone())).collect();
    assert_eq!(ends, [1011, 1001, 1006].map(|code| Some(Closed::ByServer(code))));
}

#[tokio::test]
async fn a_session_expires_by_itself() {
    let options = RealtimeOptions { longest_session: Duration::from_millis(100), ..quick() };
    let realtime = Realtime::start(options).await.expect("it starts");
    let mut client = Client::connect(&realtime).await;
    assert_eq!(client.until_closed().await.map(|closed| closed.0), Some(1001));
}

#[tokio::test]
async fn errors_come_out_of_the_blue_on_command_and_end_nothing() {
    let realtime = Realtime::start(quick()).await.expect("it starts");
    let mut client = Client::connect(&realtime).await;
    client.until("conversation.created").await;
    realtime.session(0).send_error(ApiError::request("some_code", "Something."));
    let error = client.until("error").await;
    assert_eq!((&error["error"]["code"], &error["error"]["event_id"]), (&json!("some_code"), &Value::Null));
    client.update(telephone()).await;
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed() {
    let realtime = Realtime::start(quick()).await.expect("it starts");
    let client = Client::connect(&realtime).await;
    let session = realtime.wait_for_session(0, LIMIT).await.expect("it is there");
    drop(client);
    let is_gone = |session: &tests::openai::Session| session.record().closed == Some(Closed::ByClient(1006));
    session.wait_for(is_gone, LIMIT).await.expect("the drop is recorded");
}

#[tokio::test]
async fn ids_of_another_session_are_unknown() {
    let realtime = Realtime::start(quick()).await.expect("it starts");
    let mut first = Client::on_the_telephone(&realtime).await;
    first.send(json!({"type": "response.create"})).await;
    let done = first.until("response.done").await;
    let item_id = done["response"]["output"][0]["id"].clone();
    let mut second = Client::on_the_telephone(&realtime).await;
    let truncate =
        json!({"type": "conversation.item.truncate", "item_id": item_id, "content_index": 0, "audio_end_ms": 0});
    assert_eq!(second.refused(truncate).await["code"], "item_truncate_invalid_item_id");
}
