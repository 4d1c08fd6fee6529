//! What is kept of a call while it goes on, written off the audio path.
//!
//! A call hands its lines and facts to one task ([`writer`]), which writes them in batches and in order, as soon as they
//! come: what was handed over is in the database one to two transactions later, some milliseconds, and that is all that
//! a killed process loses. While the database is away the task waits and tries again; calls notice nothing. What waits
//! is bounded in number and in bytes; what does not fit is dropped and counted.

mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::Value;
use shared::CallId;
use sqlx::PgPool;
use time::OffsetDateTime;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::bridge::transcript::Line;
use crate::end_reason::Ending;
use crate::prices::PriceTable;
use crate::store::call_tools::{CallTool, ToolOutcome};
use crate::store::call_turns::CallTurn;
use crate::store::recordings::Recording;
use crate::telemetry::Metrics;
use crate::usage::Usage;

/// What may wait for the database.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries.
    pub entries: usize,
    /// Bytes that they hold.
    pub bytes: usize,
}

/// Twice what 700 busy calls say in a minute: two entries a second each, of under a kilobyte.
const LIMITS: Limits = Limits { entries: 131_072, bytes: 64 * 1024 * 1024 };
/// Ends of calls and recordings may go beyond the bytes by one part in this many: they are few, and others rely on them.
const RESERVE: usize = 8;

/// Something to keep of a call.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A line of the transcript, new or anew.
    Line(Line),
    /// What the call has used so far.
    Usage(Usage),
    /// How fast the agent has answered.
    Turn(CallTurn),
    /// How long the stream took until the agent listened and could speak, in milliseconds.
    Setup(u64),
    /// How often the caller has cut the agent off so far.
    Interruptions(u32),
    /// A function call.
    Tool(CallTool),
    /// A sound recording, new or anew.
    Recording(Recording),
    /// The call is over.
    Ended(Ending),
}

impl Entry {
    /// Bytes that it holds beside its own size, about.
    fn heap_bytes(&self) -> usize {
        match self {
            Self::Line(line) => line.text.len() + line.item_id.len(),
            // A few models, each with a map's node and its name.
            Self::Usage(usage) => 256 * (usage.models.len() + usage.transcription.len()),
            Self::Tool(tool) => {
                let texts = [Some(&tool.tool_call_id), Some(&tool.name), tool.result.as_ref()];
                texts.into_iter().flatten().map(String::len).sum::<usize>() + json_bytes(&tool.arguments)
            }
            Self::Recording(_) => 256,
            Self::Ended(ending) => ending.detail.as_ref().map_or(0, String::len),
            Self::Turn(_) | Self::Setup(_) | Self::Interruptions(_) => 0,
        }
    }

    /// Whether others rely on it.
    fn is_vital(&self) -> bool {
        matches!(self, Self::Ended(_) | Self::Recording(_))
    }
}

/// A function call that runs.
#[derive(Debug)]
pub struct ToolRun {
    tool: CallTool,
    begun: Instant,
}

impl ToolRun {
    /// The model has just asked for it.
    pub fn begin(tool_call_id: &str, name: &str, arguments: Value) -> Self {
        let tool = CallTool {
            tool_call_id: tool_call_id.to_owned(),
            name: name.to_owned(),
            arguments,
            result: None,
            outcome: ToolOutcome::Unknown,
            started_at: OffsetDateTime::now_utc(),
            duration_ms: None,
        };
        Self { tool, begun: Instant::now() }
    }

    /// It has just ended, with what the model is told.
    pub fn end(self, outcome: &Result<String, String>) -> CallTool {
        let (Ok(text) | Err(text)) = outcome;
        CallTool {
            result: Some(text.clone()),
            outcome: if outcome.is_ok() { ToolOutcome::Ok } else { ToolOutcome::Failed },
            duration_ms: Some(i32::try_from(self.begun.elapsed().as_millis()).unwrap_or(i32::MAX)),
            ..self.tool
        }
    }
}

#[derive(Debug)]
enum Record {
    Entry {
        call: CallId,
        at: OffsetDateTime,
        entry: Entry,
    },
    /// Everything before it is written when this is answered.
    Flush(oneshot::Sender<()>),
}

impl Record {
    fn bytes(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Entry { entry, .. } => entry.heap_bytes(),
                Self::Flush(_) => 0,
            }
    }
}

/// What waits, and whether some of it had to be dropped.
#[derive(Debug)]
struct Waiting {
    limits: Limits,
    bytes: AtomicUsize,
    dropping: AtomicBool,
    /// Somebody waits until it is written.
    hurry: Notify,
}

/// The way to the writing task; cheap to clone.
#[derive(Clone, Debug)]
pub struct Recorder {
    queue: mpsc::Sender<Record>,
    waiting: Arc<Waiting>,
    metrics: Arc<Metrics>,
}

impl Recorder {
    /// Starts the writing task, which lives as long as the process.
    pub fn start(db: PgPool, metrics: Arc<Metrics>, prices: PriceTable) -> Self {
        Self::with_limits(db, metrics, prices, LIMITS)
    }

