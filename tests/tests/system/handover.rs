//! Calls that are handed to Vapi, and what becomes of them when Vapi does not take them.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use tests::tandem::EDGE_URL;
use tests::twilio::{CallHandle, Callee, Caller, EndReason, Purpose, What};
use tests::vapi::{Fault, Script};

use crate::audio::{self, AGENT, AGENT_NEXT, CALLER};
use crate::world::{Agent, LIMIT, OrTell, Spec, World, incoming, send};

const APOLOGY: &str = "We are sorry, we cannot take your call right now.";
const PERSON: &str = "+15550300001";

#[tokio::test(flavor = "multi_thread")]
async fn vapi_takes_the_call_or_the_caller_is_told() {
    let world = World::default().await;
    world.tandem.vapi.set_script(script());
    let bypass = Spec::on_vapi("bypass");
    let [bypassed, repeated, redirected] = world.agents([bypass, bypass, Spec::on_vapi("redirect")]).await;
    let unlucky = world.agents([bypass; 4]).await;
    let [falling_back] = world.agents([bypass.falling_back_to(PERSON)]).await;
    tokio::join!(
        a_conversation(&world, &bypassed, true),
        a_conversation(&world, &redirected, false),
        repeated_by_twilio(&world, &repeated),
    );

    // Each of the next requests meets one of them; whichever it is, the caller notices the same.
    for fault in [
        Fault::ServerError,
        Fault::RateLimited { retry_after_s: 1 },
        Fault::ConcurrencyBlocked,
        Fault::OverConcurrencyLimit,
        Fault::ServerError,
    ] {
        world.tandem.vapi.faults.next(1, fault);
    }
    let told = unlucky.iter().map(|agent| vapi_is_unavailable(&world, agent));
    tokio::join!(join_all(told), a_person_takes_over(&world, &falling_back));
    // Nothing of it lasts.
    a_conversation(&world, &unlucky[0], true).await;
    world.tandem.vapi.faults.next(1, Fault::Slow(Duration::from_secs(5)));
    vapi_is_waited_for(&world, &unlucky[1]).await;
}

fn script() -> Script {
    Script::new()
        .say("Hello from Vapi.", audio::voice(AGENT, 600))
        .hear("A table for two.")
        .say("It is booked.", audio::voice(AGENT_NEXT, 500))
}

/// Both sides hear each other, and Vapi's messages fill the record.
async fn a_conversation(world: &World, agent: &Agent, by_bypass: bool) {
    let created_before = created(world, agent);
    let caller =
        Caller::new().wait_until_agent_quiet().say(audio::voice(CALLER, 700)).wait_until_agent_quiet().hang_up();
    let call = world.call(agent, caller);
    let record = world.over(&call, EndReason::CallerHungUp).await;
    let heard = call.recording().agent;
    assert_eq!(audio::only(AGENT, &heard), audio::voice(AGENT, 600), "{}", call.trace_text());
    assert_eq!(audio::only(AGENT_NEXT, &heard), audio::voice(AGENT_NEXT, 500), "{}", call.trace_text());

    let at_vapi = world.tandem.vapi.calls().all();
    let mut its = at_vapi.iter().filter(|at_vapi| at_vapi.facts.call_sid.as_deref() == Some(call.sid().as_str()));
    let (Some(at_vapi), None) = (its.next(), its.next()) else { panic!("one call at Vapi for {}", call.sid()) };
    assert_eq!(audio::only(CALLER, &at_vapi.heard), audio::voice(CALLER, 700), "{}", call.trace_text());
    let created = created(world, agent) - created_before;
    assert_eq!(created, usize::from(by_bypass), "the bypass creates a call, the redirect does not");

    assert_eq!(record["systemType"], "vapi");
    assert_eq!(record["vapiCallId"], at_vapi.facts.call_id);
    assert_eq!(record["agentId"], agent.id);
    assert_eq!(record["endReason"], "caller_hung_up");
    let lines: Vec<_> =
        record["transcript"].as_array().expect("a list").iter().map(|line| line["text"].clone()).collect();
    assert_eq!(lines, ["Hello from Vapi.", "A table for two.", "It is booked."]);
    assert_eq!(record["endDetail"], "customer-ended-call");
    let dollars = record["usage"]["costUsd"].as_f64().expect("Vapi tells the cost");
    let microusd = record["cost"]["microusd"].as_f64().expect("the cost is known");
    assert!(dollars > 0.0 && (microusd - dollars * 1e6).abs() < 1.0 && record["cost"]["source"] == "vapi", "{record}");
    assert!(record["recordings"][0]["url"].as_str().is_some_and(|url| url.contains("stereo")), "{record}");

    let deliveries = world.tandem.vapi.deliveries().all();
    let its: Vec<_> =
        deliveries.iter().filter(|delivery| delivery.call_id.as_ref() == Some(&at_vapi.facts.call_id)).collect();
    assert!(its.iter().any(|delivery| delivery.message_type == "end-of-call-report"));
    for delivery in its {
        assert!(delivery.answer.is_none() || delivery.accepted(), "{:?} {:?}", delivery.message_type, delivery.answer);
    }
}

