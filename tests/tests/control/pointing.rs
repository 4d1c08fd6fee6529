//! Where Twilio sends a number's calls follows the agent's system, there and back, whatever goes wrong in between.

use origin::numbers::drift::{self, Findings};
use origin::numbers::pointing;
use origin::store::events::Actor;
use serde_json::{Value, json};
use shared::{E164, NumberId};
use sqlx::query_scalar;
use tests::hosts::Hosts;
use tests::twilio::{Fault, Number, Twilio, TwilioOptions};
use tests::vapi::{Vapi, VapiOptions};
use uuid::Uuid;

use crate::harness::{Origin, eventually};

const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const NUMBER: &str = "+15550100001";
const EDGE_VOICE: &str = "https://edge.tandem.test/twilio/voice";
const VAPI_VOICE: &str = "https://api.vapi.ai/twilio/inbound_call";
/// All settings that decide about a call.
const SETTINGS: [&str; 8] = [
    "VoiceUrl",
    "VoiceMethod",
    "VoiceFallbackUrl",
    "VoiceFallbackMethod",
    "StatusCallback",
    "StatusCallbackMethod",
    "VoiceApplicationSid",
    "TrunkSid",
];

/// An origin between a Twilio and a Vapi, whose reception's number goes straight to Vapi.
pub(crate) struct World {
    pub(crate) origin: Origin,
    pub(crate) twilio: Twilio,
    pub(crate) vapi: Vapi,
    pub(crate) number: NumberId,
}

impl World {
    /// Without Cloudflare: nothing replicates.
    pub(crate) async fn start() -> Self {
        Self::with(Vec::new()).await
    }

