//! Again, after changes there or here, or only on trial.

use serde_json::{Value, json};

use crate::world::{World, plain, receptionist, slots};

async fn with_receptionist() -> World {
    let world = World::start().await;
    world.vapi.add_tool(slots("slots"));
    world.vapi.add_assistant(receptionist("r1"));
    world
}

#[tokio::test]
async fn a_dry_run_writes_nothing_and_shows_what_the_real_one_does() {
    let world = with_receptionist().await;
    let before = world.everything().await;

    let dry = world.import(&["--all", "--dry-run"]).await;

    assert_eq!(dry.code, 3, "{}", dry.stderr);
    assert_eq!(world.everything().await, before);
    let real = world.import(&["--all"]).await.only();
    let dry = dry.only();
    assert_eq!((&dry["change"]["agentId"], &dry["action"]), (&Value::Null, &json!("created")));
    assert_eq!(dry["change"]["after"], real["change"]["after"]);
    assert_eq!(dry["report"], real["report"]);

    world.patch("/assistant/r1", &json!({"firstMessage": "Hello."})).await;
    let before = world.everything().await;
    let dry = world.import(&["--all", "--dry-run"]).await.only();
    assert_eq!(world.everything().await, before);
    assert_eq!(dry["change"]["after"]["greeting"], "Hello.");
    assert_eq!(dry["change"]["before"]["greeting"], "Thank you for calling Hill Street Clinic, this is Maya.");
    let text = world.run(&["import", "vapi", "--project", crate::world::PROJECT, "--all", "--dry-run"]).await;
    assert!(text.stdout.contains("would be updated"), "{}", text.stdout);
    assert!(text.stdout.contains("~ greeting: \"Thank you for calling"), "{}", text.stdout);
    assert!(text.stdout.contains("! lost"), "{}", text.stdout);
}

#[tokio::test]
async fn again_without_changes_changes_and_logs_nothing() {
    let world = with_receptionist().await;
    world.import(&["--all"]).await;
    let before = world.everything().await;

    let again = world.import(&["--all"]).await;

    assert_eq!((again.code, again.only()["action"].as_str()), (3, Some("unchanged")));
    assert_eq!(world.everything().await, before);
    assert_eq!(world.events("r1").await.len(), 1);
}

#[tokio::test]
async fn a_change_at_vapi_updates_the_agent_and_is_logged() {
    let world = with_receptionist().await;
    world.import(&["--all"]).await;
    let secret = world.tools("r1").await["tool:slots"]["secret"].clone();
    world.execute("update agents set system_type = 'openai-realtime' where vapi_assistant_id = 'r1'").await;
    world.patch("/assistant/r1", &json!({"maxDurationSeconds": 300, "firstMessage": "Hello."})).await;
    world.patch("/tool/slots", &json!({"server": {"url": "https://tools.clinic.test/v2"}})).await;

    let ran = world.import(&["--all"]).await;

    assert_eq!(ran.only()["action"], "updated", "{}", ran.stderr);
    let agent = world.agent("r1").await;
    assert_eq!((&agent["greeting"], &agent["system_type"]), (&json!("Hello."), &json!("openai-realtime")));
    assert_eq!(agent["realtime"]["call"]["maxDurationSeconds"], 300);
    let slots = &world.tools("r1").await["tool:slots"];
    assert_eq!((&slots["target_url"], &slots["timeout_ms"]), (&json!("https://tools.clinic.test/v2"), &json!(20_000)));
    assert_eq!(slots["secret"], secret, "its server need not learn another");
    let events = world.events("r1").await;
    let [created, updated] = events.as_slice() else { panic!("two events: {events:#?}") };
    assert_eq!((created["before"].is_null(), &created["actor"]), (true, &json!("command:import vapi")));
    assert_eq!(created["after"], updated["before"]);
    assert_eq!(updated["after"]["greeting"], "Hello.");
    assert_eq!(updated["after"]["tools"]["get_slots"]["target"]["url"], "https://tools.clinic.test/v2");
}

