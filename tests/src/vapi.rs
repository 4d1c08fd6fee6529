//! A Vapi to test against: its REST API, its media socket for calls handed over from Twilio, and its server
//! messages.
//!
//! What is simulated is Vapi's contract as documented, typed in its SDK, and seen in real deliveries. There is no
//! speech recognition and no model: a [`Script`] says what the assistant does. The parts without I/O (message
//! builders, [`validate_answer`], the conversation) can be used by themselves.
//!
//! ```no_run
//! # use tests::hosts::Hosts;
//! # use tests::vapi::{Auth, Facts, Script, Server, Vapi, VapiOptions, messages, tone};
//! # use serde_json::json;
//! # async fn example() -> std::io::Result<()> {
//! let hosts = Hosts::new([("https://edge.tandem.test", "http://127.0.0.1:8787")]);
//! let mut options = VapiOptions::new("vapi-key", hosts);
//! options.server = Some(Server::new("https://edge.tandem.test/api/vapi/webhook", Auth::Secret("secret".into())));
//! options.script = Script::new().say("Hello", tone(800)).hear("A table for two.").call("get_slots", json!({}));
//! let vapi = Vapi::start(options).await?;
//! let assistant = vapi.add_assistant(json!({"id": "a1", "name": "Receptionist"}));
//! println!("the origin's VAPI_API_URL is {}", vapi.api_url());
//!
//! let facts = Facts::inbound(&assistant, "+15550100001", "+15550100002");
//! let answer = vapi.send(messages::status_update(&facts, time::OffsetDateTime::now_utc(), "in-progress")).await;
//! assert_eq!(answer.status, 200);
//! # Ok(())
//! # }
//! ```

mod answers;
mod auth;
mod calls;
mod clock;
mod deliver;
mod error;
mod facts;
mod handlers;
mod history;
mod import;
mod inbound;
mod media;
pub mod messages;
mod resources;
mod rest;
mod running;
mod schema;
mod script;
mod servers;
mod sound;
mod talk;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use answers::{validate_answer, validate_tool_answer};
pub use auth::{Algorithm, Auth, Encoding, HmacPlan, Signing, TimestampUnit};
pub use calls::Call;
pub use clock::{epoch_ms, iso};
pub use deliver::{ASSISTANT_REQUEST_LIMIT, Answer, Attempt, Backoff, DEFAULT_LIMIT, Delivery, Server};
pub use facts::{CallKind, Facts, NumberFacts, ORG_ID};
pub use history::{History, Spoken, ToolCall, Turn};
pub use rest::Request;
pub use script::{Script, Step};
pub use sound::{level, tone};
pub use talk::NO_RESULT;

use crate::faults::Faults;
use crate::gate::{Gates, Held, When};
use crate::hosts::{Hosts, http_client};
use crate::record::Record;
use deliver::Sender;
use resources::Collection;

/// Vapi's public base URL, and where Twilio numbers point after an import.
pub const PUBLIC_API: &str = "https://api.vapi.ai";

/// The public base of the media sockets that TwiML points at.
pub const PUBLIC_MEDIA: &str = "wss://media.vapi.test";

/// How the simulator is set up.
#[derive(Debug, Clone)]
pub struct VapiOptions {
    /// The organisation's private key.
    pub api_key: String,
    /// The organisation's server URL, for whatever no assistant, number or tool has its own.
    pub server: Option<Server>,
    /// Credentials that `server.credentialId` can refer to. They are made in the dashboard, not by REST.
    pub credentials: BTreeMap<String, Auth>,
    /// Where public names lead.
    pub hosts: Hosts,
    /// What the assistant does in each call, unless changed with [`Vapi::set_script`].
    pub script: Script,
    /// Concurrent calls of the subscription.
    pub concurrency_limit: usize,
    /// From the end of a call to its report: seconds in reality, for the analysis.
    pub report_delay: Duration,
    /// How long a call made with the provider bypass waits for its media.
    pub no_call_limit: Duration,
    /// Base URL of a Twilio API whose numbers an import points at Vapi; none leaves Twilio alone.
    pub twilio_api_url: Option<String>,
    /// Whether saving a number points it at Vapi again, as an operator has reported.
    pub patch_rewrites_twilio: bool,
    /// How long the REST API takes to answer, beside the work itself.
    pub rest_delay: Duration,
}

impl VapiOptions {
    /// An organisation with this key, no server and a short greeting.
    pub fn new(api_key: &str, hosts: Hosts) -> Self {
        Self {
            api_key: api_key.to_owned(),
            server: None,
            credentials: BTreeMap::new(),
            hosts,
            script: Script::new().beep("Hello, this is the assistant. How can I help?", 400),
            concurrency_limit: 10,
            report_delay: Duration::from_millis(200),
            no_call_limit: Duration::from_secs(30),
            twilio_api_url: None,
            patch_rewrites_twilio: false,
            rest_delay: Duration::ZERO,
        }
    }
}

/// A fault on command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// 429 with this `Retry-After`.
    RateLimited {
        /// Seconds.
        retry_after_s: u64,
    },
    /// 500.
    ServerError,
    /// 401, as after a key was revoked.
    Unauthorized,
    /// The answer comes, but only after this.
    Slow(Duration),
    /// `POST /call` only: the call is created ended, `concurrencyBlocked` is true, and there is no TwiML.
    ConcurrencyBlocked,
    /// `POST /call` only: 400, as the API answered earlier.
    OverConcurrencyLimit,
}

