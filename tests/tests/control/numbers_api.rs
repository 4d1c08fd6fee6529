//! Numbers over HTTP: looking for them, buying them, taking them over, giving them to agents and back.

use futures_util::future::join_all;
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::{Value, json};
use shared::AgentId;
use tests::twilio::{Fault, Number};
use tests::vapi;

use crate::harness::{Answer, Origin, answer, assert_problem, eventually};
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
        assert_eq!(passes.headers["retry-after"], "5", "nobody has said when");
    }
    world.twilio.fail_next(1, Fault::RateLimited { retry_after_s: 17 });
    assert_eq!(look("").await.headers["retry-after"], "17", "Twilio has");
    world.vapi.faults.next(1, vapi::Fault::RateLimited { retry_after_s: 11 });
    let adopt = world.origin.post("/api/numbers/adopt", &for_agent(FREE, world.origin.reception)).await;
    assert_problem(&adopt, 503, "provider_unavailable");
    assert_eq!(
        (&adopt.body["reason"], &adopt.headers["retry-after"]),
        (&json!("vapi_rate_limited"), &HeaderValue::from(11))
    );
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
    let open = origin.get(&origin.key, "/api/numbers/purchases?state=intended").await.body;
    assert_eq!(open["items"], json!([accepted.body]));
    assert_eq!(origin.get(&stranger, "/api/numbers/purchases").await.body["items"], json!([]));
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
    let list = async |state: &str| {
        origin.get(&origin.key, &format!("/api/numbers/purchases?state={state}")).await.body["items"].clone()
    };
    assert_eq!((list("intended").await, list("bought").await), (json!([]), json!([bought])));

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
    assert_problem(&origin.delete(&format!("{path}?confirm=%2B14155550122")).await, 422, "invalid_value");
    assert!(world.twilio.number(FREE).is_some());
    assert_eq!(origin.delete(&release).await.status, 204);
    assert!(world.twilio.number(FREE).is_none());
    assert_problem(&origin.get(&origin.key, &path).await, 404, "not_found");
    jobs.abort();
}

