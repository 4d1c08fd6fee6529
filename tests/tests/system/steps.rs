//! What agents do to their calls: end them, hand the caller over, press keys; and what ends a call that nobody ends.

use serde_json::{Value, json};
use tests::openai::{Reply, Session, SessionHandle};
use tests::tandem::{EDGE_URL, Options};
use tests::twilio::{CallHandle, Callee, Caller, EndReason, Outcome, What};
use uuid::Uuid;

use crate::audio::{self, AGENT_LAST, AGENT_NEXT, CALLER};
use crate::world::{Agent, CALLER as CALLER_NUMBER, LIMIT, OrTell, Spec, World, heard, incoming, model, send, started};

const DESK: &str = "+15550801";
const BUSY_DESK: &str = "+15550802";
const EMPTY_DESK: &str = "+15550803";

/// Gives an agent one of Tandem's own tools.
pub(crate) async fn add_builtin(world: &World, agent: &Agent, builtin: &str, parameters: Value, settings: Value) {
    let insert = "with tool as (
                      insert into tools (id, project_id, name, function_name, builtin, parameters, settings)
                      values ($1, $2, $3, $4, $4, $5, $6) returning id)
                  insert into agent_tools (project_id, agent_id, tool_id) select $2, $7, id from tool";
    sqlx::query(insert)
        .bind(Uuid::now_v7())
        .bind(world.tandem.seeded.project_id.parse::<Uuid>().expect("a project's id is a UUID"))
        .bind(format!("{builtin}_{}", agent.number.trim_start_matches('+')))
        .bind(builtin)
        .bind(parameters)
        .bind(settings)
        .bind(agent.id.parse::<Uuid>().expect("an agent's id is a UUID"))
        .execute(&world.db)
        .await
        .expect("the tool is valid");
}

/// Gives an agent rules for its calls.
async fn set_rules(world: &World, agent: &Agent, rules: Value) {
    sqlx::query("update agents set realtime = realtime || jsonb_build_object('call', $2::jsonb) where id = $1")
        .bind(agent.id.parse::<Uuid>().expect("an agent's id is a UUID"))
        .bind(rules)
        .execute(&world.db)
        .await
        .expect("the rules are valid");
}

fn transfer_to(number: &str) -> (Value, Value) {
    let parameters =
        json!({ "type": "object", "properties": { "destination": { "type": "string", "enum": [number] } } });
    (parameters, json!({ "destinations": [{ "type": "number", "number": number, "extension": "ww7#" }] }))
}

fn nothing() -> Value {
    json!({ "type": "object", "properties": {} })
}

