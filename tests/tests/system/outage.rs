//! Postgres away under live calls: one talks on and uses a tool, another loses its stream meanwhile. Neither is lost, and
//! everything is on record afterwards, in order.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::openai::{RealtimeOptions, Reply};
use tests::stack::link::Link;
use tests::tandem::{Options, STREAM_URL};
use tests::twilio::{Caller, EndReason, What};
use tokio::time::sleep_until;

use crate::audio::{self, AGENT_LAST, CALLER};
use crate::survival::{greeted, report_pause, roles_and_texts, told, turn, waits_ms};
use crate::tools::add_tool;
use crate::world::{LIMIT, OrTell, Spec, World, model};

/// The caller who is not held says something so often.
const BETWEEN_TURNS: Duration = Duration::from_secs(4);

/// How long Postgres is away. Another length is for trying things out.
fn outage() -> Duration {
    let seconds = std::env::var("OUTAGE_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(60))
}
const FREE: &str = "On 2026-11-23 these times are free: 09:00, 11:30, 16:15.";

#[tokio::test(flavor = "multi_thread")]
async fn calls_outlive_postgres() {
    let openai = RealtimeOptions { caller_texts: (1..100).map(asked).collect(), ..model() };
    let world = World::start(Options { openai, own_postgres: true, ..Options::default() }).await;
    let [talking, losing] = world.agents([Spec::bridged(); 2]).await;
    add_tool(&world, &talking, "get_slots", &world.tandem.tools.url(), 5000).await;
    let (talker, its_session) = greeted(&world, &talking).await;
    let door = Link::start(world.tandem.origin.address()).await.expect("a port is free");
    world.tandem.hosts.map(STREAM_URL, &door.base_url());
    let (loser, first) = greeted(&world, &losing).await;
    turn(&loser, &first, 2, "We open at nine.").await;

    world.tandem.postgres.stop().await.expect("Postgres stops");
    let back_at = Instant::now() + outage();
    turn(&loser, &first, 3, "Until noon.").await;
    its_session.push_reply(Reply::tool_call("get_slots", &json!({ "date": "2026-11-23" })));
    // The function call is a response of its own.
    turn(&talker, &its_session, 3, "At nine or later.").await;
    door.cut().await.expect("the door lives");
    let mut said = vec!["You are welcome.".to_owned()];
    turn(&talker, &its_session, 4, &said[0]).await;
    let asks_on = |what: &What| matches!(what, What::Webhook { url, .. } if url.ends_with("/twilio/resume?attempt=4"));
    loser.wait_for(LIMIT, asks_on).await.or_tell(&loser, "the caller is not held");
    // The other call talks on until the end of it.
    while Instant::now() < back_at {
        said.push(format!("And {} more.", said.len()));
        turn(&talker, &its_session, 3 + said.len(), said.last().expect("it was pushed")).await;
        sleep_until(back_at.min(Instant::now() + BETWEEN_TURNS).into()).await;
    }
    world.tandem.postgres.start_again().await.expect("Postgres starts");
    let back = Instant::now();

    let second = world.session(&losing, 1).await;
    report_pause("Postgres gone and a stream lost, since Postgres is back", back);
    let (agent, user) = ("assistant", "user");
    let past = [
        (agent, "At your service."),
        (user, "Words 1."),
        (agent, "We open at nine."),
        (user, "Words 2."),
        (agent, "Until noon."),
    ];
    let past = past.map(|(role, text)| (role.to_owned(), text.to_owned()));
    second.push_reply(Reply::speech(audio::clip(AGENT_LAST, 500, "Of course.")));
    loser.then(Caller::new().say(audio::voice(CALLER, 500)).wait_until_agent_quiet().hang_up());
    let lost = world.over(&loser, EndReason::CallerHungUp).await;
    assert_eq!(roles_and_texts(&second), past, "what was said during the outage is not lost");
    talker.then(Caller::new().hang_up());
    let kept = world.over(&talker, EndReason::CallerHungUp).await;

    let mut lines: Vec<_> = past.iter().map(|(_, text)| text.as_str()).collect();
    lines.extend(["Words 1.", "Of course."]);
    assert_eq!(told(&lost), lines, "{}", loser.trace_text());
    assert_eq!((&lost["resumes"], &lost["endReason"]), (&json!(1), &json!("caller_hung_up")));
    let heard = loser.recording().agent;
    assert_eq!(audio::only(AGENT_LAST, &heard).len(), 500 * 8, "answered after it\n{}", loser.trace_text());
    assert!(loser.said().iter().all(|said| said == "One moment, please."), "{:?}", loser.said());

    let mut lines = ["At your service.", "Words 1.", "At nine or later."].map(str::to_owned).to_vec();
    lines.extend((2..).zip(&said).flat_map(|(number, answer)| [asked(number), answer.clone()]));
    assert_eq!(told(&kept), lines, "in order\n{}", talker.trace_text());
    let [with_tool, others @ ..] = &waits_ms(&talker)[..] else { panic!("nothing was asked") };
    let longest = others.iter().max().expect("it went on asking");
    println!("PAUSE Postgres gone, longest wait for an answer: {longest} ms");
    println!("PAUSE Postgres gone, wait for an answer that takes a tool: {with_tool} ms");
    assert_eq!((&kept["resumes"], talker.streams().len()), (&json!(0), 1));
    let [tool] = &kept["tools"].as_array().expect("a list")[..] else { panic!("one tool: {kept}") };
    assert_eq!((&tool["outcome"], &tool["result"]), (&json!("ok"), &json!(FREE)));
    assert_eq!(world.tandem.tools.requests().all().len(), 1, "the tool ran once");
    assert!(world.metric("tandem_call_records_dropped_total").await < 1.0, "something was dropped");
}

/// What a caller says in the turn with this number, as a session understands it.
fn asked(number: usize) -> String {
    format!("Words {number}.")
}
