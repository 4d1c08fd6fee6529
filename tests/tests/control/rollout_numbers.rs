//! Rollouts of numbers at Twilio: what Twilio refuses, loses or asks to wait for, and the way back to exactly what it had.

use serde_json::{Value, json};
use tests::gate::When;
use tests::twilio::{Fault, Number};

use crate::fleet::{Fleet, number};
use crate::harness::eventually;

const EDGE: &str = "https://edge.tandem.test/twilio/voice";

impl Fleet {
    fn voice_url(&self, e164: &str) -> Option<String> {
        self.twilio().number(e164)?.setting("VoiceUrl").map(str::to_owned)
    }

    /// How many numbers come to us.
    async fn at_edge(&self) -> usize {
        self.at_twilio_now().await.as_object().expect("numbers").values().filter(|settings| settings[0] == EDGE).count()
    }
}

/// How many numbers stand so, and why.
fn group<'a>(told: &'a Value, state: &str) -> &'a Value {
    let groups = told["rollout"]["numbers"].as_array().expect("groups");
    groups.iter().find(|group| group["state"] == state).unwrap_or(&Value::Null)
}

#[tokio::test]
async fn one_number_that_fails_stops_no_other_and_the_way_back_is_exact() {
    let fleet = Fleet::at_twilio(6).await;
    let before = fleet.at_twilio_now().await;
    let lost = fleet.twilio().number(&number(2, 1)).expect("it is there");
    fleet.twilio().remove_number(&number(2, 1));
    let id = fleet.plan(&["--percent", "100", "--guard", "off"]).await;
    let _origin = fleet.origin().await;

    let ran = fleet.run(&["start", &id, "--yes", "--json"]).await;

    assert_eq!(ran.code, 1, "{} {}", ran.stdout, ran.stderr);
    let told = ran.json();
    assert_eq!((&told["rollout"]["state"], &told["rollout"]["agents"]["switched"]), (&json!("completed"), &json!(6)));
    assert_eq!((&group(&told, "settled")["numbers"], fleet.at_edge().await), (&json!(17), 17));
    assert_eq!(group(&told, "failed")["errorCode"], "not_in_twilio_account");
    assert_eq!(group(&told, "failed")["examples"], json!([number(2, 1)]));
    assert!(ran.stderr.contains("at Twilio"), "{}", ran.stderr);

    // It is there again, and only that one is tried again.
    fleet.twilio().set_number(lost);
    let requests = fleet.twilio().rest_requests().len();
    let ran = fleet.run(&["start", &id, "--yes"]).await;
    assert_eq!((ran.code, fleet.at_edge().await), (0, 18), "{} {}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("18 numbers settled at Twilio"), "{}", ran.stdout);
    assert!(fleet.twilio().rest_requests().len() - requests <= 3, "{:?}", &fleet.twilio().rest_requests()[requests..]);

    // Somebody changes another one: it is left alone, and told.
    let ours = fleet.twilio().number(&number(4, 2)).expect("it is there");
    fleet.twilio().set_number(Number::new(&number(4, 2)).voice_url("https://them.test/voice"));
    let ran = fleet.run(&["rollback", &id, "--yes", "--json"]).await;
    assert_eq!(ran.code, 1, "{} {}", ran.stdout, ran.stderr);
    assert_eq!(group(&ran.json(), "conflict")["examples"], json!([number(4, 2)]));
    assert_eq!(fleet.voice_url(&number(4, 2)).as_deref(), Some("https://them.test/voice"));
    let mut expected = before.clone();
    expected[number(4, 2)] = fleet.at_twilio_now().await[number(4, 2)].clone();
    assert_eq!(fleet.at_twilio_now().await, expected, "all others are exactly as they were");
    let text = fleet.run(&["status", &id]).await;
    assert!(text.stdout.contains("1 number left alone at Twilio: conflict:"), "{}", text.stdout);
    assert!(text.stdout.contains("Try that again"), "{}", text.stdout);

    fleet.twilio().set_number(ours);
    let ran = fleet.run(&["rollback", &id, "--yes"]).await;
    assert_eq!(ran.code, 0, "{} {}", ran.stdout, ran.stderr);
    assert_eq!(fleet.at_twilio_now().await, before);
}

#[tokio::test]
async fn what_twilio_asks_to_wait_for_is_told_and_waited_for() {
    let fleet = Fleet::at_twilio(3).await;
    let id = fleet.plan(&["--percent", "100", "--guard", "off"]).await;
    fleet.twilio().fail_next(4, Fault::ServerError);
    fleet.twilio().fail_next(1, Fault::TooManyRequests);
    let _origin = fleet.origin().await;
    fleet.run(&["start", &id, "--yes", "--wait", "0"]).await;

    let told = eventually("somebody waits", async || {
        let told = fleet.run(&["status", &id, "--json"]).await.json();
        let waits = group(&told, "pending");
        waits["errorCode"].is_string().then(|| waits.clone())
    })
    .await;

    assert!(["twilio_refused", "twilio_rate_limited"].contains(&told["errorCode"].as_str().expect("a code")), "{told}");
    assert!(told["nextAttemptSeconds"].is_number(), "{told}");
    let done = fleet.run(&["start", &id, "--yes"]).await;
    assert_eq!((done.code, fleet.at_edge().await), (0, 9), "{} {}", done.stdout, done.stderr);
}

#[tokio::test]
async fn numbers_do_not_wait_for_one_that_twilio_is_slow_with() {
    let fleet = Fleet::at_twilio(2).await;
    let mut ids = Vec::new();
    for agent in ["Agent 1", "Agent 2"] {
        let id = fleet.value(&format!("select to_jsonb(id) from agents where name = '{agent}'")).await;
        let plan = fleet.run(&["plan", "--agent", id.as_str().expect("an id"), "--guard", "off", "--json"]).await;
        ids.push(plan.json()["id"].as_str().expect("an id").to_owned());
    }
    let _origin = fleet.origin().await;
    let slow = fleet.twilio().hold(When::Before, "GET", "IncomingPhoneNumbers");
    fleet.run(&["start", &ids[0], "--wait", "0"]).await;
    slow.reached().await;
    let settled = "from pointings where state = 'settled'";
    eventually("two are settled", async || (fleet.count(settled).await == 2).then_some(())).await;

    fleet.run(&["start", &ids[1], "--wait", "0"]).await;

    eventually("three more are settled", async || (fleet.count(settled).await == 5).then_some(())).await;
    assert_eq!(fleet.count("from pointings where attempts > 0").await, 0, "the slow one was not given up yet");
    drop(slow);
    let done = fleet.run(&["start", &ids[0]]).await;
    assert_eq!((done.code, fleet.at_edge().await), (0, 6), "{}", done.stdout);
}

#[tokio::test]
async fn killed_while_twilio_is_told_it_converges_both_ways() {
    let fleet = Fleet::at_twilio(60).await;
    let before = fleet.at_twilio_now().await;
    let id = fleet.plan(&["--percent", "100", "--guard", "off"]).await;
    let mut origin = fleet.origin().await;
    for (command, all) in [("start", 180), ("rollback", 0)] {
        fleet.run(&[command, &id, "--yes", "--wait", "0"]).await;
        eventually("Twilio is told of some", async || {
            let at = fleet.at_edge().await;
            at.abs_diff(180 - all).gt(&10).then_some(())
        })
        .await;
        fleet.kill(&mut origin).await;
        assert_ne!(fleet.at_edge().await, all, "it was killed in the middle");

        origin.start_again().await.expect("an origin");

        eventually("the rollout is done", async || {
            let working = "from rollouts where state in ('running', 'rolling_back')";
            (fleet.count(working).await == 0).then_some(())
        })
        .await;
        let done = fleet.run(&["status", &id]).await;
        assert_eq!((done.code, fleet.at_edge().await), (0, all), "{}", done.stdout);
    }
    assert_eq!(fleet.at_twilio_now().await, before);
}
