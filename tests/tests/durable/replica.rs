//! The edge's store, checked and mended; and that no older value stays in it.

use std::time::{Duration, Instant};

use origin::providers::cloudflare::Pair;
use origin::replication::check;
use origin::{jobs, replication};
use serde_json::{Value, json};
use tests::cloudflare::{Fault, KvApi, KvApiOptions};
use tests::stack::edge::{Edge, EdgeOptions, KV_NAMESPACE_ID};

use crate::world::{ASSISTANT, NUMBER, SECRET, World, eventually, patient_kv};

fn number_key() -> String {
    format!("number:{NUMBER}")
}

fn assistant_key() -> String {
    format!("assistant:{ASSISTANT}")
}

/// A store with every route, written long enough ago to be judged.
async fn replicated() -> (KvApi, World) {
    let kv = patient_kv().await;
    let world = World::with_kv(&kv).await;
    world.replicate().await;
    age(&world).await;
    (kv, world)
}

async fn age(world: &World) {
    world.execute("update replica set replicated_at = replicated_at - interval '10 minutes'").await;
}

async fn put(world: &World, key: &str, value: &Value, metadata: Value) {
    let pair = Pair { key: key.to_owned(), value: value.to_string(), metadata };
    assert!(world.kv().put(&[pair]).await.expect("a write").is_empty());
}

async fn keys(world: &World) -> Vec<String> {
    world.kv().list("").await.expect("a listing").into_iter().map(|key| key.name).collect()
}

