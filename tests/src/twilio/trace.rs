//! What happened in a call, in order: for people to read and for tests to ask.

use std::fmt;

use serde::Serialize;

use super::sid::StreamSid;

/// One entry.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TraceEntry {
    /// Milliseconds since the call began, on its own clock (faster than the wall's if `pace` is).
    pub at_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// Why Twilio made a webhook request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Purpose {
    /// The voice URL of a number, or the `Url` of an outbound call.
    Voice,
    /// The fallback URL, after a failure.
    Fallback,
    /// A `<Redirect>`.
    Redirect,
    /// The `action` of a verb.
    Action,
    /// A live call was given a new `Url` by REST.
    Update,
    /// A call status callback.
    CallStatus,
    /// A stream status callback.
    StreamStatus,
}

/// What can happen in a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[allow(missing_docs, reason = "the names and the printed form say it")]
pub enum What {
    Ringing {
        from: String,
        to: String,
    },
    /// One attempt of a webhook request, when it ended. `took_us`: connect to last byte, on the wall's clock.
    Webhook {
        purpose: Purpose,
        method: String,
        url: String,
        status: Option<u16>,
        error: Option<String>,
        took_us: u64,
    },
    Answered,
    /// A verb begins.
    Verb {
        name: String,
        detail: String,
    },
    StreamConnecting {
        url: String,
    },
    StreamStarted {
        stream_sid: StreamSid,
    },
    /// The stream is over: who ended it and how.
    StreamStopped {
        stream_sid: StreamSid,
        reason: String,
    },
    StreamFailed {
        stream_sid: StreamSid,
        code: u32,
        error: String,
    },
    /// A mark was sent back to our side: its audio had been played, or was cleared.
    Mark {
        name: String,
        cleared: bool,
    },
    /// Our side cleared the buffer; so much had not been played.
    Cleared {
        dropped_ms: u64,
    },
    CallerSpeaks,
    CallerQuiet {
        spoke_ms: u64,
    },
    AgentSpeaks,
    AgentQuiet {
        spoke_ms: u64,
    },
    Dtmf {
        digits: String,
    },
    Dialled {
        number: String,
        status: String,
    },
    /// Our side presses keys: towards the caller with `<Play>`, or at whoever a `<Dial>` reached.
    Pressed {
        digits: String,
    },
    /// An error or warning as in Twilio's debugger.
    Notified {
        code: u32,
        text: String,
    },
    Ended {
        reason: EndReason,
    },
}

/// Why a call is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum EndReason {
    /// The caller hung up, by script or by the handle.
    CallerHungUp,
    /// The caller waited for something in vain and hung up.
    CallerGaveUp,
    /// `<Hangup>`, or a `<Reject>` of an answered call.
    HungUp,
    /// A first-verb `<Reject>`: never answered.
    Rejected,
    /// No verb was left.
    EndOfDocument,
    /// A document could not be had or read, and no fallback helped.
    ApplicationError,
    /// REST: `Status=completed` or `canceled`.
    CompletedByApi,
    /// Not answered: the number dialled was busy, did not answer, or does not exist.
    Unanswered,
    /// The number has no voice URL (or a trunk or application that is not simulated).
    NotConfigured,
    /// The call reached its time limit.
    TimeLimit,
}

impl fmt::Display for TraceEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.at_ms / 1000, self.at_ms % 1000);
        write!(f, "{seconds:>4}.{millis:03}  {}", self.what)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ringing { from, to } => write!(f, "{from} calls {to}"),
            Self::Webhook { purpose, method, url, status, error, took_us } => {
                let ms = format!("{}.{}", took_us / 1000, took_us % 1000 / 100);
                write!(f, "{purpose:?} webhook: {method} {url} → ")?;
                match (status, error) {
                    (Some(status), None) => write!(f, "{status} in {ms} ms"),
                    (Some(status), Some(error)) => write!(f, "{status} in {ms} ms: {error}"),
                    (None, error) => write!(f, "failed after {ms} ms: {}", error.as_deref().unwrap_or("no answer")),
                }
            }
            Self::Answered => f.write_str("answered"),
            Self::Verb { name, detail } if detail.is_empty() => write!(f, "<{name}>"),
            Self::Verb { name, detail } => write!(f, "<{name}> {detail}"),
            Self::StreamConnecting { url } => write!(f, "stream connects to {url}"),
            Self::StreamStarted { stream_sid } => write!(f, "stream {stream_sid} started"),
            Self::StreamStopped { reason, .. } => write!(f, "stream stopped: {reason}"),
            Self::StreamFailed { code, error, .. } => write!(f, "stream failed: {code} {error}"),
            Self::Mark { name, cleared: false } => write!(f, "mark {name} played"),
            Self::Mark { name, cleared: true } => write!(f, "mark {name} cleared"),
            Self::Cleared { dropped_ms } => {
                write!(f, "our side cleared {dropped_ms} ms of unheard audio")
            }
            Self::CallerSpeaks => f.write_str("caller speaks"),
            Self::CallerQuiet { spoke_ms } => write!(f, "caller is quiet after {spoke_ms} ms"),
            Self::AgentSpeaks => f.write_str("agent speaks"),
            Self::AgentQuiet { spoke_ms } => write!(f, "agent is quiet after {spoke_ms} ms"),
            Self::Dtmf { digits } => write!(f, "caller presses {digits}"),
            Self::Dialled { number, status } => write!(f, "dialled {number}: {status}"),
            Self::Pressed { digits } => write!(f, "our side presses {digits}"),
            Self::Notified { code, text } => write!(f, "Twilio notes {code}: {text}"),
            Self::Ended { reason } => write!(f, "ended: {reason}"),
        }
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CallerHungUp => "the caller hung up",
            Self::CallerGaveUp => "the caller gave up waiting and hung up",
            Self::HungUp => "our side hung up",
            Self::Rejected => "rejected, not answered",
            Self::EndOfDocument => "nothing was left to do",
            Self::ApplicationError => "an application error has occurred",
            Self::CompletedByApi => "ended through the REST API",
            Self::Unanswered => "not answered",
            Self::NotConfigured => "the number has no voice URL",
            Self::TimeLimit => "the call's time limit",
        })
    }
}
