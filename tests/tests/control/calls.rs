//! Call records: what may arrive twice, late or out of order, and how the API shows them.

use futures_util::future::join_all;
use origin::end_reason::{EndReason, Ending};
use origin::store::calls::{self, NewCall};
use origin::store::stream_tokens;
use origin::store::transcript_items::{self, Speaker, TranscriptItem};
use serde_json::{Value, json};
use shared::{CallId, CallSid, SystemType, VapiCallId};
use time::OffsetDateTime;

use crate::harness::Origin;

fn new_call<'a>(origin: &Origin, call_sid: Option<&'a CallSid>, vapi: Option<&'a VapiCallId>) -> NewCall<'a> {
    NewCall {
        project_id: origin.project,
        agent_id: origin.reception,
        number_id: None,
        call_sid,
        vapi_call_id: vapi,
        from: Some("+15550199"),
        to: Some("+15550100001"),
        system_type: SystemType::Vapi,
        started_at: OffsetDateTime::now_utc(),
    }
}

fn item(position: i32, role: Speaker, text: &str) -> TranscriptItem {
    TranscriptItem {
        position,
        role,
        text: text.to_owned(),
        item_id: None,
        heard_ms: None,
        interrupted: false,
        at: OffsetDateTime::now_utc(),
    }
}

#[tokio::test]
async fn a_call_is_pinned_once_whoever_comes_first() {
    let origin = Origin::start().await;
    let sid: CallSid = "CA0123456789abcdef".parse().expect("a call SID");
    let begins = (0..12).map(|i| {
        let system_type = if i % 2 == 0 { SystemType::Vapi } else { SystemType::OpenaiRealtime };
        let call = NewCall { system_type, ..new_call(&origin, Some(&sid), None) };
        let db = &origin.app.db;
        async move {
            let mut conn = db.acquire().await.expect("a connection");
            calls::begin(&mut conn, &call).await.expect("a call")
        }
    });

    let begun = join_all(begins).await;

    assert_eq!(begun.iter().filter(|(_, is_new)| *is_new).count(), 1);
    assert!(begun.iter().all(|(call, _)| *call == begun[0].0), "everybody sees the same record and pin");
}

#[tokio::test]
async fn both_names_lead_to_one_call() {
    let origin = Origin::start().await;
    let (sid, vapi): (CallSid, VapiCallId) = ("CA01".parse().expect("a SID"), "vapi-1".parse().expect("an id"));
    let mut conn = origin.database.connect().await;
    let (call, _) = calls::begin(&mut conn, &new_call(&origin, Some(&sid), None)).await.expect("a call");
    calls::set_vapi_call_id(&mut conn, call.id, &vapi).await.expect("the second name");

    let (again, is_new) = calls::begin(&mut conn, &new_call(&origin, None, Some(&vapi))).await.expect("the call");

    assert_eq!((again.id, is_new), (call.id, false));
    assert_eq!(calls::by_call_sid(&mut conn, &sid).await.expect("a look"), Some(again.clone()));
    assert_eq!(calls::by_vapi_call_id(&mut conn, &vapi).await.expect("a look"), Some(again));
}

#[tokio::test]
async fn an_ended_call_stays_ended_with_its_first_reason() {
    let origin = Origin::start().await;
    let sid: CallSid = "CA01".parse().expect("a SID");
    let mut conn = origin.database.connect().await;
    let (call, _) = calls::begin(&mut conn, &new_call(&origin, Some(&sid), None)).await.expect("a call");
    let now = OffsetDateTime::now_utc();
    assert!(calls::end(&mut conn, call.id, now, &EndReason::CallerHungUp.into()).await.expect("an end"));
    let (later, other) = (now + time::Duration::minutes(1), EndReason::StreamFailed.into());
    assert!(!calls::end(&mut conn, call.id, later, &other).await.expect("no end"));
    calls::answered(&mut conn, call.id, now).await.expect("a late answer");

    let path = format!("/api/calls/{}", call.id);
    let shown = origin.get(&origin.key, &path).await.body;

    assert_eq!((&shown["status"], &shown["endReason"]), (&json!("ended"), &json!("caller_hung_up")));
    assert_eq!(origin.get(&origin.stranger_key().await, &path).await.status, 404);
}

