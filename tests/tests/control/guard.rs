//! The guard of a rollout: what it makes of the calls of switched agents, and what follows.

use serde_json::{Value, json};

use crate::fleet::Fleet;
use crate::harness::eventually;

impl Fleet {
    /// So many calls of each agent, that many seconds ago and `seconds` long, with this end.
    async fn calls(&self, system: &str, count: u32, seconds_ago: i32, reason: &str, seconds: u32) {
        self.execute(&format!(
            "insert into calls (id, project_id, agent_id, call_sid, system_type, status, started_at, answered_at, ended_at,
                                end_reason, told_latency_ms)
             select gen_random_uuid(), a.project_id, a.id, 'CA' || md5(random()::text), '{system}', 'ended', at, at,
                    at + interval '{seconds} seconds', '{reason}', 800 + (k % 20) * 10
             from agents a, generate_series(1, {count}) k, (select now() - interval '{seconds_ago} seconds' as at) moment"
        ))
        .await;
    }

    /// A past of good calls at Vapi.
    async fn past(&self) {
        self.calls("vapi", 60, 86_400, "caller_hung_up", 90).await;
    }

    /// Lets the origin look now instead of within a minute.
    async fn look(&self) {
        self.execute(
            "select graphile_worker.add_job(identifier => 'rollouts', payload => '{}', queue_name => 'rollouts',
                                            job_key => 'rollouts')",
        )
        .await;
    }

    async fn status(&self, id: &str) -> Value {
        self.run(&["status", id, "--json"]).await.json()
    }

    async fn reaches(&self, id: &str, state: &str) -> Value {
        eventually(state, async || {
            let status = self.status(id).await;
            (status["rollout"]["state"] == state).then_some(status)
        })
        .await
    }
}

#[tokio::test]
async fn a_stage_begins_only_with_a_pass_or_a_persons_word() {
    let fleet = Fleet::with_agents(30).await;
    fleet.past().await;
    let _origin = fleet.origin().await;
    let id = fleet.plan(&["--percent", "60,90,100"]).await;
    let begun = fleet.run(&["start", &id, "--yes", "--json"]).await;
    assert_eq!(begun.code, 3, "{}", begun.stdout);
    assert_eq!(begun.json()["rollout"]["verdict"]["verdict"], "not_enough_calls");
    let switched = begun.json()["rollout"]["agents"]["switched"].as_i64().expect("a count");

    let refused = fleet.run(&["advance", &id, "--yes"]).await;
    assert_eq!(refused.code, 3, "{}", refused.stdout);
    assert!(refused.stdout.contains("The guard has not enough calls for a verdict yet."), "{}", refused.stdout);
    assert_eq!(fleet.status(&id).await["rollout"]["stage"], 1);

    // Calls of agents that were not switched yet, and calls from before, are none of these.
    fleet.calls("openai-realtime", 60, -1, "caller_hung_up", 90).await;
    let status = fleet.status(&id).await;
    let findings = &status["rollout"]["verdict"];
    assert_eq!(findings["verdict"], "pass", "{findings:#}");
    assert_eq!(findings["findings"][0]["now"]["calls"], 60 * switched);
    assert_eq!(findings["findings"][0]["before"]["calls"], 60 * switched);
    let text = fleet.run(&["status", &id]).await.stdout;
    assert!(text.contains("guard: pass"), "{text}");
    assert!(text.contains("tool errors      does not apply"), "{text}");

    let advanced = fleet.run(&["advance", &id, "--yes", "--json"]).await;
    assert_eq!((advanced.code, &advanced.json()["rollout"]["stage"]), (3, &json!(2)), "{}", advanced.stdout);
    // The new ones have no calls since, the earlier ones have.
    let advanced = fleet.run(&["advance", &id, "--yes", "--without-verdict"]).await;
    assert_eq!((advanced.code, fleet.on_openai().await), (0, 30), "{}", advanced.stdout);
}

