//! What a run was like, for people and for the closing note.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::plan::{Broken, Plan};
use crate::sender::Sent;

/// What the edge's log says about events that the origin did not take at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queue {
    /// Put on the queue.
    pub(crate) kept: usize,
    /// Not taken by the queue either; the sender was told so.
    pub(crate) refused: usize,
    /// Attempts of the consumer that failed.
    pub(crate) retried: usize,
    /// Delivered by the consumer.
    pub(crate) delivered: usize,
    /// Left as dead letters.
    pub(crate) buried: usize,
}

impl Queue {
    pub(crate) fn of_log(log: &str) -> Self {
        let count = |decision: &str| log.matches(&format!("\"decision\":\"{decision}\"")).count();
        Self {
            kept: count("keep"),
            refused: count("lose"),
            retried: count("retry"),
            delivered: count("deliver\",\"delivery"),
            buried: count("bury"),
        }
    }

    /// Whether nothing is on the queue any more.
    pub(crate) fn is_settled(&self) -> bool {
        self.kept == self.delivered + self.buried
    }
}

/// A run.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    events: usize,
    twice: usize,
    kills: usize,
    /// Requests that repeat one that was not answered 2xx.
    pub(crate) repeats: usize,
    /// How often each status was answered that is not 2xx; 0: no answer.
    pub(crate) failures: BTreeMap<u16, usize>,
    pub(crate) queue: Queue,
    sending: Duration,
    draining: Duration,
}

impl Figures {
    pub(crate) fn new(plan: &Plan, sent: &[Sent], sending: Duration, draining: Duration, queue: Queue) -> Self {
        let mut failures = BTreeMap::new();
        for status in sent.iter().flat_map(|sent| &sent.statuses).filter(|status| !(200..300).contains(*status)) {
            *failures.entry(*status).or_default() += 1;
        }
        Self {
            events: plan.events.len(),
            twice: plan.twice(),
            kills: plan.faults.iter().filter(|fault| fault.broken == Broken::Origin).count(),
            repeats: sent.iter().map(|sent| sent.statuses.len().saturating_sub(1)).sum(),
            failures,
            queue,
            sending,
            draining,
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { events, twice, kills, repeats, failures, queue, sending, draining } = self;
        let Queue { kept, refused, retried, delivered, buried } = queue;
        #[expect(clippy::cast_precision_loss, reason = "thousands")]
        let rate = (events + twice) as f64 / sending.as_secs_f64();
        writeln!(f, "{events} events of Twilio and Vapi, {twice} of them sent twice")?;
        writeln!(
            f,
            "  sent in {:.1} s, {rate:.0} a second; origin killed {kills} times, Postgres once",
            sending.as_secs_f64()
        )?;
        writeln!(f, "  {repeats} requests repeated after {failures:?} (status: times)")?;
        writeln!(
            f,
            "  queue: {kept} kept, {refused} refused, {delivered} delivered after {retried} retries, {buried} buried"
        )?;
        write!(f, "  everything processed {:.1} s after the last was sent", draining.as_secs_f64())
    }
}
