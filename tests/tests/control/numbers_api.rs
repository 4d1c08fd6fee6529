//! Numbers over HTTP: looking for them, buying them, taking them over, giving them to agents and back.

use serde_json::{Value, json};
use shared::AgentId;
use tests::twilio::{Fault, Number};

use crate::harness::{Answer, assert_problem, eventually};
use crate::pointing::World;

/// The first that the simulated Twilio sells.
const FREE: &str = "+14155550121";

fn for_agent(number: &str, agent: AgentId) -> Value {
    json!({ "number": number, "agentId": agent })
}

fn location(answer: &Answer) -> String {
    answer.headers["location"].to_str().expect("a path").to_owned()
}

async fn settles(world: &World, path: &str, place: &str) -> Value {
    eventually("the number settles", async || {
        let number = world.origin.get(&world.origin.key, path).await.body;
        let pointing = &number["pointing"];
        (pointing["state"] == "settled" && pointing["place"] == place).then_some(number)
    })
    .await
}

#[tokio::test]
async fn numbers_are_looked_for_and_twilios_errors_are_problems() {
    let world = World::start().await;
    let look = async |query: &str| world.origin.get(&world.origin.key, &format!("/api/numbers/available{query}")).await;

    let found = look("?country=US&type=local&areaCode=415").await;
    assert_eq!((found.status, &found.body["items"][0]["number"]), (200, &json!(FREE)), "{}", found.body);
    assert_problem(&look("?country=us").await, 400, "invalid_request");
    assert_problem(&look("?kind=local").await, 400, "unknown_parameter");

    let refused = look("?contains=7").await;
    assert_problem(&refused, 422, "provider_refused");
    assert_eq!((&refused.body["reason"], &refused.body["twilioCode"]), (&json!("twilio_refused"), &json!(20001)));
    for (fault, reason) in [(Fault::ServerError, "twilio_refused"), (Fault::TooManyRequests, "twilio_rate_limited")] {
        world.twilio.fail_next(1, fault);
        let passes = look("").await;
        assert_problem(&passes, 503, "provider_unavailable");
        assert_eq!(passes.body["reason"], reason);
        assert!(passes.headers.contains_key("retry-after"));
    }
}

#[tokio::test]
async fn a_number_is_bought_once_assigned_and_released() {
    let world = World::start().await;
    let origin = &world.origin;
    let stranger = origin.stranger_key().await;
    let wanted = for_agent(FREE, origin.night_line);

    let accepted = origin.post_once("buy", "/api/numbers", &wanted).await;
    assert_eq!((accepted.status, &accepted.body["state"]), (202, &json!("intended")), "{}", accepted.body);
    let again = origin.post_once("buy", "/api/numbers", &wanted).await;
    assert_eq!((again.status, &again.body["id"]), (202, &accepted.body["id"]));
    let other = origin.post("/api/numbers", &wanted).await;
    assert_problem(&other, 409, "number_conflict");
    assert_eq!(other.body["reason"], "number_being_bought");

    let purchase = location(&accepted);
    assert_problem(&origin.get(&stranger, &purchase).await, 404, "not_found");
    let jobs = origin.run_jobs();
    let bought = eventually("it is bought", async || {
        let purchase = origin.get(&origin.key, &purchase).await.body;
        (purchase["state"] == "bought").then_some(purchase)
    })
    .await;
    let path = format!("/api/numbers/{}", bought["numberId"].as_str().expect("the number's id"));
    assert_eq!(settles(&world, &path, "edge").await["systemType"], "openai-realtime");
    let sold = world.twilio.rest_requests();
    let sold = sold.iter().filter(|one| one.method == "POST" && one.path == "IncomingPhoneNumbers.json").count();
    assert_eq!(sold, 1);

    // To an agent on the other system.
    let to = |agent: Option<AgentId>| json!({ "agentId": agent });
    let assigned = origin.put(&origin.key, &path, &to(Some(origin.reception))).await;
    assert_eq!((assigned.status, &assigned.body["systemType"]), (200, &json!("vapi")), "{}", assigned.body);
    settles(&world, &path, "vapi").await;
    let list = origin.get(&origin.key, &format!("/api/numbers?agentId={}", origin.night_line)).await.body;
    assert!(list["items"].as_array().is_some_and(|items| items.iter().all(|item| item["number"] != FREE)), "{list}");

    let release = format!("{path}?confirm=%2B14155550121");
    let refused = origin.delete(&release).await;
    assert_problem(&refused, 409, "number_conflict");
    assert_eq!(refused.body["reason"], "number_assigned");
    assert_eq!(origin.put(&origin.key, &path, &to(None)).await.status, 200);
    settles(&world, &path, "edge").await;
    assert_problem(&origin.delete(&format!("{path}?confirm=%2B14155550122")).await, 400, "invalid_request");
    assert!(world.twilio.number(FREE).is_some());
    assert_eq!(origin.delete(&release).await.status, 204);
    assert!(world.twilio.number(FREE).is_none());
    assert_problem(&origin.get(&origin.key, &path).await, 404, "not_found");
    jobs.abort();
}

