//! How a phone call is answered: the decision, made from Postgres, carried out as TwiML.
//!
//! The same table as at the edge (`shared::decision`). A call is pinned to its system here, before anything is done
//! for it, so that whatever is repeated finds the pin. A call that the system of its pin cannot have goes [`elsewhere`].

mod elsewhere;
pub mod expected;

use std::time::Duration;

use shared::decision::{Rejection, VoiceDecision, decide_voice};
use shared::route::{Lookup, NumberRoute, VapiHandover};
use shared::stream_token::StreamGrant;
use shared::twilio::answer;
use shared::twilio::webhook::{CallStatus, CallWebhook};
use shared::{AgentId, CallSid, E164, SystemType};
use time::OffsetDateTime;
use tokio::time::timeout;

use crate::App;
use crate::end_reason::EndReason;
use crate::handover::{self, Handover, HandoverError, Wanted};
use crate::numbers::pointing;
use crate::providers::vapi::VapiError;
use crate::store::agents::Agent;
use crate::store::calls::{Call, NewCall, Resumption};
use crate::store::events::{Actor, NewEvent};
use crate::store::numbers::PhoneNumber;
use crate::store::{self, StoreError};

/// How often in a row a call that lost its stream at once is taken up again; what fails so often will fail once more.
const MAX_FAILURES: i32 = 5;

/// How long a call that goes on is kept so that the next session can be told all that was said: what this process has
/// not written yet is not. The edge waits for an answer for little longer than the first; Twilio then asks again.
const CATCH_UP_LIMIT: Duration = Duration::from_millis(1500);
const CATCH_UP_ATTEMPTS: u32 = 8;

/// Why a call is handed on that is one too many for this process.
pub const AT_CAPACITY: &str = "at_capacity";

/// A webhook about a call, and where Twilio is to come back to.
#[derive(Debug)]
pub struct Incoming<'a> {
    /// The facts.
    pub webhook: &'a CallWebhook,
    /// Public URL, without a path, of the server that Twilio asked.
    pub base: &'a str,
    /// How often the caller was asked to wait for this answer, counted from 1.
    pub attempt: u32,
    /// What Twilio repeats with this very question; `None`: it does not say.
    pub delivery: Option<&'a str>,
}

/// Everything that the database says about a number.
struct Known {
    route: NumberRoute,
    agent: Agent,
    number: PhoneNumber,
}

/// Answers an incoming call.
pub async fn voice(app: &App, incoming: &Incoming<'_>) -> Result<String, StoreError> {
    let known = match &incoming.webhook.to {
        Some(number) => find(app, number, &incoming.webhook.call_sid).await?,
        None => None,
    };
    let decision = decide_voice(Lookup::Truth(known.as_ref().map(|known| &known.route)));
    let call_sid = &incoming.webhook.call_sid;
    tracing::info!(%call_sid, decision = decision.as_str(), "incoming call decided");
    match (decision, known) {
        (VoiceDecision::Bridge { agent_id }, Some(known)) => {
            let call = begin(app, incoming, &known, SystemType::OpenaiRealtime).await?;
            if let Some(reason) = &call.pin_reason {
                return elsewhere::hand_on(app, incoming, &call, reason).await;
            }
            if !app.live.has_room(call.id, app.config.max_live_calls) {
                return elsewhere::hand_on(app, incoming, &call, AT_CAPACITY).await;
            }
            Ok(bridge(app, incoming.base, call_sid.clone(), agent_id, OffsetDateTime::now_utc(), 0))
        }
        (VoiceDecision::BypassToVapi { .. }, Some(known)) => bypass(app, incoming, &known).await,
        (VoiceDecision::RedirectToVapi { .. }, Some(known)) => {
            begin(app, incoming, &known, SystemType::Vapi).await?;
            Ok(answer::redirect_to_vapi(vapi_url(app)))
        }
        (VoiceDecision::Reject(rejection), known) => {
            if let Some(known) = &known {
                rejected(app, incoming, known, rejection.reason()).await?;
            }
            Ok(answer::reject(&rejection))
        }
        // The truth always decides; a decision for an agent has found one.
        (_, _) => Ok(answer::reject(&Rejection::NotInService)),
    }
}

