//! The simulated tool server of a customer.

use serde_json::{Value, json};
use tests::hosts::http_client;
use tests::tool_server::{HUGE_CHARS, ToolServer};
use tests::vapi::{Facts, History, ToolCall, messages, validate_tool_answer};
use time::OffsetDateTime;

/// Posts one `tool-calls` message that asks for all of `functions`; the answer with what was asked.
async fn ask(server: &ToolServer, facts: &Facts, functions: &[(&str, &str, Value)]) -> (u16, Value) {
    let now = OffsetDateTime::now_utc();
    let calls: Vec<_> = functions
        .iter()
        .map(|(id, name, arguments)| {
            let call = ToolCall { id: (*id).into(), name: (*name).into(), arguments: arguments.clone() };
            let tool = messages::ToolConfig {
                description: String::new(),
                parameters: json!({"type": "object"}),
                server_url: None,
            };
            (call, tool)
        })
        .collect();
    let body = messages::tool_calls(facts, now, &History::new(now, None), &calls);
    let client = http_client().build().expect("a client");
    let sent = client.post(server.url()).header("x-tandem-test", "1").json(&body);
    let answer = sent.send().await.expect("an answer");
    let status = answer.status().as_u16();
    let text = answer.text().await.expect("a body");
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

fn facts() -> Facts {
    Facts::inbound("a1", "+15550100001", "+15550100002")
}

#[tokio::test]
async fn several_tools_are_answered_in_the_order_asked() {
    let server = ToolServer::start().await.expect("a free port");
    let asked = [
        ("c1", "get_slots", json!({"date": "2026-11-23"})),
        ("c2", "huge", json!({})),
        ("c3", "slow", json!({"ms": 1})),
        ("c4", "unheard_of", json!({})),
    ];
    let (status, answer) = ask(&server, &facts(), &asked).await;
    assert_eq!(status, 200);
    let names: Vec<_> = asked.iter().map(|(id, name, _)| ((*id).to_owned(), (*name).to_owned())).collect();
    assert_eq!(validate_tool_answer(&names, &answer), Ok(()));
    assert!(answer["results"][0]["result"].as_str().expect("text").contains("2026-11-23"));
    assert_eq!(answer["results"][1]["result"].as_str().expect("text").len(), HUGE_CHARS);
    assert!(answer["results"][3]["error"].is_string());
    let request = &server.requests().all()[0];
    assert_eq!(request.header("x-tandem-test"), Some("1"));
    assert_eq!(request.json()["message"]["type"], "tool-calls");
    assert_eq!(request.functions, ["get_slots", "huge", "slow", "unheard_of"]);
}

#[tokio::test]
async fn an_appointment_is_booked_once_for_each_tool_call() {
    let server = ToolServer::start().await.expect("a free port");
    let facts = facts();
    let book = |id: &'static str| [(id, "book_appointment", json!({"slot": "09:00"}))];
    let (_, first) = ask(&server, &facts, &book("c1")).await;
    let (_, again) = ask(&server, &facts, &book("c1")).await;
    assert_eq!(first, again);
    assert_eq!(server.bookings().len(), 1);
    ask(&server, &facts, &book("c2")).await;
    // The same tool call id in another call is another booking.
    ask(&server, &self::facts(), &book("c1")).await;
    assert_eq!(server.bookings().len(), 3);
    assert_eq!(server.bookings()[0].arguments, json!({"slot": "09:00"}));
}

#[tokio::test]
async fn a_failing_tool_answers_500_and_nonsense_400() {
    let server = ToolServer::start().await.expect("a free port");
    assert_eq!(ask(&server, &facts(), &[("c1", "fails", json!({}))]).await.0, 500);
    assert_eq!(ask(&server, &facts(), &[]).await.0, 400);
    let statuses: Vec<_> = server.requests().all().iter().map(|request| request.status).collect();
    assert_eq!(statuses, [500, 400]);
}
