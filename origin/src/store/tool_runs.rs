//! Runs of tools, so that each runs once.

use std::time::Duration;

use shared::AgentId;
use sqlx::PgConnection;

use super::Result;

/// A run's name: the call's and the run's at the system that runs the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunName {
    /// The call.
    pub call_id: String,
    /// The run.
    pub tool_call_id: String,
}

/// A run that begins.
#[derive(Clone, Copy, Debug)]
pub struct NewRun<'a> {
    /// Its name.
    pub name: &'a RunName,
    /// What makes it the same as another of the call, beside its name.
    pub key: Option<&'a str>,
    /// Whose tool it is.
    pub agent: AgentId,
    /// The tool's name.
    pub tool: &'a str,
    /// How long it may take.
    pub limit: Duration,
}

/// How far a run has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Somebody is at it.
    Running,
    /// Whoever was at it is gone.
    Lost,
    /// It has ended, with a result or an error.
    Done(std::result::Result<String, String>),
}

/// Begins a run. `false`: somebody else has.
pub async fn begin(conn: &mut PgConnection, run: &NewRun<'_>) -> Result<bool> {
    let inserted = sqlx::query!(
        "insert into tool_runs (call_id, tool_call_id, agent_id, name, business_key, lost_at)
         values ($1, $2, $3, $4, $5, now() + make_interval(secs => $6)) on conflict do nothing",
        run.name.call_id,
        run.name.tool_call_id,
        run.agent.0,
        run.tool,
        run.key,
        run.limit.as_secs_f64()
    )
    .execute(conn)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// How far a run has come, found by its name or by the tool's name and key. `None`: nobody has begun it.
pub async fn find(conn: &mut PgConnection, name: &RunName, tool: &str, key: Option<&str>) -> Result<Option<State>> {
    let row = sqlx::query!(
        r#"select result, error, lost_at < now() as "lost!" from tool_runs
           where call_id = $1 and (tool_call_id = $2 or (name = $3 and business_key = $4))
           order by tool_call_id <> $2 limit 1"#,
        name.call_id,
        name.tool_call_id,
        tool,
        key
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| match (row.result, row.error) {
        (Some(result), _) => State::Done(Ok(result)),
        (None, Some(error)) => State::Done(Err(error)),
        (None, None) if row.lost => State::Lost,
        (None, None) => State::Running,
    }))
}

/// Notes what came of a run, also of one whose beginning could not be noted. Without a key it gives that free.
pub async fn finish(conn: &mut PgConnection, run: &NewRun<'_>, outcome: std::result::Result<&str, &str>) -> Result<()> {
    sqlx::query!(
        "insert into tool_runs (call_id, tool_call_id, agent_id, name, business_key, lost_at, finished_at, result, error)
         values ($1, $2, $3, $4, $5, clock_timestamp(), clock_timestamp(), $6, $7)
         on conflict (call_id, tool_call_id) do update set
             business_key = excluded.business_key, finished_at = excluded.finished_at,
             result = excluded.result, error = excluded.error
         where tool_runs.finished_at is null",
        run.name.call_id,
        run.name.tool_call_id,
        run.agent.0,
        run.tool,
        run.key,
        outcome.ok().map(super::without_nul),
        outcome.err().map(super::without_nul)
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes up to `limit` runs that are older than `days`; tells how many.
pub async fn prune(conn: &mut PgConnection, days: i32, limit: i64) -> Result<u64> {
    let done = sqlx::query!(
        "delete from tool_runs where (call_id, tool_call_id) in
             (select call_id, tool_call_id from tool_runs
              where started_at < now() - make_interval(days => $1) limit $2)",
        days,
        limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
