//! `sim`: the local stack and its parts as commands.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use clap::Parser;
use sqlx::migrate::Migrator;
use sqlx::{Connection, PgConnection};
use tests::stack::postgres::Postgres;
use tests::stack::root;
use tests::{bench_bridge, bench_edge, bench_rollout, demo, dev, latency};

/// The local stack and its parts.
#[derive(Debug, Parser)]
#[command(name = "sim")]
enum Sim {
    /// Start everything, play three calls, and say what happened in them.
    Demo,
    /// Keep everything up and say how to place a call.
    Dev,
    /// Measure how fast calls are answered and what the bridge adds to each frame.
    Latency,
    /// Measure what the compiled Worker costs beside hand-written JavaScript.
    BenchEdge,
    /// Measure what the bridge costs beside a bare proxy.
    BenchBridge(bench_bridge::Plan),
    /// Measure how long it takes to switch many agents with their numbers, and back.
    BenchRollout(bench_rollout::Plan),
    /// The bare proxy that `bench-bridge` starts.
    #[command(hide = true)]
    BareProxy {
        /// Where it listens.
        port: u16,
        /// Where its model listens.
        model: SocketAddr,
    },
    /// Run a command with `DATABASE_URL` naming a fresh database that has all migrations.
    Postgres {
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    run().await.unwrap_or_else(|error| {
        eprintln!("sim: {error:#}");
        ExitCode::FAILURE
    })
}

async fn run() -> Result<ExitCode> {
    // Chosen once for every TLS connection; there is no other provider in the binary.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Sim::parse() {
        Sim::Demo => demo::run().await.map(|()| ExitCode::SUCCESS),
        Sim::Latency => latency::run().await.map(|()| ExitCode::SUCCESS),
        Sim::BenchEdge => bench_edge::run().await.map(|()| ExitCode::SUCCESS),
        Sim::BenchBridge(plan) => bench_bridge::run(plan).await.map(|()| ExitCode::SUCCESS),
        Sim::BenchRollout(plan) => bench_rollout::run(plan).await.map(|()| ExitCode::SUCCESS),
        Sim::BareProxy { port, model } => bench_bridge::bare::serve(port, model).await.map(|()| ExitCode::SUCCESS),
        Sim::Dev => dev::run().await.map(|()| ExitCode::SUCCESS),
        Sim::Postgres { command } => with_postgres(&command).await,
    }
}

async fn with_postgres(command: &[OsString]) -> Result<ExitCode> {
    let [program, arguments @ ..] = command else { anyhow::bail!("no command is given") };
    let postgres = Postgres::from_environment().await?;
    let url = postgres.create_database("tandem").await?;
    // Read now rather than built in: this is how the checks of the origin's queries get their
    // database, so it must not need a build of the origin, nor of its newest migration.
    let migrator = Migrator::new(root().join("migrations")).await.context("reading migrations/")?;
    let mut connection = PgConnection::connect(&url).await?;
    migrator.run(&mut connection).await.context("applying migrations/")?;
    connection.close().await?;

    let program = program.clone();
    let mut child = Command::new(&program);
    child.args(arguments).env("DATABASE_URL", &url);
    let status = tokio::task::spawn_blocking(move || child.status())
        .await?
        .with_context(|| format!("cannot run {}", program.display()))?;
    postgres.stop().await?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
