//! Programs of Python that tests need, of exact versions, installed once into virtual environments below `target/`.
//! Without Python or a package registry such a test fails; it is never skipped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

/// The interpreter of an environment of this name that holds what is required.
///
/// Blocks: installing takes up to a minute the first time.
pub fn with(name: &str, requirements: &Path) -> anyhow::Result<PathBuf> {
    let wanted = fs::read_to_string(requirements).context("the list of packages cannot be read")?;
    let home = target().join(name);
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
    run(install, "the packages could not be installed; a package registry must be reachable")?;
    fs::write(&installed, wanted).context("the record of what is installed cannot be written")?;
    Ok(python)
}

/// Where builds and what else can be made anew is put.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => PathBuf::from(target),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
    }
}

/// Runs it to its end and gives what it printed; the error holds that too.
pub fn run(mut command: Command, problem: &str) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("{problem}: {command:?} does not start"))?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim_end().to_owned();
    if !output.status.success() {
        bail!("{problem}:\n{said}");
    }
    Ok(said)
}
