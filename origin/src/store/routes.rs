//! Routes: what the edge must know, projected by the view `routes`; the truth for decisions made at the origin.

use serde::de::DeserializeOwned;
use serde_json::Value;
use shared::route::{AssistantRoute, NumberRoute};
use shared::{AssistantId, E164};
use sqlx::PgConnection;

use super::{Result, StoreError};

/// One key of the edge's store and what belongs there.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// The key.
    pub key: String,
    /// Grows with every change.
    pub revision: i64,
    /// A [`NumberRoute`] or an [`AssistantRoute`] as JSON.
    pub value: Value,
}

/// Where calls to this number go now. `None`: nobody answers it.
pub async fn number(conn: &mut PgConnection, number: &E164) -> Result<Option<NumberRoute>> {
    find(conn, &NumberRoute::key(number)).await
}

/// Which system the agent of this assistant is on now. `None`: no agent has it.
pub async fn assistant(conn: &mut PgConnection, assistant: &AssistantId) -> Result<Option<AssistantRoute>> {
    find(conn, &AssistantRoute::key(assistant)).await
}

async fn find<R: DeserializeOwned>(conn: &mut PgConnection, key: &str) -> Result<Option<R>> {
    sqlx::query_scalar!(r#"select value as "value!" from routes where key = $1"#, key)
        .fetch_optional(conn)
        .await?
        .map(serde_json::from_value)
        .transpose()
        .map_err(|_| StoreError::Corrupt("route"))
}

/// Routes that the edge's store does not hold as they are now, the longest waiting first.
pub async fn stale(conn: &mut PgConnection, limit: i64) -> Result<Vec<Route>> {
    let routes = sqlx::query_as!(
        Route,
        r#"select r.key as "key!", r.revision as "revision!", r.value as "value!"
           from routes r left join replica p on p.key = r.key
           where p.revision is distinct from r.revision
           order by r.revision limit $1"#,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(routes)
}

/// Keys in the edge's store that are no longer routes.
pub async fn removed(conn: &mut PgConnection, limit: i64) -> Result<Vec<String>> {
    let keys = sqlx::query_scalar!(
        "select p.key from replica p where not exists (select from routes r where r.key = p.key) order by p.key limit $1",
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(keys)
}

/// Gives the agents and numbers behind these keys revisions above `above`.
pub async fn raise(conn: &mut PgConnection, above: i64, keys: &[String]) -> Result<()> {
    sqlx::query_scalar!("select setval('route_revision', greatest(nextval('route_revision'), $1))", above)
        .fetch_one(&mut *conn)
        .await?;
    // Any change takes a new revision. Agents first, and both in order: the lock order of all changes.
    sqlx::query!(
        "update agents set revision = 0 where id in
             (select a.id from agents a
              where a.id in (select agent_id from routes where key = any($1)) order by a.id for update)",
        keys
    )
    .execute(conn)
    .await?;
    Ok(())
}
