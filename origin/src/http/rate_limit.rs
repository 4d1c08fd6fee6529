//! How many requests an API key may make: a bucket for each, which fills at a steady rate up to a limit.
//!
//! The buckets are this process's own: with several origins a key has as many times the requests. The answers' headers
//! are those of draft-ietf-httpapi-ratelimit-headers.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

use crate::http::problem::{Code, Problem};

/// What came in over how many seconds fills a bucket.
const WINDOW_S: u32 = 10;
/// Above this many buckets those that are full again are dropped: they know nothing.
const SWEEP_ABOVE: usize = 10_000;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit");

/// The buckets.
#[derive(Debug)]
pub struct RateLimits {
    per_second: u32,
    buckets: Mutex<HashMap<Uuid, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Requests that are left, in thousandths.
    left_milli: u64,
    at: Instant,
}

/// What a key has left after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Whether this request is one of them.
    pub is_granted: bool,
    quota: u32,
    left: u64,
    /// Until there is one more, or, if any is left, until the bucket is full.
    wait_s: u64,
}

impl RateLimits {
    /// So many requests a second for each key, and ten times as many at once.
    pub fn new(per_second: NonZeroU16) -> Self {
        Self { per_second: per_second.get().into(), buckets: Mutex::default() }
    }

    /// Takes one request of a key's.
    pub fn take(&self, key: Uuid) -> Allowance {
        self.take_at(key, Instant::now())
    }

    fn take_at(&self, key: Uuid, now: Instant) -> Allowance {
        let quota = self.per_second * WINDOW_S;
        let full = u64::from(quota) * 1000;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() > SWEEP_ABOVE {
            let refill = Duration::from_secs(WINDOW_S.into());
            buckets.retain(|_, bucket| now.duration_since(bucket.at) < refill);
        }
        let bucket = buckets.entry(key).or_insert(Bucket { left_milli: full, at: now });
        let since_ms = u64::try_from(now.duration_since(bucket.at).as_millis()).unwrap_or(u64::MAX);
        let filled = bucket.left_milli.saturating_add(since_ms.saturating_mul(self.per_second.into())).min(full);
        let is_granted = filled >= 1000;
        let left_milli = if is_granted { filled - 1000 } else { filled };
        *bucket = Bucket { left_milli, at: bucket.at + Duration::from_millis(since_ms) };
        let wait_milli = if left_milli >= 1000 { full - left_milli } else { 1000 - left_milli };
        let wait_s = wait_milli.div_ceil(1000 * u64::from(self.per_second)).max(1);
        Allowance { is_granted, quota, left: left_milli / 1000, wait_s }
    }
}

impl Allowance {
    /// The answer to a request that is one too many.
    pub fn refusal(self) -> Problem {
        Problem::new(Code::RateLimited, "This API key has made too many requests.").retry_after(self.wait_s)
    }

    /// Tells it in an answer's headers.
    pub fn tell(self, headers: &mut HeaderMap) {
        let Self { quota, left, wait_s, .. } = self;
        let policy = HeaderValue::try_from(format!("\"key\";q={quota};w={WINDOW_S}"));
        let remaining = HeaderValue::try_from(format!("\"key\";r={left};t={wait_s}"));
        if let (Ok(policy), Ok(remaining)) = (policy, remaining) {
            headers.insert(POLICY, policy);
            headers.insert(REMAINING, remaining);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_and_fills_again() {
        let limits = RateLimits::new(NonZeroU16::new(2).unwrap());
        let (key, start) = (Uuid::from_u128(1), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let taken = (0..25).filter(|_| limits.take_at(key, at(0)).is_granted).count();
        assert_eq!(taken, 20);
        assert_eq!(limits.take_at(key, at(499)), Allowance { is_granted: false, quota: 20, left: 0, wait_s: 1 });
        assert!(limits.take_at(key, at(500)).is_granted);
        assert!(!limits.take_at(key, at(500)).is_granted);
        assert!(limits.take_at(Uuid::from_u128(2), at(500)).is_granted, "each key has its own");
        let rested = limits.take_at(key, at(3_600_000));
        assert_eq!((rested.is_granted, rested.left), (true, 19), "it holds no more than its limit");
    }

    #[test]
    fn refusals_do_not_starve_a_key() {
        let limits = RateLimits::new(NonZeroU16::MIN);
        let (key, start) = (Uuid::from_u128(1), Instant::now());
        let granted =
            (0..20_000).filter(|ms| limits.take_at(key, start + Duration::from_millis(*ms)).is_granted).count();
        assert_eq!(granted, 29, "the ten at once, and one a second however often it asks");
    }
}
