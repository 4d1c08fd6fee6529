//! API keys: who may ask for what. Only hashes are here.

use shared::ProjectId;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Result, text};
use crate::keys::KeyDigest;

/// What a key allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Reading only.
    Read,
    /// Reading and changing.
    Write,
}

impl Role {
    /// The spelling in the database and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = &'static str;

    fn from_str(word: &str) -> std::result::Result<Self, Self::Err> {
        match word {
            "read" => Ok(Self::Read),
            "write" => Ok(Self::Write),
            _ => Err("a role is `read` or `write`"),
        }
    }
}

/// A valid key's rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// The project that the key opens, and no other.
    pub project_id: ProjectId,
    /// What it allows there.
    pub role: Role,
    /// The key's first characters.
    pub prefix: String,
}

/// Keeps a new key.
pub async fn insert(conn: &mut PgConnection, project: ProjectId, role: Role, key: &KeyDigest) -> Result<()> {
    sqlx::query!(
        "insert into api_keys (id, project_id, role, hash, prefix) values ($1, $2, $3, $4, $5)",
        Uuid::now_v7(),
        project.0,
        role.as_str(),
        &key.hash,
        key.prefix
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The key with this hash, unless it was revoked. Notes that it was used, once a minute at most.
pub async fn find(conn: &mut PgConnection, hash: &[u8; 32]) -> Result<Option<ApiKey>> {
    let Some(row) = sqlx::query!(
        "select id, project_id, role, prefix,
                coalesce(last_used_at < now() - interval '1 minute', true) as \"is_stale!\"
         from api_keys where hash = $1 and revoked_at is null",
        hash
    )
    .fetch_optional(&mut *conn)
    .await?
    else {
        return Ok(None);
    };
    if row.is_stale {
        sqlx::query!("update api_keys set last_used_at = now() where id = $1", row.id).execute(conn).await?;
    }
    Ok(Some(ApiKey { project_id: ProjectId(row.project_id), role: text(&row.role, "role")?, prefix: row.prefix }))
}

/// Revokes the project's keys with this prefix; tells how many there were.
pub async fn revoke(conn: &mut PgConnection, project: ProjectId, prefix: &str) -> Result<u64> {
    let done = sqlx::query!(
        "update api_keys set revoked_at = now() where project_id = $1 and prefix = $2 and revoked_at is null",
        project.0,
        prefix
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
