//! What is kept of a call while it goes on, written off the audio path.
//!
//! A call hands its lines and facts to one task, which writes them in batches and in order. While the database is away
//! it waits and tries again; calls notice nothing. The queue is bounded: what does not fit is dropped and counted.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use shared::CallId;
use sqlx::PgPool;
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot};

use crate::bridge::transcript::{Line, Role};
use crate::store::transcript_items::{self, Speaker, TranscriptItem};
use crate::store::{self, StoreError};
use crate::telemetry::Metrics;

/// Entries that may wait for the database: about an hour of fifty calls.
const QUEUE: usize = 65_536;
/// Entries written in one transaction.
const BATCH: usize = 256;
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// Something to keep of a call.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A line of the transcript, new or anew.
    Line(Line),
    /// What the call has used so far.
    Usage(Value),
    /// The call is over.
    Ended(&'static str),
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

/// The way to the writing task; cheap to clone.
#[derive(Clone, Debug)]
pub struct Recorder {
    queue: mpsc::Sender<Record>,
    metrics: Arc<Metrics>,
}

impl Recorder {
    /// Starts the writing task, which lives as long as the process.
    pub fn start(db: PgPool, metrics: Arc<Metrics>) -> Self {
        let (queue, records) = mpsc::channel(QUEUE);
        tokio::spawn(write_all(db, records));
        Self { queue, metrics }
    }

    /// Waits until all that was recorded so far is written: before the process ends.
    pub async fn flush(&self) {
        let (written, done) = oneshot::channel();
        if self.queue.send(Record::Flush(written)).await.is_ok() {
            // Fails only when the task is gone, and then there is nothing to wait for.
            let _ = done.await;
        }
    }

    /// Hands an entry over, without waiting.
    pub fn record(&self, call: CallId, entry: Entry) {
        let record = Record::Entry { call, at: OffsetDateTime::now_utc(), entry };
        if self.queue.try_send(record).is_err() {
            self.metrics.call_records_dropped.inc();
        }
    }
}

async fn write_all(db: PgPool, mut records: mpsc::Receiver<Record>) {
    let mut batch = Vec::with_capacity(BATCH);
    while records.recv_many(&mut batch, BATCH).await > 0 {
        let mut wait = FIRST_RETRY;
        while let Err(error) = write(&db, &batch).await {
            if !error.is_temporary() {
                write_one_by_one(&db, &batch).await;
                break;
            }
            tracing::warn!(error = &error as &dyn std::error::Error, waiting = batch.len(), "calls wait to be written");
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LAST_RETRY);
        }
        for record in batch.drain(..) {
            if let Record::Flush(written) = record {
                let _ = written.send(());
            }
        }
    }
}

/// One entry that the database refuses must not cost the others.
async fn write_one_by_one(db: &PgPool, batch: &[Record]) {
    for record in batch {
        if let Err(error) = write(db, std::slice::from_ref(record)).await {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "a fact of a call cannot be written");
        }
    }
}

async fn write(db: &PgPool, batch: &[Record]) -> Result<(), StoreError> {
    let mut transaction = db.begin().await?;
    for record in batch {
        let Record::Entry { call, at, entry } = record else { continue };
        match entry {
            Entry::Line(line) => transcript_items::write(&mut transaction, *call, &[item(line, *at)]).await?,
            Entry::Usage(usage) => store::calls::set_usage(&mut transaction, *call, usage).await?,
            Entry::Ended(reason) => {
                store::calls::end(&mut transaction, *call, *at, reason).await?;
            }
        }
    }
    transaction.commit().await?;
    Ok(())
}

fn item(line: &Line, at: OffsetDateTime) -> TranscriptItem {
    TranscriptItem {
        position: i32::try_from(line.position).unwrap_or(i32::MAX),
        role: match line.role {
            Role::Caller => Speaker::Caller,
            Role::Assistant => Speaker::Assistant,
        },
        text: line.text.clone(),
        item_id: Some(line.item_id.clone()),
        heard_ms: line.heard_ms.map(|ms| i32::try_from(ms).unwrap_or(i32::MAX)),
        interrupted: line.interrupted,
        at,
    }
}

/// Adds what one response used to a call's sum: numbers add up, whatever OpenAI calls them.
pub fn add_usage(total: &mut Value, more: &Value) {
    match (total, more) {
        (Value::Object(total), Value::Object(more)) => {
            for (name, more) in more {
                add_usage(total.entry(name.clone()).or_insert(Value::Null), more);
            }
        }
        (total, Value::Number(more)) => {
            let sum = total.as_u64().unwrap_or(0) + more.as_u64().unwrap_or(0);
            *total = sum.into();
        }
        (total, more) if total.is_null() => *total = more.clone(),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn usage_adds_up() {
        let mut total = json!({});
        let used = json!({"total_tokens": 10, "input_token_details": {"audio_tokens": 4, "text_tokens": 1}});
        add_usage(&mut total, &used);
        add_usage(&mut total, &used);
        add_usage(&mut total, &json!({"output_tokens": 2, "input_token_details": null}));
        assert_eq!(
            total,
            json!({"total_tokens": 20, "output_tokens": 2, "input_token_details": {"audio_tokens": 8, "text_tokens": 2}})
        );
    }
}
