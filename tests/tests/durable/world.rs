//! An origin in this process, on a database of its own, with the services that a test needs.

use std::sync::Arc;
use std::time::Duration;

use origin::config::Config;
use origin::providers::cloudflare::Kv;
use origin::replication::Replicator;
use origin::store::api_keys::{self, Role};
use origin::{App, http, jobs, keys, seed, store};
use reqwest::header::{HeaderMap, HeaderValue};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use shared::hop::{self, SignedRequest};
use shared::{AgentId, ProjectId};
use sqlx::{AssertSqlSafe, Executor as _, query_scalar};
use tests::cloudflare::{KvApi, KvApiOptions};
use tests::stack::origin::Origin;
use tests::stack::postgres::Postgres;
use tests::tool_server::ToolServer;
use time::OffsetDateTime;
use tokio::net::TcpListener;

/// What edge and origin share.
pub(crate) const SECRET: &str = "a secret for the tests only";
/// The seeded agent's number, assistant and number at Vapi.
pub(crate) const NUMBER: &str = "+15550100001";
pub(crate) const ASSISTANT: &str = "assistant-1";

/// How long anything that is awaited may take before the test fails: far more than it takes.
const PATIENCE: Duration = Duration::from_mins(1);
const VAPI_WEBHOOK: &str = "/api/vapi/webhook";

/// A running origin with the seeded project.
pub(crate) struct World {
    pub(crate) app: Arc<App>,
    /// Can run on both systems; begins on Vapi.
    pub(crate) reception: AgentId,
    pub(crate) project: ProjectId,
    pub(crate) key: String,
    pub(crate) base: String,
    /// The variables that the origin was configured with.
    env: Vec<(String, String)>,
    client: reqwest::Client,
    // Dropped last, and with it the database.
    _postgres: Postgres,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<String>,
    pub(crate) body: Value,
}

impl World {
    /// With no service but OpenAI and Vapi configured.
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With more variables.
    pub(crate) async fn with(env: &[(&str, &str)]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let postgres = Postgres::from_environment().await.expect("a Postgres for the test");
        let url = postgres.create_database("durable").await.expect("a database for the test");
        let pool = store::connect_unlimited(&url.clone().into()).await.expect("a connection");
        store::MIGRATIONS.run(&pool).await.expect("our migrations apply");
        jobs::migrate(&pool).await.expect("the job library's migrations apply");
        pool.close().await;

        let all: Vec<(String, String)> = [
            ("DATABASE_URL", url.as_str()),
            ("EDGE_URL", "https://edge.tandem.test"),
            ("MEDIA_URL", "wss://origin.tandem.test/media-stream"),
            ("EDGE_ORIGIN_SECRET", SECRET),
            ("OPENAI_API_KEY", "for the tests only"),
            ("VAPI_API_KEY", "for the tests only"),
            ("VAPI_SERVER_SECRET", "for the tests only"),
            ("TOOLS_ALLOW_PRIVATE", "1"),
        ]
        .iter()
        .chain(env)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
        // The later of two wins.
        let lookup = |name: &str| all.iter().rfind(|(given, _)| given == name).map(|(_, value)| value.clone());
        let config = Config::read(lookup).expect("a valid configuration");
        let db = store::connect(&config.database_url).await.expect("the origin's pool");
        let app = App::new(config, db).expect("an app");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let router = http::router(Arc::clone(&app));
        tokio::spawn(async move { axum::serve(listener, router).await });

        let vapi = seed::VapiIds {
            assistant_id: ASSISTANT.parse().expect("an assistant id"),
            phone_number_id: "number-1".to_owned(),
        };
        let mut tx = app.db.begin().await.expect("a transaction");
        let seeded = seed::seed(&mut tx, &vapi).await.expect("the seed");
        let (key, kept) = keys::make([1; 32]);
        api_keys::insert(&mut tx, seeded.project_id, Role::Write, &kept).await.expect("a key");
        tx.commit().await.expect("a commit");
        Self {
            reception: seeded.agents[0].id,
            project: seeded.project_id,
            key: key.expose_secret().to_owned(),
            base,
            client: reqwest::Client::new(),
            env: all,
            app,
            _postgres: postgres,
        }
    }

    /// With access to this store, in which nothing is yet.
    pub(crate) async fn with_kv(kv: &KvApi) -> Self {
        Self::with(&[
            ("CLOUDFLARE_API_URL", &kv.api_url()),
            ("CLOUDFLARE_ACCOUNT_ID", "account"),
            ("CLOUDFLARE_API_TOKEN", "token"),
            ("CLOUDFLARE_KV_NAMESPACE_ID", "routes"),
        ])
        .await
    }

    /// The origin's own access to the store.
    pub(crate) fn kv(&self) -> Kv {
        self.app.kv().expect("Cloudflare is configured")
    }

    /// Runs the replication job once.
    pub(crate) async fn replicate(&self) {
        let replicator = Replicator::new(self.app.db.clone(), self.kv(), Arc::clone(&self.app.metrics));
        replicator.run().await.expect("the routes are written");
    }

    /// Runs a command of the binary, in the origin's environment.
    pub(crate) async fn command(&self, args: &[&str]) -> std::io::Result<String> {
        Origin::command(args, &self.env).await
    }

