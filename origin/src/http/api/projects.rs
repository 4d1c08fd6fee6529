//! `/api/projects`: the project of the key. Projects are made at the command line: a key opens one only.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use shared::ProjectId;
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::etag::{IfMatch, Tagged};
use super::merge_patch::MergePatch;
use super::page::{Cursor, Limit, Page};
use crate::App;
use crate::http::auth::{Reader, Writer};
use crate::http::extract::{Id, Params};
use crate::http::problem::{Code, Problem};
use crate::projects::ProjectError;
use crate::store::projects::{self, Project};

/// The paths.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show, change))
}

/// A tenant: everything else belongs to one.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Project)]
pub struct ProjectBody {
    id: ProjectId,
    name: String,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

impl From<Project> for ProjectBody {
    fn from(project: Project) -> Self {
        Self { id: project.id, name: project.name, created_at: project.created_at }
    }
}

/// What can be changed of a project.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProjectFields {
    /// Unique.
    #[schema(min_length = 1, max_length = 200, pattern = r"\S")]
    name: String,
}

/// Which projects to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// How many on a page.
    #[param(inline)]
    limit: Option<Limit>,
    /// `nextCursor` of the page before.
    #[param(value_type = Option<ProjectId>)]
    cursor: Option<Cursor<ProjectId>>,
}

/// List projects.
///
/// A key opens one.
#[utoipa::path(
    get, path = "/projects", operation_id = "listProjects", tag = "projects", params(Filter),
    responses((status = 200, description = "A page.", body = Page<ProjectBody>))
)]
pub async fn list(
    State(app): State<Arc<App>>,
    reader: Reader,
    Params(filter): Params<Filter>,
) -> Result<Json<Page<ProjectBody>>, Problem> {
    let before = filter.cursor.map(Cursor::key);
    let mut conn = app.db.acquire().await?;
    let own = projects::get(&mut conn, reader.project).await?;
    let rows = own.into_iter().filter(|project| before.is_none_or(|before| project.id < before)).collect();
    Ok(Json(Page::new(rows, filter.limit, |project: &Project| project.id, ProjectBody::from)))
}

/// Read a project.
#[utoipa::path(
    get, path = "/projects/{id}", operation_id = "getProject", tag = "projects", params(("id" = ProjectId, Path)),
    responses((
        status = 200, description = "The project.", body = ProjectBody,
        headers(("ETag" = String, description = "Its revision."))
    ))
)]
pub async fn show(
    State(app): State<Arc<App>>,
    reader: Reader,
    Id(id): Id<ProjectId>,
) -> Result<Tagged<ProjectBody>, Problem> {
    let mut conn = app.db.acquire().await?;
    let project = projects::get(&mut conn, reader.project).await?;
    let project = project.filter(|project| project.id == id).ok_or_else(not_found)?;
    Ok(Tagged(project.revision, project.into()))
}

/// A change of a project.
pub type ProjectPatch = MergePatch<ProjectFields>;

/// Change a project.
#[utoipa::path(
    patch, path = "/projects/{id}", operation_id = "changeProject", tag = "projects",
    params(("id" = ProjectId, Path)),
    request_body(content = ProjectPatch, content_type = "application/merge-patch+json"),
    responses(
        (
            status = 200, description = "The project as it is now.", body = ProjectBody,
            headers(("ETag" = String, description = "Its revision."))
        ),
        (status = 409, description = ""),
    )
)]
pub async fn change(
    State(app): State<Arc<App>>,
    Writer(writer): Writer,
    Id(id): Id<ProjectId>,
    if_match: IfMatch,
    patch: ProjectPatch,
) -> Result<Tagged<ProjectBody>, Problem> {
    if id != writer.project {
        return Err(not_found());
    }
    let mut tx = app.db.begin().await?;
    let project = projects::lock(&mut tx, id).await?.ok_or_else(not_found)?;
    if_match.check(project.revision)?;
    let fields = patch.apply(&ProjectFields { name: project.name.clone() })?;
    crate::projects::rename(&mut tx, &project, &fields.name, &writer.actor).await?;
    let now = projects::get(&mut tx, id).await?.ok_or_else(not_found)?;
    tx.commit().await?;
    Ok(Tagged(now.revision, now.into()))
}

impl From<ProjectError> for Problem {
    fn from(error: ProjectError) -> Self {
        match error {
            ProjectError::Invalid => Self::invalid_value(vec![error.to_string()]),
            ProjectError::NameTaken => Self::new(Code::NameTaken, "Another project has this name."),
            ProjectError::Store(error) => error.into(),
        }
    }
}

fn not_found() -> Problem {
    Problem::not_found("project")
}
