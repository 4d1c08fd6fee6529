//! The end-of-call-report: cost, transcript, recordings, analysis.

use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::vapi::clock::{epoch_ms, iso, seconds};
use crate::vapi::facts::Facts;
use crate::vapi::history::{History, Turn};

/// The report of a call that ended at `ended_at` for `reason`, sent at `at`.
///
/// Beside the typed fields it has those that real deliveries add: `durationMs`, `transcript`, `messages`,
/// `recordingUrl`, `costBreakdown` and others on the top level.
pub fn end_of_call_report(
    facts: &Facts,
    at: OffsetDateTime,
    history: &History,
    ended_at: OffsetDateTime,
    reason: &str,
) -> Value {
    let duration_ms = epoch_ms(ended_at) - epoch_ms(history.started_at());
    let minutes = seconds(duration_ms) / 60.0;
    let summary = summary(history);
    let artifact = artifact(facts, at, history);
    let (costs, breakdown) = costs(minutes, history);
    facts.message(
        "end-of-call-report",
        at,
        json!({
            "endedReason": reason,
            "startedAt": iso(history.started_at()),
            "endedAt": iso(ended_at),
            "durationMs": duration_ms,
            "durationSeconds": seconds(duration_ms),
            "durationMinutes": round(minutes),
            "cost": breakdown["total"],
            "costs": costs,
            "costBreakdown": breakdown,
            "analysis": {"summary": summary, "successEvaluation": "true", "structuredData": {}},
            "summary": summary,
            "transcript": history.transcript(),
            "messages": history.messages(),
            "recordingUrl": artifact["recordingUrl"],
            "stereoRecordingUrl": artifact["stereoRecordingUrl"],
            "artifact": artifact,
        }),
    )
}

/// What one attempt to deliver `body` posts: presigned URLs are signed afresh each time, so two deliveries of
/// one message differ in their bytes.
#[must_use]
pub fn for_attempt(mut body: Value) -> Value {
    if let Some(artifact) = body.pointer_mut("/message/artifact").and_then(Value::as_object_mut) {
        for (key, value) in artifact.iter_mut() {
            if key.starts_with("presigned")
                && let Some((url, _)) = value.as_str().and_then(|url| url.split_once("?sig="))
            {
                *value = format!("{url}?sig={}", Uuid::new_v4().simple()).into();
            }
        }
    }
    body
}

fn summary(history: &History) -> String {
    let last = history.turns().iter().rev().find_map(|turn| match turn {
        Turn::User(said) => Some(said.text.as_str()),
        _ => None,
    });
    match last {
        Some(text) => format!("The caller said: {text}"),
        None => "The caller said nothing.".to_owned(),
    }
}

fn artifact(facts: &Facts, at: OffsetDateTime, history: &History) -> Value {
    let url = |file: &str| format!("https://storage.vapi.test/{}-{file}", facts.call_id);
    let presigned = |file: &str| format!("{}?sig=x", url(file));
    json!({
        "transcript": history.transcript(),
        "messages": history.messages(),
        "messagesOpenAIFormatted": history.openai_formatted(),
        "recordingUrl": url("mono.wav"),
        "stereoRecordingUrl": url("stereo.wav"),
        "recording": {
            "stereoUrl": url("stereo.wav"),
            "mono": {
                "combinedUrl": url("mono.wav"),
                "assistantUrl": url("assistant.wav"),
                "customerUrl": url("customer.wav"),
            },
        },
        "logUrl": url("log.jsonl.gz"),
        "presignedMonoUrl": presigned("mono.wav"),
        "presignedStereoUrl": presigned("stereo.wav"),
        "presignedUrlsExpiresAt": iso(at + Duration::hours(1)),
        "performanceMetrics": {
            "turnLatencyAverage": 1180,
            "modelLatencyAverage": 610,
            "voiceLatencyAverage": 220,
            "transcriberLatencyAverage": 140,
            "endpointingLatencyAverage": 210,
            "numUserInterrupted": 0,
        },
        "structuredOutputs": {},
        "variableValues": {},
    })
}

/// The bill at list prices: `costs` is the itemised form, `costBreakdown` the older flat one.
fn costs(minutes: f64, history: &History) -> (Value, Value) {
    let characters: usize = history
        .turns()
        .iter()
        .map(|turn| match turn {
            Turn::Bot(said) => said.text.chars().count(),
            _ => 0,
        })
        .sum();
    let transport = round(minutes * 0.0086);
    let stt = round(minutes * 0.01);
    let llm = 0.0024;
    let tts = round(minutes * 0.0147);
    let vapi = round(minutes * 0.05);
    let total = round(transport + stt + llm + tts + vapi);
    let minutes = round(minutes);
    let costs = json!([
        {"type": "transport", "provider": "twilio", "minutes": minutes, "cost": transport},
        {"type": "transcriber", "transcriber": {"provider": "deepgram", "model": "nova-3"}, "minutes": minutes, "cost": stt},
        {"type": "model", "model": {"provider": "openai", "model": "gpt-4.1"}, "promptTokens": 812, "completionTokens": 96, "cachedPromptTokens": 0, "cost": llm},
        {"type": "voice", "voice": {"provider": "vapi", "voiceId": "Elliot"}, "characters": characters, "cost": tts},
        {"type": "vapi", "subType": "normal", "minutes": minutes, "cost": vapi},
    ]);
    let breakdown = json!({
        "transport": transport, "stt": stt, "llm": llm, "tts": tts, "vapi": vapi, "total": total,
        "llmPromptTokens": 812, "llmCompletionTokens": 96, "ttsCharacters": characters,
    });
    (costs, breakdown)
}

/// Four places, as the API has them.
fn round(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}
