//! What the API tells of the past, events and calls; and the keys that it is asked with.

use origin::store::calls::{self, NewCall};
use origin::store::events::{self, Actor, NewEvent};
use reqwest::Method;
use serde_json::{Value, json};
use shared::{CallSid, SystemType};
use time::OffsetDateTime;

use crate::harness::{Answer, Origin, answer, assert_problem};

async fn list(origin: &Origin, path: &str) -> Vec<Value> {
    let page = origin.get(&origin.key, path).await;
    assert_eq!(page.status, 200, "{path}: {}", page.body);
    page.body["items"].as_array().expect("a page").clone()
}

fn of(items: &[Value], name: &str) -> Vec<String> {
    items.iter().map(|item| item[name].as_str().map_or_else(|| item[name].to_string(), str::to_owned)).collect()
}

#[tokio::test]
async fn events_are_filtered_and_paged_in_the_order_in_which_they_took_effect() {
    let origin = Origin::start().await;
    // The first that is written is the last that takes effect.
    let mut late = origin.app.db.begin().await.expect("a transaction");
    let event =
        NewEvent { agent_id: Some(origin.night_line), ..NewEvent::new(origin.project, "t.late", &Actor::Origin) };
    events::append(&mut late, &event).await.expect("an event");
    let mut conn = origin.database.connect().await;
    for kind in ["t.one", "t.two", "t.three"] {
        let event = NewEvent {
            agent_id: Some(origin.reception),
            ..NewEvent::new(origin.project, kind, &Actor::Command("tests"))
        };
        events::append(&mut conn, &event).await.expect("an event");
    }
    late.commit().await.expect("a commit");

    let first = origin.get(&origin.key, "/api/events?limit=2").await;
    let items = first.body["items"].as_array().expect("a page").clone();
    assert_eq!(of(&items, "type"), ["t.late", "t.three"]);
    let cursor = first.body["nextCursor"].as_str().expect("there is more");
    let rest = list(&origin, &format!("/api/events?limit=2&cursor={cursor}")).await;
    assert_eq!(of(&rest, "type"), ["t.two", "t.one"]);

    let all = list(&origin, "/api/events").await;
    let (last, one) = (&all[0], all.iter().find(|event| event["type"] == "t.one").expect("it is there"));
    let agent = format!("agentId={}", origin.reception);
    for (query, expected) in [
        ("type=t.two".to_owned(), vec!["t.two"]),
        ("actor=command:tests&type=t.one".to_owned(), vec!["t.one"]),
        (format!("actor=command&{agent}"), vec!["t.three", "t.two", "t.one", "number.seeded", "agent.created"]),
        (format!("agentId={}&actor=origin", origin.night_line), vec!["t.late"]),
        (format!("until={}&{agent}&actor=command:tests", one["at"].as_str().expect("a time")), vec![]),
        (format!("since={}&type=t.late", last["at"].as_str().expect("a time")), vec!["t.late"]),
        (format!("callId={}", origin.reception), vec![]),
        (format!("numberId={}", origin.reception), vec![]),
        ("requestId=nobodys".to_owned(), vec![]),
    ] {
        assert_eq!(of(&list(&origin, &format!("/api/events?{query}")).await, "type"), expected, "{query}");
    }
    for bad in ["since=yesterday", "agentId=1", "cursor=x", "until="] {
        assert_problem(&origin.get(&origin.key, &format!("/api/events?{bad}")).await, 400, "invalid_request");
    }
    let head = origin.get(&origin.key, "/api/events/head").await.body;
    assert_eq!((&head["head"]["count"], &head["head"]["hash"]), (&last["position"], &last["hash"]));
    assert_eq!(head["projectId"], json!(origin.project));
    let strange = origin.get(&origin.stranger_key().await, "/api/events/head").await.body;
    assert_eq!(strange["head"]["count"], 0, "another project has a chain of its own");
}

