//! Runs a call: fetches documents, executes their verbs in order and in real time, and obeys
//! whatever interrupts (a hang-up, a REST update, the call's time limit).

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::call::{Call, CallStatus, Command, NewDocument, param};
use super::callee::{Callee, Outcome};
use super::exchange::lock;
use super::line::Air;
use super::sid::CallSid;
use super::signature::Param;
use super::trace::{EndReason, Purpose, What};
use super::twiml::{Action, Dial, Document, Stream, Verb};
use super::webhook::{Answer, Failure, resolve};
use super::{stream, trace};

/// What the caller hears when nothing helps; the exact words are Twilio's secret.
const APPLICATION_ERROR: &str = "We are sorry, an application error has occurred. Goodbye.";
/// Documents in one call before the simulator takes it for an endless loop.
const DOCUMENT_LIMIT: u32 = 200;
/// A `<Play>` of a sound, which is not voiced, takes this long.
const PLAY_MS: u64 = 1000;
/// A key takes this long; Twilio documents the waiting between keys only (`w` and `W`).
const KEY_MS: u64 = 200;

/// What a call does next.
#[derive(Debug)]
pub(crate) enum Step {
    /// An outbound call rings at the other end.
    Ring(Callee, Box<Step>),
    Fetch {
        purpose: Purpose,
        action: Action,
        extra: Vec<Param>,
    },
    Run {
        document: Document,
        url: Option<String>,
    },
}

enum Next {
    Step(Step),
    End(EndReason, CallStatus),
}

/// Runs a call to its end. `limit_ms` is its longest duration.
pub(crate) async fn run(call: Arc<Call>, first: Step, mut commands: mpsc::Receiver<Command>, limit_ms: u64) {
    let mut executor = Executor { call: call.clone(), stream: None, action: None, documents: 0 };
    let mut step = first;
    let (reason, status) = loop {
        let command = tokio::select! {
            biased;
            Some(command) = commands.recv() => command,
            () = call.clock.until_us(limit_ms * 1000) => Command::End(EndReason::TimeLimit),
            next = executor.step(step) => match next {
                Next::End(reason, status) => break (reason, status),
                Next::Step(next) => {
                    step = next;
                    continue;
                }
            },
        };
        executor.leave_verb().await;
        match command {
            Command::End(reason) if call.is_answered() => break (reason, CallStatus::Completed),
            Command::End(reason) => break (reason, CallStatus::Canceled),
            Command::Replace(document) => {
                // What the old document had in mind for afterwards is forgotten with it.
                executor.action = None;
                step = match document {
                    NewDocument::At(action) => Step::Fetch { purpose: Purpose::Update, action, extra: Vec::new() },
                    NewDocument::Inline(document) => Step::Run { document, url: None },
                };
            }
        }
    };
    call.finish(reason, status, executor.action).await;
}

struct Executor {
    call: Arc<Call>,
    /// The live stream, and what ends it.
    stream: Option<(CancellationToken, JoinHandle<()>)>,
    /// The `action` of the verb that is running.
    action: Option<Action>,
    documents: u32,
}

impl Executor {
    async fn step(&mut self, step: Step) -> Next {
        match step {
            Step::Ring(callee, then) => self.ring(callee, *then).await,
            Step::Run { document, url } => self.document(document, url.as_deref()).await,
            Step::Fetch { purpose, action, extra } => {
                let mut params = self.call.params();
                params.extend(extra);
                let read = match self.call.request(purpose, &action, &params).await {
                    Ok(answer) => read(answer),
                    Err(failure) => Err(failure),
                };
                self.documents += 1;
                match read {
                    Ok(_) if self.documents > DOCUMENT_LIMIT => {
                        let endless = Failure::new(0, format!("{DOCUMENT_LIMIT} documents: an endless loop"));
                        self.failed(Purpose::Fallback, &endless, &action.url).await
                    }
                    Ok(document) => Next::Step(Step::Run { document, url: Some(action.url) }),
                    Err(failure) => self.failed(purpose, &failure, &action.url).await,
                }
            }
        }
    }

    /// A document could not be had: the fallback URL is next, or the end.
    async fn failed(&mut self, purpose: Purpose, failure: &Failure, url: &str) -> Next {
        self.call.notify(failure, url);
        let fallback = self.call.callbacks.fallback.clone().filter(|_| purpose != Purpose::Fallback);
        if let Some(action) = fallback {
            let extra = vec![param("ErrorCode", failure.code.to_string()), param("ErrorUrl", url)];
            return Next::Step(Step::Fetch { purpose: Purpose::Fallback, action, extra });
        }
        self.call.answer();
        self.say(APPLICATION_ERROR, Some(1)).await;
        Next::End(EndReason::ApplicationError, CallStatus::Completed)
    }

