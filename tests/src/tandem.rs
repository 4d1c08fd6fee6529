//! A whole Tandem on one machine: Postgres, origin, the Worker in workerd, and around them the simulated services.
//!
//! Everything speaks over real sockets. Public names (`edge.tandem.test` …) lead nowhere in the world's DNS; the
//! simulators' table of hosts plays DNS and TLS termination for them. Between edge and origin stands a link that a test
//! can break.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cloudflare::{KvApi, KvApiOptions};
use crate::hosts::{Hosts, http_client};
use crate::openai::{Realtime, RealtimeOptions};
use crate::stack::edge::{Edge, EdgeOptions, KV_NAMESPACE_ID};
use crate::stack::link::Link;
use crate::stack::origin::Origin;
use crate::stack::ports;
use crate::stack::postgres::Postgres;
use crate::tool_server::ToolServer;
use crate::twilio::{Number, Twilio, TwilioOptions};
use crate::vapi::{Auth, Server, Vapi, VapiOptions};

/// The Worker's public base.
pub const EDGE_URL: &str = "https://edge.tandem.test";
/// The origin's public base.
pub const ORIGIN_URL: &str = "https://origin.tandem.test";
/// The public base of its streams.
pub const STREAM_URL: &str = "wss://origin.tandem.test";
/// Where Twilio opens the call's audio.
pub const MEDIA_URL: &str = "wss://origin.tandem.test/media-stream";
/// Twilio's name for the account.
pub const ACCOUNT_SID: &str = "AC0123456789abcdef0123456789abcdef";
/// What Twilio signs with.
pub const AUTH_TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// What Vapi sends in `X-Vapi-Secret`.
pub const VAPI_SECRET: &str = "vapi-server-secret";
/// What edge and origin share.
pub const EDGE_ORIGIN_SECRET: &str = "edge-origin-secret-for-this-machine";

const VAPI_API_KEY: &str = "vapi-private-key";
const CLOUDFLARE_ACCOUNT_ID: &str = "0123456789abcdef0123456789abcdef";
const CLOUDFLARE_API_TOKEN: &str = "cloudflare-token";
/// How long something may take that happens in the background; it is seconds even on a slow machine.
const SETTLE_LIMIT: Duration = Duration::from_secs(20);

/// What a stack is started with.
#[derive(Debug, Default)]
pub struct Options {
    /// What the simulated model says and hears.
    pub openai: RealtimeOptions,
    /// A key for the real OpenAI, which then takes the simulated one's place.
    pub openai_api_key: Option<String>,
    /// Variables of the origin to add or set otherwise.
    pub origin_env: Vec<(String, String)>,
    /// Finds the clips of the control endpoint for people.
    pub clips: Option<crate::twilio::ClipLoader>,
    /// A Postgres of its own even where `DATABASE_URL` names one: one that may be killed.
    pub own_postgres: bool,
    /// The edge's queue refuses every message.
    pub queue_refuses: bool,
}

/// The demonstration's project, as `tandem seed --json` prints it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seeded {
    /// The project.
    pub project_id: String,
    /// Its agents.
    pub agents: Vec<SeededAgent>,
    /// A key with the role `write`.
    pub api_key: String,
}

/// An agent of the demonstration.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeededAgent {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The number it answers.
    pub number: String,
    /// Its system at the start.
    pub system_type: String,
}

/// The running whole. Fields are dropped in order: first the product, then what it talks to.
pub struct Tandem {
    /// The Worker.
    pub edge: Edge,
    /// The origin.
    pub origin: Origin,
    /// What stands between the edge and the origin.
    pub link: Link,
    /// Twilio.
    pub twilio: Twilio,
    /// Vapi.
    pub vapi: Vapi,
    /// OpenAI Realtime.
    pub openai: Realtime,
    /// Cloudflare's KV API.
    pub kv: KvApi,
    /// A customer's tool server.
    pub tools: ToolServer,
    /// The database server.
    pub postgres: Postgres,
    /// The database.
    pub database_url: String,
    /// Where public names lead.
    pub hosts: Hosts,
    /// What the database holds at the start.
    pub seeded: Seeded,
    client: reqwest::Client,
}

