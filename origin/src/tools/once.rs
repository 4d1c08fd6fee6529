//! A tool runs once for each function call, however often the call is told of.
//!
//! The first to tell of it runs the tool, detached: that it stops listening does not stop the run. Everybody else waits
//! for that run and gets its outcome, also on another origin. A run whose origin died may or may not have taken effect;
//! it is not repeated, and the model is told so.

use std::time::Duration;

use shared::AgentId;
use shared::hop;
use shared::vapi::message::HOOK_TOOL_CALL_ID;
use sqlx::PgPool;
use tokio::time::Instant;

use super::{Invocation, ToolError};
use crate::App;
use crate::store::tool_runs::{self, Run, RunName};
use crate::store::tools::Tool;
use crate::store::{self, StoreError};
use crate::telemetry::OutcomeLabels;

/// How long outcomes are kept, in days: what customers' tools answer, for as long as events are remembered.
pub const KEEP_DAYS: i32 = crate::inbox::KEEP_DAYS;

/// Beside the tool's own time: to connect, and to note the outcome.
const MARGIN: Duration = Duration::from_secs(10);
/// How often a waiting repeat looks for the outcome.
const POLL: Duration = Duration::from_millis(100);
/// How often the outcome is tried to be noted, a second apart, while the database is away.
const NOTE_ATTEMPTS: u32 = 5;

/// Runs `tool` unless this function call was run before; then gives what came of that.
pub(super) async fn run(
    app: &App,
    agent: AgentId,
    tool: Tool,
    invocation: &Invocation<'_>,
) -> Result<String, ToolError> {
    let Some(name) = name(invocation) else {
        return super::call(&app.tools, &tool, invocation).await;
    };
    let limit = tool.timeout + MARGIN;
    let first = {
        let mut conn = app.db.acquire().await.map_err(StoreError::from)?;
        tool_runs::begin(&mut conn, &name, agent, &tool.name, limit).await?
    };
    if !first {
        count(app, "repeated");
        return wait(&app.db, &name, Instant::now() + limit).await;
    }
    let (client, db, arguments) = (app.tools.clone(), app.db.clone(), invocation.arguments.clone());
    let (call_id, tool_call_id) = (invocation.call_id.map(str::to_owned), invocation.tool_call_id.to_owned());
    let running = app.tasks.spawn(async move {
        let invocation = Invocation {
            call_id: call_id.as_deref(),
            tool_call_id: &tool_call_id,
            name: &tool.name,
            arguments: &arguments,
        };
        let outcome = super::call(&client, &tool, &invocation).await;
        note(db, name, outcome.as_ref().map(String::clone).map_err(ToString::to_string)).await;
        outcome
    });
    let outcome = running.await.unwrap_or(Err(ToolError::Failed(None)));
    count(app, if outcome.is_ok() { "ok" } else { "failed" });
    outcome
}

/// What a run is known by. `None`: nothing tells it from another.
fn name(invocation: &Invocation<'_>) -> Option<RunName> {
    let call_id = invocation.call_id?;
    (invocation.tool_call_id != HOOK_TOOL_CALL_ID).then(|| RunName {
        call_id: hop::delivery(call_id.to_owned()),
        tool_call_id: hop::delivery(invocation.tool_call_id.to_owned()),
    })
}

/// Waits for somebody else's run.
async fn wait(db: &PgPool, name: &RunName, deadline: Instant) -> Result<String, ToolError> {
    loop {
        let run = tool_runs::find(&mut *db.acquire().await.map_err(StoreError::from)?, name).await?;
        match run {
            Some(Run::Done(Ok(result))) => return Ok(result),
            Some(Run::Done(Err(error))) => return Err(ToolError::Refused(error)),
            Some(Run::Running) if Instant::now() < deadline => tokio::time::sleep(POLL).await,
            Some(Run::Running | Run::Lost) | None => return Err(ToolError::Failed(None)),
        }
    }
}

/// Notes the outcome before anybody gets it, if the database can be reached; later if it cannot: the caller waits for
/// the answer.
async fn note(db: PgPool, name: RunName, outcome: Result<String, String>) {
    if write(&db, &name, &outcome).await.is_ok() {
        return;
    }
    tokio::spawn(async move {
        for _ in 1..NOTE_ATTEMPTS {
            tokio::time::sleep(Duration::from_secs(1)).await;
            match write(&db, &name, &outcome).await {
                Ok(()) => return,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, tool_call_id = name.tool_call_id, "the outcome of a tool is not noted yet");
                }
            }
        }
    });
}

async fn write(db: &PgPool, name: &RunName, outcome: &Result<String, String>) -> store::Result<()> {
    let outcome = outcome.as_ref().map(String::as_str).map_err(String::as_str);
    tool_runs::finish(&mut *db.acquire().await?, name, outcome).await
}

fn count(app: &App, outcome: &'static str) {
    app.metrics.tool_runs.get_or_create(&OutcomeLabels { outcome }).inc();
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_can_be_told_apart_has_a_name() {
        let arguments = json!({});
        let named =
            |call_id, tool_call_id| name(&Invocation { call_id, tool_call_id, name: "f", arguments: &arguments });
        assert_eq!(named(None, "call_1"), None);
        assert_eq!(named(Some("c"), HOOK_TOOL_CALL_ID), None);
        assert_eq!(named(Some("c"), "call_1").unwrap().tool_call_id, "call_1");
        // Postgres keeps no NUL and indexes no long text.
        let odd = named(Some("c"), &"\0".repeat(5000)).unwrap().tool_call_id;
        assert!(odd.len() < 100 && !odd.contains('\0'), "{odd}");
    }
}
