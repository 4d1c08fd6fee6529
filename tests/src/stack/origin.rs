//! The origin as it is deployed: the binary `tandem` in a process of its own.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Output};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::time::sleep;

use super::ports;
use super::process::{Plan, Process};
use super::scratch::Scratch;

/// How long it may take until it is ready.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long it may take to end in order.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// How often it is asked whether it is ready.
const POLL: Duration = Duration::from_millis(20);

/// An origin on one port, which can be killed and started again.
#[derive(Debug)]
pub struct Origin {
    process: Option<Process>,
    port: u16,
    env: Vec<(String, String)>,
    scratch: Scratch,
}

impl Origin {
    /// Starts one with exactly these variables, beside `BIND_ADDR`, and waits until it is ready.
    pub async fn start(env: Vec<(String, String)>) -> io::Result<Self> {
        Self::start_on(ports::for_child()?, env).await
    }

    /// The same on a port of the caller's choice.
    pub async fn start_on(port: u16, env: Vec<(String, String)>) -> io::Result<Self> {
        let mut origin = Self { process: None, port, env, scratch: Scratch::new("origin")? };
        origin.start_again().await?;
        Ok(origin)
    }

    /// Runs a command of `tandem` to its end and gives what it printed.
    pub async fn command(args: &[&str], env: &[(String, String)]) -> io::Result<String> {
        let output = Self::output(args, env).await?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(io::Error::other(format!("`tandem {}` failed: {said}", args.join(" "))))
        }
    }

    /// The same for commands that are meant to fail: gives the exit code and everything that was printed.
    pub async fn output(args: &[&str], env: &[(String, String)]) -> io::Result<Output> {
        tokio::process::Command::from(tandem(env)?).args(args).kill_on_drop(true).output().await
    }

    /// Starts it after it was killed or stopped, on the same port, and waits until it is ready.
    pub async fn start_again(&mut self) -> io::Result<()> {
        let mut command = tandem(&self.env)?;
        command.arg("serve").env("BIND_ADDR", format!("127.0.0.1:{}", self.port));
        let plan = Plan {
            name: "tandem serve",
            log: &self.scratch.join("log"),
            stop: Signal::TERM,
            remove: Some(self.scratch.path()),
        };
        let process = self.process.insert(Process::spawn(command, &plan)?);
        let deadline = Instant::now() + START_LIMIT;
        let ready = format!("http://127.0.0.1:{}/readyz", self.port);
        let client = crate::hosts::http_client().timeout(Duration::from_secs(1)).build().map_err(io::Error::other)?;
        while !client.get(&ready).send().await.is_ok_and(|response| response.status().is_success()) {
            if process.ended().is_some() {
                return Err(process.failure("ended at its start"));
            }
            if Instant::now() > deadline {
                return Err(process.failure("does not become ready"));
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Starts another one with the same variables, on a port of its own.
    pub async fn start_another(&self) -> io::Result<Self> {
        Self::start(self.env.clone()).await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// The process, if it runs.
    pub fn id(&self) -> Option<i32> {
        self.process.as_ref().map(Process::id)
    }

    /// Where it answers.
    pub fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Everything that it has logged, over all its lives.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.scratch.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The last lines of it that tell of more than answered requests, for error messages.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let mut lines: Vec<&str> = log.lines().filter(|line| !line.contains("Answered a request")).collect();
        lines.drain(..lines.len().saturating_sub(30));
        lines.join("\n")
    }

    /// Ends it as a machine failure would.
    pub async fn kill(&mut self) -> io::Result<()> {
        match self.process.take() {
            Some(process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// Asks it to stop, as a deployment does, and does not wait.
    pub fn terminate(&self) -> io::Result<()> {
        self.process.as_ref().map_or(Ok(()), |process| process.signal(Signal::TERM))
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.ended().is_some())
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&self) -> Option<ExitStatus> {
        self.process.as_ref()?.wait().await
    }

    /// Asks it to stop and waits until it has.
    pub async fn stop(&mut self) -> io::Result<()> {
        match self.process.take() {
            Some(process) => process.stop(Signal::TERM, STOP_LIMIT).await,
            None => Ok(()),
        }
    }
}

/// The binary with these variables and nothing else of ours: the caller's environment may hold real keys.
fn tandem(env: &[(String, String)]) -> io::Result<Command> {
    let mut command = Command::new(binary()?);
    command.env_clear();
    for name in ["PATH", "HOME", "TMPDIR", "RUST_LOG", "RUST_BACKTRACE", "SSL_CERT_FILE", "SSL_CERT_DIR"] {
        if let Ok(value) = std::env::var(name) {
            command.env(name, value);
        }
    }
    command.envs(env.iter().map(|(name, value)| (name, value)));
    Ok(command)
}

/// `tandem`, beside this program or, for a test, in the folder above.
fn binary() -> io::Result<PathBuf> {
    let this = std::env::current_exe()?;
    this.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("tandem"))
        .find(|path| path.is_file())
        .ok_or_else(|| io::Error::other("the origin is not built: run `cargo build --bin tandem`"))
}
