//! The account that Postgres runs under: it refuses to run as root.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::Path;
use std::process::Command;

/// Whom the server runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Account {
    /// We are not root.
    Ourselves,
    /// We are root and become this user, through `setpriv`.
    Other { user: u32, group: u32 },
}

/// An account that is not root. As root that is `nobody`, which every system has.
pub(super) fn unprivileged() -> io::Result<Account> {
    if !rustix::process::geteuid().is_root() {
        return Ok(Account::Ourselves);
    }
    let accounts = fs::read_to_string("/etc/passwd")?;
    find(&accounts, "nobody").ok_or_else(|| io::Error::other("there is no user `nobody` to run Postgres as"))
}

fn find(accounts: &str, name: &str) -> Option<Account> {
    // "name:password:user:group:…"
    let mut fields = accounts.lines().map(|line| line.split(':')).find_map(|mut fields| {
        let found = fields.next() == Some(name);
        found.then_some(fields)
    })?;
    let user = fields.nth(1)?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    Some(Account::Other { user, group })
}

impl Account {
    /// A command that runs `program` as this account.
    pub(super) fn command(self, program: &Path) -> Command {
        match self {
            Self::Ourselves => Command::new(program),
            Self::Other { user, group } => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", &user.to_string(), "--regid", &group.to_string()]);
                command.args(["--clear-groups", "--inh-caps=-all", "--"]).arg(program);
                command
            }
        }
    }

    /// Makes a directory that only this account can enter.
    pub(super) fn make_directory(self, path: &Path) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(path)?;
        match self {
            Self::Ourselves => Ok(()),
            Self::Other { user, group } => chown(path, Some(user), Some(group)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_an_account_by_its_whole_name() {
        let accounts =
            "root:x:0:0:root:/root:/bin/sh\nnobody2:x:7:8::/:/bin/false\nnobody:x:65534:65533::/:/bin/false\n";
        assert_eq!(find(accounts, "nobody"), Some(Account::Other { user: 65534, group: 65533 }));
        assert_eq!(find(accounts, "body"), None);
    }
}
