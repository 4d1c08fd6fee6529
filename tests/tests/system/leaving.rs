//! Calls that leave an origin: one that stops, one that died with another behind the same name, one that has as many
//! calls as it may.

use std::time::{Duration, Instant};

use serde_json::Value;
use tests::openai::Reply;
use tests::tandem::Options;
use tests::twilio::{CallHandle, Callee, Caller, EndReason, What};
use tests::vapi::Script;

use crate::audio::{self, AGENT, AGENT_LAST, AGENT_LONG, AGENT_NEXT, CALLER};
use crate::survival::{APOLOGY, PERSON, answers_in_mid_sentence, dialled, report_pause, roles_and_texts};
use crate::world::{LIMIT, OrTell, Spec, World, heard, model, send};

/// How long calls may go on after the request to stop, in seconds.
const DRAIN_S: u64 = 8;

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_origin_lets_calls_finish_and_hands_over_the_rest() {
    let env = vec![("DRAIN_TIMEOUT_SECONDS".to_owned(), DRAIN_S.to_string())];
    let world = World::start(Options { openai: model(), origin_env: env, ..Options::default() }).await;
    let [short, long, late] = world.agents([Spec::bridged(), Spec::listening(), Spec::bridged()]).await;
    let other = world.tandem.origin.start_another().await.expect("another origin starts");

    let finishing = world.call(&short, Caller::new().wait_until_agent_quiet().wait_ms(1000).hang_up());
    heard(&finishing, AGENT, 300).await;
    // Speaks on and on, past the limit.
    let words = audio::words(80);
    let staying = answers_in_mid_sentence(&world, &long, Reply::speech(audio::clip(AGENT_LONG, 20_000, &words))).await;

    world.tandem.origin.terminate().expect("it can be asked to stop");
    let ready = world.client.get(world.tandem.api("/readyz"));
    until(|| async { send(ready.try_clone().expect("no body")).await.0 == 503 }).await;
    // A load balancer has noticed.
    world.tandem.lead_to(&other).await.expect("the names can be moved");
    world.tandem.openai.next_session_says(vec![Reply::speech(audio::clip(AGENT_NEXT, 600, "From another one."))]);
    let new = world.call(&late, Caller::new().wait_until_agent_quiet().hang_up());
    let record = world.over(&new, EndReason::CallerHungUp).await;
    assert_eq!((audio::only(AGENT_NEXT, &new.recording().agent).len(), &record["resumes"]), (600 * 8, &Value::from(0)));
    let record = world.over(&finishing, EndReason::CallerHungUp).await;
    assert_eq!((&record["endReason"], &record["resumes"]), (&Value::from("caller_hung_up"), &Value::from(0)));

    world.tandem.openai.next_session_says(vec![Reply::speech(audio::clip(AGENT_LAST, 500, "As I said."))]);
    let status = tokio::time::timeout(LIMIT, world.tandem.origin.ended()).await.expect("it ends").expect("it ran");
    let left = Instant::now();
    heard(&staying, AGENT_LAST, 100).await;
    report_pause("SIGTERM, drain limit, another origin", left);
    assert!(status.success(), "{status}\n{}", world.tandem.origin.log_tail());
    for line in ["Stopping: not ready", "handed over", "Stopped"] {
        assert!(world.tandem.origin.log().contains(line), "{line}\n{}", world.tandem.origin.log_tail());
    }
    staying.hang_up();
    let second = world.session(&long, 1).await;
    let past = roles_and_texts(&second);
    assert_eq!(past[0], ("user".to_owned(), "First words.".to_owned()));
    assert!(words.starts_with(&past[1].1) && past[1].1.len() < words.len(), "what was heard: {past:?}");
    assert_eq!(staying.wait_ended(LIMIT).await.or_tell(&staying, "it does not end"), EndReason::CallerHungUp);
}

