//! Calls as Twilio tells of them in status callbacks. Best effort, repeated and out of order: the record is the same
//! for every order.

use shared::twilio::form::Form;
use shared::twilio::webhook::{CallOutcome, CallStatus, CallWebhook};
use shared::{E164, SystemType};
use sqlx::PgConnection;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::end_reason::{EndReason, Ending};
use crate::inbox::{State, told_at};
use crate::store::calls;
use crate::store::{self};

/// Does what a status callback says.
pub async fn note_status(conn: &mut PgConnection, form: &Form<'_>, facts: &CallWebhook) -> store::Result<State> {
    let Some(call) = calls::by_call_sid(conn, &facts.call_sid).await? else { return Ok(State::Unknown) };
    if let Some(account) = &facts.account_sid {
        calls::set_account(conn, call.id, account).await?;
    }
    let (from, to) = (facts.from.as_ref().map(E164::as_str), facts.to.as_ref().map(E164::as_str));
    calls::set_parties(conn, call.id, None, from, to).await?;
    let at = told_at(timestamp(form), OffsetDateTime::now_utc());
    match facts.status {
        CallStatus::InProgress => calls::answered(conn, call.id, at).await?,
        // Vapi reports its own calls, with a better reason.
        CallStatus::Over(CallOutcome::Completed) if call.system_type == SystemType::Vapi => {}
        CallStatus::Over(outcome) => {
            let reason = match outcome {
                // Had the agent ended it, the bridge would say so, now or later.
                CallOutcome::Completed => EndReason::CallerHungUp,
                CallOutcome::Busy => EndReason::Busy,
                CallOutcome::NoAnswer => EndReason::NoAnswer,
                CallOutcome::Failed => EndReason::CarrierFailed,
                CallOutcome::Canceled => EndReason::Canceled,
            };
            calls::end(conn, call.id, at, &Ending::from(reason).guessed(outcome.as_str())).await?;
        }
        CallStatus::Ringing | CallStatus::Other => {}
    }
    Ok(State::Applied)
}

/// When it happened, to the second.
fn timestamp(form: &Form<'_>) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(form.get("Timestamp")?, &Rfc2822).ok()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn times_are_rfc_2822() {
        let at = |body: &[u8]| timestamp(&Form::parse(body).unwrap());
        let expected = datetime!(2018-03-25 09:53:19 UTC);
        assert_eq!(at(b"Timestamp=Sun%2C+25+Mar+2018+09%3A53%3A19+%2B0000"), Some(expected));
        assert_eq!((at(b"Timestamp=2018-03-25"), at(b"CallSid=CA01")), (None, None));
    }
}
