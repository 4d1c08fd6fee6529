//! Agents: voice assistants, and which system runs their new calls.

pub mod realtime;

use shared::{AgentId, AssistantId, E164, ProjectId, SystemType};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

pub use self::realtime::RealtimeSettings;
use super::{Result, StoreError, optional_text, text};

/// A voice assistant of a project.
#[derive(Clone, Debug, PartialEq)]
pub struct Agent {
    /// The agent's id.
    pub id: AgentId,
    /// Whose it is.
    pub project_id: ProjectId,
    /// Unique in the project.
    pub name: String,
    /// What it is told to be and do; may be empty.
    pub instructions: String,
    /// What it says first; `None`: it waits for the caller.
    pub greeting: Option<String>,
    /// How it runs on OpenAI Realtime; `None`: not configured for it.
    pub realtime: Option<RealtimeSettings>,
    /// Its assistant at Vapi.
    pub vapi_assistant_id: Option<AssistantId>,
    /// Where a call goes that it cannot take.
    pub fallback_number: Option<E164>,
    /// Which system runs its new calls.
    pub system_type: SystemType,
    /// When that last changed.
    pub switched_at: Option<OffsetDateTime>,
    /// Grows with every change.
    pub revision: i64,
}

/// An agent as its owner describes it.
#[derive(Clone, Debug)]
pub struct NewAgent<'a> {
    /// Whose it is.
    pub project_id: ProjectId,
    /// Unique in the project.
    pub name: &'a str,
    /// What it is told to be and do.
    pub instructions: &'a str,
    /// What it says first.
    pub greeting: Option<&'a str>,
    /// How it runs on OpenAI Realtime.
    pub realtime: Option<&'a RealtimeSettings>,
    /// Its assistant at Vapi.
    pub vapi_assistant_id: Option<&'a AssistantId>,
    /// Where a call goes that it cannot take.
    pub fallback_number: Option<&'a E164>,
}

struct Row {
    id: Uuid,
    project_id: Uuid,
    name: String,
    instructions: String,
    greeting: Option<String>,
    realtime: Option<serde_json::Value>,
    vapi_assistant_id: Option<String>,
    fallback_number: Option<String>,
    system_type: String,
    switched_at: Option<OffsetDateTime>,
    revision: i64,
}

impl TryFrom<Row> for Agent {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: AgentId(row.id),
            project_id: ProjectId(row.project_id),
            name: row.name,
            instructions: row.instructions,
            greeting: row.greeting,
            realtime: row
                .realtime
                .map(serde_json::from_value)
                .transpose()
                .map_err(|_| StoreError::Corrupt("realtime configuration"))?,
            vapi_assistant_id: optional_text(row.vapi_assistant_id.as_deref(), "Vapi assistant id")?,
            fallback_number: optional_text(row.fallback_number.as_deref(), "fallback number")?,
            system_type: text(&row.system_type, "system type")?,
            switched_at: row.switched_at,
            revision: row.revision,
        })
    }
}

/// One agent of a project.
pub async fn get(conn: &mut PgConnection, project: ProjectId, id: AgentId) -> Result<Option<Agent>> {
    sqlx::query_as!(
        Row,
        "select id, project_id, name, instructions, greeting, realtime, vapi_assistant_id, fallback_number,
                system_type, switched_at, revision
         from agents where project_id = $1 and id = $2",
        project.0,
        id.0
    )
    .fetch_optional(conn)
    .await?
    .map(Agent::try_from)
    .transpose()
}

/// One agent of whichever project: for webhooks and calls, which name it by what they were sent.
pub async fn by_id(conn: &mut PgConnection, id: AgentId) -> Result<Option<Agent>> {
    sqlx::query_as!(
        Row,
        "select id, project_id, name, instructions, greeting, realtime, vapi_assistant_id, fallback_number,
                system_type, switched_at, revision
         from agents where id = $1",
        id.0
    )
    .fetch_optional(conn)
    .await?
    .map(Agent::try_from)
    .transpose()
}

/// The same as [`get`], and nobody else changes the agent or its numbers until the transaction ends.
pub async fn lock(conn: &mut PgConnection, project: ProjectId, id: AgentId) -> Result<Option<Agent>> {
    sqlx::query_as!(
        Row,
        "select id, project_id, name, instructions, greeting, realtime, vapi_assistant_id, fallback_number,
                system_type, switched_at, revision
         from agents where project_id = $1 and id = $2 for no key update",
        project.0,
        id.0
    )
    .fetch_optional(conn)
    .await?
    .map(Agent::try_from)
    .transpose()
}

/// The project's agent of this name, locked in the same way.
pub async fn lock_named(conn: &mut PgConnection, project: ProjectId, name: &str) -> Result<Option<Agent>> {
    sqlx::query_as!(
        Row,
        "select id, project_id, name, instructions, greeting, realtime, vapi_assistant_id, fallback_number,
                system_type, switched_at, revision
         from agents where project_id = $1 and name = $2 for no key update",
        project.0,
        name
    )
    .fetch_optional(conn)
    .await?
    .map(Agent::try_from)
    .transpose()
}

