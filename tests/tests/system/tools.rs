//! Tools, through both doors: Vapi's webhook and OpenAI's function calls.

use serde_json::{Value, json};
use shared::hop::{self, SignedRequest};
use tests::openai::{ItemKind, Reply, Session};
use tests::tandem::Options;
use tests::tool_server::Request;
use tests::twilio::{Caller, EndReason};
use tests::vapi::{Facts, History, messages, validate_answer};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::audio::{self, AGENT_LAST, CALLER};
use crate::steps::add_builtin;
use crate::world::{Agent, LIMIT, Spec, World, model, unix_now};

const SECRET: &str = "the-tool's-own-secret";

/// Gives an agent an HTTP tool.
pub(crate) async fn add_tool(world: &World, agent: &Agent, name: &str, url: &str, timeout_ms: i32) {
    add_tool_with(world, agent, name, url, timeout_ms, json!({})).await;
}

/// Gives an agent an HTTP tool with settings of its own.
async fn add_tool_with(world: &World, agent: &Agent, name: &str, url: &str, timeout_ms: i32, settings: Value) {
    let tool = Uuid::now_v7();
    let project: Uuid = world.tandem.seeded.project_id.parse().expect("a project's id is a UUID");
    let insert = "with tool as (
                      insert into tools (id, project_id, name, description, target_url, secret, timeout_ms, settings)
                      values ($1, $2, $3, 'A tool.', $4, $5, $6, $8)
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
        .bind(settings)
        .execute(&world.db)
        .await
        .expect("the tool is valid");
}

/// One function call, as each of the doors brings it.
struct Case {
    tool: &'static str,
    /// `toolCallList[0]` without its id.
    at_vapi: Value,
    /// The text of the arguments.
    at_openai: &'static str,
    expected: Result<&'static str, &'static str>,
}

impl Case {
    fn new(tool: &'static str, arguments: &'static str, expected: Result<&'static str, &'static str>) -> Self {
        let value: Value = serde_json::from_str(arguments).expect("a test's own JSON");
        Self { tool, at_vapi: on_the_wire(tool, &value), at_openai: arguments, expected }
    }
}

/// Vapi's deliveries have objects, its types texts, its documentation flat samples.
fn on_the_wire(tool: &str, arguments: &Value) -> Value {
    json!({ "type": "function", "function": { "name": tool, "arguments": arguments } })
}

fn flat(tool: &str, arguments: &Value) -> Value {
    json!({ "name": tool, "arguments": arguments })
}

const MALFORMED: Result<&str, &str> = Err("The arguments are not a JSON object. Nothing was done.");
const FAILED: Result<&str, &str> = Err("The tool failed. It may or may not have taken effect.");
const NINE: Result<&str, &str> = Ok("On 2026-11-23 these times are free: 09:00, 11:30, 16:15.");

