//! How every operation of the API's description is called so that it succeeds, and what it logs. An operation that is
//! not here fails the tests that go through them all.

use std::sync::atomic::{AtomicU32, Ordering};

use origin::http::api::{described, openapi};
use origin::rollout::work::Worker;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use sqlx::query_scalar;
use tests::twilio::Number;
use uuid::Uuid;

use crate::harness::{Answer, Origin, answer};
use crate::pointing::World;

/// An operation of the description.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) id: String,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) has_body: bool,
    pub(crate) has_if_match: bool,
}

impl Operation {
    /// Whether it changes something, or may.
    pub(crate) fn is_write(&self) -> bool {
        self.method != Method::GET
    }

    /// Whether it is about something that exists already.
    pub(crate) fn has_id(&self) -> bool {
        self.path.contains('{')
    }
}

/// Every operation of the description.
pub(crate) fn operations() -> Vec<Operation> {
    let document = described().1;
    let all: Vec<Operation> = openapi::operations(&document)
        .map(|(path, method, operation)| {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let mut names = parameters.map(|one| one["name"].as_str().or(one["$ref"].as_str()).unwrap_or_default());
            Operation {
                id: operation["operationId"].as_str().expect("a name").to_owned(),
                method: method.to_uppercase().parse().expect("a method"),
                path: path.to_owned(),
                has_body: !operation["requestBody"].is_null(),
                has_if_match: names.any(|name| matches!(name, "If-Match" | "#/components/parameters/IfMatch")),
            }
        })
        .collect();
    assert!(all.len() > 40, "{} operations", all.len());
    all
}

/// An event that an operation logs: its type, and whether it tells what was and what is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Logged {
    pub(crate) kind: &'static str,
    pub(crate) before: bool,
    pub(crate) after: bool,
}

/// A request that succeeds.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) path: String,
    pub(crate) body: Option<Value>,
    /// In order.
    pub(crate) logs: Vec<Logged>,
}

impl Call {
    fn new(path: impl Into<String>) -> Self {
        Self { path: path.into(), body: None, logs: Vec::new() }
    }

    fn body(self, body: Value) -> Self {
        Self { body: Some(body), ..self }
    }

    fn makes(self, kind: &'static str) -> Self {
        self.logs(Logged { kind, before: false, after: true })
    }

    fn changes(self, kind: &'static str) -> Self {
        self.logs(Logged { kind, before: true, after: true })
    }

    fn ends(self, kind: &'static str) -> Self {
        self.logs(Logged { kind, before: true, after: false })
    }

    fn logs(mut self, logged: Logged) -> Self {
        self.logs.push(logged);
        self
    }

    /// The request with a key.
    pub(crate) fn request(&self, origin: &Origin, operation: &Operation, key: &str) -> RequestBuilder {
        let request = origin.request(operation.method.clone(), &self.path).bearer_auth(key);
        match &self.body {
            Some(body) => request.json(body),
            None => request,
        }
    }

    pub(crate) async fn send(&self, origin: &Origin, operation: &Operation, key: &str) -> Answer {
        answer(self.request(origin, operation, key)).await
    }
}

/// What tells apart what is made for one call and for another.
fn fresh() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

/// Prepares whatever an operation needs, of the seeded project and used by nothing else. Jobs must not run.
pub(crate) async fn prepare(world: &World, operation: &Operation) -> Call {
    let origin = &world.origin;
    let at = fresh();
    let id = if operation.has_id() { resource(world, &operation.id).await } else { String::new() };
    let call = Call::new(operation.path.replace("{id}", &id));
    let own = |name: &str| format!("{name}-{at}");
    match operation.id.as_str() {
        "listAgents"
        | "getAgent"
        | "getSystemType"
        | "listCalls"
        | "getCall"
        | "listEvents"
        | "getEventHead"
        | "listKeys"
        | "listNumbers"
        | "getNumber"
        | "listAvailableNumbers"
        | "listPurchases"
        | "getPurchase"
        | "listProjects"
        | "getProject"
        | "listRollouts"
        | "getRollout"
        | "listRolloutAgents"
        | "listTools"
        | "getTool" => call,
        "previewRollout" => Call::new(format!("{}?request=start", call.path)),
        "explainRoute" => Call::new("/api/routes/explain?to=%2B15550100001"),

        "createAgent" => call.body(json!({ "name": own("agent") })).makes("agent.created"),
        "changeAgent" => call.body(json!({ "greeting": "Good morning." })).changes("agent.changed"),
        "deleteAgent" => call.ends("agent.deleted"),
        "switchAgent" => call.body(json!({ "systemType": "openai-realtime" })).changes("agent.system_type_changed"),

        "createKey" => call.body(json!({ "role": "read" })).makes("api_key.created"),
        "revokeKey" => call.changes("api_key.revoked"),

        "buyNumber" => {
            let number = for_sale(origin).await;
            call.body(json!({ "number": number, "agentId": origin.night_line })).makes("number.purchase_intended")
        }
        "adoptNumber" => {
            let number = at_twilio(world, at);
            call.body(json!({ "number": number, "agentId": origin.night_line })).changes("number.adopted")
        }
        "assignNumber" => call.body(json!({ "agentId": null })).changes("number.assigned"),
        "pointNumber" => call.body(json!({ "overwrite": false })).changes("number.pointing_requested"),
        "releaseNumber" => {
            let number = origin.get(&origin.key, &call.path).await.body["number"].clone();
            let number = number.as_str().expect("a number").trim_start_matches('+').to_owned();
            let free = origin.put(&origin.key, &call.path, &json!({ "agentId": null })).await;
            assert_eq!(free.status, 200, "{}", free.body);
            Call::new(format!("{}?confirm=%2B{number}", call.path)).changes("number.releasing").ends("number.released")
        }

        "changeProject" => call.body(json!({ "name": own("project") })).changes("project.changed"),

        "planRollout" => call.body(json!({ "target": "vapi", "agentIds": [agent(origin).await] })),
        "createRollout" => {
            call.body(json!({ "target": "vapi", "agentIds": [agent(origin).await] })).makes("rollout.planned")
        }
        "startRollout" => call.body(json!({})).changes("rollout.stage_started"),
        "advanceRollout" => call.body(json!({ "withoutVerdict": true })).changes("rollout.stage_started"),
        "pauseRollout" => call.body(json!({})).changes("rollout.paused"),
        "rollBackRollout" => call.body(json!({ "confirm": true })).changes("rollout.rollback_started"),

        "createTool" => call.body(json!({ "name": own("tool"), "builtin": "end_call" })).makes("tool.created"),
        "changeTool" => call.body(json!({ "description": "Ends the call." })).changes("tool.changed"),
        "deleteTool" => call.ends("tool.deleted"),
        other => panic!("say here how {other} is called, and which event it logs"),
    }
}

