//! Directories for files that nobody needs afterwards.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// A directory that is removed when this value is dropped.
///
/// A process that is killed cannot drop anything: whoever starts a child in a scratch
/// directory also names it in [`Plan::remove`](super::process::Plan::remove).
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes an empty directory that only its owner can read.
    pub fn new(name: &str) -> io::Result<Self> {
        let unique = Uuid::new_v4().simple();
        let path = std::env::temp_dir().join(format!("tandem-{name}-{unique}"));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path })
    }

    /// Lets other users pass through, towards what is theirs inside.
    pub fn open_to_all(&self) -> io::Result<()> {
        fs::set_permissions(&self.path, fs::Permissions::from_mode(0o711))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of something in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Best effort: a server that is still ending may write into it once more.
        let _ = fs::remove_dir_all(&self.path);
    }
}
