//! What a client may send: the eleven client events and the check of each, field by field.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::errors::ApiError;
use super::fields::{Field, LONG, Shape, check_tagged, optional, required};
use super::session_fields::{FORMAT, MAX_OUTPUT_TOKENS, MODALITIES, PROMPT, REASONING, TOOL_CHOICE, TOOLS, VOICE};

/// Ids that a client chooses may have so many characters.
const LONGEST_ID: usize = 32;
const ID: Shape = Shape::Text(LONGEST_ID);

/// The most that one append may carry.
const MOST_AUDIO_BYTES: usize = 15 * 1024 * 1024;

/// A client event that passed its checks; its parts that depend on the session are checked later.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ClientEvent {
    UpdateSession(Value),
    AppendAudio(Vec<u8>),
    CommitAudio,
    ClearAudio,
    CreateItem {
        item: Value,
        after: Option<String>,
    },
    TruncateItem {
        item_id: String,
        content_index: u64,
        audio_end_ms: u64,
    },
    DeleteItem(String),
    RetrieveItem(String),
    CreateResponse(Value),
    CancelResponse(Option<String>),
    /// For WebRTC and SIP; a WebSocket has no output buffer at the server.
    ClearOutput,
}

const EVENT_ID: Field = optional("event_id", Shape::Text(512));
const TYPE: Field = required("type", Shape::Any);

/// Every type of client event, with its fields.
const EVENTS: &[(&str, &[Field])] = &[
    ("session.update", &[TYPE, EVENT_ID, required("session", Shape::OpenObject)]),
    ("input_audio_buffer.append", &[TYPE, EVENT_ID, required("audio", Shape::Text(LONG))]),
    ("input_audio_buffer.commit", &[TYPE, EVENT_ID]),
    ("input_audio_buffer.clear", &[TYPE, EVENT_ID]),
    (
        "conversation.item.create",
        &[TYPE, EVENT_ID, required("item", Shape::OpenObject), optional("previous_item_id", Shape::Nullable(&ID))],
    ),
    (
        "conversation.item.truncate",
        &[
            TYPE,
            EVENT_ID,
            required("item_id", ID),
            required("content_index", Shape::Integer(0, i64::MAX)),
            required("audio_end_ms", Shape::Integer(0, i64::MAX)),
        ],
    ),
    ("conversation.item.delete", &[TYPE, EVENT_ID, required("item_id", ID)]),
    ("conversation.item.retrieve", &[TYPE, EVENT_ID, required("item_id", ID)]),
    ("response.create", &[TYPE, EVENT_ID, optional("response", Shape::Object(RESPONSE))]),
    ("response.cancel", &[TYPE, EVENT_ID, optional("response_id", Shape::Text(LONG))]),
    ("output_audio_buffer.clear", &[TYPE, EVENT_ID]),
];

const RESPONSE: &[Field] = &[
    optional("instructions", Shape::Text(LONG)),
    optional("output_modalities", MODALITIES),
    optional(
        "audio",
        Shape::Object(&[optional("output", Shape::Object(&[optional("format", FORMAT), optional("voice", VOICE)]))]),
    ),
    optional("tools", TOOLS),
    optional("tool_choice", TOOL_CHOICE),
    optional("conversation", Shape::Word(&["auto", "none"])),
    optional("input", Shape::List(&Shape::OpenObject, 10_000)),
    optional("metadata", Shape::Nullable(&Shape::Metadata(16, 64, 512))),
    optional("max_output_tokens", MAX_OUTPUT_TOKENS),
    optional("reasoning", REASONING),
    optional("parallel_tool_calls", Shape::Boolean),
    optional("prompt", PROMPT),
];

const ITEM_ID: Field = optional("id", ID);
const ITEM_OBJECT: Field = optional("object", Shape::Word(&["realtime.item"]));
const ITEM_STATUS: Field = optional("status", Shape::Word(&["completed", "incomplete", "in_progress"]));

macro_rules! message {
    ($parts:expr) => {
        &[
            TYPE,
            ITEM_ID,
            ITEM_OBJECT,
            ITEM_STATUS,
            required("role", Shape::Any),
            required("content", Shape::List(&Shape::Tagged("type", $parts), 1000)),
        ]
    };
}

