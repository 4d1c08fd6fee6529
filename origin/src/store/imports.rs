//! What came from Vapi: agents by their assistants, tools by what they were made of, and the last import of each agent.

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use shared::{AgentId, AssistantId, ProjectId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::agents::{NewAgent, RealtimeSettings};
use super::tools::Builtin;
use super::tools::settings::ToolSettings;
use super::{Result, encode};

/// Makes imports of one project wait for each other until the transaction ends.
pub async fn serialize(conn: &mut PgConnection, project: ProjectId) -> Result<()> {
    let key = format!("vapi-import:{project}");
    sqlx::query_scalar!("select pg_advisory_xact_lock(hashtextextended($1, 0))", key).fetch_one(conn).await?;
    Ok(())
}

/// The agent of an assistant, whichever project it is in.
pub async fn agent_of(conn: &mut PgConnection, assistant: &AssistantId) -> Result<Option<(ProjectId, AgentId)>> {
    let row = sqlx::query!("select project_id, id from agents where vapi_assistant_id = $1", assistant.as_str())
        .fetch_optional(conn)
        .await?;
    Ok(row.map(|row| (ProjectId(row.project_id), AgentId(row.id))))
}

/// Whether another agent of the project has this name.
pub async fn is_agent_name_taken(
    conn: &mut PgConnection,
    project: ProjectId,
    name: &str,
    except: Option<AgentId>,
) -> Result<bool> {
    let taken = sqlx::query_scalar!(
        r#"select exists (
               select from agents where project_id = $1 and name = $2 and id is distinct from $3::uuid
           ) as "taken!""#,
        project.0,
        name,
        except.map(|id| id.0)
    )
    .fetch_one(conn)
    .await?;
    Ok(taken)
}

/// Makes an agent.
pub async fn insert_agent(conn: &mut PgConnection, agent: &NewAgent<'_>) -> Result<AgentId> {
    let id = Uuid::now_v7();
    sqlx::query!(
        "insert into agents (id, project_id, name, instructions, greeting, realtime, vapi_assistant_id)
         values ($1, $2, $3, $4, $5, $6, $7)",
        id,
        agent.project_id.0,
        agent.name,
        agent.instructions,
        agent.greeting,
        agent.realtime.map(RealtimeSettings::to_stored).transpose()?,
        agent.vapi_assistant_id.map(AssistantId::as_str)
    )
    .execute(conn)
    .await?;
    Ok(AgentId(id))
}

