//! A tool runs once for each function call, however often the call is told of; and once for each business key that its
//! owner named, however often the model calls it.
//!
//! The first to tell of it runs the tool, detached: that it stops listening does not stop the run. Everybody else waits
//! for that run and gets its outcome, also on another origin. A run whose origin died may or may not have taken effect;
//! it is not repeated, and the model is told so. What certainly had no effect gives its business key free.

use std::time::Duration;

use shared::AgentId;
use shared::hop;
use shared::vapi::message::HOOK_TOOL_CALL_ID;
use sqlx::PgPool;
use time::OffsetDateTime;
use tokio::time::{Instant, timeout};

use super::arguments::{self, Arguments};
use super::http::Request;
use super::{CallFacts, Client, Invocation, ToolError, envelope};
use crate::store::tool_runs::{self, NewRun, RunName, State};
use crate::store::tools::{Tool, ToolTarget};
use crate::store::{self, StoreError};
use crate::telemetry::{Metrics, OutcomeLabels};

/// How long outcomes are kept, in days: what customers' tools answer, for as long as events are remembered.
pub const KEEP_DAYS: i32 = crate::inbox::KEEP_DAYS;

/// Beside the tool's own time: to connect, and to note the outcome.
const MARGIN: Duration = Duration::from_secs(10);
/// How often a waiting repeat looks for the outcome.
const POLL: Duration = Duration::from_millis(100);
/// How long a caller is let wait for a database that does not answer, each time that it is asked.
const STORE_LIMIT: Duration = Duration::from_secs(1);
/// How often the outcome is tried to be noted, five seconds apart, while the database is away.
const NOTE_ATTEMPTS: u32 = 60;
const NOTE_PAUSE: Duration = Duration::from_secs(5);

/// One run of an HTTP tool.
#[derive(Clone, Debug)]
pub(super) struct Run {
    tool: Tool,
    agent: AgentId,
    facts: std::sync::Arc<CallFacts>,
    tool_call_id: String,
    arguments: Arguments,
    bridged: bool,
    /// `None`: nothing tells it from another.
    name: Option<RunName>,
    /// The business key.
    key: Option<String>,
}

impl Run {
    pub(super) fn new(tool: &Tool, invocation: Invocation) -> Result<Self, ToolError> {
        let Invocation { agent, call, tool_call_id, arguments, bridged } = invocation;
        let arguments = arguments::read(&tool.settings, &tool_call_id, &arguments)?;
        let name = name(&call, &tool_call_id);
        let key = arguments::business_key(&tool.settings, &arguments).filter(|_| name.is_some());
        Ok(Self { tool: tool.clone(), agent, facts: call, tool_call_id, arguments, bridged, name, key })
    }

    /// What tells this run from others in its call: a run with the same is the same.
    pub(super) fn same_as(&self) -> String {
        self.key.as_ref().map_or_else(|| format!("id:{}", self.tool_call_id), |key| format!("{}:{key}", self.tool.name))
    }

    /// The run's name for the tool's server.
    fn delivery(&self) -> String {
        let call = self.facts.id.as_deref().unwrap_or("-");
        let run =
            self.key.as_ref().map_or_else(|| self.tool_call_id.clone(), |key| format!("{}:{key}", self.tool.name));
        hop::delivery(format!("tool:{call}:{run}"))
    }

    async fn call(&self, client: &Client) -> Result<String, ToolError> {
        let ToolTarget::Http { url, secret } = &self.tool.target else { return Err(ToolError::Unavailable) };
        let now = OffsetDateTime::now_utc();
        let body = envelope::body(&self.tool, &self.facts, &self.tool_call_id, &self.arguments, now).to_string();
        let (delivery, tool_call_id, limit) = (&self.delivery(), self.tool_call_id.as_str(), self.tool.timeout);
        client.call(&Request { url, secret, delivery, body: &body, tool_call_id, limit }).await
    }
}

/// Runs a tool unless that was done before; then gives what came of it.
pub(super) async fn run(db: &PgPool, client: &Client, metrics: &Metrics, run: Run) -> Result<String, ToolError> {
    let Some(name) = run.name.clone() else {
        return run.call(client).await;
    };
    let limit = run.tool.timeout + MARGIN;
    let new = NewRun { name: &name, key: run.key.as_deref(), agent: run.agent, tool: &run.tool.name, limit };
    let deadline = Instant::now() + limit;
    loop {
        match begin(db, &new).await {
            Ok(true) => break,
            Ok(false) => {}
            // The call goes on without a database, and so do its tools; repeats are found by `in_call`.
            Err(error) if run.bridged && error.is_temporary() => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, tool = run.tool.name, "a tool's run is not noted yet");
                break;
            }
            Err(error) => return Err(error.into()),
        }
        count(metrics, "repeated");
        if let Some(outcome) = wait(db, &run, &name, deadline).await? {
            return outcome;
        }
    }
    let (client, db) = (client.clone(), db.clone());
    let running = tokio::spawn(async move {
        let outcome = run.call(&client).await;
        note(db, run, name, &outcome).await;
        outcome
    });
    let outcome = running.await.unwrap_or(Err(ToolError::Failed(None)));
    count(metrics, if outcome.is_ok() { "ok" } else { "failed" });
    outcome
}

