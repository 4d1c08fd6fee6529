//! From an accepted socket to a running call: who may come in, for which agent, and what is kept of it.
//!
//! Nothing is opened towards OpenAI before the token is good. A stream that is not let in is closed with the call
//! alive: Twilio then asks `/twilio/resume`, which decides afresh.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use sha2::{Digest as _, Sha256};
use shared::stream_token::{self, StreamGrant, TokenError};
use shared::{CallId, CallSid, SystemType};
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::beginning::{Beginning, First};
use super::call::{Action, Call, EndReason, Rules, Setup};
use super::openai::FunctionCall;
use super::pump::{self, CallerSocket, Effects, Opening, ToolDone};
use super::record::CallRecord;
use super::session;
use super::sessions::{Occasion, Opener, Terms, Unavailable};
use super::twilio::{Event, Start};
use crate::App;
use crate::answering::{AT_CAPACITY, unix_now};
use crate::calls::{Entry, ToolRun};
use crate::end_reason::Ending;
use crate::live_calls::LiveStream;
use crate::recording::Tap;
use crate::steps::{self, Next, Plan, Step};
use crate::store::agents::Agent;
use crate::store::calls::{CallStatus, NewCall};
use crate::store::transcript_items;
use crate::store::{self, StoreError};
use crate::telemetry::OutcomeLabels;
use crate::tools::CallFacts;
use crate::tools::in_call::{Begun, CallTools};
use crate::usage::Usage;

/// A stream that does not start within this time is closed.
const START_LIMIT: Duration = Duration::from_secs(5);
/// How long a stream may wait for the database, which may hang without a word. Then the call is better held by Twilio.
const ADMIT_LIMIT: Duration = Duration::from_secs(4);
/// How long a stream that ends waits until what it told is written. The caller hears nothing meanwhile.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);
/// How long the next one waits for that: just after an outage the writer may have the pool's two seconds of waiting for a
/// connection still to go.
const CATCH_UP_LIMIT: Duration = Duration::from_millis(2500);
/// The same for the note that the call has to go elsewhere.
const NOTE_LIMIT: Duration = Duration::from_secs(1);

