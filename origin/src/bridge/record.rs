//! What a stream tells of its call, handed to the recorder and counted: nothing here waits.

use std::sync::Arc;
use std::time::Duration;

use shared::{CallId, CallSid};
use time::OffsetDateTime;

use super::call::Action;
use super::playback::Millis;
use super::waits::Turn;
use crate::calls::{Entry, Recorder};
use crate::store::call_turns::CallTurn;
use crate::telemetry::Metrics;
use crate::usage::Usage;

/// The facts of one stream.
#[derive(Debug)]
pub struct CallRecord {
    /// The call.
    pub call_id: CallId,
    /// The same at Twilio.
    pub call_sid: CallSid,
    /// The model that speaks.
    pub model: String,
    /// The model that transcribes the caller's words.
    pub transcription_model: Option<String>,
    /// What the call has used so far.
    pub usage: Usage,
    /// How often the caller has cut the agent off so far.
    pub interruptions: u32,
    /// Where facts go.
    pub recorder: Recorder,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl CallRecord {
    /// Keeps what an action tells. Actions that do something are none of its business.
    pub fn note(&mut self, action: Action) {
        match action {
            Action::Line(line) => self.record(Entry::Line(line)),
            Action::Usage(usage) => {
                self.usage.add_response(&self.model, &usage);
                self.record(Entry::Usage(self.usage.clone()));
            }
            Action::TranscriptUsage(usage) => {
                if let Some(model) = &self.transcription_model {
                    self.usage.add_transcript(model, &usage);
                    self.record(Entry::Usage(self.usage.clone()));
                }
            }
            Action::SetUp(ms) => {
                self.metrics.bridge_setup.observe(seconds(ms));
                self.record(Entry::Setup(ms));
                // Nobody has interrupted yet, which is to be told from not known.
                self.record(Entry::Interruptions(self.interruptions));
            }
            Action::Turn(turn) => self.turn(turn),
            Action::Interrupted => {
                self.interruptions += 1;
                self.metrics.interruptions.inc();
                self.record(Entry::Interruptions(self.interruptions));
            }
            Action::Fault { code, context } => {
                let call_sid = &self.call_sid;
                tracing::warn!(%call_sid, code, context, "OpenAI reports a fault");
            }
            _ => {}
        }
    }

    fn turn(&self, turn: Turn) {
        self.metrics.turn_latency.observe(seconds(turn.first_audio_ms));
        if let Some(heard) = turn.first_heard_ms {
            self.metrics.turn_heard.observe(seconds(heard));
        }
        let whole = |ms: Millis| i32::try_from(ms).unwrap_or(i32::MAX);
        self.record(Entry::Turn(CallTurn {
            speech_ended_at: OffsetDateTime::now_utc() - Duration::from_millis(turn.ended_ago_ms),
            first_audio_ms: whole(turn.first_audio_ms),
            first_heard_ms: turn.first_heard_ms.map(whole),
        }));
    }

    fn record(&self, entry: Entry) {
        self.recorder.record(self.call_id, entry);
    }
}

fn seconds(ms: Millis) -> f64 {
    Duration::from_millis(ms).as_secs_f64()
}
