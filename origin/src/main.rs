//! `tandem`: the origin's one binary.

mod commands;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use axum::serve::ListenerExt as _;
use clap::{Parser, Subcommand};
use origin::config::{self, Config, LogFormat};
use origin::seed::{self, VapiIds};
use origin::store::api_keys::Role;
use origin::store::events::Actor;
use origin::{App, drain, http, jobs, keys, replication, request_id, store, telemetry};
use secrecy::ExposeSecret as _;
use shared::AssistantId;
use sqlx::{Connection as _, PgConnection};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::commands::dead_letters::DeadLettersCommand;
use crate::commands::events::EventsCommand;
use crate::commands::import::ImportCommand;
use crate::commands::keys::KeysCommand;
use crate::commands::numbers::NumbersCommand;
use crate::commands::projects::ProjectsCommand;
use crate::commands::replica::ReplicaCommand;
use crate::commands::rollout::RolloutCommand;
use crate::commands::route::RouteCommand;

/// How long it may take, once the calls are gone, to answer the last requests, write the last records and stop jobs.
const FINISH_LIMIT: Duration = Duration::from_secs(20);

/// Moves phone agents between Vapi and OpenAI Realtime. Configured by environment variables.
#[derive(Debug, Parser)]
#[command(name = "tandem", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve webhooks, the API and calls until told to stop. Needs a migrated database.
    Serve,
    /// Bring the database's schema up to date.
    Migrate,
    /// Make the demonstration's project, or bring it back to how it began.
    Seed {
        /// Id of the demonstration's assistant at Vapi.
        #[arg(long, default_value = "5e1d9d1c-6f39-4c5e-9a53-8c5b8f0f6a01")]
        vapi_assistant_id: AssistantId,
        /// Id of the demonstration's phone number at Vapi.
        #[arg(long, default_value = "5e1d9d1c-6f39-4c5e-9a53-8c5b8f0f6a02")]
        vapi_phone_number_id: String,
        /// Print the ids and a new API key as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make and list projects, to which all else belongs.
    #[command(subcommand)]
    Projects(ProjectsCommand),
    /// Manage API keys.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Explain decisions.
    #[command(subcommand)]
    Route(RouteCommand),
    /// Check and repair the edge's copy of the routes.
    #[command(subcommand)]
    Replica(ReplicaCommand),
    /// Switch many agents, stage by stage, and back.
    #[command(subcommand)]
    Rollout(RolloutCommand),
    /// List and replay events that could not be delivered.
    #[command(subcommand)]
    Deadletters(DeadLettersCommand),
    /// Verify the audit log.
    #[command(subcommand)]
    Events(EventsCommand),
    /// Print the API's description, OpenAPI 3.1.
    Openapi,
    /// Search, buy, adopt, assign and release phone numbers.
    #[command(subcommand)]
    Numbers(NumbersCommand),
    /// Make agents of what another service holds.
    #[command(subcommand)]
    Import(ImportCommand),
}

