//! A purchase whose origin is killed, by `kill -9`, at each of its steps: another origin brings it to its end, once.

use serde_json::{Value, json};
use tests::gate::{Held, When};
use tests::stack;

use crate::harness::eventually;
use crate::pointing::World;

const EDGE_VOICE: &str = "https://edge.tandem.test/twilio/voice";
const VAPI_VOICE: &str = "https://api.vapi.ai/twilio/inbound_call";
const NUMBERS: &str = "IncomingPhoneNumbers.json";
const NUMBER: &str = "IncomingPhoneNumbers/";

/// Where the origin is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The intent is kept; Twilio is being asked whether the account has the number.
    Intended,
    /// It is noted that Twilio is asked to sell it, which Twilio does not get to know.
    Asked,
    /// Twilio has sold it and is about to say so.
    Sold,
    /// The number has its record; Twilio is being asked how it stands there.
    Recorded,
    /// Vapi is being asked to take it.
    Importing,
    /// Vapi is in the middle of it, and is done just before the next origin's own request.
    HalfImported,
    /// Vapi has it and is about to say so.
    Imported,
    /// Vapi has said so; Twilio is being asked what that has changed there.
    ReadBack,
}

impl Step {
    /// Holds the request at which the origin is killed.
    async fn hold(self, world: &World) -> Held {
        let World { twilio, vapi, .. } = world;
        match self {
            Self::Intended => twilio.hold(When::Before, "GET", NUMBERS),
            Self::Asked => twilio.hold(When::Before, "POST", NUMBERS),
            Self::Sold => twilio.hold(When::After, "POST", NUMBERS),
            Self::Recorded => twilio.hold(When::Before, "GET", NUMBER),
            Self::Importing => vapi.hold(When::Before, "POST", "/phone-number"),
            Self::HalfImported => twilio.hold(When::After, "POST", NUMBER),
            Self::Imported => vapi.hold(When::After, "POST", "/phone-number"),
            Self::ReadBack => {
                let imported = vapi.hold(When::After, "POST", "/phone-number");
                imported.reached().await;
                twilio.hold(When::Before, "GET", NUMBER)
            }
        }
    }

    /// What can be seen while the request is held: the purchase, and the number if there is one.
    fn is_seen(self, purchase: &Value, number: Option<&Value>) -> bool {
        let bought = self != Self::Intended && self != Self::Asked && self != Self::Sold;
        let asked = purchase["askedAt"].is_string();
        if !bought {
            return purchase["state"] == "intended" && asked == (self != Self::Intended) && number.is_none();
        }
        let Some(number) = number else { return false };
        let importing = self != Self::Recorded;
        purchase["state"] == "bought"
            && purchase["numberId"] == number["id"]
            && number["pointing"]["state"] == "pending"
            && number["pointing"]["vapiAsked"] == importing
            && number["vapiPhoneNumberId"].is_string() == (self == Self::ReadBack)
    }
}

/// An origin that carries out what another one began, at once: otherwise it waits, for minutes, until that one's claims
/// have run out.
async fn another(world: &World) -> stack::origin::Origin {
    let forget = "update purchases set claimed_until = null; update pointings set claimed_until = null;
                  update graphile_worker._private_workers set last_heartbeat_at = now() - interval '1 hour'";
    sqlx::raw_sql(forget).execute(&world.origin.app.db).await.expect("the claims run out");
    world.origin.process().await
}

async fn shown(world: &World, e164: &str) -> Vec<Value> {
    let list = world.origin.get(&world.origin.key, "/api/numbers").await.body;
    list["items"].as_array().expect("a list").iter().filter(|item| item["number"] == e164).cloned().collect()
}

async fn events(world: &World, number: &Value) -> Vec<String> {
    let path = format!("/api/events?limit=200&numberId={}", number["id"].as_str().expect("an id"));
    let events = world.origin.get(&world.origin.key, &path).await.body;
    let items = events["items"].as_array().expect("a list").iter();
    items.rev().filter_map(|event| event["type"].as_str().map(str::to_owned)).collect()
}

