//! What holds for every operation of the API's description, whichever it is: events, `Idempotency-Key`, keys and roles,
//! other projects, `If-Match`, bodies, limits.

use std::collections::HashSet;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Origin, answer, assert_problem};
use crate::operations::{Call, Operation, operations, prepare};
use crate::pointing::World;

/// How many events the project has.
async fn logged(origin: &Origin) -> i64 {
    origin.get(&origin.key, "/api/events/head").await.body["head"]["count"].as_i64().expect("a count")
}

async fn events(origin: &Origin, filter: &str) -> Vec<Value> {
    origin.get(&origin.key, &format!("/api/events?limit=200&{filter}")).await.body["items"]
        .as_array()
        .expect("events")
        .clone()
}

fn assert_success(operation: &Operation, answer: &Answer) {
    assert!((200..300).contains(&answer.status), "{}: {} {}", operation.id, answer.status, answer.body);
}

#[tokio::test]
async fn every_change_is_an_event_with_actor_before_after_and_request_id() {
    let world = World::start().await;
    let origin = &world.origin;
    for operation in operations() {
        let call = prepare(&world, &operation).await;
        let before = logged(origin).await;
        let name = format!("request-of-{}", operation.id);

        let request = call.request(origin, &operation, &origin.key).header("x-request-id", &name);
        assert_success(&operation, &answer(request).await);

        let new = logged(origin).await - before;
        let mut of_request = events(origin, &format!("requestId={name}")).await;
        of_request.reverse();
        let id = &operation.id;
        assert_eq!(of_request.len(), call.logs.len(), "{id}: {of_request:?}");
        assert_eq!(usize::try_from(new), Ok(of_request.len()), "{id}: an event does not say which request it is of");
        for (expected, event) in call.logs.iter().zip(&of_request) {
            assert_eq!(event["type"], expected.kind, "{id}");
            assert_eq!(event["actor"], json!(format!("api-key:{}", &origin.key[..12])), "{id}");
            let (was, is) = (!event["before"].is_null(), !event["after"].is_null());
            assert_eq!((was, is), (expected.before, expected.after), "{id}: {event}");
            assert_ne!(event["before"], event["after"], "{id}");
        }
        assert!(operation.is_write() || call.logs.is_empty(), "{id} only reads");
    }
}

#[tokio::test]
async fn every_racing_post_is_one_effect_and_one_answer() {
    let world = World::start().await;
    let origin = &world.origin;
    for operation in operations().into_iter().filter(|operation| operation.method == Method::POST) {
        let call = prepare(&world, &operation).await;
        let id = &operation.id;
        let before = logged(origin).await;
        let send = || answer(call.request(origin, &operation, &origin.key).header("idempotency-key", "once"));

        let answers = join_all((0..4).map(|_| send())).await;

        let first = without_secrets(&answers[0]);
        for answer in &answers {
            assert_success(&operation, answer);
            assert_eq!((answer.status, &without_secrets(answer)), (answers[0].status, &first), "{id}");
            for header in ["location", "etag"] {
                assert_eq!(answer.headers.get(header), answers[0].headers.get(header), "{id}: {header}");
            }
        }
        let replayed = answers.iter().filter(|answer| answer.headers.contains_key("idempotency-replayed")).count();
        assert_eq!(replayed, 3, "{id}");
        let effect = i64::try_from(call.logs.len()).expect("a few");
        assert_eq!(logged(origin).await - before, effect, "{id}: one effect");

        let asked = world.twilio.rest_requests().len();
        let again = send().await;
        assert_eq!((again.status, &without_secrets(&again)), (answers[0].status, &first), "{id}");
        assert_eq!(world.twilio.rest_requests().len(), asked, "{id}: a repeated request asks nobody else");

        // The same values in other bytes are another body.
        let text = format!("{} ", call.body.as_ref().expect("a body"));
        let spaced = origin.request(Method::POST, &call.path).bearer_auth(&origin.key).body(text);
        let spaced = spaced.header("content-type", "application/json").header("idempotency-key", "once");
        assert_problem(&answer(spaced).await, 422, "idempotency_key_reused");
        let nonsense = call.request(origin, &operation, &origin.key).header("idempotency-key", "a b");
        assert_problem(&answer(nonsense).await, 400, "invalid_request");
        assert_eq!(logged(origin).await - before, effect, "{id}: refused");
    }
}

