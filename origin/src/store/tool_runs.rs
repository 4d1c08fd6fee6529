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

/// How far a run has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    /// Somebody is at it.
    Running,
    /// Whoever was at it is gone.
    Lost,
    /// It has ended, with a result or an error.
    Done(std::result::Result<String, String>),
}

/// Begins a run. `false`: somebody else has.
pub async fn begin(
    conn: &mut PgConnection,
    run: &RunName,
    agent: AgentId,
    tool: &str,
    limit: Duration,
) -> Result<bool> {
    let inserted = sqlx::query!(
        "insert into tool_runs (call_id, tool_call_id, agent_id, name, lost_at)
         values ($1, $2, $3, $4, now() + make_interval(secs => $5)) on conflict do nothing",
        run.call_id,
        run.tool_call_id,
        agent.0,
        tool,
        limit.as_secs_f64()
    )
    .execute(conn)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// How far a run has come. `None`: nobody has begun it.
pub async fn find(conn: &mut PgConnection, run: &RunName) -> Result<Option<Run>> {
    let row = sqlx::query!(
        r#"select result, error, lost_at < now() as "lost!" from tool_runs where call_id = $1 and tool_call_id = $2"#,
        run.call_id,
        run.tool_call_id
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| match (row.result, row.error) {
        (Some(result), _) => Run::Done(Ok(result)),
        (None, Some(error)) => Run::Done(Err(error)),
        (None, None) if row.lost => Run::Lost,
        (None, None) => Run::Running,
    }))
}

/// Notes what came of a run.
pub async fn finish(conn: &mut PgConnection, run: &RunName, outcome: std::result::Result<&str, &str>) -> Result<()> {
    sqlx::query!(
        "update tool_runs set finished_at = clock_timestamp(), result = $3, error = $4
         where call_id = $1 and tool_call_id = $2 and finished_at is null",
        run.call_id,
        run.tool_call_id,
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