#[tokio::test]
async fn a_purchase_that_twilio_refuses_says_so() {
    let world = World::start().await;
    let jobs = world.origin.run_jobs();
    let taken = for_agent("+15005550000", world.origin.night_line);
    let accepted = world.origin.post("/api/numbers", &taken).await;
    let failed = eventually("it fails", async || {
        let purchase = world.origin.get(&world.origin.key, &location(&accepted)).await.body;
        (purchase["state"] == "failed").then_some(purchase)
    })
    .await;
    assert_eq!(failed["errorCode"], "twilio_refused");
    assert!(failed["error"].as_str().is_some_and(|text| text.contains("21422")), "{failed}");
    jobs.abort();
}

#[tokio::test]
async fn a_number_is_adopted_and_pointed_again_after_a_conflict() {
    let world = World::start().await;
    let origin = &world.origin;
    let wanted = for_agent(FREE, origin.night_line);
    let missing = origin.post("/api/numbers/adopt", &wanted).await;
    assert_problem(&missing, 409, "number_conflict");
    assert_eq!(missing.body["reason"], "not_in_twilio_account");

    world.twilio.set_number(Number::new(FREE).voice_url("https://own.test/voice"));
    let adopted = origin.post_once("adopt", "/api/numbers/adopt", &wanted).await;
    assert_eq!((adopted.status, &adopted.body["number"]), (201, &json!(FREE)), "{}", adopted.body);
    let again = origin.post_once("adopt", "/api/numbers/adopt", &wanted).await;
    assert_eq!((again.status, &again.body["id"]), (201, &adopted.body["id"]));
    assert_eq!(origin.post("/api/numbers/adopt", &wanted).await.body["reason"], "number_known");

    // Somebody else is faster than the job.
    world.twilio.set_number(Number::new(FREE).voice_url("https://them.test/voice"));
    let jobs = origin.run_jobs();
    let path = location(&adopted);
    eventually("the conflict is seen", async || {
        let number = origin.get(&origin.key, &path).await.body;
        (number["pointing"]["state"] == "conflict").then_some(())
    })
    .await;
    let pointed = origin.post(&format!("{path}/pointing"), &json!({ "overwrite": true })).await;
    assert_eq!(pointed.status, 202, "{}", pointed.body);
    settles(&world, &path, "edge").await;
    let number = world.twilio.number(FREE).expect("it is ours");
    assert_eq!(number.setting("VoiceUrl"), Some("https://edge.tandem.test/twilio/voice"));
    jobs.abort();
}

#[tokio::test]
async fn what_belongs_to_another_project_is_not_there() {
    let world = World::start().await;
    let origin = &world.origin;
    let stranger = origin.stranger_key().await;
    let path = format!("/api/numbers/{}", world.number);
    let wanted = for_agent(FREE, origin.reception);
    world.twilio.set_number(Number::new(FREE).voice_url("https://own.test/voice"));
    let send = async |method: reqwest::Method, path: &str, body: &Value| {
        crate::harness::answer(origin.request(method, path).bearer_auth(&stranger).json(body)).await
    };

    for answer in [
        origin.get(&stranger, &path).await,
        origin.put(&stranger, &path, &json!({ "agentId": null })).await,
        send(reqwest::Method::DELETE, &format!("{path}?confirm=%2B15550100001"), &Value::Null).await,
        send(reqwest::Method::POST, &format!("{path}/pointing"), &json!({ "overwrite": false })).await,
        send(reqwest::Method::POST, "/api/numbers", &wanted).await,
        send(reqwest::Method::POST, "/api/numbers/adopt", &wanted).await,
    ] {
        assert_problem(&answer, 404, "not_found");
    }
    assert_eq!(origin.get(&stranger, "/api/numbers").await.body["items"], json!([]));
    let read_only = origin.read_key().await;
    assert_problem(&origin.put(&read_only, &path, &json!({ "agentId": null })).await, 403, "forbidden");
    assert_eq!(world.shown().await["agentId"], json!(origin.reception), "nothing has changed");
}
