//! What a plan or a dry run says of numbers at Twilio is what happens to them there.

use serde_json::{Map, Value, json};
use tests::twilio::Number;

use crate::fleet::{Fleet, number};

const EDGE: &str = "https://edge.tandem.test/twilio/voice";

/// Settings of the API in the form of [`Fleet::at_twilio_now`].
fn as_at_twilio(settings: &Value) -> Value {
    json!([
        settings["voiceUrl"],
        settings["voiceMethod"],
        settings["voiceFallbackUrl"],
        settings["voiceFallbackMethod"],
        settings["statusCallback"]
    ])
}

/// Without the methods of URLs that are not there, which mean nothing.
fn meaningful(settings: &Value) -> Value {
    let mut settings = settings.clone();
    for (url, method) in [(0, 1), (2, 3)] {
        if settings[url].is_null() {
            settings[method] = Value::Null;
        }
    }
    settings
}

/// What was said of each number.
fn told(agents: &Value) -> Map<String, Value> {
    let agents = agents.as_array().expect("agents");
    let numbers = agents.iter().flat_map(|agent| agent["atTwilio"].as_array().expect("numbers"));
    numbers.map(|number| (number["number"].as_str().expect("a number").to_owned(), number.clone())).collect()
}

/// What Twilio should have afterwards, if what was said is true.
fn foretold(before: &Value, told: &Map<String, Value>) -> Value {
    let mut after = before.clone();
    for (number, change) in told {
        if change["change"] == "set" {
            after[number] = as_at_twilio(&change["wanted"]);
        }
    }
    all_meaningful(&after)
}

fn all_meaningful(numbers: &Value) -> Value {
    let numbers = numbers.as_object().expect("numbers");
    numbers.iter().map(|(number, settings)| (number.clone(), meaningful(settings))).collect::<Map<_, _>>().into()
}

#[tokio::test]
async fn what_is_foretold_of_numbers_at_twilio_is_what_happens_there() {
    let fleet = Fleet::at_twilio(5).await;
    // Twilio is not told about this one.
    let bypassed = number(2, 1);
    fleet.execute(&format!("update phone_numbers set vapi_handover = 'bypass' where number = '{bypassed}'")).await;
    let _origin = fleet.origin().await;

    // Nobody has asked Twilio yet.
    let plan = fleet.run(&["plan", "--project", "Fleet", "--dry-run", "--json"]).await.json()["plan"].clone();
    let said = told(&plan["agents"]);
    assert_eq!(said.len(), 15);
    let first = &said[&number(1, 1)];
    assert_eq!((&first["change"], &first["found"]), (&json!("set"), &Value::Null));
    assert_eq!(first["wanted"]["voiceUrl"], EDGE);
    assert_eq!(said[&bypassed]["change"], "notTold");

    // There and back once, so that it is known.
    let id = fleet.plan(&["--percent", "100", "--guard", "off"]).await;
    let start = foretold(&fleet.at_twilio_now().await, &said);
    assert_eq!(fleet.run(&["start", &id, "--yes"]).await.code, 0);
    assert_eq!(all_meaningful(&fleet.at_twilio_now().await), start);
    assert_eq!(fleet.run(&["rollback", &id, "--yes"]).await.code, 0);

    // Somebody changes one, which only the check for drift has seen; one is handed over at the edge from now on; one has
    // lost its way back.
    let theirs = Number::new(&number(3, 1)).voice_url("https://them.test/voice");
    fleet.twilio().set_number(theirs);
    assert_eq!(fleet.tandem(&["numbers", "drift"]).await.code, 1);
    fleet
        .execute(&format!("update phone_numbers set vapi_handover = 'bypass' where number = '{}'", number(4, 1)))
        .await;
    fleet
        .execute(&format!(
            "delete from pointings p using phone_numbers n where n.id = p.number_id and n.number = '{}'",
            number(4, 2)
        ))
        .await;
    // One would fail, and nothing becomes of its numbers.
    fleet.execute("update agents set realtime = null where name = 'Agent 5'").await;

    let id = fleet.plan(&["--percent", "100", "--guard", "off"]).await;
    let dry = fleet.run(&["start", &id, "--dry-run", "--json"]).await.json();
    let said = told(&dry["changes"]["forth"]);
    assert_eq!(said.len(), 12);
    let kinds = [number(1, 1), bypassed.clone(), number(3, 1), number(4, 1), number(4, 2)]
        .map(|number| said[&number]["change"].as_str().expect("a word").to_owned());
    assert_eq!(kinds, ["set", "notTold", "leftAlone", "set", "set"]);
    assert_eq!(said[&number(3, 1)]["found"]["voiceUrl"], "https://them.test/voice");
    assert_eq!(said[&number(1, 3)]["found"]["voiceFallbackMethod"], "GET");
    let text = fleet.run(&["start", &id, "--dry-run"]).await.stdout;
    for line in [
        format!(
            "{} at Twilio: VoiceUrl https://api.vapi.ai/twilio/inbound_call -> {EDGE}, VoiceFallbackUrl \
             https://own.test/fallback/1/3 -> https://origin.tandem.test/twilio/voice, VoiceFallbackMethod GET -> POST, \
             StatusCallback (none) -> https://edge.tandem.test/twilio/status, StatusCallbackMethod (none) -> POST\n",
            number(1, 3)
        ),
        format!("{} at Twilio: not asked yet -> VoiceUrl {EDGE},", number(4, 2)),
        format!("{bypassed} at Twilio: nothing, it comes to us whichever system answers\n"),
        format!(
            "{} at Twilio: LEFT ALONE, as somebody else has changed it: VoiceUrl https://them.test/voice\n",
            number(3, 1)
        ),
    ] {
        assert!(text.contains(&line), "{line} is not in {text}");
    }
    let before = fleet.at_twilio_now().await;
    let after = foretold(&before, &said);
    assert_eq!(all_meaningful(&before), all_meaningful(&fleet.at_twilio_now().await), "it was dry");
    // The agent that could not, and the number that was left alone.
    assert_eq!(fleet.run(&["start", &id, "--yes"]).await.code, 1);
    assert_eq!(all_meaningful(&fleet.at_twilio_now().await), after);

    let again = fleet.run(&["start", &id, "--dry-run", "--json"]).await.json();
    assert_eq!(again["changes"]["again"][0]["number"], json!(number(3, 1)));
    assert_eq!(again["changes"]["again"][0]["change"], "leftAlone");

    let dry = fleet.run(&["rollback", &id, "--dry-run", "--json"]).await.json();
    let said = told(&dry["changes"]["back"]);
    assert_eq!(said.len(), 12);
    assert_eq!(said[&number(1, 3)]["wanted"]["voiceFallbackUrl"], "https://own.test/fallback/1/3");
    assert_eq!(said[&number(4, 1)]["change"], "unchanged", "it is handed over at the edge");
    let after = foretold(&fleet.at_twilio_now().await, &said);
    let text = fleet.run(&["rollback", &id, "--dry-run"]).await.stdout;
    let line = format!("{} at Twilio: VoiceUrl {EDGE} -> https://api.vapi.ai/twilio/inbound_call,", number(1, 1));
    assert!(text.contains(&line), "{text}");
    assert_eq!(fleet.run(&["rollback", &id, "--yes"]).await.code, 0);
    assert_eq!(all_meaningful(&fleet.at_twilio_now().await), after);
    assert_eq!(after[number(3, 1)], meaningful(&before[number(3, 1)]));
}
