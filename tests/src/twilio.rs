//! Twilio Programmable Voice, simulated: calls in and out, webhooks, TwiML, Media Streams, REST.
//!
//! It behaves as Twilio's documentation and SDKs say, strict where Twilio is strict: it signs over
//! public URLs, retries and gives up as Twilio does, executes TwiML in real time, and plays and
//! records every call 20 ms at a time. The pure parts (`twiml`, `ledger`, `caller`, `line`,
//! `protocol`, `signature`, `overrides`) know no sockets; the others are shells around them.
//!
//! Not simulated: `<Gather>`, `<Record>`, `<Start>`, conferences and other verbs that Tandem does
//! not use (they are skipped, with notification 0), callbacks of dialled child calls, text to
//! speech (a tone stands for it), billing.

mod call;
mod callee;
mod caller;
mod clock;
mod control;
mod dead_air;
mod exchange;
mod executor;
mod handle;
mod ledger;
mod line;
mod number;
mod overrides;
pub(crate) mod protocol;
mod rest;
mod sid;
mod signature;
mod sound;
mod stream;
mod trace;
mod twiml;
mod webhook;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::gate::{Held, When};
use crate::hosts::Hosts;
use call::{Call, CallStatus as Status, Callbacks, Direction, Setup};
use exchange::{Exchange, lock};
use executor::Step;

pub use call::CallStatus;
pub use callee::{Callee, Outcome};
pub use caller::Caller;
pub use dead_air::Gap;
pub use exchange::{Notification, RestRequest};
pub use handle::{CallHandle, NotInTime};
pub use ledger::ChunkFact;
pub use line::Recording;
pub use number::Number;
pub use sid::{CallSid, NumberSid, StreamSid};
pub use signature::{Param, sign};
pub use stream::StreamFacts;
pub use trace::{EndReason, Purpose, TraceEntry, What};

/// Finds the mu-law audio of a clip by its name or path: what `POST /sim/calls` speaks with.
pub type ClipLoader = fn(&str) -> Result<Vec<u8>, String>;

/// Settings of the simulator.
#[derive(Clone, Debug)]
pub struct TwilioOptions {
    /// `AC…`.
    pub account_sid: String,
    /// The first is the primary one, which signs; all open the REST API.
    pub auth_tokens: Vec<String>,
    /// `(SK…, secret)`: API keys, which open the REST API too.
    pub api_keys: Vec<(String, String)>,
    /// Where public URLs lead.
    pub hosts: Hosts,
    /// How much faster than the wall's clock calls run. Webhook limits stay on the wall's clock, so at
    /// a pace of 10 a webhook of 100 ms is a second of the call.
    pub pace: u32,
    /// How long `<Say>` takes.
    pub say_ms_per_character: u64,
    /// Longest `<Say>`.
    pub say_limit_ms: u64,
    /// The hard limit of a webhook with its retries, 15 s at Twilio.
    pub webhook_limit_ms: u64,
    /// Numbers that can be bought.
    pub inventory: Vec<String>,
    /// What finds the clips of the control endpoint.
    pub clips: ClipLoader,
    /// How long the REST API takes to answer, beside the work itself.
    pub rest_delay: Duration,
}

impl TwilioOptions {
    /// Twilio's own settings for this account.
    pub fn new(account_sid: &str, auth_token: &str, hosts: Hosts) -> Self {
        Self {
            account_sid: account_sid.to_owned(),
            auth_tokens: vec![auth_token.to_owned()],
            api_keys: Vec::new(),
            hosts,
            pace: 1,
            say_ms_per_character: 60,
            say_limit_ms: 10_000,
            webhook_limit_ms: 15_000,
            inventory: (1..=9).map(|last| format!("+1415555012{last}")).collect(),
            clips: |path| std::fs::read(path).map_err(|error| format!("{path}: {error}")),
            rest_delay: Duration::ZERO,
        }
    }
}

/// A call to a number of the account.
#[derive(Clone, Debug)]
pub struct InboundCall {
    /// The number called.
    pub to: String,
    /// Who calls: E.164, `sip:…`, `client:…`, `Anonymous`.
    pub from: String,
    /// What they do once the call is answered.
    pub caller: Caller,
    /// Longest duration, on the call's clock.
    pub limit_ms: u64,
    /// Further parameters of every webhook, such as `ForwardedFrom`.
    pub extra: Vec<Param>,
}

impl Default for InboundCall {
    fn default() -> Self {
        Self {
            to: String::new(),
            from: "+15550199".to_owned(),
            caller: Caller::new(),
            limit_ms: 600_000,
            extra: Vec::new(),
        }
    }
}

/// What the REST API does wrong on command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 429, code 20429; the request is not processed.
    TooManyRequests,
    /// The same with this `Retry-After`.
    RateLimited {
        /// Seconds.
        retry_after_s: u64,
    },
    /// 400, code 20001; the request is not processed.
    Refused,
    /// 500; the request is not processed.
    ServerError,
    /// 401, code 20003.
    Unauthorized,
    /// 502 with an HTML page, as a proxy in between answers; the request is not processed.
    BadGateway,
    /// No answer, ever; the request is not processed.
    Silence,
    /// No answer, ever, although the request *is* processed. Waits for a request that changes something.
    LostAnswer,
}