    async fn document(&mut self, document: Document, url: Option<&str>) -> Next {
        for (code, text) in document.warnings {
            self.call.notify(&Failure::new(code, text), url.unwrap_or_default());
        }
        for verb in document.verbs {
            let name = verb.name().to_owned();
            self.call.note(What::Verb { name: name.clone(), detail: verb.detail() });
            lock(&self.call.state).verbs.push(name);
            if let Some(next) = self.verb(verb, url).await {
                return next;
            }
        }
        self.call.answer();
        Next::End(EndReason::EndOfDocument, CallStatus::Completed)
    }

    /// Executes one verb; `None` goes on with the one after it.
    async fn verb(&mut self, verb: Verb, url: Option<&str>) -> Option<Next> {
        // Before the call is answered, these leave it ringing.
        let keeps_ringing = match &verb {
            Verb::Reject { .. } | Verb::Redirect(_) | Verb::Pause { .. } | Verb::Unsimulated { .. } => true,
            Verb::Dial(dial) => dial.answer_on_bridge,
            _ => false,
        };
        if !keeps_ringing {
            self.call.answer();
        }
        match verb {
            Verb::Reject { busy } if !self.call.is_answered() => {
                let status = if busy { CallStatus::Busy } else { CallStatus::NoAnswer };
                return Some(Next::End(EndReason::Rejected, status));
            }
            Verb::Reject { .. } | Verb::Hangup => {
                return Some(Next::End(EndReason::HungUp, CallStatus::Completed));
            }
            Verb::Say { text, times } => self.say(&text, times).await,
            Verb::Play { digits: Some(digits), .. } => self.press(digits).await,
            Verb::Play { .. } => self.occupy(Air::Tone, PLAY_MS).await,
            Verb::Pause { seconds } => self.occupy(Air::Pause, seconds * 1000).await,
            Verb::Redirect(action) => {
                return Some(self.go_to(Purpose::Redirect, &action, url, Vec::new()).await);
            }
            Verb::Connect { action, stream } => {
                self.action = absolute(action.as_ref(), url);
                if let Some(stream) = stream {
                    self.stream(stream).await;
                }
                self.action = None;
                if let Some(action) = action {
                    return Some(self.go_to(Purpose::Action, &action, url, Vec::new()).await);
                }
            }
            Verb::Dial(dial) => {
                self.action = absolute(dial.action.as_ref(), url);
                let extra = self.dial(&dial).await;
                self.action = None;
                if let Some(action) = &dial.action {
                    return Some(self.go_to(Purpose::Action, action, url, extra).await);
                }
            }
            Verb::Unsimulated { name } => {
                self.call.notify(&Failure::new(0, format!("<{name}> is not simulated")), url.unwrap_or_default());
            }
        }
        None
    }

    async fn go_to(&mut self, purpose: Purpose, action: &Action, base: Option<&str>, extra: Vec<Param>) -> Next {
        if let Some(action) = absolute(Some(action), base) {
            return Next::Step(Step::Fetch { purpose, action, extra });
        }
        let failure = Failure::new(11100, format!("no absolute URL: {}", action.url));
        self.failed(purpose, &failure, base.unwrap_or_default()).await
    }

    /// Has something on the air for so long. An interruption clears it in [`Self::leave_verb`].
    async fn occupy(&mut self, air: Air, ms: u64) {
        lock(&self.call.line).air = air;
        self.call.clock.sleep_ms(ms).await;
        lock(&self.call.line).air = Air::Nothing;
    }

    /// Presses keys towards the caller, who hears their tones.
    async fn press(&mut self, digits: String) {
        self.call.note(What::Pressed { digits: digits.clone() });
        for key in digits.chars() {
            match key {
                'w' => self.occupy(Air::Pause, 500).await,
                'W' => self.occupy(Air::Pause, 1000).await,
                _ => self.occupy(Air::Tone, KEY_MS).await,
            }
        }
    }

    async fn say(&mut self, text: &str, times: Option<u32>) {
        let options = &self.call.exchange.options;
        let characters = u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
        let ms = characters.saturating_mul(options.say_ms_per_character).min(options.say_limit_ms);
        let mut left = times;
        while left != Some(0) {
            lock(&self.call.state).said.push(text.to_owned());
            self.occupy(Air::Tone, ms.max(1)).await;
            left = left.map(|left| left - 1);
        }
    }

    async fn stream(&mut self, stream: Stream) {
        let stop = self.call.exchange.stopped.child_token();
        let task = tokio::spawn(stream::run(self.call.clone(), stream, stop.clone()));
        let (_, task) = self.stream.insert((stop, task));
        // A panic in it has been printed; for the call it is a broken stream.
        let _ = task.await;
        self.stream = None;
    }

