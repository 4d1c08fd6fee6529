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

/// Makes a project. Fails where the name is taken.
pub async fn insert(conn: &mut PgConnection, name: &str) -> Result<Project> {
    let row = sqlx::query!(
        "insert into projects (id, name) values ($1, $2) returning id, created_at, revision",
        Uuid::now_v7(),
        name
    )
    .fetch_one(conn)
    .await?;
    let (id, name) = (ProjectId(row.id), name.to_owned());
    Ok(Project { id, name, created_at: row.created_at, revision: row.revision })
}

/// Finds a project by its id as text, or by its name. A name that is another project's id does not hide that one.
pub async fn find(conn: &mut PgConnection, name_or_id: &str) -> Result<Option<ProjectId>> {
    let id = sqlx::query_scalar!(
        "select id from projects where name = $1 or id::text = lower($1) order by id::text = lower($1) desc limit 1",
        name_or_id
    )
    .fetch_optional(conn)
    .await?;
    Ok(id.map(ProjectId))
}

/// Every project, in the order of names.
pub async fn all(conn: &mut PgConnection) -> Result<Vec<Project>> {
    let rows =
        sqlx::query!("select id, name, created_at, revision from projects order by name").fetch_all(conn).await?;
    let project = rows.into_iter().map(|row| Project {
        id: ProjectId(row.id),
        name: row.name,
        created_at: row.created_at,
        revision: row.revision,
    });
    Ok(project.collect())
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