async fn until<F: Future<Output = bool>>(is_so: impl Fn() -> F) {
    let deadline = Instant::now() + LIMIT;
    while !is_so().await {
        assert!(Instant::now() < deadline, "it does not come true");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_call_too_many_is_handed_on() {
    let env = vec![("MAX_LIVE_CALLS".to_owned(), "1".to_owned())];
    let world = World::start(Options { openai: model(), origin_env: env, ..Options::default() }).await;
    world.tandem.vapi.set_script(Script::new().say("Hello from Vapi.", audio::voice(AGENT_NEXT, 600)));
    let bridged = Spec::bridged();
    let [first, second, third, fourth] = world
        .agents([bridged, bridged, bridged.handing_over("none").falling_back_to(PERSON), bridged.handing_over("none")])
        .await;
    let live = world.call(&first, Caller::new());
    heard(&live, AGENT, 600).await;

    let call = world.call(&second, Caller::new().wait_until_agent_quiet().hang_up());
    let record = world.over(&call, EndReason::CallerHungUp).await;
    assert_eq!(audio::only(AGENT_NEXT, &call.recording().agent).len(), 600 * 8, "{}", call.trace_text());
    assert_eq!((&record["systemType"], &record["pinReason"]), (&Value::from("vapi"), &Value::from("at_capacity")));
    assert!(world.sessions(&second).is_empty());
    let moved: Vec<_> = world.events(&second).await.into_iter().filter(|event| event["type"] == "call.moved").collect();
    assert_eq!((moved.len(), &moved[0]["details"]["reason"]), (1, &Value::from("at_capacity")));

    world.tandem.twilio.set_callee(PERSON, Callee::answers_for_ms(500));
    let call = world.call(&third, Caller::new());
    assert_eq!(call.wait_ended(LIMIT).await.or_tell(&call, "it goes on"), EndReason::HungUp);
    assert_eq!(dialled(&call), Some((PERSON.to_owned(), "completed".to_owned())), "{}", call.trace_text());
    assert_eq!(not_taken(&world, &call).await, "at_capacity");

    let call = world.call(&fourth, Caller::new());
    assert_eq!(call.wait_ended(LIMIT).await.or_tell(&call, "it goes on"), EndReason::HungUp);
    assert!(call.said().last().is_some_and(|said| said.starts_with(APOLOGY)), "{}", call.trace_text());
    assert_eq!(not_taken(&world, &call).await, "at_capacity");
    assert_eq!(world.rejections(&fourth).await, ["at_capacity"]);

    live.hang_up();
    world.over(&live, EndReason::CallerHungUp).await;
    let again = world.call(&second, Caller::new().wait_until_agent_quiet().hang_up());
    let record = world.over(&again, EndReason::CallerHungUp).await;
    assert_eq!((&record["systemType"], &record["pinReason"]), (&Value::from("openai-realtime"), &Value::Null));
}

/// Why nobody took a call.
async fn not_taken(world: &World, call: &CallHandle) -> Value {
    let is_over = |record: &Value| record["status"] == "ended";
    let record = world.tandem.call_when(call.sid().as_str(), is_over).await.or_tell(call, "the record");
    assert_eq!(record["endReason"], "agent_unavailable");
    record["pinReason"].clone()
}

/// The machine dies in mid-sentence, and another one has its names.
#[tokio::test(flavor = "multi_thread")]
async fn another_origin_takes_up_the_calls_of_one_that_died() {
    let mut world = World::default().await;
    let [agent] = world.agents([Spec::listening()]).await;
    let other = world.tandem.origin.start_another().await.expect("another origin starts");
    let words = audio::words(60);
    let call = answers_in_mid_sentence(&world, &agent, Reply::speech(audio::clip(AGENT_LONG, 15_000, &words))).await;
    world.tandem.openai.next_session_says(vec![Reply::speech(audio::clip(AGENT_LAST, 500, "Of course."))]);
    world.tandem.lead_to(&other).await.expect("the names can be moved");
    world.tandem.origin.kill().await.expect("it can be killed");
    let died = Instant::now();
    heard(&call, AGENT_LAST, 100).await;
    report_pause("kill -9, another origin", died);
    let second = world.session(&agent, 1).await;
    assert_eq!(roles_and_texts(&second)[0], ("user".to_owned(), "First words.".to_owned()));
    call.then(Caller::new().say(audio::voice(CALLER, 400)).wait_until_agent_quiet().hang_up());
    assert_eq!(call.wait_ended(LIMIT).await.or_tell(&call, "it does not end"), EndReason::CallerHungUp);
    assert!(!call.trace().iter().any(|entry| matches!(&entry.what, What::Verb { name, .. } if name == "Say")));
}
