//! Free TCP ports on 127.0.0.1.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

/// Ports for children, below the ranges that Linux (32768 and up) and macOS (49152
/// and up) take ports for outgoing connections from: between our look and the child's
/// `bind`, no connection of somebody else can slip in.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// Attempts before the machine counts as full.
const ATTEMPTS: usize = 1_000;

static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A listener of our own on a port that the system chooses: no race at all, so prefer
/// it wherever the server runs in this process.
pub async fn listen() -> io::Result<tokio::net::TcpListener> {
    tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
}

/// A port for a child to bind. It is never given twice in this process, and chosen at
/// random so that other processes hardly meet it.
pub fn for_child() -> io::Result<u16> {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let given = given.get_or_insert_default();
    let port = first_free(given, std::iter::repeat_with(random_port).take(ATTEMPTS)).ok_or_else(|| {
        let text = format!("no free port between {} and {}", RANGE.start, RANGE.end);
        io::Error::new(io::ErrorKind::AddrNotAvailable, text)
    })?;
    given.insert(port);
    Ok(port)
}

fn first_free(given: &HashSet<u16>, mut candidates: impl Iterator<Item = u16>) -> Option<u16> {
    candidates.find(|port| !given.contains(port) && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
}

fn random_port() -> u16 {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    let width = u64::from(RANGE.end - RANGE.start);
    RANGE.start + u16::try_from((high ^ low) % width).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skips_ports_that_were_given_or_are_taken() {
        let given = for_child().expect("the machine has free ports");
        let taken = for_child().expect("the machine has free ports");
        let free = for_child().expect("the machine has free ports");
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, taken)).expect("a given port is free");

        let found = first_free(&HashSet::from([given]), [given, taken, free].into_iter());

        assert_eq!(found, Some(free));
    }
}
