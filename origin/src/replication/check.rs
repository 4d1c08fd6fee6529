//! The full sweep: is the edge's store what the tables say?
//!
//! A listing tells every key with the revision that it was written at, so ten thousand routes are ten requests. Where the
//! revisions agree the values are read and compared, in another hundred: somebody may have changed one by hand. What is
//! missing, stale, changed or left over is noted as doubtful, and the replication job writes or deletes it in its own
//! order: there is one writer. Keys that are no routes, such as dead letters, are not ours to judge.

use std::collections::HashMap;
use std::sync::Arc;

use graphile_worker::{IntoTaskHandlerResult, TaskHandler, WorkerContext};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::dead_letter;
use sqlx::{Connection as _, PgPool};
use tokio::time::{Duration, MissedTickBehavior, interval};

use crate::App;
use crate::providers::cloudflare::{CloudflareError, Kv, Listed, MAX_GET};
use crate::store::replica::{self, Expected};
use crate::store::{StoreError, routes};
use crate::telemetry::{FindingLabels, Metrics};

/// How the keys of routes begin.
const PREFIXES: [&str; 2] = ["number:", "assistant:"];
/// For so long after a write the store may show what was there before: KV promises no less than a minute.
const RECENT_S: f64 = 120.0;
/// The pause between two reads of values: Cloudflare allows four requests a second, and replication needs some.
const READ_PACE: Duration = Duration::from_millis(300);

/// What a sweep found. Every list is sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Findings {
    /// How many routes there are.
    pub routes: usize,
    /// How many routes' keys the store has.
    pub listed: usize,
    /// Changes that the replication job has not sent yet, or only just: no fault.
    pub pending: usize,
    /// Keys that were written and are gone.
    pub missing: Vec<String>,
    /// Keys with an older revision than was written, or with one that cannot be told.
    pub stale: Vec<String>,
    /// Keys with another value than was written at their revision.
    pub changed: Vec<String>,
    /// Keys that are no routes any more.
    pub orphaned: Vec<String>,
    /// Keys with a revision that the tables have not reached: the database was brought back from a backup.
    pub ahead: Vec<Ahead>,
    /// How many dead letters there are.
    pub dead_letters: usize,
}

/// A key that is ahead of the tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ahead {
    /// The key.
    pub key: String,
    /// The revision in the store.
    pub revision: i64,
}

impl Findings {
    /// Whether the store is what it should be.
    pub fn is_clean(&self) -> bool {
        let lists = [&self.missing, &self.stale, &self.changed, &self.orphaned];
        lists.iter().all(|keys| keys.is_empty()) && self.ahead.is_empty()
    }

    /// Whether something is wrong with this key.
    fn has(&self, key: &str) -> bool {
        let lists = [&self.missing, &self.stale];
        lists.iter().any(|keys| keys.binary_search_by(|found| found.as_str().cmp(key)).is_ok())
            || self.ahead.binary_search_by(|found| found.key.as_str().cmp(key)).is_ok()
    }

    /// Keys to write or delete once more.
    fn doubtful(&self) -> Vec<String> {
        let keys = self.missing.iter().chain(&self.stale).chain(&self.changed).chain(&self.orphaned);
        keys.chain(self.ahead.iter().map(|ahead| &ahead.key)).cloned().collect()
    }
}

/// Why a sweep failed.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Cloudflare.
    #[error(transparent)]
    Cloudflare(#[from] CloudflareError),
}

/// Compares the store with the tables.
pub async fn check(db: &PgPool, kv: &Kv) -> Result<Findings, CheckError> {
    // In this order: a change that is made and sent meanwhile then shows as recent, not as a fault.
    let listed = kv.list("").await?;
    let expected = replica::expected(&mut *db.acquire().await.map_err(StoreError::from)?, RECENT_S).await?;
    let mut findings = compare(&listed, &expected);
    let agreeing = expected.iter().filter(|key| agrees(key) && !key.recent && !findings.has(&key.key));
    findings.changed = changed(kv, &agreeing.collect::<Vec<_>>()).await?;
    Ok(findings)
}

