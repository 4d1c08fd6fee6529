//! One webhook on its way to the origin: how it is signed, what the origin's status means, and what comes next.

use shared::hop::{self, SignedRequest};

use crate::reply::{Problem, Reply};
use crate::settings::Settings;

/// How a webhook is forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// The sender waits for the origin's answer.
    Ask {
        /// How long the origin may take, in milliseconds.
        limit_ms: u32,
        /// The answer when it does not give one.
        otherwise: Reply,
    },
    /// The origin, or else the queue, takes the event.
    Deliver {
        /// How long the origin may take, in milliseconds.
        limit_ms: u32,
        /// The answer when either took it.
        accepted: Reply,
    },
}

impl Forwarding {
    /// How long the origin may take, in milliseconds.
    pub const fn limit_ms(&self) -> u32 {
        match self {
            Self::Ask { limit_ms, .. } | Self::Deliver { limit_ms, .. } => *limit_ms,
        }
    }

    /// What follows from the origin's status; `None` when it could not be reached in time.
    pub fn settle(self, status: Option<u16>) -> Next {
        match (self, Verdict::of(status)) {
            // Only 200 carries an answer; a redirect or an empty success would be none to the sender.
            (Self::Ask { .. }, Verdict::Taken) if status == Some(200) => Next::PassOn,
            (Self::Ask { otherwise, .. }, _) => Next::Answer(otherwise),
            (Self::Deliver { accepted, .. }, Verdict::Taken) => Next::Answer(accepted),
            (Self::Deliver { .. }, Verdict::Refused) => Next::PassOn,
            (Self::Deliver { accepted, .. }, Verdict::NotTaken) => Next::Keep { accepted },
        }
    }
}

/// What is done after the origin was asked or told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Answer what the origin answered.
    PassOn,
    /// Answer this.
    Answer(Reply),
    /// Put the event on the queue, then answer.
    Keep {
        /// The answer once it is there.
        accepted: Reply,
    },
}

impl Next {
    /// The answer after an attempt to keep the event.
    pub fn kept(kept: bool, accepted: Reply) -> Reply {
        if kept { accepted } else { Problem::Unavailable.into() }
    }
}

/// What the origin's status says about an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The origin has it.
    Taken,
    /// The origin read it and will never take it.
    Refused,
    /// The origin does not have it, and may take it later.
    NotTaken,
}

impl Verdict {
    /// Reads a status; `None` when there was none in time.
    ///
    /// Only these four judge the event itself. Any other 4xx is about the way there: a secret that is being rotated
    /// (401, 403), a proxy without the origin behind it (404), a limit (408, 429).
    pub const fn of(status: Option<u16>) -> Self {
        match status {
            Some(200..=299) => Self::Taken,
            Some(400 | 413 | 415 | 422) => Self::Refused,
            _ => Self::NotTaken,
        }
    }
}

/// One request to the origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginRequest {
    /// Where to.
    pub url: String,
    /// Value of `Tandem-Signature`.
    pub signature: String,
}

impl OriginRequest {
    /// Signs a body for the origin at `now`, in unix seconds.
    pub fn sign(settings: &Settings, path_and_query: &str, body: &[u8], now: u64) -> Self {
        let request = SignedRequest { method: "POST", path_and_query, body };
        Self {
            url: format!("{}{path_and_query}", settings.origin_url),
            signature: hop::sign(&settings.hop_secret, now, request),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::settings;

    #[test]
    fn a_question_gets_the_origins_answer_or_ours() {
        let ask = || Forwarding::Ask { limit_ms: 1, otherwise: Reply::nothing() };
        assert_eq!(ask().settle(Some(200)), Next::PassOn);
        for status in [None, Some(204), Some(302), Some(400), Some(401), Some(500), Some(522)] {
            assert_eq!(ask().settle(status), Next::Answer(Reply::nothing()), "{status:?}");
        }
    }

    #[test]
    fn an_event_is_taken_refused_or_kept() {
        let deliver = || Forwarding::Deliver { limit_ms: 1, accepted: Reply::nothing() };
        for status in [200, 204] {
            assert_eq!(deliver().settle(Some(status)), Next::Answer(Reply::nothing()), "{status}");
        }
        for status in [400, 413, 415, 422] {
            assert_eq!(deliver().settle(Some(status)), Next::PassOn, "{status}");
        }
        for status in [None, Some(302), Some(401), Some(404), Some(429), Some(503), Some(522)] {
            assert_eq!(deliver().settle(status), Next::Keep { accepted: Reply::nothing() }, "{status:?}");
        }
        assert_eq!(Next::kept(true, Reply::nothing()).status, 204);
        assert_eq!(Next::kept(false, Reply::nothing()).status, 503);
    }

    #[test]
    fn what_is_sent_verifies_at_the_origin() {
        let request = OriginRequest::sign(&settings(), "/twilio/voice?attempt=2", b"a=1", 1_795_000_000);
        assert_eq!(request.url, "http://127.0.0.1:8080/twilio/voice?attempt=2");
        let signed = SignedRequest { method: "POST", path_and_query: "/twilio/voice?attempt=2", body: b"a=1" };
        assert_eq!(hop::verify("hop-secret", 1_795_000_000, &request.signature, signed), Ok(()));
    }
}
