//! `tandem replica`: is the edge's store what the tables say, and making it so.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Subcommand;
use origin::replication::check::{self, Findings};

/// How often the progress of a repair is looked at.
const POLL: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub(crate) enum ReplicaCommand {
    /// Compare every key of the edge's store with the tables. Exit code 1 when something differs.
    Check {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Have a running origin write and delete whatever differs, and wait until it has.
    Repair {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// How many seconds to wait for it.
        #[arg(long, default_value_t = 120)]
        wait: u64,
    },
}

pub(crate) async fn run(command: ReplicaCommand) -> anyhow::Result<ExitCode> {
    let app = super::app().await?;
    let kv = super::kv(&app)?;
    match command {
        ReplicaCommand::Check { json } => {
            let findings = check::check(&app.db, &kv).await?;
            print(&findings, json)?;
            Ok(super::exit_code(findings.is_clean()))
        }
        ReplicaCommand::Repair { json, wait } => {
            let deadline = Instant::now() + Duration::from_secs(wait);
            let findings = check::repair(&app.db, &kv).await?;
            print(&findings, json)?;
            while !check::is_settled(&app.db).await? {
                // The only writer is the job of a running origin: two would overtake each other.
                ensure!(Instant::now() < deadline, "no origin has finished it yet; is one running?");
                tokio::time::sleep(POLL).await;
            }
            if !json {
                println!("{}", if findings.is_clean() { "Nothing was to be done." } else { "Repaired." });
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn print(findings: &Findings, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(findings)?);
        return Ok(());
    }
    let Findings { routes, listed, pending, dead_letters, .. } = findings;
    println!("{routes} routes, {listed} in the edge's store, {pending} on their way, {dead_letters} dead letters");
    let lists = [
        ("missing", &findings.missing),
        ("stale", &findings.stale),
        ("changed", &findings.changed),
        ("orphaned", &findings.orphaned),
    ];
    for (what, keys) in lists {
        for key in keys {
            println!("{what:9} {key}");
        }
    }
    for ahead in &findings.ahead {
        println!("ahead     {} (revision {})", ahead.key, ahead.revision);
    }
    Ok(())
}
