//! One session as a pure state machine: client events, appended audio and the passing of time go in, server
//! events come out. No socket, no clock: `now` counts from the beginning of the session.
//!
//! What it does with the caller's audio is in `hearing`, with responses in `responding`.

mod hearing;
mod responding;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::audio::Decoder;
use super::client_events::{self, ClientEvent};
use super::config::{Circumstances, Config};
use super::conversation::{Conversation, Item, Remembered};
use super::errors::ApiError;
use super::listener::Listener;
use super::recognise::Recogniser;
use super::record::Record;
use super::script::{Pace, Reply};
use super::usage::Tokens;
use responding::Running;

/// The service ends a session after this time.
pub(super) const LONGEST: Duration = Duration::from_hours(1);

/// What goes to the client.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Output {
    Event(Value),
    Close(u16, &'static str),
}

/// How the simulated service behaves; the same for all its sessions.
#[derive(Debug)]
pub(super) struct Behaviour {
    pub(super) pace: Pace,
    pub(super) default_reply: Reply,
    pub(super) recogniser: Recogniser,
    /// By how much the service counts less audio than it sent.
    pub(super) undercount_ms: u64,
    /// Tokens a minute of the account, for `rate_limits.updated`.
    pub(super) token_limit: u64,
    pub(super) longest: Duration,
}

/// What differs from session to session.
#[derive(Debug, Default)]
pub(super) struct Start {
    pub(super) number: usize,
    /// Makes ids that no other session has; 12 letters or digits.
    pub(super) nonce: String,
    pub(super) model: String,
    pub(super) expires_at: u64,
    pub(super) replies: VecDeque<Reply>,
    pub(super) replies_apart: VecDeque<Reply>,
    pub(super) caller_texts: VecDeque<String>,
    pub(super) refuses_updates: bool,
    pub(super) update_delay: Option<Duration>,
}

#[derive(Debug)]
enum Timer {
    ApplyUpdate { update: Value, cause: Option<String> },
    Transcribe(String),
    Idle { audio_start_ms: u64 },
    Expire,
}

/// One session.
#[derive(Debug)]
pub struct Session {
    start: Start,
    behaviour: Arc<Behaviour>,
    now: Duration,
    last_id: u64,
    config: Config,
    decoder: Decoder,
    listener: Listener,
    /// The id that the item will have which is being spoken.
    speaking_item: Option<String>,
    conversation: Conversation,
    running: Vec<Running>,
    has_spoken: bool,
    /// What the last response read, which the next finds in the cache.
    cached: Tokens,
    tokens_used: u64,
    failing_transcriptions: usize,
    timers: BTreeMap<(Duration, u64), Timer>,
    output: Vec<Output>,
    record: Record,
}

impl Session {
    pub(super) fn new(start: Start, behaviour: Arc<Behaviour>) -> Self {
        let config = Config::new(&format!("sess_{}", start.nonce), &start.model, start.expires_at);
        let mut session = Self {
            decoder: Decoder::new(config.input_format()),
            config,
            start,
            behaviour,
            now: Duration::ZERO,
            last_id: 0,
            listener: Listener::new(),
            speaking_item: None,
            conversation: Conversation::default(),
            running: Vec::new(),
            has_spoken: false,
            cached: Tokens::default(),
            tokens_used: 0,
            failing_transcriptions: 0,
            timers: BTreeMap::new(),
            output: Vec::new(),
            record: Record::default(),
        };
        session.emit(json!({"type": "session.created", "session": session.config.to_json()}));
        let conversation = json!({"id": session.conversation_id(), "object": "realtime.conversation"});
        session.emit(json!({"type": "conversation.created", "conversation": conversation}));
        session.set_timer(session.behaviour.longest, Timer::Expire);
        session
    }

    /// Counts the sessions of the simulator, from 0.
    pub fn number(&self) -> usize {
        self.start.number
    }

    /// The model that the client asked for.
    pub fn model(&self) -> &str {
        &self.start.model
    }

    /// The effective configuration, as `session.updated` carries it.
    pub fn config(&self) -> &Value {
        self.config.to_json()
    }

