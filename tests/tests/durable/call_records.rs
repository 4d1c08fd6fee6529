//! The record of a call that Vapi ran: as much as of one of ours, once, whatever comes first.

use serde_json::{Value, json};
use tests::tool_server::ToolServer;

use crate::world::{World, message};

/// The report of Vapi's reference, with tools that Vapi and a customer ran.
fn report(call: &str, text: &str) -> Value {
    message(
        "end-of-call-report",
        call,
        &json!({
            "endedReason": "exceeded-max-duration",
            "startedAt": "2026-11-22T15:00:00.000Z",
            "endedAt": "2026-11-22T15:01:01.500Z",
            "cost": 0.0879,
            "costs": [{"type": "transport", "provider": "twilio", "minutes": 1.025, "cost": 0.0088},
                      {"type": "vapi", "subType": "normal", "minutes": 1.025, "cost": 0.0791}],
            "artifact": {
                "recording": {"stereoUrl": "https://storage.example/c-stereo.wav",
                              "mono": {"combinedUrl": "https://storage.example/c-mono.wav"}},
                "performanceMetrics": {"turnLatencyAverage": 1180, "numUserInterrupted": 2},
                "messages": [
                    {"role": "system", "message": "You are a receptionist.", "time": 1_795_359_599_000_i64},
                    {"role": "bot", "message": "Hello", "time": 1_795_359_601_000_i64, "duration": 900},
                    {"role": "user", "message": text, "time": 1_795_359_605_000_i64, "duration": 1700},
                    {"role": "tool_calls", "time": 1_795_359_607_400_i64, "toolCalls": [
                        {"id": "call_1", "type": "function",
                         "function": {"name": "get_slots", "arguments": "{\"date\":\"2026-11-23\"}"}}]},
                    {"role": "tool_call_result", "toolCallId": "call_1", "name": "get_slots",
                     "result": "19:00, 20:30", "time": 1_795_359_608_000_i64},
                ],
            },
        }),
    )
}

/// All that a report tells is in the record, and events before and after it change none of it.
#[tokio::test]
async fn a_report_fills_the_record_whatever_comes_first() {
    let world = World::start().await;
    for (name, is_first) in [("call-1", true), ("call-2", false)] {
        let status = |status: &str| {
            let ended =
                json!({ "status": status, "endedReason": "exceeded-max-duration", "timestamp": 1_795_359_661_500_i64 });
            message("status-update", name, &ended)
        };
        let mut events = vec![status("in-progress"), status("ended")];
        events.insert(if is_first { 0 } else { 2 }, report(name, "A table"));
        for event in events {
            assert_eq!(world.vapi(event).await.status, 200);
        }

        let call = world.vapi_call(name).await;

        assert_eq!((&call["systemType"], &call["status"]), (&json!("vapi"), &json!("ended")), "{call}");
        assert_eq!((&call["endReason"], &call["endDetail"]), (&json!("max_duration"), &json!("exceeded-max-duration")));
        assert_eq!(call["startedAt"], "2026-11-22T14:59:58Z");
        assert_eq!(
            call["cost"],
            json!({"microusd": 87_900, "source": "vapi", "items": [
                {"what": "transport", "microusd": 8_800}, {"what": "vapi normal", "microusd": 79_100}]})
        );
        let lines: Vec<_> = call["transcript"].as_array().expect("a list").iter().map(|line| &line["text"]).collect();
        assert_eq!(lines, ["Hello", "A table"]);
        assert_eq!(
            call["tools"],
            json!([{"toolCallId": "call_1", "name": "get_slots", "arguments": {"date": "2026-11-23"},
                    "result": "19:00, 20:30", "outcome": "ok", "startedAt": "2026-11-22T15:00:07.4Z",
                    "durationMs": 600}])
        );
        let urls: Vec<_> = call["recordings"].as_array().expect("a list").iter().map(|made| &made["url"]).collect();
        assert_eq!(urls, ["https://storage.example/c-stereo.wav", "https://storage.example/c-mono.wav"]);
        assert_eq!((&call["interruptions"], &call["latency"]["toldMeanMs"]), (&json!(2), &json!(1180)));
        assert_eq!((&call["ringMs"], &call["talkMs"]), (&json!(2_000), &json!(61_500)), "{call}");
    }
}

