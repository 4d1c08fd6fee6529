//! An agent as the API shows it, with how far what it is has reached the edge and Twilio.

use std::collections::HashMap;

use serde::Serialize;
use shared::{AgentId, AssistantId, E164, ProjectId, SystemType, ToolId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::super::etag::Tagged;
use super::super::numbers::PointingError;
use crate::agents::masked;
use crate::http::auth::Reader;
use crate::http::problem::Problem;
use crate::numbers::pointing;
use crate::store::agents::realtime::RealtimeSettings;
use crate::store::agents::{self, Agent};
use crate::store::numbers::PhoneNumber;
use crate::store::pointings::{Place, PointingState};
use crate::store::replica::{self, ReplicaState};
use crate::store::{self, numbers, tools};

/// A voice assistant.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Agent)]
pub struct AgentBody {
    id: AgentId,
    project_id: ProjectId,
    name: String,
    instructions: String,
    #[schema(required)]
    greeting: Option<String>,
    /// `null`: it is not configured for OpenAI Realtime.
    #[schema(required)]
    realtime: Option<RealtimeSettings>,
    #[schema(required)]
    vapi_assistant_id: Option<AssistantId>,
    #[schema(required)]
    fallback_number: Option<E164>,
    tool_ids: Vec<ToolId>,
    /// Which system runs its new calls; changed by `PUT …/system-type` only.
    system_type: SystemType,
    /// When that last changed.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    switched_at: Option<OffsetDateTime>,
    /// The numbers that it answers.
    numbers: Vec<NumberBody>,
    /// Whether all of this has reached the edge and Twilio: `replica.replicated`, and `twilio.state` is `settled`, where
    /// they are to know something. Until then calls may still go where they went before.
    in_effect: bool,
    /// `null`: the agent has neither a number nor an assistant, so there is nothing that the edge should know.
    #[schema(required)]
    replica: Option<ReplicaBody>,
    /// `null`: there is nothing that Twilio should be told, as the agent has no number or all stay at the edge.
    #[schema(required)]
    twilio: Option<TwilioBody>,
    #[serde(skip)]
    pub(super) revision: i64,
}

/// A number that an agent answers.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AgentNumber)]
struct NumberBody {
    number: E164,
    system_type: SystemType,
}

/// How far the edge knows of the agent as it is now.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Replica)]
struct ReplicaBody {
    revision: i64,
    replicated: bool,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    replicated_at: Option<OffsetDateTime>,
}

impl From<ReplicaState> for ReplicaBody {
    fn from(state: ReplicaState) -> Self {
        Self { revision: state.revision, replicated: state.replicated, replicated_at: state.replicated_at }
    }
}

/// How far Twilio knows where the agent's numbers are to go.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AgentAtTwilio)]
struct TwilioBody {
    /// All numbers in one word: `pending` as long as one is, and then `failed`, `conflict` or `settled`.
    state: PointingState,
    /// Those that Twilio is told about. More of each is shown with the number itself.
    numbers: Vec<ToldBody>,
}

impl TwilioBody {
    fn of(numbers: Vec<ToldBody>) -> Option<Self> {
        let state = PointingState::of_all(numbers.iter().map(|number| number.state))?;
        Some(Self { state, numbers })
    }
}

/// What Twilio is told about a number.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AgentNumberAtTwilio)]
struct ToldBody {
    number: E164,
    place: Place,
    state: PointingState,
    /// Failed attempts since it was asked for.
    attempts: i32,
    /// Why the last one failed.
    #[schema(required)]
    error: Option<PointingError>,
}

/// With its tag.
pub(super) fn tagged(body: AgentBody) -> Tagged<AgentBody> {
    Tagged(body.revision, body)
}

/// An agent of the reader's project.
pub(super) async fn one(conn: &mut PgConnection, reader: &Reader, id: AgentId) -> Result<AgentBody, Problem> {
    let agent = agents::get(conn, reader.project, id).await?;
    let bodies = bodies(conn, agent.into_iter().collect()).await?;
    bodies.into_iter().next().ok_or_else(|| Problem::not_found("agent"))
}

/// Adds to agents what is shown with them, in one query for each kind.
pub(super) async fn bodies(conn: &mut PgConnection, agents: Vec<Agent>) -> store::Result<Vec<AgentBody>> {
    let ids: Vec<AgentId> = agents.iter().map(|agent| agent.id).collect();
    let mut numbers: HashMap<AgentId, Vec<NumberBody>> = HashMap::new();
    let mut told: HashMap<AgentId, Vec<ToldBody>> = HashMap::new();
    let answered = numbers::of_agents(conn, &ids).await?;
    let mut pointings = pointing::by_number(conn, answered.iter().map(|number| number.id)).await?;
    for PhoneNumber { id, number, agent_id, system_type, .. } in answered {
        let Some(agent) = agent_id else { continue };
        if let Some(pointing) = pointings.remove(&id) {
            told.entry(agent).or_default().push(ToldBody {
                number: number.clone(),
                place: pointing.place,
                state: pointing.state,
                attempts: pointing.attempts,
                error: pointing.error.map(PointingError::from),
            });
        }
        numbers.entry(agent).or_default().push(NumberBody { number, system_type });
    }
    let mut tools: HashMap<AgentId, Vec<ToolId>> = HashMap::new();
    for (agent, tool) in tools::ids_of_agents(conn, &ids).await? {
        tools.entry(agent).or_default().push(tool);
    }
    let mut replicas: HashMap<AgentId, ReplicaState> =
        replica::of_agents(conn, &ids).await?.into_iter().map(|state| (state.agent_id, state)).collect();
    let body = |agent: Agent| {
        let replica = replicas.remove(&agent.id).map(ReplicaBody::from);
        let twilio = TwilioBody::of(told.remove(&agent.id).unwrap_or_default());
        AgentBody {
            in_effect: replica.as_ref().is_none_or(|replica| replica.replicated)
                && twilio.as_ref().is_none_or(|twilio| twilio.state == PointingState::Settled),
            replica,
            twilio,
            numbers: numbers.remove(&agent.id).unwrap_or_default(),
            tool_ids: tools.remove(&agent.id).unwrap_or_default(),
            id: agent.id,
            project_id: agent.project_id,
            name: agent.name,
            instructions: agent.instructions,
            greeting: agent.greeting,
            realtime: agent.realtime.as_ref().map(masked::mask),
            vapi_assistant_id: agent.vapi_assistant_id,
            fallback_number: agent.fallback_number,
            system_type: agent.system_type,
            switched_at: agent.switched_at,
            revision: agent.revision,
        }
    };
    Ok(agents.into_iter().map(body).collect())
}
