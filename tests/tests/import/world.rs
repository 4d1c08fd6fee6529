//! A database with the seeded project and a Vapi to import from.

use serde_json::{Value, json};
use shared::AgentId;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tests::hosts::{Hosts, http_client};
use tests::stack::origin::Origin;
use tests::stack::postgres::Postgres;
use tests::vapi::{Vapi, VapiOptions};

/// The project of `tandem seed`.
pub(crate) const PROJECT: &str = "Lakeside Dental";
/// What only Vapi and the test know: it must turn up nowhere else.
pub(crate) const SECRET: &str = "hunter2-hunter2";

pub(crate) struct World {
    pub(crate) vapi: Vapi,
    url: String,
    // Dropped last, and with it the database.
    _postgres: Postgres,
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

    /// What the command says of its only assistant.
    pub(crate) fn only(&self) -> Value {
        let json = self.json();
        let assistants = json["assistants"].as_array().expect("a list of assistants");
        assert_eq!(assistants.len(), 1, "{json:#}");
        assistants[0].clone()
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        let postgres = Postgres::from_environment().await.expect("a Postgres for the test");
        let url = postgres.create_database("import").await.expect("a database for the test");
        let vapi = Vapi::start(VapiOptions::new("vapi-key", Hosts::default())).await.expect("a Vapi for the test");
        let world = Self { vapi, url, _postgres: postgres };
        for command in ["migrate", "seed"] {
            let ran = world.run(&[command]).await;
            assert_eq!(ran.code, 0, "{}", ran.stderr);
        }
        world
    }

    /// Runs `tandem` with these arguments.
    pub(crate) async fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, &[]).await
    }

    /// The same with more variables.
    pub(crate) async fn run_with(&self, args: &[&str], more: &[(&str, &str)]) -> Ran {
        let api_url = self.vapi.api_url();
        let usual = [("DATABASE_URL", self.url.as_str()), ("VAPI_API_KEY", "vapi-key"), ("VAPI_API_URL", &api_url)];
        let env: Vec<(String, String)> =
            usual.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let output = Origin::output(args, &env).await.expect("tandem runs");
        Ran {
            code: output.status.code().expect("no signal"),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// `tandem import vapi --json` into the seeded project.
    pub(crate) async fn import(&self, args: &[&str]) -> Ran {
        let all: Vec<&str> = ["import", "vapi", "--project", PROJECT, "--json"].iter().chain(args).copied().collect();
        self.run(&all).await
    }

    /// Changes an assistant or a tool at Vapi, by its API.
    pub(crate) async fn patch(&self, path: &str, body: &Value) {
        let client = http_client().build().expect("a client");
        let request = client.patch(format!("{}{path}", self.vapi.api_url())).bearer_auth("vapi-key").json(body);
        let response = request.send().await.expect("an answer");
        assert!(response.status().is_success(), "{}", response.text().await.unwrap_or_default());
    }

    pub(crate) async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.expect("a connection")
    }

    /// One JSON value out of the database; `null` where there is no row.
    pub(crate) async fn value(&self, sql: &str) -> Value {
        let sql = AssertSqlSafe(sql.to_owned());
        sqlx::query_scalar::<_, Option<Value>>(sql)
            .fetch_optional(&mut self.connect().await)
            .await
            .unwrap_or_else(|error| panic!("{error}"))
            .flatten()
            .unwrap_or_default()
    }

    pub(crate) async fn execute(&self, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        sqlx::query(sql).execute(&mut self.connect().await).await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Everything that an import could write.
    pub(crate) async fn everything(&self) -> Value {
        self.value(
            "select jsonb_build_object(
                 'agents', (select jsonb_agg(to_jsonb(a) order by id) from agents a),
                 'tools', (select jsonb_agg(to_jsonb(t) order by id) from tools t),
                 'links', (select jsonb_agg(to_jsonb(l) order by agent_id, tool_id) from agent_tools l),
                 'imports', (select jsonb_agg(to_jsonb(i) order by agent_id) from vapi_imports i),
                 'events', (select jsonb_agg(to_jsonb(e) order by id) from event_log e),
                 'jobs', (select jsonb_agg(jsonb_build_array(key, revision)) from graphile_worker._private_jobs))",
        )
        .await
    }

    /// The agent of an assistant, as it is stored.
    pub(crate) async fn agent(&self, assistant: &str) -> Value {
        self.value(&format!("select to_jsonb(a) from agents a where vapi_assistant_id = '{assistant}'")).await
    }

    /// The tools of an assistant's agent, by what they were made of.
    pub(crate) async fn tools(&self, assistant: &str) -> Value {
        self.value(&format!(
            "select jsonb_object_agg(coalesce(t.imported_from, 'by hand'), to_jsonb(t))
             from agents a join agent_tools l on l.agent_id = a.id join tools t on t.id = l.tool_id
             where a.vapi_assistant_id = '{assistant}'"
        ))
        .await
    }

    /// The import events of an assistant's agent, oldest first.
    pub(crate) async fn events(&self, assistant: &str) -> Vec<Value> {
        let events = self
            .value(&format!(
                "select jsonb_agg(to_jsonb(e) order by e.id) from event_log e join agents a on a.id = e.agent_id
                 where a.vapi_assistant_id = '{assistant}' and e.type = 'agent.imported'"
            ))
            .await;
        events.as_array().cloned().unwrap_or_default()
    }
}

