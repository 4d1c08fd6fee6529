//! Planning: which agents a rollout is about, and exactly what it would change.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::json;
use shared::{AgentId, ProjectId, SystemType};
use sqlx::PgConnection;
use utoipa::ToSchema;

use super::changes::{Numbers, PlannedAgent};
use super::cohort::{self, Stage};
use super::settings::GuardSettings;
use crate::config::Config;
use crate::store::agents::{self, Agent};
use crate::store::events::{self, Actor, NewEvent};
use crate::store::rollouts::items::{self, NewItem};
use crate::store::rollouts::{self, NewRollout, RolloutId, Scope};
use crate::store::{self, StoreError};

/// The most pilots: more are a stage.
pub const MAX_PILOTS: usize = 2;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct PlanRequest {
    /// Which agents.
    pub scope: Scope,
    /// Whose agents they may be at most; `None`: anybody's.
    pub within: Option<ProjectId>,
    /// Where they go.
    pub target: SystemType,
    /// In which shares.
    pub stages: Vec<Stage>,
    /// Who goes first, alone.
    pub pilots: Vec<AgentId>,
    /// How calls are compared.
    pub guard: GuardSettings,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Agents that were named are not there.
    #[error("there are no such agents: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    NoSuchAgents(Vec<AgentId>),
    /// Pilots that are not among the rollout's agents.
    #[error("these pilots are not among the agents chosen: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    ForeignPilots(Vec<AgentId>),
    /// More pilots than pilots.
    #[error("a pilot is one or two agents")]
    TooManyPilots,
    /// Nobody is in any stage.
    #[error("no agent is chosen")]
    NoAgents,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What would be done.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RolloutPlan)]
pub struct Plan {
    /// Whose the rollout would be; `None`: its agents are of several projects.
    #[schema(required)]
    pub project_id: Option<ProjectId>,
    /// Where the agents go.
    pub target: SystemType,
    /// The stages that have agents.
    #[schema(value_type = Vec<String>)]
    pub stages: Vec<Stage>,
    /// How calls are compared.
    pub guard: GuardSettings,
    /// The agents, in the order of switching.
    pub agents: Vec<PlannedAgent>,
}

/// Works out what would be done; writes nothing.
pub async fn plan(conn: &mut PgConnection, config: &Config, request: &PlanRequest) -> Result<Plan, PlanError> {
    let chosen = match &request.scope {
        Scope::Agents(ids) => agents::select(conn, request.within, Some(ids)).await?,
        Scope::Project(project) => agents::select(conn, Some(*project), None).await?,
        Scope::All => agents::select(conn, request.within, None).await?,
    };
    let ids: Vec<AgentId> = chosen.iter().map(|agent| agent.id).collect();
    let absent = |wanted: &[AgentId]| wanted.iter().copied().filter(|id| !ids.contains(id)).collect::<Vec<_>>();
    if let Scope::Agents(wanted) = &request.scope
        && let missing = absent(wanted)
        && !missing.is_empty()
    {
        return Err(PlanError::NoSuchAgents(missing));
    }
    let foreign = absent(&request.pilots);
    if !foreign.is_empty() {
        return Err(PlanError::ForeignPilots(foreign));
    }
    if request.pilots.len() > MAX_PILOTS {
        return Err(PlanError::TooManyPilots);
    }
    let (members, stages) = cohort::assign(&ids, &request.pilots, &request.stages);
    if members.is_empty() {
        return Err(PlanError::NoAgents);
    }

    let mut numbers = Numbers::of(conn, config, &ids).await?;
    let mut by_id: HashMap<AgentId, Agent> = chosen.into_iter().map(|agent| (agent.id, agent)).collect();
    let agents: Vec<PlannedAgent> = members
        .into_iter()
        .filter_map(|member| Some(numbers.planned(by_id.remove(&member.agent)?, request.target, member.stage)))
        .collect();
    let first = agents[0].project_id;
    let project_id = agents.iter().all(|agent| agent.project_id == first).then_some(first);
    Ok(Plan { project_id, target: request.target, stages, guard: request.guard, agents })
}

/// Records a plan within the caller's transaction. No agent is changed.
pub async fn record(conn: &mut PgConnection, scope: &Scope, plan: &Plan, actor: &Actor) -> store::Result<RolloutId> {
    let created_by = actor.to_string();
    let new = NewRollout {
        project_id: plan.project_id,
        target: plan.target,
        scope,
        stages: &plan.stages,
        guard: &plan.guard,
        created_by: &created_by,
    };
    let id = rollouts::insert(conn, &new).await?;
    let members: Vec<NewItem> = plan
        .agents
        .iter()
        .map(|agent| NewItem { agent_id: agent.agent_id, project_id: agent.project_id, stage: agent.stage })
        .collect();
    items::insert(conn, id, &members).await?;
    for project in items::projects(conn, id).await? {
        let agents = plan.agents.iter().filter(|agent| agent.project_id == project).count();
        let event = NewEvent {
            after: Some(json!({ "state": "planned", "stage": 0 })),
            details: json!({
                "rolloutId": id, "target": plan.target, "stages": plan.stages, "agents": agents, "guard": plan.guard,
            }),
            ..NewEvent::new(project, "rollout.planned", actor)
        };
        events::append(conn, &event).await?;
    }
    Ok(id)
}
