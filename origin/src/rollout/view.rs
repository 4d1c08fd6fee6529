//! A rollout as it is shown, at the command line and by the API.

use std::collections::HashMap;
use std::ops::Add;

use serde::Serialize;
use serde_json::Value;
use shared::{AgentId, E164, ProjectId, SystemType};
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::cohort::Stage;
use super::findings;
use super::guard::{self, Finding, Verdict};
use super::settings::{GuardSettings, OnFail};
use super::state::{Reason, State};
use crate::providers::twilio::numbers::VoiceSettings;
use crate::store;
use crate::store::rollouts::items::{self, Count, Item, ItemState};
use crate::store::rollouts::numbers::{self, Group, RolloutNumber};
use crate::store::rollouts::{Rollout, RolloutId, Scope};
use crate::switching::Image;

/// A rollout and how it stands.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Rollout)]
pub struct RolloutView {
    /// Its id.
    pub id: RolloutId,
    /// Whose it is; `null`: its agents are of several projects.
    #[schema(required)]
    pub project_id: Option<ProjectId>,
    /// Where its agents go.
    pub target: SystemType,
    /// What was asked for.
    pub scope: Scope,
    /// How far it has come.
    pub state: State,
    /// Why it is paused or rolled back.
    #[schema(required)]
    pub reason: Option<Reason>,
    /// How many stages were begun.
    pub stage: u16,
    /// The stages, and how their agents stand.
    pub stages: Vec<StageView>,
    /// All agents together.
    pub agents: AgentCounts,
    /// How the numbers of the agents switched stand at Twilio.
    pub numbers: Vec<Group>,
    /// How calls are compared.
    pub guard: GuardSettings,
    /// What the guard finds now; `null`: it is off, or no agent is switched.
    #[schema(required)]
    pub verdict: Option<VerdictView>,
    /// Who planned it.
    pub created_by: String,
    /// When it was planned.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it last went on.
    #[serde(with = "time::serde::rfc3339")]
    pub changed_at: OffsetDateTime,
}

/// A stage and how its agents stand.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RolloutStage)]
pub struct StageView {
    /// `pilot` or a percentage.
    #[schema(value_type = String)]
    pub name: Stage,
    /// Whether it was begun.
    pub begun: bool,
    /// Its agents.
    pub agents: AgentCounts,
}

/// How many agents are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RolloutCounts)]
pub struct AgentCounts {
    /// All.
    pub total: u64,
    /// Not switched yet.
    pub planned: u64,
    /// Switched.
    pub switched: u64,
    /// On the target already.
    pub unchanged: u64,
    /// Could not be switched.
    pub failed: u64,
    /// Switched back.
    pub restored: u64,
    /// Could not be switched back.
    pub restore_failed: u64,
}

/// What the guard finds.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RolloutFindings)]
pub struct VerdictView {
    /// On the whole.
    pub verdict: Verdict,
    /// Measure by measure.
    pub findings: Vec<Finding>,
}

/// An agent of a rollout.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RolloutAgent)]
pub struct ItemView {
    /// Who it is.
    pub agent_id: AgentId,
    /// Its name; `null`: it is gone.
    #[schema(required)]
    pub name: Option<String>,
    /// Its stage, counted from 1.
    pub stage: i32,
    /// What came of it.
    pub state: ItemState,
    /// What it and its numbers were; `null`: it was not switched.
    #[schema(required, value_type = Option<Image>)]
    pub before: Option<Value>,
    /// Why it failed, in one word.
    #[schema(required)]
    pub error_code: Option<String>,
    /// Why it failed.
    #[schema(required)]
    pub error: Option<String>,
    /// When it was switched.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    pub switched_at: Option<OffsetDateTime>,
    /// When it was switched back.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    pub restored_at: Option<OffsetDateTime>,
    /// Its numbers at Twilio.
    pub numbers: Vec<NumberView>,
}

/// A number of a rollout's agent, at Twilio.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RolloutNumber)]
pub struct NumberView {
    /// The number.
    pub number: E164,
    /// What came of it: `none` (Twilio is not told about it), `pending`, `settled`, `conflict` or `failed`.
    pub state: String,
    /// Why it failed, or waits, in one word.
    #[schema(required)]
    pub error_code: Option<String>,
    /// Why it failed, or waits.
    #[schema(required)]
    pub error: Option<String>,
    /// What Twilio had before; `null`: it was not asked since, or had our settings.
    #[schema(required)]
    pub before: Option<VoiceSettings>,
}

impl From<RolloutNumber> for NumberView {
    fn from(number: RolloutNumber) -> Self {
        let RolloutNumber { number, state, error_code, error, before, .. } = number;
        Self { number, state, error_code, error, before }
    }
}

