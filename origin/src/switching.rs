//! Switching an agent to another voice system.
//!
//! One transaction of the caller's: lock the agent, set its type and its numbers', log the event, enqueue replication.
//! The same value again changes nothing and logs nothing. Calls in flight are not touched: each is pinned to the
//! system it began on.

use serde_json::{Value, json};
use shared::route::VapiHandover;
use shared::{AgentId, ProjectId, SystemType};
use sqlx::PgConnection;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::config::Systems;
use crate::replication;
use crate::store::StoreError;
use crate::store::agents::{self, Agent};
use crate::store::events::{self, Actor, NewEvent};
use crate::store::numbers::{self, PhoneNumber};

/// The event of a switch.
pub const EVENT: &str = "agent.system_type_changed";

/// What an agent, or the origin, lacks for a system. The spelling is part of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The agent has no settings for OpenAI Realtime.
    Realtime,
    /// The agent has no instructions.
    Instructions,
    /// The agent has no assistant at Vapi.
    VapiAssistantId,
    /// The origin has no access to OpenAI.
    OpenAiService,
    /// The origin has no access to Vapi, which a number's handover needs.
    VapiService,
}

impl Missing {
    /// The name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Realtime => "realtime",
            Self::Instructions => "instructions",
            Self::VapiAssistantId => "vapiAssistantId",
            Self::OpenAiService => "service.openai",
            Self::VapiService => "service.vapi",
        }
    }
}

/// Why an agent was not switched.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// The project has no such agent.
    #[error("there is no such agent")]
    NotFound,
    /// The target would not work.
    #[error("the agent is not configured for the system")]
    NotConfigured(Vec<Missing>),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An agent after a switch.
#[derive(Clone, Debug)]
pub struct Switched {
    /// As it is now.
    pub agent: Agent,
    /// Whether anything changed.
    pub changed: bool,
}

/// Switches an agent and its numbers to `target` within the caller's transaction, which must end soon after.
pub async fn switch(
    conn: &mut PgConnection,
    systems: Systems,
    project: ProjectId,
    agent: AgentId,
    target: SystemType,
    actor: &Actor,
) -> Result<Switched, SwitchError> {
    let mut agent = agents::lock(conn, project, agent).await?.ok_or(SwitchError::NotFound)?;
    let numbers = numbers::of_agents(conn, &[agent.id]).await?;
    // Numbers that differ from their agent are a fault, which this repairs.
    if agent.system_type == target && numbers.iter().all(|number| number.system_type == target) {
        return Ok(Switched { agent, changed: false });
    }
    let missing = missing(&agent, &numbers, systems, target);
    if !missing.is_empty() {
        return Err(SwitchError::NotConfigured(missing));
    }

    let before = state(&agent, numbers.iter().map(|number| (number, number.system_type)));
    if agent.system_type != target {
        agent.switched_at = Some(agents::set_system_type(conn, agent.id, target).await?);
        agent.system_type = target;
    }
    numbers::set_system_type(conn, agent.id, target).await?;
    let after = state(&agent, numbers.iter().map(|number| (number, target)));

    let event = NewEvent {
        agent_id: Some(agent.id),
        before: Some(before),
        after: Some(after),
        ..NewEvent::new(project, EVENT, actor)
    };
    events::append(conn, &event).await?;
    replication::enqueue(conn).await?;
    Ok(Switched { agent, changed: true })
}

/// What is missing for the agent's calls to run on `target`.
fn missing(agent: &Agent, numbers: &[PhoneNumber], systems: Systems, target: SystemType) -> Vec<Missing> {
    let needs: Vec<(bool, Missing)> = match target {
        SystemType::OpenaiRealtime => vec![
            (agent.realtime.is_some(), Missing::Realtime),
            (!agent.instructions.trim().is_empty(), Missing::Instructions),
            (systems.openai_realtime, Missing::OpenAiService),
        ],
        SystemType::Vapi => {
            let bypass = numbers.iter().any(|number| number.vapi_handover == VapiHandover::Bypass);
            vec![
                (agent.vapi_assistant_id.is_some(), Missing::VapiAssistantId),
                (systems.vapi || !bypass, Missing::VapiService),
            ]
        }
    };
    needs.into_iter().filter(|(met, _)| !met).map(|(_, need)| need).collect()
}

/// The part of an agent that a switch changes, for the event.
fn state<'a>(agent: &Agent, numbers: impl Iterator<Item = (&'a PhoneNumber, SystemType)>) -> Value {
    json!({
        "systemType": agent.system_type,
        "switchedAt": agent.switched_at.and_then(rfc3339),
        "numbers": numbers
            .map(|(number, system)| json!({ "number": number.number, "systemType": system }))
            .collect::<Vec<_>>(),
    })
}

fn rfc3339(at: OffsetDateTime) -> Option<String> {
    at.format(&Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use shared::NumberId;
    use uuid::Uuid;

    use super::*;

    const ALL: Systems = Systems { openai_realtime: true, vapi: true };
    const NONE: Systems = Systems { openai_realtime: false, vapi: false };

    fn agent() -> Agent {
        Agent {
            id: AgentId(Uuid::nil()),
            project_id: ProjectId(Uuid::nil()),
            name: "Reception".to_owned(),
            instructions: "Answer the phone.".to_owned(),
            greeting: None,
            realtime: serde_json::from_str(r#"{"voice":"marin"}"#).unwrap(),
            vapi_assistant_id: Some("assistant-1".parse().unwrap()),
            fallback_number: None,
            system_type: SystemType::Vapi,
            switched_at: None,
        }
    }

    fn number(vapi_handover: VapiHandover) -> PhoneNumber {
        PhoneNumber {
            id: NumberId(Uuid::nil()),
            project_id: ProjectId(Uuid::nil()),
            number: "+15550100".parse().unwrap(),
            agent_id: Some(AgentId(Uuid::nil())),
            system_type: SystemType::Vapi,
            vapi_handover,
            vapi_phone_number_id: Some("number-1".to_owned()),
        }
    }

    #[test]
    fn a_complete_agent_can_go_both_ways() {
        for target in [SystemType::Vapi, SystemType::OpenaiRealtime] {
            assert_eq!(missing(&agent(), &[number(VapiHandover::Bypass)], ALL, target), []);
        }
    }

    #[test]
    fn everything_that_is_missing_is_named() {
        let bare = Agent { instructions: " ".to_owned(), realtime: None, vapi_assistant_id: None, ..agent() };
        assert_eq!(
            missing(&bare, &[], NONE, SystemType::OpenaiRealtime),
            [Missing::Realtime, Missing::Instructions, Missing::OpenAiService]
        );
        assert_eq!(
            missing(&bare, &[number(VapiHandover::Bypass)], NONE, SystemType::Vapi),
            [Missing::VapiAssistantId, Missing::VapiService]
        );
    }

    #[test]
    fn vapi_itself_is_needed_only_for_the_bypass() {
        assert_eq!(missing(&agent(), &[number(VapiHandover::None)], NONE, SystemType::Vapi), []);
    }
}
