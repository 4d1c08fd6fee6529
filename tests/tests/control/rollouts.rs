//! Rollouts from the command line: a real origin does the work, and is killed in the middle of it.

use serde_json::{Value, json};

use crate::fleet::Fleet;
use crate::harness::eventually;

#[tokio::test]
async fn a_plan_shows_exact_changes_and_makes_none() {
    let fleet = Fleet::with_agents(40).await;
    fleet.execute("update agents set realtime = null where name = 'Agent 7'").await;
    let before = fleet.systems().await;

    let dry = fleet.run(&["plan", "--project", "Fleet", "--dry-run", "--json"]).await;

    assert_eq!(dry.code, 0, "{}", dry.stderr);
    let plan = &dry.json()["plan"];
    assert_eq!(plan["stages"], json!(["25%", "50%", "100%"]));
    let agents = plan["agents"].as_array().expect("agents");
    assert_eq!(agents.len(), 40);
    let seven = agents.iter().find(|agent| agent["name"] == "Agent 7").expect("the agent");
    assert_eq!(seven["missing"], json!(["realtime"]));
    let other = agents.iter().find(|agent| agent["name"] == "Agent 8").expect("the agent");
    assert_eq!(other["before"]["numbers"][0], json!({"number": "+15550000025", "systemType": "vapi"}));
    assert_eq!(other["after"]["numbers"][0], json!({"number": "+15550000025", "systemType": "openai-realtime"}));
    assert_eq!(fleet.count("from rollouts").await, 0);
    assert_eq!(fleet.count("from event_log").await, 0);

    let text = fleet.run(&["plan", "--project", "Fleet"]).await.stdout;
    assert!(text.contains("40 agents with 120 numbers to openai-realtime; 0 there already, 1 would fail."), "{text}");
    assert!(text.contains("WOULD FAIL, missing: realtime"), "{text}");
    assert_eq!(fleet.count("from rollouts where state = 'planned'").await, 1);
    assert_eq!(fleet.systems().await, before);
    assert_eq!(fleet.count("from event_log where type = 'rollout.planned'").await, 1);
}

#[tokio::test]
async fn what_there_is_not_is_wrong_usage() {
    let fleet = Fleet::with_agents(1).await;
    let nobody = "00000000-0000-0000-0000-000000000001";
    for args in [
        vec!["plan"],
        vec!["plan", "--project", "Nowhere"],
        vec!["plan", "--agent", nobody],
        vec!["plan", "--all", "--project", "Fleet"],
        vec!["plan", "--project", "Fleet", "--percent", "0"],
        vec!["plan", "--project", "Fleet", "--pilot", nobody],
        vec!["start", nobody],
        vec!["pause", nobody],
        vec!["status", nobody],
        vec!["rollback", nobody, "--yes"],
    ] {
        let ran = fleet.run(&args).await;
        assert_eq!(ran.code, 2, "{args:?}: {} {}", ran.stdout, ran.stderr);
    }
    assert_eq!(fleet.count("from rollouts").await, 0);
}

