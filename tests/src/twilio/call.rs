//! One call as the exchange keeps it: identity, state, line, trace. What it does next is decided in
//! `executor`; people and tests look at it through `handle`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::caller::{Caller, Leaves};
use super::clock::Clock;
use super::exchange::{Exchange, lock};
use super::line::{Line, Tick};
use super::sid::CallSid;
use super::signature::Param;
use super::stream::{StreamFacts, ToOurSide};
use super::trace::{EndReason, Purpose, TraceEntry, What};
use super::twiml::{Action, Document, Method};
use super::webhook::{Answer, Failure, Webhook};

/// `CallStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "Twilio's words")]
pub enum CallStatus {
    Queued,
    Initiated,
    Ringing,
    InProgress,
    Completed,
    Busy,
    Failed,
    NoAnswer,
    Canceled,
}

impl CallStatus {
    /// The word in parameters and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Initiated => "initiated",
            Self::Ringing => "ringing",
            Self::InProgress => "in-progress",
            Self::Completed => "completed",
            Self::Busy => "busy",
            Self::Failed => "failed",
            Self::NoAnswer => "no-answer",
            Self::Canceled => "canceled",
        }
    }

    pub(crate) fn is_over(self) -> bool {
        !matches!(self, Self::Queued | Self::Initiated | Self::Ringing | Self::InProgress)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Inbound,
    OutboundApi,
}

impl Direction {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::OutboundApi => "outbound-api",
        }
    }
}

/// What interrupts whatever a call is doing.
#[derive(Debug)]
pub(crate) enum Command {
    End(EndReason),
    /// A live call is given another document by REST.
    Replace(NewDocument),
}

#[derive(Debug)]
pub(crate) enum NewDocument {
    At(Action),
    Inline(Document),
}

/// Who is told of the call's progress.
#[derive(Clone, Debug, Default)]
pub(crate) struct Callbacks {
    pub(crate) status: Option<Action>,
    /// Of `initiated ringing answered completed`.
    pub(crate) events: Vec<String>,
    pub(crate) fallback: Option<Action>,
}

/// What is fixed when a call begins.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) direction: Direction,
    pub(crate) caller: Caller,
    pub(crate) callbacks: Callbacks,
    /// Further parameters of every webhook (`ForwardedFrom`, `SipDomain`, …).
    pub(crate) extra: Vec<Param>,
}

pub(crate) struct Call {
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) sid: CallSid,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) direction: Direction,
    pub(crate) callbacks: Callbacks,
    pub(crate) clock: Clock,
    pub(crate) began: OffsetDateTime,
    extra: Vec<Param>,
    pub(crate) line: Mutex<Line>,
    pub(crate) state: Mutex<State>,
    trace: Mutex<Vec<TraceEntry>>,
    changed: watch::Sender<()>,
    commands: mpsc::Sender<Command>,
    /// Where the live stream's socket takes its messages from.
    pub(crate) outlet: Mutex<Option<mpsc::Sender<ToOurSide>>>,
    /// The caller's line goes dead with this.
    line_end: CancellationToken,
    callbacks_sent: Mutex<Vec<JoinHandle<()>>>,
    pub(crate) finished: CancellationToken,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) status: CallStatus,
    pub(crate) answered_ms: Option<u64>,
    pub(crate) ended: Option<(u64, EndReason)>,
    pub(crate) verbs: Vec<String>,
    pub(crate) said: Vec<String>,
    pub(crate) streams: Vec<StreamFacts>,
    /// `SequenceNumber` of the next progress event.
    sequence: u32,
}

impl Call {
    /// A call and the receiver of its commands, which `executor::run` takes.
    pub(crate) fn new(exchange: Arc<Exchange>, setup: Setup) -> (Arc<Self>, mpsc::Receiver<Command>) {
        // Two people at most press buttons on one call.
        let (commands, inbox) = mpsc::channel(16);
        let status = match setup.direction {
            Direction::Inbound => CallStatus::Ringing,
            Direction::OutboundApi => CallStatus::Queued,
        };
        let call = Self {
            clock: Clock::start(exchange.options.pace),
            line_end: exchange.stopped.child_token(),
            exchange,
            sid: CallSid::random(),
            from: setup.from,
            to: setup.to,
            direction: setup.direction,
            callbacks: setup.callbacks,
            began: OffsetDateTime::now_utc(),
            extra: setup.extra,
            line: Mutex::new(Line::new(setup.caller)),
            state: Mutex::new(State {
                status,
                answered_ms: None,
                ended: None,
                verbs: Vec::new(),
                said: Vec::new(),
                streams: Vec::new(),
                sequence: 0,
            }),
            trace: Mutex::default(),
            changed: watch::Sender::default(),
            commands,
            outlet: Mutex::default(),
            callbacks_sent: Mutex::default(),
            finished: CancellationToken::new(),
        };
        let call = Arc::new(call);
        call.note(What::Ringing { from: call.from.clone(), to: call.to.clone() });
        (call, inbox)
    }