const MESSAGES: &[(&str, &[Field])] = &[
    ("system", message!(&[("input_text", &[TYPE, required("text", Shape::Text(LONG))])])),
    (
        "user",
        message!(&[
            ("input_text", &[TYPE, required("text", Shape::Text(LONG))]),
            (
                "input_audio",
                &[
                    TYPE,
                    required("audio", Shape::Text(LONG)),
                    optional("transcript", Shape::Nullable(&Shape::Text(LONG))),
                ]
            ),
            (
                "input_image",
                &[
                    TYPE,
                    required("image_url", Shape::Text(LONG)),
                    optional("detail", Shape::Word(&["auto", "low", "high"])),
                ]
            ),
        ]),
    ),
    (
        "assistant",
        message!(&[
            ("output_text", &[TYPE, required("text", Shape::Text(LONG))]),
            // The assistant's audio cannot be replayed: the service then misses a text.
            (
                "output_audio",
                &[
                    TYPE,
                    required("text", Shape::Text(LONG)),
                    optional("transcript", Shape::Any),
                    optional("audio", Shape::Any),
                ]
            ),
        ]),
    ),
];

const OTHER_ITEMS: &[(&str, &[Field])] = &[
    // Listed so that it is named among the supported values; it is checked by its role.
    ("message", &[]),
    (
        "function_call",
        &[
            TYPE,
            ITEM_ID,
            ITEM_OBJECT,
            ITEM_STATUS,
            optional("call_id", ID),
            required("name", Shape::Text(64)),
            required("arguments", Shape::Text(LONG)),
        ],
    ),
    (
        "function_call_output",
        &[TYPE, ITEM_ID, ITEM_OBJECT, ITEM_STATUS, required("call_id", ID), required("output", Shape::Text(LONG))],
    ),
];

/// The check of an item that a client makes; `path` is `item`, or `response.input[0]`.
pub(super) fn check_item(path: &str, item: &Value) -> Result<(), ApiError> {
    match item["type"].as_str() {
        Some("message") => check_tagged(path, item, "role", MESSAGES),
        _ => check_tagged(path, item, "type", OTHER_ITEMS),
    }
}

/// Audio from its base64 text.
pub(super) fn decode_audio(path: &str, audio: &str) -> Result<Vec<u8>, ApiError> {
    // The wording of both errors is ours.
    let invalid = |message| ApiError::request("invalid_value", message).at(path);
    let audio = BASE64_STANDARD
        .decode(audio)
        .map_err(|_| invalid(format!("Invalid '{path}'. Expected base64-encoded audio bytes.")))?;
    if audio.len() > MOST_AUDIO_BYTES {
        return Err(invalid(format!("Invalid '{path}': more than {MOST_AUDIO_BYTES} bytes of audio.")));
    }
    Ok(audio)
}

/// Checks one event and takes it apart.
pub(super) fn parse(event: &Value) -> Result<ClientEvent, ApiError> {
    if !event.is_object() {
        // The wording is ours.
        return Err(ApiError::request("invalid_json", "An event must be a JSON object."));
    }
    check_tagged("", event, "type", EVENTS)?;
    let text = |name: &str| event[name].as_str().map(str::to_owned);
    let item_id = || text("item_id").unwrap_or_default();
    Ok(match event["type"].as_str().unwrap_or_default() {
        "session.update" => ClientEvent::UpdateSession(event["session"].clone()),
        "input_audio_buffer.append" => {
            ClientEvent::AppendAudio(decode_audio("audio", event["audio"].as_str().unwrap_or_default())?)
        }
        "input_audio_buffer.commit" => ClientEvent::CommitAudio,
        "input_audio_buffer.clear" => ClientEvent::ClearAudio,
        "conversation.item.create" => {
            check_item("item", &event["item"])?;
            ClientEvent::CreateItem { item: event["item"].clone(), after: text("previous_item_id") }
        }
        "conversation.item.truncate" => ClientEvent::TruncateItem {
            item_id: item_id(),
            content_index: event["content_index"].as_u64().unwrap_or_default(),
            audio_end_ms: event["audio_end_ms"].as_u64().unwrap_or_default(),
        },
        "conversation.item.delete" => ClientEvent::DeleteItem(item_id()),
        "conversation.item.retrieve" => ClientEvent::RetrieveItem(item_id()),
        "response.create" => {
            let response = event.get("response").cloned().unwrap_or(Value::Null);
            for (at, item) in response["input"].as_array().into_iter().flatten().enumerate() {
                if item["type"] != "item_reference" {
                    check_item(&format!("response.input[{at}]"), item)?;
                }
            }
            ClientEvent::CreateResponse(response)
        }
        "response.cancel" => ClientEvent::CancelResponse(text("response_id")),
        _ => ClientEvent::ClearOutput,
    })
}
