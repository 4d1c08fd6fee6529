//! `tandem route`: why a call goes where it goes.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use origin::explain::{self, Explanation};
use shared::E164;

#[derive(Debug, Subcommand)]
pub(crate) enum RouteCommand {
    /// Say what is decided about a call to a number, on which data, and what the edge has of it. Exit code 1 when the
    /// edge decides otherwise.
    Explain {
        /// The number that is called, in E.164.
        #[arg(long)]
        to: E164,
        /// Who calls, to show calls of theirs that are going on.
        #[arg(long)]
        from: Option<E164>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(crate) async fn run(command: RouteCommand) -> anyhow::Result<ExitCode> {
    let RouteCommand::Explain { to, from, json } = command;
    let app = super::app().await?;
    // Without a project every number is explained, also one that nobody has.
    let explained = explain::explain(&app, None, &to, from.as_ref()).await?.context("the number is not known")?;
    if json {
        println!("{}", serde_json::to_string(&explained)?);
    } else {
        print(&explained)?;
    }
    Ok(super::exit_code(explained.edge.agrees))
}

fn print(explained: &Explanation) -> anyhow::Result<()> {
    println!("decision  {}", explained.decision);
    println!("          {}", explained.row);
    match &explained.route {
        Some(route) => println!("route     revision {}: {}", route.revision, serde_json::to_string(route)?),
        None => println!("route     none"),
    }
    if let Some(number) = &explained.number {
        println!("number    {}", serde_json::to_string(number)?);
    }
    if let Some(agent) = &explained.agent {
        println!("agent     {}", serde_json::to_string(agent)?);
    }
    for call in &explained.open_calls {
        println!("open call {}", serde_json::to_string(call)?);
    }
    if let Some(replica) = &explained.replica {
        println!("replica   {}", serde_json::to_string(replica)?);
    }
    let decision = explained.edge.decision.unwrap_or("unknown");
    println!("edge      {decision}: {}", explained.edge.note);
    if let Some(value) = explained.edge.value.as_ref().filter(|value| Some(*value) != explained.route.as_ref()) {
        println!("          {}", serde_json::to_string(value)?);
    }
    Ok(())
}
