//! Vapi's messages: every row of the table of assistants, with the origin up, slow and gone.

use serde_json::{Value, json};

use crate::origin::Behaviour;
use crate::world::{World, send, unique, world, world_alone};

const SWITCHED: &str = "2026-11-22T12:00:00Z";
const BEFORE: &str = "2026-11-22T11:59:59.999Z";
const RESULTS: &str = "{\"results\":[{\"toolCallId\":\"t1\",\"name\":\"f\",\"result\":\"19:00\"}]}";

fn message(kind: &str, call: &str, assistant: &str, created: Option<&str>) -> Value {
    let mut message = json!({"type": kind, "call": {"id": call, "assistantId": assistant}});
    if let Some(created) = created {
        message["call"]["createdAt"] = json!(created);
    }
    if kind == "tool-calls" {
        message["toolCallList"] = json!([
            {"id": "t1", "type": "function", "function": {"name": "f", "arguments": {"party": 2}}},
            {"id": "t2", "type": "function", "function": {"name": "g", "arguments": "{}"}}]);
    }
    message
}

async fn answer(world: &World, message: &Value) -> Value {
    let response = world.vapi(message).send().await.expect("the Worker answers");
    assert_eq!(response.status(), 200, "{message}");
    assert_eq!(response.headers()["content-type"], "application/json");
    serde_json::from_str(&response.text().await.expect("it is complete")).expect("it is JSON")
}

fn assert_refused(kind: &str, answer: &Value) {
    match kind {
        "tool-calls" => {
            let ids: Vec<_> = answer["results"].as_array().expect("results").iter().map(|r| &r["toolCallId"]).collect();
            assert_eq!(ids, ["t1", "t2"]);
            assert!(answer["results"][0]["error"].is_string() && answer["results"][0]["name"] == "f", "{answer}");
        }
        "assistant-request" | "transfer-destination-request" | "handoff-destination-request" => {
            assert!(answer["error"].is_string(), "{kind}: {answer}");
        }
        "knowledge-base-request" => assert_eq!(answer, &json!({"documents": []})),
        "call.endpointing.request" => assert!(answer["timeoutSeconds"].is_number(), "{answer}"),
        "campaign.predial" => assert_eq!(answer, &json!({"eligible": false})),
        _ => assert_eq!(answer, &json!({}), "{kind}"),
    }
}

const QUESTIONS: [&str; 7] = [
    "tool-calls",
    "assistant-request",
    "transfer-destination-request",
    "handoff-destination-request",
    "knowledge-base-request",
    "call.endpointing.request",
    "campaign.predial",
];
const EVENTS: [&str; 4] = ["status-update", "end-of-call-report", "conversation-update", "a.type[of=\"tomorrow\"] é"];

#[tokio::test]
async fn what_is_vapis_or_in_doubt_is_the_origins() {
    let (world, _reachable) = world().await;
    let [vapi, switched, unparsable, unknown] = [(); 4].map(|()| unique());
    world.replicate_assistant(&vapi, "vapi", Some(SWITCHED)).await;
    world.replicate_assistant(&switched, "openai-realtime", Some(SWITCHED)).await;
    world.replicate(&format!("assistant:{unparsable}"), "{\"agentSystemType\":\"other\"}").await;
    for (assistant, created) in [
        (&vapi, Some(SWITCHED)),
        (&vapi, None),
        // In flight when the agent was switched, or perhaps.
        (&switched, Some(BEFORE)),
        (&switched, None),
        (&unparsable, Some(SWITCHED)),
        (&unknown, Some(SWITCHED)),
    ] {
        let call = unique();
        world.origin.behave(&call, Behaviour::Answer(200, "application/json", RESULTS));
        let tools = message("tool-calls", &call, assistant, created);
        assert_eq!(answer(world, &tools).await, serde_json::from_str::<Value>(RESULTS).expect("it is JSON"));
        let received = world.origin.received(&call);
        assert_eq!(received.len(), 1, "{assistant} {created:?}");
        assert_eq!(received[0].path_and_query, "/api/vapi/webhook");
        assert_eq!(received[0].content_type, "application/json");
        assert_eq!(received[0].body, json!({ "message": tools }).to_string());
        assert!(received[0].delivery.starts_with(&format!("vapi:{call}:tool-calls:")), "{received:?}");

        assert_eq!(answer(world, &message("status-update", &call, assistant, created)).await, json!({}));
        assert_eq!(world.origin.received(&call).len(), 2);
    }
}

#[tokio::test]
async fn a_message_without_an_assistant_is_the_origins() {
    let (world, _reachable) = world().await;
    let call = unique();
    world.origin.behave(&call, Behaviour::Answer(200, "application/json", "{\"assistantId\":\"a\"}"));
    let request = json!({"type": "assistant-request", "call": {"id": call}, "phoneNumber": {"number": "+15550100"}});
    assert_eq!(answer(world, &request).await, json!({"assistantId": "a"}));
    assert_eq!(world.origin.received(&call).len(), 1);
}

/// The replica may be from before the agent came back to Vapi, and a message that was skipped is lost.
#[tokio::test]
async fn a_skip_is_the_origins_to_confirm() {
    let (world, _reachable) = world().await;
    let [switched, always] = [(); 2].map(|()| unique());
    world.replicate_assistant(&switched, "openai-realtime", Some(SWITCHED)).await;
    world.replicate_assistant(&always, "openai-realtime", None).await;
    for kind in QUESTIONS.into_iter().chain(EVENTS) {
        for assistant in [&switched, &always] {
            let call = unique();
            world.origin.behave(&call, Behaviour::Answer(200, "application/json", RESULTS));
            let answer = answer(world, &message(kind, &call, assistant, Some(SWITCHED))).await;
            assert_eq!(world.origin.received(&call).len(), 1, "{kind}");
            let expected = if QUESTIONS.contains(&kind) { RESULTS } else { "{}" };
            assert_eq!(answer, serde_json::from_str::<Value>(expected).expect("it is JSON"), "{kind}");
            world.logged(&call, "skip").await;
        }
    }
}

