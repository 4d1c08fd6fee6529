//! `tandem keys`: the API keys of a project.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use origin::keys;
use origin::store::api_keys::{self, KeyRecord, Role};
use origin::store::events::Actor;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use shared::ProjectId;
use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::{connect_migrated, random};

/// Keys read at a time.
const PAGE: i64 = 200;

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key and print it; it cannot be shown again.
    Create {
        /// The project's name or id.
        #[arg(long)]
        project: String,
        /// `read` or `write`.
        #[arg(long)]
        role: Role,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the keys, the newest first: what they begin with, what they may do, and when they were last used.
    List {
        /// The project's name or id.
        #[arg(long)]
        project: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Refuse a key from now on.
    Revoke {
        /// The project's name or id.
        #[arg(long)]
        project: String,
        /// The key's id, or what it begins with, as `list` shows them.
        key: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(crate) async fn run(command: KeysCommand) -> anyhow::Result<ExitCode> {
    let mut conn = connect_migrated().await?;
    match command {
        KeysCommand::Create { project, role, json } => {
            let mut tx = conn.begin().await?;
            let project = super::find_project(&mut tx, &project).await?;
            let actor = Actor::Command("keys create");
            let (key, record) = keys::issue(&mut tx, project, role, random()?, &actor).await?;
            tx.commit().await?;
            let key = key.expose_secret();
            if json {
                let mut body = body(&record);
                body["key"] = key.into();
                println!("{body}");
            } else {
                println!("{key}");
            }
        }
        KeysCommand::List { project, json } => {
            let project = super::find_project(&mut conn, &project).await?;
            print(&all(&mut conn, project).await?, json);
        }
        KeysCommand::Revoke { project, key, json } => {
            let project = super::find_project(&mut conn, &project).await?;
            let key = choose(all(&mut conn, project).await?, &key)?;
            let mut tx = conn.begin().await?;
            let revoked = keys::revoke(&mut tx, project, key.id, &Actor::Command("keys revoke")).await?;
            let revoked = revoked.context("the key is gone")?;
            tx.commit().await?;
            if json {
                println!("{}", body(&revoked));
            } else {
                println!("{}… is revoked", revoked.prefix);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn all(conn: &mut PgConnection, project: ProjectId) -> anyhow::Result<Vec<KeyRecord>> {
    let mut keys: Vec<KeyRecord> = Vec::new();
    loop {
        let page = api_keys::list(conn, project, keys.last().map(|key| key.id), PAGE).await?;
        if page.is_empty() {
            return Ok(keys);
        }
        keys.extend(page);
    }
}

/// The one key that is meant. Of several that begin alike, only one that is not revoked can be.
fn choose(keys: Vec<KeyRecord>, name: &str) -> anyhow::Result<KeyRecord> {
    let mut named: Vec<_> = keys
        .into_iter()
        .filter(|key| key.id.to_string() == name || (key.prefix == name && key.revoked_at.is_none()))
        .collect();
    match (named.pop(), named.is_empty()) {
        (Some(key), true) => Ok(key),
        (Some(_), false) => bail!("several keys begin with {name:?}: name one by its id"),
        (None, _) => bail!("the project has no key {name:?} that could be revoked"),
    }
}

fn print(keys: &[KeyRecord], json: bool) {
    if json {
        println!("{}", json!({ "keys": keys.iter().map(body).collect::<Vec<_>>() }));
        return;
    }
    for key in keys {
        let used = time(key.last_used_at).map_or_else(|| "never used".to_owned(), |at| format!("last used {at}"));
        let revoked = time(key.revoked_at).map(|at| format!(", revoked {at}")).unwrap_or_default();
        println!("{}  {}…  {:5}  {used}{revoked}", key.id, key.prefix, key.role.as_str());
    }
}

fn body(key: &KeyRecord) -> Value {
    json!({
        "id": key.id, "prefix": key.prefix, "role": key.role, "createdAt": time(Some(key.created_at)),
        "lastUsedAt": time(key.last_used_at), "revokedAt": time(key.revoked_at),
    })
}

fn time(at: Option<OffsetDateTime>) -> Option<String> {
    at.and_then(|at| at.format(&Rfc3339).ok())
}
