//! A Worker in the runtime alone: workerd as Cloudflare publishes it, without the simulator around it that `wrangler dev`
//! is. For what that simulator hides: a sender that hangs up, and what a request costs.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::process::{POLL, Plan, Process};
use super::scratch::Scratch;
use super::{npm, ports, root};

/// How long workerd may take until it listens, on a machine busy with builds.
const START_LIMIT: Duration = Duration::from_secs(30);
/// The Worker's wasm.
const WASM: &str = "edge/build/index_bg.wasm";

/// What a Worker finds in its environment.
#[derive(Clone, Debug)]
pub enum Binding {
    /// A variable or a secret.
    Text(String),
    /// A KV namespace, implemented by a service.
    Kv(&'static str),
    /// A queue, implemented by a service.
    Queue(&'static str),
    /// A dataset of Analytics Engine, whose points go to a service.
    Dataset(&'static str),
}

/// Something beside the Worker that it can reach.
#[derive(Clone, Debug)]
pub enum Service {
    /// Another Worker in the same process: a module without imports.
    Script(PathBuf),
    /// A server: host and port.
    External(String),
}

/// A Worker and its surroundings.
#[derive(Clone, Debug)]
pub struct WorkerdOptions {
    /// The entry, which is bundled with all that it imports but the wasm.
    pub entry: PathBuf,
    /// Bindings by name.
    pub bindings: Vec<(&'static str, Binding)>,
    /// Services by name.
    pub services: Vec<(&'static str, Service)>,
    /// The service that gets what the Worker fetches; without it, the network.
    pub outbound: Option<&'static str>,
}

/// A running Worker. `process` is dropped before its files.
#[derive(Debug)]
pub struct Workerd {
    process: Process,
    port: u16,
    _scratch: Scratch,
}

impl Workerd {
    /// Bundles the Worker, starts it, and waits until it listens. The wasm must have been built.
    pub async fn start(options: &WorkerdOptions) -> io::Result<Self> {
        let scratch = Scratch::new("workerd")?;
        bundle(&options.entry, &scratch.join("entry.js"))?;
        fs::copy(root().join(WASM), scratch.join("index_bg.wasm"))?;
        let port = ports::for_child()?;
        let config = scratch.join("config.capnp");
        fs::write(&config, render(options, port, &scratch)?)?;
        let log = scratch.join("log");
        let plan = Plan { name: "workerd", log: &log, stop: Signal::KILL, remove: Some(scratch.path()) };
        let mut command = Command::new(binary()?);
        command.arg("serve");
        if options.bindings.iter().any(|(_, binding)| matches!(binding, Binding::Dataset(_))) {
            command.arg("--experimental");
        }
        command.arg(config).env_clear();
        let process = Process::spawn(command, &plan)?;
        let workerd = Self { process, port, _scratch: scratch };
        let deadline = Instant::now() + START_LIMIT;
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            if workerd.process.ended().is_some() {
                return Err(workerd.process.failure("ended at its start"));
            }
            if Instant::now() > deadline {
                return Err(workerd.process.failure("does not listen"));
            }
            sleep(POLL).await;
        }
        Ok(workerd)
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id.
    pub fn id(&self) -> i32 {
        self.process.id()
    }

    /// The last lines it printed.
    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }
}

fn binary() -> io::Result<PathBuf> {
    let system = if cfg!(target_os = "macos") { "darwin" } else { "linux" };
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "64" };
    let binary = npm(&format!("@cloudflare/workerd-{system}-{machine}/bin/workerd"));
    if binary.exists() { Ok(binary) } else { Err(io::Error::other("workerd is missing: `make setup` installs it")) }
}

fn bundle(entry: &Path, to: &Path) -> io::Result<()> {
    let output = Command::new(npm(".bin/esbuild"))
        .arg(entry)
        .args(["--bundle", "--format=esm", "--minify", "--log-level=warning"])
        .args(["--external:cloudflare:*", "--external:*.wasm"])
        .arg(format!("--outfile={}", to.display()))
        .current_dir(root())
        // A module of a scratch directory imports packages too.
        .env("NODE_PATH", root().join("node_modules"))
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("cannot run esbuild: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("esbuild failed:\n{}", String::from_utf8_lossy(&output.stderr))))
}

fn render(options: &WorkerdOptions, port: u16, scratch: &Scratch) -> io::Result<String> {
    let toml = fs::read_to_string(root().join("wrangler.toml"))?;
    let setting = |name: &str| {
        let found = toml.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
        found.map(str::to_owned).ok_or_else(|| io::Error::other(format!("wrangler.toml has no {name}")))
    };
    let compatibility = format!(
        "compatibilityDate = {}, compatibilityFlags = {}",
        setting("compatibility_date")?,
        setting("compatibility_flags")?
    );
    let mut services = String::new();
    let mut workers = String::new();
    // Writing to a String cannot fail.
    for (at, (name, service)) in options.services.iter().enumerate() {
        let _ = match service {
            Service::External(address) => {
                writeln!(services, "    (name = {name:?}, external = (address = {address:?}, http = ())),")
            }
            Service::Script(source) => {
                let file = format!("service{at}.js");
                fs::copy(source, scratch.join(&file))?;
                let _ = writeln!(services, "    (name = {name:?}, worker = .service{at}),");
                writeln!(
                    workers,
                    "const service{at} :Workerd.Worker = (modules = [(name = {file:?}, esModule = embed {file:?})], \
                     {compatibility});"
                )
            }
        };
    }
    let bindings: String = options.bindings.iter().fold(String::new(), |mut all, (name, binding)| {
        let _ = match binding {
            Binding::Text(text) => write!(all, "(name = {name:?}, text = {text:?}), "),
            Binding::Kv(service) => write!(all, "(name = {name:?}, kvNamespace = {service:?}), "),
            Binding::Queue(service) => write!(all, "(name = {name:?}, queue = {service:?}), "),
            Binding::Dataset(service) => write!(all, "(name = {name:?}, analyticsEngine = {service:?}), "),
        };
        all
    });
    let outbound = options.outbound.unwrap_or("network");
    Ok(format!(
        "using Workerd = import \"/workerd/workerd.capnp\";
const config :Workerd.Config = (
  services = [
    (name = \"worker\", worker = .worker),
    (name = \"network\", network = (allow = [\"public\", \"private\", \"local\"])),
{services}  ],
  sockets = [(name = \"http\", address = \"127.0.0.1:{port}\", http = (), service = \"worker\")],
);
const worker :Workerd.Worker = (
  modules = [
    (name = \"entry.js\", esModule = embed \"entry.js\"),
    (name = \"index_bg.wasm\", wasm = embed \"index_bg.wasm\"),
  ],
  {compatibility},
  bindings = [{bindings}],
  globalOutbound = {outbound:?},
);
{workers}"
    ))
}
