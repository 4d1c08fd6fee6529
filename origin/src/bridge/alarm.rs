//! A timer for a deadline that every message of audio may move.

use std::pin::Pin;

use tokio::time::{Instant, Sleep, sleep_until};

/// One timer, which is set anew only when it would ring too late: a deadline that moves away is cheaper met by waking once
/// too early than by telling the runtime of every move, fifty times a second.
#[derive(Debug)]
pub(super) struct Alarm(Pin<Box<Sleep>>);

impl Alarm {
    /// An alarm that is not set.
    pub(super) fn new() -> Self {
        Self(Box::pin(sleep_until(Instant::now())))
    }

    /// Waits until `deadline`. It may be dropped before, and asked again for another time.
    pub(super) async fn until(&mut self, deadline: Instant) {
        loop {
            if self.0.is_elapsed() || deadline < self.0.deadline() {
                self.0.as_mut().reset(deadline);
            }
            self.0.as_mut().await;
            if self.0.deadline() >= deadline {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn it_rings_at_the_last_deadline_however_that_has_moved() {
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        let hour = 3_600_000;
        let mut alarm = Alarm::new();
        // Nearer, further, the same again, one that has passed.
        for (moves, deadline) in [(vec![2 * hour, hour], 20), (vec![hour, 2 * hour], 40), (vec![], 40), (vec![hour], 5)]
        {
            for earlier in moves {
                assert!(alarm.until(at(earlier)).now_or_never().is_none(), "{earlier}");
            }
            timeout(Duration::from_mins(1), alarm.until(at(deadline))).await.expect("it rings");
            assert!(Instant::now() >= at(deadline), "{deadline}");
        }
    }
}
