//! Every event that the simulator can send, and the events of this project's bridge, fit the official SDK.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tests::openai::{Realtime, RealtimeOptions, Reply, SERVER_EVENTS};
use tests::speech::clip;

use crate::client::{Client, quick, speech, telephone};

/// The example of a whole `session.update`, less its MCP tool.
fn full_session() -> Value {
    let mut session = telephone();
    session["audio"]["input"]["noise_reduction"]["strength"] = json!(0.5);
    session["audio"]["input"]["transcription"]["keywords"] = json!(["Invisalign"]);
    session["audio"]["input"]["turn_detection"]["idle_timeout_ms"] = json!(5000);
    session["audio"]["output"]["speed"] = json!(1.0);
    session["tool_choice"] = json!("auto");
    session["parallel_tool_calls"] = json!(false);
    session["reasoning"] = json!({"effort": "low"});
    session["max_output_tokens"] = json!(1024);
    session["truncation"] = json!({
        "type": "retention_ratio", "retention_ratio": 0.8, "token_limits": {"post_instructions": 16000},
    });
    session["tracing"] = json!({"workflow_name": "phone-bridge", "group_id": "CA123", "metadata": {"tenant": "t_1"}});
    session["prompt"] = json!({"id": "pmpt_123", "version": "4", "variables": {"city": "Lisbon"}});
    session["include"] = json!(["item.input_audio_transcription.logprobs"]);
    session
}

/// Plays a call in which every type of event occurs.
async fn whole_call(realtime: &Realtime) -> Client {
    let mut client = Client::connect(realtime).await;
    client.update(full_session()).await;
    let create = json!({"type": "response.create"});
    // Fails, is incomplete, is text, is out of band, is cancelled.
    for _ in 0..2 {
        client.send(create.clone()).await;
        client.until("response.done").await;
    }
    let text = json!({"output_modalities": ["text"], "max_output_tokens": "inf"});
    client.send(json!({"type": "response.create", "response": text})).await;
    client.until("response.done").await;
    let apart = json!({"conversation": "none", "metadata": {"purpose": "filler"}, "instructions": "Say: one moment."});
    client.send(json!({"type": "response.create", "response": apart})).await;
    client.until("response.done").await;
    client.send(create.clone()).await;
    let created = client.until("response.created").await;
    client.send(json!({"type": "response.cancel", "response_id": created["response"]["id"]})).await;
    client.until("response.done").await;

    // A turn, a tool, its output, the answer; the answer truncated, fetched and deleted.
    client.say(&clip("caller-appointment"), 700).await;
    let done = client.until("response.done").await;
    let call_id = done["response"]["output"][1]["call_id"].clone();
    let output = json!({"type": "function_call_output", "call_id": call_id, "output": "{\"ok\":true}"});
    client.send(json!({"type": "conversation.item.create", "item": output})).await;
    client.send(create).await;
    let done = client.until("response.done").await;
    let item_id = done["response"]["output"][0]["id"].clone();
    let truncate =
        json!({"type": "conversation.item.truncate", "item_id": item_id, "content_index": 0, "audio_end_ms": 500});
    client.send(truncate).await;
    client.until("conversation.item.truncated").await;
    client.send(json!({"type": "conversation.item.retrieve", "item_id": item_id})).await;
    client.until("conversation.item.retrieved").await;
    client.send(json!({"type": "conversation.item.delete", "item_id": item_id})).await;
    client.until("conversation.item.deleted").await;
    for (role, kind) in [("system", "input_text"), ("user", "input_text"), ("assistant", "output_text")] {
        let item = json!({"type": "message", "role": role, "content": [{"type": kind, "text": "Hello"}]});
        client.send(json!({"type": "conversation.item.create", "item": item})).await;
        client.until("conversation.item.done").await;
    }

    // What goes wrong, and the silence at the end.
    realtime.session(0).fail_next_transcription();
    client.send(json!({"type": "input_audio_buffer.clear"})).await;
    client.say(&clip("caller-thanks"), 700).await;
    client.until("conversation.item.input_audio_transcription.failed").await;
    client.send(json!({"type": "input_audio_buffer.commit", "event_id": "too early"})).await;
    client.until("error").await;
    client.until("input_audio_buffer.timeout_triggered").await;
    client.until("response.done").await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_fits_the_types_of_the_official_sdk() {
    let script = vec![
        Reply::server_error(),
        speech("agent-goodbye").incomplete_at(500, "max_output_tokens"),
        speech("agent-goodbye"),
        speech("agent-hours"),
        speech("agent-goodbye").then_tool_call("transfer_call", &json!({"department": "billing"})),
        speech("agent-saturday"),
        // Short, as its end begins the idle time.
        speech("agent-goodbye").incomplete_at(100, "content_filter"),
    ];
    let realtime = Realtime::start(RealtimeOptions { replies: script, ..quick() }).await.expect("it starts");
    let client = whole_call(&realtime).await;

    let seen: BTreeSet<&str> = client.events.iter().filter_map(|event| event["type"].as_str()).collect();
    assert_eq!(seen, SERVER_EVENTS.iter().copied().collect(), "the call must show every type of event");

    let mut lines = String::new();
    for (from, events) in [("server", &client.events), ("client", &client.sent)] {
        for event in events {
            lines.push_str(&json!({"from": from, "event": event}).to_string());
            lines.push('\n');
        }
    }
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openai-events.jsonl");
    fs::write(&file, lines).expect("the events can be written");
    let result = tokio::task::spawn_blocking(move || tests::shapes::validate("openai", file)).await;
    result.expect("the check runs").expect("every event fits");
}
