//! The I/O around the decisions: one read of the body, one of the replica, at most one request to the origin, at most
//! one message to the queue. Each has a time limit, and none of them fails a request by failing itself.

mod isolate;
pub mod queue;
mod runtime;

use serde_json::json;
use worker::js_sys::Uint8Array;
use worker::web_sys::{Request, Response};
use worker::{Context, Date, Env, console_error, console_log, event};

use self::isolate::Isolate;
use self::runtime::Fault;
use crate::admit::{Endpoint, Webhook, admit};
use crate::decide::{self, Action, Plan, Replica, ReplicaState, decide};
use crate::forward::{Forwarding, Next, OriginRequest, Verdict};
use crate::head::Head;
use crate::log::Line;
use crate::reply::{Problem, Reply};
use crate::retry::{Body, Event};

/// How long a sender may take to send its body, in milliseconds.
const BODY_LIMIT_MS: u32 = 10_000;
/// How long the replica may take, in milliseconds; a cold read takes a few hundred.
const REPLICA_LIMIT_MS: u32 = 1_000;
/// How long the queue may take, in milliseconds. It follows a failed delivery, and Twilio gives up after 15 s in all.
const QUEUE_LIMIT_MS: u32 = 5_000;

#[event(fetch)]
async fn fetch(request: Request, env: Env, _: Context) -> worker::Result<Response> {
    let started = now_ms();
    let head = Head::new(runtime::head(&request));
    Ok(match serve(&request, &head, &env, started).await {
        Ok(response) => response,
        Err(problem) => {
            // Anybody can ask for a path that is not there; the runtime's own log has those.
            if problem != Problem::NotFound {
                let line = Line {
                    webhook: Some(head.path()),
                    decision: "refuse",
                    reason: Some(problem.code()),
                    status: Some(problem.status()),
                    ms: since(started),
                    ..Line::default()
                };
                console_log!("{}", line.render());
            }
            runtime::reply(&problem.into())
        }
    })
}

async fn serve(request: &Request, head: &Head, env: &Env, started: u64) -> Result<Response, Problem> {
    let endpoint = Endpoint::of(head)?;
    if endpoint == Endpoint::Health {
        let version = isolate::version(env);
        return Ok(runtime::reply(&match Isolate::of(env) {
            Some(_) => Reply::json(&json!({"status": "ok", "version": version})),
            None => Reply::json_with_status(503, &json!({"status": "misconfigured", "version": version})),
        }));
    }
    let isolate = Isolate::of(env).ok_or(Problem::Misconfigured)?;
    let limit = endpoint.max_body_bytes();
    let raw = runtime::body(request, limit, BODY_LIMIT_MS).await.map_err(|Fault(_)| Problem::UnreadableBody)?;
    let raw = raw.filter(|raw| raw.length() <= limit).ok_or(Problem::BodyTooLarge)?;
    let body = raw.to_vec();
    let now = now_seconds();
    let webhook = admit(endpoint, head, &body, &isolate.settings, now)?;

    let (replica, fault) = match webhook.route_key() {
        None => (Replica::NotAsked, None),
        Some(key) => match runtime::read(&isolate.routes, &key, REPLICA_LIMIT_MS).await {
            Ok(value) => (Replica::Read(value), None),
            Err(Fault(fault)) => (Replica::Failed, Some(fault)),
        },
    };
    let plan = decide(&webhook, &replica, decide::Context { settings: &isolate.settings, head, now });
    let line = Line {
        webhook: Some(head.path()),
        decision: plan.decision,
        reason: plan.reason,
        call: webhook.call_id(),
        agent: plan.agent_id,
        replica: plan.replica.as_str(),
        fault: fault.as_deref(),
        ..Line::default()
    };
    let in_doubt = matches!(plan.replica, ReplicaState::Failed | ReplicaState::Unparsable);
    Ok(match plan {
        Plan { action: Action::Answer(reply), .. } => {
            print(Line { status: Some(reply.status), ms: since(started), ..line }, in_doubt);
            runtime::reply(&reply)
        }
        Plan { action: Action::Forward(forwarding), .. } => {
            let sending = Sending { isolate: &isolate, head, webhook: &webhook, raw: &raw, body: &body };
            sending.forward(forwarding, line, started).await
        }
    })
}

/// A webhook on its way to the origin.
struct Sending<'a> {
    isolate: &'a Isolate,
    head: &'a Head,
    webhook: &'a Webhook,
    /// The body as it lies in JavaScript's memory, sent without another copy.
    raw: &'a Uint8Array,
    /// The same in ours.
    body: &'a [u8],
}

impl Sending<'_> {
    async fn forward(&self, forwarding: Forwarding, line: Line<'_>, started: u64) -> Response {
        let path = self.head.path_and_query();
        let request = OriginRequest::sign(&self.isolate.settings, path, self.body, now_seconds());
        let answer = runtime::post(
            &request,
            self.content_type(),
            self.webhook.delivery(),
            self.raw.as_ref(),
            forwarding.limit_ms(),
        )
        .await;
        let status = answer.as_ref().ok().map(runtime::Answer::status);
        let fault = answer.as_ref().err().map(|Fault(fault)| fault.as_str()).or(line.fault);
        let line = Line { origin: Some(status.unwrap_or_default()), fault, ..line };
        let failed = Verdict::of(status) != Verdict::Taken;
        let reply = match (forwarding.settle(status), &answer) {
            (Next::PassOn, Ok(answer)) => {
                print(Line { status, ms: since(started), ..line }, failed);
                return runtime::relay(answer);
            }
            // There is no answer to pass on without one.
            (Next::PassOn, Err(_)) => Problem::Unavailable.into(),
            (Next::Answer(reply), _) => reply,
            (Next::Keep { accepted }, _) => {
                let kept = self.keep().await;
                let fault = kept.as_ref().err().map(|Fault(fault)| fault.as_str()).or(line.fault);
                let reply = Next::kept(kept.is_ok(), accepted);
                let decision = if kept.is_ok() { "keep" } else { "lose" };
                let delivery = Some(self.webhook.delivery());
                let status = Some(reply.status);
                print(Line { decision, delivery, fault, status, ms: since(started), ..line }, true);
                return runtime::reply(&reply);
            }
        };
        print(Line { status: Some(reply.status), ms: since(started), ..line }, failed);
        runtime::reply(&reply)
    }

    fn content_type(&self) -> &str {
        self.head.header("content-type").unwrap_or_default()
    }

    /// Puts the event on the queue, compressed if it would not fit otherwise.
    async fn keep(&self) -> Result<(), Fault> {
        let event = |body| Event {
            path: self.head.path_and_query().into(),
            content_type: self.content_type().into(),
            delivery: self.webhook.delivery().into(),
            enqueued_at: now_ms(),
            body,
        };
        let message = match Body::text(self.body).and_then(|body| event(body).to_message()) {
            Some(message) => message,
            None => event(Body::gzip(&runtime::gzip(self.raw).await?))
                .to_message()
                .ok_or_else(|| Fault("the event is too long for the queue".to_owned()))?,
        };
        runtime::send(&self.isolate.retries, &message, QUEUE_LIMIT_MS).await
    }
}

fn print(line: Line<'_>, is_error: bool) {
    if is_error {
        console_error!("{}", line.render());
    } else {
        console_log!("{}", line.render());
    }
}

fn now_ms() -> u64 {
    Date::now().as_millis()
}

fn now_seconds() -> u64 {
    std::time::Duration::from_millis(now_ms()).as_secs()
}

fn since(started: u64) -> u64 {
    now_ms().saturating_sub(started)
}
