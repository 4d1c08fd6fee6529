//! Stream tokens that were used: each opens one stream.

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::Result;

/// Uses up a token, named by a hash of its signature. `false`: it was used before.
pub async fn consume(conn: &mut PgConnection, signature_hash: &[u8], expires_at: OffsetDateTime) -> Result<bool> {
    // Expired tokens are refused by their own date, so their rows can go; few exist at a time.
    sqlx::query!("delete from used_stream_tokens where expires_at < now() - interval '1 minute'")
        .execute(&mut *conn)
        .await?;
    let inserted = sqlx::query!(
        "insert into used_stream_tokens (signature_hash, expires_at) values ($1, $2) on conflict do nothing",
        signature_hash,
        expires_at
    )
    .execute(conn)
    .await?;
    Ok(inserted.rows_affected() == 1)
}
