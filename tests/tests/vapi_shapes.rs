//! The simulator's messages and answers, and the answers that it accepts, against the types of Vapi's Python SDK.

use serde_json::{Value, json};
use shared::vapi::answer::{Refusal, refuse};
use shared::vapi::message::Message;
use tests::hosts::{Hosts, http_client};
use tests::shapes;
use tests::vapi::{Facts, History, Spoken, ToolCall, Turn, Vapi, VapiOptions, messages, tone, validate_answer};
use time::{Duration, OffsetDateTime};

/// Lines for the script.
#[derive(Default)]
struct Lines(Vec<String>);

impl Lines {
    fn add(&mut self, class: &str, value: &Value) {
        self.0.push(json!({"class": class, "value": value}).to_string());
    }

    fn add_refused(&mut self, class: &str, value: &Value) {
        self.0.push(json!({"class": class, "value": value, "refused": true}).to_string());
    }
}

/// One run of the script for everything: the SDK alone takes ten seconds to load.
#[tokio::test]
async fn everything_fits_its_type() {
    let mut lines = Lines::default();
    add_messages(&mut lines);
    add_answers_of_the_api(&mut lines).await;
    for (_, class, good) in good_answers() {
        lines.add(class, &good);
    }
    for (_, class, ours) in our_refusals() {
        lines.add(class, &ours);
    }
    for (_, class, bad, type_refuses) in bad_answers() {
        if type_refuses {
            lines.add_refused(class, &bad);
        }
    }
    let path = std::env::temp_dir().join(format!("tandem-vapi-shapes-{}.jsonl", std::process::id()));
    std::fs::write(&path, lines.0.join("\n")).expect("the lines are written");
    // The file is kept when the check fails, to look at.
    shapes::validate("vapi", &path).expect("every value fits its type");
    std::fs::remove_file(&path).expect("the file is there");
}

/// The answers that a receiver gives: the validator takes the good ones and refuses the bad ones, as the types do
/// above where the fault is one of form.
#[test]
fn the_validator_tells_good_answers_from_bad_ones() {
    for (message_type, _, good) in good_answers() {
        assert_eq!(validate_answer(message_type, &good), Ok(()), "{message_type} {good}");
    }
    for (message_type, _, ours) in our_refusals() {
        assert_eq!(validate_answer(message_type, &ours), Ok(()), "{message_type} {ours}");
    }
    for (message_type, _, bad, _) in bad_answers() {
        assert!(validate_answer(message_type, &bad).is_err(), "{message_type} takes {bad}");
    }
}

fn facts() -> Facts {
    Facts::inbound("2224e7d7-3365-4a49-bcfc-5285e7bd1b5a", "+15550100001", "+15550100002")
}

/// A conversation with a turn of every kind.
fn history(from: OffsetDateTime) -> History {
    let mut history = History::new(from, Some("You are a receptionist.".into()));
    let spoken = |text: &str, second: i64| Spoken {
        text: text.into(),
        from: from + Duration::seconds(second),
        until: from + Duration::milliseconds(second * 1000 + 700),
    };
    let call = ToolCall { id: "call_1".into(), name: "get_slots".into(), arguments: json!({"date": "2026-11-23"}) };
    history.push(Turn::Bot(spoken("Hello", 1)));
    history.push(Turn::User(spoken("A table for two tomorrow.", 3)));
    history.push(Turn::ToolCalls { at: from + Duration::seconds(4), calls: vec![call] });
    history.push(Turn::ToolResult {
        at: from + Duration::seconds(5),
        tool_call_id: "call_1".into(),
        name: "get_slots".into(),
        result: "19:00, 20:30".into(),
    });
    history
}

