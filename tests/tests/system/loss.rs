//! What a call outlives: OpenAI gone, refusing, silent or failing, and the origin killed in mid-call.

use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tests::openai::{ApiError, Fault, Reply, Session, SessionHandle};
use tests::twilio::{CallHandle, Caller, EndReason, Purpose, What};

use crate::audio::{self, AGENT, AGENT_LAST, AGENT_LONG, AGENT_NEXT, CALLER};
use crate::survival::{APOLOGY, roles_and_texts as replayed};
use crate::world::{Agent, LIMIT, OrTell, Spec, World, heard};

#[tokio::test(flavor = "multi_thread")]
async fn a_call_outlives_its_session() {
    let world = World::default().await;
    let [dropped, owed, harmless, failing, spoiled] =
        world.agents([Spec::bridged(), Spec::listening(), Spec::bridged(), Spec::listening(), Spec::listening()]).await;
    tokio::join!(
        dropped_in_mid_call(&world, &dropped),
        dropped_before_the_answer(&world, &owed),
        harmless_errors(&world, &harmless),
        one_failed_response(&world, &failing),
        every_response_fails(&world, &spoiled),
    );

    let [refused, unreachable] = world.agents([Spec::bridged(); 2]).await;
    fault_at_the_start(&world, &refused, Fault::Refuse(503)).await;
    fault_at_the_start(&world, &unreachable, Fault::NoHandshake).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_ever() {
    let world = World::default().await;
    let [silent, never] = world.agents([Spec::bridged(), Spec::bridged().handing_over("none")]).await;
    fault_at_the_start(&world, &silent, Fault::Silent).await;
    never_a_session(&world, &never).await;
}

/// A caller who has heard the greeting, asked, and been answered.
async fn after_two_turns(world: &World, agent: &Agent) -> (CallHandle, SessionHandle) {
    let call = world.call(agent, Caller::new().wait_until_agent_quiet());
    let session = world.session(agent, 0).await;
    responses(&session, 1).await;
    session.push_reply(Reply::speech(audio::clip(AGENT_NEXT, 500, "We open at nine.")));
    call.then(Caller::new().say(audio::voice(CALLER, 500)).wait_until_agent_quiet());
    responses(&session, 2).await;
    let is_told = |record: &Value| record["transcript"][2]["heardMs"] == 500;
    world.tandem.call_when(call.sid().as_str(), is_told).await.or_tell(&call, "what was heard is not on record");
    (call, session)
}

async fn responses(session: &SessionHandle, count: usize) {
    let done = |session: &Session| session.record().responses.len() >= count;
    session.wait_for(done, LIMIT).await.expect("a response is over");
}

fn turns(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(role, text)| ((*role).to_owned(), (*text).to_owned())).collect()
}

/// Nobody is asked to greet, and the model is told that the call goes on.
fn assert_no_second_greeting(session: &SessionHandle) {
    session.read(|session| {
        for event in session.record().received("response.create") {
            assert!(!event.to_string().contains("Greet"), "{event}");
        }
        let created = session.record().received("conversation.item.create");
        let last = created.last().map(|event| &event["item"]["role"]);
        assert_eq!(last, Some(&Value::from("system")), "{created:?}");
        assert_eq!(session.record().errors, []);
    });
}

async fn dropped_in_mid_call(world: &World, agent: &Agent) {
    let (call, first) = after_two_turns(world, agent).await;
    first.drop_connection();
    let second = world.session(agent, 1).await;
    second.push_reply(Reply::speech(audio::clip(AGENT_LAST, 500, "Of course.")));
    call.then(Caller::new().say(audio::voice(CALLER, 500)).wait_until_agent_quiet().hang_up());
    let record = world.over(&call, EndReason::CallerHungUp).await;

    let past = [("assistant", "At your service."), ("user", "First words."), ("assistant", "We open at nine.")];
    assert_eq!(replayed(&second), turns(&past));
    assert_no_second_greeting(&second);
    let recording = call.recording().agent;
    assert_eq!(audio::only(AGENT, &recording).len(), 600 * 8, "greeted once\n{}", call.trace_text());
    assert_eq!(audio::only(AGENT_LAST, &recording).len(), 500 * 8, "answered after it\n{}", call.trace_text());

    let lines: Vec<_> =
        record["transcript"].as_array().expect("a list").iter().map(|line| line["text"].clone()).collect();
    assert_eq!(lines, ["At your service.", "First words.", "We open at nine.", "First words.", "Of course."]);
    assert_eq!((&record["resumes"], &record["endReason"]), (&Value::from(0), &Value::from("caller_hung_up")));
    let used: u64 = world.sessions(agent).iter().map(total_tokens).sum();
    assert_eq!(record["usage"]["total_tokens"], used, "usage goes on across sessions");
    assert_eq!(call.streams().len(), 1, "{}", call.trace_text());
}

