//! `tandem projects`: the tenants. A key belongs to one project, so they are made here and not over the API.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use origin::projects as domain;
use origin::store::events::Actor;
use origin::store::projects::{self, Project};
use serde_json::{Value, json};
use sqlx::Connection as _;
use time::format_description::well_known::Rfc3339;

use crate::connect_migrated;

#[derive(Debug, Subcommand)]
pub(crate) enum ProjectsCommand {
    /// Make a project and print its id.
    Create {
        /// What it is called; no other project may be.
        #[arg(long)]
        name: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the projects, in the order of names.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Give a project another name. Its id, and all that belongs to it, stays.
    Rename {
        /// The project's name or id.
        #[arg(long)]
        project: String,
        /// What it is called from now on.
        #[arg(long)]
        name: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(crate) async fn run(command: ProjectsCommand) -> anyhow::Result<ExitCode> {
    let mut conn = connect_migrated().await?;
    match command {
        ProjectsCommand::Create { name, json } => {
            let mut tx = conn.begin().await?;
            let project = domain::create(&mut tx, &name, &Actor::Command("projects create")).await?;
            tx.commit().await?;
            if json {
                println!("{}", body(&project));
            } else {
                println!("{}", project.id);
            }
        }
        ProjectsCommand::List { json } => {
            let all = projects::all(&mut conn).await?;
            if json {
                println!("{}", json!({ "projects": all.iter().map(body).collect::<Vec<_>>() }));
            } else {
                for project in &all {
                    println!("{}  {}", project.id, project.name);
                }
            }
        }
        ProjectsCommand::Rename { project, name, json } => {
            let mut tx = conn.begin().await?;
            let id = super::find_project(&mut tx, &project).await?;
            let project = projects::lock(&mut tx, id).await?.context("the project is gone")?;
            domain::rename(&mut tx, &project, &name, &Actor::Command("projects rename")).await?;
            tx.commit().await?;
            let project = Project { name, ..project };
            if json {
                println!("{}", body(&project));
            } else {
                println!("{}  {}", project.id, project.name);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn body(project: &Project) -> Value {
    json!({ "id": project.id, "name": project.name, "createdAt": project.created_at.format(&Rfc3339).ok() })
}
