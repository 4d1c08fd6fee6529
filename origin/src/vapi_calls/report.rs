//! What Vapi tells of a whole call: in the end-of-call report, and in the call's record when it is asked.

use std::collections::HashMap;

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use shared::CallId;
use shared::vapi::message::HOOK_TOOL_CALL_ID;
use sqlx::PgConnection;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::prices::{Cost, CostItem, CostSource};
use crate::store::call_tools::{CallTool, ToolOutcome};
use crate::store::recordings::{Place, Recording, RecordingState};
use crate::store::transcript_items::{Speaker, TranscriptItem};
use crate::store::{self, StoreError};

/// The report. Everything may be missing: some is not kept in certain modes, and Vapi's shapes drift, so that a field
/// that cannot be read counts as missing.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Report {
    #[serde(deserialize_with = "lenient")]
    started_at: Option<String>,
    #[serde(deserialize_with = "lenient")]
    ended_at: Option<String>,
    #[serde(deserialize_with = "lenient")]
    artifact: Option<Artifact>,
    costs: Option<Value>,
    #[serde(deserialize_with = "lenient")]
    cost: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Artifact {
    #[serde(deserialize_with = "lenient_list")]
    messages: Vec<Said>,
    /// Older reports have one URL, newer ones a record of several.
    #[serde(deserialize_with = "lenient")]
    recording_url: Option<String>,
    #[serde(deserialize_with = "lenient")]
    stereo_recording_url: Option<String>,
    #[serde(deserialize_with = "lenient")]
    recording: Option<Recorded>,
    #[serde(deserialize_with = "lenient")]
    performance_metrics: Option<Performance>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Recorded {
    stereo_url: Option<String>,
    mono: Option<Mono>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mono {
    combined_url: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Performance {
    turn_latency_average: Option<f64>,
    num_user_interrupted: Option<f64>,
}

/// One entry of the conversation: words, function calls, or what came of one.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    role: String,
    #[serde(default)]
    message: String,
    /// Epoch milliseconds.
    time: Option<f64>,
    /// Milliseconds since 2025, seconds before.
    duration: Option<f64>,
    #[serde(default, deserialize_with = "lenient_list")]
    tool_calls: Vec<FunctionCall>,
    tool_call_id: Option<String>,
    result: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct FunctionCall {
    id: String,
    function: Function,
}

#[derive(Debug, Deserialize)]
struct Function {
    name: String,
    #[serde(default)]
    arguments: Value,
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
        self.ended_at.as_deref().and_then(time_of)
    }

    /// When the two began to talk.
    fn started_at(&self) -> Option<OffsetDateTime> {
        self.started_at.as_deref().and_then(time_of)
    }

    /// Writes what it tells into the record of a call. What it does not tell stays as it is.
    pub async fn fill(self, conn: &mut PgConnection, call: CallId, ended_at: OffsetDateTime) -> Result<(), StoreError> {
        if let Some(at) = self.started_at() {
            store::calls::answered(conn, call, at.min(ended_at)).await?;
        }
        if let Some(cost) = self.bill() {
            let facts = store::call_facts::of_call(conn, call).await?;
            let before = facts.cost.filter(|cost| cost.source == CostSource::PriceTable);
            let mut usage = json!({ "costUsd": self.cost, "costs": self.costs });
            if before.is_some() {
                usage["bridged"] = facts.usage;
            }
            let cost = before.map_or(cost.clone(), |before| cost.beside(before));
            store::call_facts::set_usage(conn, call, &usage, Some(&cost)).await?;
        }
        let started_at = self.started_at();
        let artifact = self.artifact.unwrap_or_default();
        let told = |number: fn(&Performance) -> Option<f64>| artifact.performance_metrics.as_ref().and_then(number);
        let interruptions = told(|told| told.num_user_interrupted).map(whole);
        let latency_ms = told(|told| told.turn_latency_average).map(whole);
        store::call_facts::set_told(conn, call, interruptions, latency_ms).await?;

        for url in artifact.recordings() {
            let recording = Recording {
                id: Uuid::now_v7(),
                state: RecordingState::Stored,
                place: Place::Url(url.to_owned()),
                started_at: started_at.unwrap_or(ended_at),
                duration_ms: None,
                bytes: None,
            };
            store::recordings::write(conn, call, &recording).await?;
        }
        for tool in tools(&artifact.messages, ended_at) {
            store::call_tools::write(conn, call, &tool).await?;
        }
        // A call that began here and went to Vapi has a beginning that Vapi knows nothing of.
        let first = store::transcript_items::after_bridged(conn, call).await?;
        let items: Vec<_> =
            transcript(artifact.messages, first, ended_at).into_iter().map(|item| (call, item)).collect();
        store::transcript_items::write(conn, &items).await
    }

    /// Vapi's own account of the cost; `None`: it gives none.
    fn bill(&self) -> Option<Cost> {
        let parts = self.costs.as_ref().and_then(Value::as_array);
        let items: Vec<CostItem> = parts
            .into_iter()
            .flatten()
            .filter_map(|part| {
                let kind = part["type"].as_str()?;
                let what = part["subType"].as_str().or(part["analysisType"].as_str());
                let what = what.map_or_else(|| kind.to_owned(), |what| format!("{kind} {what}"));
                Some(CostItem { what, microusd: microusd(part["cost"].as_f64()?) })
            })
            .collect();
        (self.cost.is_some() || parts.is_some()).then(|| Cost {
            microusd: self.cost.map(microusd),
            source: CostSource::Vapi,
            prices_as_of: None,
            items,
            unpriced: Vec::new(),
        })
    }
}

impl Artifact {
    /// Where the sound is, the best first. Presigned URLs are left out: they are valid for an hour.
    fn recordings(&self) -> Vec<&str> {
        let recorded = self.recording.as_ref();
        let stereo = recorded.and_then(|recorded| recorded.stereo_url.as_ref()).or(self.stereo_recording_url.as_ref());
        let mono = recorded.and_then(|recorded| recorded.mono.as_ref()?.combined_url.as_ref());
        let mut urls: Vec<&str> =
            [stereo, mono.or(self.recording_url.as_ref())].into_iter().flatten().map(String::as_str).collect();
        urls.dedup();
        urls
    }
}

fn transcript(messages: Vec<Said>, first: i32, ended_at: OffsetDateTime) -> Vec<TranscriptItem> {
    messages
        .into_iter()
        .filter_map(|said| {
            let role = match said.role.as_str() {
                "user" => Speaker::Caller,
                "bot" | "assistant" => Speaker::Assistant,
                _ => return None,
            };
            Some((role, said))
        })
        .zip(first..)
        .map(|((role, said), position)| TranscriptItem {
            position,
            role,
            text: said.message,
            item_id: None,
            heard_ms: said.duration.filter(|_| role == Speaker::Assistant).map(whole),
            interrupted: false,
            at: said.time.and_then(epoch_ms).unwrap_or(ended_at),
        })
        .collect()
}

/// The function calls, each with its result if that is told. All hooks' calls have one id; they are numbered.
fn tools(messages: &[Said], ended_at: OffsetDateTime) -> Vec<CallTool> {
    let mut tools: Vec<CallTool> = Vec::new();
    let mut hooks = 0;
    // Where in `tools` the call with this id is that has no result yet.
    let mut open: HashMap<&str, usize> = HashMap::new();
    for said in messages {
        let at = said.time.and_then(epoch_ms).unwrap_or(ended_at);
        for call in &said.tool_calls {
            open.insert(&call.id, tools.len());
            let mut id = call.id.clone();
            if id == HOOK_TOOL_CALL_ID {
                hooks += 1;
                id = format!("{id}-{hooks}");
            }
            tools.push(CallTool {
                tool_call_id: id,
                name: call.function.name.clone(),
                arguments: arguments(&call.function.arguments),
                result: None,
                outcome: ToolOutcome::Unknown,
                started_at: at,
                duration_ms: None,
            });
        }
        let answered =
            said.tool_call_id.as_deref().and_then(|id| open.remove(id)).and_then(|index| tools.get_mut(index));
        if let (Some(tool), Some(result)) = (answered, &said.result) {
            tool.result = Some(result.as_str().map_or_else(|| result.to_string(), str::to_owned));
            // Vapi's history does not tell an error from a result, except where there was none at all.
            let failed = result == "No result returned.";
            tool.outcome = if failed { ToolOutcome::Failed } else { ToolOutcome::Ok };
            tool.duration_ms =
                Some(i32::try_from((at - tool.started_at).whole_milliseconds().max(0)).unwrap_or(i32::MAX));
        }
    }
    tools
}

/// In a history they are JSON in a text.
fn arguments(given: &Value) -> Value {
    given.as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_else(|| given.clone())
}

fn time_of(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

#[expect(clippy::cast_possible_truncation, reason = "saturates, and what is told is far below")]
fn whole(number: f64) -> i32 {
    number.max(0.0).round() as i32
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and calls cost dollars")]
fn microusd(dollars: f64) -> u64 {
    (dollars * 1e6).round() as u64
}

#[expect(clippy::cast_possible_truncation, reason = "saturates; the conversion refuses what is no time")]
fn epoch_ms(ms: f64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(ms as i128 * 1_000_000).ok()
}

fn lenient<'de, D: Deserializer<'de>, T: serde::de::DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).ok())
}

fn lenient_list<'de, D: Deserializer<'de>, T: serde::de::DeserializeOwned>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let list = match Value::deserialize(deserializer)? {
        Value::Array(list) => list,
        _ => Vec::new(),
    };
    Ok(list.into_iter().filter_map(|item| serde_json::from_value(item).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages() -> Vec<Said> {
        serde_json::from_value(json!([
            {"role": "system", "message": "You are", "time": 1_795_359_599_000_i64},
            {"role": "bot", "message": "Hello", "time": 1_795_359_601_000_i64, "duration": 900},
            {"role": "user", "message": "A table", "time": 1_795_359_605_000_i64, "duration": 1700},
            {"role": "tool_calls", "message": "", "time": 1_795_359_607_400_i64, "toolCalls": [
                {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}},
                {"id": HOOK_TOOL_CALL_ID, "type": "function", "function": {"name": "g", "arguments": {}}}]},
            {"role": "tool_call_result", "toolCallId": "call_1", "name": "f", "result": "19:00",
             "time": 1_795_359_608_000_i64},
            {"role": "tool_calls", "message": "", "toolCalls": [
                {"id": HOOK_TOOL_CALL_ID, "type": "function", "function": {"name": "h", "arguments": "?"}}]},
            {"role": "tool_call_result", "toolCallId": HOOK_TOOL_CALL_ID, "name": "h", "result": "No result returned."},
        ]))
        .unwrap()
    }

    #[test]
    fn a_report_becomes_a_transcript_in_order() {
        let items = transcript(messages(), 3, OffsetDateTime::UNIX_EPOCH);
        let told: Vec<_> =
            items.iter().map(|item| (item.position, item.role, item.text.as_str(), item.heard_ms)).collect();
        assert_eq!(told, [(3, Speaker::Assistant, "Hello", Some(900)), (4, Speaker::Caller, "A table", None)]);
        assert_eq!(items[0].at.unix_timestamp(), 1_795_359_601);
    }

    #[test]
    fn function_calls_get_their_results() {
        let tools = tools(&messages(), OffsetDateTime::UNIX_EPOCH);
        let told: Vec<_> = tools
            .iter()
            .map(|tool| (tool.tool_call_id.as_str(), tool.name.as_str(), tool.outcome, tool.duration_ms))
            .collect();
        assert_eq!(
            told,
            [
                ("call_1", "f", ToolOutcome::Ok, Some(600)),
                ("hook-function-call-1", "g", ToolOutcome::Unknown, None),
                ("hook-function-call-2", "h", ToolOutcome::Failed, Some(0)),
            ]
        );
        assert_eq!((&tools[0].arguments, tools[0].result.as_deref()), (&json!({"a": 1}), Some("19:00")));
        assert_eq!(tools[2].arguments, "?");
    }

    #[test]
    fn the_cost_is_vapis_and_in_whole_millionths() {
        let report: Report = serde_json::from_value(json!({
            "cost": 0.0879,
            "costs": [{"type": "vapi", "subType": "normal", "cost": 0.0512}, {"type": "analysis", "analysisType": "summary",
                "cost": 0.0001}, {"type": "transport", "cost": "?"}, 7],
        }))
        .unwrap();
        let cost = report.bill().unwrap();
        assert_eq!((cost.microusd, cost.source), (Some(87_900), CostSource::Vapi));
        let items: Vec<_> = cost.items.iter().map(|item| (item.what.as_str(), item.microusd)).collect();
        assert_eq!(items, [("vapi normal", 51_200), ("analysis summary", 100)]);
        assert!(Report::default().bill().is_none());
    }

    #[test]
    fn what_cannot_be_read_is_missing_and_the_rest_is_there() {
        let report: Report = serde_json::from_value(json!({
            "cost": "free", "startedAt": 5, "endedAt": "2026-11-22T15:01:01.500Z",
            "artifact": {"messages": [{"role": 7}, {"role": "user", "message": "Hi"}], "recording": 3,
                         "recordingUrl": "https://a", "performanceMetrics": {"turnLatencyAverage": 1180}},
        }))
        .unwrap();
        assert_eq!((report.cost, report.started_at.as_deref()), (None, None));
        assert!(report.ended_at().is_some());
        let artifact = report.artifact.unwrap();
        assert_eq!((artifact.messages.len(), artifact.recordings()), (1, vec!["https://a"]));
    }
}
