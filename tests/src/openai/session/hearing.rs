//! The caller's side of a session: appended audio, turns, commits, transcripts, silence.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Session, Timer};
use crate::openai::audio::{Format, whole_ms};
use crate::openai::config::TurnDetection;
use crate::openai::conversation::{Item, ItemKind};
use crate::openai::errors::ApiError;
use crate::openai::listener::Heard;
use crate::openai::usage::{AUDIO_IN_MS, text_tokens};
use crate::speech::SAMPLES_PER_MS;

/// A commit needs so much audio.
const LEAST_COMMIT_MS: usize = 100;

impl Session {
    pub(super) fn append_audio(&mut self, audio: &[u8]) {
        if self.decoder.format() != Format::Mulaw {
            self.record.misinterpreted_ms += whole_ms(audio.len());
        }
        let samples = self.decoder.decode(audio);
        let recogniser = &self.behaviour.recogniser;
        let is_complete = |utterance: &[i16]| recogniser.recognise(utterance).is_some();
        let heard = self.listener.append(&samples, self.config.turn_detection(), is_complete);
        for event in heard {
            match event {
                Heard::Started { audio_start_ms } => self.on_speech_started(audio_start_ms),
                Heard::Stopped { audio_end_ms, audio } => self.on_speech_stopped(audio_end_ms, audio),
            }
        }
    }

    fn on_speech_started(&mut self, audio_start_ms: u64) {
        let item_id = self.new_id("item");
        self.speaking_item = Some(item_id.clone());
        self.stop_idle_timer();
        self.emit(json!({
            "type": "input_audio_buffer.speech_started",
            "audio_start_ms": audio_start_ms,
            "item_id": item_id,
        }));
        if self.config.turn_switch("interrupt_response") {
            self.interrupt();
        }
    }

