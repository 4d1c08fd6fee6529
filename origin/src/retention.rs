//! What is kept for a while only: events that were received, with their bodies where they wait for their call, and what
//! tools answered.
//!
//! Calls, transcripts and the audit log are not touched here.

use std::sync::Arc;

use graphile_worker::{IntoTaskHandlerResult, TaskHandler, WorkerContext};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

use crate::App;
use crate::http::api::once::KEEP_HOURS;
use crate::inbox;
use crate::recording;
use crate::store::recordings::RecordingState;
use crate::store::{self, StoreError};
use crate::telemetry::{Metrics, OutcomeLabels, TableLabels};
use crate::tools::once;

/// Rows deleted in one statement: far less than a second's work.
const BATCH: i64 = 5_000;

/// The job.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Prune {}

impl TaskHandler for Prune {
    const IDENTIFIER: &'static str = "prune";

    async fn run(self, ctx: WorkerContext) -> impl IntoTaskHandlerResult {
        match ctx.get_ext::<Arc<App>>() {
            Some(app) => prune(&app.db, &app.metrics).await.map_err(|error| error.to_string()),
            None => Err("the job has no app".to_owned()),
        }
    }
}

/// Deletes what is too old, and gives up what nobody has brought.
pub async fn prune(db: &PgPool, metrics: &Metrics) -> Result<(), StoreError> {
    let lost = store::recordings::give_up(&mut *db.acquire().await?, recording::GIVE_UP_DAYS).await?;
    metrics.recordings.get_or_create(&OutcomeLabels { outcome: RecordingState::Lost.as_str() }).inc_by(lost);
    store::inbox::give_up(&mut *db.acquire().await?, inbox::WAIT_HOURS).await?;
    for table in ["webhook_inbox", "tool_runs", "idempotency_keys"] {
        loop {
            let mut conn = db.acquire().await?;
            let deleted = match table {
                "tool_runs" => store::tool_runs::prune(&mut conn, once::KEEP_DAYS, BATCH).await?,
                "idempotency_keys" => store::idempotency::prune(&mut conn, KEEP_HOURS, BATCH).await?,
                _ => store::inbox::prune(&mut conn, inbox::KEEP_DAYS, BATCH).await?,
            };
            metrics.pruned.get_or_create(&TableLabels { table }).inc_by(deleted);
            if deleted < BATCH.unsigned_abs() {
                break;
            }
        }
    }
    Ok(())
}
