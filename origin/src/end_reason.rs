//! Why calls end: one set of reasons for both systems, so that calls can be compared.
//!
//! Vapi has some 600 words for it, an open set that falls into families; the table here brings them to ours, and the
//! word itself is kept beside (`end_detail`). Source: Vapi's reference of `endedReason`, and its Python SDK 3.0.0.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why a call ended, in our words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The caller hung up.
    CallerHungUp,
    /// The agent said goodbye and ended it.
    AgentHungUp,
    /// Somebody else took the caller over.
    Transferred,
    /// The caller was to be transferred, and nobody took them.
    TransferFailed,
    /// Nobody said anything for too long.
    Silence,
    /// It had lasted as long as it may.
    MaxDuration,
    /// A machine answered.
    Voicemail,
    /// Nobody answered.
    NoAnswer,
    /// The line was busy.
    Busy,
    /// It was given up before anybody had answered.
    Canceled,
    /// A person or a program stopped it from outside.
    Stopped,
    /// The agent could not take it: not to be found, not valid, not paid for, too many calls.
    AgentUnavailable,
    /// Vapi did not take it when it was handed over.
    VapiUnavailable,
    /// A provider of models, voices or transcripts failed.
    ProviderFailed,
    /// The voice system itself failed.
    SystemFailed,
    /// Its audio was lost again and again.
    StreamFailed,
    /// The telephone network, or the way to it.
    CarrierFailed,
    /// It was over when the provider was asked; nobody had told.
    Reconciled,
    /// A word that we do not know.
    Other,
}

impl EndReason {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::CallerHungUp,
        Self::AgentHungUp,
        Self::Transferred,
        Self::TransferFailed,
        Self::Silence,
        Self::MaxDuration,
        Self::Voicemail,
        Self::NoAnswer,
        Self::Busy,
        Self::Canceled,
        Self::Stopped,
        Self::AgentUnavailable,
        Self::VapiUnavailable,
        Self::ProviderFailed,
        Self::SystemFailed,
        Self::StreamFailed,
        Self::CarrierFailed,
        Self::Reconciled,
        Self::Other,
    ];

    /// The spelling in the database and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CallerHungUp => "caller_hung_up",
            Self::AgentHungUp => "agent_hung_up",
            Self::Transferred => "transferred",
            Self::TransferFailed => "transfer_failed",
            Self::Silence => "silence",
            Self::MaxDuration => "max_duration",
            Self::Voicemail => "voicemail",
            Self::NoAnswer => "no_answer",
            Self::Busy => "busy",
            Self::Canceled => "canceled",
            Self::Stopped => "stopped",
            Self::AgentUnavailable => "agent_unavailable",
            Self::VapiUnavailable => "vapi_unavailable",
            Self::ProviderFailed => "provider_failed",
            Self::SystemFailed => "system_failed",
            Self::StreamFailed => "stream_failed",
            Self::CarrierFailed => "carrier_failed",
            Self::Reconciled => "reconciled",
            Self::Other => "other",
        }
    }

    /// Reads our own spelling.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }

    /// What Vapi's `endedReason` means.
    pub fn of_vapi(word: &str) -> Self {
        let fits = |(pattern, _): &&(&str, Self)| match pattern.strip_suffix('*') {
            Some(start) => word.starts_with(start),
            None => word == *pattern,
        };
        VAPI.iter().find(fits).map_or(Self::Other, |(_, reason)| *reason)
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Vapi's words and families (`*`: whatever begins so), and ours for them. The first that fits counts.
const VAPI: &[(&str, EndReason)] = &[
    ("customer-busy", EndReason::Busy),
    ("customer-did-not-answer", EndReason::NoAnswer),
    ("customer-did-not-give-microphone-permission", EndReason::Canceled),
    // Also during and around transfers: whatever was tried, it was the caller who ended it.
    ("customer-ended-call*", EndReason::CallerHungUp),
    // Vapi has begun the transfer; what came of it is not told.
    ("assistant-forwarded-call", EndReason::Transferred),
    ("assistant-ended-call*", EndReason::AgentHungUp),
    ("assistant-said-end-call-phrase", EndReason::AgentHungUp),
    ("assistant-request-returned-forwarding-phone-number", EndReason::Transferred),
    // Not found, not valid, did not join, could not be asked for.
    ("assistant-*", EndReason::AgentUnavailable),
    ("silence-timed-out", EndReason::Silence),
    ("exceeded-max-duration", EndReason::MaxDuration),
    ("voicemail", EndReason::Voicemail),
    ("manually-canceled", EndReason::Stopped),
    ("call-deleted", EndReason::Stopped),
    ("scheduled-call-deleted", EndReason::Stopped),
    ("worker-shutdown", EndReason::SystemFailed),
    // Vapi's own failures at the start, before the others of its family.
    ("call.start.error-vapifault-*", EndReason::SystemFailed),
    ("call.start.*", EndReason::AgentUnavailable),
    ("call-start-error-*", EndReason::AgentUnavailable),
    ("call.ringing.hook-executed-transfer", EndReason::Transferred),
    ("call.ending.hook-executed-transfer", EndReason::Transferred),
    ("call.ringing.hook-executed-*", EndReason::AgentHungUp),
    ("call.ending.hook-executed-*", EndReason::AgentHungUp),
    ("call.ringing.sip-inbound-caller-hungup-before-call-connect", EndReason::Canceled),
    ("call.ringing.error-sip-*", EndReason::CarrierFailed),
    ("call.forwarding.*", EndReason::TransferFailed),
    ("call.in-progress.error-transfer-failed", EndReason::TransferFailed),
    ("call.in-progress.error-warm-transfer-*", EndReason::TransferFailed),
    ("call.in-progress.error-vapifault-*", EndReason::SystemFailed),
    ("call.in-progress.error-providerfault-outbound-sip-*", EndReason::CarrierFailed),
    ("call.in-progress.error-providerfault-*", EndReason::ProviderFailed),
    ("call.in-progress.error-pipeline-*", EndReason::ProviderFailed),
    ("call.in-progress.error-configfault-*", EndReason::AgentUnavailable),
    ("call.in-progress.error-sip-*", EndReason::CarrierFailed),
    ("call.in-progress.error-assistant-did-not-receive-customer-audio", EndReason::CarrierFailed),
    // The other side of the line ended it.
    ("call.in-progress.twilio-completed-call", EndReason::CallerHungUp),
    ("call.in-progress.sip-completed-call", EndReason::CallerHungUp),
    ("call.in-progress.error-*", EndReason::SystemFailed),
    // Older words for a model, a voice or a transcriber that failed.
    ("pipeline-*", EndReason::ProviderFailed),
    ("phone-call-provider-*", EndReason::CarrierFailed),
    ("vonage-completed", EndReason::CallerHungUp),
    ("twilio-*", EndReason::CarrierFailed),
    ("vonage-*", EndReason::CarrierFailed),
    ("sip-*", EndReason::CarrierFailed),
];

/// The end of a call, as somebody tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Why.
    pub reason: EndReason,
    /// The provider's own word.
    pub detail: Option<String>,
    /// Whether it is told by somebody who saw the call from outside only. Whoever ran it may say better later.
    pub guessed: bool,
}

