//! Media Streams: messages, marks, warnings, ends.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use shared::twilio::signature::{Request, Signed, verify};
use tests::twilio::{Caller, EndReason, What};

use super::our_side::{ACCOUNT, Answer, BASE, LIMIT, OurSide, Socket, TOKEN, call, codes, whole_call};

/// The document of most tests: a stream, and words after it.
fn stream_then_say() -> Answer {
    Answer::twiml(
        "<Connect><Stream url=\"wss://edge.tandem.test/media\" name=\"n\" statusCallback=\"https://edge.tandem.test/stream-status\">\
         <Parameter name=\"token\" value=\"a&amp;b\"/></Stream></Connect><Say>After.</Say>",
    )
}

/// Collects the messages of a stream until it closes.
fn collector() -> (Arc<Mutex<Vec<Value>>>, impl Fn(Socket) -> futures_util::future::BoxFuture<'static, ()>) {
    let messages: Arc<Mutex<Vec<Value>>> = Arc::default();
    let collected = messages.clone();
    let on_stream = move |mut socket: Socket| -> futures_util::future::BoxFuture<'static, ()> {
        let collected = collected.clone();
        Box::pin(async move {
            while let Some(message) = socket.next().await {
                if message["event"] == "start" {
                    // The caller's scripts begin with it: before, there is no stream to hear them.
                    socket.speak(100).await;
                }
                collected.lock().expect("no test panics here").push(message);
            }
        })
    };
    (messages, on_stream)
}

fn events(our_side: &OurSide) -> Vec<(String, Option<String>)> {
    let requests = our_side.received("/stream-status");
    requests
        .iter()
        .map(|request| (request.param("StreamEvent").unwrap_or_default(), request.param("StreamError")))
        .collect()
}

#[tokio::test]
async fn a_stream_says_what_a_real_one_says() {
    let (messages, on_stream) = collector();
    let our_side = OurSide::streaming(on_stream).await;
    our_side.answer("/voice", [stream_then_say()]);
    let twilio = our_side.twilio().await;
    let script = Caller::new().interrupt(0, [0x20; 480]).mute_ms(100).dtmf("7").wait_ms(60).hang_up();
    let (call, reason) = whole_call(&twilio, script).await;
    assert_eq!(reason, EndReason::CallerHungUp);
    assert!(call.said().is_empty(), "nothing runs after a hang-up");

    let [upgrade] = &our_side.received("/media")[..] else { panic!("one upgrade") };
    assert_eq!(upgrade.header("host"), "edge.tandem.test");
    let request = Request {
        url: "wss://edge.tandem.test/media",
        signed: Signed::Nothing,
        signature: upgrade.header("x-twilio-signature"),
        settings: None,
    };
    assert!(verify(&[TOKEN], request));

    let messages = messages.lock().expect("no test panics here").clone();
    assert_eq!(messages[0], json!({"event": "connected", "protocol": "Call", "version": "1.0.0"}));
    let stream_sid = call.stream().expect("a stream").stream_sid;
    assert_eq!(
        messages[1],
        json!({
            "event": "start", "sequenceNumber": "1", "streamSid": stream_sid,
            "start": {
                "accountSid": ACCOUNT, "streamSid": stream_sid, "callSid": call.sid(), "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": {"token": "a&b"},
            },
        })
    );
    for (index, message) in messages[1..].iter().enumerate() {
        assert_eq!(message["sequenceNumber"], (index + 1).to_string());
        assert_eq!(message["streamSid"], json!(stream_sid));
    }
    let media: Vec<&Value> = messages.iter().filter(|message| message["event"] == "media").collect();
    for (index, message) in media.iter().enumerate() {
        assert_eq!(message["media"]["chunk"], (index + 1).to_string());
        assert_eq!(message["media"]["track"], "inbound");
        assert_eq!(message["media"]["payload"].as_str().map(str::len), Some(216), "160 bytes");
    }
    let stamps: Vec<u64> = media
        .iter()
        .map(|message| message["media"]["timestamp"].as_str().and_then(|stamp| stamp.parse().ok()).expect("a number"))
        .collect();
    let jumps: Vec<u64> = stamps.windows(2).map(|pair| pair[1] - pair[0]).filter(|step| *step > 21).collect();
    assert_eq!(jumps.len(), 1, "the muted line left a gap: {stamps:?}");
    let dtmf = messages.iter().find(|message| message["event"] == "dtmf").expect("a key");
    assert_eq!(dtmf["dtmf"], json!({"track": "inbound_track", "digit": "7"}));
    let last = messages.last().expect("messages");
    assert_eq!(last["stop"], json!({"accountSid": ACCOUNT, "callSid": call.sid()}));
    assert_eq!(events(&our_side), [("stream-started".to_owned(), None), ("stream-stopped".to_owned(), None)]);
}

