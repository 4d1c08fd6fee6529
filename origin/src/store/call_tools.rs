//! What the model had done in a call, and what came of it.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;
use shared::CallId;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{Result, StoreError};

/// What came of a function call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolOutcome {
    /// It has a result.
    Ok,
    /// The result is an error.
    Failed,
    /// Nobody has told of a result.
    Unknown,
}

impl ToolOutcome {
    /// The spelling in the database and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for ToolOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ToolOutcome {
    type Err = StoreError;

    fn from_str(word: &str) -> Result<Self> {
        [Self::Ok, Self::Failed, Self::Unknown]
            .into_iter()
            .find(|outcome| outcome.as_str() == word)
            .ok_or(StoreError::Corrupt("tool outcome"))
    }
}

/// A function call.
#[derive(Clone, Debug, PartialEq)]
pub struct CallTool {
    /// The running system's name of it, unique in the call.
    pub tool_call_id: String,
    /// The function.
    pub name: String,
    /// What the model gave it: an object, or the text that it wrote instead.
    pub arguments: Value,
    /// What the model was told.
    pub result: Option<String>,
    /// What came of it.
    pub outcome: ToolOutcome,
    /// When the model asked for it.
    pub started_at: OffsetDateTime,
    /// How long it took.
    pub duration_ms: Option<i32>,
}

/// Writes a function call. What was told of one first stands, and what was not known of it is added.
pub async fn write(conn: &mut PgConnection, call: CallId, tool: &CallTool) -> Result<()> {
    sqlx::query!(
        "insert into call_tools as known
             (call_id, tool_call_id, name, arguments, result, outcome, started_at, duration_ms)
         values ($1, $2, $3, $4, $5, $6, $7, $8)
         on conflict (call_id, tool_call_id) do update set
             result = excluded.result, outcome = excluded.outcome,
             duration_ms = coalesce(excluded.duration_ms, known.duration_ms)
         where known.outcome = 'unknown'",
        call.0,
        super::without_nul(&tool.tool_call_id),
        super::without_nul(&tool.name),
        super::json_without_nul(&tool.arguments),
        tool.result.as_deref().map(super::without_nul),
        tool.outcome.as_str(),
        tool.started_at,
        tool.duration_ms
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The call's function calls, in the order in which the model asked for them.
pub async fn of_call(conn: &mut PgConnection, call: CallId) -> Result<Vec<CallTool>> {
    let rows = sqlx::query!(
        "select tool_call_id, name, arguments, result, outcome, started_at, duration_ms
         from call_tools where call_id = $1 order by started_at, tool_call_id",
        call.0
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(CallTool {
                tool_call_id: row.tool_call_id,
                name: row.name,
                arguments: row.arguments,
                result: row.result,
                outcome: row.outcome.parse()?,
                started_at: row.started_at,
                duration_ms: row.duration_ms,
            })
        })
        .collect()
}
