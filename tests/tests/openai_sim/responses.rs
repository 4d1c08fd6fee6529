//! The model's side: responses, tools, failures, token counts.

use std::time::Duration;

use serde_json::{Value, json};
use tests::openai::{Realtime, RealtimeOptions, Reply, Session};
use tests::speech::clip;

use crate::client::{Client, LIMIT, quick, saying, speech, telephone};

#[tokio::test]
async fn speech_comes_in_the_output_format_and_adds_up() {
    let realtime =
        Realtime::start(saying(vec![speech("agent-greeting"), speech("agent-greeting")])).await.expect("it starts");
    let mut client = Client::connect(&realtime).await;
    let create = json!({"type": "response.create"});
    client.send(create.clone()).await;
    let pcm = client.until("response.done").await;
    client.update(telephone()).await;
    client.send(create).await;
    let mulaw = client.until("response.done").await;

    let greeting = clip("agent-greeting");
    let audio = |done: &Value| client.audio_of(done["response"]["output"][0]["id"].as_str().expect("an id"));
    assert_eq!(audio(&pcm).len(), greeting.mulaw.len() * 6, "24 kHz, 16 bits");
    assert_eq!(audio(&mulaw), greeting.mulaw, "byte for byte");
    let part = &mulaw["response"]["output"][0]["content"][0];
    assert_eq!(*part, json!({"type": "output_audio", "transcript": greeting.text}));
    let words: String = client
        .all("response.output_audio_transcript.delta")
        .into_iter()
        .filter(|event| event["response_id"] == mulaw["response"]["id"])
        .filter_map(|event| event["delta"].as_str())
        .collect();
    assert_eq!(words, greeting.text);
}

#[tokio::test]
async fn a_second_response_has_to_wait_for_the_first() {
    let realtime = Realtime::start(saying(vec![speech("agent-hours").after(LIMIT)])).await.expect("it starts");
    let mut client = Client::on_the_telephone(&realtime).await;
    client.send(json!({"type": "response.create"})).await;
    let created = client.until("response.created").await;
    let error = client.refused(json!({"type": "response.create", "event_id": "second"})).await;
    assert_eq!(error["code"], "conversation_already_has_active_response");
    assert_eq!(error["event_id"], "second");
    let id = created["response"]["id"].as_str().expect("an id");
    assert!(error["message"].as_str().expect("text").contains(id), "{error}");

    client.send(json!({"type": "response.cancel", "response_id": id})).await;
    let done = client.until("response.done").await;
    assert_eq!(done["response"]["status_details"]["reason"], "client_cancelled");
    let error = client.refused(json!({"type": "response.cancel"})).await;
    assert_eq!(error["code"], "response_cancel_not_active");
    client.send(json!({"type": "response.create"})).await;
    assert_eq!(client.until("response.done").await["response"]["status"], "completed");
}

#[tokio::test]
async fn a_function_call_ends_its_response_and_its_output_continues_the_script() {
    let arguments = json!({"department": "billing"});
    let preamble = speech("agent-goodbye").then_tool_call("transfer_call", &arguments);
    let realtime = Realtime::start(saying(vec![preamble, speech("agent-saturday")])).await.expect("it starts");
    let mut client = Client::on_the_telephone(&realtime).await;
    client.send(json!({"type": "response.create"})).await;
    let done = client.until("response.done").await;
    let call = &done["response"]["output"][1];
    assert_eq!((&call["type"], &call["status"]), (&json!("function_call"), &json!("completed")));
    assert_eq!(call["arguments"], arguments.to_string());
    let pieces: String = client
        .all("response.function_call_arguments.delta")
        .into_iter()
        .filter_map(|event| event["delta"].as_str())
        .collect();
    assert_eq!(pieces, arguments.to_string());
    assert_eq!(client.all("response.function_call_arguments.done")[0]["output_index"], 1);

    let output = json!({"type": "function_call_output", "call_id": call["call_id"], "output": "done"});
    client.send(json!({"type": "conversation.item.create", "item": output})).await;
    client.until("conversation.item.done").await;
    client.send(json!({"type": "response.create"})).await;
    let done = client.until("response.done").await;
    assert_eq!(done["response"]["output"][0]["content"][0]["transcript"], clip("agent-saturday").text);
}

#[tokio::test]
async fn the_model_cannot_call_what_it_was_not_given() {
    let realtime = Realtime::start(saying(vec![Reply::tool_call("unheard_of", &json!({}))])).await.expect("it starts");
    let mut client = Client::on_the_telephone(&realtime).await;
    client.send(json!({"type": "response.create"})).await;
    let done = client.until("response.done").await;
    assert_eq!(done["response"]["output"][0]["type"], "message");
    assert_eq!(realtime.session(0).read(|session| session.record().script_faults.len()), 1);
}

#[tokio::test]
async fn failures_are_told_in_the_response_only() {
    let cut = speech("agent-hours").incomplete_at(3000, "content_filter");
    let script = vec![Reply::server_error(), Reply::rate_limited(), cut];
    let realtime = Realtime::start(saying(script)).await.expect("it starts");
    let mut client = Client::on_the_telephone(&realtime).await;
    let mut next = async || {
        client.send(json!({"type": "response.create"})).await;
        client.until("response.done").await["response"].clone()
    };
    let failed = next().await;
    assert_eq!((&failed["status"], &failed["output"]), (&json!("failed"), &json!([])));
    assert_eq!(failed["status_details"]["error"]["type"], "server_error");
    assert_eq!(next().await["status_details"]["error"]["code"], "rate_limit_exceeded");
    let incomplete = next().await;
    assert_eq!(incomplete["status_details"], json!({"type": "incomplete", "reason": "content_filter"}));
    assert_eq!(incomplete["usage"]["output_token_details"]["audio_tokens"], 3000 / 50);
    assert!(client.all("error").is_empty());
    let items = realtime.session(0).read(|session| session.items()[0].audio_ms());
    assert_eq!(items, 3000);
}

