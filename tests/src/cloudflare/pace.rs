//! How fast the API lets a client go. Pure: the time is an argument.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// The window of the limit on requests.
const WINDOW: Duration = Duration::from_mins(5);

/// What a client has done lately.
#[derive(Debug)]
pub(super) struct Pace {
    write_interval: Duration,
    request_limit: usize,
    requests: VecDeque<Instant>,
    written: HashMap<String, Instant>,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// Over the limit per five minutes.
    TooManyRequests {
        /// Until the oldest request leaves the window.
        retry_after_s: u64,
    },
    /// One of the keys was written less than the interval ago.
    KeyTooSoon {
        /// Until it may be written again.
        retry_after_s: u64,
    },
}

impl Pace {
    pub(super) fn new(write_interval: Duration, request_limit: usize) -> Self {
        Self { write_interval, request_limit, requests: VecDeque::new(), written: HashMap::new() }
    }

    /// Admits a request that writes `keys`, or refuses it whole. Refused requests count as requests.
    pub(super) fn admit(&mut self, now: Instant, keys: &[String]) -> Result<(), Refused> {
        while self.requests.front().is_some_and(|first| now.duration_since(*first) >= WINDOW) {
            self.requests.pop_front();
        }
        self.requests.push_back(now);
        if self.requests.len() > self.request_limit {
            let first = self.requests.front().copied().unwrap_or(now);
            return Err(Refused::TooManyRequests {
                retry_after_s: whole_seconds(WINDOW.saturating_sub(now.duration_since(first))),
            });
        }
        let wait = keys
            .iter()
            .filter_map(|key| self.written.get(key))
            .map(|last| self.write_interval.saturating_sub(now.duration_since(*last)))
            .max()
            .unwrap_or_default();
        if !wait.is_zero() {
            return Err(Refused::KeyTooSoon { retry_after_s: whole_seconds(wait) });
        }
        self.written.retain(|_, last| now.duration_since(*last) < self.write_interval);
        self.written.extend(keys.iter().map(|key| (key.clone(), now)));
        Ok(())
    }
}

/// `Retry-After` has whole seconds: rounded up, at least one.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0 || wait.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_can_be_written_once_a_second() {
        let mut pace = Pace::new(Duration::from_secs(1), 1200);
        let start = Instant::now();
        let key = ["a".to_owned()];
        assert_eq!(pace.admit(start, &key), Ok(()));
        assert_eq!(pace.admit(start, &["b".to_owned()]), Ok(()));
        let soon = start + Duration::from_millis(999);
        assert_eq!(pace.admit(soon, &key), Err(Refused::KeyTooSoon { retry_after_s: 1 }));
        assert_eq!(pace.admit(start + Duration::from_secs(1), &key), Ok(()));
    }

    #[test]
    fn requests_are_counted_over_five_minutes() {
        let mut pace = Pace::new(Duration::ZERO, 2);
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(pace.admit(start, &[]), Ok(()));
        assert_eq!(pace.admit(later(100), &[]), Ok(()));
        assert_eq!(pace.admit(later(200), &[]), Err(Refused::TooManyRequests { retry_after_s: 100 }));
        assert_eq!(pace.admit(later(501), &[]), Ok(()));
    }
}
