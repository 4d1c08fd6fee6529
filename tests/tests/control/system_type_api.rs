//! `GET` and `PUT /api/agents/{id}/system-type`, over HTTP.

use futures_util::future::join_all;
use origin::config::Systems;
use origin::store::events::Actor;
use origin::switching;
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::{Value, json};
use shared::SystemType;
use sqlx::{query, query_scalar};
use tests::twilio::{Fault, Number};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::harness::{Origin, answer, assert_problem, cloudflare, eventually};
use crate::kv::FakeKv;
use crate::pointing::World;

fn time_of(value: &Value) -> OffsetDateTime {
    OffsetDateTime::parse(value.as_str().expect("a time"), &Rfc3339).expect("an RFC 3339 time")
}

#[tokio::test]
async fn a_switch_moves_the_agent_its_numbers_and_logs_one_event() {
    let origin = Origin::start().await;
    let before = origin.agent(origin.reception).await;
    assert_eq!((before["systemType"].as_str(), before["switchedAt"].as_str()), (Some("vapi"), None));

    let switched = origin.switch(origin.reception, "openai-realtime").await;

    assert_eq!(switched.status, 200, "{}", switched.body);
    let agent = switched.body;
    assert_eq!(agent["id"], json!(origin.reception));
    assert_eq!(agent["projectId"], json!(origin.project));
    assert_eq!(agent["name"], "Reception");
    assert_eq!(agent["systemType"], "openai-realtime");
    assert_eq!(agent["numbers"], json!([{ "number": "+15550100001", "systemType": "openai-realtime" }]));
    assert_eq!(agent["replica"]["replicated"], false);
    assert_eq!((&agent["twilio"], &agent["inEffect"]), (&Value::Null, &json!(false)), "the number stays at the edge");
    assert!(agent["replica"]["revision"].as_i64() > before["replica"]["revision"].as_i64());
    assert_eq!(agent, origin.agent(origin.reception).await, "the answer is the agent as it is read afterwards");

    let events = origin.events(origin.reception).await;
    let [event] = events.as_slice() else { panic!("one change, one event: {events:?}") };
    assert_eq!(event["type"], "agent.system_type_changed");
    assert_eq!(event["actor"], json!(format!("api-key:{}", &origin.key[..12])));
    assert_eq!(event["requestId"], switched.headers["x-request-id"].to_str().expect("a text"));
    assert_eq!(event["before"]["systemType"], "vapi");
    assert_eq!(event["before"]["numbers"][0]["systemType"], "vapi");
    assert_eq!(event["after"]["systemType"], "openai-realtime");
    assert_eq!(event["after"]["numbers"][0]["systemType"], "openai-realtime");
    assert_eq!(time_of(&event["after"]["switchedAt"]), time_of(&agent["switchedAt"]));
}

#[tokio::test]
async fn a_switch_is_in_effect_once_the_edge_and_twilio_know_and_until_then_says_what_is_missing() {
    let kv = FakeKv::start().await;
    let world = World::with(cloudflare(&kv)).await;
    let (origin, reception) = (&world.origin, world.origin.reception);
    let path = format!("/api/agents/{reception}/system-type");
    let read = async || origin.get(&origin.key, &path).await.body;
    world.twilio.fail_next(1, Fault::ServerError);
    world.twilio.fail_next(1, Fault::RateLimited { retry_after_s: 1 });

    let switched = origin.switch(reception, "openai-realtime").await.body;

    assert_eq!(switched["inEffect"], false);
    let number = json!({
        "number": "+15550100001", "place": "edge", "state": "pending", "attempts": 0, "error": null,
    });
    assert_eq!(switched["twilio"], json!({ "state": "pending", "numbers": [number] }));
    let jobs = origin.run_jobs();
    for (attempts, code) in [(1, "twilio_refused"), (2, "twilio_rate_limited")] {
        let waits = eventually("Twilio does not take it", async || {
            let agent = read().await;
            (agent["twilio"]["numbers"][0]["attempts"] == attempts).then_some(agent)
        })
        .await;
        assert_eq!((&waits["inEffect"], &waits["twilio"]["state"]), (&json!(false), &json!("pending")));
        let error = &waits["twilio"]["numbers"][0]["error"];
        assert_eq!(error["code"], code, "{waits}");
        assert!(error["detail"].as_str().is_some_and(|text| text.starts_with("Twilio")), "{error}");
    }
    let done = eventually("it is in effect", async || {
        let agent = read().await;
        (agent["inEffect"] == true).then_some(agent)
    })
    .await;
    assert_eq!((&done["twilio"]["state"], &done["replica"]["replicated"]), (&json!("settled"), &json!(true)));
    assert_eq!(done["twilio"]["numbers"][0]["error"], Value::Null);
    assert_eq!(done, origin.agent(reception).await);
    let list = origin.get(&origin.key, "/api/agents").await.body;
    assert!(list["items"].as_array().is_some_and(|items| items.contains(&done)), "{list}");

    // What somebody else has set waits for a person, which is no longer pending.
    world.twilio.set_number(Number::new("+15550100001").voice_url("https://them.test/voice"));
    assert_eq!(origin.switch(reception, "vapi").await.body["inEffect"], false);
    let conflict = eventually("the conflict is seen", async || {
        let agent = read().await;
        (agent["replica"]["replicated"] == true && agent["twilio"]["state"] == "conflict").then_some(agent)
    })
    .await;
    assert_eq!(conflict["inEffect"], false);
    assert_eq!(conflict["twilio"]["numbers"][0]["error"]["code"], "conflict");
    jobs.abort();
}

