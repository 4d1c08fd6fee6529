//! Streams that are lost at one moment or another, and with what the next one begins: whatever the caller has not heard,
//! and never with silence.

use futures_util::SinkExt as _;
use serde_json::{Value, json};
use tests::openai::{Reply, Session, SessionHandle};
use tests::stack::link::{Link, State};
use tests::tandem::{EDGE_URL, STREAM_URL};
use tests::twilio::{CallHandle, Caller, EndReason};
use tokio_tungstenite::tungstenite::Message;

use crate::audio::{self, AGENT, AGENT_LAST, AGENT_LONG, AGENT_NEXT, CALLER};
use crate::survival::roles_and_texts;
use crate::tokens;
use crate::world::{
    Agent, LIMIT, OrTell, Spec, World, heard, incoming, is_bridged, new_call_sid, send, token, unix_now,
};

const PROTECTED: &str = r#"{ "firstMessageInterruptible": false }"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_begins_with_what_the_caller_has_not_heard() {
    let world = World::default().await;
    let bridged = Spec::bridged();
    let specs = [bridged, bridged, bridged, bridged.with_rules(PROTECTED), bridged, bridged];
    let [whole, none, part, protected, silent, repeated] = world.agents(specs).await;
    let door = Link::start(world.tandem.origin.address()).await.expect("a port is free");
    world.tandem.hosts.map(STREAM_URL, &door.base_url());
    the_agent_was_heard_and_nobody_speaks(&world, &whole, &door).await;
    the_first_words_were_not_heard(&world, &none, &door).await;
    the_first_words_broke_off(&world, &part, &door).await;
    protected_words_broke_off(&world, &protected, &door).await;
    twilio_falls_silent(&world, &silent, &door).await;
    twilio_asks_twice(&world, &repeated).await;
}

/// What a session was asked to say, in order.
fn asked(session: &SessionHandle) -> Vec<String> {
    session.read(|session| session.record().received("response.create").iter().map(ToString::to_string).collect())
}

fn is_greeting(asked: &str) -> bool {
    asked.contains("Say exactly") && asked.contains("At your service.")
}

async fn hangs_up(world: &World, call: &CallHandle) -> Value {
    call.hang_up();
    let record = world.over(call, EndReason::CallerHungUp).await;
    assert_eq!((&record["resumes"], call.streams().len()), (&json!(1), 2), "{}", call.trace_text());
    record
}

/// The caller does not know that the line is back: the agent speaks, and does not greet again.
async fn the_agent_was_heard_and_nobody_speaks(world: &World, agent: &Agent, door: &Link) {
    let call = world.call(agent, Caller::new());
    let is_told = |record: &Value| record["transcript"][0]["heardMs"] == 600;
    world.session(agent, 0).await;
    world.tandem.call_when(call.sid().as_str(), is_told).await.or_tell(&call, "what was heard is not on record");
    world.tandem.openai.next_session_says(vec![Reply::speech(audio::clip(AGENT_NEXT, 500, "Are you there?"))]);
    door.cut().await.expect("the door lives");
    heard(&call, AGENT_NEXT, 500).await;
    let second = world.session(agent, 1).await;
    let asked = asked(&second);
    assert!(asked.len() == 1 && !is_greeting(&asked[0]), "{asked:?}");
    assert_eq!(roles_and_texts(&second), [("assistant".to_owned(), "At your service.".to_owned())]);
    hangs_up(world, &call).await;
}

/// A stream that was lost before the agent's first word: the caller is greeted, once.
async fn the_first_words_were_not_heard(world: &World, agent: &Agent, door: &Link) {
    let never = Reply::speech(audio::clip(AGENT_LONG, 600, "Too late.")).after(LIMIT);
    world.tandem.openai.next_session_says(vec![never]);
    let call = world.call(agent, Caller::new());
    let first = world.session(agent, 0).await;
    let is_asked = |session: &Session| !session.record().received("response.create").is_empty();
    first.wait_for(is_asked, LIMIT).await.expect("the agent greets");
    door.cut().await.expect("the door lives");
    heard(&call, AGENT, 600).await;
    let second = world.session(agent, 1).await;
    let asked = asked(&second);
    assert!(asked.len() == 1 && is_greeting(&asked[0]), "{asked:?}");
    let record = hangs_up(world, &call).await;
    assert_eq!(audio::only(AGENT, &call.recording().agent).len(), 600 * 8, "{}", call.trace_text());
    assert_eq!(record["transcript"].as_array().map(Vec::len), Some(1), "{record}");
}