    /// The same for a command that is meant to fail.
    pub(crate) async fn output(&self, args: &[&str]) -> std::process::Output {
        Origin::output(args, &self.env).await.expect("the command runs")
    }

    /// Posts as the edge does.
    pub(crate) async fn post(&self, path: &str, content_type: &str, delivery: Option<&str>, body: String) -> Answer {
        let signed = SignedRequest { method: "POST", path_and_query: path, body: body.as_bytes() };
        let now = u64::try_from(OffsetDateTime::now_utc().unix_timestamp()).expect("a time after 1970");
        let mut headers = HeaderMap::new();
        let header = |text: &str| HeaderValue::from_str(text).expect("a header");
        headers.insert("content-type", header(content_type));
        headers.insert(hop::SIGNATURE_HEADER, header(&hop::sign(SECRET, now, signed)));
        if let Some(delivery) = delivery {
            headers.insert(hop::DELIVERY_HEADER, header(delivery));
        }
        self.send(path, headers, body).await
    }

    /// Posts with these headers.
    pub(crate) async fn send(&self, path: &str, headers: HeaderMap, body: String) -> Answer {
        let request = self.client.post(format!("{}{path}", self.base)).headers(headers).body(body);
        let response = request.send().await.expect("the origin answers");
        let status = response.status().as_u16();
        let retry_after =
            response.headers().get("retry-after").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let text = response.text().await.expect("a whole answer");
        Answer { status, retry_after, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
    }

    /// Passes on a message of Vapi's.
    pub(crate) async fn vapi(&self, message: Value) -> Answer {
        self.vapi_as(None, message).await
    }

    /// The same under a delivery id of the edge's.
    pub(crate) async fn vapi_as(&self, delivery: Option<&str>, message: Value) -> Answer {
        self.post(VAPI_WEBHOOK, "application/json", delivery, json!({ "message": message }).to_string()).await
    }

    /// Passes on a status callback of Twilio's.
    pub(crate) async fn twilio_status(&self, form: &str) -> Answer {
        self.post("/twilio/status", "application/x-www-form-urlencoded", None, form.to_owned()).await
    }

    /// `GET` from the API.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.get_with(&self.key, path).await
    }

    /// The same with another key.
    pub(crate) async fn get_with(&self, key: &str, path: &str) -> Answer {
        let request = self.client.get(format!("{}{path}", self.base)).bearer_auth(key);
        let response = request.send().await.expect("the origin answers");
        let status = response.status().as_u16();
        Answer { status, retry_after: None, body: response.json().await.expect("JSON") }
    }

    /// The record of the call with this name at Vapi, with its transcript.
    pub(crate) async fn vapi_call(&self, id: &str) -> Value {
        let calls = self.get("/api/calls").await.body;
        let call = calls["items"].as_array().into_iter().flatten().find(|call| call["vapiCallId"] == id);
        let id = call.and_then(|call| call["id"].as_str()).expect("the call is known");
        self.get(&format!("/api/calls/{id}")).await.body
    }

    /// Gives the agent on Vapi these tools of the server.
    pub(crate) async fn add_tools(&self, server: &ToolServer, names: &[&str]) {
        for name in names {
            self.execute(&format!(
                "with tool as (
                     insert into tools (id, project_id, name, target_url, secret, timeout_ms)
                     values (gen_random_uuid(), '{}', '{name}', '{}', 'tool-secret', 5000) returning id, project_id)
                 insert into agent_tools (project_id, agent_id, tool_id) select project_id, '{}', id from tool",
                self.project,
                server.url(),
                self.reception
            ))
            .await;
        }
    }

    /// Runs SQL.
    pub(crate) async fn execute(&self, sql: &str) {
        let mut conn = self.app.db.acquire().await.expect("a connection");
        conn.execute(AssertSqlSafe(sql.to_owned())).await.expect(sql);
    }

    /// What a query of one number gives.
    pub(crate) async fn count(&self, sql: &str) -> i64 {
        query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&self.app.db).await.expect(sql)
    }

    /// A line of `GET /metrics` by what it begins with: the number in it, 0 without such a line.
    pub(crate) fn metric(&self, line: &str) -> u64 {
        let text = self.app.metrics.encode().expect("the metrics");
        let found = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' ')?.parse().ok());
        found.unwrap_or_default()
    }
}

/// The common part of Vapi's messages about a call with the seeded agent.
pub(crate) fn message(kind: &str, call: &str, more: &Value) -> Value {
    let mut message = json!({
        "type": kind,
        "timestamp": 1_795_359_607_400_i64,
        "call": { "id": call, "assistantId": ASSISTANT, "createdAt": "2026-11-22T14:59:58.000Z" },
        "phoneNumber": { "number": NUMBER },
        "customer": { "number": "+15550199" },
    });
    let members = message.as_object_mut().expect("an object");
    members.extend(more.as_object().cloned().unwrap_or_default());
    message
}

/// Looks again and again until there is something.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("waited in vain until {what}"))
}

/// A store in memory that takes writes of one key at any pace.
pub(crate) async fn patient_kv() -> KvApi {
    let options = KvApiOptions::new("account", "token", "routes");
    KvApi::start(KvApiOptions { write_interval: Duration::ZERO, ..options }).await.expect("a store")
}