#[tokio::main]
async fn main() -> ExitCode {
    // What a command changes, it changes under one name.
    match request_id::scope(Uuid::now_v7().to_string(), Box::pin(run(Cli::parse()))).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("tandem: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    telemetry::init(LogFormat::from_env()?);
    // Chosen once for every TLS connection; there is no other provider in the binary.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match cli.command {
        Command::Serve => serve(Config::from_env()?).await?,
        Command::Migrate => migrate().await?,
        Command::Seed { vapi_assistant_id, vapi_phone_number_id, json } => {
            let vapi = VapiIds { assistant_id: vapi_assistant_id, phone_number_id: vapi_phone_number_id };
            seed(&vapi, json).await?;
        }
        Command::Projects(command) => return commands::projects::run(command).await,
        Command::Keys(command) => return commands::keys::run(command).await,
        Command::Route(command) => return commands::route::run(command).await,
        Command::Replica(command) => return commands::replica::run(command).await,
        Command::Rollout(command) => return commands::rollout::run(command).await,
        Command::Deadletters(command) => return commands::dead_letters::run(command).await,
        Command::Events(command) => return commands::events::run(command).await,
        Command::Openapi => println!("{:#}", http::api::described().1),
        Command::Numbers(command) => return commands::numbers::run(command).await,
        Command::Import(command) => return commands::import::run(command).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn serve(config: Config) -> anyhow::Result<()> {
    for line in config.services() {
        tracing::info!("{line}");
    }
    let db = store::connect(&config.database_url).await.context("cannot connect to the database of DATABASE_URL")?;
    require_migrated(&mut *db.acquire().await?).await?;
    let listener = TcpListener::bind(config.bind_addr)
        .await
        .with_context(|| format!("cannot listen on BIND_ADDR {}", config.bind_addr))?;
    let address = listener.local_addr()?;
    let drain_timeout = config.drain_timeout;
    let app = App::new(config, db)?;
    // What changed while no origin could replicate is sent now.
    replication::enqueue(&mut *app.db.acquire().await?).await?;

    app.recordings.recover();
    let jobs = tokio::spawn(jobs::run(Arc::clone(&app)));
    cancel_on_signal(&app)?;
    tracing::info!("Listening on http://{address}");
    // Audio is sent in small pieces that must not wait for each other. What a socket refuses, its next use tells.
    let listener = listener.tap_io(|socket| drop(socket.set_nodelay(true)));
    // Webhooks are answered until the calls are gone.
    let drained = CancellationToken::new();
    let server = axum::serve(listener, http::router(Arc::clone(&app)))
        .with_graceful_shutdown(drained.clone().cancelled_owned())
        .into_future();
    let mut server = tokio::spawn(server);
    tokio::select! {
        result = &mut server => {
            result??;
            bail!("the server ended by itself");
        }
        () = app.shutdown.cancelled() => drain::drain(&app, drain_timeout).await,
    }
    drained.cancel();
    let finish = async {
        server.await??;
        app.tasks.wait().await;
        app.recorder.flush().await;
        jobs.await?;
        anyhow::Ok(())
    };
    if let Ok(result) = timeout(FINISH_LIMIT, finish).await {
        result?;
    } else {
        tracing::error!("Stopped with work unfinished");
    }
    tracing::info!("Stopped");
    Ok(())
}

/// On the first SIGTERM or Ctrl-C: begin nothing new, finish what runs.
fn cancel_on_signal(app: &App) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = app.shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        shutdown.cancel();
    });
    Ok(())
}

/// Applies our migrations and the job library's, both of which wait for another process that does the same.
async fn migrate() -> anyhow::Result<()> {
    let url = config::database_url()?;
    let db = store::connect_unlimited(&url).await.context("cannot connect to the database of DATABASE_URL")?;
    store::MIGRATIONS.run(&db).await?;
    jobs::migrate(&db).await?;
    tracing::info!("The database is up to date");
    Ok(())
}

async fn seed(vapi: &VapiIds, json: bool) -> anyhow::Result<()> {
    let mut conn = connect_migrated().await?;
    let mut tx = conn.begin().await?;
    let seeded = seed::seed(&mut tx, vapi).await?;
    let actor = Actor::Command("seed");
    let (key, _) = keys::issue(&mut tx, seeded.project_id, Role::Write, random()?, &actor).await?;
    let key = key.expose_secret();
    tx.commit().await?;
    if json {
        let mut answer = serde_json::to_value(&seeded)?;
        answer["apiKey"] = key.into();
        println!("{answer}");
    } else {
        for agent in &seeded.agents {
            println!("{} answers {} on {}: agent {}", agent.name, agent.number, agent.system_type, agent.id);
        }
        println!("API key, shown only now: {key}");
    }
    Ok(())
}

fn random() -> anyhow::Result<[u8; 32]> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    Ok(random)
}

async fn connect_migrated() -> anyhow::Result<PgConnection> {
    let url = config::database_url()?;
    let mut conn =
        PgConnection::connect(url.expose_secret()).await.context("cannot connect to the database of DATABASE_URL")?;
    require_migrated(&mut conn).await?;
    Ok(conn)
}

async fn require_migrated(conn: &mut PgConnection) -> anyhow::Result<()> {
    let migrated = store::is_migrated(conn).await? && jobs::is_migrated(conn).await?;
    ensure!(migrated, "the database's schema is not this version's: run `tandem migrate`");
    Ok(())
}
