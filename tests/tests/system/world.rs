//! A running Tandem with agents of a test's own, and what a test asks of it.
//!
//! Each test starts one world and plays many calls in it, side by side where they do not disturb each other: agents
//! are told apart by their instructions, which the simulated OpenAI sees in every session.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::PgPool;
use tests::hosts::http_client;
use tests::openai::{RealtimeOptions, SessionHandle};
use tests::tandem::{ACCOUNT_SID, AUTH_TOKEN, EDGE_ORIGIN_SECRET, EDGE_URL, MEDIA_URL, ORIGIN_URL, Options, Tandem};
use tests::twilio::{CallHandle, Caller, EndReason, InboundCall, Number, What, sign};
use uuid::Uuid;

use crate::audio;

/// Longer than anything takes here, on a machine busy with builds.
pub(crate) const LIMIT: Duration = Duration::from_secs(40);
pub(crate) const REALTIME: &str = "openai-realtime";
pub(crate) const VAPI: &str = "vapi";
pub(crate) const CALLER: &str = "+15550199";

pub(crate) struct World {
    pub(crate) tandem: Tandem,
    pub(crate) db: PgPool,
    pub(crate) client: reqwest::Client,
    numbers: AtomicU32,
}

/// What an agent of a test is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    pub(crate) agent_on: &'static str,
    pub(crate) number_on: &'static str,
    pub(crate) handover: &'static str,
    pub(crate) greets: bool,
    pub(crate) fallback: Option<&'static str>,
    /// The rules for its calls, as JSON.
    pub(crate) rules: &'static str,
}

impl Spec {
    /// Bridged, and speaks first.
    pub(crate) const fn bridged() -> Self {
        Self { agent_on: REALTIME, number_on: REALTIME, handover: "bypass", greets: true, fallback: None, rules: "{}" }
    }

    /// Bridged, and waits for the caller.
    pub(crate) const fn listening() -> Self {
        Self { greets: false, ..Self::bridged() }
    }

    /// Handed to Vapi in this way.
    pub(crate) const fn on_vapi(handover: &'static str) -> Self {
        Self { agent_on: VAPI, number_on: VAPI, handover, ..Self::bridged() }
    }

    pub(crate) const fn handing_over(self, handover: &'static str) -> Self {
        Self { handover, ..self }
    }

    pub(crate) const fn with_rules(self, rules: &'static str) -> Self {
        Self { rules, ..self }
    }

    pub(crate) const fn falling_back_to(self, number: &'static str) -> Self {
        Self { fallback: Some(number), ..self }
    }
}

/// An agent, its number and its assistant at Vapi.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) id: String,
    pub(crate) instructions: String,
    pub(crate) number: String,
    pub(crate) assistant: String,
}

/// Unwraps with the call's story.
pub(crate) trait OrTell<T> {
    fn or_tell(self, call: &CallHandle, what: &str) -> T;
}

impl<T, E: Debug> OrTell<T> for Result<T, E> {
    fn or_tell(self, call: &CallHandle, what: &str) -> T {
        self.unwrap_or_else(|error| panic!("{what}: {error:?}\n{}", call.trace_text()))
    }
}

/// The model's default words are short, its words and audio distinct from any caller's.
pub(crate) fn model() -> RealtimeOptions {
    RealtimeOptions {
        default_reply: tests::openai::Reply::speech(audio::clip(audio::AGENT, 600, "At your service.")),
        caller_texts: ["First words.", "Second words.", "Third words."].map(str::to_owned).into(),
        ..RealtimeOptions::default()
    }
}

impl World {
    pub(crate) async fn start(options: Options) -> Self {
        let tandem = Tandem::start(options).await.expect("the whole stack starts");
        let db = PgPool::connect(&tandem.database_url).await.expect("the database is there");
        let client = http_client().timeout(Duration::from_secs(10)).build().expect("the options fit");
        // Vapi's URL in a redirect is the local one here, which Twilio has to find as well.
        tandem.hosts.map(&tandem.vapi.api_url(), &tandem.vapi.api_url());
        Self { tandem, db, client, numbers: AtomicU32::new(0) }
    }

    pub(crate) async fn default() -> Self {
        Self::start(Options { openai: model(), ..Options::default() }).await
    }

