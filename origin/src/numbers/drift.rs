//! Drift: where our record of a number, Twilio and Vapi do not agree.
//!
//! Everything is read in lists, so that thousands of numbers take a few requests. Nothing is changed anywhere: what is
//! found stands on the number until the next check, and a person decides.

use std::collections::HashMap;
use std::sync::Arc;

use graphile_worker::{IntoTaskHandlerResult, TaskHandler, WorkerContext};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::{E164, NumberId, SystemType};

use super::NumberError;
use crate::App;
use crate::providers::twilio::numbers::{Numbers, OwnedNumber, VoiceSettings};
use crate::providers::vapi::phone_numbers::{PhoneNumbers, VapiNumber};
use crate::store::numbers;
use crate::store::pointings::{self, Checked, Place, PointingState};

/// What the check found.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Findings {
    /// Numbers that were checked.
    pub checked: usize,
    /// Those that drift.
    pub drifting: Vec<Drifting>,
    /// Numbers at Twilio that come to us without a record of theirs: their callers hear that they are not in service.
    pub unknown: Vec<E164>,
}

/// A number that drifts.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drifting {
    /// Its record.
    pub id: NumberId,
    /// The number.
    pub number: E164,
    /// Each difference: `what`, a stable word, and what was expected and found.
    pub differences: Vec<Value>,
}

/// Compares every number that Twilio is told about, and notes on each what was found.
pub async fn check(app: &App) -> Result<Findings, NumberError> {
    let config = app.config.twilio.as_ref().ok_or(NumberError::NotConfigured("Twilio"))?;
    let before = pointings::all(&mut *app.db.acquire().await?).await?;
    let before: HashMap<NumberId, Checked> = before.into_iter().map(|record| (record.number_id, record)).collect();
    let mut at_twilio: HashMap<E164, OwnedNumber> = HashMap::new();
    for account in config.accounts() {
        let owned = Numbers { http: &app.http, config, account: &account }.all().await?;
        at_twilio.extend(owned.into_iter().map(|owned| (owned.number.clone(), owned)));
    }
    let at_vapi: Option<HashMap<String, VapiNumber>> = match &app.config.vapi {
        Some(config) => {
            let known = PhoneNumbers { http: &app.http, config }.all().await?;
            Some(known.into_iter().map(|known| (known.id.clone(), known)).collect())
        }
        None => None,
    };
    let mut conn = app.db.acquire().await?;
    let mut records = pointings::all(&mut conn).await?;
    let edge = VoiceSettings::to_edge(&app.config.edge_base(), &app.config.origin_base());

    let mut unknown: Vec<E164> =
        at_twilio.values().filter(|owned| owned.settings == edge).map(|owned| owned.number.clone()).collect();
    let known = numbers::known(&mut conn, &unknown).await?;
    unknown.retain(|number| !known.contains(number) && before.values().all(|record| record.number != *number));
    unknown.sort_unstable();

    // What changed while the services were asked cannot be compared with what they said.
    records.retain(|record| before.get(&record.number_id) == Some(record));
    let mut drifting = Vec::new();
    let mut notes = Vec::new();
    for record in &records {
        let differences = differences(record, at_twilio.get(&record.number), at_vapi.as_ref());
        notes.push((record.number_id, Value::from(differences.clone())));
        if !differences.is_empty() {
            drifting.push(Drifting { id: record.number_id, number: record.number.clone(), differences });
        }
    }
    pointings::note_drift(&mut conn, &notes).await?;
    Ok(Findings { checked: records.len(), drifting, unknown })
}

/// How one number differs.
fn differences(
    record: &Checked,
    at_twilio: Option<&OwnedNumber>,
    at_vapi: Option<&HashMap<String, VapiNumber>>,
) -> Vec<Value> {
    let mut differences = Vec::new();
    if record.agent_system.is_some_and(|system| system != record.system_type) {
        let (expected, found) = (record.agent_system, record.system_type);
        differences.push(json!({ "what": "system_type", "expected": expected, "found": found }));
    }
    match at_twilio {
        None => differences.push(json!({ "what": "missing_at_twilio" })),
        // What is under way has not come to a state that could be compared.
        Some(owned) if record.state == PointingState::Settled && Some(&owned.settings) != record.found.as_ref() => {
            differences.push(json!({ "what": "twilio", "expected": record.found, "found": owned.settings }));
        }
        Some(_) => {}
    }
    let (Some(at_vapi), Some(id)) = (at_vapi, &record.vapi_phone_number_id) else { return differences };
    let goes_there = record.place == Place::Vapi && record.system_type == SystemType::Vapi;
    match at_vapi.get(id) {
        None => differences.push(json!({ "what": "missing_at_vapi", "found": id })),
        Some(known) if goes_there && known.assistant_id != record.assistant => {
            let (expected, found) = (&record.assistant, &known.assistant_id);
            differences.push(json!({ "what": "vapi_assistant", "expected": expected, "found": found }));
        }
        Some(_) => {}
    }
    differences
}

/// The job.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct CheckDrift {}

impl TaskHandler for CheckDrift {
    const IDENTIFIER: &'static str = "check_drift";

    async fn run(self, ctx: WorkerContext) -> impl IntoTaskHandlerResult {
        let Some(app) = ctx.get_ext::<Arc<App>>() else { return Err("the job has no app".to_owned()) };
        let findings = check(app).await.map_err(|error| error.to_string())?;
        for drifting in &findings.drifting {
            let differences = Value::from(drifting.differences.clone());
            tracing::warn!(number_id = %drifting.id, %differences, "A number is not what its record says");
        }
        for number in &findings.unknown {
            tracing::warn!(%number, "A number comes to us and has no record");
        }
        Ok(())
    }
}
