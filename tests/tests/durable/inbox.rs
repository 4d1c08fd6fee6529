//! Each event takes effect once, whatever is repeated, raced, cut off or out of order.

use futures_util::future::join_all;
use origin::{inbox, late_events};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::world::{World, message};

fn report(call: &str, text: &str) -> Value {
    message(
        "end-of-call-report",
        call,
        &json!({
            "endedReason": "customer-ended-call",
            "endedAt": "2026-11-22T15:01:01.500Z",
            "cost": 0.08,
            "costs": [{ "type": "transport", "cost": 0.01 }],
            "artifact": { "messages": [{ "role": "user", "message": text, "time": 1_795_359_605_000_i64 }] },
        }),
    )
}

fn status(call: &str, status: &str) -> Value {
    message("status-update", call, &json!({ "status": status, "endedReason": "customer-ended-call" }))
}

#[tokio::test]
async fn a_repeated_event_is_acknowledged_and_changes_nothing() {
    let world = World::start().await;
    let first = world.vapi(report("call-1", "Hello")).await;
    assert_eq!((first.status, first.body), (200, json!({})));
    // What a second effect would undo.
    world.execute("update calls set usage = '{\"corrected\": true}'").await;
    world.execute("update transcript_items set text = 'corrected'").await;

    let again = world.vapi(report("call-1", "Hello")).await;

    assert_eq!((again.status, again.body), (200, json!({})));
    let call = world.vapi_call("call-1").await;
    assert_eq!((&call["usage"], &call["transcript"][0]["text"]), (&json!({"corrected": true}), &json!("corrected")));
    assert_eq!(world.metric(r#"tandem_deliveries_total{source="vapi",outcome="applied"}"#), 1);
    assert_eq!(world.metric(r#"tandem_deliveries_total{source="vapi",outcome="repeated"}"#), 1);
    let processed = "select count(*) from webhook_inbox where state = 'applied' and processed_at >= received_at";
    assert_eq!(world.count(processed).await, 1);
}

#[tokio::test]
async fn equal_deliveries_at_once_have_one_effect() {
    let world = World::start().await;
    leave_vapi(&world).await;

    let answers = join_all((0..16).map(|_| world.vapi(status("call-1", "ended")))).await;

    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!(world.count("select count(*) from webhook_inbox where state = 'skipped'").await, 1);
    for (outcome, times) in [("skipped", 1), ("repeated", 15)] {
        let line = format!(r#"tandem_deliveries_total{{source="vapi",outcome="{outcome}"}}"#);
        assert_eq!(world.metric(&line), times, "{outcome}");
    }
}

/// Calls that begin from now on are not Vapi's.
async fn leave_vapi(world: &World) {
    world.execute("update agents set system_type = 'openai-realtime', switched_at = '2026-01-01' where vapi_assistant_id is not null").await;
}

#[tokio::test]
async fn of_each_type_the_first_skip_of_a_minute_is_logged() {
    let world = World::start().await;
    leave_vapi(&world).await;
    let odd = format!("odd\0{}", "x".repeat(9000));

    let sent = (0..12).flat_map(|i| {
        let call = format!("call-{i}");
        [status(&call, "ended"), report(&call, "Hello"), message(&odd, &call, &json!({}))]
    });
    let answers = join_all(sent.map(|message| world.vapi(message))).await;

    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!(world.count("select count(*) from webhook_inbox where state = 'skipped'").await, 36);
    assert_eq!(world.count("select count(*) from calls").await, 0);
    for kind in ["status-update", "end-of-call-report", "other"] {
        let logged = format!("from event_log where type = 'webhook.skipped' and details->>'type' = '{kind}'");
        let logged = world.count(&format!("select count(*) {logged}")).await;
        // Two when the minute changed meanwhile.
        assert!((1..=2).contains(&logged), "{logged} of {kind}");
    }
    let twice = "select count(*) from (select 1 from event_log where type = 'webhook.skipped'
                 group by agent_id, details->>'type', date_trunc('minute', at) having count(*) > 1) twice";
    assert_eq!(world.count(twice).await, 0);
}

#[tokio::test]
async fn another_body_under_the_same_id_is_not_applied() {
    let world = World::start().await;
    assert_eq!(world.vapi_as(Some("id-1"), status("call-1", "in-progress")).await.status, 200);
    assert_eq!(world.vapi_as(Some("id-1"), status("call-1", "ended")).await.status, 200);

    assert_eq!(world.vapi_call("call-1").await["status"], "in-progress");
    assert_eq!(world.metric(r#"tandem_deliveries_total{source="vapi",outcome="conflict"}"#), 1);
}

#[tokio::test]
async fn what_failed_halfway_was_not_received() {
    let world = World::start().await;
    world
        .execute(
            "create function fail() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$;
             create trigger fail before update on calls for each row execute function fail()",
        )
        .await;
    let refused = world.vapi(status("call-1", "ended")).await;
    assert_eq!(refused.status, 500, "{}", refused.body);
    assert_eq!(world.count("select count(*) from webhook_inbox").await, 0);
    assert_eq!(world.count("select count(*) from calls").await, 0, "the call was begun in the same transaction");

    world.execute("drop trigger fail on calls").await;
    assert_eq!(world.vapi(status("call-1", "ended")).await.status, 200);

    assert_eq!(world.vapi_call("call-1").await["status"], "ended");
}

#[tokio::test]
async fn what_passes_is_worth_another_attempt() {
    let world = World::start().await;
    for (state, code) in
        [("08006", 503), ("25006", 503), ("40001", 503), ("53100", 503), ("58030", 503), ("22023", 500)]
    {
        world
            .execute(&format!(
                "create or replace function fail() returns trigger language plpgsql as $$ begin
                     raise exception 'no' using errcode = '{state}';
                 end $$;
                 create or replace trigger fail before insert on calls for each row execute function fail()"
            ))
            .await;
        let refused = world.vapi(status("call-1", "ended")).await;
        assert_eq!((refused.status, &refused.body["status"]), (code, &json!(code)), "{state}");
    }
    world.execute("drop trigger fail on calls").await;

    // Nobody waits for a connection longer than the edge waits for the answer.
    let taken = join_all((0..world.app.db.options().get_max_connections()).map(|_| world.app.db.acquire())).await;
    let refused = world.vapi(status("call-1", "ended")).await;
    assert_eq!((refused.status, &refused.body["code"]), (503, &json!("unavailable")));
    assert_eq!(refused.retry_after.as_deref(), Some("2"));
    drop(taken);
    assert_eq!(world.vapi(status("call-1", "ended")).await.status, 200);
}

#[tokio::test]
async fn every_order_of_a_calls_events_gives_the_same_record() {
    let world = World::start().await;
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for (i, order) in orders.into_iter().enumerate() {
        let name = format!("call-{i}");
        let mut events = [status(&name, "in-progress"), status(&name, "ended"), report(&name, "Hello")];
        events[0]["timestamp"] = json!(1_795_359_600_500_i64);
        events[1]["timestamp"] = json!(1_795_359_661_600_i64);
        events[2]["timestamp"] = json!(1_795_359_666_000_i64);
        events[2]["startedAt"] = json!("2026-11-22T15:00:01.000Z");
        for at in order {
            assert_eq!(world.vapi(events[at].clone()).await.status, 200);
        }
        let call = world.vapi_call(&name).await;
        assert_eq!(
            (&call["status"], &call["endReason"], &call["endDetail"]),
            (&json!("ended"), &json!("caller_hung_up"), &json!("customer-ended-call")),
            "{order:?}"
        );
        assert_eq!(call["transcript"][0]["text"], "Hello", "{order:?}");
        assert!(call["usage"]["costs"].is_array(), "{order:?}: {call}");
        let times = ["startedAt", "answeredAt", "endedAt"].map(|name| call[name].clone());
        assert_eq!(
            times,
            ["2026-11-22T14:59:58Z", "2026-11-22T15:00:00.5Z", "2026-11-22T15:01:01.5Z"],
            "{order:?}: when it came does not count"
        );
    }
}

#[tokio::test]
async fn twilios_callbacks_are_told_apart_by_what_twilio_repeats() {
    let world = World::start().await;
    assert_eq!(world.vapi(status("call-1", "ringing")).await.status, 200);
    world.execute("update calls set call_sid = 'CA01', system_type = 'openai-realtime'").await;

    let at = |second: u32| format!("Timestamp=Sun%2C+22+Nov+2026+15%3A00%3A{second:02}+%2B0000");
    let answered = &format!("CallSid=CA01&CallStatus=in-progress&SequenceNumber=2&{}", at(1));
    let over = &format!("CallSid=CA01&CallStatus=busy&SequenceNumber=3&{}", at(9));
    for form in [over, answered, over, "CallSid=CA77&CallStatus=completed&SequenceNumber=3"] {
        assert_eq!(world.twilio_status(form).await.status, 204);
    }

    let call = world.vapi_call("call-1").await;
    assert_eq!((&call["status"], &call["endReason"]), (&json!("ended"), &json!("busy")));
    let times = (&call["answeredAt"], &call["endedAt"]);
    assert_eq!(times, (&json!("2026-11-22T15:00:01Z"), &json!("2026-11-22T15:00:09Z")));
    for (outcome, times) in [("applied", 2), ("repeated", 1), ("unknown", 1)] {
        let line = format!(r#"tandem_deliveries_total{{source="twilio",outcome="{outcome}"}}"#);
        assert_eq!(world.metric(&line), times, "{outcome}");
    }
}

#[tokio::test]
async fn a_senders_clock_is_believed_within_bounds() {
    let world = World::start().await;
    let told = async |name: &str, at: Value| {
        let mut ended = status(name, "ended");
        ended["timestamp"] = at;
        assert_eq!(world.vapi(ended).await.status, 200);
        let call = world.vapi_call(name).await;
        let time =
            |name: &str| OffsetDateTime::parse(call[name].as_str().expect("a time"), &Rfc3339).expect("RFC 3339");
        (time("startedAt"), time("endedAt"))
    };
    let (started, ended) = told("call-1", json!("2020-01-01T00:00:00Z")).await;
    assert_eq!(started, ended, "nothing ends before it begins");
    let before = OffsetDateTime::now_utc();
    for (name, at) in [("call-2", json!(4_000_000_000_000_i64)), ("call-3", Value::Null)] {
        let (_, ended) = told(name, at).await;
        assert!((before..=OffsetDateTime::now_utc()).contains(&ended), "{ended}");
    }
}

#[tokio::test]
async fn a_stream_that_ended_twice_is_noted_once() {
    let world = World::start().await;
    for _ in 0..2 {
        let form = "CallSid=CA01&StreamSid=MZ01&StreamEvent=stream-error&StreamError=31920";
        let answer =
            world.post("/twilio/stream-status", "application/x-www-form-urlencoded", None, form.to_owned()).await;
        assert_eq!(answer.status, 204);
    }
    assert_eq!(world.count("select count(*) from webhook_inbox where type = '/twilio/stream-status'").await, 1);
}

#[tokio::test]
async fn only_the_edge_names_deliveries() {
    let world = World::start().await;
    for id in ["mine-1", "mine-2"] {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json".parse().expect("a header"));
        headers.insert("x-vapi-secret", "for the tests only".parse().expect("a header"));
        headers.insert("tandem-delivery", id.parse().expect("a header"));
        let body = json!({ "message": status("call-1", "ended") }).to_string();
        assert_eq!(world.send("/api/vapi/webhook", headers, body).await.status, 200);
    }
    // Through the edge it is the same event.
    assert_eq!(world.vapi(status("call-1", "ended")).await.status, 200);
    assert_eq!(world.count("select count(*) from webhook_inbox where delivery_id like 'vapi:call-1:%'").await, 1);
    assert_eq!(world.count("select count(*) from webhook_inbox").await, 1);
}

#[tokio::test]
async fn what_postgres_cannot_hold_does_no_harm() {
    let world = World::start().await;
    let odd = message(&format!("odd\0{}", "x".repeat(9000)), "call-0", &json!({}));
    let nul = |call: &str| {
        let mut report = report(call, "Hel\0lo");
        report["endedReason"] = json!("a\0b");
        report["costs"] = json!([{ "type\0": "\0" }]);
        report
    };
    for message in [odd, nul("call-1")] {
        let answer = world.vapi(message).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    let call = world.vapi_call("call-1").await;
    assert_eq!((&call["transcript"][0]["text"], &call["endDetail"]), (&json!("Hello"), &json!("ab")));
}

#[tokio::test]
async fn what_comes_before_its_call_is_known_counts_once_it_is() {
    let world = World::start().await;
    let over = "CallSid=CA01&CallStatus=no-answer&SequenceNumber=3&Timestamp=Sun%2C+22+Nov+2026+15%3A00%3A09+%2B0000";
    let nobodys = "CallSid=CA77&CallStatus=completed&SequenceNumber=3";
    for form in [over, nobodys] {
        assert_eq!(world.twilio_status(form).await.status, 204);
    }
    // The assistant is nobody's yet.
    world.execute("update agents set vapi_assistant_id = 'other' where vapi_assistant_id is not null").await;
    let mut early = report("call-2", "Hello");
    let more = early.as_object_mut().expect("an object");
    more.remove("phoneNumber");
    assert_eq!(world.vapi(early).await.status, 200);
    // It would change nothing, so nothing of it is kept.
    let mut talk = message("conversation-update", "call-3", &json!({ "messages": [] }));
    talk.as_object_mut().expect("an object").remove("phoneNumber");
    assert_eq!(world.vapi(talk).await.status, 200);
    let waiting = "select count(*) from webhook_inbox where state = 'unknown' and body is not null";
    assert_eq!(world.count(waiting).await, 3);

    late_events::run(&world.app).await.expect("a run");
    assert_eq!(world.count(waiting).await, 3, "no call is known yet");

    world.execute("update agents set vapi_assistant_id = 'assistant-1' where vapi_assistant_id = 'other'").await;
    for call in ["call-1", "call-2"] {
        assert_eq!(world.vapi(status(call, "ringing")).await.status, 200);
    }
    world
        .execute("update calls set call_sid = 'CA01', system_type = 'openai-realtime' where vapi_call_id = 'call-1'")
        .await;
    late_events::run(&world.app).await.expect("a run");
    late_events::run(&world.app).await.expect("another");

    let call = world.vapi_call("call-1").await;
    assert_eq!((&call["endReason"], &call["endedAt"]), (&json!("no_answer"), &json!("2026-11-22T15:00:09Z")));
    let call = world.vapi_call("call-2").await;
    assert_eq!((&call["endReason"], &call["transcript"][0]["text"]), (&json!("caller_hung_up"), &json!("Hello")));
    assert_eq!(world.count(waiting).await, 1);
    let outcome =
        |outcome: &str| world.metric(&format!(r#"tandem_deliveries_total{{source="vapi",outcome="{outcome}"}}"#));
    assert_eq!((outcome("unknown"), outcome("late")), (2, 1));

    // What callers said is not kept for nobody.
    world.execute("update webhook_inbox set received_at = now() - interval '25 hours'").await;
    origin::retention::prune(&world.app.db, &world.app.metrics).await.expect("old bodies are deleted");
    assert_eq!(world.count("select count(*) from webhook_inbox where body is not null").await, 0);
    assert_eq!(world.count("select count(*) from webhook_inbox where call_sid = 'CA77'").await, 1);
}

#[tokio::test]
async fn events_are_forgotten_in_the_end() {
    let world = World::start().await;
    world.vapi(status("call-1", "ended")).await;
    world.vapi(status("call-2", "ended")).await;
    let age = format!("now() - interval '{} days 1 minute'", inbox::KEEP_DAYS);
    world.execute(&format!("update webhook_inbox set received_at = {age} where vapi_call_id = 'call-1'")).await;

    origin::retention::prune(&world.app.db, &world.app.metrics).await.expect("old rows are deleted");

    assert_eq!(world.count("select count(*) from webhook_inbox where vapi_call_id = 'call-2'").await, 1);
    assert_eq!(world.count("select count(*) from webhook_inbox").await, 1);
    assert_eq!(world.metric(r#"tandem_pruned_rows_total{table="webhook_inbox"}"#), 1);
}