#[tokio::test]
async fn a_skip_stands_when_the_origin_is_gone_and_events_are_kept() {
    let (world, outage) = world_alone().await;
    let switched = unique();
    world.replicate_assistant(&switched, "openai-realtime", Some(SWITCHED)).await;
    let of_kind = |kind| message(kind, &format!("{switched}{kind}"), &switched, Some(SWITCHED));
    outage.begin().await;
    for kind in QUESTIONS {
        let answer = answer(world, &of_kind(kind)).await;
        assert_refused(kind, &answer);
        if kind == "tool-calls" {
            let error = answer["results"][0]["error"].as_str().expect("a sentence");
            assert!(error.contains("no longer served"), "{error}");
        }
    }
    for kind in EVENTS {
        assert_eq!(answer(world, &of_kind(kind)).await, json!({}));
    }
    outage.end().await;
    for kind in EVENTS {
        let received = world.origin.wait_for(&json!(format!("{switched}{kind}")).to_string(), 1).await;
        assert_eq!(received[0].body, json!({ "message": of_kind(kind) }).to_string(), "{kind}");
    }
}

#[tokio::test]
async fn vapi_never_waits_in_vain() {
    let (world, outage) = world_alone().await;
    outage.begin().await;
    let call = unique();
    for kind in QUESTIONS {
        assert_refused(kind, &answer(world, &message(kind, &call, "nobody", None)).await);
    }
    // Events are kept, of whatever type, and told when the origin is back.
    for kind in EVENTS {
        assert_eq!(answer(world, &message(kind, &call, "nobody", None)).await, json!({}));
    }
    outage.end().await;
    let received = world.origin.wait_for(&call, EVENTS.len()).await;
    for kind in EVENTS {
        let body = json!({ "message": message(kind, &call, "nobody", None) }).to_string();
        assert_eq!(received.iter().filter(|request| request.body == body).count(), 1, "{kind}");
    }
}

/// Every row of the table while the origin takes connections and never says a word, and while it takes none.
#[tokio::test]
async fn every_row_is_answered_while_the_origin_hangs_and_while_it_is_gone() {
    let (world, outage) = world_alone().await;
    let [vapi, switched, unparsable, unknown] = [(); 4].map(|()| unique());
    world.replicate_assistant(&vapi, "vapi", Some(SWITCHED)).await;
    world.replicate_assistant(&switched, "openai-realtime", Some(SWITCHED)).await;
    world.replicate(&format!("assistant:{unparsable}"), "{\"agentSystemType\":\"other\"}").await;
    let rows = [
        (Some(&vapi), Some(SWITCHED), "process"),
        (Some(&switched), Some(BEFORE), "process"),
        (Some(&switched), Some(SWITCHED), "skip"),
        (Some(&switched), None, "ask_origin"),
        (Some(&unparsable), Some(SWITCHED), "ask_origin"),
        (Some(&unknown), Some(SWITCHED), "ask_origin"),
        (None, None, "ask_origin"),
    ];
    for hangs in [true, false] {
        if hangs {
            outage.hang().await;
        } else {
            outage.begin().await;
        }
        let mut kept = Vec::new();
        let asked = rows.iter().map(|(assistant, created, decision)| {
            let [asked, told] = [(); 2].map(|()| unique());
            kept.push(told.clone());
            let of = |kind, call: &str| match assistant {
                Some(assistant) => message(kind, call, assistant, *created),
                None => json!({"type": kind, "call": {"id": call}}),
            };
            let (question, event) = (of("assistant-request", &asked), of("end-of-call-report", &told));
            async move {
                let (question, event) = tokio::join!(answer(world, &question), answer(world, &event));
                assert_refused("assistant-request", &question);
                assert_eq!(
                    question["error"].as_str().is_some_and(|error| error.contains("no longer")),
                    *decision == "skip"
                );
                assert_eq!(event, json!({}));
                world.logged(&asked, decision).await;
                world.logged(&told, "keep").await;
            }
        });
        let asked: Vec<_> = asked.collect();
        futures_util::future::join_all(asked).await;
        outage.end().await;
        for call in kept {
            world.origin.wait_for(&call, 1).await;
        }
    }
}

#[tokio::test]
async fn an_origin_that_fails_at_a_question_gets_it_refused() {
    let (world, _reachable) = world().await;
    for (kind, behaviour) in [
        // Vapi reads no tool result from anything but 200.
        ("tool-calls", Behaviour::Answer(500, "text/plain", "no")),
        ("tool-calls", Behaviour::Answer(400, "application/problem+json", "{}")),
        ("tool-calls", Behaviour::Answer(204, "", "")),
        ("assistant-request", Behaviour::Hang),
    ] {
        let call = unique();
        world.origin.behave(&call, behaviour);
        assert_refused(kind, &answer(world, &message(kind, &call, "nobody", None)).await);
    }
}

#[tokio::test]
async fn an_event_that_the_origin_hangs_on_is_kept() {
    let (world, _reachable) = world().await;
    let call = unique();
    world.origin.behave(&call, Behaviour::Hang);
    let event = message("end-of-call-report", &call, "nobody", None);
    assert_eq!(send(world.vapi(&event)).await, (200, "{}".to_owned()));
    world.origin.behave(&call, Behaviour::Answer(200, "application/json", "{}"));
    let received = world.origin.wait_for(&call, 2).await;
    assert_eq!(received[0].body, received[1].body);
    assert_eq!(received[0].delivery, received[1].delivery);
}
