//! Replication of routes to the edge's store, through every way in which that fails.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _};

use crate::harness::{Origin, eventually};
use crate::kv::{FakeKv, Fault};

const RECEPTION: &str = "number:+15550100001";
const NIGHT_LINE: &str = "number:+15550100002";
const ASSISTANT: &str = "assistant:assistant-1";

/// Waits until nothing differs between the tables and the store, and no job for it is left. Others may wait for an
/// origin with access to Twilio.
async fn settled(origin: &Origin) {
    eventually("replication has settled", async || {
        let agents = origin.get(&origin.key, "/api/agents").await.body;
        let replicated = agents["items"]
            .as_array()?
            .iter()
            .all(|agent| agent["replica"].is_null() || agent["replica"]["replicated"] == true);
        let jobs: i64 =
            sqlx::query_scalar("select count(*) from graphile_worker._private_jobs where key = 'replicate'")
                .fetch_one(&origin.app.db)
                .await
                .expect("the jobs");
        (replicated && jobs == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_store_gets_exactly_the_agreed_routes() {
    let kv = FakeKv::start().await;
    let origin = Origin::replicating_to(&kv).await;
    origin.run_jobs();
    let agent = origin.replicated(origin.reception).await;

    assert_eq!(kv.keys(), HashSet::from([RECEPTION, NIGHT_LINE, ASSISTANT].map(str::to_owned)));
    let route = kv.get(RECEPTION).expect("the number's route");
    let expected = json!({
        "revision": agent["replica"]["revision"],
        "number": "+15550100001",
        "numberSystemType": "vapi",
        "agentId": origin.reception,
        "agentSystemType": "vapi",
        "vapiHandover": "bypass",
        "fallbackNumber": null,
    });
    assert_eq!(route, expected);
    let _: shared::route::NumberRoute = serde_json::from_value(route).expect("the edge reads it");
    let route = kv.get(ASSISTANT).expect("the assistant's route");
    assert_eq!((&route["agentSystemType"], &route["switchedAt"]), (&json!("vapi"), &Value::Null));

    let switched = origin.switch(origin.reception, "openai-realtime").await.body;
    let agent = origin.replicated(origin.reception).await;
    assert!(agent["replica"]["replicatedAt"].is_string());
    let route = kv.get(RECEPTION).expect("the number's route");
    assert_eq!(route["numberSystemType"], "openai-realtime");
    assert_eq!(route["agentSystemType"], "openai-realtime");
    let route: shared::route::AssistantRoute =
        serde_json::from_value(kv.get(ASSISTANT).expect("the assistant's route")).expect("the edge reads it");
    let switched_at = route.switched_at.expect("a switched agent has a time");
    let format = &time::format_description::well_known::Rfc3339;
    let answered = time::OffsetDateTime::parse(switched["switchedAt"].as_str().expect("a time"), format);
    assert_eq!(switched_at, answered.expect("an RFC 3339 time"), "to the microsecond");
}

#[tokio::test]
async fn a_change_that_nobody_could_replicate_waits() {
    let kv = FakeKv::start().await;
    let origin = Origin::replicating_to(&kv).await;
    // The origin dies right after the commit: no worker ever ran.
    origin.switch(origin.reception, "openai-realtime").await;
    assert_eq!(kv.requests(), 0);

    origin.run_jobs();
    origin.replicated(origin.reception).await;

    assert_eq!(kv.get(RECEPTION).expect("the route")["agentSystemType"], "openai-realtime");
}

#[tokio::test]
async fn many_waiting_changes_are_one_write() {
    let kv = FakeKv::start().await;
    let origin = Origin::replicating_to(&kv).await;
    for target in ["openai-realtime", "vapi"].repeat(10) {
        assert_eq!(origin.switch(origin.reception, target).await.status, 200);
    }
    origin.run_jobs();
    settled(&origin).await;
    assert_eq!(kv.requests(), 1);
    assert_eq!(kv.get(RECEPTION).expect("the route")["agentSystemType"], "vapi");
}

/// Lets the first writes of a switch meet `faults`, and checks that the store has the right values in the end.
async fn converges_in_spite_of(faults: Vec<Fault>) {
    let kv = FakeKv::start().await;
    kv.fail(faults);
    let origin = Origin::replicating_to(&kv).await;
    origin.switch(origin.reception, "openai-realtime").await;
    origin.run_jobs();
    settled(&origin).await;

    assert_eq!(kv.faults_left(), 0, "every fault was met");
    for key in [RECEPTION, NIGHT_LINE, ASSISTANT] {
        assert_eq!(kv.get(key).expect(key)["agentSystemType"], "openai-realtime", "{key}");
    }
}

#[tokio::test]
async fn rate_limits_are_waited_for() {
    converges_in_spite_of(vec![Fault::RateLimited(1), Fault::RateLimited(0)]).await;
}

#[tokio::test]
async fn a_server_error_is_tried_again() {
    converges_in_spite_of(vec![Fault::ServerError]).await;
}

#[tokio::test]
async fn an_answer_that_is_not_cloudflares_is_tried_again() {
    converges_in_spite_of(vec![Fault::BadGateway]).await;
}

#[tokio::test]
async fn a_lost_answer_is_tried_again() {
    converges_in_spite_of(vec![Fault::AnswerLost]).await;
}

#[tokio::test]
async fn keys_that_failed_amid_success_are_tried_again() {
    converges_in_spite_of(vec![Fault::Partly("+15550100001")]).await;
}

#[tokio::test]
async fn a_failure_is_not_called_replicated() {
    let kv = FakeKv::start().await;
    kv.fail([Fault::Partly("assistant:"), Fault::Silence]);
    let origin = Origin::replicating_to(&kv).await;
    origin.run_jobs();
    eventually("the second request hangs", async || (kv.requests() == 2).then_some(())).await;

    assert_eq!(origin.agent(origin.night_line).await["replica"]["replicated"], true);
    let agent = origin.agent(origin.reception).await;
    assert_eq!(agent["replica"]["replicated"], false);
    assert_eq!(agent["replica"]["replicatedAt"], Value::Null);
}

#[tokio::test]
async fn switches_during_replication_converge_and_never_go_back() {
    let kv = FakeKv::start().await;
    let origin = Origin::replicating_to(&kv).await;
    origin.run_jobs();
    // A second origin's worker beside the first: writes are still one at a time.
    origin.run_jobs();
    for _ in 0..4 {
        join_all((0..6).map(|i| {
            let target = if i % 2 == 0 { "openai-realtime" } else { "vapi" };
            origin.switch(origin.reception, target)
        }))
        .await;
        let requests = kv.requests();
        eventually("another write", async || (kv.requests() > requests).then_some(())).await;
    }
    settled(&origin).await;

    let agent = origin.agent(origin.reception).await;
    for key in [RECEPTION, ASSISTANT] {
        assert_eq!(kv.get(key).expect(key)["agentSystemType"], agent["systemType"]);
        let history = kv.history(key);
        assert!(history.is_sorted(), "{key} went back to an older value: {history:?}");
    }
}

#[tokio::test]
async fn a_slow_write_is_not_overtaken() {
    let kv = FakeKv::start().await;
    kv.fail([Fault::Slow]);
    let origin = Origin::replicating_to(&kv).await;
    origin.run_jobs();
    origin.run_jobs();
    eventually("a write of the old value has begun", async || (kv.requests() == 1).then_some(())).await;

    origin.switch(origin.reception, "openai-realtime").await;
    // That nothing happens cannot be awaited. The workers look for jobs every second; this is three chances.
    let overtaken = async {
        while kv.requests() == 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(3), overtaken).await;
    kv.release();
    settled(&origin).await;

    assert!(kv.history(RECEPTION).is_sorted(), "the old value was written last: {:?}", kv.history(RECEPTION));
    assert_eq!(kv.get(RECEPTION).expect("the route")["agentSystemType"], "openai-realtime");
}

#[tokio::test]
async fn a_killed_worker_is_taken_over_from() {
    let kv = FakeKv::start().await;
    kv.fail([Fault::Silence]);
    let origin = Origin::replicating_to(&kv).await;
    let worker = origin.run_killable_jobs(&kv);
    eventually("the worker is in the middle of a write", async || (kv.requests() == 1).then_some(())).await;
    worker.kill(&origin).await;
    // Its queue is still locked in its name.

    origin.run_jobs();
    settled(&origin).await;

    assert_eq!(kv.keys().len(), 3);
}

#[tokio::test]
async fn what_is_no_longer_a_route_is_deleted() {
    let kv = FakeKv::start().await;
    kv.put("other:key", json!("not ours"));
    let origin = Origin::replicating_to(&kv).await;
    origin.run_jobs();
    settled(&origin).await;

    // A number without an agent, and an agent with another assistant, by hand: the sweep has to notice by itself.
    let mut conn = origin.database.connect().await;
    for change in [
        format!("update phone_numbers set agent_id = null where agent_id = '{}'", origin.night_line),
        format!("update agents set vapi_assistant_id = 'assistant-2' where id = '{}'", origin.reception),
    ] {
        conn.execute(AssertSqlSafe(change)).await.expect("a change");
    }
    origin::replication::enqueue(&mut conn).await.expect("a job");
    settled(&origin).await;

    let expected = [RECEPTION, "assistant:assistant-2", "other:key"].map(str::to_owned);
    eventually("the store has exactly the routes", async || {
        (kv.keys() == HashSet::from(expected.clone())).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_key_whose_write_was_cut_off_is_not_forgotten() {
    let kv = FakeKv::start().await;
    kv.fail([Fault::AnswerLost]);
    let origin = Origin::replicating_to(&kv).await;
    let worker = origin.run_killable_jobs(&kv);
    eventually("the routes are in the store", async || (kv.keys().len() == 3).then_some(())).await;
    worker.kill(&origin).await;
    // The origin never heard that it wrote. Now the number goes away before anybody writes it again.
    let mut conn = origin.database.connect().await;
    let sql = format!("delete from phone_numbers where agent_id = '{}'", origin.night_line);
    conn.execute(AssertSqlSafe(sql)).await.expect("a deletion");
    origin::replication::enqueue(&mut conn).await.expect("a job");

    origin.run_jobs();

    eventually("the number is deleted", async || (!kv.keys().contains(NIGHT_LINE)).then_some(())).await;
}

#[tokio::test]
async fn without_cloudflare_nothing_is_called_replicated() {
    let origin = Origin::start().await;
    origin.run_jobs();
    let switched = origin.switch(origin.reception, "openai-realtime").await;
    assert_eq!((switched.status, &switched.body["replica"]["replicated"]), (200, &json!(false)));
    let waiting: i64 = sqlx::query_scalar("select count(*) from graphile_worker._private_jobs where key = 'replicate'")
        .fetch_one(&origin.app.db)
        .await
        .expect("the jobs");
    assert_eq!(waiting, 1, "the job waits for an origin that can do it");
}
