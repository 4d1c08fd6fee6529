//! What the service refuses, and that a refused event changes nothing.

use serde_json::{Value, json};
use tests::openai::Realtime;

use crate::client::{Client, quick, saying, speech, telephone};

/// The telephone's session with one value changed or added.
fn with(pointer: &str, value: Value) -> Value {
    let mut session = telephone();
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer has a slash");
    session.pointer_mut(parent).expect("the parent is there")[name] = value;
    session
}

#[tokio::test]
async fn a_session_update_with_any_fault_is_refused_as_a_whole() {
    let input = "/audio/input";
    let detection = "/audio/input/turn_detection";
    #[rustfmt::skip]
    let table = [
        // (the fault, code, param after "session.")
        (with("/modalities", json!(["audio"])), "unknown_parameter", "modalities"),
        (with("/temperature", json!(0.8)), "unknown_parameter", "temperature"),
        (with("/voice", json!("marin")), "unknown_parameter", "voice"),
        (with("/turn_detection", Value::Null), "unknown_parameter", "turn_detection"),
        (with("/input_audio_format", json!("g711_ulaw")), "unknown_parameter", "input_audio_format"),
        (with("/audio/input/sample_rate", json!(8000)), "unknown_parameter", "audio.input.sample_rate"),
        (with("/audio/input/format/rate", json!(8000)), "unknown_parameter", "audio.input.format.rate"),
        (with("/audio/output/format/rate", json!(8000)), "unknown_parameter", "audio.output.format.rate"),
        (with("/tools/0/strict", json!(true)), "unknown_parameter", "tools[0].strict"),
        (with("/tools/0/function", json!({})), "unknown_parameter", "tools[0].function"),
        (with(&format!("{detection}/eagerness"), json!("low")), "unknown_parameter", "audio.input.turn_detection.eagerness"),
        (with(detection, json!({"type": "semantic_vad", "threshold": 0.5})), "unknown_parameter", "audio.input.turn_detection.threshold"),
        (with("/type", Value::Null), "invalid_type", "type"),
        (with("/type", json!("transcription")), "invalid_value", "type"),
        (with("/type", json!("live")), "invalid_value", "type"),
        (with(&format!("{input}/format"), json!("g711_ulaw")), "invalid_type", "audio.input.format"),
        (with(&format!("{input}/format"), json!({"type": "audio/ulaw"})), "invalid_value", "audio.input.format.type"),
        (with(&format!("{input}/format"), json!({"type": "audio/pcm", "rate": 16000})), "integer_below_min_value", "audio.input.format.rate"),
        (with(&format!("{input}/transcription"), json!({"language": "en", "model": "whisper-1", "keywords": ["a"]})), "unsupported_parameter", "audio.input.transcription.keywords"),
        (with(&format!("{input}/transcription"), json!({"model": "gpt-transcribe", "prompt": "x".repeat(1025)})), "string_above_max_length", "audio.input.transcription.prompt"),
        (with(&format!("{input}/transcription"), json!({"model": "gpt-realtime-whisper"})), "unsupported_parameter", "audio.input.turn_detection"),
        (with(&format!("{input}/transcription"), json!({})), "missing_required_parameter", "audio.input.transcription.model"),
        (with(&format!("{input}/noise_reduction"), json!({"type": "loud"})), "invalid_value", "audio.input.noise_reduction.type"),
        (with(detection, json!({"threshold": 0.5})), "missing_required_parameter", "audio.input.turn_detection.type"),
        (with(&format!("{detection}/threshold"), json!(1.5)), "decimal_above_max_value", "audio.input.turn_detection.threshold"),
        (with(&format!("{detection}/threshold"), json!("0.5")), "invalid_type", "audio.input.turn_detection.threshold"),
        (with(&format!("{detection}/silence_duration_ms"), json!(-1)), "integer_below_min_value", "audio.input.turn_detection.silence_duration_ms"),
        (with(&format!("{detection}/idle_timeout_ms"), json!(100)), "integer_below_min_value", "audio.input.turn_detection.idle_timeout_ms"),
        (with(&format!("{detection}/create_response"), Value::Null), "invalid_type", "audio.input.turn_detection.create_response"),
        (with("/audio/output/voice", json!("nova")), "invalid_value", "audio.output.voice"),
        (with("/audio/output/speed", json!(2)), "decimal_above_max_value", "audio.output.speed"),
        (with("/audio/output/speed", json!(0.1)), "decimal_below_min_value", "audio.output.speed"),
        (with("/output_modalities", json!(["audio", "text"])), "invalid_value", "output_modalities"),
        (with("/output_modalities", json!("audio")), "invalid_type", "output_modalities"),
        (with("/instructions", json!(["a"])), "invalid_type", "instructions"),
        (with("/instructions", Value::Null), "invalid_type", "instructions"),
        (with("/max_output_tokens", json!(5000)), "integer_above_max_value", "max_output_tokens"),
        (with("/max_output_tokens", json!("all")), "invalid_value", "max_output_tokens"),
        (with("/tool_choice", json!({"type": "function", "function": {"name": "a"}})), "unknown_parameter", "tool_choice.function"),
        (with("/tool_choice", json!({"type": "function"})), "missing_required_parameter", "tool_choice.name"),
        (with("/tools/0/type", json!("web_search")), "invalid_value", "tools[0].type"),
        (with("/tools", json!([{"type": "mcp", "server_url": "https://mcp.test"}])), "missing_required_parameter", "tools[0].server_label"),
        (with("/tools", json!([{"type": "mcp", "server_label": "a"}])), "missing_required_parameter", "tools[0].server_url"),
        (with("/tools", json!([{"type": "mcp", "server_label": "a", "server_url": "https://mcp.test", "require_approval": "sometimes"}])), "invalid_value", "tools[0].require_approval"),
        (with("/tools", json!([{"type": "mcp", "server_label": "a", "server_url": "https://mcp.test", "allowed_tools": [1]}])), "invalid_type", "tools[0].allowed_tools[0]"),
        (with("/reasoning", json!({"effort": "none"})), "invalid_value", "reasoning.effort"),
        (with("/truncation", json!({"type": "retention_ratio"})), "missing_required_parameter", "truncation.retention_ratio"),
        (with("/include", json!(["everything"])), "invalid_value", "include[0]"),
        (with("/model", json!("gpt-realtime-2")), "cannot_update_model", "model"),
    ];
    let realtime = Realtime::start(quick()).await.expect("it starts");
    let mut client = Client::connect(&realtime).await;
    let before = client.until("session.created").await["session"].clone();
    for (number, (session, code, param)) in table.into_iter().enumerate() {
        let id = format!("event {number}");
        let error = client.refused(json!({"type": "session.update", "event_id": id, "session": session})).await;
        let expected = json!([code, format!("session.{param}"), id, "invalid_request_error"]);
        let got = json!([error["code"], error["param"], error["event_id"], error["type"]]);
        assert_eq!(got, expected, "{error}");
    }
    let mut without_type = telephone();
    without_type.as_object_mut().expect("an object").remove("type");
    let error = client.refused(json!({"type": "session.update", "session": without_type})).await;
    assert_eq!(error["message"], "Missing required parameter: 'session.type'.");
    let session = realtime.session(0);
    assert_eq!(session.read(|session| session.config().clone()), before, "nothing has changed");
    assert!(client.all("session.updated").is_empty());
    assert_eq!(session.read(|session| session.record().errors.len()), client.all("error").len());
}