    /// Ends what an interruption found running.
    async fn leave_verb(&mut self) {
        if let Some((stop, task)) = self.stream.take() {
            stop.cancel();
            let _ = task.await;
        }
        lock(&self.call.line).air = Air::Nothing;
    }

    /// An outbound call: nothing is fetched before somebody answers.
    async fn ring(&mut self, callee: Callee, then: Step) -> Next {
        lock(&self.call.state).status = CallStatus::Initiated;
        self.call.progress("initiated");
        if matches!(callee.outcome, Outcome::Unreachable) {
            return Next::End(EndReason::Unanswered, CallStatus::Failed);
        }
        lock(&self.call.state).status = CallStatus::Ringing;
        self.call.progress("ringing");
        self.call.clock.sleep_ms(callee.ring_ms).await;
        match callee.outcome {
            Outcome::Answers { .. } => {
                self.call.answer();
                Next::Step(then)
            }
            Outcome::Busy => Next::End(EndReason::Unanswered, CallStatus::Busy),
            Outcome::NoAnswer | Outcome::Unreachable => Next::End(EndReason::Unanswered, CallStatus::NoAnswer),
        }
    }

    /// Whose number a dialled party may be shown: the caller's, or one of the account's.
    fn may_show(&self, caller_id: &str) -> bool {
        caller_id == self.call.from || lock(&self.call.exchange.numbers).contains_key(caller_id)
    }

    /// Dials, rings and talks; the result is the parameters of the `action` request.
    async fn dial(&mut self, dial: &Dial) -> Vec<Param> {
        if let Some(caller_id) = dial.caller_id.as_ref().filter(|id| !self.may_show(id)) {
            self.call.notify(&Failure::new(13214, format!("invalid callerId {caller_id}")), "");
            return vec![param("DialCallStatus", "failed"), param("DialBridged", "false")];
        }
        let callees: Vec<(&String, Callee)> =
            dial.targets.iter().map(|target| (target, self.call.exchange.callee(target))).collect();
        let answering = callees
            .iter()
            .filter_map(|(target, callee)| match callee.outcome {
                Outcome::Answers { for_ms } if callee.ring_ms < dial.timeout_ms => {
                    Some((callee.ring_ms, for_ms, target))
                }
                _ => None,
            })
            .min();
        let mut duration_ms = 0;
        let status = if let Some((ring_ms, for_ms, _)) = answering {
            self.occupy(Air::Tone, ring_ms).await;
            self.call.answer();
            if let Some(digits) = &dial.send_digits {
                self.call.note(What::Pressed { digits: digits.clone() });
            }
            duration_ms = for_ms.min(dial.time_limit_ms);
            self.occupy(Air::Tone, duration_ms).await;
            "completed"
        } else if let Some((_, busy)) = callees.iter().find(|(_, callee)| matches!(callee.outcome, Outcome::Busy)) {
            self.occupy(Air::Tone, busy.ring_ms.min(dial.timeout_ms)).await;
            "busy"
        } else if callees.iter().all(|(_, callee)| matches!(callee.outcome, Outcome::Unreachable)) {
            "failed"
        } else {
            self.occupy(Air::Tone, dial.timeout_ms).await;
            "no-answer"
        };
        let number = answering.map_or_else(|| dial.targets.join(", "), |(_, _, target)| (*target).clone());
        self.call.note(trace::What::Dialled { number, status: status.to_owned() });
        let mut params = vec![
            param("DialCallStatus", status),
            param("DialCallSid", CallSid::random().as_str()),
            param("DialBridged", if answering.is_some() { "true" } else { "false" }),
        ];
        if answering.is_some() {
            params.push(param("DialCallDuration", duration_ms.div_ceil(1000).to_string()));
        }
        params
    }
}

fn absolute(action: Option<&Action>, base: Option<&str>) -> Option<Action> {
    let action = action?;
    Some(Action { url: resolve(base, &action.url)?, method: action.method })
}

/// Makes a document of an answer.
fn read(answer: Answer) -> Result<Document, Failure> {
    let Some(content_type) = answer.content_type else {
        return Err(Failure::new(11200, "the answer has no content type: 502 Bad Gateway"));
    };
    let body = || String::from_utf8(answer.body).map_err(|_| Failure::new(12100, "the document is not UTF-8"));
    match content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "text/xml" | "application/xml" => {
            Document::parse(&body()?).map_err(|error| Failure::new(12100, format!("document parse failure: {error}")))
        }
        "text/plain" => Ok(Document::saying(body()?.trim())),
        _ => Err(Failure::new(12300, format!("invalid content type {content_type}"))),
    }
}
