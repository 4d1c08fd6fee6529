//! `/api/rollouts`: planned, started, advanced and rolled back by a program with a key.

use reqwest::Method;
use serde_json::{Value, json};
use shared::AgentId;
use uuid::Uuid;

use crate::harness::{Answer, Origin, answer, assert_problem, eventually};

/// More agents of the seeded project that can run on both systems; the origin's own two cannot, or make it one more.
async fn with_agents(origin: &Origin, count: u32) -> Vec<AgentId> {
    let mut ids = Vec::new();
    for at in 0..count {
        let id: Uuid = sqlx::query_scalar(
            "insert into agents (id, project_id, name, instructions, realtime, vapi_assistant_id)
             values (gen_random_uuid(), $1, $2, 'Answer.', '{\"voice\": \"marin\"}', $2) returning id",
        )
        .bind(origin.project.0)
        .bind(format!("rolled-{at}"))
        .fetch_one(&origin.app.db)
        .await
        .expect("an agent");
        ids.push(AgentId(id));
    }
    ids
}

async fn systems(origin: &Origin) -> Vec<(Uuid, String)> {
    sqlx::query_as("select id, system_type from agents order by id").fetch_all(&origin.app.db).await.expect("agents")
}

async fn rollouts(origin: &Origin) -> i64 {
    sqlx::query_scalar("select count(*) from rollouts").fetch_one(&origin.app.db).await.expect("a count")
}

async fn stages_started(origin: &Origin) -> i64 {
    sqlx::query_scalar("select count(*) from event_log where type = 'rollout.stage_started'")
        .fetch_one(&origin.app.db)
        .await
        .expect("a count")
}

/// Makes a rollout and gives its path.
async fn make(origin: &Origin, body: &Value) -> String {
    let made = origin.post("/api/rollouts", body).await;
    assert_eq!(made.status, 201, "{}", made.body);
    made.headers["location"].to_str().expect("a path").to_owned()
}

async fn reaches(origin: &Origin, path: &str, state: &str) -> Answer {
    eventually(state, async || {
        let rollout = origin.get(&origin.key, path).await;
        (rollout.body["state"] == state).then_some(rollout)
    })
    .await
}