/// Buys a number over the API of an origin that is killed at `step`.
async fn buy(world: &World, e164: &str, agent: &shared::AgentId, step: Step) {
    let origin = &world.origin;
    let mut doomed = origin.process().await;
    let buying = async {
        let url = format!("{}/api/numbers", doomed.base_url());
        let request = reqwest::Client::new().post(url).bearer_auth(&origin.key);
        let answer = request.json(&json!({ "number": e164, "agentId": agent })).send().await.expect("an answer");
        assert_eq!(answer.status(), 202);
        answer.headers()["location"].to_str().expect("a path").to_owned()
    };
    let (held, purchase) = if step == Step::ReadBack {
        tokio::join!(step.hold(world), buying)
    } else {
        let held = step.hold(world).await;
        (held, buying.await)
    };
    held.reached().await;
    let read = async || origin.get(&origin.key, &purchase).await.body;
    let seen = (read().await, shown(world, e164).await);
    assert!(step.is_seen(&seen.0, seen.1.first()), "{step:?}: {seen:?}");

    doomed.kill().await.expect("it is dead");
    let overtaken = (step == Step::HalfImported).then(|| world.vapi.hold(When::Before, "POST", "/phone-number"));
    let _next = another(world).await;
    if let Some(second) = overtaken {
        second.reached().await;
        drop(held);
        eventually("Vapi is done", async || {
            world.vapi.numbers().iter().any(|known| known["number"] == e164).then_some(())
        })
        .await;
    }
    let number = eventually("the number settles", async || {
        shown(world, e164).await.into_iter().find(|number| number["pointing"]["state"] == "settled")
    })
    .await;

    let done = read().await;
    assert_eq!((&done["state"], &done["numberId"]), (&json!("bought"), &number["id"]), "{step:?}");
    assert_eq!(shown(world, e164).await.len(), 1, "{step:?}: one record");
    assert_eq!(number["agentId"], json!(agent));
    assert_eq!(number["pointing"]["vapiAsked"], false);
}

/// How many numbers Twilio has sold, and how many Vapi has taken in.
fn totals(world: &World) -> (usize, usize) {
    let sold = world.twilio.rest_requests().into_iter();
    let sold = sold.filter(|one| one.method == "POST" && one.path == NUMBERS && one.status == 201).count();
    let taken = world.vapi.numbers();
    (sold, taken.iter().filter(|number| number["number"] != "+15550100001").count())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_killed_at_any_step_of_buying_for_the_bridge_neither_buys_twice_nor_loses_the_number() {
    let world = World::start().await;
    for (n, step) in [Step::Intended, Step::Asked, Step::Sold, Step::Recorded].into_iter().enumerate() {
        let e164 = format!("+1415555012{}", n + 1);

        buy(&world, &e164, &world.origin.night_line, step).await;

        assert_eq!(totals(&world), (n + 1, 0), "{step:?}");
        let number = shown(&world, &e164).await.remove(0);
        assert_eq!((&number["systemType"], &number["pointing"]["place"]), (&json!("openai-realtime"), &json!("edge")));
        let at_twilio = world.twilio.number(&e164).expect("it is ours");
        assert_eq!(at_twilio.setting("VoiceUrl"), Some(EDGE_VOICE));
        assert_eq!(at_twilio.setting("VoiceFallbackUrl"), Some("https://origin.tandem.test/twilio/voice"));
        assert_eq!(at_twilio.setting("StatusCallback"), Some("https://edge.tandem.test/twilio/status"));
        assert_eq!(events(&world, &number).await, ["number.bought"], "{step:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_killed_at_any_step_of_buying_for_vapi_neither_buys_nor_imports_twice() {
    let world = World::start().await;
    let steps = [
        Step::Intended,
        Step::Asked,
        Step::Sold,
        Step::Recorded,
        Step::Importing,
        Step::HalfImported,
        Step::Imported,
        Step::ReadBack,
    ];
    for (n, step) in steps.into_iter().enumerate() {
        let e164 = format!("+1415555012{}", n + 1);

        buy(&world, &e164, &world.origin.reception, step).await;

        assert_eq!(totals(&world), (n + 1, n + 1), "{step:?}");
        let number = shown(&world, &e164).await.remove(0);
        assert_eq!((&number["systemType"], &number["pointing"]["place"]), (&json!("vapi"), &json!("vapi")));
        let at_twilio = world.twilio.number(&e164).expect("it is ours");
        assert_eq!(at_twilio.setting("VoiceUrl"), Some(VAPI_VOICE));
        assert_eq!(number["pointing"]["remembered"], number["pointing"]["found"]);
        assert_eq!(number["pointing"]["remembered"]["voiceUrl"], VAPI_VOICE);
        let known = world.vapi.numbers().into_iter().find(|known| known["number"] == e164).expect("Vapi knows it");
        assert_eq!((&known["id"], &known["assistantId"]), (&number["vapiPhoneNumberId"], &json!("assistant-1")));
        assert_eq!(known["server"]["url"], "https://edge.tandem.test/api/vapi/webhook");
        assert_eq!(events(&world, &number).await, ["number.bought", "number.imported_to_vapi"], "{step:?}");
    }
}