#[tokio::test]
async fn marks_come_back_when_their_audio_has_been_played() {
    let counts: Arc<Mutex<Vec<(Value, usize)>>> = Arc::default();
    let seen = counts.clone();
    let our_side = OurSide::streaming(move |mut socket: Socket| {
        let seen = seen.clone();
        async move {
            socket.next_of("start").await;
            socket.mark("idle").await;
            let idle = socket.next_of("mark").await;
            // All at once: 400 ms, however fast they came.
            for _ in 0..4 {
                socket.speak(100).await;
            }
            socket.mark("played").await;
            let played = socket.next_of("mark").await;
            socket.speak(60_000).await;
            socket.mark("first").await;
            socket.mark("second").await;
            socket.next_of("media").await;
            socket.clear().await;
            let first = socket.next_of("mark").await;
            let second = socket.next_of("mark").await;
            seen.lock().expect("no test panics here").extend([idle, played, first, second]);
        }
    })
    .await;
    our_side.answer("/voice", [stream_then_say()]);
    let twilio = our_side.twilio().await;
    let (call, reason) = whole_call(&twilio, Caller::new()).await;
    assert_eq!(reason, EndReason::EndOfDocument);
    assert_eq!(call.said(), ["After."], "a socket closed by our side goes on with the next verb");

    let counts = counts.lock().expect("no test panics here").clone();
    let names: Vec<&str> = counts.iter().filter_map(|(mark, _)| mark["mark"]["name"].as_str()).collect();
    assert_eq!(names, ["idle", "played", "first", "second"]);
    assert!(counts[1].1 >= 20, "400 ms are 20 frames; the mark came after {}", counts[1].1);
    assert!(counts[2].1 < 2900, "cleared, not played for a minute, which is 3000 frames");
    let stream = call.stream().expect("a stream");
    assert_eq!(stream.chunks.len(), 5);
    assert!(
        stream.chunks[..4].iter().all(|chunk| chunk.played_us >= Some(chunk.arrived_us) && chunk.cleared_bytes == 0)
    );
    assert!(stream.chunks[4].cleared_bytes > 0);
    let cleared =
        call.trace().into_iter().filter(|entry| matches!(entry.what, What::Mark { cleared: true, .. })).count();
    assert_eq!(cleared, 2);
}