    /// The items of the default conversation.
    pub fn items(&self) -> &[Item] {
        self.conversation.items()
    }

    /// What the model knows: for a truncated item only its audio up to there, and no text.
    pub fn memory(&self) -> Vec<Remembered> {
        self.conversation.memory()
    }

    /// What happened.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// All audio appended, in milliseconds.
    pub fn heard_ms(&self) -> u64 {
        self.listener.heard_ms()
    }

    /// Whether a response of the default conversation runs.
    pub fn is_responding(&self) -> bool {
        self.active().is_some()
    }

    pub(super) fn record_mut(&mut self) -> &mut Record {
        &mut self.record
    }

    pub(super) fn push_reply(&mut self, reply: Reply) {
        self.start.replies.push_back(reply);
    }

    pub(super) fn fail_transcription(&mut self) {
        self.failing_transcriptions += 1;
    }

    /// Sends an `error` event that no client event caused.
    pub(super) fn send_error(&mut self, now: Duration, error: ApiError) {
        self.now = now;
        self.refuse(error, None);
    }

    /// Ends the session as its time limit does.
    pub(super) fn expire(&mut self, now: Duration) {
        self.send_error(now, ApiError::session_expired());
        self.output.push(Output::Close(1001, "Your session hit the maximum duration of 60 minutes."));
    }

