//! Buying numbers, taking them over, giving them to agents and back.

use std::time::Duration;

use origin::numbers::{NumberError, holding, purchase};
use origin::store::events::Actor;
use origin::store::purchases::{Purchase, PurchaseId, PurchaseState};
use serde_json::{Value, json};
use shared::{AgentId, E164, NumberId};
use sqlx::{Connection as _, query, query_scalar};
use tests::twilio::{Fault, Number};
use tokio::time::timeout;

use crate::harness::eventually;
use crate::pointing::World;

/// The first that the simulated Twilio sells.
const FREE: &str = "+14155550121";
const ACTOR: Actor = Actor::Command("test");

fn free() -> E164 {
    FREE.parse().expect("a number")
}

async fn intend(world: &World, agent: AgentId) -> PurchaseId {
    try_intend(world, agent, &free()).await.expect("it can be intended")
}

async fn try_intend(world: &World, agent: AgentId, number: &E164) -> Result<PurchaseId, NumberError> {
    let app = &world.origin.app;
    let mut tx = app.db.begin().await.expect("a transaction");
    let id = purchase::intend(&mut tx, &app.config, world.origin.project, agent, number, &ACTOR).await?;
    tx.commit().await.expect("a commit");
    Ok(id)
}

/// How often Twilio was asked to sell, and how many numbers it sold.
fn purchases(world: &World) -> (usize, usize) {
    let requests = world.twilio.rest_requests();
    let buying = requests.iter().filter(|one| one.method == "POST" && one.path == "IncomingPhoneNumbers.json");
    let statuses: Vec<u16> = buying.map(|one| one.status).collect();
    (statuses.len(), statuses.iter().filter(|status| **status == 201).count())
}

/// As if the worker had died so long ago that another may go on.
async fn forget_the_worker(world: &World) {
    for table in ["purchases", "pointings"] {
        let free = format!("update {table} set claimed_until = null, next_at = now()");
        query(sqlx::AssertSqlSafe(free)).execute(&world.origin.app.db).await.expect("the row");
    }
}

async fn shown(world: &World) -> Option<Value> {
    let list = world.origin.get(&world.origin.key, "/api/numbers").await.body;
    list["items"].as_array().expect("a list").iter().find(|item| item["number"] == FREE).cloned()
}

async fn settles(world: &World) -> Value {
    eventually("the number settles", async || {
        shown(world).await.filter(|number| number["pointing"]["state"] == "settled")
    })
    .await
}

#[tokio::test]
async fn a_number_for_the_bridge_is_bought_pointing_at_the_edge() {
    let world = World::start().await;
    let id = intend(&world, world.origin.night_line).await;
    let done = purchase::carry_out(&world.origin.app, id).await.expect("it can be carried out");
    let jobs = world.origin.run_jobs();
    assert_eq!((done.state, done.attempts), (PurchaseState::Bought, 0));
    // From the first moment: nobody who calls meets a number that does nothing.
    let number = world.twilio.number(FREE).expect("it is ours");
    assert_eq!(number.setting("VoiceUrl"), Some("https://edge.tandem.test/twilio/voice"));
    let number = settles(&world).await;
    assert_eq!(
        (&number["systemType"], &number["agentId"]),
        (&json!("openai-realtime"), &json!(world.origin.night_line))
    );
    assert_eq!(purchases(&world), (1, 1));
    // Carried out once more, it is over.
    purchase::carry_out(&world.origin.app, id).await.expect("it is over");
    assert_eq!(purchases(&world), (1, 1));
    let again = try_intend(&world, world.origin.night_line, &free()).await;
    assert!(matches!(again, Err(NumberError::Known)));
    jobs.abort();
}

#[tokio::test]
async fn a_number_for_vapi_is_bought_imported_and_can_leave_and_return() {
    let world = World::start().await;
    intend(&world, world.origin.reception).await;
    // The job does it by itself.
    let jobs = world.origin.run_jobs();
    let number = settles(&world).await;
    assert_eq!((&number["systemType"], &number["pointing"]["place"]), (&json!("vapi"), &json!("vapi")));
    assert!(number["vapiPhoneNumberId"].is_string());
    let inbound = "https://api.vapi.ai/twilio/inbound_call";
    assert_eq!(world.twilio.number(FREE).expect("it is ours").setting("VoiceUrl"), Some(inbound));
    assert_eq!(number["pointing"]["remembered"]["voiceUrl"], inbound);
    let imports = world.vapi.requests().all();
    let imports: Vec<_> = imports.iter().filter(|one| one.method == "POST").collect();
    assert_eq!((imports.len(), &imports[0].body["assistantId"]), (1, &json!("assistant-1")));
    jobs.abort();
}

