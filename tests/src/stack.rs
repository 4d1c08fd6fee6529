//! The parts that a whole Tandem on one machine is put together from: a Postgres
//! server, the Worker under `wrangler dev`, and a network link that can be broken.
//!
//! Used by the end-to-end tests, `sim demo` and `sim dev`. Everything listens on
//! 127.0.0.1, on free ports, keeps its files in scratch directories, and is gone
//! when its owner is gone, however that came about.

pub mod edge;
pub mod link;
pub mod origin;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod scratch;
pub mod workerd;

use std::path::{Path, PathBuf};

/// The top folder of the repository.
pub fn root() -> &'static Path {
    // The folder of this crate always has a parent.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// A file of an npm package, which `make setup` installs.
pub(crate) fn npm(path: &str) -> PathBuf {
    root().join("node_modules").join(path)
}