/// Vapi's URLs are signed anew each time, and somebody may replay a report under a name of its own.
#[tokio::test]
async fn a_report_takes_effect_once_under_whatever_name() {
    let world = World::start().await;
    assert_eq!(world.vapi_as(Some("id-1"), report("call-1", "A table")).await.status, 200);
    let mut other = report("call-1", "Another table");
    other["cost"] = json!(7);
    other["artifact"]["messages"].as_array_mut().expect("a list").pop();
    assert_eq!(world.vapi_as(Some("id-2"), other).await.status, 200);

    let call = world.vapi_call("call-1").await;

    assert_eq!((&call["cost"]["microusd"], &call["transcript"][1]["text"]), (&json!(87_900), &json!("A table")));
    assert_eq!(world.count("select count(*) from recordings").await, 2);
    assert_eq!(world.count("select count(*) from call_tools").await, 1);
}

/// A call that began here and went to Vapi keeps its beginning: its words, and what they cost.
#[tokio::test]
async fn a_call_that_went_to_vapi_keeps_what_was_said_before() {
    let world = World::start().await;
    world.vapi(message("status-update", "call-1", &json!({ "status": "in-progress" }))).await;
    world
        .execute(
            r#"insert into transcript_items (call_id, position, role, text, item_id)
               select id, 0, 'assistant', 'Good day', 'item_1' from calls;
               update calls set usage = '{"total_tokens": 5}', cost_microusd = 100,
                   cost = '{"microusd": 100, "source": "price-table", "pricesAsOf": "2026-11-22",
                            "items": [{"what": "m audio out", "microusd": 100}]}'"#,
        )
        .await;
    assert_eq!(world.vapi(report("call-1", "A table")).await.status, 200);

    let call = world.vapi_call("call-1").await;

    let lines: Vec<_> = call["transcript"].as_array().expect("a list").iter().map(|line| &line["text"]).collect();
    assert_eq!(lines, ["Good day", "Hello", "A table"]);
    assert_eq!((&call["cost"]["microusd"], &call["cost"]["source"]), (&json!(88_000), &json!("both")));
    assert_eq!((&call["usage"]["bridged"]["total_tokens"], &call["usage"]["costUsd"]), (&json!(5), &json!(0.0879)));
    assert_eq!(world.count("select cost_microusd from calls").await, 88_000);
}

/// What a tool of ours did for Vapi is on record at once, and the report adds nothing to it.
#[tokio::test]
async fn tools_that_ran_for_vapi_are_on_record() {
    let server = ToolServer::start().await.expect("a tool server");
    let world = World::start().await;
    world.add_tools(&server, &["get_slots", "fails"]).await;
    for (id, name) in [("call_1", "get_slots"), ("call_2", "fails")] {
        let function = json!({ "name": name, "arguments": { "date": "2026-11-24" } });
        let call = json!({ "id": id, "type": "function", "function": function });
        world.vapi(message("tool-calls", "call-1", &json!({ "toolCallList": [call] }))).await;
    }
    world.app.recorder.flush().await;
    assert_eq!(world.vapi(report("call-1", "A table")).await.status, 200);

    let call = world.vapi_call("call-1").await;

    let [slots, fails] = &call["tools"].as_array().expect("a list")[..] else { panic!("two tools: {call}") };
    assert_eq!(slots["arguments"], json!({ "date": "2026-11-24" }));
    assert_eq!(slots["result"], "On 2026-11-24 these times are free: 09:00, 11:30, 16:15.");
    assert_eq!((&slots["outcome"], &fails["outcome"]), (&json!("ok"), &json!("failed")));
    assert!(slots["durationMs"].is_u64() && slots["startedAt"].is_string(), "{slots}");
    assert_eq!(fails["result"], "The tool failed. It may or may not have taken effect.");
}

/// A recording whose origin never came back is not waited for for ever.
#[tokio::test]
async fn a_recording_that_nobody_brings_is_lost_in_the_end() {
    let world = World::start().await;
    for call in ["call-1", "call-2"] {
        world.vapi(message("status-update", call, &json!({ "status": "ended" }))).await;
    }
    world
        .execute(
            "insert into recordings (id, call_id, state, key, started_at)
             select gen_random_uuid(), id, 'recording', vapi_call_id, started_at from calls;
             update calls set started_at = started_at - interval '9 days', ended_at = now() - interval '8 days'
             where vapi_call_id = 'call-1';
             update calls set ended_at = now() where vapi_call_id = 'call-2'",
        )
        .await;

    origin::retention::prune(&world.app.db, &world.app.metrics).await.expect("a run");

    assert_eq!(world.vapi_call("call-1").await["recordings"][0]["state"], "lost");
    assert_eq!(world.vapi_call("call-2").await["recordings"][0]["state"], "recording");
    assert_eq!(world.metric(r#"tandem_recordings_total{outcome="lost"}"#), 1);
}
