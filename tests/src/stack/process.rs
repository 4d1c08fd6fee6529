//! Child processes that never outlive us.
//!
//! Each child leads a process group of its own, which is killed when the [`Process`] is
//! dropped: at the end of a test, on a panic, on an early return. What no destructor
//! sees (Ctrl-C, SIGTERM, SIGKILL, an abort) is the guard's business: a shell beside the
//! child that reads from a pipe we hold and never write to. When we are gone, however
//! that came about, the system closes the pipe, and the guard ends the child's group and
//! removes its files. That works on Linux and macOS alike and needs no privilege.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process_group};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// How long the guard gives a child to end by itself, in tenths of a second.
const GUARD_PATIENCE: &str = "50";

/// How often a condition is looked at that cannot be awaited, such as "the group is empty".
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// How long the members of a killed group may take to disappear.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// How long a drop, which cannot await, waits for each step.
const DROP_LIMIT: Duration = Duration::from_secs(3);

/// `$1` signal, `$2` leader of the group, `$3` directory to remove or nothing, `$4` patience.
const GUARD: &str = r#"
trap '' HUP INT TERM
read -r _
kill -s "$1" "$2" 2>/dev/null
i=0
while [ "$1" != KILL ] && [ "$i" -lt "$4" ] && kill -0 "$2" 2>/dev/null; do sleep 0.1; i=$((i + 1)); done
kill -s KILL -- "-$2" 2>/dev/null
[ -z "$3" ] || rm -rf -- "$3"
"#;

/// How to run a child.
#[derive(Debug)]
pub struct Plan<'a> {
    /// What error messages call it.
    pub name: &'static str,
    /// Where its output goes, both streams.
    pub log: &'a Path,
    /// The signal that ends it at once, but in order, when it is dropped or we die:
    /// QUIT, INT, TERM or KILL.
    pub stop: Signal,
    /// A directory to remove if we die without cleaning up.
    pub remove: Option<&'a Path>,
}

/// A running child with its process group.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    group: Pid,
    stop: Signal,
    exit: watch::Receiver<Option<ExitStatus>>,
    guard: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; its standard input is empty.
    pub fn spawn(mut command: Command, plan: &Plan<'_>) -> io::Result<Self> {
        let log = File::options().create(true).append(true).open(plan.log)?;
        let mut child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| describe(plan.name, &command, &error))?;
        let group = Pid::from_child(&child);
        let guard = guard(group, plan).inspect_err(|_| {
            let _ = child.kill();
        })?;

        // A thread rather than tokio's child: a process may live longer than the
        // runtime of the test that started it.
        let (sender, exit) = watch::channel(None);
        std::thread::spawn(move || {
            if let Ok(status) = child.wait() {
                sender.send_replace(Some(status));
            }
        });
        Ok(Self { name: plan.name, group, stop: plan.stop, exit, guard, log: plan.log.to_owned() })
    }

    /// The process id, which is also the id of its group.
    pub fn id(&self) -> i32 {
        self.group.as_raw_nonzero().get()
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// Waits until it has ended by itself.
    pub async fn wait(&self) -> Option<ExitStatus> {
        let mut exit = self.exit.clone();
        exit.wait_for(Option::is_some).await.ok().and_then(|status| *status)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(self.group, signal)?)
    }

    /// Asks it to end by `signal`, and kills whatever of its group is there after `limit`.
    pub async fn stop(&self, signal: Signal, limit: Duration) -> io::Result<()> {
        if self.ended().is_none() {
            // Gone already is as good.
            let _ = kill_process(self.group, signal);
            let _ = timeout(limit, self.wait()).await;
        }
        self.kill().await
    }

    /// Kills the whole group and waits until nothing of it runs.
    pub async fn kill(&self) -> io::Result<()> {
        let deadline = Instant::now() + KILL_LIMIT;
        loop {
            match kill_process_group(self.group, Signal::KILL) {
                // The second is macOS' word for "only zombies".
                Err(Errno::SRCH | Errno::PERM) => break,
                Err(error) => return Err(error.into()),
                Ok(()) => {}
            }
            // Orphans of the group stay as zombies until the system's first process
            // collects them, which in a container may be never.
            if self.ended().is_some() && (only_zombies(self.group) || Instant::now() > deadline) {
                break;
            }
            sleep(POLL).await;
        }
        self.wait().await;
        Ok(())
    }

    /// The last lines it printed, for an error message.
    pub fn log_tail(&self) -> String {
        tail(&self.log)
    }

    /// An error that says how the child ended and what it said.
    pub fn failure(&self, what: &str) -> io::Error {
        let state = self.ended().map_or_else(|| "still running".to_owned(), |status| status.to_string());
        io::Error::other(format!("{} {what} ({state}). It printed:\n{}", self.name, self.log_tail()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() && self.stop != Signal::KILL {
            let _ = kill_process(self.group, self.stop);
            wait_blocking(DROP_LIMIT, || self.ended().is_some());
        }
        let _ = kill_process_group(self.group, Signal::KILL);
        // Whoever removes the child's files next must not meet it writing.
        wait_blocking(DROP_LIMIT, || test_kill_process_group(self.group).is_err() || only_zombies(self.group));
        // Last: until here it would have done the same on our behalf.
        let _ = self.guard.kill();
        let _ = self.guard.wait();
        if std::thread::panicking() {
            eprintln!("--- {} printed:\n{}", self.name, self.log_tail());
        }
    }
}

fn wait_blocking(limit: Duration, done: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !done() && start.elapsed() < limit {
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn guard(group: Pid, plan: &Plan<'_>) -> io::Result<Child> {
    let signal = match plan.stop {
        Signal::QUIT => "QUIT",
        Signal::INT => "INT",
        Signal::TERM => "TERM",
        _ => "KILL",
    };
    Command::new("sh")
        .args(["-c", GUARD, "guard", signal])
        .arg(group.as_raw_nonzero().to_string())
        .arg(plan.remove.unwrap_or(Path::new("")))
        .arg(GUARD_PATIENCE)
        .process_group(0)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

/// True if no member of the group runs any more. Where there is no `/proc` (macOS), the
/// first process always collects orphans and the group vanishes by itself.
fn only_zombies(group: Pid) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    let group = group.as_raw_nonzero().to_string();
    !processes.flatten().any(|entry| {
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { return false };
        // "pid (name) state parent group …"; the name may itself hold spaces and brackets.
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let state = fields.next();
        fields.nth(1) == Some(group.as_str()) && state != Some("Z")
    })
}

fn describe(name: &str, command: &Command, error: &io::Error) -> io::Error {
    let program = command.get_program().to_string_lossy();
    io::Error::new(error.kind(), format!("cannot start {name} ({program}): {error}. `make setup` installs it"))
}

/// The last lines of a log file.
pub(crate) fn tail(log: &Path) -> String {
    const LINES: usize = 40;
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
