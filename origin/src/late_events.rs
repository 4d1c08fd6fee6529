//! Events that came before their call was known: once it is, they take their effect after all.
//!
//! Twilio's callbacks overtake each other, and what the edge had to keep arrives when the origin is back, in any order.
//! Looking again every minute finds every such event, however its call came to be known.

use std::sync::Arc;

use graphile_worker::{IntoTaskHandlerResult, TaskHandler, WorkerContext};
use serde::{Deserialize, Serialize};
use shared::twilio::answer::path;
use shared::twilio::form::Form;
use shared::twilio::webhook::CallWebhook;
use shared::vapi::message::Message;
use sqlx::PgConnection;

use crate::App;
use crate::inbox::{self, State};
use crate::store::inbox::Waiting;
use crate::store::{self, StoreError};
use crate::telemetry::DeliveryLabels;
use crate::{jobs, twilio_calls, vapi_calls};

/// Events looked at in one go.
const BATCH: i64 = 100;

/// The job.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct LateEvents {}

impl TaskHandler for LateEvents {
    const IDENTIFIER: &'static str = "late_events";

    async fn run(self, ctx: WorkerContext) -> impl IntoTaskHandlerResult {
        match ctx.get_ext::<Arc<App>>() {
            Some(app) => jobs::scope(&ctx, run(app)).await.map_err(|error| error.to_string()),
            None => Err("the job has no app".to_owned()),
        }
    }
}

/// Gives every event whose call is known by now its effect.
pub async fn run(app: &App) -> Result<(), StoreError> {
    loop {
        let ripe = store::inbox::ripe(&mut *app.db.acquire().await?, BATCH).await?;
        for delivery_id in &ripe {
            match settle(app, delivery_id).await {
                Err(error) if !error.is_temporary() => {
                    failed(delivery_id, &error);
                    // It would fail for ever, and keep the others from their turn.
                    let mut conn = app.db.acquire().await?;
                    store::inbox::processed(&mut conn, delivery_id, State::Unknown.as_str(), None).await?;
                }
                settled => settled?,
            }
        }
        if ripe.len() < usize::try_from(BATCH).unwrap_or(usize::MAX) {
            return Ok(());
        }
    }
}

fn failed(delivery_id: &str, error: &(dyn std::error::Error + 'static)) {
    tracing::error!(delivery = delivery_id, error, "A late event cannot be applied");
}

/// Effect and mark are one transaction, as with an event that comes in.
async fn settle(app: &App, delivery_id: &str) -> Result<(), StoreError> {
    let mut transaction = app.db.begin().await?;
    let Some(waiting) = store::inbox::take(&mut transaction, delivery_id).await? else { return Ok(()) };
    let became = apply(&mut transaction, &waiting).await?;
    store::inbox::processed(&mut transaction, delivery_id, became.as_str(), None).await?;
    transaction.commit().await?;
    let source =
        if waiting.source == inbox::Source::Vapi.as_str() { inbox::Source::Vapi } else { inbox::Source::Twilio };
    app.metrics.deliveries.get_or_create(&DeliveryLabels { source: source.as_str(), outcome: "late" }).inc();
    tracing::info!(delivery = delivery_id, became = became.as_str(), "An event from before its call was known counts");
    Ok(())
}

async fn apply(conn: &mut PgConnection, waiting: &Waiting) -> Result<State, StoreError> {
    if waiting.source == inbox::Source::Vapi.as_str() {
        let Ok(message) = Message::parse(&waiting.body) else { return Ok(State::Unknown) };
        return vapi_calls::apply(conn, &message, &waiting.body).await;
    }
    let Ok(form) = Form::parse(&waiting.body) else { return Ok(State::Unknown) };
    match CallWebhook::from_form(&form) {
        Ok(facts) if waiting.kind == path::STATUS => twilio_calls::note_status(conn, &form, &facts).await,
        // A stream's status changes nothing.
        _ => Ok(State::Applied),
    }
}