    /// With these variables of the origin beside those for Twilio and Vapi.
    pub(crate) async fn with(more: Vec<(&'static str, String)>) -> Self {
        let hosts = Hosts::default();
        let twilio = Twilio::start(TwilioOptions::new(ACCOUNT, TOKEN, hosts.clone())).await.expect("a port");
        let options = VapiOptions { twilio_api_url: Some(twilio.api_url()), ..VapiOptions::new("vapi-key", hosts) };
        let vapi = Vapi::start(options).await.expect("a port");
        let mut variables = vec![
            ("TWILIO_ACCOUNT_SID", ACCOUNT.to_owned()),
            ("TWILIO_AUTH_TOKEN", TOKEN.to_owned()),
            ("TWILIO_API_URL", twilio.api_url()),
            ("VAPI_API_KEY", "vapi-key".to_owned()),
            ("VAPI_API_URL", vapi.api_url()),
        ];
        variables.extend(more);
        let origin = Origin::with(variables).await;
        vapi.add_assistant(json!({ "id": "assistant-1", "name": "Reception" }));
        vapi.add_number(json!({
            "id": "number-1", "provider": "twilio", "number": NUMBER, "twilioAccountSid": ACCOUNT,
            "twilioAuthToken": TOKEN, "assistantId": "assistant-1", "server": { "url": "https://own.test/vapi" },
        }));
        let set = "update phone_numbers set vapi_handover = 'none' where number = $1 returning id";
        let id: Uuid = query_scalar(set).bind(NUMBER).fetch_one(&origin.app.db).await.expect("the number");
        // The other seeded number is not at this Twilio.
        sqlx::query("delete from pointings").execute(&origin.app.db).await.expect("nothing is to be done yet");
        twilio.set_number(at_vapi());
        Self { origin, twilio, vapi, number: NumberId(id) }
    }

    pub(crate) async fn switch(&self, target: &str) {
        let answer = self.origin.switch(self.origin.reception, target).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    /// The number as the API shows it.
    pub(crate) async fn shown(&self) -> Value {
        let list = self.origin.get(&self.origin.key, "/api/numbers").await.body;
        let items = list["items"].as_array().expect("a list");
        items.iter().find(|item| item["number"] == NUMBER).expect("the number").clone()
    }

    /// Waits until the pointing is in this state.
    pub(crate) async fn becomes(&self, state: &str) -> Value {
        eventually(state, async || {
            let pointing = self.shown().await["pointing"].clone();
            (pointing["state"] == state).then_some(pointing)
        })
        .await
    }

    pub(crate) fn settings(&self) -> Vec<Option<String>> {
        settings(&self.twilio.number(NUMBER).expect("it is in the account"))
    }

    async fn events(&self) -> Vec<String> {
        let events = self.origin.events(self.origin.reception).await;
        events.iter().map(|event| event["type"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

/// As its owner has set it up: not only what Vapi itself sets.
fn at_vapi() -> Number {
    Number::new(NUMBER)
        .voice_url(VAPI_VOICE)
        .fallback_url("https://own.test/fallback")
        .with("VoiceFallbackMethod", "GET")
        .status_callback("https://api.vapi.ai/twilio/status")
        .with("SmsUrl", "https://own.test/sms")
}

fn settings(number: &Number) -> Vec<Option<String>> {
    SETTINGS.map(|name| number.setting(name).map(str::to_owned)).to_vec()
}

fn voice_url(world: &World) -> Option<String> {
    world.settings()[0].clone()
}

#[tokio::test]
async fn twilio_follows_the_switch_and_gets_back_exactly_what_it_had() {
    let world = World::start().await;
    let jobs = world.origin.run_jobs();
    let before = world.settings();

    world.switch("openai-realtime").await;
    let pointing = world.becomes("settled").await;

    assert_eq!((&pointing["place"], &pointing["attempts"]), (&json!("edge"), &json!(0)));
    let post = || Some("POST".to_owned());
    let url = |text: &str| Some(text.to_owned());
    let edge = vec![
        url(EDGE_VOICE),
        post(),
        url("https://origin.tandem.test/twilio/voice"),
        post(),
        url("https://edge.tandem.test/twilio/status"),
        post(),
        None,
        None,
    ];
    assert_eq!(world.settings(), edge);

    world.switch("vapi").await;
    let back = eventually("it is back", async || {
        let pointing = world.becomes("settled").await;
        (pointing["place"] == "vapi").then_some(pointing)
    })
    .await;
    assert_eq!(world.settings(), before);
    assert_eq!(back["remembered"], back["found"]);
    assert_eq!(world.twilio.number(NUMBER).expect("it is there").setting("SmsUrl"), Some("https://own.test/sms"));
    let writes = world.vapi.requests().all();
    assert!(writes.iter().all(|request| request.method == "GET"), "nothing was to be changed at Vapi: {writes:?}");
    let switched = "agent.system_type_changed";
    assert_eq!(world.events().await, [switched, "number.pointed", switched, "number.pointed"]);
    jobs.abort();
}

#[tokio::test]
async fn an_application_or_a_trunk_is_taken_away_and_restored() {
    for (setting, sid) in [("VoiceApplicationSid", "AP1"), ("TrunkSid", "TK1")] {
        let world = World::start().await;
        let jobs = world.origin.run_jobs();
        world.twilio.set_number(at_vapi().with(setting, sid));
        let before = world.settings();
        world.switch("openai-realtime").await;
        world.becomes("settled").await;
        assert_eq!(world.twilio.number(NUMBER).expect("it is there").setting(setting), None);
        world.switch("vapi").await;
        eventually("it is back", async || (world.settings() == before).then_some(())).await;
        world.becomes("settled").await;
        jobs.abort();
    }
}

#[tokio::test]
async fn what_somebody_else_has_changed_is_not_overwritten_unless_told_to() {
    let world = World::start().await;
    let jobs = world.origin.run_jobs();
    world.switch("openai-realtime").await;
    world.becomes("settled").await;
    let theirs = Number::new(NUMBER).voice_url("https://them.test/voice");
    world.twilio.set_number(theirs.clone());

    world.switch("vapi").await;
    let conflict = world.becomes("conflict").await;

    assert_eq!(conflict["error"]["code"], "conflict");
    assert_eq!(conflict["found"]["voiceUrl"], "https://them.test/voice");
    assert_eq!(conflict["remembered"]["voiceUrl"], VAPI_VOICE);
    assert_eq!(world.settings(), settings(&theirs));
    // Asking again changes nothing about it.
    let mut conn = world.origin.app.db.acquire().await.expect("a connection");
    assert!(
        pointing::retry(&mut conn, world.number, false, &Actor::Command("test")).await.expect("it can be asked again")
    );
    eventually("it was tried", async || (world.shown().await["pointing"]["attempts"] == 1).then_some(())).await;
    world.becomes("conflict").await;
    assert_eq!(world.settings(), settings(&theirs));

    assert!(
        pointing::retry(&mut conn, world.number, true, &Actor::Command("test")).await.expect("it can be overwritten")
    );
    world.becomes("settled").await;
    assert_eq!(world.settings(), settings(&at_vapi()));
    jobs.abort();
}

/// What the check finds; it reads only.
async fn check(world: &World) -> Findings {
    let changes = || {
        let twilio = world.twilio.rest_requests().iter().filter(|one| one.method != "GET").count();
        let vapi = world.vapi.requests().all().iter().filter(|one| one.method != "GET").count();
        (twilio, vapi)
    };
    let before = changes();
    let findings = drift::check(&world.origin.app).await.expect("both answer");
    assert_eq!(changes(), before, "looking changes nothing");
    let differences: Vec<Value> = findings.drifting.iter().flat_map(|one| one.differences.clone()).collect();
    let shown = world.shown().await["pointing"].clone();
    assert_eq!((&shown["drift"], shown["checkedAt"].is_string()), (&json!(differences), true));
    findings
}

#[tokio::test]
async fn drift_at_twilio_is_found_and_shown_on_the_number() {
    let world = World::start().await;
    let jobs = world.origin.run_jobs();
    world.switch("openai-realtime").await;
    assert_eq!(world.becomes("settled").await["drift"], json!(null));
    let to_edge = |number: &str| {
        let number = Number::new(number).voice_url(EDGE_VOICE).fallback_url("https://origin.tandem.test/twilio/voice");
        number.status_callback("https://edge.tandem.test/twilio/status")
    };
    // The night line's, which nobody ever told Twilio about: it has a record.
    world.twilio.set_number(to_edge("+15550100002"));
    let clean = check(&world).await;
    assert_eq!((clean.checked, clean.drifting.len(), clean.unknown.len()), (1, 0, 0), "{clean:?}");

    world.twilio.set_number(Number::new(NUMBER).voice_url("https://them.test/voice"));
    world.vapi.remove_number("number-1");
    world.twilio.set_number(to_edge("+15550100009"));
    let found = check(&world).await;
    let [drifting] = &found.drifting[..] else { panic!("one number drifts: {found:?}") };
    let words: Vec<&Value> = drifting.differences.iter().map(|difference| &difference["what"]).collect();
    assert_eq!(words, ["twilio", "missing_at_vapi"]);
    assert_eq!(drifting.differences[0]["expected"]["voiceUrl"], EDGE_VOICE);
    assert_eq!(drifting.differences[0]["found"]["voiceUrl"], "https://them.test/voice");
    assert_eq!(found.unknown.iter().map(E164::as_str).collect::<Vec<_>>(), ["+15550100009"]);
    assert_eq!(voice_url(&world).as_deref(), Some("https://them.test/voice"));

    world.twilio.remove_number(NUMBER);
    assert_eq!(check(&world).await.drifting[0].differences[0]["what"], "missing_at_twilio");
    jobs.abort();
}

#[tokio::test]
async fn drift_at_vapi_is_found_and_shown_on_the_number() {
    let world = World::start().await;
    let jobs = world.origin.run_jobs();
    for (system, place) in [("openai-realtime", "edge"), ("vapi", "vapi")] {
        world.switch(system).await;
        assert_eq!(world.becomes("settled").await["place"], place);
    }
    assert_eq!(check(&world).await.drifting.len(), 0);

    let theirs = json!({
        "id": "number-1", "provider": "twilio", "number": NUMBER, "twilioAccountSid": ACCOUNT,
        "twilioAuthToken": TOKEN, "assistantId": "assistant-2",
    });
    world.vapi.remove_number("number-1");
    world.vapi.add_number(theirs);
    let found = check(&world).await;
    let expected = json!([{ "what": "vapi_assistant", "expected": "assistant-1", "found": "assistant-2" }]);
    assert_eq!(json!(found.drifting[0].differences), expected);
    jobs.abort();
}

#[tokio::test]
async fn faults_that_pass_are_waited_for_and_shown() {
    let world = World::start().await;
    world.twilio.fail_next(1, Fault::ServerError);
    world.twilio.fail_next(1, Fault::TooManyRequests);
    world.twilio.fail_next(1, Fault::BadGateway);
    let jobs = world.origin.run_jobs();
    world.switch("openai-realtime").await;
    let tried = eventually("it was tried", async || {
        let pointing = world.shown().await["pointing"].clone();
        (pointing["attempts"] == 1).then_some(pointing)
    })
    .await;
    assert_eq!((&tried["state"], &tried["error"]["code"]), (&json!("pending"), &json!("twilio_refused")));
    assert!(tried["error"]["detail"].as_str().is_some_and(|text| text.contains("20500")), "{tried}");
    let settled = world.becomes("settled").await;
    assert_eq!((&settled["attempts"], &settled["error"]), (&json!(3), &Value::Null));
    assert_eq!(voice_url(&world).as_deref(), Some(EDGE_VOICE));
    jobs.abort();
}

#[tokio::test]
async fn a_number_that_the_account_has_lost_fails_alone_and_can_be_asked_for_again() {
    let world = World::start().await;
    world.twilio.remove_number(NUMBER);
    let jobs = world.origin.run_jobs();
    world.switch("openai-realtime").await;
    let failed = world.becomes("failed").await;
    assert_eq!(failed["error"]["code"], "not_in_twilio_account");
    assert!(world.events().await.contains(&"number.pointing_failed".to_owned()));

    world.twilio.set_number(at_vapi());
    let mut conn = world.origin.app.db.acquire().await.expect("a connection");
    pointing::retry(&mut conn, world.number, false, &Actor::Command("test")).await.expect("it can be asked again");
    world.becomes("settled").await;
    assert_eq!(voice_url(&world).as_deref(), Some(EDGE_VOICE));
    jobs.abort();
}

#[tokio::test]
async fn a_request_that_took_effect_before_the_origin_died_is_no_conflict() {
    let world = World::start().await;
    let before = world.settings();
    let jobs = world.origin.run_jobs();
    world.twilio.fail_next(1, Fault::LostAnswer);
    world.switch("openai-realtime").await;
    eventually("the lost request took effect", async || {
        (voice_url(&world).as_deref() == Some(EDGE_VOICE)).then_some(())
    })
    .await;
    jobs.abort();
    let free = "update pointings set claimed_until = null";
    sqlx::query(free).execute(&world.origin.app.db).await.expect("the claim runs out");
    world.switch("vapi").await;
    origin::numbers::pointing::job::run(&world.origin.app).await.expect("another origin goes on");
    assert_eq!(world.shown().await["pointing"]["state"], "settled");
    assert_eq!(world.settings(), before);
    // What nobody was answered is in the log all the same, once.
    let events = world.origin.events(world.origin.reception).await;
    let pointed: Vec<_> = events.iter().filter(|event| event["type"] == "number.pointed").collect();
    let [there, back] = pointed[..] else { panic!("there and back: {events:?}") };
    assert_eq!((&there["before"]["voiceUrl"], &there["after"]["voiceUrl"]), (&json!(VAPI_VOICE), &json!(EDGE_VOICE)));
    assert_eq!((&back["before"], &back["after"]), (&there["after"], &there["before"]));
}

#[tokio::test]
async fn a_number_that_vapi_does_not_know_is_imported_with_assistant_and_server() {
    let world = World::start().await;
    let jobs = world.origin.run_jobs();
    world.switch("openai-realtime").await;
    world.becomes("settled").await;
    // As if it had been bought for the bridge.
    sqlx::query("update pointings set remembered = null").execute(&world.origin.app.db).await.expect("a change");
    sqlx::query("update phone_numbers set vapi_phone_number_id = null where number = $1")
        .bind(NUMBER)
        .execute(&world.origin.app.db)
        .await
        .expect("a change");
    world.vapi.remove_number("number-1");

    world.switch("vapi").await;
    eventually("it is at Vapi", async || (voice_url(&world).as_deref() == Some(VAPI_VOICE)).then_some(())).await;
    let settled = world.becomes("settled").await;

    assert_eq!(settled["remembered"]["voiceUrl"], VAPI_VOICE);
    let requests = world.vapi.requests().all();
    let imports: Vec<_> = requests.iter().filter(|request| request.method == "POST").collect();
    let [import] = &imports[..] else { panic!("one import: {requests:?}") };
    assert_eq!(import.body["assistantId"], "assistant-1");
    assert_eq!(import.body["server"]["url"], "https://edge.tandem.test/api/vapi/webhook");
    assert!(world.shown().await["vapiPhoneNumberId"].is_string());
    assert_eq!(world.twilio.number(NUMBER).expect("it is there").setting("SmsUrl"), Some("https://own.test/sms"));
    jobs.abort();
}