#[tokio::test]
async fn an_update_changes_what_it_names_and_is_echoed_whole() {
    let realtime = Realtime::start(quick()).await.expect("it starts");
    let mut client = Client::connect(&realtime).await;
    let before = client.until("session.created").await["session"].clone();
    let after = client.update(telephone()).await["session"].clone();
    assert_eq!(after["audio"]["input"]["format"], json!({"type": "audio/pcmu"}));
    assert_eq!(after["audio"]["input"]["noise_reduction"], json!({"type": "near_field", "strength": 1.0}));
    assert_eq!(after["audio"]["input"]["turn_detection"]["idle_timeout_ms"], Value::Null);
    for same in ["id", "object", "model", "expires_at", "truncation", "tool_choice", "reasoning"] {
        assert_eq!(after[same], before[same], "{same}");
    }
    let detection = json!({"type": "server_vad", "silence_duration_ms": 900});
    let update = json!({"type": "realtime", "audio": {"input": {"turn_detection": detection, "transcription": null}}});
    let last = client.update(update).await["session"].clone();
    let mut expected = after.clone();
    expected["audio"]["input"]["turn_detection"]["silence_duration_ms"] = json!(900);
    expected["audio"]["input"]["transcription"] = Value::Null;
    assert_eq!(last, expected);
}

