//! Brings one number to what is wanted of it: ask Twilio, judge, tell Vapi if calls go there, tell Twilio, read back.
//!
//! Before anything is written it is noted, so that whoever comes after a crash knows it for ours.

mod at_vapi;

use std::time::Duration;

use serde_json::json;
use shared::{AssistantId, NumberId};
use sqlx::Connection as _;

use super::{Bases, Verdict};
use crate::App;
use crate::config;
use crate::providers::twilio::numbers::{Numbers, NumbersError, OwnedNumber, VoiceSettings};
use crate::providers::vapi::phone_numbers::PhoneNumbersError;
use crate::store::events::{self, Actor, NewEvent};
use crate::store::pointings::{self, Noted, Place, Pointing, PointingState, Setback, Task};
use crate::store::{StoreError, rollouts};

/// The event of a number that was pointed elsewhere.
const POINTED: &str = "number.pointed";
/// The event of a number that was left as somebody else has set it.
const CONFLICT: &str = "number.pointing_conflict";
/// The event of a number that Twilio or Vapi refuse.
const FAILED: &str = "number.pointing_failed";

/// The first pause before another attempt; it doubles from one to the next.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_mins(10);

/// What one attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is as wanted.
    Settled,
    /// Somebody else has changed the settings.
    Conflict,
    /// Refused for good.
    Failed,
    /// Tried again later.
    Retried,
    /// Nothing should be asked for so long.
    RateLimited(Option<Duration>),
}

impl Outcome {
    /// The word in metrics.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::Conflict => "conflict",
            Self::Failed => "failed",
            Self::Retried => "retried",
            Self::RateLimited(_) => "rate_limited",
        }
    }
}