impl Ending {
    /// In Vapi's words.
    pub fn of_vapi(word: &str) -> Self {
        Self { detail: Some(word.to_owned()), ..EndReason::of_vapi(word).into() }
    }

    /// In the bridge's words; one that has no reason of its own here is kept as the detail.
    pub fn of_bridge(word: &'static str) -> Self {
        match EndReason::parse(word) {
            Some(reason) => reason.into(),
            None => Self { detail: Some(word.to_owned()), ..EndReason::Other.into() },
        }
    }

    /// The same, told from outside.
    #[must_use]
    pub fn guessed(self, word: &str) -> Self {
        Self { detail: Some(word.to_owned()), guessed: true, ..self }
    }
}

impl From<EndReason> for Ending {
    fn from(reason: EndReason) -> Self {
        Self { reason, detail: None, guessed: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All of Vapi's words but the 500 that name a provider or a fault after a family's start, of which there are some.
    const WORDS: &str = include_str!("end_reason/vapi_words.txt");

    #[test]
    fn spellings_are_read_back() {
        for reason in EndReason::ALL {
            assert_eq!(EndReason::parse(reason.as_str()), Some(reason));
        }
        assert_eq!(EndReason::parse("customer-ended-call"), None);
    }

    #[test]
    fn every_word_of_vapis_has_a_reason() {
        let mut count = 0;
        for line in WORDS.lines() {
            let (word, ours) = line.split_once(' ').expect("a word and ours");
            assert_eq!(EndReason::of_vapi(word).as_str(), ours, "{word}");
            count += 1;
        }
        assert!(count > 80, "{count}");
    }

    #[test]
    fn every_row_of_the_table_is_reached() {
        for (at, (pattern, _)) in VAPI.iter().enumerate() {
            let word = pattern.replace('*', "x");
            let first = VAPI.iter().position(|(earlier, _)| match earlier.strip_suffix('*') {
                Some(start) => word.starts_with(start),
                None => word == *earlier,
            });
            assert_eq!(first, Some(at), "{pattern}");
        }
    }

    #[test]
    fn every_end_of_a_call_that_the_bridge_tells_has_a_reason() {
        use crate::bridge::call::EndReason as Told;
        for told in [Told::CallerHungUp, Told::AgentHungUp, Told::Silence, Told::MaxDuration] {
            assert!(told.ends_call());
            let ending = Ending::of_bridge(told.as_str());
            assert_eq!((ending.reason.as_str(), ending.detail), (told.as_str(), None));
        }
    }

    #[test]
    fn an_unknown_word_is_kept() {
        let ending = Ending::of_vapi("brand-new-reason");
        assert_eq!((ending.reason, ending.detail.as_deref()), (EndReason::Other, Some("brand-new-reason")));
        let ending = Ending::of_bridge("brand_new");
        assert_eq!((ending.reason, ending.detail.as_deref()), (EndReason::Other, Some("brand_new")));
    }
}
