//! Tools, through both doors: Vapi's webhook and OpenAI's function calls.

use serde_json::{Value, json};
use shared::hop::{self, SignedRequest};
use tests::openai::{ItemKind, Reply, Session};
use tests::tandem::Options;
use tests::tool_server::Request;
use tests::twilio::{Caller, EndReason};
use tests::vapi::{Facts, messages, validate_answer};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::audio::{self, AGENT_LAST, CALLER};
use crate::world::{Agent, LIMIT, Spec, World, model, unix_now};

const SECRET: &str = "the-tool's-own-secret";

/// Gives an agent an HTTP tool.
pub(crate) async fn add_tool(world: &World, agent: &Agent, name: &str, url: &str, timeout_ms: i32) {
    let tool = Uuid::now_v7();
    let project: Uuid = world.tandem.seeded.project_id.parse().expect("a project's id is a UUID");
    let insert = "with tool as (
                      insert into tools (id, project_id, name, description, target_url, secret, timeout_ms)
                      values ($1, $2, $3, 'A tool.', $4, $5, $6)
                      on conflict (project_id, name) do update set target_url = excluded.target_url returning id)
                  insert into agent_tools (project_id, agent_id, tool_id) select $2, $7, id from tool";
    sqlx::query(insert)
        .bind(tool)
        .bind(project)
        .bind(name)
        .bind(url)
        .bind(SECRET)
        .bind(timeout_ms)
        .bind(agent.id.parse::<Uuid>().expect("an agent's id is a UUID"))
        .execute(&world.db)
        .await
        .expect("the tool is valid");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_tool_through_both_doors() {
    let world = World::default().await;
    let [agent, plain] = world.agents([Spec::listening(), Spec::on_vapi("bypass")]).await;
    let tools = [
        ("get_slots", json!({ "date": "2026-11-23" }), 5000),
        ("book_appointment", json!({ "name": "Ann" }), 5000),
        ("slow", json!({ "ms": 5000 }), 300),
        ("huge", json!({}), 5000),
        ("fails", json!({}), 5000),
    ];
    for (name, _, timeout_ms) in &tools {
        for agent in [&agent, &plain] {
            add_tool(&world, agent, name, &world.tandem.tools.url(), *timeout_ms).await;
        }
    }
    let expected = [
        ("get_slots", Ok("On 2026-11-23 these times are free: 09:00, 11:30, 16:15.")),
        ("book_appointment", Ok("Booked, the reference is A-0001.")),
        ("slow", Err("The tool failed. It may or may not have taken effect.")),
        ("huge", Err("The tool's result is too large.")),
        ("fails", Err("The tool failed. It may or may not have taken effect.")),
        ("no_such_tool", Err("This tool does not exist.")),
    ];

    let arguments =
        |name: &str| tools.iter().find(|tool| tool.0 == name).map_or_else(|| json!({}), |tool| tool.1.clone());
    for (name, expected) in &expected {
        let answer = by_vapi(&world, &plain, name, arguments(name)).await;
        let result = match expected {
            Ok(result) => json!({ "result": result }),
            Err(error) => json!({ "error": error }),
        };
        for (member, value) in result.as_object().expect("an object") {
            assert_eq!(answer[member], *value, "{name}: {answer}");
        }
    }
    let before = world.tandem.tools.requests().all().len();
    // One response calls all of them; the model cannot call what it was not given.
    let calls: Vec<(&str, Value)> = expected[..5].iter().map(|(name, _)| (*name, arguments(name))).collect();
    let outputs = by_openai(&world, &agent, &calls).await;
    for ((name, expected), output) in expected.iter().zip(&outputs) {
        match expected {
            // A booking of another call is another booking.
            Ok(result) => assert_eq!(output, &result.replace("A-0001", "A-0002"), "{name}"),
            Err(error) => assert_eq!(output, &json!({ "error": error }).to_string(), "{name}"),
        }
    }
    every_request_is_vapis_and_signed(&world, before);
}

async fn by_vapi(world: &World, agent: &Agent, name: &str, arguments: Value) -> Value {
    let facts = Facts::inbound(&agent.assistant, &agent.number, "+15550198");
    let message = messages::tool_call(&facts, OffsetDateTime::now_utc(), name, arguments);
    let answer = world.tandem.vapi.send(message).await;
    assert_eq!(answer.status, 200, "{name}: {}", answer.body);
    validate_answer("tool-calls", &answer.body).unwrap_or_else(|fault| panic!("{name}: {fault}: {}", answer.body));
    answer.body["results"][0].clone()
}

