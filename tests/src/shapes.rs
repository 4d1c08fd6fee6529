//! Checks of simulated messages against the types of the official Python SDKs.
//!
//! A simulator writes what it sends to a file, one JSON value a line, and a script in `tests/shapes/` holds it
//! against the SDK. The SDKs are of the exact versions in `tests/shapes/requirements.txt`.

use std::path::Path;
use std::process::Command;

use crate::python;

/// Runs `tests/shapes/<script>.py` on a file of JSON lines; the error holds the script's complaints.
///
/// Blocks: installing takes up to a minute the first time.
pub fn validate(script: &str, lines: impl AsRef<Path>) -> anyhow::Result<()> {
    let shapes = Path::new(env!("CARGO_MANIFEST_DIR")).join("shapes");
    let python = python::with("shapes", &shapes.join("requirements.txt"))?;
    // Isolated: a script named like the package that it imports must not find itself.
    let mut command = Command::new(python);
    command.arg("-I").arg(shapes.join(format!("{script}.py"))).arg(lines.as_ref());
    python::run(command, "the shapes do not fit the SDK").map(drop)
}