/// Twilio repeats a webhook whose answer it did not get: the answer is the same, and Vapi has one call.
async fn repeated_by_twilio(world: &World, agent: &Agent) {
    let call = world.call(agent, Caller::new());
    let is_stream = |what: &What| matches!(what, What::StreamStarted { .. });
    call.wait_for(LIMIT, is_stream).await.or_tell(&call, "Vapi does not take the call");
    let stream = call.stream().expect("there is one");
    for status in ["ringing", "in-progress"] {
        let params = incoming(call.sid().as_str(), &agent.number, status);
        let (code, twiml) = send(world.twilio(EDGE_URL, "/twilio/voice", &params)).await;
        assert_eq!(code, 200, "{twiml}");
        assert!(twiml.contains(&stream.url), "{twiml}");
    }
    assert_eq!(created(world, agent), 1);
    call.hang_up();
    world.over(&call, EndReason::CallerHungUp).await;
}

/// The caller is asked for patience, and then has the one call that Vapi made meanwhile.
async fn vapi_is_waited_for(world: &World, agent: &Agent) {
    let created_before = created(world, agent);
    let call = world.call(agent, Caller::new());
    let is_stream = |what: &What| matches!(what, What::StreamStarted { .. });
    call.wait_for(LIMIT, is_stream).await.or_tell(&call, "Vapi does not take the call");
    assert_eq!(call.said().first().map(String::as_str), Some("One moment, please."), "{}", call.trace_text());
    assert_eq!(created(world, agent) - created_before, 1);
    let url = call.stream().expect("there is one").url;
    call.hang_up();
    let record = world.over(&call, EndReason::CallerHungUp).await;
    assert!(url.contains(record["vapiCallId"].as_str().expect("it is known")), "{url}: {record}");
}

/// How many calls the product has created at Vapi for an agent.
fn created(world: &World, agent: &Agent) -> usize {
    let requests = world.tandem.vapi.requests().all();
    let is_its = |request: &&tests::vapi::Request| {
        (request.method.as_str(), request.path.as_str()) == ("POST", "/call")
            && request.body["assistantId"] == agent.assistant.as_str()
            && request.status == 201
    };
    requests.iter().filter(is_its).count()
}

async fn vapi_is_unavailable(world: &World, agent: &Agent) {
    let call = world.call(agent, Caller::new());
    let record = unavailable(world, &call).await;
    assert!(call.said()[0].starts_with(APOLOGY), "{}", call.trace_text());
    assert_eq!(record["endReason"], "vapi_unavailable");
    assert_eq!(world.rejections(agent).await, ["vapi_unavailable"]);
    // One webhook, one answer: nobody was held or sent in circles.
    let voice = |what: &What| matches!(what, What::Webhook { purpose: Purpose::Voice, .. });
    let asked = call.trace().iter().filter(|entry| voice(&entry.what)).count();
    assert_eq!((asked, call.verbs()), (1, vec!["Say".to_owned(), "Hangup".to_owned()]), "{}", call.trace_text());
}

async fn a_person_takes_over(world: &World, agent: &Agent) {
    world.tandem.twilio.set_callee(PERSON, Callee::answers_for_ms(500));
    let call = world.call(agent, Caller::new());
    unavailable(world, &call).await;
    let dialled = call.trace().into_iter().find_map(|entry| match entry.what {
        What::Dialled { number, status } => Some((number, status)),
        _ => None,
    });
    assert_eq!(dialled, Some((PERSON.to_owned(), "completed".to_owned())), "{}", call.trace_text());
    assert_eq!(world.rejections(agent).await, ["vapi_unavailable"]);
}

async fn unavailable(world: &World, call: &CallHandle) -> Value {
    let reason = call.wait_ended(LIMIT).await.or_tell(call, "the call does not end");
    assert_eq!(reason, EndReason::HungUp, "{}", call.trace_text());
    let is_over = |record: &Value| record["status"] == "ended";
    world.tandem.call_when(call.sid().as_str(), is_over).await.or_tell(call, "the record")
}
