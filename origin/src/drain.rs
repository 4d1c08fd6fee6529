//! Stopping without ending a call.
//!
//! From the request to stop on, the origin is not ready and lets no stream in, but goes on answering webhooks; its
//! calls finish. Those still up at the limit are handed over: their streams are closed with the calls alive, Twilio
//! asks `/twilio/resume`, and another origin takes them up.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::App;

/// How often progress is logged.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// How long handing over may take: the last words are written, the sockets closed.
const HANDOVER_LIMIT: Duration = Duration::from_secs(10);

/// Waits until no call is left here, handing over what is still up after `limit`.
pub async fn drain(app: &App, limit: Duration) {
    let began = Instant::now();
    app.tasks.close();
    let calls = app.live.count();
    tracing::info!(calls, limit_s = limit.as_secs(), "Stopping: not ready, no new streams, calls finish");
    if timeout(limit, finish(app, began)).await.is_err() {
        let calls = app.live.count();
        tracing::warn!(calls, "DRAIN_TIMEOUT_SECONDS are over: the calls still up are handed over");
        app.handover.cancel();
        if timeout(HANDOVER_LIMIT, app.tasks.wait()).await.is_err() {
            tracing::error!(calls = app.live.count(), tasks = app.tasks.len(), "Stopping with work unfinished");
        }
    }
}

async fn finish(app: &App, began: Instant) {
    let mut report = interval(REPORT_EVERY);
    report.set_missed_tick_behavior(MissedTickBehavior::Delay);
    report.tick().await;
    loop {
        tokio::select! {
            () = app.tasks.wait() => return,
            _ = report.tick() => {
                let (calls, waited_s) = (app.live.count(), began.elapsed().as_secs());
                tracing::info!(calls, waited_s, "Draining");
            }
        }
    }
}