#[tokio::test]
async fn anothers_number_is_refused_for_good_and_an_outage_is_not() {
    let world = World::start().await;
    let taken: E164 = "+15005550000".parse().expect("a number");
    let night_line = world.origin.night_line;
    let app = &world.origin.app;
    let id = try_intend(&world, night_line, &taken).await.expect("it can be intended");
    let failed = purchase::carry_out(app, id).await.expect("it is carried out");
    assert_eq!((failed.state, failed.error_code.as_deref()), (PurchaseState::Failed, Some("twilio_refused")));
    assert!(failed.error.is_some_and(|text| text.contains("21422")));

    let id = intend(&world, night_line).await;
    for fault in [Fault::TooManyRequests, Fault::ServerError, Fault::BadGateway, Fault::Unauthorized] {
        world.twilio.fail_next(1, fault);
        let waits = purchase::carry_out(app, id).await.expect("it is carried out");
        assert_eq!(waits.state, PurchaseState::Intended, "{fault:?}");
        assert!(waits.error_code.is_some_and(|code| code.starts_with("twilio_")), "{fault:?}");
    }
    let twice = try_intend(&world, night_line, &free()).await;
    assert!(matches!(twice, Err(NumberError::BeingBought)));
    forget_the_worker(&world).await;
    purchase::run(app).await.expect("the job goes on");
    assert!(shown(&world).await.is_some());
    assert_eq!(purchases(&world).1, 1);
}

#[tokio::test]
async fn a_number_that_the_account_has_already_is_not_bought() {
    let world = World::start().await;
    world.twilio.set_number(Number::new(FREE).voice_url("https://own.test/voice"));
    let id = intend(&world, world.origin.night_line).await;
    let failed: Purchase = purchase::carry_out(&world.origin.app, id).await.expect("it is carried out");
    assert_eq!((failed.state, failed.error_code.as_deref()), (PurchaseState::Failed, Some("number_owned")));
    assert_eq!(purchases(&world), (0, 0));
    assert_eq!(shown(&world).await, None);
}

#[tokio::test]
async fn a_number_is_adopted_assigned_and_released() {
    let world = World::start().await;
    let jobs = world.origin.run_jobs();
    let (app, project) = (&world.origin.app, world.origin.project);
    assert!(matches!(holding::look(app, &free()).await, Err(NumberError::NotOwned)));
    world.twilio.set_number(Number::new(FREE).voice_url("https://own.test/voice"));
    let known = holding::look(app, &free()).await.expect("it is ours");
    let mut tx = app.db.begin().await.expect("a transaction");
    let adopted = holding::adopt(&mut tx, &app.config, project, world.origin.night_line, &known, &ACTOR).await;
    let id = adopted.expect("it can be adopted");
    tx.commit().await.expect("a commit");
    settles(&world).await;
    let voice = || world.twilio.number(FREE).and_then(|number| number.setting("VoiceUrl").map(str::to_owned));
    assert_eq!(voice().as_deref(), Some("https://edge.tandem.test/twilio/voice"));

    // To an agent on the other system: the number goes where that is, and Vapi learns of it.
    assign(&world, id, Some(world.origin.reception)).await;
    let at_vapi = eventually("it goes to Vapi", async || {
        shown(&world)
            .await
            .filter(|number| number["pointing"]["place"] == "vapi" && number["pointing"]["state"] == "settled")
    })
    .await;
    assert_eq!(at_vapi["systemType"], "vapi");
    assert_eq!(voice().as_deref(), Some("https://api.vapi.ai/twilio/inbound_call"));

    assert!(matches!(holding::release(app, project, id, &ACTOR).await, Err(NumberError::Assigned)));
    assign(&world, id, None).await;
    eventually("it comes to us", async || {
        (voice().as_deref() == Some("https://edge.tandem.test/twilio/voice")).then_some(())
    })
    .await;
    let call = "insert into calls (id, project_id, agent_id, number_id, call_sid, system_type, to_number)
                values (gen_random_uuid(), $1, $2, $3, 'CA01', 'vapi', $4)";
    query(call)
        .bind(project.0)
        .bind(world.origin.reception.0)
        .bind(id.0)
        .bind(FREE)
        .execute(&app.db)
        .await
        .expect("a call");
    assert!(matches!(holding::release(app, project, id, &ACTOR).await, Err(NumberError::CallsInFlight)));
    let end = "update calls set status = 'ended', ended_at = now(), end_reason = 'caller_hung_up'";
    query(end).execute(&app.db).await.expect("the call ends");

    // The answer to the first attempt is lost with the worker; the second finds it done.
    world.twilio.fail_next(1, Fault::LostAnswer);
    assert!(timeout(Duration::from_secs(2), holding::release(app, project, id, &ACTOR)).await.is_err());
    holding::release(app, project, id, &ACTOR).await.expect("it is released");
    assert_eq!((world.twilio.number(FREE).is_none(), shown(&world).await), (true, None));
    let kept: i64 = query_scalar("select count(*) from calls where to_number = $1")
        .bind(FREE)
        .fetch_one(&app.db)
        .await
        .expect("the calls");
    assert_eq!(kept, 1);
    jobs.abort();
}

async fn assign(world: &World, number: NumberId, to: Option<AgentId>) {
    let mut conn = world.origin.app.db.acquire().await.expect("a connection");
    let mut tx = conn.begin().await.expect("a transaction");
    holding::assign(&mut tx, world.origin.project, number, to, &ACTOR).await.expect("it can be assigned");
    tx.commit().await.expect("a commit");
}
