//! Posting server messages: proof, time limit, retries by backoffPlan, and the record of it all.

use std::time::{Duration, Instant};

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::answers::{validate_answer, validate_tool_answer};
use super::auth::{Auth, Signing};
use super::messages::{ANSWERED, for_attempt, message_type};
use crate::hosts::Hosts;
use crate::record::Record;

/// An assistant-request is given up after this, whatever `timeoutSeconds` says.
pub const ASSISTANT_REQUEST_LIMIT: Duration = Duration::from_millis(7500);

/// `timeoutSeconds` when it is not set.
pub const DEFAULT_LIMIT: Duration = Duration::from_secs(20);

/// Where server messages go, and how: the `server` object of an assistant, number, tool or organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `url`, public.
    pub url: String,
    /// What the credential (or legacy secret) amounts to.
    pub auth: Auth,
    /// `timeoutSeconds`.
    pub timeout: Duration,
    /// `headers`, sent as they are; an `Authorization` here overrides the credential's.
    pub headers: Vec<(String, String)>,
    /// `backoffPlan`; without one nothing is ever retried.
    pub backoff: Option<Backoff>,
}

impl Server {
    /// A server at `url` with everything else as Vapi defaults it.
    pub fn new(url: &str, auth: Auth) -> Self {
        Self { url: url.to_owned(), auth, timeout: DEFAULT_LIMIT, headers: Vec::new(), backoff: None }
    }
}

/// `backoffPlan`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    /// `type` is `exponential`, not `fixed`.
    pub exponential: bool,
    /// `maxRetries`, 0 to 10.
    pub max_retries: u32,
    /// `baseDelaySeconds`, 0 to 10.
    pub base_delay: Duration,
    /// `excludedStatusCodes`: final, whatever the plan says.
    pub excluded: Vec<u16>,
}

impl Backoff {
    /// The pause before retry number `retry`, counted from 0; `None` when the first `status` (0: no answer) or
    /// the number of retries makes the failure final.
    pub fn pause(&self, retry: u32, status: u16) -> Option<Duration> {
        if retry >= self.max_retries || self.excluded.contains(&status) {
            return None;
        }
        Some(if self.exponential { self.base_delay * 2_u32.pow(retry) } else { self.base_delay })
    }
}

/// How the receiver answered the last attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The HTTP status; 0 when there was no answer in time, or no connection.
    pub status: u16,
    /// The body: JSON if it was, else a string.
    pub body: Value,
    /// From the first attempt to the end of the last, in milliseconds.
    pub ms: u64,
}

/// One attempt to deliver.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// The headers that prove the sender.
    pub headers: Vec<(String, String)>,
    /// The body as posted: attempts of one message can differ, because URLs are signed afresh.
    pub body: String,
    /// The HTTP status; 0 for none.
    pub status: u16,
    /// Why there was no answer.
    pub failure: Option<String>,
}

/// One message, as the record keeps it.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// `message.type`.
    pub message_type: String,
    /// The call it is about.
    pub call_id: Option<String>,
    /// The whole body.
    pub body: Value,
    /// The public URL it was sent to.
    pub url: String,
    /// Every attempt so far.
    pub attempts: Vec<Attempt>,
    /// The outcome; `None` while it is under way.
    pub answer: Option<Answer>,
    /// What is wrong with the answer, where Vapi uses answers: the message then counts as unanswered.
    pub fault: Option<String>,
}

impl Delivery {
    /// Whether it was answered with 2xx and, where that matters, in the right shape.
    pub fn accepted(&self) -> bool {
        self.fault.is_none() && self.answer.as_ref().is_some_and(|a| (200..300).contains(&a.status))
    }
}

/// The sender. Clones share the record.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    pub(crate) hosts: Hosts,
    pub(crate) client: reqwest::Client,
    pub(crate) deliveries: Record<Delivery>,
}

impl Sender {
    /// Puts a message on record and returns its position: the order of the record is the order of sending.
    pub(crate) fn enter(&self, server: &Server, body: Value) -> usize {
        self.deliveries.push(Delivery {
            message_type: message_type(&body).to_owned(),
            call_id: body["message"]["call"]["id"].as_str().map(str::to_owned),
            body,
            url: server.url.clone(),
            attempts: Vec::new(),
            answer: None,
            fault: None,
        })
    }

