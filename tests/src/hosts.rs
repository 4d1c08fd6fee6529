//! The simulators' DNS and TLS termination: a table "public base URL → local base URL".
//!
//! A simulator is told public addresses (`https://edge.tandem.test/…`, `wss://origin.tandem.test/…`)
//! that resolve nowhere. It signs over those, checks their scheme, sends their host as `Host`, and
//! asks this table where to connect. What is not in the table does not exist, as with DNS.
//!
//! Not here: certificates. The local side speaks plain HTTP, as behind a terminating proxy.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Once, PoisonError, RwLock};

/// The table. Clones share it, so that a host can be moved or taken down in mid-test.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    table: Arc<RwLock<BTreeMap<String, String>>>,
}

/// Where to connect for one public URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The URL to open: local scheme, host and port, with the public URL's path and query byte for byte.
    pub url: String,
    /// The public host (and port, if not the default): the value of the `Host` header.
    pub host: String,
    /// Local `host:port`, for a plain TCP connect.
    pub address: String,
}

/// Why a public URL leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// Not an absolute `http`, `https`, `ws` or `wss` URL.
    Malformed(String),
    /// The host is not in the table.
    UnknownHost(String),
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(url) => write!(f, "not an absolute URL: {url}"),
            Self::UnknownHost(host) => write!(f, "no such host: {host}"),
        }
    }
}

impl std::error::Error for Unresolved {}

impl Hosts {
    /// A table from `(public base URL, local base URL)` pairs, for instance
    /// `("https://edge.tandem.test", "http://127.0.0.1:8787")`.
    pub fn new<P: AsRef<str>, L: AsRef<str>>(pairs: impl IntoIterator<Item = (P, L)>) -> Self {
        let hosts = Self::default();
        for (public, local) in pairs {
            hosts.map(public.as_ref(), local.as_ref());
        }
        hosts
    }

    /// Adds or moves a host. One entry serves `https` and `wss` alike (`http` and `ws` are another).
    ///
    /// # Panics
    /// If either URL is not absolute: a mistake in the test itself.
    pub fn map(&self, public: &str, local: &str) {
        let public = Parts::of(public).expect("the public base URL is absolute");
        let local = Parts::of(local).expect("the local base URL is absolute");
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.insert(public.key(), local.authority.to_owned());
    }

    /// Takes a host away: from now on its name does not resolve.
    pub fn unmap(&self, public: &str) {
        let public = Parts::of(public).expect("the public base URL is absolute");
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.remove(&public.key());
    }

    /// Where a public URL leads. A fragment is dropped; path and query stay as written.
    pub fn resolve(&self, public_url: &str) -> Result<Destination, Unresolved> {
        let parts = Parts::of(public_url)?;
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let address =
            table.get(&parts.key()).ok_or_else(|| Unresolved::UnknownHost(parts.authority.to_owned()))?.clone();
        let scheme = if parts.is_websocket() { "ws" } else { "http" };
        let slash = if parts.rest.starts_with('/') { "" } else { "/" };
        Ok(Destination {
            url: format!("{scheme}://{address}{slash}{}", parts.rest),
            host: parts.host_header(),
            address,
        })
    }
}

/// A `reqwest` builder for the simulators: plain HTTP only (it trusts no certificate, which also saves the 60 ms
/// of loading the system's), no proxy from the environment, no automatic redirects (each service follows
/// them in its own way).
pub fn http_client() -> reqwest::ClientBuilder {
    static TLS: Once = Once::new();
    TLS.call_once(|| {
        // A client wants a provider even if it never uses one. Installing fails only when the test has
        // installed one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    reqwest::Client::builder().tls_certs_only([]).no_proxy().redirect(reqwest::redirect::Policy::none())
}

/// The pieces of a URL, as slices of it: nothing is normalised, because signatures are over the bytes.
struct Parts<'a> {
    scheme: String,
    authority: &'a str,
    rest: &'a str,
}

impl<'a> Parts<'a> {
    fn of(url: &'a str) -> Result<Self, Unresolved> {
        let malformed = || Unresolved::Malformed(url.to_owned());
        let (scheme, after) = url.split_once("://").ok_or_else(malformed)?;
        let scheme = scheme.to_ascii_lowercase();
        let after = after.split('#').next().unwrap_or_default();
        let end = after.find(['/', '?']).unwrap_or(after.len());
        let (authority, rest) = after.split_at(end);
        if authority.is_empty() || !matches!(scheme.as_str(), "http" | "https" | "ws" | "wss") {
            return Err(malformed());
        }
        Ok(Self { scheme, authority, rest })
    }

    fn is_websocket(&self) -> bool {
        self.scheme.starts_with("ws")
    }

    fn is_secure(&self) -> bool {
        self.scheme.ends_with('s')
    }

    fn host_header(&self) -> String {
        let default_port = if self.is_secure() { ":443" } else { ":80" };
        let authority = self.authority.to_ascii_lowercase();
        authority.strip_suffix(default_port).unwrap_or(&authority).to_owned()
    }

    fn key(&self) -> String {
        format!("{}{}", if self.is_secure() { "tls:" } else { "plain:" }, self.host_header())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> Hosts {
        Hosts::new([("https://edge.tandem.test", "http://127.0.0.1:8787")])
    }

    #[test]
    fn path_and_query_stay_as_written() {
        let found = hosts().resolve("https://Edge.tandem.test:443/a%20b//c?x=O'B%27&y#rc=2").expect("mapped");
        assert_eq!(found.url, "http://127.0.0.1:8787/a%20b//c?x=O'B%27&y");
        assert_eq!(found.host, "edge.tandem.test");
        assert_eq!(found.address, "127.0.0.1:8787");
    }

    #[test]
    fn one_entry_serves_https_and_wss_but_not_their_plain_forms() {
        assert_eq!(hosts().resolve("wss://edge.tandem.test/m").expect("mapped").url, "ws://127.0.0.1:8787/m");
        assert_eq!(
            hosts().resolve("http://edge.tandem.test/m"),
            Err(Unresolved::UnknownHost("edge.tandem.test".to_owned()))
        );
    }

    #[test]
    fn a_bare_host_gets_a_slash_and_an_unmapped_one_is_gone() {
        let hosts = hosts();
        assert_eq!(hosts.resolve("https://edge.tandem.test?a=1").expect("mapped").url, "http://127.0.0.1:8787/?a=1");
        hosts.unmap("https://edge.tandem.test");
        assert!(hosts.resolve("https://edge.tandem.test/").is_err());
        assert!(hosts.resolve("/relative").is_err());
    }
}
