//! The caller's turns: detection, commits, transcripts, interruption.

use std::time::Duration;

use serde_json::{Value, json};
use tests::openai::{Pace, Realtime, RealtimeOptions};
use tests::speech::clip;

use crate::client::{Client, LIMIT, quick, saying, speech, telephone};

#[tokio::test]
async fn a_spoken_turn_brings_the_events_of_the_real_service_in_their_order() {
    let realtime = Realtime::start(saying(vec![speech("agent-hours")])).await.expect("it starts");
    let mut client = Client::on_the_telephone(&realtime).await;
    let question = clip("caller-appointment");
    client.say(&question, 700).await;
    client.until("response.done").await;

    let mut kinds = client.kinds();
    // Words and audio are mixed, and the transcript comes when it comes.
    kinds.retain(|kind| !kind.contains("transcription") && kind.rsplit('.').next() != Some("delta"));
    assert_eq!(
        kinds[3..],
        [
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "conversation.item.added",
            "conversation.item.done",
            "response.created",
            "rate_limits.updated",
            "response.output_item.added",
            "conversation.item.added",
            "response.content_part.added",
            "response.output_audio.done",
            "response.output_audio_transcript.done",
            "response.content_part.done",
            "conversation.item.done",
            "response.output_item.done",
            "response.done",
        ]
    );
    let started = client.all("input_audio_buffer.speech_started")[0];
    let stopped = client.all("input_audio_buffer.speech_stopped")[0];
    assert_eq!(started["audio_start_ms"], 0, "padding reaches back to the beginning");
    let end = stopped["audio_end_ms"].as_u64().expect("a number");
    let spoken = question.duration_ms() as u64;
    assert!((spoken + 300..=spoken + 520).contains(&end), "{end} ms: speech and 500 ms of silence");
    let ids: Vec<&Value> = client.events.iter().map(|event| &event["event_id"]).collect();
    let mut unique = ids.clone();
    unique.sort_by_key(ToString::to_string);
    unique.dedup();
    assert_eq!(unique.len(), ids.len(), "every event has an id of its own");
}

#[tokio::test]
async fn the_caller_is_transcribed_from_the_audio() {
    let options = RealtimeOptions { caller_texts: vec!["Something else.".to_owned()], ..quick() };
    let realtime = Realtime::start(options).await.expect("it starts");
    let mut client = Client::on_the_telephone(&realtime).await;
    for name in ["caller-thanks", "caller-appointment", "agent-goodbye"] {
        client.say(&clip(name), 700).await;
        client.until("conversation.item.input_audio_transcription.completed").await;
    }
    let transcripts: Vec<&Value> = client
        .all("conversation.item.input_audio_transcription.completed")
        .into_iter()
        .map(|event| &event["transcript"])
        .collect();
    let texts = [clip("caller-thanks").text, clip("caller-appointment").text, "Something else.".to_owned()];
    assert_eq!(transcripts, [&json!(texts[0]), &json!(texts[1]), &json!(texts[2])]);

    realtime.session(0).fail_next_transcription();
    client.say(&clip("caller-thanks"), 700).await;
    client.until("conversation.item.input_audio_transcription.failed").await;
}

#[tokio::test]
async fn an_interruption_stops_the_response_after_a_few_late_deltas() {
    // Long enough that no machine is too slow to interrupt it.
    let long = ["agent-hours"; 4].iter().fold(speech("agent-hours"), |reply, name| reply.then_speech(clip(name)));
    let options = RealtimeOptions {
        replies: vec![long, speech("agent-saturday")],
        pace: Pace { interruption: Duration::from_millis(200), ..Pace::default() },
        ..RealtimeOptions::default()
    };
    let realtime = Realtime::start(options).await.expect("it starts");
    let mut client = Client::on_the_telephone(&realtime).await;
    client.send(json!({"type": "response.create"})).await;
    let first = client.until("response.output_audio.delta").await;
    // Only the beginning, so that the interrupted response ends by itself before the turn does.
    client.append(&clip("caller-interrupts").mulaw[..6400]).await;
    client.until("input_audio_buffer.speech_started").await;
    let done = client.until("response.done").await;
    assert_eq!(done["response"]["status"], "cancelled");
    assert_eq!(done["response"]["status_details"], json!({"type": "cancelled", "reason": "turn_detected"}));
    let outputs = done["response"]["output"].as_array().expect("a list");
    assert_eq!(outputs.last().expect("an item")["status"], "incomplete");
    let started_at = client.kinds().iter().position(|kind| kind == "input_audio_buffer.speech_started");
    let since = &client.kinds()[started_at.expect("it was seen")..];
    assert!(since.contains(&"response.output_audio.delta".to_owned()), "late deltas: {since:?}");

    client.append(&[clip("caller-interrupts").mulaw[6400..].to_vec(), vec![0xff; 6000]].concat()).await;
    let next = client.until("response.done").await;
    assert_eq!(next["response"]["status"], "completed");
    let stopped_at = client.events.iter().position(|event| event == &done).expect("it was seen");
    let late = &client.events[stopped_at..];
    assert!(late.iter().all(|event| event["response_id"] != first["response_id"]), "nothing after its end");
}

