//! Calls without news: who is asked, and what is closed.

use origin::end_reason::Ending;
use origin::reconcile;
use origin::store::calls::{self, NewCall};
use serde_json::{Value, json};
use shared::{CallId, CallSid, SystemType, VapiCallId};
use tests::hosts::Hosts;
use tests::twilio::{InboundCall, Number, Twilio, TwilioOptions};
use tests::vapi::{Vapi, VapiOptions};
use time::format_description::well_known::{Rfc2822, Rfc3339};
use time::{Duration, OffsetDateTime};

use crate::providers::Providers;
use crate::world::{World, eventually};

async fn world(providers: &Providers) -> World {
    let url = providers.url();
    World::with(&[
        ("TWILIO_ACCOUNT_SID", "AC01"),
        ("TWILIO_AUTH_TOKEN", "token"),
        ("TWILIO_API_URL", &url),
        ("VAPI_API_KEY", "vapi-key"),
        ("VAPI_API_URL", &url),
    ])
    .await
}

/// A call that began some time ago: bridged if it has a SID, else Vapi's.
async fn open_call(world: &World, name: &str, age: Duration) -> CallId {
    let call_sid: Option<CallSid> = name.parse().ok();
    let vapi_call_id: Option<VapiCallId> = if call_sid.is_none() { name.parse().ok() } else { None };
    let new = NewCall {
        project_id: world.project,
        agent_id: world.reception,
        number_id: None,
        call_sid: call_sid.as_ref(),
        vapi_call_id: vapi_call_id.as_ref(),
        from: None,
        to: None,
        system_type: if call_sid.is_some() { SystemType::OpenaiRealtime } else { SystemType::Vapi },
        started_at: OffsetDateTime::now_utc() - age,
    };
    let mut conn = world.app.db.acquire().await.expect("a connection");
    calls::begin(&mut conn, &new).await.expect("a call").0.id
}

async fn shown(world: &World, call: CallId) -> Value {
    world.get(&format!("/api/calls/{call}")).await.body
}

async fn run(world: &World) {
    reconcile::run(&world.app).await.expect("a run");
}

