//! Sound recordings of calls: where they are, and what became of them.

use std::fmt;
use std::str::FromStr;

use shared::CallId;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Result, StoreError};

/// What became of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordingState {
    /// It goes on, or its origin has died and has not come back yet.
    Recording,
    /// Whole, at its place.
    Stored,
    /// At its place, up to the moment at which its origin died or fell behind.
    Partial,
    /// Gone.
    Lost,
}

impl RecordingState {
    /// The spelling in the database and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Recording => "recording",
            Self::Stored => "stored",
            Self::Partial => "partial",
            Self::Lost => "lost",
        }
    }
}

impl fmt::Display for RecordingState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RecordingState {
    type Err = StoreError;

    fn from_str(word: &str) -> Result<Self> {
        [Self::Recording, Self::Stored, Self::Partial, Self::Lost]
            .into_iter()
            .find(|state| state.as_str() == word)
            .ok_or(StoreError::Corrupt("recording state"))
    }
}

/// Where a recording is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A key in our storage.
    Key(String),
    /// A URL of Vapi's.
    Url(String),
}

/// A recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recording {
    /// Our id of it.
    pub id: Uuid,
    /// What became of it.
    pub state: RecordingState,
    /// Where it is, or will be.
    pub place: Place,
    /// When it began.
    pub started_at: OffsetDateTime,
    /// How long it is.
    pub duration_ms: Option<i64>,
    /// How large it is.
    pub bytes: Option<i64>,
}

/// Writes a recording, anew if it is known by its id. A URL that the call has already is not written again.
pub async fn write(conn: &mut PgConnection, call: CallId, recording: &Recording) -> Result<()> {
    let (key, url) = match &recording.place {
        Place::Key(key) => (Some(key), None),
        Place::Url(url) => (None, Some(super::without_nul(url))),
    };
    sqlx::query!(
        "insert into recordings (id, call_id, state, key, url, started_at, duration_ms, bytes)
         select $1, $2, $3, $4, $5, $6, $7, $8
         where $5::text is null or not exists (select from recordings where call_id = $2 and url = $5)
         on conflict (id) do update set
             state = excluded.state, duration_ms = excluded.duration_ms, bytes = excluded.bytes",
        recording.id,
        call.0,
        recording.state.as_str(),
        key,
        url,
        recording.started_at,
        recording.duration_ms,
        recording.bytes
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The call's recordings, in order.
pub async fn of_call(conn: &mut PgConnection, call: CallId) -> Result<Vec<Recording>> {
    let rows = sqlx::query!(
        "select id, state, key, url, started_at, duration_ms, bytes from recordings
         where call_id = $1 order by started_at, id",
        call.0
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let place = match (row.key, row.url) {
                (Some(key), _) => Place::Key(key),
                (None, Some(url)) => Place::Url(url),
                (None, None) => return Err(StoreError::Corrupt("recording")),
            };
            Ok(Recording {
                id: row.id,
                state: row.state.parse()?,
                place,
                started_at: row.started_at,
                duration_ms: row.duration_ms,
                bytes: row.bytes,
            })
        })
        .collect()
}

/// Gives up recordings of calls that ended over `days` ago and that nobody has brought; tells how many.
pub async fn give_up(conn: &mut PgConnection, days: i32) -> Result<u64> {
    let done = sqlx::query!(
        "update recordings set state = 'lost' from calls
         where recordings.state = 'recording' and calls.id = recordings.call_id
           and calls.ended_at < now() - make_interval(days => $1)",
        days
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
