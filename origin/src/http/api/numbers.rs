//! `/api/numbers`: read phone numbers.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use shared::route::VapiHandover;
use shared::{AgentId, E164, NumberId, ProjectId, SystemType};

use time::OffsetDateTime;

use super::{Limit, List};
use crate::App;
use crate::http::auth::Reader;
use crate::http::extract::Params;
use crate::http::problem::Problem;
use crate::numbers::pointing;
use crate::providers::twilio::numbers::VoiceSettings;
use crate::store::numbers::{self, PhoneNumber};
use crate::store::pointings::{Place, Pointing, PointingState};

/// A phone number as the API shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NumberBody {
    id: NumberId,
    project_id: ProjectId,
    number: E164,
    agent_id: Option<AgentId>,
    system_type: SystemType,
    vapi_handover: VapiHandover,
    vapi_phone_number_id: Option<String>,
    /// `null`: Twilio is not told about this number.
    pointing: Option<PointingBody>,
}

/// Where Twilio sends the number's calls, or is to send them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PointingBody {
    place: Place,
    state: PointingState,
    #[serde(with = "time::serde::rfc3339")]
    requested_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    settled_at: Option<OffsetDateTime>,
    /// Failed attempts since it was asked for.
    attempts: i32,
    error: Option<PointingError>,
    /// What Twilio said last.
    found: Option<VoiceSettings>,
    /// The settings that calls reach Vapi with, and that a way back restores.
    remembered: Option<VoiceSettings>,
}

/// Why the last attempt failed.
#[derive(Debug, Serialize)]
pub struct PointingError {
    code: String,
    detail: String,
}

impl From<Pointing> for PointingBody {
    fn from(pointing: Pointing) -> Self {
        Self {
            place: pointing.place,
            state: pointing.state,
            requested_at: pointing.requested_at,
            settled_at: pointing.settled_at,
            attempts: pointing.attempts,
            error: pointing.error.map(|(code, detail)| PointingError { code, detail }),
            found: pointing.found,
            remembered: pointing.remembered,
        }
    }
}

impl NumberBody {
    fn new(number: PhoneNumber, pointing: Option<Pointing>) -> Self {
        Self {
            pointing: pointing.map(PointingBody::from),
            id: number.id,
            project_id: number.project_id,
            number: number.number,
            agent_id: number.agent_id,
            system_type: number.system_type,
            vapi_handover: number.vapi_handover,
            vapi_phone_number_id: number.vapi_phone_number_id,
        }
    }
}

/// `GET /api/numbers`.
pub async fn list(
    State(app): State<Arc<App>>,
    reader: Reader,
    Params(limit): Params<Limit>,
) -> Result<Json<List<NumberBody>>, Problem> {
    let limit = limit.get()?;
    let mut conn = app.db.acquire().await?;
    let numbers = numbers::list(&mut conn, reader.project, limit).await?;
    let ids: Vec<NumberId> = numbers.iter().map(|number| number.id).collect();
    let states = pointing::state_of(&mut conn, &ids).await?;
    let mut states: HashMap<NumberId, Pointing> = states.into_iter().map(|state| (state.number_id, state)).collect();
    let with_state = |number: PhoneNumber| {
        let state = states.remove(&number.id);
        NumberBody::new(number, state)
    };
    Ok(Json(numbers.into_iter().map(with_state).collect()))
}
