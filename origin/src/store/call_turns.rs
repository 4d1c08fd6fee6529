//! How fast the agent answered in bridged calls, turn by turn.

use shared::CallId;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Result;

/// One turn of the caller's and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallTurn {
    /// When the caller was found to have stopped speaking.
    pub speech_ended_at: OffsetDateTime,
    /// From then to the first audio of the answer that was sent, in milliseconds.
    pub first_audio_ms: i32,
    /// From then to the first sign that the caller heard it. `None`: cut off before.
    pub first_heard_ms: Option<i32>,
}

/// The turns of a call together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// How many turns were measured.
    pub turns: i64,
    /// Milliseconds from the end of the caller's words to the first audio: of the middle one.
    pub p50_ms: Option<i32>,
    /// Of the one that 95 of 100 are not slower than.
    pub p95_ms: Option<i32>,
    /// Of the slowest.
    pub max_ms: Option<i32>,
}

/// Writes turns; one that is there already is replaced. No two may be the same turn.
pub async fn write(conn: &mut PgConnection, turns: &[(CallId, CallTurn)]) -> Result<()> {
    let calls: Vec<Uuid> = turns.iter().map(|(call, _)| call.0).collect();
    let ended: Vec<OffsetDateTime> = turns.iter().map(|(_, turn)| turn.speech_ended_at).collect();
    let audio: Vec<i32> = turns.iter().map(|(_, turn)| turn.first_audio_ms).collect();
    let heard: Vec<Option<i32>> = turns.iter().map(|(_, turn)| turn.first_heard_ms).collect();
    sqlx::query!(
        "insert into call_turns (call_id, speech_ended_at, first_audio_ms, first_heard_ms)
         select turn.* from unnest($1::uuid[], $2::timestamptz[], $3::int[], $4::int[]) as turn
         on conflict (call_id, speech_ended_at) do update set
             first_audio_ms = excluded.first_audio_ms, first_heard_ms = excluded.first_heard_ms",
        &calls,
        &ended,
        &audio,
        &heard as &[Option<i32>]
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The call's turns, in order.
pub async fn of_call(conn: &mut PgConnection, call: CallId) -> Result<Vec<CallTurn>> {
    Ok(sqlx::query_as!(
        CallTurn,
        "select speech_ended_at, first_audio_ms, first_heard_ms from call_turns
         where call_id = $1 order by speech_ended_at",
        call.0
    )
    .fetch_all(conn)
    .await?)
}

/// The call's turns together.
pub async fn latency(conn: &mut PgConnection, call: CallId) -> Result<Latency> {
    Ok(sqlx::query_as!(
        Latency,
        r#"select count(*) as "turns!",
                  percentile_disc(0.5) within group (order by first_audio_ms) as p50_ms,
                  percentile_disc(0.95) within group (order by first_audio_ms) as p95_ms,
                  max(first_audio_ms) as max_ms
           from call_turns where call_id = $1"#,
        call.0
    )
    .fetch_one(conn)
    .await?)
}
