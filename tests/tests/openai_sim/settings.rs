//! What an agent may be set to, and what OpenAI takes: settings without a fault are accepted, whatever they are, and those
//! that OpenAI would refuse have one before anybody calls.

use origin::bridge::responses::Ask;
use origin::bridge::session;
use origin::store::agents::RealtimeSettings;
use serde_json::{Value, json};
use tests::openai::Realtime;

use crate::client::{Client, MODEL, quick};

/// Settings with one thing changed from the least there can be.
fn with(pointer: &str, value: Value) -> RealtimeSettings {
    let mut settings = json!({"voice": "marin", "turnDetection": {"type": "server_vad"}, "transcription":
        {"model": "gpt-transcribe"}, "call": {}});
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer has a slash");
    settings.pointer_mut(parent).expect("the parent is there")[name] = value;
    serde_json::from_value(settings).expect("the settings have the right types")
}

fn update(settings: &RealtimeSettings, first: Option<&Ask>) -> Value {
    serde_json::from_str(&session::update("Be kind.", settings, &[], MODEL, first)).expect("an event is JSON")
}

#[tokio::test]
async fn settings_without_a_fault_are_taken_by_openai() {
    let (vad, semantic) = ("/turnDetection", "semantic_vad");
    let server = json!({"label": "a-1_B", "url": "https://mcp.test/sse"});
    let full_server = json!({"label": "b", "url": "https://mcp.test/sse", "description": "Dates.", "authorization": "t",
        "headers": {"x-tenant": "1"}, "allowedTools": ["find_slot"]});
    let table = [
        ("/voice", json!(["alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar"])),
        ("/voice", json!(["voice_1a"])),
        ("/speed", json!([0.25, 1, 1.5])),
        ("/model", json!(["gpt-realtime-2.1", null])),
        ("/noiseReduction", json!(["near_field", "far_field", null])),
        ("/turnDetection/threshold", json!([0, 0.01, 1])),
        ("/turnDetection/prefixPaddingMs", json!([0, 10_000])),
        ("/turnDetection/silenceDurationMs", json!([0, 10_000])),
        ("/turnDetection/idleTimeoutMs", json!([5_000, 30_000, null])),
        (
            vad,
            json!([{"type": semantic}, {"type": semantic, "eagerness": "low"}, {"type": semantic, "eagerness": "high"}]),
        ),
        (vad, json!([{"type": semantic, "eagerness": "medium"}, {"type": semantic, "eagerness": "auto"}])),
        ("/transcription", json!([null, {"model": "whisper-1"}, {"model": "gpt-live-transcribe"}])),
        ("/transcription/language", json!(["en", null])),
        ("/transcription/keywords", json!([["Invisalign"], []])),
        ("/transcription/prompt", json!(["ö".repeat(1024), null])),
        ("/mcpServers", json!([[server, full_server], []])),
        ("/call/reasoningEffort", json!(["minimal", "low", "medium", "high", "xhigh"])),
        ("/call/interruptAfterWords", json!([0, 10])),
        ("/call/firstMessageInterruptible", json!([true, false])),
    ];
    let realtime = Realtime::start(quick()).await.expect("it starts");
    let mut client = Client::connect(&realtime).await;
    let greeting = Ask::Say("Hello.".to_owned());
    for (pointer, values) in table {
        for value in values.as_array().expect("a list") {
            let settings = with(pointer, value.clone());
            assert_eq!(settings.faults(), [""; 0], "{pointer} {value}");
            let event = update(&settings, Some(&greeting));
            let updated = client.update(event["session"].clone()).await;
            let input = &updated["session"]["audio"]["input"];
            assert_eq!(input["format"], json!({"type": "audio/pcmu"}), "{pointer} {value}");
            if let Some(lift) = session::protection(&settings, Some(&greeting)) {
                let lift: Value = serde_json::from_str(&lift).expect("an event is JSON");
                assert_eq!(input["turn_detection"]["create_response"], false);
                let lifted = client.update(lift["session"].clone()).await;
                assert_eq!(lifted["session"]["audio"]["input"]["turn_detection"]["create_response"], true);
            }
        }
    }
    let session = realtime.session(0);
    session.read(|session| assert_eq!(session.record().errors, []));
}

#[tokio::test]
async fn what_openai_would_refuse_has_a_fault_before_anybody_calls() {
    let table = [
        ("/voice", json!(["nova", "", "Marin"])),
        ("/speed", json!([0.24, 1.51])),
        ("/turnDetection/threshold", json!([-0.1, 1.1])),
        ("/turnDetection/prefixPaddingMs", json!([10_001])),
        ("/turnDetection/idleTimeoutMs", json!([0, 4_999, 30_001])),
        ("/transcription/model", json!(["gpt-realtime-whisper"])),
        ("/transcription/prompt", json!(["x".repeat(1025)])),
        ("/transcription", json!([{"model": "whisper-1", "keywords": ["a"]}])),
    ];
    let realtime = Realtime::start(quick()).await.expect("it starts");
    let mut client = Client::connect(&realtime).await;
    client.until("session.created").await;
    for (pointer, values) in table {
        for value in values.as_array().expect("a list") {
            let settings = with(pointer, value.clone());
            let field = pointer.trim_start_matches('/').replace('/', ".");
            let faults = settings.faults();
            assert!(faults.len() == 1 && faults[0].starts_with(&field), "{field} {value}: {faults:?}");
            assert!(settings.to_stored().is_err(), "{field} {value} cannot be stored");
            // And rightly so.
            client.refused(update(&settings, None)).await;
        }
    }
}
