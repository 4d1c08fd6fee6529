//! A call that nobody here can take when it begins, by why and by who else there is: the agent's assistant at Vapi, else
//! its fallback number, else an apology. Each is on record with the reason.

use futures_util::future::join_all;
use serde_json::{Value, json};
use tests::openai::Fault;
use tests::tandem::Options;
use tests::twilio::{CallHandle, Callee, Caller, EndReason};
use tests::vapi::Script;

use crate::audio::{self, AGENT, AGENT_NEXT};
use crate::survival::{APOLOGY, PERSON, at_vapi, dialled};
use crate::world::{Agent, LIMIT, OrTell, Spec, World, heard, model};

/// Why not here.
#[derive(Clone, Copy, Debug)]
enum Why {
    OpenAi(Fault),
    TooManyCalls,
}

const REASONS: [(Why, &str); 5] = [
    (Why::OpenAi(Fault::NoHandshake), "openai_unreachable"),
    (Why::OpenAi(Fault::Silent), "openai_unreachable"),
    (Why::OpenAi(Fault::RefuseWith(429, "insufficient_quota")), "openai_quota"),
    (Why::OpenAi(Fault::Refuse(429)), "openai_rate_limited"),
    (Why::TooManyCalls, "at_capacity"),
];

/// Who else there is.
#[derive(Clone, Copy, Debug)]
enum Other {
    Vapi,
    Person,
    Nobody,
}

const OTHERS: [(Other, Spec); 4] = [
    (Other::Vapi, Spec::bridged()),
    // Who has both is not put through to a person.
    (Other::Vapi, Spec::bridged().falling_back_to(PERSON)),
    (Other::Person, Spec::bridged().handing_over("none").falling_back_to(PERSON)),
    (Other::Nobody, Spec::bridged().handing_over("none")),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_refused_here_goes_to_whoever_else_there_is() {
    // One call more than are made at a time, so that only those beside it are too many.
    let env = vec![("MAX_LIVE_CALLS".to_owned(), OTHERS.len().to_string())];
    let world = World::start(Options { openai: model(), origin_env: env, ..Options::default() }).await;
    world.tandem.vapi.set_script(Script::new().say("Hello from Vapi.", audio::voice(AGENT_NEXT, 600)));
    world.tandem.twilio.set_callee(PERSON, Callee::answers_for_ms(500));
    let live = world.agents([Spec::bridged(); OTHERS.len()]).await;
    for (why, reason) in REASONS {
        let agents = world.agents(OTHERS.map(|(_, spec)| spec)).await;
        let mut calls = Vec::new();
        match why {
            Why::OpenAi(fault) => world.tandem.openai.every_connection(Some(fault)),
            Why::TooManyCalls => {
                world.tandem.openai.every_connection(None);
                calls = live.iter().map(|agent| world.call(agent, Caller::new())).collect();
                for call in &calls {
                    heard(call, AGENT, 600).await;
                }
            }
        }
        let cases = OTHERS.iter().zip(&agents).map(|((other, _), agent)| refused(&world, agent, *other, reason));
        join_all(cases).await;
        for (call, agent) in calls.iter().zip(&live) {
            call.hang_up();
            let record = world.over(call, EndReason::CallerHungUp).await;
            assert_eq!((&record["systemType"], &record["pinReason"]), (&json!("openai-realtime"), &Value::Null));
            assert_eq!(world.rejections(agent).await, [""; 0]);
        }
        if matches!(why, Why::TooManyCalls) {
            assert!(world.sessions(&agents[0]).is_empty());
            // There is room again, and a new call begins where its agent is.
            let call = world.call(&agents[0], Caller::new().wait_until_agent_quiet().hang_up());
            let record = world.over(&call, EndReason::CallerHungUp).await;
            assert_eq!((&record["systemType"], &record["pinReason"]), (&json!("openai-realtime"), &Value::Null));
        }
    }
}

async fn refused(world: &World, agent: &Agent, other: Other, reason: &str) {
    let call = world.call(agent, Caller::new());
    match other {
        Other::Vapi => {
            heard(&call, AGENT_NEXT, 600).await;
            call.hang_up();
            at_vapi(world, &call, reason, 600).await;
            let events = world.events(agent).await;
            let moved: Vec<_> = events.iter().filter(|event| event["type"] == "call.moved").collect();
            assert_eq!((moved.len(), &moved[0]["details"]["reason"]), (1, &json!(reason)), "{events:?}");
            assert_eq!(dialled(&call), None, "{}", call.trace_text());
        }
        Other::Person => {
            not_taken(world, agent, &call, reason).await;
            let expected = (PERSON.to_owned(), "completed".to_owned());
            assert_eq!(dialled(&call), Some(expected), "{}", call.trace_text());
        }
        Other::Nobody => {
            not_taken(world, agent, &call, reason).await;
            assert!(call.said().last().is_some_and(|said| said.starts_with(APOLOGY)), "{}", call.trace_text());
        }
    }
    // Only one who waits for something hears it.
    let rings_ms = audio::soft_ms(&call.recording().agent);
    assert_eq!(rings_ms > 500, reason == "openai_unreachable", "{rings_ms} ms of ringing\n{}", call.trace_text());
    let dead_air = call.dead_air_ms();
    println!("PAUSE {reason} at the start, {other:?}: {dead_air} ms of dead air at most");
}

/// The call ends on record as nobody's, with the reason.
async fn not_taken(world: &World, agent: &Agent, call: &CallHandle, reason: &str) {
    assert_eq!(call.wait_ended(LIMIT).await.or_tell(call, "it goes on"), EndReason::HungUp, "{}", call.trace_text());
    let is_over = |record: &Value| record["status"] == "ended";
    let record = world.tandem.call_when(call.sid().as_str(), is_over).await.or_tell(call, "the record");
    let told = (&record["systemType"], &record["pinReason"], &record["endReason"]);
    assert_eq!(told, (&json!("openai-realtime"), &json!(reason), &json!("agent_unavailable")));
    assert_eq!(world.rejections(agent).await, [reason]);
}
