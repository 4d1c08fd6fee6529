//! Projects: the tenants.

use shared::ProjectId;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Result;

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
