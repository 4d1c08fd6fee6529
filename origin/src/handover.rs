//! Hands a call on our Twilio line to Vapi, once, however often and however quickly Twilio asks.
//!
//! Vapi has no idempotency key. So the intent is written before the request: whoever writes it asks Vapi, whoever is
//! asked meanwhile waits for what comes of it. The request goes on when the caller has been told to wait, and finds its
//! call when they come back. A call that Vapi makes bears our call's name, so that its messages lead to the same record
//! even when Vapi's answer never came; when nobody brings it a caller, Vapi ends it by itself.

use std::time::Duration;

use shared::{AssistantId, CallSid, E164};
use tokio::time::{Instant, sleep, timeout_at};

use crate::App;
use crate::config;
use crate::providers::vapi::{self, BypassCall, VapiError};
use crate::store::calls::{self, Call, CallStatus};
use crate::store::{self, StoreError};

/// For how long Twilio, and the caller who hears ringing, are kept. The edge waits a little longer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long an asking origin may take before another may ask: longer than the request itself.
const CLAIM: Duration = Duration::from_secs(12);
/// The pause between two looks at what another request came to.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What Vapi is asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Our number, by its name at Vapi.
    pub phone_number_id: String,
    /// Who answers.
    pub assistant_id: AssistantId,
    /// Who calls.
    pub customer: Option<E164>,
    /// The call on our line.
    pub call_sid: CallSid,
}

/// What came of it.
#[derive(Debug)]
pub enum Handover {
    /// Vapi takes the call with this TwiML.
    Taken(String),
    /// Nobody knows yet; ask again in a moment.
    Waits,
    /// Vapi was asked by somebody else, and did not take it.
    Over,
}

/// Why a call is not handed over.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Vapi.
    #[error(transparent)]
    Vapi(#[from] VapiError),
}

impl From<sqlx::Error> for HandoverError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Hands over a call that has begun on Vapi.
pub async fn hand_over(app: &App, call: &Call, wanted: Wanted) -> Result<Handover, HandoverError> {
    let config = app.config.vapi.as_ref().ok_or(VapiError::Incomplete("configuration"))?;
    let until = Instant::now() + PATIENCE;
    if let Some(id) = &call.vapi_call_id {
        return Ok(Handover::Taken(vapi::bypass_call(&app.http, config, id).await?.twiml));
    }
    let claimed = calls::claim_handover(&mut *app.db.acquire().await?, call.id, CLAIM.as_secs_f64()).await?;
    if claimed {
        let asking = app.tasks.spawn(ask(app, config.clone(), call.clone(), wanted));
        return match timeout_at(until, asking).await {
            Ok(Ok(answer)) => Ok(Handover::Taken(answer?.twiml)),
            Ok(Err(_)) => Err(VapiError::Incomplete("answer").into()),
            Err(_) => Ok(Handover::Waits),
        };
    }
    timeout_at(until, others_answer(app, config, &wanted.call_sid)).await.unwrap_or(Ok(Handover::Waits))
}

/// Asks Vapi, and notes its call whether or not anybody still waits.
fn ask(
    app: &App,
    config: config::Vapi,
    call: Call,
    wanted: Wanted,
) -> impl Future<Output = Result<BypassCall, VapiError>> + Send + 'static {
    let (http, db) = (app.http.clone(), app.db.clone());
    async move {
        let Wanted { phone_number_id, assistant_id, customer, call_sid } = wanted;
        let made =
            vapi::create_bypass_call(&http, &config, &phone_number_id, &assistant_id, customer.as_ref(), &call_sid)
                .await?;
        // The caller is not to wait for the database: Vapi's first message joins the two as well.
        if let Err(error) = note(&db, &call, &made).await {
            let error = &error as &dyn std::error::Error;
            tracing::error!(%call_sid, vapi_call_id = %made.id, error, "Vapi's call is not noted yet");
        }
        Ok(made)
    }
}

async fn note(db: &sqlx::PgPool, call: &Call, made: &BypassCall) -> store::Result<()> {
    calls::set_vapi_call_id(&mut *db.acquire().await?, call.id, &made.id).await
}

/// Waits for what another request comes to.
async fn others_answer(app: &App, config: &config::Vapi, call_sid: &CallSid) -> Result<Handover, HandoverError> {
    loop {
        let call = calls::by_call_sid(&mut *app.db.acquire().await?, call_sid).await?;
        match call {
            Some(Call { vapi_call_id: Some(id), .. }) => {
                return Ok(Handover::Taken(vapi::bypass_call(&app.http, config, &id).await?.twiml));
            }
            Some(Call { status: CallStatus::Ended, .. }) | None => return Ok(Handover::Over),
            Some(_) => sleep(LOOK_EVERY).await,
        }
    }
}
