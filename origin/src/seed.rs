//! The demonstration's project. Seeding again brings it back to how it began.

use serde::Serialize;
use shared::ids::InvalidId;
use shared::route::VapiHandover;
use shared::{AgentId, AssistantId, E164, ProjectId, SystemType};
use sqlx::PgConnection;

use crate::config::Systems;
use crate::replication;
use crate::store::agents::realtime::{CallRules, NoiseReduction, RealtimeSettings, Transcription, TurnDetection};
use crate::store::agents::{self, NewAgent};
use crate::store::events::Actor;
use crate::store::numbers::{self, NewNumber};
use crate::store::{StoreError, projects};
use crate::switching::{self, SwitchError};

const PROJECT: &str = "Lakeside Dental";
const RECEPTION_NUMBER: &str = "+15550100001";
const NIGHT_LINE_NUMBER: &str = "+15550100002";

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
    let project_id = projects::ensure(conn, PROJECT).await?;
    let reception = SeededAgent {
        id: agents::put(
            conn,
            &NewAgent {
                project_id,
                name: "Reception",
                instructions: "You are the receptionist of Lakeside Dental, a dental practice. You answer the phone, \
                               tell people the opening hours (Monday to Friday from 8 to 18, Saturday from 9 to 13) \
                               and the prices (check-up 90 dollars, whitening from 240 dollars), and take requests \
                               for appointments: name, reason, preferred day. Keep every turn under two sentences.",
                greeting: Some("Good morning, Lakeside Dental, this is Ana. How can I help you?"),
                realtime: Some(&realtime("marin")),
                vapi_assistant_id: Some(&vapi.assistant_id),
                fallback_number: None,
            },
        )
        .await?,
        name: "Reception",
        number: RECEPTION_NUMBER.parse()?,
        system_type: SystemType::Vapi,
        vapi_assistant_id: Some(vapi.assistant_id.clone()),
        vapi_phone_number_id: Some(vapi.phone_number_id.clone()),
    };
    let night_line = SeededAgent {
        id: agents::put(
            conn,
            &NewAgent {
                project_id,
                name: "Night line",
                instructions: "You answer the phone of Lakeside Dental, a dental practice, when nobody else can. You \
                               tell people the opening hours (Monday to Friday from 8 to 18, Saturday from 9 to 13) \
                               and the prices (check-up 90 dollars, whitening from 240 dollars), and take messages: \
                               name, number, reason. Keep every turn under two sentences.",
                greeting: Some("Good morning, Lakeside Dental, this is Ana. How can I help you?"),
                realtime: Some(&realtime("cedar")),
                vapi_assistant_id: None,
                fallback_number: None,
            },
        )
        .await?,
        name: "Night line",
        number: NIGHT_LINE_NUMBER.parse()?,
        system_type: SystemType::OpenaiRealtime,
        vapi_assistant_id: None,
        vapi_phone_number_id: None,
    };

    // Writing the agents has locked them, so their numbers may be changed.
    let agents = vec![reception, night_line];
    for agent in &agents {
        let vapi_handover =
            if agent.vapi_phone_number_id.is_some() { VapiHandover::Bypass } else { VapiHandover::None };
        let number = NewNumber {
            project_id,
            number: &agent.number,
            agent_id: agent.id,
            vapi_handover,
            vapi_phone_number_id: agent.vapi_phone_number_id.as_deref(),
        };
        if numbers::put(conn, &number).await?.is_none() {
            return Err(SeedError::NumberTaken(agent.number.clone()));
        }
    }
    // Which services the origin will have is not known here.
    let systems = Systems { openai_realtime: true, vapi: true };
    for agent in &agents {
        let actor = Actor::Command("seed");
        switching::switch(conn, systems, project_id, agent.id, agent.system_type, &actor).await?;
    }
    replication::enqueue(conn).await?;
    Ok(Seeded { project_id, agents })
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
