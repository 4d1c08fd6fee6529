//! What becomes of assistants: agents, tools, and what is reported.

use serde_json::{Value, json};

use crate::world::{SECRET, World, agent_id, field, plain, receptionist, slots};

#[tokio::test]
async fn a_receptionist_becomes_an_agent_with_its_tools() {
    let world = World::start().await;
    world.vapi.add_tool(slots("slots"));
    world.vapi.add_assistant(receptionist("reception-9"));

    let ran = world.import(&["--assistant", "reception-9"]).await;

    assert_eq!(ran.code, 3, "{} {}", ran.stdout, ran.stderr);
    let said = ran.only();
    assert_eq!((said["action"].as_str(), &said["change"]["before"]), (Some("created"), &Value::Null));
    let agent = world.agent("reception-9").await;
    assert_eq!(agent["id"], json!(agent_id(&said)));
    assert_eq!((agent["name"].as_str(), agent["system_type"].as_str()), (Some("Receptionist"), Some("vapi")));
    assert_eq!(agent["greeting"], "Thank you for calling Hill Street Clinic, this is Maya.");
    assert_eq!(agent["instructions"], "You answer the phone of {{clinic}}. It is {{now}}.");
    let realtime = &agent["realtime"];
    assert_eq!((&realtime["voice"], &realtime["model"]), (&json!("marin"), &Value::Null));
    assert_eq!(realtime["turnDetection"]["silenceDurationMs"], 700);
    assert_eq!(realtime["transcription"]["keywords"], json!(["Invisalign"]));
    assert_eq!(
        realtime["call"],
        json!({
            "firstMessageInterruptible": false, "maxDurationSeconds": 900, "silenceTimeoutSeconds": 20,
            "idle": {"afterMs": 8000, "times": 2, "messages": ["Are you still there?"]},
            "endCallMessage": "Goodbye.", "endCallPhrases": ["goodbye now"], "interruptAfterWords": 2,
            "backgroundSound": "office", "recording": true,
        })
    );

    let tools = world.tools("reception-9").await;
    let slots = &tools["tool:slots"];
    assert_eq!((slots["name"].as_str(), slots["timeout_ms"].as_i64()), (Some("get_slots"), Some(12_000)));
    assert_eq!(slots["settings"]["staticArguments"], json!({"caller": "{{customer.number}}"}));
    assert!(slots["secret"].as_str().is_some_and(|secret| secret.len() >= 40), "a secret of its own");
    let transfer = &tools["assistant:reception-9/transferCall"];
    assert_eq!(transfer["builtin"], "transfer_call");
    assert_eq!(transfer["settings"]["destinations"][0]["number"], "+15550177");
    assert_eq!(tools["assistant:reception-9/endCall"]["builtin"], "end_call");

    for (path, status) in [
        ("model.messages[0].content", "carried-inactive"),
        ("model.temperature", "lost"),
        ("model.maxTokens", "approximated"),
        ("voice.voiceId", "approximated"),
        ("endCallPhrases[0]", "carried"),
        ("hooks[0].do[0].exact", "carried"),
        ("hooks[1].on", "lost"),
        ("server.headers.X-Api-Key", "lost"),
        ("analysisPlan.summaryPlan.enabled", "lost"),
        ("tool(slots).function.parameters.properties.day.format", "carried"),
        ("tool(slots).server.headers.Authorization", "lost"),
        ("backgroundSound", "carried-inactive"),
    ] {
        assert_eq!(field(&said, path)["status"], status, "{path}");
    }
    let template = field(&said, "model.messages[0].content")["note"].as_str().expect("a note").to_owned();
    assert!(template.contains("unknown variable `clinic`") && template.contains("variable `now`"), "{template}");
    assert_eq!(field(&said, "backgroundSound")["source"], "default");
}

#[tokio::test]
async fn secrets_reach_neither_report_nor_log_nor_database() {
    let world = World::start().await;
    world.vapi.add_tool(slots("slots"));
    world.vapi.add_assistant(receptionist("reception-9"));

    let json = world.import(&["--all", "--dry-run"]).await;
    let text = world.run(&["import", "vapi", "--project", crate::world::PROJECT, "--all"]).await;

    assert_eq!((json.code, text.code), (3, 3));
    for printed in [&json.stdout, &json.stderr, &text.stdout, &text.stderr] {
        assert!(!printed.contains(SECRET), "{printed}");
    }
    let mut stored = world.everything().await;
    // The server cannot be reached without its URL's query: it is kept there and shown nowhere.
    for tool in stored["tools"].as_array_mut().expect("tools") {
        tool["target_url"].take();
    }
    assert!(!stored.to_string().contains(SECRET), "{stored:#}");
}