/// Whether what was noted is what belongs there, so that the store can be held to it.
fn agrees(key: &Expected) -> bool {
    key.revision.is_some() && key.noted == key.revision
}

/// Those of the keys that hold another value. The order of members and the spelling of numbers do not count.
async fn changed(kv: &Kv, keys: &[&Expected]) -> Result<Vec<String>, CloudflareError> {
    let mut changed = Vec::new();
    let mut pace = interval(READ_PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for some in keys.chunks(MAX_GET) {
        pace.tick().await;
        let names: Vec<String> = some.iter().map(|key| key.key.clone()).collect();
        let values = kv.get_patiently(&names).await?;
        let differs = |key: &&&Expected| {
            let there = values.get(&key.key).and_then(|text| serde_json::from_str::<Value>(text).ok());
            // One that was there when the store was listed and is gone now will be missed the next time.
            values.contains_key(&key.key) && there != key.value
        };
        changed.extend(some.iter().filter(differs).map(|key| key.key.clone()));
    }
    changed.sort_unstable();
    Ok(changed)
}

/// Compares, and notes what is wrong for the replication job, which is asked to run; tells what was found.
pub async fn repair(db: &PgPool, kv: &Kv) -> Result<Findings, CheckError> {
    let findings = check(db, kv).await?;
    if findings.is_clean() {
        return Ok(findings);
    }
    let mut conn = db.acquire().await.map_err(StoreError::from)?;
    let mut transaction = conn.begin().await.map_err(StoreError::from)?;
    if let Some(above) = findings.ahead.iter().map(|ahead| ahead.revision).max() {
        // An older revision never replaces a newer: the tables take revisions that are newer still.
        let keys: Vec<String> = findings.ahead.iter().map(|ahead| ahead.key.clone()).collect();
        routes::raise(&mut transaction, above, &keys).await?;
    }
    replica::doubt(&mut transaction, &findings.doubtful(), RECENT_S).await?;
    super::enqueue(&mut transaction).await?;
    transaction.commit().await.map_err(StoreError::from)?;
    Ok(findings)
}

/// Whether everything that should be sent has been, as far as is noted.
pub async fn is_settled(db: &PgPool) -> Result<bool, StoreError> {
    let mut conn = db.acquire().await?;
    Ok(routes::stale(&mut conn, 1).await?.is_empty() && routes::removed(&mut conn, 1).await?.is_empty())
}

fn compare(listed: &[Listed], expected: &[Expected]) -> Findings {
    let in_store: HashMap<&str, Option<i64>> = listed
        .iter()
        .filter(|key| PREFIXES.iter().any(|prefix| key.name.starts_with(prefix)))
        .map(|key| (key.name.as_str(), key.metadata["revision"].as_i64()))
        .collect();
    let mut findings = Findings {
        routes: expected.iter().filter(|key| key.revision.is_some()).count(),
        listed: in_store.len(),
        dead_letters: listed.iter().filter(|key| key.name.starts_with(dead_letter::KEY_PREFIX)).count(),
        ..Findings::default()
    };
    for key in expected {
        let name = key.key.clone();
        match (key.revision, in_store.get(key.key.as_str())) {
            (Some(revision), Some(Some(there))) if *there > revision => {
                findings.ahead.push(Ahead { key: name, revision: *there });
            }
            (Some(revision), Some(Some(there))) if *there == revision && key.noted == Some(revision) => {}
            // The job is at it, or will be.
            (revision, _) if key.recent || key.noted != revision => findings.pending += 1,
            (Some(_), Some(_)) => findings.stale.push(name),
            (Some(_), None) => findings.missing.push(name),
            (None, _) => {}
        }
    }
    let known: std::collections::HashSet<&str> = expected.iter().map(|key| key.key.as_str()).collect();
    let left_over = in_store.keys().filter(|key| !known.contains(**key));
    findings.orphaned.extend(left_over.map(|key| (*key).to_owned()));
    findings.missing.sort_unstable();
    findings.stale.sort_unstable();
    findings.orphaned.sort_unstable();
    findings.ahead.sort_unstable_by(|left, right| left.key.cmp(&right.key));
    findings
}

/// The job.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Sweep {}

impl TaskHandler for Sweep {
    const IDENTIFIER: &'static str = "sweep";

    async fn run(self, ctx: WorkerContext) -> impl IntoTaskHandlerResult {
        match (ctx.get_ext::<Arc<App>>(), ctx.get_ext::<Kv>()) {
            (Some(app), Some(kv)) => sweep(app, kv).await.map_err(|error| error.to_string()),
            _ => Err("replication is not configured".to_owned()),
        }
    }
}

/// Repairs, and tells in metrics and the log what was found.
pub async fn sweep(app: &App, kv: &Kv) -> Result<(), CheckError> {
    let findings = repair(&app.db, kv).await?;
    count(&app.metrics, &findings);
    if findings.is_clean() {
        tracing::info!(routes = findings.routes, "The edge's store is what the tables say");
    } else {
        tracing::error!(
            missing = findings.missing.len(),
            stale = findings.stale.len(),
            changed = findings.changed.len(),
            orphaned = findings.orphaned.len(),
            ahead = findings.ahead.len(),
            "The edge's store was not what was written; it is written again"
        );
    }
    if findings.dead_letters > 0 {
        tracing::error!(letters = findings.dead_letters, "Events lie among the dead letters: `tandem deadletters`");
    }
    Ok(())
}

fn count(metrics: &Metrics, findings: &Findings) {
    let found = [
        ("missing", findings.missing.len()),
        ("stale", findings.stale.len()),
        ("changed", findings.changed.len()),
        ("orphaned", findings.orphaned.len()),
        ("ahead", findings.ahead.len()),
    ];
    for (finding, keys) in found {
        metrics.replica_faults.get_or_create(&FindingLabels { finding }).inc_by(keys as u64);
    }
    metrics.dead_letters.set(findings.dead_letters as u64);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn listed(name: &str, metadata: Value) -> Listed {
        Listed { name: name.to_owned(), metadata }
    }

    fn expected(key: &str, revision: Option<i64>, noted: Option<i64>) -> Expected {
        Expected { key: key.to_owned(), revision, value: None, noted, recent: false }
    }

    #[test]
    fn every_difference_has_its_name() {
        let store = [
            listed("assistant:ok", json!({ "revision": 5 })),
            listed("number:old", json!({ "revision": 4 })),
            listed("number:unmarked", Value::Null),
            listed("number:gone", json!({ "revision": 2 })),
            listed("number:newer", json!({ "revision": 9 })),
            listed("number:waiting", json!({ "revision": 3 })),
            listed("dead:1:x", Value::Null),
            listed("other", Value::Null),
        ];
        let tables = [
            expected("assistant:ok", Some(5), Some(5)),
            expected("number:old", Some(5), Some(5)),
            expected("number:unmarked", Some(5), Some(5)),
            expected("number:lost", Some(5), Some(5)),
            expected("number:newer", Some(5), Some(5)),
            expected("number:waiting", Some(7), Some(3)),
            expected("number:new", Some(7), None),
            expected("number:removed", None, Some(3)),
        ];
        let key = |key: &str| vec![key.to_owned()];
        assert_eq!(
            compare(&store, &tables),
            Findings {
                routes: 7,
                listed: 6,
                pending: 3,
                missing: key("number:lost"),
                stale: vec!["number:old".to_owned(), "number:unmarked".to_owned()],
                changed: vec![],
                orphaned: key("number:gone"),
                ahead: vec![Ahead { key: "number:newer".to_owned(), revision: 9 }],
                dead_letters: 1,
            }
        );
    }

    #[test]
    fn what_was_written_a_moment_ago_is_no_fault() {
        let recent = |key: &str| Expected { recent: true, ..expected(key, Some(5), Some(5)) };
        let store = [listed("number:b", json!({ "revision": 4 }))];
        let findings = compare(&store, &[recent("number:a"), recent("number:b")]);
        assert!(findings.is_clean() && findings.pending == 2, "{findings:?}");
    }
}
