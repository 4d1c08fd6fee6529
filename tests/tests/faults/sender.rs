//! Sends the events as Twilio and Vapi do: signed, some at a time, and again when the answer is not 2xx.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::header::{CONTENT_TYPE, HOST};
use tests::hosts::{Hosts, http_client};
use tests::tandem::{AUTH_TOKEN, EDGE_URL, VAPI_SECRET};
use tests::twilio::sign;
use tests::vapi::Backoff;
use tests::vapi::messages::for_attempt;
use tokio::sync::watch;

use crate::plan::Plan;
use crate::wire::{Body, Parties, Wire, encode};

/// Requests under way at a time.
const SENDERS: usize = 16;
/// How long a sender waits for an answer: Twilio's limit, the shorter one.
const LIMIT: Duration = Duration::from_secs(15);

/// How far the sending is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// Places of the order that a sender has taken.
    pub(crate) taken: usize,
    /// Requests that are over, however they ended.
    pub(crate) requests: usize,
}

/// How the sending of one place of the order went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    /// The event's position in the plan.
    pub(crate) event: usize,
    /// The status of every request; 0: no answer.
    pub(crate) statuses: Vec<u16>,
}

impl Sent {
    pub(crate) fn is_accepted(&self) -> bool {
        self.statuses.last().is_some_and(|status| (200..300).contains(status))
    }
}

/// The largest plan that Vapi takes, but with a shorter base. What will never do is not repeated.
fn backoff() -> Backoff {
    let excluded = vec![400, 401, 403, 404, 413, 415, 422];
    Backoff { exponential: true, max_retries: 10, base_delay: Duration::from_millis(100), excluded }
}

/// Sends the plan's events, in its order, and tells how far it is.
pub(crate) async fn send_all(
    plan: &Arc<Plan>,
    parties: &Arc<Parties>,
    hosts: &Hosts,
    progress: &watch::Sender<Progress>,
) -> Vec<Sent> {
    let client = http_client().timeout(LIMIT).build().expect("the options fit");
    let next = Arc::new(AtomicUsize::new(0));
    let senders = (0..SENDERS).map(|_| {
        let sender = Sender { hosts: hosts.clone(), client: client.clone(), progress: progress.clone() };
        let (plan, parties, next) = (Arc::clone(plan), Arc::clone(parties), Arc::clone(&next));
        tokio::spawn(async move {
            let mut sent = Vec::new();
            while let Some(event) = plan.order.get(next.fetch_add(1, Ordering::Relaxed)) {
                sender.progress.send_modify(|progress| progress.taken += 1);
                let of = plan.events[*event];
                let wire = Wire::new(&parties, &plan.calls[of.call], of.what);
                sent.push(Sent { event: *event, statuses: sender.send(&wire).await });
            }
            sent
        })
    });
    join_all(senders).await.into_iter().flat_map(|sent| sent.expect("no sender panics")).collect()
}

struct Sender {
    hosts: Hosts,
    client: reqwest::Client,
    progress: watch::Sender<Progress>,
}

impl Sender {
    /// Sends one event until it is taken or given up; the statuses of all attempts.
    async fn send(&self, wire: &Wire) -> Vec<u16> {
        let backoff = backoff();
        let mut statuses = Vec::new();
        for retry in 0.. {
            let status = self.attempt(wire).await;
            self.progress.send_modify(|progress| progress.requests += 1);
            statuses.push(status);
            match backoff.pause(retry, status) {
                Some(pause) if !(200..300).contains(&status) => tokio::time::sleep(pause).await,
                _ => break,
            }
        }
        statuses
    }

    /// The status; 0 if there was no answer.
    async fn attempt(&self, wire: &Wire) -> u16 {
        let url = format!("{EDGE_URL}{}", wire.path);
        let to = self.hosts.resolve(&url).expect("the edge is in the table of hosts");
        let request = self.client.post(&to.url).header(HOST, &to.host);
        let request = match &wire.body {
            Body::Form(params, token) => {
                let request = request
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded; charset=UTF-8")
                    .header("X-Twilio-Signature", sign(AUTH_TOKEN, &url, params))
                    .body(encode(params));
                token.iter().fold(request, |request, token| request.header("I-Twilio-Idempotency-Token", token))
            }
            // Signed URLs differ from attempt to attempt.
            Body::Json(message) => request
                .header(CONTENT_TYPE, "application/json")
                .header("X-Vapi-Secret", VAPI_SECRET)
                .body(for_attempt(message.clone()).to_string()),
        };
        match request.send().await {
            Ok(response) => {
                let status = response.status().as_u16();
                // An answer that breaks off is none.
                response.bytes().await.map_or(0, |_| status)
            }
            Err(_) => 0,
        }
    }
}