/// Why a stream is not let in.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the origin is stopping")]
    Stopping,
    #[error("the stream did not start in time")]
    NoStart,
    #[error("the database did not answer in time")]
    Late,
    #[error("the stream is not mu-law at 8 kHz")]
    Format,
    #[error("the stream has no valid call or stream id")]
    Ids,
    #[error("the stream has no token")]
    NoToken,
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("the stream token was used before")]
    TokenUsed,
    #[error("the agent is gone")]
    NoAgent,
    #[error("the agent is not on openai-realtime")]
    OtherSystem,
    #[error("as many calls are live as MAX_LIVE_CALLS allows")]
    AtCapacity,
    #[error("the call is over or belongs to another system")]
    NotOurs,
    #[error("the agent or the origin is not configured for OpenAI Realtime")]
    NotConfigured,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for Refused {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Serves one socket from its first message to its end.
///
/// What is done before the call and after it takes more memory than the call, which lasts; so it has its own for as long
/// as it takes.
pub async fn serve(app: Arc<App>, mut socket: CallerSocket) {
    let admitted = match Box::pin(admitted(&app, &mut socket)).await {
        Ok(admitted) => admitted,
        Err(refused) => {
            app.metrics.streams_refused.inc();
            tracing::warn!(error = &refused as &dyn std::error::Error, "media stream refused");
            let _ = timeout(Duration::from_secs(1), socket.send(Message::Close(None))).await;
            return;
        }
    };
    let Admitted { setup, mut effects, live } = *admitted;
    let (call_sid, agent_id) = (effects.record.call_sid.clone(), effects.agent.id);
    tracing::info!(%call_sid, %agent_id, system = "openai-realtime", "media stream started");
    app.metrics.live_calls.inc();
    let told = app.endings.enter(call_sid.clone());
    let (leave, over) = (app.departure.clone().announced(), told.over.clone());
    let ended = Box::pin(pump::run(socket, Box::new(Call::new(setup, 0)), leave, over, &mut effects)).await;
    let reason = ended.reason;
    Box::pin(conclude(&app, effects, reason)).await;
    ended.close().await;
    app.metrics.live_calls.dec();
    drop((live, told));
    tracing::info!(%call_sid, %agent_id, reason = reason.as_str(), "media stream ended");
}

async fn admitted(app: &Arc<App>, socket: &mut CallerSocket) -> Result<Box<Admitted>, Refused> {
    if app.shutdown.is_cancelled() {
        return Err(Refused::Stopping);
    }
    let start = started(socket).await?;
    timeout(ADMIT_LIMIT, admit(app, &start)).await.unwrap_or(Err(Refused::Late)).map(Box::new)
}

/// Notes what Twilio, and whoever takes the call up, must know when the stream is over.
async fn conclude(app: &App, mut effects: CallEffects, reason: EndReason) {
    effects.plan(reason).await;
    let call = effects.record.call_id;
    if let EndReason::ModelUnavailable(why) = reason {
        must_leave(app, call, why).await;
    }
    if reason.ends_call() {
        app.recorder.record(call, Entry::Ended(Ending::of_bridge(reason.as_str())));
    } else {
        // Whoever takes the call up replays what is written.
        let _ = timeout(FLUSH_LIMIT, app.recorder.flush()).await;
    }
}

/// Notes that a call has to go elsewhere, before Twilio asks how it goes on. While the database is away that is not
/// known; then another stream tries again.
async fn must_leave(app: &App, call: CallId, why: Unavailable) {
    let noted = async { store::calls::must_leave(&mut *app.db.acquire().await?, call, why.as_str()).await };
    match timeout(NOTE_LIMIT, noted).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(error = &error as &dyn std::error::Error, "a call's fate is not noted"),
        Err(_) => tracing::error!("a call's fate is not noted in time"),
    }
}

/// Waits for the stream's `start`.
async fn started(socket: &mut CallerSocket) -> Result<Start, Refused> {
    let start = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Text(text))) => match Event::parse(&text) {
                    Ok(Event::Start(start)) => return Some(start),
                    Ok(Event::Connected | Event::Other) => {}
                    Ok(_) | Err(_) => return None,
                },
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                _ => return None,
            }
        }
    };
    timeout(START_LIMIT, start).await.ok().flatten().ok_or(Refused::NoStart)
}

struct Admitted {
    setup: Setup,
    effects: CallEffects,
    live: LiveStream,
}