fn add_messages(lines: &mut Lines) {
    let (facts, now) = (facts(), OffsetDateTime::now_utc());
    let history = history(now - Duration::seconds(10));
    let mut add = |class: &str, body: Value| lines.add(class, &body["message"]);

    add("ServerMessageAssistantRequest", messages::assistant_request(&facts.clone().without_assistant(), now));
    add("ServerMessageToolCalls", messages::tool_call(&facts, now, "get_slots", json!({"date": "2026-11-23"})));
    add("ServerMessageTransferDestinationRequest", messages::transfer_destination_request(&facts, now, &history));
    let filled = json!({"reason": "billing"});
    add("ServerMessageHandoffDestinationRequest", messages::handoff_destination_request(&facts, now, &filled));
    add("ServerMessageKnowledgeBaseRequest", messages::knowledge_base_request(&facts, now, &history));
    add("ServerMessageVoiceRequest", messages::voice_request(&facts, now, "Hello", 24_000));
    add("ServerMessageCallEndpointingRequest", messages::endpointing_request(&facts, now, &history));
    add("ServerMessageCampaignPredial", messages::campaign_predial(now, "c1", "+15550100002"));

    for status in ["scheduled", "queued", "ringing", "in-progress", "not-found", "deletion-failed"] {
        add("ServerMessageStatusUpdate", messages::status_update(&facts, now, status));
    }
    add("ServerMessageStatusUpdate", messages::status_forwarding(&facts, now, &history, "+15550100099"));
    add("ServerMessageStatusUpdate", messages::status_ended(&facts, now, &history, "customer-ended-call"));
    let failed = "timeout of 7500ms exceeded";
    add(
        "ServerMessageStatusUpdate",
        messages::status_not_accepted(&facts, now, "assistant-request-failed", failed, None),
    );
    add(
        "ServerMessageEndOfCallReport",
        messages::end_of_call_report(&facts, now, &history, now, "customer-ended-call"),
    );
    // In no server type: the client's is the nearest.
    add("ClientMessageAssistantStarted", messages::assistant_started(&facts, now));
    for role in [messages::Role::Assistant, messages::Role::User] {
        add("ServerMessageSpeechUpdate", messages::speech_update(&facts, now, role, "started", 1));
        for kind in
            [messages::TranscriptKind::Partial, messages::TranscriptKind::Final, messages::TranscriptKind::FinalOnly]
        {
            add("ServerMessageTranscript", messages::transcript(&facts, now, role, kind, "Hello"));
        }
    }
    add("ServerMessageConversationUpdate", messages::conversation_update(&facts, now, &history));
    add("ServerMessageHang", messages::hang(&facts, now));
    add("ServerMessageUserInterrupted", messages::user_interrupted(&facts, now, "turn-1"));
    add("ServerMessageModelOutput", messages::model_output(&facts, now, "Hel", "turn-1"));
    add("ServerMessageVoiceInput", messages::voice_input(&facts, now, "Hello"));
    add("ServerMessageLanguageChangeDetected", messages::language_change_detected(&facts, now, "de"));
    add("ServerMessageTransferUpdate", messages::transfer_update(&facts, now, "+15550100099"));
    add("ServerMessagePhoneCallControl", messages::phone_call_control_hang_up(&facts, now));
    add("ServerMessageAssistantSpeech", messages::assistant_speech_started(&facts, now, "Hello", 1));
    add("ServerMessageCallArtifactUpload", messages::call_artifact_upload(&facts, now));
    add("ServerMessageCallDeleted", messages::call_deletion(&facts, now, true));
    add("ServerMessageCallDeleteFailed", messages::call_deletion(&facts, now, false));
    add("ServerMessageChatCreated", messages::chat(now, "chat.created", "a1"));
    add("ServerMessageChatDeleted", messages::chat(now, "chat.deleted", "a1"));
    add("ServerMessageSessionCreated", messages::session(now, "session.created", "a1"));
    add("ServerMessageSessionUpdated", messages::session(now, "session.updated", "a1"));
    add("ServerMessageSessionDeleted", messages::session(now, "session.deleted", "a1"));
}

