//! Import from Vapi: assistants become agents, and a report tells what became of every field.
//!
//! `convert` is pure and decides everything about an assistant; `mapping` is its table. `apply` brings a draft into the
//! database. An agent's `system_type` is never touched: an import makes
//! an agent ready for OpenAI Realtime, a switch moves it there.

pub mod apply;
pub mod convert;
pub mod draft;
pub mod liquid;
pub mod mapping;
pub mod path;
pub mod report;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::SecretString;
use serde::Serialize;
use serde_json::Value;
use shared::{AssistantId, ProjectId};
use sqlx::{Connection as _, PgConnection};

use self::apply::{Action, ApplyError, Change};
use self::convert::{NoAssistant, Options, Tools};
use self::report::Report;
use crate::providers::vapi::assistants::{ReadError, Reader};
use crate::store::StoreError;
use crate::store::events::Actor;

/// Which assistants to import.
#[derive(Clone, Debug)]
pub enum Selection {
    /// All of the organisation.
    All,
    /// These.
    Ids(Vec<AssistantId>),
}

/// Why one assistant was not imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Vapi.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There is none.
    #[error("Vapi has no such assistant")]
    NotFound,
    /// There is one, but it cannot be read.
    #[error(transparent)]
    NoAssistant(#[from] NoAssistant),
    /// It does not fit the database.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The database.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

/// One assistant that was imported.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Imported {
    /// What it changed, or would change.
    pub change: Change,
    /// What became of every field.
    pub report: Report,
}

/// One assistant, imported or not.
#[derive(Debug)]
pub struct Attempt {
    /// Its id at Vapi.
    pub assistant_id: String,
    /// What came of it.
    pub result: Result<Imported, ImportError>,
}

/// Everything that an import needs.
#[derive(Debug)]
pub struct Import<'a> {
    /// Vapi.
    pub reader: Reader<'a>,
    /// Where agents go.
    pub project: ProjectId,
    /// What was decided beforehand.
    pub options: &'a Options,
    /// Compare and write nothing.
    pub dry_run: bool,
}

impl Import<'_> {
    /// Imports assistants one by one, each in a transaction of its own: one that fails stops no other, and after a crash
    /// a repetition does the rest. Fails as a whole only if Vapi does not list its assistants.
    pub async fn run(&self, conn: &mut PgConnection, selection: &Selection) -> Result<Vec<Attempt>, ReadError> {
        // With `All`, the list holds the assistants themselves.
        let mut found: Vec<(String, Option<Value>)> = match selection {
            Selection::Ids(ids) => ids.iter().map(|id| (id.to_string(), None)).collect(),
            Selection::All => {
                let listed = self.reader.assistants().await?.into_iter();
                listed.map(|one| (one["id"].as_str().unwrap_or_default().to_owned(), Some(one))).collect()
            }
        };
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        found.dedup_by(|(a, _), (b, _)| a == b);
        let total = found.len();
        let mut tools = Tools::new();
        let mut attempts = Vec::new();
        for (done, (id, assistant)) in found.into_iter().enumerate() {
            let result = self.one(conn, &id, assistant, &mut tools).await;
            match &result {
                Ok(imported) => tracing::info!(
                    assistant_id = id,
                    action = ?imported.change.action,
                    open = imported.report.open,
                    "assistant {} of {total} read",
                    done + 1
                ),
                Err(error) => tracing::warn!(
                    error = error as &dyn std::error::Error,
                    assistant_id = id,
                    "assistant {} of {total} not imported",
                    done + 1
                ),
            }
            attempts.push(Attempt { assistant_id: id, result });
        }
        Ok(attempts)
    }

    async fn one(
        &self,
        conn: &mut PgConnection,
        id: &str,
        assistant: Option<Value>,
        known: &mut Tools,
    ) -> Result<Imported, ImportError> {
        let assistant = match assistant {
            Some(assistant) => assistant,
            None => self.reader.assistant(id).await?.ok_or(ImportError::NotFound)?,
        };
        let mut tools = Tools::new();
        for id in convert::tool_ids(&assistant) {
            if !known.contains_key(&id) {
                known.insert(id.clone(), self.reader.tool(&id).await?);
            }
            let tool = known.get(&id).cloned().flatten();
            tools.insert(id, tool);
        }
        let conversion = convert::convert(&assistant, &tools, self.options)?;

        let mut tx = conn.begin().await?;
        let mut plan = apply::plan(&mut tx, self.project, &conversion).await?;
        if self.dry_run {
            tx.rollback().await?;
        } else {
            let actor = Actor::Command("import vapi");
            let id = apply::apply(&mut tx, self.project, &conversion, &plan, &actor, &mut new_secret).await?;
            tx.commit().await?;
            plan.change.agent_id = Some(id);
        }
        Ok(Imported { change: plan.change, report: conversion.report })
    }
}

/// A secret for a tool: 256 random bits.
fn new_secret() -> Option<SecretString> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).ok()?;
    Some(URL_SAFE_NO_PAD.encode(random).into())
}

/// What became of a whole import, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything is in, and nothing is left to decide.
    Done,
    /// Something was not imported.
    Failed,
    /// Everything is in, and a person must decide about something that was lost or approximated.
    Open,
}

impl Verdict {
    /// The verdict on these attempts.
    pub fn on(attempts: &[Attempt]) -> Self {
        let open = |attempt: &Attempt| attempt.result.as_ref().is_ok_and(|imported| imported.report.open > 0);
        if attempts.iter().any(|attempt| attempt.result.is_err()) {
            Self::Failed
        } else if attempts.iter().any(open) {
            Self::Open
        } else {
            Self::Done
        }
    }

    /// The exit code of the command.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Open => 3,
        }
    }
}

impl Action {
    /// A word for people.
    pub const fn as_str(self, dry_run: bool) -> &'static str {
        match (self, dry_run) {
            (Self::Created, false) => "created",
            (Self::Created, true) => "would be created",
            (Self::Updated, false) => "updated",
            (Self::Updated, true) => "would be updated",
            (Self::Unchanged, _) => "unchanged",
        }
    }
}

impl From<sqlx::Error> for ApplyError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(StoreError::from(error))
    }
}