#[tokio::test]
async fn what_the_caller_said_and_heard_is_recorded_side_by_side() {
    let our_side = OurSide::streaming(|mut socket: Socket| async move {
        socket.next_of("start").await;
        socket.speak(1000).await;
        socket.mark("greeted").await;
        socket.next_of("mark").await;
        while socket.next().await.is_some() {}
    })
    .await;
    our_side.answer("/voice", [stream_then_say()]);
    let twilio = our_side.twilio().await;
    let words = vec![0x10; 1600];
    let script = Caller::new().wait_until_agent_quiet().say(words.clone()).wait_ms(3000).hang_up();
    let (call, _) = whole_call(&twilio, script).await;
    let recording = call.recording();
    assert_eq!(recording.agent.len(), recording.caller.len());
    let heard: Vec<u8> = recording.agent.iter().copied().filter(|byte| *byte == 0x20).collect();
    assert_eq!(heard.len(), 8000, "every byte was played once");
    let agent_began = recording.agent.iter().position(|byte| *byte == 0x20).expect("the agent spoke");
    let caller_began = recording.caller.iter().position(|byte| *byte == 0x10).expect("the caller spoke");
    assert_eq!(recording.caller[caller_began..][..1600], words);
    // Quiet is 800 ms of silence after the second of speech.
    assert!(caller_began >= agent_began + 8000 + 6400 - 160, "{agent_began} {caller_began}");
    assert!(call.dead_air_ms() >= 3000, "nobody answered the caller");
    let turns: Vec<What> = call.trace().into_iter().map(|entry| entry.what).collect();
    assert!(turns.contains(&What::AgentQuiet { spoke_ms: 1000 }), "{turns:?}");
    assert!(turns.contains(&What::CallerQuiet { spoke_ms: 200 }), "{turns:?}");
}

#[tokio::test]
async fn a_caller_interrupts_while_the_agent_speaks() {
    let our_side = OurSide::streaming(|mut socket: Socket| async move {
        socket.next_of("start").await;
        socket.speak(5000).await;
        while socket.next().await.is_some() {}
    })
    .await;
    our_side.answer("/voice", [stream_then_say()]);
    let twilio = our_side.twilio().await;
    let (call, _) = whole_call(&twilio, Caller::new().interrupt(500, vec![0x10; 1600]).hang_up()).await;
    let recording = call.recording();
    let agent_began = recording.agent.iter().position(|byte| *byte == 0x20).expect("the agent spoke");
    let caller_began = recording.caller.iter().position(|byte| *byte == 0x10).expect("the caller spoke");
    assert_eq!(caller_began - agent_began, 4000);
    assert_eq!(recording.agent[caller_began], 0x20, "the agent is still speaking");
}

#[tokio::test]
async fn messages_outside_the_protocol_are_ignored_and_noted_once() {
    let our_side = OurSide::streaming(|mut socket: Socket| async move {
        let (start, _) = socket.next_of("start").await;
        let stream_sid = start["streamSid"].clone();
        socket.send_text("hello").await;
        socket.send(json!({"event": "mark", "streamSid": "MZ1", "mark": {"name": "wrong stream"}})).await;
        socket.send(json!({"event": "mark", "streamSid": stream_sid, "mark": {"name": "extra"}, "x": 1})).await;
        for _ in 0..2 {
            socket.socket.send(axum::extract::ws::Message::binary(vec![1, 2])).await.expect("the stream is open");
        }
        socket.mark("right").await;
        let (mark, _) = socket.next_of("mark").await;
        assert_eq!(mark["mark"]["name"], "right");
    })
    .await;
    our_side.answer("/voice", [stream_then_say()]);
    let twilio = our_side.twilio().await;
    let (call, _) = whole_call(&twilio, Caller::new()).await;
    assert_eq!(codes(&twilio), [31951, 31950, 31921], "and the socket was dropped without a close frame");
    assert_eq!(call.said(), ["After."]);
    let marks = call.trace().iter().filter(|entry| matches!(entry.what, What::Mark { .. })).count();
    assert_eq!(marks, 1);
}