#[tokio::test]
async fn a_switch_of_what_somebody_has_changed_meanwhile_is_refused_where_that_is_asked_for() {
    let origin = Origin::start().await;
    let path = format!("/api/agents/{}/system-type", origin.reception);
    let read = origin.get(&origin.key, &path).await.headers["etag"].clone();
    origin.patch(&format!("/api/agents/{}", origin.reception), &json!({ "greeting": "Hello." })).await;
    let switch = async |tag: &HeaderValue| {
        let request = origin.request(Method::PUT, &path).bearer_auth(&origin.key).header("if-match", tag);
        answer(request.json(&json!({ "systemType": "openai-realtime" }))).await
    };
    assert_problem(&switch(&read).await, 412, "precondition_failed");
    assert_eq!(origin.agent(origin.reception).await["systemType"], "vapi");
    let now = origin.get(&origin.key, &path).await.headers["etag"].clone();
    let switched = switch(&now).await;
    assert_eq!((switched.status, &switched.body["systemType"]), (200, &json!("openai-realtime")));
    assert_ne!(switched.headers["etag"], now);
}

#[tokio::test]
async fn the_same_value_again_changes_and_logs_nothing() {
    let origin = Origin::start().await;
    let first = origin.switch(origin.reception, "openai-realtime").await;
    let jobs = waiting_jobs(&origin).await;

    let again = origin.switch(origin.reception, "openai-realtime").await;

    assert_eq!((again.status, &again.body), (200, &first.body));
    assert_eq!(origin.events(origin.reception).await.len(), 1);
    assert_eq!(waiting_jobs(&origin).await, jobs, "nothing was enqueued");
}

/// The waiting jobs, and how often each was renewed.
async fn waiting_jobs(origin: &Origin) -> Vec<(String, i32)> {
    sqlx::query_as("select key, revision from graphile_worker._private_jobs order by id")
        .fetch_all(&origin.app.db)
        .await
        .expect("the jobs")
}

#[tokio::test]
async fn concurrent_switches_happen_one_after_another() {
    let origin = Origin::start().await;
    let requests = (0..24).map(|i| {
        let target = if i % 2 == 0 { "openai-realtime" } else { "vapi" };
        origin.switch(origin.reception, target)
    });

    let answers = join_all(requests).await;

    assert!(answers.iter().all(|answer| answer.status == 200));
    let events = origin.events(origin.reception).await;
    assert!(!events.is_empty());
    assert_eq!(events[0]["before"]["systemType"], "vapi");
    for pair in events.windows(2) {
        assert_eq!(pair[0]["after"], pair[1]["before"], "each change begins where the one before it ended");
        assert_ne!(pair[1]["before"]["systemType"], pair[1]["after"]["systemType"], "every event is a real change");
    }
    let agent = origin.agent(origin.reception).await;
    let last = &events[events.len() - 1]["after"];
    assert_eq!(agent["systemType"], last["systemType"]);
    assert_eq!(agent["numbers"][0]["systemType"], last["systemType"]);
}

#[tokio::test]
async fn concurrent_equal_switches_are_one_change() {
    let origin = Origin::start().await;
    let answers = join_all((0..16).map(|_| origin.switch(origin.reception, "openai-realtime"))).await;
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body["systemType"] == "openai-realtime"));
    assert_eq!(origin.events(origin.reception).await.len(), 1);
}

