//! Rollouts: batches of switches, and how far they have come.
//!
//! Whoever changes a rollout locks its row; whoever switches one of its agents holds a share of that lock, so that a
//! pause waits for one agent and no further one follows.

pub mod items;
pub mod numbers;
pub mod samples;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use shared::{AgentId, ProjectId, SystemType};
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Result, StoreError, text};
use crate::rollout::cohort::Stage;
use crate::rollout::settings::GuardSettings;
use crate::rollout::state::{Position, Reason, State};

/// A rollout's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct RolloutId(pub Uuid);

impl fmt::Display for RolloutId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RolloutId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

/// Which agents a rollout was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = RolloutScope)]
pub enum Scope {
    /// These.
    Agents(Vec<AgentId>),
    /// All of a project.
    Project(ProjectId),
    /// All of all projects.
    All,
}

/// A rollout.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollout {
    /// Its id.
    pub id: RolloutId,
    /// Whose it is; `None`: its agents are of several projects.
    pub project_id: Option<ProjectId>,
    /// Where its agents go.
    pub target: SystemType,
    /// What was asked for.
    pub scope: Scope,
    /// Its stages, in order.
    pub stages: Vec<Stage>,
    /// When calls are compared, how, and what follows.
    pub guard: GuardSettings,
    /// How far it has come.
    pub state: State,
    /// How many stages were begun.
    pub stage: u16,
    /// Why it is paused or rolled back.
    pub reason: Option<Reason>,
    /// The guard counts calls from then on; `None`: from each agent's switch.
    pub guard_since: Option<OffsetDateTime>,
    /// Who planned it.
    pub created_by: String,
    /// When it was planned.
    pub created_at: OffsetDateTime,
    /// When it last went on.
    pub changed_at: OffsetDateTime,
}

impl Rollout {
    /// Where it stands.
    pub fn position(&self) -> Position {
        let stages = u16::try_from(self.stages.len()).unwrap_or(u16::MAX);
        Position { state: self.state, stage: self.stage, stages }
    }
}

/// A rollout to be made.
#[derive(Clone, Debug)]
pub struct NewRollout<'a> {
    /// Whose it is.
    pub project_id: Option<ProjectId>,
    /// Where its agents go.
    pub target: SystemType,
    /// What was asked for.
    pub scope: &'a Scope,
    /// Its stages.
    pub stages: &'a [Stage],
    /// Its guard.
    pub guard: &'a GuardSettings,
    /// Who plans it.
    pub created_by: &'a str,
}

struct Row {
    id: Uuid,
    project_id: Option<Uuid>,
    target: String,
    scope: serde_json::Value,
    stages: Vec<String>,
    guard: serde_json::Value,
    state: String,
    stage: i32,
    reason: Option<String>,
    guard_since: Option<OffsetDateTime>,
    created_by: String,
    created_at: OffsetDateTime,
    changed_at: OffsetDateTime,
}

impl TryFrom<Row> for Rollout {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self> {
        let reason = |word: String| Reason::parse(&word).ok_or(StoreError::Corrupt("rollout reason"));
        Ok(Self {
            id: RolloutId(row.id),
            project_id: row.project_id.map(ProjectId),
            target: text(&row.target, "system type")?,
            scope: serde_json::from_value(row.scope).map_err(|_| StoreError::Corrupt("rollout scope"))?,
            stages: row.stages.iter().map(|stage| text(stage, "rollout stage")).collect::<Result<_>>()?,
            guard: serde_json::from_value(row.guard).map_err(|_| StoreError::Corrupt("rollout guard"))?,
            state: State::parse(&row.state).ok_or(StoreError::Corrupt("rollout state"))?,
            stage: u16::try_from(row.stage).map_err(|_| StoreError::Corrupt("rollout stage"))?,
            reason: row.reason.map(reason).transpose()?,
            guard_since: row.guard_since,
            created_by: row.created_by,
            created_at: row.created_at,
            changed_at: row.changed_at,
        })
    }
}

/// Makes a rollout; nothing is changed by that.
pub async fn insert(conn: &mut PgConnection, rollout: &NewRollout<'_>) -> Result<RolloutId> {
    let id = Uuid::now_v7();
    let stages: Vec<String> = rollout.stages.iter().map(ToString::to_string).collect();
    sqlx::query!(
        "insert into rollouts (id, project_id, target, scope, stages, guard, created_by)
         values ($1, $2, $3, $4, $5, $6, $7)",
        id,
        rollout.project_id.map(|id| id.0),
        rollout.target.as_str(),
        super::encode(rollout.scope)?,
        &stages,
        super::encode(rollout.guard)?,
        rollout.created_by
    )
    .execute(conn)
    .await?;
    Ok(RolloutId(id))
}