/// Agents of a rollout in the order of switching, after a position, each with its own.
pub async fn agents(
    conn: &mut PgConnection,
    id: RolloutId,
    state: Option<ItemState>,
    after: i32,
    limit: i64,
) -> store::Result<Vec<(i32, ItemView)>> {
    let items = items::list(conn, id, state, after, limit).await?;
    let ids: Vec<AgentId> = items.iter().map(|item| item.agent_id).collect();
    let mut numbers: HashMap<AgentId, Vec<NumberView>> = HashMap::new();
    for number in numbers::of_agents(conn, id, &ids).await? {
        numbers.entry(number.agent_id).or_default().push(number.into());
    }
    let shown = |item: Item| {
        let numbers = numbers.remove(&item.agent_id).unwrap_or_default();
        (item.position, ItemView::of(item, numbers))
    };
    Ok(items.into_iter().map(shown).collect())
}

impl ItemView {
    fn of(item: Item, numbers: Vec<NumberView>) -> Self {
        Self {
            numbers,
            agent_id: item.agent_id,
            name: item.agent_name,
            stage: item.stage,
            state: item.state,
            before: item.before,
            error_code: item.error_code,
            error: item.error,
            switched_at: item.switched_at,
            restored_at: item.restored_at,
        }
    }
}

impl AgentCounts {
    fn of<'a>(counts: impl Iterator<Item = &'a Count>) -> Self {
        let mut sum = Self::default();
        for count in counts {
            let agents = count.agents.unsigned_abs();
            sum.total += agents;
            *match count.state {
                ItemState::Planned => &mut sum.planned,
                ItemState::Switched => &mut sum.switched,
                ItemState::Unchanged => &mut sum.unchanged,
                ItemState::Failed => &mut sum.failed,
                ItemState::Restored => &mut sum.restored,
                ItemState::RestoreFailed => &mut sum.restore_failed,
            } += agents;
        }
        sum
    }

    /// Those that failed, either way.
    pub fn failures(&self) -> u64 {
        self.failed + self.restore_failed
    }
}

impl Add for AgentCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            total: self.total + other.total,
            planned: self.planned + other.planned,
            switched: self.switched + other.switched,
            unchanged: self.unchanged + other.unchanged,
            failed: self.failed + other.failed,
            restored: self.restored + other.restored,
            restore_failed: self.restore_failed + other.restore_failed,
        }
    }
}

/// How many agents and numbers failed.
pub async fn failures(conn: &mut PgConnection, id: RolloutId) -> store::Result<u64> {
    let agents = AgentCounts::of(items::counts(conn, id).await?.iter());
    let numbers = numbers::groups(conn, id).await?;
    Ok(agents.failures() + numbers_in(&numbers, &["conflict", "failed"]))
}

fn numbers_in(groups: &[Group], states: &[&str]) -> u64 {
    let of = |group: &&Group| states.contains(&group.state.as_str());
    groups.iter().filter(of).map(|group| group.numbers.unsigned_abs()).sum()
}

impl RolloutView {
    /// How many agents and numbers failed. An agent that could not be switched is where a rollback wants it.
    pub fn failures(&self) -> u64 {
        let agents = match self.state {
            State::RollingBack | State::RolledBack => self.agents.restore_failed,
            _ => self.agents.failures(),
        };
        agents + self.numbers_in(&["conflict", "failed"])
    }

    /// How many numbers are in one of these states at Twilio.
    pub fn numbers_in(&self, states: &[&str]) -> u64 {
        numbers_in(&self.numbers, states)
    }
}

/// A rollout and how it stands.
pub async fn show(conn: &mut PgConnection, rollout: Rollout) -> store::Result<RolloutView> {
    let counts = items::counts(conn, rollout.id).await?;
    let agents = AgentCounts::of(counts.iter());
    let verdict = if rollout.guard.on_fail == OnFail::Off || agents.switched == 0 {
        None
    } else {
        let findings = findings(conn, &rollout).await?;
        Some(VerdictView { verdict: guard::overall(&findings), findings })
    };
    let stages = (1..)
        .zip(&rollout.stages)
        .map(|(at, &name)| StageView {
            name,
            begun: at <= i32::from(rollout.stage),
            agents: AgentCounts::of(counts.iter().filter(|count| count.stage == at)),
        })
        .collect();
    Ok(RolloutView {
        id: rollout.id,
        project_id: rollout.project_id,
        target: rollout.target,
        scope: rollout.scope,
        state: rollout.state,
        reason: rollout.reason,
        stage: rollout.stage,
        stages,
        agents,
        numbers: numbers::groups(conn, rollout.id).await?,
        guard: rollout.guard,
        verdict,
        created_by: rollout.created_by,
        created_at: rollout.created_at,
        changed_at: rollout.changed_at,
    })
}
