//! The reconciler: closes calls whose end nobody has told of.
//!
//! Twilio's callbacks are best effort, Vapi repeats nothing by itself, and an origin may die with its calls. So every
//! few minutes the provider is asked about open calls without news; what is over there is closed here, with the reason
//! `reconciled`, and Vapi's transcript and costs are taken over. A call that is live in this process is left alone, and
//! one that is live in another is alive at Twilio.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use graphile_worker::{IntoTaskHandlerResult, TaskHandler, WorkerContext};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::twilio::webhook::CallStatus;
use shared::{CallSid, SystemType};
use sqlx::Connection as _;
use time::OffsetDateTime;

use crate::App;
use crate::config;
use crate::end_reason::{EndReason, Ending};
use crate::inbox::told_at;
use crate::jobs;
use crate::providers::twilio::{self, TwilioError};
use crate::providers::vapi::{self, VapiError};
use crate::store::calls::{self, Call};
use crate::store::events::{self, Actor, NewEvent};
use crate::store::{self, StoreError};
use crate::telemetry::OutcomeLabels;
use crate::vapi_calls::report::Report;

/// How often the job runs.
pub const EVERY_MINUTES: u32 = 3;
/// Why a call ended, as far as we know.
pub const REASON: EndReason = EndReason::Reconciled;
/// The event that tells what the provider said.
pub const EVENT: &str = "call.reconciled";

/// A call that rings or goes on for so long without news is asked about: nobody lets it ring for ten minutes, and Vapi
/// ends calls after ten unless told otherwise.
const SILENCE: Duration = Duration::from_mins(10);
/// The pause before the same call is asked about again.
const PAUSE: Duration = Duration::from_mins(10);
/// Calls asked about in one run. The rest has its turn in the next.
const PER_RUN: i64 = 200;
/// Requests at a time: far below what Twilio and Vapi allow, as live calls need them too.
const AT_A_TIME: usize = 4;
/// A call that its provider does not know for so long is over, also when we cannot be sure to have asked in the right
/// place. Twilio shows a call at once in its own account; Vapi keeps them for weeks.
const MISSING_LIMIT: time::Duration = time::Duration::days(1);

/// The job.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Reconcile {}

impl TaskHandler for Reconcile {
    const IDENTIFIER: &'static str = "reconcile";

    async fn run(self, ctx: WorkerContext) -> impl IntoTaskHandlerResult {
        match ctx.get_ext::<Arc<App>>() {
            Some(app) => jobs::scope(&ctx, run(app)).await.map_err(|error| error.to_string()),
            None => Err("the job has no app".to_owned()),
        }
    }
}

/// What a provider said about a call.
#[derive(Debug)]
enum Told {
    Over {
        at: Option<OffsetDateTime>,
        word: String,
        report: Option<Box<Report>>,
    },
    Alive,
    /// Not known where we looked; it may be elsewhere.
    Missing,
    /// Not known where it must be.
    Gone,
    RateLimited,
    Failed,
    /// There is nobody to ask.
    NotConfigured,
}

/// Asks about the calls whose turn it is, and closes those that are over.
pub async fn run(app: &App) -> Result<(), StoreError> {
    let live = app.live.all();
    let silent = {
        let mut conn = app.db.acquire().await?;
        calls::silent(&mut conn, SILENCE.as_secs_f64(), PAUSE.as_secs_f64(), &live, PER_RUN).await?
    };
    for some in silent.chunks(AT_A_TIME) {
        let told = join_all(some.iter().map(|call| ask(app, call))).await;
        let rate_limited = told.iter().any(|told| matches!(told, Ok(Told::RateLimited)));
        for (call, told) in some.iter().zip(told) {
            let settled = match told {
                Ok(told) => settle(app, call, told).await,
                // What the database could not tell is nothing that a provider said: the job is tried again soon.
                Err(error) => Err(error),
            };
            let outcome = match settled {
                Err(error) if !error.is_temporary() => {
                    // One call that cannot be read or written must not keep the others from their turn.
                    failed(call, &error);
                    calls::asked(&mut *app.db.acquire().await?, call.id).await?;
                    "failed"
                }
                outcome => outcome?,
            };
            app.metrics.reconciled.get_or_create(&OutcomeLabels { outcome }).inc();
        }
        if rate_limited || app.shutdown.is_cancelled() {
            break;
        }
    }
    Ok(())
}

async fn ask(app: &App, call: &Call) -> Result<Told, StoreError> {
    let config = &app.config;
    match (call.system_type, &call.vapi_call_id, &config.vapi, &call.call_sid, &config.twilio) {
        (SystemType::Vapi, Some(id), Some(vapi), ..) => Ok(of_vapi(vapi::call(&app.http, vapi, id).await, call)),
        (_, _, _, Some(sid), Some(twilio)) => ask_twilio(app, twilio, call, sid).await,
        _ => Ok(Told::NotConfigured),
    }
}