impl Tandem {
    /// Starts everything, seeds the demonstration's project and waits until the edge knows of it.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let hosts = Hosts::default();
        let origin_port = ports::for_child()?;
        let link = Link::start(([127, 0, 0, 1], origin_port).into()).await?;
        let database = async {
            let postgres =
                if options.own_postgres { Postgres::start().await? } else { Postgres::from_environment().await? };
            let url = postgres.create_database("tandem").await?;
            anyhow::Ok((postgres, url))
        };
        let twilio_options = TwilioOptions {
            clips: options.clips.unwrap_or(TwilioOptions::new("", "", Hosts::default()).clips),
            ..TwilioOptions::new(ACCOUNT_SID, AUTH_TOKEN, hosts.clone())
        };
        let twilio = Twilio::start(twilio_options).await?;
        let vapi_options = VapiOptions {
            twilio_api_url: Some(twilio.api_url()),
            server: Some(Server::new(&format!("{EDGE_URL}/api/vapi/webhook"), Auth::Secret(VAPI_SECRET.to_owned()))),
            ..VapiOptions::new(VAPI_API_KEY, hosts.clone())
        };
        let vapi = Vapi::start(vapi_options).await?;
        let ((postgres, database_url), edge) =
            tokio::try_join!(database, async { anyhow::Ok(start_edge(&link, &vapi, options.queue_refuses).await?) })?;

        let openai_key = options.openai.api_key.clone();
        let openai = Realtime::start(options.openai).await?;
        let tools = ToolServer::start().await?;
        let kv_options = KvApiOptions {
            upstream: Some(edge.kv_api_url()),
            ..KvApiOptions::new(CLOUDFLARE_ACCOUNT_ID, CLOUDFLARE_API_TOKEN, KV_NAMESPACE_ID)
        };
        let kv = KvApi::start(kv_options).await?;

        let mut env: Vec<(String, String)> = [
            ("DATABASE_URL", database_url.as_str()),
            ("EDGE_URL", EDGE_URL),
            ("MEDIA_URL", MEDIA_URL),
            ("EDGE_ORIGIN_SECRET", EDGE_ORIGIN_SECRET),
            ("TWILIO_ACCOUNT_SID", ACCOUNT_SID),
            ("TWILIO_AUTH_TOKEN", AUTH_TOKEN),
            ("TWILIO_API_URL", &twilio.api_url()),
            ("VAPI_API_KEY", VAPI_API_KEY),
            ("VAPI_SERVER_SECRET", VAPI_SECRET),
            ("VAPI_API_URL", &vapi.api_url()),
            ("CLOUDFLARE_ACCOUNT_ID", CLOUDFLARE_ACCOUNT_ID),
            ("CLOUDFLARE_API_TOKEN", CLOUDFLARE_API_TOKEN),
            ("CLOUDFLARE_KV_NAMESPACE_ID", KV_NAMESPACE_ID),
            ("CLOUDFLARE_API_URL", &kv.api_url()),
            ("TOOLS_ALLOW_PRIVATE", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        match options.openai_api_key {
            Some(key) => env.push(("OPENAI_API_KEY".to_owned(), key)),
            None => env
                .extend([("OPENAI_API_KEY".to_owned(), openai_key), ("OPENAI_REALTIME_URL".to_owned(), openai.url())]),
        }
        env.extend(options.origin_env);

        Origin::command(&["migrate"], &env).await?;
        let ids = seed_vapi(&vapi);
        let seeding = ["seed", "--json", "--vapi-assistant-id", &ids.0, "--vapi-phone-number-id", &ids.1];
        let seeded: Seeded = serde_json::from_str(&Origin::command(&seeding, &env).await?)?;
        let origin = Origin::start_on(origin_port, env).await?;

        hosts.map(EDGE_URL, &edge.base_url());
        hosts.map(ORIGIN_URL, &origin.base_url());
        hosts.map(STREAM_URL, &origin.base_url());
        for agent in &seeded.agents {
            twilio.set_number(
                Number::new(&agent.number)
                    .voice_url(&format!("{EDGE_URL}/twilio/voice"))
                    .fallback_url(&format!("{ORIGIN_URL}/twilio/voice"))
                    .status_callback(&format!("{EDGE_URL}/twilio/status")),
            );
        }
        let client = http_client().timeout(Duration::from_secs(10)).build()?;
        let tandem =
            Self { edge, origin, link, twilio, vapi, openai, kv, tools, postgres, database_url, hosts, seeded, client };
        for agent in &tandem.seeded.agents {
            tandem.replicated(&agent.id).await?;
        }
        Ok(tandem)
    }

    /// Lets the origin's public names lead to another origin, as a load balancer does.
    pub async fn lead_to(&self, origin: &Origin) -> std::io::Result<()> {
        self.hosts.map(ORIGIN_URL, &origin.base_url());
        self.hosts.map(STREAM_URL, &origin.base_url());
        self.link.lead_to(origin.address()).await
    }

    /// The seeded agent with this name.
    pub fn agent(&self, name: &str) -> anyhow::Result<&SeededAgent> {
        self.seeded.agents.iter().find(|agent| agent.name == name).with_context(|| format!("no agent {name:?}"))
    }

    /// `GET` from the API, with the seeded key.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.request(self.client.get(self.api(path))).await
    }

