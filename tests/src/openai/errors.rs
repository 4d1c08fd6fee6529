//! The `error` events of the Realtime API, with the wording of the real service.
//!
//! Codes and messages were seen on the wire by users of the API (their bug reports quote them), except where
//! a comment says that the wording is ours. Nearly all of them leave the session open.

use serde_json::{Value, json};

/// The `error` object of an `error` event, less the id of the client event that caused it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// `invalid_request_error` for what the client did wrong.
    pub kind: &'static str,
    /// Machine-readable; null when the service gives none.
    pub code: Option<String>,
    /// For people.
    pub message: String,
    /// The path of the field at fault, such as `session.audio.input.format`.
    pub param: Option<String>,
}

impl ApiError {
    /// An error that the client caused.
    pub fn request(code: &str, message: impl Into<String>) -> Self {
        Self { kind: "invalid_request_error", code: Some(code.to_owned()), message: message.into(), param: None }
    }

    /// The same, with the field at fault.
    #[must_use]
    pub fn at(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// The `error` object as sent. `cause` is the `event_id` of the client event.
    pub(super) fn to_json(&self, cause: Option<&str>) -> Value {
        json!({
            "type": self.kind,
            "code": self.code,
            "message": self.message,
            "param": self.param,
            "event_id": cause,
        })
    }

    pub(super) fn unknown_parameter(path: &str) -> Self {
        Self::request("unknown_parameter", format!("Unknown parameter: '{path}'.")).at(path)
    }

    pub(super) fn missing_parameter(path: &str) -> Self {
        Self::request("missing_required_parameter", format!("Missing required parameter: '{path}'.")).at(path)
    }

    /// `expected` with its article, such as "an object".
    pub(super) fn wrong_type(path: &str, expected: &str, got: &Value) -> Self {
        let got = match got {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(number) if number.is_f64() => "a decimal",
            Value::Number(_) => "an integer",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        };
        let message = format!("Invalid type for '{path}': expected {expected}, but got {got} instead.");
        Self::request("invalid_type", message).at(path)
    }

    pub(super) fn unsupported_value(path: &str, got: &str, supported: &[&str]) -> Self {
        let message = format!("Invalid value: '{got}'. Supported values are: {}.", listed(supported));
        Self::request("invalid_value", message).at(path)
    }

    /// `kind` is "integer" or "decimal".
    pub(super) fn below_minimum(path: &str, kind: &str, minimum: f64, got: &Value) -> Self {
        let message = format!(
            "Invalid '{path}': {kind} below minimum value. Expected a value >= {minimum}, but got {got} instead."
        );
        Self::request(&format!("{kind}_below_min_value"), message).at(path)
    }

    /// `kind` is "integer" or "decimal".
    pub(super) fn above_maximum(path: &str, kind: &str, maximum: f64, got: &Value) -> Self {
        let message = format!(
            "Invalid '{path}': {kind} above maximum value. Expected a value <= {maximum}, but got {got} instead."
        );
        Self::request(&format!("{kind}_above_max_value"), message).at(path)
    }

    pub(super) fn string_too_long(path: &str, maximum: usize, got: usize) -> Self {
        let message = format!(
            "Invalid '{path}': string too long. Expected a string with maximum length {maximum}, \
             but got a string with length {got} instead."
        );
        Self::request("string_above_max_length", message).at(path)
    }

    pub(super) fn active_response(response_id: &str) -> Self {
        Self::request(
            "conversation_already_has_active_response",
            format!(
                "Conversation already has an active response in progress: {response_id}. \
                 Wait until the response is finished before creating a new one."
            ),
        )
    }

    pub(super) fn nothing_to_cancel() -> Self {
        Self::request("response_cancel_not_active", "Cancellation failed: no active response found")
    }

    pub(super) fn commit_empty(buffered_ms: f64) -> Self {
        Self::request(
            "input_audio_buffer_commit_empty",
            format!(
                "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, \
                 but buffer only has {buffered_ms:.2}ms of audio."
            ),
        )
    }

    pub(super) fn truncate_unknown_item(item_id: &str) -> Self {
        Self::request("item_truncate_invalid_item_id", format!("Item with item_id not found: {item_id}"))
    }

    /// The message is the service's; its code was not in any report, this one is that of its neighbours.
    pub(super) fn truncate_without_audio() -> Self {
        Self::request("invalid_value", "Only model output audio messages can be truncated")
    }

    pub(super) fn truncate_beyond(has_ms: u64, asked_ms: u64) -> Self {
        let message = format!("Audio content of {has_ms}ms is already shorter than {asked_ms}ms");
        Self::request("invalid_value", message)
    }

    /// `verb` and `doing` as in "delete", "deleting".
    pub(super) fn unknown_item(verb: &str, doing: &str, item_id: &str) -> Self {
        Self::request(
            &format!("item_{verb}_invalid_item_id"),
            format!("Error {doing} item: the item with id '{item_id}' does not exist."),
        )
    }

    pub(super) fn unknown_call(call_id: &str) -> Self {
        let message = format!("Tool call ID '{call_id}' not found in conversation.");
        Self::request("invalid_tool_call_id", message)
    }

    pub(super) fn voice_locked() -> Self {
        Self::request("cannot_update_voice", "Cannot update a conversation's voice if assistant audio is present.")
    }

    pub(super) fn session_expired() -> Self {
        Self::request("session_expired", "Your session hit the maximum duration of 60 minutes.")
    }

    pub(super) fn beta_shape() -> Self {
        Self::request(
            "beta_api_shape_disabled",
            "The Realtime Beta API is no longer supported. Please use /v1/realtime for the GA API.",
        )
    }
}

/// `'a'`, `'a' and 'b'`, `'a', 'b', and 'c'`.
fn listed(values: &[&str]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| format!("'{value}'")).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [one, two] => format!("{one} and {two}"),
        [head @ .., last] => format!("{}, and {last}", head.join(", ")),
    }
}
