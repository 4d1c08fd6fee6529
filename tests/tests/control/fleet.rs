//! A project with many agents, a real origin that works for it, and the command line.

use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection};
use tests::stack::origin::Origin;

use crate::harness::Database;

/// A database with agents that can run on both systems, three numbers each.
pub(crate) struct Fleet {
    env: Vec<(String, String)>,
    conn: tokio::sync::Mutex<PgConnection>,
    // Dropped last, and with it the database.
    _database: Database,
}

/// A command that has ended.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("JSON, not {} {}", self.stdout, self.stderr))
    }
}

impl Fleet {
    pub(crate) async fn with_agents(agents: u32) -> Self {
        let database = Database::migrated().await;
        let env = [
            ("DATABASE_URL", database.url.as_str()),
            ("EDGE_URL", "https://edge.tandem.test"),
            ("MEDIA_URL", "wss://origin.tandem.test/media-stream"),
            ("EDGE_ORIGIN_SECRET", "a secret for the tests only"),
            ("OPENAI_API_KEY", "for the tests only"),
            ("VAPI_API_KEY", "for the tests only"),
            ("VAPI_SERVER_SECRET", "for the tests only"),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let fleet = Self { env, conn: tokio::sync::Mutex::new(database.connect().await), _database: database };
        fleet
            .execute(&format!(
                "insert into projects (id, name) values ('00000000-0000-0000-0000-00000000aaaa', 'Fleet');
                 insert into agents (id, project_id, name, instructions, realtime, vapi_assistant_id)
                 select md5('agent' || n)::uuid, '00000000-0000-0000-0000-00000000aaaa', 'Agent ' || n, 'Answer.',
                        '{{\"voice\": \"marin\"}}', 'assistant-' || n
                 from generate_series(1, {agents}) n;
                 insert into phone_numbers (id, project_id, number, agent_id)
                 select md5('number' || n || '.' || k)::uuid, '00000000-0000-0000-0000-00000000aaaa',
                        '+1555' || lpad((n * 3 + k)::text, 7, '0'), md5('agent' || n)::uuid
                 from generate_series(1, {agents}) n, generate_series(1, 3) k"
            ))
            .await;
        fleet
    }

    pub(crate) async fn origin(&self) -> Origin {
        Origin::start(self.env.clone()).await.expect("an origin")
    }

    pub(crate) async fn run(&self, args: &[&str]) -> Ran {
        let all: Vec<&str> = ["rollout"].iter().chain(args).copied().collect();
        let output = Origin::output(&all, &self.env).await.expect("tandem runs");
        Ran {
            code: output.status.code().expect("no signal"),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Plans a rollout of all agents and gives its id.
    pub(crate) async fn plan(&self, more: &[&str]) -> String {
        let args: Vec<&str> = ["plan", "--project", "Fleet", "--json"].iter().chain(more).copied().collect();
        let ran = self.run(&args).await;
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran.json()["id"].as_str().expect("an id").to_owned()
    }

    pub(crate) async fn execute(&self, sql: &str) {
        let mut conn = self.conn.lock().await;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&mut *conn)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// One JSON value out of the database.
    pub(crate) async fn value(&self, sql: &str) -> Value {
        let mut conn = self.conn.lock().await;
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
            .fetch_one(&mut *conn)
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) async fn count(&self, sql: &str) -> i64 {
        self.value(&format!("select to_jsonb(count(*)) {sql}")).await.as_i64().expect("a count")
    }

    /// What a rollout changes in agents and numbers, but for the time of the last switch.
    pub(crate) async fn systems(&self) -> Value {
        self.value(
            "select jsonb_build_object(
                 'agents', (select jsonb_object_agg(id, system_type) from agents),
                 'numbers', (select jsonb_object_agg(number, system_type) from phone_numbers))",
        )
        .await
    }

    pub(crate) async fn on_openai(&self) -> i64 {
        self.count("from agents where system_type = 'openai-realtime'").await
    }

    /// Kills the origin, and makes its last sign of life an old one, which otherwise takes half a minute.
    pub(crate) async fn kill(&self, origin: &mut Origin) {
        origin.kill().await.expect("a dead origin");
        self.execute("update graphile_worker._private_workers set last_heartbeat_at = now() - interval '1 hour'").await;
    }
}
