//! What all of `/api` has in common: pages, effects that happen once, changes that overwrite nobody's, limits, and the
//! description.

use std::collections::HashSet;

use futures_util::future::join_all;
use origin::http::api::{described, openapi};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{query, query_scalar};

use crate::harness::{Answer, Origin, answer, assert_problem, eventually};

async fn count(origin: &Origin, sql: &'static str) -> i64 {
    query_scalar(sql).fetch_one(&origin.app.db).await.expect("a count")
}

async fn agents(origin: &Origin) -> i64 {
    count(origin, "select count(*) from agents").await
}

async fn make(origin: &Origin, name: &str) -> String {
    let made = origin.post("/api/agents", &json!({ "name": name })).await;
    assert_eq!(made.status, 201, "{}", made.body);
    made.body["id"].as_str().expect("an id").to_owned()
}

fn names(page: &Answer) -> Vec<&str> {
    let items = page.body["items"].as_array().expect("a page");
    items.iter().map(|item| item["name"].as_str().expect("a name")).collect()
}

#[tokio::test]
async fn pages_stay_as_they_are_while_rows_are_added() {
    let origin = Origin::start().await;
    for at in 0..7 {
        make(&origin, &format!("old {at}")).await;
    }
    let (mut seen, mut cursor, mut page) = (Vec::new(), String::new(), 0);
    loop {
        let answer = origin.get(&origin.key, &format!("/api/agents?limit=2{cursor}")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        seen.extend(names(&answer).into_iter().map(str::to_owned));
        let Some(next) = answer.body["nextCursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
        page += 1;
        make(&origin, &format!("new {page}")).await;
    }
    let all: Vec<String> =
        (0..7).rev().map(|at| format!("old {at}")).chain(["Night line", "Reception"].map(str::to_owned)).collect();
    assert_eq!(seen, all, "each once, the newest first, and none that came later");
}

#[tokio::test]
async fn lists_can_be_filtered() {
    let origin = Origin::start().await;
    let list = async |query: &str| origin.get(&origin.key, &format!("/api/agents?{query}")).await;
    assert_eq!(names(&list("systemType=vapi").await), ["Reception"]);
    assert_eq!(names(&list("name=NIGHT").await), ["Night line"]);
    assert_eq!(names(&list("vapiAssistantId=assistant-1").await), ["Reception"]);
    assert_eq!(names(&list("name=%25").await), [""; 0]);
    for bad in
        ["systemType=siri", "cursor=!", "cursor=", "limit=x", "limit=0", "limit=201", "name=%00", "limit=1&limit=2"]
    {
        assert_problem(&list(bad).await, 400, "invalid_request");
    }
    assert_problem(&list("systemtype=vapi").await, 400, "unknown_parameter");
}

#[tokio::test]
async fn racing_equal_requests_are_one_effect_and_one_answer() {
    let origin = Origin::start().await;
    let before = agents(&origin).await;
    let body = json!({ "name": "Racer" });

    let answers = join_all((0..12).map(|_| origin.post_once("race-1", "/api/agents", &body))).await;

    assert_eq!(agents(&origin).await, before + 1);
    let first = &answers[0];
    for answer in &answers {
        assert_eq!((answer.status, &answer.body), (201, &first.body));
        assert_eq!(answer.headers["location"], first.headers["location"]);
        assert_eq!(answer.headers["etag"], first.headers["etag"]);
    }
    let replayed = answers.iter().filter(|answer| answer.headers.contains_key("idempotency-replayed")).count();
    assert_eq!(replayed, 11);
    let made = "select count(*) from event_log where type = 'agent.created' and actor like 'api-key:%'";
    assert_eq!(count(&origin, made).await, 1);
}

#[tokio::test]
async fn a_key_means_one_body_on_one_path_of_one_project() {
    let origin = Origin::start().await;
    let make = async |key: &str, name: &str| origin.post_once(key, "/api/agents", &json!({ "name": name })).await;
    assert_eq!(make("k", "One").await.status, 201);
    assert_problem(&make("k", "Two").await, 422, "idempotency_key_reused");
    assert_eq!(make("l", "Two").await.status, 201);
    let stranger = origin.stranger_key().await;
    let theirs = origin.request(Method::POST, "/api/agents").bearer_auth(stranger).header("idempotency-key", "k");
    assert_eq!(answer(theirs.json(&json!({ "name": "Two" }))).await.status, 201, "each project has its own keys");
    let long = "x".repeat(256);
    for bad in ["", long.as_str()] {
        assert_problem(&make(bad, "Three").await, 400, "invalid_request");
    }
}

#[tokio::test]
async fn an_error_is_not_kept() {
    let origin = Origin::start().await;
    let body = json!({ "name": "Reception" });
    assert_problem(&origin.post_once("k", "/api/agents", &body).await, 409, "name_taken");
    query("update agents set name = 'Another' where name = 'Reception'").execute(&origin.app.db).await.expect("a name");
    let made = origin.post_once("k", "/api/agents", &body).await;
    assert_eq!((made.status, made.headers.contains_key("idempotency-replayed")), (201, false));
}

#[tokio::test]
async fn work_that_was_cut_off_is_done_again_as_a_whole() {
    let origin = Origin::start().await;
    let before = agents(&origin).await;
    let body = json!({ "name": "Cut off" });
    // Logging comes last, so the work that waits for this is done, but does not count yet.
    let mut block = origin.app.db.begin().await.expect("a transaction");
    query("lock table event_log in exclusive mode").execute(&mut *block).await.expect("a lock");
    let request = origin.post_once("k", "/api/agents", &body);
    let killing = async {
        eventually("the work is under way", async || {
            let pid: Option<i32> = query_scalar(
                "select pid from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()",
            )
            .fetch_optional(&origin.app.db)
            .await
            .expect("the activity");
            pid
        })
        .await
    };
    let pid = tokio::select! {
        pid = killing => pid,
        _ = request => panic!("the request must wait"),
    };
    // As a crash of the origin looks to the database.
    query("select pg_terminate_backend($1)").bind(pid).execute(&origin.app.db).await.expect("a death");
    block.rollback().await.expect("a rollback");

    let made = origin.post_once("k", "/api/agents", &body).await;

    assert_eq!((made.status, made.headers.contains_key("idempotency-replayed")), (201, false), "{}", made.body);
    assert_eq!(agents(&origin).await, before + 1);
}

#[tokio::test]
async fn of_racing_changes_of_one_revision_one_counts() {
    let origin = Origin::start().await;
    let path = format!("/api/agents/{}", origin.reception);
    let read = origin.get(&origin.key, &path).await;
    let tag = read.headers["etag"].to_str().expect("a tag").to_owned();
    let change = |at: usize| {
        let request = origin.request(Method::PATCH, &path).bearer_auth(&origin.key).header("if-match", &tag);
        answer(request.json(&json!({ "greeting": format!("Hello {at}") })))
    };

    let answers = join_all((0..8).map(change)).await;

    let (done, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!(done.len(), 1);
    for answer in refused {
        assert_problem(answer, 412, "precondition_failed");
    }
    let now = origin.get(&origin.key, &path).await;
    assert_eq!((&now.body["greeting"], &now.headers["etag"]), (&done[0].body["greeting"], &done[0].headers["etag"]));
    assert_ne!(now.headers["etag"], tag.as_str());
    let delete = origin.request(Method::DELETE, &path).bearer_auth(&origin.key).header("if-match", &tag);
    assert_problem(&answer(delete).await, 412, "precondition_failed");
}

#[tokio::test]
async fn what_another_project_owns_is_not_there_on_any_path() {
    let origin = Origin::start().await;
    let stranger = origin.stranger_key().await;
    let document = described().1;
    let tool = origin.tool("lookup").await;
    let mut tried = 0;
    for (path, method, operation) in openapi::operations(&document).filter(|(path, ..)| path.contains('{')) {
        let id = match path.split('/').nth(2) {
            Some("agents") => origin.reception.to_string(),
            Some("projects") => origin.project.to_string(),
            Some("tools") => tool.clone(),
            // Others have tests of their own.
            _ => continue,
        };
        let path = path.replacen("{id}", &id, 1);
        let mut request =
            origin.request(method.to_uppercase().parse().expect("a method"), &path).bearer_auth(&stranger);
        if !operation["requestBody"].is_null() {
            let body = if path.ends_with("system-type") { json!({ "systemType": "vapi" }) } else { json!({}) };
            request = request.json(&body);
        }
        assert_problem(&answer(request).await, 404, "not_found");
        tried += 1;
    }
    assert!(tried >= 5, "{tried} operations were tried");
}

#[tokio::test]
async fn a_key_that_asks_too_often_is_told_when_to_come_back() {
    let origin = Origin::with(vec![("API_REQUESTS_PER_SECOND", "1".to_owned())]).await;
    let answers = join_all((0..60).map(|_| origin.get(&origin.key, "/api/agents?limit=1"))).await;
    let (served, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert!(served.len() >= 10 && !refused.is_empty(), "{} were served", served.len());
    for answer in refused {
        assert_problem(answer, 429, "rate_limited");
        assert_eq!(answer.headers["retry-after"], "1");
        assert_eq!(answer.headers["ratelimit-policy"], "\"key\";q=10;w=10");
        assert!(answer.headers["ratelimit"].to_str().is_ok_and(|left| left.starts_with("\"key\";r=0;t=")));
    }
    assert_eq!(origin.get(&origin.read_key().await, "/api/agents").await.status, 200, "another key has its own");
    assert_eq!(answer(origin.request(Method::GET, "/healthz")).await.status, 200, "what needs no key has no limit");
}

#[tokio::test]
async fn the_description_is_served_to_everybody() {
    let origin = Origin::start().await;
    let served = answer(origin.request(Method::GET, "/api/openapi.json")).await;
    assert_eq!((served.status, &served.body), (200, &described().1));
    assert_eq!(served.body["openapi"], "3.1.0");
    assert_problem(&answer(origin.request(Method::GET, "/api/nothing")).await, 401, "unauthorized");
}

/// Every answer that this file and its neighbours rely on is described, and every code is in the list.
#[tokio::test]
async fn the_list_of_codes_is_complete() {
    let document = described().1;
    let listed = document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"].as_array().expect("codes");
    let listed: HashSet<&str> = listed.iter().filter_map(Value::as_str).collect();
    let about = document["info"]["description"].as_str().expect("a text");
    for code in origin::http::problem::Code::ALL {
        assert!(listed.contains(code.as_str()) && about.contains(&format!("| `{}` |", code.as_str())));
    }
}
