//! Transcripts: what was said, in order.

use std::fmt;
use std::str::FromStr;

use shared::CallId;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Result, StoreError};

/// Who said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// The person on the phone.
    Caller,
    /// The agent.
    Assistant,
    /// A tool: a call of a function, and what came of it.
    Tool,
}

impl Speaker {
    /// The spelling in the database and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

impl FromStr for Speaker {
    type Err = StoreError;

    fn from_str(word: &str) -> Result<Self> {
        [Self::Caller, Self::Assistant, Self::Tool]
            .into_iter()
            .find(|speaker| speaker.as_str() == word)
            .ok_or(StoreError::Corrupt("transcript role"))
    }
}

impl fmt::Display for Speaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The places of one stream of a call; see [`first_place`].
pub(super) const PLACES: i32 = 100_000;

/// Where the lines begin that the call's stream with this number (from 1) tells. What the stream before has not written
/// yet has places of its own. The one just before the first is for what came between the two.
pub fn first_place(stream: i32) -> i32 {
    stream.saturating_mul(PLACES).saturating_add(1)
}

/// One thing that was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TranscriptItem {
    /// Its place among the call's items; only the order counts.
    pub position: i32,
    /// Who said it.
    pub role: Speaker,
    /// What was said.
    pub text: String,
    /// The item's name in the session that made it.
    pub item_id: Option<String>,
    /// How much of the assistant's audio was really played.
    pub heard_ms: Option<i32>,
    /// Whether the caller cut it short.
    pub interrupted: bool,
    /// When it was said.
    pub at: OffsetDateTime,
}

/// Writes items; one that is there already, by its call and position, is replaced. No two may be the same item.
pub async fn write(conn: &mut PgConnection, items: &[(CallId, TranscriptItem)]) -> Result<()> {
    let calls: Vec<Uuid> = items.iter().map(|(call, _)| call.0).collect();
    let items: Vec<&TranscriptItem> = items.iter().map(|(_, item)| item).collect();
    let positions: Vec<i32> = items.iter().map(|item| item.position).collect();
    let roles: Vec<String> = items.iter().map(|item| item.role.to_string()).collect();
    let texts: Vec<String> = items.iter().map(|item| super::without_nul(&item.text)).collect();
    let item_ids: Vec<Option<String>> = items.iter().map(|item| item.item_id.clone()).collect();
    let heard: Vec<Option<i32>> = items.iter().map(|item| item.heard_ms).collect();
    let interrupted: Vec<bool> = items.iter().map(|item| item.interrupted).collect();
    let times: Vec<OffsetDateTime> = items.iter().map(|item| item.at).collect();
    sqlx::query!(
        "insert into transcript_items (call_id, position, role, text, item_id, heard_ms, interrupted, at)
         select item.* from unnest($1::uuid[], $2::int[], $3::text[], $4::text[], $5::text[], $6::int[], $7::bool[],
                                   $8::timestamptz[]) as item
         on conflict (call_id, position) do update set
             role = excluded.role, text = excluded.text, item_id = excluded.item_id,
             heard_ms = excluded.heard_ms, interrupted = excluded.interrupted",
        &calls,
        &positions,
        &roles,
        &texts,
        &item_ids as &[Option<String>],
        &heard as &[Option<i32>],
        &interrupted,
        &times
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Where the transcript goes on after what the bridge has written of it.
pub async fn after_bridged(conn: &mut PgConnection, call: CallId) -> Result<i32> {
    let next = sqlx::query_scalar!(
        r#"select coalesce(max(position) + 1, 0) as "next!" from transcript_items
           where call_id = $1 and item_id is not null"#,
        call.0
    )
    .fetch_one(conn)
    .await?;
    Ok(next)
}

/// The call's transcript, in order.
pub async fn of_call(conn: &mut PgConnection, call: CallId) -> Result<Vec<TranscriptItem>> {
    let rows = sqlx::query!(
        "select position, role, text, item_id, heard_ms, interrupted, at
         from transcript_items where call_id = $1 order by position",
        call.0
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(TranscriptItem {
                position: row.position,
                role: row.role.parse()?,
                text: row.text,
                item_id: row.item_id,
                heard_ms: row.heard_ms,
                interrupted: row.interrupted,
                at: row.at,
            })
        })
        .collect()
}
