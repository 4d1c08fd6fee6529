//! Questions about calls that Twilio asks twice, at once or one after the other: one effect, and each gets its answer.

use std::time::Duration;

use futures_util::future::join_all;
use origin::store::calls::{self, NewCall};
use serde_json::{Value, json};
use shared::{CallId, SystemType};
use tests::hosts::Hosts;
use tests::vapi::{Fault, Vapi, VapiOptions};
use time::OffsetDateTime;

use crate::world::{NUMBER, World, eventually};

const SID: &str = "CA0123456789abcdef0123456789abcdef";
const FORM: &str = "application/x-www-form-urlencoded";

/// An origin whose number is handed to a simulated Vapi by the bypass.
async fn with_vapi() -> (World, Vapi, String) {
    let vapi = Vapi::start(VapiOptions::new("vapi-key", Hosts::default())).await.expect("a Vapi");
    let world = World::with(&[("VAPI_API_KEY", "vapi-key"), ("VAPI_API_URL", &vapi.api_url())]).await;
    let assistant = vapi.add_assistant(json!({ "name": "Reception" }));
    let number = vapi.add_number(json!({ "provider": "twilio", "number": NUMBER, "assistantId": assistant }));
    world
        .execute(&format!(
            "update agents set vapi_assistant_id = '{assistant}' where id = '{}';
             update phone_numbers set vapi_handover = 'bypass', vapi_phone_number_id = '{number}'
             where number = '{NUMBER}'",
            world.reception
        ))
        .await;
    (world, vapi, assistant)
}

async fn ask(world: &World, path: &str, delivery: Option<&str>) -> String {
    let status = if path.starts_with("/twilio/voice") { "ringing" } else { "in-progress" };
    let number = NUMBER.replace('+', "%2B");
    let form = format!("CallSid={SID}&AccountSid=AC01&To={number}&From=%2B15550199&CallStatus={status}");
    let answer = world.post(path, FORM, delivery, form).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body.as_str().expect("TwiML").to_owned()
}

fn created(vapi: &Vapi) -> usize {
    let is_creation = |request: &&tests::vapi::Request| request.method == "POST" && request.path == "/call";
    vapi.requests().all().iter().filter(is_creation).count()
}

async fn record(world: &World) -> Value {
    let calls = world.get("/api/calls").await.body;
    assert_eq!(calls["items"].as_array().map(Vec::len), Some(1), "one call, one record: {calls}");
    calls["items"][0].clone()
}

#[tokio::test]
async fn one_caller_is_one_call_at_vapi() {
    let (world, vapi, _) = with_vapi().await;
    // So slow that every question is there before the answer to the first.
    vapi.faults.next(1, Fault::Slow(Duration::from_millis(700)));

    let answers = join_all((0..6).map(|_| ask(&world, "/twilio/voice", Some("twilio:same")))).await;

    assert!(answers[0].contains("<Stream url="), "{}", answers[0]);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(created(&vapi), 1);
    assert_eq!(record(&world).await["vapiCallId"], vapi.calls().all()[0].facts.call_id);
    assert_eq!(ask(&world, "/twilio/voice", None).await, answers[0], "and later");
    assert_eq!(created(&vapi), 1);
}

#[tokio::test]
async fn who_is_slow_is_waited_for() {
    let (world, vapi, _) = with_vapi().await;
    vapi.faults.next(1, Fault::Slow(Duration::from_secs(5)));

    let waits = ask(&world, "/twilio/voice", None).await;
    assert!(waits.contains("<Pause") && waits.contains("/twilio/voice?attempt=2</Redirect>"), "{waits}");
    eventually("Vapi has made the call", async || (record(&world).await["vapiCallId"] != Value::Null).then_some(()))
        .await;
    let taken = ask(&world, "/twilio/voice?attempt=2", None).await;

    assert!(taken.contains("<Stream url="), "{taken}");
    assert_eq!((created(&vapi), record(&world).await["status"].as_str()), (1, Some("ringing")));
}

#[tokio::test]
async fn who_does_not_take_the_call_is_asked_once() {
    let (world, vapi, _) = with_vapi().await;
    vapi.faults.next(2, Fault::ServerError);

    let answers = join_all((0..3).map(|_| ask(&world, "/twilio/voice", None))).await;

    assert!(answers.iter().all(|answer| answer.contains("<Hangup/>")), "{answers:?}");
    assert_eq!((created(&vapi), record(&world).await["endReason"].as_str()), (1, Some("vapi_unavailable")));
    assert_eq!(world.count("select count(*) from event_log where type = 'call.rejected'").await, 1);
}

