//! The clock of one call. Everything with a time in a call is on it; `pace` makes it run faster than
//! the wall's, for tests that want a minute of conversation in seconds.

use std::time::Duration;

use tokio::time::Instant;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
    pace: u32,
}

impl Clock {
    pub(crate) fn start(pace: u32) -> Self {
        Self { origin: Instant::now(), pace: pace.max(1) }
    }

    pub(crate) fn now_us(self) -> u64 {
        let wall = u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX);
        wall.saturating_mul(u64::from(self.pace))
    }

    pub(crate) fn now_ms(self) -> u64 {
        self.now_us() / 1000
    }

    pub(crate) fn origin(self) -> std::time::Instant {
        self.origin.into_std()
    }

    pub(crate) async fn until_us(self, at_us: u64) {
        tokio::time::sleep_until(self.origin + Duration::from_micros(at_us / u64::from(self.pace))).await;
    }

    pub(crate) async fn sleep_ms(self, ms: u64) {
        self.until_us(self.now_us() + ms * 1000).await;
    }
}