#[tokio::test]
async fn calls_are_filtered_and_paged() {
    let origin = Origin::start().await;
    let mut conn = origin.database.connect().await;
    let start = OffsetDateTime::now_utc();
    for (name, system, agent) in [
        ("CA01", SystemType::Vapi, origin.reception),
        ("CA02", SystemType::OpenaiRealtime, origin.reception),
        ("CA03", SystemType::OpenaiRealtime, origin.night_line),
    ] {
        let sid: CallSid = name.parse().expect("a SID");
        let call = NewCall {
            project_id: origin.project,
            agent_id: agent,
            number_id: None,
            call_sid: Some(&sid),
            vapi_call_id: None,
            from: None,
            to: None,
            system_type: system,
            started_at: start,
        };
        let (call, _) = calls::begin(&mut conn, &call).await.expect("a call");
        if name == "CA01" {
            let busy = origin::end_reason::EndReason::Busy;
            calls::end(&mut conn, call.id, start, &busy.into()).await.expect("an end");
        }
    }
    let at = start.format(&time::format_description::well_known::Rfc3339).expect("a time");
    for (query, expected) in [
        ("limit=200".to_owned(), vec!["CA03", "CA02", "CA01"]),
        ("systemType=openai-realtime".to_owned(), vec!["CA03", "CA02"]),
        (format!("agentId={}", origin.reception), vec!["CA02", "CA01"]),
        ("status=ended&endReason=busy".to_owned(), vec!["CA01"]),
        ("status=ringing".to_owned(), vec!["CA03", "CA02"]),
        ("endReason=silence".to_owned(), vec![]),
        ("callSid=CA02".to_owned(), vec!["CA02"]),
        ("vapiCallId=other".to_owned(), vec![]),
        (format!("numberId={}", origin.reception), vec![]),
        (format!("since={at}&limit=1"), vec!["CA03"]),
        (format!("until={at}"), vec![]),
    ] {
        assert_eq!(of(&list(&origin, &format!("/api/calls?{query}")).await, "callSid"), expected, "{query}");
    }
    let first = origin.get(&origin.key, "/api/calls?limit=2").await.body;
    let cursor = first["nextCursor"].as_str().expect("there is more");
    assert_eq!(of(&list(&origin, &format!("/api/calls?cursor={cursor}")).await, "callSid"), ["CA01"]);
    for bad in ["status=over", "endReason=x", "callSid=1", "systemType=x", "since=1"] {
        assert_problem(&origin.get(&origin.key, &format!("/api/calls?{bad}")).await, 400, "invalid_request");
    }
}

async fn delete(origin: &Origin, key: &str, id: &str) -> Answer {
    answer(origin.request(Method::DELETE, &format!("/api/keys/{id}")).bearer_auth(key)).await
}

#[tokio::test]
async fn a_key_is_shown_once_and_refused_once_revoked() {
    let origin = Origin::start().await;
    let body = json!({ "role": "read" });
    let post = || {
        let request = origin.request(Method::POST, "/api/keys").bearer_auth(&origin.key);
        answer(request.header("idempotency-key", "one").json(&body))
    };
    let (made, again) = (post().await, post().await);
    assert_eq!((made.status, again.status), (201, 201), "{}", made.body);
    let key = made.body["key"].as_str().expect("the key").to_owned();
    assert_eq!((&again.body["id"], &again.body["key"]), (&made.body["id"], &Value::Null), "the key is not kept");
    let id = made.body["id"].as_str().expect("an id");
    assert_eq!(made.headers["location"], format!("/api/keys/{id}"));

    assert_eq!(origin.get(&key, "/api/keys").await.status, 200);
    let forbidden = answer(origin.request(Method::POST, "/api/keys").bearer_auth(&key).json(&body)).await;
    assert_problem(&forbidden, 403, "forbidden");
    assert_problem(&delete(&origin, &key, id).await, 403, "forbidden");
    assert_problem(&delete(&origin, &origin.stranger_key().await, id).await, 404, "not_found");
    let keys = list(&origin, "/api/keys").await;
    assert_eq!(of(&keys, "role"), ["read", "write"], "the newest first");
    assert!(keys[0]["lastUsedAt"].is_string() && keys[0]["revokedAt"].is_null() && keys[0].get("key").is_none());

    assert_eq!(delete(&origin, &origin.key, id).await.status, 204);
    assert_eq!(delete(&origin, &origin.key, id).await.status, 204, "again changes nothing");
    assert_eq!(origin.get(&key, "/api/keys").await.status, 401);
    assert!(list(&origin, "/api/keys").await[0]["revokedAt"].is_string());
    let events = list(&origin, &format!("/api/events?actor=api-key:{}", &origin.key[..12])).await;
    assert_eq!(of(&events, "type"), ["api_key.revoked", "api_key.created"]);
    assert!(!events.iter().any(|event| event.to_string().contains(&key)), "no event tells the key");
    let unknown =
        answer(origin.request(Method::POST, "/api/keys").bearer_auth(&origin.key).json(&json!({ "role": "x" })));
    assert_problem(&unknown.await, 400, "invalid_request");
}
