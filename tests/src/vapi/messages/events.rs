//! Messages that are only told: the sender looks at the status of the answer and at nothing else.

use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::vapi::clock::{epoch_ms, iso};
use crate::vapi::facts::{Facts, ORG_ID};
use crate::vapi::history::History;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `assistant`; in histories the same party is called `bot`.
    Assistant,
    /// `user`, the caller.
    User,
}

impl Role {
    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Assistant => "assistant",
            Self::User => "user",
        }
    }
}

/// How a transcript is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TranscriptKind {
    /// A guess that a later message replaces.
    Partial,
    /// What was said.
    Final,
    /// The same, when `serverMessages` asks for `transcript[transcriptType="final"]`: that spelling is then
    /// the value of `type`.
    FinalOnly,
}

/// A status without fields of its own: scheduled, queued, ringing, in-progress, not-found, deletion-failed.
pub fn status_update(facts: &Facts, at: OffsetDateTime, status: &str) -> Value {
    facts.message("status-update", at, json!({"status": status}))
}

/// The call is being forwarded to `number`.
pub fn status_forwarding(facts: &Facts, at: OffsetDateTime, history: &History, number: &str) -> Value {
    facts.message(
        "status-update",
        at,
        json!({
            "status": "forwarding",
            "destination": {"type": "number", "number": number, "message": "Connecting you."},
            "messages": history.messages(),
            "messagesOpenAIFormatted": history.openai_formatted(),
            "transcript": history.transcript(),
            "summary": "The caller asked for a person.",
        }),
    )
}

/// The call is over. The report follows, by seconds.
pub fn status_ended(facts: &Facts, at: OffsetDateTime, history: &History, reason: &str) -> Value {
    facts.message(
        "status-update",
        at,
        json!({
            "status": "ended",
            "endedReason": reason,
            "messages": history.messages(),
            "messagesOpenAIFormatted": history.openai_formatted(),
        }),
    )
}

/// The call never got an assistant; `error` is why, `response` what the server answered, if it did.
pub fn status_not_accepted(
    facts: &Facts,
    at: OffsetDateTime,
    reason: &str,
    error: &str,
    response: Option<&str>,
) -> Value {
    facts.message(
        "status-update",
        at,
        json!({
            "status": "ended",
            "endedReason": reason,
            "inboundPhoneCallDebuggingArtifacts": {
                "error": "Couldn't Get Assistant.",
                "assistantRequestError": error,
                "assistantRequestResponse": response,
            },
        }),
    )
}

/// The assistant has joined. On by default, and in no server type of the SDK.
pub fn assistant_started(facts: &Facts, at: OffsetDateTime) -> Value {
    let assistant = facts.assistant.clone().unwrap_or_else(|| json!({}));
    facts.message("assistant.started", at, json!({"newAssistant": assistant}))
}

/// Someone starts (`started`) or stops (`stopped`) speaking.
pub fn speech_update(facts: &Facts, at: OffsetDateTime, role: Role, status: &str, turn: u32) -> Value {
    facts.message("speech-update", at, json!({"status": status, "role": role.as_str(), "turn": turn}))
}

/// The whole history again, each turn.
pub fn conversation_update(facts: &Facts, at: OffsetDateTime, history: &History) -> Value {
    facts.message(
        "conversation-update",
        at,
        json!({
            "messages": history.messages(),
            "messagesOpenAIFormatted": history.openai_formatted(),
            "artifact": history.artifact(),
        }),
    )
}

/// What was understood.
pub fn transcript(facts: &Facts, at: OffsetDateTime, role: Role, kind: TranscriptKind, text: &str) -> Value {
    let message_type = match kind {
        TranscriptKind::FinalOnly => "transcript[transcriptType=\"final\"]",
        TranscriptKind::Partial | TranscriptKind::Final => "transcript",
    };
    let transcript_type = match kind {
        TranscriptKind::Partial => "partial",
        TranscriptKind::Final | TranscriptKind::FinalOnly => "final",
    };
    facts.message(
        message_type,
        at,
        json!({"role": role.as_str(), "transcriptType": transcript_type, "transcript": text}),
    )
}

