//! Events that were given up, and their way back.

use origin::providers::cloudflare::Pair;
use serde_json::{Value, json};
use shared::dead_letter::{Body, DeadLetter};
use shared::vapi::message::Message;

use crate::world::{World, message, patient_kv};

const CONTENT_TYPE: &str = "application/json";

async fn put(world: &World, letters: &[DeadLetter<'_>]) {
    let pairs: Vec<Pair> = letters
        .iter()
        .map(|letter| Pair {
            key: letter.key(),
            value: serde_json::to_string(letter).expect("JSON"),
            metadata: Value::Null,
        })
        .collect();
    assert!(world.kv().put(&pairs).await.expect("a write").is_empty());
}

fn vapi_letter(body: &str, enqueued_at: u64) -> DeadLetter<'_> {
    let delivery = Message::parse(body.as_bytes()).expect("a message").delivery_id;
    DeadLetter {
        path: "/api/vapi/webhook".into(),
        content_type: CONTENT_TYPE.into(),
        body: Body::new(body.as_bytes()),
        delivery: delivery.into(),
        enqueued_at,
        attempts: 100,
        status: None,
    }
}

fn status(call: &str, status: &str) -> String {
    let more = json!({ "status": status, "endedReason": "customer-ended-call" });
    json!({ "message": message("status-update", call, &more) }).to_string()
}

async fn left(world: &World) -> usize {
    world.kv().list("dead:").await.expect("a listing").len()
}

#[tokio::test]
async fn letters_are_listed_and_brought_back_once() {
    let kv = patient_kv().await;
    let world = World::with_kv(&kv).await;
    let (ended, progress) = (status("call-1", "ended"), status("call-1", "in-progress"));
    let refused = DeadLetter { status: Some(422), ..vapi_letter(&ended, 1_795_000_000_002) };
    let letters = [refused, vapi_letter(&progress, 1_795_000_000_001)];
    put(&world, &letters).await;

    let text = world.command(&["deadletters", "list"]).await.expect("exit code 0");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].contains(letters[1].delivery.as_ref()) && lines[1].contains("100 attempts"), "{text}");
    assert!(lines[0].contains("no answer") && lines[1].contains("answered 422"), "{text}");
    assert!(!text.contains("+15550199"), "a list shows nobody's number: {text}");
    let listed = world.command(&["deadletters", "list", "--json"]).await.expect("exit code 0");
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(listed[1]["letter"]["body"].as_str(), Some(ended.as_str()));

    let one = ["deadletters", "replay", "--origin", &world.base, "--id", &letters[1].delivery];
    world.command(&one).await.expect("exit code 0");
    assert_eq!((left(&world).await, &world.vapi_call("call-1").await["status"]), (1, &json!("in-progress")));

    let all = ["deadletters", "replay", "--origin", &world.base, "--all", "--json"];
    let replayed = world.command(&all).await.expect("exit code 0");
    let expected = json!([{ "key": letters[0].key(), "delivery": letters[0].delivery, "outcome": "replayed" }]);
    assert_eq!(serde_json::from_str::<Value>(&replayed).expect("JSON"), expected);
    assert_eq!((left(&world).await, &world.vapi_call("call-1").await["status"]), (0, &json!("ended")));

    // It had been taken after all, and comes back once more.
    put(&world, &letters).await;
    world.execute("update calls set end_detail = 'corrected'").await;
    world.command(&all).await.expect("exit code 0");
    assert_eq!((left(&world).await, &world.vapi_call("call-1").await["endDetail"]), (0, &json!("corrected")));
}

