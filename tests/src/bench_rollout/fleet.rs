//! The agents and numbers, and where they are: in a real origin's database, at Twilio, at Vapi and in the edge's store.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::{LIMIT, MILESTONES, POLL, Plan};
use crate::cloudflare::{KvApi, KvApiOptions};
use crate::hosts::Hosts;
use crate::stack::origin::Origin;
use crate::stack::postgres::Postgres;
use crate::tandem::{ACCOUNT_SID, AUTH_TOKEN, EDGE_ORIGIN_SECRET, EDGE_URL, MEDIA_URL};
use crate::twilio::{Number, Twilio, TwilioOptions};
use crate::vapi::{Vapi, VapiOptions};

/// Where agents begin.
pub(super) const VAPI: &str = "vapi";
/// Where they go.
pub(super) const OPENAI: &str = "openai-realtime";

const CLOUDFLARE_ACCOUNT: &str = "0123456789abcdef0123456789abcdef";
const NAMESPACE: &str = "routes";
const VAPI_KEY: &str = "vapi-private-key";
/// Every setting that decides about a call.
const SETTINGS: [&str; 8] = [
    "VoiceUrl",
    "VoiceMethod",
    "VoiceFallbackUrl",
    "VoiceFallbackMethod",
    "StatusCallback",
    "StatusCallbackMethod",
    "VoiceApplicationSid",
    "TrunkSid",
];

/// The running whole. Fields are dropped in order.
pub(super) struct Fleet {
    pub(super) origin: Origin,
    pub(super) twilio: Twilio,
    vapi: Vapi,
    kv: KvApi,
    conn: Mutex<PgConnection>,
    env: Vec<(String, String)>,
    numbers: Vec<String>,
    keys: usize,
    postgres: Postgres,
}

/// Who is asked, in the order of [`Fleet::requests`].
pub(super) const SERVICES: [&str; 3] = ["Twilio", "Vapi", "Cloudflare"];