#[tokio::test]
async fn truncation_forgets_what_was_not_heard() {
    let realtime = Realtime::start(saying(vec![speech("agent-hours")])).await.expect("it starts");
    let mut client = Client::on_the_telephone(&realtime).await;
    client.send(json!({"type": "response.create"})).await;
    let done = client.until("response.done").await;
    let item_id = done["response"]["output"][0]["id"].clone();
    let length = clip("agent-hours").duration_ms();
    let truncate = |ms: usize| {
        json!({
            "type": "conversation.item.truncate",
            "item_id": item_id,
            "content_index": 0,
            "audio_end_ms": ms,
        })
    };
    let error = client.refused(truncate(length + 1)).await;
    assert_eq!(error["code"], "invalid_value");
    let message = format!("Audio content of {length}ms is already shorter than {}ms", length + 1);
    assert_eq!(error["message"], message);
    let memory = realtime.session(0).read(tests::openai::Session::memory);
    assert_eq!(memory[0].text, clip("agent-hours").text, "a refused truncation changes nothing");

    client.send(truncate(2345)).await;
    let truncated = client.until("conversation.item.truncated").await;
    assert_eq!(truncated["audio_end_ms"], 2345);
    let memory = realtime.session(0).read(tests::openai::Session::memory);
    assert_eq!((memory[0].text.as_str(), memory[0].audio_ms), ("", 2345));
    let error = client.refused(truncate(2346)).await;
    assert_eq!(error["message"], "Audio content of 2345ms is already shorter than 2346ms");
}

#[tokio::test]
async fn without_interruption_or_responses_turns_are_only_reported() {
    let realtime = Realtime::start(quick()).await.expect("it starts");
    let mut client = Client::connect(&realtime).await;
    let mut session = telephone();
    let detection = &mut session["audio"]["input"]["turn_detection"];
    (detection["create_response"], detection["interrupt_response"]) = (json!(false), json!(false));
    client.update(session).await;
    client.say(&clip("caller-thanks"), 700).await;
    client.until("conversation.item.input_audio_transcription.completed").await;
    assert!(client.all("response.created").is_empty());
    assert_eq!(client.all("input_audio_buffer.committed").len(), 1);
}

#[tokio::test]
async fn without_turn_detection_the_client_commits() {
    let realtime = Realtime::start(quick()).await.expect("it starts");
    let mut client = Client::connect(&realtime).await;
    let mut session = telephone();
    session["audio"]["input"]["turn_detection"] = Value::Null;
    client.update(session).await;
    let commit = json!({"type": "input_audio_buffer.commit", "event_id": "mine"});
    client.append(&[0xff; 400]).await;
    let error = client.refused(commit.clone()).await;
    assert_eq!((&error["code"], &error["event_id"]), (&json!("input_audio_buffer_commit_empty"), &json!("mine")));
    assert!(error["message"].as_str().expect("text").ends_with("buffer only has 50.00ms of audio."), "{error}");

    client.append(&clip("caller-thanks").mulaw).await;
    client.send(commit.clone()).await;
    let committed = client.until("input_audio_buffer.committed").await;
    client.until("conversation.item.input_audio_transcription.completed").await;
    assert!(client.all("response.created").is_empty(), "a commit starts no response");
    client.send(json!({"type": "conversation.item.retrieve", "item_id": committed["item_id"]})).await;
    let retrieved = client.until("conversation.item.retrieved").await;
    let audio = retrieved["item"]["content"][0]["audio"].as_str().expect("audio comes with it");
    assert_eq!(audio.len(), (400 + clip("caller-thanks").mulaw.len()).div_ceil(3) * 4);

    client.append(&[0xff; 4000]).await;
    client.send(json!({"type": "input_audio_buffer.clear"})).await;
    client.until("input_audio_buffer.cleared").await;
    assert_eq!(client.refused(commit).await["code"], "input_audio_buffer_commit_empty");
}

#[tokio::test]
async fn semantic_detection_takes_a_whole_sentence_at_once() {
    let realtime = Realtime::start(quick()).await.expect("it starts");
    let mut client = Client::connect(&realtime).await;
    let mut session = telephone();
    session["audio"]["input"]["turn_detection"] = json!({"type": "semantic_vad", "eagerness": "high"});
    let updated = client.update(session).await;
    assert_eq!(updated["session"]["audio"]["input"]["turn_detection"]["create_response"], true);
    client.say(&clip("caller-thanks"), 600).await;
    client.until("response.done").await;
}

#[tokio::test]
async fn telephone_audio_before_its_format_is_heard_as_noise_and_counted() {
    let realtime = Realtime::start(quick()).await.expect("it starts");
    let mut client = Client::connect(&realtime).await;
    client.say(&clip("caller-appointment"), 0).await;
    client.update(telephone()).await;
    let session = realtime.session(0);
    let misread = clip("caller-appointment").frames_then_silence(0).len() as u64 * 20;
    assert_eq!(session.read(|session| session.record().misinterpreted_ms), misread);
    assert_eq!(session.read(tests::openai::Session::heard_ms), misread / 6, "48 bytes a millisecond, not 8");
    client.append(&[0xff; 160]).await;
    session.wait_for(|session| session.heard_ms() == misread / 6 + 20, LIMIT).await.expect("it is heard");
    assert_eq!(session.read(|session| session.record().misinterpreted_ms), misread);
}
