//! The agents of a rollout: what each was before it was switched, and what came of it.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::{AgentId, ProjectId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::{Result, StoreError};
use super::RolloutId;

/// What came of an agent. The spelling is part of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = RolloutAgentState)]
pub enum ItemState {
    /// Not switched yet.
    Planned,
    /// Switched.
    Switched,
    /// It was on the target already.
    Unchanged,
    /// It could not be switched.
    Failed,
    /// Switched back to what was before.
    Restored,
    /// It could not be switched back.
    RestoreFailed,
}

impl ItemState {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Planned, Self::Switched, Self::Unchanged, Self::Failed, Self::Restored, Self::RestoreFailed];

    /// The spelling in the database and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Switched => "switched",
            Self::Unchanged => "unchanged",
            Self::Failed => "failed",
            Self::Restored => "restored",
            Self::RestoreFailed => "restore_failed",
        }
    }

    fn read(word: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == word)
            .ok_or(StoreError::Corrupt("state of an agent in a rollout"))
    }
}

/// An agent of a rollout.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Who it is.
    pub agent_id: AgentId,
    /// Its name; `None`: it is gone.
    pub agent_name: Option<String>,
    /// Whose it is.
    pub project_id: ProjectId,
    /// The stage that it comes with, counted from 1.
    pub stage: i32,
    /// Its place in the order of switching.
    pub position: i32,
    /// What came of it.
    pub state: ItemState,
    /// The shape is `Image`; `None`: it was not switched.
    pub before: Option<Value>,
    /// Why it failed, in one word.
    pub error_code: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
    /// When it was switched.
    pub switched_at: Option<OffsetDateTime>,
    /// When it was switched back.
    pub restored_at: Option<OffsetDateTime>,
}

struct Row {
    agent_id: Uuid,
    agent_name: Option<String>,
    project_id: Uuid,
    stage: i32,
    position: i32,
    state: String,
    before: Option<Value>,
    error_code: Option<String>,
    error: Option<String>,
    switched_at: Option<OffsetDateTime>,
    restored_at: Option<OffsetDateTime>,
}

impl TryFrom<Row> for Item {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            agent_id: AgentId(row.agent_id),
            agent_name: row.agent_name,
            project_id: ProjectId(row.project_id),
            stage: row.stage,
            position: row.position,
            state: ItemState::read(&row.state)?,
            before: row.before,
            error_code: row.error_code,
            error: row.error,
            switched_at: row.switched_at,
            restored_at: row.restored_at,
        })
    }
}

/// An agent to be put into a rollout.
#[derive(Clone, Copy, Debug)]
pub struct NewItem {
    /// Who it is.
    pub agent_id: AgentId,
    /// Whose it is.
    pub project_id: ProjectId,
    /// The stage that it comes with, counted from 1.
    pub stage: u16,
}