/// The body without what is shown once.
fn without_secrets(answer: &Answer) -> Value {
    let mut body = answer.body.clone();
    if let Value::Object(members) = &mut body {
        members.remove("key");
        members.remove("secret");
    }
    body
}

#[tokio::test]
async fn every_operation_wants_a_valid_key_and_every_change_one_that_may() {
    let world = World::start().await;
    let origin = &world.origin;
    let reader = origin.read_key().await;
    let revoked = origin.post("/api/keys", &json!({ "role": "write" })).await.body;
    assert_eq!(origin.delete(&format!("/api/keys/{}", revoked["id"].as_str().expect("an id"))).await.status, 204);
    let revoked = revoked["key"].as_str().expect("the key").to_owned();
    let unknown = format!("{}A", &revoked[..revoked.len() - 1]);
    for operation in operations() {
        let call = prepare(&world, &operation).await;
        let before = logged(origin).await;
        for key in ["", "tdm_", revoked.as_str(), unknown.as_str()] {
            let refused = call.send(origin, &operation, key).await;
            assert_problem(&refused, 401, "unauthorized");
            assert_eq!(refused.headers["www-authenticate"], "Bearer", "{}", operation.id);
        }
        let with_reader = call.send(origin, &operation, &reader).await;
        if operation.is_write() {
            assert_problem(&with_reader, 403, "forbidden");
        } else {
            assert_success(&operation, &with_reader);
        }
        assert_eq!(logged(origin).await, before, "{} was refused", operation.id);
    }
}

#[tokio::test]
async fn what_another_project_owns_is_not_there_for_any_operation() {
    let world = World::start().await;
    let origin = &world.origin;
    let stranger = origin.stranger_key().await;
    for operation in operations() {
        let call = prepare(&world, &operation).await;
        let before = logged(origin).await;
        let theirs = call.send(origin, &operation, &stranger).await;
        let id = operation.id.as_str();
        match id {
            _ if operation.has_id() => assert_problem(&theirs, 404, "not_found"),
            // They name something of ours in the body or query.
            "buyNumber" | "adoptNumber" | "explainRoute" => assert_problem(&theirs, 404, "not_found"),
            "createRollout" | "planRollout" => assert_problem(&theirs, 422, "invalid_value"),
            // They make something of their own, and read what is theirs or everybody's.
            "createAgent" | "createKey" | "createTool" | "listAvailableNumbers" | "getEventHead" => {
                assert_success(&operation, &theirs);
            }
            _ => {
                assert_success(&operation, &theirs);
                let ours = origin.get(&origin.key, &call.path).await.body;
                let ours = ours["items"].as_array().unwrap_or_else(|| panic!("is {id} a list?"));
                let ours: HashSet<String> = ours.iter().map(|item| item["id"].to_string()).collect();
                let seen = theirs.body["items"].as_array().expect("a list");
                assert!(seen.iter().all(|item| !ours.contains(&item["id"].to_string())), "{id}: {}", theirs.body);
            }
        }
        assert_eq!(logged(origin).await, before, "{id} has changed something of ours");
        if operation.has_id() {
            let nonsense = Call { path: operation.path.replace("{id}", "nonsense"), ..call };
            assert_problem(&nonsense.send(origin, &operation, &origin.key).await, 404, "not_found");
        }
    }
}

/// Operations that are the same however often they are done, and never undone.
const WITHOUT_IF_MATCH: [&str; 1] = ["revokeKey"];