#[tokio::test]
async fn worse_calls_pause_it_and_nobody_overrules_that() {
    let fleet = Fleet::with_agents(6).await;
    fleet.past().await;
    let _origin = fleet.origin().await;
    let id = fleet.plan(&["--percent", "70,100"]).await;
    fleet.run(&["start", &id, "--yes"]).await;
    fleet.calls("openai-realtime", 10, -1, "caller_hung_up", 90).await;
    fleet.calls("openai-realtime", 5, -1, "provider_failed", 3).await;
    let refused = fleet.run(&["advance", &id, "--yes", "--without-verdict"]).await;
    assert_eq!(refused.code, 1, "{}", refused.stdout);

    fleet.look().await;

    let status = fleet.reaches(&id, "paused").await;
    assert_eq!((&status["rollout"]["reason"], &status["exitCode"]), (&json!("guard"), &json!(3)));
    let findings = fleet.value("select details -> 'findings' from event_log where type = 'rollout.paused'").await;
    assert_eq!((&findings[0]["measure"], &findings[0]["verdict"]), (&json!("setupFailures"), &json!("fail")));
    let refused = fleet.run(&["advance", &id, "--yes", "--without-verdict"]).await;
    assert_eq!(refused.code, 3, "{}", refused.stdout);
    assert_eq!(fleet.status(&id).await["rollout"]["stage"], 1);

    // Mended: those calls do not count any more, and it does not pause at once again.
    fleet.execute("update calls set started_at = now() - interval '1 second', answered_at = now() - interval '1 second', ended_at = now() where started_at > now()").await;
    let again = fleet.run(&["start", &id, "--yes", "--json"]).await;
    assert_eq!(again.json()["rollout"]["verdict"]["verdict"], "not_enough_calls", "{}", again.stdout);
    assert_eq!(again.json()["rollout"]["verdict"]["findings"][0]["now"]["calls"], 0);
    fleet.look().await;
    fleet.calls("openai-realtime", 60, -1, "caller_hung_up", 90).await;
    let done = fleet.run(&["advance", &id, "--yes"]).await;
    assert_eq!((done.code, fleet.on_openai().await), (0, 6), "{}", done.stdout);
}

#[tokio::test]
async fn worse_calls_turn_it_round_where_that_was_asked_for() {
    let fleet = Fleet::with_agents(6).await;
    fleet.past().await;
    let before = fleet.systems().await;
    let _origin = fleet.origin().await;
    let id = fleet.plan(&["--percent", "100", "--guard", "rollback"]).await;
    let done = fleet.run(&["start", &id, "--yes"]).await;
    assert_eq!((done.code, fleet.on_openai().await), (0, 6), "{}", done.stdout);
    // Also after the last stage. Callers hang up within seconds.
    fleet.calls("openai-realtime", 10, -1, "caller_hung_up", 4).await;

    fleet.look().await;

    let status = fleet.reaches(&id, "rolled_back").await;
    assert_eq!((&status["rollout"]["reason"], &status["exitCode"]), (&json!("guard"), &json!(0)));
    assert_eq!(fleet.systems().await, before);
    let kinds =
        fleet.value("select jsonb_agg(type order by position) from event_log where type like 'rollout.%'").await;
    assert_eq!(
        kinds,
        json!([
            "rollout.planned",
            "rollout.stage_started",
            "rollout.completed",
            "rollout.rollback_started",
            "rollout.rolled_back"
        ])
    );
}

#[tokio::test]
async fn calls_are_compared_for_a_week_after_the_last_stage() {
    let fleet = Fleet::with_agents(6).await;
    fleet.past().await;
    let _origin = fleet.origin().await;
    let mut ids = Vec::new();
    for names in ["'Agent 1', 'Agent 2', 'Agent 3'", "'Agent 4', 'Agent 5', 'Agent 6'"] {
        let agents = fleet.value(&format!("select jsonb_agg(id) from agents where name in ({names})")).await;
        let mut args = vec!["plan", "--json"];
        for agent in agents.as_array().expect("agents") {
            args.extend(["--agent", agent.as_str().expect("an id")]);
        }
        let id = fleet.run(&args).await.json()["id"].as_str().expect("an id").to_owned();
        let done = fleet.run(&["start", &id, "--yes"]).await;
        assert_eq!(done.code, 0, "{}", done.stdout);
        ids.push(id);
    }
    fleet.calls("openai-realtime", 10, -1, "provider_failed", 3).await;
    // The guard looks at the earlier one first.
    for (id, ago) in ids.iter().zip(["7 days 1 hour", "6 days 23 hours"]) {
        fleet.execute(&format!("update rollouts set changed_at = now() - interval '{ago}' where id = '{id}'")).await;
    }

    fleet.look().await;

    let status = fleet.reaches(&ids[1], "paused").await;
    assert_eq!(status["rollout"]["reason"], "guard");
    assert_eq!(fleet.status(&ids[0]).await["rollout"]["state"], "completed");
}

#[tokio::test]
async fn a_call_that_openai_could_not_have_failed_there() {
    let fleet = Fleet::with_agents(3).await;
    fleet.past().await;
    let _origin = fleet.origin().await;
    let id = fleet.plan(&["--percent", "100"]).await;
    fleet.run(&["start", &id, "--yes"]).await;
    // Vapi took them, and the callers noticed nothing.
    fleet.calls("vapi", 20, -1, "caller_hung_up", 90).await;
    assert_eq!(fleet.status(&id).await["rollout"]["verdict"]["findings"][0]["now"]["calls"], 0);
    fleet.execute("update calls set pin_reason = 'at_capacity' where started_at > now() - interval '1 hour'").await;

    let status = fleet.status(&id).await;

    assert_eq!(status["rollout"]["verdict"]["verdict"], "fail", "{status:#}");
    assert_eq!(status["rollout"]["verdict"]["findings"][0]["now"], json!({"calls": 60, "value": 100.0}));
}