    /// Makes agents, and waits until the edge knows them.
    pub(crate) async fn agents<const N: usize>(&self, specs: [Spec; N]) -> [Agent; N] {
        let agents = specs.map(|spec| (spec, self.new_agent()));
        for (spec, agent) in &agents {
            self.insert(spec, agent).await;
        }
        self.replicate().await;
        for (_, agent) in &agents {
            self.tandem.replicated(&agent.id).await.expect("replication keeps up");
        }
        agents.map(|(_, agent)| agent)
    }

    fn new_agent(&self) -> Agent {
        let next = self.numbers.fetch_add(1, Ordering::Relaxed);
        let number = format!("+1555020{next:04}");
        let assistant = self.tandem.vapi.add_assistant(json!({ "name": format!("Assistant {next}") }));
        let instructions = format!("You are agent {next}.");
        Agent { id: Uuid::now_v7().to_string(), instructions, number, assistant }
    }

    async fn insert(&self, spec: &Spec, agent: &Agent) {
        let id: Uuid = agent.id.parse().expect("an agent's id is a UUID");
        let project: Uuid = self.tandem.seeded.project_id.parse().expect("a project's id is a UUID");
        let rules: Value = serde_json::from_str(spec.rules).expect("rules are JSON");
        let at_vapi = self.tandem.vapi.add_number(json!({
            "provider": "twilio", "number": agent.number, "twilioAccountSid": ACCOUNT_SID,
            "assistantId": agent.assistant,
        }));
        sqlx::query(
            "insert into agents (id, project_id, name, instructions, greeting, realtime, vapi_assistant_id,
                                 fallback_number, system_type)
             values ($1, $2, $3, $3, $4, $5, $6, $7, $8)",
        )
        .bind(id)
        .bind(project)
        .bind(&agent.instructions)
        .bind(spec.greets.then_some("At your service."))
        .bind(json!({ "voice": "marin", "transcription": { "model": "gpt-transcribe" }, "call": rules }))
        .bind(&agent.assistant)
        .bind(spec.fallback)
        .bind(spec.agent_on)
        .execute(&self.db)
        .await
        .expect("the agent is valid");
        sqlx::query(
            "insert into phone_numbers (id, project_id, number, agent_id, system_type, vapi_handover,
                                        vapi_phone_number_id)
             values ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(Uuid::now_v7())
        .bind(project)
        .bind(&agent.number)
        .bind(id)
        .bind(spec.number_on)
        .bind(spec.handover)
        .bind(at_vapi)
        .execute(&self.db)
        .await
        .expect("the number is valid");
        self.own_number(&agent.number);
    }

    /// Lets Twilio send calls of this number to the edge.
    pub(crate) fn own_number(&self, number: &str) {
        self.tandem.twilio.set_number(
            Number::new(number)
                .voice_url(&format!("{EDGE_URL}/twilio/voice"))
                .fallback_url(&format!("{ORIGIN_URL}/twilio/voice"))
                .status_callback(&format!("{EDGE_URL}/twilio/status")),
        );
    }

    /// Asks for replication, as a change through the product does.
    pub(crate) async fn replicate(&self) {
        let job = "select from graphile_worker.add_job(identifier => 'replicate', payload => '{}',
                   queue_name => 'replicate', job_key => 'replicate')";
        sqlx::query(job).execute(&self.db).await.expect("the job library's schema is there");
    }

    pub(crate) fn call(&self, agent: &Agent, caller: Caller) -> CallHandle {
        self.dial(&agent.number, caller)
    }

    pub(crate) fn dial(&self, number: &str, caller: Caller) -> CallHandle {
        self.tandem.twilio.call(InboundCall {
            to: number.to_owned(),
            from: CALLER.to_owned(),
            caller,
            ..InboundCall::default()
        })
    }

    /// The agent's session at OpenAI, counted from 0, once its settings are confirmed.
    pub(crate) async fn session(&self, agent: &Agent, number: usize) -> SessionHandle {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(session) = self.sessions(agent).into_iter().nth(number) {
                return session;
            }
            let tail = self.tandem.origin.log_tail();
            assert!(Instant::now() < deadline, "{} has no session {number}\n{tail}", agent.instructions);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// All sessions of the agent whose settings were confirmed.
    pub(crate) fn sessions(&self, agent: &Agent) -> Vec<SessionHandle> {
        let is_its = |session: &SessionHandle| {
            session.read(|session| session.config()["instructions"] == agent.instructions.as_str())
        };
        self.tandem.openai.sessions().into_iter().filter(is_its).collect()
    }

    /// The events of an agent, oldest first.
    pub(crate) async fn events(&self, agent: &Agent) -> Vec<Value> {
        let events =
            self.tandem.get(&format!("/api/events?limit=200&agentId={}", agent.id)).await.expect("the API answers");
        events["items"].as_array().expect("a list").iter().rev().cloned().collect()
    }

    /// The reasons of an agent's rejected calls, oldest first.
    pub(crate) async fn rejections(&self, agent: &Agent) -> Vec<String> {
        let events = self.events(agent).await;
        let rejected = events.iter().filter(|event| event["type"] == "call.rejected");
        rejected.map(|event| event["details"]["reason"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Waits for the call's end and gives its record.
    pub(crate) async fn over(&self, call: &CallHandle, expected: EndReason) -> Value {
        let reason = call.wait_ended(LIMIT).await.or_tell(call, "the call does not end");
        assert_eq!(reason, expected, "{}\n{}", call.trace_text(), self.tandem.origin.log_tail());
        self.tandem.ended_call(call.sid().as_str()).await.or_tell(call, "the record is not complete")
    }

    /// A line of the origin's metrics by what it begins with: the number in it, 0 without such a line.
    pub(crate) async fn metric(&self, line: &str) -> f64 {
        let (_, text) = send(self.client.get(self.tandem.api("/metrics"))).await;
        text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok()).unwrap_or_default()
    }

    /// The same of a line that counts.
    pub(crate) async fn count(&self, line: &str) -> usize {
        let (_, text) = send(self.client.get(self.tandem.api("/metrics"))).await;
        text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok()).unwrap_or_default()
    }

    /// A webhook signed by Twilio over the public `base`, sent to where that leads.
    pub(crate) fn twilio(&self, base: &str, path: &str, params: &[(&str, &str)]) -> reqwest::RequestBuilder {
        let url = format!("{base}{path}");
        let params: Vec<(String, String)> = params.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let to = self.tandem.hosts.resolve(&url).expect("the host is in the table");
        self.client
            .post(&to.url)
            .header("host", to.host)
            .header("x-twilio-signature", sign(AUTH_TOKEN, &url, &params))
            .form(&params)
    }

    /// How many rows the tables have that webhooks may write to.
    pub(crate) async fn rows(&self) -> i64 {
        let count = "select (select count(*) from calls) + (select count(*) from event_log)
                          + (select count(*) from transcript_items) + (select count(*) from used_stream_tokens)
                          + (select count(*) from webhook_inbox) + (select count(*) from tool_runs)";
        sqlx::query_scalar(count).fetch_one(&self.db).await.expect("the tables are there")
    }
}

/// Waits until the caller has heard so much of a voice.
pub(crate) async fn heard(call: &CallHandle, voice: u8, ms: usize) {
    let deadline = Instant::now() + LIMIT;
    while audio::only(voice, &call.recording().agent).len() < ms * 8 {
        assert!(Instant::now() < deadline, "voice {voice} is not heard\n{}", call.trace_text());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A token for a stream, as the edge mints it.
pub(crate) fn token(call_sid: &str, agent: &Agent, now: u64) -> String {
    let call = call_sid.parse().expect("a call SID");
    let agent = agent.id.parse().expect("an agent's id");
    shared::stream_token::StreamGrant::new(call, agent, now).mint(EDGE_ORIGIN_SECRET)
}

pub(crate) fn unix_now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().expect("this century").as_secs()
}

pub(crate) fn new_call_sid() -> String {
    format!("CA{}", Uuid::new_v4().simple())
}

/// The parameters of a voice webhook that matter.
pub(crate) fn incoming<'a>(call_sid: &'a str, to: &'a str, status: &'a str) -> [(&'a str, &'a str); 6] {
    [
        ("AccountSid", ACCOUNT_SID),
        ("CallSid", call_sid),
        ("From", CALLER),
        ("To", to),
        ("CallStatus", status),
        ("FromCity", ""),
    ]
}

/// Sends a request and gives status and body.
pub(crate) async fn send(request: reqwest::RequestBuilder) -> (u16, String) {
    let response = request.send().await.expect("there is an answer in time");
    let status = response.status().as_u16();
    (status, response.text().await.expect("the answer is complete"))
}

/// Where a bridged call's TwiML sends the audio.
pub(crate) fn is_bridged(twiml: &str) -> bool {
    twiml.contains(&format!("<Stream url=\"{MEDIA_URL}\""))
}

pub(crate) fn started(what: &What) -> bool {
    matches!(what, What::StreamStarted { .. })
}