#[tokio::test]
async fn a_stream_that_cannot_start_says_why_and_the_call_goes_on() {
    for (attributes, code) in [
        ("url=\"wss://edge.tandem.test/refused\"", 31920),
        ("url=\"wss://edge.tandem.test/media?token=1\"", 31920),
        ("url=\"ws://edge.tandem.test/media\"", 31922),
        ("url=\"edge.tandem.test/media\"", 31923),
        ("url=\"wss://nowhere.tandem.test/media\"", 31902),
        ("url=\"wss://edge.tandem.test/media\" track=\"both_tracks\"", 31941),
    ] {
        let our_side = OurSide::start().await;
        our_side.answer("/refused", [Answer::status(403)]);
        our_side.answer(
            "/voice",
            [Answer::twiml(&format!(
                "<Connect><Stream {attributes} statusCallback=\"{BASE}/stream-status\"/></Connect><Say>Sorry.</Say>"
            ))],
        );
        let twilio = our_side.twilio().await;
        let (call, reason) = whole_call(&twilio, Caller::new()).await;
        assert_eq!((reason, call.said()), (EndReason::EndOfDocument, vec!["Sorry.".to_owned()]), "{attributes}");
        assert_eq!(codes(&twilio), [code], "{attributes}");
        let events = events(&our_side);
        assert_eq!(events.len(), 1, "{attributes}");
        assert!(events[0].0 == "stream-error" && events[0].1.is_some(), "{events:?}");
    }
}

#[tokio::test]
async fn how_our_side_closes_decides_between_stopped_and_error() {
    for (code, noted) in [(1000, vec![]), (1008, vec![31921])] {
        let our_side = OurSide::streaming(move |mut socket: Socket| async move {
            socket.next_of("start").await;
            let close = axum::extract::ws::CloseFrame { code, reason: "".into() };
            socket.socket.send(axum::extract::ws::Message::Close(Some(close))).await.expect("the stream is open");
            while socket.next().await.is_some() {}
        })
        .await;
        our_side.answer(
            "/voice",
            [Answer::twiml("<Connect action=\"/after\"><Stream url=\"wss://edge.tandem.test/media\"/></Connect>")],
        );
        our_side.answer("/after", [Answer::twiml("<Say>Bye.</Say>")]);
        let twilio = our_side.twilio().await;
        let (call, _) = whole_call(&twilio, Caller::new()).await;
        assert_eq!(codes(&twilio), noted);
        assert_eq!(call.stream().expect("a stream").close_code, Some(code));
        assert_eq!(call.said(), ["Bye."], "the action of the connect decides what comes next");
    }
}

#[tokio::test]
async fn a_bare_stream_that_our_side_closes_ends_the_call() {
    let our_side = OurSide::streaming(|mut socket: Socket| async move {
        socket.next_of("media").await;
    })
    .await;
    our_side.answer("/voice", [Answer::twiml("<Connect><Stream url=\"wss://edge.tandem.test/media\"/></Connect>")]);
    let twilio = our_side.twilio().await;
    let (_, reason) = whole_call(&twilio, Caller::new()).await;
    assert_eq!(reason, EndReason::EndOfDocument);
}

#[tokio::test]
async fn the_action_is_asked_after_a_hang_up_too_and_its_answer_ignored() {
    let (_, on_stream) = collector();
    let our_side = OurSide::streaming(on_stream).await;
    our_side.answer(
        "/voice",
        [Answer::twiml("<Connect action=\"/after\"><Stream url=\"wss://edge.tandem.test/media\"/></Connect>")],
    );
    our_side.answer("/after", [Answer::twiml("<Say>Nobody hears this.</Say>")]);
    let twilio = our_side.twilio().await;
    let call = call(&twilio, Caller::new());
    call.wait_for(LIMIT, |what| matches!(what, What::StreamStarted { .. })).await.expect("the stream starts");
    call.hang_up();
    call.wait_ended(LIMIT).await.expect("the call ends");
    assert_eq!(our_side.received("/after")[0].param("CallStatus").as_deref(), Some("completed"));
    assert!(call.said().is_empty());
}

#[tokio::test]
async fn a_side_that_reads_nothing_can_still_be_left() {
    let our_side = OurSide::streaming(|socket: Socket| async move {
        let _held = socket;
        std::future::pending::<()>().await;
    })
    .await;
    our_side.answer("/voice", [stream_then_say()]);
    let twilio = our_side.twilio().await;
    let (_, reason) = whole_call(&twilio, Caller::new().wait_ms(2000).hang_up()).await;
    assert_eq!(reason, EndReason::CallerHungUp);
}