/// Why an attempt came to nothing.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Twilio(#[from] NumbersError),
    #[error(transparent)]
    Vapi(#[from] PhoneNumbersError),
    #[error("Twilio's settings of the number were changed by somebody else and are left as they are")]
    Conflict,
    #[error("the number is not in the Twilio account")]
    NotInAccount,
    #[error("the number is at Vapi, but not as one of Twilio's")]
    NotTwilios,
    #[error("Twilio took the settings, but shows others")]
    NotTaken,
    #[error("the agent has no assistant at Vapi")]
    NoAssistant,
    #[error("the origin has no access to {0}")]
    NotConfigured(&'static str),
}

impl From<sqlx::Error> for Trouble {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Trouble {
    /// A stable word, part of the API.
    const fn code(&self) -> &'static str {
        match self {
            Self::Store(_) => "database",
            Self::Twilio(NumbersError::Unreachable(_)) => "twilio_unreachable",
            Self::Twilio(NumbersError::RateLimited { .. }) => "twilio_rate_limited",
            Self::Twilio(NumbersError::Refused { .. }) => "twilio_refused",
            Self::Twilio(NumbersError::Unreadable(_)) | Self::NotTaken => "twilio_answer",
            Self::Vapi(PhoneNumbersError::Unreachable(_)) => "vapi_unreachable",
            Self::Vapi(PhoneNumbersError::RateLimited { .. }) => "vapi_rate_limited",
            Self::Vapi(PhoneNumbersError::Refused { .. }) => "vapi_refused",
            Self::Vapi(PhoneNumbersError::Unreadable) => "vapi_answer",
            Self::Conflict => "conflict",
            Self::NotInAccount => "not_in_twilio_account",
            Self::NotTwilios => "not_twilios_at_vapi",
            Self::NoAssistant => "no_vapi_assistant",
            Self::NotConfigured(_) => "not_configured",
        }
    }

    /// How long, if Twilio or Vapi said.
    const fn asks_to_wait(&self) -> Option<Duration> {
        match self {
            Self::Twilio(NumbersError::RateLimited { retry_after } | NumbersError::Refused { retry_after, .. })
            | Self::Vapi(
                PhoneNumbersError::RateLimited { retry_after } | PhoneNumbersError::Refused { retry_after, .. },
            ) => *retry_after,
            _ => None,
        }
    }

    fn outcome(&self) -> Outcome {
        // Credentials and what a service lacks are mended without touching the number, so they are tried again.
        let passes = |status: u16| status >= 500 || matches!(status, 401 | 403 | 408);
        match self {
            Self::Twilio(NumbersError::RateLimited { retry_after }) => Outcome::RateLimited(*retry_after),
            Self::Twilio(NumbersError::Refused { status, .. }) if !passes(*status) => Outcome::Failed,
            Self::Vapi(PhoneNumbersError::Refused { status, .. }) if !passes(*status) => Outcome::Failed,
            Self::NotInAccount | Self::NotTwilios | Self::NoAssistant => Outcome::Failed,
            Self::Conflict => Outcome::Conflict,
            _ => Outcome::Retried,
        }
    }
}

/// Makes one attempt for a claimed number, and notes what came of it.
pub(super) async fn attempt(app: &App, bases: &Bases, number: NumberId) -> Result<Outcome, StoreError> {
    let Some(task) = pointings::task(&mut *app.db.acquire().await?, number).await? else {
        // The number is gone, and with it what was wanted of it.
        return Ok(Outcome::Settled);
    };
    let done = Worker { app, bases, task: &task }.point().await;
    let mut conn = app.db.acquire().await?;
    let request = task.pointing.request;
    let outcome = match done {
        Ok(()) => {
            pointings::settle(&mut conn, number, request).await?;
            Outcome::Settled
        }
        // The claim runs out, and it is tried again.
        Err(Trouble::Store(error)) => return Err(error),
        Err(trouble) => {
            let outcome = trouble.outcome();
            set_back(&mut conn, &task, &trouble, outcome).await?;
            outcome
        }
    };
    pointings::unclaim(&mut conn, number).await?;
    Ok(outcome)
}

async fn set_back(
    conn: &mut sqlx::PgConnection,
    task: &Task,
    trouble: &Trouble,
    outcome: Outcome,
) -> Result<(), StoreError> {
    let (state, kind) = match outcome {
        Outcome::Conflict => (PointingState::Conflict, Some(CONFLICT)),
        Outcome::Failed => (PointingState::Failed, Some(FAILED)),
        _ => (PointingState::Pending, None),
    };
    let text = trouble.to_string();
    let (number_id, code, error) = (task.pointing.number_id, trouble.code(), text.as_str());
    tracing::warn!(%number_id, code, error, state = state.as_str(), "A number is not pointed where it belongs");
    let wait = trouble.asks_to_wait().unwrap_or_else(|| pause(task.pointing.attempts));
    let setback = Setback { state, wait_seconds: wait.as_secs_f64(), code, error };
    let mut tx = conn.begin().await?;
    pointings::set_back(&mut tx, number_id, task.pointing.request, &setback).await?;
    if let Some(kind) = kind {
        let event = NewEvent {
            agent_id: task.agent_id,
            number_id: Some(number_id),
            before: Some(json!({ "state": task.pointing.state })),
            after: Some(json!({ "state": state })),
            details: json!({ "code": code, "error": error, "place": task.pointing.place }),
            ..NewEvent::new(task.project_id, kind, &Actor::Origin)
        };
        let alike = format!("{number_id} {}", task.pointing.request);
        events::append_once(&mut tx, &event, &alike).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// The pause after so many failed attempts before this one.
fn pause(attempts: i32) -> Duration {
    let doubled = u32::try_from(attempts.clamp(0, 16)).unwrap_or(0);
    (FIRST_PAUSE * 2_u32.pow(doubled)).min(LONGEST_PAUSE)
}

/// A number in the course of an attempt.
struct Now {
    /// As Twilio has it.
    owned: OwnedNumber,
    /// The settings that calls reach Vapi with.
    remembered: Option<VoiceSettings>,
    /// Vapi may have changed the settings.
    vapi_saved: bool,
}

struct Worker<'a> {
    app: &'a App,
    bases: &'a Bases,
    task: &'a Task,
}

impl Worker<'_> {
    async fn point(&self) -> Result<(), Trouble> {
        let twilio = self.app.config.twilio.as_ref().ok_or(Trouble::NotConfigured("Twilio"))?;
        let Task { pointing, assistant, vapi_phone_number_id, .. } = self.task;
        let mut now = Now {
            owned: self.find(twilio).await?,
            remembered: pointing.remembered.clone(),
            vapi_saved: pointing.vapi_saved,
        };
        let found = Some(&now.owned.settings).filter(|found| **found != self.bases.edge);
        let mut conn = self.app.db.acquire().await?;
        let is_untouched = rollouts::numbers::note_found(&mut conn, pointing.number_id, found).await?;
        drop(conn);
        if is_untouched && pointing.place == Place::Vapi {
            let found = std::slice::from_ref(&now.owned.settings);
            return self.note(&now, found, pointing.assistant.as_ref(), false).await;
        }
        self.catch_up(&now).await?;
        let mut verdict = self.judge(&mut now).await?;
        let goes_to_vapi = pointing.place == Place::Vapi;
        // Where calls have been before they can go again at once, and Vapi is asked afterwards whether all is as it was.
        let has_been_there = now.remembered.is_some() && vapi_phone_number_id.is_some();
        if goes_to_vapi && !has_been_there {
            self.tell_vapi(twilio, &mut now).await?;
            verdict = self.judge(&mut now).await?;
        }
        self.write(twilio, &mut now, verdict).await?;
        if goes_to_vapi
            && has_been_there
            && pointing.assistant != *assistant
            && self.tell_vapi(twilio, &mut now).await?
        {
            let verdict = self.judge(&mut now).await?;
            self.write(twilio, &mut now, verdict).await?;
        }
        let answering = if goes_to_vapi { assistant } else { &pointing.assistant };
        self.note(&now, std::slice::from_ref(&now.owned.settings), answering.as_ref(), false).await
    }

    /// What is to be done about the number as it is now. A conflict is noted and ends the attempt.
    async fn judge(&self, now: &mut Now) -> Result<Verdict, Trouble> {
        let Task { pointing, .. } = self.task;
        let pointing = Pointing { remembered: now.remembered.clone(), vapi_saved: now.vapi_saved, ..pointing.clone() };
        let (verdict, remembered) = self.bases.judge(&pointing, &now.owned.settings);
        now.remembered = remembered;
        if verdict == Verdict::Conflict {
            let ours = pointing.ours.unwrap_or_default();
            self.note(now, &ours, pointing.assistant.as_ref(), now.vapi_saved).await?;
            return Err(Trouble::Conflict);
        }
        Ok(verdict)
    }

    async fn write(&self, twilio: &config::Twilio, now: &mut Now, verdict: Verdict) -> Result<(), Trouble> {
        let Verdict::Write(target) = verdict else { return Ok(()) };
        let before = now.owned.settings.clone();
        self.note(now, &self.ours(now, Some(&target)), self.task.pointing.assistant.as_ref(), now.vapi_saved).await?;
        let account = now.owned.account.clone();
        let numbers = Numbers { http: &self.app.http, config: twilio, account: &account };
        now.owned = numbers.update(&now.owned.sid, &target).await?;
        if now.owned.settings != target {
            return Err(Trouble::NotTaken);
        }
        self.log(&before, now).await
    }

    /// An attempt that got no answer from Twilio, or died of it, may have changed the settings all the same. That is logged
    /// by whoever finds it.
    async fn catch_up(&self, now: &Now) -> Result<(), Trouble> {
        let Pointing { found, ours, .. } = &self.task.pointing;
        let settings = &now.owned.settings;
        let is_ours = ours.as_ref().is_some_and(|ours| ours.contains(settings));
        match found {
            Some(before) if before != settings && is_ours => self.log(before, now).await,
            _ => Ok(()),
        }
    }

    /// What Twilio may be found with from now on: what it says, what it is about to be told, and what an earlier
    /// request, whose answer never came, may have told it.
    fn ours(&self, now: &Now, target: Option<&VoiceSettings>) -> Vec<VoiceSettings> {
        let earlier = self.task.pointing.ours.clone().unwrap_or_default();
        let mut ours: Vec<VoiceSettings> = Vec::new();
        for settings in [&now.owned.settings].into_iter().chain(target).chain(&earlier) {
            if !ours.contains(settings) {
                ours.push(settings.clone());
            }
        }
        ours
    }

    /// The number as Twilio has it now. Its names there are looked up once.
    async fn find(&self, twilio: &config::Twilio) -> Result<OwnedNumber, Trouble> {
        if let Some((account, sid)) = &self.task.pointing.at_twilio
            && let Some(owned) = (Numbers { http: &self.app.http, config: twilio, account }).fetch(sid).await?
        {
            return Ok(owned);
        }
        for account in twilio.accounts() {
            let numbers = Numbers { http: &self.app.http, config: twilio, account: &account };
            if let Some(owned) = numbers.find(&self.task.number).await? {
                return Ok(owned);
            }
        }
        Err(Trouble::NotInAccount)
    }

    async fn note(
        &self,
        now: &Now,
        ours: &[VoiceSettings],
        assistant: Option<&AssistantId>,
        vapi_saved: bool,
    ) -> Result<(), Trouble> {
        let noted = noted(now, ours, assistant, vapi_saved);
        pointings::note(&mut *self.app.db.acquire().await?, self.task.pointing.number_id, &noted).await?;
        Ok(())
    }

    /// Logs a change at Twilio together with the note of it, so that it is logged once.
    async fn log(&self, before: &VoiceSettings, now: &Now) -> Result<(), Trouble> {
        let pointing = &self.task.pointing;
        let event = NewEvent {
            agent_id: self.task.agent_id,
            number_id: Some(pointing.number_id),
            before: Some(json!(before)),
            after: Some(json!(now.owned.settings)),
            details: json!({ "place": pointing.place }),
            ..NewEvent::new(self.task.project_id, POINTED, &Actor::Origin)
        };
        let mut conn = self.app.db.acquire().await?;
        let mut tx = conn.begin().await?;
        events::append(&mut tx, &event).await?;
        let ours = self.ours(now, None);
        let noted = noted(now, &ours, pointing.assistant.as_ref(), now.vapi_saved);
        pointings::note(&mut tx, pointing.number_id, &noted).await?;
        tx.commit().await?;
        Ok(())
    }
}

fn noted<'a>(
    Now { owned, remembered, .. }: &'a Now,
    ours: &'a [VoiceSettings],
    assistant: Option<&'a AssistantId>,
    vapi_saved: bool,
) -> Noted<'a> {
    Noted {
        account: &owned.account,
        sid: &owned.sid,
        found: &owned.settings,
        ours,
        remembered: remembered.as_ref(),
        assistant,
        vapi_saved,
    }
}