/// A running simulator. It ends when this is dropped.
#[derive(Debug)]
pub struct Vapi {
    shared: Arc<Shared>,
    address: SocketAddr,
    /// Faults for the next requests to the REST API.
    pub faults: Faults<Fault>,
    _stop: DropGuard,
}

impl Vapi {
    /// Starts on a free port of 127.0.0.1 and puts Vapi's public names into the table of hosts.
    pub async fn start(options: VapiOptions) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let local = format!("http://{address}");
        options.hosts.map(PUBLIC_API, &local);
        options.hosts.map(PUBLIC_MEDIA, &local);
        let stop = CancellationToken::new();
        let faults = Faults::default();
        let shared = Arc::new(Shared {
            sender: Sender {
                hosts: options.hosts.clone(),
                client: http_client().build().map_err(std::io::Error::other)?,
                deliveries: Record::default(),
            },
            script: Mutex::new(options.script.clone()),
            stored: Mutex::default(),
            calls: Record::default(),
            requests: Record::default(),
            faults: faults.clone(),
            gates: Gates::default(),
            stop: stop.clone(),
            options,
        });
        let router = rest::router(Arc::clone(&shared));
        let stopped = stop.clone();
        tokio::spawn(async move {
            let serving = axum::serve(listener, router);
            tokio::select! {
                _ = serving => {}
                () = stopped.cancelled() => {}
            }
        });
        Ok(Self { shared, address, faults, _stop: stop.drop_guard() })
    }

    /// Base URL of the REST API.
    pub fn api_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Holds the next REST request with this method whose path begins so.
    pub fn hold(&self, when: When, method: &'static str, path: &'static str) -> Held {
        self.shared.gates.hold(when, method, path)
    }

    /// The numbers that it knows, newest first.
    pub fn numbers(&self) -> Vec<Value> {
        self.shared.stored().numbers.newest_first().cloned().map(Value::from).collect()
    }

    /// Every server message, in the order of sending.
    pub fn deliveries(&self) -> &Record<Delivery> {
        &self.shared.sender.deliveries
    }

    /// Every HTTP request that came in, except media sockets.
    pub fn requests(&self) -> &Record<Request> {
        &self.shared.requests
    }

    /// Every call, oldest first.
    pub fn calls(&self) -> &Record<Call> {
        &self.shared.calls
    }

    /// What the assistant does in calls from now on.
    pub fn set_script(&self, script: Script) {
        *self.shared.script.lock().unwrap_or_else(PoisonError::into_inner) = script;
    }

    /// Stores an assistant as if it had been made earlier; an `id` in it is kept. Returns the id.
    pub fn add_assistant(&self, assistant: Value) -> String {
        add(&mut self.shared.stored().assistants, assistant)
    }

    /// The same for a number.
    pub fn add_number(&self, number: Value) -> String {
        add(&mut self.shared.stored().numbers, number)
    }

    /// Takes a number away, as somebody does in the dashboard.
    pub fn remove_number(&self, id: &str) {
        self.shared.stored().numbers.delete(id);
    }

    /// The same as with an assistant, for a tool.
    pub fn add_tool(&self, tool: Value) -> String {
        add(&mut self.shared.stored().tools, tool)
    }

    /// Sends one server message to where Vapi would send it, whether or not the assistant has asked for its type,
    /// and waits for the outcome.
    ///
    /// # Panics
    /// When no level has a server URL: Vapi would send nothing, so the test is set up wrongly.
    pub async fn send(&self, message: Value) -> Answer {
        let server =
            self.shared.server_for(&message).expect("the organisation, the assistant or the number has a server URL");
        self.send_to(&server, message).await
    }

    /// Sends one server message to a given server.
    pub async fn send_to(&self, server: &Server, message: Value) -> Answer {
        let sender = &self.shared.sender;
        let position = sender.enter(server, message.clone());
        sender.post(server, position, &message).await.0
    }
}

fn add(collection: &mut Collection, value: Value) -> String {
    let made = collection.create(facts::object(value), OffsetDateTime::now_utc());
    made["id"].as_str().unwrap_or_default().to_owned()
}

/// What the REST API stores.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) assistants: Collection,
    pub(crate) tools: Collection,
    pub(crate) numbers: Collection,
}

/// Everything the parts of the simulator share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: VapiOptions,
    pub(crate) stored: Mutex<Stored>,
    pub(crate) calls: Record<Call>,
    pub(crate) requests: Record<Request>,
    pub(crate) sender: Sender,
    pub(crate) faults: Faults<Fault>,
    pub(crate) gates: Gates,
    pub(crate) script: Mutex<Script>,
    pub(crate) stop: CancellationToken,
}

impl Shared {
    pub(crate) fn stored(&self) -> MutexGuard<'_, Stored> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn script(&self) -> Script {
        self.script.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The server of a message: by the assistant and number that its call names.
    pub(crate) fn server_for(&self, body: &Value) -> Option<Server> {
        let message = &body["message"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let assistant_id = text(&message["call"]["assistantId"]);
        let transient = message["call"]["assistant"].as_object().cloned();
        let number_id = text(&message["call"]["phoneNumberId"]);
        let stored = self.stored();
        servers::chosen(
            stored.assistants.get(&assistant_id).or(transient.as_ref()),
            stored.numbers.get(&number_id),
            self.options.server.as_ref(),
            &self.options.credentials,
        )
    }
}
