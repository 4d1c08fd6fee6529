//! `/api/agents`: read agents, and switch one to another voice system.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use shared::{AgentId, AssistantId, E164, ProjectId, SystemType};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{Limit, List};
use crate::App;
use crate::http::auth::{Reader, Writer};
use crate::http::extract::{self, Id, Params};
use crate::http::problem::Problem;
use crate::store::agents::{self, Agent};
use crate::store::replica::{self, ReplicaState};
use crate::store::{self, numbers};
use crate::switching::{self, Missing, SwitchError};
use crate::telemetry::SystemLabels;

/// An agent as the API shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentBody {
    id: AgentId,
    project_id: ProjectId,
    name: String,
    system_type: SystemType,
    #[serde(with = "time::serde::rfc3339::option")]
    switched_at: Option<OffsetDateTime>,
    vapi_assistant_id: Option<AssistantId>,
    fallback_number: Option<E164>,
    numbers: Vec<NumberBody>,
    /// `null`: the agent has neither a number nor an assistant, so there is nothing that the edge should know.
    replica: Option<ReplicaBody>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NumberBody {
    number: E164,
    system_type: SystemType,
}

/// How far the edge knows of the agent as it is now.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ReplicaBody {
    revision: i64,
    replicated: bool,
    #[serde(with = "time::serde::rfc3339::option")]
    replicated_at: Option<OffsetDateTime>,
}

impl From<ReplicaState> for ReplicaBody {
    fn from(state: ReplicaState) -> Self {
        Self { revision: state.revision, replicated: state.replicated, replicated_at: state.replicated_at }
    }
}

/// `GET /api/agents`.
pub async fn list(
    State(app): State<Arc<App>>,
    reader: Reader,
    Params(limit): Params<Limit>,
) -> Result<Json<List<AgentBody>>, Problem> {
    let limit = limit.get()?;
    let mut conn = app.db.acquire().await?;
    let agents = agents::list(&mut conn, reader.project, limit).await?;
    Ok(Json(bodies(&mut conn, agents).await?.into_iter().collect()))
}

/// `GET /api/agents/{id}` and `GET /api/agents/{id}/system-type`.
pub async fn show(
    State(app): State<Arc<App>>,
    reader: Reader,
    Id(id): Id<AgentId>,
) -> Result<Json<AgentBody>, Problem> {
    let mut conn = app.db.acquire().await?;
    let agent = agents::get(&mut conn, reader.project, id).await?.ok_or_else(|| Problem::not_found("agent"))?;
    Ok(Json(body(&mut conn, agent).await?))
}

/// The body of a switch.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SwitchBody {
    system_type: SystemType,
}

/// `PUT /api/agents/{id}/system-type`.
pub async fn switch(
    State(app): State<Arc<App>>,
    Writer(writer): Writer,
    Id(id): Id<AgentId>,
    extract::Json(SwitchBody { system_type: target }): extract::Json<SwitchBody>,
) -> Result<Json<AgentBody>, Problem> {
    let mut tx = app.db.begin().await?;
    let switched = switching::switch(&mut tx, app.config.systems(), writer.project, id, target, &writer.actor).await?;
    let changed = switched.changed;
    let answer = body(&mut tx, switched.agent).await?;
    tx.commit().await?;
    if changed {
        app.metrics.switches.get_or_create(&SystemLabels { system: target.as_str() }).inc();
        tracing::info!(agent_id = %id, system = %target, actor = %writer.actor, "Switched an agent");
    }
    Ok(Json(answer))
}

impl From<SwitchError> for Problem {
    fn from(error: SwitchError) -> Self {
        match error {
            SwitchError::NotFound => Self::not_found("agent"),
            SwitchError::Store(error) => error.into(),
            SwitchError::NotConfigured(missing) => {
                let missing: Vec<&str> = missing.into_iter().map(Missing::as_str).collect();
                Self::new(
                    StatusCode::CONFLICT,
                    "agent_not_configured",
                    format!("The agent cannot run on this system yet; missing: {}.", missing.join(", ")),
                )
                .with("missing", missing)
            }
        }
    }
}

async fn body(conn: &mut PgConnection, agent: Agent) -> Result<AgentBody, Problem> {
    bodies(conn, vec![agent]).await?.pop().ok_or_else(|| Problem::not_found("agent"))
}

/// Adds to agents what is shown with them, in one query for each kind.
async fn bodies(conn: &mut PgConnection, agents: Vec<Agent>) -> store::Result<Vec<AgentBody>> {
    let ids: Vec<AgentId> = agents.iter().map(|agent| agent.id).collect();
    let mut numbers: HashMap<AgentId, Vec<NumberBody>> = HashMap::new();
    for number in numbers::of_agents(conn, &ids).await? {
        if let Some(agent) = number.agent_id {
            let shown = NumberBody { number: number.number, system_type: number.system_type };
            numbers.entry(agent).or_default().push(shown);
        }
    }
    let mut replicas: HashMap<AgentId, ReplicaState> =
        replica::of_agents(conn, &ids).await?.into_iter().map(|state| (state.agent_id, state)).collect();
    Ok(agents
        .into_iter()
        .map(|agent| AgentBody {
            numbers: numbers.remove(&agent.id).unwrap_or_default(),
            replica: replicas.remove(&agent.id).map(ReplicaBody::from),
            id: agent.id,
            project_id: agent.project_id,
            name: agent.name,
            system_type: agent.system_type,
            switched_at: agent.switched_at,
            vapi_assistant_id: agent.vapi_assistant_id,
            fallback_number: agent.fallback_number,
        })
        .collect())
}
