//! The origin: webhooks, the control plane, the media bridge, jobs and commands.
//!
//! Read the migrations first, then `main.rs`, then this file. Inside, things point one way: `http` to the domain
//! (`switching`, `replication`), and that to `store`, `providers` and `jobs`.

pub mod agents;
pub mod answering;
pub mod audit;
pub mod bridge;
pub mod calls;
pub mod config;
pub mod dead_letters;
pub mod drain;
pub mod end_reason;
pub mod explain;
pub mod handover;
pub mod http;
pub mod import;
pub mod inbox;
pub mod jobs;
pub mod keys;
pub mod late_events;
pub mod live_calls;
pub mod numbers;
pub mod prices;
pub mod projects;
pub mod providers;
pub mod reconcile;
pub mod recording;
pub mod replication;
pub mod request_id;
pub mod retention;
pub mod rollout;
pub mod seed;
pub mod steps;
pub mod store;
pub mod switching;
pub mod telemetry;
pub mod tools;
pub mod twilio_calls;
pub mod usage;
pub mod vapi_calls;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bridge::prepared::Prepared;
use crate::calls::Recorder;
use crate::config::Config;
use crate::drain::Departure;
use crate::http::rate_limit::RateLimits;
use crate::live_calls::{Endings, LiveCalls};
use crate::providers::cloudflare::Kv;
use crate::recording::{Recordings, StoreFault};
use crate::steps::Plans;
use crate::telemetry::Metrics;

/// Longest time to open a connection to an outside service.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time for a whole request to one; a caller that needs less says so.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Why the parts do not go together.
#[derive(Debug, thiserror::Error)]
pub enum AppFault {
    /// A client of an outside service.
    #[error("there is no HTTP client")]
    Client(#[from] reqwest::Error),
    /// Where recordings are put.
    #[error(transparent)]
    Store(#[from] StoreFault),
}

/// What everything in the process shares.
#[derive(Debug)]
pub struct App {
    /// The configuration.
    pub config: Config,
    /// The truth.
    pub db: PgPool,
    /// For requests to outside services. Follows no redirects: none of them answers with one.
    pub http: reqwest::Client,
    /// How many requests API keys may make.
    pub rate_limits: RateLimits,
    /// For requests to tools' servers.
    pub tools: tools::Client,
    /// What is counted and measured.
    pub metrics: Arc<Metrics>,
    /// Keeps what calls tell of themselves.
    pub recorder: Recorder,
    /// Records the sound of calls.
    pub recordings: Recordings,
    /// Which calls are bridged here.
    pub live: LiveCalls,
    /// Sessions that wait for the streams of calls to come.
    pub prepared: Prepared,
    /// Who is told that a call is over.
    pub endings: Endings,
    /// What calls do after their streams.
    pub plans: Plans,
    /// Cancelled when the process should stop: nothing new is begun, what runs may finish.
    pub shutdown: CancellationToken,
    /// Announced when the time to finish nears its end: calls leave this process, alive.
    pub departure: Departure,
    /// What must finish before the process ends, such as calls. Spawn on it, and watch `shutdown`.
    pub tasks: TaskTracker,
}

impl App {
    /// The edge's store, if the origin has access to it.
    pub fn kv(&self) -> Option<Kv> {
        self.config.cloudflare.as_ref().map(|config| Kv::new(self.http.clone(), config))
    }

    /// Puts the parts together; the caller has opened the database.
    pub fn new(config: Config, db: PgPool) -> Result<Arc<Self>, AppFault> {
        let http = http_client()?;
        let rate_limits = RateLimits::new(config.api_requests_per_second);
        let tools = tools::Client::new(config.tools_allow_private)?;
        let metrics = Arc::new(Metrics::new());
        let tasks = TaskTracker::new();
        let recorder = Recorder::start(db.clone(), Arc::clone(&metrics), config.prices.clone());
        let (live, shutdown) = (LiveCalls::default(), CancellationToken::new());
        let recordings = Recordings::open(
            config.recording.as_ref(),
            recorder.clone(),
            Arc::clone(&metrics),
            tasks.clone(),
            shutdown.clone(),
        )?;
        Ok(Arc::new(Self {
            config,
            db,
            http,
            rate_limits,
            tools,
            metrics,
            recorder,
            recordings,
            live,
            prepared: Prepared::default(),
            endings: Endings::default(),
            plans: Plans::default(),
            shutdown,
            departure: Departure::default(),
            tasks,
        }))
    }
}

/// A client for outside services.
pub fn http_client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .user_agent(concat!("tandem/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build()
}