    fn on_speech_stopped(&mut self, audio_end_ms: u64, audio: Vec<i16>) {
        let item_id = self.speaking_item.take().unwrap_or_else(|| self.new_id("item"));
        self.emit(json!({
            "type": "input_audio_buffer.speech_stopped",
            "audio_end_ms": audio_end_ms,
            "item_id": item_id,
        }));
        self.commit(item_id, audio);
        if self.config.turn_switch("create_response") {
            // A turn so short that the response it interrupted is not quite over.
            self.finish_interrupted();
            if let Err(error) = self.start_response(&Value::Null) {
                self.refuse(error, None);
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a buffer of a few million samples")]
    pub(super) fn commit_by_client(&mut self) -> Result<(), ApiError> {
        let buffered = self.listener.buffered_samples();
        if self.config.turn_detection() != TurnDetection::Manual && !self.listener.is_in_speech() {
            // With turn detection on, what is in the buffer between turns is padding, not speech.
            return Err(ApiError::commit_empty(0.0));
        }
        if buffered < LEAST_COMMIT_MS * SAMPLES_PER_MS {
            return Err(ApiError::commit_empty(buffered as f64 / SAMPLES_PER_MS as f64));
        }
        let audio = self.listener.take();
        let item_id = self.speaking_item.take().unwrap_or_else(|| self.new_id("item"));
        self.commit(item_id, audio);
        Ok(())
    }

    fn commit(&mut self, item_id: String, audio: Vec<i16>) {
        let clip = self.behaviour.recogniser.recognise(&audio).map(|clip| clip.name.clone());
        self.emit(json!({
            "type": "input_audio_buffer.committed",
            "item_id": item_id,
            "previous_item_id": self.conversation.last_id(),
        }));
        let kind = ItemKind::CallerSpeech { transcript: None };
        self.conversation.push(Item { audio, clip, ..Item::new(item_id.clone(), kind, "completed") });
        self.emit_item("conversation.item.added", &item_id);
        self.emit_item("conversation.item.done", &item_id);
        if self.config.transcription_model().is_some() {
            self.set_timer(self.now + self.behaviour.pace.transcription, Timer::Transcribe(item_id));
        }
    }

    pub(super) fn transcribe(&mut self, item_id: &str) {
        let Some(item) = self.conversation.listed(item_id) else { return };
        let audio_ms = item.audio_ms();
        let recognised = item.clip.as_ref().and_then(|name| self.behaviour.recogniser.text_of(name));
        if self.failing_transcriptions > 0 {
            self.failing_transcriptions -= 1;
            return self.emit(json!({
                "type": "conversation.item.input_audio_transcription.failed",
                "item_id": item_id,
                "content_index": 0,
                "error": {
                    "type": "transcription_error",
                    "code": "audio_unintelligible",
                    "message": "The audio could not be transcribed.",
                    "param": null,
                },
            }));
        }
        let text = match recognised {
            Some(text) => text,
            None => self.start.caller_texts.pop_front().unwrap_or_else(|| "(unrecognised)".to_owned()),
        };
        if let Some(Item { kind: ItemKind::CallerSpeech { transcript }, .. }) = self.conversation.item_mut(item_id) {
            *transcript = Some(text.clone());
        }
        for word in text.split_inclusive(' ') {
            self.emit(json!({
                "type": "conversation.item.input_audio_transcription.delta",
                "item_id": item_id,
                "content_index": 0,
                "delta": word,
                "logprobs": self.logprobs(word),
            }));
        }
        let model = self.config.transcription_model().unwrap_or_default();
        let mut completed = json!({
            "type": "conversation.item.input_audio_transcription.completed",
            "item_id": item_id,
            "content_index": 0,
            "transcript": text,
            "logprobs": self.logprobs(&text),
            "usage": transcription_usage(model, audio_ms, &text),
        });
        if model == "gpt-transcribe" {
            completed["languages"] = json!([{"code": "en"}]);
        }
        self.emit(completed);
    }

    /// One word a token, as certain as can be; null unless the session includes them.
    fn logprobs(&self, text: &str) -> Value {
        if !self.config.wants_logprobs() {
            return Value::Null;
        }
        let token = |word: &str| json!({"token": word, "bytes": word.as_bytes(), "logprob": -0.01});
        text.split_inclusive(' ').map(token).collect()
    }

    /// Called when a response is over; `audio` is how long it plays.
    pub(super) fn start_idle_timer(&mut self, audio: Duration) {
        self.stop_idle_timer();
        if let Some(timeout) = self.config.idle_timeout() {
            let played = u64::try_from(audio.as_millis()).unwrap_or_default();
            let audio_start_ms = self.listener.heard_ms() + played;
            self.set_timer(self.now + audio + timeout, Timer::Idle { audio_start_ms });
        }
    }

    fn stop_idle_timer(&mut self) {
        self.timers.retain(|_, timer| !matches!(timer, Timer::Idle { .. }));
    }

    /// The caller said nothing: commits the silence and lets the model speak.
    pub(super) fn on_idle(&mut self, audio_start_ms: u64) {
        if self.is_responding() || self.listener.is_in_speech() {
            return;
        }
        let item_id = self.new_id("item");
        let audio_end_ms = self.listener.heard_ms();
        self.emit(json!({
            "type": "input_audio_buffer.timeout_triggered",
            "audio_start_ms": audio_start_ms.min(audio_end_ms),
            "audio_end_ms": audio_end_ms,
            "item_id": item_id,
        }));
        let audio = self.listener.take();
        self.commit(item_id, audio);
        if let Err(error) = self.start_response(&Value::Null) {
            self.refuse(error, None);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a turn of a few minutes")]
fn transcription_usage(model: &str, audio_ms: u64, text: &str) -> Value {
    if model == "whisper-1" {
        return json!({"type": "duration", "seconds": audio_ms as f64 / 1000.0});
    }
    let (input, output) = (audio_ms.div_ceil(AUDIO_IN_MS), text_tokens(text));
    json!({
        "type": "tokens",
        "total_tokens": input + output,
        "input_tokens": input,
        "output_tokens": output,
        "input_token_details": {"text_tokens": 0, "audio_tokens": input},
    })
}