#[tokio::test]
async fn a_guessed_reason_gives_way_to_a_known_one() {
    let origin = Origin::start().await;
    let sid: CallSid = "CA01".parse().expect("a SID");
    let mut conn = origin.database.connect().await;
    let (call, _) = calls::begin(&mut conn, &new_call(&origin, Some(&sid), None)).await.expect("a call");
    let now = OffsetDateTime::now_utc();
    let guessed = Ending::from(EndReason::CallerHungUp).guessed("completed");
    let known = EndReason::AgentHungUp.into();
    let endings = [&guessed, &Ending::from(EndReason::Reconciled).guessed("completed"), &known, &guessed];
    let mut first = Vec::new();
    for (minute, ending) in (0..).zip(endings) {
        let at = now + time::Duration::minutes(minute);
        first.push(calls::end(&mut conn, call.id, at, ending).await.expect("an end"));
    }

    let shown = origin.get(&origin.key, &format!("/api/calls/{}", call.id)).await.body;

    assert_eq!(first, [true, false, false, false]);
    assert_eq!((&shown["endReason"], &shown["endDetail"]), (&json!("agent_hung_up"), &Value::Null));
    let again = calls::get(&mut conn, origin.project, call.id).await.expect("a look").expect("a call");
    let apart = again.ended_at.expect("it has ended") - now;
    assert!(apart.abs() < time::Duration::milliseconds(1), "the first to end it gives the time: {apart}");
}

fn of<const N: usize>(call: CallId, items: [TranscriptItem; N]) -> Vec<(CallId, TranscriptItem)> {
    items.map(|item| (call, item)).into()
}

#[tokio::test]
async fn a_transcript_is_shown_in_order_as_it_was_corrected() {
    let origin = Origin::start().await;
    let sid: CallSid = "CA01".parse().expect("a SID");
    let mut conn = origin.database.connect().await;
    let (call, _) = calls::begin(&mut conn, &new_call(&origin, Some(&sid), None)).await.expect("a call");
    let first = [item(1, Speaker::Assistant, "Good day, how can I"), item(0, Speaker::Caller, "")];
    transcript_items::write(&mut conn, &of(call.id, first)).await.expect("a transcript");
    let corrected = [
        item(0, Speaker::Caller, "Hello?"),
        TranscriptItem { heard_ms: Some(900), interrupted: true, ..item(1, Speaker::Assistant, "Good day") },
        item(2, Speaker::Tool, "end_call({})"),
    ];
    transcript_items::write(&mut conn, &of(call.id, corrected)).await.expect("a correction");

    let shown = origin.get(&origin.key, &format!("/api/calls/{}", call.id)).await.body;

    let lines: Vec<_> = shown["transcript"].as_array().expect("a transcript").iter().collect();
    assert_eq!(lines.len(), 3);
    assert_eq!((&lines[0]["role"], &lines[0]["text"]), (&json!("caller"), &json!("Hello?")));
    assert_eq!((&lines[1]["heardMs"], &lines[1]["interrupted"]), (&json!(900), &json!(true)));
    assert_eq!(lines[2]["role"], "tool");
    assert_eq!(origin.get(&origin.key, "/api/calls").await.body["items"][0]["id"], shown["id"]);
}

#[tokio::test]
async fn a_stream_token_opens_one_stream() {
    let origin = Origin::start().await;
    let expires_at = OffsetDateTime::now_utc() + time::Duration::minutes(2);
    let used = join_all((0..8).map(|_| async {
        let mut conn = origin.app.db.acquire().await.expect("a connection");
        stream_tokens::consume(&mut conn, b"signature", expires_at).await.expect("a look")
    }))
    .await;
    assert_eq!(used.iter().filter(|first| **first).count(), 1);
}
