//! What is known of a call as a whole beside its course: usage and cost, how it was set up, how it ended.

use serde_json::Value;
use shared::CallId;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{Result, StoreError};
use crate::prices::Cost;

/// The facts.
#[derive(Clone, Debug, PartialEq)]
pub struct CallFacts {
    /// The provider's own word for why the call ended.
    pub end_detail: Option<String>,
    /// Tokens, minutes and the like, in the terms of whoever ran it.
    pub usage: Value,
    /// What it cost. `None`: nobody has told.
    pub cost: Option<Cost>,
    /// From the start of its last stream to a session that listens and speaks, in milliseconds.
    pub setup_ms: Option<i32>,
    /// How often the caller cut the agent off.
    pub interruptions: Option<i32>,
    /// The mean latency of its turns as the provider tells it, in milliseconds.
    pub told_latency_ms: Option<i32>,
    /// When the provider's report of it took effect.
    pub reported_at: Option<OffsetDateTime>,
}

/// The facts of a call that there is.
pub async fn of_call(conn: &mut PgConnection, call: CallId) -> Result<CallFacts> {
    let row = sqlx::query!(
        "select end_detail, usage, cost, setup_ms, interruptions, told_latency_ms, reported_at from calls where id = $1",
        call.0
    )
    .fetch_one(conn)
    .await?;
    let cost = row.cost.map(serde_json::from_value).transpose().map_err(|_| StoreError::Corrupt("cost"))?;
    Ok(CallFacts {
        end_detail: row.end_detail,
        usage: row.usage,
        cost,
        setup_ms: row.setup_ms,
        interruptions: row.interruptions,
        told_latency_ms: row.told_latency_ms,
        reported_at: row.reported_at,
    })
}

/// Notes what the call has used and what that costs, in place of what was noted before.
pub async fn set_usage(conn: &mut PgConnection, call: CallId, usage: &Value, cost: Option<&Cost>) -> Result<()> {
    let microusd = cost.and_then(|cost| cost.microusd).map(|microusd| i64::try_from(microusd).unwrap_or(i64::MAX));
    let cost = cost.and_then(|cost| serde_json::to_value(cost).ok());
    sqlx::query!(
        "update calls set usage = $2, cost_microusd = $3, cost = $4 where id = $1",
        call.0,
        super::json_without_nul(usage),
        microusd,
        cost.as_ref().map(super::json_without_nul)
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes how long the call's last stream took until the agent listened and could speak.
pub async fn set_setup(conn: &mut PgConnection, call: CallId, setup_ms: i32) -> Result<()> {
    sqlx::query!("update calls set setup_ms = $2 where id = $1", call.0, setup_ms).execute(conn).await?;
    Ok(())
}

/// Notes how often the caller has cut the agent off by now.
pub async fn set_interruptions(conn: &mut PgConnection, call: CallId, count: i32) -> Result<()> {
    sqlx::query!("update calls set interruptions = $2 where id = $1", call.0, count).execute(conn).await?;
    Ok(())
}

/// Marks that a report of the whole call takes effect now. `false`: another has.
pub async fn reported(conn: &mut PgConnection, call: CallId) -> Result<bool> {
    let done = sqlx::query!("update calls set reported_at = now() where id = $1 and reported_at is null", call.0)
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Notes what a provider tells of interruptions and of latency.
pub async fn set_told(
    conn: &mut PgConnection,
    call: CallId,
    interruptions: Option<i32>,
    latency_ms: Option<i32>,
) -> Result<()> {
    sqlx::query!(
        "update calls set interruptions = coalesce($2, interruptions), told_latency_ms = coalesce($3, told_latency_ms)
         where id = $1",
        call.0,
        interruptions,
        latency_ms
    )
    .execute(conn)
    .await?;
    Ok(())
}
