//! Tools: functions that agents may call, the same ones on both systems.

pub mod records;
pub mod settings;

use std::fmt;
use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::{AgentId, ProjectId, ToolId};
use sqlx::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use self::settings::ToolSettings;
use super::{Result, StoreError};

/// A function that an agent may call.
#[derive(Clone, Debug)]
pub struct Tool {
    /// The tool's id.
    pub id: Uuid,
    /// The function's name, as the model sees it.
    pub name: String,
    /// What it does and when to call it, for the model.
    pub description: String,
    /// JSON Schema of the arguments.
    pub parameters: Value,
    /// Who runs it.
    pub target: ToolTarget,
    /// How long it may take.
    pub timeout: Duration,
    /// How it runs besides.
    pub settings: ToolSettings,
}

/// Who runs a tool.
#[derive(Clone, Debug)]
pub enum ToolTarget {
    /// We do.
    Builtin(Builtin),
    /// A customer's HTTP server.
    Http {
        /// Where it is. Whether that address may be called is checked when it is.
        url: String,
        /// Signs the requests.
        secret: SecretString,
    },
}

/// Tools of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Builtin {
    /// Ends the call.
    EndCall,
    /// Hands the caller to a person.
    TransferCall,
    /// Presses keys.
    SendDtmf,
}

impl Builtin {
    /// The spelling in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EndCall => "end_call",
            Self::TransferCall => "transfer_call",
            Self::SendDtmf => "send_dtmf",
        }
    }
}

impl Builtin {
    /// The one that is spelled so.
    pub fn named(word: &str) -> Option<Self> {
        [Self::EndCall, Self::TransferCall, Self::SendDtmf].into_iter().find(|builtin| builtin.as_str() == word)
    }
}

impl fmt::Display for Builtin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The tools of an agent, in a fixed order: a stable list keeps the model's prompt cache.
pub async fn of_agent(conn: &mut PgConnection, agent: AgentId) -> Result<Vec<Tool>> {
    let rows = sqlx::query!(
        r#"select t.id, coalesce(t.function_name, t.name) as "name!", t.description, t.parameters, t.builtin,
                  t.target_url, t.secret, t.timeout_ms, t.settings
           from agent_tools at join tools t on t.id = at.tool_id
           where at.agent_id = $1 order by 2"#,
        agent.0
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let target = match (row.builtin.as_deref(), row.target_url, row.secret) {
                (Some(word), None, _) => {
                    ToolTarget::Builtin(Builtin::named(word).ok_or(StoreError::Corrupt("built-in tool"))?)
                }
                (None, Some(url), Some(secret)) => ToolTarget::Http { url, secret: secret.into() },
                _ => return Err(StoreError::Corrupt("tool target")),
            };
            let settings = serde_json::from_value(row.settings).map_err(|_| StoreError::Corrupt("tool settings"))?;
            let timeout_ms = u64::try_from(row.timeout_ms).map_err(|_| StoreError::Corrupt("tool timeout"))?;
            Ok(Tool {
                id: row.id,
                name: row.name,
                description: row.description,
                parameters: row.parameters,
                target,
                timeout: Duration::from_millis(timeout_ms),
                settings,
            })
        })
        .collect()
}

/// Which tools these agents have.
pub async fn ids_of_agents(conn: &mut PgConnection, agents: &[AgentId]) -> Result<Vec<(AgentId, ToolId)>> {
    let agents: Vec<Uuid> = agents.iter().map(|agent| agent.0).collect();
    let rows = sqlx::query!(
        "select agent_id, tool_id from agent_tools where agent_id = any($1) order by agent_id, tool_id",
        &agents
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (AgentId(row.agent_id), ToolId(row.tool_id))).collect())
}

/// Gives a locked agent these tools of its project and no others. Fails where one is not the project's.
pub async fn assign(conn: &mut PgConnection, project: ProjectId, agent: AgentId, tools: &[ToolId]) -> Result<()> {
    let tools: Vec<Uuid> = tools.iter().map(|tool| tool.0).collect();
    sqlx::query!("delete from agent_tools where agent_id = $1 and tool_id <> all ($2)", agent.0, &tools)
        .execute(&mut *conn)
        .await?;
    sqlx::query!(
        "insert into agent_tools (project_id, agent_id, tool_id) select $1, $2, tool from unnest($3::uuid[]) tool
         on conflict do nothing",
        project.0,
        agent.0,
        &tools
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The function names of these tools of a project; a tool that is not the project's is left out.
pub async fn function_names(
    conn: &mut PgConnection,
    project: ProjectId,
    tools: &[ToolId],
) -> Result<Vec<(ToolId, String)>> {
    let tools: Vec<Uuid> = tools.iter().map(|tool| tool.0).collect();
    // Shared, so that none of them goes or changes its name before the transaction ends.
    let rows = sqlx::query!(
        r#"select id, coalesce(function_name, name) as "name!" from tools
           where project_id = $1 and id = any ($2) order by id for share"#,
        project.0,
        &tools
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (ToolId(row.id), row.name)).collect())
}