/// Lets the model call tools in one response; gives their outputs in that order. One response follows them all.
async fn by_openai(world: &World, agent: &Agent, calls: &[(&str, Value)]) -> Vec<String> {
    let call = world.call(agent, Caller::new());
    let session = world.session(agent, 0).await;
    let mut reply = Reply::tool_call(calls[0].0, &calls[0].1);
    for (name, arguments) in &calls[1..] {
        reply = reply.then_tool_call(name, arguments);
    }
    session.push_reply(reply);
    session.push_reply(Reply::speech(audio::clip(AGENT_LAST, 400, "That is all.")));
    call.then(Caller::new().wait_ms(300).say(audio::voice(CALLER, 400)).wait_until_agent_quiet().hang_up());
    session
        .wait_for(|session: &Session| session.record().responses.len() >= 2, LIMIT)
        .await
        .expect("the model goes on");
    world.over(&call, EndReason::CallerHungUp).await;
    assert_eq!(audio::only(AGENT_LAST, &call.recording().agent).len(), 400 * 8, "{}", call.trace_text());

    session.read(|session| {
        assert_eq!(session.record().script_faults, Vec::<String>::new());
        assert_eq!(session.record().errors, []);
        assert_eq!(session.record().received("response.create").len(), 1, "one response follows all outputs");
        let asked = session.items().iter().filter_map(|item| match &item.kind {
            ItemKind::Call { call_id, .. } => Some(call_id),
            _ => None,
        });
        let output = |wanted: &String| {
            session.items().iter().find_map(|item| match &item.kind {
                ItemKind::CallOutput { call_id, output } if call_id == wanted => Some(output.clone()),
                _ => None,
            })
        };
        asked.map(|call_id| output(call_id).expect("every call has an output")).collect()
    })
}

/// Whichever door a call came through, the customer's server sees the same.
fn every_request_is_vapis_and_signed(world: &World, first_of_openai: usize) {
    let requests = world.tandem.tools.requests().all();
    assert_eq!(requests.len(), first_of_openai + 5);
    for request in &requests {
        let header = request.header("tandem-signature").expect("it is signed");
        let signed = SignedRequest { method: "POST", path_and_query: "/tools", body: &request.body };
        hop::verify(SECRET, unix_now(), header, signed).expect("the signature is the tool's");
        hop::verify("another", unix_now(), header, signed).expect_err("and nobody else's");
        assert!(request.header("tandem-delivery").is_some_and(|id| id.starts_with("tool:")), "{:?}", request.headers);
    }
    let (by_vapi, by_openai) = requests.split_at(first_of_openai);
    for request in by_openai {
        let same = by_vapi.iter().find(|other| other.functions == request.functions).expect("both doors ran it");
        assert_eq!(shape(request), shape(same));
    }
}

/// A request without what differs from call to call.
fn shape(request: &Request) -> Value {
    let mut body = request.json();
    for list in ["toolCallList", "toolCalls"] {
        body["message"][list][0]["id"] = Value::Null;
    }
    assert!(body["message"]["call"]["id"].is_string(), "{body}");
    body["message"]["call"]["id"] = Value::Null;
    body
}

/// A customer's tool must not reach into our own network.
#[tokio::test(flavor = "multi_thread")]
async fn private_targets_are_refused() {
    let origin_env = vec![("TOOLS_ALLOW_PRIVATE".to_owned(), "0".to_owned())];
    let world = World::start(Options { openai: model(), origin_env, ..Options::default() }).await;
    let [agent, plain] = world.agents([Spec::listening(), Spec::on_vapi("bypass")]).await;
    let url = world.tandem.tools.url();
    let by_name = url.replace("127.0.0.1", "localhost");
    let targets = [
        ("by_address", url.as_str(), "This tool is not available."),
        ("by_name", &by_name, "The tool failed. It may or may not have taken effect."),
        ("metadata", "http://169.254.169.254/latest/meta-data", "This tool is not available."),
    ];
    for (name, url, error) in targets {
        add_tool(&world, &plain, name, url, 2000).await;
        let answer = by_vapi(&world, &plain, name, json!({})).await;
        assert_eq!(answer["error"], error, "{name}");
    }
    add_tool(&world, &agent, "by_address", &url, 2000).await;
    let outputs = by_openai(&world, &agent, &[("by_address", json!({}))]).await;
    assert_eq!(outputs, [r#"{"error":"This tool is not available."}"#]);
    assert!(world.tandem.tools.requests().all().is_empty(), "nothing reaches the server");
}