/// Makes what an operation is about and gives its id.
async fn resource(world: &World, operation: &str) -> String {
    let origin = &world.origin;
    match operation {
        "getAgent" | "changeAgent" | "deleteAgent" | "getSystemType" | "switchAgent" => agent(origin).await,
        "getCall" => call(origin).await,
        "revokeKey" => made(origin, "/api/keys", &json!({ "role": "write" })).await,
        "getNumber" | "assignNumber" | "pointNumber" | "releaseNumber" => {
            let number = at_twilio(world, fresh());
            made(origin, "/api/numbers/adopt", &json!({ "number": number, "agentId": origin.night_line })).await
        }
        "getPurchase" => {
            let wanted = json!({ "number": for_sale(origin).await, "agentId": origin.night_line });
            made(origin, "/api/numbers", &wanted).await
        }
        "getProject" | "changeProject" => origin.project.to_string(),
        "getRollout" | "listRolloutAgents" | "previewRollout" | "startRollout" => rollout(origin, &[]).await,
        "advanceRollout" => rollout(origin, &["start", "work"]).await,
        "pauseRollout" | "rollBackRollout" => rollout(origin, &["start"]).await,
        "getTool" | "changeTool" | "deleteTool" => {
            let tool = json!({ "name": format!("tool-{}", fresh()), "builtin": "end_call" });
            made(origin, "/api/tools", &tool).await
        }
        other => panic!("say here what {other} is about"),
    }
}

/// The id of what a `POST` makes.
async fn made(origin: &Origin, path: &str, body: &Value) -> String {
    let made = origin.post(path, body).await;
    assert!(matches!(made.status, 201 | 202), "{path}: {}", made.body);
    made.body["id"].as_str().expect("an id").to_owned()
}

/// An agent that can run on both systems.
async fn agent(origin: &Origin) -> String {
    let name = format!("agent-{}", fresh());
    let fields = json!({
        "name": name, "instructions": "Answer.", "realtime": { "voice": "marin" }, "vapiAssistantId": name,
    });
    made(origin, "/api/agents", &fields).await
}

/// A number that the Twilio account has.
fn at_twilio(world: &World, at: u32) -> String {
    let number = format!("+1555{:07}", 3_000_000 + at);
    world.twilio.set_number(Number::new(&number).voice_url("https://own.test/voice"));
    number
}

/// A number that nobody is buying.
async fn for_sale(origin: &Origin) -> String {
    let offers = origin.get(&origin.key, "/api/numbers/available").await;
    let mut conn = origin.database.connect().await;
    let taken: Vec<String> = query_scalar("select number from purchases").fetch_all(&mut conn).await.expect("numbers");
    let offers = offers.body["items"].as_array().expect("offers").clone();
    let mut numbers = offers.iter().map(|offer| offer["number"].as_str().expect("a number").to_owned());
    numbers.find(|number| !taken.contains(number)).expect("a number for sale")
}

/// A call that is over.
async fn call(origin: &Origin) -> String {
    let id: Uuid = query_scalar(
        "insert into calls (id, project_id, agent_id, call_sid, system_type, status, ended_at, end_reason)
         values (gen_random_uuid(), $1, $2, 'CA' || $3, 'vapi', 'ended', now(), 'caller_hung_up') returning id",
    )
    .bind(origin.project.0)
    .bind(origin.reception.0)
    .bind(fresh().to_string())
    .fetch_one(&origin.app.db)
    .await
    .expect("a call");
    id.to_string()
}

/// A rollout of two stages and two agents, after these steps.
async fn rollout(origin: &Origin, steps: &[&str]) -> String {
    let (pilot, other) = (agent(origin).await, agent(origin).await);
    let fields = json!({ "target": "openai-realtime", "agentIds": [pilot, other], "pilots": [pilot] });
    let id = made(origin, "/api/rollouts", &fields).await;
    for step in steps {
        if *step == "work" {
            let app = &origin.app;
            let worker = Worker { db: app.db.clone(), systems: app.config.systems(), twilio: true };
            worker.run().await.expect("the work is done");
        } else {
            let done = origin.post(&format!("/api/rollouts/{id}/{step}"), &json!({})).await;
            assert_eq!(done.status, 200, "{step}: {}", done.body);
        }
    }
    id
}
