//! What is on record of a bridged call: tools, tokens and their cost, how long the caller waited, the sound; also of one
//! during which Postgres was away or the origin died.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tests::openai::{Pace, RealtimeOptions, Reply, Session, SessionHandle};
use tests::tandem::Options;
use tests::twilio::{CallHandle, Caller, EndReason};
use uuid::Uuid;

use crate::audio::{self, AGENT, AGENT_LAST, AGENT_LONG, AGENT_NEXT, CALLER};
use crate::tools::add_tool;
use crate::world::{Agent, LIMIT, OrTell, Spec, World, model};

/// Prices that no two products of are equal, in dollars per million tokens.
const PRICES: &str = r#"{"asOf": "2026-11-23",
    "models": {"gpt-realtime-2.1": {"audioIn": 31, "audioInCached": 0.5, "audioOut": 67,
                                    "textIn": 3, "textInCached": 0.25, "textOut": 23}},
    "transcription": {"gpt-transcribe": {"audioIn": 6, "textIn": 5, "textOut": 10, "perMinute": 0.006}}}"#;

/// A directory of the test's own, deleted in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("tandem-records-{}", Uuid::new_v4().simple()));
        std::fs::create_dir(&path).expect("a directory");
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a plain name").to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn recording_env(scratch: &Scratch) -> Vec<(String, String)> {
    [("RECORDING_STORE", "store"), ("RECORDING_SPOOL_DIR", "spool")]
        .map(|(name, file)| (name.to_owned(), scratch.file(file)))
        .into()
}

async fn record_calls_of(world: &World, agent: &Agent) {
    let sql = "update agents set realtime = realtime || '{\"call\": {\"recording\": true}}' where id = $1";
    let id: Uuid = agent.id.parse().expect("an agent's id is a UUID");
    sqlx::query(sql).bind(id).execute(&world.db).await.expect("the agent is there");
}