    /// `PUT` to the API, with the seeded key.
    pub async fn put(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.request(self.client.put(self.api(path)).json(body)).await
    }

    /// Switches an agent through the API.
    pub async fn switch(&self, agent: &str, system_type: &str) -> anyhow::Result<Value> {
        self.put(&format!("/api/agents/{agent}/system-type"), &json!({ "systemType": system_type })).await
    }

    /// Waits until the edge's replica holds the agent as it is now; gives the API's answer.
    pub async fn replicated(&self, agent: &str) -> anyhow::Result<Value> {
        let deadline = Instant::now() + SETTLE_LIMIT;
        loop {
            let state = self.get(&format!("/api/agents/{agent}/system-type")).await?;
            if state["replica"]["replicated"] == true {
                return Ok(state);
            }
            ensure!(Instant::now() < deadline, "the edge's replica is behind: {state}\n{}", self.origin.log_tail());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The record of a call, with its transcript, if there is one.
    pub async fn call(&self, call_sid: &str) -> anyhow::Result<Option<Value>> {
        let calls = self.get("/api/calls").await?;
        let call = calls["items"].as_array().into_iter().flatten().find(|call| call["callSid"] == call_sid);
        match call.and_then(|call| call["id"].as_str()) {
            Some(id) => self.get(&format!("/api/calls/{id}")).await.map(Some),
            None => Ok(None),
        }
    }

    /// The same once it is as it should be.
    pub async fn call_when(&self, call_sid: &str, is_so: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let deadline = Instant::now() + SETTLE_LIMIT;
        loop {
            let call = self.call(call_sid).await?;
            if let Some(call) = call.as_ref().filter(|call| is_so(call)) {
                return Ok(call.clone());
            }
            ensure!(
                Instant::now() < deadline,
                "the record of {call_sid} does not become what it should be: {}\n{}",
                call.unwrap_or_default(),
                self.origin.log_tail()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The record of a call that is over, with all that its system reports of it: Vapi's report comes after the end.
    pub async fn ended_call(&self, call_sid: &str) -> anyhow::Result<Value> {
        self.call_when(call_sid, |call| {
            call["status"] == "ended" && (call["systemType"] != "vapi" || call["usage"]["costs"].is_array())
        })
        .await
    }

    /// A URL of the origin's API.
    pub fn api(&self, path: &str) -> String {
        format!("{}{path}", self.origin.base_url())
    }

    /// Ends everything in order. Dropping it ends everything as well, at once.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.origin.stop().await?;
        self.postgres.stop().await?;
        Ok(())
    }

    async fn request(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Value> {
        let response = request.bearer_auth(&self.seeded.api_key).send().await?;
        let status = response.status();
        let body = response.text().await?;
        ensure!(status.is_success(), "{status}: {body}\n{}", self.origin.log_tail());
        Ok(serde_json::from_str(&body)?)
    }
}

async fn start_edge(link: &Link, vapi: &Vapi, queue_refuses: bool) -> std::io::Result<Edge> {
    let text = |pairs: &[(&str, &str)]| pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let options = EdgeOptions {
        vars: text(&[
            ("ORIGIN_URL", &link.base_url()),
            ("MEDIA_URL", MEDIA_URL),
            ("EDGE_URL", EDGE_URL),
            ("VAPI_API_URL", &vapi.api_url()),
        ]),
        secrets: text(&[
            ("TWILIO_AUTH_TOKEN", AUTH_TOKEN),
            ("VAPI_SERVER_SECRET", VAPI_SECRET),
            ("EDGE_ORIGIN_SECRET", EDGE_ORIGIN_SECRET),
        ]),
        port: None,
    };
    if queue_refuses { Edge::start_refusing(options).await } else { Edge::start(options).await }
}

/// The demonstration's assistant and number, as they are at Vapi; gives their ids.
fn seed_vapi(vapi: &Vapi) -> (String, String) {
    let assistant = vapi.add_assistant(json!({ "name": "Reception" }));
    let number = vapi.add_number(json!({
        "provider": "twilio", "number": "+15550100001", "twilioAccountSid": ACCOUNT_SID, "assistantId": assistant,
    }));
    (assistant, number)
}
