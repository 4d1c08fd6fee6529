//! What the tests of survival have in common.

use std::time::{Duration, Instant};

use serde_json::Value;
use tests::openai::{Reply, Session, SessionHandle};
use tests::twilio::{CallHandle, Caller, EndReason, What};

use crate::audio::{self, AGENT_LONG, AGENT_NEXT, CALLER};
use crate::world::{Agent, LIMIT, OrTell, World, heard};

pub(crate) const APOLOGY: &str = "We are sorry, we cannot take your call right now.";
pub(crate) const PERSON: &str = "+15550300001";
/// 20 ms of a recording.
const FRAME: usize = 160;

/// Prints how long the caller has heard nothing, for the report.
pub(crate) fn report_pause(what: &str, since: Instant) {
    println!("PAUSE {what}: {} ms", since.elapsed().as_millis());
}

/// Prints the longest silence that the caller has noticed since then, for the report.
pub(crate) fn report_silence(what: &str, call: &CallHandle, since: Duration) {
    let since_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let gaps = call.dead_air().into_iter().filter(|gap| gap.from_ms + gap.length_ms > since_ms);
    let longest = gaps.map(|gap| gap.length_ms).max();
    println!("PAUSE {what}: {}", longest.map_or("under 500 ms".to_owned(), |ms| format!("{ms} ms of dead air")));
}

/// How long the caller waited in each turn for the agent's first sound after the last of their own words, in milliseconds.
pub(crate) fn waits_ms(call: &CallHandle) -> Vec<usize> {
    let recording = call.recording();
    let frames = recording.caller.chunks(FRAME).zip(recording.agent.chunks(FRAME));
    let (mut waits, mut waiting) = (Vec::new(), None);
    for (caller, agent) in frames {
        if !audio::only(CALLER, caller).is_empty() {
            waiting = Some(0);
        } else if audio::is_sound(agent) {
            waits.extend(waiting.take());
        } else if let Some(ms) = &mut waiting {
            *ms += FRAME / 8;
        }
    }
    waits
}

/// A call to an agent that waits for its caller, who has asked; the answer, in the voice `AGENT_LONG`, is being spoken
/// and the question is on record.
pub(crate) async fn answers_in_mid_sentence(world: &World, agent: &Agent, answer: Reply) -> CallHandle {
    let call = world.call(agent, Caller::new());
    let session = world.session(agent, 0).await;
    session.push_reply(answer);
    call.then(Caller::new().wait_ms(300).say(audio::voice(CALLER, 500)));
    heard(&call, AGENT_LONG, 1000).await;
    let is_told = |record: &Value| record["transcript"][0]["text"] == "First words.";
    world.tandem.call_when(call.sid().as_str(), is_told).await.or_tell(&call, "the question is not on record");
    call
}

/// Role and text of what a session was told of the past, without the words of how to go on.
pub(crate) fn roles_and_texts(session: &SessionHandle) -> Vec<(String, String)> {
    session.read(|session: &Session| {
        let created = session.record().received("conversation.item.create");
        let messages = created.iter().map(|event| &event["item"]).filter(|item| item["type"] == "message");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        messages
            .filter(|item| item["role"] != "system")
            .map(|item| (text(&item["role"]), text(&item["content"][0]["text"])))
            .collect()
    })
}

/// Whom the call was put through to, and what came of it.
pub(crate) fn dialled(call: &CallHandle) -> Option<(String, String)> {
    call.trace().into_iter().find_map(|entry| match entry.what {
        What::Dialled { number, status } => Some((number, status)),
        _ => None,
    })
}

/// Vapi has run the call to its end, pinned there with the reason, and the caller has heard all that it said.
pub(crate) async fn at_vapi(world: &World, call: &CallHandle, reason: &str, ms: usize) {
    let record = world.over(call, EndReason::CallerHungUp).await;
    assert_eq!(audio::only(AGENT_NEXT, &call.recording().agent).len(), ms * 8, "{reason}\n{}", call.trace_text());
    assert_eq!((&record["systemType"], &record["pinReason"]), (&Value::from("vapi"), &Value::from(reason)));
    assert!(record["vapiCallId"].is_string(), "{record}");
}

/// A call whose greeting has been heard, and its session.
pub(crate) async fn greeted(world: &World, agent: &Agent) -> (CallHandle, SessionHandle) {
    let call = world.call(agent, Caller::new().wait_until_agent_quiet());
    let session = world.session(agent, 0).await;
    responses(&session, 1).await;
    (call, session)
}

/// The caller asks and hears the answer; `count` is how many responses the session has had then.
pub(crate) async fn turn(call: &CallHandle, session: &SessionHandle, count: usize, text: &str) {
    let before = audio::only(AGENT_NEXT, &call.recording().agent).len();
    session.push_reply(Reply::speech(audio::clip(AGENT_NEXT, 500, text)));
    call.then(Caller::new().say(audio::voice(CALLER, 500)).wait_until_agent_quiet());
    responses(session, count).await;
    heard(call, AGENT_NEXT, before / 8 + 500).await;
    agent_is_quiet(call).await;
}

/// Waits until the caller has noticed that the agent speaks no more; by then our side knows what was heard.
pub(crate) async fn agent_is_quiet(call: &CallHandle) {
    let deadline = Instant::now() + LIMIT;
    let voice = |what: &What| matches!(what, What::AgentSpeaks | What::AgentQuiet { .. });
    let is_quiet = |call: &CallHandle| {
        let last = call.trace().into_iter().rev().find(|entry| voice(&entry.what));
        last.is_some_and(|entry| matches!(entry.what, What::AgentQuiet { .. }))
    };
    while !is_quiet(call) {
        assert!(Instant::now() < deadline, "the agent goes on and on\n{}", call.trace_text());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn responses(session: &SessionHandle, count: usize) {
    let done = |session: &Session| session.record().responses.len() >= count;
    session.wait_for(done, LIMIT).await.expect("a response is over");
}

/// The texts of a transcript.
pub(crate) fn told(record: &Value) -> Vec<&str> {
    let lines = record["transcript"].as_array().expect("a list");
    lines.iter().map(|line| line["text"].as_str().unwrap_or_default()).collect()
}
