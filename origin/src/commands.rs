//! The commands that look into a running Tandem and mend it. They need the environment of the server.
//!
//! Exit code 0: all is well; 1: something is not, or the command failed. `import` and `rollout` have more, see their help.

pub(crate) mod dead_letters;
pub(crate) mod events;
pub(crate) mod import;
pub(crate) mod keys;
pub(crate) mod numbers;
pub(crate) mod projects;
pub(crate) mod replica;
pub(crate) mod rollout;
pub(crate) mod route;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use origin::App;
use origin::config::Config;
use origin::providers::cloudflare::Kv;
use origin::store;
use shared::ProjectId;
use sqlx::PgConnection;

use crate::require_migrated;

/// The server's parts, without the server.
async fn app() -> anyhow::Result<Arc<App>> {
    let config = Config::from_env()?;
    let db = store::connect(&config.database_url).await.context("cannot connect to the database of DATABASE_URL")?;
    require_migrated(&mut *db.acquire().await?).await?;
    Ok(App::new(config, db)?)
}

/// Access to the edge's store.
fn kv(app: &App) -> anyhow::Result<Kv> {
    app.kv().context(
        "there is no access to Cloudflare: set CLOUDFLARE_ACCOUNT_ID, CLOUDFLARE_API_TOKEN and \
         CLOUDFLARE_KV_NAMESPACE_ID",
    )
}

/// A project by its name or id.
async fn find_project(conn: &mut PgConnection, name_or_id: &str) -> anyhow::Result<ProjectId> {
    store::projects::find(conn, name_or_id).await?.with_context(|| format!("there is no project {name_or_id:?}"))
}

fn exit_code(all_is_well: bool) -> ExitCode {
    if all_is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