async fn add_answers_of_the_api(lines: &mut Lines) {
    let vapi = Vapi::start(VapiOptions::new("key", Hosts::default())).await.expect("a free port");
    let client = http_client().build().expect("a client");
    let request = async |method: reqwest::Method, path: &str, body: Value| -> Value {
        let url = format!("{}{path}", vapi.api_url());
        let sent = client.request(method, url).bearer_auth("key").json(&body).send().await.expect("an answer");
        sent.error_for_status().expect("success").json().await.expect("JSON")
    };
    let assistant = json!({
        "name": "Receptionist",
        "model": {"provider": "openai", "model": "gpt-4.1", "messages": [{"role": "system", "content": "Be kind."}]},
        "server": {"url": "https://edge.tandem.test/api/vapi/webhook", "timeoutSeconds": 20},
        "serverMessages": ["tool-calls", "end-of-call-report"],
    });
    let made = request(reqwest::Method::POST, "/assistant", assistant).await;
    lines.add("Assistant", &made);
    let function =
        json!({"name": "get_slots", "description": "Free tables.", "parameters": {"type": "object", "properties": {}}});
    lines.add("FunctionTool", &{
        let mut tool = request(reqwest::Method::POST, "/tool", json!({"type": "function", "function": function})).await;
        // The discriminator of the union that the SDK has around its tools.
        tool.as_object_mut().expect("an object").remove("type");
        tool
    });
    let number = request(
        reqwest::Method::POST,
        "/phone-number",
        json!({"provider": "twilio", "number": "+15550100001", "twilioAccountSid": "AC1", "twilioAuthToken": "t",
               "assistantId": made["id"]}),
    )
    .await;
    lines.add("GetPhoneNumbersResponse", &number);
    let call = request(
        reqwest::Method::POST,
        "/call",
        json!({"assistantId": made["id"], "phoneNumberId": number["id"], "customer": {"number": "+15550100002"},
               "phoneCallProviderBypassEnabled": true, "type": "inboundPhoneCall"}),
    )
    .await;
    lines.add("Call", &call);
    let id = call["id"].as_str().expect("an id");
    lines.add("Call", &request(reqwest::Method::GET, &format!("/call/{id}"), Value::Null).await);
}

const ASSISTANT: (&str, &str) = ("assistant-request", "ServerMessageResponseAssistantRequest");
const TOOLS: (&str, &str) = ("tool-calls", "ServerMessageResponseToolCalls");
const TRANSFER: (&str, &str) = ("transfer-destination-request", "ServerMessageResponseTransferDestinationRequest");
const HANDOFF: (&str, &str) = ("handoff-destination-request", "ServerMessageResponseHandoffDestinationRequest");
const KNOWLEDGE: (&str, &str) = ("knowledge-base-request", "ServerMessageResponseKnowledgeBaseRequest");
const ENDPOINTING: (&str, &str) = ("call.endpointing.request", "ServerMessageResponseCallEndpointingRequest");
const PREDIAL: (&str, &str) = ("campaign.predial", "ServerMessageResponseCampaignPredial");

fn good_answers() -> Vec<(&'static str, &'static str, Value)> {
    let number = json!({"type": "number", "number": "+15550100099"});
    [
        (ASSISTANT, json!({"assistantId": "a1"})),
        (ASSISTANT, json!({"assistantId": "a1", "assistantOverrides": {"firstMessage": "Hello"}})),
        (ASSISTANT, json!({"assistant": {"name": "A", "firstMessage": "Hello"}})),
        (ASSISTANT, json!({"squadId": "s1"})),
        (ASSISTANT, json!({"destination": number})),
        (ASSISTANT, json!({"destination": {"type": "sip", "sipUri": "sip:a@example.com"}})),
        (ASSISTANT, json!({"error": "We are closed."})),
        (TOOLS, json!({"results": [{"toolCallId": "c1", "name": "get_slots", "result": "19:00"}]})),
        (TOOLS, json!({"results": [{"toolCallId": "c1", "name": "get_slots", "error": "Closed."}]})),
        (
            TOOLS,
            json!({"results": [{"toolCallId": "c1", "name": "n", "result": "r",
                   "message": {"type": "request-complete", "content": "Done."}, "metadata": {"a": 1}}]}),
        ),
        (TOOLS, json!({"error": "Out of order."})),
        (TRANSFER, json!({"destination": number, "message": {"type": "request-start", "content": "One moment."}})),
        (TRANSFER, json!({"destination": {"type": "assistant", "assistantName": "Billing"}})),
        (TRANSFER, json!({"error": "Nobody is there."})),
        (HANDOFF, json!({"destination": {"type": "assistant", "assistantId": "a2"}, "result": "Handed over."})),
        (KNOWLEDGE, json!({"documents": [{"content": "Open until 6.", "similarity": 0.9, "uuid": "d1"}]})),
        (KNOWLEDGE, json!({"message": {"type": "custom-message", "content": "I do not know."}})),
        (ENDPOINTING, json!({"timeoutSeconds": 0.5})),
        (PREDIAL, json!({"eligible": true})),
    ]
    .map(|((message_type, class), value)| (message_type, class, value))
    .to_vec()
}

