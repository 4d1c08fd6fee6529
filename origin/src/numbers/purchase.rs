//! Buying a number, once, whatever crashes.
//!
//! First the intent to buy this very number is kept. Whoever carries it out looks whether the account has the number:
//! before Twilio was ever asked that means that it is not for sale to us; afterwards it means that it was bought and the
//! answer was lost. A number that was bought gets its record in one transaction with the end of the purchase, and from
//! then on [`super::pointing`] configures it, Vapi included. Whatever fails there, the number stays ours and shows why.

use std::sync::Arc;
use std::time::Duration;

use graphile_worker::{IntoTaskHandlerResult, TaskHandler, WorkerContext};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::{AgentId, E164, ProjectId};
use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;

use super::{NumberError, place_for, place_for_new, pointing};
use crate::config::Config;
use crate::providers::twilio::numbers::{NOT_AVAILABLE, Numbers, NumbersError, OwnedNumber, VoiceSettings};
use crate::store::events::{self, Actor, NewEvent};
use crate::store::pointings::{self, NewPointing};
use crate::store::purchases::{self, Purchase, PurchaseId, PurchaseState};
use crate::store::{self, StoreError};
use crate::{App, jobs, replication};

/// The event of the intent.
const INTENDED: &str = "number.purchase_intended";
/// The event of a number that is ours.
const BOUGHT: &str = "number.bought";
/// The event of a number that did not become ours.
const FAILED: &str = "number.purchase_failed";

/// For how long a purchase is one worker's: longer than all its requests may take.
const CLAIM: Duration = Duration::from_mins(2);
/// The first pause before another attempt; it doubles from one to the next.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// Who wanted a number this long ago has another one by now. What may have been bought is still looked for.
const PATIENCE: time::Duration = time::Duration::HOUR;
/// Purchases taken up in one run of the job.
const PER_RUN: i64 = 50;

/// Keeps the intent to buy a number for an agent, and asks for it to be carried out once the caller's transaction is
/// committed, which must be soon.
pub async fn intend(
    conn: &mut PgConnection,
    config: &Config,
    project: ProjectId,
    agent: AgentId,
    number: &E164,
    actor: &Actor,
) -> Result<PurchaseId, NumberError> {
    config.twilio.as_ref().ok_or(NumberError::NotConfigured("Twilio"))?;
    let agent = store::agents::lock(conn, project, agent).await?.ok_or(NumberError::NoAgent)?;
    place_for_new(&agent, config)?;
    if store::numbers::by_number(conn, number).await?.is_some() {
        return Err(NumberError::Known);
    }
    let intended = purchases::intend(conn, project, agent.id, number, &actor.to_string()).await?;
    let id = intended.ok_or(NumberError::BeingBought)?;
    let event = NewEvent {
        agent_id: Some(agent.id),
        after: Some(json!({ "number": number, "state": PurchaseState::Intended })),
        details: json!({ "purchaseId": id }),
        ..NewEvent::new(project, INTENDED, actor)
    };
    events::append(conn, &event).await?;
    // The library's own schema, so not checked against ours. The key folds waiting jobs into one.
    sqlx::query(
        "select from graphile_worker.add_job(identifier => $1, payload => '{}', queue_name => $1, job_key => $1)",
    )
    .bind(BuyNumbers::IDENTIFIER)
    .execute(conn)
    .await
    .map_err(StoreError::from)?;
    Ok(id)
}

/// Carries a purchase out as far as it goes now, and tells how far that is. What passes is tried again by the job.
pub async fn carry_out(app: &App, id: PurchaseId) -> Result<Purchase, NumberError> {
    if purchases::claim(&mut *app.db.acquire().await?, id, CLAIM.as_secs_f64()).await? {
        let purchase = get(app, id).await?;
        match attempt(app, &purchase).await {
            Ok(()) => {}
            // The claim runs out, and it is tried again.
            Err(NumberError::Store(error)) => return Err(error.into()),
            Err(error) => set_back(app, &purchase, &error).await?,
        }
    }
    get(app, id).await
}

async fn get(app: &App, id: PurchaseId) -> Result<Purchase, NumberError> {
    purchases::get(&mut *app.db.acquire().await?, id).await?.ok_or(NumberError::NoNumber)
}

async fn attempt(app: &App, purchase: &Purchase) -> Result<(), NumberError> {
    let config = app.config.twilio.as_ref().ok_or(NumberError::NotConfigured("Twilio"))?;
    let twilio = Numbers { http: &app.http, config, account: &config.account_sid };
    let found = twilio.find(&purchase.number).await?;
    let owned = match (found, purchase.asked_at) {
        (Some(_), None) => return Err(NumberError::Owned),
        (Some(owned), Some(_)) => owned,
        (None, Some(_)) if OffsetDateTime::now_utc() - purchase.created_at > PATIENCE => {
            return Err(NumberError::Expired);
        }
        (None, _) => {
            purchases::asked(&mut *app.db.acquire().await?, purchase.id).await?;
            buy(app, twilio, purchase).await?
        }
    };
    keep(app, purchase, &owned).await
}

