//! The Worker as it will run, under `wrangler dev`: the built wasm in workerd, with
//! Cloudflare's KV and Queues simulated by Cloudflare's own tools.
//!
//! Settings come from the repository's `wrangler.toml`; addresses and secrets are given
//! at the start and live in a scratch directory.

mod configuration;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use self::configuration::Variant;
use super::process::{POLL, Plan, Process};
use super::scratch::Scratch;
use super::{npm, ports, root};

/// How long wrangler may take until the Worker answers, on a machine busy with builds.
const START_LIMIT: Duration = Duration::from_mins(1);
/// How long one look at `/healthz` may take.
const LOOK_LIMIT: Duration = Duration::from_secs(10);
/// How long wrangler may take to end when asked.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// The oldest Node that wrangler runs on.
const NODE: (u32, u32) = (22, 12);

/// The KV namespace's id in `wrangler.toml`.
pub const KV_NAMESPACE_ID: &str = "routes";

/// One build of the Worker at a time; the next finds it done.
static BUILD: Mutex<()> = Mutex::const_new(());

/// What a Worker is started with.
#[derive(Clone, Debug, Default)]
pub struct EdgeOptions {
    /// Variables of `wrangler.toml` to set otherwise: name and value.
    pub vars: Vec<(String, String)>,
    /// Secrets: name and value. Every one that `wrangler.toml` requires must be there.
    pub secrets: Vec<(String, String)>,
    /// A port to listen on instead of a free one.
    pub port: Option<u16>,
}

/// A running Worker. `process` is dropped before its files.
#[derive(Debug)]
pub struct Edge {
    process: Process,
    port: u16,
    scratch: Scratch,
}

impl Edge {
    /// Builds the Worker if its sources have changed, starts it, and waits until it answers.
    pub async fn start(options: EdgeOptions) -> io::Result<Self> {
        Self::start_from(options, Variant::AsDeployed).await
    }

    /// The same, but its queues give a message up after so many retries: the configured ones take a day.
    pub async fn start_impatient(options: EdgeOptions, max_retries: u32) -> io::Result<Self> {
        Self::start_from(options, Variant::Impatient { max_retries }).await
    }

    /// The same, but its queue refuses every message, as a real one may for a while.
    pub async fn start_refusing(options: EdgeOptions) -> io::Result<Self> {
        Self::start_from(options, Variant::Refusing).await
    }

    async fn start_from(options: EdgeOptions, variant: Variant) -> io::Result<Self> {
        build().await?;
        let port = options.port.map_or_else(ports::for_child, Ok)?;
        let scratch = Scratch::new("edge")?;
        write_secrets(&scratch, &options.secrets)?;
        let plan = Plan {
            name: "wrangler dev",
            log: &scratch.join("log"),
            // It keeps nothing that an orderly end would save.
            stop: Signal::KILL,
            remove: Some(scratch.path()),
        };
        let mut command = command(&scratch, port, &options)?;
        if let Some(config) = configuration::write(variant, &scratch)? {
            command.arg("--config").arg(config);
        }
        let process = Process::spawn(command, &plan)?;
        let edge = Self { process, port, scratch };
        edge.answers().await?;
        Ok(edge)
    }

    /// Where the Worker answers.
    pub fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The base of the local copy of Cloudflare's REST API, which stands for
    /// `…/client/v4/accounts/{account}`: `{base}/storage/kv/namespaces/routes/bulk` and so on.
    pub fn kv_api_url(&self) -> String {
        format!("{}/cdn-cgi/local/explorer/api", self.base_url())
    }

    /// Everything that wrangler and the Worker have printed.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.scratch.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Ends it with all that it started.
    pub async fn stop(self) -> io::Result<()> {
        self.process.stop(Signal::TERM, STOP_LIMIT).await
    }

    async fn answers(&self) -> io::Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while !healthy(self.port).await {
            if self.process.ended().is_some() {
                return Err(self.process.failure("ended at its start"));
            }
            if Instant::now() > deadline {
                return Err(self.process.failure("does not answer at /healthz"));
            }
            sleep(POLL).await;
        }
        Ok(())
    }
}

