//! The inbox: every event of Twilio and Vapi takes effect once.
//!
//! An event is noted, takes effect and is committed in one transaction. One that was noted before is acknowledged and
//! changes nothing; when the transaction fails, nothing was noted, and the sender or the edge repeats it. Messages that
//! need an answer do not come here: they are written so that repeating them does no harm.
//!
//! An event that comes before its call is known, and would change its record, waits here, with its body, until
//! `late_events` gives it its effect.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use shared::{CallSid, VapiCallId};
use sqlx::{PgConnection, Postgres, Transaction};
use time::OffsetDateTime;

use crate::App;
use crate::store::StoreError;
use crate::store::inbox::{self, NewEntry};
use crate::telemetry::{DeliveryLabels, Metrics};

/// How long an event is remembered. The edge brings one back for up to a day, and as a dead letter for 14 days more
/// (`shared::dead_letter::KEEP_SECONDS`); after that nothing repeats it.
pub const KEEP_DAYS: i32 = 16;

/// How long an event waits for its call to be known, and with it what callers said. The edge may bring a call's first
/// event so much later than the last.
pub const WAIT_HOURS: i32 = 24;
/// The longest body that is kept for it: as much as the edge takes.
const MAX_WAITING_BYTES: usize = 1024 * 1024;
/// How far a sender's clock may be ahead of ours.
const SKEW: Duration = Duration::from_secs(5);

/// Longest word for a type that is kept; the types that exist are half as long.
const MAX_KIND_BYTES: usize = 64;

/// Who sent an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Twilio.
    Twilio,
    /// Vapi.
    Vapi,
}

impl Source {
    /// The spelling in the database and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Twilio => "twilio",
            Self::Vapi => "vapi",
        }
    }
}

/// An event that came in.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// What the sender repeats.
    pub id: &'a str,
    /// Who sent it.
    pub source: Source,
    /// The sender's word for what it is.
    pub kind: &'a str,
    /// The body.
    pub body: &'a [u8],
    /// The call's name at Twilio.
    pub call_sid: Option<&'a CallSid>,
    /// The call's name at Vapi.
    pub vapi_call_id: Option<&'a VapiCallId>,
    /// Whether it changes its call's record: only then it is kept while its call is not known. Agents that are none of
    /// ours may tell of every word that is said.
    pub changes_record: bool,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It changed what it tells of, or had nothing to change.
    Applied,
    /// Its agent has left the system, and the call began after that.
    Skipped,
    /// It tells of no call or agent of ours.
    Unknown,
}

impl State {
    /// The spelling in the database and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Skipped => "skipped",
            Self::Unknown => "unknown",
        }
    }
}

/// An event that is new, and the transaction that it takes effect in. Dropped without [`close`](Self::close), nothing
/// has happened.
#[derive(Debug)]
pub struct Entry<'a> {
    transaction: Transaction<'static, Postgres>,
    delivery: Delivery<'a>,
    metrics: Arc<Metrics>,
}

/// Opens an event. `None`: it has taken effect before.
pub async fn open<'a>(app: &App, delivery: Delivery<'a>) -> Result<Option<Entry<'a>>, StoreError> {
    let mut transaction = app.db.begin().await?;
    let hash = Sha256::digest(delivery.body);
    let entry = NewEntry {
        delivery_id: delivery.id,
        source: delivery.source.as_str(),
        kind: bounded_kind(delivery.kind),
        body_sha256: &hash,
        call_sid: delivery.call_sid,
        vapi_call_id: delivery.vapi_call_id,
    };
    let outcome = match inbox::receive(&mut transaction, &entry).await? {
        None => return Ok(Some(Entry { transaction, delivery, metrics: Arc::clone(&app.metrics) })),
        Some(first) if first == *hash => "repeated",
        Some(_) => {
            // Vapi signs the URLs in a report anew for every attempt, so with a report this is no fault.
            tracing::warn!(delivery = delivery.id, "An event was repeated with another body and is not applied");
            "conflict"
        }
    };
    count(&app.metrics, delivery.source, outcome);
    Ok(None)
}

impl Entry<'_> {
    /// Makes the event's effect and its mark permanent, together.
    pub async fn close(mut self, state: State) -> Result<(), StoreError> {
        let Delivery { id, body, call_sid, vapi_call_id, changes_record, .. } = self.delivery;
        let names_call = call_sid.is_some() || vapi_call_id.is_some();
        let waits = state == State::Unknown && changes_record && names_call && body.len() <= MAX_WAITING_BYTES;
        inbox::processed(&mut self.transaction, id, state.as_str(), waits.then_some(body)).await?;
        self.transaction.commit().await?;
        count(&self.metrics, self.delivery.source, state.as_str());
        Ok(())
    }
}

impl Deref for Entry<'_> {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.transaction
    }
}

impl DerefMut for Entry<'_> {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }
}

/// The sender's word for a type as it is kept: short, and nothing that the database cannot hold.
pub fn bounded_kind(kind: &str) -> &str {
    let fits = kind.len() <= MAX_KIND_BYTES && kind.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { kind } else { "other" }
}

/// When something happened of which its sender says when: an event may have waited for hours. A time in the future is
/// somebody's wrong clock.
pub fn told_at(told: Option<OffsetDateTime>, now: OffsetDateTime) -> OffsetDateTime {
    told.filter(|told| *told <= now + SKEW).unwrap_or(now)
}

fn count(metrics: &Metrics, source: Source, outcome: &'static str) {
    metrics.deliveries.get_or_create(&DeliveryLabels { source: source.as_str(), outcome }).inc();
}
