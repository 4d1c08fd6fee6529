//! What the edge's store holds, as far as we know.

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

/// Notes that these keys are about to be written, before they are: a key that was written but not noted could
/// never be deleted again.
pub async fn claim(conn: &mut PgConnection, routes: &[Route]) -> Result<()> {
    let keys: Vec<String> = routes.iter().map(|route| route.key.clone()).collect();
    sqlx::query!("insert into replica (key) select unnest($1::text[]) on conflict do nothing", &keys)
        .execute(conn)
        .await?;
    Ok(())
}

/// Notes what was written.
///
/// Deliberately the last writer's word, not the greatest revision: should an overtaken run write an old value late,
/// the difference shows and the next run repairs it.
pub async fn record(conn: &mut PgConnection, routes: &[Route]) -> Result<()> {
    let keys: Vec<String> = routes.iter().map(|route| route.key.clone()).collect();
    let revisions: Vec<i64> = routes.iter().map(|route| route.revision).collect();
    sqlx::query!(
        "insert into replica (key, revision, replicated_at)
         select key, revision, now() from unnest($1::text[], $2::bigint[]) as written (key, revision)
         on conflict (key) do update set revision = excluded.revision, replicated_at = excluded.replicated_at",
        &keys,
        &revisions
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets keys that were deleted.
pub async fn forget(conn: &mut PgConnection, keys: &[String]) -> Result<()> {
    sqlx::query!("delete from replica where key = any($1)", keys).execute(conn).await?;
    Ok(())
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