/// The caller speaks once, and the model answers with this.
async fn asks(world: &World, agent: &Agent, reply: Reply) -> (CallHandle, SessionHandle) {
    let call = world.call(agent, Caller::new());
    let session = world.session(agent, 0).await;
    session.push_reply(reply);
    call.then(Caller::new().wait_ms(300).say(audio::voice(CALLER, 400)));
    (call, session)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_agents_do_to_their_calls() {
    let world = World::default().await;
    let [ending, phrase, taken, busy, nobody, keys] = world.agents([Spec::listening(); 6]).await;
    tokio::join!(
        the_goodbye_is_heard(&world, &ending),
        a_phrase_ends_the_call(&world, &phrase),
        somebody_takes_the_caller(&world, &taken),
        nobody_takes_the_caller(&world, &busy),
        nobody_answers(&world, &nobody),
        keys_are_pressed(&world, &keys),
    );
}

async fn the_goodbye_is_heard(world: &World, agent: &Agent) {
    add_builtin(world, agent, "end_call", nothing(), json!({})).await;
    let goodbye = Reply::speech(audio::clip(AGENT_LAST, 1500, "Thank you and goodbye."));
    let (call, _) = asks(world, agent, goodbye.then_tool_call("end_call", &json!({}))).await;
    let record = world.over(&call, EndReason::HungUp).await;
    assert_eq!(audio::only(AGENT_LAST, &call.recording().agent).len(), 1500 * 8, "{}", call.trace_text());
    assert_eq!(record["endReason"], "agent_hung_up");
    assert_eq!(call.streams().len(), 1, "{}", call.trace_text());
}

async fn a_phrase_ends_the_call(world: &World, agent: &Agent) {
    set_rules(world, agent, json!({ "endCallPhrases": ["have a NICE day"] })).await;
    let goodbye = Reply::speech(audio::clip(AGENT_LAST, 1000, "Bye, and have a nice day."));
    let (call, _) = asks(world, agent, goodbye).await;
    let record = world.over(&call, EndReason::HungUp).await;
    assert_eq!(audio::only(AGENT_LAST, &call.recording().agent).len(), 1000 * 8, "{}", call.trace_text());
    assert_eq!(record["endReason"], "agent_hung_up");
}

async fn somebody_takes_the_caller(world: &World, agent: &Agent) {
    world.tandem.twilio.set_callee(DESK, Callee::answers_for_ms(1500));
    let (parameters, settings) = transfer_to(DESK);
    add_builtin(world, agent, "transfer_call", parameters, settings).await;
    let preamble = Reply::speech(audio::clip(AGENT_NEXT, 800, "I put you through."));
    let reply = preamble.then_tool_call("transfer_call", &json!({ "destination": DESK }));
    let (call, session) = asks(world, agent, reply).await;
    let record = world.over(&call, EndReason::HungUp).await;
    assert_eq!(audio::only(AGENT_NEXT, &call.recording().agent).len(), 800 * 8, "{}", call.trace_text());
    assert_eq!(dialled(&call), [(DESK.to_owned(), "completed".to_owned())], "{}", call.trace_text());
    assert_eq!(pressed(&call), ["ww7#"]);
    assert_eq!((&record["endReason"], call.streams().len()), (&json!("transferred"), 1));
    session.read(|session| assert!(session.record().closed.is_some(), "no session outlives its stream"));
}

async fn nobody_takes_the_caller(world: &World, agent: &Agent) {
    world.tandem.twilio.set_callee(BUSY_DESK, Callee::with(Outcome::Busy));
    let (parameters, settings) = transfer_to(BUSY_DESK);
    add_builtin(world, agent, "transfer_call", parameters, settings).await;
    // Whom the owner has not named is not dialled; the model may try again.
    let (call, first) = asks(world, agent, Reply::tool_call("transfer_call", &json!({ "destination": DESK }))).await;
    first.push_reply(Reply::tool_call("transfer_call", &json!({ "destination": BUSY_DESK })));
    let second = world.session(agent, 1).await;
    call.then(Caller::new().wait_until_agent_quiet().hang_up());
    let record = world.over(&call, EndReason::CallerHungUp).await;
    assert_eq!(dialled(&call), [(BUSY_DESK.to_owned(), "busy".to_owned())], "{}", call.trace_text());
    assert_eq!((call.streams().len(), &record["resumes"]), (2, &json!(0)), "{}", call.trace_text());
    let told = told(&second);
    assert!(told.iter().any(|text| text == "First words."), "{told:?}");
    assert!(told.iter().any(|text| text.contains(BUSY_DESK) && text.contains("busy")), "{told:?}");
    let asked = second.read(|session| session.record().received("response.create").len());
    assert_eq!(asked, 1, "the agent speaks without being asked");
}

/// It rings until we give up; then the caller is back with the agent.
async fn nobody_answers(world: &World, agent: &Agent) {
    world.tandem.twilio.set_callee(EMPTY_DESK, Callee::with(Outcome::NoAnswer));
    let (parameters, settings) = transfer_to(EMPTY_DESK);
    add_builtin(world, agent, "transfer_call", parameters, settings).await;
    let (call, _) = asks(world, agent, Reply::tool_call("transfer_call", &json!({}))).await;
    let rings = |what: &What| matches!(what, What::Verb { name, .. } if name == "Dial");
    call.wait_for(LIMIT, rings).await.or_tell(&call, "nobody is dialled");
    let second = world.session(agent, 1).await;
    heard(&call, audio::AGENT, 600).await;
    call.hang_up();
    world.over(&call, EndReason::CallerHungUp).await;
    assert_eq!(dialled(&call), [(EMPTY_DESK.to_owned(), "no-answer".to_owned())], "{}", call.trace_text());
    let told = told(&second);
    assert!(told.iter().any(|text| text.contains(EMPTY_DESK) && text.contains("nobody answered")), "{told:?}");
}

async fn keys_are_pressed(world: &World, agent: &Agent) {
    let parameters = json!({ "type": "object", "properties": { "keys": { "type": "string" } } });
    add_builtin(world, agent, "send_dtmf", parameters, json!({})).await;
    let (call, _) = asks(world, agent, Reply::tool_call("send_dtmf", &json!({ "keys": "1w2#" }))).await;
    let second = world.session(agent, 1).await;
    call.then(Caller::new().wait_until_agent_quiet().hang_up());
    let record = world.over(&call, EndReason::CallerHungUp).await;
    assert_eq!(pressed(&call), ["1w2#"], "{}", call.trace_text());
    assert_eq!((call.streams().len(), &record["resumes"]), (2, &json!(0)), "{}", call.trace_text());
    assert!(told(&second).iter().any(|text| text.contains("1w2#")), "{:?}", told(&second));
}

/// Nobody waits for the database to put the caller through or to press keys; what came of it is known when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn steps_are_made_while_postgres_is_away() {
    let world = World::start(Options { openai: model(), own_postgres: true, ..Options::default() }).await;
    let [transferring, pressing] = world.agents([Spec::listening(); 2]).await;
    world.tandem.twilio.set_callee(DESK, Callee::answers_for_ms(500));
    let (parameters, settings) = transfer_to(DESK);
    add_builtin(&world, &transferring, "transfer_call", parameters, settings).await;
    let parameters = json!({ "type": "object", "properties": { "keys": { "type": "string" } } });
    add_builtin(&world, &pressing, "send_dtmf", parameters, json!({})).await;
    let (transfer, press) = (world.call(&transferring, Caller::new()), world.call(&pressing, Caller::new()));
    let tools = [
        (&transferring, Reply::tool_call("transfer_call", &json!({}))),
        (&pressing, Reply::tool_call("send_dtmf", &json!({ "keys": "1w2#" }))),
    ];
    for (agent, reply) in tools {
        let session = world.session(agent, 0).await;
        session.push_reply(reply);
        // It may have been there before the stream.
        session.wait_for(|session| session.heard_ms() > 0, LIMIT).await.expect("the stream is let in");
    }
    world.tandem.postgres.stop().await.expect("Postgres stops");
    for call in [&transfer, &press] {
        call.then(Caller::new().say(audio::voice(CALLER, 400)));
    }

    let reason = transfer.wait_ended(LIMIT).await.or_tell(&transfer, "it waits for the database");
    assert_eq!((reason, dialled(&transfer).len()), (EndReason::HungUp, 1), "{}", transfer.trace_text());
    let is_pressed = |what: &What| matches!(what, What::Pressed { .. });
    press.wait_for(LIMIT, is_pressed).await.or_tell(&press, "it waits for the database");
    let is_held = |what: &What| matches!(what, What::Verb { name, .. } if name == "Pause");
    press.wait_for(LIMIT, is_held).await.or_tell(&press, "the caller is not asked to wait");
    world.tandem.postgres.start_again().await.expect("Postgres starts");

    let second = world.session(&pressing, 1).await;
    assert_eq!(told(&second).iter().filter(|text| text.contains("1w2#")).count(), 1, "{:?}", told(&second));
    heard(&press, audio::AGENT, 600).await;
    press.hang_up();
    assert_eq!(press.wait_ended(LIMIT).await.or_tell(&press, "it goes on"), EndReason::CallerHungUp);
    assert_eq!(pressed(&press), ["1w2#"], "once\n{}", press.trace_text());
    let is_over = |record: &Value| record["status"] == "ended";
    let record = world.tandem.call_when(transfer.sid().as_str(), is_over).await.or_tell(&transfer, "the record");
    assert_eq!(record["endReason"], "transferred");
}