#[tokio::test]
async fn a_switch_waits_for_whoever_holds_the_agent_and_dates_itself_after() {
    let origin = Origin::start().await;
    let mut tx = origin.app.db.begin().await.expect("a transaction");
    query("select from agents where id = $1 for update")
        .bind(origin.reception.0)
        .execute(&mut *tx)
        .await
        .expect("a lock");

    let switching = origin.switch(origin.reception, "openai-realtime");
    let releasing = async {
        eventually("the switch waits for the lock", async || {
            let waiting: bool = query_scalar("select exists (select from pg_locks where not granted)")
                .fetch_one(&origin.app.db)
                .await
                .expect("the locks");
            waiting.then_some(())
        })
        .await;
        let now: OffsetDateTime =
            query_scalar("select clock_timestamp()").fetch_one(&origin.app.db).await.expect("the time");
        tx.commit().await.expect("a commit");
        now
    };
    let (switched, released_at) = tokio::join!(switching, releasing);

    assert!(
        time_of(&switched.body["switchedAt"]) >= released_at,
        "a call that began while the switch waited would count as later than the switch"
    );
}

#[tokio::test]
async fn numbers_that_differ_from_their_agent_are_repaired() {
    let origin = Origin::start().await;
    query("update phone_numbers set system_type = 'openai-realtime' where agent_id = $1")
        .bind(origin.reception.0)
        .execute(&origin.app.db)
        .await
        .expect("a fault made by hand");

    let repaired = origin.switch(origin.reception, "vapi").await;

    assert_eq!(repaired.body["numbers"][0]["systemType"], "vapi");
    assert_eq!(repaired.body["switchedAt"], Value::Null, "the agent itself was not switched");
    assert_eq!(origin.events(origin.reception).await.len(), 1);
}

#[tokio::test]
async fn a_target_that_is_not_configured_is_refused_and_nothing_changes() {
    let origin = Origin::start().await;
    let before = origin.agent(origin.night_line).await;
    let events = origin.events(origin.night_line).await;

    let refused = origin.switch(origin.night_line, "vapi").await;

    assert_problem(&refused, 409, "agent_not_configured");
    assert_eq!(refused.body["missing"], json!(["vapiAssistantId"]));
    assert_eq!(origin.agent(origin.night_line).await, before);
    assert_eq!(origin.events(origin.night_line).await, events);

    query("update agents set realtime = null, instructions = '' where id = $1")
        .bind(origin.reception.0)
        .execute(&origin.app.db)
        .await
        .expect("an unconfigured agent");
    let refused = origin.switch(origin.reception, "openai-realtime").await;
    assert_problem(&refused, 409, "agent_not_configured");
    assert_eq!(refused.body["missing"], json!(["realtime", "instructions"]));
}

#[tokio::test]
async fn keys_open_their_own_project_as_far_as_their_role_goes() {
    let origin = Origin::start().await;
    let path = format!("/api/agents/{}/system-type", origin.reception);
    let body = json!({ "systemType": "openai-realtime" });
    let (read, stranger) = (origin.read_key().await, origin.stranger_key().await);

    for (who, key) in [("nobody", ""), ("not a key", "secret"), ("an unknown key", &format!("tdm_{}", "A".repeat(43)))]
    {
        for answer in [origin.get(key, &path).await, origin.put(key, &path, &body).await] {
            assert_problem(&answer, 401, "unauthorized");
            assert_eq!(answer.headers["www-authenticate"], "Bearer", "{who}");
        }
    }
    assert_problem(&answer(origin.request(Method::GET, "/api/agents")).await, 401, "unauthorized");

    assert_eq!(origin.get(&read, &path).await.status, 200);
    assert_problem(&origin.put(&read, &path, &body).await, 403, "forbidden");

    assert_problem(&origin.get(&stranger, &path).await, 404, "not_found");
    assert_problem(&origin.put(&stranger, &path, &body).await, 404, "not_found");
    assert_eq!(origin.get(&stranger, "/api/agents").await.body["items"], json!([]));
    assert_eq!(origin.get(&stranger, "/api/events").await.body["items"], json!([]));

    let missing = "/api/agents/00000000-0000-7000-8000-000000000000/system-type";
    let not_there = origin.put(&origin.key, missing, &body).await;
    let not_theirs = origin.put(&stranger, &path, &body).await;
    assert_eq!(
        not_there.body["detail"], not_theirs.body["detail"],
        "what exists elsewhere looks like what does not exist"
    );

    query("update api_keys set revoked_at = now() where project_id = $1 and role = 'read'")
        .bind(origin.project.0)
        .execute(&origin.app.db)
        .await
        .expect("a revocation");
    assert_problem(&origin.get(&read, &path).await, 401, "unauthorized");
    assert!(origin.events(origin.reception).await.is_empty(), "none of this changed anything");
}

