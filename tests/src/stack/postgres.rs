//! A Postgres server of our own, or databases of our own on somebody else's.
//!
//! The server's binaries come from npm. It listens on 127.0.0.1 only, trusts everybody
//! there, and skips `fsync`: a killed server loses nothing that it has confirmed, a
//! machine that loses power may.

mod account;
mod binaries;

use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::time::{Instant, sleep, timeout};
use url::Url;
use uuid::Uuid;

use self::account::Account;
use super::ports;
use super::process::{POLL, Plan, Process};
use super::scratch::Scratch;

/// How long a server may take until it answers, on a machine busy with builds.
const START_LIMIT: Duration = Duration::from_mins(1);
/// How long one attempt to connect may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long a server may take to end when asked.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// What can go wrong here.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// The server's files or process.
    #[error("Postgres: {0}")]
    Server(#[from] io::Error),
    /// A statement that makes or drops a database.
    #[error("Postgres at {url}: {source}")]
    Database {
        /// Without the password.
        url: String,
        /// What the server or driver said.
        source: sqlx::Error,
    },
    /// `DATABASE_URL` is no URL.
    #[error("DATABASE_URL is not a URL like postgres://user:password@host:5432/name: {0}")]
    Url(#[from] url::ParseError),
    /// An external server is not ours to stop or kill.
    #[error("this needs a Postgres of our own: unset DATABASE_URL")]
    External,
}

/// A server on which tests make databases.
#[derive(Debug)]
pub struct Postgres {
    url: Url,
    /// Databases made on an external server, to be dropped at the end.
    made: Mutex<Vec<String>>,
    own: Option<Own>,
}

/// What only a server of our own has. `process` is dropped before its files.
#[derive(Debug)]
struct Own {
    process: Mutex<Option<Process>>,
    binaries: PathBuf,
    account: Account,
    port: u16,
    scratch: Scratch,
}

impl Postgres {
    /// Starts a server with an empty data directory on a free port.
    pub async fn start() -> Result<Self, PostgresError> {
        let binaries = binaries::unpack()?;
        let account = account::unprivileged()?;
        let scratch = Scratch::new("postgres")?;
        scratch.open_to_all()?;
        account.make_directory(&scratch.join("data"))?;
        let port = ports::for_child()?;
        let url = Url::parse(&format!("postgres://postgres@127.0.0.1:{port}/postgres"))?;
        let own = Own { process: Mutex::new(None), binaries, account, port, scratch };
        own.initialize()?;
        let postgres = Self { url, made: Mutex::default(), own: Some(own) };
        postgres.start_again().await?;
        Ok(postgres)
    }

    /// Uses the server that `url` names. Databases made there are dropped at the end;
    /// what was there before is not touched.
    pub fn external(url: &str) -> Result<Self, PostgresError> {
        Ok(Self { url: Url::parse(url)?, made: Mutex::default(), own: None })
    }

    /// The server of `DATABASE_URL` if that is set, else one of our own.
    pub async fn from_environment() -> Result<Self, PostgresError> {
        match std::env::var("DATABASE_URL") {
            Ok(url) if !url.is_empty() => Self::external(&url),
            _ => Self::start().await,
        }
    }

    /// The URL of the server's first database.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// Makes an empty database and returns its URL. On an external server its name gets
    /// an ending that nobody else has.
    pub async fn create_database(&self, name: &str) -> Result<String, PostgresError> {
        let name = match self.own {
            Some(_) => name.to_owned(),
            None => format!("{name}_{}", Uuid::new_v4().simple()),
        };
        self.execute(&format!("create database {}", quote(&name))).await?;
        let mut url = self.url.clone();
        url.set_path(&name);
        if self.own.is_none() {
            self.made.lock().unwrap_or_else(PoisonError::into_inner).push(name);
        }
        Ok(url.into())
    }

    /// Ends the server as an administrator would, or drops what was made on an external
    /// one. Databases of our own server are still there after [`start_again`](Self::start_again).
    pub async fn stop(&self) -> Result<(), PostgresError> {
        let Some(own) = &self.own else {
            return self.drop_databases().await;
        };
        if let Some(process) = own.take() {
            // "Fast" shutdown: ends sessions instead of waiting for them.
            process.stop(Signal::INT, STOP_LIMIT).await?;
        }
        Ok(())
    }

    /// Kills the server as a crash would: no goodbye to clients, recovery at the next start.
    pub async fn kill(&self) -> Result<(), PostgresError> {
        let own = self.own.as_ref().ok_or(PostgresError::External)?;
        if let Some(process) = own.take() {
            process.kill().await?;
        }
        Ok(())
    }

    /// Starts a stopped or killed server on the same data and port.
    pub async fn start_again(&self) -> Result<(), PostgresError> {
        let own = self.own.as_ref().ok_or(PostgresError::External)?;
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let process = own.spawn()?;
            match self.answers(&process, deadline).await {
                Ok(()) => {
                    *own.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
                    return Ok(());
                }
                // Sessions of a killed server hold its memory until they notice.
                Err(_) if process.log_tail().contains("shared memory block") && Instant::now() < deadline => {
                    sleep(POLL).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Stops and starts the server.
    pub async fn restart(&self) -> Result<(), PostgresError> {
        if self.own.is_none() {
            return Err(PostgresError::External);
        }
        self.stop().await?;
        self.start_again().await
    }

    async fn answers(&self, process: &Process, deadline: Instant) -> Result<(), PostgresError> {
        loop {
            match connect(&self.url).await {
                Ok(connection) => {
                    let _ = connection.close().await;
                    return Ok(());
                }
                Err(_) if process.ended().is_some() => return Err(process.failure("ended at its start").into()),
                Err(_) if Instant::now() > deadline => return Err(process.failure("does not answer").into()),
                Err(_) => sleep(POLL).await,
            }
        }
    }

    async fn execute(&self, statement: &str) -> Result<(), PostgresError> {
        execute(&self.url, statement)
            .await
            .map_err(|source| PostgresError::Database { url: without_password(&self.url), source })
    }

    async fn drop_databases(&self) -> Result<(), PostgresError> {
        for name in self.take_made() {
            self.execute(&drop_statement(&name)).await?;
        }
        Ok(())
    }

    fn take_made(&self) -> Vec<String> {
        std::mem::take(&mut self.made.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let made = self.take_made();
        if made.is_empty() {
            return;
        }
        // A runtime of its own: this may run inside one, which must not be blocked on itself.
        let url = self.url.clone();
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                for name in made {
                    if let Err(error) = execute(&url, &drop_statement(&name)).await {
                        eprintln!("cannot drop the test database {name}: {error}");
                    }
                }
            });
            io::Result::Ok(())
        });
        let _ = dropping.join();
    }
}

impl Own {
    fn initialize(&self) -> io::Result<()> {
        let output = self
            .command("initdb")
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .args(["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions"])
            .output()?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("initdb failed ({}):\n{said}", output.status)))
    }

    fn spawn(&self) -> io::Result<Process> {
        let mut command = self.command("postgres");
        command.args(["-p", &self.port.to_string()]);
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "full_page_writes=off",
            "shared_buffers=64MB",
            "max_connections=200",
            "log_timezone=UTC",
            "timezone=UTC",
        ] {
            command.args(["-c", setting]);
        }
        let plan = Plan {
            name: "Postgres",
            log: &self.scratch.join("log"),
            // "Immediate" shutdown: at once, but unlike a kill it gives its shared memory back.
            stop: Signal::QUIT,
            remove: Some(self.scratch.path()),
        };
        Process::spawn(command, &plan)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = self.account.command(&self.binaries.join("bin").join(program));
        command.arg("-D").arg(self.scratch.join("data")).current_dir(self.scratch.path());
        // Nothing of the caller's: `PGPORT` and the like would change what it does.
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("LC_ALL", "C");
        command
    }

    fn take(&self) -> Option<Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

async fn connect(url: &Url) -> Result<PgConnection, sqlx::Error> {
    let late = |_| sqlx::Error::Io(io::ErrorKind::TimedOut.into());
    timeout(CONNECT_LIMIT, PgConnection::connect(url.as_str())).await.map_err(late)?
}

async fn execute(url: &Url, statement: &str) -> Result<(), sqlx::Error> {
    let mut connection = connect(url).await?;
    connection.execute(AssertSqlSafe(statement)).await?;
    connection.close().await
}

fn drop_statement(name: &str) -> String {
    format!("drop database if exists {} with (force)", quote(name))
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn without_password(url: &Url) -> String {
    let mut url = url.clone();
    // Fails only for URLs that cannot have one.
    let _ = url.set_password(None);
    url.into()
}
