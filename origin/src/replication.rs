//! Replication: brings the edge's store to what the tables say.
//!
//! A change of an agent or a number calls [`enqueue`] in its own transaction. The job then compares the view `routes`
//! with the table `replica` and sends what differs, whatever the cause. So jobs that are late, repeated or lost do no
//! harm, and jobs that wait can be folded into one.
//!
//! An older value must not overtake a newer. Runs go one at a time: the job library gives a run's queue to another
//! worker only half a minute after its last sign of life, longer than a request may take. Should two runs cross all the
//! same, the claims in `replica` tell, and the key is written once more. What changes in the store without us, and what
//! slipped through after all, is found by [`check`], which compares the store itself.

pub mod check;

use std::sync::Arc;
use std::time::Duration;

use graphile_worker::{IntoTaskHandlerResult, TaskHandler, WorkerContext};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::providers::cloudflare::{CloudflareError, Kv, Pair};
use crate::store::routes::Route;
use crate::store::{self, StoreError, replica, routes};
use crate::telemetry::{Metrics, OutcomeLabels};

/// Keys in one request. Cloudflare allows 10,000, but small requests fail and repeat more cheaply.
const BATCH: i64 = 1_000;
/// The pause after a write. KV takes one write a second for each key, and the API four requests a second in all;
/// changes made meanwhile go into the next batch together.
const PACE: Duration = Duration::from_secs(1);
/// How long one run waits when Cloudflare asks it to. Asked for more, it fails and is retried later.
const MAX_WAIT: Duration = Duration::from_mins(1);
/// How often one run does so.
const MAX_WAITS: u32 = 3;

/// Asks for a replication run once the caller's transaction is committed; a rolled-back one leaves nothing behind.
///
/// Call it last: it holds a lock, until the transaction ends, that every other caller waits for. Locks taken after it
/// could deadlock.
pub async fn enqueue(conn: &mut PgConnection) -> store::Result<()> {
    // The library's own schema, so not checked against ours. The key folds waiting jobs into one; a run that has begun
    // is followed by another.
    sqlx::query(
        "select from graphile_worker.add_job(identifier => $1, payload => '{}', queue_name => $1, job_key => $1)",
    )
    .bind(Replicate::IDENTIFIER)
    .execute(conn)
    .await?;
    Ok(())
}

/// The job. It carries nothing: what there is to do is in the tables.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Replicate {}

impl TaskHandler for Replicate {
    const IDENTIFIER: &'static str = "replicate";

    async fn run(self, ctx: WorkerContext) -> impl IntoTaskHandlerResult {
        match ctx.get_ext::<Replicator>() {
            Some(replicator) => replicator.run().await,
            None => Err(ReplicationError::NotConfigured),
        }
    }
}

/// Why a run failed. The job library tries again.
#[derive(Debug, thiserror::Error)]
pub enum ReplicationError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Cloudflare.
    #[error(transparent)]
    Cloudflare(#[from] CloudflareError),
    /// Cloudflare did most of it.
    #[error("Cloudflare did not take {0} of the keys")]
    KeysFailed(usize),
    /// A bug: the job was registered without what it needs.
    #[error("replication is not configured")]
    NotConfigured,
}

impl ReplicationError {
    /// A word for metrics.
    fn label(&self) -> &'static str {
        match self {
            Self::Store(_) => "store",
            Self::Cloudflare(error) => error.label(),
            Self::KeysFailed(_) => "keys_failed",
            Self::NotConfigured => "not_configured",
        }
    }
}

/// What a run works with.
#[derive(Clone, Debug)]
pub struct Replicator {
    db: PgPool,
    kv: Kv,
    metrics: Arc<Metrics>,
}

impl Replicator {
    /// From the tables in `db` to the edge's store `kv`.
    pub fn new(db: PgPool, kv: Kv, metrics: Arc<Metrics>) -> Self {
        Self { db, kv, metrics }
    }

    /// Sends until nothing differs.
    pub async fn run(&self) -> Result<(), ReplicationError> {
        let result = self.send_all().await;
        let outcome = result.as_ref().map_or_else(ReplicationError::label, |()| "ok");
        self.metrics.replication_runs.get_or_create(&OutcomeLabels { outcome }).inc();
        if let Err(error) = &result {
            tracing::warn!(outcome, %error, "Replication to the edge failed and will be tried again");
        }
        result
    }

    async fn send_all(&self) -> Result<(), ReplicationError> {
        let mut waits = 0;
        loop {
            match self.send_batch().await {
                Ok(0) => return Ok(()),
                Ok(_) => tokio::time::sleep(PACE).await,
                Err(ReplicationError::Cloudflare(CloudflareError::RateLimited { retry_after }))
                    if waits < MAX_WAITS && retry_after <= MAX_WAIT =>
                {
                    waits += 1;
                    tokio::time::sleep(retry_after).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends one batch of differences; tells how many keys it was.
    ///
    /// No connection is held while Cloudflare is asked. The values come from one snapshot with their revisions, so what
    /// is recorded is what was sent, and a change that commits meanwhile still differs afterwards.
    async fn send_batch(&self) -> Result<usize, ReplicationError> {
        let run = Uuid::now_v7();
        let (stale, removed) = {
            let mut conn = self.db.acquire().await.map_err(StoreError::from)?;
            let stale = routes::stale(&mut conn, BATCH).await?;
            let removed = routes::removed(&mut conn, BATCH).await?;
            let keys: Vec<String> = stale.iter().map(|route| &route.key).chain(&removed).cloned().collect();
            replica::claim(&mut conn, run, &keys).await?;
            (stale, removed)
        };
        let found = stale.len() + removed.len();
        self.metrics.replication_pending.set(u64::try_from(found).unwrap_or(u64::MAX));

        let mut failed = 0;
        if !removed.is_empty() {
            let refused = self.kv.delete(&removed).await?;
            let deleted: Vec<String> = removed.into_iter().filter(|key| !refused.contains(key)).collect();
            self.done(deleted.len());
            failed += refused.len();
            let mut conn = self.db.acquire().await.map_err(StoreError::from)?;
            replica::forget(&mut conn, run, &deleted).await?;
        }
        if !stale.is_empty() {
            let pairs: Vec<Pair> = stale.iter().map(pair).collect();
            let refused = self.kv.put(&pairs).await?;
            let written: Vec<_> = stale.into_iter().filter(|route| !refused.contains(&route.key)).collect();
            self.done(written.len());
            failed += refused.len();
            let mut conn = self.db.acquire().await.map_err(StoreError::from)?;
            replica::record(&mut conn, run, &written).await?;
        }
        if failed > 0 {
            return Err(ReplicationError::KeysFailed(failed));
        }
        Ok(found)
    }

    fn done(&self, keys: usize) {
        self.metrics.replicated_keys.inc_by(u64::try_from(keys).unwrap_or(u64::MAX));
        tracing::info!(keys, "Replicated routes to the edge");
    }
}

/// A route as the store keeps it. The revision is in the metadata as well, so that a listing tells all.
fn pair(route: &Route) -> Pair {
    Pair { key: route.key.clone(), value: route.value.to_string(), metadata: json!({ "revision": route.revision }) }
}
