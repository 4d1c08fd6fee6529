//! The facts of a Twilio webhook that anything here turns on.

use super::form::Form;
use crate::{AccountSid, CallSid, E164, hop};

/// The header that is the same on every retry of one webhook. Unsigned, and it may be absent.
pub const IDEMPOTENCY_HEADER: &str = "i-twilio-idempotency-token";

/// Twilio's word for what a call is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallStatus {
    /// Not answered yet.
    Ringing,
    /// Answered and going on.
    InProgress,
    /// Over, whatever the outcome.
    Over(CallOutcome),
    /// Waiting to start, or a word that Twilio has added since.
    Other,
}

/// How a call ended, in Twilio's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// It was answered and is over.
    Completed,
    /// The called side was busy.
    Busy,
    /// Nobody answered.
    NoAnswer,
    /// It could not be connected.
    Failed,
    /// It was given up before it was answered.
    Canceled,
}

impl CallOutcome {
    /// Twilio's spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Busy => "busy",
            Self::NoAnswer => "no-answer",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }
}

impl CallStatus {
    /// Reads Twilio's `CallStatus`.
    pub fn parse(word: &str) -> Self {
        match word {
            "ringing" => Self::Ringing,
            "in-progress" | "answered" => Self::InProgress,
            "completed" => Self::Over(CallOutcome::Completed),
            "busy" => Self::Over(CallOutcome::Busy),
            "no-answer" => Self::Over(CallOutcome::NoAnswer),
            "failed" => Self::Over(CallOutcome::Failed),
            "canceled" => Self::Over(CallOutcome::Canceled),
            _ => Self::Other,
        }
    }
}

/// How dialling ended, in Twilio's words (`DialCallStatus`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialOutcome {
    /// Somebody took the call, and that conversation is over.
    Answered,
    /// The line was busy.
    Busy,
    /// Nobody answered.
    NoAnswer,
    /// It could not be connected.
    Failed,
    /// It was given up.
    Canceled,
}

impl DialOutcome {
    /// Twilio's spelling; it has two for the first.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "completed",
            Self::Busy => "busy",
            Self::NoAnswer => "no-answer",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }

    /// Reads Twilio's `DialCallStatus`.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "completed" | "answered" => Self::Answered,
            "busy" => Self::Busy,
            "no-answer" => Self::NoAnswer,
            "failed" => Self::Failed,
            "canceled" => Self::Canceled,
            _ => return None,
        })
    }
}

/// A webhook about one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallWebhook {
    /// The call.
    pub call_sid: CallSid,
    /// The account that owns the number.
    pub account_sid: Option<AccountSid>,
    /// The number that was called; `None` for SIP and client addresses, which no route has.
    pub to: Option<E164>,
    /// Who calls; `None` when withheld or not a number.
    pub from: Option<E164>,
    /// What the call is doing.
    pub status: CallStatus,
    /// How a `<Dial>` ended, if this tells of one.
    pub dialled: Option<DialOutcome>,
}

/// A form that is not about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the form has no valid CallSid")]
pub struct NoCallSid;

impl CallWebhook {
    /// Reads the facts from a form.
    pub fn from_form(form: &Form<'_>) -> Result<Self, NoCallSid> {
        Ok(Self {
            call_sid: form.get("CallSid").and_then(|sid| sid.parse().ok()).ok_or(NoCallSid)?,
            account_sid: form.get("AccountSid").and_then(|sid| sid.parse().ok()),
            to: form.get("To").and_then(|number| number.parse().ok()),
            from: form.get("From").and_then(|number| number.parse().ok()),
            status: form.get("CallStatus").map_or(CallStatus::Other, CallStatus::parse),
            dialled: form.get("DialCallStatus").and_then(DialOutcome::parse),
        })
    }
}

/// The idempotency key of a webhook: what the sender repeats, never what we think of the call.
///
/// Twilio's own token if it sent one; else the call with what tells its webhooks apart.
pub fn delivery_id(path: &str, form: &Form<'_>, idempotency_token: Option<&str>) -> String {
    if let Some(token) = idempotency_token.filter(|token| !token.is_empty()) {
        return hop::delivery(format!("twilio:{token}"));
    }
    let field = |name| form.get(name).unwrap_or("-");
    hop::delivery(format!(
        "twilio:{path}:{}:{}:{}:{}",
        field("CallSid"),
        form.get("StreamEvent").or_else(|| form.get("CallStatus")).unwrap_or("-"),
        form.get("StreamSid").or_else(|| form.get("SequenceNumber")).unwrap_or("-"),
        field("DialCallStatus"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_an_incoming_call() {
        let form =
            Form::parse(b"CallSid=CA01&AccountSid=AC02&To=%2B15550100&From=Anonymous&CallStatus=ringing").unwrap();
        let webhook = CallWebhook::from_form(&form).unwrap();
        assert_eq!(webhook.to.unwrap().as_str(), "+15550100");
        assert_eq!(webhook.from, None);
        assert_eq!(webhook.status, CallStatus::Ringing);
        assert_eq!(CallWebhook::from_form(&Form::parse(b"To=%2B15550100").unwrap()), Err(NoCallSid));
    }

    #[test]
    fn a_delivery_is_known_by_what_the_sender_repeats() {
        let form = Form::parse(b"CallSid=CA01&CallStatus=completed&SequenceNumber=3&Timestamp=x").unwrap();
        let again = Form::parse(b"CallSid=CA01&CallStatus=completed&SequenceNumber=3&Timestamp=y").unwrap();
        let other = Form::parse(b"CallSid=CA01&CallStatus=in-progress&SequenceNumber=2").unwrap();
        let id = |form| delivery_id("/twilio/status", form, None);
        assert_eq!(id(&form), id(&again));
        assert_ne!(id(&form), id(&other));
        assert_eq!(
            delivery_id("/twilio/status", &form, Some("tok")),
            delivery_id("/twilio/status", &other, Some("tok"))
        );
    }
}