#[tokio::test]
async fn decisions_made_beforehand_settle_the_report() {
    let world = World::start().await;
    let mut assistant = plain("p1", "Plain");
    assistant["voice"] = json!({"provider": "11labs", "voiceId": "rachel", "stability": 0.5});
    assistant["model"]["model"] = json!("gpt-4.1");
    assistant["model"]["temperature"] = json!(0.4);
    assistant["hooks"] = json!([{"on": "call.ending", "do": []}]);
    world.vapi.add_assistant(assistant);

    let undecided = world.import(&["--assistant", "p1", "--dry-run"]).await;
    assert_eq!(undecided.code, 3);
    assert_eq!(undecided.only()["report"]["open"], 7, "{:#}", undecided.only());

    let decisions = ["--voice", "11labs:rachel=cedar", "--model", "gpt-realtime-2.1", "--accept", "model.temperature"];
    let some: Vec<&str> = ["--assistant", "p1"].into_iter().chain(decisions).collect();
    assert_eq!(world.import(&some).await.code, 3, "the hook is still lost");
    let all: Vec<&str> = some.into_iter().chain(["--accept", "hooks[*].**"]).collect();
    let settled = world.import(&all).await;
    assert_eq!((settled.code, settled.only()["action"].as_str()), (0, Some("unchanged")), "{:#}", settled.only());
    let agent = world.agent("p1").await;
    assert_eq!(
        (&agent["realtime"]["voice"], &agent["realtime"]["model"]),
        (&json!("cedar"), &json!("gpt-realtime-2.1"))
    );
}

#[tokio::test]
async fn old_assistants_and_fields_of_the_future_are_read_too() {
    let world = World::start().await;
    world.vapi.add_assistant(json!({
        "id": "old-1", "name": "Night desk", "serverUrl": "https://desk.test/hook", "serverUrlSecret": SECRET,
        "forwardingPhoneNumber": "+15550188", "endCallFunctionEnabled": true, "recordingEnabled": false,
        "voice": "jennifer-playht", "responseDelaySeconds": 0.9,
        "model": {"provider": "openai", "model": "gpt-3.5-turbo", "systemPrompt": "You watch the door.",
                  "functions": [{"name": "open_door", "description": "Opens it.",
                                 "parameters": {"type": "object", "properties": {}}}]},
    }));
    let mut future = plain("future-1", "Future");
    future["telepathy"] = json!({"range": 3, "targets": ["all"]});
    future["model"]["tools"] = json!([{"type": "teleport", "destination": {"planet": "Mars"}}]);
    world.vapi.add_assistant(future);
    world.vapi.add_assistant(plain("plain-1", "Plain"));

    let ran = world.import(&["--all"]).await;

    assert_eq!(ran.code, 3, "{}", ran.stderr);
    let json = ran.json();
    let of = |id: &str| {
        let all = json["assistants"].as_array().expect("assistants");
        all.iter().find(|assistant| assistant["assistantId"] == id).expect("the assistant").clone()
    };
    let future = of("future-1");
    for path in ["telepathy.range", "telepathy.targets[0]", "model.tools[0].destination.planet"] {
        assert_eq!(field(&future, path)["status"], "lost", "{path}");
    }
    assert_eq!(of("plain-1")["report"]["open"], 0, "{:#}", of("plain-1"));

    assert_eq!(world.agent("old-1").await["realtime"]["turnDetection"]["silenceDurationMs"], 1000);
    let tools = world.tools("old-1").await;
    assert_eq!(tools["assistant:old-1/open_door"]["target_url"], "https://desk.test/hook");
    assert_eq!(tools["assistant:old-1/transferCall"]["settings"]["destinations"][0]["number"], "+15550188");
    assert_eq!(tools["assistant:old-1/endCall"]["builtin"], "end_call");

    let alone = world.import(&["--assistant", "plain-1"]).await;
    assert_eq!((alone.code, alone.only()["action"].as_str()), (0, Some("unchanged")));
}

/// Two assistants may have functions of one name that are not the same function.
#[tokio::test]
async fn tools_of_one_name_live_side_by_side_and_shared_ones_are_one() {
    let world = World::start().await;
    world.vapi.add_tool(slots("slots"));
    for (id, name, url) in [("a1", "One", "https://one.test"), ("a2", "Two", "https://two.test")] {
        let mut assistant = plain(id, name);
        assistant["model"]["toolIds"] = json!(["slots"]);
        assistant["model"]["tools"] =
            json!([{"type": "function", "function": {"name": "book"}, "server": {"url": url}}]);
        world.vapi.add_assistant(assistant);
    }
    let ran = world.import(&["--all"]).await;
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    let (one, two) = (world.tools("a1").await, world.tools("a2").await);
    assert_eq!(one["tool:slots"]["id"], two["tool:slots"]["id"]);
    assert_eq!(one["assistant:a1/book"]["target_url"], "https://one.test/");
    assert_eq!(two["assistant:a2/book"]["target_url"], "https://two.test/");
    assert_eq!(two["assistant:a2/book"]["function_name"], "book", "what the model and the server call it");
    assert_ne!(two["assistant:a2/book"]["name"], "book", "what the project calls it");
}