async fn admit(app: &Arc<App>, start: &Start) -> Result<Admitted, Refused> {
    if !start.is_mulaw() {
        return Err(Refused::Format);
    }
    let stream_sid = start.stream_sid().ok_or(Refused::Ids)?;
    let call_sid: CallSid = start.call_sid.parse().map_err(|_| Refused::Ids)?;
    let token = start.custom_parameters.get("token").ok_or(Refused::NoToken)?;
    let now = unix_now();
    let secret = &app.config.edge_origin_secret;
    let grant = secret.verify(|secret| stream_token::verify(secret, now, token, &call_sid))?;

    let openai = app.config.openai.as_ref().ok_or(Refused::NotConfigured)?;
    let mut conn = app.db.acquire().await?;
    let expires_at = i64::try_from(grant.expires_at).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    let used = Sha256::digest(token.as_bytes());
    if !store::stream_tokens::consume(&mut conn, &used, expires_at.ok_or(TokenError::Malformed)?).await? {
        return Err(Refused::TokenUsed);
    }
    let agent = store::agents::by_id(&mut conn, grant.agent_id).await?.ok_or(Refused::NoAgent)?;
    let tools = store::tools::of_agent(&mut conn, agent.id).await?;
    let mut call = pin(&mut conn, &agent, &grant).await?;
    let stream = store::calls::enter_stream(&mut conn, call.id).await?;
    if stream.number > 1 {
        // What the stream before has told is written, as long as the database keeps up. It is what is replayed.
        let _ = timeout(CATCH_UP_LIMIT, app.recorder.flush()).await;
        call = store::calls::by_call_sid(&mut conn, &call_sid).await?.ok_or(Refused::NotOurs)?;
    }
    // A conversation that goes on is never one too many.
    let limit = app.config.max_live_calls.filter(|_| stream.number == 1);
    let Some(live) = app.live.enter(call.id, limit) else {
        store::calls::must_leave(&mut conn, call.id, AT_CAPACITY).await?;
        return Err(Refused::AtCapacity);
    };
    let past = transcript_items::of_call(&mut conn, call.id).await?;
    let interruptions = store::call_facts::of_call(&mut conn, call.id).await?.interruptions;
    let interruptions = interruptions.and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
    drop(conn);
    let spent = call.answered_at.map_or(time::Duration::ZERO, |at| OffsetDateTime::now_utc() - at);
    let spent_ms = u64::try_from(spent.whole_milliseconds()).unwrap_or(0);

    let settings = agent.realtime.as_ref().ok_or(Refused::NotConfigured)?;
    let ask = session::first_ask(agent.greeting.as_deref(), &settings.call);
    let protection = session::protection(settings, ask.as_ref());
    let first = First { ask, is_protected: protection.is_some() };
    let beginning = Beginning::new(past, stream.number > 1, first);
    // Only what is said first can be protected.
    let protected = beginning.ask.as_ref().filter(|_| beginning.is_first);
    let terms = session::terms(&agent.instructions, settings, &tools, &openai.model, protected);
    let setup = Setup {
        stream_sid,
        opening: session::opening(&settings.call).collect(),
        protection: protection.filter(|_| beginning.is_first),
        first_ask: beginning.ask,
        first_after_ms: beginning.after_ms,
        interrupt_after_words: settings.call.interrupt_after_words.unwrap_or(0),
        keypad: settings.call.keypad.clone(),
        rules: Rules::new(&settings.call, app.config.max_call_seconds, app.config.silence_seconds, spent_ms),
        next_position: transcript_items::first_place(stream.number).unsigned_abs(),
        broke_off: beginning.broke_off,
        past: beginning.past,
    };
    let tools = CallTools::new(Arc::clone(app), agent.id, CallFacts::new(&call, &agent), tools);
    let record = CallRecord {
        call_id: call.id,
        call_sid,
        model: terms.model.clone(),
        transcription_model: settings.transcription.as_ref().map(|transcription| transcription.model.clone()),
        usage: Usage::kept(&call.usage),
        interruptions,
        recorder: app.recorder.clone(),
        metrics: Arc::clone(&app.metrics),
    };
    let is_recorded = settings.call.recording == Some(true);
    let tap = if is_recorded { app.recordings.begin(agent.project_id, call.id) } else { None };
    let effects =
        CallEffects { app: Arc::clone(app), agent, record, tap, tools, steps: stream.steps, next: None, terms };
    Ok(Admitted { setup, effects, live })
}

/// Records the call and pins it to this system. A call that began here goes on here, whatever its agent is on now; a
/// new one comes in only while the agent is on `openai-realtime`.
async fn pin(conn: &mut sqlx::PgConnection, agent: &Agent, grant: &StreamGrant) -> Result<store::calls::Call, Refused> {
    let now = OffsetDateTime::now_utc();
    let call = match store::calls::by_call_sid(conn, &grant.call_sid).await? {
        Some(call) => call,
        None if agent.system_type != SystemType::OpenaiRealtime => return Err(Refused::OtherSystem),
        None => {
            let new = NewCall {
                project_id: agent.project_id,
                agent_id: agent.id,
                number_id: None,
                call_sid: Some(&grant.call_sid),
                vapi_call_id: None,
                from: None,
                to: None,
                system_type: SystemType::OpenaiRealtime,
                started_at: now,
            };
            store::calls::begin(conn, &new).await?.0
        }
    };
    if call.system_type != SystemType::OpenaiRealtime || call.status == CallStatus::Ended {
        return Err(Refused::NotOurs);
    }
    store::calls::answered(conn, call.id, now).await?;
    Ok(call)
}