#[tokio::test]
async fn what_is_not_taken_is_kept() {
    let kv = patient_kv().await;
    let world = World::with_kv(&kv).await;
    let good = status("call-1", "ended");
    let broken = DeadLetter {
        body: Body::new(b"\xff\x00"),
        delivery: "vapi:broken".into(),
        ..vapi_letter(&good, 1_795_000_000_001)
    };
    let elsewhere = DeadLetter {
        path: "@elsewhere.test/".into(),
        delivery: "vapi:elsewhere".into(),
        ..vapi_letter(&good, 1_795_000_000_002)
    };
    let letters = [broken, elsewhere, vapi_letter(&good, 1_795_000_000_003)];
    put(&world, &letters).await;
    let unreadable = Pair { key: "dead:1795000000000:x".to_owned(), value: "?".to_owned(), metadata: Value::Null };
    assert!(world.kv().put(&[unreadable]).await.expect("a write").is_empty());

    let nobody = ["deadletters", "replay", "--origin", "http://127.0.0.1:1", "--all"];
    let said = world.command(&nobody).await.expect_err("nothing answers there").to_string();
    assert!(said.contains("no origin answers"), "{said}");
    assert_eq!(left(&world).await, 4);

    let all = ["deadletters", "replay", "--origin", &world.base, "--all"];
    assert!(world.command(&all).await.is_err(), "exit code 1");
    assert_eq!(left(&world).await, 3);
    assert_eq!(world.vapi_call("call-1").await["status"], "ended");
    assert!(world.command(&["deadletters", "replay", "--id", "vapi:none"]).await.is_err());
    assert!(world.command(&["deadletters", "replay"]).await.is_err(), "nothing is replayed by accident");
}

#[tokio::test]
async fn only_what_will_never_be_taken_can_be_discarded() {
    let kv = patient_kv().await;
    let world = World::with_kv(&kv).await;
    let good = status("call-1", "ended");
    let letter = |name: &'static str, body: &'static [u8], at: u64| DeadLetter {
        body: Body::new(body),
        delivery: name.into(),
        ..vapi_letter(&good, at)
    };
    let malformed = letter("vapi:malformed", b"{}", 1_795_000_000_001);
    let wrong_type = DeadLetter { content_type: "text/plain".into(), ..letter("vapi:type", b"{}", 1_795_000_000_002) };
    let later = DeadLetter { delivery: "vapi:later".into(), ..vapi_letter(&good, 1_795_000_000_003) };
    // Another server than the origin answers so as well.
    let lost = DeadLetter { path: "/elsewhere".into(), ..letter("vapi:lost", b"{}", 1_795_000_000_004) };
    put(&world, &[malformed, wrong_type, later, lost]).await;
    let unreadable = Pair { key: "dead:1795000000000:x".to_owned(), value: "?".to_owned(), metadata: Value::Null };
    assert!(world.kv().put(&[unreadable]).await.expect("a write").is_empty());
    // The origin cannot take anything at the moment.
    world
        .execute(
            "create function fail() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$;
             create trigger fail before insert on calls for each row execute function fail()",
        )
        .await;

    let hasty = ["deadletters", "discard", "--origin", &world.base, "--all"];
    assert!(world.command(&hasty).await.is_err(), "nothing is discarded without a word of confirmation");
    assert_eq!(left(&world).await, 5);

    let all = ["deadletters", "discard", "--origin", &world.base, "--all", "--confirm"];
    assert!(world.command(&all).await.is_err(), "exit code 1: two were kept");
    let kept = world.kv().list("dead:").await.expect("a listing");
    let kept: Vec<_> = kept.iter().filter_map(|key| key.name.get(..19)).collect();
    assert_eq!(kept, ["dead:1795000000003:", "dead:1795000000004:"]);

    world.execute("drop trigger fail on calls").await;
    let later = ["deadletters", "discard", "--origin", &world.base, "--id", "vapi:later", "--confirm"];
    let said = world.command(&later).await.expect("exit code 0");
    assert!(said.starts_with("replayed    vapi:later"), "what can be taken is taken: {said}");
    assert_eq!((left(&world).await, &world.vapi_call("call-1").await["status"]), (1, &json!("ended")));
}