    pub(super) fn take_output(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.output)
    }

    /// When `tick` has something to do.
    pub(super) fn next_due(&self) -> Option<Duration> {
        let timer = self.timers.keys().next().map(|(due, _)| *due);
        let response = self.running.iter().filter_map(Running::next_due).min();
        timer.into_iter().chain(response).min()
    }

    /// Lets time pass.
    pub(super) fn tick(&mut self, now: Duration) {
        self.now = now;
        while let Some(due) = self.next_due().filter(|due| *due <= now) {
            match self.timers.first_entry().filter(|entry| entry.key().0 == due) {
                Some(entry) => {
                    let timer = entry.remove();
                    self.on_timer(timer);
                }
                None => self.run_step(due),
            }
        }
    }

    /// Takes one text frame.
    pub(super) fn on_text(&mut self, now: Duration, text: &str) {
        self.tick(now);
        let event = match serde_json::from_str::<Value>(text) {
            Ok(event) => event,
            Err(error) => {
                // The wording is ours.
                let message = format!("Could not parse the event as JSON: {error}.");
                return self.refuse(ApiError::request("invalid_json", message), None);
            }
        };
        self.record.log_received(now, &event);
        let cause = event["event_id"].as_str().map(str::to_owned);
        let result = client_events::parse(&event).and_then(|event| self.obey(event, cause.as_deref()));
        if let Err(error) = result {
            self.refuse(error, cause);
        }
    }

    fn obey(&mut self, event: ClientEvent, cause: Option<&str>) -> Result<(), ApiError> {
        match event {
            ClientEvent::UpdateSession(update) => {
                let delay = self.start.update_delay.unwrap_or(self.behaviour.pace.session_update);
                let cause = cause.map(str::to_owned);
                if delay.is_zero() {
                    self.update_session(&update, cause);
                } else {
                    self.set_timer(self.now + delay, Timer::ApplyUpdate { update, cause });
                }
                Ok(())
            }
            ClientEvent::AppendAudio(audio) => {
                self.append_audio(&audio);
                Ok(())
            }
            ClientEvent::CommitAudio => self.commit_by_client(),
            ClientEvent::ClearAudio => {
                self.listener.take();
                self.speaking_item = None;
                self.emit(json!({"type": "input_audio_buffer.cleared"}));
                Ok(())
            }
            ClientEvent::CreateItem { item, after } => self.create_item(&item, after.as_deref()),
            ClientEvent::TruncateItem { item_id, content_index, audio_end_ms } => {
                let undercount = self.behaviour.undercount_ms;
                self.conversation.truncate(&item_id, content_index, audio_end_ms, undercount)?;
                self.emit(json!({
                    "type": "conversation.item.truncated",
                    "item_id": item_id,
                    "content_index": content_index,
                    "audio_end_ms": audio_end_ms,
                }));
                Ok(())
            }
            ClientEvent::DeleteItem(item_id) => {
                if self.conversation.remove(&item_id).is_none() {
                    return Err(ApiError::unknown_item("delete", "deleting", &item_id));
                }
                self.emit(json!({"type": "conversation.item.deleted", "item_id": item_id}));
                Ok(())
            }
            ClientEvent::RetrieveItem(item_id) => {
                let Some(item) = self.conversation.listed(&item_id) else {
                    return Err(ApiError::unknown_item("retrieve", "retrieving", &item_id));
                };
                let item = item.to_json(Some(self.config.input_format()));
                self.emit(json!({"type": "conversation.item.retrieved", "item": item}));
                Ok(())
            }
            ClientEvent::CreateResponse(overrides) => self.start_response(&overrides),
            ClientEvent::CancelResponse(id) => self.cancel_response(id.as_deref()),
            // What the service says on a WebSocket is not known; it does nothing there.
            ClientEvent::ClearOutput => Ok(()),
        }
    }

    fn on_timer(&mut self, timer: Timer) {
        match timer {
            Timer::ApplyUpdate { update, cause } => self.update_session(&update, cause),
            Timer::Transcribe(item_id) => self.transcribe(&item_id),
            Timer::Idle { audio_start_ms } => self.on_idle(audio_start_ms),
            Timer::Expire => self.expire(self.now),
        }
    }

    fn update_session(&mut self, update: &Value, cause: Option<String>) {
        if self.start.refuses_updates {
            let error = ApiError::request("invalid_value", "This session.update is refused by a test.");
            return self.refuse(error.at("session"), cause);
        }
        let now = Circumstances { has_spoken: self.has_spoken, is_responding: !self.running.is_empty() };
        match self.config.updated(update, now) {
            Err(error) => self.refuse(error, cause),
            Ok(config) => {
                let old = std::mem::replace(&mut self.config, config);
                if self.decoder.format() != self.config.input_format() {
                    self.decoder = Decoder::new(self.config.input_format());
                }
                let kind = |config: &Config| std::mem::discriminant(&config.turn_detection());
                if kind(&old) != kind(&self.config) {
                    self.listener.reset();
                    self.speaking_item = None;
                }
                self.emit(json!({"type": "session.updated", "session": self.config.to_json()}));
            }
        }
    }

    fn create_item(&mut self, item: &Value, after: Option<&str>) -> Result<(), ApiError> {
        let id = item["id"].as_str().map_or_else(|| self.new_id("item"), str::to_owned);
        let item = Item::from_client(id.clone(), item, self.config.input_format())?;
        self.conversation.insert(item, after)?;
        self.emit_item("conversation.item.added", &id);
        self.emit_item("conversation.item.done", &id);
        Ok(())
    }

    /// `conversation.item.added` or `.done`.
    fn emit_item(&mut self, kind: &str, id: &str) {
        let Some(item) = self.conversation.listed(id).map(|item| item.to_json(None)) else { return };
        let previous = self.conversation.id_before(id);
        self.emit(json!({"type": kind, "previous_item_id": previous, "item": item}));
    }

    fn refuse(&mut self, error: ApiError, cause: Option<String>) {
        self.emit(json!({"type": "error", "error": error.to_json(cause.as_deref())}));
        self.record.errors.push((error, cause));
    }

    fn emit(&mut self, mut event: Value) {
        event["event_id"] = json!(self.new_id("event"));
        self.record.log_sent(self.now, &event);
        self.output.push(Output::Event(event));
    }

    fn new_id(&mut self, kind: &str) -> String {
        self.last_id += 1;
        format!("{kind}_{}{:09}", self.start.nonce, self.last_id)
    }

    fn conversation_id(&self) -> String {
        format!("conv_{}", self.start.nonce)
    }

    fn set_timer(&mut self, due: Duration, timer: Timer) {
        self.last_id += 1;
        self.timers.insert((due, self.last_id), timer);
    }
}
