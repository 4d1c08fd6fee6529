//! `tandem deadletters`: events that could not be delivered, and bringing them back.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};
use origin::config::Config;
use origin::dead_letters::{self, Outcome, Replay, Replayer, Stored};
use origin::providers::cloudflare::Kv;
use reqwest::Url;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// List the events, the oldest first, with the origin's last answer. Their bodies are shown in JSON only: they hold what callers said.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Send events to a running origin again, and delete those that it took. Exit code 1 when one was not taken.
    Replay {
        #[command(flatten)]
        which: Which,
        /// Base URL of the running origin; default: this machine, at the port of `BIND_ADDR`.
        #[arg(long)]
        origin: Option<Url>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Send events once more, and delete those that the origin refuses for good: malformed, too long, unreadable. What
    /// it cannot take at the moment is kept. Exit code 1 when one was kept.
    Discard {
        #[command(flatten)]
        which: Which,
        /// Base URL of the running origin; default: this machine, at the port of `BIND_ADDR`.
        #[arg(long)]
        origin: Option<Url>,
        /// Yes, delete them: they cannot be brought back.
        #[arg(long, required = true)]
        confirm: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// An event's delivery id or key; may be given several times.
    #[arg(long)]
    id: Vec<String>,
    /// All of them.
    #[arg(long)]
    all: bool,
}

impl Which {
    fn names(&self, stored: &Stored) -> bool {
        let delivery = stored.letter.as_ref().map(|letter| letter.delivery.as_ref());
        self.all || self.id.iter().any(|id| *id == stored.key || Some(id.as_str()) == delivery)
    }
}

pub(crate) async fn run(command: DeadLettersCommand) -> anyhow::Result<ExitCode> {
    // Without the database, which may be why they are dead.
    let config = Config::from_env()?;
    let http = origin::http_client()?;
    let cloudflare = config.cloudflare.as_ref().context("there is no access to Cloudflare")?;
    let kv = Kv::new(http.clone(), cloudflare);
    let letters = dead_letters::list(&kv).await?;
    match command {
        DeadLettersCommand::List { json } => {
            list(&letters, json)?;
            Ok(ExitCode::SUCCESS)
        }
        DeadLettersCommand::Replay { which, origin, json } => {
            let chosen = choose(letters, &which)?;
            let origin = origin.map_or_else(|| local(config.bind_addr), Ok)?;
            let replayer = Replayer { kv: &kv, http: &http, origin: &origin, secret: &config.edge_origin_secret };
            tell(&replayer.replay(&chosen).await?, json)
        }
        DeadLettersCommand::Discard { which, origin, confirm: _, json } => {
            let chosen = choose(letters, &which)?;
            let origin = origin.map_or_else(|| local(config.bind_addr), Ok)?;
            let replayer = Replayer { kv: &kv, http: &http, origin: &origin, secret: &config.edge_origin_secret };
            tell(&replayer.discard(&chosen).await?, json)
        }
    }
}

fn choose(letters: Vec<Stored>, which: &Which) -> anyhow::Result<Vec<Stored>> {
    let chosen: Vec<Stored> = letters.into_iter().filter(|stored| which.names(stored)).collect();
    ensure!(which.all || !chosen.is_empty(), "there is no such dead letter");
    Ok(chosen)
}

fn tell(replays: &[Replay], json: bool) -> anyhow::Result<ExitCode> {
    if json {
        println!("{}", serde_json::to_string(replays)?);
    } else {
        for replay in replays {
            let name = replay.delivery.as_ref().unwrap_or(&replay.key);
            match replay.outcome {
                Outcome::Replayed => println!("replayed    {name}"),
                Outcome::Discarded => println!("discarded   {name}"),
                Outcome::Refused(status) => println!("kept, {status}   {name}"),
                Outcome::Unreadable => println!("unreadable  {name}"),
            }
        }
    }
    let gone = |replay: &Replay| matches!(replay.outcome, Outcome::Replayed | Outcome::Discarded);
    Ok(super::exit_code(replays.iter().all(gone)))
}

fn list(letters: &[Stored], json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(letters)?);
        return Ok(());
    }
    for stored in letters {
        let Some(letter) = &stored.letter else {
            println!("unreadable  {}", stored.key);
            continue;
        };
        let seconds = i64::try_from(letter.enqueued_at / 1000)?;
        let at = OffsetDateTime::from_unix_timestamp(seconds)?.format(&Rfc3339)?;
        let why = letter.status.map_or_else(|| "no answer known".to_owned(), |status| format!("answered {status}"));
        println!("{at}  {}  {} attempts  {why}  {}", letter.path, letter.attempts, letter.delivery);
    }
    Ok(())
}

/// The origin on this machine.
fn local(bound: SocketAddr) -> anyhow::Result<Url> {
    let ip = if bound.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { bound.ip() };
    Ok(format!("http://{}", SocketAddr::new(ip, bound.port())).parse()?)
}
