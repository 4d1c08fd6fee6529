//! The job that points numbers: all that are due, a few at a time, at the pace that Twilio allows.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use graphile_worker::{IntoTaskHandlerResult, TaskHandler, WorkerContext};
use serde::{Deserialize, Serialize};
use shared::NumberId;
use sqlx::PgConnection;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Bases;
use super::work::{self, Outcome};
use crate::store::{self, StoreError, pointings};
use crate::telemetry::OutcomeLabels;
use crate::{App, jobs};

/// For how long a number is one worker's: longer than all its requests may take.
const CLAIM: Duration = Duration::from_mins(2);
/// How often a run, and each of its hands that has nothing to do, looks whether another number is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A run waits so long for the next number. What is due later, the run of another minute finds.
const PATIENCE: f64 = 30.0;
/// The pause after a 429 that does not say how long; it doubles with each one in a row.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// Asks for a run once the caller's transaction is committed. Call it late, see [`super::enqueue`].
pub(crate) async fn enqueue(conn: &mut PgConnection) -> store::Result<()> {
    // The library's own schema, so not checked against ours. The key folds waiting jobs into one.
    sqlx::query(
        "select from graphile_worker.add_job(identifier => $1, payload => '{}', queue_name => $1, job_key => $1)",
    )
    .bind(PointNumbers::IDENTIFIER)
    .execute(conn)
    .await?;
    Ok(())
}

/// The job. It carries nothing: what there is to do is in the tables.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct PointNumbers {}

impl TaskHandler for PointNumbers {
    const IDENTIFIER: &'static str = "point_numbers";

    async fn run(self, ctx: WorkerContext) -> impl IntoTaskHandlerResult {
        match ctx.get_ext::<Arc<App>>() {
            Some(app) => jobs::scope(&ctx, Box::pin(run(app))).await.map_err(|error| error.to_string()),
            None => Err("the job has no app".to_owned()),
        }
    }
}

/// Points every number that is due, until none will be for a while.
pub async fn run(app: &App) -> Result<(), StoreError> {
    let Some(twilio) = &app.config.twilio else { return Ok(()) };
    let bases = Bases::of(&app.config);
    let pace = Pace::default();
    while !app.shutdown.is_cancelled() {
        let hands = Hands::default();
        let workers = (0..twilio.concurrency.get()).map(|_| work(app, &bases, &pace, &hands));
        join_all(workers).await.into_iter().collect::<Result<(), _>>()?;
        match pointings::next_due(&mut *app.db.acquire().await?).await? {
            Some(seconds) if seconds <= PATIENCE => {
                tokio::select! {
                    () = sleep(LOOK_EVERY.min(Duration::from_secs_f64(seconds))) => {}
                    () = app.shutdown.cancelled() => {}
                }
            }
            _ => return Ok(()),
        }
    }
    Ok(())
}

/// Those who work on numbers at the same time. They end together: meanwhile others may become due, which must not wait
/// for the slowest.
#[derive(Debug, Default)]
struct Hands {
    busy: AtomicUsize,
    over: CancellationToken,
}

/// One number after another, until none is due and nobody works on one any more.
async fn work(app: &App, bases: &Bases, pace: &Pace, hands: &Hands) -> Result<(), StoreError> {
    while !app.shutdown.is_cancelled() && !hands.over.is_cancelled() {
        pace.wait().await;
        hands.busy.fetch_add(1, Ordering::Relaxed);
        let worked = work_on_one(app, bases, pace).await;
        let are_others_busy = hands.busy.fetch_sub(1, Ordering::Relaxed) > 1;
        if worked? {
            continue;
        }
        if !are_others_busy {
            hands.over.cancel();
        }
        tokio::select! {
            () = sleep(LOOK_EVERY) => {}
            () = hands.over.cancelled() => {}
            () = app.shutdown.cancelled() => {}
        }
    }
    Ok(())
}

/// `false`: none is due.
async fn work_on_one(app: &App, bases: &Bases, pace: &Pace) -> Result<bool, StoreError> {
    let Some(number) = claim(app).await? else { return Ok(false) };
    let outcome = work::attempt(app, bases, number).await?;
    app.metrics.pointings.get_or_create(&OutcomeLabels { outcome: outcome.label() }).inc();
    pace.note(outcome).await;
    Ok(true)
}

async fn claim(app: &App) -> Result<Option<NumberId>, StoreError> {
    let mut conn = app.db.acquire().await?;
    Ok(pointings::claim(&mut conn, 1, CLAIM.as_secs_f64()).await?.pop())
}

/// When Twilio may be asked again: a 429 concerns the whole account.
#[derive(Debug, Default)]
struct Pace(Mutex<Slowed>);

#[derive(Debug, Default)]
struct Slowed {
    until: Option<Instant>,
    in_a_row: u32,
}

impl Pace {
    async fn wait(&self) {
        let until = self.0.lock().await.until;
        if let Some(until) = until {
            sleep_until(until).await;
        }
    }

    async fn note(&self, outcome: Outcome) {
        let mut slowed = self.0.lock().await;
        match outcome {
            Outcome::RateLimited(asked) => {
                let pause = asked.unwrap_or(FIRST_PAUSE * 2_u32.pow(slowed.in_a_row.min(8)));
                slowed.in_a_row += 1;
                let until = Instant::now() + pause.min(LONGEST_PAUSE);
                slowed.until = slowed.until.max(Some(until));
                tracing::warn!(pause_ms = pause.as_millis(), "Twilio asks to wait; numbers are pointed more slowly");
            }
            _ => slowed.in_a_row = 0,
        }
    }
}