async fn responses(session: &SessionHandle, count: usize) {
    let done = |session: &Session| session.record().responses.len() >= count;
    session.wait_for(done, LIMIT).await.expect("a response is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_of_a_call_is_on_record() {
    let scratch = Scratch::new();
    std::fs::write(scratch.file("prices.json"), PRICES).expect("a file of prices");
    let mut origin_env = recording_env(&scratch);
    origin_env.push(("PRICES_FILE".to_owned(), scratch.file("prices.json")));
    // Slow enough that the interruption meets a response that is not all there.
    let openai = RealtimeOptions { pace: Pace { times_real_time: 3.0, ..Pace::default() }, ..model() };
    let world = World::start(Options { openai, origin_env, ..Options::default() }).await;
    let [agent] = world.agents([Spec::listening()]).await;
    record_calls_of(&world, &agent).await;
    add_tool(&world, &agent, "get_slots", &world.tandem.tools.url(), 5000).await;

    let said = [audio::voice(CALLER, 400), audio::voice(CALLER, 500)];
    let caller = Caller::new()
        .wait_ms(1000)
        .say(said[0].clone())
        .interrupt(1200, said[1].clone())
        .wait_until_agent_quiet()
        .hang_up();
    let call = world.call(&agent, caller);
    let session = world.session(&agent, 0).await;
    session.push_reply(Reply::tool_call("get_slots", &json!({ "date": "2026-11-23" })));
    session.push_reply(Reply::speech(audio::clip(AGENT_LONG, 6000, &audio::words(40))));
    let record = world.over(&call, EndReason::CallerHungUp).await;

    assert_eq!((&record["systemType"], &record["endReason"]), (&json!("openai-realtime"), &json!("caller_hung_up")));
    assert!(record["ringMs"].is_u64() && record["talkMs"].as_u64().is_some_and(|ms| ms > 3000), "{record}");
    let roles: Vec<_> = record["transcript"].as_array().expect("a list").iter().map(|line| &line["role"]).collect();
    assert_eq!(roles, ["caller", "assistant", "caller", "assistant"], "{record}");

    let [tool] = &record["tools"].as_array().expect("a list")[..] else { panic!("one tool: {record}") };
    assert_eq!((&tool["name"], &tool["arguments"]), (&json!("get_slots"), &json!({ "date": "2026-11-23" })));
    assert_eq!((&tool["outcome"], tool["durationMs"].is_u64()), (&json!("ok"), true), "{tool}");
    assert_eq!(tool["result"], "On 2026-11-23 these times are free: 09:00, 11:30, 16:15.");

    costs(&session, &record);
    waited(&record);
    sound(&world, &call, &said.concat(), &scratch).await;
}

/// Tokens by modality are the sum of what the service counted, and the cost is their product with the prices.
fn costs(session: &SessionHandle, record: &Value) {
    let used: Vec<Value> = session.read(|session| {
        let done = session.record().sent.iter().filter(|sent| sent.kind == "response.done");
        done.map(|sent| sent.event["response"]["usage"].clone()).collect()
    });
    let sum = |path: &str| -> u64 { used.iter().filter_map(|usage| usage.pointer(path)?.as_u64()).sum() };
    let cached = "/input_token_details/cached_tokens_details";
    let audio_cached = sum(&format!("{cached}/audio_tokens"));
    let text_cached = sum(&format!("{cached}/text_tokens"));
    let audio_in = sum("/input_token_details/audio_tokens");
    let text_in = sum("/input_token_details/text_tokens");
    let audio_out = sum("/output_token_details/audio_tokens");
    let text_out = sum("/output_token_details/text_tokens");
    assert!(audio_out > 0 && audio_in > 0 && text_in > 0, "{used:?}");
    assert_eq!(record["usage"]["output_token_details"]["audio_tokens"], audio_out);
    assert_eq!(record["usage"]["input_token_details"]["audio_tokens"], audio_in);

    let items = record["cost"]["items"].as_array().expect("a list");
    let item = |what: &str| {
        let name = format!("gpt-realtime-2.1 {what}");
        items
            .iter()
            .find(|item| item["what"] == name.as_str())
            .map_or(0, |item| item["microusd"].as_u64().expect("a number"))
    };
    assert_eq!(item("audio in"), (audio_in - audio_cached) * 31);
    assert_eq!(item("audio out"), audio_out * 67);
    assert_eq!(item("text in"), (text_in - text_cached) * 3);
    assert_eq!(item("text out"), text_out * 23);
    assert_eq!(item("audio in, cached"), audio_cached.div_ceil(2));
    assert!(
        items.iter().any(|item| item["what"].as_str().is_some_and(|what| what.starts_with("gpt-transcribe"))),
        "{record}"
    );
    let total: u64 = items.iter().filter_map(|item| item["microusd"].as_u64()).sum();
    assert_eq!((&record["cost"]["microusd"], &record["cost"]["source"]), (&json!(total), &json!("price-table")));
    assert_eq!(record["cost"]["pricesAsOf"], "2026-11-23");
}

/// Two turns were answered, the second one by a tool and words, and one answer was cut off.
fn waited(record: &Value) {
    let turns = record["turns"].as_array().expect("a list");
    assert_eq!((turns.len(), &record["latency"]["turns"]), (2, &json!(2)), "{record}");
    for turn in turns {
        let (audio, heard) = (turn["firstAudioMs"].as_u64(), turn["firstHeardMs"].as_u64());
        assert!(audio.zip(heard).is_some_and(|(audio, heard)| audio < heard), "{turn}");
    }
    let slowest = turns.iter().filter_map(|turn| turn["firstAudioMs"].as_u64()).max();
    assert_eq!(record["latency"]["maxMs"].as_u64(), slowest);
    assert_eq!(record["interruptions"], 1);
    assert!(record["setupMs"].is_u64(), "{record}");
}

/// The recording holds the caller on the left, and on the right what the caller heard.
async fn sound(world: &World, call: &CallHandle, said: &[u8], scratch: &Scratch) {
    let is_stored = |record: &Value| record["recordings"][0]["state"] == "stored";
    let record = world.tandem.call_when(call.sid().as_str(), is_stored).await.or_tell(call, "no recording");
    let recording = &record["recordings"][0];
    let key = recording["key"].as_str().expect("a key");
    let (left, right) = tracks(&scratch.0.join("store").join(key));
    assert_eq!(recording["durationMs"], left.len() / 8);
    assert_eq!(recording["bytes"], left.len() * 2 + 58);

    assert_eq!(audio::only(CALLER, &left), said, "{}", call.trace_text());
    assert!(audio::only(AGENT_LONG, &left).is_empty() && audio::only(CALLER, &right).is_empty());
    let long = audio::only(AGENT_LONG, &right);
    assert_eq!(long, audio::voice(AGENT_LONG, 6000)[..long.len()]);
    let told = record["transcript"][1]["heardMs"].as_u64().expect("it is known");
    // Both are reckoned from the same messages, a moment apart.
    assert!((long.len() as u64 / 8).abs_diff(told) < 200 && long.len() < 5000 * 8, "{} bytes, {told} ms", long.len());
    assert_eq!(audio::only(AGENT, &right), audio::voice(AGENT, 600), "the last answer was heard whole");
    let at = |voice: u8| right.iter().position(|byte| audio::only(voice, &[*byte]).len() == 1).expect("it is there");
    assert!(at(AGENT_LONG) < at(AGENT));

    let spool = scratch.0.join("spool");
    let deadline = std::time::Instant::now() + LIMIT;
    while std::fs::read_dir(&spool).expect("the spool is there").count() > 0 {
        assert!(std::time::Instant::now() < deadline, "the spool is not emptied");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Both channels of a mu-law file.
fn tracks(path: &Path) -> (Vec<u8>, Vec<u8>) {
    let wav = std::fs::read(path).expect("the recording is where the record says");
    assert_eq!((&wav[..4], &wav[8..12], &wav[20..24]), (&b"RIFF"[..], &b"WAVE"[..], &[7, 0, 2, 0][..]));
    let samples = &wav[58..];
    assert_eq!(u32::from_le_bytes([wav[54], wav[55], wav[56], wav[57]]) as usize, samples.len());
    (samples.iter().step_by(2).copied().collect(), samples.iter().skip(1).step_by(2).copied().collect())
}

/// Neither the call nor its record notices that Postgres is away.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_while_postgres_is_away_is_written_after() {
    let world = World::start(Options { openai: model(), own_postgres: true, ..Options::default() }).await;
    let agents = world.agents([Spec::bridged(), Spec::bridged()]).await;
    let mut calls = Vec::new();
    for agent in &agents {
        let call = world.call(agent, Caller::new().wait_until_agent_quiet());
        let session = world.session(agent, 0).await;
        responses(&session, 1).await;
        calls.push((call, session));
    }

    world.tandem.postgres.stop().await.expect("Postgres stops");
    for (turn, text) in [(2, "We open at nine."), (3, "Until noon.")] {
        for (call, session) in &calls {
            session.push_reply(Reply::speech(audio::clip(AGENT_NEXT, 500, text)));
            call.then(Caller::new().say(audio::voice(CALLER, 500)).wait_until_agent_quiet());
        }
        for (_, session) in &calls {
            responses(session, turn).await;
        }
    }
    // One of them ends meanwhile.
    calls[0].0.then(Caller::new().hang_up());
    let ended = calls[0].0.wait_ended(LIMIT).await.or_tell(&calls[0].0, "the call does not end");
    assert_eq!(ended, EndReason::CallerHungUp);
    // It is away for longer than a connection is waited for.
    let deadline = std::time::Instant::now() + LIMIT;
    while world.tandem.origin.log().matches("calls wait to be written").count() < 2 {
        assert!(std::time::Instant::now() < deadline, "nobody waits\n{}", world.tandem.origin.log_tail());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.tandem.postgres.start_again().await.expect("Postgres starts");
    calls[1].0.then(Caller::new().say(audio::voice(CALLER, 500)).wait_until_agent_quiet().hang_up());
    calls[1].0.wait_ended(LIMIT).await.or_tell(&calls[1].0, "the call does not end");

    for ((call, _), last) in calls.iter().zip([None, Some("At your service.")]) {
        let record = world.tandem.ended_call(call.sid().as_str()).await.or_tell(call, "the record is not complete");
        let told: Vec<_> = record["transcript"].as_array().expect("a list").iter().map(|line| &line["text"]).collect();
        let mut expected = vec!["At your service.", "First words.", "We open at nine.", "Second words.", "Until noon."];
        expected.extend(last.map(|last| ["Third words.", last]).into_iter().flatten());
        assert_eq!(told, expected, "{}", call.trace_text());
        assert_eq!((&record["endReason"], &record["resumes"]), (&json!("caller_hung_up"), &json!(0)));
        let heard = &call.recording().agent;
        assert_eq!(audio::only(AGENT_NEXT, heard).len(), 2 * 500 * 8, "the caller heard both answers");
    }
    assert!(world.metric("tandem_call_records_dropped_total").await < 1.0, "something was dropped");
}

/// What was complete when the origin died is on record; its recording is brought by the next origin.
#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_dies_leaves_what_was_said_and_heard() {
    let scratch = Scratch::new();
    let origin_env = recording_env(&scratch);
    let mut world = World::start(Options { openai: model(), origin_env, ..Options::default() }).await;
    let [agent] = world.agents([Spec::bridged()]).await;
    record_calls_of(&world, &agent).await;
    let call = world.call(&agent, Caller::new().wait_until_agent_quiet());
    let session = world.session(&agent, 0).await;
    responses(&session, 1).await;
    session.push_reply(Reply::speech(audio::clip(AGENT_NEXT, 5000, "We open at nine.")));
    call.then(Caller::new().say(audio::voice(CALLER, 500)));
    // The second answer is all there, and not heard yet.
    responses(&session, 2).await;

    world.tandem.origin.kill().await.expect("the origin is killed");
    let texts: Vec<String> = sqlx::query_scalar(
        "select text from transcript_items join calls on calls.id = call_id where call_sid = $1 order by position",
    )
    .bind(call.sid().as_str())
    .fetch_all(&world.db)
    .await
    .expect("the database is there");
    assert_eq!(texts[..2], ["At your service.", "First words."], "{texts:?}");

    world.tandem.origin.start_again().await.expect("the origin starts again");
    let is_brought = |record: &Value| record["recordings"][0]["state"] == "partial";
    let record =
        world.tandem.call_when(call.sid().as_str(), is_brought).await.or_tell(&call, "no recording is brought");
    let key = record["recordings"][0]["key"].as_str().expect("a key");
    let (left, right) = tracks(&scratch.0.join("store").join(key));
    assert!(!left.is_empty() && left.len() == right.len());
    // Whatever is in it is what was said, as far as it goes.
    assert!(audio::voice(CALLER, 500).starts_with(&audio::only(CALLER, &left)));
    assert!(audio::voice(AGENT, 600).starts_with(&audio::only(AGENT, &right)));
    assert!(audio::only(AGENT_LAST, &right).is_empty());
    call.hang_up();
    call.wait_ended(LIMIT).await.or_tell(&call, "the call does not end");
}