/// The caller has heard the beginning, and hears the rest.
async fn the_first_words_broke_off(world: &World, agent: &Agent, door: &Link) {
    let words = audio::words(20);
    let call = breaks_off(world, agent, &words, door).await;
    let second = world.session(agent, 1).await;
    heard(&call, AGENT, 600).await;
    let asked = asked(&second);
    assert!(asked.len() == 1 && !is_greeting(&asked[0]), "{asked:?}");
    let past = roles_and_texts(&second);
    assert!(past.len() == 1 && words.starts_with(&past[0].1) && past[0].1.len() < words.len(), "{past:?}");
    hangs_up(world, &call).await;
}

/// What has to be heard whole is said again from its beginning, and cannot be interrupted this time either.
async fn protected_words_broke_off(world: &World, agent: &Agent, door: &Link) {
    let call = breaks_off(world, agent, &audio::words(20), door).await;
    let second = world.session(agent, 1).await;
    call.then(Caller::new().say(audio::voice(CALLER, 300)));
    heard(&call, AGENT, 600).await;
    let asked = asked(&second);
    assert!(is_greeting(&asked[0]), "{asked:?}");
    second.read(|session| {
        let updates = session.record().received("session.update");
        let detection = &updates[0]["session"]["audio"]["input"]["turn_detection"];
        assert_eq!(detection["interrupt_response"], false, "{updates:?}");
        assert_eq!(session.record().errors, []);
    });
    assert_eq!(roles_and_texts(&second), [], "nobody is greeted twice, as far as the agent knows");
    hangs_up(world, &call).await;
}

/// A call whose first message, of five seconds, is cut off by the loss of its stream.
async fn breaks_off(world: &World, agent: &Agent, words: &str, door: &Link) -> CallHandle {
    let first = Reply::speech(audio::clip(AGENT_LONG, 5_000, words)).pausing(2_000, LIMIT);
    world.tandem.openai.next_session_says(vec![first]);
    let call = world.call(agent, Caller::new());
    heard(&call, AGENT_LONG, 1_000).await;
    door.cut().await.expect("the door lives");
    call
}

/// Nothing comes from Twilio any more, not even the answer to a ping: the stream is given up, and the call goes on.
async fn twilio_falls_silent(world: &World, agent: &Agent, door: &Link) {
    let call = world.call(agent, Caller::new());
    heard(&call, AGENT, 600).await;
    let first = world.session(agent, 0).await;
    door.set(State::Hang).await.expect("the door lives");
    let closed = |session: &Session| session.record().closed.is_some();
    first.wait_for(closed, LIMIT).await.expect("nothing is kept for a stream that is dead");
    world.tandem.openai.next_session_says(vec![Reply::speech(audio::clip(AGENT_LAST, 500, "As I said."))]);
    door.cut().await.expect("the door lives");
    door.set(State::Open).await.expect("the door lives");
    heard(&call, AGENT_LAST, 500).await;
    let record = hangs_up(world, &call).await;
    assert_eq!(record["endReason"], "caller_hung_up");
}

/// Twilio repeats a question when the answer is late: it gets the same stream, which counts once.
async fn twilio_asks_twice(world: &World, agent: &Agent) {
    let call_sid = new_call_sid();
    let mut stream = tokens::open(world).await;
    let parameters = json!({ "token": token(&call_sid, agent, unix_now()) });
    let start = tokens::start(&call_sid, &parameters, "audio/x-mulaw");
    stream.send(Message::text(start.to_string())).await.expect("the socket is open");
    let first = world.session(agent, 0).await;
    drop(stream);
    let closed = |session: &Session| session.record().closed.is_some();
    first.wait_for(closed, LIMIT).await.expect("no session outlives its stream");
    let ask = async |delivery: &str| {
        let form = incoming(&call_sid, &agent.number, "in-progress");
        let question = world.twilio(EDGE_URL, "/twilio/resume", &form);
        let (status, twiml) = send(question.header("i-twilio-idempotency-token", delivery)).await;
        assert_eq!(status, 200, "{twiml}");
        twiml
    };
    let (one, two) = tokio::join!(ask("first"), ask("first"));
    assert!(is_bridged(&one) && one == two, "{one}\n{two}");
    assert_eq!(ask("first").await, one, "and later");
    let record = world.tandem.call(&call_sid).await.expect("the API answers").expect("the call is on record");
    assert_eq!(record["resumes"], 1);
    assert!(!is_bridged(&ask("second").await), "who asks again so soon is asked to wait");
}
