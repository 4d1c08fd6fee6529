//! Projects: the tenants.

use shared::ProjectId;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Result;

/// A tenant.
#[derive(Clone, Debug)]
pub struct Project {
    /// The project's id.
    pub id: ProjectId,
    /// Unique.
    pub name: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// Grows with every change.
    pub revision: i64,
}

/// The project of this name, made when there is none.
pub async fn ensure(conn: &mut PgConnection, name: &str) -> Result<ProjectId> {
    let id = sqlx::query_scalar!(
        "insert into projects (id, name) values ($1, $2)
         on conflict (name) do update set name = excluded.name
         returning id",
        Uuid::now_v7(),
        name
    )
    .fetch_one(conn)
    .await?;
    Ok(ProjectId(id))
}

/// Finds a project by its name, or by its id as text.
pub async fn find(conn: &mut PgConnection, name_or_id: &str) -> Result<Option<ProjectId>> {
    let id = sqlx::query_scalar!("select id from projects where name = $1 or id::text = lower($1)", name_or_id)
        .fetch_optional(conn)
        .await?;
    Ok(id.map(ProjectId))
}

/// Every project's id and name, in the order of names.
pub async fn all(conn: &mut PgConnection) -> Result<Vec<(ProjectId, String)>> {
    let rows = sqlx::query!("select id, name from projects order by name").fetch_all(conn).await?;
    Ok(rows.into_iter().map(|row| (ProjectId(row.id), row.name)).collect())
}

/// A project.
pub async fn get(conn: &mut PgConnection, id: ProjectId) -> Result<Option<Project>> {
    let row = sqlx::query!("select name, created_at, revision from projects where id = $1", id.0)
        .fetch_optional(conn)
        .await?;
    Ok(row.map(|row| Project { id, name: row.name, created_at: row.created_at, revision: row.revision }))
}

/// The same, and nobody else changes it until the transaction ends.
pub async fn lock(conn: &mut PgConnection, id: ProjectId) -> Result<Option<Project>> {
    let row = sqlx::query!("select name, created_at, revision from projects where id = $1 for no key update", id.0)
        .fetch_optional(conn)
        .await?;
    Ok(row.map(|row| Project { id, name: row.name, created_at: row.created_at, revision: row.revision }))
}

/// Gives a locked project another name. Fails where it is taken.
pub async fn rename(conn: &mut PgConnection, id: ProjectId, name: &str) -> Result<()> {
    sqlx::query!("update projects set name = $2 where id = $1", id.0, name).execute(conn).await?;
    Ok(())
}
