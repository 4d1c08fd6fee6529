//! Calls handed over from Twilio.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tests::hosts::{Hosts, http_client};
use tests::vapi::{Call, Delivery, NO_RESULT, Script, Turn, level, tone};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::delivery::is_signed;
use super::receiver::{CALLER, NUMBER, Setup, setup};

/// Twilio's end of a media stream.
struct Phone {
    socket: WebSocketStream<TcpStream>,
}

impl Phone {
    /// Connects to the stream of a TwiML document and starts it.
    async fn connect(twiml: &str, hosts: &Hosts) -> Self {
        let url = twiml.split('"').find(|part| part.starts_with("wss://")).expect("a wss URL");
        assert!(twiml.contains("<Response><Connect><Stream url="), "{twiml}");
        let to = hosts.resolve(url).expect("the media host is known");
        let tcp = TcpStream::connect(&to.address).await.expect("a connection");
        let (socket, _) = client_async(to.url.as_str(), tcp).await.expect("a WebSocket");
        let mut phone = Self { socket };
        phone.send(json!({"event": "connected", "protocol": "Call", "version": "1.0.0"})).await;
        let start = json!({"accountSid": "AC1", "streamSid": "MZ1", "callSid": "CA1", "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}, "customParameters": {}});
        phone.send(json!({"event": "start", "sequenceNumber": "1", "start": start, "streamSid": "MZ1"})).await;
        phone
    }

    async fn send(&mut self, frame: Value) {
        self.socket.send(Message::text(frame.to_string())).await.expect("the socket is open");
    }

    /// The next frame; null when the socket has been closed.
    async fn next(&mut self) -> Value {
        let next = tokio::time::timeout(Duration::from_secs(20), self.socket.next()).await;
        match next.expect("a frame within 20 s") {
            Some(Ok(Message::Text(text))) => serde_json::from_str(&text).expect("JSON"),
            _ => Value::Null,
        }
    }

    /// Takes what the assistant says; the audio, and the mark that has yet to be returned.
    async fn listen(&mut self) -> (Vec<u8>, Value) {
        let (media, mark) = (self.next().await, self.next().await);
        assert_eq!((&media["event"], &media["streamSid"]), (&json!("media"), &json!("MZ1")));
        assert_eq!(mark["event"], "mark");
        let audio = STANDARD.decode(media["media"]["payload"].as_str().expect("a payload")).expect("base64");
        (audio, mark)
    }

    async fn played(&mut self, mark: Value) {
        self.send(json!({"event": "mark", "sequenceNumber": "9", "streamSid": "MZ1", "mark": mark["mark"]})).await;
    }

    async fn speak(&mut self, audio: &[u8]) {
        for frame in audio.chunks(160) {
            let payload = STANDARD.encode(frame);
            let media = json!({"track": "inbound", "chunk": "1", "timestamp": "5", "payload": payload});
            self.send(json!({"event": "media", "sequenceNumber": "3", "media": media, "streamSid": "MZ1"})).await;
        }
    }

    async fn hang_up(mut self) {
        let stop = json!({"accountSid": "AC1", "callSid": "CA1"});
        self.send(json!({"event": "stop", "sequenceNumber": "5", "stop": stop, "streamSid": "MZ1"})).await;
        while !self.next().await.is_null() {}
    }
}

const SILENCE: [u8; 160 * 40] = [0xff; 160 * 40];

fn twiml(call: &Value) -> &str {
    call["phoneCallProviderDetails"]["twiml"].as_str().expect("TwiML")
}

async fn ended(setup: &Setup) -> Call {
    setup.vapi.calls().first("the call's end", |call| call.ended_reason.is_some()).await
}

/// The types of all messages, once the report and all before it have been answered.
async fn types_until_report(setup: &Setup) -> Vec<String> {
    let types = |deliveries: &[Delivery]| {
        let complete = deliveries.iter().all(|delivery| delivery.answer.is_some());
        let types: Vec<_> = deliveries.iter().map(|delivery| delivery.message_type.clone()).collect();
        Some(types).filter(|types| complete && types.iter().any(|kind| kind == "end-of-call-report"))
    };
    setup.vapi.deliveries().wait("the report and its answer", types).await
}

#[tokio::test]
async fn a_call_is_handed_over_talks_uses_a_tool_and_reports() {
    let setup = setup(|options| {
        options.script = Script::new()
            .say("Hello", tone(300))
            .hear("A table for two.")
            .call("get_slots", json!({"date": "2026-11-23"}))
            .say("At nine.", tone(200))
            .hang_up();
    })
    .await;
    let call = setup.bypass().await;
    let mut phone = Phone::connect(twiml(&call), &setup.receiver.hosts).await;
    let path = format!("/call/{}", call["id"].as_str().expect("an id"));
    let (_, shown) = setup.rest("GET", &path, Value::Null).await;
    assert_eq!(twiml(&shown), twiml(&call), "whoever lost the first answer can ask again");
    let (greeting, mark) = phone.listen().await;
    assert!(level(&greeting) > 1000, "audible");
    phone.played(mark).await;
    phone.speak(&tone(200)).await;
    phone.speak(&SILENCE).await;
    let (_, mark) = phone.listen().await;
    phone.played(mark).await;
    assert_eq!(phone.next().await, Value::Null, "the assistant closes the socket");

    let ended = ended(&setup).await;
    assert_eq!(ended.ended_reason.as_deref(), Some("assistant-ended-call"));
    assert_eq!((ended.facts.call_sid.as_deref(), ended.caller_turns), (Some("CA1"), 1));
    assert_eq!(ended.heard.len(), 200 * 8 + SILENCE.len());
    let types = types_until_report(&setup).await;
    let turn = ["speech-update", "speech-update", "conversation-update"];
    let expected =
        [&["status-update", "assistant.started"][..], &turn, &turn, &["tool-calls", "conversation-update"], &turn]
            .concat();
    assert_eq!(types[..types.len() - 2], expected);
    assert_eq!(types[types.len() - 2..], ["status-update", "end-of-call-report"]);
    assert!(setup.vapi.deliveries().all().iter().all(Delivery::accepted));
    assert!(setup.receiver.got().iter().all(|got| is_signed(got, "secret")));

    let report = &setup.vapi.deliveries().all().pop().expect("the report").body["message"];
    assert_eq!(report["transcript"], "AI: Hello\nUser: A table for two.\nAI: At nine.\n");
    assert_eq!(report["call"]["status"], "ringing", "the status at creation, as in real deliveries");
    assert_eq!(
        (&report["call"]["assistantId"], &report["customer"]["number"]),
        (&json!(setup.assistant_id), &json!(CALLER))
    );
    let (_, shown) = setup.rest("GET", &path, Value::Null).await;
    assert_eq!((&shown["status"], &shown["endedReason"]), (&json!("ended"), &json!("assistant-ended-call")));
}

#[tokio::test]
async fn the_caller_interrupts_and_hangs_up() {
    let setup = setup(|options| options.script = Script::new().say("A long story", tone(5000)).hear("Stop.")).await;
    let call = setup.bypass().await;
    let mut phone = Phone::connect(twiml(&call), &setup.receiver.hosts).await;
    let (_, mark) = phone.listen().await;
    phone.speak(&tone(200)).await;
    assert_eq!(phone.next().await, json!({"event": "clear", "streamSid": "MZ1"}));
    // The flushed mark comes back and means nothing.
    phone.played(mark).await;
    phone.speak(&SILENCE).await;
    let understood = |delivery: &Delivery| delivery.body["message"]["messagesOpenAIFormatted"][2]["content"] == "Stop.";
    setup.vapi.deliveries().first("the caller's words", understood).await;
    phone.hang_up().await;
    assert_eq!(ended(&setup).await.ended_reason.as_deref(), Some("customer-ended-call"));
    let types = types_until_report(&setup).await;
    assert!(types.iter().any(|kind| kind == "user-interrupted"), "{types:?}");
}

#[tokio::test]
async fn the_first_message_is_protected_unless_the_assistant_says_otherwise() {
    let mut setup = setup(|options| options.script = Script::new().say("Hello", tone(300)).hear("Hi.").hang_up()).await;
    setup.assistant_id = setup.vapi.add_assistant(json!({"name": "Protected"}));
    let call = setup.bypass().await;
    let mut phone = Phone::connect(twiml(&call), &setup.receiver.hosts).await;
    let (_, mark) = phone.listen().await;
    phone.speak(&tone(200)).await;
    phone.speak(&SILENCE).await;
    phone.played(mark).await;
    // What was said meanwhile counts as the caller's turn; no clear comes before the end.
    assert_eq!(phone.next().await, Value::Null);
    assert_eq!(ended(&setup).await.caller_turns, 1);
}

#[tokio::test]
async fn a_tool_answer_of_no_use_reads_as_no_result() {
    let setup = setup(|options| options.script = Script::new().call("get_slots", json!({})).hang_up()).await;
    // in-progress, assistant.started and the tool call may overtake each other: all three get this answer.
    for _ in 0..3 {
        let stray = json!({"toolCallId": "another", "name": "get_slots", "result": "09:00"});
        setup.receiver.answer(200, json!({"results": [stray]}));
    }
    let call = setup.bypass().await;
    let mut phone = Phone::connect(twiml(&call), &setup.receiver.hosts).await;
    assert_eq!(phone.next().await, Value::Null);
    let history = ended(&setup).await.history.expect("a history");
    assert!(matches!(&history.turns()[1], Turn::ToolResult { result, .. } if result == NO_RESULT), "{history:?}");
}

#[tokio::test]
async fn a_socket_that_is_lost_ends_the_call() {
    let setup = setup(|_| {}).await;
    let call = setup.bypass().await;
    let mut phone = Phone::connect(twiml(&call), &setup.receiver.hosts).await;
    phone.listen().await;
    drop(phone);
    assert_eq!(ended(&setup).await.ended_reason.as_deref(), Some("phone-call-provider-closed-websocket"));
}

#[tokio::test]
async fn a_call_whose_media_never_come_ends() {
    let setup = setup(|options| options.no_call_limit = Duration::from_millis(1)).await;
    setup.bypass().await;
    let never = "phone-call-provider-bypass-enabled-but-no-call-received";
    assert_eq!(ended(&setup).await.ended_reason.as_deref(), Some(never));
}

/// Posts what Twilio posts for an incoming call.
async fn inbound(setup: &Setup, status: &str) -> (u16, String) {
    let client = http_client().build().expect("a client");
    let form = [
        ("CallSid", "CA1"),
        ("AccountSid", "AC1"),
        ("CallStatus", status),
        ("Direction", "inbound"),
        ("From", CALLER),
        ("To", NUMBER),
    ];
    let to = setup.receiver.hosts.resolve("https://api.vapi.ai/twilio/inbound_call").expect("Vapi is known");
    let answer = client.post(to.url).form(&form).send().await.expect("an answer");
    (answer.status().as_u16(), answer.text().await.expect("a body"))
}

#[tokio::test]
async fn a_redirect_is_taken_while_it_rings_and_only_then() {
    let setup = setup(|_| {}).await;
    let (status, error) = inbound(&setup, "in-progress").await;
    let error: Value = serde_json::from_str(&error).expect("JSON");
    assert_eq!(
        (status, &error["message"][0]),
        (400, &json!("CallStatus must be one of the following values: ringing"))
    );

    setup.receiver.answer(200, json!({"assistantId": setup.assistant_id}));
    let (status, document) = inbound(&setup, "ringing").await;
    assert_eq!(status, 200);
    let mut phone = Phone::connect(&document, &setup.receiver.hosts).await;
    phone.listen().await;
    phone.hang_up().await;
    let call = ended(&setup).await;
    assert_eq!(call.facts.assistant_id, Some(setup.assistant_id.clone()));
    let request = &setup.vapi.deliveries().all()[0];
    assert_eq!(request.message_type, "assistant-request");
    assert_eq!(request.body["message"]["call"]["assistantId"], Value::Null);
    assert_eq!(request.body["message"]["phoneNumber"]["number"], NUMBER);
}

#[tokio::test]
async fn without_an_assistant_the_caller_hears_why_or_is_forwarded() {
    let setup = setup(|_| {}).await;
    let cases = [
        (
            200,
            json!({"error": "We are <closed>."}),
            "<Say>We are &lt;closed&gt;.</Say>",
            "assistant-request-returned-error",
        ),
        (
            200,
            json!({"destination": {"type": "number", "number": "+15550100099"}}),
            "<Dial><Number>+15550100099</Number></Dial>",
            "assistant-request-returned-forwarding-phone-number",
        ),
        (200, json!({}), "<Say>", "assistant-request-returned-no-assistant"),
        (200, json!({"assistantId": "unknown"}), "<Say>", "assistant-request-returned-invalid-assistant"),
        (500, json!({}), "<Say>", "assistant-request-failed"),
    ];
    for (status, answer, verb, reason) in cases {
        setup.receiver.answer(status, answer);
        let (status, document) = inbound(&setup, "ringing").await;
        assert_eq!(status, 200);
        assert!(document.contains(verb), "{document}");
        // Answered as well: its request must not take the answer that the next one is given.
        let told = |delivery: &Delivery| delivery.body["message"]["endedReason"] == reason && delivery.answer.is_some();
        let update = setup.vapi.deliveries().first(reason, told).await;
        assert!(update.body["message"]["inboundPhoneCallDebuggingArtifacts"]["assistantRequestError"].is_string());
    }
}