/// Which agents to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// On this system.
    pub system_type: Option<SystemType>,
    /// With this in the name, in whatever case.
    pub name: Option<String>,
    /// With this assistant at Vapi.
    pub vapi_assistant_id: Option<AssistantId>,
}

/// The project's newest agents, from before the one that is named.
pub async fn list(
    conn: &mut PgConnection,
    project: ProjectId,
    filter: &Filter,
    before: Option<AgentId>,
    limit: i64,
) -> Result<Vec<Agent>> {
    sqlx::query_as!(
        Row,
        "select id, project_id, name, instructions, greeting, realtime, vapi_assistant_id, fallback_number,
                system_type, switched_at, revision
         from agents
         where project_id = $1
           and ($2::text is null or system_type = $2)
           and ($3::text is null or position(lower($3) in lower(name)) > 0)
           and ($4::text is null or vapi_assistant_id = $4)
           and ($5::uuid is null or id < $5)
         order by id desc limit $6",
        project.0,
        filter.system_type.map(SystemType::as_str),
        filter.name,
        filter.vapi_assistant_id.as_ref().map(AssistantId::as_str),
        before.map(|id| id.0),
        limit
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(Agent::try_from)
    .collect()
}

/// These agents, or those of a project, or all, in the order of their ids.
pub async fn select(
    conn: &mut PgConnection,
    project: Option<ProjectId>,
    ids: Option<&[AgentId]>,
) -> Result<Vec<Agent>> {
    let ids: Option<Vec<Uuid>> = ids.map(|ids| ids.iter().map(|id| id.0).collect());
    sqlx::query_as!(
        Row,
        "select id, project_id, name, instructions, greeting, realtime, vapi_assistant_id, fallback_number,
                system_type, switched_at, revision
         from agents where ($1::uuid is null or project_id = $1) and ($2::uuid[] is null or id = any($2)) order by id",
        project.map(|id| id.0),
        ids.as_deref()
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(Agent::try_from)
    .collect()
}

/// Sets the system of a locked agent and notes when.
///
/// The moment is the statement's, not the transaction's: this one may have waited for the lock while calls began on
/// the old system, and those must count as from before.
pub async fn set_system_type(conn: &mut PgConnection, id: AgentId, target: SystemType) -> Result<OffsetDateTime> {
    let switched_at = sqlx::query_scalar!(
        r#"update agents set system_type = $2, switched_at = clock_timestamp() where id = $1
           returning switched_at as "switched_at!""#,
        id.0,
        target.as_str()
    )
    .fetch_one(conn)
    .await?;
    Ok(switched_at)
}

/// Makes an agent. Fails where the name or the assistant is taken.
pub async fn insert(conn: &mut PgConnection, agent: &NewAgent<'_>) -> Result<AgentId> {
    let realtime = agent.realtime.map(RealtimeSettings::to_stored).transpose()?;
    let id = sqlx::query_scalar!(
        "insert into agents (id, project_id, name, instructions, greeting, realtime, vapi_assistant_id, fallback_number)
         values ($1, $2, $3, $4, $5, $6, $7, $8) returning id",
        Uuid::now_v7(),
        agent.project_id.0,
        agent.name,
        agent.instructions,
        agent.greeting,
        realtime,
        agent.vapi_assistant_id.map(AssistantId::as_str),
        agent.fallback_number.map(E164::as_str)
    )
    .fetch_one(conn)
    .await?;
    Ok(AgentId(id))
}

/// Describes a locked agent anew, and gives it a new revision, also where only its tools have changed. Fails where the
/// name or the assistant is taken.
pub async fn update(conn: &mut PgConnection, id: AgentId, agent: &NewAgent<'_>) -> Result<()> {
    let realtime = agent.realtime.map(RealtimeSettings::to_stored).transpose()?;
    sqlx::query!(
        // The revision itself is the trigger's to choose, which looks for a difference.
        "update agents
         set name = $2, instructions = $3, greeting = $4, realtime = $5, vapi_assistant_id = $6, fallback_number = $7,
             revision = 0
         where id = $1",
        id.0,
        agent.name,
        agent.instructions,
        agent.greeting,
        realtime,
        agent.vapi_assistant_id.map(AssistantId::as_str),
        agent.fallback_number.map(E164::as_str)
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes a locked agent. Fails where something depends on it.
pub async fn delete(conn: &mut PgConnection, id: AgentId) -> Result<()> {
    sqlx::query!("delete from agents where id = $1", id.0).execute(conn).await?;
    Ok(())
}

/// What depends on an agent: how many numbers, with those that are being bought for it, and calls.
pub async fn dependants(conn: &mut PgConnection, id: AgentId) -> Result<(i64, i64)> {
    let row = sqlx::query!(
        r#"select (select count(*) from phone_numbers where agent_id = $1)
                      + (select count(*) from purchases where agent_id = $1 and state = 'intended') as "numbers!",
                  (select count(*) from calls where agent_id = $1) as "calls!""#,
        id.0
    )
    .fetch_one(conn)
    .await?;
    Ok((row.numbers, row.calls))
}