#[tokio::test]
async fn what_was_changed_here_stays_until_it_changes_at_vapi() {
    let world = with_receptionist().await;
    world.import(&["--all"]).await;
    world
        .execute(
            "update agents set greeting = 'Ours.', instructions = 'Ours.', realtime = realtime || '{\"voice\": \"coral\"}'
             where vapi_assistant_id = 'r1'",
        )
        .await;
    world.execute("update tools set description = 'Ours.' where imported_from = 'tool:slots'").await;
    world
        .execute(
            "delete from agent_tools where tool_id = (select id from tools where imported_from = 'assistant:r1/endCall')",
        )
        .await;
    let before = world.everything().await;
    assert_eq!(world.import(&["--all"]).await.only()["action"], "unchanged");
    assert_eq!(world.everything().await, before);

    world.patch("/assistant/r1", &json!({"firstMessage": "Theirs."})).await;
    let said = world.import(&["--all"]).await.only();

    assert_eq!(said["action"], "updated");
    let agent = world.agent("r1").await;
    assert_eq!((&agent["greeting"], &agent["instructions"]), (&json!("Theirs."), &json!("Ours.")));
    assert_eq!(agent["realtime"]["voice"], "coral");
    let tools = world.tools("r1").await;
    assert_eq!(tools["tool:slots"]["description"], "Ours.");
    assert_eq!(tools["assistant:r1/endCall"], Value::Null, "taken away by hand");
    assert!(said["change"]["kept"][0].as_str().is_some_and(|kept| kept.contains("endCall")), "{said:#}");
}

#[tokio::test]
async fn a_tool_that_is_gone_at_vapi_is_taken_from_the_agent() {
    let world = with_receptionist().await;
    world.import(&["--all"]).await;
    world
        .execute(
            "with made as (insert into tools (id, project_id, name, builtin)
                           select gen_random_uuid(), project_id, 'by_hand', 'send_dtmf'
                           from agents where vapi_assistant_id = 'r1' returning id, project_id)
             insert into agent_tools (project_id, agent_id, tool_id)
             select made.project_id, a.id, made.id from made, agents a where a.vapi_assistant_id = 'r1'",
        )
        .await;
    let mut model = receptionist("r1")["model"].clone();
    model["toolIds"] = json!([]);
    // The agent has this one already, made by hand.
    model["tools"] = json!([{"type": "endCall"},
        {"type": "function", "function": {"name": "by_hand"}, "server": {"url": "https://x.test"}}]);
    world.patch("/assistant/r1", &json!({"model": model})).await;

    let said = world.import(&["--all"]).await.only();

    let tools = world.tools("r1").await;
    let sources: Vec<&String> = tools.as_object().expect("tools").keys().collect();
    assert_eq!(sources, ["assistant:r1/endCall", "by hand"]);
    assert!(said["change"]["kept"][0].as_str().is_some_and(|kept| kept.contains("by_hand")), "{said:#}");
}

#[tokio::test]
async fn an_agent_that_is_there_is_updated_and_names_stay_unique() {
    let world = World::start().await;
    // The seeded agent's assistant.
    let id = "5e1d9d1c-6f39-4c5e-9a53-8c5b8f0f6a01";
    let seeded = world.agent(id).await;
    world.vapi.add_assistant(plain(id, "Reception"));
    world.vapi.add_assistant(plain("other-assistant", "Reception"));

    let ran = world.import(&["--all"]).await;

    assert_eq!(ran.code, 0, "{} {}", ran.stdout, ran.stderr);
    let agent = world.agent(id).await;
    assert_eq!((&agent["id"], &agent["name"]), (&seeded["id"], &json!("Reception")));
    assert_eq!((&agent["instructions"], &agent["realtime"]["voice"]), (&json!("Be kind."), &json!("cedar")));
    assert_eq!(world.agent("other-assistant").await["name"], "Reception (other-as)");
    assert_eq!(world.events(id).await[0]["before"]["realtime"]["voice"], "marin");
    let before = world.everything().await;
    world.import(&["--all"]).await;
    assert_eq!(world.everything().await, before);
}