#[tokio::test]
async fn every_change_of_something_can_name_what_it_means_to_change() {
    let world = World::start().await;
    let origin = &world.origin;
    for operation in operations().into_iter().filter(|operation| operation.is_write() && operation.has_id()) {
        let id = operation.id.as_str();
        if !operation.has_if_match {
            assert!(WITHOUT_IF_MATCH.contains(&id), "{id} takes no If-Match");
            continue;
        }
        let call = prepare(&world, &operation).await;
        let thing = call.path.split('/').take(4).collect::<Vec<_>>().join("/");
        let thing = thing.split('?').next().expect("a path").to_owned();
        let tag = origin.get(&origin.key, &thing).await.headers["etag"].to_str().expect("a tag").to_owned();
        let before = logged(origin).await;
        let send = |tag: &str| answer(call.request(origin, &operation, &origin.key).header("if-match", tag));

        for other in ["\"0\"", "\"nonsense\"", ""] {
            assert_problem(&send(other).await, 412, "precondition_failed");
        }
        assert_eq!(logged(origin).await, before, "{id} was refused");
        assert_success(&operation, &send(&tag).await);
    }
}

#[tokio::test]
async fn every_body_is_small_enough_of_its_type_and_well_formed() {
    let world = World::start().await;
    let origin = &world.origin;
    for operation in operations().into_iter().filter(|operation| operation.has_body) {
        let call = prepare(&world, &operation).await;
        let before = logged(origin).await;
        let send = |media_type: &'static str, body: String| {
            let request = origin.request(operation.method.clone(), &call.path).bearer_auth(&origin.key);
            answer(request.header("content-type", media_type).body(body))
        };
        let body = call.body.as_ref().expect("a body").to_string();
        let long = format!("{body}{}", " ".repeat(256 * 1024));
        assert_problem(&send("application/json", long).await, 413, "body_too_large");
        assert_problem(&send("text/plain", body.clone()).await, 415, "unsupported_media_type");
        for malformed in ["", "{", "[]", "null", "\"text\"", &format!("{body}{body}")] {
            assert_problem(&send("application/json", malformed.to_owned()).await, 400, "invalid_request");
        }
        let mut unknown = call.body.clone().expect("a body");
        unknown["nobodyKnowsThis"] = json!(true);
        let refused = send("application/json", unknown.to_string()).await;
        assert!(matches!(refused.status, 400 | 422), "{}: {}", operation.id, refused.body);
        assert_eq!(logged(origin).await, before, "{} was refused", operation.id);
        assert_success(&operation, &send("application/json; charset=utf-8", body).await);
    }
}

#[tokio::test]
async fn no_operation_takes_a_query_parameter_that_is_not_described() {
    let world = World::start().await;
    let origin = &world.origin;
    for operation in operations() {
        let call = prepare(&world, &operation).await;
        let mark = if call.path.contains('?') { '&' } else { '?' };
        let call = Call { path: format!("{}{mark}nobodyKnowsThis=1", call.path), ..call };
        let before = logged(origin).await;
        assert_problem(&call.send(origin, &operation, &origin.key).await, 400, "unknown_parameter");
        assert_eq!(logged(origin).await, before, "{} was refused", operation.id);
    }
}

#[tokio::test]
async fn every_operation_counts_against_the_limit_of_its_key() {
    let origin = Origin::with(vec![("API_REQUESTS_PER_SECOND", "1".to_owned())]).await;
    for operation in operations() {
        let path = operation.path.replace("{id}", "nonsense");
        let send = || answer(origin.request(operation.method.clone(), &path).bearer_auth(&origin.key));
        // More than the key has, at once.
        let answers = join_all((0..25).map(|_| send())).await;
        let refused = answers.iter().find(|answer| answer.status == 429);
        let refused = refused.unwrap_or_else(|| panic!("{} has no limit", operation.id));
        assert_problem(refused, 429, "rate_limited");
        assert!(refused.headers.contains_key("retry-after"), "{}", operation.id);
    }
}
