//! Agents as their owners describe them: made, changed and deleted, with an event each.
//!
//! An agent that runs calls stays able to: what its present system needs is not taken away from it. Which system that
//! is only a switch changes, see [`crate::switching`].

pub mod masked;

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::{AgentId, AssistantId, E164, ProjectId, ToolId};
use sqlx::PgConnection;
use utoipa::ToSchema;

use crate::config::Systems;
use crate::replication;
use crate::store::agents::realtime::RealtimeSettings;
use crate::store::agents::{self, Agent, NewAgent};
use crate::store::events::{self, Actor, NewEvent};
use crate::store::{StoreError, numbers, tools};
use crate::switching::{self, Missing};

const MOST_NAME: usize = 200;
/// Far more than a session takes, whose limit is in tokens.
const MOST_INSTRUCTIONS: usize = 100_000;
const MOST_GREETING: usize = 4_000;
/// More would fill the session's instructions with descriptions of tools. OpenAI's own limit.
const MOST_TOOLS: usize = 128;

/// What an agent's owner says of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentFields {
    /// Unique in the project.
    #[schema(min_length = 1, max_length = 200, pattern = r"\S")]
    pub name: String,
    /// What it is told to be and do.
    #[serde(default)]
    #[schema(max_length = 100_000)]
    pub instructions: String,
    /// What it says first. Without one it waits for the caller.
    #[serde(default)]
    #[schema(max_length = 4_000)]
    pub greeting: Option<String>,
    /// How it runs on OpenAI Realtime. Without this it cannot.
    #[serde(default)]
    pub realtime: Option<RealtimeSettings>,
    /// Its assistant at Vapi. Without one it cannot run there.
    #[serde(default)]
    pub vapi_assistant_id: Option<AssistantId>,
    /// Where a call goes that it cannot take.
    #[serde(default)]
    pub fallback_number: Option<E164>,
    /// Its tools.
    #[serde(default)]
    #[schema(max_items = 128)]
    pub tool_ids: Vec<ToolId>,
}

/// Why an agent was not made, changed or deleted.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// What is said of it cannot be used; all faults, each with its field's name first.
    #[error("the agent is not valid: {}", .0.join("; "))]
    Invalid(Vec<String>),
    /// Another agent of the project has the name.
    #[error("the name is taken")]
    NameTaken,
    /// Another agent has the assistant.
    #[error("the assistant is taken")]
    AssistantTaken,
    /// Its present system needs what would go.
    #[error("the agent's system needs what would be taken away")]
    Needed(Vec<Missing>),
    /// Something depends on it.
    #[error("{numbers} numbers and {calls} calls depend on the agent")]
    InUse {
        /// Numbers that it answers.
        numbers: i64,
        /// Calls that it has had.
        calls: i64,
    },
    /// The database.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for AgentError {
    fn from(error: StoreError) -> Self {
        match error.constraint() {
            Some("agents_name_unique") => return Self::NameTaken,
            Some("agents_vapi_assistant_id_unique") => return Self::AssistantTaken,
            _ => {}
        }
        match error {
            StoreError::Invalid(faults) => Self::Invalid(faults),
            error => Self::Store(error),
        }
    }
}

impl AgentFields {
    /// What is said of an agent now; secrets are masked.
    pub async fn of(conn: &mut PgConnection, agent: &Agent) -> Result<Self, StoreError> {
        let tools = tools::ids_of_agents(conn, &[agent.id]).await?;
        Ok(Self {
            name: agent.name.clone(),
            instructions: agent.instructions.clone(),
            greeting: agent.greeting.clone(),
            realtime: agent.realtime.as_ref().map(masked::mask),
            vapi_assistant_id: agent.vapi_assistant_id.clone(),
            fallback_number: agent.fallback_number.clone(),
            tool_ids: tools.into_iter().map(|(_, tool)| tool).collect(),
        })
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |is: bool, text: &str| {
            if is {
                faults.push(text.to_owned());
            }
        };
        let length = |text: &str| text.chars().count();
        fault(self.name.trim().is_empty(), "name must not be blank");
        fault(length(&self.name) > MOST_NAME, "name must be of 200 characters at most");
        fault(length(&self.instructions) > MOST_INSTRUCTIONS, "instructions must be of 100000 characters at most");
        let greeting = self.greeting.as_deref().unwrap_or("none");
        fault(greeting.trim().is_empty(), "greeting must not be blank");
        fault(length(greeting) > MOST_GREETING, "greeting must be of 4000 characters at most");
        fault(self.tool_ids.len() > MOST_TOOLS, "toolIds must be 128 at most");
        let distinct: HashSet<&ToolId> = self.tool_ids.iter().collect();
        fault(distinct.len() < self.tool_ids.len(), "toolIds must not repeat a tool");
        if let Some(realtime) = &self.realtime {
            faults.extend(realtime.faults().into_iter().map(|fault| format!("realtime.{fault}")));
        }
        faults
    }

    fn new_agent<'a>(&'a self, project_id: ProjectId, realtime: Option<&'a RealtimeSettings>) -> NewAgent<'a> {
        NewAgent {
            project_id,
            name: &self.name,
            instructions: &self.instructions,
            greeting: self.greeting.as_deref(),
            realtime,
            vapi_assistant_id: self.vapi_assistant_id.as_ref(),
            fallback_number: self.fallback_number.as_ref(),
        }
    }

    fn to_event(&self) -> Option<Value> {
        serde_json::to_value(self).ok()
    }
}