impl Fleet {
    /// Makes them, each number with settings of its own at Twilio, and waits until the edge's store has them.
    pub(super) async fn start(plan: &Plan) -> anyhow::Result<Self> {
        let delay = Duration::from_millis(plan.latency_ms);
        let hosts = Hosts::default();
        let options = TwilioOptions { rest_delay: delay, ..TwilioOptions::new(ACCOUNT_SID, AUTH_TOKEN, hosts.clone()) };
        let twilio = Twilio::start(options).await?;
        let options = VapiOptions {
            twilio_api_url: Some(twilio.api_url()),
            rest_delay: delay,
            ..VapiOptions::new(VAPI_KEY, hosts)
        };
        let vapi = Vapi::start(options).await?;
        let kv = KvApi::start(KvApiOptions::new(CLOUDFLARE_ACCOUNT, "token", NAMESPACE)).await?;
        let postgres = Postgres::from_environment().await?;
        let url = postgres.create_database("tandem").await?;
        let mut env: Vec<(String, String)> = [
            ("DATABASE_URL", url.as_str()),
            ("EDGE_URL", EDGE_URL),
            ("MEDIA_URL", MEDIA_URL),
            ("EDGE_ORIGIN_SECRET", EDGE_ORIGIN_SECRET),
            ("OPENAI_API_KEY", "for the measurement only"),
            ("TWILIO_ACCOUNT_SID", ACCOUNT_SID),
            ("TWILIO_AUTH_TOKEN", AUTH_TOKEN),
            ("TWILIO_API_URL", &twilio.api_url()),
            ("VAPI_API_KEY", VAPI_KEY),
            ("VAPI_SERVER_SECRET", "for the measurement only"),
            ("VAPI_API_URL", &vapi.api_url()),
            ("CLOUDFLARE_ACCOUNT_ID", CLOUDFLARE_ACCOUNT),
            ("CLOUDFLARE_API_TOKEN", "token"),
            ("CLOUDFLARE_KV_NAMESPACE_ID", NAMESPACE),
            ("CLOUDFLARE_API_URL", &kv.api_url()),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        if let Some(concurrency) = plan.concurrency {
            env.push(("TWILIO_CONCURRENCY".to_owned(), concurrency.to_string()));
        }
        Origin::command(&["migrate"], &env).await?;
        let mut conn = PgConnection::connect(&url).await?;
        make_agents(&mut conn, plan).await?;
        let numbers: Vec<String> =
            sqlx::query_scalar("select number from phone_numbers order by number").fetch_all(&mut conn).await?;
        register(&mut conn, &twilio, &vapi).await?;
        let origin = Origin::start(env.clone()).await?;
        let keys = numbers.len() + usize::try_from(plan.agents)?;
        let conn = Mutex::new(conn);
        let fleet = Self { origin, twilio, vapi, kv, conn, env, numbers, keys, postgres };
        Origin::command(&["replica", "repair"], &fleet.env).await?;
        let begun = Instant::now();
        while fleet.in_kv().len() < fleet.keys {
            ensure!(begun.elapsed() < LIMIT, "the edge's store does not get the agents\n{}", fleet.origin.log_tail());
            sleep(POLL).await;
        }
        Ok(fleet)
    }

    /// Runs `tandem rollout`. Some exit codes tell of a rollout that is not done yet.
    pub(super) async fn tandem(&self, args: &[&str]) -> anyhow::Result<String> {
        let all: Vec<&str> = ["rollout"].iter().chain(args).copied().collect();
        let output = Origin::output(&all, &self.env).await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(matches!(output.status.code(), Some(0 | 1 | 3)), "`tandem {}`: {said}", all.join(" "));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What an operator sees, with the exit code.
    pub(super) async fn status(&self, id: &str) -> anyhow::Result<String> {
        let output = Origin::output(&["rollout", "status", id], &self.env).await?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(format!("{text}(exit code {})", output.status.code().context("no signal")?))
    }

    /// Which of [`MILESTONES`] are reached on the way to a system.
    pub(super) async fn reached(&self, system: &str) -> anyhow::Result<[bool; MILESTONES.len()]> {
        ensure!(!self.origin.has_ended(), "the origin has ended");
        let mut conn = self.conn.lock().await;
        let (database, twilio, over): (bool, bool, bool) = sqlx::query_as(
            "select not exists (select from agents where system_type <> $1),
                    not exists (select from pointings where state <> 'settled' or (place = 'vapi') <> ($1 = 'vapi')),
                    exists (select from rollouts where state = case when $1 = 'vapi' then 'rolled_back' else 'completed' end)",
        )
        .bind(system)
        .fetch_one(&mut *conn)
        .await?;
        // What is not switched yet cannot have followed.
        let edge = database && {
            let kv = self.in_kv();
            kv.len() == self.keys && kv.values().all(|value| value["agentSystemType"] == system)
        };
        Ok([database, edge, database && twilio, database && over])
    }

    pub(super) async fn settled(&self) -> anyhow::Result<i64> {
        let mut conn = self.conn.lock().await;
        let count = sqlx::query_scalar("select count(*) from pointings where state = 'settled'");
        Ok(count.fetch_one(&mut *conn).await?)
    }

    /// Whether Postgres makes every commit durable, which costs time.
    pub(super) async fn about_postgres(&self) -> anyhow::Result<String> {
        let mut conn = self.conn.lock().await;
        let fsync: String = sqlx::query_scalar("show fsync").fetch_one(&mut *conn).await?;
        Ok(format!("Postgres on this machine, fsync {fsync}; for another one set DATABASE_URL."))
    }

    /// Every number's settings.
    pub(super) fn at_twilio(&self) -> BTreeMap<String, Vec<Option<String>>> {
        let settings = |number: &str| {
            let number = self.twilio.number(number)?;
            Some(SETTINGS.map(|name| number.setting(name).map(str::to_owned)).to_vec())
        };
        self.numbers.iter().map(|number| (number.clone(), settings(number).unwrap_or_default())).collect()
    }

    /// Every key's value, but for what counts and dates its changes.
    pub(super) fn in_kv(&self) -> BTreeMap<String, Value> {
        let mut values = BTreeMap::new();
        for write in self.kv.writes().all() {
            let mut value = write.json();
            if let Some(value) = value.as_object_mut() {
                value.remove("revision");
                value.remove("switchedAt");
            }
            values.insert(write.key, value);
        }
        values
    }

    /// Requests made so far.
    pub(super) fn requests(&self) -> [usize; SERVICES.len()] {
        [self.twilio.rest_requests().len(), self.vapi.requests().all().len(), self.kv.requests().all().len()]
    }

    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        self.origin.stop().await?;
        drop(self.conn);
        Ok(self.postgres.stop().await?)
    }
}

async fn make_agents(conn: &mut PgConnection, plan: &Plan) -> anyhow::Result<()> {
    let sql = format!(
        "insert into projects (id, name) values ('00000000-0000-0000-0000-00000000aaaa', 'Fleet');
         insert into agents (id, project_id, name, instructions, realtime, vapi_assistant_id)
         select md5('agent' || n)::uuid, '00000000-0000-0000-0000-00000000aaaa', 'Agent ' || n, 'Answer the phone.',
                '{{\"voice\": \"marin\"}}', 'assistant-' || n
         from generate_series(1, {agents}) n;
         insert into phone_numbers (id, project_id, number, vapi_phone_number_id, agent_id)
         select md5('number' || n || '.' || k)::uuid, '00000000-0000-0000-0000-00000000aaaa',
                '+1555' || lpad((n * {numbers} + k)::text, 7, '0'), 'vapi-' || n || '-' || k, md5('agent' || n)::uuid
         from generate_series(1, {agents}) n, generate_series(1, {numbers}) k;
         analyze",
        agents = plan.agents,
        numbers = plan.numbers,
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await?;
    Ok(())
}

/// Has Twilio and Vapi know the numbers: Twilio sends their calls straight to Vapi.
async fn register(conn: &mut PgConnection, twilio: &Twilio, vapi: &Vapi) -> anyhow::Result<()> {
    let rows: Vec<(String, String, String)> = sqlx::query_as(
        "select n.number, n.vapi_phone_number_id, a.vapi_assistant_id
         from phone_numbers n join agents a on a.id = n.agent_id order by n.number",
    )
    .fetch_all(conn)
    .await?;
    for (number, id, assistant) in rows {
        twilio.set_number(
            Number::new(&number)
                .voice_url("https://api.vapi.ai/twilio/inbound_call")
                .fallback_url(&format!("https://own.example/fallback/{}", &number[1..]))
                .status_callback("https://api.vapi.ai/twilio/status"),
        );
        vapi.add_number(json!({
            "id": id, "provider": "twilio", "number": number, "twilioAccountSid": ACCOUNT_SID,
            "twilioAuthToken": AUTH_TOKEN, "assistantId": assistant,
            "server": { "url": format!("{EDGE_URL}/api/vapi/webhook") },
        }));
    }
    Ok(())
}