/// Describes an agent anew, in what an import knows of it.
pub async fn update_agent(
    conn: &mut PgConnection,
    id: AgentId,
    name: &str,
    instructions: &str,
    greeting: Option<&str>,
    realtime: &RealtimeSettings,
) -> Result<()> {
    sqlx::query!(
        "update agents set name = $2, instructions = $3, greeting = $4, realtime = $5 where id = $1",
        id.0,
        name,
        instructions,
        greeting,
        realtime.to_stored()?
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The last import of an agent.
#[derive(Clone, Debug)]
pub struct LastImport {
    /// What it made of the assistant.
    pub draft: Value,
    /// What it reported.
    pub report: Value,
}

/// The last import of an agent, if it has been imported.
pub async fn last(conn: &mut PgConnection, agent: AgentId) -> Result<Option<LastImport>> {
    let last = sqlx::query_as!(LastImport, "select draft, report from vapi_imports where agent_id = $1", agent.0)
        .fetch_optional(conn)
        .await?;
    Ok(last)
}

/// Notes an import of an agent in place of the one before.
pub async fn note(
    conn: &mut PgConnection,
    project: ProjectId,
    agent: AgentId,
    draft: &Value,
    report: &Value,
) -> Result<()> {
    sqlx::query!(
        "insert into vapi_imports (agent_id, project_id, draft, report) values ($1, $2, $3, $4)
         on conflict (agent_id) do update set
             draft = excluded.draft, report = excluded.report, imported_at = excluded.imported_at",
        agent.0,
        project.0,
        draft,
        report
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A tool as it is stored.
#[derive(Clone, Debug)]
pub struct StoredTool {
    /// The tool's id.
    pub id: Uuid,
    /// What it was made of; `None`: by hand.
    pub imported_from: Option<String>,
    /// What the last import made of it.
    pub imported_draft: Option<Value>,
    /// The name that the model sees.
    pub name: String,
    /// What it does.
    pub description: String,
    /// JSON Schema of the arguments.
    pub parameters: Value,
    /// One of ours, in the database's spelling.
    pub builtin: Option<String>,
    /// Or else a server.
    pub target_url: Option<String>,
    /// How long it may take.
    pub timeout_ms: i32,
    /// The shape is `ToolSettings`.
    pub settings: Value,
}

/// The tool that was made of `source`. Nobody else changes it until the transaction ends.
pub async fn tool_of(conn: &mut PgConnection, project: ProjectId, source: &str) -> Result<Option<StoredTool>> {
    let tool = sqlx::query_as!(
        StoredTool,
        r#"select id, imported_from, imported_draft, coalesce(function_name, name) as "name!", description, parameters,
                  builtin, target_url, timeout_ms, settings
           from tools where project_id = $1 and imported_from = $2 for no key update"#,
        project.0,
        source
    )
    .fetch_optional(conn)
    .await?;
    Ok(tool)
}

/// The tools of an agent.
pub async fn tools_of(conn: &mut PgConnection, agent: AgentId) -> Result<Vec<StoredTool>> {
    let tools = sqlx::query_as!(
        StoredTool,
        r#"select t.id, t.imported_from, t.imported_draft, coalesce(t.function_name, t.name) as "name!", t.description,
                  t.parameters, t.builtin, t.target_url, t.timeout_ms, t.settings
           from agent_tools at join tools t on t.id = at.tool_id
           where at.agent_id = $1 order by t.name"#,
        agent.0
    )
    .fetch_all(conn)
    .await?;
    Ok(tools)
}

/// A tool to be stored.
#[derive(Clone, Debug)]
pub struct ToolValues<'a> {
    /// What it was made of.
    pub imported_from: &'a str,
    /// What the import made of it.
    pub imported_draft: &'a Value,
    /// The name that the model sees.
    pub name: &'a str,
    /// What it does.
    pub description: &'a str,
    /// JSON Schema of the arguments.
    pub parameters: &'a Value,
    /// One of ours.
    pub builtin: Option<Builtin>,
    /// Or else a server.
    pub target_url: Option<&'a str>,
    /// Signs requests to that server; a tool that has a secret keeps it.
    pub new_secret: Option<&'a SecretString>,
    /// How long it may take.
    pub timeout_ms: i32,
    /// How it runs.
    pub settings: &'a ToolSettings,
}

/// Makes a tool. `other_name` is what it is called among the project's tools where its own name is taken.
pub async fn insert_tool(
    conn: &mut PgConnection,
    project: ProjectId,
    tool: &ToolValues<'_>,
    other_name: &str,
) -> Result<Uuid> {
    let id = sqlx::query_scalar!(
        "insert into tools (id, project_id, name, function_name, description, parameters, builtin, target_url, secret,
                            timeout_ms, settings, imported_from, imported_draft)
         select $1, $2, case when taken then $4 else $3 end, case when taken then $3 end, $5, $6, $7, $8, $9, $10, $11,
                $12, $13
         from (select exists (select from tools where project_id = $2 and name = $3) as taken) names
         returning id",
        Uuid::now_v7(),
        project.0,
        tool.name,
        other_name,
        tool.description,
        tool.parameters,
        tool.builtin.map(Builtin::as_str),
        tool.target_url,
        tool.new_secret.map(|secret| secret.expose_secret().to_owned()),
        tool.timeout_ms,
        encode(tool.settings)?,
        tool.imported_from,
        tool.imported_draft
    )
    .fetch_one(conn)
    .await?;
    Ok(id)
}

/// Describes a tool anew. What it is called among the project's tools stays, if its function is called something else
/// now then beside it.
pub async fn update_tool(conn: &mut PgConnection, id: Uuid, tool: &ToolValues<'_>) -> Result<()> {
    sqlx::query!(
        "update tools set
             function_name = case when name = $2 then null else $2 end,
             description = $3, parameters = $4, builtin = $5, target_url = $6, secret = coalesce(secret, $7),
             timeout_ms = $8, settings = $9, imported_draft = $10
         where id = $1",
        id,
        tool.name,
        tool.description,
        tool.parameters,
        tool.builtin.map(Builtin::as_str),
        tool.target_url,
        tool.new_secret.map(|secret| secret.expose_secret().to_owned()),
        tool.timeout_ms,
        encode(tool.settings)?,
        tool.imported_draft
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Gives an agent a tool.
pub async fn link(conn: &mut PgConnection, project: ProjectId, agent: AgentId, tool: Uuid) -> Result<()> {
    sqlx::query!(
        "insert into agent_tools (project_id, agent_id, tool_id) values ($1, $2, $3) on conflict do nothing",
        project.0,
        agent.0,
        tool
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes a tool from an agent. The tool itself stays.
pub async fn unlink(conn: &mut PgConnection, agent: AgentId, tool: Uuid) -> Result<()> {
    sqlx::query!("delete from agent_tools where agent_id = $1 and tool_id = $2", agent.0, tool).execute(conn).await?;
    Ok(())
}
