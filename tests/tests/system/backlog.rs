//! What was said and is not written yet when a call goes on in another stream: the database is there, and the writing
//! of transcripts hangs.

use serde_json::Value;
use sqlx::{Postgres, Transaction};
use tests::openai::Reply;
use tests::stack::link::Link;
use tests::tandem::STREAM_URL;
use tests::twilio::{CallHandle, Caller, EndReason, What};

use crate::audio::{self, AGENT_LAST, CALLER};
use crate::survival::{agent_is_quiet, greeted, roles_and_texts, told, turn};
use crate::world::{Agent, LIMIT, OrTell, Spec, World, heard};

/// Reading goes on.
async fn nobody_writes(world: &World) -> Transaction<'static, Postgres> {
    let mut hanging = world.db.begin().await.expect("a transaction");
    sqlx::query("lock table transcript_items in exclusive mode").execute(&mut *hanging).await.expect("the lock");
    hanging
}

/// A call whose last words are said while nobody writes, and a door by which its stream can be lost.
async fn with_unwritten_words(world: &World, agent: &Agent) -> (CallHandle, Link, Transaction<'static, Postgres>) {
    let door = Link::start(world.tandem.origin.address()).await.expect("a port is free");
    world.tandem.hosts.map(STREAM_URL, &door.base_url());
    let (call, session) = greeted(world, agent).await;
    let is_told = |record: &Value| record["transcript"][0]["heardMs"] == 600;
    world.tandem.call_when(call.sid().as_str(), is_told).await.or_tell(&call, "the greeting is not on record");
    let hanging = nobody_writes(world).await;
    turn(&call, &session, 2, "We open at nine.").await;
    (call, door, hanging)
}

async fn answered_once_more(world: &World, agent: &Agent, call: &CallHandle) {
    let second = world.session(agent, 1).await;
    second.push_reply(Reply::speech(audio::clip(AGENT_LAST, 500, "Of course.")));
    call.then(Caller::new().say(audio::voice(CALLER, 500)).wait_until_agent_quiet());
    heard(call, AGENT_LAST, 500).await;
    agent_is_quiet(call).await;
}

const ALL: [&str; 5] = ["At your service.", "First words.", "We open at nine.", "First words.", "Of course."];

/// The same process has the words: the call waits until they are written, so that the next session knows them.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_goes_on_when_what_was_said_is_written() {
    let world = World::default().await;
    let [agent] = world.agents([Spec::bridged()]).await;
    let (call, door, hanging) = with_unwritten_words(&world, &agent).await;
    door.cut().await.expect("the door lives");
    let asks_on = |what: &What| matches!(what, What::Webhook { url, .. } if url.ends_with("/twilio/resume?attempt=3"));
    call.wait_for(LIMIT, asks_on).await.or_tell(&call, "the caller is not asked to wait");
    hanging.rollback().await.expect("it ends");

    answered_once_more(&world, &agent, &call).await;
    let past = roles_and_texts(&world.session(&agent, 1).await);
    assert_eq!(past.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(), ALL[..3], "{}", call.trace_text());
    call.hang_up();
    let record = world.over(&call, EndReason::CallerHungUp).await;
    assert_eq!((told(&record), &record["resumes"]), (ALL.to_vec(), &Value::from(1)), "{}", call.trace_text());
}

/// Another process has them: it writes them when it can, and they stand where they were said.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_late_is_not_lost_to_what_was_said_since() {
    let world = World::default().await;
    let [agent] = world.agents([Spec::bridged()]).await;
    let other = world.tandem.origin.start_another().await.expect("another origin starts");
    let (call, door, hanging) = with_unwritten_words(&world, &agent).await;
    world.tandem.lead_to(&other).await.expect("the names can be moved");
    door.cut().await.expect("the door lives");

    answered_once_more(&world, &agent, &call).await;
    call.hang_up();
    assert_eq!(call.wait_ended(LIMIT).await.or_tell(&call, "it does not end"), EndReason::CallerHungUp);
    hanging.rollback().await.expect("it ends");
    let is_whole = |record: &Value| record["status"] == "ended" && told(record).len() >= ALL.len();
    let record = world.tandem.call_when(call.sid().as_str(), is_whole).await.or_tell(&call, "lines are lost");
    assert_eq!((told(&record), &record["resumes"]), (ALL.to_vec(), &Value::from(1)), "{}", call.trace_text());
}