/// What edge and origin answer when they have no better answer.
fn our_refusals() -> Vec<(&'static str, &'static str, Value)> {
    let questions = [ASSISTANT, TOOLS, TRANSFER, HANDOFF, KNOWLEDGE, ENDPOINTING, PREDIAL];
    let refusals = [Refusal::Switched, Refusal::UnknownAgent, Refusal::Unavailable];
    let all = questions.into_iter().flat_map(|question| refusals.map(|refusal| (question, refusal)));
    all.map(|((message_type, class), refusal)| {
        let calls = ["a", "b"].map(|id| json!({"id": id, "function": {"name": "f", "arguments": {}}}));
        let body = json!({"message": {"type": message_type, "toolCallList": calls}}).to_string();
        let message = Message::parse(body.as_bytes()).expect("it is a message");
        assert!(message.kind.needs_answer(), "{message_type}");
        (message_type, class, refuse(&message, refusal))
    })
    .collect()
}

/// Refused answers, and whether the SDK's type refuses them too.
fn bad_answers() -> Vec<(&'static str, &'static str, Value, bool)> {
    let result = |result: Value| json!({"results": [result]});
    [
        (ASSISTANT, json!({}), false),
        (ASSISTANT, json!({"assistantId": ""}), false),
        (ASSISTANT, json!({"assistantId": 7}), true),
        (ASSISTANT, json!({"assistantId": "a1", "squadId": "s1"}), false),
        (ASSISTANT, json!({"destination": {"type": "number", "number": "555"}}), false),
        (ASSISTANT, json!({"destination": {"type": "assistant", "assistantName": "A"}}), true),
        (ASSISTANT, json!({"messageResponse": {"assistantId": "a1"}}), false),
        (TOOLS, json!({}), false),
        (TOOLS, json!({"results": {}}), true),
        (TOOLS, json!({"result": "19:00"}), false),
        (TOOLS, result(json!({"name": "n", "result": "r"})), true),
        (TOOLS, result(json!({"toolCallId": "c1", "result": "r"})), true),
        (TOOLS, result(json!({"toolCallId": "c1", "name": "n"})), false),
        (TOOLS, result(json!({"toolCallId": "c1", "name": "n", "result": {"slots": []}})), true),
        (TOOLS, result(json!({"toolCallId": "c1", "name": "n", "result": "a\nb"})), false),
        (TOOLS, result(json!({"toolCallId": "c1", "name": "n", "result": "r", "error": "e"})), false),
        (TOOLS, result(json!({"toolCallId": "c1", "name": "n", "result": "r", "message": {"type": "say"}})), true),
        (TRANSFER, json!({}), false),
        (TRANSFER, json!({"destination": {"type": "assistant", "assistantId": "a2"}}), true),
        (HANDOFF, json!({}), true),
        (HANDOFF, json!({"destination": "a2"}), true),
        (KNOWLEDGE, json!({"documents": [{"content": "Open until 6."}]}), true),
        (KNOWLEDGE, json!({}), false),
        (ENDPOINTING, json!({"timeoutSeconds": "soon"}), true),
        (PREDIAL, json!({"eligible": "true"}), true),
    ]
    .map(|((message_type, class), value, type_refuses)| (message_type, class, value, type_refuses))
    .to_vec()
}

/// Not a shape, but the builders' promise to callers: a tone can be heard and silence cannot.
#[test]
fn the_default_voice_is_audible() {
    assert!(tests::vapi::level(&tone(100)) > 1000);
    assert_eq!(tests::vapi::level(&[0xff; 160]), 0);
}