#[tokio::test]
async fn stages_contain_each_other_and_a_rollback_restores_exactly() {
    let fleet = Fleet::with_agents(60).await;
    // One is there already, one has a number that differs from it.
    fleet.execute("update agents set system_type = 'openai-realtime' where name = 'Agent 1'").await;
    fleet
        .execute("update phone_numbers set system_type = 'openai-realtime' where agent_id = md5('agent1')::uuid or number = '+15550000007'")
        .await;
    let before = fleet.systems().await;
    let id = fleet.plan(&["--guard", "off"]).await;

    // Bulk wants a yes.
    let asked = fleet.run(&["start", &id]).await;
    assert_eq!(asked.code, 3, "{}", asked.stderr);
    assert!(asked.stderr.contains("say --yes"), "{}", asked.stderr);
    assert_eq!(fleet.systems().await, before);

    let _origin = fleet.origin().await;
    let mut reached: Vec<Value> = Vec::new();
    for (stage, command) in (1..).zip(["start", "advance", "advance"]) {
        let ran = fleet.run(&[command, &id, "--yes", "--json"]).await;
        assert_eq!(ran.code, if stage == 3 { 0 } else { 3 }, "{} {}", ran.stdout, ran.stderr);
        assert_eq!(ran.json()["rollout"]["stage"], stage);
        let on =
            fleet.value("select jsonb_agg(id order by id) from agents where system_type = 'openai-realtime'").await;
        let on = on.as_array().expect("agents");
        assert!(reached.iter().all(|agent| on.contains(agent)), "each stage contains the one before");
        assert!(on.len() > reached.len());
        reached.clone_from(on);
        assert_eq!(
            fleet.count("from phone_numbers n join agents a on a.id = n.agent_id where a.system_type <> n.system_type and n.number <> '+15550000007'").await,
            0
        );
        if stage == 3 {
            assert_eq!(on.len(), 60);
        }
    }
    // One event for each agent that changed, by the rollout.
    let actor = format!("from event_log where type = 'agent.system_type_changed' and actor = 'rollout:{id}'");
    assert_eq!(fleet.count(&actor).await, 59);

    let ran = fleet.run(&["rollback", &id, "--yes", "--json"]).await;

    assert_eq!(ran.code, 0, "{} {}", ran.stdout, ran.stderr);
    assert_eq!(fleet.systems().await, before, "also the number that differed, and the agent that was there already");
    assert_eq!(ran.json()["rollout"]["agents"]["restored"], 59);
    let again = fleet.run(&["rollback", &id, "--yes"]).await;
    assert_eq!((again.code, fleet.count(&actor).await), (0, 118), "{} {}", again.stdout, again.stderr);
    let refused = fleet.run(&["start", &id, "--yes"]).await;
    assert_eq!(refused.code, 1, "{}", refused.stdout);
}

#[tokio::test]
async fn one_that_fails_stops_no_other_and_is_told() {
    let fleet = Fleet::with_agents(12).await;
    let id = fleet.plan(&["--percent", "100", "--guard", "off"]).await;
    fleet.execute("update agents set instructions = '' where name = 'Agent 5'").await;
    let _origin = fleet.origin().await;

    let ran = fleet.run(&["start", &id, "--yes", "--json"]).await;

    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let told = ran.json();
    assert_eq!(told["rollout"]["agents"]["switched"], 11);
    assert_eq!(told["agents"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&told["agents"][0]["name"], &told["agents"][0]["errorCode"]),
        (&json!("Agent 5"), &json!("agent_not_configured"))
    );
    let text = fleet.run(&["status", &id]).await;
    assert_eq!(text.code, 1);
    assert!(text.stdout.contains("failed: agent_not_configured: missing: instructions"), "{}", text.stdout);

    // Mended, and started again: only that one is switched.
    fleet.execute("update agents set instructions = 'Answer.' where name = 'Agent 5'").await;
    let ran = fleet.run(&["start", &id, "--yes", "--json"]).await;
    assert_eq!((ran.code, fleet.on_openai().await), (0, 12), "{}", ran.stdout);
    assert_eq!(fleet.count("from event_log where type = 'agent.system_type_changed'").await, 12);

    // What cannot be switched back is told, and the others are.
    fleet.execute("update agents set vapi_assistant_id = null where name = 'Agent 9'").await;
    let ran = fleet.run(&["rollback", &id, "--yes", "--json"]).await;
    assert_eq!((ran.code, fleet.on_openai().await), (1, 1), "{}", ran.stdout);
    assert_eq!(ran.json()["agents"][0]["errorCode"], "agent_not_configured");
    assert_eq!(ran.json()["rollout"]["state"], "rolled_back");
    fleet.execute("update agents set vapi_assistant_id = 'assistant-9' where name = 'Agent 9'").await;
    let ran = fleet.run(&["rollback", &id, "--yes", "--json"]).await;
    assert_eq!((ran.code, fleet.on_openai().await), (0, 0), "{}", ran.stdout);
}

