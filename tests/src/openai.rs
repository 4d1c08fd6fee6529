//! A strict simulator of OpenAI Realtime (GA) over WebSocket, for a bridge from the telephone.
//!
//! It refuses what the real service refuses, in the same words, hears the caller by the energy of real audio,
//! and speaks recordings by a script. Its event shapes are checked against the official SDK's types by
//! `tests/openai_sim.rs`. MCP tools, WebRTC, SIP and transcription sessions are not simulated.
//!
//! A [`session::Session`] is a pure state machine; [`server`] puts it behind a socket:
//!
//! ```no_run
//! # use tests::openai::{Realtime, RealtimeOptions, Reply};
//! # use tests::speech::clip;
//! # async fn example() -> anyhow::Result<()> {
//! let realtime = Realtime::start(RealtimeOptions {
//!     replies: vec![Reply::speech(clip("agent-greeting")), Reply::speech(clip("agent-hours"))],
//!     ..RealtimeOptions::default()
//! })
//! .await?;
//! println!("the bridge connects to {}?model=gpt-realtime-2.1", realtime.url());
//! let session = realtime.wait_for_session(0, std::time::Duration::from_secs(5)).await?;
//! session.wait_for(|session| session.heard_ms() > 500, std::time::Duration::from_secs(5)).await?;
//! # Ok(())
//! # }
//! ```

mod audio;
mod client_events;
mod config;
mod conversation;
mod errors;
mod fields;
mod handshake;
mod listener;
mod plan;
mod recognise;
mod record;
mod script;
mod server;
mod session;
mod session_fields;
mod usage;

use std::net::SocketAddr;
use std::time::Duration;

use crate::speech::{Clip, caller_clips, clip};

pub use audio::Format;
pub use conversation::{Item, ItemKind, Remembered};
pub use errors::ApiError;
pub use handshake::{Fault, Refusal};
pub use record::{Closed, Finished, Logged, Record};
pub use script::{Pace, Reply};
pub use server::{Realtime, SessionHandle};
pub use session::Session;

/// Every type of event that the simulator can send.
pub const SERVER_EVENTS: &[&str] = &[
    "session.created",
    "session.updated",
    "conversation.created",
    "conversation.item.added",
    "conversation.item.done",
    "conversation.item.retrieved",
    "conversation.item.deleted",
    "conversation.item.truncated",
    "conversation.item.input_audio_transcription.delta",
    "conversation.item.input_audio_transcription.completed",
    "conversation.item.input_audio_transcription.failed",
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    "input_audio_buffer.cleared",
    "input_audio_buffer.timeout_triggered",
    "response.created",
    "response.output_item.added",
    "response.output_item.done",
    "response.content_part.added",
    "response.content_part.done",
    "response.output_audio.delta",
    "response.output_audio.done",
    "response.output_audio_transcript.delta",
    "response.output_audio_transcript.done",
    "response.output_text.delta",
    "response.output_text.done",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.done",
    "rate_limits.updated",
    "error",
];

/// How a simulated service is set up.
#[derive(Debug, Clone)]
pub struct RealtimeOptions {
    /// Where it listens; port 0 takes a free one.
    pub bind: SocketAddr,
    /// The key that `Authorization` must bear.
    pub api_key: String,
    /// What the model says in each session, in order.
    pub replies: Vec<Reply>,
    /// What it says in responses outside the conversation (`conversation: "none"`).
    pub replies_apart: Vec<Reply>,
    /// What it says when its script is used up.
    pub default_reply: Reply,
    /// The recordings that a caller may be heard to speak; they are transcribed with their texts.
    pub caller_clips: Vec<Clip>,
    /// In each session, the texts of turns that are none of these recordings, in order.
    pub caller_texts: Vec<String>,
    /// How fast things happen.
    pub pace: Pace,
    /// By how much the service's own count of its audio is below what it sent: tens of milliseconds were seen.
    pub undercount_ms: u64,
    /// Tokens a minute of the account, as `rate_limits.updated` tells them.
    pub token_limit: u64,
    /// When a session expires.
    pub longest_session: Duration,
}

impl Default for RealtimeOptions {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from(([127, 0, 0, 1], 0)),
            api_key: "sk-test-0123456789abcdef".to_owned(),
            replies: Vec::new(),
            replies_apart: Vec::new(),
            default_reply: Reply::speech(clip("agent-saturday")),
            caller_clips: caller_clips(),
            caller_texts: Vec::new(),
            pace: Pace::default(),
            undercount_ms: 0,
            token_limit: 250_000,
            longest_session: session::LONGEST,
        }
    }
}