async fn value(world: &World, key: &str) -> Value {
    let values = world.kv().get(&[key.to_owned()]).await.expect("a read");
    values.get(key).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

async fn system_type(world: &World) -> Value {
    world.get(&format!("/api/agents/{}/system-type", world.reception)).await.body
}

#[tokio::test]
async fn every_fault_is_found_and_mended() {
    let (_kv, world) = replicated().await;
    let expected = keys(&world).await;
    assert_eq!(expected.len(), 3);
    assert!(world.command(&["replica", "check"]).await.is_ok(), "exit code 0");
    let good = value(&world, &number_key()).await;

    world.kv().delete(&[assistant_key()]).await.expect("a deletion");
    put(&world, &number_key(), &json!({ "revision": 1 }), json!({ "revision": 1 })).await;
    put(&world, "number:+15550177", &json!({}), Value::Null).await;
    put(&world, "dead:1795000000000:x", &json!({}), Value::Null).await;
    put(&world, "other", &json!({}), Value::Null).await;

    assert!(world.command(&["replica", "check"]).await.is_err(), "exit code 1");
    let findings = check::check(&world.app.db, &world.kv()).await.expect("a check");
    let found = serde_json::to_value(&findings).expect("JSON");
    assert_eq!(
        found,
        json!({
            "routes": 3, "listed": 3, "pending": 0, "missing": [assistant_key()], "stale": [number_key()],
            "changed": [], "orphaned": ["number:+15550177"], "ahead": [], "deadLetters": 1,
        })
    );
    assert_eq!(system_type(&world).await["replica"]["replicated"], true, "a check changes nothing");

    tokio::spawn(jobs::run(world.app.clone()));
    let said = world.command(&["replica", "repair"]).await.expect("exit code 0");

    assert!(said.contains("missing   assistant:") && said.contains("Repaired."), "{said}");
    let mut now = keys(&world).await;
    now.retain(|key| !["dead:1795000000000:x", "other"].contains(&key.as_str()));
    assert_eq!(now, expected);
    assert_eq!(value(&world, &number_key()).await, good);
    assert!(check::check(&world.app.db, &world.kv()).await.expect("a check").is_clean());
}

#[tokio::test]
async fn a_value_that_somebody_has_changed_is_found_and_mended() {
    let (_kv, world) = replicated().await;
    let good = value(&world, &number_key()).await;
    let revision = good["revision"].as_i64().expect("a revision");
    let mut other = good.clone();
    other["fallbackNumber"] = json!("+15550166");
    put(&world, &number_key(), &other, json!({ "revision": revision })).await;
    // Not JSON at all, under a revision that is right.
    let assistant = value(&world, &assistant_key()).await["revision"].clone();
    let broken = Pair { key: assistant_key(), value: "{".to_owned(), metadata: json!({ "revision": assistant }) };
    assert!(world.kv().put(&[broken]).await.expect("a write").is_empty());

    let said = world.command(&["replica", "check"]).await.expect_err("exit code 1").to_string();
    let findings = check::repair(&world.app.db, &world.kv()).await.expect("a repair");
    assert_eq!(findings.changed, [assistant_key(), number_key()], "{said}");
    assert!(findings.missing.is_empty() && findings.stale.is_empty(), "{findings:?}");
    world.replicate().await;

    assert_eq!(value(&world, &number_key()).await, good);
    age(&world).await;
    assert!(check::check(&world.app.db, &world.kv()).await.expect("a check").is_clean());
}

#[tokio::test]
async fn a_store_that_was_emptied_is_filled_again() {
    let (_kv, world) = replicated().await;
    let since = system_type(&world).await["replica"]["replicatedAt"].clone();
    world.kv().delete(&keys(&world).await).await.expect("a deletion");

    check::sweep(&world.app, &world.kv()).await.expect("a sweep");

    let replica = system_type(&world).await["replica"].clone();
    assert_eq!((&replica["replicated"], &replica["replicatedAt"]), (&json!(false), &Value::Null));
    assert_eq!(world.metric(r#"tandem_replica_faults_total{finding="missing"}"#), 3);
    world.replicate().await;
    assert_eq!(keys(&world).await.len(), 3);
    let replica = system_type(&world).await["replica"].clone();
    assert_eq!(replica["replicated"], true);
    assert!(replica["replicatedAt"].as_str() > since.as_str(), "{replica} since {since}");
}

#[tokio::test]
async fn a_database_from_a_backup_overtakes_the_store() {
    let (kv, world) = replicated().await;
    let newer = json!({ "revision": 1_000_000, "agentId": world.reception, "agentSystemType": "openai-realtime" });
    put(&world, &assistant_key(), &newer, json!({ "revision": 1_000_000 })).await;

    let findings = check::repair(&world.app.db, &world.kv()).await.expect("a repair");
    world.replicate().await;

    assert_eq!((findings.ahead[0].key.clone(), findings.ahead[0].revision), (assistant_key(), 1_000_000));
    let there = value(&world, &assistant_key()).await;
    assert!(there["revision"].as_i64() > Some(1_000_000) && there["agentSystemType"] == "vapi", "{there}");
    let history: Vec<_> = kv.writes().all().into_iter().filter(|write| write.key == assistant_key()).collect();
    assert!(history.is_sorted_by_key(|write| write.json()["revision"].as_i64()), "{history:?}");
}

#[tokio::test]
async fn what_was_written_a_moment_ago_is_not_judged() {
    let kv = patient_kv().await;
    let world = World::with_kv(&kv).await;
    world.replicate().await;
    world.kv().delete(&[assistant_key()]).await.expect("a deletion");
    let findings = check::repair(&world.app.db, &world.kv()).await.expect("a repair");
    assert!(findings.is_clean() && findings.pending == 1, "{findings:?}");
    assert_eq!(system_type(&world).await["replica"]["replicated"], true);
}

#[tokio::test]
async fn a_run_that_is_overtaken_leaves_no_old_value() {
    let (kv, world) = replicated().await;
    let switch = async |target: &str| {
        world.execute(&format!("update agents set system_type = '{target}' where vapi_assistant_id is not null")).await;
    };
    switch("openai-realtime").await;
    // The write of the old value takes its time, as if its origin had stopped for a while.
    kv.faults.next(1, Fault::Delay(Duration::from_secs(3)));
    let requests = kv.requests().all().len();
    let stale = world.replicate();
    let overtaking = async {
        eventually("the old value is under way", async || (kv.requests().all().len() > requests).then_some(())).await;
        switch("vapi").await;
        world.replicate().await;
        assert_eq!(value(&world, &assistant_key()).await["agentSystemType"], "vapi", "the new value came first");
    };
    tokio::join!(stale, overtaking);

    let writes = kv.writes().all();
    let types: Vec<Value> = writes
        .iter()
        .filter(|write| write.key == assistant_key())
        .map(|write| write.json()["agentSystemType"].clone())
        .collect();
    assert_eq!(types[1..3], [json!("vapi"), json!("openai-realtime")], "the runs have crossed: {types:?}");
    assert_eq!(types.last(), Some(&json!("vapi")), "{types:?}");
    assert_eq!(system_type(&world).await["replica"]["replicated"], true);
}

#[tokio::test]
async fn the_lag_is_the_age_of_the_oldest_change() {
    let (_kv, world) = replicated().await;
    let lag = async || {
        let text =
            reqwest::get(format!("{}/metrics", world.base)).await.expect("an answer").text().await.expect("a text");
        let line = text.lines().find_map(|line| line.strip_prefix("tandem_replication_lag_seconds "));
        line.and_then(|number| number.parse::<i64>().ok()).expect("the metric")
    };
    assert_eq!(lag().await, 0);
    world
        .execute(
            "update agents set fallback_number = '+15550188' where vapi_assistant_id is not null;
             alter table agents disable trigger agents_changed;
             update agents set revised_at = now() - interval '90 seconds';
             alter table phone_numbers disable trigger phone_numbers_changed;
             update phone_numbers set revised_at = now() - interval '2 hours'",
        )
        .await;
    assert!((90..120).contains(&lag().await), "{}", lag().await);

    world.replicate().await;

    assert_eq!(lag().await, 0);
}

#[tokio::test]
async fn the_workers_own_store_is_checked_alike() {
    let text = |pairs: &[(&str, &str)]| pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let vars = text(&[
        ("ORIGIN_URL", "http://127.0.0.1:1"),
        ("MEDIA_URL", "wss://origin.tandem.test/media-stream"),
        ("EDGE_URL", "https://edge.tandem.test"),
        ("VAPI_API_URL", "http://127.0.0.1:1"),
    ]);
    let secrets =
        text(&[("TWILIO_AUTH_TOKEN", "token"), ("VAPI_SERVER_SECRET", "secret"), ("EDGE_ORIGIN_SECRET", SECRET)]);
    let edge = Edge::start(EdgeOptions { vars, secrets, port: None }).await.expect("a Worker");
    let options = KvApiOptions::new("account", "token", KV_NAMESPACE_ID);
    let options = KvApiOptions { upstream: Some(edge.kv_api_url()), write_interval: Duration::ZERO, ..options };
    let kv = KvApi::start(options).await.expect("a store");
    let world = World::with_kv(&kv).await;
    world.replicate().await;
    age(&world).await;
    assert!(check::check(&world.app.db, &world.kv()).await.expect("a check").is_clean());

    world.kv().delete(&[assistant_key()]).await.expect("a deletion");
    put(&world, &number_key(), &json!({ "revision": 1 }), Value::Null).await;
    let findings = check::repair(&world.app.db, &world.kv()).await.expect("a repair");
    assert_eq!((findings.missing, findings.stale), (vec![assistant_key()], vec![number_key()]));
    world.replicate().await;

    age(&world).await;
    let findings = check::check(&world.app.db, &world.kv()).await.expect("a check");
    assert!(findings.is_clean() && findings.pending == 0, "{findings:?}");
    edge.stop().await.expect("it ends");
}

#[tokio::test]
async fn ten_thousand_numbers_in_one_sweep() {
    let kv = KvApi::start(KvApiOptions::new("account", "token", "routes")).await.expect("a store");
    let world = World::with_kv(&kv).await;
    world
        .execute(&format!(
            "insert into phone_numbers (id, project_id, agent_id, number)
             select gen_random_uuid(), '{}', '{}', '+1555' || (1000000 + i) from generate_series(1, 9998) i",
            world.project, world.reception
        ))
        .await;
    let begun = Instant::now();
    world.replicate().await;
    let first = (begun.elapsed(), kv.requests().all().len());

    // A change of the agent is a change of every one of its numbers.
    world.execute("update agents set fallback_number = '+15550188' where vapi_assistant_id is not null").await;
    let begun = Instant::now();
    world.replicate().await;
    let second = begun.elapsed();

    age(&world).await;
    let before = kv.requests().all().len();
    let begun = Instant::now();
    let findings = check::check(&world.app.db, &world.kv()).await.expect("a check");
    let checked = (begun.elapsed(), kv.requests().all().len() - before);

    println!(
        "10,000 numbers replicated in {:.1} s with {} requests, all changed and again in {:.1} s; checked in {:.1} s \
         with {} requests",
        first.0.as_secs_f64(),
        first.1,
        second.as_secs_f64(),
        checked.0.as_secs_f64(),
        checked.1
    );
    assert!(findings.is_clean(), "{} missing, {} stale", findings.missing.len(), findings.stale.len());
    assert_eq!((findings.routes, findings.listed), (10_001, 10_001));
    assert!(kv.requests().all().iter().all(|request| request.status == 200), "no limit was met");
    // A listing in pages of a thousand, and the values by the hundred.
    assert_eq!((first.1, checked.1), (11, 11 + 101));
}

#[tokio::test]
async fn two_runs_that_cross_trust_nothing() {
    use origin::store::{replica, routes};

    let (_kv, world) = replicated().await;
    let mut conn = world.app.db.acquire().await.expect("a connection");
    world.execute("update agents set fallback_number = '+15550188'").await;
    let stale = routes::stale(&mut conn, 10).await.expect("the routes");
    let keys: Vec<String> = stale.iter().map(|route| route.key.clone()).collect();
    let (one, other) = (uuid::Uuid::now_v7(), uuid::Uuid::now_v7());
    replica::claim(&mut conn, one, &keys).await.expect("a claim");
    replica::claim(&mut conn, other, &keys).await.expect("a claim");
    replica::record(&mut conn, other, &stale).await.expect("a record");
    assert!(check::is_settled(&world.app.db).await.expect("a look"), "the one that holds the claim is believed");

    replica::record(&mut conn, one, &stale).await.expect("a record");
    assert_eq!(routes::stale(&mut conn, 10).await.expect("the routes"), stale, "who came last is not known");

    // The same when the one without the claim is first to tell: the other's value may be gone.
    replica::claim(&mut conn, one, &keys).await.expect("a claim");
    replica::claim(&mut conn, other, &keys).await.expect("a claim");
    replica::record(&mut conn, one, &stale).await.expect("a record");
    replica::record(&mut conn, other, &stale).await.expect("a record");
    assert_eq!(routes::stale(&mut conn, 10).await.expect("the routes"), stale);

    // One deletes what the other writes.
    replica::claim(&mut conn, one, &keys).await.expect("a claim");
    replica::forget(&mut conn, one, &keys).await.expect("a deletion");
    replica::record(&mut conn, other, &stale).await.expect("a record");
    let remembered = world.count("select count(*) from replica where revision = 0").await;
    assert_eq!(usize::try_from(remembered).expect("a count"), keys.len(), "the keys may be there again");
    replication::enqueue(&mut conn).await.expect("a job");
}