/// Makes an agent. It begins on the default system.
pub async fn create(
    conn: &mut PgConnection,
    project: ProjectId,
    fields: &AgentFields,
    actor: &Actor,
) -> Result<AgentId, AgentError> {
    let realtime = check(conn, project, fields, None).await?;
    let id = agents::insert(conn, &fields.new_agent(project, realtime.as_ref())).await?;
    tools::assign(conn, project, id, &fields.tool_ids).await?;
    // As it is kept, not as it was sent.
    let agent = agents::get(conn, project, id).await?.ok_or(StoreError::Corrupt("agent"))?;
    let after = AgentFields::of(conn, &agent).await?.to_event();
    let event = NewEvent { agent_id: Some(id), after, ..NewEvent::new(project, "agent.created", actor) };
    events::append(conn, &event).await?;
    replication::enqueue(conn).await?;
    Ok(id)
}

/// Describes a locked agent anew. The same again changes and logs nothing.
pub async fn change(
    conn: &mut PgConnection,
    systems: Systems,
    agent: &Agent,
    fields: &AgentFields,
    actor: &Actor,
) -> Result<(), AgentError> {
    let realtime = check(conn, agent.project_id, fields, Some(agent)).await?;
    let changed = Agent {
        instructions: fields.instructions.clone(),
        realtime: realtime.clone(),
        vapi_assistant_id: fields.vapi_assistant_id.clone(),
        ..agent.clone()
    };
    let numbers = numbers::of_agents(conn, &[agent.id]).await?;
    let lacked = switching::missing(agent, &numbers, systems, agent.system_type);
    let mut lacking = switching::missing(&changed, &numbers, systems, agent.system_type);
    // What it lacked before it need not have now.
    lacking.retain(|missing| !lacked.contains(missing));
    if !lacking.is_empty() {
        return Err(AgentError::Needed(lacking));
    }
    write(conn, agent, fields, realtime.as_ref(), actor).await
}

/// The same, whatever its present system needs: for whoever switches it in the same transaction.
pub async fn replace(
    conn: &mut PgConnection,
    agent: &Agent,
    fields: &AgentFields,
    actor: &Actor,
) -> Result<(), AgentError> {
    let realtime = check(conn, agent.project_id, fields, Some(agent)).await?;
    write(conn, agent, fields, realtime.as_ref(), actor).await
}

async fn write(
    conn: &mut PgConnection,
    agent: &Agent,
    fields: &AgentFields,
    realtime: Option<&RealtimeSettings>,
    actor: &Actor,
) -> Result<(), AgentError> {
    let project = agent.project_id;
    let before = AgentFields::of(conn, agent).await?;
    let is_same = realtime == agent.realtime.as_ref()
        && AgentFields { realtime: before.realtime.clone(), ..fields.clone() } == before;
    if is_same {
        return Ok(());
    }
    agents::update(conn, agent.id, &fields.new_agent(project, realtime)).await?;
    tools::assign(conn, project, agent.id, &fields.tool_ids).await?;
    let kept = agents::get(conn, project, agent.id).await?.ok_or(StoreError::Corrupt("agent"))?;
    let after = AgentFields::of(conn, &kept).await?;
    let event = NewEvent {
        agent_id: Some(agent.id),
        before: before.to_event(),
        after: after.to_event(),
        ..NewEvent::new(project, "agent.changed", actor)
    };
    events::append(conn, &event).await?;
    replication::enqueue(conn).await?;
    Ok(())
}

/// Deletes a locked agent that nothing depends on.
pub async fn delete(conn: &mut PgConnection, agent: &Agent, actor: &Actor) -> Result<(), AgentError> {
    let (numbers, calls) = agents::dependants(conn, agent.id).await?;
    if numbers > 0 || calls > 0 {
        return Err(AgentError::InUse { numbers, calls });
    }
    let before = AgentFields::of(conn, agent).await?.to_event();
    // A call that has begun since is found by the database.
    agents::delete(conn, agent.id).await.map_err(|error| match error.constraint() {
        Some("calls_agent_id_fkey" | "phone_numbers_agent") => AgentError::InUse { numbers, calls: calls + 1 },
        _ => error.into(),
    })?;
    let event =
        NewEvent { agent_id: Some(agent.id), before, ..NewEvent::new(agent.project_id, "agent.deleted", actor) };
    events::append(conn, &event).await?;
    replication::enqueue(conn).await?;
    Ok(())
}

/// Whether all that is said can be used. Gives the realtime settings with their secrets.
async fn check(
    conn: &mut PgConnection,
    project: ProjectId,
    fields: &AgentFields,
    agent: Option<&Agent>,
) -> Result<Option<RealtimeSettings>, AgentError> {
    let mut faults = fields.faults();
    let stored = agent.and_then(|agent| agent.realtime.as_ref());
    let realtime = fields.realtime.as_ref().map(|realtime| masked::unmask(realtime, stored, &mut faults));
    let tools = tools::function_names(conn, project, &fields.tool_ids).await?;
    let mut names = HashSet::new();
    for tool in &fields.tool_ids {
        match tools.iter().find(|(id, _)| id == tool) {
            None => faults.push(format!("toolIds names no tool of the project: {tool}")),
            Some((_, name)) if !names.insert(name) => {
                faults.push(format!("toolIds names two tools that the model would know as {name}"));
            }
            Some(_) => {}
        }
    }
    if faults.is_empty() { Ok(realtime) } else { Err(AgentError::Invalid(faults)) }
}