#[tokio::test]
async fn killed_in_the_middle_it_converges_both_ways() {
    let fleet = Fleet::with_agents(400).await;
    let before = fleet.systems().await;
    let id = fleet.plan(&["--percent", "100", "--guard", "off"]).await;
    let mut origin = fleet.origin().await;

    for (command, begun, all) in [("start", 30, 400), ("rollback", 370, 0)] {
        // The command itself may go as well.
        let ran = fleet.run(&[command, &id, "--yes", "--wait", "0"]).await;
        assert_eq!(ran.code, 3, "{} {}", ran.stdout, ran.stderr);
        eventually("some agents are switched", async || {
            let on = fleet.on_openai().await;
            (if all > 0 { on > begun } else { on < begun }).then_some(())
        })
        .await;
        fleet.kill(&mut origin).await;
        let left = fleet.on_openai().await;
        assert_ne!(left, all, "it was killed in the middle");
        let noted = "from rollout_items i join agents a on a.id = i.agent_id
                     where (a.system_type = 'openai-realtime') <> (i.state = 'switched')";
        assert_eq!(fleet.count(noted).await, 0, "each agent is switched and noted, or neither");

        origin.start_again().await.expect("an origin");
        eventually("the rollout is done", async || {
            let working = "from rollouts where state in ('running', 'rolling_back')";
            (fleet.count(working).await == 0).then_some(())
        })
        .await;
        let done = fleet.run(&["status", &id]).await;
        assert_eq!((done.code, fleet.on_openai().await), (0, all), "{}", done.stdout);
        let events = fleet.count("from event_log where type = 'agent.system_type_changed'").await;
        assert_eq!(events, if all > 0 { 400 } else { 800 }, "each agent was switched once");
    }
    assert_eq!(fleet.systems().await, before);
}

#[tokio::test]
async fn a_small_rollout_does_not_wait_for_a_large_one() {
    let fleet = Fleet::with_agents(100).await;
    fleet
        .execute(
            "insert into projects (id, name) values ('00000000-0000-0000-0000-00000000bbbb', 'Other');
             delete from phone_numbers where agent_id = md5('agent100')::uuid;
             update agents set project_id = '00000000-0000-0000-0000-00000000bbbb' where id = md5('agent100')::uuid",
        )
        .await;
    let large = fleet.plan(&["--percent", "100", "--guard", "off"]).await;
    let plan = fleet.run(&["plan", "--project", "Other", "--percent", "100", "--guard", "off", "--json"]).await;
    let small = plan.json()["id"].as_str().expect("an id").to_owned();
    for id in [&large, &small] {
        fleet.run(&["start", id, "--yes", "--wait", "0"]).await;
    }

    let _origin = fleet.origin().await;

    eventually("both are done", async || {
        (fleet.count("from rollouts where state = 'completed'").await == 2).then_some(())
    })
    .await;
    let order = fleet.value("select jsonb_agg(id order by changed_at) from rollouts").await;
    assert_eq!(order, json!([small, large]));
}

#[tokio::test]
async fn a_pause_holds_and_a_start_goes_on() {
    let fleet = Fleet::with_agents(400).await;
    let id = fleet.plan(&["--percent", "100", "--guard", "off"]).await;
    let _origin = fleet.origin().await;
    fleet.run(&["start", &id, "--yes", "--wait", "0"]).await;

    let paused = fleet.run(&["pause", &id, "--json"]).await;

    assert_eq!((paused.code, &paused.json()["rollout"]["state"]), (0, &json!("paused")), "{}", paused.stdout);
    let held = fleet.on_openai().await;
    assert!(held < 400, "paused in the middle");
    let status = fleet.run(&["status", &id]).await;
    assert_eq!((status.code, fleet.on_openai().await), (3, held), "{}", status.stdout);
    let refused = fleet.run(&["advance", &id, "--yes"]).await;
    assert_eq!(refused.code, 3, "{}", refused.stdout);
    let done = fleet.run(&["start", &id, "--yes"]).await;
    assert_eq!((done.code, fleet.on_openai().await), (0, 400), "{}", done.stdout);
}
