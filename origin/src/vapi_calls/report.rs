//! What Vapi tells of a whole call: in the end-of-call report, and in the call's record when it is asked.

use serde::Deserialize;
use serde_json::{Value, json};
use shared::CallId;
use sqlx::PgConnection;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::store::transcript_items::{Speaker, TranscriptItem};
use crate::store::{self, StoreError};

/// The report. Everything may be missing: some is not kept in certain modes, and Vapi's shapes drift.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    started_at: Option<String>,
    ended_at: Option<String>,
    artifact: Option<Artifact>,
    costs: Option<Value>,
    cost: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Artifact {
    #[serde(default)]
    messages: Vec<Spoken>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spoken {
    role: String,
    #[serde(default)]
    message: String,
    /// Epoch milliseconds.
    time: Option<f64>,
    /// Milliseconds since 2025, seconds before.
    duration: Option<f64>,
}

#[derive(Deserialize)]
struct Envelope {
    message: Report,
}

impl Report {
    /// Reads a server message.
    pub fn of_message(body: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice::<Envelope>(body).map(|envelope| envelope.message)
    }

    /// When the call ended.
    pub fn ended_at(&self) -> Option<OffsetDateTime> {
        self.ended_at.as_deref().and_then(|at| OffsetDateTime::parse(at, &Rfc3339).ok())
    }

    /// When the two began to talk.
    fn started_at(&self) -> Option<OffsetDateTime> {
        self.started_at.as_deref().and_then(|at| OffsetDateTime::parse(at, &Rfc3339).ok())
    }

    /// Writes what it tells into the record of a call. What it does not tell stays as it is.
    pub async fn fill(self, conn: &mut PgConnection, call: CallId, ended_at: OffsetDateTime) -> Result<(), StoreError> {
        if let Some(at) = self.started_at() {
            store::calls::answered(conn, call, at.min(ended_at)).await?;
        }
        let items = transcript(self.artifact.map(|artifact| artifact.messages).unwrap_or_default(), ended_at);
        store::transcript_items::write(conn, call, &items).await?;
        if self.cost.is_some() || self.costs.is_some() {
            let usage = json!({ "costUsd": self.cost, "costs": self.costs });
            store::calls::set_usage(conn, call, &usage).await?;
        }
        Ok(())
    }
}

fn transcript(messages: Vec<Spoken>, ended_at: OffsetDateTime) -> Vec<TranscriptItem> {
    messages
        .into_iter()
        .filter_map(|spoken| {
            let role = match spoken.role.as_str() {
                "user" => Speaker::Caller,
                "bot" | "assistant" => Speaker::Assistant,
                _ => return None,
            };
            Some((role, spoken))
        })
        .enumerate()
        .map(|(position, (role, spoken))| TranscriptItem {
            position: i32::try_from(position).unwrap_or(i32::MAX),
            role,
            text: spoken.message,
            item_id: None,
            heard_ms: spoken.duration.filter(|_| role == Speaker::Assistant).map(whole_ms),
            interrupted: false,
            at: spoken.time.and_then(epoch_ms).unwrap_or(ended_at),
        })
        .collect()
}

#[expect(clippy::cast_possible_truncation, reason = "saturates, and a duration is far below")]
fn whole_ms(ms: f64) -> i32 {
    ms.max(0.0) as i32
}

#[expect(clippy::cast_possible_truncation, reason = "saturates; the conversion refuses what is no time")]
fn epoch_ms(ms: f64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(ms as i128 * 1_000_000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_becomes_a_transcript_in_order() {
        let messages: Vec<Spoken> = serde_json::from_value(json!([
            {"role": "system", "message": "You are", "time": 1_795_359_599_000_i64},
            {"role": "bot", "message": "Hello", "time": 1_795_359_601_000_i64, "duration": 900},
            {"role": "user", "message": "A table", "time": 1_795_359_605_000_i64, "duration": 1700},
            {"role": "tool_calls", "message": "", "toolCalls": []}
        ]))
        .unwrap();
        let items = transcript(messages, OffsetDateTime::UNIX_EPOCH);
        let told: Vec<_> =
            items.iter().map(|item| (item.position, item.role, item.text.as_str(), item.heard_ms)).collect();
        assert_eq!(told, [(0, Speaker::Assistant, "Hello", Some(900)), (1, Speaker::Caller, "A table", None)]);
        assert_eq!(items[0].at.unix_timestamp(), 1_795_359_601);
    }
}