#[tokio::test]
async fn a_call_that_is_rejected_twice_is_logged_once() {
    let world = World::start().await;
    world.execute("update agents set system_type = 'openai-realtime' where vapi_assistant_id is not null").await;

    let answers = join_all((0..5).map(|_| ask(&world, "/twilio/voice", None))).await;

    assert!(answers.iter().all(|answer| answer.contains("<Hangup/>")), "{answers:?}");
    let events = world.get("/api/events").await.body;
    let rejected = events["items"].as_array().into_iter().flatten().filter(|event| event["type"] == "call.rejected");
    let reasons: Vec<_> = rejected.map(|event| event["details"]["reason"].clone()).collect();
    assert_eq!(reasons, ["cross_system"]);
}

/// Twilio's fallback URL leads straight here, where no edge holds the caller.
#[tokio::test]
async fn a_caller_is_answered_within_5_s_while_the_database_hangs() {
    let world = World::start().await;
    let mut hanging = world.app.db.begin().await.expect("a transaction");
    sqlx::query("lock table calls in access exclusive mode").execute(&mut *hanging).await.expect("the lock");

    let both = async { tokio::join!(ask(&world, "/twilio/voice", None), ask(&world, "/twilio/resume", None)) };
    let (voice, resume) = tokio::time::timeout(Duration::from_secs(5), both).await.expect("Twilio hears in time");

    assert!(voice.contains("/twilio/voice?attempt=2</Redirect>"), "{voice}");
    assert!(resume.contains("/twilio/resume?attempt=2</Redirect>"), "{resume}");
    hanging.rollback().await.expect("it ends");
    let answered = ask(&world, "/twilio/voice?attempt=2", None).await;
    assert!(!answered.contains("<Redirect"), "it is as if nothing had been asked before: {answered}");
}

