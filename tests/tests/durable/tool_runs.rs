//! A tool runs once for each function call.

use futures_util::future::join_all;
use serde_json::{Value, json};
use tests::tool_server::ToolServer;

use crate::world::{Answer, World, eventually, message};

/// A world whose agent has these tools.
async fn with_tools(server: &ToolServer, names: &[&str]) -> World {
    let world = World::start().await;
    world.add_tools(server, names).await;
    world
}

fn tool_call(id: &str, name: &str, arguments: &Value) -> Value {
    let call = json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } });
    message("tool-calls", "call-1", &json!({ "toolCallList": [call] }))
}

fn result(answer: &Answer) -> &str {
    answer.body["results"][0]["result"].as_str().unwrap_or_else(|| panic!("no result: {answer:?}"))
}

#[tokio::test]
async fn a_repeated_call_is_answered_with_the_first_result() {
    let server = ToolServer::start().await.expect("a tool server");
    let world = with_tools(&server, &["book_appointment", "fails"]).await;
    let booking = tool_call("call_1", "book_appointment", &json!({ "date": "2026-11-23" }));

    let first = world.vapi(booking.clone()).await;
    let again = world.vapi(booking).await;

    assert_eq!(first.body, again.body);
    assert!(result(&first).starts_with("Booked"), "{first:?}");
    assert_eq!(server.requests().all().len(), 1);
    assert_eq!(world.metric(r#"tandem_tool_runs_total{outcome="repeated"}"#), 1);

    let failing = tool_call("call_2", "fails", &json!({}));
    let (first, again) = (world.vapi(failing.clone()).await, world.vapi(failing).await);
    assert_eq!(first.body, again.body);
    assert!(first.body["results"][0]["error"].is_string(), "{first:?}");
    assert_eq!(server.requests().all().len(), 2, "it may have taken effect, so it is not tried again");
}

#[tokio::test]
async fn repeats_at_once_share_one_run() {
    let server = ToolServer::start().await.expect("a tool server");
    let world = with_tools(&server, &["slow"]).await;
    let slow = tool_call("call_1", "slow", &json!({ "ms": 400 }));

    let answers = join_all((0..8).map(|_| world.vapi(slow.clone()))).await;

    assert!(answers.iter().all(|answer| result(answer) == "It took 400 ms."), "{answers:?}");
    assert_eq!(server.requests().all().len(), 1);
}

#[tokio::test]
async fn a_sender_that_hangs_up_does_not_stop_the_run() {
    let server = ToolServer::start().await.expect("a tool server");
    let world = with_tools(&server, &["slow"]).await;
    let slow = tool_call("call_1", "slow", &json!({ "ms": 500 }));
    let hanging_up = async {
        server.requests().first("the tool is being called", |_| true).await;
    };
    tokio::select! {
        _ = world.vapi(slow.clone()) => panic!("the tool cannot have answered yet"),
        () = hanging_up => {}
    }

    let again = world.vapi(slow).await;

    assert_eq!(result(&again), "It took 500 ms.");
    assert_eq!(server.requests().all().len(), 1);
}

#[tokio::test]
async fn a_run_that_was_cut_off_is_not_repeated() {
    let server = ToolServer::start().await.expect("a tool server");
    let world = with_tools(&server, &["book_appointment"]).await;
    // As an origin leaves it that was killed while the tool ran.
    world
        .execute(&format!(
            "insert into tool_runs (call_id, tool_call_id, agent_id, name, lost_at)
             values ('call-1', 'call_1', '{}', 'book_appointment', now() - interval '1 second')",
            world.reception
        ))
        .await;

    let answer = world.vapi(tool_call("call_1", "book_appointment", &json!({}))).await;

    let error = answer.body["results"][0]["error"].as_str().expect("an error");
    assert!(error.contains("may or may not have taken effect"), "{error}");
    assert_eq!(server.requests().all().len(), 0);
}

#[tokio::test]
async fn nobody_waits_for_ever_for_a_run_of_which_nothing_is_heard() {
    let server = ToolServer::start().await.expect("a tool server");
    let world = with_tools(&server, &["get_slots"]).await;
    world
        .execute(&format!(
            "insert into tool_runs (call_id, tool_call_id, agent_id, name, lost_at)
             values ('call-1', 'call_1', '{}', 'get_slots', now() + interval '1 hour');
             update tools set timeout_ms = 1000",
            world.reception
        ))
        .await;
    let waiting = world.vapi(tool_call("call_1", "get_slots", &json!({})));
    let hanging = async {
        let repeated = r#"tandem_tool_runs_total{outcome="repeated"}"#;
        eventually("this origin waits", async || (world.metric(repeated) == 1).then_some(())).await;
        let mut hanging = world.app.db.begin().await.expect("a transaction");
        sqlx::query("lock table tool_runs in access exclusive mode").execute(&mut *hanging).await.expect("the lock");
        hanging
    };

    let (answer, hanging) = tokio::join!(waiting, hanging);

    let error = answer.body["results"][0]["error"].as_str().expect("an error");
    assert!(error.contains("asked for already") && error.contains("may still take effect"), "{error}");
    assert_eq!(server.requests().all().len(), 0);
    hanging.rollback().await.expect("it ends");
}

#[tokio::test]
async fn hooks_share_a_name_and_run_each_time() {
    let server = ToolServer::start().await.expect("a tool server");
    let world = with_tools(&server, &["get_slots"]).await;
    for _ in 0..2 {
        let answer = world.vapi(tool_call("hook-function-call", "get_slots", &json!({ "date": "2026-11-23" }))).await;
        assert!(result(&answer).contains("09:00"));
    }
    assert_eq!(server.requests().all().len(), 2);
}

#[tokio::test]
async fn another_origin_waits_for_the_run() {
    let server = ToolServer::start().await.expect("a tool server");
    let world = with_tools(&server, &["get_slots"]).await;
    world
        .execute(&format!(
            "insert into tool_runs (call_id, tool_call_id, agent_id, name, lost_at)
             values ('call-1', 'call_1', '{}', 'get_slots', now() + interval '1 minute')",
            world.reception
        ))
        .await;
    let waiting = world.vapi(tool_call("call_1", "get_slots", &json!({})));
    let finishing = async {
        let repeated = r#"tandem_tool_runs_total{outcome="repeated"}"#;
        eventually("this origin waits", async || (world.metric(repeated) == 1).then_some(())).await;
        world.execute("update tool_runs set finished_at = now(), result = 'At nine.'").await;
    };

    let (answer, ()) = tokio::join!(waiting, finishing);

    assert_eq!(result(&answer), "At nine.");
    assert_eq!(server.requests().all().len(), 0);
}