#[tokio::test]
async fn bad_input_is_told_apart_and_changes_nothing() {
    let origin = Origin::start().await;
    let path = format!("/api/agents/{}/system-type", origin.reception);
    let send = async |content_type: &str, body: String| {
        let request = origin.request(Method::PUT, &path).bearer_auth(&origin.key);
        answer(request.header("content-type", content_type).body(body)).await
    };
    let json = "application/json";
    for body in [
        "",
        "{",
        "null",
        "[]",
        "{}",
        r#"{"systemType":"Vapi"}"#,
        r#"{"systemType":null}"#,
        r#"{"system_type":"openai-realtime"}"#,
        r#"{"systemType":"openai-realtime","force":true}"#,
        r#"{"systemType":"vapi","systemType":"openai-realtime"}"#,
        r#"{"systemType":"openai-realtime"} x"#,
    ] {
        assert_problem(&send(json, body.to_owned()).await, 400, "invalid_request");
    }
    let good = r#"{"systemType":"openai-realtime"}"#.to_owned();
    assert_problem(&send("text/plain", good.clone()).await, 415, "unsupported_media_type");
    assert_problem(&send(json, format!("{good}{}", " ".repeat(300_000))).await, 413, "body_too_large");

    let key = &origin.key;
    assert_problem(&origin.get(key, "/api/agents/not-an-id").await, 404, "not_found");
    assert_problem(&origin.get(key, "/api/nothing").await, 404, "not_found");
    assert_problem(&origin.get(key, "/api/agents?limit=0").await, 400, "invalid_request");
    assert_problem(&origin.get(key, "/api/agents?limit=201").await, 400, "invalid_request");
    assert_problem(&origin.get(key, "/api/agents?page=2").await, 400, "unknown_parameter");
    let wrong_method = answer(origin.request(Method::DELETE, "/api/agents").bearer_auth(key)).await;
    assert_problem(&wrong_method, 405, "method_not_allowed");

    assert!(origin.events(origin.reception).await.is_empty());
    assert_eq!(send("application/json; charset=utf-8", good).await.status, 200);
}

#[tokio::test]
async fn a_request_id_is_kept_or_made() {
    let origin = Origin::start().await;
    let mine = answer(origin.request(Method::GET, "/healthz").header("x-request-id", "mine-1")).await;
    assert_eq!(mine.headers["x-request-id"], "mine-1");
    let made = answer(origin.request(Method::GET, "/healthz").header("x-request-id", "not ok")).await;
    assert_eq!(made.headers["x-request-id"].len(), 36);
}

#[tokio::test]
async fn a_committed_switch_has_its_job_with_it() {
    let origin = Origin::start().await;
    query("delete from graphile_worker._private_jobs").execute(&origin.app.db).await.expect("no jobs");
    origin.switch(origin.reception, "openai-realtime").await;
    assert_eq!(waiting_jobs(&origin).await, [("replicate".to_owned(), 0)]);
}

#[tokio::test]
async fn a_rolled_back_switch_leaves_nothing_behind() {
    let origin = Origin::start().await;
    query("delete from graphile_worker._private_jobs").execute(&origin.app.db).await.expect("no jobs");
    let before = origin.agent(origin.reception).await;
    let systems = Systems { openai_realtime: true, vapi: true };
    let actor = Actor::Command("test");

    let mut tx = origin.app.db.begin().await.expect("a transaction");
    let switched =
        switching::switch(&mut tx, systems, origin.project, origin.reception, SystemType::OpenaiRealtime, &actor)
            .await
            .expect("a switch");
    assert!(switched.changed);
    tx.rollback().await.expect("a rollback");

    assert_eq!(origin.agent(origin.reception).await, before);
    assert!(origin.events(origin.reception).await.is_empty());
    assert!(waiting_jobs(&origin).await.is_empty());
}

#[tokio::test]
async fn readiness_follows_the_shutdown() {
    let origin = Origin::start().await;
    assert_eq!(answer(origin.request(Method::GET, "/readyz")).await.status, 200);
    origin.app.shutdown.cancel();
    assert_problem(&answer(origin.request(Method::GET, "/readyz")).await, 503, "draining");
    assert_eq!(answer(origin.request(Method::GET, "/healthz")).await.status, 200);
}
