//! Agents over HTTP: made, changed, deleted, and what a change must keep.

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::query;

use crate::harness::{Origin, answer, assert_problem};

async fn last_event(origin: &Origin, kind: &str) -> Value {
    let events = origin.get(&origin.key, "/api/events?limit=200").await.body;
    let found = events["items"].as_array().expect("events").iter().find(|event| event["type"] == kind);
    found.unwrap_or_else(|| panic!("no {kind}")).clone()
}

#[tokio::test]
async fn an_agent_is_made_read_changed_and_deleted_with_an_event_each() {
    let origin = Origin::start().await;
    let tool = origin.tool("lookup").await;
    let whole = json!({
        "name": "Sales", "instructions": "Sell.", "greeting": "Hello.", "fallbackNumber": "+15550100009",
        "vapiAssistantId": "assistant-9", "realtime": { "voice": "marin", "turnDetection": { "type": "semantic_vad" } },
        "toolIds": [tool],
    });

    let made = origin.post("/api/agents", &whole).await;

    assert_eq!(made.status, 201, "{}", made.body);
    let path = made.headers["location"].to_str().expect("a path").to_owned();
    for (name, value) in whole.as_object().expect("an object").iter().filter(|(name, _)| *name != "realtime") {
        assert_eq!(&made.body[name], value);
    }
    assert_eq!(made.body["realtime"]["turnDetection"], json!({ "type": "semantic_vad", "eagerness": "auto" }));
    assert_eq!((&made.body["systemType"], &made.body["numbers"]), (&json!("vapi"), &json!([])));
    let read = origin.get(&origin.key, &path).await;
    assert_eq!((&read.body, &read.headers["etag"]), (&made.body, &made.headers["etag"]));
    let event = last_event(&origin, "agent.created").await;
    assert_eq!((&event["agentId"], &event["after"]["name"]), (&made.body["id"], &json!("Sales")));

    let partly = json!({ "greeting": null, "realtime": { "speed": 1.25 }, "toolIds": [] });
    let request = origin.request(Method::PATCH, &path).bearer_auth(&origin.key);
    let changed =
        answer(request.header("content-type", "application/merge-patch+json; charset=utf-8").body(partly.to_string()))
            .await;

    assert_eq!(changed.status, 200, "{}", changed.body);
    assert_eq!(changed.body["greeting"], Value::Null);
    assert_eq!(
        (&changed.body["realtime"]["speed"], &changed.body["realtime"]["voice"]),
        (&json!(1.25), &json!("marin"))
    );
    assert_eq!((&changed.body["toolIds"], &changed.body["instructions"]), (&json!([]), &json!("Sell.")));
    assert_ne!(changed.headers["etag"], read.headers["etag"]);
    let event = last_event(&origin, "agent.changed").await;
    assert_eq!((&event["before"]["greeting"], &event["after"]["greeting"]), (&json!("Hello."), &Value::Null));
    assert_eq!((&event["before"]["toolIds"], &event["after"]["toolIds"]), (&json!([tool]), &json!([])));
    assert_eq!(event["actor"], json!(format!("api-key:{}", &origin.key[..12])));

    let only_tools = origin.patch(&path, &json!({ "toolIds": [tool] })).await;
    assert_ne!(only_tools.headers["etag"], changed.headers["etag"], "tools are a part of the agent");
    let same = origin.patch(&path, &json!({ "toolIds": [tool] })).await;
    assert_eq!(same.headers["etag"], only_tools.headers["etag"], "the same again changes nothing");

    assert_eq!(origin.delete(&path).await.status, 204);
    assert_problem(&origin.get(&origin.key, &path).await, 404, "not_found");
    assert_problem(&origin.delete(&path).await, 404, "not_found");
    assert_eq!(last_event(&origin, "agent.deleted").await["before"]["name"], "Sales");
    let id = made.body["id"].as_str().expect("an id").parse().expect("an id");
    assert_eq!(origin.events(id).await.len(), 4, "what changed nothing logged nothing");
}

#[tokio::test]
async fn what_the_present_system_needs_stays() {
    let origin = Origin::start().await;
    let night_line = format!("/api/agents/{}", origin.night_line);
    let before = origin.agent(origin.night_line).await;
    for (patch, missing) in
        [(json!({ "realtime": null }), "realtime"), (json!({ "instructions": " " }), "instructions")]
    {
        let refused = origin.patch(&night_line, &patch).await;
        assert_problem(&refused, 409, "needed_by_system");
        assert_eq!(refused.body["missing"], json!([missing]));
    }
    assert_eq!(origin.agent(origin.night_line).await, before);
    let reception = format!("/api/agents/{}", origin.reception);
    assert_problem(&origin.patch(&reception, &json!({ "vapiAssistantId": null })).await, 409, "needed_by_system");
    assert_eq!(origin.patch(&reception, &json!({ "realtime": null })).await.status, 200, "Vapi does not need it");
    assert_problem(&origin.patch(&reception, &json!({ "systemType": "vapi" })).await, 422, "invalid_value");
}