#[tokio::test]
async fn a_call_that_vapi_made_unheard_is_no_second_record() {
    let (world, vapi, assistant) = with_vapi().await;
    vapi.faults.next(1, Fault::ServerError);
    ask(&world, "/twilio/voice", None).await;
    let told = |id: &str, status: &str| {
        json!({
            "type": "status-update", "status": status, "endedReason": "nobody-came",
            "call": { "id": id, "name": SID, "assistantId": assistant },
        })
    };

    assert_eq!(world.vapi(told("lost-1", "ended")).await.status, 200);
    let call = record(&world).await;
    assert_eq!((&call["vapiCallId"], &call["endReason"]), (&json!("lost-1"), &json!("vapi_unavailable")));

    // Of two, the one that the caller is in counts.
    world.execute("update calls set status = 'in-progress', ended_at = null, end_reason = null").await;
    assert_eq!(world.vapi(told("lost-2", "ended")).await.status, 200);
    let call = record(&world).await;
    assert_eq!((&call["vapiCallId"], &call["status"]), (&json!("lost-1"), &json!("in-progress")));
    assert_eq!(world.vapi(told("lost-1", "ended")).await.status, 200);
    assert_eq!(world.metric(r#"tandem_deliveries_total{source="vapi",outcome="unknown"}"#), 1);
}

/// A call that is bridged, and has lost its stream.
async fn bridged(world: &World) -> CallId {
    let new = NewCall {
        project_id: world.project,
        agent_id: world.reception,
        number_id: None,
        call_sid: Some(&SID.parse().expect("a SID")),
        vapi_call_id: None,
        from: None,
        to: Some(NUMBER),
        system_type: SystemType::OpenaiRealtime,
        started_at: OffsetDateTime::now_utc(),
    };
    let mut conn = world.app.db.acquire().await.expect("a connection");
    calls::begin(&mut conn, &new).await.expect("a call").0.id
}

#[tokio::test]
async fn a_resume_that_is_repeated_counts_once() {
    let world = World::start().await;
    bridged(&world).await;
    let resumes = async || world.count("select resumes::bigint from calls").await;

    let answers = join_all((0..4).map(|_| ask(&world, "/twilio/resume", Some("twilio:first")))).await;
    assert!(answers[0].contains("<Stream url="), "{}", answers[0]);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(resumes().await, 1);
    assert_eq!(ask(&world, "/twilio/resume", Some("twilio:first")).await, answers[0], "and later");

    let waits = ask(&world, "/twilio/resume", Some("twilio:second")).await;
    assert!(waits.contains("/twilio/resume?attempt=2</Redirect>"), "{waits}");
    let again = ask(&world, "/twilio/resume?attempt=2", Some("twilio:third")).await;
    assert!(again.contains("<Stream url=") && again != answers[0], "{again}");
    assert_eq!((resumes().await, ask(&world, "/twilio/resume?attempt=2", Some("twilio:third")).await), (2, again));
    // Without Twilio's token two questions look alike, and each counts.
    ask(&world, "/twilio/resume?attempt=2", None).await;
    ask(&world, "/twilio/resume?attempt=2", None).await;
    assert_eq!(resumes().await, 4);

    // What failed long ago has not kept failing, however often that was.
    world.execute("update calls set failures = 5, resumed_at = resumed_at - interval '1 hour'").await;
    let stream = ask(&world, "/twilio/resume", Some("twilio:later")).await;
    assert!(stream.contains("<Stream url="), "{stream}");
    assert_eq!((resumes().await, world.count("select failures::bigint from calls").await), (5, 1));

    world.execute("update calls set failures = 5").await;
    let sorry = ask(&world, "/twilio/resume?attempt=2", Some("twilio:last")).await;
    assert!(sorry.contains("<Say>We are sorry"), "{sorry}");
    assert_eq!(ask(&world, "/twilio/resume?attempt=2", Some("twilio:last")).await, sorry);
    assert_eq!(resumes().await, 6);
    // Nothing follows such an answer: whoever asks has not heard it.
    assert_eq!(ask(&world, "/twilio/resume", Some("twilio:after")).await, sorry);
    world.execute("update calls set end_reason = 'caller_hung_up'").await;
    let over = ask(&world, "/twilio/resume", Some("twilio:after")).await;
    assert!(!over.contains("<Say>") && over.contains("<Hangup/>"), "{over}");
}

#[tokio::test]
async fn who_is_told_that_nobody_takes_the_call_hears_it_again() {
    let world = World::start().await;
    bridged(&world).await;
    let alone = "update calls set pin_reason = 'openai_quota'; update phone_numbers set vapi_handover = 'none'";
    world.execute(alone).await;
    for (fallback, heard) in [("null", "<Say>We are sorry"), ("'+15550100700'", "+15550100700</Number>")] {
        world.execute(&format!("update agents set fallback_number = {fallback}")).await;
        for path in ["/twilio/resume", "/twilio/resume", "/twilio/voice"] {
            let answer = ask(&world, path, None).await;
            assert!(answer.contains(heard), "{path}: {answer}");
        }
    }
    assert_eq!(record(&world).await["endReason"], "agent_unavailable");
    assert_eq!(world.count("select count(*) from event_log where type = 'call.rejected'").await, 1);
}

#[tokio::test]
async fn who_is_told_that_vapi_does_not_take_the_call_hears_it_again() {
    let (world, vapi, _) = with_vapi().await;
    bridged(&world).await;
    world.execute("update calls set pin_reason = 'openai_quota'").await;
    vapi.faults.next(1, Fault::ServerError);

    let sorry = ask(&world, "/twilio/resume", None).await;
    assert!(sorry.contains("<Say>We are sorry"), "{sorry}");
    assert_eq!(ask(&world, "/twilio/resume", None).await, sorry);
    assert_eq!((created(&vapi), record(&world).await["endReason"].as_str()), (1, Some("vapi_unavailable")));
}

/// The database fails between what came of a transfer and the word to the agent: neither is lost, neither is told twice.
#[tokio::test]
async fn an_agent_learns_what_came_of_a_transfer_or_is_told_when_asked_again() {
    let world = World::start().await;
    let call = bridged(&world).await;
    let step = json!({ "type": "transfer", "destination": { "type": "number", "number": "+15550100700" } });
    let planned = "insert into call_steps (call_id, no, step) values ($1, 1, $2)";
    sqlx::query(planned).bind(call.0).bind(step).execute(&world.app.db).await.expect("a step");
    world
        .execute(
            "create function fail() returns trigger language plpgsql as $$ begin raise 'out of space'; end $$;
             create trigger fail before insert on transcript_items execute function fail()",
        )
        .await;
    let back = "/twilio/resume?after=1&dialled=no-answer";

    let waits = ask(&world, back, None).await;
    assert!(waits.contains("<Redirect") && !waits.contains("<Stream"), "{waits}");
    world.execute("drop trigger fail on transcript_items").await;
    for _ in 0..2 {
        let goes_on = ask(&world, &format!("{back}&attempt=2"), None).await;
        assert!(goes_on.contains("<Stream url="), "{goes_on}");
        let told = "select count(*) from transcript_items where role = 'tool' and text like '%nobody answered%'";
        assert_eq!(world.count(told).await, 1);
    }
}
