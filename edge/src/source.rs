//! Where a request came from, as far as limits count it.

use std::net::Ipv6Addr;

/// The address that is counted: one of version 4 as it is, one of version 6 by its first 64 bits, within which a sender
/// chooses freely. An unknown one (a Worker that runs locally) is one source as well.
pub fn source(address: &str) -> String {
    match address.parse::<Ipv6Addr>().map(|address| address.segments()) {
        Ok([a, b, c, d, ..]) => format!("{a:x}:{b:x}:{c:x}:{d:x}::/64"),
        Err(_) => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_networks() {
        assert_eq!(source("192.0.2.7"), "192.0.2.7");
        assert_eq!(source("2001:db8::1"), "2001:db8:0:0::/64");
        assert_eq!(source("2001:db8::2"), source("2001:db8:0:0:ffff::1"));
        assert_ne!(source("2001:db8:0:1::1"), source("2001:db8::1"));
        assert_eq!(source(""), "");
    }
}