    /// Posts the message at `position` of the record until it is accepted or finally refused.
    pub(crate) async fn post(&self, server: &Server, position: usize, body: &Value) -> (Answer, Option<String>) {
        let begun = Instant::now();
        let message_id = Uuid::new_v4().to_string();
        let mut retry = 0;
        let (status, text) = loop {
            let (attempt, text) = self.attempt(server, body, &message_id).await;
            let status = attempt.status;
            self.deliveries.update(position, |delivery| delivery.attempts.push(attempt));
            if (200..300).contains(&status) {
                break (status, text);
            }
            match server.backoff.as_ref().and_then(|plan| plan.pause(retry, status)) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => break (status, text),
            }
            retry += 1;
        };
        let answer = Answer {
            status,
            body: serde_json::from_str(&text).unwrap_or_else(|_| text.clone().into()),
            ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        let fault = fault(body, &answer);
        self.deliveries.update(position, |delivery| {
            delivery.answer = Some(answer.clone());
            delivery.fault.clone_from(&fault);
        });
        (answer, fault)
    }

    async fn attempt(&self, server: &Server, body: &Value, message_id: &str) -> (Attempt, String) {
        let bytes = for_attempt(body.clone()).to_string();
        let signing = Signing { body: bytes.as_bytes(), url: &server.url, at: OffsetDateTime::now_utc(), message_id };
        let mut headers = server.auth.headers(&signing);
        for (name, value) in &server.headers {
            headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
            headers.push((name.clone(), value.clone()));
        }
        let limit = match message_type(body) {
            "assistant-request" => ASSISTANT_REQUEST_LIMIT,
            _ => server.timeout,
        };
        let outcome = match tokio::time::timeout(limit, self.exchange(&server.url, &headers, bytes.clone())).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("timeout of {}ms exceeded", limit.as_millis())),
        };
        let (status, text, failure) = match outcome {
            Ok((status, text)) => (status, text, None),
            Err(failure) => (0, String::new(), Some(failure)),
        };
        (Attempt { headers, body: bytes, status, failure }, text)
    }

    async fn exchange(&self, url: &str, headers: &[(String, String)], body: String) -> Result<(u16, String), String> {
        let to = self.hosts.resolve(url).map_err(|error| error.to_string())?;
        let mut request =
            self.client.post(&to.url).header("host", &to.host).header("content-type", "application/json").body(body);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let response = request.send().await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let text = response.text().await.map_err(|error| error.to_string())?;
        Ok((status, text))
    }
}

/// What makes an answer unusable where one is needed. `None` for events: they need no body.
fn fault(body: &Value, answer: &Answer) -> Option<String> {
    let kind = message_type(body);
    if !ANSWERED.contains(&kind) {
        return None;
    }
    // The body of anything but 200 is ignored.
    if answer.status != 200 {
        return Some(format!("status {} instead of 200", answer.status));
    }
    let check = match kind {
        "tool-calls" => validate_tool_answer(&asked(body), &answer.body),
        "voice-request" => Ok(()),
        _ => validate_answer(kind, &answer.body),
    };
    check.err()
}

/// The (id, name) of every tool call in a `tool-calls` message, in order.
fn asked(body: &Value) -> Vec<(String, String)> {
    let calls = body["message"]["toolCallList"].as_array();
    calls
        .into_iter()
        .flatten()
        .map(|call| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            (text(&call["id"]), text(&call["function"]["name"]))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_doubles_its_pause_and_knows_when_to_stop() {
        let plan =
            Backoff { exponential: true, max_retries: 3, base_delay: Duration::from_secs(1), excluded: vec![404] };
        let pauses: Vec<_> = (0..4).map(|retry| plan.pause(retry, 503)).collect();
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(pauses, [seconds(1), seconds(2), seconds(4), None]);
        assert_eq!(plan.pause(0, 404), None);
    }
}
