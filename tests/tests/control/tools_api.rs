//! Tools and projects over HTTP.

use serde_json::{Value, json};

use crate::harness::{Origin, assert_problem};

#[tokio::test]
async fn a_tool_is_made_assigned_changed_and_deleted_and_its_secrets_stay_secret() {
    let origin = Origin::start().await;
    let tool = json!({ "name": "lookup", "targetUrl": "https://tools.example.com/x?key=swordfish" });

    let made = origin.post_once("k", "/api/tools", &tool).await;

    assert_eq!(made.status, 201, "{}", made.body);
    let secret = made.body["secret"].as_str().expect("a new secret").to_owned();
    assert_eq!((secret.len(), &made.body["targetUrl"]), (43, &json!("https://tools.example.com/x?********")));
    let again = origin.post_once("k", "/api/tools", &tool).await;
    assert_eq!((&again.body["id"], &again.body["secret"]), (&made.body["id"], &json!("********")), "shown only once");
    let path = made.headers["location"].to_str().expect("a path").to_owned();

    let agent = format!("/api/agents/{}", origin.reception);
    assert_eq!(origin.patch(&agent, &json!({ "toolIds": [made.body["id"]] })).await.status, 200);
    let of_agent = origin.get(&origin.key, &format!("/api/tools?agentId={}", origin.reception)).await;
    assert_eq!(of_agent.body["items"][0]["id"], made.body["id"]);
    let refused = origin.delete(&path).await;
    assert_problem(&refused, 409, "tool_in_use");
    assert_eq!(refused.body["agentIds"], json!([origin.reception]));

    let read = origin.get(&origin.key, &path).await;
    let changed = origin
        .patch(&path, &json!({ "description": "Looks up.", "targetUrl": read.body["targetUrl"], "secret": "********" }))
        .await;
    assert_eq!((changed.status, &changed.body["description"]), (200, &json!("Looks up.")), "{}", changed.body);
    assert_ne!(changed.headers["etag"], read.headers["etag"]);
    let stored: (String, String) = sqlx::query_as("select target_url, secret from tools where name = 'lookup'")
        .fetch_one(&origin.app.db)
        .await
        .expect("the tool");
    assert_eq!(stored, ("https://tools.example.com/x?key=swordfish".to_owned(), secret.clone()));
    let renewed = origin.patch(&path, &json!({ "secret": null })).await;
    assert!(renewed.body["secret"].as_str().is_some_and(|new| new.len() == 43 && new != secret));

    for shown in [
        origin.get(&origin.key, &path).await.body,
        origin.get(&origin.key, "/api/tools").await.body,
        origin.get(&origin.key, "/api/events?limit=200").await.body,
    ] {
        let shown = shown.to_string();
        assert!(!shown.contains("swordfish") && !shown.contains(&secret));
    }
    assert_eq!(origin.patch(&agent, &json!({ "toolIds": [] })).await.status, 200);
    assert_eq!(origin.delete(&path).await.status, 204);
    let events = origin.get(&origin.key, "/api/events?limit=200").await.body;
    let kinds: Vec<&str> =
        events["items"].as_array().expect("events").iter().rev().filter_map(|e| e["type"].as_str()).collect();
    let tools: Vec<&str> = kinds.into_iter().filter(|kind| kind.starts_with("tool.")).collect();
    assert_eq!(tools, ["tool.created", "tool.changed", "tool.changed", "tool.deleted"]);
}

#[tokio::test]
async fn every_number_comes_back_as_it_was_sent() {
    let origin = Origin::start().await;
    let parameters = json!({
        "type": "object",
        "examples": [f64::MAX, f64::MIN_POSITIVE, 0.1, 123_456_789.123_456_79, i64::MIN, u64::MAX],
    });
    let made =
        origin.post("/api/tools", &json!({ "name": "a", "builtin": "end_call", "parameters": parameters })).await;
    assert_eq!((made.status, &made.body["parameters"]), (201, &parameters), "{}", made.body);
    let read = origin.get(&origin.key, made.headers["location"].to_str().expect("a path")).await;
    assert_eq!((read.status, &read.body["parameters"]), (200, &parameters), "{}", read.body);
}

#[tokio::test]
async fn tools_that_could_not_run_are_refused() {
    let origin = Origin::start().await;
    for bad in [
        json!({ "name": "a", "targetUrl": "http://127.0.0.1/" }),
        json!({ "name": "a", "targetUrl": "https://example.com/?********" }),
        json!({ "name": "a" }),
        json!({ "name": "a b", "builtin": "end_call" }),
        json!({ "name": "a", "builtin": "end_call", "parameters": { "type": "string" } }),
    ] {
        assert_problem(&origin.post("/api/tools", &bad).await, 422, "invalid_value");
    }
    assert_problem(&origin.post("/api/tools", &json!({ "name": "a", "builtin": "fly" })).await, 400, "invalid_request");
    let make = async |name: &str| origin.post("/api/tools", &json!({ "name": name, "builtin": "end_call" })).await;
    let (one, two) = (make("one").await, make("two").await);
    assert_problem(&make("one").await, 409, "name_taken");
    let agent = format!("/api/agents/{}", origin.reception);
    let both = json!({ "toolIds": [one.body["id"], two.body["id"]] });
    assert_eq!(origin.patch(&agent, &both).await.status, 200);
    let path = two.headers["location"].to_str().expect("a path");
    let clash = origin.patch(path, &json!({ "functionName": "one" })).await;
    assert_problem(&clash, 422, "invalid_value");
}

#[tokio::test]
async fn a_key_sees_and_renames_its_project_only() {
    let origin = Origin::start().await;
    let stranger = origin.stranger_key().await;
    let mine = origin.get(&origin.key, "/api/projects").await;
    assert_eq!(mine.body["items"].as_array().map(Vec::len), Some(1));
    let path = format!("/api/projects/{}", origin.project);
    assert_problem(&origin.get(&stranger, &path).await, 404, "not_found");
    let renamed = origin.patch(&path, &json!({ "name": "Lakeside" })).await;
    assert_eq!(
        (renamed.status, &renamed.body["name"], &renamed.headers["etag"]),
        (200, &json!("Lakeside"), &"\"2\"".parse().expect("a header"))
    );
    assert_problem(&origin.patch(&path, &json!({ "name": "Elsewhere" })).await, 409, "name_taken");
    let events = origin.get(&origin.key, "/api/events").await.body;
    let (before, after) = (&events["items"][0]["before"]["name"], &events["items"][0]["after"]["name"]);
    assert_eq!((before, after), (&json!("Lakeside Dental"), &Value::from("Lakeside")));
}

#[tokio::test]
async fn the_docs_ask_nobody_else() {
    let origin = Origin::start().await;
    let page = origin.get("", "/docs/").await;
    assert_eq!(page.status, 200);
    let page = page.body.as_str().expect("a page").to_owned();
    assert!(page.contains("swagger-ui") && !page.contains("https://") && !page.contains("http://"), "{page}");
    let start = origin.get("", "/docs/swagger-initializer.js").await;
    assert!(start.body.as_str().is_some_and(|script| script.contains("/api/openapi.json")));
}
