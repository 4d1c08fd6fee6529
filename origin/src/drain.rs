//! Stopping without ending a call.
//!
//! From the request to stop on, the origin is not ready and lets no stream in, but goes on answering webhooks; its
//! calls finish. Those still up shortly before the limit are handed over as they fall silent, and at the limit whatever
//! is being said: their streams are closed with the calls alive, Twilio asks `/twilio/resume`, and another origin takes
//! them up.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::App;

/// How often progress is logged.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// For how long before the limit a quiet moment is looked for; a quarter of a limit that is shorter than four times this.
const QUIET_SEARCH: Duration = Duration::from_secs(15);
/// How long handing over may take: the last words are written, the sockets closed.
const HANDOVER_LIMIT: Duration = Duration::from_secs(10);

/// Tells calls by when they have to be in another process.
#[derive(Clone, Debug, Default)]
pub struct Departure {
    announced: CancellationToken,
    by: Arc<OnceLock<Instant>>,
}

impl Departure {
    /// From now on calls leave at quiet moments, and all of them at `by`. The first word counts.
    fn announce(&self, by: Instant) {
        self.by.get_or_init(|| by);
        self.announced.cancel();
    }

    /// Waits for the announcement, and gives the last moment.
    pub async fn announced(self) -> Instant {
        self.announced.cancelled().await;
        self.by.get().copied().unwrap_or_else(Instant::now)
    }
}

/// Waits until no call is left here, handing over what is still up towards the end of `limit`.
pub async fn drain(app: &App, limit: Duration) {
    let by = Instant::now() + limit;
    let mut report = interval(REPORT_EVERY);
    report.set_missed_tick_behavior(MissedTickBehavior::Delay);
    report.reset();
    app.tasks.close();
    let calls = app.live.count();
    tracing::info!(calls, limit_s = limit.as_secs(), "Stopping: not ready, no new streams, calls finish");
    if finished(app, by - QUIET_SEARCH.min(limit / 4), by, &mut report).await {
        return;
    }
    tracing::info!(calls = app.live.count(), "The calls still up are handed over as they fall silent");
    app.departure.announce(by);
    if finished(app, by, by, &mut report).await {
        return;
    }
    tracing::warn!(calls = app.live.count(), "DRAIN_TIMEOUT_SECONDS are over: calls are handed over as they are");
    if !finished(app, by + HANDOVER_LIMIT, by, &mut report).await {
        tracing::error!(calls = app.live.count(), tasks = app.tasks.len(), "Stopping with work unfinished");
    }
}

/// Waits until all is finished, and no longer than `until`.
async fn finished(app: &App, until: Instant, by: Instant, report: &mut Interval) -> bool {
    let finish = async {
        loop {
            tokio::select! {
                () = app.tasks.wait() => return,
                _ = report.tick() => {
                    let (calls, left_s) = (app.live.count(), by.saturating_duration_since(Instant::now()).as_secs());
                    tracing::info!(calls, left_s, "Draining");
                }
            }
        }
    };
    timeout_at(until, finish).await.is_ok()
}