fn dialled(call: &CallHandle) -> Vec<(String, String)> {
    let of = |what: What| match what {
        What::Dialled { number, status } => Some((number, status)),
        _ => None,
    };
    call.trace().into_iter().filter_map(|entry| of(entry.what)).collect()
}

fn pressed(call: &CallHandle) -> Vec<String> {
    let of = |what: What| match what {
        What::Pressed { digits } => Some(digits),
        _ => None,
    };
    call.trace().into_iter().filter_map(|entry| of(entry.what)).collect()
}

/// The texts that a session was told of the past.
fn told(session: &SessionHandle) -> Vec<String> {
    session.read(|session| {
        let created = session.record().received("conversation.item.create");
        let text = |event: &Value| event["item"]["content"][0]["text"].as_str().map(str::to_owned);
        created.iter().filter_map(|event| text(event)).collect()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_a_call_that_nobody_ends() {
    let world = World::default().await;
    let [silent, long, over] = world.agents([Spec::bridged(); 3]).await;
    tokio::join!(
        a_silent_caller_is_asked_and_left(&world, &silent),
        a_call_has_its_time(&world, &long),
        a_status_callback_ends_the_stream(&world, &over),
    );
}

async fn a_silent_caller_is_asked_and_left(world: &World, agent: &Agent) {
    let idle = json!({ "afterMs": 2000, "times": 1, "messages": ["Are you still there?"] });
    set_rules(world, agent, json!({ "silenceTimeoutSeconds": 5, "idle": idle, "endCallMessage": "Bye for now." }))
        .await;
    let call = world.call(agent, Caller::new().give_up_after_ms(60_000));
    let session = world.session(agent, 0).await;
    let record = world.over(&call, EndReason::HungUp).await;
    assert_eq!(record["endReason"], "silence");
    session.read(|session| {
        let asked = session.record().received("response.create");
        let words: Vec<String> = asked.iter().map(ToString::to_string).collect();
        assert_eq!(asked.len(), 3, "greeting, question, goodbye: {words:?}");
        assert!(words[1].contains("Are you still there?") && words[2].contains("Bye for now."), "{words:?}");
    });
    // Greeting, question and goodbye, whole.
    assert_eq!(audio::only(audio::AGENT, &call.recording().agent).len(), 3 * 600 * 8, "{}", call.trace_text());
}

async fn a_call_has_its_time(world: &World, agent: &Agent) {
    set_rules(world, agent, json!({ "maxDurationSeconds": 10, "silenceTimeoutSeconds": 60 })).await;
    let call = world.call(agent, Caller::new().give_up_after_ms(60_000));
    let session = world.session(agent, 0).await;
    let record = world.over(&call, EndReason::HungUp).await;
    assert_eq!(record["endReason"], "max_duration");
    assert_eq!(audio::only(audio::AGENT, &call.recording().agent).len(), 2 * 600 * 8, "{}", call.trace_text());
    let asked = |session: &Session| session.record().received("response.create").len();
    assert_eq!(session.read(asked), 2, "the greeting and the goodbye");
}

/// Twilio tells that the call is over while its stream still looks alive: nothing is kept for it.
async fn a_status_callback_ends_the_stream(world: &World, agent: &Agent) {
    let call = world.call(agent, Caller::new());
    call.wait_for(LIMIT, started).await.or_tell(&call, "no stream");
    heard(&call, audio::AGENT, 600).await;
    let session = world.session(agent, 0).await;
    let sid = call.sid().as_str().to_owned();
    let (status, _) = send(world.twilio(EDGE_URL, "/twilio/status", &incoming(&sid, &agent.number, "completed"))).await;
    assert_eq!(status, 204, "the callback is taken");
    let closed = |session: &Session| session.record().closed.is_some();
    session.wait_for(closed, LIMIT).await.expect("the session ends with the call");
    let reason = call.wait_ended(LIMIT).await.or_tell(&call, "the stream is kept");
    assert_eq!(reason, EndReason::HungUp, "{} {CALLER_NUMBER}", call.trace_text());
    assert_eq!(call.streams().len(), 1, "{}", call.trace_text());
}
