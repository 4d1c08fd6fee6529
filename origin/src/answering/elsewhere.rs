//! Where a call goes that OpenAI Realtime cannot have: to the agent's assistant at Vapi, else to its fallback number,
//! else it ends with an apology.
//!
//! The call is pinned to Vapi with the reason, so that all its events are Vapi's from then on, and a webhook that
//! Twilio repeats finds the pin.

use shared::SystemType;
use shared::route::VapiHandover;
use time::OffsetDateTime;

use super::{Incoming, Known, bypass, find, given_up};
use crate::App;
use crate::end_reason::EndReason;
use crate::store::calls::Call;
use crate::store::events::{Actor, NewEvent};
use crate::store::{self, StoreError};

/// Answers for a call that its system cannot have.
pub(super) async fn hand_on(
    app: &App,
    incoming: &Incoming<'_>,
    call: &Call,
    reason: &str,
) -> Result<String, StoreError> {
    let call_sid = &incoming.webhook.call_sid;
    let known = match &incoming.webhook.to {
        Some(number) => find(app, number, call_sid).await?,
        None => None,
    };
    let mut conn = app.db.acquire().await?;
    if let Some(known) = known.filter(|known| vapi_may_take(app, known)) {
        if store::calls::move_pin(&mut conn, call.id, SystemType::Vapi, reason).await? {
            tracing::warn!(%call_sid, reason, "call handed on to Vapi");
            log(&mut conn, call, "call.moved", reason).await?;
        }
        drop(conn);
        return bypass(app, incoming, &known).await;
    }
    tracing::error!(%call_sid, reason, "call cannot be taken");
    store::calls::must_leave(&mut conn, call.id, reason).await?;
    if store::calls::end(&mut conn, call.id, OffsetDateTime::now_utc(), &EndReason::AgentUnavailable.into()).await? {
        log(&mut conn, call, "call.rejected", reason).await?;
    }
    given_up(&mut conn, call).await
}

/// Whether the agent has an assistant at Vapi and its number may hand calls to it. A redirect would not do: Vapi takes
/// it only while the call rings.
fn vapi_may_take(app: &App, known: &Known) -> bool {
    app.config.vapi.is_some()
        && known.agent.vapi_assistant_id.is_some()
        && known.route.vapi_handover == VapiHandover::Bypass
        && known.number.vapi_phone_number_id.is_some()
}

async fn log(conn: &mut sqlx::PgConnection, call: &Call, event: &'static str, reason: &str) -> Result<(), StoreError> {
    let event = NewEvent {
        agent_id: Some(call.agent_id),
        number_id: call.number_id,
        call_id: Some(call.id),
        details: serde_json::json!({ "reason": reason, "callSid": call.call_sid }),
        ..NewEvent::new(call.project_id, event, &Actor::Origin)
    };
    store::events::append(conn, &event).await
}