#[tokio::test]
async fn the_voice_is_fixed_once_it_was_heard() {
    let realtime = Realtime::start(saying(vec![speech("agent-greeting")])).await.expect("it starts");
    let mut client = Client::on_the_telephone(&realtime).await;
    client.send(json!({"type": "response.create"})).await;
    client.until("response.done").await;
    let update = json!({"type": "session.update", "session": with("/audio/output/voice", json!("cedar"))});
    assert_eq!(client.refused(update).await["code"], "cannot_update_voice");
    client.update(telephone()).await;
}

#[tokio::test]
async fn other_events_are_checked_as_well() {
    let long = "x".repeat(33);
    let text = json!([{"type": "input_text", "text": "Hello"}]);
    let item = |item: Value| json!({"type": "conversation.item.create", "item": item});
    let metadata = |metadata: Value| json!({"type": "response.create", "response": {"metadata": metadata}});
    let many: serde_json::Map<String, Value> = (0..17).map(|n| (n.to_string(), json!("x"))).collect();
    #[rustfmt::skip]
    let table = [
        // (the event, code, param)
        (json!({"type": "session.begin"}), "invalid_value", json!("type")),
        (json!({"session": {}}), "missing_required_parameter", json!("type")),
        (json!({"type": "session.update"}), "missing_required_parameter", json!("session")),
        (json!({"type": "session.update", "session": []}), "invalid_type", json!("session")),
        (json!({"type": "input_audio_buffer.append"}), "missing_required_parameter", json!("audio")),
        (json!({"type": "input_audio_buffer.append", "audio": "no base64!"}), "invalid_value", json!("audio")),
        (json!({"type": "input_audio_buffer.append", "audio": "", "stream": 1}), "unknown_parameter", json!("stream")),
        (json!({"type": "input_audio_buffer.commit"}), "input_audio_buffer_commit_empty", Value::Null),
        (json!({"type": "response.cancel"}), "response_cancel_not_active", Value::Null),
        (json!({"type": "response.cancel", "response_id": "resp_1"}), "response_cancel_not_active", Value::Null),
        (json!({"type": "response.create", "response": {"modalities": ["audio"]}}), "unknown_parameter", json!("response.modalities")),
        (json!({"type": "response.create", "response": {"conversation": "mine"}}), "invalid_value", json!("response.conversation")),
        (json!({"type": "response.create", "response": {"input": [{"type": "item_reference", "id": "item_1"}]}}), "invalid_value", json!("response.input[0].id")),
        (json!({"type": "response.create", "response": {"input": [{"type": "message"}]}}), "missing_required_parameter", json!("response.input[0].role")),
        (metadata(json!(many)), "object_above_max_properties", json!("response.metadata")),
        (metadata(json!({"a": "x".repeat(513)})), "string_above_max_length", json!("response.metadata.a")),
        (metadata(json!({"a": 1})), "invalid_type", json!("response.metadata.a")),
        (item(json!({"type": "message", "role": "user", "content": text, "id": long})), "string_above_max_length", json!("item.id")),
        (item(json!({"type": "message", "role": "user", "content": [{"type": "output_text", "text": "a"}]})), "invalid_value", json!("item.content[0].type")),
        (item(json!({"type": "message", "role": "assistant", "content": [{"type": "output_audio", "transcript": "a", "audio": null}]})), "missing_required_parameter", json!("item.content[0].text")),
        (item(json!({"type": "message", "role": "developer", "content": text})), "invalid_value", json!("item.role")),
        (item(json!({"type": "message", "content": text})), "missing_required_parameter", json!("item.role")),
        (item(json!({"type": "function_call_output", "call_id": "call_1", "output": "a"})), "invalid_tool_call_id", Value::Null),
        (item(json!({"type": "function_call_output", "call_id": "call_1", "output": {"a": 1}})), "invalid_type", json!("item.output")),
        (item(json!({"type": "function_call_output", "call_id": long, "output": "a"})), "string_above_max_length", json!("item.call_id")),
        (item(json!({"type": "function_call", "call_id": long, "name": "a", "arguments": "{}"})), "string_above_max_length", json!("item.call_id")),
        (json!({"type": "conversation.item.create", "previous_item_id": "item_1", "item": {"type": "message", "role": "user", "content": text}}), "item_create_invalid_previous_item_id", json!("previous_item_id")),
        (json!({"type": "conversation.item.delete", "item_id": "item_1"}), "item_delete_invalid_item_id", Value::Null),
        (json!({"type": "conversation.item.retrieve", "item_id": "item_1"}), "item_retrieve_invalid_item_id", Value::Null),
        (json!({"type": "conversation.item.truncate", "item_id": "item_1", "content_index": 0, "audio_end_ms": 1}), "item_truncate_invalid_item_id", Value::Null),
        (json!({"type": "conversation.item.truncate", "item_id": "item_1", "content_index": 0, "audio_end_ms": 1.5}), "invalid_type", json!("audio_end_ms")),
        (json!({"type": "conversation.item.truncate", "item_id": "item_1", "content_index": 0, "audio_end_ms": -1}), "integer_below_min_value", json!("audio_end_ms")),
        (json!({"type": "conversation.item.truncate", "item_id": "item_1", "audio_end_ms": 1}), "missing_required_parameter", json!("content_index")),
    ];
    let realtime = Realtime::start(quick()).await.expect("it starts");
    let mut client = Client::on_the_telephone(&realtime).await;
    for (number, (mut event, code, param)) in table.into_iter().enumerate() {
        event["event_id"] = json!(format!("event {number}"));
        let error = client.refused(event.clone()).await;
        let got = json!([error["code"], error["param"], error["event_id"]]);
        assert_eq!(got, json!([code, param, event["event_id"]]), "{event}: {error}");
    }
    client.send_text("{not json").await;
    assert_eq!(client.until("error").await["error"]["code"], "invalid_json");
    let session = realtime.session(0);
    assert!(session.read(|session| session.items().is_empty() && !session.is_responding()));
}

#[tokio::test]
async fn only_the_assistants_audio_can_be_truncated() {
    let realtime = Realtime::start(quick()).await.expect("it starts");
    let mut client = Client::on_the_telephone(&realtime).await;
    let item = json!({
        "type": "message", "id": "mine", "role": "assistant", "content": [{"type": "output_text", "text": "Hello"}],
    });
    client.send(json!({"type": "conversation.item.create", "item": item})).await;
    client.until("conversation.item.done").await;
    let truncate =
        json!({"type": "conversation.item.truncate", "item_id": "mine", "content_index": 0, "audio_end_ms": 0});
    let error = client.refused(truncate).await;
    assert_eq!(error["message"], "Only model output audio messages can be truncated");
}
