//! Both tables of decisions, row by row, with the origin there, refused, and hanging.

use std::time::Duration;

use serde_json::{Value, json};
use tests::stack::edge::KV_NAMESPACE_ID;
use tests::stack::link::{Link, State};
use tests::tandem::{EDGE_URL, ORIGIN_URL, STREAM_URL};
use tests::twilio::{CallHandle, Callee, Caller, EndReason, Purpose, What};
use tests::vapi::{Facts, History, ToolCall, messages, validate_answer};
use time::OffsetDateTime;

use crate::audio::{self, AGENT, CALLER};
use crate::world::{Agent, LIMIT, OrTell, Spec, VAPI, World, incoming, is_bridged, new_call_sid, send, started};

const PERSON: &str = "+15550300002";
const NOBODYS: &str = "+15550399999";
/// What a caller hears.
const SORRY: &str = "this line cannot take your call right now";
const NOT_IN_SERVICE: &str = "not in service";
const MOMENT: &str = "One moment, please.";
const GIVEN_UP: &str = "we cannot take your call right now. Please try again in a few minutes";

/// An agent for every row of the table of incoming calls.
struct Rows {
    bridged: Agent,
    bypassed: Agent,
    redirected: Agent,
    none: Agent,
    crossed: Agent,
    crossed_back: Agent,
    fallback: Agent,
    /// The edge's replica has lost it.
    missing: Agent,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_with_the_origin_there_and_gone() {
    let (world, rows) = world().await;
    calls_with_the_origin(&world, &rows).await;
    messages_with_the_origin(&world, &rows).await;
    without_the_origin(&world, &rows, State::Refuse).await;
    a_call_that_is_given_up(&world, &rows.bypassed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_with_the_origin_hanging_and_without_the_edge() {
    let (world, rows) = world().await;
    without_the_origin(&world, &rows, State::Hang).await;
    a_call_that_is_held_until_the_origin_is_back(&world, &rows.bypassed).await;
    without_the_edge(&world, &rows.bridged).await;
}

async fn world() -> (World, Rows) {
    let world = World::default().await;
    let crossed = Spec { number_on: VAPI, ..Spec::bridged() };
    let [bridged, bypassed, redirected, none, crossed, crossed_back, fallback, missing] = world
        .agents([
            Spec::bridged(),
            Spec::on_vapi("bypass"),
            Spec::on_vapi("redirect"),
            Spec::on_vapi("none"),
            crossed,
            Spec { agent_on: VAPI, ..Spec::bridged() },
            crossed.falling_back_to(PERSON),
            Spec::bridged(),
        ])
        .await;
    let rows = Rows { bridged, bypassed, redirected, none, crossed, crossed_back, fallback, missing };
    forget(&world, &rows.missing).await;
    (world, rows)
}

async fn without_the_origin(world: &World, rows: &Rows, state: State) {
    world.tandem.link.set(state).await.expect("the link lives");
    let calls = Box::pin(calls_without_the_origin(world, rows));
    let ((), kept) = tokio::join!(calls, messages_without_the_origin(world, rows));
    world.tandem.link.set(State::Open).await.expect("the link lives");
    takes_effect_later(world, &kept, &rows.bypassed).await;
}

/// Takes an agent's number out of the edge's replica, as far as the origin knows unnoticed.
async fn forget(world: &World, agent: &Agent) {
    let keys = format!("{}/storage/kv/namespaces/{KV_NAMESPACE_ID}/bulk/delete", world.tandem.edge.kv_api_url());
    let request = world.client.post(keys).json(&json!([format!("number:{}", agent.number)]));
    let (status, body) = send(request).await;
    assert_eq!(status, 200, "{body}");
}

async fn ask(world: &World, to: &str, query: &str) -> String {
    let call_sid = new_call_sid();
    let request = world.twilio(EDGE_URL, &format!("/twilio/voice{query}"), &incoming(&call_sid, to, "ringing"));
    let (status, twiml) = send(request).await;
    assert_eq!(status, 200, "{to}: {twiml}");
    twiml
}

async fn calls_with_the_origin(world: &World, rows: &Rows) {
    assert!(is_bridged(&ask(world, &rows.bridged.number, "").await));
    assert!(is_bridged(&ask(world, &rows.missing.number, "").await), "the origin knows what the replica has lost");
    let twiml = ask(world, &rows.bypassed.number, "").await;
    assert!(twiml.contains("wss://media.vapi.test/"), "{twiml}");
    let twiml = ask(world, &rows.redirected.number, "").await;
    assert!(twiml.contains("/twilio/inbound_call</Redirect>"), "{twiml}");

    for (agent, reason, spoken) in [
        (&rows.none, "vapi_number", SORRY),
        (&rows.crossed, "cross_system", SORRY),
        (&rows.crossed_back, "cross_system", SORRY),
        (&rows.fallback, "cross_system", "<Number>+15550300002</Number>"),
    ] {
        let twiml = ask(world, &agent.number, "").await;
        assert!(twiml.contains(spoken) && !is_bridged(&twiml), "{reason}: {twiml}");
        assert_eq!(world.rejections(agent).await, [reason]);
        let event = world.events(agent).await.pop().expect("the event");
        assert!(event["details"]["callSid"].is_string() && event["actor"] == "origin", "{event}");
    }
    let before = world.rows().await;
    for to in [NOBODYS, "sip:sales@pbx.example.com", "client:ana", ""] {
        let twiml = ask(world, to, "").await;
        assert!(twiml.contains(NOT_IN_SERVICE), "{to}: {twiml}");
    }
    assert_eq!(world.rows().await, before, "nothing is created for a number that nobody knows");

    // The fallback as a caller lives it.
    world.tandem.twilio.set_callee(PERSON, Callee::answers_for_ms(400));
    let call = world.call(&rows.fallback, Caller::new());
    let reason = call.wait_ended(LIMIT).await.or_tell(&call, "the call does not end");
    let dialled =
        |what: &What| matches!(what, What::Dialled { number, status } if number == PERSON && status == "completed");
    assert!(call.trace().iter().any(|entry| dialled(&entry.what)), "{reason:?}\n{}", call.trace_text());
}

/// While the origin is away the edge still answers within the time that a caller bears in silence.
async fn calls_without_the_origin(world: &World, rows: &Rows) {
    let again = |attempt: u32| format!("{EDGE_URL}/twilio/voice?attempt={attempt}</Redirect>");
    let held = |twiml: &str, attempt| twiml.contains(MOMENT) && twiml.contains(&again(attempt));
    let within_limit = |asking| tokio::time::timeout(Duration::from_secs(5), asking);
    let in_time = "the edge answers within 5 s";

    let [bridged, redirected, none, crossed, fallback, missing, unknown, last] = [
        (rows.bridged.number.as_str(), ""),
        (&rows.redirected.number, ""),
        (&rows.none.number, ""),
        (&rows.crossed.number, ""),
        (&rows.fallback.number, ""),
        (&rows.missing.number, ""),
        (NOBODYS, ""),
        (NOBODYS, "?attempt=4"),
    ]
    .map(|(to, query)| within_limit(ask(world, to, query)));
    let answers = tokio::join!(bridged, redirected, none, crossed, fallback, missing, unknown, last);
    let (bridged, redirected, none, crossed, fallback, missing, unknown, last) = answers;
    assert!(is_bridged(&bridged.expect(in_time)));
    assert!(redirected.expect(in_time).contains("/twilio/inbound_call</Redirect>"));
    assert!(none.expect(in_time).contains(SORRY));
    assert!(crossed.expect(in_time).contains(SORRY));
    assert!(fallback.expect(in_time).contains("<Number>+15550300002</Number>"));
    let missing = missing.expect(in_time);
    assert!(held(&missing, 2), "{missing}");
    let unknown = unknown.expect(in_time);
    assert!(held(&unknown, 2), "{unknown}");
    let last = last.expect(in_time);
    assert!(last.contains(GIVEN_UP), "{last}");

    // The bypass has more time: cut off too early, a call that the origin has just created at Vapi would be lost.
    let twiml = ask(world, &rows.bypassed.number, "?attempt=2").await;
    assert!(held(&twiml, 3), "{twiml}");

    let call_sid = new_call_sid();
    let resume = world.twilio(EDGE_URL, "/twilio/resume", &incoming(&call_sid, &rows.bridged.number, "in-progress"));
    let (status, twiml) = send(resume).await;
    assert!(status == 200 && twiml.contains(&format!("{EDGE_URL}/twilio/resume?attempt=2</Redirect>")), "{twiml}");
    let status = world.twilio(EDGE_URL, "/twilio/status", &incoming(&call_sid, &rows.bridged.number, "completed"));
    assert_eq!(send(status).await.0, 204, "a callback is kept for later");
}

async fn messages_with_the_origin(world: &World, rows: &Rows) {
    let now = OffsetDateTime::now_utc();
    // Vapi's: processed. In flight at the switch: processed. After it: skipped. Unknown: the origin is asked.
    let on_vapi = Facts::inbound(&rows.bypassed.assistant, &rows.bypassed.number, "+15550198");
    let after = Facts::inbound(&rows.bridged.assistant, &rows.bridged.number, "+15550198");
    let unknown = Facts::inbound("nobodys-assistant", NOBODYS, "+15550198");
    let unassigned = Facts::inbound("", &rows.bypassed.number, "+15550198").without_assistant();
    for (facts, counts) in [(&on_vapi, true), (&after, false), (&unknown, false), (&unassigned, true)] {
        let answer = world.tandem.vapi.send(messages::status_update(facts, now, "in-progress")).await;
        assert_eq!((answer.status, &answer.body), (200, &json!({})));
        let sid = facts.call_sid.as_deref().expect("an inbound call has one");
        let record = world.tandem.call(sid).await.expect("the API answers");
        assert_eq!(record.is_some(), counts, "{record:?}");
        if let Some(record) = record {
            assert_eq!((&record["systemType"], &record["status"]), (&json!("vapi"), &json!("in-progress")));
            assert_eq!(record["agentId"], rows.bypassed.id);
        }
    }
    // Which assistant takes a call of a number is the origin's to say.
    let answer = world.tandem.vapi.send(messages::assistant_request(&unassigned, now)).await;
    assert_eq!(answer.body, json!({ "assistantId": rows.bypassed.assistant }));
    let request = Facts::inbound("", &rows.bridged.number, "+15550198").without_assistant();
    let answer = world.tandem.vapi.send(messages::assistant_request(&request, now)).await;
    assert!(answer.body["error"].is_string(), "the number is not Vapi's: {}", answer.body);
}

/// Gives the call whose report was kept.
async fn messages_without_the_origin(world: &World, rows: &Rows) -> Facts {
    let facts = Facts::inbound(&rows.bypassed.assistant, &rows.bypassed.number, "+15550198");
    let now = OffsetDateTime::now_utc();
    let history = History::new(now, None);
    let send = async |message: Value| {
        let kind = message["message"]["type"].as_str().expect("a type").to_owned();
        let answer = world.tandem.vapi.send(message).await;
        assert_eq!(answer.status, 200, "{kind}: {}", answer.body);
        validate_answer(&kind, &answer.body).unwrap_or_else(|fault| panic!("{kind}: {fault}: {}", answer.body));
        answer.body
    };
    let tool_calls = messages::tool_calls(&facts, now, &history, &[(get_slots(), tool_config())]);
    let (tools, request, event) = tokio::join!(
        send(tool_calls),
        send(messages::assistant_request(&facts.clone().without_assistant(), now)),
        send(messages::end_of_call_report(&facts, now, &history, now, "customer-ended-call")),
    );
    assert!(tools["results"][0]["error"].is_string(), "{tools}");
    assert!(request["error"].is_string(), "{request}");
    assert_eq!(event, json!({}));
    facts
}

/// A report that was kept takes effect when the origin is back.
async fn takes_effect_later(world: &World, facts: &Facts, agent: &Agent) {
    let is_over = |record: &Value| record["status"] == "ended" && record["endReason"] == "caller_hung_up";
    let sid = facts.call_sid.as_deref().expect("an inbound call has one");
    let record = world.tandem.call_when(sid, is_over).await.expect("the kept report is delivered");
    assert_eq!(record["agentId"], agent.id);
}

fn get_slots() -> ToolCall {
    ToolCall { id: "call_1".to_owned(), name: "get_slots".to_owned(), arguments: json!({ "date": "2026-11-23" }) }
}

fn tool_config() -> messages::ToolConfig {
    messages::ToolConfig { description: String::new(), parameters: json!({ "type": "object" }), server_url: None }
}

/// Redirects so far: how often the caller was asked to wait.
fn holds(call: &CallHandle) -> usize {
    call.said().iter().filter(|said| *said == MOMENT).count()
}

async fn a_call_that_is_held_until_the_origin_is_back(world: &World, agent: &Agent) {
    world.tandem.link.set(State::Hang).await.expect("the link lives");
    let call = world.call(agent, Caller::new().wait_until_heard_ms(1500));
    let said = |what: &What| matches!(what, What::Verb { name, .. } if name == "Say");
    call.wait_for(LIMIT, said).await.or_tell(&call, "the caller is not asked to wait");
    world.tandem.link.set(State::Open).await.expect("the link lives");
    call.wait_for(LIMIT, started).await.or_tell(&call, "Vapi does not get the call");
    assert_eq!(call.streams().len(), 1, "{}", call.trace_text());
    assert!((1..=2).contains(&holds(&call)), "{}", call.trace_text());
    call.hang_up();
    world.over(&call, EndReason::CallerHungUp).await;
}

async fn a_call_that_is_given_up(world: &World, agent: &Agent) {
    world.tandem.link.set(State::Refuse).await.expect("the link lives");
    let call = world.call(agent, Caller::new());
    let reason = call.wait_ended(LIMIT).await.or_tell(&call, "the call does not end");
    world.tandem.link.set(State::Open).await.expect("the link lives");
    assert_eq!((reason, holds(&call)), (EndReason::HungUp, 3), "{}", call.trace_text());
    let last = call.said().pop().unwrap_or_default();
    assert!(last.contains(GIVEN_UP), "{last}");
}

/// The edge is gone: Twilio's fallback URL leads straight to the origin, which does all that the edge did.
async fn without_the_edge(world: &World, agent: &Agent) {
    world.tandem.hosts.unmap(EDGE_URL);
    let door = Link::start(world.tandem.origin.address()).await.expect("a port is free");
    world.tandem.hosts.map(STREAM_URL, &door.base_url());
    let call = world.call(agent, Caller::new().wait_until_agent_quiet());
    let session = world.session(agent, 0).await;
    session.wait_for(|session| !session.record().responses.is_empty(), LIMIT).await.expect("the agent greets");
    call.then(Caller::new().say(audio::voice(CALLER, 500)).wait_until_agent_quiet());
    session.wait_for(|session| session.record().responses.len() == 2, LIMIT).await.expect("the caller is answered");
    // The stream is lost, and Twilio asks the origin how to go on.
    door.cut().await.expect("the door lives");
    world.session(agent, 1).await;
    call.then(Caller::new().hang_up());
    let record = world.over(&call, EndReason::CallerHungUp).await;
    world.tandem.hosts.map(EDGE_URL, &world.tandem.edge.base_url());
    world.tandem.hosts.map(STREAM_URL, &world.tandem.origin.base_url());

    assert_eq!((&record["resumes"], &record["endReason"]), (&json!(1), &json!("caller_hung_up")));
    assert_eq!((&record["from"], &record["to"]), (&json!("+15550199"), &json!(agent.number)));
    assert!(!audio::only(AGENT, &call.recording().agent).is_empty());
    let mut asked = Vec::new();
    for entry in call.trace() {
        if let What::Webhook { purpose, url, status: Some(status), .. } = entry.what {
            assert!(url.starts_with(ORIGIN_URL) && (200..300).contains(&status), "{url}: {status}");
            asked.push(purpose);
        }
    }
    for purpose in [Purpose::Fallback, Purpose::Redirect, Purpose::StreamStatus] {
        assert!(asked.contains(&purpose), "{purpose:?}\n{}", call.trace_text());
    }
    assert_eq!(world.sessions(agent).len(), 2);
}
