//! Sessions at OpenAI that end before the call does: lost, stalled, over their time, refused. The call goes on in the
//! same stream, or elsewhere.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::openai::{ApiError, Closed, Fault, RealtimeOptions, Reply, Session, SessionHandle};
use tests::tandem::Options;
use tests::twilio::{Caller, EndReason};
use tests::vapi::Script;

use crate::audio::{self, AGENT, AGENT_LAST, AGENT_LONG, AGENT_NEXT, CALLER};
use crate::survival::{answers_in_mid_sentence, at_vapi, report_silence, roles_and_texts, waits_ms};
use crate::tools::add_tool;
use crate::world::{Agent, LIMIT, Spec, World, heard, model};

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_lost_is_replaced_within_the_stream() {
    let world = World::default().await;
    let [dropped, closed, expired] = world.agents([Spec::listening(); 3]).await;
    mid_sentence(&world, &dropped, "socket dropped", SessionHandle::drop_connection).await;
    mid_sentence(&world, &closed, "socket closed", |session| session.close(1011, "going away")).await;
    mid_sentence(&world, &expired, "session expired", SessionHandle::expire).await;
    let [stalled, refused_first, speaking, working] = world.agents([Spec::listening(); 4]).await;
    mid_sentence(&world, &stalled, "socket stalled", SessionHandle::stall).await;
    let refuse_twice = |session: &SessionHandle| {
        for _ in 0..2 {
            world.tandem.openai.next_connection(Fault::Refuse(503));
        }
        session.drop_connection();
    };
    mid_sentence(&world, &refused_first, "socket dropped, two attempts refused", refuse_twice).await;
    the_caller_speaks_into_it(&world, &speaking).await;
    a_tool_runs_through_it(&world, &working).await;
}

/// The agent is speaking; what the caller does not get of it comes from the next session.
async fn mid_sentence(world: &World, agent: &Agent, what: &str, end: impl Fn(&SessionHandle)) {
    let words = audio::words(40);
    // It stands still half-way, so that it is being spoken when the session ends, however slow the machine is.
    let answer = Reply::speech(audio::clip(AGENT_LONG, 8_000, &words)).pausing(4_000, LIMIT);
    let call = answers_in_mid_sentence(world, agent, answer).await;
    let first = world.session(agent, 0).await;
    world.tandem.openai.next_session_says(vec![Reply::speech(audio::clip(AGENT_LAST, 500, "As I said."))]);
    let lost_ms = call.began_at().elapsed();
    end(&first);
    heard(&call, AGENT_LAST, 500).await;
    report_silence(what, &call, lost_ms);
    let second = world.session(agent, 1).await;
    let past = roles_and_texts(&second);
    assert_eq!(past[0], ("user".to_owned(), "First words.".to_owned()), "{what}");
    assert!(words.starts_with(&past[1].1) && past[1].1.len() < words.len(), "{what}: {past:?}");
    // The conversation goes on as any other.
    second.push_reply(Reply::speech(audio::clip(AGENT_NEXT, 400, "You are welcome.")));
    call.then(Caller::new().wait_until_agent_quiet().say(audio::voice(CALLER, 400)).wait_until_agent_quiet().hang_up());
    let record = world.over(&call, EndReason::CallerHungUp).await;
    let recording = call.recording().agent;
    assert_eq!(audio::only(AGENT_LAST, &recording).len(), 500 * 8, "{what}\n{}", call.trace_text());
    assert_eq!(audio::only(AGENT_NEXT, &recording).len(), 400 * 8, "{what}\n{}", call.trace_text());
    assert_eq!((&record["resumes"], call.streams().len()), (&Value::from(0), 1), "{what}");
    second.read(|session| assert_eq!(session.record().errors, [], "{what}"));
}

/// The caller is speaking: the next session hears all of it and answers.
async fn the_caller_speaks_into_it(world: &World, agent: &Agent) {
    let call = world.call(agent, Caller::new());
    let first = world.session(agent, 0).await;
    call.then(Caller::new().wait_ms(300).say(audio::voice(CALLER, 3_000)).wait_until_agent_quiet().hang_up());
    let in_mid_sentence = |session: &Session| {
        let mut sent = session.record().sent.iter();
        session.heard_ms() >= 1_500 && sent.any(|sent| sent.kind.ends_with("speech_started"))
    };
    first.wait_for(in_mid_sentence, LIMIT).await.expect("the caller is heard");
    first.drop_connection();
    world.over(&call, EndReason::CallerHungUp).await;
    let second = world.session(agent, 1).await;
    second.read(|session| {
        let heard: u64 = session.memory().iter().filter(|item| item.role == "user").map(|item| item.audio_ms).sum();
        // The words, the padding before them and the silence that ends them.
        assert!((3_000..4_500).contains(&heard), "{heard} ms of 3000 ms");
        assert_eq!(session.record().errors, []);
    });
    assert_eq!(audio::only(AGENT, &call.recording().agent).len(), 600 * 8, "answered once\n{}", call.trace_text());
}

/// A tool is running: its result reaches the session that the call has by then.
async fn a_tool_runs_through_it(world: &World, agent: &Agent) {
    add_tool(world, agent, "slow", &world.tandem.tools.url(), 8_000).await;
    let call = world.call(agent, Caller::new());
    let first = world.session(agent, 0).await;
    first.push_reply(Reply::tool_call("slow", &json!({ "ms": 1500 })));
    call.then(Caller::new().wait_ms(300).say(audio::voice(CALLER, 400)));
    let called = |session: &Session| !session.record().responses.is_empty();
    first.wait_for(called, LIMIT).await.expect("the tool is called");
    world.tandem.openai.next_session_says(vec![Reply::speech(audio::clip(AGENT_LAST, 500, "It is done."))]);
    first.drop_connection();
    let second = world.session(agent, 1).await;
    heard(&call, AGENT_LAST, 500).await;
    call.hang_up();
    world.over(&call, EndReason::CallerHungUp).await;
    second.read(|session| {
        let notes: Vec<String> =
            session.memory().into_iter().filter(|item| item.role == "system").map(|item| item.text).collect();
        assert!(notes.iter().any(|note| note.contains("slow") && note.contains("will follow")), "{notes:?}");
        assert!(notes.iter().any(|note| note.contains("slow") && note.contains("Its result: ")), "{notes:?}");
        assert_eq!(session.record().errors, []);
    });
}