#[tokio::test]
async fn tokens_follow_the_published_rules_and_are_cached() {
    let realtime =
        Realtime::start(saying(vec![speech("agent-hours"), speech("agent-saturday")])).await.expect("it starts");
    let mut client = Client::on_the_telephone(&realtime).await;
    client.say(&clip("caller-appointment"), 700).await;
    let first = client.until("response.done").await["response"]["usage"].clone();
    let heard = realtime.session(0).read(|session| session.items()[0].audio_ms());
    assert_eq!(first["input_token_details"]["audio_tokens"], heard.div_ceil(100));
    assert_eq!(first["input_token_details"]["cached_tokens"], 0);
    let hours = clip("agent-hours").duration_ms().div_ceil(50);
    assert_eq!(first["output_token_details"]["audio_tokens"], hours);

    client.send(json!({"type": "response.create"})).await;
    let second = client.until("response.done").await["response"]["usage"].clone();
    assert_eq!(second["input_token_details"]["cached_tokens"], first["input_tokens"]);
    let audio = second["input_token_details"]["audio_tokens"].as_u64().expect("a number");
    assert_eq!(audio, heard.div_ceil(100) + hours as u64, "the whole conversation is input again");
    let sum = second["input_tokens"].as_u64().zip(second["output_tokens"].as_u64()).map(|(a, b)| a + b);
    assert_eq!(second["total_tokens"].as_u64(), sum);
}

#[tokio::test]
async fn responses_out_of_band_run_beside_and_leave_no_trace() {
    let options = RealtimeOptions {
        replies: vec![speech("agent-hours").after(Duration::from_millis(300))],
        replies_apart: vec![speech("agent-goodbye")],
        ..quick()
    };
    let realtime = Realtime::start(options).await.expect("it starts");
    let mut client = Client::on_the_telephone(&realtime).await;
    client.send(json!({"type": "response.create"})).await;
    let apart = json!({"conversation": "none", "metadata": {"purpose": "filler"}, "input": []});
    client.send(json!({"type": "response.create", "response": apart})).await;
    client.until("response.done").await;
    client.until("response.done").await;
    let mut done: Vec<&Value> = client.all("response.done").into_iter().map(|event| &event["response"]).collect();
    done.sort_by_key(|response| response["metadata"].is_null());
    assert_eq!(done[0]["metadata"], json!({"purpose": "filler"}));
    assert_eq!(done[0]["conversation_id"], Value::Null);
    assert_eq!((&done[1]["metadata"], &done[1]["status"]), (&Value::Null, &json!("completed")));
    let memory = realtime.session(0).read(Session::memory);
    assert_eq!(memory.len(), 1);
    assert_eq!(memory[0].text, clip("agent-hours").text);
}

#[tokio::test]
async fn text_only_responses_have_text_events() {
    let realtime = Realtime::start(saying(vec![speech("agent-saturday")])).await.expect("it starts");
    let mut client = Client::on_the_telephone(&realtime).await;
    client.send(json!({"type": "response.create", "response": {"output_modalities": ["text"]}})).await;
    let done = client.until("response.done").await;
    let text = clip("agent-saturday").text;
    assert_eq!(done["response"]["output"][0]["content"], json!([{"type": "output_text", "text": text}]));
    assert!(client.all("response.output_audio.delta").is_empty());
    assert_eq!(client.all("response.output_text.done")[0]["text"], text);
}

#[tokio::test]
async fn a_conversation_can_be_carried_over_as_text() {
    let realtime = Realtime::start(quick()).await.expect("it starts");
    let mut client = Client::on_the_telephone(&realtime).await;
    let message = |role: &str, kind: &str, text: &str| json!({"type": "message", "role": role, "content": [{"type": kind, "text": text}]});
    let items = [
        message("user", "input_text", "When are you open?"),
        message("assistant", "output_text", "From eight"),
        json!({"type": "function_call", "call_id": "call_1", "name": "transfer_call", "arguments": "{}"}),
        json!({"type": "function_call_output", "call_id": "call_1", "output": "busy"}),
        message("system", "input_text", "The call continues, do not greet again."),
    ];
    for item in items {
        client.send(json!({"type": "conversation.item.create", "item": item})).await;
        client.until("conversation.item.done").await;
    }
    let first = client.all("conversation.item.added")[0]["item"]["id"].clone();
    let item = message("user", "input_text", "Hello?");
    let event = json!({"type": "conversation.item.create", "previous_item_id": "root", "item": item});
    client.send(event).await;
    client.until("conversation.item.done").await;
    client.send(json!({"type": "conversation.item.delete", "item_id": first})).await;
    client.until("conversation.item.deleted").await;

    let roles = |session: &Session| session.memory().into_iter().map(|each| (each.role, each.text)).collect::<Vec<_>>();
    let expected = [
        ("user", "Hello?"),
        ("assistant", "From eight"),
        ("assistant", "{}"),
        ("tool", "busy"),
        ("system", "The call continues, do not greet again."),
    ];
    let expected: Vec<_> = expected.iter().map(|(role, text)| ((*role).to_owned(), (*text).to_owned())).collect();
    assert_eq!(realtime.session(0).read(roles), expected);
    realtime.session(0).wait_for(|session| session.record().errors.is_empty(), LIMIT).await.expect("no errors");
}
