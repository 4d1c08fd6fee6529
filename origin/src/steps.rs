//! What a call does outside of its streams: it is put through to somebody, keys are pressed, or it ends.
//!
//! A bidirectional stream can do none of this. So the bridge plans a step and closes the stream; Twilio then asks
//! `/twilio/resume`, is told to do the step, and comes back with what came of it (`Back`). A transfer that nobody takes
//! returns the caller to the agent, which finds the outcome as the last line of the conversation.
//!
//! A step is kept in Postgres, so that any origin can answer, and in this process, so that it is done while Postgres is
//! away. The same question has the same answer; a step whose outcome is known is not done again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::stream_token::StreamGrant;
use shared::twilio::answer::{self, Back};
use shared::twilio::twiml::DialTarget;
use shared::twilio::webhook::{CallStatus, DialOutcome};
use shared::{AgentId, CallId, CallSid};
use time::OffsetDateTime;
use tokio::time::{Instant, timeout};

use crate::App;
use crate::answering::{Incoming, unix_now};
use crate::calls::Entry;
use crate::end_reason::EndReason;
use crate::store::call_steps::{self, CallStep};
use crate::store::tools::settings::Destination;
use crate::store::{self, StoreError};

/// How long a caller waits for a database that does not answer.
const STORE_LIMIT: Duration = Duration::from_secs(1);
/// How often a step is tried to be written while the database is away, five seconds apart.
const WRITE_ATTEMPTS: u32 = 60;
const WRITE_PAUSE: Duration = Duration::from_secs(5);
/// How long a step is remembered: Twilio ends a `<Dial>` after four hours.
const KEEP: Duration = Duration::from_hours(5);

/// A step outside of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum Step {
    /// The caller is put through to somebody.
    Transfer {
        /// To whom.
        destination: Destination,
    },
    /// Keys are pressed towards the other side.
    PressKeys {
        /// Digits, `*`, `#`, and `w` for half a second.
        keys: String,
    },
}

/// What comes after a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The call ends.
    HangUp,
    /// The call goes on elsewhere.
    Step(Step),
}

/// What a call of this process does next.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The call.
    pub call_id: CallId,
    /// Who answers it.
    pub agent_id: AgentId,
    /// The number of the step, if it is one.
    pub no: i32,
    /// What it does.
    pub next: Next,
}

/// The plans of this process.
#[derive(Clone, Debug, Default)]
pub struct Plans(Arc<Mutex<HashMap<CallSid, (Instant, Plan)>>>);

impl Plans {
    fn remember(&self, call_sid: CallSid, plan: Plan) {
        let mut plans = self.lock();
        plans.retain(|_, (since, _)| since.elapsed() < KEEP);
        plans.insert(call_sid, (Instant::now(), plan));
    }

    fn get(&self, call_sid: &CallSid) -> Option<Plan> {
        self.lock().get(call_sid).map(|(_, plan)| plan.clone())
    }

    /// The call goes on in a stream, or is over.
    pub fn forget(&self, call_sid: &CallSid) {
        self.lock().remove(call_sid);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CallSid, (Instant, Plan)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Plans what comes after a stream, before Twilio can ask.
pub async fn plan(app: &App, call_sid: &CallSid, plan: Plan) {
    app.plans.remember(call_sid.clone(), plan.clone());
    let Next::Step(step) = plan.next else { return };
    let db = app.db.clone();
    let write = async move || {
        let written = async { call_steps::plan(&mut *db.acquire().await?, plan.call_id, plan.no, &step).await };
        timeout(STORE_LIMIT, written).await.unwrap_or(Err(StoreError::Database(sqlx::Error::PoolTimedOut)))
    };
    if let Err(error) = write().await {
        tracing::warn!(error = &error as &dyn std::error::Error, %call_sid, "a step of a call is not written yet");
        tokio::spawn(async move {
            for _ in 0..WRITE_ATTEMPTS {
                tokio::time::sleep(WRITE_PAUSE).await;
                if write().await.is_ok() {
                    return;
                }
            }
        });
    }
}

/// Answers Twilio's question how a call goes on, if the bridge has planned it. `None`: it has not.
pub async fn answer(app: &App, incoming: &Incoming<'_>, back: Option<Back>) -> Result<Option<String>, StoreError> {
    let call_sid = &incoming.webhook.call_sid;
    let remembered = app.plans.get(call_sid);
    if let Some(Plan { next: Next::HangUp, .. }) = remembered {
        return Ok(Some(answer::hang_up()));
    }
    let no = back.and_then(|back| i32::try_from(back.step).ok());
    let known = async { call_steps::find(&mut *app.db.acquire().await?, call_sid, no).await };
    let known = timeout(STORE_LIMIT, known).await.unwrap_or(Err(StoreError::Database(sqlx::Error::PoolTimedOut)));
    let step = match (known, remembered) {
        // What is remembered and not written yet is newer than what is written.
        (Ok(Some(step)), Some(plan)) if plan.no > step.no && no.is_none() => of_memory(plan),
        (Ok(Some(step)), _) => Some(step),
        (Ok(None), Some(plan)) => of_memory(plan),
        (Ok(None), None) => None,
        (Err(error), Some(plan)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, %call_sid, "a step is done from memory");
            of_memory(plan)
        }
        (Err(error), None) => return Err(error),
    };
    match (step, back) {
        (Some(step), Some(back)) => came_back(app, incoming, &step, back.dialled).await.map(Some),
        (Some(step), None) if step.outcome.is_none() && !is_over(incoming) => Ok(Some(go(incoming, &step))),
        _ => Ok(None),
    }
}

fn of_memory(plan: Plan) -> Option<CallStep> {
    let Next::Step(step) = plan.next else { return None };
    let Plan { call_id, agent_id, no, .. } = plan;
    Some(CallStep { call_id, agent_id, resumes: 0, no, step, outcome: None })
}

fn is_over(incoming: &Incoming<'_>) -> bool {
    matches!(incoming.webhook.status, CallStatus::Over(_))
}

/// Has Twilio do the step.
fn go(incoming: &Incoming<'_>, step: &CallStep) -> String {
    let no = u32::try_from(step.no).unwrap_or_default();
    tracing::info!(call_sid = %incoming.webhook.call_sid, step = no, kind = kind(&step.step), "a step outside the stream");
    match &step.step {
        Step::Transfer { destination: Destination::Number { number, extension, caller_id, .. } } => {
            let target = DialTarget::Number { number: number.to_string(), send_digits: extension.clone() };
            answer::transfer(incoming.base, no, target, caller_id.as_ref().map(ToString::to_string))
        }
        Step::Transfer { destination: Destination::Sip { sip_uri, .. } } => {
            answer::transfer(incoming.base, no, DialTarget::Sip(sip_uri.clone()), None)
        }
        Step::PressKeys { keys } => answer::press(incoming.base, no, keys),
    }
}

const fn kind(step: &Step) -> &'static str {
    match step {
        Step::Transfer { .. } => "transfer",
        Step::PressKeys { .. } => "press_keys",
    }
}

