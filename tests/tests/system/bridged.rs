//! Bridged calls: audio, transcript, usage and interruptions.

use std::time::Duration;

use serde_json::{Value, json};
use tests::openai::{Closed, Fault, ItemKind, Pace, RealtimeOptions, Reply, SessionHandle};
use tests::speech::g711::mulaw_to_pcm;
use tests::stack::link::State;
use tests::tandem::Options;
use tests::twilio::{CallHandle, Caller, ChunkFact, EndReason, What};

use crate::audio::{self, AGENT, AGENT_LAST, AGENT_LONG, AGENT_NEXT, CALLER};
use crate::world::{Agent, LIMIT, OrTell, Spec, World, model, started};

/// How far the product's idea of what was played may be from what was: a piece between two marks, and the time that
/// messages take on a busy machine. What it must not be confused with, audio that was only sent, is seconds away.
const PLAYED_TOLERANCE_MS: u64 = 500;

#[tokio::test(flavor = "multi_thread")]
async fn audio_and_words_pass_unchanged() {
    let world = World::default().await;
    let [plain, late] = world.agents([Spec::bridged(), Spec::listening()]).await;
    without_the_origin_and_back(&world, &plain).await;
    words_before_the_session(&world, &late).await;
}

/// The TwiML needs no origin; then everything that is said arrives, both ways, and is on record.
async fn without_the_origin_and_back(world: &World, agent: &Agent) {
    let link = &world.tandem.link;
    link.set(State::Refuse).await.expect("the link lives");
    let said = audio::voice(CALLER, 900);
    let caller = Caller::new().wait_until_agent_quiet().say(said.clone()).wait_until_agent_quiet().hang_up();
    let call = world.call(agent, caller);
    call.wait_for(LIMIT, started).await.or_tell(&call, "no stream without the origin's webhooks");
    link.set(State::Open).await.expect("the link lives");

    let session = world.session(agent, 0).await;
    greeted(&session).await;
    let answer = audio::clip(AGENT_NEXT, 1500, "We open at nine in the morning.");
    session.push_reply(Reply::speech(answer.clone()));
    let record = world.over(&call, EndReason::CallerHungUp).await;

    let heard = call.recording().agent;
    assert_eq!(audio::only(AGENT, &heard), audio::voice(AGENT, 600), "the greeting\n{}", call.trace_text());
    assert_eq!(audio::only(AGENT_NEXT, &heard), answer.mulaw, "the answer\n{}", call.trace_text());
    assert_eq!(turns_heard(&session), [mulaw_to_pcm(&said)]);
    session.read(|session| {
        assert_eq!(session.record().misinterpreted_ms, 0);
        assert_eq!(session.record().errors, []);
    });
    closed_by_us(&session).await;
    let stream = call.stream().expect("there was one");
    assert_eq!(stream.ended.as_deref(), Some("the call left it"));

    let told: Vec<Value> = record["transcript"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|item| json!([item["position"], item["role"], item["text"], item["heardMs"], item["interrupted"]]))
        .collect();
    assert_eq!(
        told,
        [
            json!([0, "assistant", "At your service.", 600, false]),
            json!([1, "caller", "First words.", null, false]),
            json!([2, "assistant", "We open at nine in the morning.", 1500, false]),
        ]
    );
    assert_eq!(record["systemType"], "openai-realtime");
    assert_eq!((&record["endReason"], &record["resumes"]), (&json!("caller_hung_up"), &json!(0)));
    assert!(record["answeredAt"].is_string() && record["endedAt"].is_string(), "{record}");
    assert_eq!(record["usage"]["total_tokens"], tokens(&session));
    assert!(world.tandem.twilio.notifications().iter().all(|note| note.call_sid != *call.sid()));
}

