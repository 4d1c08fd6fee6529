//! Switching an agent to another voice system.
//!
//! One transaction of the caller's: lock the agent, set its type and its numbers', log the event, enqueue replication to
//! the edge and the re-pointing of numbers at Twilio.
//! The same value again changes nothing and logs nothing. Calls in flight are not touched: each is pinned to the
//! system it began on.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use shared::route::VapiHandover;
use shared::{AgentId, E164, NumberId, ProjectId, SystemType};
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::config::Systems;
use crate::numbers::pointing;
use crate::providers::twilio::numbers::VoiceSettings;
use crate::replication;
use crate::store::agents::{self, Agent};
use crate::store::events::{self, Actor, NewEvent};
use crate::store::numbers::{self, PhoneNumber};
use crate::store::{self, StoreError};

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

/// The part of an agent that a switch changes. The shape is the one of the event's `before` and `after`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AgentImage)]
pub struct Image {
    /// Which system runs its new calls.
    pub system_type: SystemType,
    /// When that last changed.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    pub switched_at: Option<OffsetDateTime>,
    /// Its numbers, which may differ from it only by a fault.
    pub numbers: Vec<NumberImage>,
}

/// The part of a number that a switch changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = NumberImage)]
pub struct NumberImage {
    /// The number itself.
    pub number: E164,
    /// Which system answers it.
    pub system_type: SystemType,
}

/// An agent after a switch.
#[derive(Clone, Debug)]
pub struct Switched {
    /// As it is now.
    pub agent: Agent,
    /// As it was.
    pub before: Image,
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
    let before = image(&agent, &numbers);
    // Numbers that differ from their agent are a fault, which this repairs.
    if is_on(&before, target) {
        return Ok(Switched { agent, before, changed: false });
    }
    let missing = missing(&agent, &numbers, systems, target);
    if !missing.is_empty() {
        return Err(SwitchError::NotConfigured(missing));
    }

    let to = Image {
        system_type: target,
        switched_at: None,
        numbers: numbers
            .iter()
            .map(|number| NumberImage { number: number.number.clone(), system_type: target })
            .collect(),
    };
    set(conn, &mut agent, &numbers, &to, &[], actor).await?;
    Ok(Switched { agent, before, changed: true })
}

/// An agent after it was switched back.
#[derive(Clone, Debug)]
pub struct Restored {
    /// Whether anything changed.
    pub changed: bool,
    /// Numbers that the agent does not answer any more; they are as they are.
    pub gone: Vec<E164>,
}

/// Brings an agent and its numbers back to what they were, within the caller's transaction, which must end soon after.
///
/// `at_twilio` holds the exact settings that numbers get back at Twilio; the others get those that calls last reached Vapi
/// with. `switched_at` is the moment of this change, not the old one: it tells calls in flight from new ones. A number that the
/// agent has got since goes with the agent.
pub async fn restore(
    conn: &mut PgConnection,
    systems: Systems,
    project: ProjectId,
    agent: AgentId,
    to: &Image,
    at_twilio: &[(NumberId, VoiceSettings)],
    actor: &Actor,
) -> Result<Restored, SwitchError> {
    let mut agent = agents::lock(conn, project, agent).await?.ok_or(SwitchError::NotFound)?;
    let numbers = numbers::of_agents(conn, &[agent.id]).await?;
    let Return { to, gone } = way_back(&numbers, to);
    if is_at(&agent, &numbers, &to) {
        // Somebody else has switched it back, with the settings that calls reached Vapi with last.
        pointing::enqueue_exactly(conn, agent.id, at_twilio).await?;
        return Ok(Restored { changed: false, gone });
    }
    let missing = missing(&agent, &numbers, systems, to.system_type);
    if !missing.is_empty() {
        return Err(SwitchError::NotConfigured(missing));
    }
    set(conn, &mut agent, &numbers, &to, at_twilio, actor).await?;
    Ok(Restored { changed: true, gone })
}

/// What a way back to an earlier image comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Return {
    /// What becomes of the agent and the numbers that it answers now, in their order.
    pub to: Image,
    /// Numbers of the image that it does not answer any more.
    pub gone: Vec<E164>,
}

/// The way back of an agent that answers these numbers now.
pub fn way_back(numbers: &[PhoneNumber], image: &Image) -> Return {
    let is_here = |wanted: &&NumberImage| numbers.iter().any(|number| number.number == wanted.number);
    let gone = image.numbers.iter().filter(|wanted| !is_here(wanted)).map(|wanted| wanted.number.clone()).collect();
    let wanted: HashMap<&E164, SystemType> = image.numbers.iter().map(|one| (&one.number, one.system_type)).collect();
    let becomes = |number: &PhoneNumber| wanted.get(&number.number).copied().unwrap_or(image.system_type);
    let numbers = numbers
        .iter()
        .map(|number| NumberImage { number: number.number.clone(), system_type: becomes(number) })
        .collect();
    Return { to: Image { numbers, ..*image }, gone }
}

/// Whether an agent and its numbers, which the image has in the same order, are on their systems.
pub fn is_at(agent: &Agent, numbers: &[PhoneNumber], image: &Image) -> bool {
    let mut pairs = numbers.iter().zip(&image.numbers);
    agent.system_type == image.system_type && pairs.all(|(number, to)| number.system_type == to.system_type)
}

/// Sets the systems of a locked agent and its numbers, logs that, and has it replicated.
async fn set(
    conn: &mut PgConnection,
    agent: &mut Agent,
    numbers: &[PhoneNumber],
    to: &Image,
    at_twilio: &[(NumberId, VoiceSettings)],
    actor: &Actor,
) -> store::Result<()> {
    let before = image(agent, numbers);
    if agent.system_type != to.system_type {
        agent.switched_at = Some(agents::set_system_type(conn, agent.id, to.system_type).await?);
        agent.system_type = to.system_type;
    }
    numbers::set_system_type(conn, agent.id, to.system_type).await?;
    for (number, to) in numbers.iter().zip(&to.numbers).filter(|(_, one)| one.system_type != to.system_type) {
        numbers::set_one_system_type(conn, number.id, to.system_type).await?;
    }
    let after = Image { switched_at: agent.switched_at, ..to.clone() };
    let event = NewEvent {
        agent_id: Some(agent.id),
        before: Some(store::encode(&before)?),
        after: Some(store::encode(&after)?),
        ..NewEvent::new(agent.project_id, EVENT, actor)
    };
    events::append(conn, &event).await?;
    pointing::enqueue_exactly(conn, agent.id, at_twilio).await?;
    replication::enqueue(conn).await
}

/// Whether an agent is on a system with all its numbers.
pub fn is_on(image: &Image, system: SystemType) -> bool {
    image.system_type == system && image.numbers.iter().all(|number| number.system_type == system)
}

/// What is missing for the agent's calls to run on `target`.
pub fn missing(agent: &Agent, numbers: &[PhoneNumber], systems: Systems, target: SystemType) -> Vec<Missing> {
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

/// An agent and its numbers as they are.
pub fn image(agent: &Agent, numbers: &[PhoneNumber]) -> Image {
    Image {
        system_type: agent.system_type,
        switched_at: agent.switched_at,
        numbers: numbers
            .iter()
            .map(|number| NumberImage { number: number.number.clone(), system_type: number.system_type })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
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
            revision: 1,
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
            releasing_since: None,
            revision: 1,
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