/// Puts agents into a new rollout, in their order.
pub async fn insert(conn: &mut PgConnection, rollout: RolloutId, items: &[NewItem]) -> Result<()> {
    let agents: Vec<Uuid> = items.iter().map(|item| item.agent_id.0).collect();
    let projects: Vec<Uuid> = items.iter().map(|item| item.project_id.0).collect();
    let stages: Vec<i32> = items.iter().map(|item| i32::from(item.stage)).collect();
    sqlx::query!(
        "insert into rollout_items (rollout_id, agent_id, project_id, stage, position)
         select $1, agent_id, project_id, stage, position
         from unnest($2::uuid[], $3::uuid[], $4::int[]) with ordinality as item (agent_id, project_id, stage, position)",
        rollout.0,
        &agents,
        &projects,
        &stages
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The next agent of the stages begun that is not switched yet. Nobody else takes it until the transaction ends.
pub async fn next_planned(conn: &mut PgConnection, rollout: RolloutId, stage: u16) -> Result<Option<Item>> {
    sqlx::query_as!(
        Row,
        r#"select i.agent_id, a.name as "agent_name?", i.project_id, i.stage, i.position, i.state, i.before, i.error_code,
                  i.error, i.switched_at, i.restored_at
           from rollout_items i left join agents a on a.id = i.agent_id
           where i.rollout_id = $1 and i.state = 'planned' and i.stage <= $2
           order by i.position limit 1 for update of i"#,
        rollout.0,
        i32::from(stage)
    )
    .fetch_optional(conn)
    .await?
    .map(Item::try_from)
    .transpose()
}

/// The last agent that is switched. Nobody else takes it until the transaction ends.
pub async fn next_switched(conn: &mut PgConnection, rollout: RolloutId) -> Result<Option<Item>> {
    sqlx::query_as!(
        Row,
        r#"select i.agent_id, a.name as "agent_name?", i.project_id, i.stage, i.position, i.state, i.before, i.error_code,
                  i.error, i.switched_at, i.restored_at
           from rollout_items i left join agents a on a.id = i.agent_id
           where i.rollout_id = $1 and i.state = 'switched'
           order by i.position desc limit 1 for update of i"#,
        rollout.0
    )
    .fetch_optional(conn)
    .await?
    .map(Item::try_from)
    .transpose()
}

/// All agents of a rollout, or those in one state, in their order, after a position.
pub async fn list(
    conn: &mut PgConnection,
    rollout: RolloutId,
    state: Option<ItemState>,
    after: i32,
    limit: i64,
) -> Result<Vec<Item>> {
    sqlx::query_as!(
        Row,
        r#"select i.agent_id, a.name as "agent_name?", i.project_id, i.stage, i.position, i.state, i.before, i.error_code,
                  i.error, i.switched_at, i.restored_at
           from rollout_items i left join agents a on a.id = i.agent_id
           where i.rollout_id = $1 and ($2::text is null or i.state = $2) and i.position > $3
           order by i.position limit $4"#,
        rollout.0,
        state.map(ItemState::as_str),
        after,
        limit
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(Item::try_from)
    .collect()
}

/// Notes that an agent was switched, and from what.
pub async fn switched(conn: &mut PgConnection, rollout: RolloutId, agent: AgentId, before: &Value) -> Result<()> {
    sqlx::query!(
        "update rollout_items set state = 'switched', before = $3, switched_at = clock_timestamp(), error_code = null,
                                  error = null
         where rollout_id = $1 and agent_id = $2",
        rollout.0,
        agent.0,
        before
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that an agent needs nothing: it was on the target already.
pub async fn unchanged(conn: &mut PgConnection, rollout: RolloutId, agent: AgentId) -> Result<()> {
    sqlx::query!(
        "update rollout_items set state = 'unchanged', error_code = null, error = null
         where rollout_id = $1 and agent_id = $2",
        rollout.0,
        agent.0
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that an agent was switched back.
pub async fn restored(conn: &mut PgConnection, rollout: RolloutId, agent: AgentId) -> Result<()> {
    sqlx::query!(
        "update rollout_items set state = 'restored', restored_at = clock_timestamp(), error_code = null, error = null
         where rollout_id = $1 and agent_id = $2",
        rollout.0,
        agent.0
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that an agent could not be switched, or not switched back, and why.
pub async fn failed(
    conn: &mut PgConnection,
    rollout: RolloutId,
    agent: AgentId,
    state: ItemState,
    code: &str,
    error: &str,
) -> Result<()> {
    sqlx::query!(
        "update rollout_items set state = $3, error_code = $4, error = $5 where rollout_id = $1 and agent_id = $2",
        rollout.0,
        agent.0,
        state.as_str(),
        code,
        error
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Lets agents be tried again that could not be switched, or could not be switched back.
pub async fn retry(conn: &mut PgConnection, rollout: RolloutId, failed: ItemState) -> Result<()> {
    let again = if failed == ItemState::RestoreFailed { ItemState::Switched } else { ItemState::Planned };
    sqlx::query!(
        "update rollout_items set state = $3, error_code = null, error = null where rollout_id = $1 and state = $2",
        rollout.0,
        failed.as_str(),
        again.as_str()
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// How many agents of a stage are in a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The stage, counted from 1.
    pub stage: i32,
    /// The state.
    pub state: ItemState,
    /// How many.
    pub agents: i64,
}

/// How the agents of a rollout stand.
pub async fn counts(conn: &mut PgConnection, rollout: RolloutId) -> Result<Vec<Count>> {
    let rows = sqlx::query!(
        r#"select stage, state, count(*) as "agents!" from rollout_items where rollout_id = $1
           group by stage, state order by stage, state"#,
        rollout.0
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| Ok(Count { stage: row.stage, state: ItemState::read(&row.state)?, agents: row.agents }))
        .collect()
}

/// The projects that a rollout's agents are of.
pub async fn projects(conn: &mut PgConnection, rollout: RolloutId) -> Result<Vec<ProjectId>> {
    let ids = sqlx::query_scalar!(
        "select distinct project_id from rollout_items where rollout_id = $1 order by project_id",
        rollout.0
    )
    .fetch_all(conn)
    .await?;
    Ok(ids.into_iter().map(ProjectId).collect())
}