    /// The same with other limits.
    pub fn with_limits(db: PgPool, metrics: Arc<Metrics>, prices: PriceTable, limits: Limits) -> Self {
        let (queue, records) = mpsc::channel(limits.entries);
        let (bytes, dropping) = (AtomicUsize::new(0), AtomicBool::new(false));
        let waiting = Arc::new(Waiting { limits, bytes, dropping, hurry: Notify::new() });
        tokio::spawn(writer::run(db, prices, records, Arc::clone(&waiting)));
        Self { queue, waiting, metrics }
    }

    /// Waits until all that was recorded so far is written: before the process ends, or before a call is taken up again
    /// with what it was about. A database that has come back is not waited for longer than that takes.
    pub async fn flush(&self) {
        self.waiting.hurry.notify_one();
        let (written, done) = oneshot::channel();
        if self.queue.send(Record::Flush(written)).await.is_ok() {
            // Fails only when the task is gone, and then there is nothing to wait for.
            let _ = done.await;
        }
    }

    /// Hands an entry over, without waiting.
    pub fn record(&self, call: CallId, entry: Entry) {
        let is_vital = entry.is_vital();
        let record = Record::Entry { call, at: OffsetDateTime::now_utc(), entry };
        if !self.waiting.enter(record.bytes(), is_vital) {
            self.dropped();
        } else if let Err(error) = self.queue.try_send(record) {
            self.waiting.leave(error.into_inner().bytes());
            self.dropped();
        }
    }

    fn dropped(&self) {
        self.metrics.call_records_dropped.inc();
        if !self.waiting.dropping.swap(true, Ordering::Relaxed) {
            tracing::error!("facts of calls are dropped: too many wait for the database");
        }
    }
}

impl Waiting {
    /// Takes the room for a record. `false`: there is none.
    fn enter(&self, bytes: usize, is_vital: bool) -> bool {
        let limit = if is_vital { self.limits.bytes + self.limits.bytes / RESERVE } else { self.limits.bytes };
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before + bytes <= limit;
        if !fits {
            self.leave(bytes);
        }
        fits
    }

    fn leave(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Tells when everything that waited is written after some was dropped.
    fn caught_up(&self) {
        if self.dropping.swap(false, Ordering::Relaxed) {
            tracing::warn!("all that is left of what calls told is written");
        }
    }
}

/// About how much a JSON value holds.
fn json_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(|item| json_bytes(item) + size_of::<Value>()).sum(),
        Value::Object(members) => {
            members.iter().map(|(name, value)| name.len() + json_bytes(value) + 2 * size_of::<Value>()).sum()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sqlx::postgres::PgPoolOptions;
    use uuid::Uuid;

    use super::*;
    use crate::bridge::transcript::Role;
    use crate::end_reason::EndReason;

    fn line(position: u32, bytes: usize) -> Entry {
        Entry::Line(Line {
            position,
            role: Role::Caller,
            item_id: "item".to_owned(),
            text: "x".repeat(bytes),
            heard_ms: None,
            interrupted: false,
        })
    }

    /// A recorder whose database is never there.
    fn cut_off(limits: Limits) -> Recorder {
        // Nothing listens on the port of the discard service.
        let db = PgPoolOptions::new()
            .acquire_timeout(Duration::from_millis(50))
            .connect_lazy("postgres://nobody@127.0.0.1:9/none")
            .expect("a URL");
        Recorder::with_limits(db, Arc::new(Metrics::new()), PriceTable::built_in(), limits)
    }

    #[tokio::test]
    async fn what_waits_is_bounded_in_bytes_and_the_rest_is_counted() {
        let recorder = cut_off(Limits { entries: 100_000, bytes: 1024 * 1024 });
        let call = CallId(Uuid::nil());
        for position in 0..1000 {
            recorder.record(call, line(position, 10_000));
        }
        let waiting = recorder.waiting.bytes.load(Ordering::Relaxed);
        assert!(waiting <= 1024 * 1024, "{waiting}");
        let dropped = recorder.metrics.call_records_dropped.get();
        assert!((890..=910).contains(&dropped), "{dropped}");
        // The end of a call still has room.
        recorder.record(call, Entry::Ended(EndReason::CallerHungUp.into()));
        assert_eq!(recorder.metrics.call_records_dropped.get(), dropped);
    }

    #[tokio::test]
    async fn what_waits_is_bounded_in_number() {
        let recorder = cut_off(Limits { entries: 10, bytes: usize::MAX / 2 });
        for position in 0..2000 {
            recorder.record(CallId(Uuid::nil()), line(position, 1));
        }
        // Ten wait in the queue, beside the batch that is tried to be written.
        let dropped = recorder.metrics.call_records_dropped.get();
        assert!(dropped >= 2000 - 10 - writer::BATCH as u64, "{dropped}");
        let kept = 2000 - usize::try_from(dropped).expect("few");
        let waiting = recorder.waiting.bytes.load(Ordering::Relaxed);
        assert!(waiting <= kept * (size_of::<Record>() + 5), "{waiting} bytes for {kept} records");
    }
}