/// Answers Twilio's question how a call goes on whose stream has ended.
pub async fn resume(app: &App, incoming: &Incoming<'_>) -> Result<String, StoreError> {
    if matches!(incoming.webhook.status, CallStatus::Over(_)) {
        return Ok(answer::nothing());
    }
    let call_sid = &incoming.webhook.call_sid;
    let call = store::calls::by_call_sid(&mut *app.db.acquire().await?, call_sid).await?;
    // However long it was held on its way here: what else may make it wait has not yet.
    let afresh = &Incoming { attempt: 1, ..*incoming };
    match call {
        // No stream was let in: the call has not begun on any system yet.
        None => voice(app, afresh).await,
        Some(call) if call.ended_at.is_some() && !is_answered_again(&call) => Ok(answer::hang_up()),
        // The edge, with a replica of another time, has bridged a call that had begun at Vapi.
        Some(call) if call.system_type == SystemType::Vapi => voice(app, afresh).await,
        Some(call) => match &call.pin_reason {
            Some(reason) => elsewhere::hand_on(app, afresh, &call, reason).await,
            // Whoever reaches an origin that stops asks again, and reaches another one.
            None if app.shutdown.is_cancelled() => {
                Ok(answer::hold(incoming.base, answer::path::RESUME, incoming.attempt))
            }
            None => take_up(app, incoming, &call).await,
        },
    }
}

/// Gives a live call a new stream, unless streams keep failing. What fails again may need more than a moment, so from
/// then on the caller is asked to wait each time. The same question again has the same answer.
async fn take_up(app: &App, incoming: &Incoming<'_>, call: &Call) -> Result<String, StoreError> {
    if incoming.attempt <= CATCH_UP_ATTEMPTS && timeout(CATCH_UP_LIMIT, app.recorder.flush()).await.is_err() {
        tracing::warn!(call_sid = %incoming.webhook.call_sid, "a call waits until it is written what was said in it");
        return Ok(answer::hold(incoming.base, answer::path::RESUME, incoming.attempt));
    }
    let mut conn = app.db.acquire().await?;
    let before = match incoming.delivery {
        Some(delivery) => store::calls::resumed_for(&mut conn, call.id, delivery).await?,
        None => None,
    };
    if before.is_none() && call.ended_at.is_some() {
        return given_up(&mut conn, call).await;
    }
    if before.is_none()
        && incoming.attempt == 1
        && (1..MAX_FAILURES).contains(&store::calls::failures(&mut conn, call.id).await?)
    {
        return Ok(answer::hold_after_failure(incoming.base, incoming.attempt));
    }
    let resumption = match before {
        Some(before) => before,
        None => store::calls::resumed(&mut conn, call.id, incoming.delivery).await?,
    };
    let Resumption { count: resumes, failures, at } = resumption;
    let call_sid = &incoming.webhook.call_sid;
    if failures <= MAX_FAILURES {
        tracing::warn!(%call_sid, resumes, "call lost its stream and is taken up again");
        return Ok(bridge(app, incoming.base, call_sid.clone(), call.agent_id, at, resumes));
    }
    tracing::error!(%call_sid, failures, reason = EndReason::StreamFailed.as_str(), "call given up");
    store::calls::end(&mut conn, call.id, OffsetDateTime::now_utc(), &EndReason::StreamFailed.into()).await?;
    given_up(&mut conn, call).await
}

/// Whether the call was over with the answer to a question like this one: whoever asks again has not heard it.
const fn is_answered_again(call: &Call) -> bool {
    matches!(call.end_reason, Some(EndReason::StreamFailed | EndReason::AgentUnavailable | EndReason::VapiUnavailable))
}

/// The answer for a call that nobody of ours takes: its agent's fallback number, or an apology.
async fn given_up(conn: &mut sqlx::PgConnection, call: &Call) -> Result<String, StoreError> {
    let agent = store::agents::by_id(conn, call.agent_id).await?;
    Ok(agent.and_then(|agent| agent.fallback_number).map_or_else(answer::apologise, |number| answer::dial(&number)))
}

/// Hands the call to Vapi, which gives the TwiML.
async fn bypass(app: &App, incoming: &Incoming<'_>, known: &Known) -> Result<String, StoreError> {
    let call = begin(app, incoming, known, SystemType::Vapi).await?;
    let handed_over = match wanted(incoming, known) {
        Ok(wanted) => handover::hand_over(app, &call, wanted).await,
        Err(error) => Err(error.into()),
    };
    match handed_over {
        Ok(Handover::Taken(twiml)) => Ok(twiml),
        Ok(Handover::Waits) if answer::may_hold(answer::path::VOICE, incoming.attempt) => {
            Ok(answer::hold(incoming.base, answer::path::VOICE, incoming.attempt))
        }
        Ok(Handover::Waits | Handover::Over) => vapi_unavailable(app, incoming, known, &call).await,
        Err(HandoverError::Vapi(error)) => {
            let call_sid = &incoming.webhook.call_sid;
            tracing::error!(%call_sid, error = &error as &dyn std::error::Error, "Vapi does not take the call");
            vapi_unavailable(app, incoming, known, &call).await
        }
        Err(HandoverError::Store(error)) => Err(error),
    }
}