fn counted(world: &World, outcome: &str) -> u64 {
    world.metric(&format!(r#"tandem_reconciled_calls_total{{outcome="{outcome}"}}"#))
}

#[tokio::test]
async fn what_is_over_at_twilio_is_closed() {
    let providers = Providers::start().await;
    let world = world(&providers).await;
    let over = open_call(&world, "CA01", Duration::minutes(20)).await;
    let alive = open_call(&world, "CA02", Duration::minutes(20)).await;
    let young = open_call(&world, "CA03", Duration::minutes(5)).await;
    let ended_at = (OffsetDateTime::now_utc() - Duration::minutes(15)).truncate_to_second();
    let rfc_2822 = ended_at.format(&Rfc2822).expect("a text");
    let end = json!({ "status": "busy", "end_time": rfc_2822 });
    providers.set("CA01", 200, end.clone());
    providers.set("CA02", 200, json!({ "status": "in-progress", "end_time": null }));
    providers.set("CA03", 200, end);

    run(&world).await;

    let call = shown(&world, over).await;
    assert_eq!((&call["status"], &call["endReason"]), (&json!("ended"), &json!("reconciled")));
    assert_eq!(call["endedAt"], ended_at.format(&Rfc3339).expect("a text"));
    let event = world.get("/api/events").await.body["items"][0].clone();
    assert_eq!((&event["type"], &event["callId"]), (&json!("call.reconciled"), &json!(over)));
    assert_eq!(event["details"], json!({ "told": "busy", "system": "openai-realtime" }));
    for open in [alive, young] {
        assert_eq!(shown(&world, open).await["status"], "ringing");
    }
    let mut asked = providers.asked();
    // Several are asked about at a time.
    asked.sort();
    assert_eq!(asked, ["CA01", "CA02"]);
    assert_eq!((counted(&world, "closed"), counted(&world, "alive")), (1, 1));
}

#[tokio::test]
async fn an_event_of_a_job_names_the_job() {
    let providers = Providers::start().await;
    let world = world(&providers).await;
    open_call(&world, "CA01", Duration::minutes(20)).await;
    providers.set("CA01", 200, json!({ "status": "completed" }));
    let jobs = tokio::spawn(origin::jobs::run(std::sync::Arc::clone(&world.app)));

    world.execute("select from graphile_worker.add_job(identifier => 'reconcile', payload => '{}')").await;

    let event = eventually("the call is closed", async || {
        // Other jobs log theirs beside it.
        let events = world.get("/api/events?type=call.reconciled").await.body;
        events["items"].get(0).cloned()
    })
    .await;
    let name = event["requestId"].as_str().expect("the job's name");
    assert!(name.strip_prefix("job-").is_some_and(|id| id.parse::<i64>().is_ok()), "{name}");
    world.app.shutdown.cancel();
    jobs.await.expect("the worker ends");
}

#[tokio::test]
async fn vapis_transcript_and_costs_are_taken_over() {
    let providers = Providers::start().await;
    let world = world(&providers).await;
    let call = open_call(&world, "vapi-1", Duration::hours(1)).await;
    let ended_at = (OffsetDateTime::now_utc() - Duration::minutes(15)).truncate_to_second();
    let ended_at = ended_at.format(&Rfc3339).expect("a text");
    providers.set(
        "vapi-1",
        200,
        json!({
            "id": "vapi-1", "status": "ended", "endedReason": "silence-timed-out", "endedAt": ended_at,
            "cost": 0.08, "costs": [{ "type": "vapi", "cost": 0.05 }],
            "artifact": { "messages": [{ "role": "bot", "message": "Hello", "time": 1_795_359_601_000_i64, "duration": 900 }] },
        }),
    );

    run(&world).await;

    let call = shown(&world, call).await;
    assert_eq!((&call["endReason"], &call["endedAt"]), (&json!("reconciled"), &json!(ended_at)));
    assert_eq!((&call["transcript"][0]["text"], &call["usage"]["costUsd"]), (&json!("Hello"), &json!(0.08)));
    assert_eq!((&call["cost"]["microusd"], &call["endDetail"]), (&json!(80_000), &json!("silence-timed-out")));
    let event = world.get("/api/events").await.body["items"][0].clone();
    assert_eq!(event["details"]["told"], "silence-timed-out");
}

#[tokio::test]
async fn a_live_call_is_not_touched() {
    let providers = Providers::start().await;
    let world = world(&providers).await;
    let call = open_call(&world, "CA01", Duration::hours(2)).await;
    providers.set("CA01", 200, json!({ "status": "completed" }));
    let stream = world.app.live.enter(call, None);
    run(&world).await;
    assert!(providers.asked().is_empty());

    drop(stream);
    run(&world).await;

    assert_eq!(shown(&world, call).await["endReason"], "reconciled");
}

#[tokio::test]
async fn a_call_that_nobody_knows_is_over_after_a_day() {
    let providers = Providers::start().await;
    let world = world(&providers).await;
    let recent = open_call(&world, "CA01", Duration::hours(23)).await;
    let old = open_call(&world, "vapi-1", Duration::hours(25)).await;

    run(&world).await;

    assert_eq!(shown(&world, recent).await["status"], "ringing");
    assert_eq!(shown(&world, old).await["endReason"], "reconciled");
    assert_eq!((counted(&world, "missing"), counted(&world, "closed")), (1, 1));
}

#[tokio::test]
async fn a_sub_accounts_call_is_asked_about_under_its_own_account() {
    let providers = Providers::start().await;
    let url = providers.url();
    let world = World::with(&[
        ("TWILIO_ACCOUNT_SID", "AC01"),
        ("TWILIO_AUTH_TOKEN", "token,AC02:its-own"),
        ("TWILIO_API_URL", &url),
    ])
    .await;
    let [over, gone, alive, unsaid] = [
        open_call(&world, "CA01", Duration::hours(1)).await,
        open_call(&world, "CA02", Duration::hours(1)).await,
        open_call(&world, "CA03", Duration::hours(1)).await,
        open_call(&world, "CA04", Duration::hours(1)).await,
    ];
    for sid in ["CA01", "CA02", "CA03"] {
        let form = format!("CallSid={sid}&AccountSid=AC02&CallStatus=ringing&SequenceNumber=0");
        assert_eq!(world.twilio_status(&form).await.status, 204);
    }
    providers.set("AC02/CA01", 200, json!({ "status": "completed" }));
    // Under the main account nobody is to look.
    providers.set("CA02", 200, json!({ "status": "in-progress" }));
    providers.set("AC02/CA03", 200, json!({ "status": "in-progress" }));
    providers.set("AC02/CA04", 200, json!({ "status": "completed" }));

    run(&world).await;

    assert_eq!(shown(&world, over).await["endReason"], "reconciled");
    assert_eq!(shown(&world, gone).await["endReason"], "reconciled", "its own account does not know it");
    assert_eq!(shown(&world, alive).await["status"], "ringing");
    assert_eq!(shown(&world, unsaid).await["endReason"], "reconciled", "all accounts are asked");
    let mut asked = providers.asked();
    asked.sort_unstable();
    assert_eq!(asked, ["AC02/CA01", "AC02/CA02", "AC02/CA03", "AC02/CA04", "CA04"]);
}

#[tokio::test]
async fn faults_cost_a_call_its_turn_and_nobody_else_theirs() {
    let providers = Providers::start().await;
    let world = world(&providers).await;
    let failing = open_call(&world, "CA01", Duration::hours(1)).await;
    let over = open_call(&world, "CA02", Duration::hours(1)).await;
    providers.set("CA01", 500, json!({}));
    providers.set("CA02", 200, json!({ "status": "completed" }));

    run(&world).await;
    assert_eq!(shown(&world, over).await["endReason"], "reconciled");
    assert_eq!(counted(&world, "failed"), 1);

    providers.set("CA01", 200, json!({ "status": "completed" }));
    run(&world).await;
    assert_eq!(shown(&world, failing).await["status"], "ringing", "it was asked about a moment ago");
    world.execute("update calls set asked_at = asked_at - interval '11 minutes'").await;
    run(&world).await;
    assert_eq!(shown(&world, failing).await["endReason"], "reconciled");
}

#[tokio::test]
async fn a_rate_limit_ends_the_run_and_costs_no_turn() {
    let providers = Providers::start().await;
    let world = world(&providers).await;
    for i in 0..12 {
        open_call(&world, &format!("CA{i}"), Duration::hours(1)).await;
        providers.set(&format!("CA{i}"), 429, json!({ "code": 20429 }));
    }

    run(&world).await;

    assert_eq!(providers.asked().len(), 4, "what was under way at once");
    assert_eq!(world.count("select count(*) from calls where asked_at is null").await, 12);
}

#[tokio::test]
async fn news_that_comes_meanwhile_stands() {
    let providers = Providers::start().await;
    let world = world(&providers).await;
    let call = open_call(&world, "vapi-1", Duration::hours(1)).await;
    providers.set("vapi-1", 200, json!({ "status": "in-progress" }));
    run(&world).await;
    let mut conn = world.app.db.acquire().await.expect("a connection");
    calls::end(&mut conn, call, OffsetDateTime::now_utc(), &Ending::of_vapi("customer-ended-call"))
        .await
        .expect("an end");

    run(&world).await;

    assert_eq!(shown(&world, call).await["endReason"], "caller_hung_up");
}

#[tokio::test]
async fn the_simulated_services_are_asked_as_the_real_ones_would_be() {
    let hosts = Hosts::default();
    let account = "AC0123456789abcdef0123456789abcdef";
    let twilio = Twilio::start(TwilioOptions::new(account, "token", hosts.clone())).await.expect("a Twilio");
    let mut options = VapiOptions::new("vapi-key", hosts);
    options.no_call_limit = std::time::Duration::from_millis(50);
    let vapi = Vapi::start(options).await.expect("a Vapi");
    let world = World::with(&[
        ("TWILIO_ACCOUNT_SID", account),
        ("TWILIO_AUTH_TOKEN", "token"),
        ("TWILIO_API_URL", &twilio.api_url()),
        ("VAPI_API_KEY", "vapi-key"),
        ("VAPI_API_URL", &vapi.api_url()),
    ])
    .await;
    // Nobody is at these URLs, so the call fails; and nobody brings the other to Vapi, so it ends.
    twilio.set_number(Number::new("+15550100001").voice_url("https://edge.tandem.test/twilio/voice"));
    let sid = twilio.call(InboundCall { to: "+15550100001".to_owned(), ..InboundCall::default() }).sid().to_string();
    let assistant = vapi.add_assistant(json!({ "name": "Reception" }));
    let number = vapi.add_number(json!({ "provider": "twilio", "number": "+15550100001", "assistantId": assistant }));
    let config = world.app.config.vapi.as_ref().expect("Vapi is configured");
    let assistant = assistant.parse().expect("an assistant id");
    let call_sid = "CA01".parse().expect("a SID");
    let made =
        origin::providers::vapi::create_bypass_call(&world.app.http, config, &number, &assistant, None, &call_sid)
            .await;
    let made = made.expect("a call at Vapi").id.to_string();
    vapi.calls().first("the call is over", |call| call.ended_at.is_some()).await;
    let (at_twilio, at_vapi) =
        (open_call(&world, &sid, Duration::hours(1)).await, open_call(&world, &made, Duration::hours(1)).await);

    for call in [at_twilio, at_vapi] {
        eventually("the call is closed", async || {
            world.execute("update calls set asked_at = null").await;
            run(&world).await;
            (shown(&world, call).await["endReason"] == "reconciled").then_some(())
        })
        .await;
    }
}
