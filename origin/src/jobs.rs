//! Jobs: work that must happen after a commit, kept in Postgres by the library `graphile_worker`.
//!
//! The library retries with growing delays. A job that logs events runs in [`scope`]. Its schema is its own; [`migrate`] brings it up to date.

use std::sync::Arc;
use std::time::Duration;

use graphile_worker::{
    Cron, TaskHandler as _, Worker, WorkerContext, WorkerOptions, WorkerRecoveryConfig, WorkerShutdownConfig,
    WorkerUtils,
};
use sqlx::{PgConnection, PgPool};

use crate::late_events::LateEvents;
use crate::numbers::drift::CheckDrift;
use crate::numbers::pointing::job::PointNumbers;
use crate::numbers::purchase::BuyNumbers;
use crate::reconcile::{self, Reconcile};
use crate::replication::check::Sweep;
use crate::replication::{Replicate, Replicator};
use crate::retention::Prune;
use crate::rollout::work::Rollouts;
use crate::{App, request_id};

/// Where the library keeps its tables.
const SCHEMA: &str = "graphile_worker";
/// Jobs at a time. Replication alone never runs twice at once.
const CONCURRENCY: usize = 4;
/// How long a job may go on after a request to stop. It is taken up again afterwards.
const GRACE: Duration = Duration::from_secs(10);
/// A worker that was killed leaves its queue locked; another takes over this long after its last heartbeat.
const DEAD_AFTER: Duration = Duration::from_secs(30);
const HEARTBEAT: Duration = Duration::from_secs(5);
/// The pause before the worker is started again after the database failed under it.
const RESTART_AFTER: Duration = Duration::from_secs(2);

/// Brings the library's schema up to date.
pub async fn migrate(db: &PgPool) -> anyhow::Result<()> {
    Ok(WorkerUtils::new(db, SCHEMA).migrate().await?)
}

/// Whether the library's schema is there.
pub async fn is_migrated(conn: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar("select to_regclass('graphile_worker.migrations') is not null").fetch_one(conn).await
}

/// Works under the job's own name, so that its events tell which job they are of.
pub async fn scope<F: Future>(ctx: &WorkerContext, work: F) -> F::Output {
    request_id::scope(format!("job-{}", ctx.job().id()), work).await
}

/// Runs jobs until the app shuts down.
///
/// Without access to Cloudflare, replication is left alone, and without access to Twilio so is pointing: these jobs wait
/// for an origin that can do them.
pub async fn run(app: Arc<App>) {
    while !app.shutdown.is_cancelled() {
        let result = match worker(&app).await {
            Ok(worker) => worker.run().await.map_err(anyhow::Error::from),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            tracing::error!(error = format!("{error:#}"), "The job worker stopped and is started again");
            tokio::select! {
                () = tokio::time::sleep(RESTART_AFTER) => {}
                () = app.shutdown.cancelled() => {}
            }
        }
    }
}

async fn worker(app: &Arc<App>) -> anyhow::Result<Worker> {
    let shutdown = WorkerShutdownConfig::default()
        .listen_os_shutdown_signals(false)
        .grace_period(GRACE)
        .interrupted_job_retry_delay(Duration::ZERO)
        .shutdown_signal(app.shutdown.clone().cancelled_owned());
    let recovery = WorkerRecoveryConfig::default()
        .heartbeat_interval(HEARTBEAT)
        .sweep_interval(HEARTBEAT)
        .sweep_threshold(DEAD_AFTER)
        .recovery_delay(Duration::ZERO);
    // Hourly, so that no run has much to do.
    let prune = Cron::hourly_at::<Prune>(17)?.queue(Prune::IDENTIFIER).job_key(Prune::IDENTIFIER);
    let reconcile = Cron::every_n_minutes::<Reconcile>(reconcile::EVERY_MINUTES)?
        .queue(Reconcile::IDENTIFIER)
        .job_key(Reconcile::IDENTIFIER);
    let late = Cron::every_minute::<LateEvents>().queue(LateEvents::IDENTIFIER).job_key(LateEvents::IDENTIFIER);
    // What somebody asks of a rollout is done at once; this is for guards, and for what an outage held up.
    let rollouts = Cron::every_minute::<Rollouts>().queue(Rollouts::IDENTIFIER).job_key(Rollouts::IDENTIFIER);
    let mut options = WorkerOptions::default()
        .pg_pool(app.db.clone())
        .schema(SCHEMA)
        .concurrency(CONCURRENCY)
        .worker_shutdown(shutdown)
        .worker_recovery(recovery)
        .add_extension(Arc::clone(app))
        .define_job::<Prune>()
        .with_cron(prune.payload(Prune::default())?)
        .define_job::<Reconcile>()
        .with_cron(reconcile.payload(Reconcile::default())?)
        .define_job::<LateEvents>()
        .with_cron(late.payload(LateEvents::default())?)
        .define_job::<Rollouts>()
        .with_cron(rollouts.payload(Rollouts::default())?);
    if app.config.twilio.is_some() {
        // Every minute whatever happens: what is to be tried again has its time in the tables.
        let due =
            Cron::every_minute::<PointNumbers>().queue(PointNumbers::IDENTIFIER).job_key(PointNumbers::IDENTIFIER);
        let drift = Cron::hourly_at::<CheckDrift>(7)?.queue(CheckDrift::IDENTIFIER).job_key(CheckDrift::IDENTIFIER);
        let left = Cron::every_minute::<BuyNumbers>().queue(BuyNumbers::IDENTIFIER).job_key(BuyNumbers::IDENTIFIER);
        options = options
            .define_job::<PointNumbers>()
            .with_cron(due.payload(PointNumbers::default())?)
            .define_job::<CheckDrift>()
            .with_cron(drift.payload(CheckDrift::default())?)
            .define_job::<BuyNumbers>()
            .with_cron(left.payload(BuyNumbers::default())?);
    }
    if let Some(kv) = app.kv() {
        // Every minute whatever happens: this bounds the delay after an outage, where the growing delays of retries
        // would reach hours, and it finds changes that were made by hand.
        let differences = Cron::every_minute::<Replicate>().queue(Replicate::IDENTIFIER).job_key(Replicate::IDENTIFIER);
        // Whether the store itself is what was written to it.
        let sweep = Cron::hourly_at::<Sweep>(47)?.queue(Sweep::IDENTIFIER).job_key(Sweep::IDENTIFIER);
        options = options
            .add_extension(Replicator::new(app.db.clone(), kv.clone(), Arc::clone(&app.metrics)))
            .define_job::<Replicate>()
            .with_cron(differences.payload(Replicate::default())?)
            .add_extension(kv)
            .define_job::<Sweep>()
            .with_cron(sweep.payload(Sweep::default())?);
    }
    Ok(options.init().await?)
}
