//! Projects: made and renamed, with an event each. None is ever deleted: its log is kept.

use serde_json::json;
use sqlx::PgConnection;

use crate::store::StoreError;
use crate::store::events::{self, Actor, NewEvent};
use crate::store::projects::{self, Project};

const MOST_NAME: usize = 200;

/// Why a project was not made or renamed.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// No name.
    #[error("name must be of 1 to 200 characters, and not blank")]
    Invalid,
    /// Another project has it.
    #[error("another project has this name")]
    NameTaken,
    /// The database.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for ProjectError {
    fn from(error: StoreError) -> Self {
        if error.constraint() == Some("projects_name_unique") { Self::NameTaken } else { Self::Store(error) }
    }
}

/// Makes a project, within the caller's transaction.
pub async fn create(conn: &mut PgConnection, name: &str, actor: &Actor) -> Result<Project, ProjectError> {
    check(name)?;
    let project = projects::insert(conn, name).await?;
    let after = Some(json!({ "name": name }));
    events::append(conn, &NewEvent { after, ..NewEvent::new(project.id, "project.created", actor) }).await?;
    Ok(project)
}

/// Gives a locked project another name. The same again changes and logs nothing.
pub async fn rename(conn: &mut PgConnection, project: &Project, name: &str, actor: &Actor) -> Result<(), ProjectError> {
    check(name)?;
    if project.name != name {
        projects::rename(conn, project.id, name).await?;
        let event = NewEvent {
            before: Some(json!({ "name": project.name })),
            after: Some(json!({ "name": name })),
            ..NewEvent::new(project.id, "project.changed", actor)
        };
        events::append(conn, &event).await?;
    }
    Ok(())
}

fn check(name: &str) -> Result<(), ProjectError> {
    let is_name = !name.trim().is_empty() && name.chars().count() <= MOST_NAME;
    if is_name { Ok(()) } else { Err(ProjectError::Invalid) }
}