/// Words that are spoken while OpenAI has not confirmed the session are held, and arrive whole and in mu-law.
async fn words_before_the_session(world: &World, agent: &Agent) {
    world.tandem.openai.next_connection(Fault::DelayUpdates(Duration::from_secs(2)));
    let said = audio::voice(CALLER, 900);
    let call = world.call(agent, Caller::new());
    // What is said before Twilio has opened the stream is lost at Twilio.
    call.wait_for(LIMIT, started).await.or_tell(&call, "no stream");
    call.then(Caller::new().say(said.clone()).wait_until_agent_quiet().hang_up());
    world.over(&call, EndReason::CallerHungUp).await;
    let session = world.session(agent, 0).await;
    assert_eq!(turns_heard(&session), [mulaw_to_pcm(&said)]);
    session.read(|session| assert_eq!(session.record().misinterpreted_ms, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interruption_leaves_what_was_heard() {
    let openai = RealtimeOptions {
        // Long enough that much of an interrupted response is still on its way.
        pace: Pace { interruption: Duration::from_millis(300), times_real_time: 3.0, ..Pace::default() },
        ..model()
    };
    let world = World::start(Options { openai, ..Options::default() }).await;
    let [generating, generated, several] = world.agents([Spec::listening(); 3]).await;
    tokio::join!(
        while_it_is_generated(&world, &generating),
        after_it_was_generated(&world, &generated),
        among_several_items(&world, &several),
    );
}

async fn while_it_is_generated(world: &World, agent: &Agent) {
    // About fifteen characters a second, as people speak; the model sends words twice as fast as their audio.
    let long = audio::clip(AGENT_LONG, 9000, &audio::words(20));
    let (call, session) = interrupted(world, agent, Reply::speech(long), 1200).await;
    assert_eq!(last_but_one_response(&session), "cancelled", "the interruption came while it was generated");
    only_item_is_cut(world, &call, &session, 9000).await;
}

async fn after_it_was_generated(world: &World, agent: &Agent) {
    let long = audio::clip(AGENT_LONG, 3000, &audio::words(20));
    let (call, session) = interrupted(world, agent, Reply::speech(long), 1700).await;
    assert_eq!(last_but_one_response(&session), "completed", "generation had ended");
    only_item_is_cut(world, &call, &session, 3000).await;
}

/// The caller hears the first item whole, interrupts the second, and never hears of the third.
async fn among_several_items(world: &World, agent: &Agent) {
    let reply = Reply::speech(audio::clip(AGENT_LONG, 600, "One moment."))
        .then_speech(audio::clip(AGENT_NEXT, 2500, &audio::words(20)))
        .then_speech(audio::clip(AGENT_LAST, 1500, "Never heard."));
    let (call, session) = interrupted(world, agent, reply, 1900).await;
    let record = world.over(&call, EndReason::CallerHungUp).await;

    let truncations = truncations(&session);
    let ids = agent_items(&session);
    assert_eq!(truncations.len(), 1, "{truncations:?}\n{}", call.trace_text());
    assert_eq!(truncations[0].0, ids[1]);
    // The model has forgotten the third: what follows the second is the short answer.
    let deleted = session.read(|session| session.record().received("conversation.item.delete").len());
    assert_eq!((deleted, ids.len()), (1, 3), "{}", call.trace_text());
    let played = played_ms(&call.stream().expect("there was one").chunks);
    // The first item, and the short answer that follows the interruption, are whole.
    near(truncations[0].1, played - 600 - 600, &call);
    session.read(|session| assert_eq!(session.record().errors, []));
    let heard = call.recording().agent;
    assert_eq!(audio::only(AGENT_LONG, &heard).len(), 600 * 8);
    assert!(audio::only(AGENT_LAST, &heard).is_empty(), "{}", call.trace_text());
    let lines: Vec<_> = assistant_lines(&record);
    assert_eq!(lines[0], json!(["One moment.", 600, false]));
    assert_eq!(lines[1][2], true);
    assert_eq!(lines[2], json!(["", 0, true]));
}

/// The caller speaks, is answered with `reply`, speaks again `after_ms` into that, and hears a short answer.
pub(crate) async fn interrupted(
    world: &World,
    agent: &Agent,
    reply: Reply,
    after_ms: u64,
) -> (CallHandle, SessionHandle) {
    let caller = Caller::new()
        .wait_ms(1000)
        .say(audio::voice(CALLER, 400))
        .interrupt(after_ms, audio::voice(CALLER, 500))
        .wait_until_agent_quiet()
        .hang_up();
    let call = world.call(agent, caller);
    let session = world.session(agent, 0).await;
    session.push_reply(reply);
    call.wait_ended(LIMIT).await.or_tell(&call, "the caller does not hang up");
    assert_eq!(call.stream().expect("there was one").clears, 1, "{}", call.trace_text());
    (call, session)
}

async fn only_item_is_cut(world: &World, call: &CallHandle, session: &SessionHandle, full_ms: u64) {
    let record = world.over(call, EndReason::CallerHungUp).await;
    let truncations = truncations(session);
    let ids = agent_items(session);
    let [(item, end_ms)] = &truncations[..] else { panic!("one truncation, not {truncations:?}") };
    assert_eq!(*item, ids[0]);

    // What Twilio has played of it is what is left in the recording.
    let heard = audio::only(AGENT_LONG, &call.recording().agent);
    assert_eq!(heard, audio::voice(AGENT_LONG, usize::try_from(full_ms).expect("small"))[..heard.len()]);
    let played = heard.len() as u64 / 8;
    near(*end_ms, played, call);
    assert!(*end_ms < full_ms);

    // Twilio got nothing more of it after the clear, although the model sent more.
    let trace = call.trace();
    let cleared = trace.iter().find(|entry| matches!(entry.what, What::Cleared { .. })).expect("it was cleared");
    let chunks = call.stream().expect("there was one").chunks;
    let after: Vec<&ChunkFact> = chunks.iter().filter(|chunk| chunk.arrived_us > cleared.at_ms * 1000 + 1000).collect();
    let bytes: usize = after.iter().map(|chunk| chunk.bytes).sum();
    assert_eq!(bytes, 600 * 8, "only the next answer came after the clear\n{}", call.trace_text());

    // The model remembers what was heard, and so does the record.
    let remembered = session.read(|session| {
        let memory = session.memory();
        memory.iter().filter(|item| item.role == "assistant").map(|item| item.audio_ms).collect::<Vec<_>>()
    });
    assert_eq!(remembered, [*end_ms, 600]);
    let lines = assistant_lines(&record);
    assert_eq!((&lines[0][1], &lines[0][2]), (&json!(end_ms), &json!(true)), "{record}");
    let text = lines[0][0].as_str().expect("a text");
    assert!(audio::words(20).starts_with(text), "{text:?}");
    let (words, spoken) = (text.split_whitespace().count() as u64, 20 * end_ms / full_ms);
    assert!(words.abs_diff(spoken) <= 2, "{words} words are kept, {spoken} were spoken: {text:?}");
    assert_eq!(lines[1], json!(["At your service.", 600, false]));
    session.read(|session| assert_eq!(session.record().errors, []));
}

fn near(told_ms: u64, played_ms: u64, call: &CallHandle) {
    let apart = told_ms.abs_diff(played_ms);
    assert!(apart <= PLAYED_TOLERANCE_MS, "told {told_ms} ms, played {played_ms} ms\n{}", call.trace_text());
}

/// The item and time of every truncation.
pub(crate) fn truncations(session: &SessionHandle) -> Vec<(String, u64)> {
    session.read(|session| {
        let received = session.record().received("conversation.item.truncate");
        let read = |event: &&Value| {
            let item = event["item_id"].as_str().expect("an id").to_owned();
            (item, event["audio_end_ms"].as_u64().expect("a time"))
        };
        received.iter().map(read).collect()
    })
}

fn agent_items(session: &SessionHandle) -> Vec<String> {
    session.read(|session| {
        let items = session.items().iter();
        items.filter(|item| matches!(item.kind, ItemKind::AgentSpeech { .. })).map(|item| item.id.clone()).collect()
    })
}

fn last_but_one_response(session: &SessionHandle) -> String {
    session.read(|session| session.record().responses.iter().rev().nth(1).expect("two responses").status.clone())
}

fn assistant_lines(record: &Value) -> Vec<Value> {
    let lines = record["transcript"].as_array().expect("a list").iter();
    lines
        .filter(|line| line["role"] == "assistant")
        .map(|line| json!([line["text"], line["heardMs"], line["interrupted"]]))
        .collect()
}

fn played_ms(chunks: &[ChunkFact]) -> u64 {
    chunks.iter().map(|chunk| (chunk.bytes - chunk.cleared_bytes) as u64).sum::<u64>() / 8
}

/// The audio of each of the caller's turns, without the silence around it.
fn turns_heard(session: &SessionHandle) -> Vec<Vec<i16>> {
    session.read(|session| {
        let turns = session.items().iter().filter(|item| matches!(item.kind, ItemKind::CallerSpeech { .. }));
        turns
            .map(|item| {
                let loud = |sample: &i16| sample.abs() > 100;
                let from = item.audio.iter().position(loud).unwrap_or(0);
                let to = item.audio.iter().rposition(loud).map_or(0, |last| last + 1);
                item.audio[from..to].to_vec()
            })
            .collect()
    })
}

/// Waits until the greeting is under way: what is pushed from now on comes after it.
async fn greeted(session: &SessionHandle) {
    let has_begun =
        |session: &tests::openai::Session| session.is_responding() || !session.record().responses.is_empty();
    session.wait_for(has_begun, LIMIT).await.expect("the agent greets");
}

async fn closed_by_us(session: &SessionHandle) {
    let closed =
        |session: &tests::openai::Session| matches!(session.record().closed, Some(Closed::ByClient(1000 | 1005)));
    session.wait_for(closed, LIMIT).await.expect("the product closes the session in good order");
}

/// What all responses of a session used.
fn tokens(session: &SessionHandle) -> u64 {
    session.read(|session| {
        let done = session.record().sent.iter().filter(|sent| sent.kind == "response.done");
        done.map(|sent| sent.event["response"]["usage"]["total_tokens"].as_u64().expect("tokens")).sum()
    })
}