    pub(crate) fn note(&self, what: What) {
        lock(&self.trace).push(TraceEntry { at_ms: self.clock.now_ms(), what });
        self.changed.send_replace(());
    }

    /// An entry of the account's debugger, which the trace shows too.
    pub(crate) fn notify(&self, failure: &Failure, url: &str) {
        self.exchange.notify(&self.sid, failure, url);
        self.note(What::Notified { code: failure.code, text: failure.text.clone() });
    }

    pub(crate) fn trace(&self) -> Vec<TraceEntry> {
        lock(&self.trace).clone()
    }

    /// Wakes with every entry of the trace.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub(crate) fn status(&self) -> CallStatus {
        lock(&self.state).status
    }

    pub(crate) fn is_answered(&self) -> bool {
        lock(&self.state).answered_ms.is_some()
    }

    /// Gives the call a command; `false` if it is over (or flooded).
    pub(crate) fn command(&self, command: Command) -> bool {
        !self.status().is_over() && self.commands.try_send(command).is_ok()
    }

    /// Answers the call, if it is not yet: from here on there is a line, 20 ms at a time.
    pub(crate) fn answer(self: &Arc<Self>) {
        let now_us = self.clock.now_us();
        {
            let mut state = lock(&self.state);
            if state.answered_ms.is_some() {
                return;
            }
            state.answered_ms = Some(now_us / 1000);
            state.status = CallStatus::InProgress;
        }
        lock(&self.line).answer(now_us);
        self.note(What::Answered);
        self.progress("answered");
        let call = self.clone();
        tokio::spawn(async move {
            let ended = call.line_end.clone();
            ended.run_until_cancelled(call.run_line()).await;
        });
    }

    /// Frames fall due at fixed times from the answer: a late one does not delay those after it.
    async fn run_line(&self) {
        loop {
            let due_us = lock(&self.line).next_frame_us();
            self.clock.until_us(due_us).await;
            let tick = lock(&self.line).tick();
            self.pass_on(tick);
        }
    }

    fn pass_on(&self, tick: Tick) {
        for what in tick.noted {
            self.note(what);
        }
        if !tick.digits.is_empty() {
            self.note(What::Dtmf { digits: tick.digits.clone() });
        }
        if let Some(outlet) = &*lock(&self.outlet) {
            let marks = tick.marks.into_iter().map(|name| ToOurSide::Mark { name, cleared: false });
            let media = tick.caller.map(|frame| ToOurSide::Media { frame, at_us: tick.at_us });
            let digits = tick.digits.chars().map(ToOurSide::Dtmf);
            for message in marks.chain(media).chain(digits) {
                // A socket that our side does not read backs up; what does not fit is lost, and counted
                // by the gap that it leaves in the timestamps.
                let _ = outlet.try_send(message);
            }
        }
        if let Some(leaves) = tick.leaves {
            self.command(Command::End(match leaves {
                Leaves::ByScript => EndReason::CallerHungUp,
                Leaves::GaveUpWaiting => EndReason::CallerGaveUp,
            }));
        }
    }

    /// Ends the call: status, trace, last callbacks. `executor::run` is the only caller.
    /// `action` is of the verb that was running: Twilio requests it with the final status and ignores the answer.
    pub(crate) async fn finish(self: &Arc<Self>, reason: EndReason, status: CallStatus, action: Option<Action>) {
        self.line_end.cancel();
        {
            let mut state = lock(&self.state);
            state.status = status;
            state.ended = Some((self.clock.now_ms(), reason));
        }
        self.note(What::Ended { reason });
        if let Some(action) = action {
            self.callback(Purpose::Action, action, self.params());
        }
        self.progress("completed");
        loop {
            let Some(sending) = lock(&self.callbacks_sent).pop() else {
                break;
            };
            // A callback that panicked has failed its test already.
            let _ = sending.await;
        }
        self.finished.cancel();
        self.changed.send_replace(());
    }

    /// A progress event: `initiated`, `ringing`, `answered` or `completed`.
    pub(crate) fn progress(self: &Arc<Self>, event: &str) {
        let sequence = {
            let mut state = lock(&self.state);
            // A number's callback fires at the end only and counts from there.
            let counted = self.direction == Direction::OutboundApi || event == "completed";
            state.sequence += u32::from(counted);
            state.sequence.saturating_sub(1)
        };
        let Some(action) = &self.callbacks.status else {
            return;
        };
        if !self.callbacks.events.iter().any(|wanted| wanted == event) {
            return;
        }
        let mut params = self.params();
        params.push(param("CallbackSource", "call-progress-events"));
        params.push(param("SequenceNumber", sequence.to_string()));
        params.push(param("Timestamp", rfc2822(OffsetDateTime::now_utc())));
        if event == "completed" {
            let seconds = self.duration_s();
            params.push(param("CallDuration", seconds.to_string()));
            params.push(param("Duration", seconds.div_ceil(60).to_string()));
        }
        self.callback(Purpose::CallStatus, action.clone(), params);
    }

    /// Sends a callback whose answer does not matter, beside the call.
    pub(crate) fn callback(self: &Arc<Self>, purpose: Purpose, action: Action, params: Vec<Param>) {
        let call = self.clone();
        let sending = tokio::spawn(async move {
            let copies = if purpose == Purpose::Action { 1 } else { call.exchange.callback_copies() };
            for _ in 0..copies {
                if let Err(failure) = call.request(purpose, &action, &params).await {
                    call.notify(&failure, &action.url);
                }
            }
        });
        lock(&self.callbacks_sent).push(sending);
    }

    /// Makes a webhook request; every attempt is in the trace.
    pub(crate) async fn request(&self, purpose: Purpose, action: &Action, params: &[Param]) -> Result<Answer, Failure> {
        let auth_token = self.exchange.primary_token();
        let webhook = Webhook {
            hosts: &self.exchange.options.hosts,
            auth_token: &auth_token,
            url: &action.url,
            method: action.method,
            params,
            total: Duration::from_millis(self.exchange.options.webhook_limit_ms),
        };
        let attempt = |attempt: super::webhook::Attempt| {
            self.note(What::Webhook {
                purpose,
                method: attempt.method.as_str().to_owned(),
                url: attempt.url,
                status: attempt.status,
                error: attempt.error,
                took_us: attempt.took_us,
            });
        };
        webhook.send(attempt).await
    }

    /// Seconds from the answer to the end (or to now).
    pub(crate) fn duration_s(&self) -> u64 {
        let state = lock(&self.state);
        let end_ms = state.ended.map_or_else(|| self.clock.now_ms(), |(at_ms, _)| at_ms);
        state.answered_ms.map_or(0, |answered_ms| end_ms.saturating_sub(answered_ms).div_ceil(1000))
    }

    /// The parameters of every voice webhook, blank ones too, as a real call carries them.
    pub(crate) fn params(&self) -> Vec<Param> {
        let mut params = vec![
            param("AccountSid", &self.exchange.options.account_sid),
            param("ApiVersion", "2010-04-01"),
            param("CallSid", self.sid.as_str()),
            param("CallStatus", self.status().as_str()),
            param("Direction", self.direction.as_str()),
        ];
        for (prefix, number) in [("From", &self.from), ("Caller", &self.from), ("To", &self.to), ("Called", &self.to)] {
            params.push(param(prefix, number));
            // Twilio's guess from the number; the towns of 555 numbers are not known.
            let country = if number.starts_with("+1") { "US" } else { "" };
            params.push(param(&format!("{prefix}City"), ""));
            params.push(param(&format!("{prefix}State"), if country.is_empty() { "" } else { "CA" }));
            params.push(param(&format!("{prefix}Zip"), ""));
            params.push(param(&format!("{prefix}Country"), country));
        }
        if self.direction == Direction::Inbound {
            let token = format!(r#"{{"parentCallInfoToken":"eyJhbGciOiJFUzI1NiJ9.{}.c2ln"}}"#, self.sid);
            params.push(param("CallToken", token));
            params.push(param("StirVerstat", "TN-Validation-Passed-A"));
            params.push(param("StirPassportToken", "eyJhbGciOiJFUzI1NiIsInBwdCI6InNoYWtlbiJ9.e30.c2ln"));
        }
        params.extend(self.extra.iter().cloned());
        params
    }
}

pub(crate) fn param(name: &str, value: impl Into<String>) -> Param {
    (name.to_owned(), value.into())
}

pub(crate) fn rfc2822(at: OffsetDateTime) -> String {
    at.format(&time::format_description::well_known::Rfc2822).expect("a date of this century has this form")
}

/// The URL and method of two settings; nothing if the URL is blank.
pub(crate) fn action_of(url: Option<&str>, method: Option<&str>) -> Option<Action> {
    let url = url.filter(|url| !url.is_empty())?.to_owned();
    Some(Action { url, method: Method::of(method) })
}
