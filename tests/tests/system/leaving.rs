//! Calls that leave an origin: one that stops, and one that dies, with another behind the same name or started again.

use std::time::{Duration, Instant};

use serde_json::Value;
use tests::openai::Reply;
use tests::tandem::Options;
use tests::twilio::{CallHandle, Caller, EndReason, Purpose, TraceEntry, What};

use crate::audio::{self, AGENT, AGENT_LAST, AGENT_LONG, AGENT_NEXT, CALLER};
use crate::survival::{answers_in_mid_sentence, report_pause, roles_and_texts};
use crate::world::{LIMIT, OrTell, Spec, World, heard, model, send, started};

/// How long calls may go on after the request to stop, in seconds.
const DRAIN_S: u64 = 12;

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_origin_lets_calls_finish_and_hands_over_the_rest() {
    let env = vec![("DRAIN_TIMEOUT_SECONDS".to_owned(), DRAIN_S.to_string())];
    let world = World::start(Options { openai: model(), origin_env: env, ..Options::default() }).await;
    let [short, long, late, quiet] =
        world.agents([Spec::bridged(), Spec::listening(), Spec::bridged(), Spec::bridged()]).await;
    let other = world.tandem.origin.start_another().await.expect("another origin starts");

    let finishing = world.call(&short, Caller::new().wait_until_agent_quiet().wait_ms(1000).hang_up());
    heard(&finishing, AGENT, 300).await;
    // Speaks on and on, past the limit.
    let words = audio::words(80);
    let silent = world.call(&quiet, Caller::new().wait_until_agent_quiet());
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

    // Nobody speaks: it need not stay until the limit, and nobody has to say anything.
    let second = world.session(&quiet, 1).await;
    assert!(world.tandem.origin.id().is_some(), "the limit is not reached");
    second.push_reply(Reply::speech(audio::clip(AGENT_NEXT, 600, "Of course.")));
    silent.then(Caller::new().say(audio::voice(CALLER, 500)).wait_until_agent_quiet().hang_up());
    // The origin may have gone meanwhile, so its record is not asked for.
    assert_eq!(silent.wait_ended(LIMIT).await.or_tell(&silent, "it does not end"), EndReason::CallerHungUp);
    assert_eq!(silent.streams().len(), 2, "{}", silent.trace_text());
    let past = [("assistant".to_owned(), "At your service.".to_owned())];
    assert_eq!(roles_and_texts(&second), past);
    second.read(|session| assert!(session.record().received("response.create").is_empty(), "nobody was cut off"));
    let between = between_streams_ms(&silent);
    println!("PAUSE SIGTERM, handed over at a quiet moment: {between} ms without a stream");

    world.tandem.openai.next_session_says(vec![Reply::speech(audio::clip(AGENT_LAST, 500, "As I said."))]);
    let status = tokio::time::timeout(LIMIT, world.tandem.origin.ended()).await.expect("it ends").expect("it ran");
    let left = Instant::now();
    heard(&staying, AGENT_LAST, 100).await;
    report_pause("SIGTERM, drain limit, another origin", left);
    assert!(status.success(), "{status}\n{}", world.tandem.origin.log_tail());
    let story = world.tandem.origin.log();
    let progress = ["Stopping: not ready", "as they fall silent", "Draining", "handed over as they are", "Stopped"];
    let told: Vec<_> = progress.map(|line| story.find(line)).into();
    assert!(told.is_sorted() && told[0].is_some(), "{told:?}\n{}", world.tandem.origin.log_tail());
    staying.hang_up();
    let second = world.session(&long, 1).await;
    let past = roles_and_texts(&second);
    assert_eq!(past[0], ("user".to_owned(), "First words.".to_owned()));
    assert!(words.starts_with(&past[1].1) && past[1].1.len() < words.len(), "what was heard: {past:?}");
    assert_eq!(staying.wait_ended(LIMIT).await.or_tell(&staying, "it does not end"), EndReason::CallerHungUp);
}

/// How long the call had no stream between its first and its second.
fn between_streams_ms(call: &CallHandle) -> u64 {
    let trace = call.trace();
    let stopped = trace.iter().find(|entry| matches!(entry.what, What::StreamStopped { .. })).expect("one has ended");
    let again = trace.iter().rev().find(|entry| started(&entry.what)).expect("one has begun");
    again.at_ms - stopped.at_ms
}

async fn until<F: Future<Output = bool>>(is_so: impl Fn() -> F) {
    let deadline = Instant::now() + LIMIT;
    while !is_so().await {
        assert!(Instant::now() < deadline, "it does not come true");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
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

/// The only machine dies in mid-sentence and is back after a while: whoever asks then, and they ask every second, is
/// answered at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_is_back_as_soon_as_the_origin_is() {
    let mut world = World::default().await;
    let [agent] = world.agents([Spec::listening()]).await;
    let words = audio::words(60);
    let call = answers_in_mid_sentence(&world, &agent, Reply::speech(audio::clip(AGENT_LONG, 15_000, &words))).await;
    world.tandem.openai.next_session_says(vec![Reply::speech(audio::clip(AGENT_LAST, 500, "As I said."))]);
    world.tandem.origin.kill().await.expect("it can be killed");
    let died = Instant::now();
    let asks_again = |what: &What| is_resume(what) && matches!(what, What::Webhook { url, .. } if url.ends_with("=4"));
    call.wait_for(LIMIT, asks_again).await.or_tell(&call, "the caller is not held");
    let starts = Instant::now();
    world.tandem.origin.start_again().await.expect("it starts again");
    let reachable = Instant::now();
    heard(&call, AGENT_LAST, 100).await;
    report_pause("kill -9, the same origin again, since its death", died);
    report_pause("kill -9, the same origin again, since it is reachable", reachable);
    println!("the origin takes {} ms to start", (reachable - starts).as_millis());

    let reached_ms = u64::try_from(reachable.duration_since(call.began_at()).as_millis()).expect("it is not long");
    let trace = call.trace();
    let back_ms = trace.iter().rev().find(|entry| started(&entry.what)).expect("there is a stream").at_ms;
    println!("the stream is back {} ms after the origin is reachable", back_ms.saturating_sub(reached_ms));
    // An entry is made when the answer has come.
    let asked_since = |entry: &&TraceEntry| matches!(entry.what, What::Webhook { took_us, .. } if is_resume(&entry.what) && entry.at_ms > reached_ms + took_us / 1000);
    assert!(trace.iter().filter(asked_since).count() <= 1, "held although the origin is there\n{}", call.trace_text());
    let pauses = trace.iter().filter_map(|entry| match &entry.what {
        What::Verb { name, detail } if name == "Pause" => Some(detail.clone()),
        _ => None,
    });
    assert!(pauses.clone().count() >= 2 && pauses.clone().all(|detail| detail == "1 s"), "{}", call.trace_text());
    call.hang_up();
    let record = world.over(&call, EndReason::CallerHungUp).await;
    assert_eq!(record["resumes"], 1);
    assert_eq!(roles_and_texts(&world.session(&agent, 1).await)[0], ("user".to_owned(), "First words.".to_owned()));
}

fn is_resume(what: &What) -> bool {
    matches!(what, What::Webhook { purpose: Purpose::Redirect, url, .. } if url.contains("/twilio/resume"))
}