/// Asks under the account that the call was said to be of; while nobody has said, under all that there are.
async fn ask_twilio(app: &App, twilio: &config::Twilio, call: &Call, sid: &CallSid) -> Result<Told, StoreError> {
    let known = calls::account(&mut *app.db.acquire().await?, call.id).await?;
    if let Some(account) = known {
        return Ok(match of_twilio(twilio::call(&app.http, twilio, &account, sid).await, call) {
            Told::Missing => Told::Gone,
            told => told,
        });
    }
    for account in twilio.accounts() {
        let told = of_twilio(twilio::call(&app.http, twilio, &account, sid).await, call);
        if !matches!(told, Told::Missing) {
            return Ok(told);
        }
    }
    Ok(Told::Missing)
}

fn of_twilio(answer: Result<Option<twilio::CallState>, TwilioError>, call: &Call) -> Told {
    match answer {
        Ok(Some(state)) => match state.status {
            CallStatus::Over(outcome) => {
                Told::Over { at: state.ended_at, word: outcome.as_str().to_owned(), report: None }
            }
            CallStatus::Ringing | CallStatus::InProgress | CallStatus::Other => Told::Alive,
        },
        Ok(None) => Told::Missing,
        Err(TwilioError::RateLimited) => Told::RateLimited,
        Err(error) => failed(call, &error),
    }
}

fn of_vapi(answer: Result<Option<vapi::CallState>, VapiError>, call: &Call) -> Told {
    match answer {
        Ok(Some(state)) if state.is_over => {
            let report: Option<Box<Report>> = serde_json::from_value(state.record).ok();
            let at = report.as_ref().and_then(|report| report.ended_at());
            Told::Over { at, word: state.ended_reason.unwrap_or_else(|| "unknown".to_owned()), report }
        }
        Ok(Some(_)) => Told::Alive,
        Ok(None) => Told::Missing,
        Err(VapiError::Refused(429)) => Told::RateLimited,
        Err(error) => failed(call, &error),
    }
}

fn failed(call: &Call, error: &(dyn std::error::Error + 'static)) -> Told {
    tracing::warn!(call_id = %call.id, error, "A call without news could not be reconciled");
    Told::Failed
}

/// Does what follows from the answer; gives the word for it.
async fn settle(app: &App, call: &Call, told: Told) -> Result<&'static str, StoreError> {
    let now = OffsetDateTime::now_utc();
    let mut conn = app.db.acquire().await?;
    if app.live.all().contains(&call.id) {
        // It was taken up again meanwhile.
        calls::asked(&mut conn, call.id).await?;
        return Ok("alive");
    }
    let (at, word, report) = match told {
        Told::Over { at, word, report } => (told_at(at, now), word, report),
        Told::Gone => (now, "not found".to_owned(), None),
        Told::Missing if now - call.started_at >= MISSING_LIMIT => (now, "not found".to_owned(), None),
        // Not marked as asked: it has its turn in the next run.
        Told::RateLimited => return Ok("rate_limited"),
        Told::Missing | Told::Alive | Told::Failed | Told::NotConfigured => {
            calls::asked(&mut conn, call.id).await?;
            return Ok(match told {
                Told::Alive => "alive",
                Told::Missing => "missing",
                Told::Failed => "failed",
                _ => "not_configured",
            });
        }
    };
    let mut transaction = conn.begin().await.map_err(StoreError::from)?;
    // Meanwhile somebody may have told of the end after all; that word stands.
    let closed = calls::end(&mut transaction, call.id, at, &Ending::from(REASON).guessed(&word)).await?;
    if let Some(report) = report.filter(|_| closed) {
        report.fill(&mut transaction, call.id, at).await?;
    }
    if closed {
        log(&mut transaction, call, &word).await?;
    }
    transaction.commit().await.map_err(StoreError::from)?;
    tracing::info!(call_id = %call.id, told = word, reason = REASON.as_str(), "A call that was over is closed");
    Ok("closed")
}

async fn log(conn: &mut sqlx::PgConnection, call: &Call, word: &str) -> store::Result<()> {
    let event = NewEvent {
        agent_id: Some(call.agent_id),
        number_id: call.number_id,
        call_id: Some(call.id),
        details: json!({ "told": word, "system": call.system_type }),
        ..NewEvent::new(call.project_id, EVENT, &Actor::Origin)
    };
    events::append(conn, &event).await
}