/// The entry of a field in an assistant's report.
pub(crate) fn field<'a>(assistant: &'a Value, path: &str) -> &'a Value {
    let fields = assistant["report"]["fields"].as_array().expect("a report");
    let found: Vec<&Value> = fields.iter().filter(|field| field["path"] == path).collect();
    assert_eq!(found.len(), 1, "{path} once in {fields:#?}");
    found[0]
}

/// An agent's id out of what the command says.
pub(crate) fn agent_id(assistant: &Value) -> AgentId {
    assistant["change"]["agentId"].as_str().expect("an agent").parse().expect("an id")
}

/// A receptionist as people build them: function tools, a transfer, an end, a voice of another provider, hooks.
pub(crate) fn receptionist(id: &str) -> Value {
    json!({
        "id": id,
        "name": "Receptionist",
        "firstMessage": "Thank you for calling Hill Street Clinic, this is Maya.",
        "model": {
            "provider": "openai", "model": "gpt-4.1", "temperature": 0.4, "maxTokens": 250,
            "messages": [{"role": "system", "content": "You answer the phone of {{clinic}}. It is {{now}}."}],
            "toolIds": ["slots"],
            "tools": [
                {"type": "transferCall", "destinations": [
                    {"type": "number", "number": "+15550177", "description": "The nurse", "message": "One moment please.",
                     "transferPlan": {"mode": "blind-transfer"}}]},
                {"type": "endCall"},
            ],
        },
        "voice": {"provider": "11labs", "voiceId": "21m00Tcm4TlvDq8ikWAM", "stability": 0.5, "similarityBoost": 0.75},
        "transcriber": {"provider": "deepgram", "model": "nova-3", "language": "en-US", "keyterm": ["Invisalign"]},
        "endCallPhrases": ["goodbye now"], "endCallMessage": "Goodbye.",
        "maxDurationSeconds": 900, "silenceTimeoutSeconds": 20,
        "startSpeakingPlan": {"waitSeconds": 0.6}, "stopSpeakingPlan": {"numWords": 2},
        "hooks": [
            {"on": "customer.speech.timeout", "options": {"timeoutSeconds": 8, "triggerMaxCount": 2},
             "do": [{"type": "say", "exact": "Are you still there?"}]},
            {"on": "call.ending", "do": [{"type": "say", "exact": "Bye"}]},
        ],
        "server": {"url": "https://hooks.clinic.test/vapi", "secret": SECRET, "headers": {"X-Api-Key": SECRET}},
        "serverMessages": ["tool-calls", "end-of-call-report"],
        "analysisPlan": {"summaryPlan": {"enabled": true}},
        "metadata": {"team": "front", "apiKey": SECRET},
        "credentials": [{"provider": "openai", "apiKey": SECRET}],
    })
}

/// The tool that the receptionist refers to.
pub(crate) fn slots(id: &str) -> Value {
    json!({
        "id": id, "type": "function",
        "function": {
            "name": "get_slots", "description": "Free appointments on a day.",
            "parameters": {"type": "object", "properties": {"day": {"type": "string", "format": "date"}},
                           "required": ["day"]},
        },
        "server": {"url": format!("https://tools.clinic.test/slots?token={SECRET}"), "timeoutSeconds": 12,
                   "headers": {"Authorization": SECRET}},
        "parameters": [{"key": "caller", "value": "{{customer.number}}"}],
        "messages": [{"type": "request-start", "content": "Let me look."}],
    })
}

/// An assistant that loses nothing: it runs on OpenAI Realtime already.
pub(crate) fn plain(id: &str, name: &str) -> Value {
    json!({
        "id": id, "name": name,
        "model": {"provider": "openai", "model": "gpt-realtime-2",
                  "messages": [{"role": "system", "content": "Be kind."}]},
        "voice": {"provider": "openai", "voiceId": "cedar"},
    })
}