/// What a running call does besides speaking.
struct CallEffects {
    app: Arc<App>,
    agent: Agent,
    record: CallRecord,
    /// Hears the call, if it is recorded.
    tap: Option<Tap>,
    tools: CallTools,
    /// How many steps outside of its streams the call had made when this stream began.
    steps: i32,
    /// The one that this stream ends with.
    next: Option<Step>,
    /// What sessions are opened with.
    terms: Terms,
}

impl CallEffects {
    /// What comes after the stream, before Twilio can ask for it.
    async fn plan(&mut self, reason: EndReason) {
        let next = match self.next.take() {
            Some(step) => Next::Step(step),
            // Whoever told that it is over may be quicker than the database.
            None if reason.hangs_up() || reason == EndReason::CallOver => Next::HangUp,
            None => return,
        };
        let plan = Plan { call_id: self.record.call_id, agent_id: self.agent.id, no: self.steps + 1, next };
        steps::plan(&self.app, &self.record.call_sid, plan).await;
    }
}

impl Effects for CallEffects {
    fn run_tool(&mut self, call: FunctionCall, done: mpsc::Sender<Box<ToolDone>>) {
        let arguments = serde_json::from_str(&call.arguments).unwrap_or_else(|_| call.arguments.clone().into());
        let run = ToolRun::begin(&call.call_id, &call.name, arguments);
        let begun = self.tools.run(&call.name, &call.call_id, call.arguments);
        let (app, record) = (Arc::clone(&self.app), self.record.call_id);
        tokio::spawn(async move {
            let (outcome, command) = match begun {
                Begun::Running(output) => (output.await.map_err(|error| error.to_string()), None),
                Begun::Command(command) => (Ok(command.output().to_owned()), Some(command)),
            };
            app.recorder.record(record, Entry::Tool(run.end(&outcome)));
            let output = outcome.unwrap_or_else(|error| serde_json::json!({ "error": error }).to_string());
            // The caller may have hung up meanwhile.
            let _ = done.send(Box::new(ToolDone { call_id: call.call_id, output, command })).await;
        });
    }

    fn open_session(&mut self, occasion: Occasion) -> Opening {
        let (app, terms, since) = (Arc::clone(&self.app), self.terms.clone(), Instant::now());
        let prepared = match occasion {
            Occasion::Start => app.prepared.claim(&self.record.call_sid, &terms),
            Occasion::MidCall => None,
        };
        Box::pin(async move {
            let prepared = match prepared {
                Some(prepared) => prepared.await.ok(),
                None => None,
            };
            let opener = Opener { config: app.config.openai.as_ref(), terms: &terms };
            let session = match prepared {
                Some(session) => Ok(session),
                None => opener.open(occasion, since).await,
            };
            let outcome = session.as_ref().err().map_or("opened", |why| why.as_str());
            app.metrics.sessions.get_or_create(&OutcomeLabels { outcome }).inc();
            session
        })
    }

    fn note(&mut self, action: Action) {
        match action {
            Action::Step(step) => self.next = Some(step),
            noted => self.record.note(noted),
        }
    }

    fn twilio_said(&self, message: &Utf8Bytes) {
        if let Some(tap) = &self.tap {
            tap.twilio_said(message);
        }
    }

    fn twilio_told(&self, message: &str) {
        if let Some(tap) = &self.tap {
            tap.twilio_told(message);
        }
    }
}