/// The running simulator. Dropping it ends its calls and closes its port.
pub struct Twilio {
    exchange: Arc<Exchange>,
    address: SocketAddr,
}

impl Twilio {
    /// Starts it on a free local port.
    pub async fn start(options: TwilioOptions) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let exchange = Arc::new(Exchange::new(options));
        let router = rest::router(exchange.clone()).merge(control::router(exchange.clone()));
        let stopped = exchange.stopped.clone();
        tokio::spawn(async move { stopped.run_until_cancelled(axum::serve(listener, router).into_future()).await });
        Ok(Self { exchange, address })
    }

    /// The REST API's base URL (`http://127.0.0.1:…`): `TWILIO_API_URL` of the product.
    pub fn api_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a number, or replaces the settings of one.
    pub fn set_number(&self, mut number: Number) {
        let mut numbers = lock(&self.exchange.numbers);
        if let Some(old) = numbers.get(&number.e164) {
            number.sid = old.sid.clone();
        }
        numbers.insert(number.e164.clone(), number);
    }

    /// A number as it is now, by its E.164.
    pub fn number(&self, e164: &str) -> Option<Number> {
        lock(&self.exchange.numbers).get(e164).cloned()
    }

    /// Takes a number out of the account, as its owner does in the console.
    pub fn remove_number(&self, e164: &str) {
        lock(&self.exchange.numbers).remove(e164);
    }

    /// Says what happens when this number is dialled.
    pub fn set_callee(&self, number: &str, callee: Callee) {
        lock(&self.exchange.callees).insert(number.to_owned(), callee);
    }

    /// Calls one of the account's numbers.
    pub fn call(&self, call: InboundCall) -> CallHandle {
        start_inbound(&self.exchange, call)
    }

    /// A call by its id, such as one that the REST API created.
    pub fn find_call(&self, sid: &str) -> Option<CallHandle> {
        self.exchange.call(sid).map(CallHandle::new)
    }

    /// The account's debugger: errors and warnings, in order.
    pub fn notifications(&self) -> Vec<Notification> {
        self.exchange.notifications()
    }

    /// The next so many REST requests go wrong in this way.
    pub fn fail_next(&self, requests: usize, fault: Fault) {
        self.exchange.add_faults(fault, requests);
    }

    /// REST requests meet these in turn, over and over, until something else is set; nothing is fair weather.
    pub fn set_weather(&self, pattern: impl IntoIterator<Item = Option<Fault>>) {
        self.exchange.set_weather(pattern);
    }

    /// Holds the next REST request with this method whose path below the account begins so.
    pub fn hold(&self, when: When, method: &'static str, path: &'static str) -> Held {
        self.exchange.gates.hold(when, method, path)
    }

    /// Every request to the REST API, in order.
    pub fn rest_requests(&self) -> Vec<RestRequest> {
        self.exchange.requests()
    }

    /// Changes the auth tokens, as in a rotation: the first signs from now on.
    pub fn set_auth_tokens(&self, tokens: Vec<String>) {
        self.exchange.set_auth_tokens(tokens);
    }

    /// Sends every status callback so often (1 is normal): Twilio does not promise once.
    pub fn repeat_callbacks(&self, copies: usize) {
        self.exchange.set_callback_copies(copies);
    }
}

impl Drop for Twilio {
    fn drop(&mut self) {
        self.exchange.stopped.cancel();
    }
}

fn start_inbound(exchange: &Arc<Exchange>, inbound: InboundCall) -> CallHandle {
    let number = lock(&exchange.numbers).get(&inbound.to).cloned();
    let voice = number.as_ref().and_then(Number::voice);
    let setup = Setup {
        from: inbound.from,
        to: inbound.to,
        direction: Direction::Inbound,
        caller: inbound.caller,
        callbacks: Callbacks {
            status: number.as_ref().and_then(Number::callback),
            events: vec!["completed".to_owned()],
            fallback: number.as_ref().and_then(Number::fallback),
        },
        extra: inbound.extra,
    };
    let first = voice.map(|action| Step::Fetch { purpose: Purpose::Voice, action, extra: Vec::new() });
    begin(exchange, setup, first, inbound.limit_ms)
}

/// Begins a call; without a first step it fails at once.
fn begin(exchange: &Arc<Exchange>, setup: Setup, first: Option<Step>, limit_ms: u64) -> CallHandle {
    let (call, commands) = Call::new(exchange.clone(), setup);
    lock(&exchange.calls).insert(call.sid.clone(), call.clone());
    let handle = CallHandle::new(call.clone());
    let stopped = exchange.stopped.clone();
    tokio::spawn(async move {
        let life = async {
            match first {
                Some(first) => executor::run(call, first, commands, limit_ms).await,
                None => call.finish(EndReason::NotConfigured, Status::Failed, None).await,
            }
        };
        stopped.run_until_cancelled(life).await
    });
    handle
}
