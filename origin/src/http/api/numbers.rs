//! `/api/numbers`: read phone numbers.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use shared::route::VapiHandover;
use shared::{AgentId, E164, NumberId, ProjectId, SystemType};

use super::{Limit, List};
use crate::App;
use crate::http::auth::Reader;
use crate::http::extract::Params;
use crate::http::problem::Problem;
use crate::store::numbers::{self, PhoneNumber};

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
}

impl From<PhoneNumber> for NumberBody {
    fn from(number: PhoneNumber) -> Self {
        Self {
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
    Ok(Json(numbers.into_iter().map(NumberBody::from).collect()))
}