/// The origin's own limit is the shorter one, and a quiet moment comes before it.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_changes_its_session_when_nobody_speaks() {
    let env = vec![("OPENAI_SESSION_SECONDS".to_owned(), "14".to_owned())];
    let world = World::start(Options { openai: model(), origin_env: env, ..Options::default() }).await;
    let [agent] = &world.agents([Spec::bridged()]).await;
    let call = world.call(agent, Caller::new().wait_until_agent_quiet().say(audio::voice(CALLER, 500)));
    let first = world.session(agent, 0).await;
    let second = world.session(agent, 1).await;
    second.push_reply(Reply::speech(audio::clip(AGENT_LAST, 500, "Still here.")));
    let left = |session: &Session| session.record().closed.is_some();
    first.wait_for(left, LIMIT).await.expect("the first session is left");
    first.read(|session| {
        assert!(
            matches!(session.record().closed, Some(Closed::ByClient(1000 | 1005))),
            "{:?}",
            session.record().closed
        );
    });
    // At once: the worst moment for the caller.
    call.then(Caller::new().say(audio::voice(CALLER, 500)).wait_until_agent_quiet().hang_up());
    let record = world.over(&call, EndReason::CallerHungUp).await;
    let past = [("assistant", "At your service."), ("user", "First words."), ("assistant", "At your service.")];
    assert_eq!(roles_and_texts(&second), past.map(|(role, text)| (role.to_owned(), text.to_owned())));
    assert_eq!(audio::only(AGENT_LAST, &call.recording().agent).len(), 500 * 8, "{}", call.trace_text());
    assert_eq!((&record["resumes"], call.streams().len()), (&Value::from(0), 1));
    let [before, after] = waits_ms(&call)[..] else { panic!("two turns\n{}", call.trace_text()) };
    println!("PAUSE roll-over in a quiet moment, longer wait for the answer: {} ms", after.saturating_sub(before));
    println!("an answer takes {before} ms before the roll-over and {after} ms after it");
}

/// OpenAI's limit is the shorter one, and no moment before it is quiet.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_outlasts_the_longest_session() {
    let openai = RealtimeOptions { longest_session: Duration::from_secs(14), ..model() };
    let world = World::start(Options { openai, ..Options::default() }).await;
    let [agent] = world.agents([Spec::listening()]).await;
    moves_while_the_caller_speaks(&world, &agent).await;
}

/// No moment is quiet until the last: every word is heard by the session that answers.
async fn moves_while_the_caller_speaks(world: &World, agent: &Agent) {
    let call = world.call(agent, Caller::new());
    world.session(agent, 0).await;
    call.then(Caller::new().wait_ms(8_000).say(audio::voice(CALLER, 8_000)).wait_until_agent_quiet().hang_up());
    world.over(&call, EndReason::CallerHungUp).await;
    let second = world.session(agent, 1).await;
    second.read(|session| {
        let heard: u64 = session.memory().iter().filter(|item| item.role == "user").map(|item| item.audio_ms).sum();
        assert!((8_000..9_500).contains(&heard), "{heard} ms of 8000 ms");
        assert_eq!(session.record().errors, []);
    });
    assert_eq!(audio::only(AGENT, &call.recording().agent).len(), 600 * 8, "answered once\n{}", call.trace_text());
    assert_eq!(call.streams().len(), 1, "{}", call.trace_text());
    println!("PAUSE roll-over while the caller speaks, wait for the answer: {} ms", waits_ms(&call)[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_openai_refuses_and_a_lost_account_lead_to_vapi() {
    let world = World::default().await;
    world.tandem.vapi.set_script(Script::new().say("Hello from Vapi.", audio::voice(AGENT_NEXT, 600)));
    let [key, settings, mid_call] = world.agents([Spec::bridged(); 3]).await;
    for (agent, fault, reason) in
        [(&key, Fault::Refuse(401), "openai_refused"), (&settings, Fault::RefuseUpdates, "openai_settings_refused")]
    {
        world.tandem.openai.every_connection(Some(fault));
        let call = world.call(agent, Caller::new().wait_until_agent_quiet().hang_up());
        at_vapi(&world, &call, reason, 600).await;
        assert_eq!(call.streams().len(), 2, "ours and Vapi's\n{}", call.trace_text());
    }
    world.tandem.openai.every_connection(None);
    out_of_quota_in_mid_call(&world, &mid_call).await;
}

async fn out_of_quota_in_mid_call(world: &World, agent: &Agent) {
    let call = world.call(agent, Caller::new());
    heard(&call, AGENT, 600).await;
    let before = Instant::now();
    let error = ApiError::request("insufficient_quota", "You exceeded your current quota.");
    world.session(agent, 0).await.send_error(error);
    heard(&call, AGENT_NEXT, 100).await;
    println!("PAUSE out of quota in mid-call, to Vapi's first word: {} ms", before.elapsed().as_millis());
    call.then(Caller::new().wait_until_agent_quiet().hang_up());
    at_vapi(world, &call, "openai_quota", 600).await;
}
