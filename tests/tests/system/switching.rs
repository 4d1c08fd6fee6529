//! Switching while calls run: each stays where it began. And switching itself, often and at once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tests::openai::{Reply, Session};
use tests::stack::link::Link;
use tests::tandem::{EDGE_URL, Options, STREAM_URL};
use tests::twilio::{Caller, EndReason};
use tests::vapi::{Facts, History, Script, ToolCall, messages, tone, validate_answer, validate_tool_answer};
use time::OffsetDateTime;

use crate::audio::{self, AGENT, AGENT_NEXT, CALLER};
use crate::tools::add_tool;
use crate::world::{
    Agent, LIMIT, OrTell, REALTIME, Spec, VAPI, World, incoming, is_bridged, new_call_sid, send, started,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_call_stays_where_it_began() {
    let world = World::default().await;
    let [agent, other] = world.agents([Spec::on_vapi("bypass"), Spec::listening()]).await;
    add_tool(&world, &agent, "get_slots", &world.tandem.tools.url(), 5000).await;
    tokio::join!(from_vapi(&world, &agent), to_vapi(&world, &other));
}

/// The agent leaves Vapi while Vapi runs a call of it.
async fn from_vapi(world: &World, agent: &Agent) {
    let arguments = json!({ "date": "2026-11-23" });
    let script = Script::new()
        .beep("Hello.", 300)
        .hear("Is there a table?")
        .call("get_slots", arguments)
        .say("It is booked.", audio::voice(AGENT_NEXT, 400));
    world.tandem.vapi.set_script(script);
    let call = world.call(agent, Caller::new().wait_until_agent_quiet());
    call.wait_for(LIMIT, started).await.or_tell(&call, "Vapi does not take the call");
    let answered = |record: &Value| record["status"] == "in-progress";
    world.tandem.call_when(call.sid().as_str(), answered).await.or_tell(&call, "Vapi does not tell of the call");

    world.tandem.switch(&agent.id, REALTIME).await.expect("the agent is configured for both");
    world.tandem.replicated(&agent.id).await.expect("replication keeps up");
    // New calls are bridged, and what Vapi says of a call made since is skipped, each type in its shape.
    let sid = new_call_sid();
    let (_, twiml) = send(world.twilio(EDGE_URL, "/twilio/voice", &incoming(&sid, &agent.number, "ringing"))).await;
    assert!(is_bridged(&twiml), "{twiml}");
    messages_of_a_later_call(world, agent).await;

    call.then(Caller::new().say(tone(600)).wait_until_agent_quiet().hang_up());
    let record = world.over(&call, EndReason::CallerHungUp).await;
    assert_eq!(audio::only(AGENT_NEXT, &call.recording().agent).len(), 400 * 8, "{}", call.trace_text());
    assert_eq!((&record["systemType"], &record["endReason"]), (&json!(VAPI), &json!("caller_hung_up")));
    let deliveries = world.tandem.vapi.deliveries().all();
    let its = deliveries.iter().filter(|delivery| delivery.call_id.as_deref() == record["vapiCallId"].as_str());
    let tool_calls: Vec<_> = its.filter(|delivery| delivery.message_type == "tool-calls").collect();
    let [tool_call] = &tool_calls[..] else { panic!("one tool call, not {}", tool_calls.len()) };
    let answer = tool_call.answer.as_ref().expect("it was answered");
    assert_eq!(answer.body["results"][0]["result"], "On 2026-11-23 these times are free: 09:00, 11:30, 16:15.");
    let lines = record["transcript"].as_array().expect("a list");
    assert!(lines.iter().any(|line| line["text"] == "Is there a table?"), "{record}");
}

async fn messages_of_a_later_call(world: &World, agent: &Agent) {
    let facts = Facts::inbound(&agent.assistant, &agent.number, "+15550198");
    let now = OffsetDateTime::now_utc();
    let history = History::new(now, None);
    let asked = [("c1", "get_slots"), ("c2", "book_appointment")].map(|(id, name)| (id.to_owned(), name.to_owned()));
    let calls = asked.clone().map(|(id, name)| {
        let config = messages::ToolConfig {
            description: String::new(),
            parameters: json!({ "type": "object" }),
            server_url: None,
        };
        (ToolCall { id, name, arguments: json!({}) }, config)
    });
    let requests = world.tandem.tools.requests().all().len();
    let before = world.tandem.vapi.deliveries().all().len();
    for message in [
        messages::tool_calls(&facts, now, &history, &calls),
        messages::assistant_request(&facts.clone().without_assistant(), now),
        messages::transfer_destination_request(&facts, now, &history),
        messages::handoff_destination_request(&facts, now, &json!({ "to": "sales" })),
        messages::knowledge_base_request(&facts, now, &history),
        messages::endpointing_request(&facts, now, &history),
        messages::status_update(&facts, now, "in-progress"),
        messages::conversation_update(&facts, now, &history),
        messages::hang(&facts, now),
        messages::end_of_call_report(&facts, now, &history, now, "customer-ended-call"),
    ] {
        let kind = message["message"]["type"].as_str().expect("a type").to_owned();
        let answer = world.tandem.vapi.send(message).await;
        assert_eq!(answer.status, 200, "{kind}: {}", answer.body);
        validate_answer(&kind, &answer.body).unwrap_or_else(|fault| panic!("{kind}: {fault}: {}", answer.body));
        if kind == "tool-calls" {
            validate_tool_answer(&asked, &answer.body).unwrap_or_else(|fault| panic!("{fault}: {}", answer.body));
            assert!(answer.body["results"][0]["error"].is_string(), "{}", answer.body);
        }
    }
    assert_eq!(world.tandem.vapi.deliveries().all().len(), before + 10);
    assert_eq!(world.tandem.tools.requests().all().len(), requests, "no tool runs for a call that is skipped");
    let sid = facts.call_sid.as_deref().expect("an inbound call has one");
    assert_eq!(world.tandem.call(sid).await.expect("the API answers"), None);
}

/// The agent goes to Vapi while a call of it is bridged.
async fn to_vapi(world: &World, agent: &Agent) {
    let door = Link::start(world.tandem.origin.address()).await.expect("a port is free");
    world.tandem.hosts.map(STREAM_URL, &door.base_url());
    let call = world.call(agent, Caller::new());
    let session = world.session(agent, 0).await;
    world.tandem.hosts.map(STREAM_URL, &world.tandem.origin.base_url());
    call.then(Caller::new().wait_ms(300).say(audio::voice(CALLER, 400)).wait_until_agent_quiet());
    let responses = |count| move |session: &Session| session.record().responses.len() >= count;
    session.wait_for(responses(1), LIMIT).await.expect("the caller is answered");

    world.tandem.switch(&agent.id, VAPI).await.expect("the agent is configured for both");
    world.tandem.replicated(&agent.id).await.expect("replication keeps up");
    session.push_reply(Reply::speech(audio::clip(AGENT_NEXT, 500, "Still here.")));
    call.then(Caller::new().say(audio::voice(CALLER, 400)).wait_until_agent_quiet());
    session.wait_for(responses(2), LIMIT).await.expect("the caller is answered after the switch");
    let is_told = |record: &Value| record["transcript"][3]["heardMs"] == 500;
    world.tandem.call_when(call.sid().as_str(), is_told).await.or_tell(&call, "what was heard is not on record");

    // Also when it loses its stream: the call belongs to the system that it began on.
    door.cut().await.expect("the door lives");
    let second = world.session(agent, 1).await;
    call.then(Caller::new().say(audio::voice(CALLER, 400)).wait_until_agent_quiet().hang_up());
    second.wait_for(responses(1), LIMIT).await.expect("the caller is answered in a new session");
    let record = world.over(&call, EndReason::CallerHungUp).await;
    assert_eq!((&record["systemType"], &record["resumes"]), (&json!(REALTIME), &json!(1)));
    let heard = call.recording().agent;
    assert_eq!(audio::only(AGENT_NEXT, &heard).len(), 500 * 8, "{}", call.trace_text());
    assert_eq!(audio::only(AGENT, &heard).len(), 2 * 600 * 8, "{}", call.trace_text());
}

/// One agent with a call at Vapi and a call at OpenAI, while twelve people switch it at a time.
#[tokio::test(flavor = "multi_thread")]
async fn calls_on_both_systems_do_not_notice_racing_switches() {
    let world = World::default().await;
    let [agent] = world.agents([Spec { greets: false, ..Spec::on_vapi("bypass") }]).await;
    let script = Script::new().beep("Hello.", 300).hear("And now?").say("Still here.", audio::voice(AGENT_NEXT, 400));
    world.tandem.vapi.set_script(script);
    let at_vapi = world.call(&agent, Caller::new().wait_until_agent_quiet());
    at_vapi.wait_for(LIMIT, started).await.or_tell(&at_vapi, "Vapi does not take the call");
    let answered = |record: &Value| record["status"] == "in-progress";
    world.tandem.call_when(at_vapi.sid().as_str(), answered).await.or_tell(&at_vapi, "Vapi does not tell of the call");
    world.tandem.switch(&agent.id, REALTIME).await.expect("the agent is configured for both");
    world.tandem.replicated(&agent.id).await.expect("replication keeps up");
    let bridged = world.call(&agent, Caller::new());
    let session = world.session(&agent, 0).await;
    bridged.then(Caller::new().wait_ms(300).say(audio::voice(CALLER, 400)).wait_until_agent_quiet());
    let responses = |count| move |session: &Session| session.record().responses.len() >= count;
    session.wait_for(responses(1), LIMIT).await.expect("the caller is answered");

    let racing = (0..12).map(|i| world.tandem.switch(&agent.id, if i % 2 == 0 { VAPI } else { REALTIME }));
    for answer in join_all(racing).await {
        answer.expect("each switch is done or was not needed");
    }
    world.tandem.switch(&agent.id, VAPI).await.expect("it can go back");
    let state = world.tandem.replicated(&agent.id).await.expect("replication keeps up");
    assert_eq!((&state["systemType"], &state["numbers"][0]["systemType"]), (&json!(VAPI), &json!(VAPI)));

    session.push_reply(Reply::speech(audio::clip(AGENT_NEXT, 500, "Still here.")));
    bridged.then(Caller::new().say(audio::voice(CALLER, 400)).wait_until_agent_quiet().hang_up());
    at_vapi.then(Caller::new().say(tone(600)).wait_until_agent_quiet().hang_up());
    session.wait_for(responses(2), LIMIT).await.expect("the caller is answered after the switches");
    for (call, system, heard) in [(&at_vapi, VAPI, 400), (&bridged, REALTIME, 500)] {
        let record = world.over(call, EndReason::CallerHungUp).await;
        assert_eq!((&record["systemType"], &record["endReason"]), (&json!(system), &json!("caller_hung_up")));
        assert_eq!(record["resumes"], 0, "{system}: the stream of the beginning is that of the end");
        assert_eq!(audio::only(AGENT_NEXT, &call.recording().agent).len(), heard * 8, "{}", call.trace_text());
    }
    assert_eq!(world.sessions(&agent).len(), 1, "the session of the beginning is that of the end");
    let events = world.events(&agent).await;
    let changes: Vec<_> = events.iter().filter(|event| event["type"] == "agent.system_type_changed").collect();
    for pair in changes.windows(2) {
        assert_eq!(pair[0]["after"], pair[1]["before"], "each change begins where the one before it ended");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn switching_often_and_at_once_never_fails() {
    let often = vec![("API_REQUESTS_PER_SECOND".to_owned(), "10000".to_owned())];
    let world = World::start(Options { origin_env: often, ..Options::default() }).await;
    let [agent, bridged] = world.agents([Spec::on_vapi("bypass"), Spec::bridged()]).await;
    a_repeated_webhook_finds_its_pin(&world, &agent, &bridged).await;

    let (done, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    let reader = async |path: &str| {
        while !done.load(Ordering::Relaxed) {
            let request = world.client.get(world.tandem.api(path)).bearer_auth(&world.tandem.seeded.api_key);
            let (status, body) = send(request).await;
            assert!(status < 500, "{path}: {status} {body}\n{}", world.tandem.origin.log_tail());
            reads.fetch_add(1, Ordering::Relaxed);
        }
    };
    let one = format!("/api/agents/{}/system-type", agent.id);
    let events = format!("/api/events?agentId={}", agent.id);
    let switched = async {
        for round in 0..50 {
            let target = if round % 2 == 0 { REALTIME } else { VAPI };
            // Two at once: one of them changes something.
            let body = json!({ "systemType": target });
            let put = || {
                let request = world.client.put(world.tandem.api(&one)).bearer_auth(&world.tandem.seeded.api_key);
                send(request.json(&body))
            };
            let ((first, text), (second, _)) = tokio::join!(put(), put());
            assert_eq!((first, second), (200, 200), "{round}: {text}\n{}", world.tandem.origin.log_tail());
        }
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(switched, reader(&one), reader("/api/agents"), reader(&events), reader("/api/calls"));
    assert!(reads.load(Ordering::Relaxed) > 50);
    let changes = world.events(&agent).await;
    let changes = changes.iter().filter(|event| event["type"] == "agent.system_type_changed").count();
    // Two from the scene before.
    assert_eq!(changes, 52, "each change is logged once");
    let state = world.tandem.replicated(&agent.id).await.expect("replication keeps up");
    assert_eq!(state["systemType"], VAPI);
}

/// Twilio asks again about a call whose agent has been switched in between: its pin decides.
async fn a_repeated_webhook_finds_its_pin(world: &World, on_vapi: &Agent, bridged: &Agent) {
    let calls = || world.tandem.vapi.calls().all().len();
    let ask = async |agent: &Agent, sid: &str| {
        let params = incoming(sid, &agent.number, "ringing");
        send(world.twilio(tests::tandem::ORIGIN_URL, "/twilio/voice", &params)).await.1
    };
    let (a, b) = (new_call_sid(), new_call_sid());
    let at_vapi = ask(on_vapi, &a).await;
    assert!(at_vapi.contains("wss://media.vapi.test/") && is_bridged(&ask(bridged, &b).await), "{at_vapi}");
    let before = calls();
    world.tandem.switch(&on_vapi.id, REALTIME).await.expect("it can");
    world.tandem.switch(&bridged.id, VAPI).await.expect("it can");
    assert_eq!(ask(on_vapi, &a).await, at_vapi, "the call has begun at Vapi");
    assert!(is_bridged(&ask(bridged, &b).await), "the call has begun with OpenAI");
    assert_eq!(calls(), before);
    // Even when the edge has sent it to the wrong place.
    let params = incoming(&a, &on_vapi.number, "in-progress");
    let (_, twiml) = send(world.twilio(tests::tandem::ORIGIN_URL, "/twilio/resume", &params)).await;
    assert_eq!(twiml, at_vapi);
    world.tandem.switch(&on_vapi.id, VAPI).await.expect("it can");
}