fn wanted(incoming: &Incoming<'_>, known: &Known) -> Result<Wanted, VapiError> {
    let (number, agent) = (&known.number, &known.agent);
    Ok(Wanted {
        phone_number_id: number.vapi_phone_number_id.clone().ok_or(VapiError::Incomplete("phone number id"))?,
        assistant_id: agent.vapi_assistant_id.clone().ok_or(VapiError::Incomplete("assistant id"))?,
        customer: incoming.webhook.from.clone(),
        call_sid: incoming.webhook.call_sid.clone(),
    })
}

/// The first to say so ends the call; whoever asks again hears the same.
async fn vapi_unavailable(
    app: &App,
    incoming: &Incoming<'_>,
    known: &Known,
    call: &Call,
) -> Result<String, StoreError> {
    let mut conn = app.db.acquire().await?;
    if store::calls::end(&mut conn, call.id, OffsetDateTime::now_utc(), &EndReason::VapiUnavailable.into()).await? {
        drop(conn);
        rejected(app, incoming, known, EndReason::VapiUnavailable.as_str()).await?;
    }
    Ok(known.agent.fallback_number.as_ref().map_or_else(answer::apologise, answer::dial))
}

/// A token is good for one stream and known by its second: a call that is taken up again within the same one needs
/// another, so each time counts as a second.
fn bridge(app: &App, base: &str, call_sid: CallSid, agent_id: AgentId, at: OffsetDateTime, resumes: i32) -> String {
    let now = unix(at) + u64::try_from(resumes).unwrap_or(0);
    let token = StreamGrant::new(call_sid, agent_id, now).mint(app.config.edge_origin_secret.signing());
    answer::bridge(app.config.media_url.as_str(), base, token)
}

/// Records the call and pins it; an earlier record and its pin stand.
async fn begin(app: &App, incoming: &Incoming<'_>, known: &Known, system: SystemType) -> Result<Call, StoreError> {
    let webhook = incoming.webhook;
    let new = NewCall {
        project_id: known.agent.project_id,
        agent_id: known.agent.id,
        number_id: Some(known.number.id),
        call_sid: Some(&webhook.call_sid),
        vapi_call_id: None,
        from: webhook.from.as_ref().map(E164::as_str),
        to: webhook.to.as_ref().map(E164::as_str),
        system_type: system,
        started_at: OffsetDateTime::now_utc(),
    };
    let mut conn = app.db.acquire().await?;
    let (call, _) = store::calls::begin(&mut conn, &new).await?;
    if let Some(account) = &webhook.account_sid {
        store::calls::set_account(&mut conn, call.id, account).await?;
    }
    Ok(call)
}

/// Logged once for a call and a reason, however often Twilio asks.
async fn rejected(app: &App, incoming: &Incoming<'_>, known: &Known, reason: &str) -> Result<(), StoreError> {
    let event = NewEvent {
        agent_id: Some(known.agent.id),
        number_id: Some(known.number.id),
        details: serde_json::json!({ "reason": reason, "callSid": incoming.webhook.call_sid }),
        ..NewEvent::new(known.agent.project_id, "call.rejected", &Actor::Origin)
    };
    let alike = format!("{} {reason}", incoming.webhook.call_sid);
    store::events::append_once(&mut *app.db.acquire().await?, &event, &alike).await
}

/// What the database says about a number, and about the call: one that has begun stays on its system, as if agent and
/// number had never left it.
async fn find(app: &App, number: &E164, call_sid: &CallSid) -> Result<Option<Known>, StoreError> {
    let mut conn = app.db.acquire().await?;
    let Some(mut route) = store::routes::number(&mut conn, number).await? else { return Ok(None) };
    let Some(number) = store::numbers::by_number(&mut conn, number).await? else { return Ok(None) };
    let Some(agent) = store::agents::by_id(&mut conn, route.agent_id).await? else { return Ok(None) };
    if let Some(call) = store::calls::by_call_sid(&mut conn, call_sid).await? {
        route.agent_system_type = call.system_type;
        route.number_system_type = call.system_type;
    }
    // The number goes straight to Vapi from now on, but Twilio does not know that yet: nobody is turned away for it.
    if route.vapi_handover == VapiHandover::None
        && number.vapi_phone_number_id.is_some()
        && pointing::may_have_come_to_us(&mut conn, agent.id, &number.number, OffsetDateTime::now_utc()).await?
    {
        route.vapi_handover = VapiHandover::Bypass;
    }
    Ok(Some(Known { route, agent, number }))
}

fn vapi_url(app: &App) -> &str {
    app.config.vapi.as_ref().map_or("https://api.vapi.ai", |vapi| vapi.api_url.as_str())
}

/// Unix seconds.
pub fn unix_now() -> u64 {
    unix(OffsetDateTime::now_utc())
}

fn unix(at: OffsetDateTime) -> u64 {
    u64::try_from(at.unix_timestamp()).unwrap_or(0)
}
