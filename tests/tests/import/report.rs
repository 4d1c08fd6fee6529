//! The report is stored with the agent, and is whole.

use serde_json::Value;

use crate::world::{World, receptionist, slots};

/// Every value that is set, counted without the code under test.
fn count(value: &Value) -> usize {
    match value {
        Value::Null => 0,
        Value::Array(items) if !items.is_empty() => items.iter().map(count).sum(),
        Value::Object(members) if !members.is_empty() => members.values().map(count).sum(),
        _ => 1,
    }
}

#[tokio::test]
async fn every_field_is_in_it_and_it_is_stored() {
    let world = World::start().await;
    world.vapi.add_tool(slots("slots"));
    world.vapi.add_assistant(receptionist("r1"));

    let said = world.import(&["--all"]).await.only();

    let stored = world
        .value(
            "select i.report from vapi_imports i join agents a on a.id = i.agent_id where a.vapi_assistant_id = 'r1'",
        )
        .await;
    assert_eq!(stored, said["report"]);
    let fields = stored["fields"].as_array().expect("fields");
    let set = fields.iter().filter(|field| field["source"] == "set").count();
    // Vapi adds orgId, createdAt, updatedAt to both, and tells of the assistant's secret instead of telling it.
    assert_eq!(set, count(&receptionist("r1")) + count(&slots("slots")) + 6);
    for field in fields {
        let carried = field["status"] == "carried";
        assert!(carried || field["note"].as_str().is_some_and(|note| !note.is_empty()), "says how or why: {field}");
        let lost = field["status"] == "lost" && field["source"] == "set";
        assert!(!lost || field["needsDecision"] == true, "a person decides about every loss: {field}");
    }
    let listed = |status: &str| fields.iter().filter(|field| field["status"] == status).count();
    assert!(["lost", "approximated", "carried", "carried-inactive"].iter().all(|status| listed(status) > 3));
}