/// `make edge`, which does nothing when the build is newer than its sources.
pub async fn build() -> io::Result<()> {
    let _one = BUILD.lock().await;
    let status = tokio::process::Command::new("make")
        .args(["--no-print-directory", "edge"])
        .current_dir(root())
        .kill_on_drop(true)
        .status()
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("cannot run make to build the Worker: {error}")))?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("`make edge` failed ({status})"))) }
}

fn command(scratch: &Scratch, port: u16, options: &EdgeOptions) -> io::Result<Command> {
    let mut command = Command::new(node()?);
    // What `bin/wrangler.js` would start in a second process.
    command.arg("--no-warnings").arg(npm("wrangler/wrangler-dist/cli.js"));
    command.args(["dev", "--local", "--ip", "127.0.0.1", "--port", &port.to_string()]);
    command.args(["--env", "", "--inspector-port", "0", "--no-show-interactive-dev-session"]);
    command.arg("--persist-to").arg(scratch.join("state"));
    command.arg("--env-file").arg(scratch.join("secrets.env"));
    for (name, value) in &options.vars {
        command.args(["--var", &format!("{name}:{value}")]);
    }
    command.current_dir(root());
    // The caller's environment may hold real keys, or choose another environment.
    let foreign = |name: &str| name.starts_with("CLOUDFLARE_") || name.starts_with("WRANGLER_");
    for (name, _) in std::env::vars().filter(|(name, _)| foreign(name)).chain(options.secrets.iter().cloned()) {
        command.env_remove(name);
    }
    command.env("CI", "1");
    command.env("WRANGLER_SEND_METRICS", "false");
    // The banner asks the registry for a newer version.
    command.env("WRANGLER_HIDE_BANNER", "true");
    // Otherwise it asks a server on the internet where this machine is.
    command.env("CLOUDFLARE_CF_FETCH_ENABLED", "false");
    // Its own temporary files would outlive a kill.
    command.env("TMPDIR", scratch.path());
    // Nothing in the home directory, and no other Worker of this machine in sight.
    command.env("XDG_CONFIG_HOME", scratch.join("config"));
    command.env("WRANGLER_LOG_PATH", scratch.join("wrangler.log"));
    command.env("WRANGLER_REGISTRY_PATH", scratch.join("registry"));
    Ok(command)
}

/// The system's Node if it is recent enough, else the one from npm.
fn node() -> io::Result<PathBuf> {
    let version = Command::new("node").arg("--version").output().ok();
    let version = version.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    if node_version(&version).is_some_and(|version| version >= NODE) {
        return Ok("node".into());
    }
    let packaged = npm(".bin/node");
    if packaged.exists() {
        return Ok(packaged);
    }
    let (major, minor) = NODE;
    let found = if version.is_empty() { "none" } else { version.trim() };
    Err(io::Error::other(format!(
        "wrangler needs Node {major}.{minor} or newer; found {found}. `make setup` installs one on Linux, \
         elsewhere install it yourself"
    )))
}

/// Major and minor of a text like "v24.21.0".
fn node_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim().strip_prefix('v')?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn write_secrets(scratch: &Scratch, secrets: &[(String, String)]) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(scratch.join("secrets.env"))?;
    for (name, value) in secrets {
        // Single quotes: the file's other forms replace `$` and backslashes.
        if value.contains(['\'', '\n']) {
            return Err(io::Error::other(format!("the secret {name} holds a quote or a line break")));
        }
        writeln!(file, "{name}='{value}'")?;
    }
    Ok(())
}

/// One HTTP request by hand: a client with TLS and pools would be more than the question.
async fn healthy(port: u16) -> bool {
    let look = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").await?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await?;
        io::Result::Ok(answer.ends_with(b" 200"))
    };
    matches!(timeout(LOOK_LIMIT, look).await, Ok(Ok(true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_node_versions() {
        assert_eq!(node_version("v24.21.0\n"), Some((24, 21)));
        assert_eq!(node_version(""), None);
        assert!(node_version("v20.20.2").expect("a version") < NODE);
        assert!(node_version("v22.12.0").expect("a version") >= NODE);
    }
}