/// Calls come to us until the number's own system is told: a new number without a URL would fail them silently.
async fn buy(app: &App, twilio: Numbers<'_>, purchase: &Purchase) -> Result<OwnedNumber, NumberError> {
    let settings = VoiceSettings::to_edge(&app.config.edge_base(), &app.config.origin_base());
    match twilio.buy(&purchase.number, &settings).await {
        Ok(owned) => Ok(owned),
        // Perhaps because we have bought it: by a request that Twilio was slow with.
        Err(error @ NumbersError::Refused { code: Some(NOT_AVAILABLE), .. }) if purchase.asked_at.is_some() => {
            twilio.find(&purchase.number).await?.ok_or(error.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Gives a bought number its record.
async fn keep(app: &App, purchase: &Purchase, owned: &OwnedNumber) -> Result<(), NumberError> {
    let mut conn = app.db.acquire().await?;
    let mut tx = conn.begin().await?;
    let agent = store::agents::lock(&mut tx, purchase.project_id, purchase.agent_id).await?;
    let agent = agent.ok_or(NumberError::NoAgent)?;
    // The agent may have lost its assistant meanwhile. The number is ours all the same, and shows what it lacks.
    let place = place_for(&agent).unwrap_or(pointings::Place::Vapi);
    let inserted = store::numbers::insert(&mut tx, agent.project_id, agent.id, &purchase.number, None).await?;
    let number_id = inserted.ok_or(NumberError::Known)?;
    let pointing = NewPointing {
        number_id,
        account: &owned.account,
        sid: &owned.sid,
        place,
        found: &owned.settings,
        remembered: None,
        assistant: None,
    };
    pointings::begin(&mut tx, &pointing).await?;
    if !purchases::bought(&mut tx, purchase.id, number_id).await? {
        // Another worker was quicker; the transaction is dropped.
        return Ok(());
    }
    let event = NewEvent {
        agent_id: Some(agent.id),
        number_id: Some(number_id),
        after: Some(json!({ "number": purchase.number, "systemType": agent.system_type, "twilioSid": owned.sid })),
        details: json!({ "purchaseId": purchase.id, "attempts": purchase.attempts + 1 }),
        ..NewEvent::new(agent.project_id, BOUGHT, &Actor::Origin)
    };
    events::append(&mut tx, &event).await?;
    pointing::job::enqueue(&mut tx).await?;
    replication::enqueue(&mut tx).await?;
    tx.commit().await?;
    tracing::info!(%number_id, purchase_id = %purchase.id, "Bought a number");
    Ok(())
}

async fn set_back(app: &App, purchase: &Purchase, error: &NumberError) -> Result<(), StoreError> {
    let asked = error.passes().map(|asked| asked.unwrap_or_else(|| pause(purchase.attempts)));
    let text = error.to_string();
    tracing::warn!(purchase_id = %purchase.id, code = error.code(), error = text, "A number is not bought");
    let mut conn = app.db.acquire().await?;
    let mut tx = conn.begin().await?;
    let seconds = asked.map(|pause| pause.as_secs_f64());
    purchases::set_back(&mut tx, purchase.id, error.code(), &text, seconds).await?;
    if seconds.is_none() {
        let event = NewEvent {
            agent_id: Some(purchase.agent_id),
            before: Some(json!({ "number": purchase.number, "state": PurchaseState::Intended })),
            after: Some(json!({ "number": purchase.number, "state": PurchaseState::Failed })),
            details: json!({
                "purchaseId": purchase.id,
                "code": error.code(),
                "twilioCode": error.twilio_code(),
                "error": text,
            }),
            ..NewEvent::new(purchase.project_id, FAILED, &Actor::Origin)
        };
        events::append(&mut tx, &event).await?;
    }
    tx.commit().await?;
    Ok(())
}

fn pause(attempts: i32) -> Duration {
    let doubled = u32::try_from(attempts.clamp(0, 16)).unwrap_or(0);
    (FIRST_PAUSE * 2_u32.pow(doubled)).min(LONGEST_PAUSE)
}

/// The job: carries on purchases that were left in the middle.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct BuyNumbers {}

impl TaskHandler for BuyNumbers {
    const IDENTIFIER: &'static str = "buy_numbers";

    async fn run(self, ctx: WorkerContext) -> impl IntoTaskHandlerResult {
        match ctx.get_ext::<Arc<App>>() {
            Some(app) => jobs::scope(&ctx, Box::pin(run(app))).await.map_err(|error| error.to_string()),
            None => Err("the job has no app".to_owned()),
        }
    }
}

/// Carries on every purchase whose time has come.
pub async fn run(app: &App) -> Result<(), NumberError> {
    let due = purchases::due(&mut *app.db.acquire().await?, PER_RUN).await?;
    for id in due {
        if app.shutdown.is_cancelled() {
            break;
        }
        carry_out(app, id).await?;
    }
    Ok(())
}
