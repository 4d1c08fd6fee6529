//! Who speaks when: a first message that cannot be interrupted, words before an interruption, keys, and a line that falls
//! silent in mid-sentence.

use serde_json::{Value, json};
use tests::openai::{Pace, RealtimeOptions, Reply};
use tests::tandem::Options;
use tests::twilio::{Caller, EndReason};

use crate::audio::{self, AGENT, AGENT_LONG, CALLER};
use crate::world::{Agent, Spec, World, model};

#[tokio::test(flavor = "multi_thread")]
async fn turns_are_taken_as_the_agent_wants_it() {
    let openai = RealtimeOptions { pace: Pace { times_real_time: 3.0, ..Pace::default() }, ..model() };
    let world = World::start(Options { openai, ..Options::default() }).await;
    let [protected, patient, keys, entry, silent] = world
        .agents([
            Spec::bridged().with_rules(r#"{"firstMessageInterruptible":false}"#),
            Spec::listening().with_rules(r#"{"interruptAfterWords":2}"#),
            Spec::listening(),
            Spec::listening().with_rules(r##"{"keypad":{"delimiters":"#"}}"##),
            Spec::listening(),
        ])
        .await;
    // Its first session is the next one.
    a_protected_greeting_is_heard_whole(&world, &protected).await;
    tokio::join!(
        two_words_interrupt_and_one_does_not(&world, &patient),
        keys_are_a_turn(&world, &keys, "42", "[keys pressed: 42]"),
        keys_are_a_turn(&world, &entry, "9*87#", "[keys pressed: 9*87]"),
        a_turn_ends_though_the_line_is_silent(&world, &silent),
    );
}

/// What the caller says into it is in the conversation, and is answered when it is over.
async fn a_protected_greeting_is_heard_whole(world: &World, agent: &Agent) {
    let greeting = audio::clip(AGENT_LONG, 3000, &audio::words(7));
    world.tandem.openai.next_session_says(vec![Reply::speech(greeting.clone())]);
    let caller = Caller::new().interrupt(600, audio::voice(CALLER, 500)).wait_until_agent_quiet().hang_up();
    let call = world.call(agent, caller);
    let record = world.over(&call, EndReason::CallerHungUp).await;
    let session = world.session(agent, 0).await;

    let story = call.trace_text();
    let heard = call.recording().agent;
    assert_eq!(audio::only(AGENT_LONG, &heard), greeting.mulaw, "the greeting is whole\n{story}");
    assert_eq!(audio::only(AGENT, &heard), audio::voice(AGENT, 600), "and then the caller is answered\n{story}");
    assert_eq!(call.stream().expect("there was one").clears, 0, "{story}");
    session.read(|session| {
        let record = session.record();
        assert_eq!(record.errors, [], "{}", record.summary());
        assert_eq!(statuses(session), ["completed", "completed"]);
        let detection = &session.config()["audio"]["input"]["turn_detection"];
        assert_eq!((&detection["create_response"], &detection["interrupt_response"]), (&json!(true), &json!(true)));
    });
    assert_eq!(
        lines(&record),
        [
            json!(["assistant", audio::words(7), false]),
            json!(["caller", "First words.", false]),
            json!(["assistant", "At your service.", false]),
        ]
    );
}

async fn two_words_interrupt_and_one_does_not(world: &World, agent: &Agent) {
    let caller = Caller::new()
        .wait_ms(1000)
        .say(audio::voice(CALLER, 400))
        .interrupt(1000, audio::voice(CALLER, 300))
        .interrupt(2000, audio::voice(CALLER, 2000))
        .wait_until_agent_quiet()
        .hang_up();
    let call = world.call(agent, caller);
    let session = world.session(agent, 0).await;
    session.push_reply(Reply::speech(audio::clip(AGENT_LONG, 9000, &audio::words(20))));
    let record = world.over(&call, EndReason::CallerHungUp).await;

    let story = call.trace_text();
    assert_eq!(call.stream().expect("there was one").clears, 1, "{story}");
    let heard_ms = audio::only(AGENT_LONG, &call.recording().agent).len() as u64 / 8;
    assert!((3000..9000).contains(&heard_ms), "the second time, not the first: {heard_ms} ms\n{story}");
    session.read(|session| {
        let record = session.record();
        // Generation may have ended when the caller interrupts.
        assert!(record.error_codes().iter().all(|code| *code == "response_cancel_not_active"), "{}", record.summary());
        assert_eq!(statuses(session).len(), 2, "the aside is not answered: {}", record.summary());
    });
    let interrupted = lines(&record).into_iter().filter(|line| line[2] == true).count();
    assert_eq!(interrupted, 1, "{record}");
}

async fn keys_are_a_turn(world: &World, agent: &Agent, pressed: &str, told: &str) {
    let caller = Caller::new().wait_ms(1000).dtmf(pressed).wait_until_agent_quiet().hang_up();
    let call = world.call(agent, caller);
    let record = world.over(&call, EndReason::CallerHungUp).await;
    let session = world.session(agent, 0).await;
    session.read(|session| {
        let items: Vec<_> = session.memory().into_iter().map(|item| (item.role, item.text)).collect();
        assert_eq!(items[0], ("user".to_owned(), told.to_owned()));
        assert_eq!(items.len(), 2, "{items:?}");
        assert_eq!(session.record().errors, []);
    });
    assert_eq!(audio::only(AGENT, &call.recording().agent), audio::voice(AGENT, 600), "{}", call.trace_text());
    assert_eq!(lines(&record), [json!(["caller", told, false]), json!(["assistant", "At your service.", false])]);
}

/// Twilio sends no frame after the last word; the caller hears the answer nevertheless.
async fn a_turn_ends_though_the_line_is_silent(world: &World, agent: &Agent) {
    let caller = Caller::new().wait_ms(1000).say(audio::voice(CALLER, 900)).mute_ms(5000).hang_up();
    let call = world.call(agent, caller);
    let record = world.over(&call, EndReason::CallerHungUp).await;
    let heard = audio::only(AGENT, &call.recording().agent);
    assert_eq!(heard, audio::voice(AGENT, 600), "{}", call.trace_text());
    assert_eq!(lines(&record)[0], json!(["caller", "First words.", false]));
}

fn statuses(session: &tests::openai::Session) -> Vec<&str> {
    session.record().responses.iter().map(|response| response.status.as_str()).collect()
}

/// Who said what, and whether they were cut off.
fn lines(record: &Value) -> Vec<Value> {
    let lines = record["transcript"].as_array().expect("a list").iter();
    lines.map(|line| json!([line["role"], line["text"], line["interrupted"]])).collect()
}