/// The step is over: the call ends with a transfer that was taken, and returns to the agent with everything else.
async fn came_back(
    app: &App,
    incoming: &Incoming<'_>,
    step: &CallStep,
    dialled: Option<DialOutcome>,
) -> Result<String, StoreError> {
    let call_sid = &incoming.webhook.call_sid;
    let (outcome, told) = match &step.step {
        Step::Transfer { .. } if dialled == Some(DialOutcome::Answered) => ("answered", None),
        Step::Transfer { destination } => {
            let outcome = dialled.unwrap_or(DialOutcome::Failed);
            (outcome.as_str(), Some(not_taken(destination, outcome)))
        }
        Step::PressKeys { keys } => ("pressed", Some(format!("The keys {keys} were pressed."))),
    };
    tracing::info!(%call_sid, step = step.no, outcome, "back from a step outside the stream");
    let Some(told) = told else {
        let ended = timeout(STORE_LIMIT, end_with(app, step, outcome)).await;
        if !matches!(ended, Ok(Ok(()))) {
            // Nobody waits for a database only to hear that the call is over.
            tracing::warn!(%call_sid, "the end of a call that was transferred is not written yet");
            app.recorder.record(step.call_id, Entry::Ended(EndReason::Transferred.into()));
        }
        app.plans.forget(call_sid);
        return Ok(answer::hang_up());
    };
    let mut tx = app.db.begin().await?;
    if call_steps::finish(&mut tx, step.call_id, step.no, &step.step, outcome).await? && !is_over(incoming) {
        call_steps::tell(&mut tx, step.call_id, &told).await?;
    }
    tx.commit().await?;
    app.plans.forget(call_sid);
    if is_over(incoming) {
        return Ok(answer::nothing());
    }
    // A token is known by its second: each stream of a call has another one.
    let now = unix_now() + u64::try_from(step.resumes + step.no).unwrap_or(0);
    let grant = StreamGrant::new(call_sid.clone(), step.agent_id, now);
    let token = grant.mint(app.config.edge_origin_secret.signing());
    Ok(answer::bridge(app.config.media_url.as_str(), incoming.base, token))
}

/// The call has ended with this step.
async fn end_with(app: &App, step: &CallStep, outcome: &str) -> Result<(), StoreError> {
    let mut conn = app.db.acquire().await?;
    call_steps::finish(&mut conn, step.call_id, step.no, &step.step, outcome).await?;
    store::calls::end(&mut conn, step.call_id, OffsetDateTime::now_utc(), &EndReason::Transferred.into()).await?;
    Ok(())
}

fn not_taken(destination: &Destination, outcome: DialOutcome) -> String {
    let why = match outcome {
        DialOutcome::Busy => "the line was busy",
        DialOutcome::NoAnswer => "nobody answered",
        _ => "they could not be reached",
    };
    format!("The transfer to {} did not work: {why}. The caller is back on the line with you.", destination.address())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_survives_the_database() {
        for text in [
            r#"{"type":"transfer","destination":{"type":"number","number":"+15550100"}}"#,
            r#"{"type":"transfer","destination":{"type":"sip","sipUri":"sip:a@b.example"}}"#,
            r#"{"type":"pressKeys","keys":"1w2#"}"#,
        ] {
            let step: Step = serde_json::from_str(text).unwrap();
            let back = serde_json::to_value(&step).unwrap();
            assert_eq!(back, serde_json::from_str::<serde_json::Value>(text).unwrap());
        }
    }

    #[test]
    fn the_agent_is_told_who_was_not_there() {
        let destination: Destination = serde_json::from_str(r#"{"type":"number","number":"+15550100"}"#).unwrap();
        let told = not_taken(&destination, DialOutcome::NoAnswer);
        assert!(told.contains("+15550100") && told.contains("nobody answered"), "{told}");
    }
}
