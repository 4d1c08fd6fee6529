//! `tandem events`: is the audit log what was logged?

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use origin::audit::{self, Fault, KeptHead, Verdict};
use serde::{Deserialize, Serialize};

use crate::connect_migrated;

#[derive(Debug, Subcommand)]
pub(crate) enum EventsCommand {
    /// Follow every project's chain of events from the first to the last. Exit code 1 when one was lost, edited, put in
    /// or moved. Whoever may do anything in the database can make a chain anew: keep an answer elsewhere and hold the
    /// log against it later.
    Verify {
        /// Only this project, by name or id.
        #[arg(long)]
        project: Option<String>,
        /// An earlier answer (of `--json`): up to its heads the log must still be the same.
        #[arg(long, value_name = "FILE")]
        against: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// The answer in JSON, and what is read of an earlier one.
#[derive(Debug, Deserialize, Serialize)]
struct Answer<T> {
    projects: Vec<T>,
}

pub(crate) async fn run(command: EventsCommand) -> anyhow::Result<ExitCode> {
    let EventsCommand::Verify { project, against, json } = command;
    let kept = against.as_deref().map(kept_heads).transpose()?.unwrap_or_default();
    let mut conn = connect_migrated().await?;
    let project = match project {
        Some(name) => Some(super::find_project(&mut conn, &name).await?),
        None => None,
    };
    let verdicts = audit::verify(&mut conn, project, &kept).await?;
    let sound = verdicts.iter().all(Verdict::is_sound);
    if json {
        println!("{}", serde_json::to_string(&Answer { projects: verdicts })?);
    } else {
        verdicts.iter().for_each(print);
    }
    Ok(super::exit_code(sound))
}

fn kept_heads(file: &Path) -> anyhow::Result<Vec<KeptHead>> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let answer: Answer<KeptHead> = serde_json::from_str(&text)
        .with_context(|| format!("{} is not an answer of `tandem events verify --json`", file.display()))?;
    Ok(answer.projects)
}

fn print(verdict: &Verdict) {
    let Verdict { project, head, faults, more_faults, .. } = verdict;
    println!("{project}: {} events, the last one's hash is {}", head.count, head.hash);
    for fault in faults {
        match fault {
            Fault::Edited { position, event_id } => println!("edited    {position} (event {event_id})"),
            Fault::Unlinked { position, event_id } => {
                println!("unlinked  {position} (event {event_id}): what it follows on is not before it");
            }
            Fault::Missing { from, to } => println!("missing   {from} to {to}"),
            Fault::Doubled { position, event_id } => println!("doubled   {position} (event {event_id})"),
            Fault::Inserted { event_id } => println!("inserted  event {event_id}"),
            Fault::WrongHead => println!("head      is not the last event's"),
            Fault::NotAsBefore { count } => println!("other     than when there were {count} events"),
        }
    }
    if *more_faults > 0 {
        println!("and {more_faults} more");
    }
}