async fn begin(db: &PgPool, run: &NewRun<'_>) -> store::Result<bool> {
    let begun = async { tool_runs::begin(&mut *db.acquire().await?, run).await };
    timeout(STORE_LIMIT, begun).await.unwrap_or(Err(StoreError::Database(sqlx::Error::PoolTimedOut)))
}

fn name(facts: &CallFacts, tool_call_id: &str) -> Option<RunName> {
    let call_id = facts.id.clone()?;
    (tool_call_id != HOOK_TOOL_CALL_ID)
        .then(|| RunName { call_id: hop::delivery(call_id), tool_call_id: hop::delivery(tool_call_id.to_owned()) })
}

/// Waits for somebody else's run, until `deadline` and no longer. `None`: it had no effect and gave the key free, so it
/// is our turn.
async fn wait(
    db: &PgPool,
    run: &Run,
    name: &RunName,
    deadline: Instant,
) -> Result<Option<Result<String, ToolError>>, ToolError> {
    let look = async || {
        let looked =
            async { tool_runs::find(&mut *db.acquire().await?, name, &run.tool.name, run.key.as_deref()).await };
        timeout(STORE_LIMIT, looked).await.unwrap_or(Err(StoreError::Database(sqlx::Error::PoolTimedOut)))
    };
    loop {
        let state = look().await;
        let may_wait = Instant::now() < deadline;
        match state {
            Ok(Some(State::Done(Ok(result)))) => return Ok(Some(Ok(result))),
            Ok(Some(State::Done(Err(error)))) => return Ok(Some(Err(ToolError::Refused(error)))),
            Ok(Some(State::Lost)) => return Ok(Some(Err(ToolError::Failed(None)))),
            Ok(None) if may_wait => return Ok(None),
            Ok(Some(State::Running)) if may_wait => tokio::time::sleep(POLL).await,
            Err(error) if may_wait && error.is_temporary() => tokio::time::sleep(POLL).await,
            Ok(Some(State::Running) | None) => return Ok(Some(Err(ToolError::Undecided))),
            Err(error) if error.is_temporary() => return Ok(Some(Err(ToolError::Undecided))),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Notes the outcome before anybody gets it, if the database can be reached; later if it cannot: the caller waits for
/// the answer.
async fn note(db: PgPool, run: Run, name: RunName, outcome: &Result<String, ToolError>) {
    let frees_key = outcome.as_ref().is_err_and(ToolError::is_harmless);
    let key = run.key.filter(|_| !frees_key);
    let (agent, tool) = (run.agent, run.tool.name);
    let outcome = match outcome {
        Ok(result) => Ok(result.clone()),
        Err(error) => Err(error.to_string()),
    };
    let write = async move || {
        let new = NewRun { name: &name, key: key.as_deref(), agent, tool: &tool, limit: Duration::ZERO };
        let outcome = outcome.as_ref().map(String::as_str).map_err(String::as_str);
        let written = async { tool_runs::finish(&mut *db.acquire().await?, &new, outcome).await };
        timeout(STORE_LIMIT, written).await.unwrap_or(Err(StoreError::Database(sqlx::Error::PoolTimedOut)))
    };
    if write().await.is_ok() {
        return;
    }
    tokio::spawn(async move {
        for _ in 1..NOTE_ATTEMPTS {
            tokio::time::sleep(NOTE_PAUSE).await;
            match write().await {
                Ok(()) => return,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "the outcome of a tool is not noted yet");
                }
            }
        }
    });
}

fn count(metrics: &Metrics, outcome: &'static str) {
    metrics.tool_runs.get_or_create(&OutcomeLabels { outcome }).inc();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_told_apart_has_a_name() {
        let named = |call_id: Option<&str>, tool_call_id: &str| {
            name(&CallFacts { id: call_id.map(str::to_owned), ..CallFacts::default() }, tool_call_id)
        };
        assert_eq!(named(None, "call_1"), None);
        assert_eq!(named(Some("c"), HOOK_TOOL_CALL_ID), None);
        assert_eq!(named(Some("c"), "call_1").unwrap().tool_call_id, "call_1");
        // Postgres keeps no NUL and indexes no long text.
        let odd = named(Some("c"), &"\0".repeat(5000)).unwrap().tool_call_id;
        assert!(odd.len() < 100 && !odd.contains('\0'), "{odd}");
    }
}