#[tokio::test]
async fn planned_started_advanced_and_rolled_back() {
    let origin = Origin::start().await;
    let agents = with_agents(&origin, 6).await;
    let before = systems(&origin).await;
    let fields = json!({
        "target": "openai-realtime", "agentIds": agents, "pilots": [agents[0]], "guard": { "onFail": "pause" },
    });

    // Its number goes straight to Vapi.
    sqlx::query(
        "insert into phone_numbers (id, project_id, number, agent_id) values (gen_random_uuid(), $1, '+15550109', $2)",
    )
    .bind(origin.project.0)
    .bind(agents[0].0)
    .execute(&origin.app.db)
    .await
    .expect("a number");

    let plan = origin.post("/api/rollouts/plan", &fields).await;
    assert_eq!(plan.status, 200, "{}", plan.body);
    let at_twilio = &plan.body["agents"][0]["atTwilio"][0];
    assert_eq!((&at_twilio["number"], &at_twilio["change"]), (&json!("+15550109"), &json!("set")));
    assert_eq!((&at_twilio["found"], &at_twilio["wanted"]["voiceMethod"]), (&Value::Null, &json!("POST")));
    assert_eq!(at_twilio["wanted"]["voiceUrl"], "https://edge.tandem.test/twilio/voice");
    assert_eq!(at_twilio["wanted"]["voiceFallbackUrl"], "https://origin.tandem.test/twilio/voice");
    assert_eq!(at_twilio["wanted"]["statusCallback"], "https://edge.tandem.test/twilio/status");
    assert_eq!(plan.body["stages"], json!(["pilot", "100%"]));
    assert_eq!(plan.body["agents"].as_array().map(Vec::len), Some(6));
    assert_eq!(plan.body["agents"][0]["agentId"], json!(agents[0]));
    assert_eq!(plan.body["agents"][0]["before"]["systemType"], "vapi");
    assert_eq!(plan.body["agents"][0]["after"]["systemType"], "openai-realtime");
    assert_eq!(rollouts(&origin).await, 0, "a plan records nothing");

    let path = make(&origin, &fields).await;
    assert_eq!(systems(&origin).await, before, "making it switches nobody");
    let changes = async |request: &str| origin.get(&origin.key, &format!("{path}/changes?request={request}")).await;
    let pilot = changes("start").await.body["forth"].clone();
    assert_eq!(pilot, json!([plan.body["agents"][0]]), "as in the plan");
    assert_problem(&changes("pause").await, 400, "invalid_request");
    let listed = origin.get(&origin.key, "/api/rollouts?state=planned").await;
    assert_eq!(format!("/api/rollouts/{}", listed.body["items"][0]["id"].as_str().expect("an id")), path);
    assert_eq!(origin.get(&origin.key, "/api/rollouts?state=running").await.body["items"], json!([]));

    let _jobs = origin.run_jobs();
    // One pilot is no bulk.
    let started = origin.post(&format!("{path}/start"), &json!({})).await;
    assert_eq!((started.status, &started.body["stage"]), (200, &json!(1)), "{}", started.body);
    let waiting = reaches(&origin, &path, "waiting").await;
    assert_eq!(waiting.body["stages"][0]["agents"]["switched"], 1);
    assert_eq!(waiting.body["verdict"]["verdict"], "not_enough_calls");
    let one = origin.get(&origin.key, &format!("{path}/agents?state=switched")).await;
    assert_eq!(one.body["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(one.body["items"][0]["before"]["systemType"], "vapi");

    assert_eq!(changes("advance").await.body["forth"].as_array().map(Vec::len), Some(5));
    let back = changes("rollback").await.body["back"].clone();
    assert_eq!((&back[0]["agentId"], &back[1]), (&json!(agents[0]), &Value::Null));
    assert_eq!(
        (&back[0]["before"]["systemType"], &back[0]["after"]["systemType"]),
        (&json!("openai-realtime"), &json!("vapi"))
    );
    assert_eq!(back[0]["atTwilio"][0]["change"], "unchanged", "nobody has told Twilio yet");
    assert_eq!(one.body["items"][0]["numbers"][0]["state"], "pending");

    let advance = format!("{path}/advance");
    assert_problem(&origin.post(&advance, &json!({ "confirm": true })).await, 409, "guard_undecided");
    let asked = origin.post(&advance, &json!({ "withoutVerdict": true })).await;
    assert_problem(&asked, 409, "confirmation_needed");
    assert_eq!(asked.body["agents"], 5);
    let still = origin.get(&origin.key, &path).await;
    assert_eq!((&still.body["state"], &still.body["stage"]), (&json!("waiting"), &json!(1)), "refused, so not moved");
    let tag = still.headers["etag"].to_str().expect("a tag").to_owned();
    let yes = json!({ "withoutVerdict": true, "confirm": true });
    let tagged = async |tag: &str| {
        let request = origin.request(Method::POST, &advance).bearer_auth(&origin.key).header("if-match", tag);
        answer(request.json(&yes)).await
    };
    assert_problem(&tagged("\"1\"").await, 412, "precondition_failed");
    assert_eq!(tagged(&tag).await.status, 200);
    let done = reaches(&origin, &path, "completed").await;
    assert_eq!(done.body["agents"]["switched"], 6);
    assert_problem(&tagged(&tag).await, 412, "precondition_failed");

    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = origin.get(&origin.key, &format!("{path}/agents?limit=4{cursor}")).await;
        let items = page.body["items"].as_array().expect("a page");
        seen.extend(items.iter().map(|item| item["agentId"].clone()));
        let Some(next) = page.body["nextCursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    let order: Vec<Value> =
        plan.body["agents"].as_array().expect("agents").iter().map(|agent| agent["agentId"].clone()).collect();
    assert_eq!(seen, order, "in the order of switching");

    let back = format!("{path}/rollback");
    assert_problem(&origin.post(&back, &json!({})).await, 409, "confirmation_needed");
    assert_eq!(origin.post(&back, &json!({ "confirm": true })).await.status, 200);
    let restored = reaches(&origin, &path, "rolled_back").await;
    assert_eq!(restored.body["agents"]["restored"], 6);
    assert_eq!(systems(&origin).await, before);
    let refused = origin.post(&format!("{path}/start"), &json!({ "confirm": true })).await;
    assert_problem(&refused, 409, "rollout_state");
    assert_eq!(refused.body["state"], "rolled_back");
}

#[tokio::test]
async fn the_same_request_again_starts_once() {
    let origin = Origin::start().await;
    let agents = with_agents(&origin, 2).await;
    let fields = json!({ "target": "openai-realtime", "agentIds": agents });
    let made = origin.post_once("make", "/api/rollouts", &fields).await;
    let again = origin.post_once("make", "/api/rollouts", &fields).await;
    assert_eq!((again.status, &again.body["id"]), (201, &made.body["id"]));
    assert_eq!(rollouts(&origin).await, 1);

    let start = format!("/api/rollouts/{}/start", made.body["id"].as_str().expect("an id"));
    let first = origin.post_once("start", &start, &json!({})).await;
    assert_eq!(first.status, 200, "{}", first.body);
    // Paused meanwhile: a retry of the first start that arrives late does not start it again.
    let paused = origin.post(&start.replace("/start", "/pause"), &json!({})).await;
    assert_eq!((paused.status, &paused.body["state"]), (200, &json!("paused")), "{}", paused.body);
    let late = origin.post_once("start", &start, &json!({})).await;
    assert_eq!((late.status, &late.body), (200, &first.body));
    assert_eq!(late.headers["idempotency-replayed"], "true");
    let now = origin.get(&origin.key, &start.replace("/start", "")).await;
    assert_eq!(now.body["state"], "paused");
    assert_eq!(stages_started(&origin).await, 1);
}

#[tokio::test]
async fn only_for_the_project_and_only_with_a_key_that_may_write() {
    let origin = Origin::start().await;
    let agents = with_agents(&origin, 1).await;
    let fields = json!({ "target": "openai-realtime", "agentIds": agents });
    let path = make(&origin, &fields).await;
    let send = async |key: &str, path: &str, body: &Value| {
        answer(origin.request(Method::POST, path).bearer_auth(key).json(body)).await
    };
    let moves = ["start", "advance", "pause", "rollback"];

    let reader = origin.read_key().await;
    assert_eq!(origin.get(&reader, &path).await.status, 200);
    assert_problem(&send(&reader, "/api/rollouts", &fields).await, 403, "forbidden");
    for which in moves {
        assert_problem(&send(&reader, &format!("{path}/{which}"), &json!({})).await, 403, "forbidden");
    }

    let stranger = origin.stranger_key().await;
    assert_eq!(origin.get(&stranger, "/api/rollouts").await.body["items"], json!([]));
    assert_problem(&origin.get(&stranger, &path).await, 404, "not_found");
    for of in ["agents", "changes?request=start"] {
        assert_problem(&origin.get(&stranger, &format!("{path}/{of}")).await, 404, "not_found");
    }
    for which in moves {
        assert_problem(&send(&stranger, &format!("{path}/{which}"), &json!({})).await, 404, "not_found");
    }
    for post in ["/api/rollouts", "/api/rollouts/plan"] {
        let refused = send(&stranger, post, &fields).await;
        assert_problem(&refused, 422, "invalid_value");
        assert!(refused.body["detail"].as_str().is_some_and(|detail| detail.contains("no such agents")));
    }
    assert_eq!(rollouts(&origin).await, 1);
}

#[tokio::test]
async fn what_cannot_follow_is_told_and_so_is_what_makes_no_rollout() {
    let origin = Origin::start().await;
    let agents = with_agents(&origin, 3).await;
    let path = make(&origin, &json!({ "target": "openai-realtime", "agentIds": agents })).await;
    for which in ["advance", "pause"] {
        let refused = origin.post(&format!("{path}/{which}"), &json!({})).await;
        assert_problem(&refused, 409, "rollout_state");
        assert_eq!(refused.body["state"], "planned");
    }
    assert_problem(&origin.post(&format!("{path}/start"), &json!({})).await, 409, "confirmation_needed");
    assert_eq!(stages_started(&origin).await, 0);

    let nobody = Uuid::nil();
    for (more, field) in [
        (json!({ "agentIds": [nobody] }), "agentIds"),
        (json!({ "agentIds": [] }), "agentIds"),
        (json!({ "pilots": [nobody] }), "pilots"),
        (json!({ "pilots": agents }), "pilots"),
        (json!({ "guard": { "baselineDays": 0 } }), "guard.baselineDays"),
        (json!({ "guard": { "tolerate": { "firstAudioMs": -1 } } }), "guard.tolerate.firstAudioMs"),
    ] {
        let mut fields = json!({ "target": "openai-realtime" });
        fields.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let refused = origin.post("/api/rollouts", &fields).await;
        assert_problem(&refused, 422, "invalid_value");
        let fault = refused.body["faults"][0].as_str().expect("a fault");
        assert!(fault.starts_with(field), "{fault}");
    }
    for bad in [json!([]), json!({ "target": "openai-realtime", "percent": [101] }), json!({ "target": "edge" })] {
        assert_problem(&origin.post("/api/rollouts", &bad).await, 400, "invalid_request");
    }
    assert_eq!(rollouts(&origin).await, 1);
}