/// A rollout as it is now. With `project`, only one of that project.
pub async fn get(conn: &mut PgConnection, project: Option<ProjectId>, id: RolloutId) -> Result<Option<Rollout>> {
    sqlx::query_as!(
        Row,
        "select id, project_id, target, scope, stages, guard, state, stage, reason, guard_since, created_by, created_at,
                changed_at
         from rollouts where id = $1 and ($2::uuid is null or project_id = $2)",
        id.0,
        project.map(|id| id.0)
    )
    .fetch_optional(conn)
    .await?
    .map(Rollout::try_from)
    .transpose()
}

/// The same, and nobody else changes it or switches its agents until the transaction ends.
pub async fn lock(conn: &mut PgConnection, project: Option<ProjectId>, id: RolloutId) -> Result<Option<Rollout>> {
    sqlx::query_as!(
        Row,
        "select id, project_id, target, scope, stages, guard, state, stage, reason, guard_since, created_by, created_at,
                changed_at
         from rollouts where id = $1 and ($2::uuid is null or project_id = $2) for update",
        id.0,
        project.map(|id| id.0)
    )
    .fetch_optional(conn)
    .await?
    .map(Rollout::try_from)
    .transpose()
}

/// The same, and nobody changes it until the transaction ends.
pub async fn hold(conn: &mut PgConnection, id: RolloutId) -> Result<Option<Rollout>> {
    sqlx::query_as!(
        Row,
        "select id, project_id, target, scope, stages, guard, state, stage, reason, guard_since, created_by, created_at,
                changed_at
         from rollouts where id = $1 for share",
        id.0
    )
    .fetch_optional(conn)
    .await?
    .map(Rollout::try_from)
    .transpose()
}

/// The newest rollouts, from before the one that is named; with `project`, only that project's.
pub async fn list(
    conn: &mut PgConnection,
    project: Option<ProjectId>,
    state: Option<State>,
    before: Option<RolloutId>,
    limit: i64,
) -> Result<Vec<Rollout>> {
    sqlx::query_as!(
        Row,
        "select id, project_id, target, scope, stages, guard, state, stage, reason, guard_since, created_by, created_at,
                changed_at
         from rollouts
         where ($1::uuid is null or project_id = $1)
           and ($2::text is null or state = $2)
           and ($3::uuid is null or id < $3)
         order by id desc limit $4",
        project.map(|id| id.0),
        state.map(State::as_str),
        before.map(|id| id.0),
        limit
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(Rollout::try_from)
    .collect()
}

/// Rollouts with work that needs no person.
pub async fn working(conn: &mut PgConnection) -> Result<Vec<RolloutId>> {
    let ids = sqlx::query_scalar!("select id from rollouts where state in ('running', 'rolling_back') order by id")
        .fetch_all(conn)
        .await?;
    Ok(ids.into_iter().map(RolloutId).collect())
}

/// Rollouts whose calls the guard looks at: those under way, and those that were completed within `watch_s` seconds.
pub async fn guarded(conn: &mut PgConnection, watch_s: f64) -> Result<Vec<RolloutId>> {
    let ids = sqlx::query_scalar!(
        "select id from rollouts
         where state in ('running', 'waiting')
            or (state = 'completed' and changed_at > now() - make_interval(secs => $1))
         order by id",
        watch_s
    )
    .fetch_all(conn)
    .await?;
    Ok(ids.into_iter().map(RolloutId).collect())
}

/// Moves a locked rollout. A reason is kept until the next one, or until it goes on.
pub async fn set_position(
    conn: &mut PgConnection,
    id: RolloutId,
    position: Position,
    reason: Option<Reason>,
    guard_anew: bool,
) -> Result<()> {
    sqlx::query!(
        "update rollouts set state = $2, stage = $3, reason = $4, changed_at = clock_timestamp(),
                             guard_since = case when $5 then clock_timestamp() else guard_since end
         where id = $1",
        id.0,
        position.state.as_str(),
        i32::from(position.stage),
        reason.map(Reason::as_str),
        guard_anew
    )
    .execute(conn)
    .await?;
    Ok(())
}
