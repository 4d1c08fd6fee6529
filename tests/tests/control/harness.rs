//! An origin in this process, on a database of its own.

use std::sync::Arc;
use std::time::Duration;

use origin::config::Config;
use origin::store::api_keys::{self, Role};
use origin::store::projects;
use origin::{App, http, jobs, keys, seed, store};
use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use shared::{AgentId, ProjectId};
use sqlx::{Connection as _, PgConnection, PgPool};
use tests::stack::postgres::Postgres;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::kv::FakeKv;

/// How long anything that is awaited may take before the test fails: far more than it takes.
const PATIENCE: Duration = Duration::from_mins(1);

/// A database server with one migrated, seeded database.
pub(crate) struct Database {
    // Dropped last, and with it the database.
    _server: Postgres,
    pub(crate) url: String,
}

impl Database {
    /// An empty database.
    pub(crate) async fn empty() -> Self {
        let server = Postgres::from_environment().await.expect("a Postgres for the test");
        let url = server.create_database("control").await.expect("a database for the test");
        Self { _server: server, url }
    }

    /// A database with every migration applied.
    pub(crate) async fn migrated() -> Self {
        let database = Self::empty().await;
        let pool = store::connect_unlimited(&database.url.clone().into()).await.expect("a connection");
        store::MIGRATIONS.run(&pool).await.expect("our migrations apply");
        jobs::migrate(&pool).await.expect("the job library's migrations apply");
        pool.close().await;
        database
    }

    pub(crate) async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.expect("a connection")
    }
}

/// A running origin with the seeded project.
pub(crate) struct Origin {
    pub(crate) app: Arc<App>,
    pub(crate) database: Database,
    pub(crate) project: ProjectId,
    /// Can run on both systems; begins on Vapi.
    pub(crate) reception: AgentId,
    /// Has no assistant at Vapi.
    pub(crate) night_line: AgentId,
    pub(crate) key: String,
    base: String,
    client: reqwest::Client,
    more: Vec<(&'static str, String)>,
}

/// A worker on a runtime of its own: when that is dropped, all its tasks stop where they are and nothing is tidied up.
pub(crate) struct KillableJobs(Option<Runtime>);

impl KillableJobs {
    /// Kills the worker, and makes its last sign of life an old one, which otherwise takes half a minute.
    pub(crate) async fn kill(mut self, origin: &Origin) {
        self.0.take().expect("killed once").shutdown_background();
        sqlx::query("update graphile_worker._private_workers set last_heartbeat_at = now() - interval '1 hour'")
            .execute(&origin.app.db)
            .await
            .expect("the worker's row");
    }
}

impl Drop for KillableJobs {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// An answer of the API.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Origin {
    /// Without Cloudflare: nothing replicates.
    pub(crate) async fn start() -> Self {
        Self::with(Vec::new()).await
    }

    /// Replicating to `kv` once [`run_jobs`](Self::run_jobs) is called.
    pub(crate) async fn replicating_to(kv: &FakeKv) -> Self {
        Self::with(cloudflare(kv)).await
    }

