//! What the edge's store holds, as far as we know.

use serde_json::Value;
use shared::AgentId;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Result;
use super::routes::Route;

/// How far an agent's routes have reached the edge's store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaState {
    /// Whose routes these are.
    pub agent_id: AgentId,
    /// The greatest revision of the agent's routes.
    pub revision: i64,
    /// Whether all of them are there.
    pub replicated: bool,
    /// When the last of them was written; `None` until all are there.
    pub replicated_at: Option<OffsetDateTime>,
}

/// Notes that a run is about to write or delete these keys, before it does: a key that was written but not noted could
/// never be deleted again.
pub async fn claim(conn: &mut PgConnection, run: Uuid, keys: &[String]) -> Result<()> {
    sqlx::query!(
        "insert into replica (key, claim) select key, $1 from unnest($2::text[]) as written (key)
         on conflict (key) do update set claim = excluded.claim",
        run,
        keys
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes what a run has written. Where its claim was taken away in between, nobody knows which value came last, so the
/// key counts as not written.
pub async fn record(conn: &mut PgConnection, run: Uuid, routes: &[Route]) -> Result<()> {
    let keys: Vec<String> = routes.iter().map(|route| route.key.clone()).collect();
    let revisions: Vec<i64> = routes.iter().map(|route| route.revision).collect();
    sqlx::query!(
        "update replica set revision = case when claim = $1 then written.revision else 0 end,
                            replicated_at = now(), claim = null, doubted_at = null
         from unnest($2::text[], $3::bigint[]) as written (key, revision)
         where replica.key = written.key",
        run,
        &keys,
        &revisions
    )
    .execute(&mut *conn)
    .await?;
    // A key that another run has deleted in between is there again.
    sqlx::query!("insert into replica (key) select unnest($1::text[]) on conflict do nothing", &keys)
        .execute(conn)
        .await?;
    Ok(())
}

/// Forgets keys that a run has deleted, and doubts those whose claim was taken away in between.
pub async fn forget(conn: &mut PgConnection, run: Uuid, keys: &[String]) -> Result<()> {
    sqlx::query!("delete from replica where key = any($2) and claim = $1", run, keys).execute(&mut *conn).await?;
    sqlx::query!("update replica set revision = 0, claim = null where key = any($1)", keys).execute(conn).await?;
    Ok(())
}

/// Doubts what was noted of these keys, unless it has been written since: the next run writes or deletes them.
pub async fn doubt(conn: &mut PgConnection, keys: &[String], written_before_s: f64) -> Result<u64> {
    let done = sqlx::query!(
        "insert into replica (key, doubted_at) select key, now() from unnest($1::text[]) as found (key)
         on conflict (key) do update set revision = 0, doubted_at = now()
         where replica.replicated_at is null or replica.replicated_at < now() - make_interval(secs => $2)",
        keys,
        written_before_s
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// A key as it should be, and as it was noted to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The key.
    pub key: String,
    /// The revision that belongs there; `None`: the key should go.
    pub revision: Option<i64>,
    /// The value that belongs there.
    pub value: Option<Value>,
    /// The revision that was noted as written.
    pub noted: Option<i64>,
    /// Whether it was written so recently that KV may still show what was there before.
    pub recent: bool,
}

/// Every key that is a route or was written as one.
pub async fn expected(conn: &mut PgConnection, recent_s: f64) -> Result<Vec<Expected>> {
    let rows = sqlx::query_as!(
        Expected,
        r#"select coalesce(r.key, p.key) as "key!", r.revision, r.value, p.revision as "noted?",
                  coalesce(p.replicated_at > now() - make_interval(secs => $1), false) as "recent!"
           from routes r full join replica p on p.key = r.key"#,
        recent_s
    )
    .fetch_all(conn)
    .await?;
    Ok(rows)
}

/// For how many seconds the oldest change has waited to be replicated; 0 when nothing waits.
pub async fn lag_s(conn: &mut PgConnection) -> Result<i64> {
    let seconds = sqlx::query_scalar!(
        r#"select coalesce(extract(epoch from now() - min(greatest(r.changed_at, p.doubted_at)))::bigint, 0) as "lag!"
           from routes r left join replica p on p.key = r.key
           where p.revision is distinct from r.revision"#
    )
    .fetch_one(conn)
    .await?;
    Ok(seconds.max(0))
}

/// How far the routes of these agents have come. An agent without routes is not in the answer.
pub async fn of_agents(conn: &mut PgConnection, agents: &[AgentId]) -> Result<Vec<ReplicaState>> {
    let agents: Vec<Uuid> = agents.iter().map(|agent| agent.0).collect();
    let rows = sqlx::query!(
        r#"select r.agent_id as "agent_id!", max(r.revision) as "revision!",
                  bool_and(p.revision is not distinct from r.revision) as "replicated!",
                  max(p.replicated_at) as replicated_at
           from routes r left join replica p on p.key = r.key
           where r.agent_id = any($1) group by r.agent_id"#,
        &agents
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| ReplicaState {
            agent_id: AgentId(row.agent_id),
            revision: row.revision,
            replicated: row.replicated,
            replicated_at: row.replicated_at.filter(|_| row.replicated),
        })
        .collect())
}