fn total_tokens(session: &SessionHandle) -> u64 {
    session.read(|session| {
        let done = session.record().sent.iter().filter(|sent| sent.kind == "response.done");
        done.filter_map(|sent| sent.event["response"]["usage"]["total_tokens"].as_u64()).sum()
    })
}

/// The caller has asked and waits: the new session owes the answer, without being asked again.
async fn dropped_before_the_answer(world: &World, agent: &Agent) {
    let call = world.call(agent, Caller::new());
    let first = world.session(agent, 0).await;
    first.push_reply(Reply::speech(audio::clip(AGENT_LONG, 500, "Too late.")).after(LIMIT));
    call.then(Caller::new().wait_ms(500).say(audio::voice(CALLER, 500)));
    let transcribed = |session: &Session| {
        let kind = "conversation.item.input_audio_transcription.completed";
        session.record().sent.iter().any(|sent| sent.kind == kind)
    };
    first.wait_for(transcribed, LIMIT).await.expect("the caller is understood");
    // Once the line is on record, whatever is lost is the session.
    let is_told = |record: &Value| record["transcript"][0]["text"] == "First words.";
    world.tandem.call_when(call.sid().as_str(), is_told).await.or_tell(&call, "the line is not on record");
    first.close(1011, "going away");
    let second = world.session(agent, 1).await;
    heard(&call, AGENT, 600).await;
    assert_eq!(replayed(&second), turns(&[("user", "First words.")]));
    assert_no_second_greeting(&second);
    call.hang_up();
    world.over(&call, EndReason::CallerHungUp).await;
}

async fn harmless_errors(world: &World, agent: &Agent) {
    let (call, session) = after_two_turns(world, agent).await;
    for code in
        ["response_cancel_not_active", "invalid_value", "conversation_already_has_active_response", "unheard_of"]
    {
        session.send_error(ApiError::request(code, "A test says so."));
    }
    session.fail_next_transcription();
    session.push_reply(Reply::speech(audio::clip(AGENT_LAST, 500, "Of course.")));
    call.then(Caller::new().say(audio::voice(CALLER, 500)).wait_until_agent_quiet().hang_up());
    let record = world.over(&call, EndReason::CallerHungUp).await;
    assert_eq!(audio::only(AGENT_LAST, &call.recording().agent).len(), 500 * 8, "{}", call.trace_text());
    assert_eq!((&record["resumes"], world.sessions(agent).len()), (&Value::from(0), 1));
    session.read(|session| {
        let asked = session.record().received("response.create");
        assert_eq!(asked.len(), 1, "only the greeting was asked for: {asked:?}");
    });
}

/// A response that fails is asked for again, so that the caller need not.
async fn one_failed_response(world: &World, agent: &Agent) {
    let call = world.call(agent, Caller::new());
    let session = world.session(agent, 0).await;
    session.push_reply(Reply::server_error());
    session.push_reply(Reply::speech(audio::clip(AGENT_NEXT, 500, "Here I am.")));
    call.then(Caller::new().wait_ms(500).say(audio::voice(CALLER, 500)).wait_until_agent_quiet().hang_up());
    let record = world.over(&call, EndReason::CallerHungUp).await;
    assert_eq!(audio::only(AGENT_NEXT, &call.recording().agent).len(), 500 * 8, "{}", call.trace_text());
    assert_eq!((&record["resumes"], world.sessions(agent).len()), (&Value::from(0), 1));
}

/// A session in which everything fails is given up for a new one, which answers.
async fn every_response_fails(world: &World, agent: &Agent) {
    let call = world.call(agent, Caller::new());
    let first = world.session(agent, 0).await;
    for _ in 0..20 {
        first.push_reply(Reply::rate_limited());
    }
    call.then(Caller::new().wait_ms(500).say(audio::voice(CALLER, 500)).wait_until_agent_quiet().hang_up());
    let record = world.over(&call, EndReason::CallerHungUp).await;
    assert_eq!(audio::only(AGENT, &call.recording().agent).len(), 600 * 8, "{}", call.trace_text());
    assert_eq!((&record["resumes"], world.sessions(agent).len()), (&Value::from(0), 2));
}

/// The first session cannot be had; the second greets as if nothing had been.
async fn fault_at_the_start(world: &World, agent: &Agent, fault: Fault) {
    world.tandem.openai.next_connection(fault);
    let call = world.call(agent, Caller::new().wait_until_agent_quiet().hang_up());
    let record = world.over(&call, EndReason::CallerHungUp).await;
    assert_eq!(audio::only(AGENT, &call.recording().agent).len(), 600 * 8, "{fault:?}\n{}", call.trace_text());
    assert_eq!(call.streams().len(), 1, "{fault:?}\n{}", call.trace_text());
    assert_eq!(record["resumes"], 0, "{fault:?}");
}

