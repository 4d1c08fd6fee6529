//! API keys: who may ask for what. Only hashes are here.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use shared::ProjectId;
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Result, StoreError, text};
use crate::keys::KeyDigest;

/// A key's name, which is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct KeyId(pub Uuid);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for KeyId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// What a key allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
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

impl FromStr for Role {
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
    /// The key's id.
    pub id: Uuid,
    /// The project that the key opens, and no other.
    pub project_id: ProjectId,
    /// What it allows there.
    pub role: Role,
    /// The key's first characters.
    pub prefix: String,
}

/// A key as its owner is shown it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// Its id.
    pub id: KeyId,
    /// What it allows.
    pub role: Role,
    /// The key's first characters.
    pub prefix: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it was last used, to the minute.
    pub last_used_at: Option<OffsetDateTime>,
    /// Since when it is refused.
    pub revoked_at: Option<OffsetDateTime>,
}

struct Row {
    id: Uuid,
    role: String,
    prefix: String,
    created_at: OffsetDateTime,
    last_used_at: Option<OffsetDateTime>,
    revoked_at: Option<OffsetDateTime>,
}

impl TryFrom<Row> for KeyRecord {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: KeyId(row.id),
            role: text(&row.role, "role")?,
            prefix: row.prefix,
            created_at: row.created_at,
            last_used_at: row.last_used_at,
            revoked_at: row.revoked_at,
        })
    }
}

/// Keeps a new key.
pub async fn insert(conn: &mut PgConnection, project: ProjectId, role: Role, key: &KeyDigest) -> Result<KeyRecord> {
    let row = sqlx::query_as!(
        Row,
        "insert into api_keys (id, project_id, role, hash, prefix) values ($1, $2, $3, $4, $5)
         returning id, role, prefix, created_at, last_used_at, revoked_at",
        Uuid::now_v7(),
        project.0,
        role.as_str(),
        &key.hash,
        key.prefix
    )
    .fetch_one(conn)
    .await?;
    row.try_into()
}

/// The project's keys, the newest first; with `before`, those older than that one.
pub async fn list(
    conn: &mut PgConnection,
    project: ProjectId,
    before: Option<KeyId>,
    limit: i64,
) -> Result<Vec<KeyRecord>> {
    let rows = sqlx::query_as!(
        Row,
        "select id, role, prefix, created_at, last_used_at, revoked_at from api_keys
         where project_id = $1 and ($2::uuid is null or id < $2) order by id desc limit $3",
        project.0,
        before.map(|id| id.0),
        limit
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(KeyRecord::try_from).collect()
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
    Ok(Some(ApiKey {
        id: row.id,
        project_id: ProjectId(row.project_id),
        role: text(&row.role, "role")?,
        prefix: row.prefix,
    }))
}

/// The project's key, locked until the transaction ends.
pub async fn lock(conn: &mut PgConnection, project: ProjectId, key: KeyId) -> Result<Option<KeyRecord>> {
    sqlx::query_as!(
        Row,
        "select id, role, prefix, created_at, last_used_at, revoked_at from api_keys
         where project_id = $1 and id = $2 for update",
        project.0,
        key.0
    )
    .fetch_optional(conn)
    .await?
    .map(KeyRecord::try_from)
    .transpose()
}

/// Refuses a key from now on; tells when that is.
pub async fn revoke(conn: &mut PgConnection, key: KeyId) -> Result<OffsetDateTime> {
    let at = sqlx::query_scalar!(
        r#"update api_keys set revoked_at = coalesce(revoked_at, clock_timestamp()) where id = $1
           returning revoked_at as "revoked_at!""#,
        key.0
    )
    .fetch_one(conn)
    .await?;
    Ok(at)
}
