//! A project with many agents, a real origin that works for it, and the command line.

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};
use tests::stack::origin::Origin;

use tests::hosts::Hosts;
use tests::twilio::{Number, Twilio, TwilioOptions};
use tests::vapi::{Vapi, VapiOptions};

use crate::harness::Database;

/// A database with agents that can run on both systems, three numbers each.
pub(crate) struct Fleet {
    env: Vec<(String, String)>,
    conn: tokio::sync::Mutex<PgConnection>,
    pub(crate) at: Option<Providers>,
    // Dropped last, and with it the database.
    _database: Database,
}

/// Where the numbers are.
pub(crate) struct Providers {
    pub(crate) twilio: Twilio,
    _vapi: Vapi,
}

const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

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
    /// Numbers that are nowhere but here.
    pub(crate) async fn with_agents(agents: u32) -> Self {
        Self::with(agents, None).await
    }

    /// Numbers that Twilio sends straight to Vapi, each with settings of its own.
    pub(crate) async fn at_twilio(agents: u32) -> Self {
        let hosts = Hosts::default();
        let twilio = Twilio::start(TwilioOptions::new(ACCOUNT, TOKEN, hosts.clone())).await.expect("a port");
        let options = VapiOptions { twilio_api_url: Some(twilio.api_url()), ..VapiOptions::new("vapi-key", hosts) };
        let vapi = Vapi::start(options).await.expect("a port");
        for agent in 1..=agents {
            vapi.add_assistant(json!({ "id": format!("assistant-{agent}"), "name": "Agent" }));
            for which in 1..=3 {
                let e164 = number(agent, which);
                vapi.add_number(json!({
                    "id": format!("vapi-{agent}-{which}"), "provider": "twilio", "number": e164,
                    "twilioAccountSid": ACCOUNT, "twilioAuthToken": TOKEN,
                    "assistantId": format!("assistant-{agent}"), "server": { "url": "https://own.test/vapi" },
                }));
                let own = Number::new(&e164)
                    .voice_url("https://api.vapi.ai/twilio/inbound_call")
                    .fallback_url(&format!("https://own.test/fallback/{agent}/{which}"));
                twilio.set_number(if which == 3 { own.with("VoiceFallbackMethod", "GET") } else { own });
            }
        }
        Self::with(agents, Some(Providers { twilio, _vapi: vapi })).await
    }

    async fn with(agents: u32, at: Option<Providers>) -> Self {
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
        let mut env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        if let Some(Providers { twilio, _vapi: vapi }) = &at {
            let more = [
                ("TWILIO_ACCOUNT_SID", ACCOUNT.to_owned()),
                ("TWILIO_AUTH_TOKEN", TOKEN.to_owned()),
                ("TWILIO_API_URL", twilio.api_url()),
                ("VAPI_API_KEY", "vapi-key".to_owned()),
                ("VAPI_API_URL", vapi.api_url()),
            ];
            env.extend(more.map(|(name, value)| (name.to_owned(), value)));
        }
        let fleet = Self { env, conn: tokio::sync::Mutex::new(database.connect().await), at, _database: database };
        fleet
            .execute(&format!(
                "insert into projects (id, name) values ('00000000-0000-0000-0000-00000000aaaa', 'Fleet');
                 insert into agents (id, project_id, name, instructions, realtime, vapi_assistant_id)
                 select md5('agent' || n)::uuid, '00000000-0000-0000-0000-00000000aaaa', 'Agent ' || n, 'Answer.',
                        '{{\"voice\": \"marin\"}}', 'assistant-' || n
                 from generate_series(1, {agents}) n;
                 insert into phone_numbers (id, project_id, number, vapi_phone_number_id, agent_id)
                 select md5('number' || n || '.' || k)::uuid, '00000000-0000-0000-0000-00000000aaaa',
                        '+1555' || lpad((n * 3 + k)::text, 7, '0'), 'vapi-' || n || '-' || k, md5('agent' || n)::uuid
                 from generate_series(1, {agents}) n, generate_series(1, 3) k"
            ))
            .await;
        fleet
    }

    pub(crate) async fn origin(&self) -> Origin {
        Origin::start(self.env.clone()).await.expect("an origin")
    }

    /// Runs a command of `tandem rollout`.
    pub(crate) async fn run(&self, args: &[&str]) -> Ran {
        let all: Vec<&str> = ["rollout"].iter().chain(args).copied().collect();
        self.tandem(&all).await
    }

    /// Runs a command of `tandem`.
    pub(crate) async fn tandem(&self, args: &[&str]) -> Ran {
        let output = Origin::output(args, &self.env).await.expect("tandem runs");
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
        self.execute("update pointings set claimed_until = null").await;
        self.execute("update graphile_worker._private_workers set last_heartbeat_at = now() - interval '1 hour'").await;
    }

    pub(crate) fn twilio(&self) -> &Twilio {
        &self.at.as_ref().expect("numbers at Twilio").twilio
    }

    /// Every setting of every number at Twilio that decides about a call.
    pub(crate) async fn at_twilio_now(&self) -> Value {
        let numbers = self.value("select jsonb_agg(number order by number) from phone_numbers").await;
        let numbers = numbers.as_array().expect("numbers").iter().filter_map(Value::as_str);
        let settings = |e164: &str| {
            let number = self.twilio().number(e164)?;
            let all = ["VoiceUrl", "VoiceMethod", "VoiceFallbackUrl", "VoiceFallbackMethod", "StatusCallback"];
            Some(json!(all.map(|name| number.setting(name).map(str::to_owned))))
        };
        numbers.map(|e164| (e164.to_owned(), json!(settings(e164)))).collect::<serde_json::Map<_, _>>().into()
    }
}

/// The `which`th number of the `agent`th agent, both counted from 1.
pub(crate) fn number(agent: u32, which: u32) -> String {
    format!("+1555{:07}", agent * 3 + which)
}
