//! What `POST` requests with an `Idempotency-Key` were answered.

use serde_json::Value;
use shared::ProjectId;
use sqlx::PgConnection;

use super::{Result, StoreError};

/// A key of a project, for one path.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Whose it is.
    pub project: ProjectId,
    /// The path and query that it came to.
    pub path: &'a str,
    /// The key itself.
    pub key: &'a str,
}

/// What came of a key.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The SHA-256 of the body that it came with.
    pub body_sha256: [u8; 32],
    /// The answer.
    pub answer: Value,
}

/// Claims a key within the transaction that does its work. Waits for another that has claimed it; `false`: that one has
/// taken effect.
pub async fn claim(conn: &mut PgConnection, claim: &Claim<'_>, body_sha256: &[u8; 32]) -> Result<bool> {
    let done = sqlx::query!(
        "insert into idempotency_keys (project_id, path, key, body_sha256) values ($1, $2, $3, $4)
         on conflict do nothing",
        claim.project.0,
        claim.path,
        claim.key,
        body_sha256
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Keeps the answer of a claimed key.
pub async fn keep(conn: &mut PgConnection, claim: &Claim<'_>, answer: &Value) -> Result<()> {
    sqlx::query!(
        "update idempotency_keys set answer = $4 where project_id = $1 and path = $2 and key = $3",
        claim.project.0,
        claim.path,
        claim.key,
        answer
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What came of a key.
pub async fn find(conn: &mut PgConnection, claim: &Claim<'_>) -> Result<Option<Kept>> {
    let row = sqlx::query!(
        r#"select body_sha256, answer as "answer!" from idempotency_keys
           where project_id = $1 and path = $2 and key = $3 and answer is not null"#,
        claim.project.0,
        claim.path,
        claim.key
    )
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        let body_sha256 = row.body_sha256.try_into().map_err(|_| StoreError::Corrupt("hash of a body"))?;
        Ok(Kept { body_sha256, answer: row.answer })
    })
    .transpose()
}

/// Forgets keys that are older than this; tells how many.
pub async fn prune(conn: &mut PgConnection, keep_hours: i32, most: i64) -> Result<u64> {
    let done = sqlx::query!(
        "delete from idempotency_keys where (project_id, path, key) in
             (select project_id, path, key from idempotency_keys
              where claimed_at < now() - make_interval(hours => $1) limit $2)",
        keep_hours,
        most
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
