//! Tools as their owners see them: rows of `tools`, whole.

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use shared::{AgentId, ProjectId, ToolId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Builtin;
use super::settings::ToolSettings;
use crate::store::{Result, StoreError};

/// A tool, whole.
#[derive(Clone, Debug)]
pub struct ToolRecord {
    /// The tool's id.
    pub id: ToolId,
    /// Whose it is.
    pub project_id: ProjectId,
    /// Unique in the project.
    pub name: String,
    /// What the model knows it as, if not by its name.
    pub function_name: Option<String>,
    /// What it does and when to call it.
    pub description: String,
    /// JSON Schema of the arguments.
    pub parameters: Value,
    /// One of ours.
    pub builtin: Option<Builtin>,
    /// Or else a server.
    pub target_url: Option<String>,
    /// Signs the requests to that server.
    pub secret: Option<SecretString>,
    /// How long it may take.
    pub timeout_ms: i32,
    /// How it runs besides.
    pub settings: ToolSettings,
    /// Grows with every change.
    pub revision: i64,
}

struct Row {
    id: Uuid,
    project_id: Uuid,
    name: String,
    function_name: Option<String>,
    description: String,
    parameters: Value,
    builtin: Option<String>,
    target_url: Option<String>,
    secret: Option<String>,
    timeout_ms: i32,
    settings: Value,
    revision: i64,
}

impl TryFrom<Row> for ToolRecord {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self> {
        let builtin = row.builtin.map(|word| Builtin::named(&word).ok_or(StoreError::Corrupt("built-in tool")));
        Ok(Self {
            id: ToolId(row.id),
            project_id: ProjectId(row.project_id),
            name: row.name,
            function_name: row.function_name,
            description: row.description,
            parameters: row.parameters,
            builtin: builtin.transpose()?,
            target_url: row.target_url,
            secret: row.secret.map(SecretString::from),
            timeout_ms: row.timeout_ms,
            settings: serde_json::from_value(row.settings).map_err(|_| StoreError::Corrupt("tool settings"))?,
            revision: row.revision,
        })
    }
}

/// One tool of a project.
pub async fn get(conn: &mut PgConnection, project: ProjectId, id: ToolId) -> Result<Option<ToolRecord>> {
    sqlx::query_as!(
        Row,
        "select id, project_id, name, function_name, description, parameters, builtin, target_url, secret, timeout_ms,
                settings, revision
         from tools where project_id = $1 and id = $2",
        project.0,
        id.0
    )
    .fetch_optional(conn)
    .await?
    .map(ToolRecord::try_from)
    .transpose()
}

/// The same, and nobody else changes it, or gives it to an agent, until the transaction ends.
pub async fn lock(conn: &mut PgConnection, project: ProjectId, id: ToolId) -> Result<Option<ToolRecord>> {
    sqlx::query_as!(
        Row,
        "select id, project_id, name, function_name, description, parameters, builtin, target_url, secret, timeout_ms,
                settings, revision
         from tools where project_id = $1 and id = $2 for update",
        project.0,
        id.0
    )
    .fetch_optional(conn)
    .await?
    .map(ToolRecord::try_from)
    .transpose()
}

/// Which tools to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// With this in the name, in whatever case.
    pub name: Option<String>,
    /// Of this agent.
    pub agent: Option<AgentId>,
}

/// The project's newest tools, from before the one that is named.
pub async fn list(
    conn: &mut PgConnection,
    project: ProjectId,
    filter: &Filter,
    before: Option<ToolId>,
    limit: i64,
) -> Result<Vec<ToolRecord>> {
    sqlx::query_as!(
        Row,
        "select id, project_id, name, function_name, description, parameters, builtin, target_url, secret, timeout_ms,
                settings, revision
         from tools
         where project_id = $1
           and ($2::text is null or position(lower($2) in lower(name)) > 0)
           and ($3::uuid is null or exists (select from agent_tools where agent_id = $3 and tool_id = tools.id))
           and ($4::uuid is null or id < $4)
         order by id desc limit $5",
        project.0,
        filter.name,
        filter.agent.map(|id| id.0),
        before.map(|id| id.0),
        limit
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(ToolRecord::try_from)
    .collect()
}

/// Makes a tool. Fails where the name is taken.
pub async fn insert(conn: &mut PgConnection, tool: &ToolRecord) -> Result<()> {
    sqlx::query!(
        "insert into tools (id, project_id, name, function_name, description, parameters, builtin, target_url, secret,
                            timeout_ms, settings)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        tool.id.0,
        tool.project_id.0,
        tool.name,
        tool.function_name,
        tool.description,
        tool.parameters,
        tool.builtin.map(Builtin::as_str),
        tool.target_url,
        tool.secret.as_ref().map(|secret| secret.expose_secret().to_owned()),
        tool.timeout_ms,
        encode(&tool.settings)?
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Describes a locked tool anew. Fails where the name is taken.
pub async fn update(conn: &mut PgConnection, tool: &ToolRecord) -> Result<()> {
    sqlx::query!(
        "update tools set name = $2, function_name = $3, description = $4, parameters = $5, builtin = $6,
                          target_url = $7, secret = $8, timeout_ms = $9, settings = $10
         where id = $1",
        tool.id.0,
        tool.name,
        tool.function_name,
        tool.description,
        tool.parameters,
        tool.builtin.map(Builtin::as_str),
        tool.target_url,
        tool.secret.as_ref().map(|secret| secret.expose_secret().to_owned()),
        tool.timeout_ms,
        encode(&tool.settings)?
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes a locked tool.
pub async fn delete(conn: &mut PgConnection, id: ToolId) -> Result<()> {
    sqlx::query!("delete from tools where id = $1", id.0).execute(conn).await?;
    Ok(())
}

/// The agents that have a tool.
pub async fn agents_of(conn: &mut PgConnection, id: ToolId) -> Result<Vec<AgentId>> {
    let agents = sqlx::query_scalar!("select agent_id from agent_tools where tool_id = $1 order by 1", id.0)
        .fetch_all(conn)
        .await?;
    Ok(agents.into_iter().map(AgentId).collect())
}

/// Whether an agent that has the tool has another one that the model knows by this name.
pub async fn is_name_met(conn: &mut PgConnection, id: ToolId, function_name: &str) -> Result<bool> {
    let met = sqlx::query_scalar!(
        r#"select exists (
               select from agent_tools mine
               join agent_tools other on other.agent_id = mine.agent_id and other.tool_id <> mine.tool_id
               join tools on tools.id = other.tool_id
               where mine.tool_id = $1 and coalesce(tools.function_name, tools.name) = $2
           ) as "met!""#,
        id.0,
        function_name
    )
    .fetch_one(conn)
    .await?;
    Ok(met)
}

fn encode(settings: &ToolSettings) -> Result<Value> {
    serde_json::to_value(settings).map_err(|error| sqlx::Error::Encode(error.into()).into())
}
