//! Connection overrides: how a webhook URL's fragment (`#rc=2&rp=ct,rt,5xx&rt=4000`) changes the
//! time limits and retries of the request. Source: Twilio's "Webhooks: Connection Overrides".

use std::time::Duration;

/// The limits of one webhook request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// `ct`: TCP connect.
    pub(crate) connect: Duration,
    /// `rt`: wait for the first bytes, and between packets.
    pub(crate) read: Duration,
    /// `tt`: all attempts together.
    pub(crate) total: Duration,
    /// `rc`: retries after the first attempt.
    pub(crate) retries: u32,
    /// `rp`: what is retried.
    pub(crate) retried: Vec<Retry>,
}

/// A kind of failure that can be retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    Connect,
    Read,
    Status4xx,
    Status5xx,
}

impl Limits {
    /// The limits of a URL. Values out of range or unknown are ignored. `total` is the hard limit
    /// (15 s at Twilio), which no override passes.
    pub(crate) fn of(url: &str, total: Duration) -> Self {
        let mut limits = Self {
            connect: Duration::from_secs(5),
            read: Duration::from_secs(15),
            total,
            retries: 1,
            retried: vec![Retry::Connect],
        };
        let fragment = url.split_once('#').map_or("", |(_, fragment)| fragment);
        for (key, value) in fragment.split('&').filter_map(|pair| pair.split_once('=')) {
            let ms = |min: u64, max: u64| {
                value.parse().ok().filter(|ms| (min..=max).contains(ms)).map(Duration::from_millis)
            };
            match key {
                "ct" => limits.connect = ms(100, 10_000).unwrap_or(limits.connect),
                "rt" => limits.read = ms(100, 15_000).unwrap_or(limits.read),
                "tt" => limits.total = ms(100, 15_000).unwrap_or(limits.total).min(total),
                "rc" => limits.retries = value.parse().ok().filter(|count| *count <= 5).unwrap_or(limits.retries),
                "rp" => limits.retried = value.split(',').flat_map(policy).copied().collect(),
                _ => {}
            }
        }
        limits
    }
}

fn policy(name: &str) -> &'static [Retry] {
    match name {
        "ct" => &[Retry::Connect],
        "rt" => &[Retry::Read],
        "4xx" => &[Retry::Status4xx],
        "5xx" => &[Retry::Status5xx],
        "all" => &[Retry::Connect, Retry::Read, Retry::Status4xx, Retry::Status5xx],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HARD: Duration = Duration::from_secs(15);

    #[test]
    fn without_a_fragment_one_failed_connect_is_retried() {
        let limits = Limits::of("https://h.test/p?rc=5", HARD);
        assert_eq!((limits.retries, limits.retried, limits.total), (1, vec![Retry::Connect], HARD));
    }

    #[test]
    fn overrides_apply_within_their_ranges() {
        let limits = Limits::of("https://h.test/p#rc=2&rp=rt,5xx&rt=4000&ct=50&tt=9000&e=dublin", HARD);
        assert_eq!((limits.retries, limits.retried), (2, vec![Retry::Read, Retry::Status5xx]));
        assert_eq!(limits.read, Duration::from_secs(4));
        assert_eq!(limits.connect, Duration::from_secs(5), "50 ms is out of range");
        assert_eq!(limits.total, Duration::from_secs(9));
    }
}