/// The assistant is late in answering. Not the end of the call.
pub fn hang(facts: &Facts, at: OffsetDateTime) -> Value {
    facts.message("hang", at, json!({}))
}

/// The caller spoke over the assistant.
pub fn user_interrupted(facts: &Facts, at: OffsetDateTime, turn_id: &str) -> Value {
    facts.message("user-interrupted", at, json!({"turnId": turn_id}))
}

/// A piece of the model's output.
pub fn model_output(facts: &Facts, at: OffsetDateTime, text: &str, turn_id: &str) -> Value {
    facts.message("model-output", at, json!({"output": {"content": text}, "turnId": turn_id}))
}

/// What the voice provider was given to say.
pub fn voice_input(facts: &Facts, at: OffsetDateTime, text: &str) -> Value {
    facts.message("voice-input", at, json!({"input": text}))
}

/// The transcriber noticed another language.
pub fn language_change_detected(facts: &Facts, at: OffsetDateTime, language: &str) -> Value {
    facts.message("language-change-detected", at, json!({"language": language}))
}

/// A transfer to a number has begun.
pub fn transfer_update(facts: &Facts, at: OffsetDateTime, number: &str) -> Value {
    facts.message("transfer-update", at, json!({"destination": {"type": "number", "number": number}}))
}

/// Asks the server to hang up. Whoever asks for this message takes over hanging up and forwarding.
pub fn phone_call_control_hang_up(facts: &Facts, at: OffsetDateTime) -> Value {
    facts.message("phone-call-control", at, json!({"request": "hang-up"}))
}

/// The assistant's voice is playing `text`, cumulative.
pub fn assistant_speech_started(facts: &Facts, at: OffsetDateTime, text: &str, turn: u32) -> Value {
    facts.message("assistant.speechStarted", at, json!({"text": text, "turn": turn, "source": "model"}))
}

/// `function-call`, the ancestor of `tool-calls`: still a valid wish in `serverMessages`, with no schema.
pub fn function_call(facts: &Facts, at: OffsetDateTime, name: &str, parameters: &Value) -> Value {
    facts.message("function-call", at, json!({"functionCall": {"name": name, "parameters": parameters}}))
}

/// Recordings and logs have been stored.
pub fn call_artifact_upload(facts: &Facts, at: OffsetDateTime) -> Value {
    facts.message(
        "call.artifact.upload",
        at,
        json!({"artifacts": [
            {"type": "recording-mono", "success": true},
            {"type": "recording-stereo", "success": true},
            {"type": "log", "success": true},
        ]}),
    )
}

/// The call's record was deleted (`call.deleted`) or could not be (`call.delete.failed`).
pub fn call_deletion(facts: &Facts, at: OffsetDateTime, deleted: bool) -> Value {
    let kind = if deleted { "call.deleted" } else { "call.delete.failed" };
    facts.message(kind, at, json!({}))
}

/// `chat.created` or `chat.deleted`: a text chat, with no call.
pub fn chat(at: OffsetDateTime, kind: &str, assistant_id: &str) -> Value {
    beside_a_call(at, kind, "chat", assistant_id)
}

/// `session.created`, `session.updated` or `session.deleted`: with no call.
pub fn session(at: OffsetDateTime, kind: &str, assistant_id: &str) -> Value {
    beside_a_call(at, kind, "session", assistant_id)
}

fn beside_a_call(at: OffsetDateTime, kind: &str, subject: &str, assistant_id: &str) -> Value {
    let subject_value = json!({
        "id": Uuid::new_v4().to_string(),
        "orgId": ORG_ID,
        "assistantId": assistant_id,
        "createdAt": iso(at),
        "updatedAt": iso(at),
    });
    let mut message = json!({"timestamp": epoch_ms(at), "type": kind});
    message[subject] = subject_value;
    json!({"message": message})
}
