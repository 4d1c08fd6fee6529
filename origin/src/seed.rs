//! The demonstration's project. Seeding again brings it back to how it began.

use serde::Serialize;
use serde_json::{Value, json};
use shared::ids::InvalidId;
use shared::route::VapiHandover;
use shared::{AgentId, AssistantId, E164, ProjectId, SystemType};
use sqlx::PgConnection;

use crate::agents::{self, AgentError, AgentFields};
use crate::config::Systems;
use crate::projects::{self, ProjectError};
use crate::replication;
use crate::store::agents::realtime::{CallRules, NoiseReduction, RealtimeSettings, Transcription, TurnDetection};
use crate::store::events::{self, Actor, NewEvent};
use crate::store::numbers::{self, NewNumber, PhoneNumber};
use crate::store::{self, StoreError};
use crate::switching::{self, SwitchError};

const PROJECT: &str = "Lakeside Dental";
const RECEPTION_NUMBER: &str = "+15550100001";
const NIGHT_LINE_NUMBER: &str = "+15550100002";
const ACTOR: Actor = Actor::Command("seed");

/// What the demonstration's agent is called at Vapi.
#[derive(Clone, Debug)]
pub struct VapiIds {
    /// The assistant of "Reception".
    pub assistant_id: AssistantId,
    /// Its phone number.
    pub phone_number_id: String,
}

/// What was seeded, for programs.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Seeded {
    /// The project.
    pub project_id: ProjectId,
    /// Its agents.
    pub agents: Vec<SeededAgent>,
}

/// An agent that was seeded.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SeededAgent {
    /// The agent's id.
    pub id: AgentId,
    /// Its name.
    pub name: &'static str,
    /// The number it answers.
    pub number: E164,
    /// The system it begins on.
    pub system_type: SystemType,
    /// Its assistant at Vapi.
    pub vapi_assistant_id: Option<AssistantId>,
    /// Its number's id at Vapi.
    pub vapi_phone_number_id: Option<String>,
}

/// Why seeding failed.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// The number is taken.
    #[error("the number {0} belongs to another project")]
    NumberTaken(E164),
    /// A bug in this file.
    #[error(transparent)]
    Invalid(#[from] InvalidId),
    /// The project could not be made.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// An agent could not be made, or made what it was.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The agent could not be brought to its first system.
    #[error(transparent)]
    Switch(#[from] SwitchError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes the project "Lakeside Dental" within the caller's transaction: "Reception" on Vapi, configured for both
/// systems, and "Night line" on OpenAI Realtime.
pub async fn seed(conn: &mut PgConnection, vapi: &VapiIds) -> Result<Seeded, SeedError> {
    let project_id = match store::projects::find(conn, PROJECT).await? {
        Some(known) => known,
        None => projects::create(conn, PROJECT, &ACTOR).await?.id,
    };
    let reception = AgentFields {
        name: "Reception".to_owned(),
        instructions: "You are the receptionist of Lakeside Dental, a dental practice. You answer the phone, tell \
                       people the opening hours (Monday to Friday from 8 to 18, Saturday from 9 to 13) and the prices \
                       (check-up 90 dollars, whitening from 240 dollars), and take requests for appointments: name, \
                       reason, preferred day. Keep every turn under two sentences."
            .to_owned(),
        greeting: Some("Good morning, Lakeside Dental, this is Ana. How can I help you?".to_owned()),
        realtime: Some(realtime("marin")),
        vapi_assistant_id: Some(vapi.assistant_id.clone()),
        fallback_number: None,
        tool_ids: Vec::new(),
    };
    let night_line = AgentFields {
        name: "Night line".to_owned(),
        instructions: "You answer the phone of Lakeside Dental, a dental practice, when nobody else can. You tell \
                       people the opening hours (Monday to Friday from 8 to 18, Saturday from 9 to 13) and the prices \
                       (check-up 90 dollars, whitening from 240 dollars), and take messages: name, number, reason. \
                       Keep every turn under two sentences."
            .to_owned(),
        realtime: Some(realtime("cedar")),
        vapi_assistant_id: None,
        ..reception.clone()
    };
    let agents = vec![
        SeededAgent {
            id: put_agent(conn, project_id, &reception).await?,
            name: "Reception",
            number: RECEPTION_NUMBER.parse()?,
            system_type: SystemType::Vapi,
            vapi_assistant_id: Some(vapi.assistant_id.clone()),
            vapi_phone_number_id: Some(vapi.phone_number_id.clone()),
        },
        SeededAgent {
            id: put_agent(conn, project_id, &night_line).await?,
            name: "Night line",
            number: NIGHT_LINE_NUMBER.parse()?,
            system_type: SystemType::OpenaiRealtime,
            vapi_assistant_id: None,
            vapi_phone_number_id: None,
        },
    ];

    // The agents are locked, so their numbers may be changed.
    for agent in &agents {
        put_number(conn, project_id, agent).await?;
    }
    // Which services the origin will have is not known here.
    let systems = Systems { openai_realtime: true, vapi: true };
    for agent in &agents {
        switching::switch(conn, systems, project_id, agent.id, agent.system_type, &ACTOR).await?;
    }
    replication::enqueue(conn).await?;
    Ok(Seeded { project_id, agents })
}

/// Makes the agent, or describes the one of that name anew. Its system stays: that only a switch changes.
async fn put_agent(conn: &mut PgConnection, project: ProjectId, fields: &AgentFields) -> Result<AgentId, SeedError> {
    match store::agents::lock_named(conn, project, &fields.name).await? {
        Some(known) => {
            agents::replace(conn, &known, fields, &ACTOR).await?;
            Ok(known.id)
        }
        None => Ok(agents::create(conn, project, fields, &ACTOR).await?),
    }
}

async fn put_number(conn: &mut PgConnection, project_id: ProjectId, agent: &SeededAgent) -> Result<(), SeedError> {
    let vapi_handover = if agent.vapi_phone_number_id.is_some() { VapiHandover::Bypass } else { VapiHandover::None };
    let number = NewNumber {
        project_id,
        number: &agent.number,
        agent_id: agent.id,
        vapi_handover,
        vapi_phone_number_id: agent.vapi_phone_number_id.as_deref(),
    };
    let before = numbers::by_number(conn, &agent.number).await?;
    let id = numbers::put(conn, &number).await?.ok_or_else(|| SeedError::NumberTaken(agent.number.clone()))?;
    let after = numbers::by_number(conn, &agent.number).await?;
    if before != after {
        let event = NewEvent {
            agent_id: Some(agent.id),
            number_id: Some(id),
            before: before.as_ref().map(state),
            after: after.as_ref().map(state),
            ..NewEvent::new(project_id, "number.seeded", &ACTOR)
        };
        events::append(conn, &event).await?;
    }
    Ok(())
}

/// What an event tells of a number.
fn state(number: &PhoneNumber) -> Value {
    json!({
        "number": number.number, "agentId": number.agent_id, "systemType": number.system_type,
        "vapiHandover": number.vapi_handover.as_str(), "vapiPhoneNumberId": number.vapi_phone_number_id,
    })
}

fn realtime(voice: &str) -> RealtimeSettings {
    RealtimeSettings {
        model: None,
        voice: voice.to_owned(),
        speed: 1.0,
        turn_detection: TurnDetection::default(),
        noise_reduction: Some(NoiseReduction::NearField),
        transcription: Some(Transcription {
            model: "gpt-transcribe".to_owned(),
            language: Some("en".to_owned()),
            keywords: Vec::new(),
            prompt: None,
        }),
        mcp_servers: Vec::new(),
        call: CallRules::default(),
    }
}