#[tokio::test]
async fn an_agent_with_numbers_or_calls_is_not_deleted() {
    let origin = Origin::start().await;
    let path = format!("/api/agents/{}", origin.reception);
    let refused = origin.delete(&path).await;
    assert_problem(&refused, 409, "agent_in_use");
    assert_eq!((&refused.body["numbers"], &refused.body["calls"]), (&json!(1), &json!(0)));
    query("update phone_numbers set agent_id = null").execute(&origin.app.db).await.expect("no numbers");
    query(
        "insert into calls (id, project_id, agent_id, call_sid, system_type)
         values (gen_random_uuid(), $1, $2, 'CA1', 'vapi')",
    )
    .bind(origin.project.0)
    .bind(origin.reception.0)
    .execute(&origin.app.db)
    .await
    .expect("a call");
    let refused = origin.delete(&path).await;
    assert_problem(&refused, 409, "agent_in_use");
    assert_eq!((&refused.body["numbers"], &refused.body["calls"]), (&json!(0), &json!(1)));
}

#[tokio::test]
async fn values_that_cannot_be_used_are_all_named() {
    let origin = Origin::start().await;
    let stranger = origin.stranger_key().await;
    let theirs = origin.tool_of(&stranger, "theirs").await;
    let tool = origin.tool("lookup").await;
    let refused = origin
        .post(
            "/api/agents",
            &json!({
                "name": " ", "greeting": "", "toolIds": [theirs, tool, tool],
                "realtime": { "voice": "nobody", "speed": 9 },
            }),
        )
        .await;
    assert_problem(&refused, 422, "invalid_value");
    let faults: Vec<&str> =
        refused.body["faults"].as_array().expect("faults").iter().filter_map(Value::as_str).collect();
    for field in ["name", "greeting", "toolIds", "realtime.voice", "realtime.speed"] {
        assert!(faults.iter().any(|fault| fault.starts_with(field)), "{field}: {faults:?}");
    }
    for bad in [
        json!({}),
        json!({ "name": "A", "more": 1 }),
        json!({ "name": "A", "realtime": { "voice": "marin", "sped": 1 } }),
        json!({ "name": "A\0" }),
        json!({ "name": "A", "fallbackNumber": "911" }),
    ] {
        assert_problem(&origin.post("/api/agents", &bad).await, 400, "invalid_request");
    }
    assert_problem(&origin.post("/api/agents", &json!({ "name": "Reception" })).await, 409, "name_taken");
    let taken = json!({ "name": "A", "vapiAssistantId": "assistant-1" });
    assert_problem(&origin.post("/api/agents", &taken).await, 409, "vapi_assistant_taken");
    let path = format!("/api/agents/{}", origin.reception);
    assert_problem(&origin.patch(&path, &json!({ "name": null })).await, 422, "invalid_value");
    assert_problem(&origin.patch(&path, &json!({ "nmae": "A" })).await, 422, "invalid_value");
    assert_problem(&origin.patch(&path, &json!([])).await, 400, "invalid_request");
    let read = origin.read_key().await;
    let reading = origin.request(Method::POST, "/api/agents").bearer_auth(read).json(&json!({ "name": "A" }));
    assert_problem(&answer(reading).await, 403, "forbidden");
}

#[tokio::test]
async fn secrets_are_never_shown_again() {
    let origin = Origin::start().await;
    let server = |token: &str| json!({ "label": "crm", "url": "https://mcp.test/", "authorization": token });
    let agent = json!({ "name": "A", "realtime": { "voice": "marin", "mcpServers": [server("swordfish")] } });
    let made = origin.post_once("k", "/api/agents", &agent).await;
    let path = made.headers["location"].to_str().expect("a path").to_owned();
    assert_eq!(made.body["realtime"]["mcpServers"][0]["authorization"], "********");
    let changed = origin.patch(&path, &json!({ "realtime": made.body["realtime"], "greeting": "Hi." })).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    let stored: Value = sqlx::query_scalar("select realtime from agents where name = 'A'")
        .fetch_one(&origin.app.db)
        .await
        .expect("the settings");
    assert_eq!(stored["mcpServers"][0]["authorization"], "swordfish", "what was masked stays as it is");
    let elsewhere = json!({ "label": "crm", "url": "https://evil.test/", "authorization": "********" });
    let refused = origin.patch(&path, &json!({ "realtime": { "mcpServers": [elsewhere] } })).await;
    assert_problem(&refused, 422, "invalid_value");
    for shown in [
        origin.get(&origin.key, &path).await.body,
        origin.get(&origin.key, "/api/agents").await.body,
        origin.get(&origin.key, "/api/events?limit=200").await.body,
    ] {
        assert!(!shown.to_string().contains("swordfish"));
    }
}
