//! The task that writes what calls tell.
//!
//! A batch is one transaction, with few statements however many calls it tells of. Of what is told of the same fact
//! twice, the later word is written.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use shared::CallId;
use sqlx::PgPool;
use time::OffsetDateTime;
use tokio::sync::mpsc;

use super::{Entry, Record, Waiting};
use crate::bridge::transcript::{Line, Role};
use crate::prices::PriceTable;
use crate::store::call_turns::CallTurn;
use crate::store::transcript_items::{self, Speaker, TranscriptItem};
use crate::store::{self, StoreError, call_facts, call_tools, call_turns, recordings};
use crate::usage::Usage;

/// Entries written in one transaction.
pub(super) const BATCH: usize = 512;
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// Short, because it is how long calls' records may stay behind after the database is back.
const LAST_RETRY: Duration = Duration::from_secs(2);

/// Writes all records until nobody sends any.
pub(super) async fn run(db: PgPool, prices: PriceTable, mut records: mpsc::Receiver<Record>, waiting: Arc<Waiting>) {
    let mut batch = Vec::with_capacity(BATCH);
    while records.recv_many(&mut batch, BATCH).await > 0 {
        let mut wait = FIRST_RETRY;
        while let Err(error) = write(&db, &prices, &batch).await {
            if !error.is_temporary() {
                write_one_by_one(&db, &prices, &batch).await;
                break;
            }
            let behind = records.len() + batch.len();
            tracing::warn!(error = &error as &dyn std::error::Error, behind, "calls wait to be written");
            // At once, if somebody waits.
            let _ = tokio::time::timeout(wait, waiting.hurry.notified()).await;
            wait = (wait * 2).min(LAST_RETRY);
        }
        for record in batch.drain(..) {
            waiting.leave(match &record {
                // It never entered.
                Record::Flush(_) => 0,
                entry @ Record::Entry { .. } => entry.bytes(),
            });
            if let Record::Flush(written) = record {
                let _ = written.send(());
            }
        }
        if records.is_empty() {
            waiting.caught_up();
        }
    }
}

/// One entry that the database refuses must not cost the others.
async fn write_one_by_one(db: &PgPool, prices: &PriceTable, batch: &[Record]) {
    for record in batch {
        if let Err(error) = write(db, prices, std::slice::from_ref(record)).await {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "a fact of a call cannot be written");
        }
    }
}

/// A batch by what it tells, the last word on each fact.
#[derive(Debug, Default)]
struct Told<'a> {
    lines: HashMap<(CallId, u32), (&'a Line, OffsetDateTime)>,
    usage: HashMap<CallId, &'a Usage>,
    turns: HashMap<(CallId, OffsetDateTime), &'a CallTurn>,
    /// What is told seldom, in order.
    others: Vec<(CallId, OffsetDateTime, &'a Entry)>,
}

impl<'a> Told<'a> {
    fn new(batch: &'a [Record]) -> Self {
        let mut told = Self::default();
        for record in batch {
            let Record::Entry { call, at, entry } = record else { continue };
            match entry {
                Entry::Line(line) => {
                    // It was said when it was first told.
                    let first = told.lines.entry((*call, line.position)).or_insert((line, *at));
                    first.0 = line;
                }
                Entry::Usage(usage) => {
                    told.usage.insert(*call, usage);
                }
                Entry::Turn(turn) => {
                    told.turns.insert((*call, turn.speech_ended_at), turn);
                }
                _ => told.others.push((*call, *at, entry)),
            }
        }
        told
    }
}

async fn write(db: &PgPool, prices: &PriceTable, batch: &[Record]) -> Result<(), StoreError> {
    let told = Told::new(batch);
    let mut transaction = db.begin().await?;
    let conn = &mut *transaction;
    if !told.lines.is_empty() {
        let items: Vec<_> = told.lines.iter().map(|((call, _), (line, at))| (*call, item(line, *at))).collect();
        transcript_items::write(conn, &items).await?;
    }
    if !told.turns.is_empty() {
        let turns: Vec<_> = told.turns.iter().map(|((call, _), turn)| (*call, (*turn).clone())).collect();
        call_turns::write(conn, &turns).await?;
    }
    for (call, usage) in told.usage {
        call_facts::set_usage(conn, call, &usage.to_value(), Some(&prices.cost(usage))).await?;
    }
    for (call, at, entry) in told.others {
        match entry {
            Entry::Setup(ms) => call_facts::set_setup(conn, call, saturating(*ms)).await?,
            Entry::Interruptions(count) => call_facts::set_interruptions(conn, call, saturating(*count)).await?,
            Entry::Tool(tool) => call_tools::write(conn, call, tool).await?,
            Entry::Recording(recording) => recordings::write(conn, call, recording).await?,
            Entry::Ended(ending) => {
                store::calls::end(conn, call, at, ending).await?;
            }
            Entry::Line(_) | Entry::Usage(_) | Entry::Turn(_) => {}
        }
    }
    transaction.commit().await?;
    Ok(())
}

fn item(line: &Line, at: OffsetDateTime) -> TranscriptItem {
    TranscriptItem {
        position: saturating(line.position),
        role: match line.role {
            Role::Caller => Speaker::Caller,
            Role::Assistant => Speaker::Assistant,
        },
        text: line.text.clone(),
        item_id: Some(line.item_id.clone()),
        heard_ms: line.heard_ms.map(saturating),
        interrupted: line.interrupted,
        at,
    }
}

fn saturating<T: TryInto<i32>>(number: T) -> i32 {
    number.try_into().unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use shared::CallId;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_last_word_on_a_line_counts() {
        let line = |position, text: &str| Record::Entry {
            call: CallId(Uuid::nil()),
            at: OffsetDateTime::UNIX_EPOCH,
            entry: Entry::Line(Line {
                position,
                role: Role::Assistant,
                item_id: String::new(),
                text: text.to_owned(),
                heard_ms: None,
                interrupted: false,
            }),
        };
        let batch = [line(0, "Good day, how"), line(1, "Hello"), line(0, "Good day")];
        let told = Told::new(&batch);
        let mut lines: Vec<_> = told.lines.values().map(|(line, _)| (line.position, line.text.as_str())).collect();
        lines.sort_unstable();
        assert_eq!(lines, [(0, "Good day"), (1, "Hello")]);
    }
}
