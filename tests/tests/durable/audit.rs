//! What the audit log tells of keys and commands, and the command that verifies it.

use serde_json::{Value, json};
use sqlx::Executor as _;

use crate::world::World;

/// The project's events of this type, the newest first.
async fn events(world: &World, kind: &str) -> Vec<Value> {
    let list = world.get("/api/events?limit=200").await.body;
    list["items"].as_array().expect("a list").iter().filter(|event| event["type"] == kind).cloned().collect()
}

#[tokio::test]
async fn a_key_is_made_used_and_revoked() {
    let world = World::start().await;
    let project = world.project.to_string();
    let key = world.command(&["keys", "create", "--project", &project, "--role", "read"]).await.expect("a key");
    let (key, prefix) = (key.trim(), &key[..12]);
    let list = async || -> Vec<Value> {
        let list = world.command(&["keys", "list", "--project", &project, "--json"]).await.expect("a list");
        let list: Value = serde_json::from_str(&list).expect("JSON");
        list["keys"].as_array().expect("keys").clone()
    };
    let listed = list().await;
    assert_eq!((listed.len(), &listed[0]["prefix"]), (2, &json!(prefix)), "the newest first");
    assert_eq!((&listed[0]["role"], &listed[0]["lastUsedAt"]), (&json!("read"), &Value::Null));

    assert_eq!(world.get_with(key, "/api/agents").await.status, 200);
    assert!(list().await[0]["lastUsedAt"].is_string());
    let revoke = ["keys", "revoke", "--project", &project, prefix];
    world.command(&revoke).await.expect("the key is revoked");

    assert_eq!(world.get_with(key, "/api/agents").await.status, 401);
    assert!(list().await[0]["revokedAt"].is_string());
    assert!(world.command(&revoke).await.is_err(), "there is no such key to revoke any more");
    let id = listed[0]["id"].as_str().expect("an id");
    let again = ["keys", "revoke", "--project", &project, id];
    world.command(&again).await.expect("by its id it may be said again, and changes nothing");
    let (created, revoked) = (events(&world, "api_key.created").await, events(&world, "api_key.revoked").await);
    assert_eq!((created.len(), revoked.len()), (1, 1));
    assert_eq!(created[0]["actor"], "command:keys create");
    let state = |is_revoked| json!({ "id": id, "prefix": prefix, "role": "read", "isRevoked": is_revoked });
    assert_eq!((&created[0]["before"], &created[0]["after"]), (&Value::Null, &state(false)));
    assert_eq!((&revoked[0]["before"], &revoked[0]["after"]), (&state(false), &state(true)));
    assert!(revoked[0]["requestId"].is_string());
    assert_ne!(revoked[0]["requestId"], created[0]["requestId"], "each run of a command has a name of its own");
}

#[tokio::test]
async fn the_log_is_verified_and_held_against_an_earlier_answer() {
    let world = World::start().await;
    let sound = world.command(&["events", "verify", "--json"]).await.expect("the log is whole");
    let verdict: Value = serde_json::from_str(&sound).expect("JSON");
    let project = &verdict["projects"][0];
    assert_eq!((&project["projectId"], &project["faults"]), (&json!(world.project), &json!([])));
    let count = &project["head"]["count"];
    assert_eq!(count.as_u64(), Some(6), "the seed made a project, two agents and two numbers, and switched one agent");
    let kept = std::env::temp_dir().join(format!("tandem-heads-{}.json", world.project));
    std::fs::write(&kept, &sound).expect("a file");
    let name = kept.to_str().expect("a path").to_owned();

    // What no trigger would allow.
    let mut conn = world.app.db.acquire().await.expect("a connection").detach();
    let cut = "set session_replication_role = replica; delete from event_log; delete from event_heads";
    conn.execute(cut).await.expect("all rights in the test's database");

    assert!(world.command(&["events", "verify"]).await.is_ok(), "an empty log is no fault by itself");
    let against = ["events", "verify", "--against", &name, "--json"];
    let output = world.output(&against).await;
    std::fs::remove_file(&kept).expect("the file is there");
    assert_eq!(output.status.code(), Some(1));
    let verdict: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(verdict["projects"][0]["faults"], json!([{ "kind": "notAsBefore", "count": count }]));
}
