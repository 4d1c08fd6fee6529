//! A timer for a deadline that every message of audio may move.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

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

    /// Whether `deadline` has come. It may be asked for another time at every poll.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        loop {
            if self.0.is_elapsed() || deadline < self.0.deadline() {
                self.0.as_mut().reset(deadline);
            }
            ready!(self.0.as_mut().poll(context));
            if self.0.deadline() >= deadline {
                return Poll::Ready(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
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
                assert!(poll_fn(|context| alarm.poll(context, at(earlier))).now_or_never().is_none(), "{earlier}");
            }
            timeout(Duration::from_mins(1), poll_fn(|context| alarm.poll(context, at(deadline))))
                .await
                .expect("it rings");
            assert!(Instant::now() >= at(deadline), "{deadline}");
        }
    }
}