/// Nothing helps: the caller is told, soon, and nobody tries for ever.
async fn never_a_session(world: &World, agent: &Agent) {
    world.tandem.openai.every_connection(Some(Fault::Refuse(503)));
    let in_advance = "tandem_prepared_sessions_total{outcome=\"openai_unreachable\"} ";
    let (refused_before, prepared_before) = (world.tandem.openai.refusals().len(), world.count(in_advance).await);
    let call = world.call(agent, Caller::new());
    let reason = call.wait_ended(LIMIT).await.or_tell(&call, "the call goes on in silence");
    world.tandem.openai.every_connection(None);
    assert_eq!(reason, EndReason::HungUp, "{}", call.trace_text());
    assert!(call.said().last().is_some_and(|said| said.starts_with(APOLOGY)), "{}", call.trace_text());
    let is_over = |record: &Value| record["status"] == "ended";
    let record = world.tandem.call_when(call.sid().as_str(), is_over).await.or_tell(&call, "the record");
    assert_eq!(
        (&record["endReason"], &record["pinReason"]),
        (&"agent_unavailable".into(), &"openai_unreachable".into())
    );
    let refused = world.tandem.openai.refusals().len() - refused_before;
    // The stream makes two attempts, and so does whoever prepares for it, if the edge has told of it early enough.
    let prepared = world.count(in_advance).await - prepared_before;
    assert_eq!((refused, call.streams().len()), (2 + 2 * prepared, 1), "two attempts each, in one stream");
}

/// The machine dies in mid-call; Twilio asks how to go on until there is somebody to ask.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_outlives_the_origin() {
    let mut world = World::default().await;
    let [agent] = world.agents([Spec::bridged()]).await;
    let (call, first) = after_two_turns(&world, &agent).await;
    world.tandem.origin.kill().await.expect("it can be killed");
    let held = |what: &What| matches!(what, What::Verb { name, .. } if name == "Pause");
    call.wait_for(LIMIT, held).await.or_tell(&call, "the caller is not asked to wait");
    world.tandem.origin.start_again().await.expect("it starts again");

    let second = world.session(&agent, 1).await;
    second.push_reply(Reply::speech(audio::clip(AGENT_LAST, 500, "Of course.")));
    call.then(Caller::new().say(audio::voice(CALLER, 500)).wait_until_agent_quiet().hang_up());
    let record = world.over(&call, EndReason::CallerHungUp).await;
    let past = [("assistant", "At your service."), ("user", "First words."), ("assistant", "We open at nine.")];
    assert_eq!(replayed(&second), turns(&past));
    assert_no_second_greeting(&second);
    assert_eq!(audio::only(AGENT_LAST, &call.recording().agent).len(), 500 * 8, "{}", call.trace_text());
    assert_eq!((&record["resumes"], &record["endReason"]), (&Value::from(1), &Value::from("caller_hung_up")));
    let resumed =
        |what: &What| matches!(what, What::Webhook { purpose: Purpose::Redirect, url, .. } if url.contains("resume"));
    assert!(call.trace().iter().any(|entry| resumed(&entry.what)), "{}", call.trace_text());
    first.read(|session| assert!(session.record().closed.is_some()));

    stops_in_order(&world).await;
}

/// SIGTERM, with nothing to do: ends at once, with success.
async fn stops_in_order(world: &World) {
    let this = std::env::current_exe().expect("a test has a path");
    let folder = this.ancestors().nth(2).expect("it lies two folders deep");
    let mut origin = Command::new(folder.join("tandem"))
        .arg("serve")
        .env_clear()
        .env("DATABASE_URL", &world.tandem.database_url)
        .env("BIND_ADDR", "127.0.0.1:0")
        .env("EDGE_URL", tests::tandem::EDGE_URL)
        .env("MEDIA_URL", tests::tandem::MEDIA_URL)
        .env("EDGE_ORIGIN_SECRET", tests::tandem::EDGE_ORIGIN_SECRET)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the origin starts");
    let output = origin.stderr.take().expect("it is piped");
    let pid = Pid::from_child(&origin);
    let ended = tokio::task::spawn_blocking(move || {
        use std::io::BufRead as _;
        let mut lines = std::io::BufReader::new(output).lines();
        let listening = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("Listening on")));
        assert!(listening.is_some(), "it does not listen");
        kill_process(pid, Signal::TERM).expect("it is ours");
        let rest: Vec<_> = lines.map_while(Result::ok).collect();
        (origin.wait().expect("it is our child"), rest)
    });
    let (status, rest) = tokio::time::timeout(LIMIT, ended).await.expect("it ends").expect("no panic");
    assert!(status.success(), "{status}: {rest:?}");
}
