//! Checks of simulated messages against the types of the official Python SDKs.
//!
//! A simulator writes what it sends to a file, one JSON value a line, and a script in `tests/shapes/` holds it
//! against the SDK. The SDKs, of the exact versions in `tests/shapes/requirements.txt`, are installed once into
//! a virtual environment below `target/`. Without Python or a package registry the check fails; it is never
//! skipped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

/// Runs `tests/shapes/<script>.py` on a file of JSON lines; the error holds the script's complaints.
///
/// Blocks: installing takes up to a minute the first time.
pub fn validate(script: &str, lines: impl AsRef<Path>) -> anyhow::Result<()> {
    let shapes = Path::new(env!("CARGO_MANIFEST_DIR")).join("shapes");
    let python = python_with_sdks(&shapes.join("requirements.txt"))?;
    // Isolated: a script named like the package that it imports must not find itself.
    let mut command = Command::new(python);
    command.arg("-I").arg(shapes.join(format!("{script}.py"))).arg(lines.as_ref());
    run(command, "the shapes do not fit the SDK")
}

/// The interpreter of an environment that holds the SDKs.
fn python_with_sdks(requirements: &Path) -> anyhow::Result<PathBuf> {
    let wanted = fs::read_to_string(requirements).context("the list of SDKs cannot be read")?;
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => PathBuf::from(target),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
    };
    let home = target.join("shapes");
    fs::create_dir_all(&home).with_context(|| format!("{} cannot be made", home.display()))?;
    let python = home.join("venv/bin/python");
    let installed = home.join("installed.txt");
    // Tests run in processes of their own: one installs, the others wait.
    let lock = File::create(home.join("lock")).context("the lock file cannot be made")?;
    lock.lock().context("the lock cannot be had")?;
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    let mut make = Command::new("python3");
    make.args(["-m", "venv", "--clear"]).arg(home.join("venv"));
    run(make, "a Python 3.9 or later with its venv module is needed (Debian: python3-venv)")?;
    let mut install = Command::new(&python);
    install.args(["-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    install.args(["--timeout", "60", "--requirement"]).arg(requirements);
    run(install, "the SDKs could not be installed; a package registry must be reachable")?;
    fs::write(&installed, wanted).context("the record of what is installed cannot be written")?;
    Ok(python)
}

fn run(mut command: Command, problem: &str) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("{problem}: {command:?} does not start"))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("{problem}:\n{}", String::from_utf8_lossy(&said).trim_end());
    }
    Ok(())
}