    /// With these variables beside those that every origin of these tests has.
    pub(crate) async fn with(more: Vec<(&'static str, String)>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let database = Database::migrated().await;
        let config = config(&database.url, &more);
        let db = store::connect(&config.database_url).await.expect("the origin's pool");
        let app = App::new(config, db).expect("an app");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let router = http::router(Arc::clone(&app));
        tokio::spawn(async move { axum::serve(listener, router).await });

        let vapi = seed::VapiIds {
            assistant_id: "assistant-1".parse().expect("an assistant id"),
            phone_number_id: "number-1".to_owned(),
        };
        let mut tx = app.db.begin().await.expect("a transaction");
        let seeded = seed::seed(&mut tx, &vapi).await.expect("the seed");
        tx.commit().await.expect("a commit");
        let key = new_key(&app.db, seeded.project_id, Role::Write, 1).await;
        Self {
            project: seeded.project_id,
            reception: seeded.agents[0].id,
            night_line: seeded.agents[1].id,
            key,
            base,
            client: reqwest::Client::new(),
            app,
            database,
            more,
        }
    }

    /// Another origin on the same database, in a process of its own.
    pub(crate) async fn process(&self) -> tests::stack::origin::Origin {
        let variables = variables(&self.database.url, &self.more);
        tests::stack::origin::Origin::start(variables).await.expect("another origin")
    }

    /// Runs jobs as `tandem serve` does.
    pub(crate) fn run_jobs(&self) -> JoinHandle<()> {
        tokio::spawn(jobs::run(Arc::clone(&self.app)))
    }

    /// Runs jobs as another process would, one that can be killed.
    pub(crate) fn run_killable_jobs(&self, kv: &FakeKv) -> KillableJobs {
        let config = config(&self.database.url, &cloudflare(kv));
        let runtime = Runtime::new().expect("a runtime");
        runtime.spawn(async move {
            let db = store::connect(&config.database_url).await.expect("a pool");
            jobs::run(App::new(config, db).expect("an app")).await;
        });
        KillableJobs(Some(runtime))
    }

    /// A key of the seeded project that may only read.
    pub(crate) async fn read_key(&self) -> String {
        new_key(&self.app.db, self.project, Role::Read, 2).await
    }

    /// A key of another project.
    pub(crate) async fn stranger_key(&self) -> String {
        let mut conn = self.database.connect().await;
        let project = projects::insert(&mut conn, "Elsewhere").await.expect("another project");
        new_key(&self.app.db, project.id, Role::Write, 3).await
    }

    pub(crate) async fn get(&self, key: &str, path: &str) -> Answer {
        answer(self.client.get(format!("{}{path}", self.base)).bearer_auth(key)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        answer(self.request(Method::POST, path).bearer_auth(&self.key).json(body)).await
    }

    /// A `POST` that takes effect once.
    pub(crate) async fn post_once(&self, idempotency_key: &str, path: &str, body: &Value) -> Answer {
        let request = self.request(Method::POST, path).bearer_auth(&self.key).json(body);
        answer(request.header("idempotency-key", idempotency_key)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Answer {
        answer(self.request(Method::PATCH, path).bearer_auth(&self.key).json(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        answer(self.request(Method::DELETE, path).bearer_auth(&self.key)).await
    }

    pub(crate) async fn put(&self, key: &str, path: &str, body: &Value) -> Answer {
        answer(self.client.put(format!("{}{path}", self.base)).bearer_auth(key).json(body)).await
    }

    /// A tool of the project's with this name; gives its id.
    pub(crate) async fn tool(&self, name: &str) -> String {
        self.tool_of(&self.key, name).await
    }

    /// The same for the project of a key.
    pub(crate) async fn tool_of(&self, key: &str, name: &str) -> String {
        let id: Uuid = sqlx::query_scalar(
            "insert into tools (id, project_id, name, builtin)
             select gen_random_uuid(), project_id, $2, 'end_call' from api_keys where prefix = left($1, 12)
             returning id",
        )
        .bind(key)
        .bind(name)
        .fetch_one(&self.app.db)
        .await
        .expect("a tool");
        id.to_string()
    }

    /// The origin's own address of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// A request to build on, without a key.
    pub(crate) fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    /// Switches an agent with the project's own key.
    pub(crate) async fn switch(&self, agent: AgentId, target: &str) -> Answer {
        self.put(&self.key, &format!("/api/agents/{agent}/system-type"), &json!({ "systemType": target })).await
    }

    pub(crate) async fn agent(&self, agent: AgentId) -> Value {
        self.get(&self.key, &format!("/api/agents/{agent}")).await.body
    }

    /// The agent's events since it was seeded, oldest first.
    pub(crate) async fn events(&self, agent: AgentId) -> Vec<Value> {
        let answer = self.get(&self.key, &format!("/api/events?limit=200&agentId={agent}")).await;
        let mut events = answer.body["items"].as_array().expect("a list of events").clone();
        events.retain(|event| event["actor"] != "command:seed");
        events.reverse();
        events
    }

    /// Waits until the edge's store has the agent as it is now.
    pub(crate) async fn replicated(&self, agent: AgentId) -> Value {
        eventually("the agent is replicated", async || {
            let agent = self.agent(agent).await;
            (agent["replica"]["replicated"] == true).then_some(agent)
        })
        .await
    }
}

/// Sends a request and reads its JSON answer.
pub(crate) async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.expect("the origin answers");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.expect("a whole answer");
    Answer { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
}

pub(crate) fn assert_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.body["code"].as_str()), (status, Some(code)), "{}", answer.body);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    assert_eq!(answer.body["status"], status);
    assert_eq!(answer.headers["x-request-id"], answer.body["requestId"].as_str().expect("the request's id"));
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

async fn new_key(db: &PgPool, project: ProjectId, role: Role, random: u8) -> String {
    let (key, kept) = keys::make([random; 32]);
    let mut conn = db.acquire().await.expect("a connection");
    api_keys::insert(&mut conn, project, role, &kept).await.expect("a key");
    key.expose_secret().to_owned()
}

/// What lets an origin replicate to `kv`.
pub(crate) fn cloudflare(kv: &FakeKv) -> Vec<(&'static str, String)> {
    vec![
        ("CLOUDFLARE_API_URL", kv.url()),
        ("CLOUDFLARE_ACCOUNT_ID", "account".to_owned()),
        ("CLOUDFLARE_API_TOKEN", "token".to_owned()),
        ("CLOUDFLARE_KV_NAMESPACE_ID", "routes".to_owned()),
    ]
}

fn config(database_url: &str, more: &[(&'static str, String)]) -> Config {
    let variables = variables(database_url, more);
    let value = |name: &str| Some(variables.iter().rev().find(|(known, _)| known == name)?.1.clone());
    Config::read(value).expect("a valid configuration")
}

/// What every origin of these tests has, and after it what only this one has.
fn variables(database_url: &str, more: &[(&'static str, String)]) -> Vec<(String, String)> {
    let all = [
        ("DATABASE_URL", database_url),
        ("API_REQUESTS_PER_SECOND", "1000"),
        ("EDGE_URL", "https://edge.tandem.test"),
        ("MEDIA_URL", "wss://origin.tandem.test/media-stream"),
        ("EDGE_ORIGIN_SECRET", "a secret for the tests only"),
        ("OPENAI_API_KEY", "for the tests only"),
        ("VAPI_API_KEY", "for the tests only"),
        ("VAPI_SERVER_SECRET", "for the tests only"),
    ];
    let all = all.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    all.chain(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone()))).collect()
}