/// What is asked of a tool has the same outcome, whichever door it came through.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_tool_through_both_doors() {
    let world = World::default().await;
    let [agent, plain] = world.agents([Spec::listening(), Spec::on_vapi("bypass")]).await;
    let url = world.tandem.tools.url();
    let nobody = "http://127.0.0.1:1/tools";
    let fixed = json!({ "staticArguments": { "date": "2026-11-23" } });
    let background = json!({ "background": true });
    for agent in [&agent, &plain] {
        for (name, url, timeout_ms, settings) in [
            ("get_slots", url.as_str(), 5000, json!({})),
            ("refuses", &url, 5000, json!({})),
            ("fails", &url, 5000, json!({})),
            ("slow", &url, 300, json!({})),
            ("huge", &url, 5000, json!({})),
            ("get_slots_of_the_day", &url, 5000, fixed.clone()),
            ("background", &url, 5000, background.clone()),
            ("nobody", nobody, 5000, json!({})),
        ] {
            add_tool_with(&world, agent, name, url, timeout_ms, settings).await;
        }
    }
    let text = |text: &str| json!(text);
    let wire = |arguments: &Value| on_the_wire("get_slots", arguments);
    let day = r#"{"date":"2026-11-23"}"#;
    let malformed = |at_vapi, at_openai| Case { tool: "get_slots", at_vapi, at_openai, expected: MALFORMED };
    let good = |at_vapi| Case { tool: "get_slots", at_vapi, at_openai: day, expected: NINE };
    let cases = [
        good(wire(&json!({ "date": "2026-11-23" }))),
        good(wire(&text(day))),
        good(flat("get_slots", &json!({ "date": "2026-11-23" }))),
        malformed(wire(&json!([1])), "[1]"),
        malformed(wire(&text("{\"date\":")), "{\"date\":"),
        malformed(flat("get_slots", &json!(7)), "7"),
        Case::new("refuses", "{}", Err("There is no tool refuses.")),
        Case::new("fails", "{}", FAILED),
        Case::new("slow", r#"{"ms":5000}"#, FAILED),
        Case::new("huge", "{}", Err("The tool's result is too large.")),
        Case::new("get_slots_of_the_day", r#"{"date":"1999-12-31"}"#, Err("There is no tool get_slots_of_the_day.")),
        Case::new("background", "{}", Ok("It is being done; there will be no result.")),
        Case::new("nobody", "{}", Err("The tool cannot be reached. Nothing was done.")),
    ];
    for case in &cases {
        let answer = by_vapi(&world, &plain, case.tool, case.at_vapi.clone()).await;
        let (member, value) = match case.expected {
            Ok(result) => ("result", result),
            Err(error) => ("error", error),
        };
        assert_eq!(answer[member], value, "{}: {answer}", case.tool);
    }
    let unknown = by_vapi(&world, &plain, "no_such_tool", on_the_wire("no_such_tool", &json!({}))).await;
    assert_eq!(unknown["error"], "This tool does not exist.");

    let background = |request: &Request| request.functions == ["background"];
    world.tandem.tools.requests().first("the background tool runs on", background).await;
    let before = world.tandem.tools.requests().all().len();
    // One response calls all of them; the model cannot call what it was not given.
    let calls: Vec<(&str, &str)> = cases.iter().map(|case| (case.tool, case.at_openai)).collect();
    let outputs = by_openai(&world, &agent, &calls).await;
    for (case, output) in cases.iter().zip(&outputs) {
        match case.expected {
            Ok(result) => assert_eq!(output, result, "{}", case.tool),
            Err(error) => assert_eq!(output, &json!({ "error": error }).to_string(), "{}", case.tool),
        }
    }
    every_request_is_vapis_and_signed(&world, before);
    let fixed = world.tandem.tools.requests().all().into_iter().find(|it| it.functions == ["get_slots_of_the_day"]);
    let body = fixed.expect("it was called").json();
    assert_eq!(body["message"]["toolCallList"][0]["function"]["arguments"]["date"], "2026-11-23", "the owner's word");
}

/// Our own tools do through Vapi's door what an answer can have Vapi do: end the call, and say whom it puts the caller
/// through to. What they refuse, they refuse in the same words.
#[tokio::test(flavor = "multi_thread")]
async fn our_own_tools_through_both_doors() {
    let world = World::default().await;
    let [agent, plain] = world.agents([Spec::listening(), Spec::on_vapi("bypass")]).await;
    let destination = json!({ "type": "number", "number": "+15550801", "message": "I put you through." });
    for agent in [&agent, &plain] {
        let none = json!({ "type": "object", "properties": {} });
        add_builtin(&world, agent, "end_call", none.clone(), json!({})).await;
        let destinations = json!({ "destinations": [destination] });
        add_builtin(&world, agent, "transfer_call", none.clone(), destinations).await;
        add_builtin(&world, agent, "send_dtmf", none, json!({})).await;
    }
    let cases = [
        (
            "transfer_call",
            r#"{"destination":"+15550899"}"#,
            "This destination is not one of those allowed. Nothing was done.",
        ),
        (
            "send_dtmf",
            r#"{"keys":"x"}"#,
            "These are not keys of a telephone: only digits, * and # are. Nothing was done.",
        ),
    ];
    let outputs = by_openai(&world, &agent, &cases.map(|(tool, arguments, _)| (tool, arguments))).await;
    for ((tool, arguments, error), output) in cases.iter().zip(&outputs) {
        let arguments: Value = serde_json::from_str(arguments).expect("a test's own JSON");
        let answer = by_vapi(&world, &plain, tool, on_the_wire(tool, &arguments)).await;
        assert_eq!((&answer["error"], output), (&json!(error), &json!({ "error": error }).to_string()), "{tool}");
    }

    let call = world.call(&agent, Caller::new());
    let session = world.session(&agent, 1).await;
    session.push_reply(Reply::tool_call("end_call", &json!({})));
    call.then(Caller::new().wait_ms(300).say(audio::voice(CALLER, 400)));
    world.over(&call, EndReason::HungUp).await;
    let output = |session: &Session| {
        session.items().iter().find_map(|item| match &item.kind {
            ItemKind::CallOutput { output, .. } => Some(output.clone()),
            _ => None,
        })
    };
    session.wait_for(|session| output(session).is_some(), LIMIT).await.expect("the model is told");
    let answer = by_vapi(&world, &plain, "end_call", on_the_wire("end_call", &json!({}))).await;
    assert_eq!(json!(session.read(output)), answer["result"]);
    let message = &answer["message"];
    assert_eq!((&message["content"], &message["endCallAfterSpokenEnabled"]), (&json!("Goodbye."), &json!(true)));

    let put_through = by_vapi(&world, &plain, "transfer_call", on_the_wire("transfer_call", &json!({}))).await;
    assert_eq!(put_through["error"], "This tool is not available in this call.");
    let facts = Facts::inbound(&plain.assistant, &plain.number, "+15550198");
    let question = messages::transfer_destination_request(
        &facts,
        OffsetDateTime::now_utc(),
        &History::new(OffsetDateTime::now_utc(), None),
    );
    let answer = world.tandem.vapi.send(question).await.body;
    validate_answer("transfer-destination-request", &answer).unwrap_or_else(|fault| panic!("{fault}: {answer}"));
    assert_eq!(
        (&answer["destination"]["number"], &answer["destination"]["type"]),
        (&json!("+15550801"), &json!("number"))
    );
    assert_eq!(answer["message"]["content"], "I put you through.");
}

/// A model that asks again for the same, in its owner's words, is told what came of the first time; and a caller who
/// hangs up does not stop what was begun.
#[tokio::test(flavor = "multi_thread")]
async fn a_business_key_and_a_caller_who_hangs_up() {
    let world = World::default().await;
    let [agent, plain, impatient] = world.agents([Spec::listening(), Spec::on_vapi("bypass"), Spec::listening()]).await;
    let url = world.tandem.tools.url();
    let keyed = json!({ "idempotencyKey": ["appointment_id"] });
    for agent in [&agent, &plain] {
        add_tool_with(&world, agent, "book_appointment", &url, 5000, keyed.clone()).await;
        add_tool_with(&world, agent, "refuses", &url, 5000, keyed.clone()).await;
    }
    let (first, note, other) =
        (r#"{"appointment_id":17}"#, r#"{"appointment_id":17,"note":"again"}"#, r#"{"appointment_id":18}"#);
    let again = ("refuses", first);
    let calls = [("book_appointment", first), ("book_appointment", note), ("book_appointment", other), again, again];
    let outputs = by_openai(&world, &agent, &calls).await;
    assert_eq!(outputs[0], outputs[1], "{outputs:?}");
    assert_ne!(outputs[0], outputs[2], "{outputs:?}");
    assert_eq!(world.tandem.tools.bookings().len(), 2);

    // Two messages about one call of Vapi's.
    let facts = Facts::inbound(&plain.assistant, &plain.number, "+15550198");
    let mut answers = Vec::new();
    for arguments in [first, note, other] {
        let arguments: Value = serde_json::from_str(arguments).expect("a test's own JSON");
        let message = messages::tool_call(&facts, OffsetDateTime::now_utc(), "book_appointment", arguments);
        answers.push(world.tandem.vapi.send(message).await.body["results"][0]["result"].clone());
    }
    assert_eq!(answers[0], answers[1], "{answers:?}");
    assert_ne!(answers[0], answers[2], "{answers:?}");
    assert_eq!(world.tandem.tools.bookings().len(), 4);
    // What a server refused was not done, and may be asked for again.
    let refused = |world: &World| {
        world.tandem.tools.requests().all().iter().filter(|request| request.functions == ["refuses"]).count()
    };
    let before = refused(&world);
    let (one, two) = tokio::join!(async { by_vapi_in(&world, &facts, "refuses", first).await }, async {
        by_vapi_in(&world, &facts, "refuses", first).await
    },);
    by_vapi_in(&world, &facts, "refuses", first).await;
    assert_eq!((one["error"].clone(), refused(&world) > before + 1), (two["error"].clone(), true));

    hangs_up_meanwhile(&world, &impatient).await;
}

async fn by_vapi_in(world: &World, facts: &Facts, name: &str, arguments: &str) -> Value {
    let arguments: Value = serde_json::from_str(arguments).expect("a test's own JSON");
    let message = messages::tool_call(facts, OffsetDateTime::now_utc(), name, arguments);
    world.tandem.vapi.send(message).await.body["results"][0].clone()
}

async fn hangs_up_meanwhile(world: &World, agent: &Agent) {
    add_tool(world, agent, "slow", &world.tandem.tools.url(), 5000).await;
    let call = world.call(agent, Caller::new());
    let session = world.session(agent, 0).await;
    session.push_reply(Reply::tool_call("slow", &json!({ "ms": 1500 })));
    call.then(Caller::new().wait_ms(300).say(audio::voice(CALLER, 400)));
    let begun = |request: &Request| request.functions == ["slow"] && request.status == 0;
    world.tandem.tools.requests().first("the tool is being called", begun).await;
    call.hang_up();
    world.over(&call, EndReason::CallerHungUp).await;
    let deadline = std::time::Instant::now() + LIMIT;
    let noted = "select result from tool_runs where name = 'slow' and finished_at is not null";
    loop {
        let result: Option<String> =
            sqlx::query_scalar(noted).fetch_optional(&world.db).await.expect("the table is there");
        if let Some(result) = result {
            assert_eq!(result, "It took 1500 ms.");
            break;
        }
        assert!(std::time::Instant::now() < deadline, "the run is not noted");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Sends one function call, given without its id, as a call of its own.
async fn by_vapi(world: &World, agent: &Agent, name: &str, mut function_call: Value) -> Value {
    let facts = Facts::inbound(&agent.assistant, &agent.number, "+15550198");
    let mut message = messages::tool_call(&facts, OffsetDateTime::now_utc(), name, json!({}));
    let list = &mut message["message"]["toolCallList"][0];
    function_call["id"] = list["id"].clone();
    *list = function_call;
    let answer = world.tandem.vapi.send(message).await;
    assert_eq!(answer.status, 200, "{name}: {}", answer.body);
    validate_answer("tool-calls", &answer.body).unwrap_or_else(|fault| panic!("{name}: {fault}: {}", answer.body));
    answer.body["results"][0].clone()
}

/// Lets the model call tools in one response; gives their outputs in that order. One response follows them all.
async fn by_openai(world: &World, agent: &Agent, calls: &[(&str, &str)]) -> Vec<String> {
    let call = world.call(agent, Caller::new());
    let session = world.session(agent, 0).await;
    let reply = Reply::silence();
    session.push_reply(calls.iter().fold(reply, |reply, (name, arguments)| reply.then_raw_tool_call(name, arguments)));
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
        assert_eq!(told(request), told(same));
    }
}

/// A request's shape, but for who speaks with whom: a bridged call may run before that is on record.
fn told(request: &Request) -> Value {
    let mut body = request.json();
    for at in ["/message", "/message/call"] {
        if let Some(members) = body.pointer_mut(at).and_then(Value::as_object_mut) {
            members.retain(|name, _| name != "customer" && name != "phoneNumber");
        }
    }
    shape(&body)
}

/// A message without its values: which members there are, and of what kind. A test's own arguments stay.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), shape(value))).collect(),
        Value::Array(items) => items.iter().map(shape).collect(),
        Value::String(_) => "a text".into(),
        Value::Number(_) => "a number".into(),
        other => other.clone(),
    }
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
        ("by_name", &by_name, "This tool is not available."),
        ("metadata", "http://169.254.169.254/latest/meta-data", "This tool is not available."),
    ];
    for (name, url, error) in targets {
        add_tool(&world, &plain, name, url, 2000).await;
        let answer = by_vapi(&world, &plain, name, on_the_wire(name, &json!({}))).await;
        assert_eq!(answer["error"], error, "{name}");
    }
    add_tool(&world, &agent, "by_address", &url, 2000).await;
    add_tool(&world, &agent, "by_name", &by_name, 2000).await;
    let outputs = by_openai(&world, &agent, &[("by_address", "{}"), ("by_name", "{}")]).await;
    assert_eq!(outputs, [r#"{"error":"This tool is not available."}"#; 2]);
    assert!(world.tandem.tools.requests().all().is_empty(), "nothing reaches the server");
}