#[tokio::test]
async fn no_number_comes_that_vapi_cannot_be_told_of() {
    let world = World::with(["VAPI_API_KEY", "VAPI_SERVER_SECRET"].map(|name| (name, String::new())).to_vec()).await;
    let origin = &world.origin;
    world.twilio.set_number(Number::new("+14155550122").voice_url("https://own.test/voice"));
    let bought = origin.post("/api/numbers", &for_agent(FREE, origin.reception)).await;
    let adopted = origin.post("/api/numbers/adopt", &for_agent("+14155550122", origin.reception)).await;
    for refused in [&bought, &adopted] {
        assert_problem(refused, 409, "number_conflict");
        assert_eq!(refused.body["reason"], "not_configured");
    }
    assert_eq!(origin.post("/api/numbers", &for_agent(FREE, origin.night_line)).await.status, 202);
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
async fn a_repeated_adoption_has_its_answer_while_twilio_is_away() {
    let world = World::start().await;
    let origin = &world.origin;
    world.twilio.set_number(Number::new(FREE).voice_url("https://own.test/voice"));
    let wanted = for_agent(FREE, origin.night_line);
    let adopted = origin.post_once("adopt", "/api/numbers/adopt", &wanted).await;
    assert_eq!(adopted.status, 201, "{}", adopted.body);

    world.twilio.fail_next(100, Fault::Silence);
    world.vapi.faults.next(100, vapi::Fault::ServerError);
    let asked = world.vapi.requests().all().len();
    let again = origin.post_once("adopt", "/api/numbers/adopt", &wanted).await;
    assert_eq!((again.status, &again.body), (201, &adopted.body));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(world.vapi.requests().all().len(), asked, "nobody is asked for it");
    for name in ["etag", "location"] {
        assert_eq!(again.headers[name], adopted.headers[name]);
    }
    let other = for_agent(FREE, origin.reception);
    assert_problem(&origin.post_once("adopt", "/api/numbers/adopt", &other).await, 422, "idempotency_key_reused");
}

#[tokio::test]
async fn equal_adoptions_at_once_are_one() {
    let world = World::start().await;
    let origin = &world.origin;
    world.twilio.set_number(Number::new(FREE).voice_url("https://own.test/voice"));
    let wanted = for_agent(FREE, origin.night_line);
    let answers = join_all((0..8).map(|_| origin.post_once("adopt", "/api/numbers/adopt", &wanted))).await;
    for answer in &answers {
        assert_eq!((answer.status, &answer.body), (201, &answers[0].body), "{}", answer.body);
    }
    let replayed = answers.iter().filter(|answer| answer.headers.contains_key("idempotency-replayed"));
    assert_eq!((replayed.count(), count(origin, "number.adopted").await), (7, 1));
}

/// How many events of a type there are.
async fn count(origin: &Origin, kind: &str) -> usize {
    let events = origin.get(&origin.key, &format!("/api/events?limit=200&type={kind}")).await.body;
    events["items"].as_array().expect("a list").len()
}

#[tokio::test]
async fn a_change_of_what_somebody_has_changed_meanwhile_is_refused_and_changes_nothing() {
    let world = World::start().await;
    let origin = &world.origin;
    let path = format!("/api/numbers/{}", world.number);
    let release = format!("{path}?confirm=%2B15550100001");
    let point = format!("{path}/pointing");
    let read = async || origin.get(&origin.key, &path).await;
    let send = async |method: Method, path: &str, tag: &HeaderValue, body: Value| {
        answer(origin.request(method, path).bearer_auth(&origin.key).header("if-match", tag).json(&body)).await
    };
    let to = |agent: Option<AgentId>| json!({ "agentId": agent });
    let stale = read().await.headers["etag"].clone();

    // Each of the three changes makes another state of it.
    let assigned = send(Method::PUT, &path, &stale, to(Some(origin.night_line))).await;
    assert_eq!(assigned.status, 200, "{}", assigned.body);
    let pointed = send(Method::POST, &point, &assigned.headers["etag"], json!({ "overwrite": false })).await;
    assert_eq!(pointed.status, 202, "{}", pointed.body);
    let unassigned = send(Method::PUT, &path, &pointed.headers["etag"], to(None)).await;
    assert_eq!(unassigned.status, 200, "{}", unassigned.body);
    let now = read().await;
    assert_eq!(now.headers["etag"], unassigned.headers["etag"]);
    let tags = [&stale, &assigned.headers["etag"], &pointed.headers["etag"]];
    assert!(tags.iter().all(|tag| **tag != now.headers["etag"]) && tags[1] != tags[2] && tags[0] != tags[1]);

    for tag in tags {
        for refused in [
            send(Method::PUT, &path, tag, to(Some(origin.reception))).await,
            send(Method::PUT, &path, tag, to(None)).await,
            send(Method::POST, &point, tag, json!({ "overwrite": true })).await,
            send(Method::DELETE, &release, tag, Value::Null).await,
        ] {
            assert_problem(&refused, 412, "precondition_failed");
        }
    }
    let after = read().await;
    assert_eq!((&after.body, &after.headers["etag"]), (&now.body, &now.headers["etag"]));
    assert!(world.twilio.number("+15550100001").is_some());
    let released = send(Method::DELETE, &release, &now.headers["etag"], Value::Null).await;
    assert_eq!(released.status, 204, "{}", released.body);
}

#[tokio::test]
async fn a_number_that_is_being_given_back_is_nobodys_until_it_is_gone() {
    let world = World::start().await;
    let origin = &world.origin;
    let path = format!("/api/numbers/{}", world.number);
    let release = format!("{path}?confirm=%2B15550100001");
    let to = |agent: Option<AgentId>| json!({ "agentId": agent });
    let read = async || origin.get(&origin.key, &path).await.body;
    assert_eq!(origin.put(&origin.key, &path, &to(None)).await.status, 200);

    // What Twilio refuses for good leaves it here, without what Vapi has forgotten.
    world.twilio.fail_next(1, Fault::Refused);
    assert_problem(&origin.delete(&release).await, 422, "provider_refused");
    let kept = read().await;
    assert_eq!((&kept["releasingSince"], &kept["vapiPhoneNumberId"]), (&Value::Null, &Value::Null));
    assert_eq!(world.vapi.numbers(), [] as [Value; 0]);

    // What nobody knows the end of is nobody's.
    world.twilio.fail_next(1, Fault::ServerError);
    assert_problem(&origin.delete(&release).await, 503, "provider_unavailable");
    assert!(read().await["releasingSince"].is_string());
    for refused in [
        origin.put(&origin.key, &path, &to(Some(origin.reception))).await,
        origin.post(&format!("{path}/pointing"), &json!({ "overwrite": false })).await,
    ] {
        assert_problem(&refused, 409, "number_conflict");
        assert_eq!(refused.body["reason"], "number_releasing");
    }
    assert!(world.twilio.number("+15550100001").is_some());
    let both = join_all([origin.delete(&release), origin.delete(&release)]).await;
    assert!(both.iter().all(|answer| [204, 404].contains(&answer.status)), "one of them, or both in turn");
    assert!(world.twilio.number("+15550100001").is_none());
    assert_problem(&origin.get(&origin.key, &path).await, 404, "not_found");
    assert_eq!((count(origin, "number.releasing").await, count(origin, "number.released").await), (2, 1));
}

#[tokio::test]
async fn of_two_who_give_a_number_away_at_once_each_sees_what_the_other_did() {
    let world = World::start().await;
    let origin = &world.origin;
    let path = format!("/api/numbers/{}", world.number);
    assert_eq!(origin.put(&origin.key, &path, &json!({ "agentId": null })).await.status, 200);
    let targets = [origin.reception, origin.night_line].map(|agent| json!({ "agentId": agent }));
    let giving = (0..12).map(|i| origin.put(&origin.key, &path, &targets[i % 2]));

    assert!(join_all(giving).await.iter().all(|answer| answer.status == 200));

    let events = origin.get(&origin.key, "/api/events?limit=200&type=number.assigned").await.body;
    let mut events = events["items"].as_array().expect("a list").clone();
    events.reverse();
    assert!(events.len() > 1);
    for pair in events.windows(2) {
        assert_eq!(pair[0]["after"], pair[1]["before"], "each change begins where the one before it ended");
    }
    let number = origin.get(&origin.key, &path).await.body;
    assert_eq!(number["agentId"], events[events.len() - 1]["after"]["agentId"]);
}

#[tokio::test]
async fn an_agent_stays_while_a_number_is_bought_for_it_and_what_is_being_bought_is_not_taken_over() {
    let world = World::start().await;
    let origin = &world.origin;
    let fields = json!({ "name": "Sales", "instructions": "Sell.", "vapiAssistantId": "assistant-9" });
    let made = origin.post("/api/agents", &fields).await;
    let (agent, id) = (location(&made), made.body["id"].clone());
    // Nobody is sold this one.
    let taken = origin.post("/api/numbers", &json!({ "number": "+15005550000", "agentId": id })).await;
    assert_eq!(taken.status, 202, "{}", taken.body);

    let refused = origin.delete(&agent).await;
    assert_problem(&refused, 409, "agent_in_use");
    assert_eq!(refused.body["numbers"], 1);
    world.twilio.set_number(Number::new("+15005550000").voice_url("https://own.test/voice"));
    let adopted = origin.post("/api/numbers/adopt", &for_agent("+15005550000", origin.reception)).await;
    assert_problem(&adopted, 409, "number_conflict");
    assert_eq!(adopted.body["reason"], "number_being_bought");
    world.twilio.remove_number("+15005550000");

    let jobs = origin.run_jobs();
    eventually("the purchase fails", async || {
        let purchase = origin.get(&origin.key, &location(&taken)).await.body;
        (purchase["state"] == "failed").then_some(())
    })
    .await;
    assert_eq!(origin.delete(&agent).await.status, 204);
    assert_eq!(origin.get(&origin.key, &location(&taken)).await.body["agentId"], id, "the purchase outlives it");
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
        answer(origin.request(method, path).bearer_auth(&stranger).json(body)).await
    };

    for answer in [
        origin.get(&stranger, &path).await,
        origin.put(&stranger, &path, &json!({ "agentId": null })).await,
        send(Method::DELETE, &format!("{path}?confirm=%2B15550100001"), &Value::Null).await,
        send(Method::POST, &format!("{path}/pointing"), &json!({ "overwrite": false })).await,
        send(Method::POST, "/api/numbers", &wanted).await,
        send(Method::POST, "/api/numbers/adopt", &wanted).await,
    ] {
        assert_problem(&answer, 404, "not_found");
    }
    assert_eq!(origin.get(&stranger, "/api/numbers").await.body["items"], json!([]));
    let read_only = origin.read_key().await;
    assert_problem(&origin.put(&read_only, &path, &json!({ "agentId": null })).await, 403, "forbidden");
    assert_eq!(world.shown().await["agentId"], json!(origin.reception), "nothing has changed");
}
