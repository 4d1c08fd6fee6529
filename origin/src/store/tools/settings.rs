//! What a tool's owner says of how it runs, beside its target; the column `tools.settings`.
//!
//! The same promise as for an agent's settings: fields of a newer version are ignored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::E164;
use utoipa::ToSchema;

/// A tool's settings. Every one is optional.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ToolSettings {
    /// Arguments that the model neither sees nor chooses. They go over the model's own: they may say who is calling.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub static_arguments: BTreeMap<String, Value>,
    /// The arguments that say what a call of the tool is about, such as an appointment's id: within one phone call it
    /// runs once for the same values, however often the model calls it. None: once for each of the model's calls.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub idempotency_key: Vec<String>,
    /// The model is answered at once and the tool runs on by itself.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub background: bool,
    /// What is said while it runs and afterwards.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<ToolMessage>,
    /// Where `transfer_call` can hand a call to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<Destination>,
}

/// Something said for a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolMessage {
    /// At which moment.
    pub when: ToolMoment,
    /// The words.
    pub text: String,
    /// For `delayed`: after how long, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_ms: Option<u32>,
    /// The words are for the model, not for the caller.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub to_model: bool,
    /// The call ends after them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub end_call: bool,
}

/// A moment of a tool's run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ToolMoment {
    /// It begins.
    Start,
    /// It takes long.
    Delayed,
    /// It has succeeded.
    Complete,
    /// It has failed.
    Failed,
}

/// Where a call can be handed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum Destination {
    /// A telephone number.
    #[serde(rename_all = "camelCase")]
    Number {
        /// The number.
        number: E164,
        /// Keys to press once it has answered.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        extension: Option<String>,
        /// Whose number it shows there; `None`: the caller's or ours, as the carrier has it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        caller_id: Option<E164>,
        /// When to choose it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        description: Option<String>,
        /// What is said to the caller before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// A SIP address.
    #[serde(rename_all = "camelCase")]
    Sip {
        /// The address, `sip:…`.
        sip_uri: String,
        /// When to choose it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        description: Option<String>,
        /// What is said to the caller before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
}

impl Destination {
    /// The number or the address: how the model names it.
    pub fn address(&self) -> &str {
        match self {
            Self::Number { number, .. } => number.as_str(),
            Self::Sip { sip_uri, .. } => sip_uri,
        }
    }

    /// What is said to the caller before; `None`: nothing.
    pub fn message(&self) -> Option<&str> {
        let (Self::Number { message, .. } | Self::Sip { message, .. }) = self;
        message.as_deref().filter(|message| !message.trim().is_empty())
    }
}
